"""Re-synthesis chains: the copy says the same, and is another waveform."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter

from demo_speech import draw_speaker, record, speak
from frames import stft
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
