"""A clip cut into cells of time and frequency that can be turned down to the clip's own background, one by one.

    sound = SoundCells(waveform)                 # (samples,) at 16 kHz
    quieter = sound.without(hidden)              # hidden: bool (rows, columns), True = removed
    relevance = sound.relevance(gradient)        # d score / d waveform -> d score / d cell

A cell is 64 ms x 250 Hz. Removing it puts noise in its place, as loud as the quiet tenth of the clip in each
frequency: what a pause of this recording sounds like. Zeros would be a worse "nothing": digital silence inside
a recording is itself a mark of editing, and a log spectrogram shows it louder than many a trace. The
average level would be louder than the pauses and so add sound where there was none.
The edit is made in the short-time Fourier transform (Hann of 64 ms, hop 16 ms) and taken back to samples, so it
fades in and out, and it means the same for every network, whatever front end it has.
"""

import numpy as np
from scipy.fft import rfft

from config import SAMPLE_RATE
from frames import centred_frames, hann, istft, overlap_add, stft

WINDOW, HOP = 1024, 256
CELL_FRAMES, CELL_BINS = 4, 16
CELL_SAMPLES = CELL_FRAMES * HOP
CELL_SECONDS, CELL_HERTZ = CELL_SAMPLES / SAMPLE_RATE, CELL_BINS * SAMPLE_RATE / WINDOW
COLUMNS = WINDOW // 2 // CELL_BINS
BACKGROUND_QUANTILE = 0.1  # of the frames: as loud as the clip's pauses


class SoundCells:
    """The cells of one clip (samples,): `rows` along time, `columns` along frequency."""

    def __init__(self, waveform: np.ndarray, seed: int = 0):
        self.samples = len(waveform)
        spectrum = stft(waveform.astype(np.float32), WINDOW, HOP)  # (frames, bins)
        inside = spectrum[: self.samples // HOP + 1]  # the last frame reaches past the end
        level = np.quantile(np.abs(inside), BACKGROUND_QUANTILE, axis=0)
        turns = np.random.default_rng(seed).random(spectrum.shape)
        self.background = (level * np.exp(2j * np.pi * turns)).astype(np.complex64)
        self.difference = spectrum - self.background  # what a cell adds to the background
        frames, bins = spectrum.shape
        self.row = np.minimum(np.arange(frames) * HOP, self.samples - 1) // CELL_SAMPLES
        self.column = np.minimum(np.arange(bins) // CELL_BINS, COLUMNS - 1)  # 8 kHz itself joins the last one
        self.shape = (int(self.row[-1]) + 1, COLUMNS)

    @property
    def time(self) -> np.ndarray:
        """Seconds at the middle of every row."""
        starts = np.arange(self.shape[0]) * CELL_SECONDS
        return (starts + np.minimum(starts + CELL_SECONDS, self.samples / SAMPLE_RATE)) / 2

    @property
    def frequency(self) -> np.ndarray:
        """Hz at the middle of every column."""
        return (np.arange(COLUMNS) + 0.5) * CELL_HERTZ

    def with_share(self, share: np.ndarray | float) -> np.ndarray:
        """The clip (samples,) with this share of every cell (rows, columns): 1 as it is, 0 background."""
        if np.ndim(share):
            share = share[self.row][:, self.column]
        return istft(self.background + share * self.difference, WINDOW, HOP, self.samples).astype(np.float32)

    def without(self, hidden: np.ndarray) -> np.ndarray:
        """The clip (samples,) with the cells of a bool array (rows, columns) turned down to the background."""
        return self.with_share(np.where(hidden, np.float32(0), np.float32(1)))

    def relevance(self, gradient: np.ndarray) -> np.ndarray:
        """A score's gradient by the samples of `with_share` (samples,) as gradient by the shares (rows, columns)."""
        count = len(self.row)
        window = hann(WINDOW)
        weight = overlap_add(np.broadcast_to(window**2, (count, WINDOW)), HOP)[WINDOW // 2 :][: self.samples]
        frames = centred_frames(gradient / np.maximum(weight, 1e-4), WINDOW, HOP) * window
        sides = np.full(WINDOW // 2 + 1, 2 / WINDOW)  # a bin stands for its mirror image too
        sides[[0, -1]] = 1 / WINDOW
        product = sides * (np.conj(rfft(frames, axis=1)) * self.difference).real  # (frames, bins)
        cells = np.zeros(self.shape)
        np.add.at(cells, (self.row[:, None], self.column[None, :]), product)
        return cells

    def loudness(self) -> np.ndarray:
        """Power above the background, summed in every cell (rows, columns)."""
        cells = np.zeros(self.shape)
        np.add.at(cells, (self.row[:, None], self.column[None, :]), np.abs(self.difference) ** 2)
        return cells
