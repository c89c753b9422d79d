"""Training in stages with selection by dev EER; a run can be stopped at any moment and goes on where it was.

    from training import train
    progress = train(config, train_table, dev_table, run_folder)

After every epoch `last.npz` holds all state (weights, optimizer, dropout seeds, history, the best weights so
far), written under another name first: a kill costs at most the epoch under way. Each epoch's data depend on
(seed, epoch) alone, so in deterministic mode a resumed run equals an uninterrupted one bit for bit.
"""

import json
import math
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from backend import keras
from config import SPOOF, Config, TrainingConfig
from data_generator import Augment, ClipReader, training_batches
from errors import UserError
from inference import score_clips
from metrics import compute_eer
from model import build_model, save_model
from plots import learning_curves
from splits import stratified_sample

SCHEDULES = ("sigmoid", "cosine", "constant")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STAGE_RATE_DROP = 0.1  # a later stage without a rate of its own trains this much slower


@dataclass(frozen=True)
class Stage:
    fraction: float  # share of the training rows, stratified by class and attack
    epochs: int
    learning_rate: float


def plan_stages(training: TrainingConfig) -> list[Stage]:
    """The stages of a run; one value of epochs or learning rate stands for all stages."""
    count = len(training.stages)
    epochs = training.epochs * count if len(training.epochs) == 1 else training.epochs
    rates = training.learning_rate
    if len(rates) == 1:
        rates = tuple(rates[0] * STAGE_RATE_DROP**i for i in range(count))
    if not len(epochs) == len(rates) == count:
        raise UserError(
            f"{count} stages, {len(epochs)} numbers of epochs and {len(rates)} learning rates: "
            "give one value, or one for each stage"
        )
    if not all(0 < f <= 1 for f in training.stages) or min(epochs) < 1 or min(rates) <= 0:
        raise UserError("stages are fractions in (0, 1], epochs at least 1, learning rates above 0")
    return [Stage(*values) for values in zip(training.stages, epochs, rates, strict=True)]


def learning_rate(training: TrainingConfig, stage: Stage, epoch: float) -> float:
    """Rate at `epoch` (counted from the stage's start, a fraction inside an epoch) of a stage."""
    first, last = stage.learning_rate, min(training.final_learning_rate, stage.learning_rate)
    if training.schedule == "constant":
        return first
    if training.schedule == "cosine":
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * epoch / stage.epochs))
    # the ResMax authors' sigmoidal decay, centred in the stage
    return last + (first - last) / (1 + math.exp(-13 * (stage.epochs / 2 - epoch) / stage.epochs))


# ---------------------------------------------------------------- state of a run


@dataclass
class Progress:
    """Where a run stands; everything in it is JSON."""

    stage: int = 0
    stage_epoch: int = 0  # epochs done in this stage
    stale_epochs: int = 0  # since dev EER last improved
    best: dict[str, Any] | None = None  # the best epoch's row of the history
    history: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False

    @property
    def epoch(self) -> int:
        """Epochs done in all stages."""
        return len(self.history)


def read_progress(run: Path) -> Progress:
    """The progress a run folder's checkpoint holds; a new one where there is none."""
    if not (run / "last.npz").exists():
        return Progress()
    with np.load(run / "last.npz") as state:
        return Progress(**json.loads(str(state["progress"])))


class _Checkpoint:
    """All variables of a model in training, in memory and on disk."""

    def __init__(self, model: keras.Model, run: Path):
        self.model, self.file = model, run / "last.npz"
        self.fresh_optimizer = [np.array(v) for v in model.optimizer.variables]
        self.best: list[np.ndarray] | None = None  # weights of the best epoch

    def keep_best(self) -> None:
        self.best = [np.array(v) for v in self.model.variables]

    def load_best(self) -> None:
        _assign(self.model.variables, self.best)

    def start_stage(self) -> None:
        """Go on from the best weights with an optimizer that has no memory."""
        self.load_best()
        _assign(self.model.optimizer.variables, self.fresh_optimizer)

    def _live(self) -> dict[str, list]:
        return {"model": self.model.variables, "optimizer": self.model.optimizer.variables}

    def write(self, progress: Progress) -> None:
        groups = {
            "model": self.model.variables,
            "optimizer": self.model.optimizer.variables,
            "best": self.best,
        }
        arrays = {f"{name}_{i}": np.array(v) for name, group in groups.items() for i, v in enumerate(group)}
        unfinished = self.file.with_name("unfinished_last.npz")
        np.savez(unfinished, progress=json.dumps(asdict(progress)), **arrays)
        unfinished.replace(self.file)

    def read(self) -> None:
        with np.load(self.file) as state:
            for name, variables in (
                ("model", self.model.variables),
                ("optimizer", self.model.optimizer.variables),
            ):
                _assign(variables, [state[f"{name}_{i}"] for i in range(len(variables))])
            self.best = [state[f"best_{i}"] for i in range(len(self.model.variables))]


