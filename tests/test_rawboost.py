"""RawBoost: each algorithm against its definition computed another way."""

import numpy as np
import pytest
from scipy.signal import freqz

from config import SAMPLE_RATE
from rawboost import (
    LINEAR_GAIN_DB,
    POWER_GAIN_DB,
    RAWBOOST,
    convolutive_noise,
    impulsive_noise,
    notch_filter,
    stationary_noise,
)


@pytest.fixture(scope="module")
def quiet() -> np.ndarray:
    """White noise far below full scale: nothing is normalised."""
    return np.random.default_rng(0).normal(0, 0.05, 8_001).astype(np.float32)


def test_filters_are_linear_phase_with_notches_where_they_were_drawn():
    deep = 0
    for seed in range(20):
        taps = notch_filter(np.random.default_rng(seed), LINEAR_GAIN_DB)
        assert len(taps) % 2 and 5 * 11 - 4 <= len(taps) <= 5 * 99 - 4
        np.testing.assert_allclose(taps, taps[::-1], atol=1e-12)  # linear phase
        replay = np.random.default_rng(seed)
        for _ in range(5):
            centre, width, length = replay.uniform(20, 8000), replay.uniform(100, 1000), replay.uniform(10, 100)
            if length * width > 40_000 and width / 2 < centre < 8000 - width / 2:  # sharp enough to be deep
                _, response = freqz(taps, worN=[centre], fs=SAMPLE_RATE)
                assert 20 * np.log10(np.abs(response[0])) < -12
                deep += 1
    assert deep > 10


@pytest.mark.parametrize(("gain", "low", "high"), [(LINEAR_GAIN_DB, 0, 0), (POWER_GAIN_DB, -20, -5)])
def test_highest_gain_of_a_filter_is_the_drawn_one(gain, low, high):
    peaks = []
    for seed in range(20):
        _, response = freqz(notch_filter(np.random.default_rng(seed), gain), worN=2048)
        peaks.append(20 * np.log10(np.abs(response).max()))
    assert low - 0.1 < min(peaks) and max(peaks) < high + 0.1
    assert np.ptp(peaks) > 0.6 * (high - low)


def test_convolutive_noise_is_the_sum_of_filtered_powers(quiet):
    loud = quiet * 4
    for seed in range(3):
        rng = np.random.default_rng(seed)
        filters = [notch_filter(rng, LINEAR_GAIN_DB if order == 1 else POWER_GAIN_DB) for order in range(1, 6)]
        expected = np.zeros(len(loud))
        for order, taps in enumerate(filters, 1):
            full = np.convolve(loud.astype(np.float64) ** order, taps)
            expected += full[len(taps) // 2 :][: len(loud)]
        expected -= expected.mean()
        expected /= max(1, np.abs(expected).max())
        np.testing.assert_allclose(convolutive_noise(loud, np.random.default_rng(seed)), expected, atol=2e-6)


def test_impulses_hit_up_to_a_tenth_of_the_samples_by_up_to_twice_their_value(quiet):
    shares = []
    for seed in range(40):
        change = impulsive_noise(quiet, np.random.default_rng(seed)) - quiet
        shares.append(np.mean(change != 0))
        assert (np.abs(change) <= 2.001 * np.abs(quiet)).all()
    assert max(shares) <= 0.1 and max(shares) > 0.08 and min(shares) < 0.02


def test_stationary_noise_reaches_the_snr_drawn_for_it(quiet):
    reached = []
    for seed in range(40):
        added = stationary_noise(quiet, np.random.default_rng(seed)) - quiet
        reached.append(20 * np.log10(np.linalg.norm(quiet) / np.linalg.norm(added)))
    replay = np.random.default_rng(39)
    replay.standard_normal(len(quiet), dtype=np.float32)
    notch_filter(replay, LINEAR_GAIN_DB)
    assert reached[-1] == pytest.approx(replay.uniform(10, 40), abs=0.01)
    assert 9.99 < min(reached) < 14 and 36 < max(reached) < 40.01


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("rawboost1", (convolutive_noise,)),
        ("rawboost2", (impulsive_noise,)),
        ("rawboost3", (stationary_noise,)),
        ("rawboost4", (convolutive_noise, impulsive_noise, stationary_noise)),
        ("rawboost5", (convolutive_noise, impulsive_noise)),
        ("rawboost6", (convolutive_noise, stationary_noise)),
        ("rawboost7", (impulsive_noise, stationary_noise)),
    ],
)
def test_series_is_one_after_the_other(name, steps, quiet):
    rng, expected = np.random.default_rng(7), quiet
    for step in steps:
        expected = step(expected, rng)
    np.testing.assert_array_equal(RAWBOOST[name](quiet, np.random.default_rng(7)), expected)


def test_parallel_is_the_sum_of_both_on_the_input(quiet):
    rng = np.random.default_rng(7)
    expected = convolutive_noise(quiet, rng) + impulsive_noise(quiet, rng)
    np.testing.assert_array_equal(RAWBOOST["rawboost8"](quiet, np.random.default_rng(7)), expected)


@pytest.mark.parametrize("name", ["rawboost1", "rawboost2", "rawboost5", "rawboost8"])
def test_what_would_pass_full_scale_is_scaled_to_it(name, quiet):
    loud = quiet / np.abs(quiet).max()
    peaks = [np.abs(RAWBOOST[name](loud, np.random.default_rng(seed))).max() for seed in range(10)]
    assert max(peaks) == pytest.approx(1, abs=1e-6)
