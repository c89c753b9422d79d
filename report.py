"""The report of a run: settings, learning curves, errors and how they sound, in one HTML file in the run folder.

    python report.py runs/<run>                      again, from the files in the folder
    python report.py runs/<run> --data LA            the same, with the clips where they are now

Every run ends with it. What it says under a figure is computed (run_findings.py). The clips are needed for the players
alone; one that is not there any more is said so and the rest goes on.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import run_findings as findings
from config import DEV_CHOSE, LABELS, TABLE_COLUMNS, Config, TrainingConfig, feature_config, read_config
from data_utils import read_dataset
from demo_corpus import DEMO_FOLDER, NOTICE
from errors import CommandParser, UserError, run_command
from figure_style import CLASS_NAMES
from html_page import Page
from metrics import hardest_attacks
from plots import attack_bars, draw_evaluation, learning_curves
from run_findings import percent
from schedule import plan_stages
from score_files import read_scores
from splits import SPLIT_ORDER, SPLITS
from worst_errors import errors_of, show_errors

UNRECORDED = "not recorded by this run"


@dataclass(frozen=True)
class Run:
    """What a finished run folder holds."""

    folder: Path
    config: Config
    card: dict[str, Any]
    reports: dict[str, dict[str, Any]]  # dev and, where there is one, eval
    history: pd.DataFrame
    scores: dict[str, pd.DataFrame]

    @property
    def split(self) -> str:
        """The split that the figures are about."""
        return "eval" if "eval" in self.reports else "dev"


def read_run(folder: Path) -> Run:
    """Read a run folder; one that is not finished is refused."""
    if not (folder / "metrics.json").is_file():
        raise UserError(f"{folder}: no finished run, metrics.json is missing; give a run folder such as runs/<run>")
    reports, card = (_read_json(folder / name) for name in ("metrics.json", "best.json"))
    scores = {}
    for split, report in reports.items():
        scores[split] = read_scores(folder / f"scores_{split}.txt")
        written = {"_".join(name.split()): name for name in report["per_attack"]}  # a score file has no blanks in names
        scores[split]["attack"] = scores[split]["attack"].replace(written)
    try:
        history = pd.read_csv(folder / "history.csv")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'history.csv'}: not a readable history ({error})") from error
    return Run(folder, read_config(folder / "config.json"), card, reports, history, scores)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); a finished run has it") from error


def find_clips(config: Config, data: Path | None = None) -> tuple[pd.DataFrame, str]:
    """The table of the run's dataset; an empty one and the reason where it is not found. `data`: where it is now."""
    try:
        return read_dataset(Path(data or config.data or DEMO_FOLDER)).table, ""
    except UserError as error:
        return pd.DataFrame(columns=TABLE_COLUMNS), str(error)


def write_report(folder: Path, clips: pd.DataFrame, missing: str = "") -> Path:
    """Draw the figures of a run folder and write its report.html.

    `clips` (utterance_id, path, speaker) say where the players find their sound; `missing` why some will not.
    """
    run = read_run(folder)
    about = f"{run.config.model} on {run.config.features.kind}, trained on {run.card['data']['dataset']}"
    page = Page(f"Run {folder.resolve().name}", about)
    summarise(page, run)
    show_data(page, run)
    show_training(page, run)
    show_scores(page, run)
    show_attacks(page, run)
    show_wrong(page, run, clips, missing)
    show_threshold(page, run)
    show_time(page, run)
    show_settings(page, run)
    return page.write(folder / "report.html")


def sentences(page: Page, parts: list[str]) -> None:
    if parts:
        page.text(" ".join(parts))


# ---------------------------------------------------------------- what came out


def summarise(page: Page, run: Run) -> None:
    page.section("In short")
    report, interval = run.reports[run.split], findings.interval_of(run.reports[run.split])
    over = f", 95 % interval over {interval[1]}" if interval else ""
    page.text(f"EER on {run.split}: {findings.eer_with_interval(report)}{over}. {findings.verdicts(report, run.split)}")
    if "eval" in run.reports:
        sentences(page, findings.new_attacks(run.reports["dev"], run.reports["eval"], run.card["data"]["attacks"]))
    page.table(pd.DataFrame([_figures(split, report) for split, report in run.reports.items()]))
    page.text("What these figures do not mean: " + " ".join(limits(run)))


def _figures(split: str, report: dict[str, Any]) -> dict[str, Any]:
    decision, costs = report["decision"], report["t_dcf"]
    tdcf = {f"min t-DCF {year}": costs[f"t_dcf_{year}"] for year in (2019, 2021) if f"t_dcf_{year}" in costs}
    return {
        "split": split,
        "EER": findings.eer_with_interval(report),
        "AUC": report["auc"],
        "min DCF": report["min_dcf"],
        **tdcf,
        "bona fide called spoof": percent(decision["frr"], 2),
        "spoof passing": percent(decision["far"], 2),
        "accuracy": percent(decision["accuracy"], 2),
        "balanced accuracy": percent(decision["balanced_accuracy"], 2),
    }


