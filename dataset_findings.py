"""What the tables of eda.py say, in a sentence or two each: every figure of a report has one below it.

Nothing is said that is not computed from the tables given; a class that is missing is said to be missing.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from config import BONAFIDE, SPOOF
from dataset_plots import CLASSES, file_kind, is_others, measurement_name, split_name
from measurements import HERTZ, MEASUREMENTS, Spectra
from protocols import UNKNOWN_SPEAKER
from run_findings import percent, with_interval
from shortcuts import FEWEST, FEWEST_JOINT
from splits import SPLIT_ORDER

SILENCES = ("lead_silence", "trail_silence")
TELLING = 0.40  # an EER below this is called a shortcut
FOLLOWED, MOST_TOLD = 0.25, 3  # a rank correlation beyond this is told, of at most so many
BANDS = ((0, 1000), (1000, 2000), (2000, 4000), (4000, 6000), (6000, 7500), (7500, 8000))  # Hz


def rounded(value: float) -> str:
    """A measured value for a sentence: four digits, all of those before the point and at most three behind it."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 3) + 0:.4g}"  # + 0: no minus zero


def _shared_with_train(table: pd.DataFrame, column: str, what: str) -> str:
    """Who of dev and of eval is in train, too."""
    of = {split: set(part[column]) for split, part in table.groupby("split")}
    return "".join(
        f" Of the {len(of[split]):,} {what} in {split}, {len(of[split] & of['train']):,} are in train, too."
        for split in ("dev", "eval")
        if split in of and "train" in of
    )


def balance(counts: pd.DataFrame) -> str:
    """How uneven the classes of each split are, and what a constant answer would reach; a line a split."""
    said = []
    for split, part in counts.groupby("split", sort=False):
        found = part.set_index("label")["found"]
        real, fake = (int(found.get(label, 0)) for label in (BONAFIDE, SPOOF))
        if real and real == fake:
            said.append(f"{split_name(split)}: as many spoof as bona fide clips.")
        elif real and fake:
            many, few = (SPOOF, BONAFIDE) if fake > real else (BONAFIDE, SPOOF)
            said.append(
                f"{split_name(split)}: {max(real, fake) / min(real, fake):.3g} times as many {CLASSES[many][0]} as "
                f"{CLASSES[few][0]} clips; always answering {CLASSES[many][0]} is right in "
                f"{percent(max(real, fake) / (real + fake))}."
            )
        elif real or fake:
            said.append(f"{split_name(split)}: {CLASSES[SPOOF if fake else BONAFIDE][0]} only.")
    return "\n".join(said)


def attacks(table: pd.DataFrame) -> str:
    """How many attacks there are, and which splits share them."""
    spoof = table[(table["label"] == SPOOF).to_numpy()]
    counts = spoof["attack"].value_counts()
    text = f"{len(counts)} attacks; the most frequent, {counts.index[0]}, has {percent(counts.iloc[0] / len(spoof))}."
    return text + _shared_with_train(spoof, "attack", "attacks")


def speakers(table: pd.DataFrame) -> str:
    """How evenly the known speakers speak, and who is in two splits or in one class only."""
    known = table[(table["speaker"] != UNKNOWN_SPEAKER).to_numpy()]
    if known.empty:
        return "The dataset names no speakers: whether classes or splits share them cannot be said."
    counts = known["speaker"].value_counts()
    text = f"{len(counts):,} speakers; the one with most clips has {percent(counts.iloc[0] / len(known))} of them."
    if len(known) < len(table):
        text += f" The speaker of {len(table) - len(known):,} clips is unknown."
    of_class = {label: set(part["speaker"]) for label, part in known.groupby("label")}
    if {BONAFIDE, SPOOF} <= of_class.keys():
        of_one = of_class[BONAFIDE] ^ of_class[SPOOF]
        text += f" {len(of_class[BONAFIDE] & of_class[SPOOF]):,} are heard in both classes"
        share = percent(known["speaker"].isin(of_one).mean())
        text += f"; {share} of the clips are of a speaker of one class, whose voice tells it." if of_one else "."
    return text + _shared_with_train(known, "speaker", "speakers")


def formats(table: pd.DataFrame) -> str:
    """The most frequent kind of file in every class."""
    said = []
    for label, (name, _) in CLASSES.items():
        kinds = file_kind(table[(table["label"] == label).to_numpy()]).value_counts(normalize=True)
        if len(kinds):
            said.append(f"{name}: {kinds.index[0]} in {percent(kinds.iloc[0])}")
    return f"Most frequent in {'; '.join(said)}."


