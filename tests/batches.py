"""Batches of waveforms, compared."""

from collections.abc import Iterable

import numpy as np


def arrays(batches: Iterable) -> list[tuple[np.ndarray, ...]]:
    return [tuple(np.asarray(part) for part in batch) for batch in batches]


def stacked(batches: Iterable) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(parts) for parts in zip(*arrays(batches), strict=True))


def equal(first: Iterable, second: Iterable) -> bool:
    first, second = arrays(first), arrays(second)
    same = [len(a) == len(b) and all(map(np.array_equal, a, b)) for a, b in zip(first, second, strict=False)]
    return len(first) == len(second) and all(same)
