"""Train a detector, measure it on held-out attacks, leave everything in one run folder.

    python main.py                                  demo corpus, about five minutes on two cores
    python main.py --data LA --recipe resmax_la     a real dataset

The same command goes on with a run that was interrupted; `--config runs/<run>/config.json` repeats a finished
one. A run folder holds config.json, log.txt, history.csv, learning_curves.png, tensorboard/, last.npz (the
state to resume from), best.keras with its card best.json, the score files of dev and eval, metrics.json and
the figures.
"""

import argparse
import contextlib
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from checkpoint import read_progress
from config import LABELS, Config, check_training, feature_config, override, read_config, write_json
from data_utils import read_dataset
from demo_corpus import write_demo_corpus
from errors import CommandParser, UserError, run_command
from recipes import load_recipe, recipe_names, recipe_summary
from schedule import plan_stages
from splits import SPLIT_ORDER, SPLITS, split_table, stratified_sample

DEMO_FOLDER = Path("demo_corpus")


def numbers(kind: type) -> Any:
    """An argument type for comma-separated values: `--stages 0.4,1.0`."""

    def parse(text: str) -> tuple:
        return tuple(kind(part) for part in text.split(","))

    parse.__name__ = f"comma-separated {kind.__name__}"
    return parse


def positive(text: str) -> int:
    """An argument type for whole numbers from 1 on."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(
        usage="python main.py [--data DIR] [--recipe NAME] [options]",
        description="Train and evaluate a detector. Options left out come from the recipe.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=110),
    )
    add = parser.add_argument
    add("--data", metavar="DIR", help="dataset; without it a built-in demo corpus is used")
    add("--recipe", metavar="NAME", help="what to train and how (resmax_la; without data resmax_demo)")
    add("--config", type=Path, metavar="FILE", help="repeat the run that wrote this config.json")
    add("--list", action="store_true", help="list the recipes and leave")
    add(
        "--allow-missing",
        action="store_true",
        default=None,
        help="leave missing files out instead of stopping",
    )
    add("--split", metavar="NAME", help=", ".join(SPLITS))
    add(
        "--sample",
        type=float,
        metavar="SHARE",
        help="train on this share, classes and attacks kept in proportion",
    )
    add(
        "--limit",
        type=positive,
        metavar="N",
        help="about N clips a split, every attack at least once: a quick look",
    )
    add("--features", metavar="KIND", help="front end: log_stft, mel, lfcc, cqt, raw")
    add("--stages", type=numbers(float), metavar="S,S", help="share of the data in each stage, as in 0.4,1.0")
    add("--epochs", type=numbers(int), metavar="N[,N]", help="at most so many, for every or for each stage")
    add(
        "--learning-rate",
        type=numbers(float),
        metavar="R[,R]",
        help="at the start of the first or of each stage",
    )
    add("--final-learning-rate", type=float, metavar="R", help="where the schedule ends")
    add("--schedule", metavar="NAME", help="sigmoid (the ResMax paper's), cosine, constant")
    add("--batch-size", type=positive, metavar="N")
    add(
        "--balance",
        metavar="HOW",
        help="none, weights (in the loss), sampling (half of each epoch bona fide)",
    )
    add(
        "--bonafide-weight",
        type=float,
        metavar="W",
        help="with weights: this instead of the inverse frequency",
    )
    add("--clip-norm", type=float, metavar="G", help="largest global gradient norm")
    add("--precision", metavar="NAME", help="float32, mixed_bfloat16, mixed_float16 (GPU)")
    add("--patience", type=positive, metavar="N", help="end a stage after N epochs without a better dev EER")
    add(
        "--deterministic",
        action="store_true",
        default=None,
        help="equal numbers at every run, slower on a GPU",
    )
    add("--cache", metavar="WHERE", help="decoded audio: auto, memory, disk, none")
    add("--seed", type=int, metavar="N")
    add("--asv-scores", metavar="FILE", help="ASV scores of the eval set, for the t-DCF")
    add("--runs", type=Path, metavar="DIR", default=Path("runs"), help="where run folders go (runs)")
    add("--fresh", action="store_true", help="start anew even if this run was interrupted before")
    add("--stop-after", type=positive, metavar="N", help="pause when N epochs are done; the same command goes on")
    return parser.parse_args(argv)


def configure(arguments: argparse.Namespace) -> Config:
    """The recipe or config file with what the command line changes."""
    if arguments.config is not None and arguments.recipe is not None:
        raise UserError("--config and --recipe both say what to train: give one of them")
    if arguments.config is not None:
        config = read_config(arguments.config)
    else:
        config = load_recipe(arguments.recipe or ("resmax_la" if arguments.data else "resmax_demo"))
    names = ("data", "allow_missing", "limit", "asv_scores")
    config = replace(config, **{name: value for name in names if (value := getattr(arguments, name)) is not None})
    if arguments.features is not None:
        config = replace(config, features=feature_config(arguments.features))
    names = (
        "split sample stages epochs learning_rate final_learning_rate schedule batch_size balance "
        "bonafide_weight clip_norm precision patience deterministic cache seed"
    )
    if arguments.balance not in (None, "weights") and arguments.bonafide_weight is None:
        config = replace(config, training=replace(config.training, bonafide_weight=None))  # the recipe's goes with it
    config = override(config, **{name: getattr(arguments, name) for name in names.split()})
    if config.asv_scores is not None and not Path(config.asv_scores).is_file():
        raise UserError(f"--asv-scores {config.asv_scores}: no such file")
    check_training(config.training)
    plan_stages(config.training)  # a mistake shows before anything is read or written
    return config


# ---------------------------------------------------------------- data


def prepare_tables(config: Config) -> dict[str, pd.DataFrame]:
    """The rows of train, dev and eval, after the split and the limits of the config."""
    if config.data is None:
        print("no --data given: using the built-in demo corpus, which is synthetic throughout")
        folder = write_demo_corpus(DEMO_FOLDER)
    else:
        folder = Path(config.data)
    table = read_dataset(folder).usable(config.allow_missing)
    table = split_table(table, config.training.split, config.training.seed)
    print(table.attrs["split_note"])
    tables = {name: table[table["split"] == name].reset_index(drop=True) for name in SPLIT_ORDER}
    if config.limit is not None:
        for name, rows in tables.items():
            if len(rows) > config.limit:
                tables[name] = stratified_sample(rows, config.limit / len(rows), config.training.seed)
    tables["train"] = stratified_sample(tables["train"], config.training.sample, config.training.seed)
    for name, rows in tables.items():
        bonafide, spoof = ((rows["label"] == label).sum() for label in range(len(LABELS)))
        attacks = ", ".join(sorted(set(rows["attack"]) - {"-"}))
        print(f"  {name:<5} {bonafide:>6,} bona fide  {spoof:>6,} spoof  ({attacks or 'no attacks'})")
    return tables


# ---------------------------------------------------------------- the run folder


def open_run(config: Config, runs: Path, fresh: bool) -> Path:
    """The newest unfinished run of exactly this config, or a new folder."""
    for file in [] if fresh else sorted(runs.glob("*/config.json"), reverse=True):
        try:
            if read_config(file) != config or (file.parent / "metrics.json").exists():
                continue
            if (owner := training_process(file.parent)) is None:
                return file.parent
            print(f"{file.parent} is being trained by process {owner}: this is another run")
        except UserError as error:
            print(f"passed over: {error}")
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{config.recipe}"
    run = runs / name
    count = 2
    while run.exists():
        run, count = runs / f"{name}-{count}", count + 1
    run.mkdir(parents=True)
    config.write(run / "config.json")
    return run


def training_process(run: Path) -> int | None:
    """The number of the living process that trains into a run folder; None if it ended, however it did."""
    try:
        owner = int((run / "process").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return owner if psutil.pid_exists(owner) else None


@contextlib.contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Keep equal commands out of a run folder while this process works in it."""
    owner = run / "process"
    owner.write_text(str(os.getpid()), encoding="utf-8")
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)


