"""How long every network takes for one clip and for a clip in a batch, from waveform to logit (CPU time, medians).

    python benchmarks/benchmark_networks.py [--rounds 5] [NETWORK ...]

All networks take turns in one run, so the ratios to the first one (resmax) carry over to other machines better than
the milliseconds do. Each has its own front end and input length; training steps are of 8 clips.
"""

import contextlib
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend import keras
from config import Config, feature_config
from errors import CommandParser, UserError, run_command
from model import MODELS, build_model, parameter_count, spoof_logits

BATCH, TRAINING_BATCH = 16, 8


def cpu_milliseconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)


def pieces_of_work(name: str) -> dict[str, Callable[[], object]]:
    """One clip, a batch, and a training step of a network, each run once to be compiled."""
    config = Config(model=name, features=feature_config(MODELS[name].front_end))
    with contextlib.redirect_stdout(io.StringIO()):
        model = build_model(config)
    clips = np.random.default_rng(0).normal(0, 0.1, (BATCH, config.features.samples)).astype(np.float32)
    labels = np.arange(TRAINING_BATCH)[:, None] % 2
    model.compile(keras.optimizers.Adam(1e-4), keras.losses.BinaryCrossentropy(from_logits=True))
    work = {
        "one clip": lambda: spoof_logits(model, clips[:1]),
        "clip in a batch": lambda: spoof_logits(model, clips),
        "clip in training": lambda: model.train_on_batch(clips[:TRAINING_BATCH], labels),
        "parameters": lambda: parameter_count(model),
    }
    for run in work.values():
        run()
    return work


def main() -> None:
    parser = CommandParser(description="CPU time of every network, side by side.")
    parser.add_argument("networks", nargs="*", default=list(MODELS), metavar="NETWORK")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.networks) - set(MODELS)):
        raise UserError(f"unknown network {', '.join(unknown)}; valid: {', '.join(MODELS)}")
    works = {name: pieces_of_work(name) for name in arguments.networks}
    clips = {"one clip": 1, "clip in a batch": BATCH, "clip in training": TRAINING_BATCH}
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for name, work in works.items():
            for what, count in clips.items():
                times.setdefault((name, what), []).append(cpu_milliseconds(work[what]) / count)
    median = {key: float(np.median(values)) for key, values in times.items()}
    first = arguments.networks[0]
    print(f"CPU milliseconds, and in brackets the ratio to {first}; keras {keras.backend.backend()}")
    print(f"{'network':<20}{'parameters':>12}" + "".join(f"{what:>20}" for what in clips))
    for name, work in works.items():
        cells = (f"{median[name, what]:,.0f} ({median[name, what] / median[first, what]:.1f})" for what in clips)
        print(f"{name:<20}{work['parameters']():>12,}" + "".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    raise SystemExit(run_command(main))
