"""Masks on pictures: which bins they hide, on which clips, with what, and that inference never sees them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backend import keras
from config import Config, FeatureConfig, TrainingConfig
from errors import UserError
from feature_masks import FeatureMasks
from model import build_model
from training import set_up_keras

PUBLISHED = (0.80, 0.87)  # of 100 bins: the first hidden one is 80 ... 87


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """(64, 20, 100, 1), no value twice in a clip."""
    rng = np.random.default_rng(0)
    return rng.normal(-5, 2, (64, 20, 100, 1)).astype(np.float32)


def masked(layer: FeatureMasks, pictures: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(layer(pictures, training=True))


def hidden(layer: FeatureMasks, pictures: np.ndarray) -> np.ndarray:
    """Where the layer changed something, (b, time, freq); the clip's least value counts as what its row does."""
    changed = (masked(layer, pictures) != pictures)[..., 0]
    lowest = pictures[..., 0] == pictures[..., 0].min(axis=(1, 2), keepdims=True)
    return changed | lowest & (changed.mean(axis=1, keepdims=True) > 0.9)


def test_published_high_mask_starts_at_80_to_87_and_goes_to_the_top(pictures):
    starts = []
    for rows in hidden(FeatureMasks(high_band=PUBLISHED, probability=1.0, seed=1), pictures):
        assert (rows == rows[0]).all()  # all of the time
        starts.append(int(rows[0].argmax()))
        np.testing.assert_array_equal(rows[0], np.arange(100) >= starts[-1])
    assert set(starts) == set(range(80, 88))


def test_low_mask_hides_the_bins_below_one_of_7_to_12(pictures):
    ends = []
    for rows in hidden(FeatureMasks(low_band=(0.07, 0.12), probability=1.0, seed=1), pictures):
        ends.append(int((~rows[0]).argmax()))
        np.testing.assert_array_equal(rows[0], np.arange(100) < ends[-1])
    assert set(ends) == set(range(7, 13))


def test_stripes_of_bounded_width_lie_anywhere_on_both_axes(pictures):
    layer = FeatureMasks(stripes=1, stripe_width=0.1, probability=1.0, seed=1)
    picture = hidden(layer, pictures)
    frequency = picture.mean(axis=1) > 0.9  # (64, 100): hidden at all times
    time = picture.mean(axis=2) > 0.9  # (64, 20)
    # nothing but whole stripes, up to the least value of a clip
    assert (picture & ~(frequency[:, None, :] | time[:, :, None])).sum() == 0
    for stripes, size in ((frequency, 100), (time, 20)):
        widths = stripes.sum(axis=1)
        assert set(widths) == set(range(size // 10 + 1))
        assert (np.diff(stripes.astype(int), axis=1) == 1).sum(axis=1).max() <= 1  # in one piece
        assert stripes[:, : size // 4].any() and stripes[:, -size // 4 :].any()


def test_two_stripes_hide_more_than_one(pictures):
    one, two = (
        hidden(FeatureMasks(stripes=n, stripe_width=0.2, probability=1.0, seed=3), pictures).mean() for n in (1, 2)
    )
    assert 1.5 * one < two < 2.1 * one


def test_each_clip_and_each_mask_has_its_own_chance(pictures):
    layer = FeatureMasks(high_band=PUBLISHED, low_band=(0.07, 0.12), probability=0.5, seed=1)
    picture = np.concatenate([hidden(layer, pictures) for _ in range(8)])
    high, low = picture[:, 0, -1], picture[:, 0, 0]
    for share, expected in ((high, 0.5), (low, 0.5), (high & low, 0.25)):
        assert abs(share.mean() - expected) < 0.08


@pytest.mark.parametrize(("fill", "value"), [("lowest", np.min), ("average", np.mean)])
def test_hidden_is_the_clips_least_or_mean_value(fill, value, pictures):
    result = masked(FeatureMasks(high_band=(0.5, 0.5), probability=1.0, fill=fill), pictures)
    expected = value(pictures, axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(result[:, :, 50:], np.broadcast_to(expected, result[:, :, 50:].shape), rtol=1e-5)
    np.testing.assert_array_equal(result[:, :, :50], pictures[:, :, :50])


def test_outside_training_nothing_is_touched(pictures):
    layer = FeatureMasks(high_band=PUBLISHED, low_band=(0.1, 0.2), stripes=2, probability=1.0)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(pictures)), pictures)
    model = keras.Sequential([keras.Input((None, 100, 1)), layer])
    np.testing.assert_array_equal(model.predict(pictures, verbose=0), pictures)


def test_same_seed_same_masks_and_each_call_its_own(pictures):
    settings = {"high_band": PUBLISHED, "stripes": 2}
    layer, twin, other = (FeatureMasks(**settings, seed=seed) for seed in (5, 5, 6))
    first, second = masked(layer, pictures), masked(layer, pictures)
    np.testing.assert_array_equal(first, masked(twin, pictures))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, masked(other, pictures))


def test_settings_survive_saving(tmp_path):
    settings = {"high_band": PUBLISHED, "low_band": (0.07, 0.12), "stripes": 2, "stripe_width": 0.2}
    settings |= {"probability": 0.3, "fill": "average", "seed": 4}
    layer = FeatureMasks(**settings)
    json.dumps(layer.get_config())
    keras.Sequential([keras.Input((20, 100, 1)), layer]).save(tmp_path / "masks.keras")
    loaded = keras.models.load_model(tmp_path / "masks.keras").layers[0]
    assert {name: getattr(loaded, name) for name in settings} == settings


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_draws_the_same_bins(policy, pictures):
    full, half = (
        FeatureMasks(high_band=PUBLISHED, stripes=1, probability=1.0, seed=2, dtype=dtype)
        for dtype in ("float32", policy)
    )
    result = half(pictures, training=True)
    assert keras.backend.standardize_dtype(result.dtype) == policy.removeprefix("mixed_")
    result = keras.ops.convert_to_numpy(keras.ops.cast(result, "float32"))
    np.testing.assert_allclose(result, masked(full, pictures), rtol=1e-2)


def test_masks_do_not_round_what_a_network_in_half_precision_sees():
    training = TrainingConfig(spec_augment=2, precision="mixed_bfloat16")
    set_up_keras(training)
    try:
        model = build_model(Config(model="tiny_resnet", features=FeatureConfig("log_stft", 8_000), training=training))
    finally:
        set_up_keras(TrainingConfig())
    masks = model.get_layer("masks")
    seen = keras.Model(model.input, [masks.input, masks.output])
    spectrum, passed = seen(np.random.default_rng(0).normal(0, 0.1, (1, 8_000)).astype(np.float32))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(passed), keras.ops.convert_to_numpy(spectrum))


