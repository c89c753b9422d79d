"""Small residual networks for speech from anywhere: strided, normalised, with statistics over time of any length.

Ours. They see the fine structure alone: harmonics, noise and regular patterns, but no formants, microphone, level or
noise floor, of which each page of recordings has its own (`envelope=True` leaves all but a microphone's mean). Every
convolution is normalised; the head sees mean and deviation over time. With ReLU or max-feature-maps (as in ResMax,
Kwak et al., ICPR 2020). TRAINING.md says what each of these brought.

    small_resnet   550 K parameters, ReLU; of half the width, 138 K, it is what ships
    tiny_resnet     90 K, for a browser or a telephone
    small_resmax   410 K, max-feature-maps
"""

from collections.abc import Callable

import numpy as np

from architectures.layers import FineStructure, MeanRemoval, StatisticsPooling, convolution_with_norm, logit_layer
from backend import keras

layers = keras.layers

RESNET_BLOCKS = ((24, 2), (32, 1), (48, 2), (64, 1), (96, 2), (128, 1))  # channels, stride
RESMAX_BLOCKS = ((16, 2), (24, 1), (32, 2), (48, 1), (64, 2), (96, 1))
STEM = 16


def small_resnet(
    input_shape: tuple[int, int, int],
    width: float = 1.0,
    dropout: float = 0.3,
    columns: int = 1,
    envelope: bool = False,
) -> keras.Model:
    """(time, frequency, 1) -> logit; `width` multiplies all channels.

    Several columns see the same features, and the logit is of all: the form that `joined` gives to networks which
    were trained apart.
    """
    inputs = keras.Input(input_shape, name="features")
    if columns == 1:
        return keras.Model(inputs, head(_column(inputs, width, envelope), dropout), name="small_resnet")
    pictures = []
    for number in range(columns):
        own = keras.Input(input_shape)
        pictures.append(keras.Model(own, _column(own, width, envelope), name=f"column_{number}")(inputs))
    return keras.Model(inputs, head(layers.Concatenate()(pictures), dropout), name="small_resnet")


def _column(inputs, width: float, envelope: bool):
    """(b, time, frequency, 1) -> (b, time / 16, frequency / 16, channels)."""
    x = convolution_with_relu(normalised(inputs, envelope), round(width * STEM), 5, 2)
    for channels, stride in RESNET_BLOCKS:
        x = layers.ReLU()(residual_block(x, round(width * channels), stride, convolution_with_relu))
    return x


def joined(networks: list[keras.Model], target: keras.Model) -> None:
    """Make of a small_resnet of as many columns the mean of small_resnets of one column: its logit is their mean."""
    for number, network in enumerate(networks):
        column = keras.Model(network.input, network.get_layer("statistics").input)
        target.get_layer(f"column_{number}").set_weights(column.get_weights())
    kernels, biases = zip(*(network.get_layer("logit").get_weights() for network in networks), strict=True)
    halves = [np.split(kernel, 2) for kernel in kernels]  # of the means over time, of the deviations: (channels, 1)
    kernel = np.concatenate([half[part] for part in (0, 1) for half in halves])
    target.get_layer("logit").set_weights([kernel / len(networks), np.mean(biases, axis=0)])


def tiny_resnet(input_shape: tuple[int, int, int], dropout: float = 0.1) -> keras.Model:
    """small_resnet of two fifths of the width."""
    return small_resnet(input_shape, width=0.4, dropout=dropout)


def small_resmax(
    input_shape: tuple[int, int, int], width: float = 1.0, dropout: float = 0.3, envelope: bool = False
) -> keras.Model:
    """(time, frequency, 1) -> logit; `width` multiplies all channels."""
    inputs = keras.Input(input_shape, name="features")
    x = feature_map_with_norm(normalised(inputs, envelope), round(width * STEM), 5, 2)
    for channels, stride in RESMAX_BLOCKS:
        x = residual_block(x, round(width * channels), stride, feature_map_with_norm)
    x = feature_map_with_norm(x, x.shape[-1], 1)
    return keras.Model(inputs, head(x, dropout), name="small_resmax")


def normalised(features, envelope: bool):
    """Fine structure alone, or with the envelope all but every frequency's mean; both deviate by about 1."""
    return layers.Rescaling(0.3)(MeanRemoval()(features)) if envelope else FineStructure()(features)


def residual_block(x, channels: int, stride: int, first: Callable):
    """`first`, a convolution and the skip: (b, t, f, c) -> (b, t / stride, f / stride, channels)."""
    y = first(x, channels, 3, stride)
    y = convolution_with_norm(y, channels, 3)
    if stride > 1:
        x = layers.AveragePooling2D(stride, padding="same")(x)
    if x.shape[-1] != channels:
        x = convolution_with_norm(x, channels, 1)
    return layers.Add()([x, y])


def convolution_with_relu(x, channels: int, size: int, stride: int = 1):
    return layers.ReLU()(convolution_with_norm(x, channels, size, stride))


def feature_map_with_norm(x, channels: int, size: int, stride: int = 1):
    """Maximum of two convolutions, each with batch norm."""
    return layers.Maximum()([convolution_with_norm(x, channels, size, stride) for _ in range(2)])


def head(x, dropout: float):
    return logit_layer()(layers.Dropout(dropout)(StatisticsPooling(name="statistics")(x)))
