"""Where in a recording is synthetic speech? A score for every half second, and the segments above the threshold.

    python timeline.py talk.mp3 more.wav --model runs/<run> --out timelines

    from timeline import timeline
    result = timeline("runs/<run>", "talk.mp3")
    result.segments, result.table
    result.write("timelines", "talk")          # talk.csv, talk.json, talk.txt (labels for Audacity), talk.png

A file of any length is decoded block by block into a StreamingDetector, so hours take no more memory than a minute
and the live stream gives the same rows. A window speaks for the time that is nearer to its centre than to any other
window's; runs of windows whose smoothed logit reaches the model's threshold are the segments. That threshold was fitted
on whole clips or their first windows, not on a window each half second: take it as a starting point.
"""

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from audio import MIN_SECONDS, audio_blocks
from backend import keras
from config import SAMPLE_RATE
from errors import AudioError, CommandParser, UserError, run_command, tell_failures
from figure_style import file_title, image_tag, png_bytes, save_figure
from inference import (
    DEFAULT_MODEL,
    MODEL_HELP,
    NO_OPERATING_POINT,
    as_model,
    checked_waveform,
    find_audio,
    refuse_empty_folder,
    too_short,
)
from streaming import HOP, WINDOW, StreamingDetector, Window

SEGMENT_COLUMNS = ("start", "end", "label", "spoof_probability", "peak")
PIECE = SAMPLE_RATE // 50  # samples for each of which the picture keeps one peak
BLOCK = 10 * SAMPLE_RATE  # samples of a waveform that are judged between two steps of the progress bar


@dataclass(frozen=True)
class Timeline:
    """The windows of one recording, the segments they make, and ways to show and keep both."""

    path: str
    model: str
    seconds: float
    hop: float  # seconds
    window: float  # seconds
    threshold: float
    uncertain_band: tuple[float, float]
    warnings: list[str]
    table: pd.DataFrame  # a row a window: start, end, logit, smoothed, spoof_probability, verdict
    segments: pd.DataFrame  # start, end, label, mean spoof_probability, peak of the spoof probability
    envelope: np.ndarray  # (2, pieces): seconds and peak amplitude

    def __str__(self) -> str:
        found = self.segments
        flagged = float((found["end"] - found["start"]).sum())
        notes = f"  [{'; '.join(self.warnings)}]" if self.warnings else ""
        count = f"{len(found)} segment{'' if len(found) == 1 else 's'}"
        head = f"{self.path}: {self.seconds:.2f} s, {count} above the threshold, {flagged:.2f} s in all{notes}"
        return "\n".join([head, *map(_segment_line, found.itertuples())])

    def figure(self) -> Figure:
        """Waveform above the logits, segments shaded."""
        from clip_plots import timeline_figure

        title = f"{file_title(self.path)}, windows of {self.window:g} s"
        return timeline_figure(self.envelope, self.table, self.segments, self.threshold, self.uncertain_band, title)

    def write(self, folder: str | Path, stem: str) -> list[Path]:
        """Write the table (.csv), everything (.json), labels for Audacity (.txt) and the figure (.png)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        table, everything, labels = (folder / f"{stem}.{suffix}" for suffix in ("csv", "json", "txt"))
        self.table.to_csv(table, index=False)
        everything.write_text(json.dumps(self.as_dict(), indent=1), encoding="utf-8")
        labels.write_text(audacity_labels(self.segments), encoding="utf-8")
        return [table, everything, labels, save_figure(self.figure(), folder / f"{stem}.png")]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what a silent window lacks is None."""
        names = ("path", "model", "seconds", "hop", "window", "threshold", "uncertain_band", "warnings")
        windows = self.table.astype(object).where(self.table.notna(), None)
        return {name: getattr(self, name) for name in names} | {
            "segments": self.segments.to_dict("records"),
            "windows": windows.to_dict("records"),
        }

    def _repr_html_(self) -> str:
        return (
            f"<p>{html.escape(str(self).splitlines()[0])}</p>"
            f"{image_tag(png_bytes(self.figure()), 'timeline')}"
            f"{self.segments.to_html(index=False, float_format='{:.2f}'.format, border=0)}"
        )


