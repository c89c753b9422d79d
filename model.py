"""ResMax, and the one place where every network is listed, built, saved and loaded.

    from model import build_model, load_model
    model = build_model(Config())               # waveform (batch, 64000) -> spoof_logit (batch, 1)
    model = load_model("runs/.../best.keras")   # or the name of a detector in pretrained/

A model is a front end and a network composed into one `keras.Model` that takes the waveform, so training,
prediction and export compute the same numbers. The network alone takes the features: `build_network`.
Adding a network: a file in architectures/ with a function `(input_shape, **arguments) -> keras.Model` that
ends in one raw logit, and a line in MODELS.
"""

import hashlib
import inspect
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from architectures.aasist import aasist, aasist_l
from architectures.layers import MaxFeatureMap, batch_norm, logit_layer
from architectures.lcnn import lcnn
from architectures.rawnet2 import rawnet2
from architectures.res2net50 import res2net50, se_res2net50_thin
from architectures.res_efficient_cnn import res_efficient_cnn
from architectures.resnet50 import resnet50
from architectures.simple_cnn import simple_cnn
from architectures.small_residual import small_resmax, small_resnet, tiny_resnet
from backend import keras
from config import Config, feature_config, write_json
from errors import UserError
from feature_extraction import feature_shape
from feature_masks import FeatureMasks
from front_ends import front_end_layer
from losses import COSINE_LOSSES, cosine_head
from whole_file import whole_file

layers, ops = keras.layers, keras.ops

MODEL_SUFFIXES = (".keras", ".h5")
PRETRAINED = Path(__file__).parent / "pretrained"


@keras.saving.register_keras_serializable(package="spoof_detection")
class SpoofLogit(layers.Layer):
    """Last layer of every model: the logit in float32, and with it the operating point chosen on dev.

    A model loaded with plain `keras.models.load_model` thereby still knows its threshold.
    """

    def __init__(self, operating_point: dict[str, Any] | None = None, name: str = "spoof_logit"):
        super().__init__(name=name, dtype="float32")
        self.operating_point = operating_point

    def call(self, x):
        return ops.cast(x, "float32")

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {"name": self.name, "operating_point": self.operating_point}

    @classmethod
    def from_config(cls, config):
        return cls(operating_point=config.get("operating_point"), name=config["name"])


# ---------------------------------------------------------------- ResMax (Kwak et al., ICPR 2020)

# filters, kernel, second pair of convolutions, 2x2 max-pooling
RESMAX_BLOCKS = (
    (16, 3, True, True),
    (16, 5, True, True),
    (24, 3, True, True),
    (32, 3, False, False),
    (32, 3, False, True),
    (48, 3, False, False),
    (48, 3, False, True),
    (64, 3, False, False),
    (64, 3, False, True),
)


def resmax(
    input_shape: tuple[int, int, int],
    head: str = "flatten",
    second_kernel: int | None = 1,
    dropout: float = 0.7,
    width: float = 1.0,
    units: int = 1,
) -> keras.Model:
    """Residual network whose only activation is the maximum of two feature maps.

    (time, frequency, 1) -> logit. The defaults are the paper's; the authors' later variant is `resmax_gap`.
    `width` multiplies the filters of every block. `units=2` is the paper's softmax head, which has the
    published parameter count; every model here ends in one logit.
    """
    if head not in ("flatten", "average"):
        raise UserError(f"resmax: unknown head {head!r}; valid: flatten, average")
    inputs = x = keras.Input(input_shape, name="features")
    for paper_filters, kernel, second_pair, pool in RESMAX_BLOCKS:
        filters = round(width * paper_filters)
        skip = x if x.shape[-1] == filters else layers.Conv2D(filters, 1, padding="same")(x)
        x = MaxFeatureMap(filters, kernel)(x)
        if second_pair:
            x = MaxFeatureMap(filters, second_kernel or kernel)(x)
        x = layers.Add()([x, skip])
        if pool:
            x = layers.MaxPooling2D(2, padding="same")(x)
        x = batch_norm()(x)
    x = layers.Flatten()(x) if head == "flatten" else layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    return keras.Model(inputs, logit_layer(units)(x), name="resmax")


# ---------------------------------------------------------------- every network by name


@dataclass(frozen=True)
class ModelSpec:
    """What the scripts need to know of a network."""

    build: Callable[..., keras.Model]  # (feature shape, **arguments) -> network: features -> logit
    front_end: str  # the front end it is meant for; its default length is the input length
    summary: str
    arguments: dict[str, Any] = field(default_factory=dict)  # of `build`, where they differ from its own defaults


