"""What the norm of the small residual networks saves: a training step with it and with Keras' own (CPU time, medians).

    python benchmarks/benchmark_norm.py [--rounds 5]

Both networks are recipe resnet_wild's; Keras' has batch norm on some channels and instance norm (GroupNormalization) on
the others. They take turns in one run, so the ratio carries over to other machines.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark_networks import cpu_milliseconds

from architectures import small_residual
from architectures.layers import batch_norm
from backend import keras
from errors import CommandParser, run_command
from recipes.resnet_wild import RECIPE
from training import compile_model, set_up_keras

STEPS = 10  # of each round


class KerasNorms:
    """Batch norm of the first channels and instance norm of the last `own`, each a layer of Keras'."""

    def __init__(self, own: int = 0):
        self.own = own

    def __call__(self, x):
        shared = x.shape[-1] - self.own
        parts = [batch_norm()(x[..., :shared])] if shared else []
        parts += [keras.layers.GroupNormalization(self.own)(x[..., shared:])] if self.own else []
        return keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]


def training_step():
    """One step of the recipe on a batch of noise, run once to be compiled."""
    set_up_keras(RECIPE.training)
    _, trainer = compile_model(RECIPE)
    rng = np.random.default_rng(0)
    clips = rng.normal(0, 0.1, (RECIPE.training.batch_size, RECIPE.features.samples)).astype(np.float32)
    labels = np.arange(len(clips), dtype=np.float32)[:, None] % 2

    def step() -> None:
        trainer.train_on_batch(clips, labels)

    step()
    return step


def main() -> None:
    parser = CommandParser(description="A training step with our norm and with Keras', side by side.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    ours = training_step()
    small_residual.SharedAndOwnNorm = KerasNorms
    keras_own = training_step()
    times = [[cpu_milliseconds(step) for step in (ours, keras_own) for _ in range(STEPS)] for _ in range(rounds)]
    mine, theirs = np.median(np.reshape(times, (rounds, 2, STEPS)), axis=(0, 2))
    print(f"a step of {RECIPE.training.batch_size} clips: {mine:.0f} ms of CPU, with Keras' norms {theirs:.0f} ms")
    print(f"ratio {mine / theirs:.2f}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
