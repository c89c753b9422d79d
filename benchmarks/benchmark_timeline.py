"""How well a detector's timeline shows a synthetic insert: recorded speech with 1, 2 or 4 s of a spoof clip in it.

    python benchmarks/benchmark_timeline.py --model runs/<run> --data LA --split dev [--files 20] [--hop S] [--window S]

Host and insert are clips of one speaker, joined the same way (10 ms crossfades, one level), so that joins and loudness
tell nothing; the insert stands at a random place. Files without an insert give the false alarms. Precision and recall
are of time, in frames of 20 ms; a segment's error is what its start and its end are off, added up, for the segment
that overlaps the insert most; also the time all this took, per second of sound.
"""

import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from audio import load_audio
from config import BONAFIDE, SAMPLE_RATE, SPOOF
from data_utils import read_dataset
from errors import CommandParser, UserError, run_command
from inference import DEFAULT_MODEL, as_model
from splits import SPLIT_ORDER
from streaming import HOP
from timeline import timeline

INSERTS = (0.0, 1.0, 2.0, 4.0)  # seconds; 0 = untouched
FADE = SAMPLE_RATE // 100  # samples of a crossfade
LEVEL = 0.05  # RMS of the louder half of every clip
FRAME = 0.02  # seconds


class HalfFake(NamedTuple):
    """A waveform (samples,) at 16 kHz of which `start` to `end` (s) is synthetic."""

    waveform: np.ndarray
    start: float
    end: float


