"""The losses are those of the papers, seen through one logit."""

import numpy as np
import pytest

from architectures.layers import TwoClassLogit, logit_layer
from architectures.small_residual import small_resnet
from backend import keras
from config import CHOICES
from errors import UserError
from losses import OC_SCALE, ClassAccuracy, cosine_head, make_loss

RNG = np.random.default_rng(0)
LABELS = np.array([[0.0], [1.0], [1.0], [0.0], [1.0]], np.float32)


def numpy(x) -> np.ndarray:
    return keras.ops.convert_to_numpy(x)


def small_network() -> keras.Model:
    inputs = keras.Input((6,))
    return keras.Model(inputs, logit_layer()(keras.layers.Dense(4)(inputs)), name="small")


def cosines_by_hand(network: keras.Model, x: np.ndarray) -> np.ndarray:
    embedding = numpy(network.layers[1](x)).astype(np.float64)
    kernel = numpy(network.get_layer("cosines").kernel).astype(np.float64)
    lengths = np.linalg.norm(embedding, axis=1)[:, None] * np.linalg.norm(kernel, axis=0)
    return embedding @ kernel / lengths


def test_oc_softmax_is_the_papers() -> None:
    """log(1 + exp(alpha (m_y - cosine) (-1)^y)) with y = 0 bona fide, alpha 20, margins 0.9 and 0.2."""
    network = cosine_head(small_network(), "oc_softmax")
    x = RNG.normal(size=(5, 6)).astype(np.float32)
    cosine = cosines_by_hand(network, x)
    sign = np.where(LABELS == 0, 1.0, -1.0)
    margin = np.where(LABELS == 0, 0.9, 0.2)
    paper = np.log1p(np.exp(20 * (margin - cosine) * sign)).mean()
    logit = numpy(network(x))
    assert float(make_loss("oc_softmax")(LABELS, logit)) == pytest.approx(paper, rel=1e-4)
    # higher = more likely spoof, and 0 half-way between the margins
    np.testing.assert_allclose(logit, OC_SCALE * (0.55 - cosine), atol=1e-4)


def test_p2sgrad_is_the_papers() -> None:
    """Squared distance of the cosines with both class directions from the one-hot label."""
    network = cosine_head(small_network(), "p2sgrad")
    x = RNG.normal(size=(5, 6)).astype(np.float32)
    cosines = cosines_by_hand(network, x)
    one_hot = np.concatenate([1 - LABELS, LABELS], axis=1)
    loss = make_loss("p2sgrad")(LABELS, cosines.astype(np.float32))
    assert float(loss) == pytest.approx(((cosines - one_hot) ** 2).sum(axis=1).mean(), rel=1e-5)
    np.testing.assert_allclose(numpy(network(x)), OC_SCALE * (cosines[:, 1:] - cosines[:, :1]), atol=1e-4)


def test_focal_loss_forgets_what_is_known() -> None:
    """(1 - p)^2 times the cross-entropy."""
    logits = np.array([[-3.0], [0.2], [4.0], [1.0], [-1.0]], np.float32)
    right = 1 / (1 + np.exp(np.where(LABELS == 1, -logits, logits)))
    wanted = (-((1 - right) ** 2) * np.log(right)).mean()
    assert float(make_loss("focal")(LABELS, logits)) == pytest.approx(wanted, rel=1e-4)


def test_bce_on_the_difference_is_softmax_cross_entropy_on_both() -> None:
    layer = TwoClassLogit()
    x = RNG.normal(size=(5, 8)).astype(np.float32)
    logit, both = numpy(layer(x)), numpy(layer.class_logits(x)).astype(np.float64)
    assert logit.shape == layer.compute_output_shape(x.shape) == (5, 1)
    assert layer.count_params() == 18
    softmax = np.exp(both) / np.exp(both).sum(axis=1, keepdims=True)
    wanted = -np.log(softmax[np.arange(5), LABELS[:, 0].astype(int)]).mean()
    assert float(make_loss("bce")(LABELS, logit)) == pytest.approx(wanted, rel=1e-4)
    twin = TwoClassLogit.from_config(layer.get_config())
    assert (twin.name, twin.units) == ("logit", 2)


@pytest.mark.parametrize("name", CHOICES["loss"])
def test_every_loss_is_lower_on_the_right_side_and_between_for_a_blend(name: str) -> None:
    """Lower for the true class, and linear in a blended label but for focal loss, whose factor is not."""
    outputs = np.array([[0.9, -0.4]], np.float32) if name == "p2sgrad" else np.array([[-4.0]], np.float32)
    loss = make_loss(name)
    bonafide, spoof, blend = (float(loss(np.array([[y]], np.float32), outputs)) for y in (0, 1, 0.25))
    assert 0 <= bonafide < spoof
    if name == "p2sgrad":  # squares: a blend of labels is nearer than the blend of distances
        assert bonafide < blend < spoof
    elif name != "focal":
        assert blend == pytest.approx(0.75 * bonafide + 0.25 * spoof, rel=1e-4)
    else:
        assert bonafide < blend < spoof


@pytest.mark.parametrize("name", ["bce", "focal"])
def test_the_loss_of_several_columns_is_the_mean_of_theirs(name: str) -> None:
    loss, logits = make_loss(name), RNG.normal(0, 3, (5, 3)).astype(np.float32)
    alone = [float(loss(LABELS, logits[:, column : column + 1])) for column in range(3)]
    assert float(loss(LABELS, logits)) == pytest.approx(np.mean(alone), rel=1e-5)


def test_a_cosine_loss_refuses_several_columns() -> None:
    with pytest.raises(UserError, match="oc_softmax looks at one embedding, and small_resnet has several columns"):
        cosine_head(small_resnet((40, 64, 1), width=0.2, sees="fine,fine"), "oc_softmax")


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_focal_loss_pulls_back_what_is_most_wrong(label: float) -> None:
    """Where a probability would be rounded to 0 or 1 the loss still rises by 1 a logit."""
    sign = 1 if label == 0 else -1
    loss = make_loss("focal")
    values = [float(loss(np.array([[label]], np.float32), np.array([[sign * z]], np.float32))) for z in (40, 41)]
    assert values[1] - values[0] == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("name", CHOICES["loss"])
def test_sample_weights_count(name: str) -> None:
    outputs = RNG.normal(size=(5, 2 if name == "p2sgrad" else 1)).astype(np.float32)
    loss, chosen = make_loss(name), np.array([0, 0, 1, 0, 0], np.float32)
    alone = float(loss(LABELS[2:3], outputs[2:3]))
    assert float(loss(LABELS, outputs, sample_weight=chosen)) == pytest.approx(alone / 5, rel=1e-4)


def test_accuracy_of_logits_cosines_and_blends() -> None:
    labels = np.array([[0.0], [1.0], [0.3], [0.7]], np.float32)
    metric = ClassAccuracy()
    metric.update_state(labels, np.array([[-1.0], [2.0], [-0.1], [-3.0]], np.float32))
    assert float(metric.result()) == pytest.approx(0.75)
    metric.reset_state()
    metric.update_state(labels, np.array([[-1.0, 1.0], [2.0, 1.0], [-0.1, -1.0], [-3.0, 1.0]], np.float32))
    assert float(metric.result()) == pytest.approx(0.75)  # of both columns' logits
    metric = ClassAccuracy(of_cosines=True)
    metric.update_state(labels, np.array([[0.4, 0.1], [0.2, 0.3], [0.1, 0.2], [0.0, 0.9]], np.float32))
    assert float(metric.result()) == pytest.approx(0.75)
