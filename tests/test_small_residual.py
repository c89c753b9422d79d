"""What the small residual networks are deaf to, and what they see of time."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from architectures.layers import FineStructure, PatchNormalisation, SharedAndOwnNorm, StatisticsPooling
from architectures.small_residual import convolution_with_relu, joined, small_resmax, small_resnet, tiny_resnet
from backend import keras
from model import parameter_count

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("sight", ["fine", "fine_to_7khz", "envelope"])
@pytest.mark.parametrize("build", [small_resnet, small_resmax])
def test_does_not_hear_a_filter(tmp_path: Path, build: Callable, sight: str) -> None:
    """A filter adds a constant to every frequency of a log spectrum; a louder second half is heard by one alone."""
    keras.utils.set_random_seed(0)
    network = build((40, 64, 1), width=0.5, sees=sight)
    rng = np.random.default_rng(0)
    features = rng.normal(-5, 2, (2, 40, 64, 1)).astype(np.float32)
    filtered = features + rng.normal(0, 3, (1, 1, 64, 1)).astype(np.float32)
    louder = features + (np.arange(40) >= 20).astype(np.float32)[None, :, None, None]
    logits = np.array(network(features))
    np.testing.assert_allclose(network(filtered), logits, atol=1e-4)
    assert (np.abs(network(louder) - logits).max() > 1e-2) == (sight == "envelope")
    network.save(tmp_path / "variant.keras")
    again = keras.models.load_model(tmp_path / "variant.keras")
    np.testing.assert_array_equal(again(features), logits)


def test_fine_structure_is_what_no_smooth_envelope_and_no_level_change() -> None:
    rng = np.random.default_rng(0)
    spectrum = rng.normal(-5, 2, (1, 60, 100, 1)).astype(np.float32)
    fine = np.array(FineStructure()(spectrum))
    np.testing.assert_allclose(fine.mean(axis=1), 0, atol=1e-4)
    assert np.all((fine.std(axis=1) > 0.9) & (fine.std(axis=1) < 1))
    slope = np.linspace(0, 30, 100, dtype=np.float32)[None, None, :, None]  # another one in every frame
    tilted = np.array(FineStructure()(spectrum + slope * rng.normal(0, 1, (1, 60, 1, 1)).astype(np.float32)))
    np.testing.assert_allclose(tilted[:, :, 8:-8], fine[:, :, 8:-8], atol=2e-3)
    np.testing.assert_allclose(FineStructure()(3 * spectrum), fine, atol=0.2)
    assert np.isfinite(FineStructure()(np.full_like(spectrum, -11.5))).all()  # silence
    lines = spectrum + 3 * (np.arange(100) % 8 == 0)[None, None, :, None] * (np.arange(60) % 2)[None, :, None, None]
    assert np.abs(np.array(FineStructure()(lines.astype(np.float32))) - fine).max() > 0.5


def test_what_lies_above_7_khz_is_not_seen() -> None:
    """Nor does a slope there reach what lies below, as it would by a moving average over frequencies."""
    keras.utils.set_random_seed(0)
    shape = (40, 257, 1)
    network, all_of_it = (small_resnet(shape, width=0.3, sees=sight) for sight in ("fine_to_7khz", "fine"))
    rng = np.random.default_rng(0)
    features = rng.normal(-5, 2, (2, *shape)).astype(np.float32)
    changed = features.copy()
    changed[:, :, 225:] = np.minimum(features[:, :, 225:], -8)  # bin 224 is 7 kHz
    np.testing.assert_array_equal(network(changed), network(features))
    assert np.abs(all_of_it(changed) - np.array(all_of_it(features))).max() > 1e-3
    lower = features.copy()
    lower[:, :, 200:225] = np.minimum(features[:, :, 200:225], -8)
    assert np.abs(network(lower) - np.array(network(features))).max() > 1e-3


def test_statistics_are_those_of_time() -> None:
    x = np.random.default_rng(0).normal(2, 3, (2, 50, 7, 4)).astype(np.float32)
    over_time = x.mean(axis=2)  # (b, t, c)
    expected = np.concatenate([over_time.mean(axis=1), over_time.std(axis=1)], axis=-1)
    np.testing.assert_allclose(StatisticsPooling()(x), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("build", [small_resnet, small_resmax])
def test_sizes(build: Callable) -> None:
    assert parameter_count(build((250, 257, 1))) == parameter_count(build((125, 257, 1))) < 1_000_000


def test_the_tiny_one_is_tiny() -> None:
    assert parameter_count(tiny_resnet((250, 257, 1))) < 100_000


def test_patches_are_seen_alike_wherever_they_are_loud() -> None:
    rng = np.random.default_rng(0)
    spectrum = rng.normal(-5, 2, (1, 60, 100, 1)).astype(np.float32)
    patches = np.array(PatchNormalisation()(spectrum))
    np.testing.assert_allclose(patches.mean(axis=1), 0, atol=1e-4)
    assert 0.8 < patches.std() < 1.1
    np.testing.assert_allclose(PatchNormalisation()(4 * spectrum + 7), patches, atol=0.4)  # level and dynamics
    assert np.isfinite(PatchNormalisation()(np.full_like(spectrum, -11.5))).all()  # silence


def test_networks_joined_give_the_mean_of_all_their_columns() -> None:
    keras.utils.set_random_seed(0)
    shape, seen = (40, 64, 1), ("fine,patches", "envelope", "fine_to_7khz")
    features = np.random.default_rng(0).normal(-5, 2, (4, *shape)).astype(np.float32)
    networks = [small_resnet(shape, width=0.3, sees=sight, instance_norm=0.5) for sight in seen]
    for network in networks:  # as after training: no bias is zero, no two columns are alike
        rng = np.random.default_rng(1)
        network.set_weights([w + rng.normal(0, 0.02, w.shape).astype(np.float32) ** 2 for w in network.get_weights()])
    together = small_resnet(shape, width=0.3, sees=",".join(seen), instance_norm=0.5)
    joined(networks, together)
    logits = [np.array(network(features)) for network in networks]
    expected = (2 * logits[0] + logits[1] + logits[2]) / 4  # the first has two columns
    np.testing.assert_allclose(together(features), expected, atol=1e-5)
    assert np.ptp(np.hstack(logits), axis=1).min() > 1e-3  # which differ


def test_each_column_has_a_logit_of_its_own() -> None:
    """The first column's is that of a network of this column alone."""
    keras.utils.set_random_seed(0)
    shape = (40, 64, 1)
    both, alone = small_resnet(shape, width=0.3, sees="fine,patches"), small_resnet(shape, width=0.3)
    features = np.random.default_rng(0).normal(-5, 2, (4, *shape)).astype(np.float32)
    logits = keras.Model(both.input, both.get_layer("column_logits").output)
    np.testing.assert_allclose(both(features), np.mean(logits(features), axis=1, keepdims=True), atol=1e-6)
    joined([alone, small_resnet(shape, width=0.3, sees="patches")], both)
    np.testing.assert_allclose(np.array(logits(features))[:, :1], alone(features), atol=1e-5)


