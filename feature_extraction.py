"""Front ends: a 16 kHz waveform becomes what a network looks at. Each exists twice with equal numbers:
a NumPy function for one clip (plots, notebooks, tests) and a registered Keras layer inside the model.

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
Both twins compute in float32 and agree to 1e-4 on a CPU; another FFT (a GPU's, librosa's float64) rounds
differently, which shows by up to 5e-3 in the quietest bins of a loud clip. The floor keeps it that small.
"""

from dataclasses import asdict, fields
from functools import lru_cache

import numpy as np
import scipy.fft

from backend import keras
from config import DEFAULT_FEATURES, SAMPLE_RATE, FeatureConfig
from errors import UserError

ops = keras.ops

LFCC_WINDOW, LFCC_HOP, LFCC_FFT, PRE_EMPHASIS = 320, 160, 512, 0.97
CQT_HOP, CQT_BINS_PER_OCTAVE, CQT_LOWEST_HZ = 512, 12, 1.0


# ---------------------------------------------------------------- constants shared by both twins


def _hann(length: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def _frame_count(config: FeatureConfig) -> int:
    return -(-config.samples // config.hop)


def _end_padding(config: FeatureConfig) -> int:
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
def _dct_matrix(size: int) -> np.ndarray:
    return scipy.fft.dct(np.eye(size), norm="ortho", axis=1)


def _lfcc_window() -> np.ndarray:
    """Periodic Hamming of 320 samples in the middle of the FFT frame."""
    hamming = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(LFCC_WINDOW) / LFCC_WINDOW)
    side = (LFCC_FFT - LFCC_WINDOW) // 2
    return np.pad(hamming, (side, side))


@lru_cache(maxsize=4)
def _cqt_plan(samples: int, bins: int) -> tuple[np.ndarray, int]:
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
    power = np.abs(scipy.fft.rfft(frames * _lfcc_window())) ** 2
    bands = np.log10(power @ linear_matrix(config.lfcc_filters) + config.power_floor)
    static = bands @ _dct_matrix(config.lfcc_filters)
    delta = _numpy_delta(static)
    return np.concatenate([static, delta, _numpy_delta(delta)], axis=1)[..., None].astype(np.float32)


def cqt(waveform: np.ndarray, config: FeatureConfig = DEFAULT_FEATURES["cqt"]) -> np.ndarray:
    """Log constant-Q magnitude, (frames, cqt_bins, 1)."""
    responses, fft = _cqt_plan(config.samples, config.cqt_bins)
    rows, columns, _ = responses.shape
    spectrum = scipy.fft.rfft(waveform.astype(np.float64), fft)[: rows * columns].reshape(rows, columns)
    folded = np.einsum("rc,rck->kc", spectrum, responses)
    magnitude = np.abs(scipy.fft.ifft(folded)) * (columns / fft)  # (bins, columns)
    return np.log1p(magnitude[:, : config.samples // CQT_HOP + 1].T)[..., None].astype(np.float32)


def raw(waveform: np.ndarray, config: FeatureConfig = DEFAULT_FEATURES["raw"]) -> np.ndarray:
    """The samples, (samples, 1)."""
    return waveform[:, None].astype(np.float32)


def _stft_power(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    padded = np.pad(waveform.astype(np.float32), (0, _end_padding(config)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, config.window)[:: config.hop]
    # float32 throughout: scipy then runs the same FFT as the layer does on a CPU, rounding included
    spectrum = scipy.fft.rfft(frames * _hann(config.window).astype(np.float32))
    return spectrum.real**2 + spectrum.imag**2  # (frames, bins)


def _numpy_delta(x: np.ndarray) -> np.ndarray:
    edged = np.pad(x, ((1, 1), (0, 0)), mode="edge")
    return edged[2:] - edged[:-2]


# ---------------------------------------------------------------- Keras: (batch, samples) -> features


class FrontEnd(keras.layers.Layer):
    """Base of the front-end layers: always float32, rebuilt from the fields of its `FeatureConfig`."""

    kind: str  # set by each front end, the key in FRONT_ENDS

    def __init__(self, name: str | None = None, **feature_fields):
        super().__init__(name=name or self.kind, dtype="float32", trainable=False)
        self.features = FeatureConfig(**{"kind": self.kind, **feature_fields})

    def get_config(self):
        return {"name": self.name, **asdict(self.features)}

    @classmethod
    def from_config(cls, config):
        known = {f.name for f in fields(FeatureConfig)} | {"name"}
        return cls(**{k: v for k, v in config.items() if k in known})

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *feature_shape(self.features))

    def _stft_power(self, waveform):
        config = self.features
        padded = ops.pad(waveform, ((0, 0), (0, _end_padding(config))))
        return _power(padded, config.window, config.hop, _hann(config.window))  # (batch, frames, bins)


def _power(waveform, fft: int, hop: int, window: np.ndarray):
    real, imag = ops.stft(
        waveform,
        sequence_length=fft,
        sequence_stride=hop,
        fft_length=fft,
        window=window.astype(np.float32),
        center=False,
    )
    return ops.square(real) + ops.square(imag)


@keras.saving.register_keras_serializable(package="spoof_detection")
class LogSTFT(FrontEnd):
    """Log power spectrogram: (batch, samples) -> (batch, frames, bins, 1)."""

    kind = "log_stft"

    def call(self, waveform):
        return ops.expand_dims(ops.log(self._stft_power(waveform) + self.features.power_floor), -1)


@keras.saving.register_keras_serializable(package="spoof_detection")
class LogMel(FrontEnd):
    """Log mel spectrogram: (batch, samples) -> (batch, frames, mel_bands, 1)."""

    kind = "mel"

    def call(self, waveform):
        matrix = mel_matrix(self.features.window, self.features.mel_bands).astype(np.float32)
        bands = ops.matmul(self._stft_power(waveform), matrix)
        return ops.expand_dims(ops.log(bands + self.features.power_floor), -1)


@keras.saving.register_keras_serializable(package="spoof_detection")
class LFCC(FrontEnd):
    """Linear-frequency cepstra with deltas: (batch, samples) -> (batch, frames, 3 * lfcc_filters, 1)."""

    kind = "lfcc"

    def call(self, waveform):
        emphasised = waveform[:, 1:] - PRE_EMPHASIS * waveform[:, :-1]
        emphasised = ops.concatenate([waveform[:, :1], emphasised], axis=1)
        padded = ops.pad(emphasised, ((0, 0), (LFCC_FFT // 2, LFCC_FFT // 2)))
        power = _power(padded, LFCC_FFT, LFCC_HOP, _lfcc_window())
        filters = self.features.lfcc_filters
        bands = ops.matmul(power, linear_matrix(filters).astype(np.float32)) + self.features.power_floor
        static = ops.matmul(ops.log(bands) / np.float32(np.log(10)), _dct_matrix(filters).astype(np.float32))
        delta = _delta(static)
        return ops.expand_dims(ops.concatenate([static, delta, _delta(delta)], axis=-1), -1)


def _delta(x):
    """x[t+1] - x[t-1] over axis 1, the first and last frame repeated."""
    edged = ops.concatenate([x[:, :1], x, x[:, -1:]], axis=1)
    return edged[:, 2:] - edged[:, :-2]


@keras.saving.register_keras_serializable(package="spoof_detection")
class CQT(FrontEnd):
    """Log constant-Q magnitude: (batch, samples) -> (batch, frames, cqt_bins, 1)."""

    kind = "cqt"

    def call(self, waveform):
        responses, fft = _cqt_plan(self.features.samples, self.features.cqt_bins)
        rows, columns, _ = responses.shape
        padded = ops.pad(waveform, ((0, 0), (0, fft - self.features.samples)))
        real, imag = (
            ops.einsum("brc,rck->bkc", ops.reshape(part[:, : rows * columns], (-1, rows, columns)), responses)
            for part in ops.rfft(padded)
        )
        # keras.ops has no plain inverse FFT; |ifft(z)| = |fft(conj z)| / columns
        real, imag = ops.fft((real, -imag))
        magnitude = ops.sqrt(ops.square(real) + ops.square(imag)) / fft  # (batch, bins, columns)
        frames = magnitude[:, :, : self.features.samples // CQT_HOP + 1]
        return ops.expand_dims(ops.log1p(ops.transpose(frames, (0, 2, 1))), -1)


@keras.saving.register_keras_serializable(package="spoof_detection")
class RawWaveform(FrontEnd):
    """The samples: (batch, samples) -> (batch, samples, 1)."""

    kind = "raw"

    def call(self, waveform):
        return ops.expand_dims(waveform, -1)


FRONT_ENDS = {
    "log_stft": (log_stft, LogSTFT),
    "mel": (mel, LogMel),
    "lfcc": (lfcc, LFCC),
    "cqt": (cqt, CQT),
    "raw": (raw, RawWaveform),
}


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
    return FRONT_ENDS[config.kind][0](waveform, config)


def front_end_layer(config: FeatureConfig) -> FrontEnd:
    """The Keras layer that computes the same features inside a model."""
    return FRONT_ENDS[config.kind][1](**asdict(config))
