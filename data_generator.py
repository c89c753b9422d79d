"""The table becomes batches of waveforms: parallel decode, crop or repeat-pad, balance, cache, prefetch.

    reader = ClipReader(table)
    for waveforms, labels, weights in training_batches(reader, config, epoch=0):
        ...

On the TensorFlow backend the batches are a tf.data.Dataset, elsewhere a plain iterable of NumPy arrays that needs
no TensorFlow; both hold the same numbers.

Everything random in an epoch is drawn from (seed, epoch, position in it): the same seed gives the same batches,
whatever the number of threads, and a resumed run goes on as if it had not stopped.
A clip that cannot be decoded is left out, never replaced, and kept in `reader.failures` with the reason.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import soundfile
from tqdm import tqdm

from audio import fit_length, load_audio, pcm16
from augmentation import Augmenter, mixup
from backend import keras
from config import BONAFIDE, CHOICES, SAMPLE_RATE, SPOOF, Config, TrainingConfig
from errors import AudioError, UserError

PCM_SCALE = 32_768  # int16 in the cache: exact for 16-bit files at 16 kHz


class ClipReader:
    """Random access to the clips of a table, decoded once when a cache is wanted."""

    def __init__(self, table: pd.DataFrame, cache: str = "none", cache_folder: Path = Path("cache")):
        self.table = table
        self.paths = table["path"].tolist()
        self.labels = table["label"].to_numpy(np.int64)
        self.failures: dict[str, str] = {}  # path -> reason
        self._told: set[str] = set()
        self._cache = _open_cache(self.paths, cache, cache_folder)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> np.ndarray:
        """The whole clip as float32 at 16 kHz; raises AudioError."""
        if self._cache is None:
            return self._decode(row)
        pcm = self._cache.get(row)
        if pcm is None:
            pcm = pcm16(self._decode(row))
            self._cache.put(row, pcm)
        return pcm.astype(np.float32) / PCM_SCALE

    def read_or_none(self, row: int) -> np.ndarray | None:
        """The whole clip, or None where it cannot be read: `failures` then says why."""
        try:
            return self.read(row)
        except AudioError:
            return None

    def new_failures(self) -> list[str]:
        """The reasons of failures that this has not returned before."""
        fresh = [path for path in list(self.failures) if path not in self._told]
        self._told.update(fresh)
        return [self.failures[path] for path in fresh]

    def _decode(self, row: int) -> np.ndarray:
        try:
            return load_audio(self.paths[row])
        except AudioError as error:
            self.failures[self.paths[row]] = str(error)
            raise


class _MemoryCache:
    def __init__(self, count: int):
        self._clips: list[np.ndarray | None] = [None] * count

    def get(self, row: int) -> np.ndarray | None:
        return self._clips[row]

    def put(self, row: int, pcm: np.ndarray) -> None:
        self._clips[row] = pcm


class _DiskCache:
    """One memory-mapped file of all clips; a later run over the same files finds them decoded."""

    def __init__(self, file: Path, room: np.ndarray):
        self._room, self._starts = room, np.cumsum(room) - room
        lengths = file.with_suffix(".lengths")  # 0: not decoded yet
        expected = {file: 2 * int(room.sum()), lengths: 8 * len(room)}  # bytes
        if any(not part.exists() or part.stat().st_size != size for part, size in expected.items()):
            for part in expected:
                part.unlink(missing_ok=True)  # one without the other would give silence for clips
        mode = "r+" if file.exists() else "w+"
        self._pcm = np.memmap(file, np.int16, mode, shape=(int(room.sum()),))
        self._lengths = np.memmap(lengths, np.int64, mode, shape=(len(room),))

    def get(self, row: int) -> np.ndarray | None:
        start, length = self._starts[row], self._lengths[row]
        return self._pcm[start : start + length] if length else None

    def put(self, row: int, pcm: np.ndarray) -> None:
        if len(pcm) > self._room[row]:  # a header (mp3) that promised less: decoded anew each time
            return
        self._pcm[self._starts[row] : self._starts[row] + len(pcm)] = pcm
        self._lengths[row] = len(pcm)  # last: a clip counts once it is whole


def _open_cache(paths: list[str], mode: str, folder: Path) -> _MemoryCache | _DiskCache | None:
    if mode not in CHOICES["cache"]:
        raise UserError(f"unknown cache {mode!r}; valid: {', '.join(CHOICES['cache'])}")
    if mode == "none":
        return None
    room = _clip_lengths(paths)
    size = 2 * int(room.sum())  # bytes
    if mode == "auto":
        # a quarter: train and dev decide one after the other, and neither has filled its cache by then
        mode = "memory" if size < 0.25 * psutil.virtual_memory().available else "disk"
    if mode == "memory":
        print(f"cache: {len(paths)} clips, decoded once into {size / 1e9:.2f} GB of memory")
        return _MemoryCache(len(paths))
    file = folder / f"{hashlib.sha256(chr(10).join(map(_stamp, paths)).encode()).hexdigest()[:16]}.pcm"
    folder.mkdir(parents=True, exist_ok=True)
    free = psutil.disk_usage(str(folder)).free
    if not file.exists() and size > free:
        raise UserError(f"{folder}: the cache needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; --cache none")
    state = "reusing" if file.exists() else "writing"
    print(f"cache: {len(paths)} clips, decoded once; {state} {file}, {size / 1e9:.2f} GB of disk")
    return _DiskCache(file, room)


def _stamp(path: str) -> str:
    """What of a file tells that the cache no longer holds it; a missing one is reported when it is read."""
    try:
        stat = Path(path).stat()
    except OSError:
        return f"{path} missing"
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _clip_lengths(paths: list[str]) -> np.ndarray:
    """Upper bound of every clip's samples at 16 kHz, from the files' headers."""

    def length(path: str) -> int:
        try:
            header = soundfile.info(path)
            return -(-header.frames * SAMPLE_RATE // header.samplerate) + 1
        except (soundfile.LibsndfileError, RuntimeError):  # a format that soundfile does not know
            try:
                return len(load_audio(path))
            except AudioError:
                return 0  # reported when its turn to be read comes

    with ThreadPoolExecutor() as pool:
        lengths = pool.map(length, paths)
        return np.fromiter(progress(lengths, "reading headers", len(paths)), np.int64, len(paths))


def progress(items: Iterable, what: str, total: int) -> Iterable:
    """A progress bar on a terminal, for work that turns out to take longer than two seconds."""
    return tqdm(items, what, total, leave=False, delay=2, disable=None)


# ---------------------------------------------------------------- which rows, in which order, at what weight


def epoch_rows(labels: np.ndarray, balance: str, seed: int, epoch: int) -> np.ndarray:
    """Row numbers of one epoch in shuffled order; the epoch is as long as the table.

    With balance "sampling" half the epoch is bona fide: of a class with too few rows some come again, of
    the other a different part is drawn each epoch.
    """
    rng = np.random.default_rng([seed, epoch])
    if balance != "sampling":
        return rng.permutation(len(labels))
    wanted = {BONAFIDE: len(labels) // 2, SPOOF: len(labels) - len(labels) // 2}
    parts = [_drawn_evenly(np.flatnonzero(labels == label), count, rng) for label, count in wanted.items()]
    return rng.permutation(np.concatenate(parts))


def group_shares(table: pd.DataFrame, extra_share: float) -> np.ndarray:
    """How much of an epoch each row is, so that no large page or attack drowns the others: sums to 1.

    Half is bona fide. Of each class `extra_share` is rows marked `extra`, if it has both kinds. There a group, which
    is a page of recordings or an attack, counts by the square root of its size.
    """
    extra = table["extra"] if "extra" in table else pd.Series(False, table.index)
    group = table["page"].where(table["label"] == BONAFIDE, table["attack"])
    share = table.groupby([table["label"], extra, group])["path"].transform("size") ** -0.5
    share /= share.groupby([table["label"], extra]).transform("sum")
    share *= extra.map({True: extra_share, False: 1 - extra_share})
    share /= share.groupby(table["label"]).transform("sum")  # also where a class has one kind only
    return (share / share.sum()).to_numpy()


def recording_rows(table: pd.DataFrame) -> np.ndarray:
    """For every fake the row of the recording it was made of, by the column `source`; -1 where there is none."""
    recordings = table.reset_index(drop=True)
    recordings = recordings[(recordings["label"] == BONAFIDE) & (recordings["source"] != "-")]
    row_of = {source: row for row, source in recordings["source"].items()}
    fakes = table["source"].map(row_of).where(table["label"] == SPOOF, np.nan)
    return fakes.fillna(-1).to_numpy(np.int64)


def grouped_epoch(table: pd.DataFrame, training: TrainingConfig, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of one epoch as long as the table, drawn by groups, and is-with-the-clip-before.

    `pairs` of the epoch is fakes right behind the recording that they were made of; such fakes then come in no
    other way. The rest is drawn clip by clip.
    """
    rng = np.random.default_rng([training.seed, epoch])
    recordings = recording_rows(table) if training.pairs else np.full(len(table), -1)
    copies, others = np.flatnonzero(recordings >= 0), np.flatnonzero(recordings < 0)
    pairs = round(training.pairs * len(table) / 2)
    if pairs and not len(copies):
        raise UserError("pairs: no fake names a recording of the same table in the column source; leave them out")

    def drawn(rows: np.ndarray, count: int) -> np.ndarray:
        return rng.choice(rows, count, p=group_shares(table.iloc[rows], training.extra_share)) if count else rows[:0]

    second = drawn(copies, pairs)
    units = [(row,) for row in drawn(others, len(table) - 2 * pairs)] + list(
        zip(recordings[second], second, strict=True)
    )
    order = [units[i] for i in rng.permutation(len(units))]
    rows = np.array([row for unit in order for row in unit], np.int64)
    return rows, np.array([place > 0 for unit in order for place in range(len(unit))], bool)


