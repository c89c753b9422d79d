"""ResMax is the published network, and a saved model is the model that was trained, or is refused."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import model as model_file
from backend import keras
from config import Config, FeatureConfig
from errors import UserError
from front_ends import front_end_layer
from model import (
    MODELS,
    MaxFeatureMap,
    SpoofLogit,
    build_model,
    build_network,
    find_model,
    load_model,
    parameter_count,
    read_card,
    resmax,
    save_model,
    set_operating_point,
    sha256,
    spoof_logits,
)

REPO = Path(__file__).resolve().parents[1]
SMALL = Config(features=FeatureConfig("log_stft", 8_000, window=256, hop=256))  # (32, 129, 1)
POINT = {"threshold": 0.25, "calibration": [1.5, -0.5], "uncertain": None}


@pytest.fixture(scope="module")
def small_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_model(SMALL)


@pytest.fixture(scope="module")
def waveforms() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (4, SMALL.features.samples)).astype(np.float32)


@pytest.fixture(scope="module")
def trained(waveforms: np.ndarray) -> tuple[keras.Model, list[float]]:
    """A model after eight steps on one batch, and the loss of each: its averages have moved too."""
    keras.utils.set_random_seed(1)
    model = build_model(replace(SMALL, model_args={"dropout": 0.0}))
    labels = np.array([[0.0], [1.0], [1.0], [0.0]])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, run_eagerly=True)  # no graph to build: sooner done
    return model, [float(model.train_on_batch(waveforms, labels)) for _ in range(8)]


# ---------------------------------------------------------------- the published network


def test_parameters_of_the_paper() -> None:
    network = resmax((282, 100, 1), units=2)
    assert network.count_params() == 261_994
    assert parameter_count(network) == 261_306
    assert resmax((250, 513, 1), units=2).count_params() == 265_322
    # every model here ends in one logit: the second unit's 640 weights and bias are gone
    assert resmax((282, 100, 1)).count_params() == 261_994 - 641


def test_parameters_of_the_authors_later_variant() -> None:
    network = resmax((100, 282, 1), head="average", second_kernel=None, dropout=0.5, units=2)
    assert network.count_params() == 286_442


def test_block_shapes_of_the_paper() -> None:
    network = resmax((100, 282, 1))
    ends = [layer.output.shape[1:] for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert ends == [
        (50, 141, 16),
        (25, 71, 16),
        (13, 36, 24),
        (13, 36, 32),
        (7, 18, 32),
        (7, 18, 48),
        (4, 9, 48),
        (4, 9, 64),
        (2, 5, 64),
    ]
    dropout = next(layer for layer in network.layers if isinstance(layer, keras.layers.Dropout))
    assert dropout.rate == 0.7
    assert network.output_shape == (None, 1)
    activations = {type(layer).__name__ for layer in network.layers}
    assert not activations & {"ReLU", "Activation", "LeakyReLU"}
    convolutions = [layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.Conv2D)]
    assert {layer.activation.__name__ for layer in convolutions} == {"linear"}


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_max_feature_map_is_the_larger_of_two_convolutions(kernel: int) -> None:
    keras.utils.set_random_seed(kernel)
    rng = np.random.default_rng(kernel)
    x = rng.normal(size=(2, 6, 7, 3)).astype(np.float32)
    layer = MaxFeatureMap(4, kernel)
    layer.build(x.shape)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.get_weights()])
    kernels = layer.get_weights()
    margin = kernel // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))  # (b, t, f, c, k, k)
    first, second = (np.einsum("btfcij,ijco->btfo", patches, kernels[k]) + kernels[k + 1] for k in (0, 2))
    assert layer(x).shape == layer.compute_output_shape(x.shape) == (2, 6, 7, 4)
    assert np.abs(keras.ops.convert_to_numpy(layer(x)) - np.maximum(first, second)).max() < 1e-4
    assert (first > second).any() and (second > first).any()
    twin = MaxFeatureMap.from_config(layer.get_config())
    assert (twin.filters, twin.kernel_size) == (4, kernel)


def test_a_model_is_its_front_end_and_its_network(small_model: keras.Model, waveforms: np.ndarray) -> None:
    features = front_end_layer(SMALL.features)(waveforms)
    network = small_model.get_layer("resmax")
    wanted = keras.ops.convert_to_numpy(network(features, training=False))[:, 0]
    logits = spoof_logits(small_model, waveforms)
    assert logits.shape == (4,)
    assert logits.dtype == np.float32
    assert np.allclose(logits, wanted, atol=1e-5)
    assert small_model.input_shape == (None, 8_000)
    assert small_model.layers[-1].name == "spoof_logit"
    # one clip alone gets the logit that it gets in a batch
    assert np.allclose([spoof_logits(small_model, clip[None])[0] for clip in waveforms], logits, atol=1e-5)


def test_the_networks_input_is_the_requested_one() -> None:
    assert build_network(Config()).input_shape == (None, 250, 513, 1)


# ---------------------------------------------------------------- it learns


def test_a_few_steps_lower_the_loss(trained: tuple[keras.Model, list[float]]) -> None:
    losses = trained[1]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.5 * losses[0]


# ---------------------------------------------------------------- files


IN_A_FRESH_PROCESS = """
import json, sys
import numpy as np
import inference
points = []
for name in sys.argv[2:]:
    model = inference.keras.models.load_model(name)
    np.save(name + ".npy", model(np.load(sys.argv[1])))
    points.append(model.get_layer("spoof_logit").operating_point)
