"""Figures of one clip: its waveform above its spectrogram.

from clip_plots import clip_figure
clip_figure(waveform, log_stft(waveform, FeatureConfig(samples=len(waveform)))[..., 0])
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from config import SAMPLE_RATE
from figure_style import BLUE, new_figure, tidy

DECIBELS = 10 / np.log(10)  # per unit of natural-log power
DYNAMIC_RANGE = 80  # dB shown below the loudest cell


def draw_waveform(axes: Axes, waveform: np.ndarray) -> None:
    """Amplitude of (samples,) at 16 kHz over seconds."""
    tidy(axes).plot(np.arange(len(waveform)) / SAMPLE_RATE, waveform, linewidth=0.5, color=BLUE)
    axes.set(ylabel="amplitude", xlim=(0, len(waveform) / SAMPLE_RATE))


def draw_spectrogram(axes: Axes, spectrogram: np.ndarray, seconds: float) -> AxesImage:
    """Natural-log power (frames, bins) from 0 Hz to 8 kHz, in dB over seconds."""
    decibels = DECIBELS * spectrogram.T
    picture = axes.imshow(
        decibels,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, SAMPLE_RATE / 2000),
        cmap="magma",
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
