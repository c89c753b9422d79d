"""RawBoost (Tak et al., ICASSP 2022): telephone-like distortions of the raw waveform, no recordings needed.

    from rawboost import RAWBOOST
    waveform = RAWBOOST["rawboost5"](waveform, rng)

Eight algorithms, numbered as in the authors' code: 1 linear and non-linear convolutive noise, 2 impulsive
signal-dependent noise, 3 stationary signal-independent noise; in series 4 = 1+2+3, 5 = 1+2, 6 = 1+3,
7 = 2+3; 8 = the sum of 1 and 2, each applied to the input. The paper's best result (2021 LA) is 5's.
Parameters are the authors' defaults. Two things differ: a filter's delay is taken out exactly (theirs leaves
the result one sample early), and filters are applied by FFT, which takes half the time.
Level: where a result would pass full scale it is divided by its peak, as published; else it is left alone.
1 alone moves the level much (down to -12 dB), for its notches may lie on the voice.
"""

from collections.abc import Callable

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import firwin

from config import SAMPLE_RATE

NOTCHES = 5  # band-stop filters in a row
CENTRE_HZ, WIDTH_HZ = (20.0, 8000.0), (100.0, 1000.0)
TAPS = (10, 100)
ORDERS = 5  # N_f: powers of the signal, each through a filter of its own
LINEAR_GAIN_DB = (0.0, 0.0)
POWER_GAIN_DB = (-20.0, -5.0)  # below the linear part: minG - maxBias to maxG - minBias
IMPULSES_PERCENT = 10.0  # P: at most this share of the samples is hit
IMPULSE_GAIN = 2.0  # g_sd
SNR_DB = (10.0, 40.0)


def notch_filter(rng: np.random.Generator, gain_db: tuple[float, float]) -> np.ndarray:
    """Linear-phase FIR, odd length, of five random band-stops in a row; its highest gain is drawn in dB."""
    taps = np.ones(1)
    for _ in range(NOTCHES):
        centre, width = rng.uniform(*CENTRE_HZ), rng.uniform(*WIDTH_HZ)
        length = int(rng.uniform(*TAPS)) // 2 * 2 + 1
        low, high = max(centre - width / 2, 1e-3), min(centre + width / 2, SAMPLE_RATE / 2 - 1e-3)
        taps = np.convolve(firwin(length, [low, high], window="hamming", fs=SAMPLE_RATE), taps)
    peak = np.abs(rfft(taps, 1024)).max()
    return 10 ** (rng.uniform(*gain_db) / 20) * taps / peak


def _filtered(signals: np.ndarray, filters: list[np.ndarray]) -> np.ndarray:
    """Signals (count, samples), each through its odd-length filter, summed: (samples,), delays taken out."""
    samples, longest = signals.shape[1], max(map(len, filters))
    size = next_fast_len(samples + longest, real=True)
    total = np.zeros(size // 2 + 1, np.complex64)
    for signal, taps in zip(signals, filters, strict=True):
        centred = np.zeros(size, np.float32)
        centred[: len(taps)] = taps
        total += rfft(signal, size) * rfft(np.roll(centred, -(len(taps) // 2)))
    return irfft(total, size)[:samples]


def _within_full_scale(waveform: np.ndarray) -> np.ndarray:
    return (waveform / max(np.abs(waveform).max(), 1.0)).astype(np.float32)


def convolutive_noise(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """1: the signal and its second to fifth powers, each through a notch filter, summed without their mean."""
    powers = np.cumprod(np.broadcast_to(waveform, (ORDERS, len(waveform))), axis=0)
    filters = [notch_filter(rng, POWER_GAIN_DB if order else LINEAR_GAIN_DB) for order in range(ORDERS)]
    distorted = _filtered(powers, filters)
    return _within_full_scale(distorted - distorted.mean())


def impulsive_noise(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """2: up to a tenth of the samples, at random places, each changed by up to twice its own value."""
    hit = int(len(waveform) * rng.uniform(0, IMPULSES_PERCENT) / 100)
    places = rng.choice(len(waveform), hit, replace=False, shuffle=False)
    strength = rng.uniform(-1, 1, hit) * rng.uniform(-1, 1, hit)
    distorted = waveform.copy()
    distorted[places] *= (1 + IMPULSE_GAIN * strength).astype(np.float32)
    return _within_full_scale(distorted)


def stationary_noise(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """3: white noise through a notch filter, added at an exact SNR drawn from 10-40 dB; not scaled afterwards."""
    white = rng.standard_normal(len(waveform), dtype=np.float32)
    noise = _filtered(white[None], [notch_filter(rng, LINEAR_GAIN_DB)])
    ratio = np.linalg.norm(waveform) / max(np.linalg.norm(noise), 1e-12)
    return (waveform + noise * ratio / 10 ** (rng.uniform(*SNR_DB) / 20)).astype(np.float32)


def _in_series(*steps: Callable) -> Callable:
    def apply(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for step in steps:
            waveform = step(waveform, rng)
        return waveform

    return apply


def _in_parallel(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _within_full_scale(convolutive_noise(waveform, rng) + impulsive_noise(waveform, rng))


RAWBOOST: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "rawboost1": convolutive_noise,
    "rawboost2": impulsive_noise,
    "rawboost3": stationary_noise,
    "rawboost4": _in_series(convolutive_noise, impulsive_noise, stationary_noise),
    "rawboost5": _in_series(convolutive_noise, impulsive_noise),
    "rawboost6": _in_series(convolutive_noise, stationary_noise),
    "rawboost7": _in_series(impulsive_noise, stationary_noise),
    "rawboost8": _in_parallel,
}
