"""The table becomes batches of waveforms: parallel decode, crop or repeat-pad, augment, prefetch.

    reader = ClipReader(table)
    for waveforms, labels, weights in training_batches(reader, config, epoch=0):
        ...

On the TensorFlow backend the batches are a tf.data.Dataset, elsewhere a plain iterable of NumPy arrays that needs
no TensorFlow; both hold the same numbers. Clips come from clip_reader.py, in the order of sampling.py.

Everything random in an epoch is drawn from (seed, epoch, position in it): the same seed gives the same batches,
whatever the number of threads, and a resumed run goes on as if it had not stopped.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from audio import fit_length
from augmentation import Augmenter, mixup
from backend import keras
from clip_reader import ClipReader
from config import Config, TrainingConfig
from errors import AudioError
from sampling import class_weights, epoch_rows, grouped_epoch, with_copies


def batch_repeats(training: TrainingConfig) -> int:
    """How often each batch comes: sharpness-aware minimisation looks at it twice."""
    return 2 if training.sam else 1


def training_batches(reader: ClipReader, config: Config, epoch: int, subset: np.ndarray | None = None):
    """One epoch of (waveforms (b, samples), labels (b, 1), weights (b,)), float32.

    `subset` names the rows to train on (all by default). Clips are cropped at a random place or repeated to
    length, augmented, fitted to length again, and blended within the batch. With sharpness-aware minimisation
    every batch comes twice in a row.
    """
    training, samples = config.training, config.features.samples
    subset = np.arange(len(reader)) if subset is None else subset
    together = np.zeros(0, bool)
    if training.balance == "groups":
        rows, together = grouped_epoch(reader.table.iloc[subset], training, epoch)
    else:
        rows = epoch_rows(reader.labels[subset], training.balance, training.seed, epoch)
    entries = with_copies(subset[rows], reader.labels, training.bonafide_copies or 0, training.seed, epoch)
    streams = np.arange(len(entries))  # what is random about a clip comes from (seed, epoch, stream)
    streams[: len(together)] -= together  # a copy is cropped and changed as its recording was
    weights = class_weights(reader.labels[entries[:, 0]], training)
    if training.augment:
        chance, only, rounds = training.augment_probability, training.augment_only, training.augment_rounds
        augment = Augmenter(training.augment, chance, only, rounds)
        augment_copy = Augmenter(training.augment, 1.0)  # a copy that is not changed would say nothing new

    def load(position: int) -> tuple[np.ndarray, int, float]:
        row, is_copy = entries[position]
        label = int(reader.labels[row])
        rng = np.random.default_rng([training.seed, epoch, int(streams[position])])
        waveform = reader.read(row)
        waveform = fit_length(waveform, samples, int(rng.integers(max(1, len(waveform) - samples + 1))))
        if training.augment:
            waveform = (augment_copy if is_copy else augment)(waveform, label, rng)
            waveform = np.clip(fit_length(waveform, samples), -1, 1)  # as every file is that is read
        return waveform, label, weights[label]

    def finish(waveforms, labels, clip_weights, positions):
        labels = labels[:, None]  # (b, 1)
        if training.mixup is None:
            return waveforms, labels, clip_weights
        rng = np.random.default_rng([training.seed, epoch, int(positions[0]), 2])
        return mixup(waveforms, labels, clip_weights, rng, training.mixup)

    parts = (((samples,), "float32"), ((1,), "float32"), ((), "float32"))
    return _batches(_Plan(load, finish, parts, len(entries), samples, training.batch_size, batch_repeats(training)))


def evaluation_batches(reader: ClipReader, samples: int, batch_size: int = 16):
    """Every clip once and in order, its first `samples`: (waveforms (b, samples), row numbers (b,))."""

    def load(row: int) -> tuple[np.ndarray, int, float]:
        return fit_length(reader.read(row), samples), int(reader.labels[row]), 1.0

    def finish(waveforms, labels, weights, positions):
        return waveforms, positions

    parts = (((samples,), "float32"), ((), "int64"))
    return _batches(_Plan(load, finish, parts, len(reader), samples, batch_size))


@dataclass(frozen=True)
class _Plan:
    """What the batches are made of, in NumPy alone."""

    load: Callable[[int], tuple[np.ndarray, int, float]]  # position -> waveform, label, weight; raises AudioError
    finish: Callable[..., tuple[np.ndarray, ...]]  # the batch of waveforms, labels, weights, positions -> outputs
    parts: tuple[tuple[tuple[int, ...], str], ...]  # shape (without the batch) and type of each output
    count: int
    samples: int
    batch_size: int
    times: int = 1  # how often each batch comes

    def load_or_mark(self, position) -> tuple[np.ndarray, np.float32, np.float32, np.bool_]:
        """Like `load`, the last value telling whether the clip could be read; the reader notes why not."""
        try:
            waveform, label, weight = self.load(int(position))
        except AudioError:
            return np.zeros(self.samples, np.float32), np.float32(0), np.float32(0), np.bool_(False)
        return waveform.astype(np.float32), np.float32(label), np.float32(weight), np.bool_(True)

    def finish_typed(self, *batch) -> list[np.ndarray]:
        return [np.asarray(out, kind) for out, (_, kind) in zip(self.finish(*batch), self.parts, strict=True)]


def _batches(plan: _Plan):
    """Positions 0..count-1 decoded in parallel and batched; a clip that fails is dropped."""
    return _tensorflow_batches(plan) if keras.backend.backend() == "tensorflow" else _PlainBatches(plan)


def _tensorflow_batches(plan: _Plan):
    import tensorflow as tf

    def decode(position):
        outputs = (tf.float32, tf.float32, tf.float32, tf.bool)
        waveform, label, weight, good = tf.numpy_function(plan.load_or_mark, [position], outputs, stateful=False)
        waveform.set_shape((plan.samples,))
        for scalar in (label, weight, good):
            scalar.set_shape(())
        return waveform, label, weight, position, good

    def finish(*batch):
        kinds = [kind for _, kind in plan.parts]
        outputs = tf.numpy_function(plan.finish_typed, batch, kinds, stateful=False)
        for output, (shape, _) in zip(outputs, plan.parts, strict=True):
            output.set_shape((None, *shape))
        return tuple(outputs)

    batches = (
        tf.data.Dataset.range(plan.count)
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .filter(lambda waveform, label, weight, position, good: good)
        .map(lambda waveform, label, weight, position, good: (waveform, label, weight, position))
        .batch(plan.batch_size)
        .map(finish)
    )
    if plan.times > 1:
        batches = batches.flat_map(lambda *batch: tf.data.Dataset.from_tensors(batch).repeat(plan.times))
    return batches.prefetch(tf.data.AUTOTUNE)


class _PlainBatches:
    """The same batches as NumPy arrays: decoded by threads, a few batches ahead."""

    def __init__(self, plan: _Plan):
        self.plan = plan

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        plan = self.plan
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            readable = self._readable(pool)
            while clips := list(islice(readable, plan.batch_size)):
                outputs = tuple(plan.finish_typed(*map(np.stack, zip(*clips, strict=True))))
                for _ in range(plan.times):
                    yield outputs

    def _readable(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Any, ...]]:
        """(waveform, label, weight, position) of every clip that can be read, in order."""
        positions = iter(range(self.plan.count))
        ahead = deque((p, pool.submit(self.plan.load_or_mark, p)) for p in islice(positions, 4 * self.plan.batch_size))
        while ahead:
            position, future = ahead.popleft()
            ahead.extend((p, pool.submit(self.plan.load_or_mark, p)) for p in islice(positions, 1))
            waveform, label, weight, good = future.result()
            if good:
                yield waveform, label, weight, np.int64(position)
