"""Res2Net-50 (Gao et al., TPAMI 2021), and the thin one with squeeze-and-excitation that spots synthetic speech.

A Res2Net block cuts the channels of a bottleneck into `scale` groups and hands each group's 3x3 convolution the
result of the group before, so one block sees several sizes of neighbourhood. `26w4s` means 4 groups, 26 channels
wide where a ResNet has 64. `res2net50` is the published network (25.7 M parameters with 1000 classes, 23.6 M
without) on a spectrogram resized to 224 x 224. `se_res2net50_thin` is SE-Res2Net50 of Li et al., "Replay and
Synthetic Speech Detection with Res2Net Architecture", ICASSP 2021: a quarter of the channels, spectrogram as it is.
"""

from architectures.layers import batch_norm, convolution_with_norm, logit_layer
from backend import keras

layers, ops = keras.layers, keras.ops

BLOCKS = (3, 4, 6, 3)


def res2net50(
    input_shape: tuple[int, int, int],
    width: int = 26,
    scale: int = 4,
    image_size: int | None = 224,
    dropout: float = 0.0,
) -> keras.Model:
    """Res2Net-50 `width`w`scale`s; `image_size` None keeps the spectrogram's size: (time, frequency, 1) -> logit."""
    inputs = x = keras.Input(input_shape, name="features")
    if image_size:
        x = Resized(image_size)(x)
    x = layers.ReLU()(convolution_with_norm(x, 64, 7, strides=2))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = _stages(x, 64, width, scale, expansion=4)
    x = layers.GlobalAveragePooling2D()(x)  # (b, 2048)
    x = layers.Dropout(dropout)(x)
    return keras.Model(inputs, logit_layer()(x), name="res2net50")


def se_res2net50_thin(
    input_shape: tuple[int, int, int], width: int = 26, scale: int = 4, reduction: int = 16
) -> keras.Model:
    """SE-Res2Net50 with 16 to 128 channels, full resolution until the second stage: (time, frequency, 1) -> logit."""
    inputs = x = keras.Input(input_shape, name="features")
    for _ in range(3):
        x = layers.ReLU()(convolution_with_norm(x, 16, 3))
    x = _stages(x, 16, width, scale, expansion=2, reduction=reduction, pooled_skip=True)
    x = layers.GlobalAveragePooling2D()(x)  # (b, 256)
    return keras.Model(inputs, logit_layer()(x), name="se_res2net50_thin")


@keras.saving.register_keras_serializable(package="spoof_detection")
class Resized(layers.Layer):
    """Bilinear resizing to a square: (b, t, f, c) -> (b, size, size, c).

    Not keras.layers.Resizing, whose `training=True` by default puts every layer behind it into training mode where
    a model is called without saying which, as in an export.
    """

    def __init__(self, size: int, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def build(self, input_shape):
        if len(input_shape) != 4:
            raise ValueError(f"takes pictures (time, frequency, channels), not {tuple(input_shape[1:])}")

    def call(self, x):
        return ops.image.resize(x, (self.size, self.size))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.size, self.size, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package="spoof_detection")
class SplitConvolutions(layers.Layer):
    """Res2Net's middle: (b, t, f, scale * width) -> (b, t / strides, f / strides, scale * width).

    Of the groups x_1 ... x_n of channels, each but the last goes through its own convolution, batch norm and ReLU;
    chained, y_i = K_i(x_i + y_(i-1)). The last is passed on. Where a stage begins, sizes change: nothing is
    chained there and the last group is averaged over 3x3.
    """

    def __init__(self, width: int, scale: int, strides: int = 1, chained: bool = True, **kwargs):
        super().__init__(**kwargs)
        if scale < 2:
            raise ValueError(f"Res2Net needs at least 2 groups of channels, not {scale}")
        if chained and strides != 1:
            raise ValueError("groups of different size cannot be chained: strides must be 1")
        self.width, self.scale, self.strides, self.chained = width, scale, strides, chained
        self.convolutions = [
            layers.Conv2D(
                width,
                3,
                strides=strides,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",
                dtype=self.dtype_policy,
                name=f"convolution_{number}",
            )
            for number in range(1, scale)
        ]
        self.norms = [batch_norm(dtype=self.dtype_policy, name=f"norm_{number}") for number in range(1, scale)]
        self.pool = layers.AveragePooling2D(3, strides, padding="same", dtype=self.dtype_policy, name="pool")

    def build(self, input_shape):
        group = (*input_shape[:-1], self.width)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            convolution.build(group)
            norm.build(convolution.compute_output_shape(group))

    def call(self, x, training=None):
        *groups, last = ops.split(x, self.scale, axis=-1)
        outputs = []
        for group, convolution, norm in zip(groups, self.convolutions, self.norms, strict=True):
            if self.chained and outputs:
                group = group + outputs[-1]
            outputs.append(ops.relu(norm(convolution(group), training=training)))
        return ops.concatenate([*outputs, last if self.chained else self.pool(last)], axis=-1)

    def compute_output_shape(self, input_shape):
        sizes = (size if size is None else -(-size // self.strides) for size in input_shape[1:-1])
        return (input_shape[0], *sizes, input_shape[-1])

    def get_config(self):
        own = {"width": self.width, "scale": self.scale, "strides": self.strides, "chained": self.chained}
        return {**super().get_config(), **own}


def _stages(x, channels: int, width: int, scale: int, expansion: int, reduction: int = 0, pooled_skip: bool = False):
    """Four stages; each doubles the channels and, but for the first, halves time and frequency."""
    if channels * width < 64:
        raise ValueError(f"width {width} leaves the first stage no channel; the least is {64 // channels}")
    for stage, repeats in enumerate(BLOCKS):
        inner = channels * 2**stage
        for number in range(repeats):
            strides = 2 if stage and not number else 1
            skip = x
            if number == 0:
                if pooled_skip and strides > 1:
                    skip = layers.AveragePooling2D(strides, padding="same")(skip)
                skip = convolution_with_norm(skip, inner * expansion, 1, 1 if pooled_skip else strides)
            group = inner * width // 64
            x = layers.ReLU()(convolution_with_norm(x, group * scale, 1))
            x = SplitConvolutions(group, scale, strides, chained=number > 0)(x)
            x = convolution_with_norm(x, inner * expansion, 1)
            if reduction:
                x = _squeeze_and_excite(x, reduction)
            x = layers.ReLU()(layers.Add()([x, skip]))
    return x


def _squeeze_and_excite(x, reduction: int):
    """Scale each channel by a gate computed from the means of all: (b, t, f, c) -> (b, t, f, c)."""
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)  # (b, 1, 1, c)
    gate = layers.Dense(x.shape[-1] // reduction, activation="relu", use_bias=False)(gate)
    gate = layers.Dense(x.shape[-1], activation="sigmoid", use_bias=False)(gate)
    return layers.Multiply()([x, gate])
