"""Leave pages out: train on three quarters of the pages, score the fourth, in turn; figures of all of them together.

    python cross_validate.py --data wild --extra corpus --recipe resnet_wild
    python cross_validate.py --data wild --extra corpus --recipe resnet_wild --model lcnn --conditions clean,1s,mp3

Takes every option of main.py but --split. Nothing is chosen on the pages that measure: the last epoch is kept
(`--select last`). Each clip is judged once, as predict_audio judges it, by the model that heard nothing of its page,
clean and in every condition of robustness.py. The folder runs/cv-<key> holds a run folder for each part,
scores_<condition>.csv and figures.csv; the key stands for all settings and clips, so the same command goes on where
it was stopped.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backend import keras
from compare import finished_run, finished_runs
from config import BONAFIDE, LABELS, SPOOF, Config, settings_key
from data_utils import read_dataset
from distillation import check_teachers, lineage
from errors import UserError, run_command
from experiment import carry_out, prepare_tables
from inference import judge_clips
from main import configure, training_options
from metrics import bootstrap_intervals, compute_eer
from model import load_model
from robustness import CONDITIONS, ConditionReader, chosen_conditions
from splits import PAGE_SPLITS, clips_key
from whole_file import whole_file

FOLDS = list(PAGE_SPLITS)
# what a family goes by where its name does not tell what it is made of
ALIASES = {"qppwg": "parallelwavegan", "fs2": "fastspeech2"}
KEPT = ["utterance_id", "page", "kind", "family", "attack", "label", "fold", "spoof_logit"]  # columns of scores


def fold_config(config: Config, fold: str) -> Config:
    """The config of one part: its pages measure, and therefore choose nothing."""
    return replace(config, training=replace(config.training, split=fold, select="last"))


def taught_fold(config: Config, fold: str) -> Config:
    """The config of one part, where each cross-validation that teaches is its run of the same part."""
    teachers = tuple(str(fold_run(Path(name), fold)) for name in config.training.teachers)
    return fold_config(replace(config, training=replace(config.training, teachers=teachers)), fold)


def fold_run(folder: Path, fold: str) -> Path:
    """The run of one part in the folder of a cross-validation."""
    for run, config in finished_runs(folder):
        if config.training.split == fold:
            return run
    raise UserError(f"teacher {folder}: holds no finished run of {fold}; give a folder that cross_validate.py has made")


def prepare_folds(parts: dict[str, Config]) -> dict[str, dict[str, pd.DataFrame]]:
    """The tables of every part; teachers that do not fit are refused here, before hours go into the first part."""
    folds = {}
    for fold, part in parts.items():
        print(f"\n--- {fold}")
        folds[fold] = prepare_tables(part)
        check_teachers(part, folds[fold]["dev"])
    return folds


def train_folds(
    parts: dict[str, Config], folds: dict[str, dict[str, pd.DataFrame]], folder: Path
) -> dict[str, tuple[Path, pd.DataFrame]]:
    """Every part's run folder and the clips it was not trained on; what is finished is not trained again."""
    runs = {}
    for fold, part in parts.items():
        print(f"\n--- {fold}")
        tables = folds[fold]
        runs[fold] = finished_run(part, folder) or carry_out(part, tables, folder), tables["dev"]
    return runs


def out_of_fold_scores(runs: dict[str, tuple[Path, pd.DataFrame]], condition: str, file: Path) -> pd.DataFrame:
    """The logit of every clip in one condition, by the model that did not hear its page; kept in a CSV."""
    if file.is_file():
        return read_logits(file)
    parts = []
    for fold, (run, table) in runs.items():
        reader = ConditionReader(table, CONDITIONS[condition][1])
        rows, logits = judge_clips(load_model(run), reader, f"{condition}, {fold}")
        for reason in reader.new_failures():
            print(f"left out: {reason}")
        parts.append(table.iloc[rows].assign(fold=fold, spoof_logit=logits))
        keras.backend.clear_session()
    scores = pd.concat(parts, ignore_index=True)[KEPT]
    with whole_file(file) as unfinished:
        write_logits(unfinished, scores)
    return scores


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