def measurement(row: pd.Series) -> str:
    """What one measurement tells about the class; a row of `shortcuts.rank_measurements`."""
    title, unit = MEASUREMENTS[row["measurement"]]
    real, fake = (f"{rounded(row[f'median_{name}'])} {unit}".strip() for name in ("bonafide", "spoof"))
    text = f"Median {title} {real} bona fide and {fake} spoof: "
    if np.isnan(row["eer_low"]):
        return f"{text}the same in all clips."
    interval = f"{percent(row['eer'])} EER (95 % interval {100 * row['eer_low']:.0f} to {100 * row['eer_high']:.0f})"
    if is_shortcut(row):
        known = ", a known shortcut of such sets" if row["measurement"] in SILENCES else ""
        return f"{text}this alone separates the classes with {interval}{known}; a detector may learn it."
    return f"{text}alone {interval}."


def is_shortcut(row: pd.Series) -> bool:
    """Whether one measurement separates the classes by more than chance and clearly."""
    return bool(row["split"] == "all" and row["eer"] < TELLING and row["eer_high"] < 0.5)


def of_measurements(ranked: pd.DataFrame, names: Iterable[str]) -> str:
    """What the named measurements tell about the class, a line each."""
    alone = ranked[(ranked["split"] == "all").to_numpy()].set_index("measurement", drop=False)
    return "\n".join(measurement(alone.loc[name]) for name in names)


def shortcuts(ranked: pd.DataFrame, together: pd.DataFrame) -> list[str]:
    """What gives the classes away: a sentence for every measurement that does so alone, one for all together.

    `ranked` and `together` are those of `shortcuts.rank_measurements` and `shortcuts.joint_tests`.
    """
    if ranked.empty:
        return [f"What gives the classes away is not tested: a class has fewer than {FEWEST} labelled clips."]
    alone = [measurement(row) for _, row in ranked.iterrows() if is_shortcut(row)]
    return [*(alone or ["No measurement alone separates the classes clearly."]), joint(together)]


def followed(table: pd.DataFrame) -> list[str]:
    """What a detector's scores go along with, a sentence each for the strongest; of `shortcuts.followed_by`."""
    told = table[table["clear"] & (table["rho"].abs() >= FOLLOWED) & table["spoof_lowest_third"].notna()]
    none = f"Within neither class do these scores clearly go along with one of {len(table)} measurements."
    return [_followed(row) for _, row in told.head(MOST_TOLD).iterrows()] or [none]


def _followed(row: pd.Series) -> str:
    title, name = MEASUREMENTS[row["measurement"]][0], CLASSES[row["label"]][0]
    low, high = percent(row["spoof_lowest_third"]), percent(row["spoof_highest_third"])
    return (
        f"Among {name} clips alone, the {'higher' if row['rho'] > 0 else 'lower'} the {title} the more spoof-like the "
        f"score: rank correlation {_interval(row)}{_within(row)}; of the third with the lowest {low} are called spoof, "
        f"of that with the highest {high}."
    )


def _interval(row: pd.Series) -> str:
    known = np.isfinite(row["rho_low"])
    return f"{row['rho']:+.2f}" + (f" [{row['rho_low']:+.2f}, {row['rho_high']:+.2f}]" if known else "")


def _within(row: pd.Series) -> str:
    kin = "attack" if row["label"] == SPOOF else "page or speaker"
    return f" (within the same {kin} {row['rho_within']:+.2f})" if np.isfinite(row["rho_within"]) else ""


