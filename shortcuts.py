"""What the classes can be told apart by without listening: each trivial measurement alone, then all together.

ranked = rank_measurements(table)      the EER of every measurement alone, with its interval, best first
joint = joint_tests(table, seed=1)     the EER of a small classifier of all of them, on clips it never saw
followed = followed_by(table, score)   which of them a detector's scores go along with, within each class

`table` has the columns of a dataset and MEASUREMENTS. A detector trained on such a set may learn a shortcut
instead of speech, and its figure on such a set may show how well it learned that.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from scipy.stats import t as student

from config import BONAFIDE, SPOOF
from measurements import HEARD, MEASUREMENTS
from metrics import auc, bootstrap_intervals, compute_eer
from protocols import UNKNOWN_ATTACK, UNKNOWN_PAGE, UNKNOWN_SPEAKER
from splits import stratified_sample

REPLICATES = 200  # of the bootstrap
FEWEST = 10  # clips of a class, or of an attack, for a figure about it
FEWEST_JOINT = 30  # clips of a class to learn from
MOST_JOINT = 30_000  # clips to learn from and to test on: more would take minutes and change nothing
FOLDS = 5
Folds = list[tuple[np.ndarray, np.ndarray]]  # rows to learn from, rows to test on


def both_classes(table: pd.DataFrame, fewest: int = FEWEST) -> bool:
    """Whether each class has at least so many clips."""
    return all((table["label"] == label).sum() >= fewest for label in (BONAFIDE, SPOOF))


def sources(table: pd.DataFrame) -> np.ndarray:
    """Which clips come together in a resampling: those of a page, else of a speaker, else each clip alone."""
    page, speaker = table["page"], table["speaker"]
    numbers = np.where(speaker != UNKNOWN_SPEAKER, pd.factorize(speaker)[0], len(table) + np.arange(len(table)))
    return np.where(page != UNKNOWN_PAGE, 2 * len(table) + pd.factorize(page)[0], numbers)


def best_eer(values: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """EER of one measurement, and the direction it is of: 1 if more speaks for bona fide, -1 if for spoof."""
    eers = {sign: compute_eer(sign * values, labels)[0] for sign in (1, -1)}
    sign = min(eers, key=eers.__getitem__)
    return min(eers[sign], 0.5), sign  # both can lie above chance by half a trial


def rank_measurements(table: pd.DataFrame) -> pd.DataFrame:
    """Every measurement as the only score, over all clips and over each split that has both classes.

    One row each: measurement, split ("all" for all), medians by class, `higher_is` (the class with the higher
    values), EER and AUC in the better direction; over all clips also 95 % intervals by resampled `sources`.
    """
    rows = []
    splits = [("all", table), *((s, part) for s, part in table.groupby("split") if len(part) < len(table))]
    for split, part in splits:
        if not both_classes(part):
            continue
        labels, groups = part["label"].to_numpy(), sources(part)
        for name in MEASUREMENTS:
            values = part[name].to_numpy()
            eer, sign = best_eer(values, labels)
            row = {
                "measurement": name,
                "split": split,
                "median_bonafide": float(np.median(values[labels == BONAFIDE])),
                "median_spoof": float(np.median(values[labels == SPOOF])),
                "higher_is": "bonafide" if sign > 0 else "spoof",
                "eer": eer,
                "auc": auc(sign * values, labels),
            }
            if split == "all" and np.ptp(values):
                interval = bootstrap_intervals(sign * values, labels, speakers=groups, replicates=REPLICATES)
                row["eer_low"], row["eer_high"] = interval["eer"]
            rows.append(row)
    columns = "measurement split median_bonafide median_spoof higher_is eer eer_low eer_high auc".split()
    ranked = pd.DataFrame(rows, columns=columns)
    order = ranked.loc[ranked["split"] == "all"].sort_values("eer", kind="stable")["measurement"].tolist()
    place = ranked["measurement"].map({name: number for number, name in enumerate(order)})
    return ranked.assign(place=place).sort_values("place", kind="stable").drop(columns="place").reset_index(drop=True)


def rank_by_attack(table: pd.DataFrame, attacks: pd.Series) -> pd.DataFrame:
    """EER of every measurement between one attack and all bona fide clips: rows attacks, columns MEASUREMENTS.

    `attacks` names the attack of every row of the table; those of fewer than 10 clips are left out.
    """
    bonafide = table[(table["label"] == BONAFIDE).to_numpy()]
    grid = {}
    for attack, clips in table[(table["label"] == SPOOF).to_numpy()].groupby(attacks, sort=False):
        if len(clips) >= FEWEST:
            both = pd.concat([bonafide, clips])
            labels = both["label"].to_numpy()
            grid[attack] = {name: best_eer(both[name].to_numpy(), labels)[0] for name in MEASUREMENTS}
    return pd.DataFrame.from_dict(grid, orient="index", columns=list(MEASUREMENTS))


def _fold_of(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal whole groups, in random order, out to five folds: the fold of each row."""
    _, group = np.unique(groups, return_inverse=True)
    return (rng.permutation(group.max() + 1) % FOLDS)[group]


