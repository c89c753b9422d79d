"""Copies of recordings: what they keep, what they lose, and that nothing trivial tells them from their recording."""

import numpy as np
import pytest

from config import SAMPLE_RATE
from dressing import digital_silence, dress
from fargan import METHODS as FARGAN_METHODS
from frames import stft
from vocoders import METHODS as CLASSIC_METHODS

METHODS = CLASSIC_METHODS | FARGAN_METHODS
HERE = [
    pytest.param(name, marks=() if method.is_here else pytest.mark.skip(f"needs {method.needs}"))
    for name, method in METHODS.items()
]


@pytest.fixture(scope="module")
def recording(speech_like):
    """1.5 s of a voice over faint noise, low-passed at 6 kHz, digital silence before it."""
    rng = np.random.default_rng(4)
    waveform = 0.3 * speech_like(1.5) + 1e-3 * rng.standard_normal(24_000)
    spectrum = np.fft.rfft(waveform)
    spectrum[np.fft.rfftfreq(24_000, 1 / SAMPLE_RATE) > 6000] *= 1e-3
    waveform = np.fft.irfft(spectrum).astype(np.float32)
    waveform[:2000] = 0
    return np.round(waveform * 32768).astype(np.float32) / 32768


@pytest.fixture(scope="module")
def partner(speech_like):
    return (0.2 * speech_like(1.2, seed=9)).astype(np.float32)


def decibels(waveform):
    """Mean power in dB of 16 bands of 500 Hz."""
    power = (np.abs(stft(waveform, 1024, 256)) ** 2).mean(axis=0)[:512]
    return 10 * np.log10(power.reshape(16, 32).mean(axis=1) + 1e-12)


@pytest.mark.parametrize("name", HERE)
def test_a_dressed_copy_keeps_all_that_is_trivial_and_not_the_waveform(name, recording, partner):
    bare = METHODS[name].make(recording, np.random.default_rng(1), partner)
    assert np.isfinite(bare).all()
    copy = dress(bare, recording)
    assert copy.dtype == np.float32 and copy.shape == recording.shape and np.isfinite(copy).all()
    assert 20 * np.log10(copy.std() / recording.std()) == pytest.approx(0, abs=0.8)
    assert np.abs(copy).max() <= np.abs(recording).max()
    assert not copy[digital_silence(recording)].any() and digital_silence(recording)[:2000].all()
    assert copy[2000:].mean() == pytest.approx(recording[2000:].mean(), abs=2e-4)
    assert np.abs(decibels(copy) - decibels(recording))[:11].max() < 13  # same colour, though a voice
    assert np.abs(decibels(copy) - decibels(recording))[12:].max() < 13  # has few tones; and the low-pass
    difference = np.linalg.norm(copy - recording) / np.linalg.norm(recording)
    assert difference > 0.1  # the copy is no recording


@pytest.mark.parametrize("name", HERE)
def test_a_copy_depends_on_its_generator_alone(name, recording, partner):
    first = METHODS[name].make(recording, np.random.default_rng(7), partner)
    second = METHODS[name].make(recording, np.random.default_rng(7), partner)
    assert len(first) == len(recording)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", HERE)
def test_silence_and_noise_are_copied_too(name, partner):
    noise = (1e-4 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)
    noise[:8000] = 0
    bare = METHODS[name].make(noise, np.random.default_rng(1), partner)
    copy = dress(bare, noise)
    assert np.isfinite(bare).all() and np.isfinite(copy).all() and copy.std() == pytest.approx(noise.std(), rel=0.1)


def test_a_conversion_takes_the_partners_pitch(speech_like):
    if not METHODS["world_conversion"].is_here:
        pytest.skip("needs pyworld")
    from frames import pitch_track

    low, high = (speech_like(1.5, seed=seed).astype(np.float32) for seed in (3, 5))
    pitches = [np.median(f[f > 0]) for f in (pitch_track(x, 128) for x in (low, high))]
    assert abs(np.log(pitches[0] / pitches[1])) > 0.2
    converted = METHODS["world_conversion"].make(low, np.random.default_rng(0), high)
    f0 = pitch_track(converted, 128)
    assert np.median(f0[f0 > 0]) == pytest.approx(pitches[1], rel=0.06)


def test_digital_silence_is_long_runs_of_zeros_only():
    waveform = np.ones(1000, np.float32)
    waveform[100:179] = waveform[300:380] = waveform[990:] = 0
    assert np.flatnonzero(digital_silence(waveform)).tolist() == list(range(300, 380))