@contextlib.contextmanager
def logged(file: Path) -> Iterator[None]:
    """Write what is printed to the end of `file` as well."""

    class Tee:
        def write(self, text: str) -> int:
            log.write(text)
            log.flush()
            return terminal.write(text)

        def __getattr__(self, name: str) -> Any:
            return getattr(terminal, name)

    terminal = sys.stdout
    with file.open("a", encoding="utf-8") as log, contextlib.redirect_stdout(Tee()):
        yield


def environment() -> dict[str, str | None]:
    """What the numbers of a run depend on beside its config."""
    packages = ("keras", "tensorflow", "numpy", "scipy", "librosa", "soundfile", "soxr", "av")
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "system": platform.platform(),
        "commit": git_commit(Path(__file__).parent / ".git"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # tensorflow-cpu, or another backend
        return None


def git_commit(git: Path) -> str | None:
    """The commit that is checked out; None outside a git checkout."""
    if not (git / "HEAD").is_file():
        return None
    head = (git / "HEAD").read_text(encoding="utf-8").strip().removeprefix("ref: ")
    if (git / head).is_file():
        return (git / head).read_text(encoding="utf-8").strip()
    packed = git / "packed-refs"
    references = packed.read_text(encoding="utf-8").split() if packed.is_file() else []
    return references[references.index(head) - 1] if head in references else head


# ---------------------------------------------------------------- after training


def score_split(model: Any, table: pd.DataFrame, name: str, run: Path) -> pd.DataFrame:
    """Score a split's clips, write scores_<name>.txt; the table of scores."""
    from data_generator import ClipReader
    from inference import score_clips
    from score_files import write_scores

    reader = ClipReader(table)
    rows, logits = score_clips(model, reader, name)
    for reason in reader.new_failures():
        print(f"left out: {reason}")
    scores = table.iloc[rows].assign(score=-logits.astype(float))
    write_scores(run / f"scores_{name}.txt", scores, model=model.name, dataset=f"{table['dataset'].iloc[0]} {name}")
    return scores


def measure(config: Config, tables: dict[str, pd.DataFrame], run: Path) -> dict:
    """Score dev and eval with the best model, fix its threshold on dev, write card, metrics and figures."""
    from calibration import operating_point
    from evaluate import evaluate, format_report
    from model import load_model, save_model, set_operating_point
    from plots import draw_evaluation

    model = load_model(run / "best.keras")
    dev = score_split(model, tables["dev"], "dev", run)
    point = operating_point(dev["score"].to_numpy(), dev["label"].to_numpy())
    set_operating_point(model, point)
    reports = {"dev": evaluate(dev, name=f"{run.name} dev")}
    shown = "dev"
    if tables["eval"]["label"].nunique() == 2:
        scores = score_split(model, tables["eval"], "eval", run)
        asv_scores = Path(config.asv_scores) if config.asv_scores else None
        options = {"asv_scores": asv_scores, "dev": dev, "threshold": "dev-eer"}
        reports["eval"] = evaluate(scores, name=f"{run.name} eval", **options)
        draw_evaluation(scores, reports["eval"], run)
        shown = "eval"
    else:
        print("no eval clips of both classes: the figures below are dev's, on which the model was chosen")
        if config.asv_scores is not None:
            print(f"{config.asv_scores} is not used: a t-DCF is computed on eval only")
        draw_evaluation(dev, reports["dev"], run)
    counts = {
        name: {label: int((rows["label"] == i).sum()) for i, label in enumerate(LABELS)}
        for name, rows in tables.items()
    }
    card = {
        "model": config.model,
        "parameters": model.count_params(),
        "config": config.to_dict(),
        "labels": list(LABELS),
        "output": "one logit, higher = more likely spoof; apply a sigmoid once for a probability",
        "operating_point": point,
        "data": {
            "dataset": tables["train"]["dataset"].iloc[0],
            "clips": counts,
            "attacks": {name: sorted(set(rows["attack"]) - {"-"}) for name, rows in tables.items()},
        },
        "metrics": reports,
        "environment": environment(),
        "licence": "MIT for code and weights; the training data keep their own licences",
    }
    save_model(model, run / "best.keras", card)
    print(f"\n{format_report(reports[shown])}\n")
    write_json(run / "metrics.json", reports)  # its presence says that the run is complete
    return reports


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    if arguments.list:
        for name in recipe_names():
            print(f"{name:<14} {recipe_summary(name)}")
        return 0
    config = configure(arguments)
    started = time.monotonic()
    tables = prepare_tables(config)
    from model import build_network  # imports Keras, which takes seconds

    build_network(config)  # what does not fit together is refused before there is a run folder
    run = open_run(config, arguments.runs, arguments.fresh)
    with claimed(run), logged(run / "log.txt"):
        from training import train

        done = read_progress(run).epoch
        print(f"run {run}" + (f", going on after epoch {done}" if done else ""))
        try:
            progress = train(config, tables["train"], tables["dev"], run, arguments.stop_after)
        except KeyboardInterrupt:
            print(f"\nstopped after epoch {read_progress(run).epoch}; the same command goes on from there")
            raise
        if not progress.finished:
            print(f"paused after epoch {progress.epoch}; the same command without --stop-after goes on")
            return 0
        print(f"best epoch {progress.best['epoch']}, dev EER {100 * progress.best['dev_eer']:.2f} %; measuring")
        measure(config, tables, run)
        example = tables["eval" if len(tables["eval"]) else "dev"]["path"].iloc[0]
        print(f"run folder  {run}  ({(time.monotonic() - started) / 60:.1f} minutes)")
        print(f"next        python inference.py {example} --model {run}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