def test_trains_inside_a_compiled_model_with_free_batch_and_length(pictures):
    model = keras.Sequential(
        [keras.Input((None, 100, 1)), FeatureMasks(high_band=PUBLISHED, stripes=2, seed=1), keras.layers.Flatten()]
    )
    model.compile(loss=lambda truth, seen: keras.ops.sum(seen, axis=-1, keepdims=True))
    clean = pictures.reshape(64, -1).sum(axis=1).mean()
    assert model.evaluate(pictures, np.zeros(64), verbose=0) == pytest.approx(clean, rel=1e-4)
    history = model.fit(pictures, np.zeros(64), batch_size=24, verbose=0).history["loss"]
    assert np.isfinite(history[0]) and history[0] < 1.05 * clean  # the least value is negative: masks lower the sum


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"high_band": (0.9, 0.8)}, "high_band is (0.9, 0.8)"),
        ({"low_band": (0.1, 1.2)}, "low_band is (0.1, 1.2)"),
        ({"probability": 2}, "probability is 2"),
        ({"stripe_width": -0.1}, "stripe_width is -0.1"),
        ({"stripes": -1}, "stripes is -1"),
        ({"fill": "zero"}, "valid: lowest, average"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(settings, words):
    with pytest.raises(UserError) as error:
        FeatureMasks(**settings)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_waveforms_are_not_pictures():
    with pytest.raises(UserError, match="wants pictures"):
        FeatureMasks(stripes=1)(np.zeros((2, 64_000), np.float32), training=True)


def test_on_jax_the_same_bins_are_hidden():
    pytest.importorskip("jax")
    script = """
import numpy as np
from backend import keras
from feature_masks import FeatureMasks
pictures = np.arange(16 * 4 * 100, dtype=np.float32).reshape(16, 4, 100, 1)
layer = FeatureMasks(high_band=(0.80, 0.87), probability=1.0, seed=1)
assert keras.backend.backend() == "jax" and np.array_equal(layer(pictures), pictures)
rows = (np.asarray(layer(pictures, training=True)) != pictures)[:, 1, :, 0]
starts = rows.argmax(axis=1)
assert (rows == (np.arange(100) >= starts[:, None])).all()
print(min(starts), max(starts))
"""
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    folder = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    low, high = map(int, done.stdout.split())
    assert 80 <= low < high <= 87
