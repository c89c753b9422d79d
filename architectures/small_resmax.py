"""A small ResMax for speech from anywhere: residual blocks of max-feature-maps, strided, with statistics over time.

Ours, after ResMax (Kwak et al., ICPR 2020) and with its activation. What differs serves speech from other places than
that of training: the mean of every frequency is removed, every convolution is normalised, strides and averages take
the place of max-pooling, and the head sees mean and deviation over time, of any length.

    small_resmax   410 K parameters
    tiny_resmax     67 K, for a browser or a telephone
"""

from architectures.layers import MeanRemoval, StatisticsPooling, convolution_with_norm, logit_layer
from backend import keras

layers = keras.layers

BLOCKS = ((16, 2), (24, 1), (32, 2), (48, 1), (64, 2), (96, 1))  # channels, stride
STEM = 16


def small_resmax(input_shape: tuple[int, int, int], width: float = 1.0, dropout: float = 0.3) -> keras.Model:
    """(time, frequency, 1) -> logit; `width` multiplies all channels."""
    inputs = keras.Input(input_shape, name="features")
    x = layers.Rescaling(0.3)(MeanRemoval()(inputs))  # natural log power then deviates by about 1
    x = normalised_feature_map(x, round(width * STEM), 5, 2)
    for channels, stride in BLOCKS:
        x = residual_block(x, round(width * channels), stride)
    x = normalised_feature_map(x, x.shape[-1], 1)
    x = layers.Dropout(dropout)(StatisticsPooling()(x))
    return keras.Model(inputs, logit_layer()(x), name="small_resmax")


def tiny_resmax(input_shape: tuple[int, int, int], dropout: float = 0.1) -> keras.Model:
    """small_resmax of less than half the width."""
    return small_resmax(input_shape, width=0.4, dropout=dropout)


def residual_block(x, channels: int, stride: int):
    """A max-feature-map, a convolution and the skip: (b, t, f, c) -> (b, t / stride, f / stride, channels)."""
    y = normalised_feature_map(x, channels, 3, stride)
    y = convolution_with_norm(y, channels, 3)
    if stride > 1:
        x = layers.AveragePooling2D(stride, padding="same")(x)
    if x.shape[-1] != channels:
        x = convolution_with_norm(x, channels, 1)
    return layers.Add()([x, y])


def normalised_feature_map(x, channels: int, size: int, stride: int = 1):
    """Maximum of two convolutions, each with batch norm."""
    return layers.Maximum()([convolution_with_norm(x, channels, size, stride) for _ in range(2)])
