"""Copies of any recording through FARGAN, the neural vocoder with which Opus 1.6 fills in for packets that were lost.

    tar xf opus-1.6.1.tar.gz && cd opus-1.6.1      # https://downloads.xiph.org/releases/opus/, or Debian's source
    ./configure --enable-deep-plc --disable-shared && make fargan_demo && sudo cp fargan_demo /usr/local/bin
    python training_corpus.py my_data --out corpus --methods fargan      # finds it on the PATH: methods fargan_*

Where the HiFi-GAN of neural_vocoder.py turns a mel spectrogram into a waveform at once, this one goes on from what it
has just made, 2.5 ms at a time, with a cepstrum of 18 bands and a pitch every 10 ms to go by. Nothing of it is learned
here: its weights come with Opus (BSD licence).
"""

import subprocess
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import soxr
from scipy.ndimage import gaussian_filter1d

from audio import pcm16
from config import SAMPLE_RATE
from errors import UserError
from vocoders import Method

COMMAND = "fargan_demo"
FRAME = SAMPLE_RATE // 100  # samples
BANDS, FEATURES = 18, 20  # of each frame: the cepstrum, log2 of the pitch, how periodic it is
PITCH = BANDS
SPARE = 10 * FRAME  # silence behind a recording: what is left of a last frame, and of the last sound, is made as well


def _run(mode: str, given: np.ndarray, sample_type: type, expected: int) -> np.ndarray:
    """What the command makes of an array: `expected` numbers of a type."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in", Path(folder) / "out"
        given.tofile(source)
        failed = subprocess.run([COMMAND, mode, source, target], capture_output=True).returncode
        made = np.fromfile(target, sample_type) if target.is_file() else np.empty(0, sample_type)
    if failed or len(made) != expected:
        raise UserError(f"{COMMAND} {mode}: gives {len(made)} numbers, not {expected}; is it that of Opus 1.6?")
    return made


def features(waveform: np.ndarray) -> np.ndarray:
    """What the vocoder hears of a recording at 16 kHz, every 10 ms: (frames, FEATURES)."""
    frames = len(waveform) // FRAME
    return _run("-features", pcm16(waveform), np.float32, frames * FEATURES).reshape(-1, FEATURES)


def synthesise(heard: np.ndarray) -> np.ndarray:
    """Features (frames, FEATURES) as a waveform at 16 kHz, in step with what they were taken from."""
    made = _run("-fargan-synthesis", heard.astype(np.float32), np.int16, len(heard) * FRAME)
    return made.astype(np.float32) / 32_768


def copy(how: str, waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """A recording through the vocoder, as long as it was; `how` is one of WAYS."""
    rate = SAMPLE_RATE * rng.uniform(1.05, 1.3) if how == "rescaled" else SAMPLE_RATE
    heard = features(np.pad(soxr.resample(waveform, SAMPLE_RATE, rate), (0, SPARE)))
    cepstrum = heard[:, :BANDS]  # a view: what is written to it is spoken
    if how == "smooth":
        cepstrum[:] = gaussian_filter1d(cepstrum, rng.uniform(1, 2.5), axis=0)
    if how == "coded":
        step, held = rng.uniform(0.3, 0.8) * (cepstrum.std(axis=0) + 1e-6), int(rng.integers(2, 5))
        frames = np.arange(len(heard))
        coarse = np.round(cepstrum[::held] / step) * step
        cepstrum[:] = np.stack([np.interp(frames, frames[::held], band) for band in coarse.T], axis=1)
    if how == "shifted":
        heard[:, PITCH] += np.log2(rng.choice([rng.uniform(0.7, 0.9), rng.uniform(1.12, 1.4)]))
    if how == "converted":
        wanted = features(partner)
        cepstrum[:] = (cepstrum - cepstrum.mean(axis=0)) / (cepstrum.std(axis=0) + 1e-6)
        cepstrum[:] = cepstrum * wanted[:, :BANDS].std(axis=0) + wanted[:, :BANDS].mean(axis=0)
        heard[:, PITCH] += np.median(wanted[:, PITCH]) - np.median(heard[:, PITCH])
    return soxr.resample(synthesise(heard), rate, SAMPLE_RATE)[: len(waveform)]


WAYS = {
    "plain": ("vocoder", "features and back"),
    "smooth": ("vocoder", "the cepstrum blurred in time, as an acoustic model's is"),
    "coded": ("vocoder", "the cepstrum in coarse steps every 20 to 40 ms, as a codec stores it"),
    "rescaled": ("vocoder", "played slower on the way in, as fast again on the way out: the traces of its steps move"),
    "shifted": ("conversion", "another pitch"),
    "converted": ("conversion", "the partner's pitch, and the mean and spread of its cepstrum"),
}

METHODS = {f"fargan_{how}": Method(partial(copy, how), kind, "fargan", COMMAND) for how, (kind, _) in WAYS.items()}
