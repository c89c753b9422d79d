"""A copy gets what its recording had and no detector should learn from: level, loudness, colour, low-pass, zeros.

copy = dress(METHODS["world"].make(recording, rng, partner), recording)
"""

import numpy as np
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from frames import istft, stft
from resynthesis import match_long_term_spectrum


def _loudness(waveform: np.ndarray, hop: int = 160) -> np.ndarray:
    """RMS of the 30 ms around every 10 ms, (time,), never 0."""
    power = np.square(np.pad(waveform, (0, -len(waveform) % hop))).reshape(-1, hop).mean(axis=1)
    return np.sqrt(np.maximum(uniform_filter1d(power, 3), 0)) + 1e-7


def digital_silence(waveform: np.ndarray, shortest: int = 80) -> np.ndarray:
    """Where at least `shortest` samples in a row are exactly 0, (samples,) bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (waveform == 0).astype(np.int8), [0]])))
    silent = np.zeros(len(waveform), bool)
    for start, end in edges.reshape(-1, 2):
        silent[start:end] = end - start >= shortest
    return silent


def same_band(copy: np.ndarray, original: np.ndarray, width: int = 8) -> np.ndarray:
    """The copy with the original's mean level in bands of `width` bins of 16 Hz: the same low-pass, hum and hiss."""
    size, hop = 1024, 256
    spectrum = stft(copy, size, hop)
    power = (np.abs(spectrum) ** 2).mean(axis=0)
    wanted = (np.abs(stft(original, size, hop)) ** 2).mean(axis=0)
    gain = np.sqrt((uniform_filter1d(wanted, width) + 1e-14) / (uniform_filter1d(power, width) + 1e-14))
    return istft(spectrum * np.clip(gain, 1e-4, 30).astype(np.float32), size, hop, len(copy))


def same_limits(copy: np.ndarray, original: np.ndarray) -> np.ndarray:
    """The copy with the original's RMS, peak limit, edges of the band, digital zeros and DC offset."""
    peak, level = np.abs(original).max(), np.mean(original**2)
    for _ in range(3):  # the limit takes away some of the level
        copy = np.clip(copy * np.sqrt(level / (np.mean(copy**2) + 1e-20)), -peak, peak)
    size, hop = 1024, 256
    spectrum = stft(copy.astype(np.float32), size, hop)
    wanted = uniform_filter1d((np.abs(stft(original, size, hop)) ** 2).mean(axis=0), 3)
    power = uniform_filter1d((np.abs(spectrum) ** 2).mean(axis=0), 3)
    outside = wanted < 1e-4 * wanted.max()
    gain = np.where(outside, np.minimum(np.sqrt((wanted + 1e-14) / (power + 1e-14)), 1), 1)
    copy = istft(spectrum * gain.astype(np.float32), size, hop, len(copy))
    silent = digital_silence(original)
    copy[~silent] += original[~silent].mean() - copy[~silent].mean()
    copy[silent] = 0
    return np.clip(copy, -peak, peak).astype(np.float32)


def dress(copy: np.ndarray, original: np.ndarray) -> np.ndarray:
    """The copy with the original's length, colour, low-pass, course of loudness, level, peak limit, digital zeros."""
    samples = len(original)
    copy = np.pad(copy, (0, max(0, samples - len(copy))))[:samples].astype(np.float32)
    copy = same_band(match_long_term_spectrum(copy, original), original)
    for _ in range(2):  # a pause after a loud sound needs a second look
        gain = np.clip(_loudness(original) / _loudness(copy), 1e-3, 8)
        gain = np.exp(gaussian_filter1d(np.log(gain), 1.2))
        copy = copy * np.interp(np.arange(samples), 160 * np.arange(len(gain)) + 80, gain).astype(np.float32)
    return same_limits(copy, original)