def timeline(
    model: keras.Model | str | Path,
    audio: str | Path | np.ndarray,
    hop: float = HOP,
    window: float | None = None,
    name: str = "waveform",
) -> Timeline:
    """Windows and segments of a file of any length, or of a mono float waveform (samples,) at 16 kHz called `name`."""
    detector = StreamingDetector(model, SAMPLE_RATE, hop, window)
    if isinstance(audio, str | Path):
        name, (seconds, blocks) = str(audio), audio_blocks(audio)
    else:
        audio = checked_waveform(audio, name)
        seconds = len(audio) / SAMPLE_RATE
        blocks = (audio[first : first + BLOCK] for first in range(0, len(audio), BLOCK))
    rows: list[Window] = []
    envelope, heard = [], 0.0
    with tqdm(total=round(seconds), desc=Path(name).name, unit="s", leave=False, delay=2, disable=None) as bar:
        for block in blocks:
            rows += detector.feed(block)
            envelope.append(_peaks(block, heard))
            heard += len(block) / SAMPLE_RATE
            bar.update(int(heard) - bar.n)
    rows += detector.flush()
    table = pd.DataFrame(rows, columns=Window._fields)
    if table["logit"].isna().all():
        reason = "every window is silent" if rows else f"{seconds:.4f} s long; at least {MIN_SECONDS} s is needed"
        raise AudioError(f"{name}: {reason}")
    threshold, band = detector.point["threshold"], tuple(detector.point["uncertain"])
    warnings = [] if detector.point.get("calibration") else [NO_OPERATING_POINT]
    if detector.hop > detector.window:
        warnings.append(f"hop {detector.hop:g} s, window {detector.window:g} s: the sound between is not heard")
    warnings += too_short(detector.point, min(detector.window, rows[-1].end))
    return Timeline(
        path=name,
        model=detector.model.name,
        seconds=rows[-1].end,
        hop=detector.hop,
        window=detector.window,
        threshold=threshold,
        uncertain_band=band,
        warnings=warnings,
        table=table,
        segments=find_segments(table, threshold),
        envelope=np.concatenate(envelope, axis=1),
    )


def _peaks(block: np.ndarray, start: float) -> np.ndarray:
    """Seconds and peak amplitude of the pieces of a block, (2, pieces)."""
    places = np.arange(0, len(block), PIECE)
    peaks = np.maximum.reduceat(np.abs(block), places) if len(block) else block
    return np.stack([start + places / SAMPLE_RATE, peaks])


def find_segments(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Runs of windows at or above the threshold; `uncertain` where the verdict on none of them is spoof."""
    centre = ((table["start"] + table["end"]) / 2).to_numpy()
    border = np.concatenate([[0.0], (centre[1:] + centre[:-1]) / 2, table["end"].iloc[-1:]])
    above = (table["smoothed"] >= threshold).to_numpy()  # a silent window (NaN) is not
    turns = np.flatnonzero(np.diff(above, prepend=False, append=False))
    found = []
    for first, stop in zip(turns[::2], turns[1::2], strict=True):
        inside = table.iloc[first:stop]
        label = "spoof" if (inside["verdict"] == "spoof").any() else "uncertain"
        probability = inside["spoof_probability"]
        found.append((float(border[first]), float(border[stop]), label, probability.mean(), probability.max()))
    return pd.DataFrame(found, columns=SEGMENT_COLUMNS)


def audacity_labels(segments: pd.DataFrame) -> str:
    """Segments as a label track: start, end and text with tabs between (File > Import > Labels)."""
    return "".join(f"{s.start:.6f}\t{s.end:.6f}\t{s.label} {s.spoof_probability:.2f}\n" for s in segments.itertuples())


def _segment_line(segment: Any) -> str:
    return (
        f"  {segment.start:9.2f} - {segment.end:9.2f} s  {segment.label:<9}"
        f"  spoof probability {segment.spoof_probability:.3f}, at most {segment.peak:.3f}"
    )


def main(argv: list[str] | None = None) -> int:
    parser = CommandParser(description="Where in recordings is synthetic speech?")
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE_OR_DIR")
    add("--model", default=DEFAULT_MODEL, help=MODEL_HELP)
    add("--hop", type=float, default=HOP, help="seconds between windows (%(default)s)")
    add("--window", type=float, help=f"seconds a window holds, at most the model's input (default {WINDOW:g})")
    add("--out", type=Path, metavar="DIR", help="write table, JSON, Audacity labels and figure of every file here")
    arguments = parser.parse_args(argv)
    files = find_audio(arguments.files)
    stems = [file.stem for file in files]
    if arguments.out is not None and (twice := sorted({stem for stem in stems if stems.count(stem) > 1})):
        raise UserError(f"--out: several files are named {', '.join(twice)}; one file would overwrite another")
    model = as_model(arguments.model)
    failures = []
    for file, stem in zip(files, stems, strict=True):
        try:
            refuse_empty_folder(file)
            result = timeline(model, file, arguments.hop, arguments.window)
        except AudioError as error:
            failures.append(error)
            continue
        print(result, flush=True)
        if arguments.out is not None:
            print("  written: " + ", ".join(map(str, result.write(arguments.out, stem))), flush=True)
    return tell_failures(failures, len(files), "could not be judged")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
