"""Train a detector, measure it on held-out attacks, leave everything in one run folder.

    python main.py                                       demo corpus, three to four minutes on two cores
    python main.py --data LA --recipe resmax_la          a real dataset
    python main.py --list                                every recipe and network, what it costs, what it reached
    python main.py --compare resmax_stft,lcnn_la,simple_cnn_balanced --data LA --epochs 5

The same command goes on with a run that was interrupted; `--config runs/<run>/config.json` repeats a finished
one. A run folder holds config.json, log.txt, history.csv, learning_curves.png, tensorboard/, last.npz (the
state to resume from), best.keras with its card best.json, the score files of dev and eval, metrics.json,
the figures and report.html, which shows all of it.
"""

import argparse
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from augmentation import AUGMENTATIONS, Augmenter
from config import (
    CHOICES,
    SAMPLE_RATE,
    Config,
    FeatureConfig,
    TrainingConfig,
    check_training,
    feature_config,
    read_config,
)
from errors import CommandParser, UserError, run_command
from experiment import carry_out, prepare_tables
from recipes import load_recipe
from schedule import plan_stages
from score_files import read_asv_scores
from splits import SPLITS

OFF = "none"  # turns off what a recipe turned on


def listed(kind: type) -> Any:
    """An argument type for comma-separated values: `--stages 0.4,1.0`."""

    def parse(text: str) -> tuple:
        return tuple(kind(part) for part in text.split(","))

    parse.__name__ = f"comma-separated {kind.__name__}"
    return parse


def folder(text: str) -> str:
    """An argument type for folders: `runs/a/` is `runs/a`."""
    return str(Path(text))


def or_none(kind: Any) -> Any:
    """An argument type for values of a kind, or `none`."""

    def parse(text: str) -> Any:
        return OFF if text == OFF else kind(text)

    parse.__name__ = kind.__name__
    return parse


