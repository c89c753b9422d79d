"""Short-time tools against closed forms: inversion, convolution, known pitch, known filter."""

import numpy as np
import pytest
from scipy.signal import lfilter

from config import SAMPLE_RATE
from frames import (
    autocorrelation,
    continuous_pitch,
    istft,
    pitch_track,
    predictor,
    pulse_train,
    reflection_coefficients,
    stft,
    time_varying_filter,
)


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    return lfilter([1.0], [1.0, -0.9], np.random.default_rng(0).normal(0, 0.05, 20_001)).astype(np.float32)


def test_unvoiced_gaps_are_bridged():
    np.testing.assert_allclose(continuous_pitch(np.array([0, 100, 0, 120, 0.0])), [100, 100, 110, 120, 120])
    assert (continuous_pitch(np.zeros(4)) > 0).all()


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
