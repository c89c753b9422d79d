"""What a network looks at: a 16 kHz waveform as one of five pictures, each a NumPy function of one clip.
front_ends.py has the same five as Keras layers inside a model, with equal numbers.

    from audio import load_audio, fit_length
    from feature_extraction import extract_features
    features = extract_features(fit_length(load_audio("clip.flac"), 64_000))     # (250, 513, 1)

Conventions. All pictures are (time, frequency, 1).
log_stft  periodic Hann of 1024, hop 256, frame k starts at sample 256 k, zeros appended until every hop has a
          frame: 64,000 samples give exactly 250 frames (librosa: pad 768 zeros at the end, center=False).
          ln(|S|^2 + floor), no scaling of S.
mel       the same power spectrum through librosa's default filter bank (Slaney scale and norm), 128 bands
          from 0 to 8 kHz; ln(power + floor).
lfcc      pre-emphasis 0.97, Hamming of 320, hop 160, FFT 512, centred with zeros; 20 linear triangles,
          log10(power + floor), orthonormal DCT-II, then delta and delta-delta as x[t+1] - x[t-1]: 60 values.
cqt       ln(1 + |C|), 12 bins an octave from 1 Hz, hop 512, centred; computed exactly from one FFT of the
          clip. librosa.cqt's own scaling without its resampling cascade: equal to it within 0.02 at sparsity=0,
          within 0.05 at its default, which drops 1 % of every filter.
raw       the samples themselves.
Both compute in float32 and agree to 1e-4 on a CPU; another FFT (a GPU's, librosa's float64) rounds
differently, which shows by up to 5e-3 in the quietest bins of a loud clip. The floor keeps it that small.
"""

from functools import lru_cache

import numpy as np
import scipy.fft

from config import DEFAULT_FEATURES, SAMPLE_RATE, FeatureConfig
from errors import UserError

LFCC_WINDOW, LFCC_HOP, LFCC_FFT, PRE_EMPHASIS = 320, 160, 512, 0.97
CQT_HOP, CQT_BINS_PER_OCTAVE, CQT_LOWEST_HZ = 512, 12, 1.0


# ---------------------------------------------------------------- constants shared with the Keras layers


def hann(length: int) -> np.ndarray:
    """Periodic Hann window, (length,)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def _frame_count(config: FeatureConfig) -> int:
    return -(-config.samples // config.hop)


def end_padding(config: FeatureConfig) -> int:
    """Zeros to append so that every hop starts a whole frame."""
    return max(0, (_frame_count(config) - 1) * config.hop + config.window - config.samples)


@lru_cache(maxsize=8)
def mel_matrix(window: int, bands: int) -> np.ndarray:
    """Filter bank of shape (window // 2 + 1, bands)."""
    import librosa  # slow to import: only for those who use mel

    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=window, n_mels=bands, dtype=np.float64).T


@lru_cache(maxsize=8)
def linear_matrix(filters: int) -> np.ndarray:
    """Linear triangular filter bank of shape (257, filters)."""
    hertz = np.linspace(0, SAMPLE_RATE / 2, LFCC_FFT // 2 + 1)[:, None]
    edges = np.linspace(0, SAMPLE_RATE / 2, filters + 2)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    return np.maximum(0, np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)))


@lru_cache(maxsize=8)
def dct_matrix(size: int) -> np.ndarray:
    """Orthonormal DCT-II as a matrix to multiply rows with, (size, size)."""
    return scipy.fft.dct(np.eye(size), norm="ortho", axis=1)


def lfcc_window() -> np.ndarray:
    """Periodic Hamming of 320 samples in the middle of the FFT frame."""
    hamming = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(LFCC_WINDOW) / LFCC_WINDOW)
    side = (LFCC_FFT - LFCC_WINDOW) // 2
    return np.pad(hamming, (side, side))


