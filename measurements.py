"""What can be measured of a clip without listening to it: length, silence, level, zeros, band, mean spectrum.

table, spectra = measure_clips(read_dataset("LA").usable(allow_missing=True), Path("reports/LA"))

Clips are streamed: of each one line of numbers is kept, and spectra are running sums, so that memory does not
grow with a dataset's audio. Every 512 clips what is done so far is written to the folder. The same call goes on
from there after Ctrl-C, and reads everything back when it was finished; a clip that was added, removed,
relabelled or written anew, or other code in this file, makes it measure all of them again.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.fft
from tqdm import tqdm

from audio import decode, to_mono_16k
from config import SAMPLE_RATE
from errors import AudioError, UserError, ctrl_c
from whole_file import whole_file

MEASUREMENTS = {  # name -> what it is, unit
    "seconds": ("duration", "s"),
    "lead_silence": ("leading silence", "s"),
    "trail_silence": ("trailing silence", "s"),
    "rms_db": ("RMS level", "dBFS"),
    "peak_db": ("peak", "dBFS"),
    "pause_db": ("level of pauses", "dBFS"),
    "zero_percent": ("digital zeros", "%"),
    "dc_db": ("DC offset", "dBFS"),
    "rolloff_hz": ("99 % roll-off", "Hz"),
    "bandwidth_hz": ("bandwidth", "Hz"),
    "edge_db": ("edge at 8 kHz", "dB"),
    "sample_rate": ("sample rate of the file", "Hz"),
    "channels": ("channels of the file", ""),
}
# what is left of a file at 16 kHz mono
HEARD = tuple(name for name in MEASUREMENTS if name not in ("sample_rate", "channels"))
DEFINITIONS = """\
leading, trailing silence  until the first / after the last 20 ms that are less than 40 dB below the loudest 20 ms
level of pauses            the level that 5 % of all 20 ms (every 10 ms) stay below
digital zeros              share of the samples that are exactly 0 in every channel
DC offset                  mean of the samples, without its sign
99 % roll-off              99 % of the power lies below it
bandwidth                  the mean spectrum stays less than 70 dB below its strongest bin up to here
edge at 8 kHz              mean of the spectrum in dB from 7.75 to 8 kHz less that from 6.25 to 6.75 kHz: low where only
                           the end is cut off, as by resampling from a higher rate, now or before the file was written
