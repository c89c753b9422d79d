"""Published checkpoints give the published numbers here, on both backends; those of other networks are refused."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from torch_files import save

from audio import fit_length, load_audio
from backend import keras
from config import BONAFIDE, LABELS, SPOOF, Config, FeatureConfig, config_from_dict, feature_config
from errors import UserError, run_command
from import_weights import COUNTER, UNUSED, import_checkpoint, main, match, official_names
from inference import predict_audio
from model import build_model, build_network, class_logits, embedding_model, load_model, read_card, sha256, spoof_logits
from torch_file import read_checkpoint

REPO = Path(__file__).resolve().parents[1]
NETWORKS = {"aasist": "AASIST", "aasist_l": "AASIST-L"}  # ours -> theirs
SAMPLES = feature_config("raw").samples
# logits [spoof, bonafide] that the authors' code and weights give for three clips of ASVspoof 2019 LA
LA_CLIPS = {
    "LA_T_1272637": {"aasist": (-8.071074, 5.236644), "aasist_l": (-5.489655, 6.847424)},  # bona fide
    "LA_D_1003356": {"aasist": (6.811724, -6.786913), "aasist_l": (7.722385, -7.115064)},  # A04
    "LA_E_6163791": {"aasist": (8.835578, -9.056874), "aasist_l": (11.949375, -10.768151)},  # A09
}


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> Path:
    return shared_data / "reference"


@pytest.fixture(scope="module")
def waveforms(reference: Path) -> np.ndarray:
    """The twelve signals, then the three clips: (15, 64600)."""
    import soundfile

    files = sorted((reference / "inputs").glob("*.flac"))  # one is digital silence, which load_audio refuses
    assert len(files) == 12
    files += [reference / "la_clips" / f"{name}.flac" for name in LA_CLIPS]
    return np.stack([fit_length(soundfile.read(file, dtype="float32")[0], SAMPLES) for file in files])


@pytest.fixture(scope="module")
def imported(reference: Path) -> Callable[[str], keras.Model]:
    models = {}

    def get(network: str) -> keras.Model:
        if network not in models:
            name, models[network] = import_checkpoint(reference / "weights" / f"{NETWORKS[network]}.pth")
            assert name == network
        return models[network]

    return get


@pytest.fixture(scope="module")
def computed(imported: Callable[[str], keras.Model], waveforms: np.ndarray) -> Callable[[str], SimpleNamespace]:
    """What an imported network makes of the fifteen waveforms."""
    results = {}

    def get(network: str) -> SimpleNamespace:
        if network not in results:
            model, parts = imported(network), np.split(waveforms, 3)
            results[network] = SimpleNamespace(
                embedding=np.concatenate([embedding_model(model).predict_on_batch(part) for part in parts]),
                logits=np.concatenate([class_logits(model, part) for part in parts]),
                spoof=spoof_logits(model, waveforms[-3:]),
            )
        return results[network]

    return get


def _wanted(reference: Path, network: str) -> tuple[np.ndarray, np.ndarray]:
    """Published logits, columns bonafide and spoof, of fifteen waveforms and embeddings of the first twelve."""
    outputs = json.loads((reference / f"{NETWORKS[network]}.json").read_text(encoding="utf-8"))["outputs"]
    signals = [outputs[name] for name in sorted(outputs)]
    logits = [signal["logits"] for signal in signals] + [clip[network] for clip in LA_CLIPS.values()]
    return np.array(logits)[:, ::-1], np.array([signal["embedding"] for signal in signals])


# ---------------------------------------------------------------- the published numbers


@pytest.mark.parametrize("network", NETWORKS)
def test_every_tensor_is_read_bit_for_bit(network: str, reference: Path) -> None:
    official = NETWORKS[network]
    tensors = read_checkpoint(reference / "weights" / f"{official}.pth")
    listed = json.loads((reference / f"{official}_state_dict.json").read_text(encoding="utf-8"))
    assert [*tensors] == [entry["name"] for entry in listed]
    assert len(tensors) == 229
    for entry in listed:
        tensor = tensors[entry["name"]]
        assert (list(tensor.shape), tensor.dtype.name) == (entry["shape"], entry["dtype"])
        assert hashlib.sha256(tensor.tobytes()).hexdigest().startswith(entry["sha256"])


@pytest.mark.parametrize("network", NETWORKS)
def test_every_tensor_has_its_place(network: str, reference: Path) -> None:
    tensors = read_checkpoint(reference / "weights" / f"{NETWORKS[network]}.pth")
    paths = [weight.path for weight in build_network(Config(model=network, features=feature_config("raw"))).weights]
    used = [name for path in paths for name in official_names(path)]
    assert len(used) == len(set(used))
    assert set(tensors) == {*used, *UNUSED, *(name for name in tensors if name.endswith(COUNTER))}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_published_logits(network: str, computed: Callable, reference: Path) -> None:
    """Also where two nodes' scores lie 2e-6 apart at a cut (AASIST-L, linear chirp): the same nodes are kept."""
    logits, embedding = _wanted(reference, network)
    found = computed(network)
    assert np.abs(found.logits - logits).max() < 1e-4
    assert np.abs(found.embedding[:12] - embedding).max() < 1e-4
    # one logit for training and thresholds; its sign is right on the three clips
    assert np.allclose(found.spoof, (found.logits[:, SPOOF] - found.logits[:, BONAFIDE])[-3:], atol=1e-5)
    assert [*np.sign(found.spoof)] == [-1, 1, 1]


