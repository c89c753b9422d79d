"""The networks of architectures/ that take a picture are the published ones: sizes, blocks, source of weights.

What every network must do (learn, save, load, mixed precision) is tested over MODELS in test_contract.py.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from architectures.layers import MaxFeatureMap
from architectures.lcnn import lcnn
from architectures.res2net50 import Resized, SplitConvolutions, res2net50, se_res2net50_thin
from architectures.res_efficient_cnn import (
    BLACK,
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    STAGE_ENDS,
    WHITE,
    efficient_net,
    res_efficient_cnn,
    residual_adapter,
)
from architectures.resnet50 import resnet50
from architectures.simple_cnn import simple_cnn
from backend import keras
from config import DEFAULT_FEATURES
from errors import UserError
from feature_extraction import feature_shape
from model import parameter_count

layers, ops = keras.layers, keras.ops

EMBEDDING = {
    simple_cnn: 128,
    resnet50: 2048,
    lcnn: 96,
    res2net50: 2048,
    se_res2net50_thin: 256,
    res_efficient_cnn: 1280,
}
PICTURES = ("log_stft", "mel", "lfcc", "cqt")
# what the published heads have and one logit has not
IMAGENET_HEAD = 2048 * 1000 + 1000 - (2048 + 1)
RGB_STEM = 7 * 7 * 64 * (3 - 1)


@cache
def built(build: Callable[..., keras.Model], front_end: str) -> keras.Model:
    return build(feature_shape(DEFAULT_FEATURES[front_end]))


def numbers(tensor) -> np.ndarray:
    return ops.convert_to_numpy(tensor).astype(np.float64)


def randomise(layer: layers.Layer, seed: int = 0) -> None:
    """Give every weight of a built layer a random value; positive, as variances must be, within 0.5 and 1.5."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) * 0.3 for weight in layer.get_weights()])


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    ("build", "front_end"),
    [
        # the deep ones take a second each to build, and do the same to every picture
        pytest.param(build, front_end, marks=[pytest.mark.slow] if deep and front_end in ("log_stft", "cqt") else [])
        for build, deep in ((x, EMBEDDING[x] > 1000) for x in EMBEDDING)
        for front_end in PICTURES
    ],
)
def test_every_network_takes_every_picture(build: Callable[..., keras.Model], front_end: str) -> None:
    network = built(build, front_end)
    assert network.name == build.__name__
    assert network.input_shape[1:] == feature_shape(DEFAULT_FEATURES[front_end])
    assert network.output_shape == (None, 1)
    last = network.layers[-1]
    assert (last.name, last.dtype, last.activation.__name__) == ("logit", "float32", "linear")
    # LCNN's recurrent part is as wide as what the poolings leave of the frequencies
    wide = {"log_stft": 1024, "mel": 256, "lfcc": 96, "cqt": 192}
    assert last.input.shape == (None, wide[front_end] if build is lcnn else EMBEDDING[build])


@pytest.mark.parametrize("build", EMBEDDING, ids=lambda build: build.__name__)
def test_running_averages_follow_short_epochs(build: Callable[..., keras.Model]) -> None:
    norms = [x for x in built(build, "mel")._flatten_layers() if isinstance(x, layers.BatchNormalization)]
    assert norms
    assert {norm.momentum for norm in norms} == {0.9}


@pytest.mark.parametrize("build", [resnet50, res2net50, se_res2net50_thin, res_efficient_cnn])
def test_no_bias_that_a_batch_norm_cancels(build: Callable[..., keras.Model]) -> None:
    network = built(build, "mel")
    for layer in network._flatten_layers():
        following = [node.operation for node in getattr(layer, "_outbound_nodes", ())]
        if isinstance(layer, layers.Conv2D) and any(isinstance(x, layers.BatchNormalization) for x in following):
            assert not layer.use_bias, layer.name


# ---------------------------------------------------------------- simple CNN, ResNet-50


