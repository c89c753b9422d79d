"""The first layer of the networks that read raw samples: a bank of fixed band-pass filters.

from architectures.sinc import SincFilters
bands = SincFilters(70, 129)(samples)       # (batch, 64600, 1) -> (batch, 21490, 70)
"""

import numpy as np

from backend import keras
from config import SAMPLE_RATE

layers, ops = keras.layers, keras.ops


def mel_sinc_filters(filters: int, taps: int) -> np.ndarray:
    """Impulse responses (taps, filters) of adjoining bands, equally wide on the mel scale from 0 to 8 kHz.

    Each is the difference of two ideal low-pass filters under a Hamming window.
    """
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, filters + 1) / 2595) - 1)  # Hz
    cycles = 2 * edges / SAMPLE_RATE  # of a sample's half period
    time = np.arange(taps)[:, None] - (taps - 1) / 2
    low_pass = cycles * np.sinc(cycles * time)  # (taps, filters + 1)
    return (np.hamming(taps)[:, None] * np.diff(low_pass, axis=1)).astype(np.float32)


@keras.saving.register_keras_serializable(package="spoof_detection")
class SincFilters(layers.Layer):
    """Magnitude in mel-spaced bands, the maximum of every `pool` samples and `band_pool` neighbouring bands.

    (b, samples, 1) -> (b, (samples - taps + 1) // pool, filters // band_pool). The filters are computed, not
    trained. Always float32: in bfloat16 the samples would keep 8 bits.
    """

    def __init__(self, filters: int, taps: int, pool: int = 3, band_pool: int = 1, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.filters, self.taps = filters, taps
        self.pool, self.band_pool = pool, band_pool
        self.responses = mel_sinc_filters(filters, taps)

    def filtered(self, x):
        """The output of every filter, (b, samples, 1) -> (b, samples - taps + 1, filters)."""
        return ops.conv(x, self.responses[:, None], padding="valid")

    def call(self, x):
        # strides are said, for Keras derives wrong ones from the size on JAX in one dimension
        x = ops.max_pool(ops.abs(self.filtered(x)), self.pool, strides=self.pool, padding="valid")
        if self.band_pool == 1:
            return x
        bands = self.filters // self.band_pool
        x = x[..., : bands * self.band_pool]
        return ops.max(ops.reshape(x, (-1, x.shape[1], bands, self.band_pool)), axis=-1)

    def compute_output_shape(self, input_shape):
        batch, samples, _ = input_shape
        return (batch, (samples - self.taps + 1) // self.pool, self.filters // self.band_pool)

    def get_config(self):
        own = {"filters": self.filters, "taps": self.taps, "pool": self.pool, "band_pool": self.band_pool}
        return {**super().get_config(), **own}
