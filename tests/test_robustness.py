"""Conditions change a clip as they say and reproducibly; a detector errs where it loses what it listens to."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import robustness
from backend import keras
from errors import run_command
from model import SpoofLogit, save_model
from robustness import CONDITIONS, ConditionReader

RATE, SAMPLES = 16_000, 32_000


def tone(hertz: float, seconds: float = 5.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spoof clips have a tone at 6 kHz beside the one at 500 Hz that all have."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for number in range(12):
        waveform = 0.3 * tone(500 + 20 * number) + 0.001 * rng.standard_normal(5 * RATE)
        name = "spoof" if number % 2 else "bonafide"
        if name == "spoof":
            waveform += 0.2 * tone(6_000)
        (folder / name).mkdir(exist_ok=True)
        soundfile.write(folder / name / f"{number}.wav", waveform, RATE)
    return folder


@pytest.fixture(scope="module")
def high_listener(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose logit is the energy above 5 kHz less 5: x[t] - 2 x[t-1] + x[t-2] twice over hears little else."""
    wave = keras.Input((SAMPLES,), name="waveform")
    high_pass = keras.layers.Conv1D(1, 5, use_bias=False)
    x = high_pass(keras.layers.Reshape((SAMPLES, 1))(wave))
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Multiply()([x, x]))
    scale = keras.layers.Dense(1)
    model = keras.Model(wave, SpoofLogit({"threshold": 0.0, "uncertain": [0.0, 0.0]})(scale(x)), name="high_listener")
    high_pass.set_weights([np.array([1, -4, 6, -4, 1], np.float32).reshape(5, 1, 1)])
    scale.set_weights([np.full((1, 1), 10, np.float32), np.full(1, -5, np.float32)])
    path = tmp_path_factory.mktemp("model") / "high_listener.keras"
    save_model(model, path)
    return path


def run(*words: str | Path) -> int:
    return run_command(lambda: robustness.main([*map(str, words)]))


@pytest.mark.parametrize("name", CONDITIONS)
def test_condition_gives_a_clip_of_the_same_kind(name: str, speech_like) -> None:
    waveform = speech_like(5.0).astype(np.float32)
    condition = CONDITIONS[name][1]
    once, again = (condition(waveform, np.random.default_rng(3)) for _ in range(2))
    seconds = {"4s": 4, "2s": 2, "1s": 1}.get(name, 5)
    assert once.shape == (seconds * RATE,)
    assert once.dtype == np.float32
    np.testing.assert_array_equal(once, again)
    assert np.array_equal(once, waveform) == (name == "clean")
    middle = robustness.middle(waveform, seconds)
    alike = 0.3 if name in ("reverberation", "telephone") else 0.9
    assert np.corrcoef(once, middle)[0, 1] > alike  # in place, not shifted


def test_short_clips_stay_whole() -> None:
    assert len(robustness.middle(np.zeros(8_000, np.float32), 1)) == 8_000


def test_conditions_remove_the_band_they_say() -> None:
    high = (0.3 * tone(500) + 0.3 * tone(6_000)).astype(np.float32)
    for name, kept in (("telephone", False), ("resampling", False), ("clean", True)):
        spectrum = np.abs(np.fft.rfft(CONDITIONS[name][1](high, np.random.default_rng(0))))
        assert (spectrum[30_000] > 0.1 * spectrum[2_500]) == kept, name  # 0.2 Hz a bin


def test_reader_is_reproducible_and_each_clip_has_noise_of_its_own(clips: Path) -> None:
    path = str(clips / "bonafide" / "0.wav")
    table = pd.DataFrame({"path": [path, path], "label": [0, 0], "utterance_id": ["one", "two"]})
    readers = [ConditionReader(table, CONDITIONS["noise"][1], seed) for seed in (1, 1, 2)]
    turned = ConditionReader(table.iloc[::-1].reset_index(drop=True), CONDITIONS["noise"][1], 1)
    first, same, other = (reader.read(0) for reader in readers)
    np.testing.assert_array_equal(first, same)
    np.testing.assert_array_equal(first, turned.read(1))  # wherever in a table the clip stands
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, readers[0].read(1))


def test_detector_that_hears_only_the_high_band_is_lost_on_the_telephone(
    clips: Path, high_listener: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "table.csv"
    words = (high_listener, "--data", clips, "--conditions", "clean,telephone,1s", "--out", out)
    assert run(*words) == 0
    table = pd.read_csv(out).set_index("condition")
    assert table.loc[["clean", "1s"], ["eer", "far", "frr"]].to_numpy().max() == 0
    assert table.loc["telephone", "far"] == 1  # nothing reaches the threshold any more
    assert table.loc["telephone", "frr"] == 0
    assert table.loc["telephone", "eer"] > 0.2
    assert (table["clips"] == 12).all()
    assert "telephone" in capsys.readouterr().out


def test_user_errors_are_one_line_and_a_bad_file_is_named(
    clips: Path, high_listener: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(high_listener, "--data", clips, "--conditions", "clean,mp4") == 2
    assert "unknown condition mp4; valid: clean, high_rate, 4s" in capsys.readouterr().err
    out = tmp_path / "no" / "t.csv"
    assert run(high_listener, "--data", clips, "--out", out) == 2
    assert "there is no folder" in capsys.readouterr().err
    (tmp_path / "own" / "bonafide").mkdir(parents=True)
    (tmp_path / "own" / "spoof").mkdir()
    for name in ("bonafide/0.wav", "spoof/1.wav"):
        (tmp_path / "own" / name).write_bytes((clips / name).read_bytes())
    (tmp_path / "own" / "spoof" / "broken.wav").write_text("no sound", encoding="utf-8")
    words = (high_listener, "--data", tmp_path / "own", "--conditions", "clean,1s")
    assert run(*words) == 1
    said = capsys.readouterr().out
    assert said.count("left out: ") == 1
    assert "broken.wav: cannot be decoded" in said