def between_convolutions(norm: Callable, channels: int) -> keras.Model:
    """A network of one norm with something to learn before and behind it."""
    given = keras.Input((10, 9, 1))
    x = norm(keras.layers.Conv2D(channels, 3, name="before")(given))
    return keras.Model(given, keras.layers.Conv2D(1, 3, name="behind")(x))


@pytest.mark.parametrize("own", [0, 3, 6])
def test_shared_and_own_norm_is_batch_and_instance_norm_of_keras(own: int) -> None:
    """Output, what is learned before, within and behind it, and what it remembers: all as Keras' layers have it."""
    shared = 6 - own
    batch = keras.layers.BatchNormalization(momentum=0.9)
    instance = keras.layers.GroupNormalization(groups=max(own, 1))

    def of_keras(x):
        parts = [batch(x[..., :shared])] if shared else []
        parts += [instance(x[..., shared:])] if own else []
        return keras.ops.concatenate(parts, axis=-1)

    keras.utils.set_random_seed(0)
    theirs = between_convolutions(of_keras, 6)
    norm = SharedAndOwnNorm(own)
    ours = between_convolutions(norm, 6)
    for name in ("before", "behind"):
        ours.get_layer(name).set_weights(theirs.get_layer(name).get_weights())
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (4, 10, 9, 1)).astype(np.float32), rng.normal(0, 1, (4, 6, 5, 1)).astype(np.float32)
    for network in (ours, theirs):
        network.compile(keras.optimizers.SGD(0.1), "mse")
    for _ in range(3):
        losses = [network.train_on_batch(x, y) for network in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name in ("before", "behind"):
        for mine, other in zip(ours.get_layer(name).get_weights(), theirs.get_layer(name).get_weights(), strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-4)
    parts = ([batch] if shared else []) + ([instance] if own else [])
    for mine, others in ((norm.gamma, "gamma"), (norm.beta, "beta")):
        together = np.concatenate([np.array(getattr(part, others)) for part in parts])
        assert np.ptp(together) > 1e-3  # it has learned
        np.testing.assert_allclose(mine, together, atol=1e-4)
    if shared:
        np.testing.assert_allclose(norm.moving_mean, batch.moving_mean, atol=1e-4)
        np.testing.assert_allclose(norm.moving_variance, batch.moving_variance, rtol=1e-4)
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-4)


