"""Train the detector that ships, on all pages, once cross_validate.py has shown what to expect of it.

    python ship.py runs/cv-1a2b3c4d --name mine                    # writes pretrained/mine.keras and its card mine.json
    python ship.py runs/cv-1a2b3c4d runs/cv-5e6f7a8b --name mine   # columns of small_resnet, as one network

The settings are those of the cross-validation; several train the same network on the same dataset, and may differ in
all else: seed, what a column sees, what is trained on beside the dataset, augmentation. What the card says of errors,
thresholds and calibration is from there as well: from the logits that every clip got, in every condition that was
measured, from a model that had heard nothing of its page. A run that was stopped goes on, and what is trained is not
trained again; what teaches it (`--teachers`) is trained on all first. `--about FILE` adds a JSON object to the card:
domain, licence, limits, the shortest clip that gets a verdict (minimum_seconds), results elsewhere ... as
pretrained/<name>.about.json do.
"""

import argparse
import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from architectures.small_residual import joined
from backend import keras
from checkpoint import read_progress
from compare import finished_runs
from config import BONAFIDE, LABELS, SAMPLE_RATE, SPOOF, Config, settings_key, write_json
from cross_validate import fold_config
from data_utils import read_dataset
from errors import CommandParser, UserError, run_command
from experiment import claimed, class_counts, environment, logged, prepare_tables, training_process
from fold_figures import (
    common_point,
    errors_by,
    extra_families,
    figures,
    kind_errors,
    mean_scores,
    settings_of,
    sights,
    unheard_families,
    verdicts,
)
from losses import COSINE_LOSSES
from metrics import error_rates
from model import (
    PRETRAINED,
    build_model,
    load_model,
    network_of,
    parameter_count,
    save_model,
    set_operating_point,
    spoof_logits,
)
from splits import clips_key, stratified_sample, with_extra
from training import set_up_keras, train
from training_corpus import recording_names

WATCHED = 400  # clips whose loss is printed after each epoch; they are trained on as well
ENVIRONMENT = "environment.json"  # beside what was trained on all: with what, and at which commit


