"""Sharpness-aware Adam does, in two steps, what the paper does in one."""

import numpy as np
import pytest

from backend import keras
from optimizers import SharpnessAwareAdam, make_optimizer

CURVATURE = np.array([[3.0, 1.0], [1.0, 2.0]], np.float32)
START = np.array([1.0, -2.0], np.float32)


def weight() -> keras.Variable:
    return keras.Variable(START)


def values(variable: keras.Variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable.value)


def step(optimizer: keras.optimizers.Optimizer, gradient: np.ndarray) -> None:
    optimizer.apply([keras.ops.convert_to_tensor(gradient)])


@pytest.mark.parametrize("arguments", [{}, {"global_clipnorm": 0.5}, {"weight_decay": 0.1}])
def test_pairs_of_steps_are_adam_with_the_gradient_uphill(arguments: dict) -> None:
    ours, plain = weight(), weight()
    aware, adam = (make_optimizer(sam, learning_rate=0.1, **arguments) for sam in (0.05, None))
    aware.build([ours])
    adam.build([plain])
    for _ in range(5):
        step(aware, CURVATURE @ values(ours))
        step(aware, CURVATURE @ values(ours))
        gradient = CURVATURE @ values(plain)
        uphill = values(plain) + 0.05 * gradient / np.linalg.norm(gradient)
        step(adam, CURVATURE @ uphill)
        np.testing.assert_allclose(values(ours), values(plain), rtol=2e-3 if "weight_decay" in arguments else 1e-5)


def test_the_first_step_of_a_pair_climbs_by_the_radius_and_the_second_takes_it_back() -> None:
    variable, optimizer = weight(), SharpnessAwareAdam(0.3, learning_rate=1e-9)
    optimizer.build([variable])
    step(optimizer, np.array([3.0, 4.0], np.float32))
    np.testing.assert_allclose(values(variable) - START, [0.18, 0.24], atol=1e-6)
    step(optimizer, np.array([-1.0, 2.0], np.float32))
    np.testing.assert_allclose(values(variable), START, atol=1e-6)


def test_the_radius_survives_its_config() -> None:
    optimizer = SharpnessAwareAdam(0.3, learning_rate=0.01, clipnorm=1.0)
    twin = SharpnessAwareAdam.from_config(optimizer.get_config())
    assert (twin.radius, twin.clipnorm) == (0.3, 1.0)
    assert float(twin.learning_rate) == pytest.approx(0.01)


def test_without_a_radius_it_is_keras_own_adam() -> None:
    assert type(make_optimizer(None, learning_rate=0.1)) is keras.optimizers.Adam