def limits(run: Run) -> list[str]:
    """What a reader must know before believing the figures."""
    training = run.config.training
    known = [f"The split is {training.split}: {SPLITS[training.split]}."]
    if run.card["data"]["dataset"] == "demo_corpus":
        known.insert(0, f"The data are the {NOTICE}")
    if "eval" not in run.reports:
        known.append(f"There is no eval set: these are figures of dev, {DEV_CHOSE[training.select]}.")
    if training.sample < 1:
        known.append(f"Only {percent(training.sample)} of the training clips were used.")
    if run.config.limit is not None:
        known.append(f"Every split was cut to about {run.config.limit} clips.")
    known += [f"{split}: {text}." for split, report in run.reports.items() for text in report["warnings"]]
    known.append(f"This is one run with seed {training.seed}; the interval does not cover what another seed changes.")
    return known


def show_data(page: Page, run: Run) -> None:
    page.section("Data")
    data, rows, unread = run.card["data"], [], []
    for split in SPLIT_ORDER:
        counts = data["clips"][split]
        speakers = data.get("speakers", {}).get(split)
        row = {"split": split, **{name: counts[label] for label, name in zip(LABELS, CLASS_NAMES, strict=True)}}
        row["speakers"] = UNRECORDED if speakers is None else speakers or "unknown"
        rows.append(row | {"attacks": ", ".join(data["attacks"][split]) or "none named"})
        if split in run.scores and (lost := sum(counts.values()) - len(run.scores[split])):
            unread.append(f"{lost:,} clips of {split} could not be read and are left out of all figures.")
    page.table(pd.DataFrame(rows))
    sentences(page, [note for note in (data.get("split_note"), *unread) if note])


def show_training(page: Page, run: Run) -> None:
    page.section("Learning curves")
    best = run.card.get("training", {}).get("best")
    curves = learning_curves(run.history, run.folder / "learning_curves.png")
    page.figure(curves, "loss, dev EER, accuracy by epoch", " ".join(findings.learning(run.history, best)))


def show_scores(page: Page, run: Run) -> None:
    page.section("Scores and decisions")
    report, scores = run.reports[run.split], run.scores[run.split]
    trained_on = run.card["data"]["attacks"]["train"] or None
    det, roc, histogram, confusion, *_ = draw_evaluation(scores, report, run.folder, trained_on)
    page.figure(histogram, f"histogram of the {run.split} scores by class", findings.threshold(report))
    with page.side_by_side():
        page.figure(det, f"DET curve of {run.split}")
        page.figure(roc, f"ROC curve of {run.split}")
    sentences(page, findings.ranking(report, scores))
    page.figure(confusion, "confusion matrices, as they are and balanced", findings.balance(report))


def show_attacks(page: Page, run: Run) -> None:
    page.section("Attacks")
    trained_on = run.card["data"]["attacks"]["train"]
    for split in reversed(run.reports):
        report = run.reports[split]
        if len(report["per_attack"]) < 2:
            page.text(f"{split} names no attacks to tell apart.")
            continue
        bars = run.folder / "attacks.png"  # drawn with the scores
        if split != run.split:
            title = f"EER of every attack of {split}"
            known = trained_on or None
            bars = attack_bars(report["per_attack"], report["eer"], run.folder / f"attacks_{split}.png", title, known)
        page.figure(bars, f"EER of every attack of {split}", " ".join(findings.attacks(report, trained_on, split)))
        page.table(_attack_table(report, trained_on))
    rows = [row for report in run.reports.values() for row in report["per_attack"].values()]
    if any("eer_interval" in row for row in rows):
        over = findings.interval_of(run.reports[run.split])[1]
        page.text(f"Intervals (95 %) are from resampling {over}; attacks whose intervals overlap may well be equal.")


def _attack_table(report: dict[str, Any], trained_on: list[str]) -> pd.DataFrame:
    rows = []
    for attack in hardest_attacks(report["per_attack"], len(report["per_attack"])):
        row = report["per_attack"][attack]
        low, high = row.get("eer_interval", (np.nan, np.nan))
        rows.append(
            {
                "attack": attack,
                "clips": row["trials"],
                "EER": percent(row["eer"], 2),
                "95 % interval": "" if np.isnan(low) else f"{100 * low:.2f} to {percent(high, 2)}",
                "passing the threshold": percent(row["far"], 2),
                "in training": attack in trained_on,
            }
        )
    table = pd.DataFrame(rows)
    return table if table["95 % interval"].any() else table.drop(columns="95 % interval")


