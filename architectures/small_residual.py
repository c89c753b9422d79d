"""Small residual networks for speech from anywhere: strided, normalised, with statistics over time of any length.

Ours. Each column of one sees the log spectrum without what every page of recordings has its own of: `fine`, harmonics,
noise and regular patterns, but no formants, microphone, level or noise floor; `fine_to_7khz`, of these what lies below
7 kHz; `patches`, what differs from its neighbourhood; `envelope`, all but a microphone's mean. Every convolution is
normalised; the head sees mean and deviation over time. With ReLU or max-feature-maps (as in ResMax, Kwak et al., ICPR
2020). ABLATION.md says what each of these brought.

    small_resnet   550 K parameters a column, ReLU; two of half the width, 138 K each, ship as `resmax`
    tiny_resnet     97 K, for a browser or a telephone: `resmax_tiny`
    small_resmax   410 K, max-feature-maps
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from architectures.layers import (
    ColumnLogits,
    ColumnMean,
    FineStructure,
    MeanRemoval,
    PatchNormalisation,
    SharedAndOwnNorm,
    StatisticsPooling,
    convolution_with_norm,
    logit_layer,
)
from backend import keras

layers = keras.layers

RESNET_BLOCKS = ((24, 2), (32, 1), (48, 2), (64, 1), (96, 2), (128, 1))  # channels, stride
RESMAX_BLOCKS = ((16, 2), (24, 1), (32, 2), (48, 1), (64, 2), (96, 1))
STEM = 16


def fine_structure_to_7khz(x):
    """The fine structure of the lower seven eighths of a log-STFT, 7 kHz, zero above: (b, t, f, 1) -> the same.

    The slope just below 8 kHz tells what was resampled from a higher rate: on demo pages five fakes in six, and fewer
    than half of the recordings. Of the others a network that sees it calls four to six times as many synthetic once
    they were stored at 48 kHz.
    """
    hidden = x.shape[2] // 8
    x = layers.Cropping2D(((0, 0), (0, hidden)), dtype="float32")(x)  # a log spectrum does not fit bfloat16
    return layers.ZeroPadding2D(((0, 0), (0, hidden)))(FineStructure()(x))


# what is left of a log spectrum, (b, t, f, 1) -> the same; each deviates by about 1
SIGHTS: dict[str, Callable] = {
    "fine": lambda x: FineStructure()(x),
    "fine_to_7khz": fine_structure_to_7khz,
    "patches": lambda x: PatchNormalisation()(x),
    "envelope": lambda x: layers.Rescaling(0.3)(MeanRemoval()(x)),
}


def small_resnet(
    input_shape: tuple[int, int, int],
    width: float = 1.0,
    dropout: float = 0.3,
    sees: str = "fine",
    instance_norm: float = 0.0,
) -> keras.Model:
    """(time, frequency, 1) -> logit; `width` multiplies all channels.

    `sees` names a column's sight, or those of several columns: "fine,patches". Each column learns from a loss of its
    own, as if it were trained alone on the same batches; the logit is the mean of theirs. `instance_norm` is the share
    of channels of the stem and of each block's first convolution that are normalised by their own mean and deviation in
    this piece, not by those of training.
    """
    inputs = keras.Input(input_shape, name="features")
    columns = [_column(inputs, width, sight, instance_norm) for sight in sees.split(",")]
    if len(columns) == 1:
        return keras.Model(inputs, logit_layer()(embedding(columns[0], dropout)), name="small_resnet")
    logits = ColumnLogits(len(columns), name="column_logits")(
        embedding(layers.Concatenate(name="columns")(columns), dropout)
    )
    return keras.Model(inputs, ColumnMean(name="logit")(logits), name="small_resnet")


def _column(inputs, width: float, sight: str, instance_norm: float):
    """(b, time, frequency, 1) -> (b, time / 16, frequency / 16, channels)."""
    convolution = partial(convolution_with_relu, instance_norm=instance_norm)
    x = convolution(seen(inputs, sight), round(width * STEM), 5, 2)
    for channels, stride in RESNET_BLOCKS:
        x = layers.ReLU()(residual_block(x, round(width * channels), stride, convolution))
    return x


def joined(networks: list[keras.Model], target: keras.Model) -> None:
    """Give a small_resnet that sees what several see together their weights: its logit is the mean of all columns'."""
    parts = [part for network in networks for part in _parts(network)]
    for (column, _, _), (learned, _, _) in zip(_parts(target), parts, strict=True):
        column.set_weights(learned.get_weights())
    _, kernels, biases = zip(*parts, strict=True)
    target.get_layer("column_logits").set_weights([np.stack(kernels, axis=1), np.stack(biases)])


