"""Ways to say which cells of time and frequency made a detector's logit, each as one function.

    relevance = METHODS["occlusion"](model, SoundCells(waveform))     # (rows, columns), in logits

occlusion             hides a patch at a time and looks what the logit loses; a patch's change is shared evenly among
                      its cells, and averaged over the patches of a cell. Patches that are hidden alone do not add up:
                      what is for spoof is scaled, and what is against, so that the sum is the logit of the clip minus
                      the background's (proportional allocation of what the marginal contributions leave over). Needs
                      nothing but the model's output.
grad_cam              what the clip adds to its background in the last layer that is still a picture, times the
                      logit's gradient there, element by element (HiResCAM, Draelos & Carin 2020; Grad-CAM's mean
                      over the picture is wrong for heads that know places, as ResMax's does). As coarse as that
                      layer, and fast. On cepstra time alone.
smooth_gradient       the logit's gradient by the share of every cell that is there, averaged over clips in which each
                      cell has a share of its own, drawn from 0 (background) to 1: what a cell adds whatever else is
                      there (a Banzhaf value, with shares for coalitions; SmoothGrad's idea, with sounds for noise).
                      A network that evens out levels, as those that ship do, hardly hears a share but hears the
                      mosaic of shares itself: there it names the wrong places.
integrated_gradients  the same gradient, averaged on the straight way from the background alone to the whole clip
                      (Sundararajan et al., ICML 2017). Its sum is the logit of the clip minus the background's.
gradient              the same gradient at the clip as it is (gradient x input): one step, noisier.

The default is occlusion where the network hears a picture (or the backend gives no gradients), smooth_gradient where
it hears raw samples: what the tests of faithfulness.py say (README has the figures). Positive speaks for spoof,
negative for bona fide. Occlusion and the gradients ask about the sound (sound_cells.py) and so fit every model that
takes a waveform; Grad-CAM asks about the network's picture and needs one. A clip shorter than the model's input is
repeated, as for a verdict; all its repetitions are edited, and count, together.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice

import numpy as np
from tqdm import tqdm

from audio import fit_length
from backend import keras
from config import SAMPLE_RATE, FeatureConfig
from errors import UserError
from feature_extraction import CQT_BINS_PER_OCTAVE, CQT_LOWEST_HZ
from front_ends import FrontEnd, front_end_layer
from inference import input_samples, window_logits
from sound_cells import CELL_HERTZ, CELL_SAMPLES, SoundCells

PATCH = (4, 8)  # rows and columns of an occlusion: a quarter of a second x 2 kHz, moved by half
STEPS = DRAWS = 16  # gradients that are averaged
AT_ONCE = 2  # waveforms through a gradient; 2 GB with AASIST

Method = Callable[[keras.Model, SoundCells], np.ndarray]


def clip_logits(model: keras.Model, clips: Iterable[np.ndarray]) -> np.ndarray:
    """Logits (n,) of clips that fit into the model's input, repeated until they fill it."""
    samples = input_samples(model)
    parts = [window_logits(model, [fit_length(clip, samples) for clip in some]) for some in _batches(clips, 32)]
    return np.concatenate(parts)


def _batches(items: Iterable[np.ndarray], count: int) -> Iterator[list[np.ndarray]]:
    items = iter(items)
    while some := list(islice(items, count)):
        yield some


# ---------------------------------------------------------------- the methods