def crossfade(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One after the other, with FADE samples of both at constant power."""
    rise = np.sqrt(np.linspace(0, 1, FADE, dtype=np.float32))
    both = first[-FADE:] * rise[::-1] + second[:FADE] * rise
    return np.concatenate([first[:-FADE], both, second[FADE:]])


def levelled(waveform: np.ndarray) -> np.ndarray:
    """The waveform with LEVEL as the RMS of the louder half of its 20 ms frames."""
    size = SAMPLE_RATE // 50
    power = (waveform[: len(waveform) // size * size].reshape(-1, size) ** 2).mean(axis=1)
    return np.clip(waveform * (LEVEL / np.sqrt(power[power >= np.median(power)].mean())), -1, 1)


def joined(clips: list[np.ndarray], samples: int, rng: np.random.Generator) -> np.ndarray:
    """So many samples from a random place of clips in random order."""
    sound = clips[rng.integers(len(clips))]
    while len(sound) < samples + max(map(len, clips)):
        sound = crossfade(sound, clips[rng.integers(len(clips))])
    start = rng.integers(len(sound) - samples + 1)
    return sound[start : start + samples]


def half_fake(
    bonafide: list[np.ndarray], spoof: list[np.ndarray], seconds: float, insert: float, rng: np.random.Generator
) -> HalfFake:
    """Bona fide speech of `seconds` with an insert of spoof speech, at least 1 s from either end; insert 0: none."""
    total, length = round(seconds * SAMPLE_RATE), round(insert * SAMPLE_RATE)
    if not length:
        return HalfFake(joined(bonafide, total, rng), 0.0, 0.0)
    host = joined(bonafide, total - length + FADE, rng)
    at = int(rng.integers(SAMPLE_RATE, len(host) - SAMPLE_RATE))
    fake = joined(spoof, length + FADE, rng)
    waveform = crossfade(crossfade(host[:at], fake), host[at:])
    start = (at - FADE / 2) / SAMPLE_RATE  # the middle of the crossfade
    return HalfFake(waveform, start, start + insert)


def localisation(segments: pd.DataFrame, made: HalfFake) -> dict[str, float]:
    """Seconds of hits, of all segments and of the insert; boundary error (NaN if no segment overlaps it)."""
    instants = np.arange(FRAME / 2, len(made.waveform) / SAMPLE_RATE, FRAME)
    inside = (instants >= made.start) & (instants < made.end)
    flagged = np.zeros_like(inside)
    error, most = np.nan, 0.0
    for start, end in zip(segments["start"], segments["end"], strict=True):
        flagged |= (instants >= start) & (instants < end)
        overlap = min(end, made.end) - max(start, made.start)
        if overlap > most:
            error, most = abs(start - made.start) + abs(end - made.end), overlap
    return {
        "hit": FRAME * float((inside & flagged).sum()),
        "flagged": FRAME * float(flagged.sum()),
        "synthetic": FRAME * float(inside.sum()),
        "error": error,
        "seconds": len(made.waveform) / SAMPLE_RATE,
    }


def voices(data: Path, split: str) -> list[tuple[list[np.ndarray], list[list[np.ndarray]]]]:
    """Per speaker with clips of both classes: the bona fide clips, and those of every attack."""
    table = read_dataset(data).usable(allow_missing=True)
    table = table[table["split"] == split]
    if table.empty:
        raise UserError(f"{data}: no clips in split {split}")
    found = []
    for _, rows in table.groupby("speaker"):
        own, fake = rows[rows["label"] == BONAFIDE], rows[rows["label"] == SPOOF]
        if len(own) and len(fake):
            attacks = [[levelled(load_audio(path)) for path in one["path"]] for _, one in fake.groupby("attack")]
            found.append(([levelled(load_audio(path)) for path in own["path"]], attacks))
    if not found:
        raise UserError(f"{data}: no speaker of split {split} has clips of both classes")
    return found


def main() -> None:
    parser = CommandParser(description="How well a detector's timeline shows synthetic inserts.")
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help=".keras or .h5 file, run folder, or shipped name (%(default)s)")
    add("--data", type=Path, required=True, metavar="DIR", help="dataset with speakers")
    add("--split", choices=SPLIT_ORDER, default="dev", help="whose clips are joined (%(default)s)")
    add("--files", type=int, default=20, help="of every kind (%(default)s)")
    add("--seconds", type=float, default=20.0, help="length of a file (%(default)s)")
    add("--hop", type=float, default=HOP, help="seconds between windows (%(default)s)")
    add("--window", type=float, help="seconds a window holds")
    add("--seed", type=int, default=1, help="of the choice of clips and places")
    arguments = parser.parse_args()
    if arguments.seconds < max(INSERTS) + 3:
        raise UserError(f"--seconds {arguments.seconds:g}: at least {max(INSERTS) + 3:g}, or the insert has no room")
    speakers = voices(arguments.data, arguments.split)
    model, rng = as_model(arguments.model), np.random.default_rng(arguments.seed)
    rows, spent = [], 0.0
    for insert in INSERTS:
        for _ in range(arguments.files):
            bonafide, attacks = speakers[rng.integers(len(speakers))]
            made = half_fake(bonafide, attacks[rng.integers(len(attacks))], arguments.seconds, insert, rng)
            begun = time.perf_counter()
            result = timeline(model, made.waveform, arguments.hop, arguments.window)
            spent += time.perf_counter() - begun
            rows.append({"insert": insert, **localisation(result.segments, made)})
    table = pd.DataFrame(rows)
    print(
        f"window {result.window:g} s, hop {result.hop:g} s; {spent / table['seconds'].sum():.3f} s per second of sound"
    )
    print(f"{'insert':>8}{'precision':>11}{'recall':>8}{'found':>9}{'error, s (median)':>19}")
    for insert, part in table[table["insert"] > 0].groupby("insert"):
        hit, flagged, synthetic = part[["hit", "flagged", "synthetic"]].sum()
        found, error = part["error"].notna().sum(), part["error"].median()
        precision = hit / flagged if flagged else np.nan
        print(f"{insert:>6g} s{precision:>11.2f}{hit / synthetic:>8.2f}{found:>6}/{len(part)}{error:>19.2f}")
    untouched = table[table["insert"] == 0]
    alarms = 60 * untouched["flagged"].sum() / untouched["seconds"].sum()
    print(f"without an insert {alarms:.1f} s a minute are flagged")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
