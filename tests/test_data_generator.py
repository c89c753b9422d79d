"""Batches: repeatable, the same from every cache, balanced as asked, and never a made-up clip."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from batches import arrays, equal, stacked

from audio import fit_length, load_audio
from augmentation import AUGMENTATIONS
from backend import keras
from clip_reader import ClipReader
from config import BONAFIDE, SAMPLE_RATE, SPOOF, Config, FeatureConfig, TrainingConfig
from data_generator import evaluation_batches, training_batches
from errors import AudioError
from sampling import epoch_length, epoch_rows, with_copies
from splits import stratified_sample

SAMPLES = 4_000
CONFIG = Config(features=FeatureConfig("raw", SAMPLES), training=TrainingConfig(batch_size=5, balance="none", seed=3))


def _config(**training) -> Config:
    return replace(CONFIG, training=replace(CONFIG.training, **training))


def _training(table: pd.DataFrame, config: Config = CONFIG, epoch: int = 0, cache: str = "none", **more):
    return training_batches(ClipReader(table, cache, Path(table.path[0]).parent / "cache"), config, epoch, **more)


# ---------------------------------------------------------------- what a batch is


def test_shapes_and_types(table: pd.DataFrame) -> None:
    batches = arrays(_training(table))
    assert [len(batch[0]) for batch in batches] == [5, 5, 2]
    for waveforms, labels, weights in batches:
        count = len(waveforms)
        assert (waveforms.shape, labels.shape, weights.shape) == ((count, SAMPLES), (count, 1), (count,))
        assert waveforms.dtype == labels.dtype == weights.dtype == np.float32
    spec = _training(table).element_spec
    assert [tuple(part.shape) for part in spec] == [(None, SAMPLES), (None, 1), (None,)]


def test_every_clip_once_with_its_own_label_and_inside_itself(table: pd.DataFrame) -> None:
    waveforms, labels, _ = stacked(_training(table))
    rows = epoch_rows(table["label"].to_numpy(), "none", CONFIG.training.seed, 0)
    assert sorted(rows) == list(range(len(table)))
    starts = set()
    for row, waveform, label in zip(rows, waveforms, labels[:, 0], strict=True):
        clip = load_audio(table.path[row])
        assert label == table.label[row]
        if len(clip) < SAMPLES:
            assert np.array_equal(waveform, clip[np.arange(SAMPLES) % len(clip)])
        else:
            places = np.flatnonzero(clip[: len(clip) - SAMPLES + 1] == waveform[0])
            assert any(np.array_equal(waveform, clip[start : start + SAMPLES]) for start in places)
            starts.add(int(places[0]))
    assert len(starts) > 3  # not always the beginning


def test_a_random_crop_can_be_anywhere(table: pd.DataFrame) -> None:
    """Over epochs, a clip one sample longer than the crop is taken from both its places."""
    reader = ClipReader(table, "memory")
    first = set()
    for epoch in range(12):
        rows = epoch_rows(reader.labels, "none", CONFIG.training.seed, epoch)
        waveforms = stacked(training_batches(reader, CONFIG, epoch))[0]
        first.add(float(waveforms[list(rows).index(3), 0]))
    clip = load_audio(table.path[3])
    assert first == {float(clip[0]), float(clip[1])}


def test_evaluation_takes_the_first_samples_in_order(table: pd.DataFrame) -> None:
    batches = arrays(evaluation_batches(ClipReader(table), SAMPLES, batch_size=5))
    assert [len(batch[0]) for batch in batches] == [5, 5, 2]
    waveforms, rows = stacked(evaluation_batches(ClipReader(table), SAMPLES))
    assert waveforms.dtype == np.float32
    assert rows.tolist() == list(range(len(table)))
    for row, waveform in enumerate(waveforms):
        assert np.array_equal(waveform, fit_length(load_audio(table.path[row]), SAMPLES))


# ---------------------------------------------------------------- the same again


def test_the_seed_and_the_epoch_decide(table: pd.DataFrame) -> None:
    assert equal(_training(table), _training(table))
    assert not equal(_training(table), _training(table, epoch=1))
    assert not equal(_training(table), _training(table, _config(seed=4)))


@pytest.fixture
def augment_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """A config in which this function is the augmentation of every clip."""

    def config(function: Callable, **training) -> Config:
        monkeypatch.setitem(AUGMENTATIONS, "own", function)
        return _config(**{"augment": ("own",), "augment_probability": 1.0, **training})

    return config


def test_noise_of_an_augmentation_is_repeatable_too(table: pd.DataFrame, augment_with: Callable) -> None:
    def noise(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return waveform + rng.normal(size=len(waveform)).astype(np.float32)

    config = augment_with(noise)
    assert equal(_training(table, config), _training(table, config, cache="memory"))

    def draw(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.full(len(waveform), rng.uniform())

    drawn = [stacked(_training(table, augment_with(draw), epoch=epoch))[0][:, 0] for epoch in range(4)]
    drawn.append(stacked(_training(table, augment_with(draw, seed=4)))[0][:, 0])
    assert len(set(np.concatenate(drawn))) == 5 * len(table)  # no clip, epoch or seed repeats another's luck


# ---------------------------------------------------------------- files that cannot be used


@pytest.mark.parametrize("cache", ["none", "memory", "disk", "auto"])
def test_a_damaged_file_is_left_out_and_named(cache: str, table: pd.DataFrame, tmp_path: Path) -> None:
    paths = table["path"].tolist()
    Path(paths[1]).write_bytes(Path(paths[1]).read_bytes()[:300])
    Path(paths[4]).unlink()
    soundfile.write(paths[6], np.zeros(9_000, np.int16), 16_000)
    bad = {1, 4, 6}
    reader = ClipReader(table, cache, tmp_path / "cache")
    for _ in range(2):
        waveforms, rows = stacked(evaluation_batches(reader, SAMPLES, batch_size=5))
        assert rows.tolist() == [row for row in range(len(table)) if row not in bad]
        assert all(np.abs(waveform).max() > 0 for waveform in waveforms)
        assert set(reader.failures) == {paths[row] for row in bad}
        assert all(reason.startswith(path) for path, reason in reader.failures.items())
    waveforms, labels, _ = stacked(training_batches(reader, CONFIG, 0))
    assert len(waveforms) == len(table) - len(bad)
    assert labels.sum() == table["label"].drop(list(bad)).sum()
    with pytest.raises(AudioError, match="silent"):
        reader.read(6)


def test_a_failure_does_not_move_the_others(table: pd.DataFrame) -> None:
    """The other clips keep their place and their crop when one goes missing."""
    before = stacked(_training(table))[0]
    lost = list(epoch_rows(table["label"].to_numpy(), "none", CONFIG.training.seed, 0)).index(8)
    Path(table.path[8]).unlink()
    assert np.array_equal(stacked(_training(table))[0], np.delete(before, lost, axis=0))


def test_nothing_but_damaged_files_gives_no_batch(table: pd.DataFrame, tmp_path: Path) -> None:
    for path in table["path"]:
        Path(path).write_text("no sound", encoding="utf-8")
    for cache in ("none", "disk"):
        reader = ClipReader(table, cache, tmp_path / "cache")
        assert arrays(training_batches(reader, CONFIG, 0)) == []
        assert len(reader.failures) == len(table)


# ---------------------------------------------------------------- balance, weights, subsets


def test_a_pair_is_cropped_and_changed_alike(tmp_path: Path) -> None:
    """A copy that equals its recording leaves training just as the recording does, through crop and noise."""
    rng = np.random.default_rng(1)
    rows = []
    for number in range(4):
        clip = rng.normal(0, 0.1, 3 * SAMPLES)
        for label, name in ((BONAFIDE, "recording"), (SPOOF, "copy")):
            path = tmp_path / f"{name}{number}.wav"
            soundfile.write(path, clip, SAMPLE_RATE)
            rows.append((str(path), label, "q", "-" if label == BONAFIDE else "V", True, f"r{number}"))
    table = pd.DataFrame(rows, columns=["path", "label", "page", "attack", "extra", "source"])
    config = _config(balance="groups", pairs=1.0, augment=("noise", "equalise", "shift"), augment_probability=0.7)
    waveforms, labels, _ = stacked(_training(table, config))
    assert labels[:, 0].tolist() == [BONAFIDE, SPOOF] * 4
    assert np.array_equal(waveforms[::2], waveforms[1::2])
    assert len({float(waveform[0]) for waveform in waveforms}) == 4  # but each pair in its own way


def test_weights_reach_the_clips_of_their_class(table: pd.DataFrame) -> None:
    _, labels, weights = stacked(_training(table, _config(balance="weights", bonafide_weight=5.0)))
    assert np.array_equal(weights, np.where(labels[:, 0] == BONAFIDE, 5, 1))
    _, labels, weights = stacked(_training(table, _config(balance="weights")))
    # three of twelve are bona fide
    assert np.allclose(weights, np.where(labels[:, 0] == BONAFIDE, 2, 2 / 3))


def test_a_stratified_subset(table: pd.DataFrame) -> None:
    subset = stratified_sample(table, 0.5, seed=1).index.to_numpy()
    waveforms, labels, weights = stacked(_training(table, _config(balance="weights"), subset=subset))
    assert len(waveforms) == len(subset) < len(table)
    assert sorted(labels[:, 0]) == sorted(table.label[subset])
    counts = np.bincount(table.label[subset])
    assert np.allclose(weights, (len(subset) / (2 * counts))[labels[:, 0].astype(int)])
    _, labels, weights = stacked(_training(table, _config(balance="weights"), subset=np.array([0, 1, 2, 3, 5])))
    assert np.allclose(weights, np.where(labels[:, 0] == BONAFIDE, 5 / 2, 5 / 8))
    # a clip's first sample tells which clip it is, wherever the crop began
    allowed = {float(value) for row in subset for value in load_audio(table.path[row])}
    assert all(float(waveform[0]) in allowed for waveform in waveforms)
    _, labels, _ = stacked(_training(table, _config(balance="sampling"), subset=subset))
    assert len(labels) == len(subset)
    assert (labels == BONAFIDE).sum() == len(subset) // 2


# ---------------------------------------------------------------- augmentation


@pytest.mark.parametrize("length", [100, SAMPLES, 9_000])
def test_an_augmentation_sees_the_crop_and_is_fitted_again(
    length: int, table: pd.DataFrame, augment_with: Callable
) -> None:
    seen = []

    def mark(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        seen.append((waveform.shape, waveform.dtype))
        return np.full(length, -0.5)  # float64, of any length

    waveforms, labels, _ = stacked(_training(table, augment_with(mark)))
    assert waveforms.dtype == np.float32
    assert waveforms.shape == (len(table), SAMPLES)
    assert (waveforms == -0.5).all()
    assert seen == [((SAMPLES,), np.dtype(np.float32))] * len(table)
    assert sorted(labels[:, 0]) == sorted(table["label"])


@pytest.mark.parametrize(("only", "label"), [("bonafide", BONAFIDE), ("spoof", SPOOF)])
def test_one_class_alone_can_be_augmented(only: str, label: int, table: pd.DataFrame, augment_with: Callable) -> None:
    config = augment_with(lambda waveform, rng: np.full(100, -0.5), augment_only=only)
    waveforms, labels, _ = stacked(_training(table, config))
    assert np.array_equal((waveforms == -0.5).all(axis=1), labels[:, 0] == label)


def test_augmented_copies_of_bona_fide_clips(table: pd.DataFrame, augment_with: Callable) -> None:
    """Every clip comes once as it is; a bona fide clip is copied, and only the copies are changed."""
    config = augment_with(lambda waveform, rng: np.full(100, -0.5), augment_only="spoof", bonafide_copies=1.7)
    config = replace(config, training=replace(config.training, augment_probability=1e-9))
    waveforms, labels, _ = stacked(_training(table, config))
    bonafide = int((table["label"] == BONAFIDE).sum())
    copies = (waveforms == -0.5).all(axis=1)
    assert len(waveforms) == epoch_length(table["label"].to_numpy(), config.training) == len(table) + 5
    assert copies.sum() == round(1.7 * bonafide) == 5
    assert (labels[copies] == BONAFIDE).all()
    assert sorted(labels[~copies, 0]) == sorted(table["label"])


def test_the_published_number_of_copies() -> None:
    """2,580 bona fide clips of ASVspoof 2019 LA train became 7,422."""
    labels = np.array([BONAFIDE] * 2_580 + [SPOOF] * 100)
    rows = with_copies(np.arange(len(labels)), labels, 1.8767, seed=1, epoch=0)
    assert (labels[rows[:, 0]] == BONAFIDE).sum() == 7_422
    times = np.bincount(rows[:, 0], minlength=len(labels))
    assert set(times[labels == BONAFIDE]) == {2, 3}  # as evenly as it goes
    assert set(times[labels == SPOOF]) == {1}


def test_mixup_blends_within_a_batch(table: pd.DataFrame) -> None:
    plain, mixed = arrays(_training(table)), arrays(_training(table, _config(mixup=0.8)))
    for (waveforms, labels, _), (blends, shares, _) in zip(plain, mixed, strict=True):
        assert blends.shape == waveforms.shape and shares.shape == labels.shape
        np.testing.assert_allclose(blends.sum(axis=0), waveforms.sum(axis=0), atol=1e-5)
        assert shares.sum() == pytest.approx(labels.sum(), abs=1e-5)
        assert shares.min() >= 0 and shares.max() <= 1
    assert any(((shares > 0) & (shares < 1)).any() for _, shares, _ in mixed)
    assert equal(mixed, _training(table, _config(mixup=0.8)))
    assert not equal(mixed, _training(table, _config(mixup=0.8), epoch=1))


def test_sharpness_aware_minimisation_sees_every_batch_twice(table: pd.DataFrame) -> None:
    once, twice = arrays(_training(table)), arrays(_training(table, _config(sam=0.05)))
    assert equal(twice[::2], once) and equal(twice[1::2], once)


# ---------------------------------------------------------------- without TensorFlow


@pytest.mark.parametrize("settings", [{}, {"mixup": 0.8, "sam": 0.1, "augment": ("noise",)}])
def test_other_backends_get_the_same_batches(table: pd.DataFrame, monkeypatch, settings: dict) -> None:
    Path(table.path[4]).unlink()
    config = _config(**settings)
    training, evaluation = arrays(_training(table, config)), arrays(evaluation_batches(ClipReader(table), SAMPLES, 5))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    plain = _training(table, config)
    assert equal(plain, training)
    assert equal(plain, training)  # and once more from the start
    assert equal(evaluation_batches(ClipReader(table), SAMPLES, 5), evaluation)
    assert all(isinstance(part, np.ndarray) for batch in plain for part in batch)


def test_keras_trains_on_the_batches(table: pd.DataFrame) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((SAMPLES,)), keras.layers.Dense(1)])
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    before = model.get_weights()[0].copy()
    model.fit(_training(table, _config(balance="weights")), verbose=0, shuffle=False)
    assert np.isfinite(model.get_weights()[0]).all()
    assert not np.array_equal(model.get_weights()[0], before)
