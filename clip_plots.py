"""Figures of one clip: its waveform above its spectrogram, or above what a detector says of every moment.

from clip_plots import clip_figure
clip_figure(waveform, log_stft(waveform, FeatureConfig(samples=len(waveform)))[..., 0])
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator

from config import BONAFIDE, SAMPLE_RATE, SPOOF
from figure_style import BLACK, BLUE, CLASS_COLOURS, CLASS_NAMES, YELLOW, new_figure, tidy

DECIBELS = 10 / np.log(10)  # per unit of natural-log power
DYNAMIC_RANGE = 80  # dB shown below the loudest cell
SEGMENT_COLOURS = {"spoof": CLASS_COLOURS[SPOOF], "uncertain": YELLOW}


def draw_waveform(axes: Axes, waveform: np.ndarray, start: float = 0.0, colour: str = BLUE) -> None:
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


def timeline_figure(
    envelope: np.ndarray, table: pd.DataFrame, segments: pd.DataFrame, threshold: float, band: tuple[float, float]
) -> Figure:
    """A recording: peaks (2, pieces) over seconds above the logits of its windows; segments are shaded."""
    seconds = float(table["end"].iloc[-1])
    figure = new_figure(9.0, 4.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    places = np.arange(0, envelope.shape[1], max(1, envelope.shape[1] // 2000))
    times, peaks = envelope[0, places], np.maximum.reduceat(envelope[1], places)
    tidy(upper).fill_between(times, -peaks, peaks, step="post", color=BLUE, linewidth=0)
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
    draw_waveform(top, waveform, start, BLACK)
    top.set_title(title, fontsize=11)
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
