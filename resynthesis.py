"""Classic re-synthesis chains: a recording is reduced to parameters and a new waveform is made from them.

Each chain is a pure function (waveform float32 at 16 kHz, rng) -> waveform of the same length. No sample of
the recording is passed on: what is kept is a spectrogram, an envelope and a pitch track, as in the vocoders
of synthetic speech, so the copy says the same thing at the same time in the same voice and only the fine
structure tells. The demo corpus makes its spoofs with them; they also make copies of real recordings.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array

from config import SAMPLE_RATE
from frames import (
    autocorrelation,
    centred_frames,
    continuous_pitch,
    hann,
    hold_to_samples,
    istft,
    pitch_track,
    predictor,
    pulse_train,
    reflection_coefficients,
    stft,
    time_varying_filter,
)

Chain = Callable[[np.ndarray, np.random.Generator], np.ndarray]
FFT = 1024  # bins of the vocoders' filter responses


@cache
def mel_like_bands(count: int, bins: int, corner: float) -> tuple[csr_array, csr_array]:
    """Triangular bands up to 8 kHz, even on log(1 + f / corner): 700 Hz is the mel scale.

    Returns what averages bins into bands, (bins, count), and what spreads bands over bins, (count, bins).
    Sparse: faster, and a BLAS product may differ in its last bit with the number of threads.
    """
    edges = corner * np.expm1(np.linspace(0, np.log1p(SAMPLE_RATE / 2 / corner), count + 2))
    frequency = np.linspace(0, SAMPLE_RATE / 2, bins)
    rising = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.maximum(np.minimum(rising, falling), 0)
    weights[0, 0] = weights[-1, -1] = 1e-3  # the outermost bins belong to a band as well
    average = weights.T / (weights.sum(axis=1) + 1e-9)
    spread = weights / (weights.sum(axis=0) + 1e-9)
    return csr_array(average.astype(np.float32)), csr_array(spread.astype(np.float32))


def griffin_lim(
    magnitude: np.ndarray, size: int, hop: int, samples: int, rounds: int, rng: np.random.Generator
) -> np.ndarray:
    """Waveform whose STFT magnitude comes near (time, bins), from random phase."""
    phase = np.exp(2j * np.pi * rng.random(magnitude.shape, dtype=np.float32)).astype(np.complex64)
    for _ in range(rounds):
        spectrum = stft(istft(magnitude * phase, size, hop, samples), size, hop)
        phase = spectrum / (np.abs(spectrum) + 1e-9)
    return istft(magnitude * phase, size, hop, samples)


def linear_prediction(waveform: np.ndarray, size: int, hop: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Reflection coefficients (time, order) and residual amplitude per sample (time,)."""
    reflection, error = reflection_coefficients(autocorrelation(waveform, size, hop, order + 1))
    return reflection, np.sqrt(error / np.sum(hann(size) ** 2))


