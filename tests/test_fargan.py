"""FARGAN's copies: what each way changes of the features, and, where the command is, copies in step with recordings."""

import numpy as np
import pytest

import fargan
from config import SAMPLE_RATE
from errors import UserError
from fargan import BANDS, FEATURES, FRAME, METHODS, PITCH, SPARE, WAYS
from vocoders import is_installed

needs_command = pytest.mark.skipif(not is_installed(fargan.COMMAND), reason=f"needs {fargan.COMMAND}")
RECORDING, PARTNER = np.zeros(16_000, np.float32), np.zeros(20_000, np.float32)


def heard(samples):
    """Features of as many samples that differ with their number, each band on its way, the pitch moving."""
    rng, frames = np.random.default_rng(samples), samples // FRAME
    cepstrum = rng.normal(rng.normal(size=BANDS), rng.uniform(0.5, 2, BANDS), (frames, BANDS)).cumsum(axis=0)
    pitch = rng.normal() + 0.1 * rng.normal(size=frames)
    return np.column_stack([cepstrum, pitch, np.ones(frames)]).astype(np.float32)


@pytest.fixture
def spoken(monkeypatch):
    """What the vocoder is asked to speak, by way and seed; it hears a known thing and says as many samples."""
    asked = []

    def synthesise(features):
        asked.append(features.copy())
        return np.arange(len(features) * FRAME, dtype=np.float32)

    monkeypatch.setattr(fargan, "features", lambda waveform: heard(len(waveform)))
    monkeypatch.setattr(fargan, "synthesise", synthesise)

    def speak(how, seed=3):
        made = METHODS[f"fargan_{how}"].make(RECORDING, np.random.default_rng(seed), PARTNER)
        assert len(made) == len(RECORDING)
        return asked[-1]

    return speak


def test_plain_says_what_it_heard(spoken):
    np.testing.assert_array_equal(spoken("plain"), heard(len(RECORDING) + SPARE))


def test_smooth_is_smoother(spoken):
    plain, smooth = spoken("plain"), spoken("smooth")
    np.testing.assert_array_equal(smooth[:, BANDS:], plain[:, BANDS:])
    roughness = [np.abs(np.diff(said[:, :BANDS], axis=0)).mean() for said in (plain, smooth)]
    assert roughness[1] < 0.8 * roughness[0]


def test_coded_keeps_a_frame_in_several_in_coarse_steps(spoken):
    plain = spoken("plain")
    for seed in range(5):
        coded = spoken("coded", seed)
        np.testing.assert_array_equal(coded[:, BANDS:], plain[:, BANDS:])
        bends = ~np.isclose(np.diff(coded[:, :BANDS], n=2, axis=0), 0, atol=1e-3).all(axis=1)
        held = np.diff(np.flatnonzero(bends)).min()  # straight lines between the frames that are kept
        assert 2 <= held <= 4
        kept, spread = coded[::held, :BANDS], plain[:, :BANDS].std(axis=0)
        steps = np.array([np.diff(np.unique(band.round(4))).min() for band in kept.T])
        assert (steps > 0.25 * spread).all()


def test_shifted_moves_the_pitch_and_nothing_else_up_or_down(spoken):
    plain, moved = spoken("plain"), []
    for seed in range(12):
        shifted = spoken("shifted", seed)
        np.testing.assert_array_equal(np.delete(shifted, PITCH, 1), np.delete(plain, PITCH, 1))
        octaves = shifted[:, PITCH] - plain[:, PITCH]
        assert np.ptp(octaves) < 1e-5 and 0.15 <= abs(octaves[0]) <= 0.52
        moved.append(octaves[0])
    assert min(moved) < 0 < max(moved)


def test_a_conversion_takes_the_partners_voice(spoken):
    converted, plain, partners = spoken("converted"), spoken("plain"), heard(len(PARTNER))
    np.testing.assert_allclose(converted[:, :BANDS].mean(axis=0), partners[:, :BANDS].mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(converted[:, :BANDS].std(axis=0), partners[:, :BANDS].std(axis=0), rtol=1e-3)
    assert np.median(converted[:, PITCH]) == pytest.approx(np.median(partners[:, PITCH]), abs=1e-5)
    np.testing.assert_allclose(np.diff(converted[:, PITCH]), np.diff(plain[:, PITCH]), atol=1e-5)  # its melody stays


def test_rescaled_goes_in_longer_and_comes_out_as_long(spoken):
    frames = {len(spoken("rescaled", seed)) for seed in range(5)}
    assert len(frames) > 1 and min(frames) > 1.04 * len(RECORDING) / FRAME


def test_conversions_are_named_so():
    assert {how for how in WAYS if METHODS[f"fargan_{how}"].kind == "conversion"} == {"shifted", "converted"}
    assert {(method.family, method.needs) for method in METHODS.values()} == {("fargan", "fargan_demo")}


@pytest.mark.parametrize("script", ["exit 1", "exit 0", 'head -c 144 /dev/zero > "$3"'])
def test_a_command_of_another_kind_is_refused(script, tmp_path, monkeypatch):
    command = tmp_path / "fargan_demo"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UserError, match=r"fargan_demo -features: gives \d+ numbers, not 200; is it that of Opus 1\.6"):
        fargan.features(np.zeros(1600, np.float32))


@needs_command
def test_what_it_hears_is_the_pitch(speech_like):
    from frames import pitch_track

    for seed in (3, 5):
        waveform = speech_like(1.5, seed=seed).astype(np.float32)
        track, features = pitch_track(waveform, FRAME), fargan.features(waveform)
        period = 256 / 2.0 ** (features[:, PITCH][features[:, FEATURES - 1] > 0.3] + 1.5)  # samples, as Opus reads it
        assert SAMPLE_RATE / np.median(period) == pytest.approx(np.median(track[track > 0]), rel=0.05)


@needs_command
@pytest.mark.parametrize("how", ["plain", "rescaled"])
def test_a_copy_is_in_step_with_its_recording(how, speech_like):
    recording = np.zeros(32_000, np.float32)
    recording[8_000:24_000] = 0.3 * speech_like(1.0)
    copy = METHODS[f"fargan_{how}"].make(recording, np.random.default_rng(0), recording)
    loud = np.abs(copy) > 0.1 * np.abs(copy).max()
    assert np.flatnonzero(loud)[[0, -1]] == pytest.approx([8_000, 24_000], abs=400)


@needs_command
@pytest.mark.parametrize("how", WAYS)
def test_silence_stays_silent(how):
    assert np.abs(METHODS[f"fargan_{how}"].make(RECORDING, np.random.default_rng(0), RECORDING)).max() < 0.01
