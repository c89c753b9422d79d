"""Which rows train, which choose the model, which measure it: splits by name, each saying what it leaks.

split_table(table, "attack-held-out", seed=1)    a copy with `split` set; the note is in attrs["split_note"]
stratified_sample(table, 0.4, seed=1)            a share of the rows, every class and attack kept
"""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from config import BONAFIDE, SPOOF, settings_key
from errors import UserError
from protocols import UNKNOWN_ATTACK, UNKNOWN_PAGE, UNKNOWN_SPEAKER

SPLIT_ORDER = ("train", "dev", "eval")
PAGE_FOLDS = 4
PAGE_SPLITS = {
    f"pages-{fold}-of-{PAGE_FOLDS}": f"eval stays; dev is part {fold} of {PAGE_FOLDS} of the pages, train the rest"
    for fold in range(1, PAGE_FOLDS + 1)
}
SPLITS = {
    "official": "the division of the dataset's authors; in ASVspoof 2019 dev repeats the attacks of train",
    "random-70-15-15": "70/15/15 by clip, all rows pooled; leaks speakers and attacks: figures flatter",
    "random-80-10-10": "80/10/10 by clip, all rows pooled; leaks speakers and attacks: figures flatter",
    "speaker-disjoint": "70/15/15 by speaker, all rows pooled; no speaker in two splits; attacks are shared",
    "attack-held-out": "eval stays; dev has attacks and speakers that train never saw: for choosing a model",
    **PAGE_SPLITS,
}
THREE_WAYS = {"train": 0.70, "dev": 0.15, "eval": 0.15}
TWO_WAYS = {"train": 0.80, "dev": 0.20}


def _round(values: np.ndarray) -> np.ndarray:
    return np.floor(values + 0.5).astype(int)


def _strata(table: pd.DataFrame) -> list[np.ndarray]:
    """Return the row positions of every (label, attack), in a fixed order."""
    groups = table.groupby(["label", "attack"], sort=True).indices
    return [groups[key] for key in sorted(groups)]


