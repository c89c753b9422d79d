"""ResNet-50 (He et al., CVPR 2016) on a one-channel spectrogram, from scratch.

Written out rather than taken from keras.applications, which does take one channel: there every convolution has a
bias that the batch norm behind it cancels (26,560 parameters without a gradient), and the batch norms' momentum of
0.99 is fixed, which leaves the running averages behind after the short epochs of small sets. As everywhere since,
a stage's stride sits in the 3x3 convolution of its first block, not in the 1x1 before it.
"""

from collections.abc import Sequence

from architectures.layers import convolution_with_norm, logit_layer
from backend import keras

layers = keras.layers

STAGE_CHANNELS = (64, 128, 256, 512)
EXPANSION = 4  # a block puts out four times its inner channels


def resnet50(
    input_shape: tuple[int, int, int], blocks: Sequence[int] = (3, 4, 6, 3), dropout: float = 0.0
) -> keras.Model:
    """Four stages of bottleneck blocks and global average pooling: (time, frequency, 1) -> logit."""
    inputs = keras.Input(input_shape, name="features")
    x = layers.ReLU()(convolution_with_norm(inputs, 64, 7, strides=2))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)  # a quarter of the time and frequency steps
    for stage, (channels, repeats) in enumerate(zip(STAGE_CHANNELS, blocks, strict=True)):
        for number in range(repeats):
            x = _bottleneck(x, channels, strides=2 if stage and not number else 1)
    x = layers.GlobalAveragePooling2D()(x)  # (b, 2048)
    x = layers.Dropout(dropout)(x)
    return keras.Model(inputs, logit_layer()(x), name="resnet50")


def _bottleneck(x, channels: int, strides: int):
    """1x1 down, 3x3, 1x1 up, plus skip: (b, t, f, c) -> (b, t / strides, f / strides, 4 * channels)."""
    grown = EXPANSION * channels
    skip = x if strides == 1 and x.shape[-1] == grown else convolution_with_norm(x, grown, 1, strides)
    x = layers.ReLU()(convolution_with_norm(x, channels, 1))
    x = layers.ReLU()(convolution_with_norm(x, channels, 3, strides))
    x = layers.Add()([convolution_with_norm(x, grown, 1), skip])
    return layers.ReLU()(x)
