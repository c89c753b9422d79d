"""RawNet2 is built as in the ASVspoof 2021 baseline, without what that baseline computes in vain."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from architectures.rawnet2 import rawnet2
from backend import keras

SAMPLES = 1_000
small = partial(
    rawnet2, filters=(6, 6, 8, 8), sinc_filters=6, taps=33, gru_units=12, gru_layers=2, embedding_units=10
)  # three moments reach the GRU


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    """Two clips of noise and two of a tone in noise, (4, 1000, 1)."""
    clips = np.random.default_rng(0).normal(0, 0.1, (4, SAMPLES, 1)).astype(np.float32)
    clips[2:, :, 0] += 0.3 * np.sin(np.arange(SAMPLES) / 5)
    return clips


@pytest.fixture(scope="module")
def trained(clips: np.ndarray) -> keras.Model:
    """A network after eight steps on one batch: its averages have moved too."""
    keras.utils.set_random_seed(1)
    network = small((SAMPLES, 1))
    network.compile(keras.optimizers.Adam(1e-2), keras.losses.BinaryCrossentropy(from_logits=True), run_eagerly=True)
    labels = np.array([[0.0], [0.0], [1.0], [1.0]])
    for _ in range(8):
        network.train_on_batch(clips, labels)
    return network


def _numpy(x) -> np.ndarray:
    return keras.ops.convert_to_numpy(x)


def _official_parameters() -> tuple[int, int]:
    """Trainable parameters of the baseline's layer list, and how many of them have no effect."""

    def convolution(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel + outputs

    def norm(channels: int) -> int:
        return 2 * channels

    def linear(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    def gru(inputs: int, units: int) -> int:  # three gates, each with two biases
        return 3 * (units * (inputs + units) + 2 * units)

    blocks = [(20, 20), (20, 20), (20, 128), (128, 128), (128, 128), (128, 128)]
    dead = sum(norm(inputs) for inputs, _ in blocks[1:])
    total = norm(20) + dead
    for inputs, outputs in blocks:
        total += convolution(inputs, outputs, 3) + norm(outputs) + convolution(outputs, outputs, 3)
        total += convolution(inputs, outputs, 1) if inputs != outputs else 0
        total += linear(outputs, outputs)  # the gate
    total += norm(128) + gru(128, 1024) + 2 * gru(1024, 1024) + linear(1024, 1024) + linear(1024, 2)
    return total, dead


def test_parameters_of_the_baseline() -> None:
    total, dead = _official_parameters()
    assert (total, dead) == (17_621_410, 848)
    network = rawnet2((64_600, 1))
    assert sum(int(np.prod(weight.shape)) for weight in network.trainable_weights) == total - dead
    names = ("sinc", "block0", "block2", "block5", "gru1", "gru2", "embedding")
    assert [network.get_layer(name).output.shape[1:] for name in names] == [
        (21_192, 20),
        (7_064, 20),
        (784, 128),
        (29, 128),
        (29, 1024),
        (1024,),
        (1024,),
    ]
    assert network.output_shape == (None, 1)
    assert network.layers[-1].name == "logit"
    assert network.get_layer("sinc").taps == 1025
    assert {layer.negative_slope for layer in network.layers if isinstance(layer, keras.layers.LeakyReLU)} == {0.3}
    assert {layer.epsilon for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)} == {1e-5}


@pytest.mark.parametrize("shape", [(3_210, 1), (64_600, 2), (250, 513, 1)])
def test_a_shape_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^takes \(samples, 1\) with at least 3211 samples$"):
        rawnet2(shape)


def test_the_shortest_input_leaves_one_moment() -> None:
    network = rawnet2((3_211, 1), gru_units=4, embedding_units=4)
    assert network.get_layer("block5").output.shape[1] == 1


@pytest.mark.parametrize("block", [0, 2])
def test_a_block_in_plain_numpy(block: int, trained: keras.Model, clips: np.ndarray) -> None:
    """The first convolution reads the block's input as it is; the gate scales and shifts every map."""
    network, name = trained, f"block{block}"
    before = "first_selu" if block == 0 else f"block{block - 1}"
    tap = keras.Model(network.input, [network.get_layer(before).output, network.get_layer(name).output])
    x, found = (_numpy(output) for output in tap(clips, training=False))
    weights = {weight.path: _numpy(weight).astype(np.float64) for weight in network.weights}

    def convolved(x: np.ndarray, layer: str) -> np.ndarray:
        kernel = weights[f"{name}_{layer}/kernel"]  # (k, in, out)
        side = len(kernel) // 2
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (side, side), (0, 0))), len(kernel), 1)
        return np.einsum("btik,kio->bto", windows, kernel) + weights[f"{name}_{layer}/bias"]

    norm = {key: weights[f"{name}_norm/{key}"] for key in ("gamma", "beta", "moving_mean", "moving_variance")}
    y = convolved(x, "first")
    y = (y - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1e-5) * norm["gamma"] + norm["beta"]
    y = convolved(np.where(y > 0, y, 0.3 * y), "second") + (convolved(x, "skip") if block == 2 else x)
    thirds = y.shape[1] // 3
    y = y[:, : 3 * thirds].reshape(len(y), thirds, 3, -1).max(axis=2)
    gate = y.mean(axis=1, keepdims=True) @ weights[f"{name}_gate/kernel"] + weights[f"{name}_gate/bias"]
    gate = 1 / (1 + np.exp(-gate))
    assert np.abs(found - (y * gate + gate)).max() < 1e-5


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_network_is_the_same(suffix: str, trained: keras.Model, clips: np.ndarray, tmp_path: Path) -> None:
    network, path = trained, tmp_path / f"network{suffix}"
    network.save(path)
    wanted = _numpy(network(clips, training=False))
    assert wanted.std() > 0.1
    loaded = keras.models.load_model(path, compile=False)
    assert np.abs(_numpy(loaded(clips, training=False)) - wanted).max() <= 1e-6


def test_the_logit_is_float32_under_mixed_precision(trained: keras.Model, clips: np.ndarray) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = small((SAMPLES, 1))
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(trained.get_weights())
    assert {mixed.get_layer(name).compute_dtype for name in ("sinc", "gru0", "logit")} == {"float32"}
    assert mixed.get_layer("block1_first").compute_dtype == "bfloat16"
    logits, wanted = mixed(clips, training=False), _numpy(trained(clips, training=False))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    # how bfloat16 rounds is the processor's: 0.07 where it multiplies matrices in tiles
    assert np.abs(_numpy(logits) - wanted).max() < 0.1 * np.abs(wanted).max()
