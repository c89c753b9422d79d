"""Multiply-adds are counted: known networks give known numbers."""

import numpy as np
import pytest

from backend import keras
from complexity import multiply_adds
from errors import UserError
from model import resmax

layers, ops = keras.layers, keras.ops


def of(layer, *shape: int) -> int:
    inputs = keras.Input(shape)
    return multiply_adds(keras.Model(inputs, layer(inputs)))


def test_resmax_has_the_published_number() -> None:
    """160,969,344 in its convolutions (0.16 G in the paper), and 640 x 2 in the dense layer."""
    assert multiply_adds(resmax((282, 100, 1), units=2)) == 160_969_344 + 640 * 2


@pytest.mark.parametrize(
    ("layer", "shape", "count"),
    [
        (layers.Dense(7), (5,), 5 * 7),
        (layers.Conv2D(4, (3, 5), padding="same", strides=2), (10, 12, 3), 5 * 6 * 4 * 3 * 5 * 3),
        (layers.DepthwiseConv2D(3, padding="same"), (10, 12, 4), 10 * 12 * 4 * 9),
        (layers.Conv2D(8, 3, groups=4, padding="same"), (6, 6, 4), 6 * 6 * 8 * 9 * 1),
        (layers.Conv1D(6, 9), (100, 2), 92 * 6 * 9 * 2),
        (layers.LSTM(16), (20, 8), 20 * 4 * (8 * 16 + 16 * 16)),
        (layers.GRU(4), (21, 8), 21 * 3 * (8 * 4 + 4 * 4)),
        (layers.Bidirectional(layers.LSTM(3, return_sequences=True)), (5, 2), 2 * 5 * 4 * (2 * 3 + 3 * 3)),
        (layers.Lambda(lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1)))), (6, 11), 6 * 6 * 11),
        (layers.Lambda(lambda x: ops.einsum("bij,bkj->bik", x, x)), (6, 11), 6 * 6 * 11),
        (layers.Activation("relu"), (5,), 0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_layers_by_hand(layer, shape: tuple[int, ...], count: int) -> None:
    assert of(layer, *shape) == count


def test_what_the_output_does_not_need_is_not_counted() -> None:
    def with_waste(x):
        ops.matmul(x, np.ones((5, 1000), np.float32))
        return ops.matmul(x, np.ones((5, 2), np.float32))

    assert of(layers.Lambda(with_waste), 5) == 10


def test_a_gpu_does_not_hide_a_loop_in_one_operation() -> None:
    layer = layers.LSTM(16, use_cudnn=True)
    inputs = keras.Input((20, 8))
    network = keras.Model(inputs, layers.Bidirectional(layer)(inputs))
    for part in network._flatten_layers():
        if isinstance(part, layers.LSTM):
            part.use_cudnn = True  # raises where there is no GPU, unless it is turned off for counting
    assert multiply_adds(network) == 2 * 20 * 4 * (8 * 16 + 16 * 16)


def test_another_backend_is_refused_in_one_line(monkeypatch) -> None:
    network = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="unset KERAS_BACKEND"):
        multiply_adds(network)