def with_copies(rows: np.ndarray, labels: np.ndarray, copies: float, seed: int, epoch: int) -> np.ndarray:
    """Rows of an epoch and, anywhere among them, extra bona fide ones: (rows, 2) of row number and is-a-copy.

    `copies` is their number for each bona fide row: 1.8767 makes 7,422 clips of 2,580.
    """
    bonafide = rows[labels[rows] == BONAFIDE]
    rng = np.random.default_rng([seed, epoch, 0, 1])  # a stream of its own beside those of the clips
    extra = _drawn_evenly(bonafide, round(copies * len(bonafide)), rng)
    entries = np.stack([np.concatenate([rows, extra]), np.repeat([0, 1], [len(rows), len(extra)])], axis=1)
    return rng.permutation(entries) if len(extra) else entries


def _drawn_evenly(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the rows, none more than once more often than another."""
    rounds = [rng.permutation(rows) for _ in range(-(-count // max(1, len(rows))))]
    return np.concatenate([rows[:0], *rounds])[:count]


def epoch_length(labels: np.ndarray, training: TrainingConfig) -> int:
    """Clips in an epoch over rows of these labels."""
    return len(labels) + round((training.bonafide_copies or 0) * int((labels == BONAFIDE).sum()))


def batch_repeats(training: TrainingConfig) -> int:
    """How often each batch comes: sharpness-aware minimisation looks at it twice."""
    return 2 if training.sam else 1


def class_weights(labels: np.ndarray, training: TrainingConfig) -> tuple[float, float]:
    """Loss weight of a bona fide and of a spoofed clip."""
    if training.balance != "weights":
        return 1.0, 1.0
    if training.bonafide_weight is not None:
        return training.bonafide_weight, 1.0
    counts = np.bincount(labels, minlength=2)
    return tuple(float(w) for w in len(labels) / (2 * counts))


# ---------------------------------------------------------------- batches


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
