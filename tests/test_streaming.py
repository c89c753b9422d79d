"""The live detector: the rows of a stream are those of the whole recording, however it arrives."""

import contextlib
import io
import json
import os
import sys
import threading
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import streaming
from audio import to_mono_16k
from backend import keras
from config import SAMPLE_RATE
from errors import AudioError, UserError
from model import SpoofLogit, set_operating_point
from streaming import StreamingDetector, Window, main
from timeline import timeline

INPUT = 8_000  # samples that the model of these tests hears: 0.5 s
POINT = {"threshold": 0.1, "uncertain": [0.0, 0.3], "calibration": {"a": 2.0, "b": 0.5}}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A small random network that hears 0.5 s."""
    keras.utils.set_random_seed(5)
    waveform = keras.Input((INPUT,))
    frames = keras.layers.Dense(8, "relu")(keras.layers.Reshape((50, 160))(waveform))
    logit = keras.layers.Dense(1)(keras.layers.Flatten()(frames))
    model = keras.Model(waveform, SpoofLogit()(logit))
    set_operating_point(model, POINT)
    return model


def recording(rate: int, channels: int) -> np.ndarray:
    """2.3 s of int16 noise (samples, channels) with 0.9 s of silence in it."""
    rng = np.random.default_rng(rate + channels)
    samples = (4_000 * rng.standard_normal((int(2.3 * rate), channels))).astype(np.int16)
    samples[int(0.7 * rate) : int(1.6 * rate)] = 0
    return samples


def in_chunks(detector: StreamingDetector, samples: np.ndarray, cuts: list[int]) -> list[Window]:
    rows = []
    for chunk in np.split(samples, sorted(cuts)):
        rows += detector.feed(chunk)
    return rows + detector.flush()


def numbers(rows: list[Window]) -> np.ndarray:
    return np.array([row[:-1] for row in rows], float).reshape(-1, 5)


def assert_same(rows: list[Window], wanted: list[Window]) -> None:
    np.testing.assert_allclose(numbers(rows), numbers(wanted), rtol=0, atol=1e-5)
    assert [row.verdict for row in rows] == [row.verdict for row in wanted]


@pytest.fixture(scope="module")
def offline(model, tmp_path_factory):
    """(rate, channels, hop) -> the rows that timeline makes of the recording as a file."""
    folder, known = tmp_path_factory.mktemp("offline"), {}

    def rows(rate: int, channels: int, hop: float) -> list[Window]:
        if (rate, channels, hop) not in known:
            path = folder / f"{rate}_{channels}.wav"
            soundfile.write(path, recording(rate, channels), rate)
            table = timeline(model, path, hop=hop).table
            known[rate, channels, hop] = [Window(*row) for row in table.itertuples(index=False)]
        return known[rate, channels, hop]

    return rows


@settings(max_examples=25, deadline=None)
@given(
    rate=st.sampled_from([8_000, 16_000, 44_100, 48_000]),
    channels=st.sampled_from([1, 2]),
    hop=st.sampled_from([0.1, 0.37, 0.9]),
    kind=st.sampled_from(["int16", "int32", "float32", "float64"]),
    data=st.data(),
)
def test_any_chunking_gives_the_rows_of_the_file(model, offline, rate, channels, hop, kind, data):
    samples = recording(rate, channels)
    if kind == "int32":
        samples = samples.astype(np.int32) * 2**16
    elif kind.startswith("float"):
        samples = (samples / 2**15).astype(kind)
    if channels == 1 and data.draw(st.booleans()):
        samples = samples[:, 0]
    cuts = data.draw(st.lists(st.integers(0, len(samples)), max_size=40))
    assert_same(in_chunks(StreamingDetector(model, rate, hop), samples, cuts), offline(rate, channels, hop))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_chunks_of_one_sample(model, offline, rate):
    samples = recording(rate, 1)
    cuts = [*range(0, 500), *range(500, len(samples), rate // 100)]
    assert_same(in_chunks(StreamingDetector(model, rate, 0.37), samples, cuts), offline(rate, 1, 0.37))


def test_windows_and_smoothing_are_what_the_docstring_says(model):
    """Against a plain computation on the whole waveform."""
    waveform = to_mono_16k(recording(16_000, 1) / np.float32(2**15), 16_000, "test")
    detector = StreamingDetector(model, hop=0.2)
    rows = detector.feed(waveform) + detector.flush()
    starts = [*range(0, len(waveform) - INPUT, 3_200), len(waveform) - INPUT]
    logits = []
    for start in starts:
        window = waveform[start : start + INPUT]
        silent = np.abs(window).max() == 0
        logits.append(np.nan if silent else float(model.predict_on_batch(window[None])[0, 0]))
    assert [row.start for row in rows] == [start / SAMPLE_RATE for start in starts]
    assert all(row.end - row.start == pytest.approx(0.5) for row in rows)
    np.testing.assert_allclose([row.logit for row in rows], logits, atol=1e-5)
    assert np.isnan(logits).sum() == 2  # or nothing was silent here
    for number, row in enumerate(rows):
        if np.isnan(logits[number]):
            assert row.verdict == "silent" and np.isnan(row.smoothed) and np.isnan(row.spoof_probability)
            continue
        smoothed = np.nanmean(logits[max(0, number - 2) : number + 3])  # 0.5 s hold two hops of 0.2 s
        assert row.smoothed == pytest.approx(smoothed, abs=1e-5)
        assert row.spoof_probability == pytest.approx(1 / (1 + np.exp(-2 * smoothed + 0.5)), abs=1e-5)
        assert row.verdict == ("bonafide" if smoothed < 0 else "uncertain" if smoothed < 0.3 else "spoof")


@pytest.mark.parametrize("hop", [0.1, 0.25, 0.4])
def test_a_row_comes_after_the_latency_and_not_a_sample_earlier(model, hop):
    detector = StreamingDetector(model, hop=hop)
    wait = round(detector.latency * SAMPLE_RATE)
    noise = 0.1 * np.random.default_rng(0).standard_normal(wait + round(hop * SAMPLE_RATE))
    assert detector.feed(noise[: wait - 1]) == []
    (first,) = detector.feed(noise[wait - 1 : wait])
    assert first.start == 0
    assert detector.feed(noise[wait:-1]) == []
    (second,) = detector.feed(noise[-1:])
    assert second.start == pytest.approx(hop)


def test_reset_forgets_everything(model, offline):
    detector = StreamingDetector(model, 44_100, 0.37)
    detector.feed(recording(44_100, 2)[:70_001])
    detector.reset()
    for _ in range(2):
        assert_same(in_chunks(detector, recording(44_100, 2), [5, 40_000]), offline(44_100, 2, 0.37))
        detector.reset()


def test_after_flush_the_sound_has_ended(model):
    detector = StreamingDetector(model)
    detector.feed(recording(16_000, 1))
    assert detector.flush() and detector.flush() == []
    with pytest.raises(UserError, match="feed after flush"):
        detector.feed(recording(16_000, 1))


def test_nothing_and_next_to_nothing(model):
    detector = StreamingDetector(model, 48_000)
    for empty in (np.zeros(0), np.zeros((0, 2), np.int16), []):
        assert detector.feed(empty) == []
    assert detector.flush() == []
    detector.reset()
    detector.feed(np.full(4_700, 0.1))  # 98 ms: inference.py refuses such a file
    assert detector.flush() == []


def test_sound_shorter_than_a_window_is_one_window(model):
    sound = 0.1 * np.random.default_rng(0).standard_normal(3_000).astype(np.float32)
    detector = StreamingDetector(model)
    assert detector.feed(sound) == []
    (row,) = detector.flush()
    wanted = model.predict_on_batch(np.tile(sound, 3)[None, :INPUT])[0, 0]  # repeated, as predict_audio does
    assert (row.start, row.end) == (0, 3_000 / SAMPLE_RATE)
    assert row.logit == row.smoothed == pytest.approx(float(wanted), abs=1e-5)


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        (np.zeros(9, np.uint8), "chunk of uint8"),
        (np.zeros(9, np.int64), "chunk of int64"),
        (np.zeros(9, complex), "chunk of complex128"),
        (np.array(["a"]), "chunk of <U1"),
        (np.zeros((3, 4, 5)), r"chunk of shape \(3, 4, 5\)"),
        (np.float32(0.5), r"chunk of shape \(\)"),
        (np.zeros((2, 1600)), r"chunk of shape \(2, 1600\)"),  # (channels, samples)
        (np.zeros((5, 0)), r"chunk of shape \(5, 0\)"),
        (np.array([0.0, np.nan]), "not finite"),
        (np.array([0.0, -np.inf]), "not finite"),
        (np.array([0.0, 12_000.0]), "peak of 12000"),  # 16-bit values as floats
    ],
)
def test_a_refused_chunk_is_one_line_and_leaves_no_trace(model, offline, chunk, words):
    detector, sound = StreamingDetector(model, 8_000, 0.37), recording(8_000, 1)
    rows = detector.feed(sound[:9_999])
    with pytest.raises(AudioError, match=words) as error:
        detector.feed(chunk)
    assert "\n" not in str(error.value)
    rows += detector.feed(sound[9_999:]) + detector.flush()
    assert_same(rows, offline(8_000, 1, 0.37))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rate": 0}, "rate 0"),
        ({"hop": 0}, "hop 0 s"),
        ({"hop": float("nan")}, "hop nan s"),
        ({"window": 0.6}, "window 0.6 s"),
        ({"window": 0.01}, "window 0.01 s"),
    ],
)
def test_settings_that_cannot_be(model, arguments, words):
    with pytest.raises(UserError, match=words):
        StreamingDetector(model, **arguments)


def test_memory_does_not_grow_with_the_sound(model):
    detector = StreamingDetector(model, 48_000, hop=4.0)
    second = (2_000 * np.random.default_rng(0).standard_normal((48_000, 2))).astype(np.int16)
    for _ in range(20):
        detector.feed(second)
    tracemalloc.start()
    for _ in range(120):
        detector.feed(second)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3e6  # 120 s at 16 kHz are 7.7 MB


# ---------------------------------------------------------------- the command


def pipe(data: bytes) -> io.TextIOWrapper:
    """Standard input as a real pipe, which cannot be rewound."""
    reading, writing = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb") as stream:  # a refused input is not read
            stream.write(data)

    threading.Thread(target=write).start()
    return io.TextIOWrapper(os.fdopen(reading, "rb"))


def wav_bytes(samples: np.ndarray, rate: int, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format="WAV")
    return file.getvalue()


@pytest.fixture
def run(model, monkeypatch, capsys):
    """(data for standard input, flags) -> the lines printed by the command."""
    monkeypatch.setattr(streaming, "as_model", lambda name: model)

    def command(data: bytes, *flags: str) -> list[str]:
        with pipe(data) as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            assert main([*flags, "--hop", "0.37"]) == 0
        return capsys.readouterr().out.splitlines()

    return command


def parsed(lines: list[str]) -> list[Window]:
    rows = [json.loads(line) for line in lines]
    return [Window(**{k: np.nan if v is None else v for k, v in row.items()}) for row in rows]


def test_raw_samples_and_wav_files_on_standard_input(run, offline):
    raw = recording(8_000, 1).astype("<i2").tobytes()
    assert_same(parsed(run(raw, "--rate", "8000", "--json")), offline(8_000, 1, 0.37))
    whole = wav_bytes(recording(44_100, 2), 44_100)
    assert_same(parsed(run(whole, "--json")), offline(44_100, 2, 0.37))
    endless = whole[:4] + b"\xff" * 4 + whole[8:40] + b"\xff" * 4 + whole[44:]  # as ffmpeg pipes it
    assert_same(parsed(run(endless, "--json")), offline(44_100, 2, 0.37))


def test_text_names_time_and_verdict(run, offline):
    raw = recording(8_000, 1).astype("<i2").tobytes()
    lines = run(raw, "--rate", "8000")
    for line, row in zip(lines, offline(8_000, 1, 0.37), strict=True):
        assert f"{row.start:.2f} - " in line and row.verdict in line and "nan" not in line


@pytest.mark.parametrize(
    ("data", "flags", "words"),
    [
        (b"\0" * 4_000, [], "need their --rate"),
        (b"\1" * 4_001, ["--rate", "8000"], "ends within a sample"),
        (b"", ["--rate", "8000"], "less than 0.1 s"),
        (b"RIFFtruncated", [], "WAV header"),
        (wav_bytes(recording(8_000, 1), 8_000, "PCM_24"), [], "24-bit samples"),
        (wav_bytes(recording(8_000, 1), 8_000, "FLOAT"), [], "WAV header"),
        (wav_bytes(recording(8_000, 1), 8_000), ["--rate", "16000"], "has 8000 samples a second"),
    ],
)
def test_input_that_cannot_be_used_is_one_line(run, data, flags, words):
    with pytest.raises(UserError, match=words) as error:
        run(data, *flags)
    assert "\n" not in str(error.value)


def test_a_terminal_as_input_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    with pytest.raises(UserError, match="--mic"):
        main([])


# ---------------------------------------------------------------- the microphone


def test_without_sounddevice_the_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(UserError, match="pip install sounddevice"):
        main(["--mic"])


def test_without_portaudio_too(monkeypatch, tmp_path: Path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')", encoding="utf-8")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="libportaudio2"):
        main(["--mic"])


class FakeSoundDevice(types.ModuleType):
    """A microphone of 8 kHz that hears the recording of these tests and no more."""

    class PortAudioError(Exception):
        pass

    def __init__(self, times: int = 1):
        super().__init__("sounddevice")
        self.sound = np.tile(recording(8_000, 1), (times, 1)) / np.float32(2**15)

    def query_devices(self, kind: str) -> dict:
        return {"default_samplerate": 8_000.0}

    def check_input_settings(self, channels: int, samplerate: int) -> None:
        if samplerate != 8_000:
            raise self.PortAudioError("Invalid sample rate")

    def InputStream(self, callback, blocksize: int, **settings):
        stream = io.StringIO()  # anything that `with` takes
        for first in range(0, len(self.sound), blocksize):
            callback(self.sound[first : first + blocksize], blocksize, None, None)
        return stream


class CtrlCWhenEmpty(streaming.queue.SimpleQueue):
    def get(self, timeout: float) -> np.ndarray:
        if self.empty():
            raise KeyboardInterrupt
        return super().get()


def test_ctrl_c_ends_the_microphone_with_the_last_rows(model, offline, monkeypatch, capsys):
    monkeypatch.setattr(streaming, "as_model", lambda name: model)
    monkeypatch.setitem(sys.modules, "sounddevice", FakeSoundDevice())
    monkeypatch.setattr(streaming.queue, "SimpleQueue", CtrlCWhenEmpty)
    assert main(["--mic", "--hop", "0.37", "--json"]) == 0
    printed = capsys.readouterr()
    assert_same(parsed(printed.out.splitlines()), offline(8_000, 1, 0.37))
    assert "listening at 8000 Hz" in printed.err


def test_a_microphone_that_outruns_the_model_or_has_another_rate(model, monkeypatch):
    monkeypatch.setattr(streaming, "as_model", lambda name: model)
    monkeypatch.setitem(sys.modules, "sounddevice", FakeSoundDevice(times=10))  # 23 s at once
    with pytest.raises(UserError, match="20 s behind"):
        main(["--mic"])
    with pytest.raises(UserError, match="16000 samples a second"):
        main(["--mic", "--rate", "16000"])
