"""Score a dataset with a trained model, its own or another one, and say how well that goes.

    python score.py runs/<run> --data in_the_wild                    # every labelled clip; scores.txt and a report
    python score.py imported/aasist.keras --data LA --split eval --score bonafide-logit --out aasist_eval.txt

What is written is a score file of the ASVspoof layout; `python evaluate.py` gives its figures again at any time. A
score is made as those were that the model's own threshold is from, at which the decision is made: from the first
window of each clip, as in ASVspoof, for what main.py trained and for imported weights; from all of them, as
inference.py hears a clip, for the detectors that ship. `--windows` says otherwise.
`--score bonafide-logit` takes one of the two class logits of aasist, aasist_l and rawnet2 alone, as their authors
do; the model's threshold is not meant for it. `--set-threshold`, on clips of a dev set, gives a model (an imported
one has none) the threshold, uncertain band and calibration of these scores.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from backend import keras
from calibration import operating_point as fit_operating_point
from clip_reader import ClipReader
from config import BONAFIDE, SAMPLE_RATE, SCORE_CONVENTION
from data_utils import read_dataset
from errors import CommandParser, UserError, run_command
from evaluate import evaluate, format_report
from inference import input_samples, judge_clips, operating_point, score_clips
from model import (
    PRETRAINED,
    class_logits,
    find_model,
    load_model,
    read_card,
    save_model,
    set_operating_point,
    spoof_logits,
)
from score_files import write_scores
from splits import SPLIT_ORDER, stratified_sample

# what a score is: its convention in a file's header, and the logits (higher = more likely spoof) it is made of
SCORES = {
    "spoof-logit": (SCORE_CONVENTION, spoof_logits),
    "bonafide-logit": (
        "cm_score = the bona fide class logit alone; higher = more bona fide",
        lambda model, waveforms: -class_logits(model, waveforms)[:, BONAFIDE],
    ),
}
WINDOWS = {"first": score_clips, "all": judge_clips}  # of a clip that is longer than what the model hears at once


def score_table(
    model: keras.Model,
    table: pd.DataFrame,
    file: Path,
    name: str,
    score: str = "spoof-logit",
    windows: str | None = None,
) -> pd.DataFrame:
    """Score the clips of a table into a score file; the rows that could be read, with their cm_score.

    `windows` is a name of WINDOWS; without one, what the threshold that the model carries is from.
    """
    convention, logits_of = SCORES[score]
    windows = windows or operating_point(model).get("windows", "first")
    reader = ClipReader(table)
    rows, logits = WINDOWS[windows](model, reader, name, logits_of)
    for reason in reader.new_failures():
        print(f"left out: {reason}")
    scores = table.iloc[rows].assign(score=-logits.astype(np.float64))
    scores.attrs |= {"convention": convention, "windows": windows}
    dataset = f"{table['dataset'].iloc[0]} {name}"
    write_scores(file, scores, model=model.name, dataset=dataset, windows=windows, convention=convention)
    return scores


def add_clip_arguments(parser: CommandParser) -> None:
    """The options by which a command says which model and which clips it is about."""
    add = parser.add_argument
    add("model", help=".keras or .h5 file, run folder, or what ships: resmax, resmax_tiny")
    add("--data", type=Path, required=True, metavar="DIR", help="dataset, or a CSV of paths and labels")
    add_choice_arguments(parser)


def add_choice_arguments(parser: argparse._ActionsContainer, limit: int | None = None) -> None:
    """The options by which a command says which clips of a dataset it is about."""
    add = parser.add_argument
    add("--split", choices=(*SPLIT_ORDER, "all"), default="all", help="the dataset's own split (%(default)s)")
    words = f"about N clips, stratified by class and attack ({limit or 'all'})"
    add("--limit", type=int, default=limit, metavar="N", help=words)
    add("--seed", type=int, default=1, help="of all that is random (%(default)s)")
    add("--allow-missing", action="store_true", help="leave missing files out instead of stopping")


def chosen_clips(dataset: Path, arguments: argparse.Namespace) -> pd.DataFrame:
    """The rows of a dataset that those options choose."""
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit {arguments.limit}: must be 1 or more")
    if arguments.seed < 0:
        raise UserError(f"--seed {arguments.seed}: must be 0 or more")
    table = read_dataset(dataset).usable(arguments.allow_missing)
    if arguments.split != "all":
        table = table[table["split"] == arguments.split]
    table = table.reset_index(drop=True)
    if table.empty:
        raise UserError(f"{dataset}: no clips in split {arguments.split}")
    if arguments.limit is not None and len(table) > arguments.limit:
        table = stratified_sample(table, arguments.limit / len(table), arguments.seed)
    return table


def main(argv: list[str] | None = None) -> int:
    parser = CommandParser(description="Score a dataset with a trained model.")
    add_clip_arguments(parser)
    add = parser.add_argument
    add("--score", choices=SCORES, default="spoof-logit", help="what a score is (%(default)s)")
    add("--windows", choices=WINDOWS, help="of each clip (those that the model's own threshold is from)")
    add("--set-threshold", action="store_true", help="store the threshold of these scores in the model: on a dev set")
    add("--out", type=Path, default=Path("scores.txt"), metavar="FILE", help="the score file (%(default)s)")
    arguments = parser.parse_args(argv)

    if arguments.set_threshold and arguments.score != "spoof-logit":
        raise UserError("--set-threshold is about the spoof logit, which verdicts are made of: leave out --score")
    if arguments.set_threshold and find_model(arguments.model).resolve().parent == PRETRAINED.resolve():
        raise UserError(f"--set-threshold: {arguments.model} ships with its card; copy its file, and give the copy")
    if not arguments.out.parent.is_dir():
        raise UserError(f"--out {arguments.out}: there is no folder {arguments.out.parent}")
    model = load_model(arguments.model)
    table = chosen_clips(arguments.data, arguments)
    if arguments.set_threshold and (table["split"] == "eval").any():
        raise UserError("--set-threshold: clips of eval are among these, the test set would choose; give --split dev")
    scores = score_table(model, table, arguments.out, arguments.split, arguments.score, arguments.windows)
    incomplete = int(len(scores) < len(table))  # the exit code: what was left out is named above
    print(f"{len(scores):,} scores in {arguments.out}: {SCORES[arguments.score][0]}")
    first = f"the first {input_samples(model) / SAMPLE_RATE:g} s; inference.py and robustness.py hear all"
    print(f"heard of each clip: {first if scores.attrs['windows'] == 'first' else 'all of it'}")
    print("clips of " + ", ".join(f"{split} {count:,}" for split, count in scores["split"].value_counts().items()))
    if scores["label"].nunique() < 2:
        if arguments.set_threshold:
            raise UserError(f"{arguments.data}: clips of one class only; a threshold needs both")
        print("clips of one class only: there are no error rates to give")
        return incomplete
    point = operating_point(model)
    own = arguments.score == "spoof-logit" and point.get("calibration") is not None
    # in full digits: a plain 0.5 means a probability to evaluate
    report = evaluate(scores, name=str(arguments.out), threshold=f"{-point['threshold']:.9e}" if own else "eer")
    if own:
        report["decision"]["source"] = f"the model's own threshold, from {point.get('source', 'its dev set')}"
    print(f"\n{format_report(report)}")
    if arguments.set_threshold:
        set_threshold(model, arguments.model, scores, f"{len(scores)} clips of {arguments.data}, {arguments.split}")
    return incomplete


def set_threshold(model: keras.Model, name: str, scores: pd.DataFrame, source: str) -> None:
    """Store the threshold and calibration of a `score_table` in the model's file and card."""
    path = find_model(name)
    point = fit_operating_point(scores["score"].to_numpy(), scores["label"].to_numpy())
    point |= {"source": source, "windows": scores.attrs["windows"]}
    if "minimum_seconds" in (old := operating_point(model)):
        point["minimum_seconds"] = old["minimum_seconds"]
    set_operating_point(model, point)
    card = (read_card(path) or {}) | {"operating_point": point}
    for decisions in ("metrics", "operating_points"):  # at the old threshold; a run keeps them in its metrics.json
        card.pop(decisions, None)
    for row in [*card.get("leave_pages_out", {}).values(), *card.get("elsewhere", {}).values()]:
        for decision in ("far", "frr", "decided", "wrong_of_decided"):
            row.pop(decision, None)
    save_model(model, path, card)
    print(f"{path}: threshold {point['threshold']:+.4f} (logit) and calibration are now those of these scores")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
