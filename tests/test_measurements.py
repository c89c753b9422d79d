"""What is measured of a clip is what was put into it, and a measurement that was cut off ends as if it had not been."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.signal import butter, sosfiltfilt

import measurements
from audio import load_audio
from config import BONAFIDE, SPOOF
from errors import AudioError
from measurements import HERTZ, MEASUREMENTS, Spectra, mean_power, measure_clip, measure_clips


def write(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))


def test_a_clip_of_known_parts(tmp_path: Path) -> None:
    rate = 48_000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate + 0.1)
    mono = np.concatenate([np.zeros(round(0.3 * rate)), tone, np.zeros(round(0.2 * rate))])
    values, spectrum = measure_clip(write(tmp_path / "a.wav", np.stack([mono, mono], axis=1), rate))
    assert set(values) == set(MEASUREMENTS)
    assert values["seconds"] == 1.5 and values["sample_rate"] == rate and values["channels"] == 2
    assert values["lead_silence"] == pytest.approx(0.3, abs=0.021)
    assert values["trail_silence"] == pytest.approx(0.2, abs=0.021)
    assert values["peak_db"] == pytest.approx(20 * np.log10(0.5), abs=0.01)
    assert values["rms_db"] == pytest.approx(10 * np.log10(0.125 / 1.5), abs=0.01)
    assert values["zero_percent"] == pytest.approx(100 / 3, abs=0.01)
    assert values["rolloff_hz"] == pytest.approx(1000, abs=40)
    assert abs(HERTZ[spectrum.argmax()] - 1000) < 10 and (10 ** (spectrum / 10)).sum() > 0.999


def test_offset_and_pauses(tmp_path: Path) -> None:
    values, _ = measure_clip(write(tmp_path / "a.wav", 0.01 + 0.1 * np.sin(np.arange(16_000) * np.pi / 20)))
    assert values["dc_db"] == pytest.approx(-40, abs=0.05)
    half = noise(2)
    half[16_000:] /= 1000
    assert measure_clip(write(tmp_path / "b.wav", half))[0]["pause_db"] == pytest.approx(-80, abs=1)


@pytest.mark.parametrize("cut", [3400, 5500, 7000])
def test_bandwidth_of_a_low_pass(tmp_path: Path, cut: int) -> None:
    low = sosfiltfilt(butter(20, cut, fs=16_000, output="sos"), noise(2))
    assert measure_clip(write(tmp_path / "a.wav", noise()))[0]["bandwidth_hz"] == 8000
    assert cut < measure_clip(write(tmp_path / "b.wav", low))[0]["bandwidth_hz"] < 1.25 * cut


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_edge_of_what_was_resampled_from_a_higher_rate(tmp_path: Path, rate: int) -> None:
    high = 0.1 * np.random.default_rng(rate).standard_normal(rate)
    now = measure_clip(write(tmp_path / "high.wav", high, rate))[0]["edge_db"]
    before = measure_clip(write(tmp_path / "low.wav", load_audio(tmp_path / "high.wav")))[0]["edge_db"]
    assert now == pytest.approx(before, abs=0.01) and now < -30


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_no_edge_where_the_band_is_full_or_both_parts_are_empty(tmp_path: Path, rate: int) -> None:
    clip = write(tmp_path / "a.wav", noise()[:rate], rate)
    assert measure_clip(clip)[0]["edge_db"] == pytest.approx(0, abs=1)


def test_level_changes_nothing_but_the_level(tmp_path: Path, speech_like) -> None:
    clip = np.concatenate([0.01 * noise(0.3), speech_like(1.5), 0.01 * noise(0.2, 1)])
    loud, spectrum = measure_clip(write(tmp_path / "a.wav", clip))
    quiet, quiet_spectrum = measure_clip(write(tmp_path / "b.wav", clip / 10))
    for name, value in loud.items():
        lower = 20 if name in ("rms_db", "peak_db", "pause_db") else 0
        if name != "dc_db":
            assert quiet[name] == pytest.approx(value - lower, abs=0.01), name
    np.testing.assert_allclose(quiet_spectrum, spectrum, atol=0.05)


def test_long_clips_in_pieces_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = noise(3).astype(np.float32)
    whole = mean_power(waveform)
    monkeypatch.setattr(measurements, "AT_ONCE", 7)
    np.testing.assert_allclose(mean_power(waveform), whole, rtol=1e-6)


@pytest.mark.parametrize("place", [0, -1])
def test_a_click_that_every_window_misses_has_numbers_too(tmp_path: Path, place: int) -> None:
    click = np.zeros(16_000)
    click[place] = 0.5
    values, spectrum = measure_clip(write(tmp_path / "a.wav", click))
    assert np.isfinite(spectrum).all() and np.isfinite(list(values.values())).all()


def test_refuses_what_load_audio_refuses(tmp_path: Path) -> None:
    broken = noise()
    broken[5] = np.nan
    files = [
        write(tmp_path / "nan.wav", broken),
        write(tmp_path / "short.wav", noise(0.05)),
        write(tmp_path / "silent.wav", np.zeros(16_000)),
        tmp_path / "none.wav",
    ]
    for path in files:
        with pytest.raises(AudioError) as ours:
            measure_clip(path)
        with pytest.raises(AudioError) as theirs:
            load_audio(path)
        assert str(ours.value) == str(theirs.value)


def test_running_sums_are_mean_and_deviation() -> None:
    rng, spectra = np.random.default_rng(0), Spectra()
    clips = rng.normal(-50, 10, (30, len(HERTZ)))
    for number, clip in enumerate(clips):
        spectra.add(SPOOF if number % 3 else BONAFIDE, f"A{number % 3}", clip)
    for label, attacks, chosen in (
        (BONAFIDE, None, np.arange(30) % 3 == 0),
        (SPOOF, None, np.arange(30) % 3 > 0),
        (SPOOF, ["A2"], np.arange(30) % 3 == 2),
    ):
        count, mean, spread = spectra.statistics(label, attacks)
        assert count == chosen.sum()
        np.testing.assert_allclose(mean, clips[chosen].mean(axis=0))
        np.testing.assert_allclose(spread, clips[chosen].std(axis=0))
    assert spectra.statistics(-1)[0] == 0


@pytest.fixture
def rows(tmp_path: Path) -> pd.DataFrame:
    paths = [write(tmp_path / f"{n}.wav", noise(0.3, n)) for n in range(20)]
    paths[7].write_bytes(b"no sound")
    attack = np.where(np.arange(20) % 2, "A1", "-")
    return pd.DataFrame(
        {"path": [str(p) for p in paths], "label": np.arange(20) % 2, "attack": attack, "speaker": "NA", "split": "-"}
    ).assign(utterance_id=[f"u{n}" for n in range(20)], page="-")


def same(one: tuple[pd.DataFrame, Spectra], other: tuple[pd.DataFrame, Spectra]) -> None:
    pd.testing.assert_frame_equal(one[0], other[0])
    assert one[1].sums.keys() == other[1].sums.keys()
    for group in one[1].sums:
        np.testing.assert_array_equal(one[1].sums[group], other[1].sums[group])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Small saves, and the files that were measured; "stop" in it interrupts once."""
    seen: list[str] = []

    def measure(path: str) -> tuple[dict[str, float], np.ndarray]:
        if seen[:1] == ["stop"] and len(seen) == 12:
            seen[0] = "stopped"
            raise KeyboardInterrupt
        seen.append(path)
        return measure_clip(path)

    monkeypatch.setattr(measurements, "measure_clip", measure)
    monkeypatch.setattr(measurements, "SAVE_EVERY", 4)
    monkeypatch.setattr(measurements, "BATCH", 2)
    return seen