def test_simple_cnn_is_four_convolutions_with_pooling() -> None:
    network = built(simple_cnn, "mel")
    assert [layer.output.shape[1:] for layer in network.layers if isinstance(layer, layers.MaxPooling2D)] == [
        (125, 64, 32),
        (63, 32, 64),
        (32, 16, 128),
        (16, 8, 128),
    ]
    assert network.count_params() == 2_337_669
    assert simple_cnn((20, 12, 1), filters=[4, 6], dense_units=8).count_params() == 4 + 40 + 222 + (15 * 6 * 8 + 8) + 9


def test_resnet50_has_the_published_parameters() -> None:
    assert parameter_count(built(resnet50, "mel")) == 25_557_032 - IMAGENET_HEAD - RGB_STEM == 23_503_809


def test_resnet50_has_sixteen_blocks_in_four_stages() -> None:
    sums = [layer.output.shape[1:] for layer in built(resnet50, "mel").layers if isinstance(layer, layers.Add)]
    stages = [(63, 32, 256), (32, 16, 512), (16, 8, 1024), (8, 4, 2048)]
    assert sums == [shape for shape, blocks in zip(stages, (3, 4, 6, 3), strict=True) for _ in range(blocks)]


# ---------------------------------------------------------------- LCNN

SECOND_LSTM_BIAS = 2 * 2 * 4 * 48  # PyTorch has it in each layer and direction


def test_lcnn_has_the_published_parameters() -> None:
    assert parameter_count(built(lcnn, "lfcc")) == 269_729 - SECOND_LSTM_BIAS == 268_961
    # the margin-softmax systems end at their embedding: no logit there
    assert parameter_count(lcnn((401, 60, 1), embedding=64)) == 275_840 - SECOND_LSTM_BIAS + (64 + 1)


def test_lcnn_has_the_tensors_of_the_public_checkpoint(shared_data: Path) -> None:
    listing = json.loads((shared_data / "reference" / "LFCC-LCNN-LSTM_state_dict.json").read_text(encoding="utf-8"))
    public = {entry["name"].removeprefix("inner."): entry["shape"] for entry in listing}
    network = built(lcnn, "lfcc")
    maps = [layer for layer in network.layers if isinstance(layer, MaxFeatureMap)]
    kernels = [shape for name, shape in public.items() if name.startswith("m_transform") and len(shape) == 4]
    assert [(2 * x.filters, x.first.kernel.shape[2], x.kernel_size, x.kernel_size) for x in maps] == [
        tuple(shape) for shape in kernels
    ]
    norms = [x.moving_mean.shape for x in network.layers if isinstance(x, layers.BatchNormalization)]
    assert norms == [tuple(shape) for name, shape in public.items() if name.endswith("running_mean")]
    recurrent = [layer for layer in network.layers if isinstance(layer, layers.Bidirectional)]
    for number, layer in enumerate(recurrent):
        for direction, suffix in ((layer.forward_layer, "l0"), (layer.backward_layer, "l0_reverse")):
            prefix = f"m_before_pooling.0.{number}.l_blstm"
            assert list(direction.cell.kernel.shape[::-1]) == public[f"{prefix}.weight_ih_{suffix}"]
            assert list(direction.cell.recurrent_kernel.shape[::-1]) == public[f"{prefix}.weight_hh_{suffix}"]
    assert list(network.get_layer("logit").kernel.shape[::-1]) == public["m_output_act.0.weight"]
    fixed = ("input_", "output_", "m_frontend")
    learned = {k: v for k, v in public.items() if not k.startswith(fixed) and "running" not in k and "num_b" not in k}
    assert sum(int(np.prod(shape)) for shape in learned.values()) == 269_729


def test_lcnn_averages_its_maps_plus_what_the_lstm_makes_of_them() -> None:
    keras.utils.set_random_seed(2)
    network = lcnn((48, 32, 1))
    first, second = (x for x in network.layers if isinstance(x, layers.Bidirectional))
    pooled = next(x for x in network.layers if isinstance(x, layers.GlobalAveragePooling1D))
    probe = keras.Model(network.input, [first.input, second.output, pooled.output, network.output])
    x = np.random.default_rng(0).normal(size=(3, 48, 32, 1)).astype(np.float32)
    maps, recurrent, embedding, logit = (numbers(y) for y in probe(x, training=False))
    assert maps.shape == recurrent.shape == (3, 3, 64)
    assert np.allclose(embedding, (maps + recurrent).mean(axis=1), atol=1e-6)
    kernel, bias = (numbers(weight) for weight in network.get_layer("logit").weights)
    assert np.allclose(logit, embedding @ kernel + bias, atol=1e-6)
    # a frame's channels and frequencies become one vector; time stays time
    map_layer = next(x for x in network.layers if isinstance(x, layers.Dropout))
    assert map_layer.rate == 0.7
    unfolded = numbers(keras.Model(network.input, map_layer.output)(x, training=False))
    assert np.allclose(maps[:, 1], unfolded[:, 1].reshape(3, -1))


