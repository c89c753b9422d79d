"""Fixtures that several test files share."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import settings

from config import BONAFIDE, SPOOF
from errors import run_command
from vocoders import Method

CLIP_LENGTHS = (2_000, 3_999, 4_000, 4_001, 6_000, 9_000, 3_000, 12_000, 5_000, 8_000, 7_000, 4_500)

settings.register_profile("patient", deadline=None)  # no test depends on how busy the machine is
settings.load_profile("patient")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data beside the repository; tests that need it are skipped where it is absent."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"development data not here: {path}")
    return path


@pytest.fixture(scope="session", autouse=True)
def no_learning_curves() -> Iterator[None]:
    """A training paints its curves after every epoch, which takes longer than what a tiny network learns in one."""
    with pytest.MonkeyPatch.context() as patch:
        if "training" in sys.modules:  # of the tests that were collected some train
            patch.setattr("training.learning_curves", lambda history, path: path.write_bytes(b""))
        yield


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and not painted, which takes longer than all the rest of a report."""

    def save_nothing(figure: object, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        return path

    monkeypatch.setattr("html_page.png_bytes", lambda figure: b"")
    monkeypatch.setattr("plots.save_figure", save_nothing)


@pytest.fixture
def command(capsys) -> Callable[..., tuple[int, str, str]]:
    """(main, *words) -> exit code of the command, what it prints, what it complains of; in this process."""

    def run(main: Callable, *words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command(lambda: main([str(word) for word in words]))
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def speech_like() -> Callable[..., np.ndarray]:
    """(seconds, rate, seed) -> float64 waveform: a voice-like sum of sines below 3 kHz, known at any rate."""

    def waveform(seconds: float = 1.0, rate: int = 16_000, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        time = np.arange(round(seconds * rate)) / rate
        pitch = rng.uniform(90, 220)
        harmonics = np.arange(1, int(3000 / pitch) + 1)[:, None]
        loudness = rng.uniform(0.2, 1, harmonics.shape) / harmonics
        voice = (loudness * np.sin(2 * np.pi * harmonics * pitch * time + rng.uniform(0, 6, harmonics.shape))).sum(0)
        syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * time)
        return 0.5 * syllables * voice / loudness.sum()

    return waveform


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    """Twelve 16-bit clips at 16 kHz in which every sample is unique; every fourth is bona fide."""
    rows = []
    for k, length in enumerate(CLIP_LENGTHS):
        # values k * 12,000 ... modulo the 16-bit range: a crop tells where it was taken
        pcm = ((np.arange(length) + 2_700 * k) % 32_000 + 1).astype(np.int16)
        path = tmp_path / f"clip{k}.flac"
        soundfile.write(path, pcm, 16_000)
        rows.append((str(path), BONAFIDE if k % 4 == 0 else SPOOF, "-" if k % 4 == 0 else f"A{k % 3}"))
    return pd.DataFrame(rows, columns=["path", "label", "attack"])


@pytest.fixture
def tiny_in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network of `tiny_training` goes by the name `tiny`."""
    from tiny_training import list_tiny  # not above: tests that train nothing start without Keras

    list_tiny(monkeypatch)


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """Clips of two splits that are quickly learned."""
    from tiny_training import write_tones

    return write_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[[str], Path]:
    """Makes run folders."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        return folder

    return make


@pytest.fixture(scope="session")
def copies_by_way() -> Callable[[dict[str, Method], np.ndarray], None]:
    """Checks ({way: method}, recording): copies the same again, as long as it, each unlike the plain one."""

    def check(methods: dict[str, Method], recording: np.ndarray) -> None:
        copies = {}
        for how, method in methods.items():
            first, again = (method.make(recording, np.random.default_rng(3), recording) for _ in range(2))
            np.testing.assert_array_equal(first, again)
            assert len(first) == len(recording) and np.isfinite(first).all()
            copies[how] = first
        assert all(np.abs(copy - copies["plain"]).max() > 1e-6 for how, copy in copies.items() if how != "plain")

    return check