def all_pole(reflection: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Frequency responses gain / A(z), (time, FFT // 2 + 1)."""
    return (gain[:, None] / rfft(predictor(reflection), FFT, axis=1)).astype(np.complex64)


def mel_griffin_lim(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An 80-band mel spectrogram spread back over the bins, phase from a few rounds of Griffin-Lim."""
    size, hop = 1024, 256
    average, spread = mel_like_bands(80, size // 2 + 1, 700.0)
    magnitude = np.abs(stft(waveform, size, hop)) @ average @ spread
    return griffin_lim(magnitude, size, hop, len(waveform), int(rng.integers(4, 12)), rng)


def lpc_vocoder(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Linear prediction of order 18-24, excited by perfectly regular pulses or by noise, one or the other."""
    hop = 128
    reflection, gain = linear_prediction(waveform, 512, hop, int(rng.integers(18, 25)))
    f0 = pitch_track(waveform, hop)
    voiced = hold_to_samples((f0 > 0).astype(np.float32), hop, len(waveform)) > 0.5
    pitch = gaussian_filter1d(continuous_pitch(f0), 2)
    pulses = pulse_train(hold_to_samples(pitch, hop, len(waveform)))
    noise = rng.standard_normal(len(waveform), dtype=np.float32)
    return time_varying_filter(np.where(voiced, pulses, noise), all_pole(reflection, gain), hop)


def frozen_phase(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """STFT magnitudes on a phase that knows nothing of the signal: one steady tone for each bin."""
    size, hop = int(rng.choice([512, 1024])), 128
    magnitude = np.abs(stft(waveform, size, hop))
    bins = np.arange(magnitude.shape[1])
    start = rng.random(len(bins))
    turns = start + np.arange(len(magnitude))[:, None] * (bins * hop / size % 1.0)
    phase = np.exp(2j * np.pi * (turns % 1.0)).astype(np.complex64)
    return istft(magnitude * phase, size, hop, len(waveform))


def cepstral_envelope(waveform: np.ndarray, hop: int, lifter: int) -> np.ndarray:
    """Magnitude envelope by cepstral smoothing, (time, FFT // 2 + 1), 1 for white noise of unit power."""
    log = np.log(np.abs(stft(waveform, FFT, hop)) / np.sqrt(np.sum(hann(FFT) ** 2)) + 1e-6)
    cepstrum = irfft(log, axis=1)
    cepstrum[:, lifter : FFT - lifter + 1] = 0
    return np.exp(rfft(cepstrum, axis=1).real + 0.29)  # the mean log of noise lies below its log mean


def harmonic_noise(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Harmonics of a smoothed pitch track up to a fixed frequency, shaped noise everywhere else."""
    hop, top = 128, float(rng.uniform(3000, 5000))
    f0 = pitch_track(waveform, hop)
    envelope = cepstral_envelope(waveform, hop, 36)
    samples = len(waveform)
    pitch = hold_to_samples(gaussian_filter1d(continuous_pitch(f0), 3), hop, samples)
    voiced = gaussian_filter1d((f0 > 0).astype(np.float32), 1.0)
    turns = np.cumsum(pitch.astype(np.float64) / SAMPLE_RATE) + rng.random()
    cosine, previous = np.cos(2 * np.pi * (turns % 1)).astype(np.float32), np.ones(samples, np.float32)
    twice, tone, buzz = 2 * cosine, cosine, np.zeros(samples, np.float32)
    for harmonic in range(1, int(top / 60)):  # cos(n x) = 2 cos(x) cos((n - 1) x) - cos((n - 2) x)
        room = np.clip((top - harmonic * pitch) / 300, 0, 1)
        if not room.any():
            break
        buzz += room * tone
        tone, previous = twice * tone - previous, tone
    buzz *= np.sqrt(2 * pitch / SAMPLE_RATE) * np.sqrt(2)
    noise = rng.standard_normal(samples, dtype=np.float32)
    frequency = np.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)
    above = np.clip((frequency - top) / 300 + 1, 0, 1)
    tonal = time_varying_filter(buzz, envelope * voiced[:, None], hop)
    return tonal + time_varying_filter(noise, envelope * (1 - voiced[:, None] * (1 - above)), hop)


def cepstral_griffin_lim(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A linear spectrogram smoothed through its cepstrum, other frame sizes, a few rounds of Griffin-Lim."""
    size, hop = 800, 200
    log = np.log(np.abs(stft(waveform, size, hop)) + 1e-4)
    cepstrum = irfft(log, size, axis=1)
    lifter = int(rng.integers(130, 200))  # keeps the pitch of higher voices, blurs it for lower ones
    cepstrum[:, lifter : size - lifter + 1] = 0
    magnitude = np.exp(rfft(cepstrum, axis=1).real)
    return griffin_lim(magnitude, size, hop, len(waveform), int(rng.integers(6, 16)), rng)


def channel_vocoder(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The envelopes of 20-32 bands, slowed down, on a buzz mixed with noise."""
    hop = 64
    count = int(rng.integers(20, 33))
    power = np.abs(stft(waveform, FFT // 2, hop)) ** 2 / np.sum(hann(FFT // 2) ** 2)
    level = np.sqrt(power @ mel_like_bands(count, FFT // 4 + 1, 300.0)[0])
    level = gaussian_filter1d(level, float(rng.uniform(1.0, 2.0)), axis=0)
    f0 = pitch_track(waveform, hop)
    samples = len(waveform)
    voiced = hold_to_samples(gaussian_filter1d((f0 > 0).astype(np.float32), 2.0), hop, samples)
    buzz = pulse_train(hold_to_samples(gaussian_filter1d(continuous_pitch(f0), 4), hop, samples))
    hiss = rng.standard_normal(samples, dtype=np.float32)
    share = 0.85 * voiced
    source = np.sqrt(share) * buzz + np.sqrt(1 - share) * hiss
    return time_varying_filter(source, level @ mel_like_bands(count, FFT // 2 + 1, 300.0)[1], hop)


def coarse_lpc(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A low-rate coder: order 12-16 every 20 ms, log-area ratios, gain and pitch rounded to a few steps."""
    hop, order = 320, int(rng.integers(12, 17))
    reflection, gain = linear_prediction(waveform, 480, hop, order)
    step = np.linspace(0.35, 1.0, order)
    ratios = np.round(2 * np.arctanh(np.clip(reflection, -0.995, 0.995)) / step) * step
    decibels = np.round(20 * np.log10(gain + 1e-6) / 2) * 2
    f0 = pitch_track(waveform, hop)
    pitch = 2 ** (np.round(np.log2(continuous_pitch(f0)) * 18) / 18)
    # held for the frame and stepped at its border, as a decoder does
    centre = np.minimum(np.arange(len(waveform)) // hop, len(f0) - 1)
    buzz = pulse_train(pitch[centre])
    buzz = np.where((f0 > 0)[centre], buzz, rng.standard_normal(len(waveform), dtype=np.float32))
    return time_varying_filter(buzz, all_pole(np.tanh(ratios / 2), 10 ** (decibels / 20)), hop)


def quantised_spectrogram(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Magnitudes rounded to 6 dB steps and thinned in time, phase from one or two rounds of Griffin-Lim."""
    size, hop = 640, 160
    decibels = 20 * np.log10(np.abs(stft(waveform, size, hop)) + 1e-4)
    thinned = decibels[(np.arange(len(decibels)) // 2) * 2]  # every second frame, held
    magnitude = 10 ** (np.round(thinned / 6) * 6 / 20)
    return griffin_lim(magnitude, size, hop, len(waveform), int(rng.integers(1, 3)), rng)


CHAINS: dict[str, Chain] = {
    chain.__name__: chain
    for chain in (
        mel_griffin_lim,
        lpc_vocoder,
        frozen_phase,
        harmonic_noise,
        cepstral_griffin_lim,
        channel_vocoder,
        coarse_lpc,
        quantised_spectrogram,
    )
}


def match_long_term_spectrum(copy: np.ndarray, original: np.ndarray, bands: int = 16) -> np.ndarray:
    """The copy with the original's mean level in broad bands, so that colour and loudness tell nothing."""
    size = 4096
    average, spread = mel_like_bands(bands, size // 2 + 1, 300.0)

    def band_power(waveform: np.ndarray) -> np.ndarray:
        spectrum = rfft(centred_frames(waveform, size, size // 2) * hann(size), axis=1)
        return (spectrum.real**2 + spectrum.imag**2).mean(axis=0) @ average + 1e-9

    gain = np.clip(band_power(original) / band_power(copy), 1e-3, 1e3)
    response = np.exp(0.5 * np.log(gain) @ spread)
    impulse = irfft(response.astype(np.float32))
    shaped = np.roll(impulse, size // 2) * hann(size)
    total = next_fast_len(len(copy) + size, real=True)
    filtered = irfft(rfft(copy, total) * rfft(shaped, total), total)
    return filtered[size // 2 : size // 2 + len(copy)].astype(np.float32)
