"""Augmentations: each does to the waveform what its sentence says, and nothing to anything else."""

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, correlate, sosfiltfilt, welch

import augmentation
from augmentation import (
    AUGMENTATIONS,
    CODECS,
    Augmenter,
    add_noise,
    available_codecs,
    band_limit,
    codec,
    equalise,
    keep_band,
    level,
    mixup,
    noise,
    reverberation,
    room_response,
    shift,
    shift_pitch,
    shorten,
    speed,
    through_codec,
)
from config import BONAFIDE, SAMPLE_RATE, SPOOF
from demo_speech import draw_speaker, record, speak
from errors import UserError

OTHER_LENGTH = ("speed", "shorten")


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    rng = np.random.default_rng(3)
    return record(speak(draw_speaker(rng), 2.0, rng), rng)[:30_001]


def decibels(ratio: float) -> float:
    return 10 * np.log10(ratio)


def tone(hertz: float, samples: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / SAMPLE_RATE)).astype(np.float32)


def loudest_frequency(waveform: np.ndarray) -> float:
    middle = waveform[len(waveform) // 8 : -len(waveform) // 8]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 2**19))
    return spectrum.argmax() * SAMPLE_RATE / 2**19


def lag_and_correlation(copy: np.ndarray, original: np.ndarray) -> tuple[int, float]:
    """By how many samples a copy comes late, and how alike both are then, above 300 Hz."""
    # below, AMR's own high-pass turns the phase
    high = butter(4, 300, "high", fs=SAMPLE_RATE, output="sos")
    copy, original = sosfiltfilt(high, copy), sosfiltfilt(high, original)
    correlation = correlate(copy, original, "full", method="fft")
    best = int(correlation.argmax())
    return best - len(original) + 1, correlation[best] / np.sqrt(copy @ copy * (original @ original))


# ---------------------------------------------------------------- what holds for all


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_changes_the_copy_only_and_draws_from_the_given_generator_only(name, recording):
    before, state, legacy = recording.copy(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (AUGMENTATIONS[name](recording, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(recording, before)
    assert random.getstate() == state and (np.random.get_state()[1] == legacy).all()  # noqa: NPY002
    assert first.dtype == np.float32 and np.isfinite(first).all()
    assert first.shape == recording.shape or name in OTHER_LENGTH
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other) and not np.array_equal(first, recording)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_same_bytes_from_threads_in_parallel(name, recording):
    seeds = [1, 2, 3, 4] * 2
    alone = {seed: AUGMENTATIONS[name](recording, np.random.default_rng(seed)) for seed in set(seeds)}
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda seed: AUGMENTATIONS[name](recording, np.random.default_rng(seed)), seeds)
    for seed, waveform in zip(seeds, together, strict=True):
        np.testing.assert_array_equal(waveform, alone[seed])


@given(st.sampled_from(list(AUGMENTATIONS)), st.integers(1, 3_000), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_any_length_gives_something_finite_of_a_like_level(name, samples, seed):
    waveform = np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)
    changed = AUGMENTATIONS[name](waveform, np.random.default_rng(seed))
    silent = AUGMENTATIONS[name](np.zeros(samples, np.float32), np.random.default_rng(seed))
    for result in (changed, silent):
        assert result.dtype == np.float32 and np.isfinite(result).all()
        assert len(result) == samples or (name in OTHER_LENGTH and len(result) <= samples / 0.9 + 1)
        assert len(result) >= 0.9 * samples - 1 or name == "shorten"
    assert np.linalg.norm(changed) < 2.5 * np.linalg.norm(waveform) + 0.01 or name == "level"
    assert np.abs(silent).max() < 1e-3


def test_importing_is_light():
    heavy = {"keras", "tensorflow", "librosa", "audiomentations", "av"}
    command = f"import sys, augmentation; print(*{heavy}.intersection(sys.modules))"
    folder = Path(augmentation.__file__).parent
    loaded = subprocess.run([sys.executable, "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


# ---------------------------------------------------------------- each by itself


@pytest.mark.parametrize(("snr", "colour"), [(-3.0, 0.0), (12.5, 1.0), (35.0, 2.0)])
def test_noise_has_exactly_the_snr_and_the_colour(snr, colour, recording):
    added = add_noise(recording, snr, colour, np.random.default_rng(0)).astype(np.float64) - recording
    power = np.mean(recording.astype(np.float64) ** 2)
    assert decibels(power / np.mean(added**2)) == pytest.approx(snr, abs=2e-3)
    hertz, density = welch(added, SAMPLE_RATE, nperseg=1024)
    band = (hertz > 100) & (hertz < 6000)
    slope = np.polyfit(np.log(hertz[band]), np.log(density[band]), 1)[0]
    assert slope == pytest.approx(-colour, abs=0.15)


def test_noise_draws_its_snr_between_5_and_35_decibels(recording):
    power = np.mean(recording**2)
    snrs = [decibels(power / np.mean((noise(recording, np.random.default_rng(s)) - recording) ** 2)) for s in range(30)]
    assert 4.99 < min(snrs) < 10 and 30 < max(snrs) < 35.01


def test_shift_turns_the_clip_round_and_fades_the_stitch_alone(recording):
    shifted = shift(recording, np.random.default_rng(1))
    turn = int(np.random.default_rng(1).integers(len(recording)))
    different = np.flatnonzero(shifted != np.roll(recording, turn))
    assert len(different) and np.abs(different - turn).max() <= 80  # 5 ms


def test_speed_changes_length_and_frequency_by_the_same_factor():
    factors = []
    for seed in range(20):
        faster = speed(tone(1000, 32_000), np.random.default_rng(seed))
        factors.append(32_000 / len(faster))
        assert loudest_frequency(faster) == pytest.approx(1000 * factors[-1], rel=5e-4)
    assert 0.899 < min(factors) < 0.93 and 1.07 < max(factors) < 1.101


@pytest.mark.parametrize("semitones", [-2.0, -0.5, 0.5, 2.0])
def test_pitch_is_in_tune_and_in_place(semitones, recording):
    shifted = shift_pitch(tone(300, 32_000), semitones)
    cents = 1200 * np.log2(loudest_frequency(shifted) / 300)
    assert cents == pytest.approx(100 * semitones, abs=10)
    envelopes = [
        np.convolve(np.abs(w), np.hanning(400), "same") for w in (shift_pitch(recording, semitones), recording)
    ]
    copy, original = (envelope - envelope.mean() for envelope in envelopes)
    correlation = correlate(copy, original, "full", method="fft")
    assert abs(int(correlation.argmax()) - len(original) + 1) < 40
    assert correlation.max() > 0.95 * np.linalg.norm(copy) * np.linalg.norm(original)


@pytest.mark.parametrize(("low", "high"), [(0.0, 4000.0), (300.0, 3400.0)])
def test_band_is_kept_and_the_rest_is_gone(low, high):
    white = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    # away from the ends, where the cut-off noise itself jumps
    hertz, before = welch(white[2000:-2000], SAMPLE_RATE, "blackmanharris", 2048, detrend=False)
    _, after = welch(keep_band(white, low, high)[2000:-2000], SAMPLE_RATE, "blackmanharris", 2048, detrend=False)
    inside = (hertz > low + 50) & (hertz < high - 50)
    outside = (hertz < low - 150) | (hertz > high + 150)
    assert np.abs(10 * np.log10(after / before)[inside]).max() < 0.3
    assert 10 * np.log10(after / before)[outside].max() < -60
    impulse = np.zeros(2001, np.float32)
    impulse[1000] = 1
    response = keep_band(impulse, low, high)
    np.testing.assert_allclose(response, response[::-1], atol=1e-6)  # zero phase
    impulse = np.zeros(2048, np.float32)
    impulse[-1] = 1
    assert np.abs(keep_band(impulse, low, high)[:500]).max() < 1e-3  # the end does not ring into the start


def test_band_limit_draws_telephones_and_low_passes():
    white = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    lost_lows = 0
    for seed in range(20):
        hertz, density = welch(band_limit(white, np.random.default_rng(seed)), SAMPLE_RATE, nperseg=1024)
        assert density[hertz > 7700].mean() < 1e-4 * density[(hertz > 1000) & (hertz < 2500)].mean()
        lost_lows += bool(density[hertz < 90].mean() < 1e-2 * density[(hertz > 1000) & (hertz < 2500)].mean())
    assert 5 <= lost_lows <= 15


@pytest.mark.parametrize(("rt60", "direct_db"), [(0.15, 10.0), (0.5, 0.0), (1.0, -5.0)])
def test_room_decays_by_60_decibels_in_its_rt60(rt60, direct_db):
    response = room_response(rt60, direct_db, np.random.default_rng(1)).astype(np.float64)
    tail = response[1:]
    assert response[0] == 1 and not tail[:39].any()
    assert decibels(1 / np.sum(tail**2)) == pytest.approx(direct_db, abs=1e-3)
    remaining = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))  # Schroeder's integral
    falling = np.flatnonzero((remaining < -5) & (remaining > -25))
    decay = np.polyfit(falling / SAMPLE_RATE, remaining[falling], 1)[0]  # dB a second
    assert -60 / decay == pytest.approx(rt60, rel=0.1)


def test_reverberation_convolves_keeps_level_and_onset(recording):
    rng = np.random.default_rng(5)
    response = room_response(rng.uniform(0.1, 1.0), rng.uniform(-5, 15), rng)
    wet = reverberation(recording, np.random.default_rng(5))
    expected = correlate(recording.astype(np.float64), response[::-1].astype(np.float64), "full")[: len(recording)]
    expected *= np.linalg.norm(recording) / np.linalg.norm(expected)
    np.testing.assert_allclose(wet, expected, atol=1e-5)
    assert np.linalg.norm(wet) == pytest.approx(np.linalg.norm(recording), rel=1e-5)
    late = np.zeros(8000, np.float32)
    late[500] = 1
    wet = reverberation(late, np.random.default_rng(5))
    assert np.abs(wet[:500]).max() < 1e-6 < wet[500]


def test_equalise_is_a_smooth_curve_at_the_same_level():
    flat = np.random.default_rng(0).normal(0, 0.1, 4 * SAMPLE_RATE).astype(np.float32)
    for seed in range(5):
        changed = equalise(flat, np.random.default_rng(seed))
        assert np.linalg.norm(changed) == pytest.approx(np.linalg.norm(flat), rel=1e-3)
        hertz, after = welch(changed, SAMPLE_RATE, nperseg=512)
        gain = 10 * np.log10(after / welch(flat, SAMPLE_RATE, nperseg=512)[1])[2:-2]
        assert np.ptp(gain) > 3
        corners = np.arange(6) * 1600
        straight = np.interp(hertz[2:-2], corners, np.interp(corners, hertz[2:-2], gain))
        assert np.abs(gain - straight).max() < 1.5


def test_level_sets_the_peak_alone(recording):
    peaks = []
    for seed in range(200):
        changed = level(recording, np.random.default_rng(seed))
        peaks.append(20 * np.log10(np.abs(changed).max()))
        np.testing.assert_allclose(changed / np.abs(changed).max(), recording / np.abs(recording).max(), atol=1e-6)
    assert -26 <= min(peaks) < -24 and -2 < max(peaks) <= 1e-4


@given(samples=st.integers(1, 40_000), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_shorten_keeps_a_piece_of_a_second_or_more(samples, seed):
    waveform = np.arange(samples, dtype=np.float32)
    piece = shorten(waveform, np.random.default_rng(seed))
    assert min(samples, SAMPLE_RATE) <= len(piece) <= samples
    np.testing.assert_array_equal(piece, np.arange(piece[0], piece[0] + len(piece)))


def test_rounds_pile_up_with_the_same_probability_each():
    augment = Augmenter(("level",), 0.5, rounds=3)
    clip = np.full(100, 0.9, np.float32)

    def times(seed: int) -> int:
        rng, plain = np.random.default_rng(seed), np.random.default_rng(seed)
        augment(clip, SPOOF, rng)
        draws = 0
        for _ in range(3):
            if plain.random() < 0.5:
                draws += 1
                plain.integers(1), plain.uniform(-26, 0)
        assert rng.bit_generator.state == plain.bit_generator.state
        return draws

    assert {times(seed) for seed in range(40)} == {0, 1, 2, 3}


# ---------------------------------------------------------------- codecs


@pytest.mark.parametrize("name", CODECS)
def test_codec_loses_something_and_stays_in_place(name, recording):
    rates = CODECS[name].bit_rates
    likeness = {}
    for bit_rate in {rates[0], rates[-1]}:
        copy = through_codec(recording, name, bit_rate)
        assert copy.shape == recording.shape and copy.dtype == np.float32
        lag, likeness[bit_rate] = lag_and_correlation(copy, recording)
        assert abs(lag) <= 3
        assert 0.9 < likeness[bit_rate] < 0.99999
        assert abs(decibels(np.mean(copy**2) / np.mean(recording**2))) < 2
        if CODECS[name].rate == 8_000:
            hertz, density = welch(copy, SAMPLE_RATE, nperseg=1024)
            assert density[hertz > 4_300].sum() < 1e-4 * density.sum()
    assert len(rates) == 1 or likeness[rates[-1]] > likeness[rates[0]]  # more bits, more alike


@pytest.mark.parametrize("name", CODECS)
def test_codec_is_whole_to_the_last_sample_at_any_length(name):
    frame = 1024 if name == "aac" else 576 if name == "mp3" else 320
    for samples in (1, 2, frame - 1, frame, 5 * frame, 5 * frame + 1):
        clip = tone(700, samples + 800)[800:]
        copy = through_codec(clip, name, CODECS[name].bit_rates[-1])
        assert copy.shape == clip.shape and np.isfinite(copy).all()
        if samples > 1000:
            assert np.linalg.norm(copy[-100:]) > 0.5 * np.linalg.norm(clip[-100:])


def test_codec_draws_every_codec_and_several_bit_rates(monkeypatch):
    drawn = set()
    monkeypatch.setattr(augmentation, "through_codec", lambda waveform, *choice: drawn.add(choice))
    for seed in range(400):
        codec(np.zeros(1, np.float32), np.random.default_rng(seed))
    assert available_codecs() == tuple(CODECS)
    assert drawn == {(name, rate) for name in CODECS for rate in CODECS[name].bit_rates}


# ---------------------------------------------------------------- the training hook


def test_augmenter_applies_one_of_the_named_with_the_probability(monkeypatch):
    for number, name in enumerate(AUGMENTATIONS):
        monkeypatch.setitem(AUGMENTATIONS, name, lambda waveform, rng, number=number: waveform + 10**number)
    augment = Augmenter(("noise", "speed"), probability=0.3)
    clip = np.zeros(1)
    results = [float(augment(clip, SPOOF, np.random.default_rng(seed))[0]) for seed in range(2000)]
    counts = {value: results.count(value) for value in set(results)}
    assert set(counts) == {0.0, 1.0, 100.0}  # never both: that would be 101
    for value, expected in ((0.0, 1400), (1.0, 300), (100.0, 300)):
        assert abs(counts[value] - expected) < 80
    assert Augmenter(("noise",), 0.0)(clip, SPOOF, np.random.default_rng(0)) is clip


@pytest.mark.parametrize(
    ("only", "touched"), [("both", {BONAFIDE, SPOOF}), ("bonafide", {BONAFIDE}), ("spoof", {SPOOF})]
)
def test_augmenter_touches_the_wanted_class_only(only, touched, recording):
    augment = Augmenter(("noise",), 1.0, only)
    for label in (BONAFIDE, SPOOF):
        changed = augment(recording, label, np.random.default_rng(0)) is not recording
        assert changed == (label in touched)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((("noise", "echo"),), ("echo", "reverberation", "rawboost8")),
        (((),), ("no augmentation", "noise")),
        ((("noise",), 1.5), ("1.5", "0 to 1")),
        ((("noise",), 0.5, "fake"), ("fake", "bonafide")),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_what_is_valid(arguments, words):
    with pytest.raises(UserError) as error:
        Augmenter(*arguments)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words)


# ---------------------------------------------------------------- mixup


@given(st.integers(1, 17), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_mixup_blends_pairs_and_keeps_the_sums(count, seed):
    rng = np.random.default_rng(seed)
    labels, weights = rng.integers(0, 2, (count, 1)), rng.uniform(0.5, 9, count)
    # clip i is 1 at sample i: the result shows the shares
    shares, mixed_labels, mixed_weights = mixup(np.eye(count), labels, weights, np.random.default_rng(seed), 0.8)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(shares, shares.T, atol=1e-6)  # one share a pair
    assert (shares >= 0).all() and ((shares > 0).sum(axis=1) <= 2).all()
    assert (shares.diagonal() == 1).sum() >= count % 2
    np.testing.assert_allclose(mixed_weights, shares @ weights, atol=1e-4)
    # cross-entropy of the blend is the blend of both weighted losses: for label 1, then for label 0
    np.testing.assert_allclose(mixed_weights * mixed_labels[:, 0], shares @ (weights * labels[:, 0]), atol=1e-4)
    np.testing.assert_allclose(
        mixed_weights * (1 - mixed_labels[:, 0]), shares @ (weights * (1 - labels[:, 0])), atol=1e-4
    )
    assert mixed_labels.shape == (count, 1) and mixed_weights.shape == (count,)
    assert {shares.dtype, mixed_labels.dtype, mixed_weights.dtype} == {np.dtype(np.float32)}


def test_mixup_draws_pairs_anew_and_shares_from_the_beta_distribution():
    batch = (np.eye(8, dtype=np.float32), np.zeros((8, 1)), np.ones(8))
    first, again, other = (mixup(*batch, np.random.default_rng(seed), 0.8)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first > 0, other > 0)
    pair = (np.eye(2), np.zeros((2, 1)), np.ones(2))
    shares = [mixup(*pair, np.random.default_rng(seed), 0.8)[0][0, 0] for seed in range(2000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.8 + 1)), rel=0.1)  # Beta(a, a): 1 / (4 (2 a + 1))


def test_mixup_refuses_a_share_without_a_distribution():
    with pytest.raises(UserError, match="alpha is 0; it must be above 0"):
        mixup(np.eye(2), np.zeros((2, 1)), np.ones(2), np.random.default_rng(0), 0)