MODELS = {
    "resmax": ModelSpec(resmax, "log_stft", "Max-Feature-Map residual network (Kwak et al., ICPR 2020)"),
    "resmax_gap": ModelSpec(
        resmax,
        "log_stft",
        "the ResMax authors' later variant",
        {"head": "average", "second_kernel": None, "dropout": 0.5},
    ),
    "resmax_wide": ModelSpec(resmax, "log_stft", "ResMax of 4.7 times the filters", {"width": 4.7}),
    "small_resnet": ModelSpec(small_resnet, "log_stft", "strided, with statistics over time, for any speech"),
    "tiny_resnet": ModelSpec(tiny_resnet, "log_stft", "small_resnet of two fifths of the width, 97 K parameters"),
    "small_resmax": ModelSpec(small_resmax, "log_stft", "small_resnet with max-feature-maps instead of ReLU"),
    "simple_cnn": ModelSpec(simple_cnn, "mel", "four convolutions with pooling and a dense layer"),
    "resnet50": ModelSpec(resnet50, "mel", "ResNet-50 on one channel, from scratch (He et al., CVPR 2016)"),
    "lcnn": ModelSpec(lcnn, "lfcc", "light CNN and LSTM (Wang & Yamagishi, Interspeech 2021)"),
    "aasist": ModelSpec(aasist, "raw", "graph attention on raw samples (Jung et al., ICASSP 2022)"),
    "aasist_l": ModelSpec(aasist_l, "raw", "the light AASIST of the same paper"),
    "rawnet2": ModelSpec(rawnet2, "raw", "sinc filters, residual blocks and GRU (Tak et al., ICASSP 2021)"),
    "res_efficient_cnn": ModelSpec(res_efficient_cnn, "mel", "EfficientNet-B0 with residual adapters"),
    "res2net50": ModelSpec(res2net50, "mel", "Res2Net-50 26w4s at 224 x 224 (Gao et al., TPAMI 2021)"),
    "se_res2net50_thin": ModelSpec(se_res2net50_thin, "cqt", "thin SE-Res2Net-50 (Li et al., ICASSP 2021)"),
}


def model_spec(name: str) -> ModelSpec:
    """The entry of MODELS, or one line with the valid names."""
    if name not in MODELS:
        raise UserError(f"unknown network {name!r}; valid: {', '.join(MODELS)}")
    return MODELS[name]


def build_network(config: Config) -> keras.Model:
    """The network alone: features (batch, *feature_shape) -> raw logit (batch, 1)."""
    feature_config(config.features.kind)  # a wrong name is refused here
    shape, spec = feature_shape(config.features), model_spec(config.model)
    valid = list(inspect.signature(spec.build).parameters)[1:]
    if unknown := sorted(set(config.model_args) - set(valid)):
        raise UserError(f"network {config.model}: unknown argument {', '.join(unknown)}; valid: {', '.join(valid)}")
    try:
        network = spec.build(shape, **{**spec.arguments, **config.model_args})
        network.name = config.model
        if tuple(network.output_shape) != (None, 1) or network.layers[-1].name != "logit":
            raise ValueError(f"ends in {network.layers[-1].name} {network.output_shape}; one `logit` is expected")
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"network {config.model} on {config.features.kind} {shape}: {reason}") from error
    return cosine_head(network, config.training.loss) if config.training.loss in COSINE_LOSSES else network


def build_model(config: Config) -> keras.Model:
    """Front end and network as one model: waveform (batch, samples) -> spoof_logit (batch, 1)."""
    network, masks = build_network(config), feature_masks(config)
    waveform = keras.Input((config.features.samples,), dtype="float32", name="waveform")
    features = front_end_layer(config.features)(waveform)
    if masks is not None:
        features = masks(features)
    return keras.Model(waveform, SpoofLogit()(network(features)), name=config.model)


def feature_masks(config: Config) -> FeatureMasks | None:
    """The layer that hides parts of the features in training, if the config wants one."""
    training = config.training
    if not (training.spec_augment or training.mask_high or training.mask_low):
        return None
    if config.features.kind == "raw":
        raise UserError("spec_augment, mask_high and mask_low hide parts of a picture; the raw front end has none")
    return FeatureMasks(
        training.mask_high or None,
        training.mask_low or None,
        stripes=training.spec_augment,
        probability=training.mask_probability,
        fill="average" if config.features.kind == "lfcc" else "lowest",  # no cepstrum means silence
        seed=training.seed,
        dtype="float32",  # as the front end: a log spectrum does not fit bfloat16
        name="masks",
    )


