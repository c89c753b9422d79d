"""The timeline of a file: where an insert is, what is written of it, and what cannot be judged."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import timeline as timeline_file
from audio import load_audio
from backend import keras
from benchmarks.benchmark_timeline import HalfFake, half_fake, levelled, localisation
from config import SAMPLE_RATE
from errors import AudioError, UserError
from inference import predict_waveform
from model import SpoofLogit, set_operating_point
from timeline import find_segments, main, timeline

INPUT = 16_000  # samples that the model of these tests hears: 1 s
POINT = {"threshold": 0.0, "uncertain": [-0.5, 0.5], "calibration": {"a": 1.0, "b": 0.0}}
TONE = 1_000.0  # Hz


@pytest.fixture(scope="module")
def oracle() -> keras.Model:
    """A network that knows the truth: it hears 1 s, and its logit is -1 without our tone, +1 if it lasts all of it.

    In every frame of 10 ms the tone is correlated with a sine and a cosine; the power is averaged over the frames.
    """
    waveform = keras.Input((INPUT,))
    detector = keras.layers.Dense(2, use_bias=False)
    parts = detector(keras.layers.Reshape((100, 160))(waveform))  # (batch, frames, 2)
    power = keras.layers.GlobalAveragePooling1D()(keras.layers.Multiply()([parts, parts]))
    last = keras.layers.Dense(1)
    model = keras.Model(waveform, SpoofLogit()(last(power)), name="oracle")
    turns = 2 * np.pi * TONE * np.arange(160) / SAMPLE_RATE
    detector.set_weights([np.stack([np.sin(turns), np.cos(turns)], axis=1) / 80])  # amplitude 1 has power 1
    last.set_weights([np.full((2, 1), 2 / 0.1**2), np.array([-1.0])])
    set_operating_point(model, POINT)
    return model


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = round(seconds * SAMPLE_RATE)
    return (0.01 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def tone(seconds: float) -> np.ndarray:
    """Our tone with amplitude 0.1, which is what the oracle is tuned to."""
    return (0.1 * np.sin(2 * np.pi * TONE * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def with_insert(start: float, end: float, seconds: float) -> np.ndarray:
    waveform = noise(seconds)
    first, stop = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
    waveform[first:stop] += tone(end - start)
    return waveform


@pytest.mark.parametrize("hop", [0.1, 0.25, 0.5])
@pytest.mark.parametrize(("start", "end"), [(3.0, 6.0), (2.77, 5.13), (4.4, 9.99)])
def test_an_insert_is_where_an_oracle_hears_it(oracle, start, end, hop):
    result = timeline(oracle, with_insert(start, end, 13.2), hop=hop)
    (found,) = result.segments.itertuples()
    # a window is half full of tone when its centre is at the border: the border is known to half a hop
    assert found.start == pytest.approx(start, abs=hop / 2 + 0.02)
    assert found.end == pytest.approx(end, abs=hop / 2 + 0.02)
    assert found.label == "spoof"
    assert found.peak == pytest.approx(1 / (1 + np.exp(-1)), abs=0.02)  # logit +1


def test_inserts_at_the_ends_reach_them_and_two_are_told_apart(oracle):
    waveform = np.concatenate([tone(2), noise(3), tone(2.3)])
    result = timeline(oracle, waveform, hop=0.1)
    assert result.segments["start"].tolist() == [0.0, pytest.approx(5.0, abs=0.07)]
    assert result.segments["end"].tolist() == [pytest.approx(2.0, abs=0.07), pytest.approx(7.3)]


def test_no_insert_no_segment_and_all_of_it_is_one(oracle):
    assert timeline(oracle, noise(5)).segments.empty
    (whole,) = timeline(oracle, tone(5.3)).segments.itertuples()
    assert (whole.start, whole.end) == (0.0, pytest.approx(5.3))


def test_silence_is_not_judged_and_ends_a_segment(oracle):
    waveform = np.concatenate([tone(3), np.zeros(3 * SAMPLE_RATE, np.float32), tone(3)])
    result = timeline(oracle, waveform, hop=0.25)
    silent = result.table["verdict"] == "silent"
    inside = (result.table["start"] >= 3) & (result.table["end"] <= 6)
    assert silent.tolist() == inside.tolist() and silent.sum() == 9
    assert result.table.loc[silent, ["logit", "smoothed", "spoof_probability"]].isna().all(axis=None)
    assert result.table.loc[~silent].notna().all(axis=None)
    assert len(result.segments) == 2 and result.segments["end"][0] < 3.6 and result.segments["start"][1] > 5.4


@pytest.mark.parametrize("seconds", [0.2, 0.7, 1.0, 1.2, 2.0, 3.5, 7.31])
def test_mean_of_windows_that_overlap_by_half_is_what_predict_audio_says(oracle, seconds):
    waveform = with_insert(0, 0.6 * seconds, seconds)
    table = timeline(oracle, waveform, hop=0.5, window=1.0).table
    predicted = predict_waveform(oracle, waveform)
    assert len(table) == predicted["windows"]
    assert table["logit"].mean() == pytest.approx(predicted["logit"], abs=1e-5)


@pytest.mark.parametrize(("name", "rate"), [("talk.wav", 8_000), ("talk.flac", 44_100), ("talk.mp3", 48_000)])
def test_a_file_gives_what_its_waveform_gives(oracle, tmp_path: Path, speech_like, name, rate):
    voice = speech_like(3.3, rate)
    soundfile.write(tmp_path / name, np.stack([voice, 0.5 * voice], axis=1), rate)
    of_file, of_waveform = timeline(oracle, tmp_path / name), timeline(oracle, load_audio(tmp_path / name))
    pd.testing.assert_frame_equal(of_file.table, of_waveform.table, rtol=0, atol=1e-6)
    assert of_file.path.endswith(name) and of_file.seconds == pytest.approx(of_waveform.seconds)


def test_a_long_file_is_not_held_in_memory(oracle, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("audio.BLOCK", 2**16)
    sound = (1_000 * np.random.default_rng(0).standard_normal((90 * 44_100, 2))).astype(np.int16)
    soundfile.write(tmp_path / "long.wav", sound, 44_100)
    del sound
    timeline(oracle, tmp_path / "long.wav", hop=4.0)  # what is made once
    tracemalloc.start()
    result = timeline(oracle, tmp_path / "long.wav", hop=4.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.seconds == pytest.approx(90)
    assert peak < 3e6  # decoded it takes 32 MB, as a 16 kHz waveform 6


@pytest.mark.parametrize(
    ("waveform", "words"),
    [
        (np.zeros(40_000, np.float32), "silent"),
        (np.full(1_000, 0.1, np.float32), "0.0625 s long"),
        (np.zeros((2, 9)), "a mono float waveform"),
        (np.full(40_000, np.nan), "a mono float waveform"),
    ],
)
def test_waveforms_that_cannot_be_judged(oracle, waveform, words):
    with pytest.raises(AudioError, match=words):
        timeline(oracle, waveform)


def test_warnings_say_what_the_numbers_lack(oracle):
    assert timeline(oracle, noise(3)).warnings == []
    (gaps,) = timeline(oracle, noise(9), hop=3.0).warnings
    assert "not heard" in gaps
    plain = keras.Model(oracle.input, oracle.layers[-2].output)
    (nothing,) = timeline(plain, noise(3)).warnings
    assert "no threshold" in nothing


# ---------------------------------------------------------------- segments


def windows(smoothed: list[float]) -> pd.DataFrame:
    """Windows of 2 s every second; the probability is a tenth of the logit."""
    start = np.arange(len(smoothed), dtype=float)
    values = np.array(smoothed)
    table = pd.DataFrame({"start": start, "end": start + 2, "smoothed": values, "spoof_probability": values / 10})
    return table.assign(verdict=np.select([values >= 3, values >= 1], ["spoof", "uncertain"], "bonafide"))


@pytest.mark.parametrize(
    ("smoothed", "wanted"),
    [
        ([0, 0, 0], []),
        ([0, 2, 0], [(1.5, 2.5, "uncertain", 0.2, 0.2)]),
        ([0, 3, 4, 0], [(1.5, 3.5, "spoof", 0.35, 0.4)]),
        ([2, 0, 1], [(0.0, 1.5, "uncertain", 0.2, 0.2), (2.5, 4.0, "uncertain", 0.1, 0.1)]),  # at the threshold too
        ([5], [(0.0, 2.0, "spoof", 0.5, 0.5)]),
        ([5, np.nan, 5], [(0.0, 1.5, "spoof", 0.5, 0.5), (2.5, 4.0, "spoof", 0.5, 0.5)]),
        ([np.nan, 5, 2], [(1.5, 4.0, "spoof", 0.35, 0.5)]),
    ],
)
def test_segments_are_runs_at_or_above_the_threshold(smoothed, wanted):
    found = find_segments(windows(smoothed), threshold=1.0)
    assert list(found.columns) == ["start", "end", "label", "spoof_probability", "peak"]
    for row, values in zip(found.itertuples(index=False), wanted, strict=True):
        assert row.label == values[2]
        assert [*row[:2], *row[3:]] == pytest.approx([*values[:2], *values[3:]])


def test_windows_shorter_than_what_was_measured_accuse_nobody(oracle, monkeypatch):
    sound = with_insert(1, 3, 4)
    assert [segment.label for segment in timeline(oracle, sound, window=0.5).segments.itertuples()] == ["spoof"]
    monkeypatch.setattr(oracle.layers[-1], "operating_point", POINT | {"minimum_seconds": 0.6})
    for short in (timeline(oracle, sound, window=0.5), timeline(oracle, tone(0.55))):
        assert set(short.table["verdict"]) == {"uncertain"} == set(short.segments["label"])
        assert "below 0.6 s the detector has not been measured" in str(short)
    assert set(timeline(oracle, sound, window=0.7).segments["label"]) == {"spoof"}


# ---------------------------------------------------------------- files, figures, the command


@pytest.fixture(scope="module")
def result(oracle):
    """Two inserts and a silence."""
    silence = np.zeros(2 * SAMPLE_RATE, np.float32)
    return timeline(oracle, np.concatenate([with_insert(2, 4, 6), silence, with_insert(1, 3.5, 5)]), hop=0.2)


def test_what_is_written_reads_back(result, tmp_path: Path):
    table, everything, labels, picture = result.write(tmp_path / "new folder", "talk")
    assert [file.name for file in (table, everything, labels, picture)] == [
        "talk.csv",
        "talk.json",
        "talk.txt",
        "talk.png",
    ]
    pd.testing.assert_frame_equal(pd.read_csv(table), result.table, rtol=1e-12)
    kept = json.loads(everything.read_text(encoding="utf-8"), parse_constant=pytest.fail)  # NaN is not JSON
    assert kept["segments"] == result.segments.to_dict("records") and len(kept["segments"]) == 2
    assert len(kept["windows"]) == len(result.table) and kept["model"] == "oracle" and kept["hop"] == 0.2
    silent = [window for window in kept["windows"] if window["verdict"] == "silent"]
    assert silent and all(window["logit"] is None for window in silent)
    rows = [line.split("\t") for line in labels.read_text(encoding="utf-8").splitlines()]
    np.testing.assert_allclose(
        [list(map(float, row[:2])) for row in rows], result.segments[["start", "end"]], atol=1e-6
    )
    assert all(row[2].startswith("spoof 0.") for row in rows)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_text_and_notebook_show_the_segments(result):
    first, *lines = str(result).splitlines()
    assert "2 segments" in first and len(lines) == 2
    page = result._repr_html_()
    assert "data:image/png;base64,iVBORw0KGgo" in page and page.count("<tr") == 3
    for name in ("start", "end", "label", "peak"):
        assert f"<th>{name}</th>" in page


def test_the_figure_shades_segments_and_counts_long_time_in_minutes(oracle, result):
    upper, lower = result.figure().axes
    shaded = [patch.get_x() for patch in upper.patches]
    assert shaded == pytest.approx(result.segments["start"].tolist())
    assert lower.get_xlabel() == "time (s)" and upper.get_title().startswith("waveform, windows of ")
    figure = timeline(oracle, noise(200), hop=10).figure()
    figure.canvas.draw()
    assert "0:02:00" in [text.get_text() for text in figure.axes[1].get_xticklabels()]


@pytest.fixture
def folder(tmp_path: Path, oracle, monkeypatch) -> Path:
    """Two good files and a damaged one; the command's model is the oracle."""
    monkeypatch.setattr(timeline_file, "as_model", lambda name: oracle)
    (tmp_path / "in").mkdir()
    for name, waveform in (("fake.wav", with_insert(2, 4, 6)), ("real.flac", noise(6))):
        soundfile.write(tmp_path / "in" / name, waveform, SAMPLE_RATE)
    soundfile.write(tmp_path / "in" / "damaged.flac", noise(6), SAMPLE_RATE)
    path = tmp_path / "in" / "damaged.flac"
    path.write_bytes(path.read_bytes()[:-4_000])
    return tmp_path