ON_JAX = """
from test_small_residual import *
assert keras.backend.backend() == "jax"
for own in (0, 3, 6):
    test_shared_and_own_norm_is_batch_and_instance_norm_of_keras(own)
"""


@pytest.mark.slow
def test_on_jax_the_norm_is_that_of_keras_too() -> None:
    pytest.importorskip("jax")
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join([str(REPOSITORY), "tests"])}
    subprocess.run([sys.executable, "-c", ON_JAX], cwd=REPOSITORY, env=environment, check=True)


@pytest.mark.parametrize("own", [0, 3, 6])
def test_half_precision_learns_nearly_the_same(own: int) -> None:
    """What a step of one and the same network changes, of each weight, in bfloat16 as in float32."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (16, 10, 9, 1)).astype(np.float32), rng.normal(0, 1, (16, 6, 5, 1)).astype(np.float32)
    steps, moving = [], []
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        try:
            keras.utils.set_random_seed(0)
            network = between_convolutions(SharedAndOwnNorm(own), 6)
        finally:
            keras.config.set_dtype_policy("float32")
        network.compile(keras.optimizers.SGD(0.1), "mse")
        before = [np.array(v) for v in network.trainable_variables]
        network.train_on_batch(x, y)
        steps.append([np.array(v) - b for v, b in zip(network.trainable_variables, before, strict=True)])
        moving.append([np.array(v) for v in network.non_trainable_variables])
    for exact, rounded in zip(*steps, strict=True):
        assert np.abs(rounded - exact).max() < 0.03 * max(np.abs(step).max() for step in steps[0])
    for exact, rounded in zip(*moving, strict=True):
        np.testing.assert_allclose(rounded, exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("own", [0, 2, 4])
def test_an_explanation_gets_the_slope_of_a_trained_norm(own: int) -> None:
    """Outside training the moments of shared channels are fixed, those of a piece's own move with it."""
    keras.utils.set_random_seed(0)
    network = between_convolutions(SharedAndOwnNorm(own), 4)
    rng = np.random.default_rng(1)  # as after training
    network.layers[2].set_weights([rng.uniform(0.5, 2, w.shape) for w in network.layers[2].get_weights()])
    x = np.random.default_rng(0).normal(1, 1, (1, 10, 9, 1)).astype(np.float32)
    learning = keras.Sequential([keras.layers.Dense(1, use_bias=False, kernel_initializer="ones"), network])
    network.trainable = False
    learning.build(x.shape)
    learning.compile(keras.optimizers.SGD(1.0), "mse")
    gain = learning.layers[0].kernel

    def loss(value: float) -> float:
        return float(np.mean(np.array(network(value * x), np.float64) ** 2))

    expected = (loss(1.01) - loss(0.99)) / 0.02
    learning.train_on_batch(x, np.zeros((1, 6, 5, 1), np.float32))
    assert 1 - np.array(gain).item() == pytest.approx(expected, rel=0.02, abs=2e-3)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_instance_norm_is_of_each_piece_alone(tmp_path: Path, share: float) -> None:
    """The share of channels that training gives the same whatever else is in the batch, and that no gain changes."""
    keras.utils.set_random_seed(0)
    pieces = np.random.default_rng(0).normal(0, 2, (4, 20, 16, 3)).astype(np.float32)
    given = keras.Input((20, 16, 3))
    network = keras.Model(given, convolution_with_relu(given, 8, 3, 2, instance_norm=share))
    together = np.array(network(pieces, training=True))
    assert together.shape == (4, 10, 8, 8)
    louder = np.array(network(np.concatenate([3 * pieces[:1], pieces[1:]]), training=True))
    alone = np.array(network(pieces[:1], training=True))
    for other in (alone, louder):
        same = np.abs(other[0] - together[0]).max(axis=(0, 1)) < 1e-2
        np.testing.assert_array_equal(same, np.arange(8) >= 8 * (1 - share))
    network.save(tmp_path / "kept.keras")
    again = keras.models.load_model(tmp_path / "kept.keras")
    np.testing.assert_array_equal(again(pieces), network(pieces))


def test_a_share_of_channels_is_no_more_than_all() -> None:
    with pytest.raises(ValueError, match=r"instance_norm 1.5: a share of channels is 0 to 1"):
        small_resnet((40, 64, 1), instance_norm=1.5)
    with pytest.raises(ValueError, match="own 9: of 8 channels"):
        SharedAndOwnNorm(9).build((None, 4, 4, 8))
