"""Published PyTorch checkpoints become detectors of this project, without PyTorch and without running them.

    python import_weights.py AASIST.pth --out pretrained        # writes pretrained/aasist.keras and its card
    python import_weights.py AASIST-L.pth --out pretrained      # aasist_l
    python score.py pretrained/aasist.keras --data LA --score bonafide-logit --out scores.txt    # as published

The checkpoints are those of https://github.com/clovaai/aasist (models/weights), licence MIT.
"""

from pathlib import Path
from typing import Any

import numpy as np

from backend import keras
from config import LABELS, Config, feature_config
from errors import CommandParser, UserError, run_command
from model import build_model, build_network, parameter_count, save_model, sha256
from torch_file import read_checkpoint

# ---------------------------------------------------------------- its tensors in our network

PUBLISHED = {
    "aasist": "ASVspoof 2019 LA eval: EER 0.83 %, min t-DCF 0.0275 (the authors' best training run)",
    "aasist_l": "ASVspoof 2019 LA eval: EER 0.99 %, min t-DCF 0.0309 (the authors' best training run)",
}
OFFICIAL_LABELS = ("spoof", "bonafide")  # order of the published outputs
# name of our layer -> theirs
LAYERS = {
    "first_norm": "first_bn",
    "frequency_attention": "GAT_layer_S",
    "time_attention": "GAT_layer_T",
    "frequency_pool": "pool_S",
    "time_pool": "pool_T",
    "logit": "out_layer",
    **{f"branch{k}_first": f"HtrgGAT_layer_ST{k}1" for k in (1, 2)},
    **{f"branch{k}_second": f"HtrgGAT_layer_ST{k}2" for k in (1, 2)},
    **{f"branch{k}_frequency_pool": f"pool_hS{k}" for k in (1, 2)},
    **{f"branch{k}_time_pool": f"pool_hT{k}" for k in (1, 2)},
}
for _k in range(6):
    LAYERS |= {
        f"block{_k}_{ours}": f"encoder.{_k}.0.{theirs}"
        for ours, theirs in (("first", "conv1"), ("norm", "bn2"), ("second", "conv2"), ("skip", "conv_downsample"))
    }
# layers inside a layer
PARTS = {
    "edge": "att_proj",
    "gathered": "proj_with_att",
    "own": "proj_without_att",
    "master_edge": "att_projM",
    "master_gathered": "proj_with_attM",
    "master_own": "proj_without_attM",
    "of_time": "proj_type1",
    "of_frequency": "proj_type2",
    "norm": "bn",
    "score": "proj",
}
VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
WHOLE = {
    "frequency_position/position": "pos_S",
    "branch1_first/master": "master1",
    "branch2_first/master": "master2",
}
# computed and then discarded by the published code (see architectures/aasist.py), and counters of steps
UNUSED = {
    f"encoder.{k}.0.bn1.{name}" for k in range(1, 6) for name in ("weight", "bias", "running_mean", "running_var")
}
COUNTER = ".num_batches_tracked"


def official_names(path: str) -> list[str]:
    """The published tensors that make up one weight of our network, by its path."""
    if path in WHOLE:
        return [WHOLE[path]]
    layer, *part, variable = path.split("/")
    prefix = LAYERS[layer]
    if variable == "master_direction":
        return [f"{prefix}.att_weightM"]
    if variable == "direction":
        kinds = ("11", "12", "22") if layer.startswith("branch") else ("",)
        return [f"{prefix}.att_weight{kind}" for kind in kinds]
    return [".".join([prefix, *(PARTS[name] for name in part), VARIABLES[variable]])]


def converted(path: str, tensors: list[np.ndarray]) -> np.ndarray:
    """Published tensors as the value of the weight `path`."""
    value = tensors[0]
    if path.endswith("direction"):
        value = np.concatenate(tensors, axis=-1)
    elif path == "frequency_position/position":
        value = value[0]
    elif path.endswith("kernel"):  # (out, in) -> (in, out); (out, in, f, t) -> (f, t, in, out)
        value = value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)
    if path.startswith("logit/"):
        value = value[..., [OFFICIAL_LABELS.index(label) for label in LABELS]]
    return value


def match(network: keras.Model, tensors: dict[str, np.ndarray]) -> tuple[list[np.ndarray], list[str]]:
    """Values for all weights of a network, and what stands against them: missing, of another shape, left over."""
    values, problems, used = [], [], set()
    for weight in network.weights:
        names = official_names(weight.path.removeprefix(f"{network.name}/"))
        used.update(names)
        if missing := [name for name in names if name not in tensors]:
            problems += [f"{name} is missing" for name in missing]
            continue
        try:
            value = converted(weight.path.removeprefix(f"{network.name}/"), [tensors[name] for name in names])
        except (ValueError, IndexError):
            value = None
        if value is None or value.shape != tuple(weight.shape) or value.dtype.kind != "f":
            shapes = ", ".join(f"{tensors[name].shape}" for name in names)
            problems.append(f"{names[0]} has shape {shapes}, which does not give {tuple(weight.shape)}")
        values.append(value)
    left_over = sorted(name for name in set(tensors) - used - UNUSED if not name.endswith(COUNTER))
    return values, problems + [f"{name} is left over" for name in left_over]


def import_checkpoint(path: Path) -> tuple[str, keras.Model]:
    """Recognise a checkpoint's network by its tensors: its name in MODELS and the model with these weights."""
    tensors = read_checkpoint(path)
    refusals = []
    for name in PUBLISHED:
        config = _config(name)
        network = build_network(config)
        values, problems = match(network, tensors)
        if not problems:
            model = build_model(config)
            model.get_layer(network.name).set_weights(values)
            return name, model
        refusals.append((len(problems), name, problems[0]))
    count, name, problem = min(refusals)
    raise UserError(f"{path}: holds no network of {', '.join(PUBLISHED)}; nearest is {name}, {count} differ: {problem}")


def _config(name: str) -> Config:
    return Config(recipe=name, model=name, features=feature_config("raw"))


# ---------------------------------------------------------------- command line


def card(name: str, model: keras.Model, source: Path) -> dict[str, Any]:
    """What is written beside the weights."""
    return {
        "model": name,
        "parameters": parameter_count(model),
        "config": _config(name).to_dict(),
        "labels": list(LABELS),
        "output": "one logit, higher = more likely spoof; apply a sigmoid once for a probability",
        "score": "published figures are of the bona fide logit alone (score.py --score bonafide-logit); this model's "
        "output is spoof minus bona fide",
        "source": {"file": source.name, "sha256": sha256(source), "from": "https://github.com/clovaai/aasist"},
        "published": PUBLISHED[name],
        "data": {"dataset": "ASVspoof 2019 LA, train"},
        "licence": "MIT, NAVER Corp., for the weights; imported without change of their values",
    }


def main() -> int:
    parser = CommandParser(description="Turn a published PyTorch checkpoint into a detector of this project.")
    parser.add_argument("checkpoint", type=Path, help="AASIST.pth or AASIST-L.pth")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the .keras file and its card")
    arguments = parser.parse_args()

    name, model = import_checkpoint(arguments.checkpoint)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{name}.keras"
    save_model(model, path, card(name, model, arguments.checkpoint))
    print(f"{path}: {name}, {parameter_count(model):,} parameters from {arguments.checkpoint.name}; {PUBLISHED[name]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