def parameter_count(model: keras.Model) -> int:
    """Trainable parameters, as papers count them."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def spoof_logits(model: keras.Model, waveforms: np.ndarray) -> np.ndarray:
    """Logits (batch,) of waveforms (batch, samples): the one call through which every script scores."""
    return np.asarray(model.predict_on_batch(waveforms), dtype=np.float32)[:, 0]


def network_of(model: keras.Model) -> keras.Model:
    """The network inside a model that takes the waveform."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            return layer
    raise UserError(f"model {model.name} holds no network with a layer `logit`")


def ending_at(model: keras.Model, inside: keras.KerasTensor) -> keras.Model:
    """Waveform (b, samples) -> a tensor inside the network, sharing a model's weights."""
    network = network_of(model)
    features = model.layers[model.layers.index(network) - 1].output
    return keras.Model(model.input, keras.Model(network.input, inside, name=network.name)(features))


@lru_cache(maxsize=2)  # a new model is a new graph to trace
def embedding_model(model: keras.Model) -> keras.Model:
    """Waveform (b, samples) -> what enters the last layer of the network."""
    return ending_at(model, network_of(model).get_layer("logit").input)


def class_logits(model: keras.Model, waveforms: np.ndarray) -> np.ndarray:
    """Both class logits (b, 2), columns bonafide and spoof, of waveforms (b, samples).

    The published scores are the bona fide column alone. The spoof logit is the second minus the first.
    """
    last = network_of(model).get_layer("logit")
    if not hasattr(last, "class_logits"):
        raise UserError(f"model {model.name} ends in one logit; class logits are those of aasist, aasist_l, rawnet2")
    embedding = embedding_model(model).predict_on_batch(waveforms)
    return keras.ops.convert_to_numpy(last.class_logits(keras.ops.convert_to_tensor(embedding, "float32")))


def set_operating_point(model: keras.Model, operating_point: dict[str, Any]) -> None:
    """Store thresholds and calibration in the model's last layer (they are saved with it)."""
    model.get_layer("spoof_logit").operating_point = operating_point


# ---------------------------------------------------------------- files: name.keras + name.json


def save_model(model: keras.Model, path: Path, card: dict[str, Any] | None = None) -> None:
    """Write `path` (.keras or .h5) and, with a card, `path` as .json; each appears whole or not at all."""
    with whole_file(path) as unfinished:
        model.save(unfinished)
        path.with_suffix(".json").unlink(missing_ok=True)  # a card of other weights must not stay beside these
    if card is not None:
        write_json(path.with_suffix(".json"), {**card, "file": path.name, "sha256": sha256(path)})


def load_model(name: str | Path) -> keras.Model:
    """Load a model file, a run folder's best model, or a detector of pretrained/ by its name."""
    path = find_model(name)
    if path.suffix not in MODEL_SUFFIXES:
        raise UserError(f"{path}: not a model file; a model ends in {' or '.join(MODEL_SUFFIXES)}")
    card = read_card(path)
    if card is not None and card.get("file") == path.name and card.get("sha256") != sha256(path):
        raise UserError(f"{path}: is not the file its card {path.stem}.json describes (sha256 differs)")
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: not a Keras model that can be loaded here ({reason})") from error


def find_model(name: str | Path) -> Path:
    """The model file that a path, a run folder or a name means."""
    path = Path(name)
    if path.is_file():
        return path
    if (path / "best.keras").is_file():
        return path / "best.keras"
    shipped = {p.stem: p for p in sorted(PRETRAINED.glob("*.keras"))}
    if str(name) in shipped:
        return shipped[str(name)]
    names = ", ".join(shipped) or "none is shipped yet: train one with `python main.py`"
    raise UserError(f"no model {str(name)!r}: give a .keras or .h5 file, a run folder, or a name ({names})")


def read_card(path: Path) -> dict[str, Any] | None:
    """The card beside a model file, if it has one."""
    card = path.with_suffix(".json")
    try:
        content = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else None
    except ValueError as error:
        raise UserError(f"{card}: not a readable model card ({error})") from error
    if not isinstance(content, dict | None):
        raise UserError(f"{card}: not a model card, which is a JSON object")
    return content


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
