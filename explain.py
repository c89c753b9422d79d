"""Where in time and frequency a verdict comes from, and whether that is true.

    python explain.py clip.wav more.mp3 folder/ [--model runs/...] [--method M] [--out DIR]
    python explain.py --check DATASET [--model runs/...] [--split eval] [--limit N] [--seed S] [--allow-missing]

    from explain import explain
    explanation = explain(model, load_audio("clip.wav"))
    explanation.relevance           # (frames, bins) in logits: positive speaks for spoof, negative for bona fide

For every file a figure and the strongest regions as JSON go to the folder of --out. `--check` asks over a set of
clips whether removing what a method names changes the logit more than removing something else, and whether it finds
a stretch of recorded speech that was re-synthesised (faithfulness.py); the answer is a table and check.html.
The methods are in relevance.py, what "removed" means in sound_cells.py. An explanation is about one window of the
model's input length (2 s for the detectors that ship): the one that speaks most for the verdict on the whole clip, or
that from `start` on. Its own verdict is on that window, where inference.py takes the mean over all; a shorter clip is
explained in its own time.
"""

import html
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from audio import load_audio
from backend import keras
from clip_plots import explanation_figure
from config import LABELS, SAMPLE_RATE, FeatureConfig
from errors import AudioError, CommandParser, UserError, run_command, tell_failures
from faithfulness import check_methods, deletion_curves, summary
from feature_extraction import log_stft
from figure_style import CLASS_NAMES, file_title, image_tag, png_bytes, save_figure
from html_page import Page
from inference import (
    DEFAULT_MODEL,
    MODEL_HELP,
    checked_waveform,
    find_audio,
    input_samples,
    judge,
    logit_words,
    operating_point,
    refuse_empty_folder,
    too_short,
    window_starts,
)
from model import load_model
from relevance import METHODS, clip_logits, find_method, reason_against
from score import add_choice_arguments, chosen_clips
from sound_cells import CELL_HERTZ, CELL_SECONDS, SoundCells

REGIONS = 3  # that are named
DENSER = 4.0  # a region's cells hold this many times the average evidence or half of the strongest's, if that is less
SMALLEST = 0.05  # share of the evidence that makes a region worth naming
CHECK_CLIPS = 40
HOW_TO_READ = (
    "Named regions are the cells (64 ms x 250 Hz) that a method says speak most for the verdict; they are turned "
    "down to the clip's background noise. Random regions are the same shapes at other places. The loudest cells "
    "show how far one gets by removing where the sound is, without any explanation."
)
ABOUT_SEGMENTS = (
    "In recorded clips one stretch was re-synthesised, at the same level and joined by cross-fades, by one method "
    "after the other until the model calls the clip spoof; counted are the clips where it does. If the evidence is "
    "where the trace is, its share inside is above the share of time, and the AUC of the frames above 0.5."
)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What made the logit of one window: relevance per cell, figure, strongest regions."""

    name: str
    method: str
    logit: float  # of this window
    background: float  # the logit of the clip's background noise alone, which stands where something is removed
    threshold: float  # that makes a prediction of it
    uncertain_band: tuple[float, float]
    verdict: str  # bonafide, spoof or uncertain, on this window
    warnings: list[str]  # why there is none
    start: float  # seconds into the clip at which the window begins
    seconds: float  # that the clip has
    waveform: np.ndarray  # (samples,) of the window, without repetitions
    time: np.ndarray  # (frames,) seconds into the clip, the middle of each cell
    frequency: np.ndarray | None  # (bins,) Hz; None if the method gives time only
    relevance: np.ndarray  # (frames, bins) or (frames, 1), logits: positive = for spoof, negative = for bona fide

    @property
    def label(self) -> int:
        """The prediction on this window, for which evidence is named: 1 spoof, 0 bona fide."""
        return int(self.logit >= self.threshold)

    def regions(self, count: int = REGIONS) -> list[dict[str, Any]]:
        """The rectangles that hold most of the evidence for the verdict, strongest first, none over another.

        At most `count`, and but for the first none of less than 5 % of the evidence.
        `seconds` and `hertz` (None without frequency) from and to, `share` of all evidence for the verdict.
        """
        evidence = np.maximum(self.relevance if self.label else -self.relevance, 0)
        if not evidence.any():
            return []
        excess = evidence - min(DENSER * evidence.mean(), evidence.max() / 2)
        regions = []
        while len(regions) < count:
            rows, columns = heaviest_rectangle(excess)
            if excess[rows, columns].sum() <= 0:
                break
            seconds = np.array([rows.start, rows.stop]) * CELL_SECONDS
            ends = self.start + np.minimum(seconds, len(self.waveform) / SAMPLE_RATE)
            hertz = None if self.frequency is None else [columns.start * CELL_HERTZ, columns.stop * CELL_HERTZ]
            share = float(evidence[rows, columns].sum() / evidence.sum())
            regions.append({"seconds": [round(float(end), 3) for end in ends], "hertz": hertz, "share": share})
            excess[rows, columns] = -evidence.sum()  # taken
        regions.sort(key=lambda region: -region["share"])
        return [regions[0], *(region for region in regions[1:] if region["share"] >= SMALLEST)]

    @property
    def part(self) -> str:
        """Which part of the clip the window is, in words; empty if it is all of it."""
        end = self.start + len(self.waveform) / SAMPLE_RATE
        if end - self.start == self.seconds:
            return ""
        return f", {round(self.start, 2):g}-{round(end, 2):g} s of {self.seconds:.2f} s"

    def __str__(self) -> str:
        return (
            f"{self.name}{self.part}: {self.verdict}  "
            f"{logit_words(self.logit, self.threshold, self.uncertain_band)}  "
            f"{self.sentence()}{''.join(f'  [{note}]' for note in self.warnings)}"
        )

    def sentence(self) -> str:
        """Where the evidence for the verdict is, in words."""
        if not (regions := self.regions()):
            return f"nothing in this window speaks for {CLASS_NAMES[self.label]}"
        named = "; ".join(f"{_where(region)} ({100 * region['share']:.0f} % of it)" for region in regions)
        size = np.abs(self.relevance)
        share = size[(self.relevance > 0) == bool(self.label)].sum() / size.sum()
        return f"{100 * share:.0f} % of the evidence is for {CLASS_NAMES[self.label]}: {named}"

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds."""
        return {
            "path": self.name,
            "method": self.method,
            "prediction": LABELS[self.label],
            "verdict": self.verdict,
            "logit": self.logit,
            "background_logit": self.background,
            "threshold": self.threshold,
            "window_seconds": [self.start, self.start + len(self.waveform) / SAMPLE_RATE],
            "regions": self.regions(),
        }

    def figure(self) -> Figure:
        """Waveform, spectrogram with the relevance over it, relevance over time."""
        spectrogram = log_stft(self.waveform, FeatureConfig(samples=len(self.waveform)))[..., 0]
        verdict = self.verdict if self.verdict == "uncertain" else CLASS_NAMES[self.label]
        title = (
            f"{file_title(self.name)}{self.part}\n{verdict}: logit {self.logit:+.2f}, threshold {self.threshold:+.2f}; "
            f"logit of its background noise alone {self.background:+.2f}; {self.method.replace('_', ' ')}"
        )
        return explanation_figure(self.waveform, spectrogram, self.relevance, CELL_SECONDS, self.start, title)

    def _repr_html_(self) -> str:
        picture = image_tag(png_bytes(self.figure()), "waveform, spectrogram with relevance, relevance over time")
        return f"<p>{html.escape(str(self))}</p>{picture}"