def following(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `shortcuts.followed_by` as one reads it."""

    def shown(value: float, text: str) -> str:
        return text if np.isfinite(value) else "-"

    rows = [row for _, row in table.iterrows()]
    return pd.DataFrame(
        {
            "measurement": [measurement_name(row["measurement"]) for row in rows],
            "class": [CLASSES[row["label"]][0] for row in rows],
            "clips": table["clips"],
            "rank correlation [95 %]": [_interval(row) for row in rows],
            "within attack, page": [shown(row["rho_within"], f"{row['rho_within']:+.2f}") for row in rows],
            "beyond chance": ["yes" if row["clear"] else "-" for row in rows],
            "lowest third": [shown(row["spoof_lowest_third"], percent(row["spoof_lowest_third"])) for row in rows],
            "highest third": [shown(row["spoof_highest_third"], percent(row["spoof_highest_third"])) for row in rows],
        }
    )


def ranking(ranked: pd.DataFrame) -> pd.DataFrame:
    """A table of `shortcuts.rank_measurements` as one reads it: a row a measurement, the splits beside each other."""
    alone = ranked[(ranked["split"] == "all").to_numpy()]
    shown = pd.DataFrame(
        {
            "measurement": alone["measurement"].map(measurement_name),
            "bona fide, median": alone["median_bonafide"].map(rounded),
            "spoof, median": alone["median_spoof"].map(rounded),
            "EER [95 %]": list(map(with_interval, alone["eer"], alone["eer_low"], alone["eer_high"])),
            "AUC": alone["auc"].round(3),
        }
    )
    for split in [name for name in SPLIT_ORDER if (ranked["split"] == name).any()]:
        of_split = ranked[(ranked["split"] == split).to_numpy()].set_index("measurement")["eer"]
        shown[f"EER {split}"] = alone["measurement"].map(of_split).map(percent)
    return shown


def medians(table: pd.DataFrame, names: Iterable[str]) -> str:
    """The medians of the named measurements, where there are no two classes to compare."""
    said = [f"{MEASUREMENTS[n][0]} {rounded(table[n].median())} {MEASUREMENTS[n][1]}".strip() for n in names]
    return f"Medians of all clips: {', '.join(said)}."


def spectrum(spectra: Spectra) -> str:
    """Where the mean spectra of the classes differ most."""
    (n0, mean0, spread0), (n1, mean1, spread1) = spectra.statistics(BONAFIDE), spectra.statistics(SPOOF)
    if min(n0, n1) < 2:
        return "There are no two classes to compare."
    difference, pooled = mean1 - mean0, np.sqrt((spread0**2 + spread1**2) / 2).clip(1e-6)
    means = [float(difference[(low <= HERTZ) & (high > HERTZ)].mean()) for low, high in BANDS]
    most = int(np.argmax(np.abs(means)))
    at = int(np.argmax(np.abs(difference) / pooled))
    return (
        f"On average spoof has {abs(means[most]):.1f} dB {'more' if means[most] > 0 else 'less'} than bona fide from "
        f"{BANDS[most][0] / 1000:g} to {BANDS[most][1] / 1000:g} kHz, the band where they differ most. Against the "
        f"spread of the clips they differ most at {HERTZ[at] / 1000:.2f} kHz: {difference[at]:+.1f} dB, which is "
        f"{abs(difference[at]) / pooled[at]:.2f} standard deviations of a clip."
    )


def attack_spectra(spectra: Spectra, members: dict[str, list[str]]) -> str:
    """Which attacks sound least and most like bona fide on average; `members` as in the figure."""
    reference = spectra.statistics(BONAFIDE)[1]
    apart = {
        name: float(np.sqrt(np.mean((spectra.statistics(SPOOF, names)[1] - reference) ** 2)))
        for name, names in members.items()
        if not is_others(name)  # an average of so many is near to every other
    }
    order = sorted(apart, key=apart.__getitem__)
    near, far = (", ".join(f"{name} ({apart[name]:.1f} dB)" for name in some) for some in (order[:2], order[:-3:-1]))
    return f"Difference from bona fide, root mean square over frequency: smallest for {near}; largest for {far}."


def by_attack(grid: pd.DataFrame) -> str:
    """Which attacks one measurement gives away; a grid of `shortcuts.rank_by_attack`."""
    best = grid.min(axis=1).sort_values(kind="stable")
    told = [f"{a} by {MEASUREMENTS[grid.loc[a].idxmin()][0]} ({percent(best[a])})" for a in best.index[:3]]
    return (
        f"For {int((best < 0.1).sum())} of these {len(grid)} rows one measurement alone has an EER below 10 %; "
        f"lowest: {', '.join(told)}. Attacks of fewer than {FEWEST} clips have no row."
    )


def joint(table: pd.DataFrame) -> str:
    """What a classifier reaches that hears no speech; a table of `shortcuts.joint_tests`."""
    if table.empty:
        return f"All measurements together are not tested: a class has fewer than {FEWEST_JOINT} clips to learn from."
    said = [f"{row.tested_on}: AUC {row.auc:.3f}, EER {percent(row.eer)}" for row in table.itertuples()]
    text = f"Boosted trees that see only these numbers, and of each clip no sound, reach on {'; on '.join(said)}."
    if table["eer"].min() >= TELLING:
        return f"{text} That is close to chance."
    return f"{text} Compare a detector's figure on this set with these before you believe that it is about speech."