@lru_cache(maxsize=4)
def cqt_plan(samples: int, bins: int) -> tuple[np.ndarray, int]:
    """Frequency responses of the CQT filters and the length of the clip's FFT.

    Every filter is a Hann-windowed complex exponential centred on time 0, so its response is real. Taking
    every 512th output sample folds the spectrum into `fft // 512` columns: the responses come as
    (rows, columns, bins) with FFT bin = row * columns + column, and only rows that any filter reaches.
    """
    hertz = CQT_LOWEST_HZ * 2.0 ** (np.arange(bins) / CQT_BINS_PER_OCTAVE)
    step = 2.0 ** (2 / CQT_BINS_PER_OCTAVE)
    lengths = (step + 1) / (step - 1) * SAMPLE_RATE / hertz  # samples, constant Q
    fft = 2 ** int(np.ceil(np.log2(samples + lengths[0])))
    columns = fft // CQT_HOP
    highest = hertz[-1] + 8 * SAMPLE_RATE / lengths[-1]  # Hann side lobes are below -80 dB there
    if highest > SAMPLE_RATE / 2:
        raise UserError(f"cqt_bins = {bins} reaches {hertz[-1]:.0f} Hz; at most 150 fit below 8 kHz")
    rows = int(np.ceil(highest * fft / SAMPLE_RATE / columns))
    responses = np.zeros((rows * columns, bins), np.float32)
    for k, length in enumerate(lengths):
        half = int(length // 2)
        time = np.arange(-half, half + 1)
        window = 0.5 + 0.5 * np.cos(2 * np.pi * time / length)
        kernel = np.zeros(fft, np.complex64)
        kernel[time] = window / window.sum() * np.exp(2j * np.pi * hertz[k] * time / SAMPLE_RATE)
        responses[:, k] = scipy.fft.fft(kernel).real[: rows * columns] * np.sqrt(length)
    return responses.reshape(rows, columns, bins), fft


# ---------------------------------------------------------------- NumPy, one clip: (samples,) -> features


def log_stft(waveform: np.ndarray, config: FeatureConfig = DEFAULT_FEATURES["log_stft"]) -> np.ndarray:
    """Log power spectrogram, (frames, window // 2 + 1, 1)."""
    return np.log(_stft_power(waveform, config) + config.power_floor)[..., None].astype(np.float32)


def mel(waveform: np.ndarray, config: FeatureConfig = DEFAULT_FEATURES["mel"]) -> np.ndarray:
    """Log mel spectrogram, (frames, mel_bands, 1)."""
    matrix = mel_matrix(config.window, config.mel_bands).astype(np.float32)
    bands = _stft_power(waveform, config) @ matrix
    return np.log(bands + config.power_floor)[..., None].astype(np.float32)


def lfcc(waveform: np.ndarray, config: FeatureConfig = DEFAULT_FEATURES["lfcc"]) -> np.ndarray:
    """Linear-frequency cepstra with deltas, (frames, 3 * lfcc_filters, 1)."""
    waveform = waveform.astype(np.float64)
    waveform = np.append(waveform[:1], waveform[1:] - PRE_EMPHASIS * waveform[:-1])
    padded = np.pad(waveform, LFCC_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, LFCC_FFT)[::LFCC_HOP]
    power = np.abs(scipy.fft.rfft(frames * lfcc_window())) ** 2
    bands = np.log10(power @ linear_matrix(config.lfcc_filters) + config.power_floor)
    static = bands @ dct_matrix(config.lfcc_filters)
    delta = _numpy_delta(static)
    return np.concatenate([static, delta, _numpy_delta(delta)], axis=1)[..., None].astype(np.float32)


def cqt(waveform: np.ndarray, config: FeatureConfig = DEFAULT_FEATURES["cqt"]) -> np.ndarray:
    """Log constant-Q magnitude, (frames, cqt_bins, 1)."""
    responses, fft = cqt_plan(config.samples, config.cqt_bins)
    rows, columns, _ = responses.shape
    spectrum = scipy.fft.rfft(waveform.astype(np.float64), fft)[: rows * columns].reshape(rows, columns)
    folded = np.einsum("rc,rck->kc", spectrum, responses)
    magnitude = np.abs(scipy.fft.ifft(folded)) * (columns / fft)  # (bins, columns)
    return np.log1p(magnitude[:, : config.samples // CQT_HOP + 1].T)[..., None].astype(np.float32)


def raw(waveform: np.ndarray, config: FeatureConfig = DEFAULT_FEATURES["raw"]) -> np.ndarray:
    """The samples, (samples, 1)."""
    return waveform[:, None].astype(np.float32)


def _stft_power(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    padded = np.pad(waveform.astype(np.float32), (0, end_padding(config)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, config.window)[:: config.hop]
    # float32 throughout: scipy then runs the same FFT as the layer does on a CPU, rounding included
    spectrum = scipy.fft.rfft(frames * hann(config.window).astype(np.float32))
    return spectrum.real**2 + spectrum.imag**2  # (frames, bins)


def _numpy_delta(x: np.ndarray) -> np.ndarray:
    edged = np.pad(x, ((1, 1), (0, 0)), mode="edge")
    return edged[2:] - edged[:-2]


FEATURES = {"log_stft": log_stft, "mel": mel, "lfcc": lfcc, "cqt": cqt, "raw": raw}


def feature_shape(config: FeatureConfig) -> tuple[int, ...]:
    """Shape of one clip's features, without the batch axis."""
    return {
        "log_stft": (_frame_count(config), config.window // 2 + 1, 1),
        "mel": (_frame_count(config), config.mel_bands, 1),
        "lfcc": (config.samples // LFCC_HOP + 1, 3 * config.lfcc_filters, 1),
        "cqt": (config.samples // CQT_HOP + 1, config.cqt_bins, 1),
        "raw": (config.samples, 1),
    }[config.kind]


def extract_features(waveform: np.ndarray, config: FeatureConfig = DEFAULT_FEATURES["log_stft"]) -> np.ndarray:
    """Features of one clip of exactly `config.samples` samples (see `audio.fit_length`)."""
    if waveform.shape != (config.samples,):
        raise UserError(f"{config.kind} wants {config.samples} samples, got {waveform.shape}; use audio.fit_length")
    return FEATURES[config.kind](waveform, config)
