"""Detectors that listen to a known place and to nothing else, and clips for them: for the tests of explanations."""

import numpy as np

from backend import keras
from config import SAMPLE_RATE, FeatureConfig
from front_ends import front_end_layer
from model import SpoofLogit

SECONDS = 2.0
SAMPLES = int(SECONDS * SAMPLE_RATE)
REGION = {"seconds": (0.6, 1.2), "hertz": (2000.0, 4000.0)}  # that the known detectors listen to


def known_picture(sign: float = 1.0, features: FeatureConfig | None = None) -> keras.Model:
    """A detector whose logit is the mean log power in REGION, and which is deaf outside."""
    features = features or FeatureConfig("log_stft", SAMPLES)
    front = front_end_layer(features)
    shape = front.compute_output_shape((None, features.samples))[1:]
    frames = np.arange(shape[0]) / shape[0] * SECONDS
    hertz = np.linspace(0, SAMPLE_RATE / 2, shape[1])
    heard = np.outer(within(frames, "seconds"), within(hertz, "hertz")).astype(np.float32)
    inputs = keras.Input(shape, name="features")
    x = keras.layers.Conv2D(1, 1, kernel_initializer="ones")(inputs)
    outputs = keras.layers.Dense(1, name="logit")(keras.layers.Flatten()(x))
    network = keras.Model(inputs, outputs, name="known")
    kernel = sign * heard.reshape(-1, 1) / heard.sum()
    network.get_layer("logit").set_weights([kernel, np.array([sign * 6.0], np.float32)])
    return whole(network, front, features)


def known_samples(sign: float = 1.0) -> keras.Model:
    """A detector on raw samples whose logit is the mean absolute sample in REGION's seconds."""
    features = FeatureConfig("raw", SAMPLES)
    first, last = (round(end * SAMPLE_RATE) for end in REGION["seconds"])
    inputs = keras.Input((SAMPLES, 1), name="features")
    x = keras.layers.Cropping1D((first, SAMPLES - last))(inputs)
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Activation(keras.ops.abs)(x))
    network = keras.Model(inputs, keras.layers.Dense(1, name="logit")(x), name="known_raw")
    network.get_layer("logit").set_weights([np.array([[40.0 * sign]]), np.array([-0.5 * sign])])
    return whole(network, front_end_layer(features), features)


def whole(network: keras.Model, front: keras.layers.Layer, features: FeatureConfig) -> keras.Model:
    waveform = keras.Input((features.samples,), name="waveform")
    return keras.Model(waveform, SpoofLogit()(network(front(waveform))), name=network.name)


def within(values: np.ndarray, axis: str) -> np.ndarray:
    low, high = REGION[axis]
    return (values >= low) & (values < high)


def clip(seed: int = 0, seconds: float = SECONDS) -> np.ndarray:
    """Noise at one level for most of the time, with pauses all over at a hundredth of it: no place is louder."""
    rng = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    loud = np.repeat(np.arange(count // 1600 + 1) % 4 != 0, 1600)[:count]
    return (0.1 * np.where(loud, 1, 0.01) * rng.standard_normal(count)).astype(np.float32)