def test_the_command_goes_on_past_a_bad_file_and_ends_1(folder: Path, capsys):
    assert main([str(folder / "in"), "--out", str(folder / "out"), "--hop", "0.2"]) == 1
    printed = capsys.readouterr()
    assert "fake.wav: 6.00 s, 1 segment above" in printed.out and "real.flac: 6.00 s, 0 segments" in printed.out
    assert "1 of 3 files could not be judged" in printed.err and "damaged.flac" in printed.err
    written = sorted(path.name for path in (folder / "out").iterdir())
    assert written == [f"{stem}.{kind}" for stem in ("fake", "real") for kind in ("csv", "json", "png", "txt")]
    assert (folder / "out" / "real.txt").read_bytes() == b""


def test_without_out_nothing_is_written_and_good_files_end_0(folder: Path, capsys):
    assert main([str(folder / "in" / "fake.wav"), "--window", "0.5"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["in"]


def test_files_of_one_name_are_not_written_over_each_other(folder: Path):
    (folder / "in" / "real.wav").touch()
    with pytest.raises(UserError, match="several files are named real"):
        main([str(folder / "in"), "--out", str(folder / "out")])
    assert not (folder / "out").exists()


# ---------------------------------------------------------------- how well an insert is found


def test_a_half_fake_has_its_insert_where_it_says(oracle):
    rng = np.random.default_rng(4)
    bonafide = [levelled(noise(2.5, seed)) for seed in range(3)]
    spoof = [0.1 / 0.0707 * levelled(tone(3.0))]  # an RMS of 0.0707 is an amplitude of 0.1
    for insert in (1.5, 2.0, 4.0):
        made = half_fake(bonafide, [np.sqrt(2) * s for s in spoof], 12.0, insert, rng)
        assert len(made.waveform) == 12 * SAMPLE_RATE
        assert made.start >= 1 and made.end == pytest.approx(made.start + insert) and made.end <= 11
        frames = made.waveform[: 12 * SAMPLE_RATE].reshape(-1, 160)
        turns = np.exp(2j * np.pi * TONE * np.arange(160) / SAMPLE_RATE)
        toned = np.flatnonzero(np.abs(frames @ turns) / 80 > 0.05)
        assert toned[0] / 100 == pytest.approx(made.start, abs=0.03)
        assert (toned[-1] + 1) / 100 == pytest.approx(made.end, abs=0.03)
    assert half_fake(bonafide, spoof, 12.0, 0, rng).start == half_fake(bonafide, spoof, 12.0, 0, rng).end == 0


def test_localisation_counts_time_and_boundaries():
    made = HalfFake(np.zeros(10 * SAMPLE_RATE), 4.0, 6.0)

    def of(*segments: tuple[float, float]) -> dict[str, float]:
        return localisation(pd.DataFrame(segments, columns=["start", "end"]), made)

    exact = of((4.0, 6.0))
    assert exact == pytest.approx({"hit": 2, "flagged": 2, "synthetic": 2, "error": 0, "seconds": 10})
    shifted = of((0.0, 1.0), (4.5, 7.0), (3.9, 4.1))
    assert shifted == pytest.approx({"hit": 1.6, "flagged": 3.7, "synthetic": 2, "error": 1.5, "seconds": 10})
    assert np.isnan(of((0.0, 3.0))["error"]) and of()["flagged"] == 0
