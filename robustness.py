"""How a detector holds when the same clips are compressed, narrowed, noisy or short: its errors by condition.

    python robustness.py runs/<run> --data DIR [--split dev] [--conditions clean,mp3,1s] [--limit N] [--out table.csv]

Both classes go through every condition, and a clip is judged as predict_audio judges it, from all its windows. What is
random in a condition comes from the seed and the clip's name, so two models hear the same, and so does
cross_validate.py. FAR and FRR are at the model's own threshold, which no condition moves.
"""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soxr

from augmentation import add_noise, keep_band, reverberation, through_codec
from backend import keras
from clip_reader import ClipReader
from config import SAMPLE_RATE
from errors import CommandParser, UserError, run_command
from inference import judge_clips, operating_point
from metrics import bootstrap_intervals, compute_eer, threshold_metrics
from model import load_model
from score import add_clip_arguments, chosen_clips

Condition = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def middle(waveform: np.ndarray, seconds: float) -> np.ndarray:
    """The middle of a clip: its beginning is often silence."""
    samples = round(seconds * SAMPLE_RATE)
    start = max(0, (len(waveform) - samples) // 2)
    return waveform[start : start + samples]


def resampled(waveform: np.ndarray, rate: int) -> np.ndarray:
    """To another sample rate and back, by soxr: a higher one leaves a steep slope below 8 kHz."""
    return soxr.resample(soxr.resample(waveform, SAMPLE_RATE, rate), rate, SAMPLE_RATE)[: len(waveform)]


def over_the_telephone(waveform: np.ndarray) -> np.ndarray:
    """300 to 3400 Hz, then G.711."""
    return through_codec(keep_band(waveform, 300, 3400), "mu_law", 64_000)


CONDITIONS: dict[str, tuple[str, Condition]] = {
    "clean": ("as it is", lambda waveform, rng: waveform),
    "high_rate": ("to 48 kHz and back", lambda waveform, rng: resampled(waveform, 48_000)),
    "4s": ("the middle 4 s", lambda waveform, rng: middle(waveform, 4)),
    "2s": ("the middle 2 s", lambda waveform, rng: middle(waveform, 2)),
    "1s": ("the middle 1 s", lambda waveform, rng: middle(waveform, 1)),
    "mp3": ("MP3 at 32 kbit/s", lambda waveform, rng: through_codec(waveform, "mp3", 32_000)),
    "opus": ("Opus at 16 kbit/s", lambda waveform, rng: through_codec(waveform, "opus", 16_000)),
    "telephone": ("300-3400 Hz, G.711", lambda waveform, rng: over_the_telephone(waveform)),
    "noise": ("pink noise at 15 dB", lambda waveform, rng: add_noise(waveform, 15, 1, rng)),
    "reverberation": ("a room, RT60 0.1-1 s", reverberation),
    "resampling": ("to 11,025 Hz and back", lambda waveform, rng: resampled(waveform, 11_025)),
}
DEGRADED = list(CONDITIONS)[list(CONDITIONS).index("mp3") :]  # what happens to a sound on its way


class ConditionReader(ClipReader):
    """Reads the clips of a table through one condition."""

    def __init__(self, table: pd.DataFrame, condition: Condition, seed: int = 1):
        super().__init__(table)
        self.condition, self.seed = condition, seed
        self.draws = [zlib.crc32(name.encode()) for name in table["utterance_id"]]

    def read(self, row: int) -> np.ndarray:
        return self.condition(super().read(row), np.random.default_rng((self.seed, self.draws[row])))


def measure(model: keras.Model, reader: ConditionReader, name: str) -> dict[str, Any]:
    """EER with its 95 % interval, FAR and FRR of the clips of a reader."""
    which, logits = judge_clips(model, reader, name)
    scores, labels = -logits.astype(np.float64), reader.labels[which]
    if len(set(labels)) < 2:
        raise UserError(f"{name}: readable clips of one class only; error rates need both")
    low, high = bootstrap_intervals(scores, labels, seed=reader.seed)["eer"]
    decision = threshold_metrics(scores, labels, -operating_point(model)["threshold"])
    return {
        "condition": name,
        "what": CONDITIONS[name][0],
        "clips": len(which),
        "eer": compute_eer(scores, labels)[0],
        "eer_low": low,
        "eer_high": high,
        "far": decision["far"],
        "frr": decision["frr"],
    }


def chosen_conditions(text: str | None) -> list[str]:
    """The names in a,b,c; all without."""
    names = list(CONDITIONS) if text is None else text.split(",")
    if unknown := [name for name in names if name not in CONDITIONS]:
        raise UserError(f"unknown condition {', '.join(unknown)}; valid: {', '.join(CONDITIONS)}")
    return names


def format_row(row: dict[str, Any]) -> str:
    interval = f"[{100 * row['eer_low']:.2f}, {100 * row['eer_high']:.2f}]"
    return (
        f"{row['condition']:<14} {row['what']:<22} {row['clips']:>6,} {100 * row['eer']:>7.2f} {interval:>16}"
        f" {100 * row['far']:>7.2f} {100 * row['frr']:>7.2f}"
    )


def main(argv: list[str] | None = None) -> int:
    parser = CommandParser(description="A detector's errors when clips are compressed, narrowed, noisy or short.")
    add_clip_arguments(parser)
    parser.add_argument("--conditions", metavar="A,B", help=f"some of {', '.join(CONDITIONS)} (default: all)")
    parser.add_argument("--out", type=Path, metavar="CSV", help="write the table here as well")
    arguments = parser.parse_args(argv)

    names = chosen_conditions(arguments.conditions)
    if arguments.out is not None and not arguments.out.parent.is_dir():
        raise UserError(f"--out {arguments.out}: there is no folder {arguments.out.parent}")
    model = load_model(arguments.model)
    table = chosen_clips(arguments.data, arguments)
    print(f"{arguments.model} on {len(table):,} clips of {arguments.data}; all figures in %, 95 % interval over trials")
    print(f"{'condition':<14} {'':<22} {'clips':>6} {'EER':>7} {'':>16} {'FAR':>7} {'FRR':>7}")
    rows, failures = [], {}
    for name in names:
        reader = ConditionReader(table, CONDITIONS[name][1], arguments.seed)
        rows.append(measure(model, reader, name))
        failures |= reader.failures
        print(format_row(rows[-1]), flush=True)
        if arguments.out is not None:  # what is measured is kept if the rest is interrupted
            pd.DataFrame(rows).to_csv(arguments.out, index=False)
    for reason in failures.values():
        print(f"left out: {reason}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
