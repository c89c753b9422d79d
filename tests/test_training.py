"""Training: stages, schedules, selection on dev, exact resume."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from architectures.layers import logit_layer
from backend import keras
from checkpoint import Checkpoint, read_progress
from clip_reader import ClipReader
from config import BONAFIDE, SAMPLE_RATE, SPOOF, Config, FeatureConfig, TrainingConfig
from data_generator import training_batches
from errors import UserError
from model import MODELS, MaxFeatureMap, ModelSpec, load_model, save_model, spoof_logits
from schedule import Stage, learning_rate, plan_stages
from training import compile_model, dev_figures, renew_batch_statistics, speed_line, throughput, train

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = FeatureConfig(samples=8_000, window=128, hop=128)  # (63, 65, 1)


def tiny_network(input_shape) -> keras.Model:
    """Everything that makes resuming hard (batch norm, dropout) in a network that compiles in a second."""
    inputs = keras.Input(input_shape)
    x = MaxFeatureMap(8, 3)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.MaxPooling2D(4)(x))
    x = keras.layers.Dropout(0.3)(keras.layers.Dense(16, activation="relu")(x))
    return keras.Model(inputs, logit_layer()(x), name="tiny")


@pytest.fixture(autouse=True)
def tiny_in_the_list(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", ModelSpec(tiny_network, "log_stft", "for tests"))


def tiny_config(**training) -> Config:
    defaults = {"epochs": (4,), "batch_size": 8, "learning_rate": (0.01,), "deterministic": True, "patience": 99}
    return Config(
        model="tiny", features=TINY, training=TrainingConfig(**{"learning_rate": (0.01,), **defaults, **training})
    )


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, pd.DataFrame]:
    """Noise as bona fide, noise with one strong tone as spoof: a difference that is quickly learned."""
    folder = tmp_path_factory.mktemp("tones")
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


@pytest.fixture
def new_run(tmp_path):
    """Makes run folders."""

    def make(name: str):
        folder = tmp_path / name
        folder.mkdir()
        return folder

    return make


def saved_arrays(run) -> dict[str, np.ndarray]:
    with np.load(run / "last.npz") as state:
        return {name: state[name] for name in state.files if name != "progress"}


def test_two_epochs_and_two_more_equal_four_bit_for_bit(tables, new_run):
    # two stages, so that the restart from the best weights and the new optimizer are resumed across too
    config = tiny_config(stages=(0.5, 1.0), epochs=(2, 2))
    whole, halves = new_run("whole"), new_run("halves")
    train(config, tables["train"], tables["dev"], whole)
    paused = train(config, tables["train"], tables["dev"], halves, stop_after=2)
    assert (paused.epoch, paused.finished) == (2, False)
    resumed = train(config, tables["train"], tables["dev"], halves)
    assert resumed.finished and resumed.epoch == 4
    a, b = saved_arrays(whole), saved_arrays(halves)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    speed = ["clips_per_second", "seconds"]
    histories = [pd.read_csv(run / "history.csv").drop(columns=speed) for run in (whole, halves)]
    pd.testing.assert_frame_equal(*histories)


def test_a_kill_while_the_checkpoint_is_written_loses_one_epoch_at_most(tables, new_run, monkeypatch):
    config, run = tiny_config(epochs=(3,)), new_run("killed")
    train(config, tables["train"], tables["dev"], run, stop_after=1)
    before = (run / "last.npz").read_bytes()

    def die(*arguments, **arrays):
        arguments[0].write(b"half a file")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("checkpoint.np.savez", die)
        train(config, tables["train"], tables["dev"], run)
    assert (run / "last.npz").read_bytes() == before
    assert read_progress(run).epoch == 1
    assert train(config, tables["train"], tables["dev"], run).epoch == 3


def test_training_learns_and_keeps_the_epoch_with_the_best_dev_eer(tables, new_run):
    run = new_run("learns")
    progress = train(tiny_config(epochs=(6,)), tables["train"], tables["dev"], run)
    history = pd.read_csv(run / "history.csv")
    assert len(history) == 6 and history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    ranked = history.sort_values(["dev_eer", "dev_loss"], kind="stable")
    assert progress.best["epoch"] == ranked["epoch"].iloc[0]
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert progress.best["dev_eer"] < 0.2
    figures = dev_figures(load_model(run / "best.keras"), ClipReader(tables["dev"]))
    assert figures["dev_eer"] == pytest.approx(progress.best["dev_eer"], abs=1e-6)
    assert figures["dev_loss"] == pytest.approx(progress.best["dev_loss"], abs=1e-4)
    assert (run / "learning_curves.png").stat().st_size > 1_000
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tables, new_run):
    runs = {name: new_run(name) for name in ("a", "b", "c")}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(tiny_config(epochs=(1,), seed=seed), tables["train"], tables["dev"], runs[name])
    a, b, c = (saved_arrays(run)["model_0"] for run in runs.values())
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-3


def test_a_stage_ends_when_dev_no_longer_improves(tables, new_run):
    # a learning rate that moves nothing measurable: no epoch beats the first by EER, few by loss
    config = tiny_config(epochs=(30,), learning_rate=(1e-12,), final_learning_rate=1e-12, patience=2)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, schedule="constant"))
    progress = train(config, tables["train"], tables["dev"], new_run("stale"))
    assert progress.finished and progress.epoch < 30
    assert progress.best["epoch"] == progress.epoch - 2


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


def test_measuring_the_speed_leaves_no_trace(tables):
    config = tiny_config()
    model, _ = compile_model(config)
    before = [np.array(v) for v in [*model.variables, *model.optimizer.variables]]
    speed = throughput(model, training_batches(ClipReader(tables["train"]), config, 0), config.training, seconds=0.1)
    after = [np.array(v) for v in [*model.variables, *model.optimizer.variables]]
    for x, y in zip(before, after, strict=True):
        np.testing.assert_array_equal(x, y)
    line = speed_line(speed)
    assert "input" in line and "clips/s" in line and line.endswith("limits")
    assert min(speed.values()) > 0


def test_a_damaged_training_clip_is_named_once_and_left_out(tables, new_run, tmp_path, capsys):
    damaged = tables["train"].copy()
    broken = tmp_path / "broken.wav"
    broken.write_text("no audio", encoding="utf-8")
    damaged.loc[0, "path"] = str(broken)
    train(tiny_config(epochs=(2,)), damaged, tables["dev"], new_run("damaged"))
    output = capsys.readouterr().out
    assert output.count("left out") == 1 and f"left out: {broken}" in output


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


def test_one_class_is_refused(tables, new_run):
    spoof = tables["dev"][tables["dev"]["label"] == SPOOF]
    with pytest.raises(UserError, match=r"dev split .* both classes"):
        train(tiny_config(), tables["train"], spoof, new_run("one_class"))


def test_a_run_that_is_done_is_not_called_paused(tables, new_run):
    run = new_run("done")
    assert train(tiny_config(epochs=(2,)), tables["train"], tables["dev"], run, stop_after=2).finished
    assert read_progress(run).finished


def test_no_readable_clip_is_one_line(tables, new_run, tmp_path):
    gone = tables["train"].assign(path=str(tmp_path / "gone.wav"))
    with pytest.raises(UserError, match="none of the training clips could be read"):
        train(tiny_config(cache="none"), gone, tables["dev"], new_run("gone"))


def test_a_damaged_state_is_refused_with_the_way_out(new_run):
    run = new_run("damaged_state")
    (run / "last.npz").write_bytes(b"half a file")
    with pytest.raises(UserError, match="--fresh"):
        read_progress(run)


def test_a_loss_that_is_not_finite_stops_the_run_with_advice(tables, new_run):
    config = tiny_config(learning_rate=(1e30,), final_learning_rate=1e30, clip_norm=None)
    with pytest.raises(UserError, match="--learning-rate"):
        train(config, tables["train"], tables["dev"], new_run("diverges"))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"precision": "float8"}, "mixed_bfloat16"),
        ({"schedule": "linear"}, "cosine"),
        ({"balance": "magic"}, "sampling"),
    ],
)
def test_unknown_settings_list_the_valid_ones(tables, new_run, settings, message):
    with pytest.raises(UserError, match=message):
        train(tiny_config(**settings), tables["train"], tables["dev"], new_run("unknown"))


def test_stages_take_one_value_or_one_each():
    staged = TrainingConfig(stages=(0.4, 1.0), epochs=(5,), learning_rate=(1e-3,))
    assert plan_stages(staged) == [Stage(0.4, 5, 1e-3), Stage(1.0, 5, pytest.approx(1e-4))]
    own = TrainingConfig(stages=(0.4, 1.0), epochs=(5, 2), learning_rate=(1e-3, 3e-4))
    assert plan_stages(own) == [Stage(0.4, 5, 1e-3), Stage(1.0, 2, 3e-4)]
    with pytest.raises(UserError, match="2 stages, 3 numbers of epochs"):
        plan_stages(TrainingConfig(stages=(0.4, 1.0), epochs=(1, 2, 3)))
    with pytest.raises(UserError, match="fractions"):
        plan_stages(TrainingConfig(stages=(0.4, 1.4)))


def test_the_sigmoid_schedule_is_the_resmax_authors():
    training, stage = TrainingConfig(schedule="sigmoid", final_learning_rate=1e-5), Stage(1.0, 70, 1e-3)
    for epoch in (0, 10, 35, 60, 69):
        published = 1 / (1 + np.exp(-13 * (35 - epoch) / 70)) * (1e-3 - 1e-5) + 1e-5
        assert learning_rate(training, stage, epoch) == pytest.approx(published, rel=1e-12)


@pytest.mark.parametrize("schedule", ["sigmoid", "cosine", "constant"])
def test_schedules_fall_from_the_first_rate_to_the_last(schedule):
    training, stage = TrainingConfig(schedule=schedule, final_learning_rate=1e-5), Stage(1.0, 10, 1e-3)
    rates = [learning_rate(training, stage, epoch) for epoch in np.linspace(0, 10, 101)]
    assert rates[0] == pytest.approx(1e-3, rel=0.01)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates))
    assert rates[-1] == pytest.approx(1e-3 if schedule == "constant" else 1e-5, rel=0.16)


def test_the_halving_schedule_halves_every_ten_epochs_down_to_the_last_rate():
    training, stage = TrainingConfig(schedule="halving", final_learning_rate=1e-4), Stage(1.0, 100, 3e-4)
    rates = [learning_rate(training, stage, epoch) for epoch in (0, 9, 10, 19, 20, 90)]
    assert rates == pytest.approx([3e-4, 3e-4, 1.5e-4, 1.5e-4, 1e-4, 1e-4])


def test_the_cosine_rate_moves_within_an_epoch_and_reaches_the_optimizer(tables, new_run):
    run = new_run("cosine")
    config = tiny_config(epochs=(2,), schedule="cosine", final_learning_rate=1e-6, learning_rate=(1e-3,))
    train(config, tables["train"], tables["dev"], run)
    last = pd.read_csv(run / "history.csv")["learning_rate"]
    # the rate noted is where the schedule stands when the epoch ends; set by epoch it would be that of its start
    expected = [1e-6 + (1e-3 - 1e-6) * 0.5 * (1 + np.cos(np.pi * done / 2)) for done in (1, 2)]
    np.testing.assert_allclose(last, expected, rtol=1e-5)


# ---------------------------------------------------------------- ingredients

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


def test_a_run_of_another_backend_is_not_gone_on_with(tables, new_run, monkeypatch):
    run = new_run("backend")
    train(tiny_config(epochs=(2,)), tables["train"], tables["dev"], run, stop_after=1)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="was trained on tensorflow, this is jax"):
        patch.setattr(keras.backend, "backend", lambda: "jax")
        train(tiny_config(epochs=(2,)), tables["train"], tables["dev"], run)


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


WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # importing it fails
import json
from pathlib import Path
import pandas as pd
from config import read_config
import model, test_training
model.MODELS["tiny"] = model.ModelSpec(test_training.tiny_network, "log_stft", "for tests")
from training import train
folder = Path(sys.argv[1])
tables = [pd.read_pickle(folder / f"{name}.pickle") for name in ("train", "dev")]
progress = train(read_config(folder / "config.json"), *tables, folder)
print(json.dumps(progress.history))
"""


def test_jax_trains_without_tensorflow(tables, new_run):
    run = new_run("jax")
    settings = {"sam": 0.02, "mixup": 0.2, "loss": "p2sgrad", "swa": 0.5, "spec_augment": 1, "deterministic": False}
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
