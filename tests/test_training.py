"""Training: the same for a seed, resumed exactly, selected on dev; what breaks is one line."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from tiny_training import saved_arrays, tiny_config

from backend import keras
from checkpoint import read_progress
from clip_reader import ClipReader
from config import SPOOF
from data_generator import training_batches
from errors import UserError
from model import load_model
from plots import learning_curves
from training import compile_model, dev_figures, speed_line, throughput, train

pytestmark = pytest.mark.usefixtures("tiny_in_the_list")


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
    (run / "history.csv").unlink()  # as if killed before it was written
    train(config, tables["train"], tables["dev"], run, stop_after=1)
    assert len(pd.read_csv(run / "history.csv")) == 1
    assert train(config, tables["train"], tables["dev"], run).epoch == 3


def test_training_learns_and_keeps_the_epoch_with_the_best_dev_eer(tables, new_run, monkeypatch):
    monkeypatch.setattr("training.learning_curves", learning_curves)  # in other tests they are not painted
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


def test_a_run_of_other_clips_is_not_gone_on_with(tables, new_run):
    run = new_run("fewer")
    train(tiny_config(epochs=(2,)), tables["train"], tables["dev"], run, stop_after=1)
    with pytest.raises(UserError, match="begun with other clips than there are now"):
        train(tiny_config(epochs=(2,)), tables["train"].iloc[:-1], tables["dev"], run)


def test_a_damaged_state_is_refused_with_the_way_out(new_run):
    run = new_run("damaged_state")
    (run / "last.npz").write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"remove .* to begin anew"):
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


def test_the_cosine_rate_moves_within_an_epoch_and_reaches_the_optimizer(tables, new_run):
    run = new_run("cosine")
    config = tiny_config(epochs=(2,), schedule="cosine", final_learning_rate=1e-6, learning_rate=(1e-3,))
    train(config, tables["train"], tables["dev"], run)
    last = pd.read_csv(run / "history.csv")["learning_rate"]
    # the rate noted is where the schedule stands when the epoch ends; set by epoch it would be that of its start
    expected = [1e-6 + (1e-3 - 1e-6) * 0.5 * (1 + np.cos(np.pi * done / 2)) for done in (1, 2)]
    np.testing.assert_allclose(last, expected, rtol=1e-5)


def test_a_run_of_another_backend_is_not_gone_on_with(tables, new_run, monkeypatch):
    run = new_run("backend")
    train(tiny_config(epochs=(2,)), tables["train"], tables["dev"], run, stop_after=1)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="was trained on tensorflow, this is jax"):
        patch.setattr(keras.backend, "backend", lambda: "jax")
        train(tiny_config(epochs=(2,)), tables["train"], tables["dev"], run)
