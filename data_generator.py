"""The table becomes batches of waveforms: parallel decode, crop or repeat-pad, balance, cache, prefetch.

    reader = ClipReader(table)
    for waveforms, labels, weights in training_batches(reader, config, epoch=0):   # a tf.data.Dataset
        ...

Everything random in an epoch is drawn from (seed, epoch, position): the same seed gives the same batches,
whatever the number of threads, and a resumed run goes on as if it had not stopped.
A clip that cannot be decoded is left out, never replaced, and kept in `reader.failures` with the reason.
"""

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import soundfile
from tqdm import tqdm

from audio import fit_length, load_audio
from config import BONAFIDE, CHOICES, SAMPLE_RATE, SPOOF, Config, TrainingConfig
from errors import AudioError, UserError

PCM_SCALE = 32_768  # int16 in the cache: exact for 16-bit files at 16 kHz

# (waveform, label, rng) -> waveform of any length; see `training_batches`
Augment = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


class ClipReader:
    """Random access to the clips of a table, decoded once when a cache is wanted."""

    def __init__(self, table: pd.DataFrame, cache: str = "none", cache_folder: Path = Path("cache")):
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
            pcm = np.clip(np.rint(self._decode(row) * PCM_SCALE), -PCM_SCALE, PCM_SCALE - 1).astype(np.int16)
            self._cache.put(row, pcm)
        return pcm.astype(np.float32) / PCM_SCALE

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
    """Row numbers of one epoch in shuffled order.

    With balance "sampling" half the epoch is bona fide: of a class with too few rows some come again, of
    the other a different part is drawn each epoch. The epoch stays as long as the table.
    """
    rng = np.random.default_rng([seed, epoch])
    if balance != "sampling":
        return rng.permutation(len(labels))
    wanted = {BONAFIDE: len(labels) // 2, SPOOF: len(labels) - len(labels) // 2}
    parts = []
    for label, count in wanted.items():
        rows = np.flatnonzero(labels == label)
        rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
        parts.append(np.concatenate(rounds)[:count])
    return rng.permutation(np.concatenate(parts))


def class_weights(labels: np.ndarray, training: TrainingConfig) -> tuple[float, float]:
    """Loss weight of a bona fide and of a spoofed clip."""
    if training.balance != "weights":
        return 1.0, 1.0
    if training.bonafide_weight is not None:
        return training.bonafide_weight, 1.0
    counts = np.bincount(labels, minlength=2)
    return tuple(float(w) for w in len(labels) / (2 * counts))


# ---------------------------------------------------------------- tf.data


def training_batches(
    reader: ClipReader,
    config: Config,
    epoch: int,
    subset: np.ndarray | None = None,
    augment: Augment | None = None,
):
    """One epoch of (waveforms (b, samples), labels (b, 1), weights (b,)), float32.

    `subset` names the rows to train on (all by default). Clips are cropped at a random place or repeated to
    length; `augment` sees the crop and may change its length, after which it is fitted again.
    """
    training, samples = config.training, config.features.samples
    subset = np.arange(len(reader)) if subset is None else subset
    rows = subset[epoch_rows(reader.labels[subset], training.balance, training.seed, epoch)]
    weights = class_weights(reader.labels[subset], training)

    def load(position: int) -> tuple[np.ndarray, int, float]:
        row = rows[position]
        label = int(reader.labels[row])
        rng = np.random.default_rng([training.seed, epoch, position])
        waveform = reader.read(row)
        waveform = fit_length(waveform, samples, int(rng.integers(max(1, len(waveform) - samples + 1))))
        if augment is not None:
            waveform = fit_length(augment(waveform, label, rng), samples)
        return waveform, label, weights[label]

    return _batches(load, len(rows), samples, training.batch_size).map(
        lambda waveform, label, weight, _: (waveform, label[:, None], weight)
    )


def evaluation_batches(reader: ClipReader, samples: int, batch_size: int = 32):
    """Every clip once and in order, its first `samples`: (waveforms (b, samples), row numbers (b,))."""

    def load(row: int) -> tuple[np.ndarray, int, float]:
        return fit_length(reader.read(row), samples), int(reader.labels[row]), 1.0

    batches = _batches(load, len(reader), samples, batch_size)
    return batches.map(lambda waveform, label, weight, row: (waveform, row))


def _batches(load: Callable[[int], tuple[np.ndarray, int, float]], count: int, samples: int, batch_size: int):
    """tf.data over positions 0..count-1, decoded in parallel; a clip that fails is dropped."""
    import tensorflow as tf

    def load_or_mark(position):
        try:
            waveform, label, weight = load(int(position))
        except AudioError:  # noted by the reader
            return np.zeros(samples, np.float32), np.float32(0), np.float32(0), np.bool_(False)
        return waveform.astype(np.float32), np.float32(label), np.float32(weight), np.bool_(True)

    def decode(position):
        outputs = (tf.float32, tf.float32, tf.float32, tf.bool)
        waveform, label, weight, good = tf.numpy_function(load_or_mark, [position], outputs, stateful=False)
        waveform.set_shape((samples,))
        for scalar in (label, weight, good):
            scalar.set_shape(())
        return waveform, label, weight, position, good

    return (
        tf.data.Dataset.range(count)
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .filter(lambda waveform, label, weight, position, good: good)
        .map(lambda waveform, label, weight, position, good: (waveform, label, weight, position))
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )
