"""Re-synthesis chains and the short-time tools below them."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter

from config import SAMPLE_RATE
from demo_speech import draw_speaker, record, speak
from frames import (
    autocorrelation,
    istft,
    pitch_track,
    predictor,
    pulse_train,
    reflection_coefficients,
    stft,
    time_varying_filter,
)
from resynthesis import CHAINS, match_long_term_spectrum


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    rng = np.random.default_rng(3)
    return record(speak(draw_speaker(rng), 2.5, rng), rng)


def envelope(waveform: np.ndarray) -> np.ndarray:
    return gaussian_filter1d(np.abs(waveform), 400)


@pytest.mark.parametrize("name", CHAINS)
def test_copy_keeps_length_and_envelope_but_no_samples(name, recording):
    before = recording.copy()
    copy = CHAINS[name](recording, np.random.default_rng(1))
    assert copy.shape == recording.shape and copy.dtype == np.float32 and np.isfinite(copy).all()
    np.testing.assert_array_equal(recording, before)
    assert 0.4 < copy.std() / recording.std() < 2.5
    assert np.corrcoef(envelope(copy), envelope(recording))[0, 1] > 0.85
    # as a waveform it is another one: what is left after the best scaling is most of it
    assert abs(np.corrcoef(copy, recording)[0, 1]) < 0.75


@pytest.mark.parametrize("name", CHAINS)
def test_same_rng_same_copy(name, recording):
    first, second, other = (CHAINS[name](recording, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("samples", [400, 5_000, 16_001])
def test_silence_noise_and_odd_lengths(name, samples):
    rng = np.random.default_rng(0)
    for waveform in (np.zeros(samples, np.float32), rng.normal(0, 0.1, samples).astype(np.float32)):
        copy = CHAINS[name](waveform, np.random.default_rng(1))
        assert copy.shape == waveform.shape and np.isfinite(copy).all()
        assert np.abs(copy).max() < 10 * np.abs(waveform).max() + 0.01


def test_matching_takes_colour_and_level_away(recording):
    copy = lfilter([1.0, -0.9], [1.0], 5 * recording).astype(np.float32)
    matched = match_long_term_spectrum(copy, recording)

    def bands(waveform):
        power = (np.abs(stft(waveform, 1024, 512)) ** 2).mean(axis=0)
        return 10 * np.log10([band.mean() for band in np.array_split(power, 8)])

    assert np.abs(bands(copy) - bands(recording)).max() > 6
    assert np.abs(bands(matched) - bands(recording)).max() < 1.5


@pytest.mark.parametrize(("size", "hop"), [(1024, 256), (800, 200), (512, 128), (640, 160)])
def test_istft_inverts_stft(size, hop, recording):
    again = istft(stft(recording, size, hop), size, hop, len(recording))
    np.testing.assert_allclose(again, recording, atol=1e-5)


def test_constant_time_varying_filter_is_convolution(recording):
    impulse = (0.9 ** np.arange(200)).astype(np.float32)
    frames = len(recording) // 128 + 2
    response = np.tile(np.fft.rfft(impulse, 1024).astype(np.complex64), (frames, 1))
    np.testing.assert_allclose(
        time_varying_filter(recording, response, 128),
        np.convolve(recording, impulse)[: len(recording)],
        atol=1e-4,
    )


@pytest.mark.parametrize("f0", [80.0, 121.0, 200.0, 310.0])
def test_pitch_of_pulses(f0):
    pulses = lfilter([1.0], [1.0, -1.6, 0.8], pulse_train(np.full(SAMPLE_RATE, f0))).astype(np.float32)
    track = pitch_track(pulses, 128)[10:-10]
    assert np.median(np.abs(track / f0 - 1)) < 0.02
    assert abs(pulse_train(np.full(SAMPLE_RATE, f0)).sum() / np.sqrt(SAMPLE_RATE / f0) - f0) < 1.5


def test_noise_has_no_pitch():
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    assert (pitch_track(noise, 128) > 0).mean() < 0.1


def test_linear_prediction_finds_the_filter():
    truth = np.array([1.0, -1.5, 0.9, -0.2])
    noise = np.random.default_rng(0).normal(0, 1, 8 * SAMPLE_RATE)
    signal = lfilter([1.0], truth, noise).astype(np.float32)
    reflection, _ = reflection_coefficients(autocorrelation(signal, 8192, 4096, 4)[2:-2])
    np.testing.assert_allclose(predictor(reflection).mean(axis=0), truth, atol=0.05)
