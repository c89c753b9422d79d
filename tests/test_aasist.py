"""AASIST is built as published; that it gives the published logits is shown in test_import_weights.py."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from architectures.aasist import (
    CrossGraphAttention,
    GraphAttention,
    GraphPooling,
    MaxMagnitude,
    NodePosition,
    aasist,
    aasist_l,
)
from architectures.sinc import SincFilters, mel_sinc_filters
from backend import keras

SAMPLES = 3_000
# eleven nodes in time, so that every pooling has something to drop; nothing is left to chance
small = partial(
    aasist, filters=(4, 4, 6, 6), gat_dims=(6, 4), dropout=0.0, branch_dropout=0.0, graph_dropout=0.0, pool_dropout=0.0
)


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    """Two clips of noise and two of a tone in noise, (4, 3000, 1)."""
    clips = np.random.default_rng(0).normal(0, 0.1, (4, SAMPLES, 1)).astype(np.float32)
    clips[2:, :, 0] += 0.3 * np.sin(np.arange(SAMPLES) / 5)
    return clips


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    return small((SAMPLES, 1))


@pytest.fixture(scope="module")
def trained(clips: np.ndarray) -> keras.Model:
    """A network after eight steps on one batch: its averages have moved too."""
    keras.utils.set_random_seed(1)
    network = small((SAMPLES, 1))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(3e-3), loss, run_eagerly=True)  # no graph to build: sooner done
    labels = np.array([[0.0], [0.0], [1.0], [1.0]])
    for _ in range(8):
        network.train_on_batch(clips, labels)
    return network


def _numpy(x) -> np.ndarray:
    return keras.ops.convert_to_numpy(x)


def _filled(layer: keras.layers.Layer, *shapes: tuple[int, ...]) -> tuple[keras.layers.Layer, dict[str, np.ndarray]]:
    """A built layer with random weights, and these by their path."""
    layer.build(shapes[0] if len(shapes) == 1 else list(shapes))
    rng = np.random.default_rng(3)
    layer.set_weights([rng.uniform(0.1, 1, weight.shape) for weight in layer.weights])
    return layer, {weight.path.removeprefix(f"{layer.name}/"): _numpy(weight) for weight in layer.weights}


# ---------------------------------------------------------------- the published network


@pytest.mark.parametrize(
    ("build", "published", "dead_channels"),
    [(aasist, 297_866, 32 + 32 + 64 + 64 + 64), (aasist_l, 85_306, 32 + 32 + 24 + 24 + 24)],
)
def test_parameters_of_the_paper(build, published: int, dead_channels: int) -> None:
    """The published count includes a batch normalisation (two values a channel) that has no effect."""
    network = build((64_600, 1))
    trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    assert trainable + 2 * dead_channels == published
    assert network.output_shape == (None, 1)
    assert network.layers[-1].name == "logit"
    assert network.get_layer("embedding").output.shape == (None, 160)
    assert network.layers[-1].input is network.get_layer("dropout").output
    assert network.get_layer("dropout").input is network.get_layer("embedding").output
    assert {layer.epsilon for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)} == {1e-5}


def test_shapes_of_the_paper() -> None:
    network = aasist((64_600, 1))
    shapes = {name: network.get_layer(name).output for name in ("sinc", "block0", "block5", "time_pool", "time")}
    assert {name: output.shape[1:] for name, output in shapes.items()} == {
        "sinc": (21_490, 23),
        "block0": (23, 7_163, 32),
        "block5": (23, 29, 64),
        "time_pool": (20, 64),
        "time": (10, 32),
    }
    assert network.get_layer("frequency_pool").output.shape[1:] == (11, 64)
    assert network.get_layer("branch2_frequency_pool").output.shape[1:] == (5, 32)
    # AASIST-L keeps other shares: int(23 x 0.4), int(29 x 0.5), int(9 x 0.7), int(14 x 0.7)
    light = aasist_l((64_600, 1))
    kept = [f"{kind}_pool" for kind in ("frequency", "time", "branch1_frequency", "branch1_time")]
    assert [light.get_layer(name).output.shape[1] for name in kept] == [9, 14, 6, 9]


@pytest.mark.parametrize(("samples", "moments"), [(2_315, 1), (4_501, 1), (4_502, 2), (128_000, 58)])
def test_other_lengths(samples: int, moments: int) -> None:
    network = aasist_l((samples, 1))
    assert network.get_layer("block5").output.shape[2] == moments
    assert network.output_shape == (None, 1)


@pytest.mark.parametrize("shape", [(2_314, 1), (64_600, 2), (250, 513, 1), (64_600,)])
def test_a_shape_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^takes \(samples, 1\) with at least 2315 samples$"):
        aasist(shape)


# ---------------------------------------------------------------- the filters


@pytest.mark.parametrize(("filters", "taps"), [(70, 129), (20, 1025)])
def test_the_filters_are_the_published_ones(filters: int, taps: int) -> None:
    """One by one, in the arithmetic of the published code: float32 time, edges spaced evenly in mel."""
    mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), filters + 1)
    edges = 700 * (10 ** (mel / 2595) - 1)
    time = np.arange(-(taps - 1) / 2, (taps - 1) / 2 + 1, dtype=np.float32)
    ours = mel_sinc_filters(filters, taps)
    assert (ours.shape, ours.dtype) == ((taps, filters), np.float32)
    for k in range(filters):
        high, low = (2 * edge / 16_000 * np.sinc(2 * edge / 16_000 * time) for edge in (edges[k + 1], edges[k]))
        assert np.abs(ours[:, k] - np.hamming(taps) * (high - low)).max() < 1e-7
    # each passes its own band: the middle of the wide ones comes through whole, others' hardly
    response = np.abs(np.fft.rfft(ours, 16_000, axis=0))  # one bin is 1 Hz
    middles = ((edges[:-1] + edges[1:]) / 2).astype(int)[-5:]
    gains = response[middles][:, -5:]
    assert np.abs(np.diag(gains) - 1).max() < 0.15
    assert gains[~np.eye(5, dtype=bool)].max() < 0.1


@pytest.mark.parametrize(("pool", "band_pool"), [(1, 1), (3, 1), (3, 3), (4, 2)])
def test_filtering_and_pooling(pool: int, band_pool: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 200, 1)).astype(np.float32)
    layer = SincFilters(10, 33, pool, band_pool)
    responses = mel_sinc_filters(10, 33).astype(np.float64)
    plain = np.stack([[np.correlate(clip[:, 0], taps) for taps in responses.T] for clip in x])  # (2, 10, 168)
    assert np.abs(_numpy(layer.filtered(x)).transpose(0, 2, 1) - plain).max() < 1e-5
    frames, bands = 168 // pool, 10 // band_pool
    cut = np.abs(plain)[:, : bands * band_pool, : frames * pool]
    wanted = cut.reshape(2, bands, band_pool, frames, pool).max(axis=(2, 4)).transpose(0, 2, 1)
    found = layer(x)
    assert found.shape == layer.compute_output_shape(x.shape) == (2, frames, bands)
    assert np.abs(_numpy(found) - wanted).max() < 1e-5
    assert layer.weights == []


# ---------------------------------------------------------------- the graphs, against plain NumPy


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _dense(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def _normed_selu(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    x = (x - weights["norm/moving_mean"]) / np.sqrt(weights["norm/moving_variance"] + 1e-5)
    x = x * weights["norm/gamma"] + weights["norm/beta"]
    return 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(np.minimum(x, 0)) - 1))


@pytest.mark.parametrize("temperature", [0.5, 100.0])
def test_graph_attention(temperature: float) -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    layer, weights = _filled(GraphAttention(4, temperature), x.shape)
    wanted = []
    for nodes in x.astype(np.float64):
        strength = [
            [np.tanh(_dense(weights, "edge", a * b)) @ weights["direction"][:, 0] for b in nodes] for a in nodes
        ]
        gathered = _softmax(np.array(strength) / temperature) @ nodes
        wanted.append(_normed_selu(weights, _dense(weights, "gathered", gathered) + _dense(weights, "own", nodes)))
    assert np.abs(_numpy(layer(x)) - wanted).max() < 1e-5


@pytest.mark.parametrize("learned_master", [True, False])
def test_cross_graph_attention(learned_master: bool) -> None:
    rng = np.random.default_rng(0)
    time, frequency, master = (rng.normal(size=(2, n, 3)).astype(np.float32) for n in (4, 3, 1))
    inputs = [time, frequency] + ([] if learned_master else [master])
    layer, weights = _filled(CrossGraphAttention(5, 2.0, learned_master), *(x.shape for x in inputs))
    for k, found in enumerate(zip(*(_numpy(out) for out in layer(inputs)), strict=True)):
        t, f = _dense(weights, "of_time", time[k]), _dense(weights, "of_frequency", frequency[k])
        nodes, kinds = np.concatenate([t, f]), [0] * 4 + [1] * 3
        strength = np.zeros((7, 7))
        for i in range(7):
            for j in range(7):
                direction = weights["direction"][:, kinds[i] + kinds[j]]  # 0 time, 1 mixed, 2 frequency
                strength[i, j] = np.tanh(_dense(weights, "edge", nodes[i] * nodes[j])) @ direction
        gathered = _softmax(strength / 2) @ nodes
        wanted = _normed_selu(weights, _dense(weights, "gathered", gathered) + _dense(weights, "own", nodes))
        above = weights["master"][0] if learned_master else master[k]
        heard = _softmax((np.tanh(_dense(weights, "master_edge", nodes * above)) @ weights["master_direction"]).T / 2)
        new = _dense(weights, "master_gathered", heard @ nodes) + _dense(weights, "master_own", above)
        for ours, theirs in zip(found, (wanted[:4], wanted[4:], new), strict=True):
            assert np.abs(ours - theirs).max() < 1e-5
    assert layer.compute_output_shape([x.shape for x in inputs]) == ((2, 4, 5), (2, 3, 5), (2, 1, 5))


@pytest.mark.parametrize(("ratio", "kept"), [(0.5, 3), (0.7, 4), (1.0, 7), (0.1, 1)])
def test_pooling_keeps_the_best_nodes_in_order(ratio: float, kept: int) -> None:
    x = np.random.default_rng(5).normal(size=(3, 7, 4)).astype(np.float32)
    layer, weights = _filled(GraphPooling(ratio), x.shape)
    scores = 1 / (1 + np.exp(-_dense(weights, "score", x)))  # (3, 7, 1)
    best = np.argsort(-scores[..., 0], axis=1)[:, :kept]
    found = layer(x)
    assert found.shape == layer.compute_output_shape(x.shape) == (3, kept, 4)
    assert np.abs(_numpy(found) - np.take_along_axis(x * scores, best[..., None], axis=1)).max() < 1e-6


def test_dropout_acts_in_training_only(clips: np.ndarray) -> None:
    x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    for layer in (GraphAttention(3, 1.0, 0.5), GraphPooling(1.0, 0.9)):
        assert np.array_equal(_numpy(layer(x)), _numpy(layer(x, training=False)))
        assert np.abs(_numpy(layer(x)) - _numpy(layer(x, training=True))).max() > 1e-3


@pytest.mark.parametrize("axis", [1, 2])
def test_largest_magnitude(axis: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    assert np.array_equal(_numpy(MaxMagnitude(axis)(x)), np.abs(x).max(axis))


@pytest.mark.parametrize(
    ("layer", "changed"),
    [
        (SincFilters(10, 33, 2, 5, name="a"), {"filters": 10, "taps": 33, "pool": 2, "band_pool": 5}),
        (MaxMagnitude(2, name="a"), {"axis": 2}),
        (NodePosition(name="a"), {}),
        (GraphAttention(3, 7.0, 0.4, name="a"), {"units": 3, "temperature": 7.0, "dropout": 0.4}),
        (
            CrossGraphAttention(3, 7.0, True, 0.4, name="a"),
            {"units": 3, "temperature": 7.0, "learned_master": True, "dropout": 0.4},
        ),
        (GraphPooling(0.3, 0.4, name="a"), {"ratio": 0.3, "dropout": 0.4}),
    ],
)
def test_a_layer_is_rebuilt_from_its_config(layer: keras.layers.Layer, changed: dict) -> None:
    config = layer.get_config()
    assert changed.items() <= config.items()
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(twin) is type(layer)
    assert twin.get_config() == config
    assert keras.saving.get_registered_name(type(layer)) == f"spoof_detection>{type(layer).__name__}"


# ---------------------------------------------------------------- it learns, is saved, and keeps its digits


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_network_is_the_same(suffix: str, trained: keras.Model, clips: np.ndarray, tmp_path: Path) -> None:
    network, path = trained, tmp_path / f"network{suffix}"
    network.save(path)
    loaded = keras.models.load_model(path, compile=False)
    wanted = _numpy(network(clips, training=False))
    assert wanted.std() > 0.01
    assert np.abs(_numpy(loaded(clips, training=False)) - wanted).max() <= 1e-6


def test_mixed_precision_keeps_filters_graphs_and_logit_in_float32(network: keras.Model, clips: np.ndarray) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = small((SAMPLES, 1))
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(network.get_weights())
    computed = {layer.name: layer.compute_dtype for layer in mixed.layers}
    graph = [name for name in computed if "attention" in name or (name.startswith("branch") and "pool" in name)]
    assert len(graph) == 6
    assert {computed[name] for name in (*graph, "branch1_first", "branch2_second", "sinc", "logit")} == {"float32"}
    assert {computed[f"block{k}_first"] for k in range(4)} == {"bfloat16"}
    logits = mixed(clips, training=False)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    # 8 bits through eight convolutions; where two nodes' scores nearly tie, another may be kept
    assert np.abs(_numpy(logits) - _numpy(network(clips, training=False))).max() < 0.1
    # silence and full scale stay finite in training too
    extremes = np.stack([np.zeros((SAMPLES, 1)), np.sign(clips[0])]).astype(np.float32)
    assert np.isfinite(_numpy(mixed(extremes, training=True))).all()
