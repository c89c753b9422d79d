"""Training in stages with selection by dev EER; a run can be stopped at any moment and goes on where it was.

    from training import train
    progress = train(config, train_table, dev_table, run_folder)

All state is written after every epoch (checkpoint.py) and each epoch's data depend on (seed, epoch) alone, so in
deterministic mode a resumed run equals an uninterrupted one bit for bit.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from backend import keras
from checkpoint import Checkpoint, Progress, assign, read_progress
from clip_reader import ClipReader
from config import SPOOF, Config, TrainingConfig, check_training
from data_generator import batch_repeats, training_batches
from distillation import pupil_of
from errors import UserError, ctrl_c
from inference import score_clips
from losses import ClassAccuracy, make_loss
from metrics import compute_eer
from model import build_model, ending_at, network_of, save_model
from optimizers import make_optimizer
from plots import learning_curves
from sampling import epoch_length
from schedule import Stage, learning_rate, plan_stages
from splits import clips_key, stratified_sample

# ---------------------------------------------------------------- the run


def train(
    config: Config,
    train_table: pd.DataFrame,
    dev_table: pd.DataFrame,
    run: Path,
    stop_after: int | None = None,
) -> Progress:
    """Train into the folder `run` (or go on with what lies there) and write its best.keras.

    `stop_after` ends the call once so many epochs are done in all; calling again without it goes on.
    """
    training, stages = config.training, plan_stages(config.training)
    for name, table in (("train", train_table), ("dev", dev_table)):
        if table["label"].nunique() < 2:
            raise UserError(f"the {name} split holds {len(table)} clips and not both classes; choose another --split")
    set_up_keras(training)
    model, trainer = compile_model(config)
    checkpoint, progress = Checkpoint(trainer, run), read_progress(run)
    backend, clips = keras.backend.backend(), clips_key({"train": train_table, "dev": dev_table})
    if progress.epoch:
        if progress.clips != clips:
            raise UserError(f"{run}: was begun with other clips than there are now; remove it to begin anew")
        if progress.backend != backend:
            raise UserError(
                f"{run}: was trained on {progress.backend}, this is {backend}; set KERAS_BACKEND, or remove the run"
            )
        checkpoint.read()
        write_history(progress, run)  # it lacks an epoch where the run was killed just after its state was written
    progress.backend, progress.clips, progress.dev = backend, clips, clips_key({"dev": dev_table})
    train_table = train_table.reset_index(drop=True)
    reader = ClipReader(train_table, training.cache)
    dev_reader = ClipReader(dev_table, training.cache)
    with tensorboard_log(run) as log_to_tensorboard:
        while not progress.finished and not (stop_after and progress.epoch >= stop_after):
            started = time.perf_counter()
            stage = stages[progress.stage]
            if progress.stage > 0 and progress.stage_epoch == 0:
                checkpoint.start_stage()
            subset = stratified_sample(train_table, stage.fraction, training.seed).index.to_numpy()
            batches = training_batches(reader, config, progress.epoch, subset)
            if progress.epoch == 0:
                progress.speed = throughput(trainer, batches, training)
                print(speed_line(progress.speed))
            clips = epoch_length(reader.labels[subset], training)
            row = train_epoch(trainer, batches, config, stage, progress, clips)
            row |= {**dev_figures(model, dev_reader), "clips_per_second": row.pop("clips_per_second")}
            row["seconds"] = time.perf_counter() - started  # training, dev and, in the first epoch, what comes before
            for reason in reader.new_failures() + dev_reader.new_failures():
                print(f"left out: {reason}")
            progress.history.append(row)
            progress.stage_epoch += 1
            progress.stale_epochs += 1
            if training.select == "last" or progress.best is None or _rank(row) < _rank(progress.best):
                progress.best, progress.stale_epochs = row, 0
                checkpoint.keep_best()
            line = epoch_line(row, progress, stages)
            if training.swa and stage is stages[-1] and progress.stage_epoch > averaging_starts(stage, training.swa):
                checkpoint.add_to_average(progress)
            if progress.stage_epoch == stage.epochs or progress.stale_epochs >= training.patience:
                progress.finished = progress.stage + 1 == len(stages)
                progress.stage, progress.stage_epoch, progress.stale_epochs = progress.stage + 1, 0, 0
            checkpoint.write(progress)
            write_history(progress, run)
            log_to_tensorboard(row)
            print(line)  # last: what is printed is safe
    if progress.finished and training.swa:
        batches = training_batches(reader, config, progress.epoch)
        use_average(model, checkpoint, progress, batches, dev_reader, always=training.select == "last")
    checkpoint.load_best()
    save_model(model, run / "best.keras")
    return progress


def use_average(
    model: keras.Model,
    checkpoint: Checkpoint,
    progress: Progress,
    batches: Iterable,
    dev_reader: ClipReader,
    always: bool,
) -> None:
    """Let the averaged weights compete with the best epoch's on dev, or take them always."""
    if progress.averaged < 2:
        print(f"weight averaging needs two epochs of the last share, there were {progress.averaged}: not used")
        return
    checkpoint.load_average()
    renew_batch_statistics(model, batches)
    row = {"epoch": f"average of {progress.averaged}", **dev_figures(model, dev_reader)}
    better = _rank(row) < _rank(progress.best)
    verdict = f"better than epoch {progress.best['epoch']}: used" if better else "not better: the best epoch stays"
    verdict = "used" if always else verdict
    print(f"averaged weights: dev loss {row['dev_loss']:.4f}  dev EER {100 * row['dev_eer']:.2f} %, {verdict}")
    if always or better:
        progress.best = row
        checkpoint.keep_best()