def assignment(text: str) -> tuple[str, Any]:
    """An argument type for `name=value`; the value is JSON or else a string."""
    name, sign, value = text.partition("=")
    if not sign:
        raise ValueError
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def positive(text: str) -> int:
    """An argument type for whole numbers from 1 on."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def positive_number(text: str) -> float:
    """An argument type for finite numbers above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def training_options() -> CommandParser:
    """The parser of all that says what to train and how."""
    parser = CommandParser(
        usage="python main.py [--data DIR] [--recipe NAME] [options]",
        description="Train and evaluate a detector. Options left out come from the recipe.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=118),
        add_help=False,
    )
    add = parser.add_argument_group("what").add_argument
    add("-h", "--help", action="help", help="show this and leave")
    add("--data", metavar="DIR", help="dataset; without it a built-in demo corpus is used")
    add("--extra", metavar="DIR", help="a dataset that is only trained on, less what comes from pages of dev and eval")
    add("--demo", action="store_true", help="use the demo corpus, whatever the recipe")
    add("--recipe", metavar="NAME", help="what to train and how (resmax_la; without data resmax_demo)")
    add("--config", type=Path, metavar="FILE", help="repeat the run that wrote this config.json")
    add("--list", action="store_true", help="list recipes and networks with their size and cost, and leave")
    add(
        "--compare",
        type=listed(str),
        metavar="A,B,C",
        help="train these recipes in turn with the same options, tabulate",
    )
    add("--model", metavar="NAME", help="another network, on the front end it is meant for")
    add("--model-arg", type=assignment, action="append", metavar="K=V", help="an argument of the network; repeatable")
    add("--features", metavar="KIND", help="front end: log_stft, mel, lfcc, cqt, raw")
    add("--seconds", type=positive_number, metavar="S", help="how much of a clip the network hears at once")
    add("--window", type=positive, metavar="N", help="samples of an STFT's window (log_stft, mel)")
    add("--split", metavar="NAME", help=", ".join(SPLITS))
    add("--sample", type=float, metavar="SHARE", help="train on this share, classes and attacks kept in proportion")
    add("--limit", type=positive, metavar="N", help="about N clips a split, every attack at least once: a quick look")
    add("--allow-missing", action="store_true", default=None, help="leave missing files out instead of stopping")
    add("--asv-scores", metavar="FILE", help="ASV scores of the eval set, for the t-DCF")

    add = parser.add_argument_group("training").add_argument
    add("--stages", type=listed(float), metavar="S,S", help="share of the data in each stage, as in 0.4,1.0")
    add("--epochs", type=listed(int), metavar="N[,N]", help="at most so many, for every or for each stage")
    add("--learning-rate", type=listed(float), metavar="R[,R]", help="at the start of the first or of each stage")
    add("--final-learning-rate", type=float, metavar="R", help="where the schedule ends")
    add("--schedule", metavar="NAME", help="sigmoid (the ResMax paper's), cosine, halving (every 10 epochs), constant")
    add("--batch-size", type=positive, metavar="N")
    add("--loss", metavar="NAME", help="bce, focal, oc_softmax, p2sgrad")
    add("--teachers", type=or_none(listed(folder)), metavar="RUN,RUN", help="learn from these trained runs as well")
    add("--teacher-share", type=float, metavar="SHARE", help="how much of the label is what they say (0.5)")
    add("--balance", metavar="HOW", help="none, weights (in the loss), sampling (half of each epoch bona fide), groups")
    add("--extra-share", type=float, metavar="SHARE", help="with groups: how much of each class comes from --extra")
    add("--pairs", type=float, metavar="SHARE", help="of an epoch: recordings of --extra, each beside a copy of it")
    add(
        "--bonafide-weight",
        type=or_none(float),
        metavar="W",
        help="with weights: this instead of the inverse frequency",
    )
    add("--clip-norm", type=or_none(float), metavar="G", help="largest global gradient norm")
    add("--weight-decay", type=or_none(float), metavar="D", help="decoupled, times the learning rate")
    add(
        "--sam",
        type=or_none(float),
        metavar="R",
        help="sharpness-aware minimisation of this radius (0.05), twice the work",
    )
    add("--swa", type=or_none(float), metavar="SHARE", help="average the weights of this last share of the epochs")
    add("--precision", metavar="NAME", help="float32, mixed_bfloat16, mixed_float16 (GPU)")
    add("--select", metavar="WHICH", help="best (epoch by dev EER) or last, for a dev that also measures")
    add("--patience", type=positive, metavar="N", help="end a stage after N epochs without a better dev EER")

    add = parser.add_argument_group("augmentation (`none` turns off what the recipe has on)").add_argument
    add("--augment", type=or_none(listed(str)), metavar="A,B", help=", ".join(AUGMENTATIONS))
    add("--augment-probability", type=float, metavar="P", help="how many of the clips get one of them")
    add("--augment-rounds", type=positive, metavar="N", help="do that N times, one on top of the other")
    add("--augment-only", metavar="CLASS", help="both, bonafide, spoof")
    add("--bonafide-copies", type=or_none(float), metavar="N", help="augmented extra copies for each bona fide clip")
    add(
        "--mixup",
        type=or_none(float),
        metavar="ALPHA",
        help="blend clips of a batch, the share from Beta(ALPHA, ALPHA)",
    )
    add(
        "--spec-augment",
        type=or_none(int),
        metavar="N",
        help="mask so many stripes of the features in time and in frequency",
    )
    add(
        "--mask-high",
        type=or_none(listed(float)),
        metavar="S,S",
        help="mask the bins above a share drawn from these, as in 0.80,0.87",
    )
    add("--mask-low", type=or_none(listed(float)), metavar="S,S", help="mask the bins below a share drawn from these")
    add("--mask-probability", type=float, metavar="P", help="how many of the clips are masked")

    add = parser.add_argument_group("running").add_argument
    add("--seed", type=int, metavar="N")
    add("--deterministic", action="store_true", default=None, help="equal numbers at every run, slower on a GPU")
    add("--cache", metavar="WHERE", help="decoded audio: auto, memory, disk, none")
    add("--runs", type=Path, metavar="DIR", default=Path("runs"), help="where run folders go (runs)")
    add("--fresh", action="store_true", help="start anew even if this run was interrupted before")
    add("--stop-after", type=positive, metavar="N", help="pause when N epochs are done; the same command goes on")
    return parser


