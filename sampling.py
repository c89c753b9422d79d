"""Which clips an epoch holds, in which order and at what weight: classes, pages and attacks, pairs, copies.

    rows = epoch_rows(labels, balance="sampling", seed=1, epoch=0)

Everything is drawn from (seed, epoch): a resumed run goes on as if it had not stopped.
"""

import numpy as np
import pandas as pd

from config import BONAFIDE, SPOOF, TrainingConfig
from errors import UserError


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
    has_both = extra.groupby(table["label"]).transform("nunique") == 2
    share *= extra.map({True: extra_share, False: 1 - extra_share}).where(has_both, 1.0)
    return (share / share.sum()).to_numpy()


def recording_rows(table: pd.DataFrame) -> np.ndarray:
    """For every fake the row of the recording it was made of, by the column `source`; -1 where there is none.

    Refused where no fake has one: there are no pairs to draw.
    """
    recordings = table.reset_index(drop=True)
    recordings = recordings[(recordings["label"] == BONAFIDE) & (recordings["source"] != "-")]
    row_of = {source: row for row, source in recordings["source"].items()}
    fakes = table["source"].map(row_of).where(table["label"] == SPOOF, np.nan)
    if fakes.isna().all():
        raise UserError(
            "pairs: no fake names a recording of the same table in the column source; "
            "give copies with --extra (training_corpus.py makes them), or --pairs 0"
        )
    return fakes.fillna(-1).to_numpy(np.int64)


def grouped_epoch(table: pd.DataFrame, training: TrainingConfig, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of one epoch as long as the table, drawn by groups, and is-with-the-clip-before.

    `pairs` of the epoch is fakes right behind the recording that they were made of; such fakes then come in no
    other way. The rest is drawn clip by clip.
    """
    rng = np.random.default_rng([training.seed, epoch])
    recordings = recording_rows(table) if training.pairs else np.full(len(table), -1)
    copies, others = np.flatnonzero(recordings >= 0), np.flatnonzero(recordings < 0)
    pairs = min(round(training.pairs * len(table) / 2), len(table) // 2)

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


def class_weights(labels: np.ndarray, training: TrainingConfig) -> tuple[float, float]:
    """Loss weight of a bona fide and of a spoofed clip."""
    if training.balance != "weights":
        return 1.0, 1.0
    if training.bonafide_weight is not None:
        return training.bonafide_weight, 1.0
    counts = np.bincount(labels, minlength=2)
    return tuple(float(w) for w in len(labels) / (2 * counts))