def _folds(fold: np.ndarray) -> Folds:
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS) if (fold == k).any()]


def _schemes(table: pd.DataFrame, rng: np.random.Generator) -> Iterator[tuple[str, Folds]]:
    """The divisions into learned and tested that this table allows; the last one leaks everything."""
    label, split = table["label"].to_numpy(), table["split"].to_numpy()
    for tested in ("eval", "dev"):
        sides = [np.flatnonzero(split == side) for side in ("train", tested)]
        if both_classes(table.iloc[sides[0]], FEWEST_JOINT) and both_classes(table.iloc[sides[1]]):
            yield f"{tested}, learned on train", [(sides[0], sides[1])]
            break
    clips, spoof = np.arange(len(table)), label == SPOOF
    named = set(table["attack"][spoof])
    if len(named) >= 3 and UNKNOWN_ATTACK not in named:
        fold = _fold_of(clips, rng)  # of bona fide, clip by clip
        fold[spoof] = _fold_of(table["attack"][spoof], rng)
        yield "attacks it never saw", _folds(fold)
    for column, unknown in (("page", UNKNOWN_PAGE), ("speaker", UNKNOWN_SPEAKER)):
        known = np.flatnonzero(table[column] != unknown)
        names = pd.factorize(table[column].iloc[known])[0]
        if len(set(names)) >= FOLDS:
            yield f"{column}s it never saw", [(known[a], known[b]) for a, b in _folds(_fold_of(names, rng))]
    yield "random clips (speakers and attacks shared)", _folds(_fold_of(clips, rng))