Level, zeros, DC offset, sample rate and channels are those of the file as it is; silence and spectra are those of
the mono waveform at 16 kHz, which is what a detector gets. -120 dBFS stands for less."""
FRAME_HOP = SAMPLE_RATE // 100  # frames of 20 ms every 10 ms
SILENCE_BELOW = 0.01  # of the loudest frame: 40 dB
BAND_BELOW = 1e-7  # of the strongest bin's power: 70 dB
EDGE, BESIDE_EDGE = (7750, 8000), (6250, 6750)  # Hz
WINDOW = 1024
FAINTEST = 1e-30  # power: a click where every window is 0 must not be divided by
HERTZ = np.arange(WINDOW // 2 + 1) * SAMPLE_RATE / WINDOW
AT_ONCE = 2048  # windows: about a minute of sound
BATCH, SAVE_EVERY = 64, 512  # clips
IDENTITY = ["utterance_id", "path", "split", "label", "attack", "speaker", "page"]


def _db(amplitude: float) -> float:
    return float(20 * np.log10(max(amplitude, 1e-6)))


def mean_power(waveform: np.ndarray) -> np.ndarray:
    """Mean power in Hann windows of 1024 at hop 512 of a waveform (samples,) of at least 1024: (513,)."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW, dtype=np.float32) / WINDOW)
    windows = np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[:: WINDOW // 2]
    total = np.zeros(len(HERTZ))
    for first in range(0, len(windows), AT_ONCE):
        spectrum = scipy.fft.rfft(windows[first : first + AT_ONCE] * hann)
        total += (spectrum.real**2 + spectrum.imag**2).sum(axis=0, dtype=np.float64)
    return np.maximum(total / len(windows), FAINTEST)


def _mean_between(spectrum: np.ndarray, band: tuple[int, int]) -> float:
    return float(spectrum[(band[0] <= HERTZ) & (band[1] >= HERTZ)].mean())


def measure_clip(path: str | Path) -> tuple[dict[str, float], np.ndarray]:
    """The MEASUREMENTS of one file, and its mean spectrum (513,) in dB of its whole power."""
    samples, rate = decode(path)  # (samples, channels)
    waveform = to_mono_16k(samples, rate, path)
    hops = waveform[: len(waveform) // FRAME_HOP * FRAME_HOP].reshape(-1, FRAME_HOP)
    squares = np.square(hops).mean(axis=1)
    level = np.sqrt((squares[1:] + squares[:-1]) / 2)  # of frames of two hops
    active = np.flatnonzero(level >= SILENCE_BELOW * level.max())
    power = mean_power(waveform)
    cumulative = np.cumsum(power)
    spectrum = 10 * np.log10(np.maximum(power / cumulative[-1], 1e-12))
    values = {
        "seconds": len(samples) / rate,
        "lead_silence": active[0] * FRAME_HOP / SAMPLE_RATE,
        "trail_silence": (len(waveform) - (active[-1] + 2) * FRAME_HOP) / SAMPLE_RATE,
        "rms_db": _db(np.sqrt(np.square(samples).mean(dtype=np.float64))),
        "peak_db": _db(np.abs(samples).max()),
        "pause_db": _db(np.quantile(level, 0.05)),
        "zero_percent": 100 * float((samples == 0).all(axis=1).mean()),
        "dc_db": _db(abs(samples.mean(dtype=np.float64))),
        "rolloff_hz": HERTZ[np.searchsorted(cumulative, 0.99 * cumulative[-1])],
        "bandwidth_hz": HERTZ[np.flatnonzero(power >= BAND_BELOW * power.max())[-1]],
        "edge_db": _mean_between(spectrum, EDGE) - _mean_between(spectrum, BESIDE_EDGE),
        "sample_rate": rate,
        "channels": samples.shape[1],
    }
    return values, spectrum


@dataclass
class Spectra:
    """Running sums of the clips' mean spectra in dB, by (label, attack)."""

    sums: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)  # (3, 513): count, sum, sum of squares

    def add(self, label: int, attack: str, spectrum: np.ndarray) -> None:
        """Add one clip's spectrum (513,)."""
        group = self.sums.setdefault((label, attack), np.zeros((3, len(HERTZ))))
        group += np.stack([np.ones_like(spectrum), spectrum, spectrum**2])

    def statistics(self, label: int, attacks: list[str] | None = None) -> tuple[int, np.ndarray, np.ndarray]:
        """Clips, mean and standard deviation (513,) of a class, or of some of its attacks."""
        chosen = [s for (of, attack), s in self.sums.items() if of == label and (attacks is None or attack in attacks)]
        count, total, squares = np.sum(chosen, axis=0) if chosen else np.zeros((3, len(HERTZ)))
        mean = total / np.maximum(count, 1)
        return int(count[0]), mean, np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))


