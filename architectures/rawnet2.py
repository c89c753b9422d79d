"""RawNet2 as configured for spoofing in the ASVspoof 2021 baseline: residual blocks and a GRU, on raw samples.

    from architectures.rawnet2 import rawnet2
    network = rawnet2((64_600, 1))      # samples (batch, 64600, 1) -> logit (batch, 1)

H. Tak et al., "End-to-end anti-spoofing with RawNet2", ICASSP 2021. 20 fixed band-pass filters, six residual
blocks whose maps are each scaled and shifted by a gate computed from their own mean, three GRU layers, one
linear layer; its output of 1024 values is the layer `embedding`.

The first block of the baseline starts without batch normalisation and activation, for it follows one. Every
other block computes both and then discards them: its convolution reads the block's input. They are left out
here, so the baseline's 17,621,410 parameters are 848 more than ours. Its two outputs go through log-softmax
and then through a cross-entropy that takes the log-softmax again, which changes nothing.
"""

from collections.abc import Sequence

from architectures.layers import TwoClassLogit, batch_norm
from architectures.sinc import SincFilters
from backend import keras

layers = keras.layers

EPSILON = 1e-5  # of every batch normalisation, as in the baseline


def _residual_block(x, filters: int, name: str):
    """Two convolutions and a skip, a third of the moments, then the gate: (b, t, c) -> (b, t // 3, filters)."""
    skip = x if x.shape[-1] == filters else layers.Conv1D(filters, 1, name=f"{name}_skip")(x)
    x = layers.Conv1D(filters, 3, padding="same", name=f"{name}_first")(x)
    x = batch_norm(epsilon=EPSILON, name=f"{name}_norm")(x)
    x = layers.LeakyReLU(0.3, name=f"{name}_relu")(x)
    x = layers.Conv1D(filters, 3, padding="same", name=f"{name}_second")(x)
    x = layers.Add(name=f"{name}_add")([x, skip])
    x = layers.MaxPooling1D(3, name=f"{name}_pool")(x)
    mean = layers.GlobalAveragePooling1D(keepdims=True, name=f"{name}_mean")(x)
    gate = layers.Dense(filters, activation="sigmoid", name=f"{name}_gate")(mean)  # (b, 1, filters)
    return layers.Add(name=name)([layers.Multiply(name=f"{name}_scaled")([x, gate]), gate])


def rawnet2(
    input_shape: tuple[int, int],
    filters: Sequence[int] = (20, 20, 128, 128, 128, 128),
    sinc_filters: int = 20,
    taps: int = 1025,
    gru_units: int = 1024,
    gru_layers: int = 3,
    embedding_units: int = 1024,
    dropout: float = 0.0,
) -> keras.Model:
    """RawNet2: (samples, 1) -> logit. The baseline asks for 1024 taps and makes them odd; it has no dropout."""
    shortest = taps - 1 + 3 ** (len(filters) + 1)
    if len(input_shape) != 2 or input_shape[1] != 1 or input_shape[0] < shortest:
        raise ValueError(f"takes (samples, 1) with at least {shortest} samples")

    inputs = keras.Input(input_shape, name="features")
    x = SincFilters(sinc_filters, taps, name="sinc")(inputs)  # (b, 21192, 20)
    x = batch_norm(epsilon=EPSILON, name="first_norm")(x)
    x = layers.Activation("selu", name="first_selu")(x)
    for k, width in enumerate(filters):
        x = _residual_block(x, width, f"block{k}")  # (b, 29, 128) in the end
    x = batch_norm(epsilon=EPSILON, name="last_norm")(x)
    x = layers.Activation("selu", name="last_selu")(x)
    for k in range(gru_layers):
        # float32 also under mixed precision, as in lcnn.py
        x = layers.GRU(gru_units, return_sequences=k < gru_layers - 1, dtype="float32", name=f"gru{k}")(x)
    x = layers.Dense(embedding_units, name="embedding")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, TwoClassLogit()(x), name="rawnet2")