def joint_tests(table: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """EER and AUC of boosted trees on all measurements that a detector could hear, on clips they never saw.

    One row for each division of the table that it allows: `tested_on`, clips, eer, eer_low, eer_high, auc;
    none if a class has fewer than 30 clips. Of more than 30,000 clips a stratified sample is taken.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # a second to import
    from threadpoolctl import threadpool_limits

    columns = ["tested_on", "clips", "eer", "eer_low", "eer_high", "auc"]
    if not both_classes(table, FEWEST_JOINT):
        return pd.DataFrame(columns=columns)
    if len(table) > MOST_JOINT:
        table = stratified_sample(table.reset_index(drop=True), MOST_JOINT / len(table), seed)
    values, labels = table[list(HEARD)].to_numpy(), table["label"].to_numpy()
    groups, rows = sources(table), []
    for name, folds in _schemes(table, np.random.default_rng(seed)):
        if any(len(set(labels[learned])) < 2 for learned, _ in folds):
            continue  # one group has a whole class
        scores = np.full(len(table), np.nan)
        for learned, tested in folds:
            trees = HistGradientBoostingClassifier(early_stopping=False, random_state=seed)
            with threadpool_limits(1, user_api="openmp"):  # on a busy machine its threads wait for each other
                trees.fit(values[learned], labels[learned])
                scores[tested] = -trees.decision_function(values[tested])
        chosen = np.isfinite(scores)
        trials = scores[chosen], labels[chosen]
        if not both_classes(table[chosen]):
            continue
        low, high = bootstrap_intervals(*trials, speakers=groups[chosen], replicates=REPLICATES)["eer"]
        rows.append((name, int(chosen.sum()), compute_eer(*trials)[0], low, high, auc(*trials)))
    return pd.DataFrame(rows, columns=columns)


def followed_by(table: pd.DataFrame, score: np.ndarray) -> pd.DataFrame:
    """What a detector's cm_score of every clip goes along with, within one class: there no class can explain it.

    One row for each class and measurement, the strongest first: rank correlation of the spoof logit with the
    measurement; its 95 % interval by resampled `sources`, with the ranks of all clips (NaN where there are fewer than
    ten); `rho_within`, what is left of it once each attack (of spoof), page or speaker has its mean removed (NaN where
    none is named); whether it is `clear` that it is not chance, though so many were looked at; and the share called
    spoof, at the EER threshold of these scores, of the clips in the lowest and in the highest third by that
    measurement (NaN where the thirds touch).
    """
    threshold = compute_eer(score, table["label"].to_numpy())[1]
    rows = []
    for label in (BONAFIDE, SPOOF):
        mine = (table["label"] == label).to_numpy()
        clips, called = table[mine], score[mine] <= threshold
        draws, group = _group_draws(sources(clips))
        kin = _kin(clips, label)
        logit = rankdata(-score[mine])
        for name in MEASUREMENTS:
            values = clips[name].to_numpy()
            if not np.ptp(values):
                continue
            lowest, highest = np.quantile(values, [1 / 3, 2 / 3])
            thirds = (values <= lowest, values >= highest) if lowest < highest else ()
            low_called, high_called = [called[third].mean() for third in thirds] or [np.nan, np.nan]
            ranks = rankdata(values)
            drawn = [_correlation(ranks, logit, counts[group]) for counts in draws]
            low, high, error = (*np.nanquantile(drawn, [0.025, 0.975]), np.nanstd(drawn)) if drawn else 3 * (np.nan,)
            row = {
                "measurement": name,
                "label": label,
                "clips": len(clips),
                "rho": _correlation(ranks, logit),
                "rho_low": low,
                "rho_high": high,
                "rho_within": np.nan if kin is None else _correlation(_centred(ranks, kin), _centred(logit, kin)),
                "groups": draws.shape[1],
                "error": error,
                "spoof_lowest_third": low_called,
                "spoof_highest_third": high_called,
            }
            rows.append(row)
    found = pd.DataFrame(rows)
    # standard errors that chance exceeds in one of 20 such tables; few groups know their own error badly
    beyond = student.isf(0.025 / len(found), found["groups"] - 1)
    error = np.maximum(found["error"], 1 / np.sqrt(found["clips"] - 1))  # NaN where groups are too few
    found["clear"] = (found["clips"] >= FEWEST_JOINT) & (found["rho"].abs() > beyond * error)
    found = found.sort_values("rho", key=np.abs, ascending=False, kind="stable")
    return found.drop(columns=["groups", "error"]).reset_index(drop=True)


def _group_draws(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each group is drawn, with replacement: (REPLICATES or 0, groups); and the group of each row."""
    names, group = np.unique(groups, return_inverse=True)
    replicates = REPLICATES if len(names) >= FEWEST else 0
    drawn = np.random.default_rng(0).integers(0, len(names), (replicates, len(names)))
    return np.array([np.bincount(row, minlength=len(names)) for row in drawn]).reshape(replicates, len(names)), group


def _kin(clips: pd.DataFrame, label: int) -> np.ndarray | None:
    """Who made each clip, where it is known of all: the attack of spoof, the page or else the speaker of bona fide."""
    columns = {"attack": UNKNOWN_ATTACK} if label == SPOOF else {"page": UNKNOWN_PAGE, "speaker": UNKNOWN_SPEAKER}
    for column, unknown in columns.items():
        if (clips[column] != unknown).all():
            return pd.factorize(clips[column])[0]
    return None


def _centred(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Values without the mean of their group."""
    return values - (np.bincount(group, values) / np.bincount(group))[group]


def _correlation(first: np.ndarray, second: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Correlation of two columns whose rows count so often; NaN if one of them is constant."""
    first, second = (values - np.average(values, weights=weight) for values in (first, second))
    weight = 1.0 if weight is None else weight
    size = np.sqrt((weight * first**2).sum() * (weight * second**2).sum())
    return float((weight * first * second).sum() / size) if size > 0 else np.nan
