"""The figures of finished cross-validations, or of several as one: what TRAINING.md and ABLATION.md have by condition.

    python fold_figures.py runs/cv-1a2b3c4d                                # every condition, then pages, kinds, splits
    python fold_figures.py runs/cv-1a2b3c4d runs/cv-5e6f7a8b               # of the mean logit over the columns of all
    python fold_figures.py runs/cv-1a2b3c4d --beside runs/cv-9c0d1e2f      # and what it gains on that one

EER with 95 % intervals over clips and over whole pages, its mean over the parts and over the pages; at the one
threshold of all conditions FAR, FRR, the share of clips whose verdict is not `uncertain`, and how many of those are
wrong. Nothing is trained or judged here: it reads what cross_validate.py has left in its folders, the lists of the
dataset and of what was learned beside it.
"""

import argparse
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calibration import operating_point
from compare import finished_runs
from config import BONAFIDE, LABELS, SPOOF, Config
from data_utils import read_dataset
from distillation import lineage
from errors import CommandParser, UserError, run_command
from inference import judge
from metrics import bootstrap_intervals, compute_eer, error_rates
from robustness import CONDITIONS, DEGRADED

BAND = 0.05  # share of wrong verdicts of either class that bounds the uncertain band
# what a family goes by where its name does not tell what it is made of
ALIASES = {"qppwg": "parallelwavegan", "fs2": "fastspeech2"}


def write_logits(file: Path, scores: pd.DataFrame) -> None:
    """A CSV of spoof logits with its labels as words: evaluate.py and eda.py read it as any score file."""
    scores.assign(label=scores["label"].map(dict(enumerate(LABELS)))).to_csv(file, index=False)


def read_logits(file: Path) -> pd.DataFrame:
    """What `write_logits` wrote."""
    scores = pd.read_csv(file, dtype=str, keep_default_na=False).astype({"spoof_logit": np.float64})
    labels = scores["label"].map({name: label for label, name in enumerate(LABELS)})
    if labels.isna().any():
        raise UserError(f"{file}: labels are {' or '.join(LABELS)} in such files; delete it, and it is made again")
    return scores.assign(label=labels)


def settings_of(folder: Path) -> Config:
    """What a cross-validation trained: the config of one of its parts, which differ in the part alone."""
    for _, config in finished_runs(folder):
        return config
    raise UserError(f"{folder}: holds no finished run; a folder of cross_validate.py is needed")


def sights(config: Config) -> list[str]:
    """What the columns of a network see; other networks than small_resnet are one column."""
    return config.model_args.get("sees", "fine").split(",")


def mean_scores(folders: dict[Path, Config]) -> dict[str, pd.DataFrame]:
    """The out-of-fold scores of cross-validations by condition: the mean over the columns of all."""
    first = next(iter(folders))
    names = [name for name in CONDITIONS if (first / f"scores_{name}.csv").is_file()]
    if not names:
        raise UserError(f"{first}: holds no scores yet: finish cross_validate.py")
    weights, scores = [len(sights(config)) for config in folders.values()], {}
    for name in names:
        files = [folder / f"scores_{name}.csv" for folder in folders]
        if missing := [file for file in files if not file.is_file()]:
            raise UserError(f"{missing[0]}: is not there, but {first} has it: finish cross_validate.py")
        tables = [read_logits(file).set_index("utterance_id") for file in files]
        if any(set(table.index) != set(tables[0].index) for table in tables):
            raise UserError(f"{name} of {', '.join(map(str, folders))}: not the same clips")
        total = sum(weight * table["spoof_logit"] for weight, table in zip(weights, tables, strict=True))
        mean = tables[0].assign(spoof_logit=total / sum(weights)).reset_index()
        # seeds divide the pages differently: what lies in one part of each division was unheard by all
        divisions = [table["fold"].reindex(tables[0].index) for table in tables]
        mean["fold"] = [" ".join(parts) for parts in zip(*divisions, strict=True)]
        scores[name] = mean
    return scores


def errors_by(scores: pd.DataFrame, column: str) -> pd.Series:
    """EER of every page, or fold, that has both classes."""
    both = scores.groupby(column).filter(lambda clips: clips["label"].nunique() == 2)
    return pd.Series(
        {name: compute_eer(-clips["spoof_logit"], clips["label"])[0] for name, clips in both.groupby(column)},
        dtype=float,
    )


