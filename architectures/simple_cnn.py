"""The plain convolutional network that tutorials on deepfake audio start from: the floor that others must beat.

Four times convolution and max-pooling on a mel spectrogram, then a dense layer. It follows no paper; public
notebooks of this shape report about 93 % accuracy on balanced, random splits of ASVspoof 2019 LA.
"""

from collections.abc import Sequence

from architectures.layers import batch_norm, logit_layer
from backend import keras

layers = keras.layers


def simple_cnn(
    input_shape: tuple[int, int, int],
    filters: Sequence[int] = (32, 64, 128, 128),
    kernel_size: int = 3,
    dense_units: int = 128,
    dropout: float = 0.5,
) -> keras.Model:
    """One convolution, ReLU and 2x2 max-pooling per entry of `filters`: (time, frequency, 1) -> logit."""
    inputs = keras.Input(input_shape, name="features")
    # log power lies around -8: unscaled, the first steps would silence half of the rectifiers for good
    x = batch_norm(name="input_scale")(inputs)
    for number, channels in enumerate(filters, 1):
        x = layers.Conv2D(
            channels,
            kernel_size,
            padding="same",
            activation="relu",
            name=f"convolution_{number}",
        )(x)
        x = layers.MaxPooling2D(2, padding="same", name=f"pool_{number}")(x)
    x = layers.Flatten()(x)  # mel: (b, 16 * 8 * 128)
    x = layers.Dense(dense_units, activation="relu", name="dense")(x)
    x = layers.Dropout(dropout)(x)
    return keras.Model(inputs, logit_layer()(x), name="simple_cnn")
