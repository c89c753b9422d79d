"""Short-time tools shared by the demo speaker and the re-synthesis chains: frames, pitch, linear prediction.

Waveforms are 1-D float32 at 16 kHz. Frame i of every analysis is centred on sample i * hop, so tracks
from different analyses with the same hop line up.
"""

import numpy as np
from scipy.fft import irfft, rfft
from scipy.ndimage import median_filter
from scipy.signal import get_window

from config import SAMPLE_RATE


def frame_count(samples: int, hop: int) -> int:
    """Number of frames that cover `samples` samples with one centred on the first."""
    return samples // hop + 2


def centred_frames(waveform: np.ndarray, size: int, hop: int) -> np.ndarray:
    """Cut a waveform, zero outside its ends, into overlapping frames (time, size)."""
    count = frame_count(len(waveform), hop)
    padded = np.zeros((count - 1) * hop + size, np.float32)
    padded[size // 2 : size // 2 + len(waveform)] = waveform[: len(padded) - size // 2]
    return np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]


def overlap_add(frames: np.ndarray, hop: int) -> np.ndarray:
    """Sum frames (time, size) placed every `hop` samples; size is a multiple of hop."""
    count, size = frames.shape
    parts = size // hop
    out = np.zeros((count + parts - 1, hop), np.float32)
    for part in range(parts):
        out[part : part + count] += frames[:, part * hop : (part + 1) * hop]
    return out.ravel()


def hann(size: int) -> np.ndarray:
    """Periodic Hann window as float32."""
    return get_window("hann", size).astype(np.float32)


def stft(waveform: np.ndarray, size: int, hop: int) -> np.ndarray:
    """Complex Hann STFT (time, size // 2 + 1)."""
    return rfft(centred_frames(waveform, size, hop) * hann(size), axis=1)


def istft(spectrum: np.ndarray, size: int, hop: int, samples: int) -> np.ndarray:
    """Least-squares inverse of `stft`: the waveform whose STFT is nearest to `spectrum`."""
    window = hann(size)
    frames = irfft(spectrum, size, axis=1) * window
    weight = overlap_add(np.broadcast_to(window**2, frames.shape), hop)
    out = overlap_add(frames, hop) / np.maximum(weight, 1e-4)
    return out[size // 2 : size // 2 + samples]


def time_varying_filter(waveform: np.ndarray, response: np.ndarray, hop: int) -> np.ndarray:
    """Filter a waveform by a response that changes every `hop` samples, (frames, bins), cross-fading.

    Each slice is convolved linearly (its tail rings on past the slice), so this is the filter itself and
    leaves none of the marks of an STFT modification as long as the response rings for less than the FFT.
    """
    size = 2 * (response.shape[1] - 1)
    slices = centred_frames(waveform, 2 * hop, hop) * hann(2 * hop)
    out = overlap_add(irfft(rfft(slices, size, axis=1) * response, size, axis=1), hop)
    return out[hop : hop + len(waveform)]


def hold_to_samples(track: np.ndarray, hop: int, samples: int) -> np.ndarray:
    """Interpolate a per-frame track linearly to one value a sample."""
    return np.interp(np.arange(samples), np.arange(len(track)) * hop, track).astype(np.float32)


def autocorrelation(waveform: np.ndarray, size: int, hop: int, lags: int) -> np.ndarray:
    """Autocorrelation of the windowed frames, (time, lags)."""
    spectrum = rfft(centred_frames(waveform, size, hop) * hann(size), 2 * size, axis=1)
    return irfft(spectrum.real**2 + spectrum.imag**2, axis=1)[:, :lags]


def pitch_track(waveform: np.ndarray, hop: int, low: float = 65.0, high: float = 400.0) -> np.ndarray:
    """F0 in Hz for each frame by normalised autocorrelation, 0 where unvoiced."""
    size = 640
    shortest, longest = int(SAMPLE_RATE / high), int(SAMPLE_RATE / low)
    correlation = autocorrelation(waveform, size, hop, longest + 2)
    taper = irfft(np.abs(rfft(hann(size), 2 * size)) ** 2)[: longest + 2]
    energy = correlation[:, 0]
    normal = correlation / (energy[:, None] + 1e-9) * (taper[0] / taper)
    search = normal[:, shortest : longest + 1]
    best = search.max(axis=1)
    # the first lag that is nearly as good as the best one: guards against halving the pitch
    peak = (search > np.maximum(0.88 * best, 1e-6)[:, None]).argmax(axis=1)
    for _ in range(8):  # climb from the flank to the top of that peak
        ahead = np.minimum(peak + 1, search.shape[1] - 1)
        rows = np.arange(len(peak))
        peak = np.where(search[rows, ahead] > search[rows, peak], ahead, peak)
    voiced = (best > 0.5) & (energy > 1e-4 * energy.max())
    f0 = np.where(voiced, SAMPLE_RATE / (peak + shortest), 0.0)
    return median_filter(f0, 5)


def continuous_pitch(f0: np.ndarray) -> np.ndarray:
    """The pitch track with its unvoiced gaps bridged by interpolation."""
    known = np.flatnonzero(f0)
    if not len(known):
        return np.full(len(f0), 120.0)
    return np.interp(np.arange(len(f0)), known, f0[known])


def reflection_coefficients(correlation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levinson recursion on (time, order + 1): reflections (time, order), residual power (time,)."""
    correlation = correlation.astype(np.float64)
    count, order = correlation.shape[0], correlation.shape[1] - 1
    error = correlation[:, 0] * 1.0001 + 1e-9
    polynomial = np.zeros((count, order + 1))
    polynomial[:, 0] = 1.0
    reflection = np.zeros((count, order))
    for i in range(1, order + 1):
        k = -np.sum(polynomial[:, :i] * correlation[:, i:0:-1], axis=1) / error
        k = np.clip(k, -0.9995, 0.9995)
        polynomial[:, 1 : i + 1] += k[:, None] * polynomial[:, i - 1 :: -1][:, :i]
        reflection[:, i - 1] = k
        error = error * (1 - k**2)
    return reflection, error


def predictor(reflection: np.ndarray) -> np.ndarray:
    """Reflection coefficients (time, order) -> prediction polynomials (time, order + 1), leading 1."""
    count, order = reflection.shape
    polynomial = np.zeros((count, order + 1))
    polynomial[:, 0] = 1.0
    for i in range(1, order + 1):
        polynomial[:, 1 : i + 1] += reflection[:, i - 1 : i] * polynomial[:, i - 1 :: -1][:, :i]
    return polynomial


def pulse_train(f0: np.ndarray) -> np.ndarray:
    """Unit-power pulses at the F0 given for each sample, placed between samples by linear interpolation."""
    phase = np.cumsum(np.maximum(f0, 1.0) / SAMPLE_RATE)
    cycle = np.arange(1, int(phase[-1]) + 1)
    position = np.interp(cycle, phase, np.arange(len(f0)))
    left = np.minimum(position.astype(int), len(f0) - 2)
    share = (position - left).astype(np.float32)
    height = np.sqrt(SAMPLE_RATE / np.maximum(f0[left], 1.0)).astype(np.float32)
    pulses = np.zeros(len(f0), np.float32)
    np.add.at(pulses, left, height * (1 - share))
    np.add.at(pulses, left + 1, height * share)
    return pulses