def averaging_starts(stage: Stage, share: float) -> float:
    """After how many epochs of a stage its weights enter the average: the last share, two epochs at least."""
    return min(stage.epochs * (1 - share), stage.epochs - 2)


def renew_batch_statistics(model: keras.Model, batches: Iterable, count: int = 100) -> None:
    """Bring the running averages of batch norm to averaged weights: a pass over training batches, no learning."""
    seeds = [(v, np.array(v)) for v in model.non_trainable_variables if "seed" in v.path]
    for waveforms, *_ in islice(batches, count):
        model(np.asarray(waveforms), training=True)
    assign([v for v, _ in seeds], [value for _, value in seeds])


def _rank(row: dict[str, Any]) -> tuple[float, float]:
    """Lower is better: dev EER, and among equal EERs (small dev sets have few values) dev loss."""
    return row["dev_eer"], row["dev_loss"]


def set_up_keras(training: TrainingConfig) -> None:
    """Seeds, precision and determinism, which Keras keeps per process."""
    check_training(training)
    keras.utils.set_random_seed(training.seed)
    keras.mixed_precision.set_global_policy(training.precision)
    if training.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def compile_model(config: Config) -> tuple[keras.Model, keras.Model]:
    """The model, and what `fit` trains: the same weights, ending where the loss looks.

    That is for P2SGrad at two cosines and for a network of several columns at the logit of each.
    """
    training = config.training
    model = trainer = build_model(config)
    of_cosines = training.loss == "p2sgrad"
    watched = "cosines" if of_cosines else "column_logits"
    for layer in network_of(model).layers:
        if layer.name == watched:
            trainer = ending_at(model, layer.output)
    if training.teachers:
        trainer = pupil_of(trainer, config)
    trainer.compile(
        make_optimizer(training.sam, global_clipnorm=training.clip_norm, weight_decay=training.weight_decay),
        make_loss(training.loss),
        metrics=[ClassAccuracy(of_cosines)],
    )
    trainer.optimizer.build(trainer.trainable_variables)
    return model, trainer


def train_epoch(
    trainer: keras.Model, batches: Iterable, config: Config, stage: Stage, progress: Progress, clips: int
) -> dict[str, Any]:
    """One pass over the training batches: the first half of a row of the history."""
    training = config.training
    steps = math.ceil(clips / training.batch_size) * batch_repeats(training)
    bar = _EpochBar(training, stage, progress.stage_epoch, steps)
    started = time.perf_counter()
    # Keras takes plain Python batches as a generator only
    batches = batches if keras.backend.backend() == "tensorflow" else iter(batches)
    with warnings.catch_warnings():
        # the number of batches is not known beforehand, for a bad clip is dropped; Keras takes that for a mistake
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        logs = trainer.fit(batches, verbose=0, shuffle=False, callbacks=[bar]).history
    seconds = time.perf_counter() - started
    loss = float(logs["loss"][-1])
    if not math.isfinite(loss):
        raise UserError(f"epoch {progress.epoch + 1}: the loss is {loss}; try a lower --learning-rate")
    return {
        "epoch": progress.epoch + 1,
        "stage": progress.stage + 1,
        "learning_rate": float(np.asarray(trainer.optimizer.learning_rate)),
        "loss": loss,
        "accuracy": float(logs["accuracy"][-1]),
        "clips_per_second": clips / seconds,
    }