def _by_clip(table: pd.DataFrame, shares: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Divide every (label, attack) in the given shares; returns the name of each row's side."""
    sides = np.empty(len(table), dtype=object)
    names = list(shares)
    cumulative = np.cumsum(list(shares.values()))
    for positions in _strata(table):
        cuts = _round(cumulative[:-1] * len(positions))
        for name, part in zip(names, np.split(rng.permutation(positions), cuts), strict=True):
            sides[part] = name
    return sides


def _in_groups(table: pd.DataFrame, column: str, shares: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Put whole speakers or pages on sides so that each class comes near the shares; returns each row's side.

    Large groups go first (their size is jittered, so that a seed means something), each to the side
    that lacks most of the classes this group has.
    """
    counts = pd.crosstab(table[column], table["label"]).reindex(columns=[BONAFIDE, SPOOF], fill_value=0)
    weights = counts.to_numpy() / np.maximum(counts.to_numpy().sum(axis=0), 1)  # (groups, classes), of 1 a class
    order = np.argsort(-weights.sum(axis=1) * rng.uniform(0.5, 1.5, len(weights)), kind="stable")
    names = list(shares)
    share = np.array(list(shares.values()))[:, None]
    have = np.zeros((len(names), 2))
    side_of = {}
    for group in order:
        need = ((share - have) / share * weights[group]).sum(axis=1)
        side = int(need.argmax())
        have[side] += weights[group]
        side_of[counts.index[group]] = names[side]
    return table[column].map(side_of).to_numpy(dtype=object)


def _overlap(table: pd.DataFrame) -> str:
    """Say in one sentence which speakers and attacks two splits share."""
    used = [name for name in SPLIT_ORDER if (table["split"] == name).any()]
    speakers = {n: set(table.loc[table["split"] == n, "speaker"]) - {UNKNOWN_SPEAKER} for n in used}
    spoof = table["label"] == SPOOF
    attacks = {n: set(table.loc[spoof & (table["split"] == n), "attack"]) - {UNKNOWN_ATTACK} for n in used}
    facts = []
    for a, b in itertools.combinations(used, 2):
        both = len(speakers[a] & speakers[b])
        if both:
            facts.append(f"{a} and {b} share {both} speakers")
        same = sorted(attacks[a] & attacks[b])
        if same:
            shown = ", ".join(same[:6]) + (f" and {len(same) - 6} more" if len(same) > 6 else "")
            facts.append(f"{a} and {b} share the attacks {shown}")
    unknown = int((table["speaker"] == UNKNOWN_SPEAKER).sum())
    if unknown:
        facts.append(f"the speaker of {unknown:,} rows is unknown, so speakers may be shared")
    return ("Leaks: " + "; ".join(facts) if facts else "No speaker and no attack is in two splits") + "."


def _refuse_one_class(table: pd.DataFrame, sides: tuple[str, ...], scheme: str) -> None:
    for side in sides:
        present = set(table.loc[table["split"] == side, "label"])
        for label, word in ((BONAFIDE, "bona fide"), (SPOOF, "spoof")):
            if label not in present:
                raise UserError(
                    f"split {scheme}: {side} would have no {word} rows (too few speakers or clips); "
                    f"{_choose(table, scheme)}, or another seed"
                )


def _speaker_disjoint(table: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, str]:
    unknown = int((table["speaker"] == UNKNOWN_SPEAKER).sum())
    if unknown:
        raise UserError(
            f"split speaker-disjoint: the speaker of {unknown:,} of {len(table):,} rows is unknown; "
            f"{_choose(table, 'speaker-disjoint')}, or name the speakers in a CSV"
        )
    out = table.assign(split=_in_groups(table, "speaker", THREE_WAYS, rng))
    _refuse_one_class(out, SPLIT_ORDER, "speaker-disjoint")
    count = {side: out.loc[out["split"] == side, "speaker"].nunique() for side in SPLIT_ORDER}
    return out, f"Whole speakers: {count['train']} train, {count['dev']} dev, {count['eval']} eval."


def _sides(rest: pd.DataFrame, shares: dict[str, float], rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Divide rows among train / dev (/ eval) by speaker: the official division where there is a clean one."""
    known = (rest["speaker"] != UNKNOWN_SPEAKER).to_numpy()
    speakers = {side: set(rest.loc[known & (rest["split"] == side), "speaker"]) for side in ("train", "dev")}
    present = set(rest["split"])
    if len(shares) == 2 and present == {"train", "dev"} and not speakers["train"] & speakers["dev"]:
        return rest["split"].to_numpy(dtype=object), "sides are the official train and dev"
    sides = np.empty(len(rest), dtype=object)
    if known.any():
        sides[known] = _in_groups(rest[known], "speaker", shares, rng)
    sides[~known] = _by_clip(rest[~known], shares, rng)
    if known.all():
        return sides, "sides are a seeded division of the speakers"
    return sides, f"sides are a seeded division, by clip for the {(~known).sum():,} rows of unknown speakers"


def _choose(table: pd.DataFrame, refused: str) -> str:
    """Name the other splits that this table has what it takes for, as --split wants them."""
    attacks = set(table.loc[table["label"] == SPOOF, "attack"]) - {UNKNOWN_ATTACK}
    possible = {
        "official": table["split"].isin(SPLIT_ORDER).any(),
        "attack-held-out": len(attacks) >= 3,
        "speaker-disjoint": len(set(table["speaker"]) - {UNKNOWN_SPEAKER}) >= 3,
        "random-70-15-15": True,
    }
    return "choose --split " + " or ".join(name for name, fits in possible.items() if fits and name != refused)


def _attack_held_out(table: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, str]:
    has_eval = bool((table["split"] == "eval").any())
    in_rest = table["split"].isin(["train", "dev"]).to_numpy() if has_eval else np.ones(len(table), dtype=bool)
    rest = table[in_rest]
    attacks = sorted(set(rest.loc[rest["label"] == SPOOF, "attack"]) - {UNKNOWN_ATTACK})
    needed = 2 if has_eval else 3
    if len(attacks) < needed:
        raise UserError(
            f"split attack-held-out: {len(attacks)} named attacks outside eval "
            f"({', '.join(attacks) or 'none'}), at least {needed} are needed; {_choose(table, 'attack-held-out')}"
        )
    shuffled = [attacks[i] for i in rng.permutation(len(attacks))]
    if has_eval:
        shares, held = TWO_WAYS, max(1, int(_round(np.array(len(attacks) / 3))))
        groups = {"dev": shuffled[:held], "train": shuffled[held:]}
    else:
        shares, held = THREE_WAYS, len(attacks) // 3
        groups = {"dev": shuffled[:held], "eval": shuffled[held : 2 * held], "train": shuffled[2 * held :]}
    sides, how = _sides(rest, shares, rng)
    group_of = {attack: side for side, members in groups.items() for attack in members}
    clean = (rest["label"] == BONAFIDE).to_numpy() | (rest["attack"].map(group_of).to_numpy() == sides)
    split = np.where(table["split"] == "eval", "eval", "-").astype(object)
    split[in_rest] = np.where(clean, sides, "-")
    out = table.assign(split=split)[split != "-"]
    _refuse_one_class(out, tuple(shares), "attack-held-out")
    named = "; ".join(f"{side}: {', '.join(sorted(groups[side]))}" for side in shares)
    kept = "official eval kept" if has_eval else "no official eval, so eval is held out too"
    dropped = len(table) - len(out)
    return out, f"Attacks of {named}; {kept}; {how}; {dropped:,} rows dropped because they would leak."


def _page_fold(table: pd.DataFrame, scheme: str, rng: np.random.Generator) -> tuple[pd.DataFrame, str]:
    rest = (table["split"] != "eval").to_numpy()
    unknown = int((table.loc[rest, "page"] == UNKNOWN_PAGE).sum())
    if unknown:
        raise UserError(
            f"split {scheme}: the page of {unknown:,} rows is unknown; {_choose(table, scheme)}, "
            "or name the pages in a CSV"
        )
    shares = dict.fromkeys(PAGE_SPLITS, 1 / PAGE_FOLDS)
    fold_of = _in_groups(table[rest], "page", shares, rng)  # the same for every scheme of a seed
    split = np.full(len(table), "eval", dtype=object)
    split[rest] = np.where(fold_of == scheme, "dev", "train")
    out = table.assign(split=split)
    _refuse_one_class(out, ("train", "dev"), scheme)
    count = {side: out.loc[out["split"] == side, "page"].nunique() for side in ("train", "dev")}
    return out, f"Whole pages: {count['train']} train, {count['dev']} dev."


def split_table(table: pd.DataFrame, scheme: str, seed: int = 1) -> pd.DataFrame:
    """Return a copy of the table with `split` set by one of SPLITS; attrs["split_note"] says what it does.

    Rows may be left out (never added): attack-held-out drops those that would leak.
    """
    if scheme not in SPLITS:
        raise UserError(f"split {scheme!r} is unknown; valid: {', '.join(SPLITS)}")
    if seed < 0:
        raise UserError(f"seed {seed}: must be 0 or more")
    if table.empty:
        raise UserError(f"split {scheme}: the table has no rows")
    if scheme == "official":
        if not table["split"].isin(SPLIT_ORDER).any():
            raise UserError(f"split official: this dataset has none; {_choose(table, 'official')}")
        out, what = table.copy(), "The dataset's own division."
    elif (table["label"] < 0).any():
        raise UserError(f"split {scheme}: {(table['label'] < 0).sum():,} rows have no label; choose official")
    else:
        rng = np.random.default_rng(seed)
        if scheme == "speaker-disjoint":
            out, what = _speaker_disjoint(table, rng)
        elif scheme == "attack-held-out":
            out, what = _attack_held_out(table, rng)
        elif scheme in PAGE_SPLITS:
            out, what = _page_fold(table, scheme, rng)
        else:
            numbers = [int(n) / 100 for n in scheme.split("-")[1:]]
            shares = dict(zip(SPLIT_ORDER, numbers, strict=True))
            out, what = table.assign(split=_by_clip(table, shares, rng)), "By clip, stratified by class and attack."
    out.attrs = {**table.attrs, "split_note": f"{scheme}: {what} {_overlap(out)}"}
    return out


def with_extra(tables: dict[str, pd.DataFrame], extra: pd.DataFrame, official: bool) -> pd.DataFrame:
    """Return the train table and behind it, marked in a column `extra`, the rows of a dataset that is only trained on.

    Left out is what must not have been heard before dev or eval: what was made of their recordings. It is known by
    its page, which is the dataset's name where that knows no pages, and by its source; where the division is the
    dataset's own, by the split that it inherited from its recording.
    """
    if official:
        judged = extra["split"].isin(["dev", "eval"])
    else:
        rows = pd.concat([tables["dev"], tables["eval"]])
        judged = extra["page"].isin(rows["page"].where(rows["page"] != UNKNOWN_PAGE, rows["dataset"]))
    judged |= extra["source"].isin(set(extra.loc[judged, "source"]) - {"-"})  # spoken in the look of a recording
    if judged.all():
        raise UserError(
            f"extra: all {len(extra):,} clips are made of recordings of the dataset that dev or eval are of; "
            "choose a split by page, or official"
        )
    train = tables["train"]
    out = pd.concat([train.assign(extra=False), extra[~judged].assign(extra=True)], ignore_index=True)
    out.attrs = train.attrs
    return out


def clips_key(tables: dict[str, pd.DataFrame]) -> str:
    """Eight letters that stand for the clips of each split: what the list says of them, and the sizes of their files.

    Not for where they lie.
    """
    return settings_key(
        {
            name: [table.drop(columns="path").to_csv(index=False), _sizes(table["path"])]
            for name, table in tables.items()
        }
    )


def _sizes(paths: pd.Series) -> list[int]:
    return [path.stat().st_size if path.is_file() else 0 for path in map(Path, paths)]


def stratified_sample(table: pd.DataFrame, fraction: float, seed: int = 1) -> pd.DataFrame:
    """Keep a share (0 < fraction <= 1) of every (label, attack), at least one row, in the old order."""
    if not 0 < fraction <= 1:
        raise UserError(f"sample {fraction}: must be above 0 and at most 1")
    if seed < 0:
        raise UserError(f"seed {seed}: must be 0 or more")
    rng = np.random.default_rng(seed)
    kept = [
        rng.permutation(positions)[: max(1, int(_round(np.array(fraction * len(positions)))))]
        for positions in _strata(table)
    ]
    return table.iloc[np.sort(np.concatenate(kept))] if kept else table.copy()