def page_errors(scores: pd.DataFrame) -> pd.DataFrame:
    """Of every page its clips, those judged wrong where both errors of all clips are equal, and its own EER.

    The page with most wrong comes first: it may hold one class alone and have no EER, and yet make the one of all.
    """
    cm = -scores["spoof_logit"].to_numpy(np.float64)
    _, threshold = compute_eer(cm, scores["label"].to_numpy())
    bonafide, called_spoof = scores["label"] == BONAFIDE, cm <= threshold
    counts = {
        "bonafide": bonafide,
        "rejected": bonafide & called_spoof,
        "spoof": ~bonafide,
        "accepted": ~bonafide & ~called_spoof,
    }
    pages = pd.DataFrame(counts).groupby(scores["page"]).sum()
    worst_first = (pages["rejected"] + pages["accepted"]).sort_values(ascending=False, kind="stable").index
    return pages.assign(eer=errors_by(scores, "page")).loc[worst_first]


def figures(scores: pd.DataFrame) -> dict[str, Any]:
    """EER of all clips with its intervals over clips and over pages, and the mean EER of the pages."""
    cm, labels = -scores["spoof_logit"].to_numpy(np.float64), scores["label"].to_numpy()
    result = {"clips": len(scores), "eer": compute_eer(cm, labels)[0]}
    for name, groups in (("clips", None), ("pages", scores["page"])):
        low, high = bootstrap_intervals(cm, labels, speakers=groups)["eer"]
        result |= {f"low_{name}": low, f"high_{name}": high}
    return result | {"eer_of_pages": float(errors_by(scores, "page").mean())}


def part_errors(scores: pd.DataFrame) -> pd.Series:
    """EER of every part, each of which one model judged; empty for a mean over several divisions into parts."""
    return errors_by(scores[~scores["fold"].str.contains(" ")], "fold")


def all_figures(scores: pd.DataFrame) -> dict[str, Any]:
    """`figures`, and the mean EER of the parts (NaN where there are none)."""
    return figures(scores) | {"eer_of_folds": float(part_errors(scores).mean())}


def kind_errors(scores: pd.DataFrame) -> pd.Series:
    """EER of every kind of synthesis (tts, vc ...) against all recordings, where the dataset names kinds."""
    recorded = scores["label"] == BONAFIDE
    kinds = sorted(set(scores.loc[~recorded, "kind"]) - {"-"})
    chosen = {kind: scores[recorded | (scores["kind"] == kind)] for kind in kinds}
    return pd.Series(
        {kind: compute_eer(-clips["spoof_logit"], clips["label"])[0] for kind, clips in chosen.items()}, dtype=float
    )


def family_parts(table: pd.DataFrame) -> pd.Series:
    """What each clip's family (its attack, where none is named) is put together of: Tacotron2+HiFi-GAN is two."""
    family = table["family"].where(table["family"] != "-", table["attack"])
    plain = family.str.lower().str.replace(r"[-_ ]", "", regex=True)
    for short, long in ALIASES.items():
        plain = plain.str.replace(short, long, regex=False)
    return plain.str.split("+")


def extra_families(configs: Iterable[Config]) -> set[str]:
    """The parts of the families that --extra brings into these trainings; each dataset is read once."""
    families = set()
    for place, allow_missing in {(one.extra, one.allow_missing) for one in configs if one.extra is not None}:
        extra = read_dataset(Path(place)).usable(allow_missing)
        families |= set(family_parts(extra[extra["label"] == SPOOF]).explode())
    return families


def akin(first: str, second: str) -> bool:
    """Whether the name of one family holds the other's, as Unit-HiFiGAN does HiFi-GAN."""
    return first in second or second in first


def unheard_families(scores: pd.DataFrame, heard: set[str]) -> dict[str, Any]:
    """Figures of all recordings and of the fakes of families that one part alone holds, and no `heard` one is akin to.

    The model that judged such a fake had heard neither its page nor its family. Empty where there is none.
    """
    spoof = scores["label"] == SPOOF
    parts = family_parts(scores[spoof]).explode()  # a row for each part of a clip's family
    folds = scores["fold"].reindex(parts.index).groupby(parts.to_numpy()).agg(set)

    def is_known(part: str) -> bool:
        return len(set().union(*folds[[akin(part, other) for other in folds.index]])) > 1 or any(
            akin(part, other) for other in heard
        )

    known = parts.map({part: is_known(part) for part in folds.index})
    unheard = ~known.groupby(level=0).any().reindex(scores.index, fill_value=True)
    if not unheard.any():
        return {}
    return {"fakes": int(unheard.sum()), **figures(scores[unheard | ~spoof])}