def configure(arguments: argparse.Namespace, recipe: str | None = None) -> Config:
    """The config file or recipe (the one given here comes first) with what the command line changes."""
    if arguments.config is not None and arguments.recipe is not None:
        raise UserError("--config and --recipe both say what to train: give one of them")
    if arguments.data is not None and arguments.demo:
        raise UserError("--data and --demo both say what to train on: give one of them")
    if arguments.config is not None:
        config = read_config(arguments.config)
    else:
        config = load_recipe(recipe or arguments.recipe or ("resmax_la" if arguments.data else "resmax_demo"))
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    chosen = ("data", "extra", "allow_missing", "limit", "asv_scores")
    config = replace(config, **{name: given[name] for name in chosen if name in given})
    if arguments.demo:
        config = replace(config, data=None)
    if arguments.model is not None:
        from model import model_spec

        features = feature_config(model_spec(arguments.model).front_end)
        name = f"{config.recipe}-{arguments.model}"  # a run folder should not bear another network's name
        config = replace(config, recipe=name, model=arguments.model, model_args={}, features=features)
    if arguments.model_arg is not None:
        config = replace(config, model_args={**config.model_args, **dict(arguments.model_arg)})
    if arguments.features is not None:
        config = replace(config, features=feature_config(arguments.features))
    config = replace(config, features=changed_features(config.features, arguments))
    changes = {f.name: given[f.name] for f in fields(TrainingConfig) if f.name in given}
    if changes.get("balance", "weights") != "weights":
        changes.setdefault("bonafide_weight", OFF)  # the recipe's goes with it
    if changes.get("augment") == OFF:
        changes.setdefault("bonafide_copies", OFF)
    without = {f.name: f.default for f in fields(TrainingConfig)}
    without["clip_norm"] = None
    changes = {
        name: without[name] if value == OFF and OFF not in CHOICES.get(name, ()) else value
        for name, value in changes.items()
    }
    config = replace(config, training=replace(config.training, **changes))
    refuse_without_effect(config, changes)
    if config.asv_scores is not None:
        if not Path(config.asv_scores).is_file():
            raise UserError(f"--asv-scores {config.asv_scores}: no such file")
        read_asv_scores(Path(config.asv_scores))  # another kind of file shows now, not after the training
    training = config.training
    check_training(training)  # a mistake shows before anything is read or written
    plan_stages(training)
    if training.augment:
        Augmenter(training.augment, training.augment_probability, training.augment_only)
    return config


def changed_features(features: FeatureConfig, arguments: argparse.Namespace) -> FeatureConfig:
    """A front end with the length and the window that the command line wants."""
    if arguments.seconds is not None:
        features = replace(features, samples=max(1, round(arguments.seconds * SAMPLE_RATE)))
    if arguments.window is not None:
        if features.kind not in ("log_stft", "mel"):
            raise UserError(f"--window has no effect on {features.kind}; log_stft and mel have one")
        features = replace(features, window=arguments.window)
    return features


def refuse_without_effect(config: Config, changes: dict[str, Any]) -> None:
    """Refuse an option that changes nothing, for it is meant to."""
    training = config.training
    needs = {
        "extra_share": ("--extra and --balance groups", config.extra and training.balance == "groups"),
        "pairs": ("--extra and --balance groups", config.extra and training.balance == "groups"),
        "teacher_share": ("--teachers", training.teachers),
        "augment_only": ("--augment", training.augment),
        "augment_probability": ("--augment", training.augment),
        "augment_rounds": ("--augment", training.augment),
        "mask_probability": ("a mask", training.spec_augment or training.mask_high or training.mask_low),
        "patience": ("--select best", training.select == "best"),
        "final_learning_rate": ("a schedule that falls", training.schedule != "constant"),
    }
    for name, (needed, there) in needs.items():
        if changes.get(name) and not there:  # a 0 turns off what a recipe has
            raise UserError(f"--{name.replace('_', '-')} has no effect without {needed}")


def main(argv: list[str] | None = None) -> int:
    arguments = training_options().parse_args(argv)
    if arguments.list:
        from compare import list_systems

        list_systems()
        return 0
    if arguments.compare is not None:
        from compare import compare

        for name in ("recipe", "config", "stages", "patience", "stop_after"):
            if getattr(arguments, name) is not None:
                raise UserError(f"--compare trains its recipes in one go: leave out --{name.replace('_', '-')}")
        if arguments.epochs is None or len(arguments.epochs) != 1:
            raise UserError("--compare trains under one budget: give --epochs N")
        if arguments.learning_rate is not None and len(arguments.learning_rate) != 1:
            raise UserError("--compare trains in one stage: give one --learning-rate or none")
        configs = [configure(arguments, name) for name in arguments.compare]
        return compare(configs, arguments.epochs[0], arguments.runs, arguments.fresh)
    config = configure(arguments)
    tables = prepare_tables(config)
    run = carry_out(config, tables, arguments.runs, arguments.fresh, arguments.stop_after)
    if run is not None:
        example = Path(tables["eval" if len(tables["eval"]) else "dev"]["path"].iloc[0])
        if example.is_relative_to(Path.cwd()):
            example = example.relative_to(Path.cwd())
        print(f"next        python inference.py {example} --model {run}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
