"""Losses, masks, mixup, precision, columns, averaged weights: each learns, and what is saved is what was measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_training import TINY, tiny_config

from backend import keras
from checkpoint import Checkpoint, read_progress
from clip_reader import ClipReader
from config import Config, FeatureConfig
from data_generator import training_batches
from model import load_model, save_model, spoof_logits
from training import compile_model, dev_figures, renew_batch_statistics, train

pytestmark = pytest.mark.usefixtures("tiny_in_the_list")


INGREDIENTS = (
    {"loss": "focal"},
    {"loss": "oc_softmax"},
    {"loss": "p2sgrad"},
    {"sam": 0.02, "weight_decay": 1e-3},
    {"spec_augment": 1, "mask_high": (0.8, 0.9), "augment": ("noise",), "mixup": 0.3},
)


@pytest.mark.parametrize("settings", INGREDIENTS, ids=lambda settings: next(iter(settings)))
def test_every_ingredient_learns_and_the_saved_model_is_the_one_on_dev(tables, new_run, settings):
    run = new_run("ingredient")
    settings = {"epochs": (8 if "mixup" in settings else 3,), "deterministic": False, **settings}
    config = tiny_config(learning_rate=(0.02,), schedule="constant", **settings)
    progress = train(config, tables["train"], tables["dev"], run)
    assert progress.best["dev_eer"] < 0.3
    assert all(0 <= row["accuracy"] <= 1 and np.isfinite(row["loss"]) for row in progress.history)
    model = load_model(run / "best.keras")
    assert model.layers[-1].name == "spoof_logit" and model.output_shape == (None, 1)
    assert dev_figures(model, ClipReader(tables["dev"]))["dev_eer"] == pytest.approx(progress.best["dev_eer"], abs=1e-6)


def test_masks_hide_in_training_only(tables):
    """A model with masks predicts like the same weights without them."""
    plain, masked = (compile_model(tiny_config(spec_augment=count))[0] for count in (0, 3))
    assert [layer.name for layer in masked.layers].count("masks") == 1
    masked.set_weights(plain.get_weights() + masked.get_weights()[len(plain.get_weights()) :])
    waveforms = np.random.default_rng(0).normal(0, 0.1, (3, TINY.samples)).astype(np.float32)
    np.testing.assert_allclose(spoof_logits(masked, waveforms), spoof_logits(plain, waveforms), atol=1e-6)


def test_masks_survive_both_kinds_of_files(tables, tmp_path):
    model, _ = compile_model(tiny_config(spec_augment=1, mask_high=(0.8, 0.9)))
    waveforms = np.random.default_rng(0).normal(0, 0.1, (3, TINY.samples)).astype(np.float32)
    for file in (tmp_path / "masked.keras", tmp_path / "masked.h5"):
        save_model(model, file)
        np.testing.assert_array_equal(spoof_logits(load_model(file), waveforms), spoof_logits(model, waveforms))


def test_each_column_of_a_network_learns_by_its_own_loss():
    config = Config(
        model="small_resnet",
        model_args={"width": 0.2, "sees": "fine,patches"},
        features=FeatureConfig("log_stft", 16_000, window=512),
        training=tiny_config().training,
    )
    model, trainer = compile_model(config)
    assert model.output_shape == (None, 1) and trainer.output_shape == (None, 2)
    rng = np.random.default_rng(0)
    waveforms, labels = rng.normal(0, 0.1, (4, 16_000)).astype(np.float32), np.array([[0], [1], [0], [1]], np.float32)
    logits = trainer.predict_on_batch(waveforms)
    assert trainer.test_on_batch(waveforms, labels)[0] == pytest.approx(
        np.mean([np.logaddexp(0, -(2 * labels - 1) * logits[:, [column]]) for column in (0, 1)]), rel=1e-4
    )
    np.testing.assert_allclose(model.predict_on_batch(waveforms), logits.mean(axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("precision", ["mixed_bfloat16"])
def test_mixed_precision_trains_with_a_float32_logit(tables, new_run, precision):
    try:
        run = new_run("mixed")
        progress = train(tiny_config(epochs=(1,), precision=precision), tables["train"], tables["dev"], run)
        assert np.isfinite(progress.history[0]["loss"])
        model = load_model(run)
        assert model.output.dtype == "float32"
        assert model.get_layer("tiny").layers[1].compute_dtype == "bfloat16"
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_a_short_run_averages_its_last_two_epochs(tables, new_run, capsys):
    assert train(tiny_config(epochs=(3,), swa=0.1), tables["train"], tables["dev"], new_run("short")).averaged == 2
    assert "averaged weights: dev loss" in capsys.readouterr().out
    train(tiny_config(epochs=(1,), swa=0.5), tables["train"], tables["dev"], new_run("single"))
    assert "weight averaging needs two epochs" in capsys.readouterr().out


def test_the_last_epoch_or_the_average_is_kept_where_dev_must_not_choose(tables, new_run):
    config, run = tiny_config(epochs=(4,), select="last", swa=0.5, patience=1), new_run("last")
    paused = train(config, tables["train"], tables["dev"], run, stop_after=3)
    assert paused.best["epoch"] == paused.epoch == 3
    ranks = [(row["dev_eer"], row["dev_loss"]) for row in paused.history]
    assert min(ranks) != ranks[-1], "the last epoch is the best too: nothing is shown"
    assert train(config, tables["train"], tables["dev"], run).best["epoch"] == "average of 2"


def test_weights_are_averaged_over_the_last_epochs_and_compete_on_dev(tables, new_run, capsys):
    """The average is that of the epochs' weights, it goes on after a pause, and it is used only if it is better."""
    kept = []

    class Watching(Checkpoint):
        def add_to_average(self, progress):
            super().add_to_average(progress)
            kept.append([np.array(v) for v in self.model.trainable_variables])
            expected = np.mean([weights[0] for weights in kept], axis=0)
            np.testing.assert_allclose(self.average[0], expected, rtol=1e-5, atol=1e-7)

    config, run = tiny_config(epochs=(6,), swa=0.5), new_run("averaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.Checkpoint", Watching)
        train(config, tables["train"], tables["dev"], run, stop_after=5)
        progress = train(config, tables["train"], tables["dev"], run)
    assert progress.averaged == len(kept) == 3
    output = capsys.readouterr().out
    assert "averaged weights: dev loss" in output
    best_epoch = min((row["dev_eer"], row["dev_loss"]) for row in progress.history)
    used = "used" in output.split("averaged weights")[1].splitlines()[0]
    assert used == ((progress.best["dev_eer"], progress.best["dev_loss"]) < best_epoch)
    figures = dev_figures(load_model(run / "best.keras"), ClipReader(tables["dev"]))
    assert figures["dev_loss"] == pytest.approx(progress.best["dev_loss"], abs=1e-4)


