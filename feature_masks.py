"""Parts of a picture hidden during training: SpecAugment's stripes, the highest or the lowest frequencies.

    pictures = FeatureMasks(high_band=(0.80, 0.87))(pictures)  # (batch, time, frequency, 1), before the network

The layer does nothing outside training. Each mask falls on each clip on its own, with the same probability.
Sizes are shares of the axis, so that one setting fits every front end:
high_band  hide all bins from one drawn between these shares on. (0.80, 0.87) of 100 CQT bins is the frequency
           feature masking of ResMax's authors (Kwak et al., DDAM 2022; in their code the first hidden bin is one
           of 80, 81 ... 87, probability 0.6). A share is not a frequency: in a CQT from 1 Hz those bins lie at
           101-152 Hz, in a linear spectrogram the same shares at 6.4-7 kHz.
low_band   hide all bins below one drawn between these shares; in the authors' code (0.07, 0.12).
stripes    SpecAugment (Park et al. 2019): this many stripes along time and as many along frequency, each from 0
           to `stripe_width` of the axis wide. Published for speech recognition: 2, frequency stripes up to a third.
What is hidden takes the least value of the clip's picture: an empty band looks like that, as a codec or a
telephone leaves it, and in ln(1 + |CQT|) it is the published 0. A zero in a log spectrogram would be loud.
In cepstra (LFCC) no value means silence; there, fill="average" is neutral.
"""

from backend import keras
from errors import UserError

ops = keras.ops
Share = tuple[float, float]


@keras.saving.register_keras_serializable(package="spoof_detection")
class FeatureMasks(keras.layers.Layer):
    """Random masks on pictures (b, time, freq, 1) while training, identity otherwise."""

    def __init__(
        self,
        high_band: Share | None = None,
        low_band: Share | None = None,
        stripes: int = 0,
        stripe_width: float = 0.1,
        probability: float = 0.6,
        fill: str = "lowest",
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, band in (("high_band", high_band), ("low_band", low_band)):
            if band is not None and not 0 <= band[0] <= band[1] <= 1:
                raise UserError(f"{name} is {tuple(band)}; it must be two shares, 0 <= first <= second <= 1")
        for name, share in (("stripe_width", stripe_width), ("probability", probability)):
            if not 0 <= share <= 1:
                raise UserError(f"{name} is {share}; it must be from 0 to 1")
        if stripes < 0:
            raise UserError(f"stripes is {stripes}; it must be 0 or more")
        if fill not in ("lowest", "average"):
            raise UserError(f"unknown fill {fill!r}; valid: lowest, average")
        self.high_band, self.low_band = high_band and tuple(high_band), low_band and tuple(low_band)
        self.stripes, self.stripe_width = stripes, stripe_width
        self.probability, self.fill, self.seed = probability, fill, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        """Only the rank is of interest: the sizes are read anew at each call."""
        if len(input_shape) != 4:
            raise UserError(f"FeatureMasks wants pictures (batch, time, frequency, 1), not {tuple(input_shape)}")

    def call(self, pictures, training=False):
        if not training:
            return pictures
        batch, time, frequency = (ops.shape(pictures)[axis] for axis in range(3))
        hidden = ops.zeros((batch, 1, 1), "bool")
        if self.high_band is not None:
            starts = self._whole_number(batch, 1, *self._bins(self.high_band, frequency))
            top = ops.cast(frequency, "float32") + ops.zeros_like(starts)
            hidden |= self._stripe(batch, frequency, starts, top)[:, None, :]
        if self.low_band is not None:
            ends = self._whole_number(batch, 1, *self._bins(self.low_band, frequency))
            hidden |= self._stripe(batch, frequency, ops.zeros_like(ends), ends)[:, None, :]
        if self.stripes:
            hidden = hidden | self._random_stripes(batch, frequency)[:, None, :]
            hidden = hidden | self._random_stripes(batch, time)[:, :, None]
        return ops.where(hidden[..., None], self._fill(pictures), pictures)

    def _uniform(self, *shape):
        """Float32 under every policy: half precision has too few steps to draw a bin from."""
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def _whole_number(self, batch, count: int, low, high):
        """Whole numbers from low to high, both included, float32 (b, count)."""
        drawn = low + ops.floor(self._uniform(batch, count) * (high - low + 1))
        return ops.minimum(drawn, high)  # a draw next to 1 can round up

    @staticmethod
    def _bins(band: Share, frequency):
        return tuple(ops.round(share * ops.cast(frequency, "float32")) for share in band)

    def _stripe(self, batch, size, starts, ends):
        """True from starts to before ends (b, count) on the clips that chance picks, any of count: (b, size)."""
        place = ops.arange(size, dtype="float32")
        inside = (place >= starts[..., None]) & (place < ends[..., None])  # (b, count, size)
        picked = self._uniform(batch, 1) < self.probability
        return ops.any(inside, axis=1) & picked

    def _random_stripes(self, batch, size):
        length = ops.cast(size, "float32")
        widths = self._whole_number(batch, self.stripes, 0.0, ops.floor(self.stripe_width * length))
        starts = self._whole_number(batch, self.stripes, 0.0, length - widths)
        return self._stripe(batch, size, starts, starts + widths)

    def _fill(self, pictures):
        if self.fill == "lowest":
            return ops.min(pictures, axis=(1, 2, 3), keepdims=True)
        mean = ops.mean(ops.cast(pictures, "float32"), axis=(1, 2, 3), keepdims=True)
        return ops.cast(mean, pictures.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        own = ("high_band", "low_band", "stripes", "stripe_width", "probability", "fill", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
