"""Clips are read the same from every cache, decoded once, and never from a cache that no longer holds them."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from batches import arrays, equal

import clip_reader
from audio import load_audio
from clip_reader import ClipReader
from config import Config, FeatureConfig, TrainingConfig
from data_generator import evaluation_batches, training_batches
from errors import UserError

SAMPLES = 4_000
CONFIG = Config(features=FeatureConfig("raw", SAMPLES), training=TrainingConfig(batch_size=5, balance="none", seed=3))


@pytest.mark.parametrize("cache", ["memory", "disk", "auto"])
def test_a_cache_changes_nothing(cache: str, table: pd.DataFrame, tmp_path: Path) -> None:
    reader = ClipReader(table, cache, tmp_path / "not" / "yet" / "there")
    for epoch in (0, 1, 0):  # the third time everything comes from the cache
        assert equal(training_batches(reader, CONFIG, epoch), training_batches(ClipReader(table), CONFIG, epoch))
    assert equal(evaluation_batches(reader, SAMPLES), evaluation_batches(ClipReader(table), SAMPLES))


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

    monkeypatch.setattr(clip_reader, "load_audio", counted)
    return decoded


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_cache_decodes_once(cache: str, table: pd.DataFrame, tmp_path: Path, monkeypatch) -> None:
    decoded = _count_decoding(monkeypatch)
    reader = ClipReader(table, cache, tmp_path / "cache")
    for epoch in range(3):
        arrays(training_batches(reader, CONFIG, epoch))
    assert sorted(decoded) == sorted(table["path"])


def test_a_disk_cache_is_reused_and_given_up_when_a_file_changes(
    table: pd.DataFrame, tmp_path: Path, monkeypatch, capsys
) -> None:
    decoded, folder = _count_decoding(monkeypatch), tmp_path / "cache"
    wanted = arrays(evaluation_batches(ClipReader(table, "disk", folder), SAMPLES))
    assert "writing" in capsys.readouterr().out
    decoded.clear()
    assert equal(evaluation_batches(ClipReader(table, "disk", folder), SAMPLES), wanted)
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
    assert equal(evaluation_batches(reader, SAMPLES), evaluation_batches(ClipReader(table), SAMPLES))
    assert decoded.count(table.path[2]) == 1  # only the reader without a cache
    assert decoded.count(table.path[3]) == 2


def test_wrong_cache_is_one_line(table: pd.DataFrame, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match="unknown cache 'ram'; valid: auto, memory, disk, none"):
        ClipReader(table, "ram")
    nothing_free = type("Usage", (), {"free": 10})
    monkeypatch.setattr(clip_reader.psutil, "disk_usage", lambda folder: nothing_free)
    with pytest.raises(UserError, match=r"needs .* GB, 0.0 GB are free; --cache none"):
        ClipReader(table, "disk", tmp_path / "cache")