def test_averaged_weights_get_batch_statistics_of_their_own(tables):
    model, _ = compile_model(tiny_config())
    norm = model.get_layer("tiny").layers[2]
    before = [np.array(v) for v in model.trainable_variables]
    batches = training_batches(ClipReader(tables["train"]), tiny_config(), 0)
    renew_batch_statistics(model, batches)
    first = np.array(norm.moving_mean)
    for _ in range(8):
        renew_batch_statistics(model, batches)
    settled = np.array(norm.moving_mean)
    renew_batch_statistics(model, batches)
    assert np.abs(first).max() > 0
    np.testing.assert_allclose(np.array(norm.moving_mean), settled, rtol=0.05, atol=1e-3)  # the data's own mean
    for x, y in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(x, np.array(y))


REPOSITORY = Path(__file__).resolve().parents[1]


WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # importing it fails
import json
from pathlib import Path
import pandas as pd
from config import read_config
import model, tiny_training
model.MODELS["tiny"] = model.ModelSpec(tiny_training.tiny_network, "log_stft", "for tests")
from training import train
folder = Path(sys.argv[1])
tables = [pd.read_pickle(folder / f"{name}.pickle") for name in ("train", "dev")]
progress = train(read_config(folder / "config.json"), *tables, folder)
print(json.dumps(progress.history))
"""


@pytest.mark.slow
def test_jax_trains_without_tensorflow(tables, new_run):
    run, teacher = new_run("jax"), new_run("teacher")
    train(tiny_config(epochs=(2,)), tables["train"], tables["dev"], teacher)
    tiny_config().write(teacher / "config.json")
    settings = {
        "teachers": (str(teacher),),
        "sam": 0.02,
        "mixup": 0.2,
        "loss": "p2sgrad",
        "swa": 0.5,
        "spec_augment": 1,
        "deterministic": False,
    }
    tiny_config(epochs=(4,), **settings).write(run / "config.json")
    for name, table in tables.items():
        table.to_pickle(run / f"{name}.pickle")
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}",
    }
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(run)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    history = json.loads(done.stdout.splitlines()[-1])
    assert len(history) == 4 and history[-1]["loss"] < history[0]["loss"]
    assert "averaged weights: dev loss" in done.stdout
    # and what JAX has trained is read here
    figures = dev_figures(load_model(run / "best.keras"), ClipReader(tables["dev"]))
    assert figures["dev_eer"] == pytest.approx(read_progress(run).best["dev_eer"], abs=0.13)
