"""The clips of a table as waveforms, decoded once: into memory, or into a file that later runs read again.

    reader = ClipReader(table, cache="auto")
    waveform = reader.read(0)

A clip that cannot be decoded is left out, never replaced, and kept in `reader.failures` with the reason.
"""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import soundfile
from tqdm import tqdm

from audio import load_audio, pcm16
from config import CHOICES, SAMPLE_RATE
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
