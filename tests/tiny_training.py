"""A network that learns in seconds, its configuration, and clips that it learns to tell apart."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from architectures.layers import logit_layer
from backend import keras
from config import BONAFIDE, SAMPLE_RATE, SPOOF, Config, FeatureConfig, TrainingConfig
from model import MODELS, MaxFeatureMap, ModelSpec

TINY = FeatureConfig(samples=8_000, window=128, hop=128)  # (63, 65, 1)


def tiny_network(input_shape) -> keras.Model:
    """Everything that makes resuming hard (batch norm, dropout) in a network that compiles in a second."""
    inputs = keras.Input(input_shape)
    x = MaxFeatureMap(8, 3)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.MaxPooling2D(4)(x))
    x = keras.layers.Dropout(0.3)(keras.layers.Dense(16, activation="relu")(x))
    return keras.Model(inputs, logit_layer()(x), name="tiny")


def list_tiny(patch: pytest.MonkeyPatch) -> None:
    """Let it go by the name `tiny`."""
    patch.setitem(MODELS, "tiny", ModelSpec(tiny_network, "log_stft", "for tests"))


def tiny_config(**training) -> Config:
    defaults = {"epochs": (4,), "batch_size": 8, "learning_rate": (0.01,), "deterministic": True, "patience": 99}
    return Config(model="tiny", features=TINY, training=TrainingConfig(**{**defaults, **training}))


def write_tones(folder: Path) -> dict[str, pd.DataFrame]:
    """Noise as bona fide, noise with one strong tone as spoof: a difference that is quickly learned."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(56):
        label = SPOOF if number % 2 else BONAFIDE
        clip = 0.1 * rng.standard_normal(rng.integers(6_000, 14_000))
        if label == SPOOF:
            clip += 0.1 * np.sin(2 * np.pi * 3_000 / SAMPLE_RATE * np.arange(len(clip)))
        path = folder / f"clip_{number:02}.wav"
        soundfile.write(path, clip, SAMPLE_RATE, subtype="PCM_16")
        attack = "T1" if label == SPOOF else "-"
        rows.append((str(path), label, attack, f"s{number}", "train" if number < 40 else "dev", "tones", path.stem))
    columns = ("path", "label", "attack", "speaker", "split", "dataset", "utterance_id")
    table = pd.DataFrame(rows, columns=columns)
    return {name: part.reset_index(drop=True) for name, part in table.groupby("split")}


def saved_arrays(run: Path) -> dict[str, np.ndarray]:
    """Every variable of the state that a run goes on from."""
    with np.load(run / "last.npz") as state:
        return {name: state[name] for name in state.files if name != "progress"}
