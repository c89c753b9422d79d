"""FARGAN's copies: what each way changes of the features, and, where the command is, copies in step with recordings."""

import numpy as np
import pytest

import fargan
from config import SAMPLE_RATE
from errors import UserError
from fargan import BANDS, FEATURES, METHODS, PITCH, WAYS
from vocoders import is_installed

needs_command = pytest.mark.skipif(not is_installed(fargan.COMMAND), reason=f"needs {fargan.COMMAND}")


@pytest.fixture
def spoken(monkeypatch):
    """A vocoder that hears a known thing in each recording; gives what it is asked to speak, by way."""
    asked = []

    def features(waveform):
        rng = np.random.default_rng(len(waveform))
        bands = rng.normal(size=BANDS), rng.uniform(0.5, 2, BANDS)
        frames = len(waveform) // (SAMPLE_RATE // 100)
        heard = rng.normal(*bands, (frames, BANDS)).cumsum(axis=0) / np.sqrt(np.arange(1, frames + 1))[:, None]
        return np.column_stack([heard, np.full(frames, rng.normal()), np.ones(frames)]).astype(np.float32)

    def synthesise(given):
        asked.append(given.copy())
        return np.zeros(len(given) * SAMPLE_RATE // 100, np.float32)

    monkeypatch.setattr(fargan, "features", features)
    monkeypatch.setattr(fargan, "synthesise", synthesise)
    recording, partner = np.zeros(16_000, np.float32), np.zeros(20_000, np.float32)

    def speak(how):
        made = METHODS[f"fargan_{how}"].make(recording, np.random.default_rng(3), partner)
        assert len(made) == len(recording)
        return asked[-1]

    return speak, features(np.zeros(17_600)), features(partner)


def test_each_way_changes_what_it_says(spoken):
    speak, heard, _ = spoken
    np.testing.assert_array_equal(speak("plain"), heard)
    changed = {how: speak(how) for how in WAYS}
    for how in ("smooth", "coded"):
        np.testing.assert_array_equal(changed[how][:, BANDS:], heard[:, BANDS:])
        assert not np.array_equal(changed[how][:, :BANDS], heard[:, :BANDS])
    roughness = {how: np.abs(np.diff(given[:, :BANDS], axis=0)).mean() for how, given in changed.items()}
    assert roughness["smooth"] < 0.8 * roughness["plain"]
    held = np.isclose(np.diff(changed["coded"][:, :BANDS], n=2, axis=0), 0, atol=1e-4).all(axis=1)
    assert 0.4 < held.mean() < 0.8  # straight lines between what was stored every second to fourth frame
    np.testing.assert_array_equal(np.delete(changed["shifted"], PITCH, 1), np.delete(heard, PITCH, 1))
    octaves = changed["shifted"][:, PITCH] - heard[:, PITCH]
    assert np.ptp(octaves) < 1e-5 and 0.15 <= abs(octaves[0]) <= 0.52
    assert len(changed["rescaled"]) > len(heard)


def test_a_conversion_takes_the_partners_voice(spoken):
    speak, _, partners = spoken
    converted = speak("converted")
    np.testing.assert_allclose(converted[:, :BANDS].mean(axis=0), partners[:, :BANDS].mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(converted[:, :BANDS].std(axis=0), partners[:, :BANDS].std(axis=0), rtol=1e-3)
    assert np.median(converted[:, PITCH]) == pytest.approx(np.median(partners[:, PITCH]), abs=1e-5)


def test_a_command_of_another_kind_is_refused(tmp_path, monkeypatch):
    command = tmp_path / "fargan_demo"
    command.write_text("#!/bin/sh\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UserError, match=r"fargan_demo -features: failed; is it that of Opus 1\.6\?"):
        fargan.features(np.zeros(1600, np.float32))


@needs_command
def test_what_it_hears_is_the_pitch(speech_like):
    from frames import pitch_track

    for seed in (3, 5):
        waveform = speech_like(1.5, seed=seed).astype(np.float32)
        track, heard = pitch_track(waveform, 160), fargan.features(waveform)
        period = 256 / 2.0 ** (heard[:, PITCH][heard[:, FEATURES - 1] > 0.3] + 1.5)  # samples, as Opus reads it
        assert SAMPLE_RATE / np.median(period) == pytest.approx(np.median(track[track > 0]), rel=0.05)


@needs_command
def test_a_copy_is_in_step_with_its_recording(speech_like):
    recording = np.zeros(32_000, np.float32)
    recording[8_000:24_000] = 0.3 * speech_like(1.0)
    copy = METHODS["fargan_plain"].make(recording, np.random.default_rng(0), recording)
    loud = np.abs(copy) > 0.1 * np.abs(copy).max()
    assert np.flatnonzero(loud)[[0, -1]] == pytest.approx([8_000, 24_000], abs=400)