def format_figures(condition: str, row: dict[str, Any]) -> str:
    def interval(name: str) -> str:
        return f"[{100 * row[f'low_{name}']:.1f}, {100 * row[f'high_{name}']:.1f}]"

    means = f"{100 * row['eer_of_folds']:>8.1f} {100 * row['eer_of_pages']:>8.1f}"
    shown = f"{condition:<14} {row['clips']:>6,} {100 * row['eer']:>7.1f}"
    return f"{shown} {interval('clips'):>14} {interval('pages'):>14} {means}"


def keep_figures(file: Path, rows: dict[str, dict[str, Any]]) -> None:
    """A CSV of the figures of these conditions, and of those that it had before."""
    table = pd.DataFrame(rows).T
    if file.is_file():
        table = table.combine_first(pd.read_csv(file, index_col="condition"))[table.columns]
    table = table.loc[[name for name in CONDITIONS if name in table.index]]
    with whole_file(file) as unfinished:
        table.to_csv(unfinished, index_label="condition")


def format_pages(pages: pd.DataFrame) -> str:
    lines = [f"{'recordings':>12} {'wrong':>6} {'fakes':>6} {'wrong':>6} {'EER %':>6}"]
    for page, (recordings, rejected, fakes, accepted, eer) in zip(pages.index, pages.to_numpy(), strict=True):
        error = "-" if np.isnan(eer) else f"{100 * eer:.1f}"
        lines.append(f"{recordings:>12.0f} {rejected:>6.0f} {fakes:>6.0f} {accepted:>6.0f} {error:>6}  {page}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = training_options()
    parser.usage = "python cross_validate.py --data DIR [--conditions A,B] [options of main.py]"
    parser.description = __doc__.partition("\n")[0]
    parser.add_argument("--conditions", metavar="A,B", help=f"some of {', '.join(CONDITIONS)} (default: all)")
    arguments = parser.parse_args(argv)
    names = chosen_conditions(arguments.conditions)
    for option in ("split", "select", "patience", "demo", "list", "compare", "fresh", "stop_after"):
        if getattr(arguments, option):
            words = f"--{option.replace('_', '-')}"
            raise UserError(f"cross_validate.py makes the splits and trains each to its end: leave out {words}")
    config = configure(arguments)
    if config.data is None:
        raise UserError("--data DIR is needed, a dataset whose list names the page of every clip")
    parts = {fold: taught_fold(config, fold) for fold in FOLDS}
    folds = prepare_folds(parts)
    keys = [clips_key(tables) for tables in folds.values()]
    folder = arguments.runs / f"cv-{settings_key([*keys, fold_config(config, '').to_dict()])}"
    runs = train_folds(parts, folds, folder)
    print(f"\n{'':<29} {'95 % interval over':>29} {'mean EER of':>17}")
    head = f"{'condition':<14} {'clips':>6} {'EER %':>7} {'clips':>14} {'pages':>14}"
    print(f"{head} {'parts':>8} {'pages':>8}")
    rows, scores = {}, {}
    for condition in names:
        file = folder / f"scores_{condition}.csv"
        scores[condition] = out_of_fold_scores(runs, condition, file)
        rows[condition] = figures(scores[condition])
        rows[condition]["eer_of_folds"] = float(errors_by(scores[condition], "fold").mean())
        print(format_figures(condition, rows[condition]), flush=True)
    keep_figures(folder / "figures.csv", rows)
    clean = scores[names[0]]
    print(f"\n{names[0]}, by page (wrong: beyond the one threshold at which all pages together have equal errors)")
    print(format_pages(page_errors(clean)))
    print(f"EER of some fakes against all recordings, {names[0]}:")
    for kind, error in kind_errors(clean).items():
        print(f"  {100 * error:5.1f} %  {kind} ({(clean['kind'] == kind).sum()} clips)")
    if unheard := unheard_families(clean, extra_families(lineage(parts[FOLDS[0]]))):
        print(f"  {100 * unheard['eer']:5.1f} %  families that one part alone holds ({unheard['fakes']} clips)")
    print(f"folder {folder}")
    if "clean" in names and config.limit is None and config.training.sample == 1:
        print(f"next   python ship.py {folder} --name my_detector")
    clips = sum(len(table) for _, table in runs.values())
    lost = {condition: clips - len(part) for condition, part in scores.items() if len(part) < clips}
    for condition, count in lost.items():
        print(f"{condition}: {count} of {clips:,} clips could not be judged")
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
