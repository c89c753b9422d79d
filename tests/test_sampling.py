"""What an epoch holds: classes, groups, pairs and weights as asked, whatever the table."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import BONAFIDE, SPOOF, TrainingConfig
from errors import UserError
from sampling import class_weights, epoch_rows, group_shares, grouped_epoch


@settings(max_examples=200)
@given(
    minority=st.integers(1, 40),
    majority=st.integers(1, 400),
    swapped=st.booleans(),
    seed=st.integers(0, 1000),
    epoch=st.integers(0, 50),
)
def test_sampling_gives_both_classes_half(minority: int, majority: int, swapped: bool, seed: int, epoch: int) -> None:
    labels = np.array([SPOOF] * majority + [BONAFIDE] * minority)
    labels = SPOOF - labels if swapped else labels
    rows = epoch_rows(labels, "sampling", seed, epoch)
    assert len(rows) == len(labels)
    assert (labels[rows] == BONAFIDE).sum() == len(labels) // 2
    for label in (BONAFIDE, SPOOF):
        times = np.bincount(rows, minlength=len(labels))[labels == label]
        assert times.max() - times.min() <= 1  # a class with too few is used evenly, so every clip is seen
        if len(times) <= len(labels) // 2:
            assert times.min() >= 1


def test_sampling_draws_another_part_of_the_majority_each_epoch() -> None:
    labels = np.array([BONAFIDE] * 10 + [SPOOF] * 90)
    seen = [set(epoch_rows(labels, "sampling", 1, epoch)[:]) for epoch in range(8)]
    assert seen[0] != seen[1]
    assert len(set.union(*seen)) > 95


def test_groups_count_by_the_square_root_of_their_size() -> None:
    sizes = {
        (BONAFIDE, "p", "-"): 16,
        (BONAFIDE, "q", "-"): 4,
        (SPOOF, "p", "A"): 9,
        (SPOOF, "q", "A"): 16,
        (SPOOF, "p", "B"): 1,
    }
    rows = [row for row, size in sizes.items() for _ in range(size)]
    table = pd.DataFrame(rows, columns=["label", "page", "attack"]).assign(path="x")
    shares = pd.Series(group_shares(table, 0.3))
    assert shares.sum() == pytest.approx(1)
    assert shares.groupby(table["page"].where(table["label"] == BONAFIDE, table["attack"])).sum().to_dict() == (
        pytest.approx({"p": 0.5 * 4 / 6, "q": 0.5 * 2 / 6, "A": 0.5 * 5 / 6, "B": 0.5 * 1 / 6})
    )


@settings(max_examples=50)
@given(
    rows=st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from("abc")), min_size=2, max_size=60),
    extra_share=st.sampled_from([0.0, 0.3, 1.0]) | st.floats(0.05, 0.95),
)
def test_groups_give_classes_half_and_extra_clips_their_share(rows, extra_share: float) -> None:
    table = pd.DataFrame(rows, columns=["label", "extra", "page"]).astype({"label": int})
    table = table.assign(attack=table["page"], path="x")
    shares = pd.Series(group_shares(table, extra_share))
    classes = table["label"].nunique()
    for _, part in table.groupby("label"):
        assert shares[part.index].sum() == pytest.approx(1 / classes)
        if part["extra"].nunique() == 2:
            assert shares[part.index[part["extra"]]].sum() == pytest.approx(extra_share / classes)


def _corpus(recordings: int, copies: int, spoken: int) -> pd.DataFrame:
    """Pages of recordings and fakes, and an extra corpus: recordings, copies of each, and speech of nobody."""
    rows = [(BONAFIDE, "p", "-", False, "-")] * 5 + [(SPOOF, "p", "A", False, "-")] * 7
    for number in range(recordings):
        rows.append((BONAFIDE, "q", "-", True, f"r{number}"))
        rows += [(SPOOF, "q", f"V{method}", True, f"r{number}") for method in range(copies)]
    rows += [(SPOOF, "engine", "tts", True, "gone")] * spoken
    table = pd.DataFrame(rows, columns=["label", "page", "attack", "extra", "source"])
    return table.assign(path="x").sample(frac=1, random_state=1)


def test_groups_are_drawn_by_their_shares() -> None:
    table, training = _corpus(3, 2, 4), TrainingConfig(balance="groups", extra_share=0.3)
    rows, together = zip(*(grouped_epoch(table, training, epoch) for epoch in range(300)), strict=True)
    found = np.bincount(np.concatenate(rows), minlength=len(table)) / np.size(rows)
    assert found == pytest.approx(group_shares(table, 0.3), abs=0.02)
    assert not np.any(together)


@settings(max_examples=50)
@given(
    recordings=st.integers(1, 20),
    copies=st.integers(1, 5),
    spoken=st.integers(0, 9),
    pairs=st.floats(0.05, 1) | st.just(1.0),
    epoch=st.integers(0, 99),
)
def test_a_copy_follows_its_recording_and_comes_in_no_other_way(
    recordings: int, copies: int, spoken: int, pairs: float, epoch: int
) -> None:
    table = _corpus(recordings, copies, spoken)
    rows, together = grouped_epoch(table, TrainingConfig(balance="groups", pairs=pairs), epoch)
    drawn = table.iloc[rows]
    assert len(drawn) == len(table)
    assert together.sum() == min(round(pairs * len(table) / 2), len(table) // 2)
    is_copy = drawn["attack"].str.startswith("V").to_numpy()
    assert np.array_equal(together, is_copy)
    first = drawn[np.append(together[1:], False)]
    assert (first["label"] == BONAFIDE).all()
    assert first["source"].tolist() == drawn[together]["source"].tolist()


def test_pairs_want_copies() -> None:
    table = _corpus(0, 0, 3)
    with pytest.raises(UserError, match="pairs: no fake names a recording"):
        grouped_epoch(table, TrainingConfig(balance="groups", pairs=0.5), 0)


@given(labels=st.lists(st.integers(0, 1), min_size=1, max_size=60), seed=st.integers(0, 99), epoch=st.integers(0, 99))
def test_without_sampling_every_row_comes_once(labels: list[int], seed: int, epoch: int) -> None:
    for balance in ("none", "weights"):
        assert sorted(epoch_rows(np.array(labels), balance, seed, epoch)) == list(range(len(labels)))


def test_weights() -> None:
    labels = np.array([BONAFIDE] * 10 + [SPOOF] * 90)
    assert class_weights(labels, TrainingConfig(balance="none")) == (1, 1)
    assert class_weights(labels, TrainingConfig(balance="sampling", bonafide_weight=9.0)) == (1, 1)
    assert class_weights(labels, TrainingConfig(balance="weights", bonafide_weight=5.0)) == (5, 1)
    weights = class_weights(labels, TrainingConfig(balance="weights"))
    assert weights == pytest.approx((5, 100 / 180))
    assert np.mean(np.array(weights)[labels]) == pytest.approx(1)  # the mean loss keeps its scale