def _assign(variables: list, values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


# ---------------------------------------------------------------- the run


def train(
    config: Config,
    train_table: pd.DataFrame,
    dev_table: pd.DataFrame,
    run: Path,
    stop_after: int | None = None,
    augment: Augment | None = None,
) -> Progress:
    """Train into the folder `run` (or go on with what lies there) and write its best.keras.

    `stop_after` ends the call once so many epochs are done in all; calling again without it goes on.
    """
    training, stages = config.training, plan_stages(config.training)
    for name, table in (("train", train_table), ("dev", dev_table)):
        if table["label"].nunique() < 2:
            raise UserError(f"the {name} split holds {len(table)} clips and not both classes; choose another --split")
    set_up_keras(training)
    model = compile_model(config)
    checkpoint, progress = _Checkpoint(model, run), read_progress(run)
    if progress.epoch:
        checkpoint.read()
    train_table = train_table.reset_index(drop=True)
    reader = ClipReader(train_table, training.cache)
    dev_reader = ClipReader(dev_table, training.cache)
    while not progress.finished and not (stop_after and progress.epoch >= stop_after):
        stage = stages[progress.stage]
        if progress.stage_epoch == stage.epochs or progress.stale_epochs >= training.patience:
            if progress.stage + 1 == len(stages):
                progress.finished = True
            else:
                checkpoint.start_stage()
                progress.stage, progress.stage_epoch, progress.stale_epochs = progress.stage + 1, 0, 0
            continue
        subset = stratified_sample(train_table, stage.fraction, training.seed).index.to_numpy()
        batches = training_batches(reader, config, progress.epoch, subset, augment)
        if progress.epoch == 0:
            print(throughput(model, batches, training.batch_size))
        _run_epoch(config, stages, progress, model, batches, len(subset), reader, dev_reader)
        row = progress.history[-1]
        if progress.best is None or _rank(row) < _rank(progress.best):
            progress.best, progress.stale_epochs = row, 0
            checkpoint.keep_best()
        else:
            progress.stale_epochs += 1
        progress.stage_epoch += 1
        checkpoint.write(progress)
        write_history(progress, run)
        print(epoch_line(row, progress, stages))
    checkpoint.load_best()
    save_model(model, run / "best.keras")
    return progress


def _rank(row: dict[str, Any]) -> tuple[float, float]:
    """Lower is better: dev EER, and among equal EERs (small dev sets have few values) dev loss."""
    return row["dev_eer"], row["dev_loss"]


def set_up_keras(training: TrainingConfig) -> None:
    """Seeds, precision and determinism, which Keras keeps per process."""
    for value, valid, flag in (
        (training.precision, PRECISIONS, "precision"),
        (training.schedule, SCHEDULES, "schedule"),
        (training.balance, ("none", "weights", "sampling"), "balance"),
    ):
        if value not in valid:
            raise UserError(f"unknown {flag} {value!r}; valid: {', '.join(valid)}")
    keras.utils.set_random_seed(training.seed)
    keras.mixed_precision.set_global_policy(training.precision)
    if training.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def compile_model(config: Config) -> keras.Model:
    """Build the model with Adam, binary cross-entropy on the logit and gradient clipping."""
    model = build_model(config)
    model.compile(
        optimizer=keras.optimizers.Adam(global_clipnorm=config.training.clip_norm),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)],  # a logit above 0 says spoof
        jit_compile="auto" if has_gpu() else False,  # XLA slows the CPU down
    )
    model.optimizer.build(model.trainable_variables)
    return model


