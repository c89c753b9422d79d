"""Batches: repeatable, the same from every cache, balanced as asked, and never a made-up clip."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import data_generator
from audio import fit_length, load_audio
from augmentation import AUGMENTATIONS
from backend import keras
from config import BONAFIDE, SAMPLE_RATE, SPOOF, Config, FeatureConfig, TrainingConfig
from data_generator import (
    ClipReader,
    class_weights,
    epoch_length,
    epoch_rows,
    evaluation_batches,
    group_shares,
    grouped_epoch,
    training_batches,
    with_copies,
)
from errors import AudioError, UserError
from splits import stratified_sample

SAMPLES = 4_000
LENGTHS = (2_000, 3_999, 4_000, 4_001, 6_000, 9_000, 3_000, 12_000, 5_000, 8_000, 7_000, 4_500)
CONFIG = Config(features=FeatureConfig("raw", SAMPLES), training=TrainingConfig(batch_size=5, balance="none", seed=3))


def _config(**training) -> Config:
    return replace(CONFIG, training=replace(CONFIG.training, **training))


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    """Twelve 16-bit clips at 16 kHz in which every sample is unique; every fourth is bona fide."""
    rows = []
    for k, length in enumerate(LENGTHS):
        # values k * 12,000 ... modulo the 16-bit range: a crop tells where it was taken
        pcm = ((np.arange(length) + 2_700 * k) % 32_000 + 1).astype(np.int16)
        path = tmp_path / f"clip{k}.flac"
        soundfile.write(path, pcm, 16_000)
        rows.append((str(path), BONAFIDE if k % 4 == 0 else SPOOF, "-" if k % 4 == 0 else f"A{k % 3}"))
    return pd.DataFrame(rows, columns=["path", "label", "attack"])


def _arrays(batches: Iterable) -> list[tuple[np.ndarray, ...]]:
    return [tuple(np.asarray(part) for part in batch) for batch in batches]


def _stacked(batches: Iterable) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(parts) for parts in zip(*_arrays(batches), strict=True))


def _equal(first: Iterable, second: Iterable) -> bool:
    first, second = _arrays(first), _arrays(second)
    same = [len(a) == len(b) and all(map(np.array_equal, a, b)) for a, b in zip(first, second, strict=False)]
    return len(first) == len(second) and all(same)


def _training(table: pd.DataFrame, config: Config = CONFIG, epoch: int = 0, cache: str = "none", **more):
    return training_batches(ClipReader(table, cache, Path(table.path[0]).parent / "cache"), config, epoch, **more)


# ---------------------------------------------------------------- what a batch is


def test_shapes_and_types(table: pd.DataFrame) -> None:
    batches = _arrays(_training(table))
    assert [len(batch[0]) for batch in batches] == [5, 5, 2]
    for waveforms, labels, weights in batches:
        count = len(waveforms)
        assert (waveforms.shape, labels.shape, weights.shape) == ((count, SAMPLES), (count, 1), (count,))
        assert waveforms.dtype == labels.dtype == weights.dtype == np.float32
    spec = _training(table).element_spec
    assert [tuple(part.shape) for part in spec] == [(None, SAMPLES), (None, 1), (None,)]


def test_every_clip_once_with_its_own_label_and_inside_itself(table: pd.DataFrame) -> None:
    waveforms, labels, _ = _stacked(_training(table))
    rows = epoch_rows(table["label"].to_numpy(), "none", CONFIG.training.seed, 0)
    assert sorted(rows) == list(range(len(table)))
    starts = {}
    for row, waveform, label in zip(rows, waveforms, labels[:, 0], strict=True):
        clip = load_audio(table.path[row])
        assert label == table.label[row]
        if len(clip) < SAMPLES:
            assert np.array_equal(waveform, clip[np.arange(SAMPLES) % len(clip)])
        else:
            places = np.flatnonzero(clip[: len(clip) - SAMPLES + 1] == waveform[0])
            assert any(np.array_equal(waveform, clip[start : start + SAMPLES]) for start in places)
            starts[int(row)] = int(places[0])
    assert len({start for row, start in starts.items() if LENGTHS[row] > 4_400}) > 3  # not always the beginning


def test_a_random_crop_can_be_anywhere(table: pd.DataFrame) -> None:
    """Over epochs, a clip one sample longer than the crop is taken from both its places."""
    reader = ClipReader(table, "memory")
    first = set()
    for epoch in range(12):
        rows = epoch_rows(reader.labels, "none", CONFIG.training.seed, epoch)
        waveforms = _stacked(training_batches(reader, CONFIG, epoch))[0]
        first.add(float(waveforms[list(rows).index(3), 0]))
    clip = load_audio(table.path[3])
    assert first == {float(clip[0]), float(clip[1])}


def test_evaluation_takes_the_first_samples_in_order(table: pd.DataFrame) -> None:
    batches = _arrays(evaluation_batches(ClipReader(table), SAMPLES, batch_size=5))
    assert [len(batch[0]) for batch in batches] == [5, 5, 2]
    waveforms, rows = _stacked(evaluation_batches(ClipReader(table), SAMPLES))
    assert waveforms.dtype == np.float32
    assert rows.tolist() == list(range(len(table)))
    for row, waveform in enumerate(waveforms):
        assert np.array_equal(waveform, fit_length(load_audio(table.path[row]), SAMPLES))


# ---------------------------------------------------------------- the same again


def test_the_seed_and_the_epoch_decide(table: pd.DataFrame) -> None:
    assert _equal(_training(table), _training(table))
    assert not _equal(_training(table), _training(table, epoch=1))
    assert not _equal(_training(table), _training(table, _config(seed=4)))


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
    assert _equal(_training(table, config), _training(table, config, cache="memory"))

    def draw(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.full(len(waveform), rng.uniform())

    drawn = [_stacked(_training(table, augment_with(draw), epoch=epoch))[0][:, 0] for epoch in range(4)]
    drawn.append(_stacked(_training(table, augment_with(draw, seed=4)))[0][:, 0])
    assert len(set(np.concatenate(drawn))) == 5 * len(table)  # no clip, epoch or seed repeats another's luck


@pytest.mark.parametrize("cache", ["memory", "disk", "auto"])
def test_a_cache_changes_nothing(cache: str, table: pd.DataFrame, tmp_path: Path) -> None:
    reader = ClipReader(table, cache, tmp_path / "not" / "yet" / "there")
    for epoch in (0, 1, 0):  # the third time everything comes from the cache
        assert _equal(training_batches(reader, CONFIG, epoch), _training(table, epoch=epoch))
    assert _equal(evaluation_batches(reader, SAMPLES), evaluation_batches(ClipReader(table), SAMPLES))


def test_a_cache_of_other_rates_is_within_half_a_step(
    table: pd.DataFrame, tmp_path: Path, speech_like: Callable
) -> None:
    soundfile.write(tmp_path / "other.wav", speech_like(0.6, 44_100), 44_100, "PCM_24")
    table.loc[5, "path"] = str(tmp_path / "other.wav")
    plain = ClipReader(table).read(5)
    for cache in ("memory", "disk"):
        cached = ClipReader(table, cache, tmp_path / "cache").read(5)
        assert len(cached) == len(plain)
        assert np.abs(cached - plain).max() <= 0.5001 / 32_768


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_what_a_reader_hands_out_may_be_changed(cache: str, table: pd.DataFrame, tmp_path: Path) -> None:
    reader = ClipReader(table, cache, tmp_path / "cache")
    reader.read(0)[:] = 7
    reader.read(0)[:] = 7
    assert np.array_equal(reader.read(0), load_audio(table.path[0]))


def _count_decoding(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    decoded = []

    def counted(path: str) -> np.ndarray:
        decoded.append(str(path))
        return load_audio(path)

    monkeypatch.setattr(data_generator, "load_audio", counted)
    return decoded


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_cache_decodes_once(cache: str, table: pd.DataFrame, tmp_path: Path, monkeypatch) -> None:
    decoded = _count_decoding(monkeypatch)
    reader = ClipReader(table, cache, tmp_path / "cache")
    for epoch in range(3):
        _arrays(training_batches(reader, CONFIG, epoch))
    assert sorted(decoded) == sorted(table["path"])


def test_a_disk_cache_is_reused_and_given_up_when_a_file_changes(
    table: pd.DataFrame, tmp_path: Path, monkeypatch, capsys
) -> None:
    decoded, folder = _count_decoding(monkeypatch), tmp_path / "cache"
    wanted = _arrays(evaluation_batches(ClipReader(table, "disk", folder), SAMPLES))
    assert "writing" in capsys.readouterr().out
    decoded.clear()
    assert _equal(evaluation_batches(ClipReader(table, "disk", folder), SAMPLES), wanted)
    assert "reusing" in capsys.readouterr().out
    assert decoded == []

    louder = np.full(9_000, 12_345, np.int16)
    louder[::2] *= -1
    soundfile.write(table.path[7], louder, 16_000)
    changed = ClipReader(table, "disk", folder)
    assert np.array_equal(changed.read(7), louder.astype(np.float32) / 32_768)
    assert decoded == [table.path[7]]
    size = Path(table.path[7]).stat().st_size
    soundfile.write(table.path[7], -louder, 16_000)
    assert Path(table.path[7]).stat().st_size == size  # only the time tells
    os.utime(table.path[7], (10**9, 10**9))
    assert np.array_equal(ClipReader(table, "disk", folder).read(7), -louder.astype(np.float32) / 32_768)
    other_order = ClipReader(table[::-1], "disk", folder)
    assert np.array_equal(other_order.read(0), load_audio(table.path[11]))


@pytest.mark.parametrize("lost", ["*.pcm", "*.lengths"])
def test_half_of_a_disk_cache_is_not_taken_for_silence(table: pd.DataFrame, tmp_path: Path, lost: str) -> None:
    folder = tmp_path / "cache"
    wanted = ClipReader(table, "disk", folder).read(2)
    (file,) = folder.glob(lost)
    file.unlink()
    np.testing.assert_array_equal(ClipReader(table, "disk", folder).read(2), wanted)


def test_a_disk_cache_left_half_written_goes_on(table: pd.DataFrame, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "cache"
    ClipReader(table, "disk", folder).read(2)  # and the process ends here
    decoded = _count_decoding(monkeypatch)
    reader = ClipReader(table, "disk", folder)
    assert _equal(evaluation_batches(reader, SAMPLES), evaluation_batches(ClipReader(table), SAMPLES))
    assert decoded.count(table.path[2]) == 1  # only the reader without a cache
    assert decoded.count(table.path[3]) == 2


def test_wrong_cache_is_one_line(table: pd.DataFrame, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match="unknown cache 'ram'; valid: auto, memory, disk, none"):
        ClipReader(table, "ram")
    nothing_free = type("Usage", (), {"free": 10})
    monkeypatch.setattr(data_generator.psutil, "disk_usage", lambda folder: nothing_free)
    with pytest.raises(UserError, match=r"needs .* GB, 0.0 GB are free; --cache none"):
        ClipReader(table, "disk", tmp_path / "cache")


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
        waveforms, rows = _stacked(evaluation_batches(reader, SAMPLES, batch_size=5))
        assert rows.tolist() == [row for row in range(len(table)) if row not in bad]
        assert all(np.abs(waveform).max() > 0 for waveform in waveforms)
        assert set(reader.failures) == {paths[row] for row in bad}
        assert all(reason.startswith(path) for path, reason in reader.failures.items())
    waveforms, labels, _ = _stacked(training_batches(reader, CONFIG, 0))
    assert len(waveforms) == len(table) - len(bad)
    assert labels.sum() == table["label"].drop(list(bad)).sum()
    with pytest.raises(AudioError, match="silent"):
        reader.read(6)


def test_a_failure_does_not_move_the_others(table: pd.DataFrame) -> None:
    """The other clips keep their place and their crop when one goes missing."""
    before = _stacked(_training(table))[0]
    lost = list(epoch_rows(table["label"].to_numpy(), "none", CONFIG.training.seed, 0)).index(8)
    Path(table.path[8]).unlink()
    assert np.array_equal(_stacked(_training(table))[0], np.delete(before, lost, axis=0))


def test_nothing_but_damaged_files_gives_no_batch(table: pd.DataFrame, tmp_path: Path) -> None:
    for path in table["path"]:
        Path(path).write_text("no sound", encoding="utf-8")
    for cache in ("none", "disk"):
        reader = ClipReader(table, cache, tmp_path / "cache")
        assert _arrays(training_batches(reader, CONFIG, 0)) == []
        assert len(reader.failures) == len(table)


# ---------------------------------------------------------------- balance, weights, subsets


@settings(max_examples=200)
@given(
    minority=st.integers(1, 40),
    majority=st.integers(1, 400),
    swapped=st.booleans(),
    seed=st.integers(0, 1000),
    epoch=st.integers(0, 50),
)
def test_sampling_gives_both_classes_half(minority: int, majority: int, swapped: bool, seed: int, epoch: int) -> None:
    labels = np.array([SPOOF] * majority + [BONAFIDE] * minority)
    labels = SPOOF - labels if swapped else labels
    rows = epoch_rows(labels, "sampling", seed, epoch)
    assert len(rows) == len(labels)
    assert (labels[rows] == BONAFIDE).sum() == len(labels) // 2
    for label in (BONAFIDE, SPOOF):
        times = np.bincount(rows, minlength=len(labels))[labels == label]
        assert times.max() - times.min() <= 1  # a class with too few is used evenly, so every clip is seen
        if len(times) <= len(labels) // 2:
            assert times.min() >= 1


def test_sampling_draws_another_part_of_the_majority_each_epoch() -> None:
    labels = np.array([BONAFIDE] * 10 + [SPOOF] * 90)
    seen = [set(epoch_rows(labels, "sampling", 1, epoch)[:]) for epoch in range(8)]
    assert seen[0] != seen[1]
    assert len(set.union(*seen)) > 95


def test_groups_count_by_the_square_root_of_their_size() -> None:
    sizes = {
        (BONAFIDE, "p", "-"): 16,
        (BONAFIDE, "q", "-"): 4,
        (SPOOF, "p", "A"): 9,
        (SPOOF, "q", "A"): 16,
        (SPOOF, "p", "B"): 1,
    }
    rows = [row for row, size in sizes.items() for _ in range(size)]
    table = pd.DataFrame(rows, columns=["label", "page", "attack"]).assign(path="x")
    shares = pd.Series(group_shares(table, 0.3))
    assert shares.sum() == pytest.approx(1)
    assert shares.groupby(table["page"].where(table["label"] == BONAFIDE, table["attack"])).sum().to_dict() == (
        pytest.approx({"p": 0.5 * 4 / 6, "q": 0.5 * 2 / 6, "A": 0.5 * 5 / 6, "B": 0.5 * 1 / 6})
    )


@settings(max_examples=50)
@given(
    rows=st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from("abc")), min_size=2, max_size=60),
    extra_share=st.floats(0.05, 0.95),
)
def test_groups_give_classes_half_and_extra_clips_their_share(rows, extra_share: float) -> None:
    table = pd.DataFrame(rows, columns=["label", "extra", "page"]).astype({"label": int})
    table = table.assign(attack=table["page"], path="x")
    shares = pd.Series(group_shares(table, extra_share))
    classes = table["label"].nunique()
    for _, part in table.groupby("label"):
        assert shares[part.index].sum() == pytest.approx(1 / classes)
        if part["extra"].nunique() == 2:
            assert shares[part.index[part["extra"]]].sum() == pytest.approx(extra_share / classes)


def _corpus(recordings: int, copies: int, spoken: int) -> pd.DataFrame:
    """Pages of recordings and fakes, and an extra corpus: recordings, copies of each, and speech of nobody."""
    rows = [(BONAFIDE, "p", "-", False, "-")] * 5 + [(SPOOF, "p", "A", False, "-")] * 7
    for number in range(recordings):
        rows.append((BONAFIDE, "q", "-", True, f"r{number}"))
        rows += [(SPOOF, "q", f"V{method}", True, f"r{number}") for method in range(copies)]
    rows += [(SPOOF, "engine", "tts", True, "gone")] * spoken
    table = pd.DataFrame(rows, columns=["label", "page", "attack", "extra", "source"])
    return table.assign(path="x").sample(frac=1, random_state=1)


def test_groups_are_drawn_by_their_shares() -> None:
    table, training = _corpus(3, 2, 4), TrainingConfig(balance="groups", extra_share=0.3)
    rows, together = zip(*(grouped_epoch(table, training, epoch) for epoch in range(300)), strict=True)
    found = np.bincount(np.concatenate(rows), minlength=len(table)) / np.size(rows)
    assert found == pytest.approx(group_shares(table, 0.3), abs=0.02)
    assert not np.any(together)


@settings(max_examples=50)
@given(
    recordings=st.integers(1, 20),
    copies=st.integers(1, 5),
    spoken=st.integers(0, 9),
    pairs=st.floats(0.05, 1),
    epoch=st.integers(0, 99),
)
def test_a_copy_follows_its_recording_and_comes_in_no_other_way(
    recordings: int, copies: int, spoken: int, pairs: float, epoch: int
) -> None:
    table = _corpus(recordings, copies, spoken)
    rows, together = grouped_epoch(table, TrainingConfig(balance="groups", pairs=pairs), epoch)
    drawn = table.iloc[rows]
    assert len(drawn) == len(table)
    assert together.sum() == round(pairs * len(table) / 2)
    is_copy = drawn["attack"].str.startswith("V").to_numpy()
    assert np.array_equal(together, is_copy)
    first = drawn[np.append(together[1:], False)]
    assert (first["label"] == BONAFIDE).all()
    assert first["source"].tolist() == drawn[together]["source"].tolist()


def test_pairs_want_copies() -> None:
    table = _corpus(0, 0, 3)
    with pytest.raises(UserError, match="pairs: no fake names a recording"):
        grouped_epoch(table, TrainingConfig(balance="groups", pairs=0.5), 0)


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
    waveforms, labels, _ = _stacked(_training(table, config))
    assert labels[:, 0].tolist() == [BONAFIDE, SPOOF] * 4
    assert np.array_equal(waveforms[::2], waveforms[1::2])
    assert len({float(waveform[0]) for waveform in waveforms}) == 4  # but each pair in its own way


@given(labels=st.lists(st.integers(0, 1), min_size=1, max_size=60), seed=st.integers(0, 99), epoch=st.integers(0, 99))
def test_without_sampling_every_row_comes_once(labels: list[int], seed: int, epoch: int) -> None:
    for balance in ("none", "weights"):
        assert sorted(epoch_rows(np.array(labels), balance, seed, epoch)) == list(range(len(labels)))


def test_weights() -> None:
    labels = np.array([BONAFIDE] * 10 + [SPOOF] * 90)
    assert class_weights(labels, TrainingConfig(balance="none")) == (1, 1)
    assert class_weights(labels, TrainingConfig(balance="sampling", bonafide_weight=9.0)) == (1, 1)
    assert class_weights(labels, TrainingConfig(balance="weights", bonafide_weight=5.0)) == (5, 1)
    weights = class_weights(labels, TrainingConfig(balance="weights"))
    assert weights == pytest.approx((5, 100 / 180))
    assert np.mean(np.array(weights)[labels]) == pytest.approx(1)  # the mean loss keeps its scale


def test_weights_reach_the_clips_of_their_class(table: pd.DataFrame) -> None:
    _, labels, weights = _stacked(_training(table, _config(balance="weights", bonafide_weight=5.0)))
    assert np.array_equal(weights, np.where(labels[:, 0] == BONAFIDE, 5, 1))
    _, labels, weights = _stacked(_training(table, _config(balance="weights")))
    # three of twelve are bona fide
    assert np.allclose(weights, np.where(labels[:, 0] == BONAFIDE, 2, 2 / 3))


def test_a_stratified_subset(table: pd.DataFrame) -> None:
    subset = stratified_sample(table, 0.5, seed=1).index.to_numpy()
    waveforms, labels, weights = _stacked(_training(table, _config(balance="weights"), subset=subset))
    assert len(waveforms) == len(subset) < len(table)
    assert sorted(labels[:, 0]) == sorted(table.label[subset])
    counts = np.bincount(table.label[subset])
    assert np.allclose(weights, (len(subset) / (2 * counts))[labels[:, 0].astype(int)])
    _, labels, weights = _stacked(_training(table, _config(balance="weights"), subset=np.array([0, 1, 2, 3, 5])))
    assert np.allclose(weights, np.where(labels[:, 0] == BONAFIDE, 5 / 2, 5 / 8))
    # a clip's first sample tells which clip it is, wherever the crop began
    allowed = {float(value) for row in subset for value in load_audio(table.path[row])}
    assert all(float(waveform[0]) in allowed for waveform in waveforms)
    _, labels, _ = _stacked(_training(table, _config(balance="sampling"), subset=subset))
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

    waveforms, labels, _ = _stacked(_training(table, augment_with(mark)))
    assert waveforms.dtype == np.float32
    assert waveforms.shape == (len(table), SAMPLES)
    assert (waveforms == -0.5).all()
    assert seen == [((SAMPLES,), np.dtype(np.float32))] * len(table)
    assert sorted(labels[:, 0]) == sorted(table["label"])


@pytest.mark.parametrize(("only", "label"), [("bonafide", BONAFIDE), ("spoof", SPOOF)])
def test_one_class_alone_can_be_augmented(only: str, label: int, table: pd.DataFrame, augment_with: Callable) -> None:
    config = augment_with(lambda waveform, rng: np.full(100, -0.5), augment_only=only)
    waveforms, labels, _ = _stacked(_training(table, config))
    assert np.array_equal((waveforms == -0.5).all(axis=1), labels[:, 0] == label)


def test_augmented_copies_of_bona_fide_clips(table: pd.DataFrame, augment_with: Callable) -> None:
    """Every clip comes once as it is; a bona fide clip is copied, and only the copies are changed."""
    config = augment_with(lambda waveform, rng: np.full(100, -0.5), augment_only="spoof", bonafide_copies=1.7)
    config = replace(config, training=replace(config.training, augment_probability=1e-9))
    waveforms, labels, _ = _stacked(_training(table, config))
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
    plain, mixed = _arrays(_training(table)), _arrays(_training(table, _config(mixup=0.8)))
    for (waveforms, labels, _), (blends, shares, _) in zip(plain, mixed, strict=True):
        assert blends.shape == waveforms.shape and shares.shape == labels.shape
        np.testing.assert_allclose(blends.sum(axis=0), waveforms.sum(axis=0), atol=1e-5)
        assert shares.sum() == pytest.approx(labels.sum(), abs=1e-5)
        assert shares.min() >= 0 and shares.max() <= 1
    assert any(((shares > 0) & (shares < 1)).any() for _, shares, _ in mixed)
    assert _equal(mixed, _training(table, _config(mixup=0.8)))
    assert not _equal(mixed, _training(table, _config(mixup=0.8), epoch=1))


def test_sharpness_aware_minimisation_sees_every_batch_twice(table: pd.DataFrame) -> None:
    once, twice = _arrays(_training(table)), _arrays(_training(table, _config(sam=0.05)))
    assert _equal(twice[::2], once) and _equal(twice[1::2], once)


# ---------------------------------------------------------------- without TensorFlow


@pytest.mark.parametrize("settings", [{}, {"mixup": 0.8, "sam": 0.1, "augment": ("noise",)}])
def test_other_backends_get_the_same_batches(table: pd.DataFrame, monkeypatch, settings: dict) -> None:
    Path(table.path[4]).unlink()
    config = _config(**settings)
    training, evaluation = _arrays(_training(table, config)), _arrays(evaluation_batches(ClipReader(table), SAMPLES, 5))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    plain = _training(table, config)
    assert _equal(plain, training)
    assert _equal(plain, training)  # and once more from the start
    assert _equal(evaluation_batches(ClipReader(table), SAMPLES, 5), evaluation)
    assert all(isinstance(part, np.ndarray) for batch in plain for part in batch)


def test_keras_trains_on_the_batches(table: pd.DataFrame) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((SAMPLES,)), keras.layers.Dense(1)])
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    before = model.get_weights()[0].copy()
    model.fit(_training(table, _config(balance="weights")), verbose=0, shuffle=False)
    assert np.isfinite(model.get_weights()[0]).all()
    assert not np.array_equal(model.get_weights()[0], before)
