"""What the norm of the small residual networks saves: a training step with it and with Keras' own (CPU time, medians).

    python benchmarks/benchmark_norm.py [--rounds 5]

Both networks are recipe resnet_wild's, without channels normalised by their own piece, which Keras' batch norm does not
have; they take turns in one run, so the ratio carries over to other machines.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark_networks import cpu_milliseconds

from architectures import small_residual
from architectures.layers import batch_norm
from config import Config
from errors import CommandParser, run_command
from recipes.resnet_wild import RECIPE
from training import compile_model, set_up_keras

STEPS = 10  # of each round


def training_step(config: Config):
    """One step on a batch of noise, run once to be compiled."""
    set_up_keras(config.training)
    _, trainer = compile_model(config)
    rng = np.random.default_rng(0)
    clips = rng.normal(0, 0.1, (config.training.batch_size, config.features.samples)).astype(np.float32)
    labels = np.arange(len(clips), dtype=np.float32)[:, None] % 2

    def step() -> None:
        trainer.train_on_batch(clips, labels)

    step()
    return step


def main() -> None:
    parser = CommandParser(description="A training step with our norm and with Keras', side by side.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    config = replace(RECIPE, model_args={**RECIPE.model_args, "instance_norm": 0.0})
    ours = training_step(config)
    small_residual.SharedAndOwnNorm = lambda own=0: batch_norm()
    keras_own = training_step(config)
    times = [[cpu_milliseconds(step) for step in (ours, keras_own) for _ in range(STEPS)] for _ in range(rounds)]
    mine, theirs = np.median(np.reshape(times, (rounds, 2, STEPS)), axis=(0, 2))
    print(f"a step of {config.training.batch_size} clips: {mine:.0f} ms of CPU, with Keras' batch norm {theirs:.0f} ms")
    print(f"ratio {mine / theirs:.2f}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