print(json.dumps(points))
"""


def test_a_saved_model_is_the_same_in_a_fresh_process(
    trained: tuple[keras.Model, list[float]], waveforms: np.ndarray, tmp_path: Path
) -> None:
    """With plain Keras: `import inference` is all that has to be known, and the threshold comes along."""
    model = trained[0]
    set_operating_point(model, POINT)
    wanted = keras.ops.convert_to_numpy(model(waveforms))
    np.save(tmp_path / "waveforms.npy", waveforms)
    files = [tmp_path / "model.keras", tmp_path / "model.h5"]
    for file in files:
        save_model(model, file)
        assert np.abs(spoof_logits(load_model(file), waveforms) - wanted[:, 0]).max() <= 1e-6
        assert load_model(str(file)).layers[-1].operating_point == POINT
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path / "waveforms.npy"), *map(str, files)]
    done = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [POINT, POINT]
    for file in files:
        assert np.abs(np.load(f"{file}.npy") - wanted).max() <= 1e-6


def test_a_card_goes_with_the_weights(small_model: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "detector.keras"
    save_model(small_model, path, {"network": "resmax", "note": "größer"})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["detector.json", "detector.keras"]
    assert read_card(path) == {
        "network": "resmax",
        "note": "größer",
        "file": "detector.keras",
        "sha256": sha256(path),
    }
    assert load_model(path).name == "resmax"
    # the card speaks of one file; its .h5 sibling of the same name is another
    save_model(small_model, tmp_path / "detector.h5")
    assert load_model(tmp_path / "detector.h5").name == "resmax"


def _refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load_model(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_new_weights_do_not_keep_the_card_of_the_old(small_model: keras.Model, tmp_path: Path) -> None:
    save_model(small_model, tmp_path / "best.keras", {})
    save_model(build_model(SMALL), tmp_path / "best.keras")
    assert read_card(tmp_path / "best.keras") is None
    load_model(tmp_path / "best.keras")


def test_a_changed_file_is_refused(small_model: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "detector.keras"
    save_model(small_model, path, {})
    build_model(SMALL).save(path)  # other weights, as good a file
    assert _refusal(path) == f"{path}: is not the file its card detector.json describes (sha256 differs)"
    for card in ('{"file": "detector.keras"}', '{"file": "detector.keras", "sha256": 3}', "{", ""):
        path.with_suffix(".json").write_text(card, encoding="utf-8")
        assert str(tmp_path) in _refusal(path)
    path.with_suffix(".json").unlink()
    assert load_model(path).name == "resmax"


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_that_is_no_model(suffix: str, small_model: keras.Model, tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / f"model{suffix}"
    save_model(small_model, path)
    whole = path.read_bytes()
    contents = [b"", b"words", whole[: len(whole) // 2]]
    if suffix == ".keras":  # HDF5 holds no checksums: there the card's sha256 is the guard
        contents.append(whole[: len(whole) // 2] + b"x" * 3000 + whole[len(whole) // 2 + 3000 :])
    for content in contents:
        path.write_bytes(content)
        assert _refusal(path).startswith(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("words.txt", "no model")
    assert _refusal(path).startswith(str(path))


def test_a_file_appears_whole_or_not_at_all(small_model: keras.Model, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "best.keras"
    save_model(small_model, path, {"run": 1})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def half(self: keras.Model, target: Path) -> None:
        assert target != path
        Path(target).write_bytes(b"half a mod")
        raise OSError("disk full")

    monkeypatch.setattr(type(small_model), "save", half)
    for name in ("best.keras", "new.keras"):
        with pytest.raises(OSError, match="disk full"):
            save_model(small_model, tmp_path / name, {"run": 2})
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not (tmp_path / "new.keras").exists()
    assert not (tmp_path / "new.json").exists()


def test_what_a_name_means(small_model: keras.Model, tmp_path: Path, monkeypatch) -> None:
    run, shipped = tmp_path / "run", tmp_path / "pretrained"
    run.mkdir()
    shipped.mkdir()
    for file in (run / "best.keras", shipped / "one.keras", shipped / "two.keras"):
        file.touch()
    monkeypatch.setattr(model_file, "PRETRAINED", shipped)
    assert find_model(run) == find_model(run / "best.keras") == run / "best.keras"
    assert find_model("one") == shipped / "one.keras"
    with pytest.raises(UserError, match=r"^no model 'three': .*\(one, two\)$"):
        find_model("three")
    monkeypatch.setattr(model_file, "PRETRAINED", tmp_path / "nothing")
    with pytest.raises(UserError, match=r"none is shipped yet"):
        find_model("one")
    (run / "clip.wav").touch()
    assert ".keras or .h5" in _refusal(run / "clip.wav")


def test_a_wrong_network_or_argument_is_one_line() -> None:
    def refusal(**changes) -> str:
        with pytest.raises(UserError) as error:
            build_model(replace(SMALL, **changes))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert refusal(model="resnet") == f"unknown network 'resnet'; valid: {', '.join(MODELS)}"
    line = "network resmax: unknown argument wide; valid: head, second_kernel, dropout, width, units"
    assert refusal(model_args={"wide": 2}) == line
    assert refusal(model_args={"head": "max"}) == "resmax: unknown head 'max'; valid: flatten, average"
    line = refusal(features=FeatureConfig("mfcc"))
    assert line == "unknown front end 'mfcc'; valid: log_stft, mel, lfcc, cqt, raw"


def test_spoof_logit_reads_a_config_of_later() -> None:
    layer = SpoofLogit.from_config({"name": "spoof_logit", "operating_point": POINT, "a_setting_of_later": 1})
    assert layer.operating_point == POINT
    assert SpoofLogit.from_config({"name": "spoof_logit"}).operating_point is None
