"""Every network keeps the contract, and the contract notices a network that does not."""

from pathlib import Path

import contract
import numpy as np
import pytest

from architectures.layers import logit_layer
from backend import keras
from model import MODELS, ModelSpec, build_model

layers, ops = keras.layers, keras.ops


@pytest.fixture(scope="module")
def models() -> dict[str, keras.Model]:
    """Every network of MODELS as it starts, but with batch statistics of its own; built when first asked for."""

    class Built(dict):
        def __missing__(self, name: str) -> keras.Model:
            keras.utils.set_random_seed(1)
            model = self.setdefault(name, build_model(contract.small(name)))
            for _ in range(2):
                model(contract.clips()[0], training=True)
            return model

    return Built()


@pytest.mark.parametrize("name", MODELS)
def test_shape(name: str, models: dict) -> None:
    assert contract.shape(models[name]) == []


@pytest.mark.parametrize("name", MODELS)
def test_gradient(name: str, models: dict) -> None:
    assert contract.gradient(models[name]) == []


@pytest.mark.parametrize("name", MODELS)
def test_half_precision(name: str, models: dict) -> None:
    assert contract.half_precision(name, models[name]) == []


def test_saving(models: dict, tmp_path: Path) -> None:
    assert contract.saving({name: models[name] for name in MODELS}, tmp_path) == []


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_export(name: str, models: dict, tmp_path: Path) -> None:
    assert contract.export(models[name], tmp_path) == []


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_learning(name: str, models: dict) -> None:
    assert contract.learning(models[name]) == []


# ---------------------------------------------------------------- a broken entry is found


class Unregistered(layers.Layer):
    """Cannot be rebuilt from its config."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return self.factor * x


class Broken:
    """Networks with one fault each."""

    def __init__(self, fault: str):
        self.fault = fault

    def __call__(self, input_shape) -> keras.Model:
        fault = self.fault
        x = inputs = keras.Input(input_shape)
        x = layers.Conv2D(8, 3, strides=4, activation="relu")(x)
        if fault == "saving":
            x = Unregistered(2.0)(x)
        x = embedding = layers.GlobalAveragePooling2D()(x)
        if fault == "gradient":  # a layer without a way to the output
            x = x + 0 * layers.Dense(8)(x)
        if fault == "learning":
            x = layers.Lambda(ops.stop_gradient)(x)
            x = layers.Lambda(lambda t: 0 * t)(x)
        if fault == "half_precision":  # overflows float16
            x = layers.Lambda(lambda t: ops.log(ops.exp(1e4 + ops.cast(t, t.dtype) * 0)) * 0 + t)(x)
        if fault == "shape":  # the batch decides
            x = x - ops.mean(embedding, axis=0, keepdims=True)
        return keras.Model(inputs, logit_layer()(x), name="broken")


@pytest.mark.parametrize("fault", ["shape", "gradient", "half_precision", "saving", "learning"])
def test_a_broken_network_is_found(fault: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(MODELS, "broken", ModelSpec(Broken(fault), "mel", "for tests"))
    keras.utils.set_random_seed(1)
    model = build_model(contract.small("broken"))
    complaints = {
        "shape": lambda: contract.shape(model),
        "gradient": lambda: contract.gradient(model),
        "half_precision": lambda: contract.half_precision("broken", model),
        "saving": lambda: contract.saving({"broken": model}, tmp_path),
        "learning": lambda: contract.learning(model),
    }[fault]()
    assert complaints, f"nobody noticed: {fault}"


def test_an_export_that_computes_something_else_is_found(models: dict, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(contract, "spoof_logits", lambda model, waveforms: np.full(len(waveforms), 9.0))
    (complaint,) = contract.export(models["resmax"], tmp_path)
    assert complaint.startswith("the exported model is off by")