def has_gpu() -> bool:
    """Whether the backend computes on a GPU."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if backend == "jax":
        import jax

        return jax.default_backend() == "gpu"
    import torch

    return torch.cuda.is_available()


def _run_epoch(config, stages, progress, model, batches, clips, reader, dev_reader) -> None:
    """One pass over the training rows and one over dev; adds a row to the history."""
    training, stage = config.training, stages[progress.stage]
    steps = math.ceil(clips / training.batch_size)
    bar = _EpochBar(training, stage, progress.stage_epoch, steps)
    started = time.perf_counter()
    failed_before = len(reader.failures)
    with warnings.catch_warnings():
        # the number of batches is not known beforehand, for a bad clip is dropped; Keras takes that for a mistake
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        logs = model.fit(batches, verbose=0, shuffle=False, callbacks=[bar]).history
    seconds = time.perf_counter() - started
    for reason in list(reader.failures.values())[failed_before:]:
        print(f"left out: {reason}")
    loss = float(logs["loss"][-1])
    if not math.isfinite(loss):
        raise UserError(f"epoch {progress.epoch + 1}: the loss is {loss}; try a lower --learning-rate")
    progress.history.append(
        {
            "epoch": progress.epoch + 1,
            "stage": progress.stage + 1,
            "learning_rate": float(model.optimizer.learning_rate.numpy()),
            "loss": loss,
            "accuracy": float(logs["accuracy"][-1]),
            **dev_figures(model, dev_reader),
            "clips_per_second": clips / seconds,
        }
    )


class _EpochBar(keras.callbacks.Callback):
    """Progress bar of one epoch; also sets the learning rate, per step for cosine and per epoch otherwise."""

    def __init__(self, training: TrainingConfig, stage: Stage, stage_epoch: int, steps: int):
        super().__init__()
        self.training, self.stage, self.stage_epoch, self.steps = training, stage, stage_epoch, steps

    def on_epoch_begin(self, epoch, logs=None):
        self._set_rate(self.stage_epoch)
        self.bar = tqdm(total=self.steps, desc="training", unit="batch", leave=False, disable=None)

    def on_train_batch_begin(self, batch, logs=None):
        if self.training.schedule == "cosine":
            self._set_rate(self.stage_epoch + batch / self.steps)

    def on_train_batch_end(self, batch, logs=None):
        self.bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        self.bar.close()

    def _set_rate(self, epoch: float) -> None:
        self.model.optimizer.learning_rate = learning_rate(self.training, self.stage, epoch)


def dev_figures(model: keras.Model, reader: ClipReader) -> dict[str, float]:
    """EER, cross-entropy and accuracy on the clips of `reader`, unweighted."""
    rows, logits = score_clips(model, reader, "dev")
    labels, logits = reader.labels[rows], logits.astype(np.float64)
    signed = np.where(labels == SPOOF, -logits, logits)
    return {
        "dev_loss": float(np.logaddexp(0, signed).mean()),
        "dev_accuracy": float(((logits > 0) == (labels == SPOOF)).mean()),
        "dev_eer": float(compute_eer(-logits, labels)[0]),
    }


# ---------------------------------------------------------------- what the user sees


def throughput(model: keras.Model, batches, batch_size: int, seconds: float = 4.0) -> str:
    """Clips a second of the input alone and of the training step alone, and which one limits.

    The steps run on one batch and are undone: weights, optimizer and seeds are put back.
    """
    variables = [*model.variables, *model.optimizer.variables]
    before = [np.array(v) for v in variables]
    batch, input_rate = _clips_per_second(iter(batches), batch_size, seconds)
    x, y, weight = (np.asarray(part) for part in batch)
    model.train_on_batch(x, y, sample_weight=weight)  # compiles
    steps = (model.train_on_batch(x, y, sample_weight=weight) for _ in range(20))
    _, model_rate = _clips_per_second(steps, len(x), seconds)
    _assign(variables, before)
    model.reset_metrics()
    limit = "the input" if input_rate < model_rate else "the model"
    return f"speed: input {input_rate:,.0f} clips/s, training step {model_rate:,.0f} clips/s: {limit} limits"


def _clips_per_second(items, clips_each: int, seconds: float):
    """Time an iterator for a while; the first item, and the rate without it."""
    first = next(items)
    count, started = 0, time.perf_counter()
    for _ in items:
        count += clips_each
        if time.perf_counter() - started > seconds:
            break
    return first, max(count, 1) / (time.perf_counter() - started)


def epoch_line(row: dict[str, Any], progress: Progress, stages: list[Stage]) -> str:
    """One line for the terminal about the epoch just done."""
    mark = "  best so far" if row is progress.best else ""
    return (
        f"epoch {row['epoch']} (stage {row['stage']} of {len(stages)}, {progress.stage_epoch} of "
        f"{stages[progress.stage].epochs})  loss {row['loss']:.4f}  dev loss {row['dev_loss']:.4f}  "
        f"dev EER {100 * row['dev_eer']:.2f} %  {row['clips_per_second']:.0f} clips/s{mark}"
    )


def write_history(progress: Progress, run: Path) -> None:
    """history.csv, learning_curves.png and the TensorBoard log of a run folder."""
    history = pd.DataFrame(progress.history)
    history.to_csv(run / "history.csv", index=False)
    learning_curves(history, run / "learning_curves.png")
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    row = progress.history[-1]
    writer = tf.summary.create_file_writer(str(run / "tensorboard"))
    with writer.as_default(step=row["epoch"]):
        for name, value in row.items():
            if name not in ("epoch", "stage"):
                tf.summary.scalar(name, value)
    writer.close()