def all_clips(table: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Every clip of the dataset and of what is only trained on, but for a part that the dataset keeps as eval."""
    kept = table["split"] == "eval"
    if kept.any():
        print(f"{kept.sum():,} clips of eval are not trained on")
    train = table[~kept].assign(split="train")
    if config.extra is None:
        return train
    extra = read_dataset(Path(config.extra)).usable(config.allow_missing)
    if kept.any():
        extra = extra[extra["split"] != "eval"]  # copies keep the split of their recording
    nothing = train.iloc[:0]
    return with_extra({"train": train, "dev": nothing, "eval": nothing}, extra, official=False)


def check_scores(scores: pd.DataFrame, table: pd.DataFrame, folder: Path) -> None:
    """Refuse scores of clips that the dataset no longer holds, or now calls otherwise."""
    labels = table.set_index("utterance_id")["label"].reindex(scores["utterance_id"])
    if (labels.to_numpy() != scores["label"].to_numpy()).any():
        raise UserError(f"{folder}: scores of other clips or labels than the dataset has now; cross-validate again")
    if unjudged := len(table) - len(scores):
        print(f"{unjudged:,} clips have no score in {folder}: the card does not tell of them")


def check_clips(folder: Path) -> None:
    """Refuse a cross-validation of other clips than its dataset and its --extra hold now."""
    for run, config in finished_runs(folder):
        with contextlib.redirect_stdout(io.StringIO()):  # what it says of the data is said when these are trained on
            tables = prepare_tables(config)
        if read_progress(run).clips != clips_key({name: tables[name] for name in ("train", "dev")}):
            places = " and ".join(filter(None, (config.data, config.extra)))
            raise UserError(f"{run}: trained on other clips than {places} hold now; cross-validate again")


def points(scores: pd.DataFrame, point: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Three thresholds on the spoof logit, and the share of errors at each on these clips."""
    thresholds = {
        "FAR 1 %": point["threshold_far_1_percent"],
        "EER": point["threshold"],
        "FRR 1 %": point["threshold_frr_1_percent"],
    }
    rows = {}
    for name, threshold in thresholds.items():
        frr, far = error_rates(-scores["spoof_logit"], scores["label"], -threshold)
        rows[name] = {"threshold": threshold, "far": far, "frr": frr}
    return rows


def dataset_name(place: str | None) -> str | None:
    """The name of a dataset's folder, without where it lies on this machine."""
    return place and (Path(place).parent if Path(place).is_file() else Path(place)).resolve().name


def read_settings(folders: list[Path]) -> dict[Path, Config]:
    """What each cross-validation trained, without a division into parts: columns of one network, if several."""
    configs = {}
    for folder in folders:
        configs[folder] = fold_config(settings_of(folder), "")
        if configs[folder].limit is not None or configs[folder].training.sample < 1:
            raise UserError(
                f"{folder}: measured on a part of the clips (--limit, --sample); what ships learns from all"
            )
    joinable = all(one.model == "small_resnet" and one.training.loss not in COSINE_LOSSES for one in configs.values())
    if len(configs) > 1 and not joinable:
        raise UserError("several folders: columns of small_resnet with a plain logit can be joined, others cannot")
    if len({settings_key(_in_common(config)) for config in configs.values()}) > 1:
        raise UserError(f"{', '.join(map(str, folders))}: the datasets, front ends, networks or losses differ")
    return configs


def _in_common(config: Config) -> list[Any]:
    """What columns of one network must have in common."""
    return [config.data, asdict(config.features), {**config.model_args, "sees": "any"}, config.training.loss]


def differences(configs: list[Config]) -> list[dict[str, Any]]:
    """The seed of each training, and the settings in which they are not all alike."""
    trainings = [dict(_flat(config.to_dict())) for config in configs]
    names = dict.fromkeys(name for training in trainings for name in training)
    differ = [name for name in names if len({settings_key(training.get(name)) for training in trainings}) > 1]
    shown = dict.fromkeys(["training.seed", *differ])
    told = [dict(_flat(named(config).to_dict())) for config in configs]
    return [{name: training.get(name) for name in shown} for training in told]


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def named(config: Config) -> Config:
    """The settings with datasets called by name, not by where they lie on this machine."""
    teachers = tuple(Path(run).parent.name for run in config.training.teachers)
    training = replace(config.training, teachers=teachers)
    return replace(config, data=dataset_name(config.data), extra=dataset_name(config.extra), training=training)


def heard_clips(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Every clip that a training heard, once; also one that the dataset and --extra, or two of these, both hold."""
    heard = pd.concat([table if "extra" in table else table.assign(extra=False) for table in tables])
    heard = heard.drop_duplicates("path")
    again = heard["extra"] & (heard["label"] == BONAFIDE) & heard["source"].isin(recording_names(heard))
    again |= heard["extra"] & heard.duplicated(["utterance_id", "source", "label", "attack"])
    return heard[~again]


def made_of(clips: pd.DataFrame) -> dict[str, dict[str, int]]:
    """How many clips trained it: recordings and fakes of each page, and fakes of --extra by how they were made."""
    spoof = clips["label"] == SPOOF
    return {
        "recordings": clips.loc[~spoof, "page"].value_counts().to_dict(),
        "fakes": clips.loc[spoof & ~clips["extra"], "page"].value_counts().to_dict(),
        "made_fakes": clips.loc[spoof & clips["extra"], "attack"].value_counts().to_dict(),
    }


def make_card(
    configs: list[Config],
    teachers: dict[str, Config],
    clips: pd.DataFrame,
    scores: dict[str, pd.DataFrame],
    trained_in: dict[str, Any],
    about: dict[str, Any],
) -> dict[str, Any]:
    """What there is to know of the shipped detector, but for its file.

    `teachers` are the settings of what taught it, by folder; `clips` are those that it and they were trained on;
    `trained_in` is the `environment` of then, which may be long before the card is written.
    """
    config = named(configs[0])
    point, together = common_point(scores), pd.concat(scores.values())
    clean = scores["clean"]
    point["windows"] = "all"  # cross_validate.py and inference.py hear all of a clip
    point |= {f"dev_{label}": count for label, count in class_counts(clean).items()}
    domain = about.get("domain", f"the dataset {config.data}")
    if "minimum_seconds" in about:
        point["minimum_seconds"] = about["minimum_seconds"]
    conditions = "1 condition" if len(scores) == 1 else f"{len(scores)} conditions"
    point["source"] = f"clips of {domain}, in {conditions}, by models that had not heard their page"
    spoof = clips[clips["label"] == SPOOF]
    return {
        "model": config.model,
        "config": config.to_dict(),
        "trainings": differences(configs),
        "teachers": {folder: named(teacher).to_dict() for folder, teacher in teachers.items()},
        "labels": list(LABELS),
        "output": "one logit, higher = more likely spoof; apply a sigmoid once for a probability",
        "operating_point": point,
        "operating_points": points(together, point),
        "data": {
            "dataset": config.data,
            "clips": {"train": class_counts(clips)},
            "pages": int(clean["page"].nunique()),
            "attacks": {"train": sorted(set(spoof["attack"]))},
            "made_of": made_of(clips),
        },
        "leave_pages_out": {name: figures(part) | verdicts(part, point) for name, part in scores.items()},
        "leave_pages_out_by_page": errors_by(clean, "page").round(4).to_dict(),
        "leave_pages_out_by_kind": kind_errors(clean).round(4).to_dict(),
        "leave_pages_and_families_out": unheard_families(clean, extra_families([*configs, *teachers.values()])),
        "environment": trained_in,
        **about,
    }


def check_signal(samples: int) -> np.ndarray:
    """Ten tones in noise, the same everywhere: its logit tells whether a detector computes here what it did there."""
    seconds = np.arange(samples) / SAMPLE_RATE
    tones = sum(np.sin(2 * np.pi * 150 * k * seconds) / k for k in range(1, 11))
    noise = np.random.default_rng(0).normal(0, 0.02, samples)
    return (0.1 * tones * (np.sin(2 * np.pi * 3 * seconds) > 0) + noise).astype(np.float32)


def in_float32(models: list[keras.Model], config: Config) -> keras.Model:
    """The same weights in full precision: a stranger's processor may have no other, or round another way.

    Several models become the one network that gives the mean over their columns.
    """
    keras.mixed_precision.set_global_policy("float32")
    whole = build_model(config)
    if len(models) == 1:
        whole.set_weights(models[0].get_weights())
    else:
        joined([network_of(model) for model in models], network_of(whole))
    return whole


def trained_on_all(config: Config, clips: pd.DataFrame, run: Path) -> keras.Model:
    """The model after training on every clip; what was trained before is not trained again."""
    run.mkdir(exist_ok=True)
    if (owner := training_process(run)) is not None:
        raise UserError(f"{run}: is being trained by process {owner}")
    set_up_keras(config.training)
    with claimed(run), logged(run / "log.txt"):
        if not read_progress(run).epoch:
            write_json(run / ENVIRONMENT, environment())
        counts = clips["label"].value_counts()
        print(f"{len(clips):,} clips to train on: {counts[BONAFIDE]:,} bona fide, {counts[SPOOF]:,} spoof")
        own = clips[~clips["extra"]] if "extra" in clips else clips
        watched = stratified_sample(own, min(1.0, WATCHED / len(own)), config.training.seed)
        print("the dev figures below are of clips that are trained on: they show that it learns, and no more")
        train(config, clips, watched.reset_index(drop=True), run)
    return load_model(run)


def with_what_teaches(configs: dict[Path, Config]) -> dict[Path, Config]:
    """These cross-validations and, before each, those that teach it; every folder once."""
    everything = {}
    for folder, config in configs.items():
        for run in config.training.teachers:
            everything |= with_what_teaches(read_settings([Path(run).parent]))
        everything[folder] = config
    return everything


def taught_on_all(config: Config) -> Config:
    """The settings with teachers that were trained on every clip in the place of those of one part."""
    teachers = tuple(str(Path(run).parent / "all") for run in config.training.teachers)
    return replace(config, training=replace(config.training, teachers=teachers))


def ship(folders: list[Path], name: str, about: dict[str, Any]) -> Path:
    """Train on everything into folder/all, of each folder; then write the model and its card to pretrained/."""
    configs = read_settings(folders)
    scores = mean_scores(configs)
    if "clean" not in scores:
        raise UserError(f"{folders[0]}: holds no scores_clean.csv; cross_validate.py must measure clean, too")
    config = configs[folders[0]]
    table = read_dataset(Path(config.data)).usable(config.allow_missing)
    check_scores(scores["clean"], table, folders[0])
    print(f"the card tells of {', '.join(scores)}")
    everything = with_what_teaches(configs)
    for folder in everything:
        check_clips(folder)
    clips = {folder: all_clips(table, one) for folder, one in everything.items()}
    models = {
        folder: trained_on_all(taught_on_all(one), clips[folder], folder / "all") for folder, one in everything.items()
    }
    columns = [models[folder] for folder in configs]
    teachers = {folder.name: one for folder, one in everything.items() if folder not in configs}
    heard = heard_clips(list(clips.values()))
    told = folders[0] / "all" / ENVIRONMENT  # what was trained before there were such files has none
    trained_in = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
    card = make_card(list(configs.values()), teachers, heard, scores, trained_in, about)
    if len(columns) > 1:
        sees = ",".join(sight for one in configs.values() for sight in sights(one))
        config = replace(config, model_args={**config.model_args, "sees": sees})
        card["config"]["model_args"] = config.model_args
    model = in_float32(columns, config)
    model.name = name  # what results and reports call it
    card["parameters"] = parameter_count(model)
    card["check_logit"] = float(spoof_logits(model, check_signal(config.features.samples)[None])[0])
    set_operating_point(model, card["operating_point"])
    PRETRAINED.mkdir(exist_ok=True)
    path = PRETRAINED / f"{name}.keras"
    save_model(model, path, card)
    return path


def main(argv: list[str] | None = None) -> int:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of a cross-validation: runs/cv-<key>")
    parser.add_argument("--name", required=True, help="what the detector is called: pretrained/<name>.keras")
    parser.add_argument("--about", type=Path, metavar="FILE", help="JSON to add to the card")
    parser.add_argument("--replace", action="store_true", help="put it in the place of a detector of that name")
    arguments = parser.parse_args(argv)
    if (PRETRAINED / f"{arguments.name}.keras").is_file() and not arguments.replace:
        raise UserError(f"--name {arguments.name}: a detector of that name ships; choose another, or pass --replace")
    try:
        about = json.loads(arguments.about.read_text(encoding="utf-8")) if arguments.about else {}
    except (OSError, ValueError) as error:
        raise UserError(f"--about {arguments.about}: not a JSON file ({error})") from error
    if not isinstance(about, dict):
        raise UserError(f"--about {arguments.about}: a JSON object is needed, {{name: value ...}}")
    path = ship(arguments.folders, arguments.name, about)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB; its card is {path.with_suffix('.json').name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
