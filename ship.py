"""Train the detector that ships, on all pages, once cross_validate.py has shown what to expect of it.

    python ship.py runs/cv-<key> --name resmax       # writes pretrained/resmax.keras and its card resmax.json
    python ship.py runs/cv-<key> runs/cv-<other key> --name resmax       # the mean of two, as one network

The settings are those of the cross-validation; several differ in their seed alone. What the card says of errors,
thresholds and calibration is from there as well: from the logits that every clip got, in every condition that was
measured, from a model that had heard nothing of its page. A run that was stopped goes on. `--about FILE` adds a JSON
object to the card (limits, licence, results elsewhere).
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from architectures.small_residual import joined
from backend import keras
from calibration import operating_point
from config import BONAFIDE, LABELS, SAMPLE_RATE, SPOOF, Config, read_config, settings_key
from cross_validate import figures, kind_errors, page_errors
from data_utils import read_dataset
from errors import CommandParser, UserError, run_command
from experiment import claimed, environment, logged
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
from splits import stratified_sample, with_extra
from training import set_up_keras, train

JOINED = {"small_resnet": joined}  # network -> how several become one
WATCHED = 400  # clips whose loss is printed after each epoch; they are trained on as well


def all_clips(config: Config) -> pd.DataFrame:
    """Every clip of the dataset and of what is only trained on."""
    table = read_dataset(Path(config.data)).usable(config.allow_missing).assign(split="train")
    if config.extra is None:
        return table
    nothing = table.iloc[:0]
    extra = read_dataset(Path(config.extra)).usable(config.allow_missing)
    return with_extra({"train": table, "dev": nothing, "eval": nothing}, extra, official=False)


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


def read_scores(folders: list[Path]) -> dict[str, pd.DataFrame]:
    """The out-of-fold scores of cross-validations by condition: of several the mean logit of every clip."""
    files = sorted(folders[0].glob("scores_*.csv"))
    if not files:
        raise UserError(f"{folders[0]}: holds no scores_<condition>.csv; a folder of cross_validate.py is needed")
    scores = {}
    for file in files:
        parts = []
        for folder in folders:
            if not (folder / file.name).is_file():
                raise UserError(f"{folder}: holds no {file.name}, which {folders[0]} does: finish cross_validate.py")
            parts.append(pd.read_csv(folder / file.name))
        if any(set(part["utterance_id"]) != set(parts[0]["utterance_id"]) for part in parts):
            raise UserError(f"{file.name} of {', '.join(map(str, folders))}: not the same clips")
        mean = pd.concat(parts).groupby("utterance_id")["spoof_logit"].mean()
        whole = parts[0].assign(spoof_logit=parts[0]["utterance_id"].map(mean))
        scores[file.stem.removeprefix("scores_")] = whole
    return scores


def read_settings(folders: list[Path]) -> list[Config]:
    """The config of each cross-validation; they may differ in the seed alone."""
    configs = []
    for folder in folders:
        runs = sorted(folder.glob("*/config.json"))
        if not runs:
            raise UserError(f"{folder}: holds no run; a folder of cross_validate.py is needed")
        configs.append(read_config(runs[0]))
    alike = {settings_key(with_seed(config, 0).to_dict()) for config in configs}
    if len(alike) > 1:
        raise UserError(f"{', '.join(map(str, folders))}: the settings differ in more than the seed")
    if len(configs) > 1 and configs[0].model not in JOINED:
        raise UserError(f"{configs[0].model}: several cannot be made one network; {', '.join(JOINED)} can")
    return configs


def with_seed(config: Config, seed: int) -> Config:
    """The config of the first part, with another seed."""
    return replace(config, training=replace(config.training, seed=seed, split=""))


def make_card(config: Config, clips: pd.DataFrame, scores: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """What there is to know of the shipped detector, but for its file."""
    together = pd.concat(scores.values())
    point = operating_point(-together["spoof_logit"].to_numpy(np.float64), together["label"].to_numpy())
    clean = scores.get("clean", next(iter(scores.values())))
    point["source"] = f"leave-pages-out scores of {len(clean):,} clips in {len(scores)} conditions"
    spoof = clips[clips["label"] == SPOOF]
    return {
        "model": config.model,
        "config": replace(config, data=dataset_name(config.data), extra=dataset_name(config.extra)).to_dict(),
        "labels": list(LABELS),
        "output": "one logit, higher = more likely spoof; apply a sigmoid once for a probability",
        "operating_point": point,
        "operating_points": points(together, point),
        "data": {
            "dataset": dataset_name(config.data),
            "clips": {"train": {LABELS[BONAFIDE]: len(clips) - len(spoof), LABELS[SPOOF]: len(spoof)}},
            "pages": int(clips["page"].nunique()),
            "attacks": {"train": sorted(set(spoof["attack"]))},
        },
        "leave_pages_out": {name: figures(part) for name, part in scores.items()},
        "leave_pages_out_by_page": page_errors(clean).round(4).to_dict(),
        "leave_pages_out_by_kind": kind_errors(clean).round(4).to_dict(),
        "environment": environment(),
    }


def check_signal(samples: int) -> np.ndarray:
    """Ten tones in noise, the same everywhere: its logit tells whether a detector computes here what it did there."""
    seconds = np.arange(samples) / SAMPLE_RATE
    tones = sum(np.sin(2 * np.pi * 150 * k * seconds) / k for k in range(1, 11))
    noise = np.random.default_rng(0).normal(0, 0.02, samples)
    return (0.1 * tones * (np.sin(2 * np.pi * 3 * seconds) > 0) + noise).astype(np.float32)


def in_float32(models: list[keras.Model], config: Config) -> keras.Model:
    """The same weights in full precision, of several as one network that gives the mean of their logits.

    A stranger's processor may have no other precision, or round another way.
    """
    keras.mixed_precision.set_global_policy("float32")
    if len(models) == 1:
        whole = build_model(config)
        whole.set_weights(models[0].get_weights())
    else:
        whole = build_model(replace(config, model_args={**config.model_args, "columns": len(models)}))
        JOINED[config.model]([network_of(model) for model in models], network_of(whole))
    return whole


def trained_on_all(config: Config, clips: pd.DataFrame, run: Path) -> keras.Model:
    """The model of one config after training on every clip; what was trained before is not trained again."""
    run.mkdir(exist_ok=True)
    set_up_keras(config.training)
    with claimed(run), logged(run / "log.txt"):
        counts = clips["label"].value_counts()
        print(f"{len(clips):,} clips to train on: {counts[BONAFIDE]:,} bona fide, {counts[SPOOF]:,} spoof")
        own = clips[~clips["extra"]] if "extra" in clips else clips
        watched = stratified_sample(own, min(1.0, WATCHED / len(own)), config.training.seed)
        print("the dev figures below are of clips that are trained on: they show that it learns, and no more")
        train(config, clips, watched.reset_index(drop=True), run)
    return load_model(run)


def ship(folders: list[Path], name: str, about: dict[str, Any]) -> Path:
    """Train on everything into folder/all, then write the model and its card to pretrained/."""
    configs = read_settings(folders)
    scores = read_scores(folders)
    clips = all_clips(configs[0])
    models = [trained_on_all(config, clips, folder / "all") for config, folder in zip(configs, folders, strict=True)]
    model = in_float32(models, configs[0])
    card = make_card(configs[0], clips, scores) | {"parameters": parameter_count(model)} | about
    card["seeds"] = [config.training.seed for config in configs]
    card["check_logit"] = float(spoof_logits(model, check_signal(configs[0].features.samples)[None])[0])
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
    arguments = parser.parse_args(argv)
    try:
        about = json.loads(arguments.about.read_text(encoding="utf-8")) if arguments.about else {}
    except (OSError, ValueError) as error:
        raise UserError(f"--about {arguments.about}: not a JSON file ({error})") from error
    path = ship(arguments.folders, arguments.name, about)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB; its card is {path.with_suffix('.json').name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
