"""Planted shortcuts are found, absent ones are not, and what leaks is told from what carries over."""

import numpy as np
import pandas as pd
import pytest

from config import BONAFIDE, SPOOF
from measurements import MEASUREMENTS
from metrics import compute_eer, error_rates
from shortcuts import (
    _schemes,
    best_eer,
    followed_by,
    joint_tests,
    rank_by_attack,
    rank_measurements,
    sources,
)


def make_table(count: int = 600, seed: int = 0) -> pd.DataFrame:
    """Clips whose measurements know nothing of the class; 3 attacks, 20 speakers, train and eval."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 2
    table = pd.DataFrame({name: rng.normal(size=count) for name in MEASUREMENTS})
    return table.assign(
        label=label,
        attack=np.where(label, np.char.add("A", rng.integers(0, 3, count).astype(str)), "-"),
        speaker=[f"s{n}" for n in rng.integers(0, 20, count)],
        page="-",
        split=np.where(np.arange(count) < count / 2, "train", "eval"),
        sample_rate=16_000.0,
        channels=1.0,
    )


def alone(ranked: pd.DataFrame, split: str = "all") -> pd.DataFrame:
    return ranked[ranked["split"] == split].set_index("measurement")


def test_a_planted_shortcut_is_found_with_its_direction() -> None:
    table = make_table()
    spoof = table["label"] == SPOOF
    table.loc[spoof, "lead_silence"] -= 2 * 0.9346  # two normal classes so far apart: 17.5 % EER
    ranked = alone(rank_measurements(table))
    assert ranked.index[0] == "lead_silence" and ranked["higher_is"].iloc[0] == "bonafide"
    found = ranked.loc["lead_silence"]
    assert found["eer_low"] < 0.175 < found["eer_high"] and found["eer_high"] - found["eer_low"] < 0.12
    assert found["eer"] == pytest.approx(0.175, abs=0.03) and found["auc"] == pytest.approx(0.907, abs=0.03)
    assert found["median_bonafide"] - found["median_spoof"] == pytest.approx(1.87, abs=0.3)
    others = ranked.drop(index="lead_silence")
    assert others["eer"].between(0.42, 0.5).all()
    constant = ranked.loc["sample_rate"]
    assert constant["eer"] == constant["auc"] == 0.5 and np.isnan(constant["eer_low"])


def test_splits_are_ranked_too() -> None:
    table = make_table()
    table.loc[(table["split"] == "eval") & (table["label"] == SPOOF), "rms_db"] += 50
    ranked = rank_measurements(table)
    assert alone(ranked, "eval").loc["rms_db", "eer"] == 0
    assert alone(ranked, "train").loc["rms_db", "eer"] > 0.4
    assert ranked.groupby("measurement")["split"].apply(set).map({"all", "train", "eval"}.__eq__).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_eer_is_that_of_the_better_direction(sign: int) -> None:
    labels = np.repeat([BONAFIDE, SPOOF], 50)
    assert best_eer(sign * -labels.astype(float), labels) == (0.0, sign)
    assert best_eer(np.zeros(100), labels)[0] == 0.5


def test_without_two_classes_there_is_nothing_to_rank() -> None:
    table = make_table().query("label == 1")
    assert rank_measurements(table).empty and joint_tests(table).empty


def test_rare_attacks_have_no_row() -> None:
    table = make_table()
    table.loc[table.index[table["attack"] == "A2"][9:], "attack"] = "A1"
    table.loc[table["attack"] == "A0", "peak_db"] = 99
    grid = rank_by_attack(table, table["attack"])
    assert set(grid.index) == {"A0", "A1"}
    assert grid.loc["A0", "peak_db"] == 0 and grid.loc["A1", "peak_db"] > 0.4


def test_together_they_tell_what_none_tells_alone() -> None:
    table = make_table()
    table["rms_db"] = np.where((table["dc_db"] > 0) == (table["label"] == SPOOF), 1, -1) * table["rms_db"].abs()
    assert rank_measurements(table)["eer"].min() > 0.4
    joint = joint_tests(table).set_index("tested_on")
    assert len(joint) == 4 and (joint["eer"] < 0.1).all() and (joint["auc"] > 0.95).all()


def test_knowing_nothing_is_chance() -> None:
    joint = joint_tests(make_table(seed=3))
    assert joint["eer"].between(0.4, 0.6).all() and joint["auc"].between(0.4, 0.6).all()
    assert (joint["eer_low"] <= joint["eer"]).all() and (joint["eer"] <= joint["eer_high"]).all()


def test_what_only_names_the_page_does_not_carry_over() -> None:
    table = make_table().assign(split="-", speaker="-")
    page = np.random.default_rng(1).permutation(20)[np.arange(600) % 20]
    table = table.assign(page=[f"p{n}" for n in page], attack=np.where(table["label"], "unknown", "-"))
    table["pause_db"] = page + 0.01 * table["pause_db"]  # even and odd places of a page have one class each
    joint = joint_tests(table).set_index("tested_on")["eer"]
    assert list(joint.index) == ["pages it never saw", "random clips (speakers and attacks shared)"]
    assert joint.iloc[1] < 0.06 and joint.iloc[0] > 0.3


def test_nothing_is_learned_from_what_is_tested() -> None:
    table = make_table().assign(page=[f"p{n}" for n in np.arange(600) % 17])
    seen = {}
    for name, folds in _schemes(table, np.random.default_rng(0)):
        seen[name] = np.concatenate([tested for _, tested in folds])
        for learned, tested in folds:
            assert not set(learned) & set(tested)
            for column in ("page", "speaker", "attack"):
                if name == f"{column}s it never saw":
                    sides = [set(table[column].iloc[side]) - {"-"} for side in (learned, tested)]
                    assert not sides[0] & sides[1], name
                    assert column != "attack" or len(sides[1]) <= 1, name  # three attacks never share a fold of five
    assert set(seen) > {"eval, learned on train", "pages it never saw", "speakers it never saw", "attacks it never saw"}
    assert all(len(set(rows)) == len(rows) for rows in seen.values())
    assert sorted(seen["speakers it never saw"]) == list(range(600))


def test_the_sampled_joint_test_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shortcuts.MOST_JOINT", 200)
    assert joint_tests(make_table())["clips"].max() == pytest.approx(200, abs=4)


def scores_that_follow(table: pd.DataFrame, name: str, strength: float) -> np.ndarray:
    """cm_scores of a fair detector that also goes up with a measurement."""
    noise = np.random.default_rng(5).normal(size=len(table))
    return 2.0 * (table["label"] == BONAFIDE) + noise + strength * table[name]


def test_what_a_detector_follows_is_found_in_both_classes_and_nothing_else_is() -> None:
    table = make_table()
    found = followed_by(table, scores_that_follow(table, "edge_db", 1.0).to_numpy())
    assert set(found["measurement"]) == set(MEASUREMENTS) - {"sample_rate", "channels"}  # these are constant
    planted = (found["measurement"] == "edge_db").to_numpy()
    assert planted.tolist() == [True, True] + [False] * (len(found) - 2)  # the strongest come first
    for row in found[planted].itertuples():
        # half of the score's variance is the measurement: Spearman's 6 / pi asin(1 / sqrt(8)) = 0.69
        assert row.rho == pytest.approx(-0.69, abs=0.08) and row.rho_low < row.rho < row.rho_high < -0.5
        assert row.clear and row.spoof_lowest_third > row.spoof_highest_third + 0.3
    assert found.loc[~planted, "rho"].abs().max() < 0.2 and not found.loc[~planted, "clear"].any()


def test_chance_is_not_clear() -> None:
    chance = [make_table(80, seed).assign(speaker="-") for seed in range(20)]
    found = [followed_by(table, scores_that_follow(table, "rms_db", 0.0).to_numpy()) for table in chance]
    assert sum(table["clear"].any() for table in found) <= 4  # of 20: one is expected
    covered = np.mean([(table["rho_low"] < 0) & (table["rho_high"] > 0) for table in found])
    assert 0.9 < covered < 0.98  # of intervals of 95 %


def test_clips_of_few_pages_say_little() -> None:
    table = make_table()
    pages = {count: table.assign(page=np.char.add("p", (np.arange(600) % count).astype(str))) for count in (9, 40)}
    offset = np.random.default_rng(8).normal(size=40)
    for name in ("edge_db", "rms_db"):  # both are the page's, and follow each other on some pages only
        pages[40][name] = pages[40][name] * 0.1 + offset[np.arange(600) % 40]
    score = 2.0 * (table["label"] == BONAFIDE) - pages[40]["rms_db"]
    by_clip = followed_by(pages[40].assign(page="-", speaker="-"), score.to_numpy()).set_index("measurement")
    by_page = followed_by(pages[40], score.to_numpy()).set_index("measurement")
    width = [(found["rho_high"] - found["rho_low"]).loc["edge_db"].mean() for found in (by_clip, by_page)]
    assert width[1] > 2 * width[0]
    assert by_page["rho"].loc["edge_db"].min() > 0.9 > 0.2 > by_page["rho_within"].loc["edge_db"].iloc[0]
    few = followed_by(pages[9], score.to_numpy())
    assert few["rho_low"].isna().all() and few["rho_high"].isna().all() and not few["clear"].any()


def test_a_score_at_the_threshold_is_called_spoof_as_everywhere_else() -> None:
    table, score = make_table(60), np.tile([1.0, 0.0, 1.0, 0.0, 0.0, 1.0], 10)  # two thirds of each class are right
    labels = table["label"].to_numpy()
    threshold = compute_eer(score, labels)[1]
    assert error_rates(score, labels, threshold) == pytest.approx((1 / 3, 1 / 3)) and threshold == 0
    table["rms_db"] = -score + 0.01 * np.arange(60) / 60  # the highest third holds the score 0 alone, the lowest 1
    found = followed_by(table, score).set_index("measurement").loc["rms_db"]
    assert found["spoof_lowest_third"].tolist() == [0, 0] and found["spoof_highest_third"].tolist() == [1, 1]


def test_a_difference_of_the_classes_alone_is_not_followed() -> None:
    table = make_table()
    table.loc[table["label"] == SPOOF, "edge_db"] -= 5  # gives the classes away
    fair = followed_by(table, scores_that_follow(table, "rms_db", 0.0).to_numpy())
    assert fair["rho"].abs().max() < 0.2


def test_an_attack_that_is_hard_is_not_what_its_clips_have_in_common() -> None:
    table = make_table()
    hard = table["attack"] == "A1"
    table.loc[hard, "edge_db"] += 5  # it is also the only one with this
    score = scores_that_follow(table, "rms_db", 0.0) + 2.0 * hard
    found = followed_by(table, score.to_numpy()).set_index(["measurement", "label"]).loc[("edge_db", SPOOF)]
    assert found["rho"] < -0.4 and abs(found["rho_within"]) < 0.15


def test_thirds_that_touch_are_not_compared() -> None:
    table = make_table().assign(zero_percent=[0.0] * 500 + list(np.linspace(1, 2, 100)))
    found = followed_by(table, scores_that_follow(table, "rms_db", 0.0).to_numpy()).set_index("measurement")
    assert found.loc["zero_percent", ["spoof_lowest_third", "spoof_highest_third"]].isna().all(axis=None)
    assert found.loc["rms_db", ["spoof_lowest_third", "spoof_highest_third"]].notna().all(axis=None)


def test_clips_come_together_by_page_then_speaker() -> None:
    table = pd.DataFrame({"page": ["p", "p", "-", "-", "-", "-"], "speaker": ["a", "b", "a", "a", "-", "-"]})
    groups = sources(table)
    assert groups[0] == groups[1] and groups[2] == groups[3] and len(set(groups)) == 4