def occlusion(model: keras.Model, sound: SoundCells) -> np.ndarray:
    """What the logit loses when a patch around a cell is hidden, per cell (rows, columns)."""
    (rows, columns), (height, width) = sound.shape, PATCH
    patches = [
        (slice(max(0, top), top + height), slice(max(0, left), left + width))
        for top in range(-height // 2, rows, height // 2)
        for left in range(-width // 2, columns, width // 2)
    ]

    def hide(patch: tuple[slice, slice]) -> np.ndarray:
        hidden = np.zeros(sound.shape, bool)
        hidden[patch] = True
        return sound.without(hidden)

    progress = tqdm(patches, "patches", leave=False, disable=None, delay=2)
    there, background = clip_logits(model, [sound.with_share(1.0), sound.with_share(0.0)])
    lost = there - clip_logits(model, map(hide, progress))
    total, times = np.zeros(sound.shape), np.zeros(sound.shape)
    for patch, change in zip(patches, lost, strict=True):
        total[patch] += change / total[patch].size
        times[patch] += 1
    return adding_up(total / times, there - background)


def adding_up(values: np.ndarray, whole: float) -> np.ndarray:
    """Values scaled to the sum `whole`, those above zero by one factor, those below by another; none changes its sign.

    What is left over is allocated in proportion to the values' size; where that would turn the signs of one side, that
    side becomes zero. As they are if no value has the sign of the whole.
    """
    size = np.abs(values).sum()
    if not size:
        return values
    left = (whole - values.sum()) / size
    scaled = np.where(values > 0, max(0.0, 1 + left), max(0.0, 1 - left)) * values
    if not scaled.any():
        return values
    return scaled * (whole / total) if (total := scaled.sum()) * whole > 0 else scaled


def smooth_gradient(model: keras.Model, sound: SoundCells, draws: int = DRAWS) -> np.ndarray:
    """What each cell (rows, columns) adds on average, the other cells being there in part, by random shares."""
    rng = np.random.default_rng(0)  # the same clip is always explained the same
    return _mean_gradient(model, sound, (rng.random(sound.shape, dtype=np.float32) for _ in range(draws)))


def integrated_gradients(model: keras.Model, sound: SoundCells, steps: int = STEPS) -> np.ndarray:
    """Each cell's part (rows, columns) of the logit's way from the background to the clip."""
    return _mean_gradient(model, sound, (np.arange(steps) + 0.5) / steps)


def gradient(model: keras.Model, sound: SoundCells) -> np.ndarray:
    """The logit's gradient by the share of every cell (rows, columns), at the clip as it is."""
    return _mean_gradient(model, sound, [1.0])


def _mean_gradient(model: keras.Model, sound: SoundCells, shares: Iterable[np.ndarray | float]) -> np.ndarray:
    hearing, samples = _hearing(model), input_samples(model)
    total, count = np.zeros(sound.samples), 0
    for some in _batches(map(sound.with_share, shares), AT_ONCE):
        windows = np.stack([fit_length(clip, samples) for clip in some])
        by_window = logit_gradient(hearing, windows).sum(axis=0)  # (samples,)
        repeated = np.pad(by_window, (0, -samples % sound.samples)).reshape(-1, sound.samples)
        total += repeated.sum(axis=0)
        count += len(some)
    # samples depend on shares by a fixed linear map, so the mean of the gradients may be taken before it
    return sound.relevance(total / count)


def grad_cam(model: keras.Model, sound: SoundCells) -> np.ndarray:
    """What is added to the network's last picture x gradient, spread over (rows, columns), or (rows, 1) on cepstra."""
    front, before, after = _cut_at_last_picture(model)
    windows = np.stack([fit_length(sound.with_share(share), input_samples(model)) for share in (1.0, 0.0)])
    activation = keras.ops.convert_to_numpy(before(front(windows)))  # (2, time, frequency, channels)
    added = activation[:1] - activation[1:]
    parts = (added * logit_gradient(after, activation[:1])).sum(axis=-1)[0]
    hertz = picture_hertz(front.features)
    if hertz is None:
        parts = parts.sum(axis=1, keepdims=True)
    return _on_cells(parts, hertz, input_samples(model), sound)


METHODS: dict[str, Method] = {
    method.__name__: method for method in (occlusion, grad_cam, smooth_gradient, integrated_gradients, gradient)
}


def default_method(model: keras.Model) -> str:
    """The name of the method that is taken where none is named."""
    front, _ = _parts(model)
    raw = front is not None and front.features.kind == "raw"
    return "smooth_gradient" if raw and reason_against(model, "smooth_gradient") is None else "occlusion"


def find_method(model: keras.Model, name: str | None = None) -> tuple[str, Method]:
    """A method by name, the default without one; refused with the reason if it does not fit the model."""
    name = name or default_method(model)
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}; valid: {', '.join(METHODS)}")
    if reason := reason_against(model, name):
        raise UserError(f"{name} does not fit {model.name}: {reason}; occlusion fits every model")
    return name, METHODS[name]


def reason_against(model: keras.Model, name: str) -> str | None:
    """Why a method does not fit a model, as its structure and Keras' backend say; None if it does."""
    if name != "occlusion" and keras.backend.backend() not in ("tensorflow", "jax"):
        return f"gradients are taken on TensorFlow and JAX, not on {keras.backend.backend()}"
    if name != "grad_cam":
        return None
    front, network = _parts(model)
    if front is None:
        return "its front end is not known"
    if front.features.kind == "raw":
        return "it reads raw samples, and the axes of its inner pictures are its own"
    if network is None or not _pictures(network):
        return "it has no layer with a picture (time, frequency, channels) inside"
    return None


# ---------------------------------------------------------------- the model's structure


def _hearing(model: keras.Model) -> keras.Model:
    """The model as it takes a waveform: a network of (250, 513, 1) gets its log-STFT in front."""
    if len(model.input_shape) == 2:
        return model
    return _with_front_end(model)


@lru_cache(maxsize=2)
def _with_front_end(network: keras.Model) -> keras.Model:
    waveform = keras.Input((FeatureConfig().samples,), name="waveform")
    features = front_end_layer(FeatureConfig())(waveform)
    return keras.Model(waveform, network(features), name=network.name)


def _parts(model: keras.Model) -> tuple[FrontEnd | None, keras.Model | None]:
    """The front end and the network within a model, as far as it has them."""
    layers = _hearing(model).layers
    front = next((layer for layer in layers if isinstance(layer, FrontEnd)), None)
    return front, next((layer for layer in layers if isinstance(layer, keras.Model)), None)


def _pictures(network: keras.Model) -> list[keras.KerasTensor]:
    """Outputs (b, time, frequency, channels) of the network's layers, in order."""
    # a network inside has an output of its own, which hangs on its own input
    outside = (keras.layers.InputLayer, keras.Model)
    outputs = [layer.output for layer in network.layers if not isinstance(layer, outside)]
    shapes = [getattr(output, "shape", ()) for output in outputs]  # a layer may give a list
    return [o for o, shape in zip(outputs, shapes, strict=True) if len(shape) == 4 and max(shape[1:3]) > 1]


@lru_cache(maxsize=2)  # new models are new graphs
def _cut_at_last_picture(model: keras.Model) -> tuple[FrontEnd, keras.Model, keras.Model]:
    """The front end, the network up to its last picture, and from there to the logit."""
    front, network = _parts(model)
    picture = _pictures(network)[-1]
    return front, keras.Model(network.input, picture), keras.Model(picture, network.output)


def picture_hertz(features: FeatureConfig) -> np.ndarray | None:
    """Frequency of every bin of a front end's picture; None for cepstra and samples."""
    if features.kind == "log_stft":
        return np.arange(features.window // 2 + 1) * SAMPLE_RATE / features.window
    if features.kind == "mel":
        import librosa  # slow to import: only for those who use mel

        return librosa.mel_frequencies(features.mel_bands + 2, fmin=0, fmax=SAMPLE_RATE / 2)[1:-1]
    if features.kind == "cqt":
        return CQT_LOWEST_HZ * 2.0 ** (np.arange(features.cqt_bins) / CQT_BINS_PER_OCTAVE)
    return None


def _on_cells(parts: np.ndarray, hertz: np.ndarray | None, samples: int, sound: SoundCells) -> np.ndarray:
    """A coarse map (time, frequency) over a window of `samples` spread over a clip's cells.

    The repetitions of a short clip are added up; the sum stays what it is. Cells past the picture's ends get nothing.
    """
    if hertz is not None:
        edges = np.arange(sound.shape[1] + 1) * CELL_HERTZ
        parts = _divided(parts, np.interp(edges, hertz, np.linspace(0, 1, len(hertz))))
    edges = np.minimum(np.arange(sound.shape[0] + 1) * CELL_SAMPLES, sound.samples)
    repetitions = range(0, samples, sound.samples)
    return sum(_divided(parts.T, np.minimum(start + edges, samples) / samples).T for start in repetitions)


def _divided(rows: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Every row (n,) summed between edges (m + 1,) given as share of its length, (m,); a value cut by one is shared."""
    total = np.pad(rows.cumsum(axis=1), ((0, 0), (1, 0)))
    at = edges * rows.shape[1]
    return np.diff([np.interp(at, np.arange(rows.shape[1] + 1), row) for row in total], axis=1)


def logit_gradient(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """Gradient of every logit by its own input, of the shape of the inputs (b, ...); knows the backends."""
    if keras.backend.backend() == "jax":
        import jax

        values = np.asarray(jax.grad(lambda x: model(x, training=False).sum())(jax.numpy.asarray(inputs)))
    else:
        import tensorflow as tf

        x = tf.convert_to_tensor(inputs)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(model(x, training=False))
        values = tape.gradient(total, x).numpy()
    if not np.isfinite(values).all():
        raise UserError(f"the gradient of {model.name} is not finite for this clip; take the method occlusion")
    return values