class _EpochBar(keras.callbacks.Callback):
    """Progress bar of one epoch; also sets the learning rate, per step for cosine and per epoch otherwise."""

    def __init__(self, training: TrainingConfig, stage: Stage, stage_epoch: int, steps: int):
        super().__init__()
        self.training, self.stage, self.stage_epoch, self.steps = training, stage, stage_epoch, steps

    def on_epoch_begin(self, epoch, logs=None):
        self._set_rate(self.stage_epoch)
        self.bar = tqdm(total=self.steps, desc="training", unit="batch", leave=False, disable=None)

    def on_train_batch_begin(self, batch, logs=None):
        ctrl_c.check()
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


def throughput(
    model: keras.Model, batches: Iterable, training: TrainingConfig, seconds: float = 4.0
) -> dict[str, float | None]:
    """Clips a second of the input alone (None if one batch is all there is) and of the training step alone.

    The steps run on one batch and are undone: weights, optimizer and seeds are put back.
    """
    variables = [*model.variables, *model.optimizer.variables]
    before = [np.array(v) for v in variables]
    repeats = batch_repeats(training)  # a clip is through once its batch came so often
    batch, input_rate = _clips_per_second(iter(batches), training.batch_size / repeats, seconds)
    x, y, weight = (np.asarray(part) for part in batch)
    model.train_on_batch(x, y, sample_weight=weight)  # compiles
    steps = (model.train_on_batch(x, y, sample_weight=weight) for _ in range(20))
    _, model_rate = _clips_per_second(steps, len(x) / repeats, seconds)
    assign(variables, before)
    model.reset_metrics()
    return {"input": input_rate, "training": model_rate}


def speed_line(speed: dict[str, float | None]) -> str:
    """What `throughput` measured as a line for the terminal, and which part limits."""
    input_rate, model_rate = speed["input"], speed["training"]
    if input_rate is None:
        return f"speed: training step {model_rate:,.0f} clips/s; one batch is too little to measure the input"
    limit = "the input" if input_rate < model_rate else "the model"
    return f"speed: input {input_rate:,.0f} clips/s, training step {model_rate:,.0f} clips/s: {limit} limits"


def _clips_per_second(items: Iterator, clips_each: float, seconds: float) -> tuple[Any, float | None]:
    """Time an iterator for a while; the first item, and the rate of the others (None if there are no others)."""
    first = next(items, None)
    if first is None:
        raise UserError("none of the training clips could be read; `python data_utils.py DIR` checks a dataset")
    count, started = 0, time.perf_counter()
    for _ in items:
        count += clips_each
        if time.perf_counter() - started > seconds:
            break
    return first, count / (time.perf_counter() - started) if count else None


def epoch_line(row: dict[str, Any], progress: Progress, stages: list[Stage]) -> str:
    """One line for the terminal about the epoch just done."""
    mark = "  best so far" if min(progress.history, key=_rank) is row else ""
    return (
        f"epoch {row['epoch']} (stage {row['stage']} of {len(stages)}, {progress.stage_epoch} of "
        f"{stages[progress.stage].epochs})  loss {row['loss']:.4f}  dev loss {row['dev_loss']:.4f}  "
        f"dev EER {100 * row['dev_eer']:.2f} %  {row['clips_per_second']:.0f} clips/s{mark}"
    )


def write_history(progress: Progress, run: Path) -> None:
    """history.csv and learning_curves.png of a run folder."""
    history = pd.DataFrame(progress.history)
    history.to_csv(run / "history.csv", index=False)
    learning_curves(history, run / "learning_curves.png")


@contextmanager
def tensorboard_log(run: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes one row of the history as TensorBoard scalars; TensorFlow alone can write them."""
    if keras.backend.backend() != "tensorflow":
        yield lambda row: None
        return
    import tensorflow as tf

    writer = tf.summary.create_file_writer(str(run / "tensorboard"))

    def write(row: dict[str, Any]) -> None:
        with writer.as_default(step=row["epoch"]):
            for name, value in row.items():
                if name not in ("epoch", "stage"):
                    tf.summary.scalar(name, value)
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