def _where(region: dict[str, Any]) -> str:
    seconds = f"{region['seconds'][0]:.1f}-{region['seconds'][1]:.1f} s"
    if region["hertz"] is None:
        return seconds
    low, high = (f"{hertz / 1000:.3g}" for hertz in region["hertz"])
    return f"{seconds}, {low}-{high} kHz"


def heaviest_rectangle(values: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the rectangle with the greatest sum in (rows, columns); exact."""
    before = np.pad(values.cumsum(axis=1), ((0, 0), (1, 0)))
    low, high = np.triu_indices(values.shape[1] + 1, k=1)
    sums = np.pad((before[:, high] - before[:, low]).cumsum(axis=0), ((1, 0), (0, 0)))  # (rows + 1, pairs)
    gain = sums[1:] - np.minimum.accumulate(sums[:-1], axis=0)
    row, pair = np.unravel_index(gain.argmax(), gain.shape)
    first = int(sums[: row + 1, pair].argmin())
    return slice(first, int(row) + 1), slice(int(low[pair]), int(high[pair]))


def strongest_window(model: keras.Model, waveform: np.ndarray) -> int:
    """The sample at which the window begins that speaks most for the verdict on the mean of all windows."""
    samples = input_samples(model)
    starts = window_starts(waveform, samples)
    progress = tqdm(starts, "windows", leave=False, disable=None, delay=2)
    logits = clip_logits(model, (waveform[start : start + samples] for start in progress))
    spoof = logits.mean() >= operating_point(model)["threshold"]
    return starts[int(logits.argmax() if spoof else logits.argmin())]


def explain(
    model: keras.Model | str | Path,
    waveform: np.ndarray,
    method: str | None = None,
    start: float | None = None,
    name: str = "waveform",
) -> Explanation:
    """Explain the logit of one window of a mono float waveform (samples,) at 16 kHz.

    It begins at `start` seconds; without one it is the window that speaks most for the verdict on the whole.
    """
    if not isinstance(model, keras.Model):
        model = load_model(model)
    waveform = checked_waveform(waveform, name)
    method, relevance = find_method(model, method)
    samples = input_samples(model)
    first = strongest_window(model, waveform) if start is None else round(start * SAMPLE_RATE)
    last = max(0, len(waveform) - samples)
    if not 0 <= first <= last:
        raise UserError(
            f"{name}: start {start:g} s; a window of the model begins between 0 and {last / SAMPLE_RATE:g} s"
        )
    window = waveform[first : first + samples]
    sound = SoundCells(window)
    values = relevance(model, sound)
    logit, background = clip_logits(model, [window, sound.with_share(0.0)]).tolist()
    point = operating_point(model)
    seconds = len(waveform) / SAMPLE_RATE
    return Explanation(
        name=name,
        method=method,
        logit=logit,
        background=background,
        threshold=point["threshold"],
        uncertain_band=tuple(point["uncertain"]),
        verdict=judge(logit, point, seconds)["verdict"],
        warnings=too_short(point, seconds),
        start=first / SAMPLE_RATE,
        seconds=seconds,
        waveform=window,
        time=first / SAMPLE_RATE + sound.time,
        frequency=sound.frequency if values.shape[1] > 1 else None,
        relevance=values,
    )


# ---------------------------------------------------------------- the command


def explain_files(model: keras.Model, files: list[Path], method: str | None, start: float | None, folder: Path) -> int:
    """A figure, a JSON file and a line for every file; 1 if one could not be explained."""
    failures, used = [], set()  # names of figures: two folders may hold a clip of the same name
    for path in files:
        try:
            refuse_empty_folder(path)
            explanation = explain(model, load_audio(path), method, start, str(path))
        except AudioError as error:
            failures.append(error)
            continue
        stem = path.stem if path.stem not in used else f"{path.stem}_{len(used) + 1}"
        used.add(stem)
        target = folder / f"{stem}.png"
        save_figure(explanation.figure(), target)
        text = json.dumps(explanation.to_dict(), indent=1, ensure_ascii=False)
        target.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        print(f"{explanation}\n  {target}")
    return tell_failures(failures, len(files), "could not be explained")


def check_clips(
    model: keras.Model, rows: pd.DataFrame, methods: list[str], seed: int, source: str, folder: Path
) -> int:
    """Run both tests of faithfulness.py on the clips of a table; print the findings and write check.html."""
    failures: list[AudioError] = []
    checks = check_methods(model, _clips(rows, failures), methods, seed)
    for error in failures:
        print(f"left out: {error}", file=sys.stderr)
    if not checks[0].named:
        raise UserError(f"{source}: none of {len(rows)} clips could be read; the first: {failures[0]}")
    table = summary(checks)
    findings = [check.finding() for check in checks if check.method in methods]
    print(table.to_string(index=False, na_rep=""))
    print("\n".join(findings))

    page = Page(f"Explanations of {model.name}", f"{source}: {len(checks[0].named)} clips, seed {seed}")
    page.section("Removing what is named")
    page.text(HOW_TO_READ)
    curves = deletion_curves(checks)
    page.figure(curves, "cells removed against the change of the logit, by method", " ".join(findings))
    page.section("Known segments")
    page.text(ABOUT_SEGMENTS)
    page.section("Table")
    page.table(table)
    refused = {name: reason_against(model, name) for name in METHODS if name not in methods}
    for name, reason in refused.items():
        if reason:
            page.text(f"{name} does not fit this model: {reason}.")
    print(page.write(folder / "check.html"))
    return 1 if failures else 0


def _clips(rows: pd.DataFrame, failures: list[AudioError]) -> Iterator[tuple[np.ndarray, int]]:
    for row in tqdm(rows.itertuples(), "clips", len(rows), leave=False, disable=None):
        try:
            yield load_audio(row.path), row.label
        except AudioError as error:
            failures.append(error)


def main(argv: list[str] | None = None) -> int:
    parser = CommandParser(description="Where in time and frequency a verdict comes from, and whether that is true.")
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE_OR_DIR", help="audio to explain")
    add("--model", default=DEFAULT_MODEL, help=MODEL_HELP)
    default = "occlusion, smooth_gradient for networks that hear raw samples; --check: all that fit"
    add("--method", metavar="M", help=f"one of {', '.join(METHODS)} ({default})")
    add(
        "--start",
        type=float,
        metavar="S",
        help="seconds into the file at which the window begins (that of the strongest)",
    )
    add("--out", type=Path, default=Path("explanations"), metavar="DIR", help="figures and reports (%(default)s)")
    add("--check", type=Path, metavar="DATASET", help="test the methods on a dataset instead")
    add_choice_arguments(parser.add_argument_group("which clips --check takes"), CHECK_CLIPS)
    options = parser.parse_args(argv)

    if bool(options.files) == bool(options.check):
        raise UserError("give audio files to explain, or --check DATASET")
    changed = [n for n in ("split", "limit", "seed", "allow_missing") if getattr(options, n) != parser.get_default(n)]
    if options.files and changed:
        raise UserError(f"--{changed[0].replace('_', '-')} belongs to --check")
    if options.check and options.start is not None:
        raise UserError("--start is for files; --check looks at the first window of every clip")
    if options.files:
        files = find_audio(options.files)
        return explain_files(load_model(options.model), files, options.method, options.start, options.out)
    rows = chosen_clips(options.check, options)
    model = load_model(options.model)
    if options.method:
        methods = [find_method(model, options.method)[0]]
    else:
        methods = [name for name in METHODS if reason_against(model, name) is None]
    source = f"{options.check}, split {options.split}"
    return check_clips(model, rows, methods, options.seed, source, options.out)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
