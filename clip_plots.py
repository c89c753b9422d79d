"""Figures of a clip, or of a few side by side: waveform above spectrograms, or above what a detector says of it.

from clip_plots import clip_figure
clip_figure(waveform, log_stft(waveform, FeatureConfig(samples=len(waveform)))[..., 0])
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator

from config import BONAFIDE, SAMPLE_RATE, SPOOF
from figure_style import BLACK, CLASS_COLOURS, CLASS_NAMES, YELLOW, new_figure, tidy

DECIBELS = 10 / np.log(10)  # per unit of natural-log power
DYNAMIC_RANGE = 80  # dB shown below the loudest cell
MEL_TICKS = (0, 0.5, 1, 2, 4, 8)  # kHz
SEGMENT_COLOURS = {"spoof": CLASS_COLOURS[SPOOF], "uncertain": YELLOW}


@dataclass(frozen=True)
class ExampleClip:
    """One clip to draw: title, waveform (samples,) at 16 kHz and its colour, natural-log pictures (frames, bins)."""

    title: str
    waveform: np.ndarray
    log_stft: np.ndarray
    mel: np.ndarray
    colour: str = BLACK


def draw_waveform(axes: Axes, waveform: np.ndarray, start: float = 0.0, colour: str = BLACK) -> None:
    """Amplitude of (samples,) at 16 kHz over seconds, the first sample at `start`."""
    seconds = start + np.arange(len(waveform)) / SAMPLE_RATE
    tidy(axes).plot(seconds, waveform, linewidth=0.5, color=colour)
    axes.set(ylabel="amplitude", xlim=(start, start + len(waveform) / SAMPLE_RATE))


def draw_spectrogram(
    axes: Axes, spectrogram: np.ndarray, seconds: float, start: float = 0.0, colours: str = "magma"
) -> AxesImage:
    """Natural-log power (frames, bins) from 0 Hz to 8 kHz, in dB over so many seconds from `start`."""
    decibels = DECIBELS * spectrogram.T
    picture = axes.imshow(
        decibels,
        origin="lower",
        aspect="auto",
        extent=(start, start + seconds, 0, SAMPLE_RATE / 2000),
        cmap=colours,
        vmin=decibels.max() - DYNAMIC_RANGE,
    )
    axes.set(xlabel="time (s)", ylabel="frequency (kHz)")
    return picture


def clip_figure(waveform: np.ndarray, spectrogram: np.ndarray) -> Figure:
    """One clip: waveform (samples,) at 16 kHz above its natural-log power spectrogram (frames, bins)."""
    figure = new_figure(7.0, 4.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    draw_waveform(upper, waveform)
    picture = draw_spectrogram(lower, spectrogram, len(waveform) / SAMPLE_RATE)
    figure.colorbar(picture, ax=lower, label="power (dB)")
    return figure


def clips_figure(clips: Sequence[ExampleClip]) -> Figure:
    """Clips side by side, a few: waveform over log-STFT over mel spectrogram, in one scale of dB."""
    figure = new_figure(8.0 if len(clips) == 1 else 1.2 + 3.2 * len(clips), 6.6)
    grid = figure.subplots(3, len(clips), squeeze=False, height_ratios=(1, 2, 2), sharex="col")
    highest = max(np.abs(clip.waveform).max() for clip in clips)
    pictures = [[], []]
    for number, (column, clip) in enumerate(zip(grid.T, clips, strict=True)):
        seconds = len(clip.waveform) / SAMPLE_RATE
        draw_waveform(column[0], clip.waveform, colour=clip.colour)
        column[0].set(title=clip.title, ylim=(-1.05 * highest, 1.05 * highest))
        pictures[0].append(draw_spectrogram(column[1], clip.log_stft, seconds))
        pictures[1].append(draw_spectrogram(column[2], clip.mel, seconds))
        column[1].set_xlabel("")
        column[2].set_yticks(_mel_places(), [f"{tick:g}" for tick in MEL_TICKS])
        for axes in column if number else ():
            axes.set_ylabel("")
    for row, (drawn, kind) in enumerate(zip(pictures, ("log-STFT", "mel"), strict=True), 1):
        low = max(picture.get_clim()[0] for picture in drawn)
        high = max(picture.get_array().max() for picture in drawn)
        for picture in drawn:
            picture.set_clim(low, high)
        grid[row, 0].set_ylabel(f"{kind}: frequency (kHz)")
        figure.colorbar(drawn[0], ax=grid[row], label="power (dB)", pad=0.01)
    figure.align_ylabels(grid[:, 0])
    return figure


def _mel_places() -> np.ndarray:
    """Where MEL_TICKS lie on an axis from 0 to 8 that is even in mel (Slaney's, as the front end's)."""
    hertz = 1000 * np.array(MEL_TICKS)
    mel = np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))
    return mel / mel[-1] * SAMPLE_RATE / 2000


def timeline_figure(
    envelope: np.ndarray,
    table: pd.DataFrame,
    segments: pd.DataFrame,
    threshold: float,
    band: tuple[float, float],
    title: str,
) -> Figure:
    """A recording: peaks (2, pieces) over seconds above the logits of its windows; segments are shaded."""
    seconds = float(table["end"].iloc[-1])
    figure = new_figure(9.0, 4.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    upper.set_title(title, fontsize=11, parse_math=False)  # a file's name may hold a $
    places = np.arange(0, envelope.shape[1], max(1, envelope.shape[1] // 2000))
    times, peaks = envelope[0, places], np.maximum.reduceat(envelope[1], places)
    tidy(upper).fill_between(times, -peaks, peaks, step="post", color="0.35", linewidth=0)
    upper.set(ylabel="amplitude", xlim=(0, seconds))
    centre = (table["start"] + table["end"]) / 2
    tidy(lower).axhspan(*band, color="0.88", linewidth=0, label="uncertain")
    lower.axhline(threshold, color=BLACK, linestyle="--", linewidth=1, zorder=3, label="threshold")
    dense = len(table) > 1000  # more than there is room for side by side: one thin grey line, the threshold on top
    if not dense:
        lower.plot(centre, table["logit"], ".", markersize=3, color="0.45", label="each window")
    marker = "." if len(table) < 9 else ""  # a line of one point is not seen
    colour, width = ("0.4", 0.3) if dense else (BLACK, 1.4)
    lower.plot(centre, table["smoothed"], color=colour, linewidth=width, marker=marker, label="smoothed")
    lower.set(xlabel="time (h:mm:ss)" if seconds >= 120 else "time (s)", ylabel="spoof logit")
    if seconds >= 120:
        lower.xaxis.set_major_locator(MaxNLocator(8, steps=(1, 1.5, 3, 6, 10)))
        lower.xaxis.set_major_formatter(FuncFormatter(_clock))
    for label, colour in SEGMENT_COLOURS.items():
        chosen = segments[segments["label"] == label]
        for number, segment in enumerate(chosen.itertuples()):
            name = f"segment: {label}" if number == 0 else None
            lower.axvspan(segment.start, segment.end, color=colour, alpha=0.3, linewidth=0, label=name)
            upper.axvspan(segment.start, segment.end, color=colour, alpha=0.3, linewidth=0)
    figure.legend(*lower.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _clock(seconds: float, _position: int) -> str:
    return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02d}:{int(seconds % 60):02d}"


def explanation_figure(
    waveform: np.ndarray,
    spectrogram: np.ndarray,
    relevance: np.ndarray,
    cell_seconds: float,
    start: float = 0.0,
    title: str = "",
) -> Figure:
    """Where a verdict comes from: waveform (samples,), relevance over the spectrogram, relevance over time.

    relevance: (rows, columns) or (rows, 1) in logits, from 0 to 8 kHz, a row every `cell_seconds` from `start` on;
    positive (orange) speaks for spoof, negative (blue) for bona fide.
    """
    seconds, rows = len(waveform) / SAMPLE_RATE, len(relevance)
    figure = new_figure(7.6, 6.0)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(1, 2.6, 1.2))
    draw_waveform(top, waveform, start)
    top.set_title(title, fontsize=10, parse_math=False)  # a file's name may hold a $
    draw_spectrogram(middle, spectrogram, seconds, start, "gray_r").set_alpha(0.55)
    strongest = float(np.quantile(np.abs(relevance), 0.995)) or 1.0
    colours = LinearSegmentedColormap.from_list(
        "verdict", [(*to_rgb(CLASS_COLOURS[BONAFIDE]), 0.85), (1, 1, 1, 0), (*to_rgb(CLASS_COLOURS[SPOOF]), 0.85)]
    )
    scale = ScalarMappable(Normalize(-strongest, strongest), colours)
    extent = (start, start + rows * cell_seconds, 0, SAMPLE_RATE / 2000)
    middle.imshow(scale.to_rgba(relevance.T), origin="lower", aspect="auto", extent=extent, interpolation="nearest")
    middle.set(xlabel="", xlim=(start, start + seconds))
    bar = figure.colorbar(scale, ax=middle, label="logits a cell")
    bar.ax.set_facecolor("white")

    over_time = relevance.sum(axis=1)
    edges = start + np.minimum(np.arange(rows + 1) * cell_seconds, seconds)
    for label, values in ((SPOOF, np.maximum(over_time, 0)), (BONAFIDE, np.minimum(over_time, 0))):
        name = f"for {CLASS_NAMES[label]}"
        tidy(bottom).stairs(values, edges, fill=True, color=CLASS_COLOURS[label], label=name)
    bottom.axhline(0, color="0.4", linewidth=0.8)
    bottom.set(xlabel="time (s)", ylabel="logits a frame")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