def _parts(network: keras.Model) -> Iterator[tuple[keras.Model, np.ndarray, np.ndarray]]:
    """Each column of a small_resnet up to its pooling, its kernel (2, channels) and its bias in the logit."""
    several = any(layer.name == "columns" for layer in network.layers)
    pictures = network.get_layer("columns").input if several else [network.get_layer("statistics").input]
    kernel, bias = network.get_layer("column_logits" if several else "logit").get_weights()
    kernel = kernel.reshape(2, len(pictures), -1)  # of one column (2 c, 1): the means over time, then the deviations
    for number, picture in enumerate(pictures):
        yield keras.Model(network.input, picture), kernel[:, number], bias[number]


def tiny_resnet(
    input_shape: tuple[int, int, int], dropout: float = 0.3, sees: str = "fine", instance_norm: float = 0.0
) -> keras.Model:
    """small_resnet of two fifths of the width."""
    return small_resnet(input_shape, 0.42, dropout, sees, instance_norm)


def small_resmax(
    input_shape: tuple[int, int, int], width: float = 1.0, dropout: float = 0.3, sees: str = "fine"
) -> keras.Model:
    """(time, frequency, 1) -> logit; `width` multiplies all channels."""
    inputs = keras.Input(input_shape, name="features")
    x = feature_map_with_norm(seen(inputs, sees), round(width * STEM), 5, 2)
    for channels, stride in RESMAX_BLOCKS:
        x = residual_block(x, round(width * channels), stride, feature_map_with_norm)
    x = feature_map_with_norm(x, x.shape[-1], 1)
    return keras.Model(inputs, logit_layer()(embedding(x, dropout)), name="small_resmax")


def seen(features, sight: str):
    """The features as a column sees them."""
    if sight not in SIGHTS:
        raise ValueError(f"unknown sight {sight!r}; valid: {', '.join(SIGHTS)}")
    return SIGHTS[sight](features)


def residual_block(x, channels: int, stride: int, first: Callable):
    """`first`, a convolution and the skip: (b, t, f, c) -> (b, t / stride, f / stride, channels)."""
    y = first(x, channels, 3, stride)
    y = convolution_with_norm(y, channels, 3, norm=SharedAndOwnNorm())
    if stride > 1:
        x = layers.AveragePooling2D(stride, padding="same")(x)
    if x.shape[-1] != channels:
        x = convolution_with_norm(x, channels, 1, norm=SharedAndOwnNorm())
    return layers.Add()([x, y])


def convolution_with_relu(x, channels: int, size: int, stride: int = 1, instance_norm: float = 0.0):
    """Some channels normalised over the batch, `instance_norm` of them over time and frequency of each piece alone.

    IBN-Net (Pan et al., ECCV 2018): what a page's style moves in all of a piece is gone from these, kept in the others.
    """
    if not 0 <= instance_norm <= 1:
        raise ValueError(f"instance_norm {instance_norm:g}: a share of channels is 0 to 1")
    norm = SharedAndOwnNorm(round(instance_norm * channels))
    return layers.ReLU()(convolution_with_norm(x, channels, size, stride, norm))


def feature_map_with_norm(x, channels: int, size: int, stride: int = 1):
    """Maximum of two convolutions, each with batch norm."""
    return layers.Maximum()([convolution_with_norm(x, channels, size, stride, SharedAndOwnNorm()) for _ in range(2)])


def embedding(x, dropout: float):
    """(b, t, f, c) -> (b, 2 c)."""
    return layers.Dropout(dropout)(StatisticsPooling(name="statistics")(x))
