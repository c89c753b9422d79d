"""Keras starts in silence, and what matters is still said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend import _start_up_noise_dropped

REPO = Path(__file__).resolve().parents[1]
USE = """
import numpy as np
from backend import keras
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
print(model.predict(np.ones((8, 4)), verbose=0).shape, keras.backend.backend())
"""


def _run(code: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND")}
    # on the CPU: a driver that can or cannot be set up has a right to say so
    command = [sys.executable, "-c", code]
    environment = {**kept, "CUDA_VISIBLE_DEVICES": "-1", **environment}
    return subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=True)


def test_import_fit_and_predict_write_nothing_to_stderr() -> None:
    done = _run(USE)
    assert done.stdout == "(8, 1) tensorflow\n"
    assert done.stderr == ""


def test_the_noise_is_there_for_those_who_ask() -> None:
    assert "tensorflow" in _run("from backend import keras", TF_CPP_MIN_LOG_LEVEL="0").stderr.lower()


def test_real_problems_during_the_import_are_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    lines = (
        "I0000 00:00 oneDNN custom operations are on\n"
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        "E0000 00:00 failed call to cuInit: no CUDA-capable device is detected\n"
        "W0000 00:00 the library libfoo is too old\n"
        "E0000 00:00 out of memory\n"
    )
    with _start_up_noise_dropped():
        os.write(2, lines.encode())
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "".join(lines.splitlines(keepends=True)[3:]) + "after\n"


def test_an_import_that_fails_gives_stderr_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImportError), _start_up_noise_dropped():
        raise ImportError("no such backend")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