# their names of the intermediate results -> our layer and which of its outputs
STAGES = {
    "encoder.0": ("block0", None),
    "encoder.1": ("block1", None),
    "encoder.2": ("block2", None),
    "encoder.3": ("block3", None),
    "encoder.4": ("block4", None),
    "encoder.5": ("block5", None),
    "e_S": ("frequency_position", None),
    "e_T": ("time_nodes", None),
    "GAT_layer_S": ("frequency_attention", None),
    "GAT_layer_T": ("time_attention", None),
    "pool_S": ("frequency_pool", None),
    "pool_T": ("time_pool", None),
    "pool_hS1": ("branch1_frequency_pool", None),
    "pool_hT1": ("branch1_time_pool", None),
    "pool_hS2": ("branch2_frequency_pool", None),
    "pool_hT2": ("branch2_time_pool", None),
    **{
        f"HtrgGAT_layer_ST{branch}{order}.{kind}": (f"branch{branch}_{('first', 'second')[order - 1]}", position)
        for branch in (1, 2)
        for order in (1, 2)
        for position, kind in enumerate(("T", "S", "master"))
    },
    "last_hidden": ("embedding", None),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_every_stage_gives_the_published_values(network: str, imported: Callable, reference: Path) -> None:
    with np.load(reference / f"{NETWORKS[network]}_intermediate_02_pink_4s.npz") as file:
        stored = dict(file)
    inner = imported(network).get_layer(network)
    outputs = [
        inner.get_layer(layer).output if position is None else inner.get_layer(layer).output[position]
        for layer, position in STAGES.values()
    ]
    waveform = stored["input"][..., None]
    for key, ours in zip(STAGES, keras.Model(inner.input, outputs)(waveform, training=False), strict=True):
        name = next(name for name in stored if name.split("|")[0] == key)
        step = int(name.rpartition("_")[2]) if "|" in name else 1
        ours = keras.ops.convert_to_numpy(ours)
        if ours.ndim == 4:
            ours = ours.transpose(0, 3, 1, 2)[..., ::step]
        assert ours.shape == stored[name].shape, name
        assert np.abs(ours - stored[name]).max() < 2e-5 * np.abs(stored[name]).max(), name
    sinc = inner.get_layer("sinc")
    filtered = keras.ops.convert_to_numpy(sinc.filtered(waveform)).transpose(0, 2, 1)[..., ::64]
    assert np.abs(filtered - stored["sinc_conv|last_axis_stride_64"]).max() < 1e-6
    pooled = keras.ops.convert_to_numpy(sinc(waveform)).transpose(0, 2, 1)[..., ::16]
    assert np.abs(pooled - stored["abs_maxpool|last_axis_stride_16"][:, 0]).max() < 1e-6


ON_JAX = """
import sys
import numpy as np
from backend import keras
from import_weights import import_checkpoint
from model import class_logits, embedding_model
from model import load_model
waveforms = np.load(sys.argv[1])
results = {}
for file in sys.argv[3:]:
    name, model = import_checkpoint(__import__("pathlib").Path(file))
    parts = np.split(waveforms, 3)
    results[name] = np.concatenate([class_logits(model, part) for part in parts])
    results[name + " embedding"] = np.concatenate([embedding_model(model).predict_on_batch(part) for part in parts])
short = __import__("architectures.aasist").aasist.aasist_l((4000, 1), dropout=0.0)
short.compile(keras.optimizers.Adam(1e-3), keras.losses.BinaryCrossentropy(from_logits=True))
clips = np.random.default_rng(0).normal(0, 0.1, (4, 4000, 1))
clips[2:] *= np.sin(np.arange(4000) / 100)[:, None]
results["losses"] = [short.train_on_batch(clips, np.array([[0], [0], [1], [1]])) for _ in range(40)]
np.savez(sys.argv[2], backend=keras.backend.backend(), tensorflow="tensorflow" in sys.modules, **results)
"""


@pytest.mark.slow
def test_the_published_logits_on_jax(waveforms: np.ndarray, reference: Path, tmp_path: Path) -> None:
    pytest.importorskip("jax")
    np.save(tmp_path / "waveforms.npy", waveforms)
    files = [str(reference / "weights" / f"{official}.pth") for official in NETWORKS.values()]
    command = [sys.executable, "-c", ON_JAX, str(tmp_path / "waveforms.npy"), str(tmp_path / "results.npz"), *files]
    done = subprocess.run(
        command, cwd=REPO, env={**os.environ, "KERAS_BACKEND": "jax"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "results.npz") as results:
        assert (str(results["backend"]), bool(results["tensorflow"])) == ("jax", False)
        for network in NETWORKS:
            logits, embedding = _wanted(reference, network)
            assert np.abs(results[network] - logits).max() < 1e-4
            assert np.abs(results[f"{network} embedding"][:12] - embedding).max() < 1e-4
        assert np.isfinite(results["losses"]).all()
        # ten of the last, for single losses jump: dropout on four clips
        assert results["losses"][-10:].mean() < 0.8 * results["losses"][:3].mean()


@pytest.mark.slow
def test_scores_agree_with_another_training_of_the_network(shared_data: Path, imported: Callable) -> None:
    """On 100 dev clips, the bona fide logit against the scores of an AASIST that others trained."""
    lines = (shared_data / "scores" / "AASIST_LA_dev.txt").read_text(encoding="utf-8").splitlines()
    theirs = {words[0]: (words[2], float(words[3])) for words in map(str.split, lines)}
    files = sorted((shared_data / "LA" / "ASVspoof2019_LA_dev" / "flac").glob("*.flac"))
    assert len(files) == 100
    clips = np.stack([fit_length(load_audio(file), SAMPLES) for file in files])
    ours = np.concatenate([class_logits(imported("aasist"), part)[:, BONAFIDE] for part in np.split(clips, 20)])
    keys, scores = zip(*(theirs[file.stem] for file in files), strict=True)
    assert scipy.stats.pearsonr(ours, scores).statistic > 0.99  # measured: 0.9976
    assert scipy.stats.spearmanr(ours, scores).statistic > 0.98  # 0.9938
    # both published EERs on dev are below 1 %: no bona fide clip here scores below a spoofed one
    is_bonafide = np.array(keys) == LABELS[BONAFIDE]
    assert ours[is_bonafide].min() > ours[~is_bonafide].max()


def test_class_logits_need_a_two_class_layer() -> None:
    config = Config(features=FeatureConfig("log_stft", 8_000, window=256, hop=256))
    with pytest.raises(UserError, match=r"^model resmax ends in one logit; class logits are those of"):
        class_logits(build_model(config), np.zeros((1, 8_000), np.float32))


# ---------------------------------------------------------------- the command


def _command(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["import_weights.py", *map(str, words)])
    return run_command(main)


def test_the_command_writes_a_detector_and_its_card(
    reference: Path, waveforms: np.ndarray, tmp_path: Path, monkeypatch, capsys
) -> None:
    source = reference / "weights" / "AASIST-L.pth"
    assert _command(monkeypatch, source, "--out", tmp_path / "new") == 0
    assert "aasist_l, 85,034 parameters from AASIST-L.pth" in capsys.readouterr().out
    path = tmp_path / "new" / "aasist_l.keras"
    model = load_model(path)
    logits = _wanted(reference, "aasist_l")[0]
    assert np.abs(class_logits(model, waveforms[-1:]) - logits[-1:]).max() < 1e-4
    card = read_card(path)
    assert (card["model"], card["parameters"], card["labels"]) == ("aasist_l", 85_034, list(LABELS))
    assert card["source"]["file"] == "AASIST-L.pth"
    assert card["source"]["sha256"] == sha256(source)
    assert "0.99 %" in card["published"]
    assert card["licence"].startswith("MIT")
    rebuilt = build_model(config_from_dict(card["config"]))
    rebuilt.set_weights(model.get_weights())
    assert np.array_equal(spoof_logits(rebuilt, waveforms[-1:]), spoof_logits(model, waveforms[-1:]))
    verdict = predict_audio(model, reference / "la_clips" / "LA_E_6163791.flac")
    assert verdict["prediction"] == "spoof"


# ---------------------------------------------------------------- tensors that do not fit


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return build_network(Config(model="aasist_l", features=feature_config("raw")))


@pytest.fixture(scope="module")
def tensors(network: keras.Model) -> dict[str, np.ndarray]:
    """An AASIST-L checkpoint of random numbers."""
    rng = np.random.default_rng(0)
    made = {}
    for weight in network.weights:
        names, shape = official_names(weight.path), tuple(weight.shape)
        if weight.path == "frequency_position/position":
            shape = (1, *shape)
        elif weight.path.endswith("direction"):
            shape = (shape[0], 1)
        elif weight.path.endswith("kernel"):
            shape = shape[::-1] if len(shape) == 2 else (shape[3], shape[2], shape[0], shape[1])
        made |= {name: rng.uniform(0.5, 1, shape).astype(np.float32) for name in names}
    made |= {name: np.ones(24, np.float32) for name in UNUSED}
    return made | {"first_bn" + COUNTER: np.array(3, np.int64)}


def test_random_tensors_find_their_network(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    name, model = import_checkpoint(save(tmp_path / "any.pth", tensors))
    assert name == "aasist_l"
    inner = model.get_layer(name)
    kernel = keras.ops.convert_to_numpy(inner.get_layer("logit").kernel)
    assert np.array_equal(kernel[:, SPOOF], tensors["out_layer.weight"][0])
    assert np.array_equal(kernel[:, BONAFIDE], tensors["out_layer.weight"][1])
    direction = keras.ops.convert_to_numpy(inner.get_layer("branch2_second").direction)
    kinds = [tensors[f"HtrgGAT_layer_ST22.att_weight{kind}"][:, 0] for kind in ("11", "12", "22")]
    assert np.array_equal(direction.T, kinds)
    convolution = keras.ops.convert_to_numpy(inner.get_layer("block2_skip").kernel)
    assert convolution[0, 2, 5, 7] == tensors["encoder.2.0.conv_downsample.weight"][7, 5, 0, 2]


CHANGES = {
    "a missing tensor": ({"pos_S": None}, "pos_S is missing"),
    "a missing part of one": ({"HtrgGAT_layer_ST11.att_weight12": None}, "HtrgGAT_layer_ST11.att_weight12 is missing"),
    "an unknown tensor": ({"extra.weight": np.ones(3, np.float32)}, "extra.weight is left over"),
    "an unknown block": ({"encoder.6.0.bn1.weight": np.ones(3, np.float32)}, "encoder.6.0.bn1.weight is left over"),
    "another shape": (
        {"first_bn.bias": np.ones(2, np.float32)},
        "first_bn.bias has shape (2,), which does not give (1,)",
    ),
    "another rank": ({"pos_S": np.ones((), np.float32)}, "pos_S has shape ()"),
    "whole numbers": ({"first_bn.bias": np.ones(1, np.int64)}, "first_bn.bias has shape (1,)"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_tensors_of_another_network_are_refused(
    name: str, network: keras.Model, tensors: dict[str, np.ndarray]
) -> None:
    changes, reason = CHANGES[name]
    changed = {key: value for key, value in {**tensors, **changes}.items() if value is not None}
    _, problems = match(network, changed)
    assert len(problems) == 1
    assert problems[0].startswith(reason)


def test_the_command_refuses_in_one_line(tensors: dict[str, np.ndarray], tmp_path: Path, monkeypatch, capsys) -> None:
    changed = {name: tensor for name, tensor in tensors.items() if name != "master1"}
    path = save(tmp_path / "broken.pth", changed)
    assert _command(monkeypatch, path, "--out", tmp_path / "new") == 2
    line = f"{path}: holds no network of aasist, aasist_l; nearest is aasist_l, 1 differ: master1 is missing"
    assert capsys.readouterr().err == f"error: {line}\n"
    assert not (tmp_path / "new").exists()
    assert _command(monkeypatch, path) == 2
    assert capsys.readouterr().err == "error: the following arguments are required: --out (see --help)\n"
