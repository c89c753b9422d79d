"""What every entry of MODELS promises, as checks that return their complaints; test_contract.py runs them.

A network is checked inside the model that users get: waveform -> front end -> network -> spoof_logit, on its own
front end with clips of one second.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

from backend import keras
from config import Config, FeatureConfig
from model import MODELS, build_model, save_model, spoof_logits

REPO = Path(__file__).resolve().parents[1]
SECOND = {
    "log_stft": FeatureConfig("log_stft", 16_000, window=256),
    "mel": FeatureConfig("mel", 16_000, window=512, mel_bands=64),
    "lfcc": FeatureConfig("lfcc", 16_000),
    "cqt": FeatureConfig("cqt", 16_000),
    "raw": FeatureConfig("raw", 16_000),
}


def small(name: str) -> Config:
    """The network of a name with its own settings, on a second of audio."""
    return Config(model=name, features=SECOND[MODELS[name].front_end])


def clips(count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Noise (bona fide) and tones in noise (spoof): waveforms (count, 16000) and labels (count, 1)."""
    rng = np.random.default_rng(0)
    waveforms = rng.normal(0, 0.1, (count, 16_000))
    labels = np.arange(count)[:, None] % 2
    tones = np.sin(2 * np.pi * 1_000 / 16_000 * np.arange(16_000))
    return (waveforms + 0.2 * labels * tones).astype(np.float32), labels.astype(np.float32)


def logits_of(model: keras.Model, waveforms: np.ndarray) -> np.ndarray:
    """Without a graph, which takes longer to make than one batch to compute."""
    return keras.ops.convert_to_numpy(model(waveforms))[:, 0]


def shape(model: keras.Model) -> list[str]:
    """One finite float32 logit a clip, the same in a batch and alone, and an embedding in front of it."""
    waveforms, _ = clips()
    output = keras.ops.convert_to_numpy(model(waveforms))
    problems = []
    if output.shape != (4, 1) or output.dtype != np.float32 or not np.isfinite(output).all():
        problems.append(f"gives {output.dtype} {output.shape}: {output.ravel()[:3]}")
    for clip in (0, 3):  # one of each class
        alone = logits_of(model, waveforms[clip : clip + 1])
        if not np.allclose(alone, output[clip], atol=1e-4):
            problems.append(f"a clip alone gets another logit: off by {np.abs(alone - output[clip]).max():.2g}")
    last = model.get_layer(model.name).layers[-1]
    if last.name != "logit" or len(last.input.shape) != 2:
        problems.append(f"ends in {last.name}, which takes {last.input.shape}; an embedding (b, n) is expected")
    return problems


def gradient(model: keras.Model) -> list[str]:
    """Gradient reaches every trainable weight, if not from the first start then from another: a rectifier of two
    units can begin silent.
    """
    missing = set(_without_gradient(model))
    for seed in (2, 3):
        if missing:
            keras.utils.set_random_seed(seed)
            missing &= set(_without_gradient(build_model(small(model.name))))
    return sorted(missing)


def _without_gradient(model: keras.Model) -> list[str]:
    import tensorflow as tf

    waveforms, _ = clips()
    # training=False: behind batch statistics, a constant such as a skip's bias has no gradient by design
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(waveforms, training=False) - 3.0))
    weights = model.trainable_weights
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    return [
        f"no gradient in weight {number}, {weight.name} {tuple(weight.shape)}"
        for number, (weight, values) in enumerate(zip(weights, gradients, strict=True))
        if values is None or not np.abs(keras.ops.convert_to_numpy(values)).max() > 0
    ]


def learning(model: keras.Model) -> list[str]:
    """A few steps on one batch lower its loss. Moves the weights: has its turn last."""
    waveforms, labels = clips()
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, run_eagerly=True)  # no graph to build: sooner done
    losses = [float(model.train_on_batch(waveforms, labels)) for _ in range(4)]
    return [] if min(losses[1:]) < losses[0] else [f"steps on one batch leave the loss where it was: {losses}"]


def half_precision(name: str, model: keras.Model) -> list[str]:
    """Under half precision weights and logit are float32 and the logit is finite and near the full one."""
    waveforms, _ = clips()
    full = logits_of(model, waveforms)
    problems = []
    for policy in ("mixed_bfloat16", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            half = build_model(small(name))
        finally:
            keras.config.set_dtype_policy("float32")
        half.set_weights(model.get_weights())
        logits = keras.ops.convert_to_numpy(half(waveforms))
        if logits.dtype != np.float32 or {w.dtype for w in half.trainable_weights} != {"float32"}:
            problems.append(f"{policy}: {logits.dtype} logit")
        if not np.isfinite(logits).all():
            problems.append(f"{policy}: {logits.ravel()}")
        # wide: of two nodes that are nearly equal a graph pooling may keep the other
        elif not np.allclose(logits[:, 0], full, atol=0.15 * max(1.0, np.abs(full).max())):
            problems.append(f"{policy}: {logits[:, 0]} instead of {full}")
    return problems


def export(model: keras.Model, folder: Path) -> list[str]:
    """TensorFlow's exported form computes the same."""
    import tensorflow as tf

    waveforms, _ = clips()
    model.export(folder / model.name, format="tf_saved_model", verbose=False)
    exported = tf.saved_model.load(str(folder / model.name))
    logits = spoof_logits(model, waveforms)
    off = np.abs(exported.serve(waveforms).numpy()[:, 0] - logits).max() / max(1.0, np.abs(logits).max())
    return [] if off <= 1e-5 else [f"the exported model is off by {off:.2g} of the logit"]


LOAD = """
import sys
import numpy as np
import inference
for name in sys.argv[2:]:
    model = inference.load_model(name)
    np.save(name + ".npy", model(np.load(sys.argv[1]))[:, 0])
"""


def saving(models: dict[str, keras.Model], folder: Path) -> list[str]:
    """Saved and loaded in a fresh process, every model gives the logits it gave: one process for all of them."""
    waveforms, _ = clips()
    np.save(folder / "waveforms.npy", waveforms)
    files = {name: folder / f"{name}.keras" for name in models}
    problems = []
    for name, model in models.items():
        try:
            save_model(model, files[name])
        except Exception as error:  # whatever a broken layer raises
            problems.append(f"{name}: cannot be saved ({error})")
    written = [str(file) for file in files.values() if file.exists()]
    command = [sys.executable, "-c", LOAD, str(folder / "waveforms.npy"), *written]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    if done.returncode:
        problems.append(f"cannot be loaded: {done.stderr.strip().splitlines()[-1]}")
    for name, model in models.items():
        result = Path(f"{files[name]}.npy")
        if not result.exists():
            problems.append(f"{name}: not loaded")
        else:
            logits = logits_of(model, waveforms)
            off = np.abs(np.load(result) - logits).max() / max(1.0, np.abs(logits).max())
            if off > 1e-5:  # another process may divide its sums among threads in another way
                problems.append(f"{name}: a loaded model is off by {off:.2g} of the logit")
    return problems