def common_point(scores: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """The one operating point of all conditions together."""
    together = pd.concat(scores.values())
    return operating_point(-together["spoof_logit"].to_numpy(np.float64), together["label"].to_numpy(), BAND)


def verdicts(scores: pd.DataFrame, point: dict[str, Any]) -> dict[str, float]:
    """Errors at the threshold; how many clips get a verdict other than uncertain, and how many of those are wrong."""
    frr, far = error_rates(-scores["spoof_logit"], scores["label"], -point["threshold"])
    verdict = np.array([judge(logit, point)["verdict"] for logit in scores["spoof_logit"]])
    decided = verdict != "uncertain"
    wrong = decided & (verdict != np.array(LABELS)[scores["label"]])
    share = float(wrong.sum() / decided.sum()) if decided.any() else None
    return {"far": far, "frr": frr, "decided": float(decided.mean()), "wrong_of_decided": share}


def resampled_rows(labels: np.ndarray, pages: np.ndarray | None, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows drawn with replacement, endlessly: clips within each class, or whole pages until both classes are there."""
    if pages is None:
        classes = [np.flatnonzero(labels == label) for label in (BONAFIDE, SPOOF)]
        while True:
            yield np.concatenate([rng.choice(members, len(members)) for members in classes])
    members = [np.flatnonzero(pages == page) for page in np.unique(pages)]
    while True:
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        if len(set(labels[rows])) == 2:
            yield rows


def gains(ours: dict[str, pd.DataFrame], theirs: dict[str, pd.DataFrame], replicates: int = 1000) -> pd.DataFrame:
    """EER that ours has less than theirs, clean and in the mean of DEGRADED, with intervals: both drawn alike."""
    groups = {"clean": ["clean"], "degraded": DEGRADED}
    groups = {name: parts for name, parts in groups.items() if set(parts) <= set(ours) & set(theirs)}
    if not groups:
        raise UserError("to be compared, clean or all of " + ", ".join(DEGRADED) + " must be measured of both")
    conditions = [name for parts in groups.values() for name in parts]
    tables = {
        name: [scores[name].set_index("utterance_id").sort_index() for scores in (ours, theirs)] for name in conditions
    }
    first = tables[conditions[0]][0]
    if not all(table["label"].equals(first["label"]) for both in tables.values() for table in both):
        raise UserError("to be compared, the same clips, with the same labels, must be judged in every condition")
    logits = {name: [table["spoof_logit"].to_numpy() for table in both] for name, both in tables.items()}
    labels, pages, rng = first["label"].to_numpy(), first["page"].to_numpy(str), np.random.default_rng(0)

    def differences(rows: np.ndarray) -> list[float]:
        def gain(name: str) -> float:
            mine, other = (compute_eer(-values[rows], labels[rows])[0] for values in logits[name])
            return other - mine

        return [float(np.mean([gain(name) for name in parts])) for parts in groups.values()]

    table = pd.DataFrame({"gain": differences(np.arange(len(labels)))}, index=list(groups))
    for unit, drawn_by in (("clips", None), ("pages", pages)):
        drawn = [differences(rows) for rows in islice(resampled_rows(labels, drawn_by, rng), replicates)]
        table[f"low_{unit}"], table[f"high_{unit}"] = np.quantile(drawn, [0.025, 0.975], axis=0)
    return table


def format_error(error: float) -> str:
    return "-" if np.isnan(error) else f"{100 * error:.1f}"


def format_figures(condition: str, row: dict[str, Any]) -> str:
    def interval(name: str) -> str:
        return f"[{100 * row[f'low_{name}']:.1f}, {100 * row[f'high_{name}']:.1f}]"

    means = " ".join(f"{format_error(row[name]):>8}" for name in ("eer_of_folds", "eer_of_pages"))
    shown = f"{condition:<14} {row['clips']:>6,} {100 * row['eer']:>7.1f}"
    return f"{shown} {interval('clips'):>14} {interval('pages'):>14} {means}"


def heading() -> tuple[str, str]:
    """Two lines above those of `format_figures`."""
    head = f"{'condition':<14} {'clips':>6} {'EER %':>7} {'clips':>14} {'pages':>14}"
    return f"{'':<29} {'95 % interval over':>29} {'mean EER of':>17}", f"{head} {'parts':>8} {'pages':>8}"


def format_pages(pages: pd.DataFrame) -> str:
    lines = [f"{'recordings':>12} {'wrong':>6} {'fakes':>6} {'wrong':>6} {'EER %':>6}"]
    for page, (recordings, rejected, fakes, accepted, eer) in zip(pages.index, pages.to_numpy(), strict=True):
        counts = f"{recordings:>12.0f} {rejected:>6.0f} {fakes:>6.0f} {accepted:>6.0f}"
        lines.append(f"{counts} {format_error(eer):>6}  {page}")
    return "\n".join(lines)


def print_details(condition: str, scores: pd.DataFrame, heard: set[str]) -> None:
    """What the figures of one condition are made of: pages, parts, kinds, families that were not `heard` elsewhere."""
    print(f"\n{condition}, by page (wrong: beyond the one threshold at which all pages together have equal errors)")
    print(format_pages(page_errors(scores)))
    if len(parts := part_errors(scores)):
        print(f"EER of the parts, {condition}: {', '.join(map(format_error, parts))} %")
    print(f"EER of some fakes against all recordings, {condition}:")
    for kind, error in kind_errors(scores).items():
        print(f"  {100 * error:5.1f} %  {kind} ({(scores['kind'] == kind).sum()} clips)")
    if unheard := unheard_families(scores, heard):
        print(f"  {100 * unheard['eer']:5.1f} %  families that one part alone holds ({unheard['fakes']} clips)")


def print_figures(scores: dict[str, pd.DataFrame], point: dict[str, Any]) -> None:
    """A line for every condition, with errors and verdicts at the one operating point, and the mean of DEGRADED."""
    first, second = heading()
    print(f"{first} {'at one threshold, %':>32}\n{second} {'FAR':>7} {'FRR':>5} {'decided':>8} {'of these wrong':>15}")
    errors = {}
    for condition, table in scores.items():
        row, reached = all_figures(table), verdicts(table, point)
        errors[condition] = row["eer"]
        wrong = reached["wrong_of_decided"]
        print(
            f"{format_figures(condition, row)} {100 * reached['far']:>7.0f} {100 * reached['frr']:>5.0f} "
            f"{100 * reached['decided']:>8.0f} {'-' if wrong is None else f'{100 * wrong:.0f}':>15}"
        )
    if set(DEGRADED) <= set(errors):
        mean = np.mean([errors[name] for name in DEGRADED])
        print(f"{'degraded':<21} {100 * mean:>7.1f}  mean of {', '.join(DEGRADED)}")


def print_splits(scores: dict[str, pd.DataFrame], point: dict[str, Any], table: pd.DataFrame) -> None:
    """The same lines for the clips of every split that the dataset's own list names, where it names several."""
    split = table.set_index("utterance_id")["split"]
    for name in sorted(set(split)) if split.nunique() > 1 else ():
        parts = {condition: part[part["utterance_id"].map(split) == name] for condition, part in scores.items()}
        if next(iter(parts.values()))["label"].nunique() == 2:
            print(f"\nclips that the list marks {name}, at the threshold of all")
            print_figures(parts, point)


def main(argv: list[str] | None = None) -> int:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of a cross-validation: runs/cv-<key>")
    words = "of others: print how many points of EER less the former have, with intervals"
    parser.add_argument("--beside", type=Path, nargs="+", metavar="FOLDER", default=[], help=words)
    arguments = parser.parse_args(argv)
    configs = {folder: settings_of(folder) for folder in arguments.folders}
    scores = mean_scores(configs)
    others = mean_scores({folder: settings_of(folder) for folder in arguments.beside}) if arguments.beside else {}
    gained = gains(scores, others) if others else pd.DataFrame()
    heard = extra_families(one for config in configs.values() for one in lineage(config))
    table = read_dataset(Path(next(iter(configs.values())).data)).table
    point = common_point(scores)
    print_figures(scores, point)
    name = next(iter(scores))
    print_details(name, scores[name], heard)
    if gone := (~scores[name]["utterance_id"].isin(table["utterance_id"])).sum():
        print(f"\n{gone:,} of these clips are not in the dataset's list any more, and in none of its splits")
    print_splits(scores, point, table)
    if others:
        print(f"\npoints of EER less than {', '.join(map(str, arguments.beside))}")
    for name, row in (100 * gained).iterrows():
        over = [f"{row[f'low_{unit}']:.1f}, {row[f'high_{unit}']:.1f} over {unit}" for unit in ("clips", "pages")]
        print(f"{name:<14} {row['gain']:.1f} [{'; '.join(over)}]")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
