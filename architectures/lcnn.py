"""Light CNN with two LSTM layers on LFCC (Wang & Yamagishi, Interspeech 2021): the baseline of ASVspoof 2021.

Its only activation is the maximum of two feature maps. Published counts of trainable parameters, all met:
269,729 for the sigmoid system, which is the default here, and 275,840 for the systems whose 96 pooled features
first pass a 64-dimensional embedding layer and whose two class vectors count as part of the loss. Keras' LSTM has
one bias where PyTorch's has two that are only ever added, 768 numbers in all, so the default has 268,961.
"""

from architectures.layers import MaxFeatureMap, batch_norm, logit_layer
from backend import keras

layers = keras.layers

# channels after the maximum, kernel, 2x2 max-pooling, batch norm
LCNN_BLOCKS = (
    (32, 5, True, False),
    (32, 1, False, True),
    (48, 3, True, True),
    (48, 1, False, True),
    (64, 3, True, False),
    (64, 1, False, True),
    (32, 3, False, True),
    (32, 1, False, True),
    (32, 3, True, False),
)


def lcnn(input_shape: tuple[int, int, int], dropout: float = 0.7, embedding: int | None = None) -> keras.Model:
    """Nine Max-Feature-Map convolutions, two bidirectional LSTM layers, mean over time.

    (time, frequency, 1) -> logit. `embedding` adds a linear layer of that size before the logit; the published
    margin-softmax systems have 64. The LSTM is as wide as its input, so it grows with the frequency bins.
    """
    if min(input_shape[:2]) < 16:
        raise ValueError("four poolings need at least 16 frames and 16 frequency bins")
    inputs = x = keras.Input(input_shape, name="features")
    for channels, kernel_size, pool, normalise in LCNN_BLOCKS:
        x = MaxFeatureMap(channels, kernel_size)(x)
        if pool:
            x = layers.MaxPooling2D(2)(x)
        if normalise:
            x = batch_norm(center=False, scale=False)(x)
    x = layers.Dropout(dropout)(x)
    x = layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]))(x)  # lfcc: (b, 25, 3 * 32)
    x = layers.Add()([x, _bidirectional_lstm(_bidirectional_lstm(x))])
    x = layers.GlobalAveragePooling1D()(x)  # (b, 96)
    if embedding:
        x = layers.Dense(embedding, name="embedding")(x)
    return keras.Model(inputs, logit_layer()(x), name="lcnn")


def _bidirectional_lstm(x):
    """As many channels out as in, half of them from each direction: (b, t, c) -> (b, t, c)."""
    # float32 also under mixed precision: sums over time lose digits, and cuDNN's LSTM does not know bfloat16
    lstm = layers.LSTM(x.shape[-1] // 2, return_sequences=True, dtype="float32")
    return layers.Bidirectional(lstm, dtype="float32")(x)
