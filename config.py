"""Every setting of a run as frozen dataclasses, written to and read from JSON.

Also the vocabulary of the whole project, said once:
    two classes, `bonafide` = 0 and `spoof` = 1;
    every network ends in one raw float32 logit, `spoof_logit`, higher = more likely spoof;
    a score file carries the ASVspoof convention, cm_score = -spoof_logit, higher = more bona fide.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from errors import UserError
from whole_file import whole_file

LABELS = ("bonafide", "spoof")  # the index is the label
BONAFIDE, SPOOF = 0, 1
SAMPLE_RATE = 16_000
SCORE_CONVENTION = "cm_score = -spoof_logit; higher = more bona fide"
# columns of the one table that every dataset becomes
TABLE_COLUMNS = (
    *("path", "label", "attack", "speaker", "split", "dataset", "utterance_id"),
    *("page", "kind", "family", "source"),
)


@dataclass(frozen=True)
class FeatureConfig:
    """The front end. Weights depend on every value here: changing one asks for new training."""

    kind: str = "log_stft"  # log_stft | mel | lfcc | cqt | raw
    samples: int = 64_000  # waveform samples the network sees (4 s at 16 kHz)
    window: int = 1024  # log_stft, mel: samples of the Hann window, also the FFT length
    hop: int = 256
    mel_bands: int = 128
    power_floor: float = 1e-5  # added to the power before the logarithm
    lfcc_filters: int = 20  # LFCC: 20 static + 20 delta + 20 delta-delta from 20 ms / 10 ms frames
    cqt_bins: int = 100  # 12 bins per octave from 1 Hz, hop 512 (the ResMax paper)


# the settings each front end is usually fed with; a recipe or a flag may change them
DEFAULT_FEATURES = {
    "log_stft": FeatureConfig("log_stft"),
    "mel": FeatureConfig("mel", power_floor=1e-6),  # a band averages, so its floor may lie lower
    "lfcc": FeatureConfig("lfcc", power_floor=1e-6),
    "cqt": FeatureConfig("cqt", samples=144_000),  # 9 s, as in the ResMax paper
    "raw": FeatureConfig("raw", samples=64_600),
}


def feature_config(kind: str) -> FeatureConfig:
    """The default configuration of a front end, by name."""
    if kind not in DEFAULT_FEATURES:
        raise UserError(f"unknown front end {kind!r}; valid: {', '.join(DEFAULT_FEATURES)}")
    return DEFAULT_FEATURES[kind]


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained. Stages are parallel tuples: fraction of the data, epochs, learning rate."""

    split: str = "attack-held-out"
    sample: float = 1.0  # stratified share of the training rows that is used at all
    stages: tuple[float, ...] = (1.0,)
    epochs: tuple[int, ...] = (100,)
    learning_rate: tuple[float, ...] = (1e-3,)
    final_learning_rate: float = 1e-5
    schedule: str = "sigmoid"  # sigmoid (per epoch) | cosine (per step) | halving (every 10 epochs) | constant
    batch_size: int = 16
    balance: str = "weights"  # none | weights | sampling | groups
    extra_share: float = 0.5  # with groups: how much of each class comes from Config.extra
    pairs: float = 0.0  # with groups: share of an epoch that is recordings, each beside a copy made of it
    bonafide_weight: float | None = None  # with weights; None: from the class counts
    loss: str = "bce"  # bce | focal | oc_softmax | p2sgrad (losses.py)
    teachers: tuple[str, ...] = ()  # run folders: these models say of each clip what they think (distillation.py)
    teacher_share: float = 0.5  # how much of the label is theirs
    clip_norm: float | None = 5.0  # global gradient norm
    weight_decay: float | None = None  # decoupled from the gradient, times the learning rate
    sam: float | None = None  # radius of sharpness-aware minimisation: every batch then counts twice
    swa: float | None = None  # average the weights of this last share of the last stage's epochs
    augment: tuple[str, ...] = ()  # names of augmentation.AUGMENTATIONS; one of them is drawn for a clip
    augment_probability: float = 0.5
    augment_rounds: int = 1  # so often, one on top of the other
    augment_only: str = "both"  # both | bonafide | spoof
    bonafide_copies: float | None = None  # augmented extra copies an epoch, for each bona fide clip
    mixup: float | None = None  # alpha of the Beta distribution of the blend
    spec_augment: int = 0  # masks on the features (feature_masks.py): so many stripes in time and in frequency,
    mask_high: tuple[float, ...] = ()  # all bins above a share drawn between these two, as in (0.80, 0.87),
    mask_low: tuple[float, ...] = ()  # all bins below
    mask_probability: float = 0.6
    precision: str = "float32"  # float32 | mixed_bfloat16 | mixed_float16
    select: str = "best"  # best (dev EER) | last (epoch, or average): for a dev that also measures
    patience: int = 15  # epochs without a better dev EER before a stage ends
    deterministic: bool = False
    cache: str = "auto"  # auto | memory | disk | none
    seed: int = 1