def test_lcnn_keeps_its_lstm_in_float32() -> None:
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        network = lcnn((16, 16, 1))
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    recurrent = [layer for layer in network.layers if isinstance(layer, layers.Bidirectional)]
    assert {x.compute_dtype for layer in recurrent for x in (layer, layer.forward_layer, layer.backward_layer)} == {
        "float32"
    }
    assert network.layers[1].compute_dtype == "bfloat16"


def test_lcnn_refuses_a_picture_that_its_poolings_would_empty() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        lcnn((64, 15, 1))


# ---------------------------------------------------------------- Res2Net


def test_res2net50_has_the_published_parameters() -> None:
    count = parameter_count(built(res2net50, "mel"))
    assert count == 23_645_897
    assert count + IMAGENET_HEAD + RGB_STEM == 25_699_120  # published as 25.7 M
    assert built(res2net50, "mel").count_params() == 23_705_389


def test_thin_se_res2net50_has_the_published_parameters() -> None:
    network = built(se_res2net50_thin, "cqt")
    second_class = 2 * 128 + 1
    assert parameter_count(network) + second_class == 923_102  # published as 0.92 M
    assert (parameter_count(network), network.count_params()) == (922_845, 933_025)


def test_thin_se_res2net50_keeps_the_picture_until_the_second_stage() -> None:
    network = se_res2net50_thin((24, 17, 1))
    sums = [layer.output.shape[1:] for layer in network.layers if isinstance(layer, layers.Add)]
    stages = [(24, 17, 32), (12, 9, 64), (6, 5, 128), (3, 3, 256)]
    assert sums == [shape for shape, blocks in zip(stages, (3, 4, 6, 3), strict=True) for _ in range(blocks)]
    middles = [layer for layer in network.layers if isinstance(layer, SplitConvolutions)]
    assert [x.width for x in middles] == [6] * 3 + [13] * 4 + [26] * 6 + [52] * 3
    assert [x.chained for x in middles] == [number > 0 for blocks in (3, 4, 6, 3) for number in range(blocks)]


def test_res2net50_resizes_the_picture_inside() -> None:
    resized = [layer for layer in built(res2net50, "mel").layers if isinstance(layer, Resized)]
    assert [layer.output.shape for layer in resized] == [(None, 224, 224, 1)]


def test_a_resized_picture_is_the_picture() -> None:
    ramp = np.linspace(0, 1, 8, dtype=np.float32)[None, :, None, None] * np.ones((1, 8, 6, 1), np.float32)
    larger = keras.ops.convert_to_numpy(Resized(32)(ramp))
    assert larger.shape == Resized(32).compute_output_shape(ramp.shape) == (1, 32, 32, 1)
    assert np.ptp(larger, axis=2).max() < 1e-6 and (np.diff(larger[0, :, 0, 0]) >= -1e-6).all()
    assert larger.mean() == pytest.approx(0.5, abs=1e-3)
    assert Resized.from_config(Resized(32).get_config()).size == 32


def test_a_network_called_without_saying_so_does_not_train() -> None:
    """keras.layers.Resizing puts all that follows into training mode."""
    network = res2net50((40, 30, 1), image_size=48)
    x = np.random.default_rng(0).normal(size=(2, 40, 30, 1)).astype(np.float32)
    before = [keras.ops.convert_to_numpy(weight) for weight in network.non_trainable_weights]
    outputs = [keras.ops.convert_to_numpy(y) for y in (network(x), network(x, training=False))]
    np.testing.assert_array_equal(*outputs)
    for weight, kept in zip(network.non_trainable_weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), kept)


