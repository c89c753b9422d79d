"""The front ends as Keras layers: the first layer of every model turns its waveforms into pictures.

    features = front_end_layer(FeatureConfig("mel"))(waveforms)      # (batch, 64000) -> (batch, 250, 128, 1)

feature_extraction.py says what the pictures are and computes the same of one clip without Keras.
"""

from dataclasses import asdict, fields

import numpy as np

from backend import keras
from config import FeatureConfig
from feature_extraction import (
    CQT_HOP,
    LFCC_FFT,
    LFCC_HOP,
    PRE_EMPHASIS,
    cqt_plan,
    dct_matrix,
    end_padding,
    feature_shape,
    hann,
    lfcc_window,
    linear_matrix,
    mel_matrix,
)

ops = keras.ops


class FrontEnd(keras.layers.Layer):
    """Base of the front-end layers: always float32, rebuilt from the fields of its `FeatureConfig`."""

    kind: str  # set by each front end, the key in LAYERS

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
        padded = ops.pad(waveform, ((0, 0), (0, end_padding(config))))
        return _power(padded, config.window, config.hop, hann(config.window))  # (batch, frames, bins)


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
        power = _power(padded, LFCC_FFT, LFCC_HOP, lfcc_window())
        filters = self.features.lfcc_filters
        bands = ops.matmul(power, linear_matrix(filters).astype(np.float32)) + self.features.power_floor
        static = ops.matmul(ops.log(bands) / np.float32(np.log(10)), dct_matrix(filters).astype(np.float32))
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
        responses, fft = cqt_plan(self.features.samples, self.features.cqt_bins)
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


LAYERS = {layer.kind: layer for layer in (LogSTFT, LogMel, LFCC, CQT, RawWaveform)}


def front_end_layer(config: FeatureConfig) -> FrontEnd:
    """The Keras layer that computes the same features inside a model."""
    return LAYERS[config.kind](**asdict(config))
