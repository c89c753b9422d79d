"""Leave pages out: train on three quarters of the pages, score the fourth, in turn; figures of all of them together.

    python cross_validate.py --data wild --extra corpus --recipe resnet_wild
    python cross_validate.py --data wild --extra corpus --recipe resnet_wild --model lcnn --conditions clean,1s,mp3

Takes every option of main.py but --split. Nothing is chosen on the pages that measure: the last epoch is kept
(`--select last`). Each clip is judged once, as predict_audio judges it, by the model that heard nothing of its page,
clean and in every condition of robustness.py. The folder runs/cv-<key> holds a run folder for each part,
scores_<condition>.csv and figures.csv; the key stands for all settings and clips, so the same command goes on where
it was stopped.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from backend import keras
from compare import finished_run, finished_runs
from config import Config, settings_key
from distillation import check_teachers, lineage
from errors import UserError, run_command
from experiment import carry_out, prepare_tables
from fold_figures import (
    all_figures,
    extra_families,
    format_figures,
    heading,
    print_details,
    read_logits,
    write_logits,
)
from inference import judge_clips
from main import configure, training_options
from model import load_model
from robustness import CONDITIONS, ConditionReader, chosen_conditions
from splits import PAGE_SPLITS, clips_key
from whole_file import whole_file

FOLDS = list(PAGE_SPLITS)
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


def keep_figures(file: Path, rows: dict[str, dict[str, Any]]) -> None:
    """A CSV of the figures of these conditions, and of those that it had before."""
    table = pd.DataFrame(rows).T
    if file.is_file():
        table = table.combine_first(pd.read_csv(file, index_col="condition"))[table.columns]
    table = table.loc[[name for name in CONDITIONS if name in table.index]]
    with whole_file(file) as unfinished:
        table.to_csv(unfinished, index_label="condition")


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
    print("", *heading(), sep="\n")
    rows, scores = {}, {}
    for condition in names:
        scores[condition] = out_of_fold_scores(runs, condition, folder / f"scores_{condition}.csv")
        rows[condition] = all_figures(scores[condition])
        print(format_figures(condition, rows[condition]), flush=True)
    keep_figures(folder / "figures.csv", rows)
    print_details(names[0], scores[names[0]], extra_families(lineage(parts[FOLDS[0]])))
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
