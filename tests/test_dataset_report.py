"""What is there, what is missing, how many hours: the report on a dataset."""

import numpy as np
import pytest
from dataset_trees import LA_LISTS, audio, make_la

from data_utils import read_dataset
from dataset_report import check, measure_seconds


def test_extra_files_are_explained(tmp_path):
    make_la(tmp_path, lists={k: v for k, v in LA_LISTS.items() if k != "eval.trl"})
    audio(tmp_path / "ASVspoof2019_LA_dev" / "flac" / "LA_D_9999999.flac")
    audio(tmp_path / "ASVspoof2019_LA_eval" / "flac" / "LA_E_9999999.flac")
    audio(tmp_path / "ASVspoof2019_LA_train" / "flac" / "LA_T_9999999.flac")
    report = check(read_dataset(tmp_path))
    assert {name: c["extra"] for name, c in report["splits"].items()} == {"train": 1, "dev": 1, "eval": 1}
    assert "ASV enrolment" in report["splits"]["dev"]["extra_why"]
    assert "142" in report["splits"]["dev"]["extra_why"]
    assert "no list of this split" in report["splits"]["eval"]["extra_why"]
    assert report["splits"]["train"]["extra_why"] == "named by no list, not used"


def test_hours_and_unreadable_headers(tmp_path):
    make_la(tmp_path)
    (tmp_path / "ASVspoof2019_LA_train" / "flac" / "LA_T_1000002.flac").write_bytes(b"not audio")
    report = check(read_dataset(tmp_path))
    train, dev = report["splits"]["train"], report["splits"]["dev"]
    assert train["headers_unreadable"] == 1 and dev["hours"] == pytest.approx(1 / 3600, abs=5e-4)
    assert any("headers" in note for note in report["notes"])
    sampled = check(read_dataset(tmp_path), headers=1)["splits"]["dev"]
    assert sampled["hours_estimated"] and sampled["hours"] == pytest.approx(1 / 3600, abs=5e-4)
    assert check(read_dataset(tmp_path), headers=0)["splits"]["dev"]["hours"] is None


def test_measure_seconds_keeps_order(tmp_path):
    paths = [str(audio(tmp_path / f"{i}.wav", seconds=0.01 * (i + 1))) for i in range(300)]
    assert np.allclose(measure_seconds(paths), 0.01 * np.arange(1, 301), atol=1e-4)


def test_the_partial_real_la(shared_data):
    dataset = read_dataset(shared_data / "LA")
    report = check(dataset)
    rows = {name: (c["rows"], c["found"]) for name, c in report["splits"].items()}
    assert rows == {"train": (25_380, 101), "dev": (24_844, 100), "eval": (71_237, 0)}
    counts = {name: (c["bonafide"]["rows"], c["spoof"]["rows"]) for name, c in report["splits"].items()}
    assert counts == {"train": (2_580, 22_800), "dev": (2_548, 22_296), "eval": (7_355, 63_882)}
    assert {a: c["rows"] for a, c in report["splits"]["train"]["attacks"].items()} == {
        f"A0{i}": 3_800 for i in range(1, 7)
    }
    assert set(report["splits"]["eval"]["attacks"]) == {f"A{i:02d}" for i in range(7, 20)}
    speakers = report["splits"]["eval"]
    assert (speakers["bonafide"]["speakers"], speakers["spoof"]["speakers"]) == (67, 48)
    assert report["usable"] and len(dataset.usable(allow_missing=True)) == 201