def test_a_bad_file_is_named_and_the_rest_measured(rows: pd.DataFrame, tmp_path: Path) -> None:
    table, spectra = measure_clips(rows, tmp_path / "out")
    assert table["error"].ne("").sum() == 1 and "7.wav" in table["error"][7]
    assert table["seconds"].notna().sum() == 19 and (table["speaker"] == "NA").all()
    assert spectra.statistics(SPOOF)[0] == 9 and spectra.statistics(BONAFIDE)[0] == 10


@pytest.mark.parametrize("torn", [False, True])
def test_interrupted_goes_on_and_ends_the_same(rows, tmp_path: Path, counted: list[str], torn: bool) -> None:
    whole = measure_clips(rows, tmp_path / "whole")
    counted[:] = ["stop"]
    with pytest.raises(KeyboardInterrupt):
        measure_clips(rows, tmp_path / "out")
    if torn:  # the power went off within a line
        with (tmp_path / "out" / "measurements.csv").open("a", encoding="utf-8") as file:
            file.write("u8,half a li")
    counted.clear()
    same(measure_clips(rows, tmp_path / "out"), whole)
    assert 8 <= len(counted) <= 16  # what was saved was not measured again
    written = [(tmp_path / name / "measurements.csv").read_bytes() for name in ("whole", "out")]
    assert written[0] == written[1]
    counted.clear()
    same(measure_clips(rows, tmp_path / "out"), whole)
    assert not counted


def test_what_changed_is_measured_anew(rows: pd.DataFrame, tmp_path: Path, counted: list[str]) -> None:
    measure_clips(rows, tmp_path / "out")
    write(Path(rows["path"][3]), noise(0.5, 99))
    counted.clear()
    table, _ = measure_clips(rows, tmp_path / "out")
    assert len(counted) == 20 and table["seconds"][3] == 0.5
    counted.clear()
    fewer = measure_clips(rows[2:], tmp_path / "out")
    assert len(counted) == 18 and len(fewer[0]) == 18
    measure_clips(rows[2:].assign(split="dev"), tmp_path / "out")
    assert (pd.read_csv(tmp_path / "out" / "measurements.csv")["split"] == "dev").all()
    relabelled = rows[2:].assign(label=0, attack="-")
    assert measure_clips(relabelled, tmp_path / "out")[1].statistics(SPOOF)[0] == 0
