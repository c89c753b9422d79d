"""What cross_validate.py leaves behind, without its hours."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from checkpoint import Progress
from config import BONAFIDE, SPOOF, Config, FeatureConfig, TrainingConfig
from experiment import prepare_tables
from fold_figures import write_logits
from splits import clips_key

CONFIG = Config(
    recipe="tiny", model="simple_cnn", features=FeatureConfig("mel", 16_000), training=TrainingConfig(select="last")
)


def cross_validation(folder: Path, data: Path, config: Config, seed: int) -> Path:
    """A finished cross-validation of eight pages in two conditions."""
    rng = np.random.default_rng(seed)
    table = pd.read_csv(data).fillna("-")
    table = table[table["split"] != "eval"].assign(family="-")
    for part in (1, 2):
        run = folder / f"part{part}"
        run.mkdir(parents=True)
        training = replace(config.training, seed=seed, split=f"pages-{part}-of-4")
        config = replace(config, data=str(data), training=training)
        config.write(run / "config.json")
        tables = prepare_tables(config)
        progress = Progress(clips=clips_key({name: tables[name] for name in ("train", "dev")}))
        np.savez(run / "last.npz", progress=json.dumps(asdict(progress)))
        (run / "metrics.json").write_text("{}", encoding="utf-8")  # it is finished
    label = np.where(table["label"] == "spoof", SPOOF, BONAFIDE)
    for condition, shift in (("clean", 1.5), ("1s", 1.0)):
        scores = table.assign(utterance_id=table["path"], label=label, fold=f"pages-{1 + seed % 4}-of-4")
        scores = scores.assign(spoof_logit=rng.normal(shift * (2 * label - 1), 1))
        write_logits(folder / f"scores_{condition}.csv", scores.sample(frac=1, random_state=seed))
    return folder
