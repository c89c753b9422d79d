"""A file written through whole_file is the old one or the new one, and nothing else lies beside it."""

from pathlib import Path

import pytest

from whole_file import whole_file


def test_the_new_file_takes_the_old_ones_place(tmp_path: Path):
    path = tmp_path / "card.json"
    path.write_text("old", encoding="utf-8")
    with whole_file(path) as unfinished:
        unfinished.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
        assert unfinished.suffix == ".json"  # Keras and NumPy choose the format by it
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_written_over(tmp_path: Path):
    path = tmp_path / "last.npz"
    with whole_file(path) as unfinished:
        left = unfinished.name
        unfinished.touch()
    (tmp_path / left).write_text("half of", encoding="utf-8")
    with whole_file(path) as unfinished:
        unfinished.write_text("new", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("problem", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_writing_leaves_the_old_file(tmp_path: Path, problem: BaseException):
    path = tmp_path / "card.json"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(type(problem)), whole_file(path) as unfinished:
        unfinished.write_text("ne", encoding="utf-8")
        raise problem
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]