DEV_CHOSE = {"best": "on which the model was chosen", "last": "which chose nothing but the threshold"}  # by --select
# settings of which there are only so many
CHOICES = {
    "schedule": ("sigmoid", "cosine", "halving", "constant"),
    "loss": ("bce", "focal", "oc_softmax", "p2sgrad"),
    "augment_only": ("both", "bonafide", "spoof"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
    "balance": ("none", "weights", "sampling", "groups"),
    "cache": ("auto", "memory", "disk", "none"),
    "select": ("best", "last"),
}
POSITIVE = (
    "batch_size",
    "patience",
    "augment_rounds",
    "sample",
    "final_learning_rate",
    "clip_norm",
    "bonafide_weight",
    "weight_decay",
    "sam",
    "swa",
    "bonafide_copies",
    "mixup",
    "mask_probability",
    "teacher_share",
)
SHARES = ("sample", "swa", "extra_share", "pairs", "augment_probability", "mask_probability", "teacher_share")


def check_training(training: TrainingConfig) -> None:
    """Refuse values that no run can be made of; the split is checked where it is made."""
    for name, valid in CHOICES.items():
        if getattr(training, name) not in valid:
            raise UserError(f"unknown {name} {getattr(training, name)!r}; valid: {', '.join(valid)}")
    for name in POSITIVE:
        value = getattr(training, name)
        if value is not None and not value > 0:  # nan too
            raise UserError(f"{name} is {value}; it must be above 0")
    for name in SHARES:
        value = getattr(training, name)
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{name} is {value}; it is a share, from 0 to 1")
    for name in ("mask_high", "mask_low"):
        band = getattr(training, name)
        if band and not (len(band) == 2 and 0 <= band[0] <= band[1] <= 1):
            raise UserError(f"{name} is {','.join(map(str, band))}; two shares are needed, as in 0.80,0.87")
    if training.spec_augment < 0:
        raise UserError(f"spec_augment is {training.spec_augment}; it is a number of stripes, 0 or more")
    if training.bonafide_weight is not None and training.balance != "weights":
        raise UserError(f"bonafide_weight has no effect with balance {training.balance}; leave it out")
    if training.pairs and training.balance != "groups":
        raise UserError(f"pairs have no effect with balance {training.balance}: --pairs 0, or --balance groups")
    if training.sam is not None and training.precision == "mixed_float16":
        raise UserError("sam takes steps in pairs, of which float16's loss scaling skips some: use mixed_bfloat16")
    if training.bonafide_copies is not None:
        if not training.augment:
            raise UserError("bonafide_copies are augmented copies: say with --augment how")
        if training.balance in ("sampling", "groups"):
            raise UserError(f"bonafide_copies and balance {training.balance} both repeat bona fide clips: choose one")


@dataclass(frozen=True)
class Config:
    """One run: which network on which front end, trained how."""

    recipe: str = "resmax_la"
    data: str | None = None  # the dataset's folder; None is the built-in demo corpus
    extra: str | None = None  # a dataset that is only trained on
    allow_missing: bool = False
    limit: int | None = None  # rows per split, stratified: for a quick look
    asv_scores: str | None = None  # a speaker verifier's scores of eval, for the t-DCF
    model: str = "resmax"
    model_args: dict[str, Any] = field(default_factory=dict)
    features: FeatureConfig = FeatureConfig()
    training: TrainingConfig = TrainingConfig()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def write(self, path: Path) -> None:
        write_json(path, self.to_dict())


def settings_key(values: Any) -> str:
    """Eight letters that stand for JSON values, for the name of a folder."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file that appears whole or not at all."""
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _build(cls: type, values: dict[str, Any], where: str) -> Any:
    """Build a dataclass from JSON values; an unknown key is the user's error, a list becomes a tuple."""
    if not isinstance(values, dict):
        raise UserError(f"{where}: must be a JSON object of settings, not {values!r}")
    hints = get_type_hints(cls)
    if unknown := sorted(set(values) - set(hints)):
        raise UserError(f"{where}: unknown setting {', '.join(unknown)}; valid: {', '.join(sorted(hints))}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    for name, value in values.items():
        if not _fits(value, hints[name]):
            wanted = getattr(hints[name], "__name__", hints[name])
            raise UserError(f"{where}: {name} is {value!r}, which is not {wanted}")
    return cls(**values)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; whole numbers pass for float, booleans for nothing else."""
    if get_origin(hint) is UnionType:
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(part, get_args(hint)[0]) for part in value)
    kind = get_origin(hint) or hint
    if kind is float:
        kind = (int, float)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def config_from_dict(values: dict[str, Any], where: str = "config") -> Config:
    """Rebuild the `Config` that `to_dict` gave."""
    parts = {"features": FeatureConfig, "training": TrainingConfig}
    if isinstance(values, dict):
        values = values | {k: _build(cls, values.get(k, {}), f"{where}: {k}") for k, cls in parts.items()}
    return _build(Config, values, where)


def read_config(path: Path) -> Config:
    """Read a config.json of a run folder."""
    try:
        return config_from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable config ({error})") from error