def _key(rows: pd.DataFrame) -> str:
    """What the measurements depend on: the clips, what the table says of them, their order, and this code."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for row in rows[IDENTITY].itertuples(index=False):
        digest.update(repr(tuple(map(str, row))).encode())
        try:
            stat = Path(row.path).stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
        except OSError:
            digest.update(b"gone")
    return digest.hexdigest()


class _Store:
    """measurements.csv and spectra.npz in a folder; the second says how much of the first is whole."""

    def __init__(self, folder: Path, rows: pd.DataFrame):
        self.folder, self.rows, self.key = folder, rows, _key(rows)
        self.csv, self.npz = folder / "measurements.csv", folder / "spectra.npz"
        self.done, self.spectra, length = 0, Spectra(), 0
        if self.csv.is_file() and self.npz.is_file():
            with np.load(self.npz) as saved:
                if str(saved["key"]) == self.key and self.csv.stat().st_size >= int(saved["length"]):
                    groups = zip(saved["labels"].tolist(), saved["attacks"].tolist(), strict=True)
                    self.spectra = Spectra(dict(zip(groups, saved["sums"], strict=True)))
                    self.done, length = int(saved["done"]), int(saved["length"])
        folder.mkdir(parents=True, exist_ok=True)
        with self.csv.open("ab") as file:  # what was written after the last save is measured again
            file.truncate(length)

    def append(self, values: list[dict[str, object]]) -> None:
        """Write the next clips' lines, then the sums that belong to them."""
        lines = self.rows[IDENTITY].iloc[self.done : self.done + len(values)].reset_index(drop=True)
        lines = pd.concat([lines, pd.DataFrame(values, columns=[*MEASUREMENTS, "error"])], axis=1)
        with self.csv.open("a", encoding="utf-8", newline="") as file:
            lines.to_csv(file, header=not self.done, index=False, float_format="%.7g", lineterminator="\n")
        self.done += len(values)
        labels, attacks = zip(*self.spectra.sums, strict=True) if self.spectra.sums else ((), ())
        with whole_file(self.npz) as unfinished:
            np.savez(
                unfinished,
                key=self.key,
                done=self.done,
                length=self.csv.stat().st_size,
                labels=np.array(labels, dtype=np.int64),
                attacks=np.array(attacks, dtype=str),
                sums=np.array(list(self.spectra.sums.values())).reshape(-1, 3, len(HERTZ)),
                hertz=HERTZ,
            )

    def table(self) -> pd.DataFrame:
        """The rows with their measurements and `error`, empty for a clip that could be measured."""
        names = [*MEASUREMENTS, "error"]
        read = pd.read_csv(self.csv, usecols=names, dtype=dict.fromkeys(MEASUREMENTS, np.float64) | {"error": str})
        read["error"] = read["error"].fillna("")
        return pd.concat([self.rows.reset_index(drop=True), read[names]], axis=1)


def _measured(path: str) -> tuple[dict[str, object], np.ndarray | None]:
    try:
        values, spectrum = measure_clip(path)
        return {**values, "error": ""}, spectrum
    except AudioError as error:
        return {"error": str(error)}, None


def _all_measured(paths: list[str]) -> Iterator[tuple[dict[str, object], np.ndarray | None]]:
    with ThreadPoolExecutor() as pool:  # decoding and FFTs run outside Python's lock
        for first in range(0, len(paths), BATCH):  # so few at once: results must not pile up
            ctrl_c.check()
            yield from pool.map(_measured, paths[first : first + BATCH])


def measure_clips(rows: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, Spectra]:
    """Measure every row's file; the table with MEASUREMENTS and `error`, and the spectra by class and attack.

    `folder` gets measurements.csv and spectra.npz, from which the same call goes on.
    """
    rows = rows.reset_index(drop=True)
    try:
        store = _Store(Path(folder), rows)
    except OSError as error:
        raise UserError(f"{folder}: measurements cannot be written there ({error.strerror})") from error
    todo = rows.iloc[store.done :]
    bar = tqdm(_all_measured(todo["path"].tolist()), "clips", len(rows), initial=store.done, unit="clip", disable=None)
    pending = []
    for (values, spectrum), label, attack in zip(bar, todo["label"], todo["attack"], strict=True):
        pending.append(values)
        if spectrum is not None:
            store.spectra.add(int(label), str(attack), spectrum)
        if len(pending) == SAVE_EVERY:
            store.append(pending)
            pending = []
    if pending:
        store.append(pending)
    return store.table(), store.spectra