def show_wrong(page: Page, run: Run, clips: pd.DataFrame, missing: str) -> None:
    page.section("Worst errors")
    threshold, calibration = run.reports[run.split]["decision"]["threshold"], run.card["operating_point"]["calibration"]
    wrong, trials = errors_of(run.scores[run.split], threshold, calibration, clips)
    if wrong.empty:
        page.text(f"No clip of {run.split} is on the wrong side of the threshold.")
        return
    sentences(page, findings.wrong_clips(wrong, trials))
    if missing:
        page.text(f"No players: {missing}. `python report.py {run.folder.as_posix()} --data DIR` adds them.")
    show_errors(page, wrong, run.config.features.samples)


# ---------------------------------------------------------------- how it came about


def show_threshold(page: Page, run: Run) -> None:
    page.section("Threshold and calibration")
    point, decision = run.card["operating_point"], run.reports[run.split]["decision"]
    low, high = point["uncertain"]
    fit = point["calibration"]
    rows = {
        "rule": f"{point['rule']}, threshold {point['threshold']:.4f} (score {-point['threshold']:.4f})",
        "used here": decision["source"],
        "fixed on": f"dev: {point['dev_bonafide']:,} bona fide and {point['dev_spoof']:,} spoof clips",
        "uncertain": f"spoof_logit from {low:.4f} to {high:.4f}: {point['uncertain_rule']}",
        "calibration": f"a = {fit['a']:.4f}, b = {fit['b']:.4f}; {fit['domain']}",
    }
    page.table(pd.DataFrame(rows.items(), columns=["what", "value"]))
    sentences(page, findings.band(run.reports[run.split], point, run.scores[run.split]))


def show_time(page: Page, run: Run) -> None:
    page.section("Time and machine")
    history, training, machine = run.history, run.card.get("training", {}), run.card["environment"]
    later = history.iloc[1:] if len(history) > 1 else history  # the first epoch compiles
    scoring, speed = training.get("scoring"), training.get("speed")

    def told(value: Any, text: Callable[[Any], str]) -> str:
        return UNRECORDED if value is None else text(value)

    seconds = history.get("seconds")
    rows = {
        "epochs": f"{len(history)} of at most {sum(stage.epochs for stage in plan_stages(run.config.training))}",
        "training in all": told(seconds, lambda s: f"{s.sum() / 60:.1f} minutes, dev included"),
        "an epoch": told(seconds, lambda s: f"{s[later.index].median():.1f} s (median)"),
        "training": f"{later['clips_per_second'].median():,.0f} clips/s (median)",
        "input alone": told((speed or {}).get("input"), lambda rate: f"{rate:,.0f} clips/s"),
        "scoring": told(scoring, lambda s: f"{s['clips'] / s['seconds']:,.0f} clips/s ({s['clips']:,} clips of dev)"),
        "processor": told(machine.get("processor"), str),
        "accelerators": told(machine.get("accelerators"), lambda names: ", ".join(names) or "none"),
        "system": machine["system"],
        "commit": machine["commit"] or "not from a git checkout",
    }
    page.table(pd.DataFrame(rows.items(), columns=["what", "measured"]))
    sentences(page, findings.speed(history, speed))


def show_settings(page: Page, run: Run) -> None:
    page.section("Settings, and how to repeat it")
    config, machine = run.config, run.card["environment"]
    page.preformatted(f"python main.py --config {(run.folder / 'config.json').as_posix()}")
    changed = [
        f"{field.name} = {getattr(part, field.name)!r}"
        for part, usual in (
            (config.features, feature_config(config.features.kind)),
            (config.training, TrainingConfig()),
        )
        for field in fields(part)
        if getattr(part, field.name) != getattr(usual, field.name)
    ]
    page.text(f"Recipe {config.recipe}. Other than the defaults: {', '.join(changed) or 'nothing'}.")
    page.preformatted(json.dumps(config.to_dict(), indent=1))
    about = ("processor", "accelerators", "system", "commit")
    page.table(
        pd.DataFrame([(k, v) for k, v in machine.items() if k not in about and v], columns=["package", "version"])
    )


def main(argv: list[str] | None = None) -> int:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the dataset is now, if it has moved")
    arguments = parser.parse_args(argv)
    clips, missing = find_clips(read_run(arguments.run).config, arguments.data)
    if arguments.data is not None and missing:
        raise UserError(missing)
    page = write_report(arguments.run, clips, missing)
    print(f"report {page}" + (f" without players: {missing}" if missing else ""))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
