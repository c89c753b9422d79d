"""Keras, imported without TensorFlow's start-up noise: `from backend import keras`.

TensorFlow writes to file descriptor 2 before any logging level is read, so during the import the descriptor
points to a temporary file; lines of level warning or worse are then passed on, the rest is dropped.
Set TF_CPP_MIN_LOG_LEVEL=0 to see everything. KERAS_BACKEND chooses another backend.
"""

import importlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_LOUD = os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # from here on: warnings and errors
_PROBLEM = re.compile(rb"^[WEF]\d{4} ")
# said on every machine without a GPU, and on every machine with one, and never of use
_HARMLESS = re.compile(rb"failed call to cuInit|Unable to register cu\w+ factory|computation placer already")


@contextmanager
def _start_up_noise_dropped() -> Iterator[None]:
    sys.stderr.flush()
    real_stderr = os.dup(2)
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(real_stderr, 2)
            os.close(real_stderr)
            noise.seek(0)
            for line in noise:
                if _PROBLEM.match(line) and not _HARMLESS.search(line):
                    os.write(2, line)


def _quieten_loggers() -> None:
    """Left out is what is meant here: .h5 files, which hold no optimizer, and many models in one process."""
    expected = (
        "saving your model as an HDF5 file",
        "No training configuration found",
        "triggered tf.function retracing",
    )
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).addFilter(lambda record: not any(text in record.getMessage() for text in expected))


def _import_keras():
    if _LOUD or "tensorflow" in sys.modules:
        return importlib.import_module("keras")
    with _start_up_noise_dropped():
        keras = importlib.import_module("keras")
        if keras.backend.backend() == "tensorflow":
            # the first look for a GPU is noisy too: have it now
            importlib.import_module("tensorflow").config.list_physical_devices("GPU")
    return keras


def accelerators() -> list[str]:
    """Names of the GPUs (on JAX also TPUs) that Keras computes on; none on a CPU."""
    if keras.backend.backend() == "jax":
        return [device.device_kind for device in importlib.import_module("jax").devices() if device.platform != "cpu"]
    if keras.backend.backend() != "tensorflow":
        return keras.distribution.list_devices("gpu")
    config = importlib.import_module("tensorflow").config
    devices = config.list_physical_devices("GPU")
    return [config.experimental.get_device_details(device).get("device_name", device.name) for device in devices]


keras = _import_keras()
_quieten_loggers()