def _convolve(x: np.ndarray, kernel: np.ndarray, strides: int) -> np.ndarray:
    """3x3 convolution whose output has ceil(size / strides) steps: (b, t, f, c) -> (b, t', f', n)."""
    margins = [max(0, (-(-size // strides) - 1) * strides + 3 - size) for size in x.shape[1:3]]
    padded = np.pad(x, ((0, 0), *((margin // 2, margin - margin // 2) for margin in margins), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::strides, ::strides]
    return np.einsum("btfcij,ijcn->btfn", patches, kernel)


@pytest.mark.parametrize(("strides", "chained"), [(1, True), (1, False), (2, False)])
def test_groups_are_convolved_one_after_the_other(strides: int, chained: bool) -> None:
    width, scale = 2, 4
    x = np.random.default_rng(1).normal(size=(2, 6, 7, width * scale)).astype(np.float32)
    layer = SplitConvolutions(width, scale, strides, chained)
    layer.build(x.shape)
    randomise(layer)
    groups = [x[..., k * width : (k + 1) * width].astype(np.float64) for k in range(scale)]
    wanted = []
    for k in range(scale - 1):
        group = groups[k] + wanted[-1] if chained and k else groups[k]
        norm = layer.norms[k]
        gamma, beta, mean, variance = (
            numbers(w) for w in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        )
        y = _convolve(group, numbers(layer.convolutions[k].kernel), strides)
        wanted.append(np.maximum(0, (y - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta))
    if chained:
        wanted.append(groups[-1])
    else:  # a mean over the neighbours that exist
        box = np.einsum("ij,cn->ijcn", np.ones((3, 3)), np.eye(width))
        wanted.append(_convolve(groups[-1], box, strides) / _convolve(np.ones_like(groups[-1]), box, strides))
    got = layer(x, training=False)
    assert got.shape == layer.compute_output_shape(x.shape)
    assert np.abs(numbers(got) - np.concatenate(wanted, axis=-1)).max() < 1e-4
    twin = SplitConvolutions.from_config(layer.get_config())
    assert (twin.width, twin.scale, twin.strides, twin.chained) == (width, scale, strides, chained)


def test_impossible_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 groups"):
        SplitConvolutions(4, 1)
    with pytest.raises(ValueError, match="width 3 leaves the first stage no channel; the least is 4"):
        se_res2net50_thin((16, 16, 1), width=3)
    with pytest.raises(ValueError, match="strides must be 1"):
        SplitConvolutions(4, 4, strides=2)


# ---------------------------------------------------------------- RES-EfficientCNN


def test_res_efficient_cnn_is_efficientnet_and_its_adapters() -> None:
    network = built(res_efficient_cnn, "mel")
    channels = (16, 24, 40, 80, 112, 192, 320)
    assert tuple(network.get_layer(name).output.shape[-1] for name in STAGE_ENDS) == channels
    adapters = sum(c * (c // 4) + c // 4 + (c // 4) * c for c in channels)
    unused_normalization = 3 + 3 + 1
    assert network.count_params() == 4_049_571 - unused_normalization + adapters + (1280 + 1) == 4_131_361
    assert parameter_count(network) == 4_089_345
    ends = [layer.name for layer in network.layers if layer.name.endswith("_add") and "adapter" in layer.name]
    assert ends == [f"adapter_{name}_add" for name in STAGE_ENDS]
    fewer = res_efficient_cnn((32, 32, 1), adapter_stages=[3, 7], adapter_reduction=8)
    assert [x.output.shape[-1] for x in fewer.layers if x.name.endswith("_down")] == [5, 40]
    with pytest.raises(UserError, match="no stage 8 for an adapter; valid: 1 to 7"):
        res_efficient_cnn((32, 32, 1), adapter_stages=[3, 8])
    with pytest.raises(ValueError, match="at least 32 frames"):
        res_efficient_cnn((64, 31, 1), weights="imagenet")


def test_an_adapter_adds_to_its_input() -> None:
    inputs = keras.Input((3, 2, 8))
    model = keras.Model(inputs, residual_adapter(inputs, 4, "adapter"))
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 8)).astype(np.float32)
    change = numbers(model(x)) - x
    assert 0 < np.abs(change).max() < 0.1  # starts close to doing nothing, and not at a dead zero
    randomise(model)
    down, bias, up = (numbers(weight) for weight in model.weights)
    hidden = x @ down[0, 0] + bias
    assert np.allclose(numbers(model(x)), x + (hidden / (1 + np.exp(-hidden))) @ up[0, 0], atol=1e-5)
    model.get_layer("adapter_up").set_weights([np.zeros_like(up)])
    assert np.array_equal(numbers(model(x)), x)


def test_log_power_becomes_an_image_by_fixed_constants() -> None:
    network = res_efficient_cnn((32, 32, 1))
    image = keras.Model(network.input, network.get_layer("imagenet_scale").output)
    for power, brightness in ((BLACK, 0.0), (WHITE, 1.0), ((BLACK + WHITE) / 2, 0.5)):
        got = numbers(image(np.full((1, 32, 32, 1), power, np.float32)))
        wanted = (brightness - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_DEVIATION)
        assert np.allclose(got, np.broadcast_to(wanted, (1, 32, 32, 3)), atol=1e-5)
    assert network.get_layer("stem_conv_pad").input is network.get_layer("imagenet_scale").output
    # every layer can be looked into by its name
    keras.Model(network.input, [network.get_layer(name).output for name in STAGE_ENDS])


def test_from_scratch_is_said_once_and_downloads_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(keras.src.applications.efficientnet.file_utils, "get_file", refuse)
    network = res_efficient_cnn((32, 32, 1))
    assert capsys.readouterr().out.splitlines() == [
        "res_efficient_cnn: EfficientNet-B0 starts from scratch, no pretrained weights"
    ]
    keras.Model.from_config(network.get_config())  # as loading does
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["body.weights.h5", "body.h5"])  # Keras 3's format, and the downloaded file's
def test_weights_come_from_a_file_and_are_not_asked_for_again(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = efficient_net((32, 32))
    randomise(body, seed=3)
    file = tmp_path / name
    body.save_weights(file) if name.endswith(".weights.h5") else body.save(file)
    capsys.readouterr()
    network = res_efficient_cnn((40, 36, 1), weights=str(file))
    assert capsys.readouterr().out == f"res_efficient_cnn: EfficientNet-B0 starts from the weights {file}\n"
    shared = [layer for layer in body.layers if layer.weights and not isinstance(layer, layers.Normalization)]
    assert len(shared) > 100
    for layer in shared:
        for weight, wanted in zip(network.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
            assert np.array_equal(weight, wanted), layer.name
    network.save(tmp_path / "network.keras")
    file.unlink()
    loaded = keras.models.load_model(tmp_path / "network.keras", compile=False)
    for got, wanted in zip(loaded.get_weights(), network.get_weights(), strict=True):
        assert np.array_equal(got, wanted)


def test_weights_that_cannot_be_had_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args, **kwargs):
        raise Exception("URL fetch failure on https://...: None -- no route to host\nand more")

    other = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    body = efficient_net((32, 32))
    keras.Model(body.input, body.get_layer("block4c_add").output).save_weights(tmp_path / "half.weights.h5")
    (tmp_path / "text.h5").write_text("not weights", encoding="utf-8")
    monkeypatch.setattr(keras.src.applications.efficientnet.file_utils, "get_file", no_network)
    for weights, said in (
        (str(tmp_path / "absent.h5"), "no weights file"),
        ("imagnet", 'no weights file imagnet; valid: a path, "imagenet", or none'),
        (str(tmp_path / "text.h5"), "text.h5: does not hold weights of EfficientNet-B0"),
        (str(tmp_path / "other.weights.h5"), "other.weights.h5: does not hold weights of EfficientNet-B0"),
        (
            str(tmp_path / "half.weights.h5"),
            "EfficientNet-B0 without top (A total of 66 objects could not be loaded.)",
        ),
        ("imagenet", "no ImageNet weights (URL fetch failure on https://...: None -- no route to host); fetch https:"),
    ):
        with pytest.raises(UserError) as caught:
            res_efficient_cnn((32, 32, 1), weights=weights)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
