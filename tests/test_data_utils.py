"""Datasets are found wherever they sit, in one table; what is missing or doubtful is named; the command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dataset_trees import LA_LISTS, audio, make_la, write

import data_utils
from config import BONAFIDE, SPOOF, TABLE_COLUMNS
from data_utils import main, read_dataset
from errors import UserError

REPO = Path(data_utils.__file__).parent


@pytest.mark.parametrize("inner", ["LA", "LA/LA", ".", "ASVspoof2019 LA (1)/LA", "7549_42/LA.zip_files"])
def test_la_is_found_wherever_it_sits(tmp_path, inner):
    make_la(tmp_path / inner)
    dataset = read_dataset(tmp_path)
    assert dataset.name == "asvspoof2019_LA"
    assert tuple(dataset.table.columns) == TABLE_COLUMNS
    table = dataset.usable().set_index("utterance_id")
    assert list(table["split"].value_counts().sort_index().items()) == [("dev", 2), ("eval", 2), ("train", 2)]
    row = table.loc["LA_T_1000002"]
    assert (row["label"], row["attack"], row["speaker"]) == (SPOOF, "A01", "LA_0080")
    assert Path(row["path"]).is_absolute() and Path(row["path"]).is_file()
    assert table.loc["LA_T_1000001", ["label", "attack"]].tolist() == [BONAFIDE, "-"]
    assert set(table["dataset"]) == {"asvspoof2019_LA"}


def test_la_flat_with_audio_beside_the_lists_in_another_format(tmp_path):
    for name, lines in LA_LISTS.items():
        write(tmp_path / f"ASVspoof2019.LA.cm.{name}.txt", lines)
        for line in lines:
            audio(tmp_path / f"{line.split()[1]}.wav")
    table = read_dataset(tmp_path).usable()
    assert len(table) == 6 and all(path.endswith(".wav") for path in table["path"])


def test_missing_files_are_named_and_left_out_only_on_request(tmp_path):
    make_la(tmp_path, leave_out=("LA_T_1000002", "LA_E_1000001"))
    dataset = read_dataset(tmp_path)
    assert len(dataset.table) == 6 and dataset.table["path"].isna().sum() == 2
    assert all(path is None or isinstance(path, str) for path in dataset.table["path"])
    with pytest.raises(UserError, match=r"2 of 6 files are missing \(LA_E_1000001, LA_T_1000002.*--allow-missing"):
        dataset.usable()
    rest = dataset.usable(allow_missing=True)
    assert set(rest["utterance_id"]) & {"LA_T_1000002", "LA_E_1000001"} == set()
    assert len(rest) == 4 and rest["path"].notna().all() and list(rest.index) == [0, 1, 2, 3]


def test_no_file_at_all_cannot_be_allowed_away(tmp_path):
    write(tmp_path / "ASVspoof2019.LA.cm.train.trn.txt", LA_LISTS["train.trn"])
    with pytest.raises(UserError, match="none of the 2 files"):
        read_dataset(tmp_path).usable(allow_missing=True)


def test_a_second_copy_of_the_tree_is_read_once(tmp_path):
    make_la(tmp_path / "LA")
    make_la(tmp_path / "copy" / "LA")
    dataset = read_dataset(tmp_path)
    assert len(dataset.table) == 6
    assert any("repeats" in note for note in dataset.notes)
    assert any("6 audio files share their name" in note for note in dataset.notes)


def test_unofficial_subset_list_gives_way_to_the_official_one(tmp_path):
    make_la(tmp_path)
    write(tmp_path / "my_subset.txt", LA_LISTS["train.trn"][:1])
    dataset = read_dataset(tmp_path)
    assert len(dataset.table) == 6 and any("my_subset.txt" in note for note in dataset.notes)


def test_two_different_lists_with_the_same_utterance_are_refused(tmp_path):
    write(tmp_path / "a.txt", LA_LISTS["train.trn"])
    write(tmp_path / "b.txt", LA_LISTS["train.trn"][:1])
    with pytest.raises(UserError, match=r"b\.txt: LA_T_1000001 .* also in .*a\.txt"):
        read_dataset(tmp_path)


def test_folder_names_attacks_by_sub_folder(tmp_path):
    audio(tmp_path / "set" / "bonafide" / "anna" / "1.wav")
    audio(tmp_path / "set" / "spoof" / "xtts" / "1.wav")
    audio(tmp_path / "set" / "spoof" / "2.ogg")
    audio(tmp_path / "set" / "noise.wav")
    dataset = read_dataset(tmp_path / "set")
    table = dataset.usable().set_index("utterance_id")
    assert table["attack"].to_dict() == {
        "bonafide/anna/1.wav": "-",
        "spoof/2.ogg": "unknown",
        "spoof/xtts/1.wav": "xtts",
    }
    assert dataset.name == "set" and set(table["split"]) == {"-"} and len(dataset.extra["-"]) == 1
    assert len(read_dataset(tmp_path).usable()) == 3  # one folder higher


def test_folder_with_splits(tmp_path):
    for split in ("training", "validation", "testing"):
        audio(tmp_path / split / "real" / "1.wav")
        audio(tmp_path / split / "fake" / "1.wav")
    table = read_dataset(tmp_path).usable()
    assert table["split"].value_counts().to_dict() == {"train": 2, "dev": 2, "eval": 2}


def test_several_label_folders_are_refused(tmp_path):
    for name in ("one", "two"):
        audio(tmp_path / name / "bonafide" / "1.wav")
        audio(tmp_path / name / "spoof" / "1.wav")
    with pytest.raises(UserError, match="point at one of: one, two"):
        read_dataset(tmp_path)


def test_two_datasets_are_refused_with_their_places(tmp_path):
    make_la(tmp_path / "LA")
    make_la(tmp_path / "PA", "PA")
    write(tmp_path / "own" / "list.csv", ["path,label", "a.wav,spoof"])
    with pytest.raises(UserError) as caught:
        read_dataset(tmp_path)
    message = str(caught.value)
    assert "holds 3 datasets" in message and "LA (asvspoof2019_LA)" in message and "\n" not in message
    assert "PA (asvspoof2019_PA)" in message and str(Path("own/list.csv")) in message
    assert read_dataset(tmp_path / "PA").name == "asvspoof2019_PA"


def test_a_csv_inside_an_official_tree_is_left_aside(tmp_path):
    make_la(tmp_path)
    write(tmp_path / "extras" / "list.csv", ["path,label", "a.wav,spoof"])
    dataset = read_dataset(tmp_path)
    assert dataset.name == "asvspoof2019_LA" and any("list.csv" in note for note in dataset.notes)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no dataset found; looked for an ASVspoof 2019"):
        read_dataset(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_dataset(tmp_path / "nowhere")
    other = write(tmp_path / "ASVspoof2019.LA.cm.train.trn.txt", LA_LISTS["train.trn"])
    with pytest.raises(UserError, match="point at the folder"):
        read_dataset(other)


def test_hidden_and_resource_fork_files_are_passed_over(tmp_path):
    make_la(tmp_path)
    write(tmp_path / "__MACOSX" / "ASVspoof2019.LA.cm.train.trn.txt", ["junk"])
    write(tmp_path / "._ASVspoof2019.LA.cm.train.trn.txt", ["junk"])
    assert len(read_dataset(tmp_path).usable()) == 6


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_linked_folders_are_followed_and_loops_end(tmp_path):
    make_la(tmp_path / "real")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "LA").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real", target_is_directory=True)
    assert len(read_dataset(tmp_path / "set").usable()) == 6


def test_command_prints_text_and_ends_zero(tmp_path, command):
    make_la(tmp_path, leave_out=("LA_T_1000002",))
    code, output, errors = command(main, tmp_path, "--list-missing", "1", "--split", "random-80-10-10")
    assert code == 0, errors
    assert "missing in train: 1: LA_T_1000002" in output and "--allow-missing" in output
    assert "random-80-10-10:" in output


def test_command_json_is_json_alone(tmp_path, command):
    make_la(tmp_path, leave_out=("LA_T_1000002",))
    code, output, _ = command(main, tmp_path, "--json", "--split", "official", "--allow-missing")
    report = json.loads(output)
    assert code == 0 and report["usable"] and report["name"] == "asvspoof2019_LA"
    assert report["splits"]["train"]["missing"] == 1 and report["splits"]["train"]["spoof"]["found"] == 0
    assert report["split"]["splits"]["train"]["rows"] == 1


def test_command_ends_two_with_one_line(tmp_path, command):
    make_la(tmp_path / "one_class", leave_out=("LA_T_1000002", "LA_E_1000002"))
    for words, message in (
        ((tmp_path / "one_class",), "cannot be used: neither train nor eval has files of both classes"),
        ((tmp_path / "nowhere",), "no such folder"),
        ((tmp_path, "--split", "half"), "invalid choice: 'half'"),
        ((tmp_path, "--headers", "-1"), "must be 0 or more"),
    ):
        code, _, errors = command(main, *words)
        assert code == 2 and errors.count("\n") == 1
        assert errors.startswith("error: ") and message in errors


def test_import_brings_no_heavy_library():
    code = (
        "import sys, data_utils, splits; "
        "print([m for m in ('tensorflow', 'keras', 'librosa', 'torch', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_real_la_by_command(shared_data, command):
    code, output, _ = command(main, shared_data / "LA", "--json")
    assert code == 0 and json.loads(output)["splits"]["eval"]["missing"] == 71_237
