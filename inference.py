"""A verdict on any audio file.

    python inference.py clip.wav more.mp3 folder/ --model runs/.../best.keras [--csv verdicts.csv] [--json]

    from inference import predict_audio
    result = predict_audio("runs/.../best.keras", "clip.wav")      # or a Keras model, or a shipped name
    result["prediction"], result["spoof_probability"]

A clip longer than the model's input is cut into windows that overlap by half; their logits are averaged.
A shorter one is repeated until it fills the input. `prediction` compares the logit with the threshold the
model carries from its dev set; `verdict` says "uncertain" inside the model's uncertain band. With a
calibration (also from dev) `spoof_probability` assumes that both classes are equally likely beforehand;
without one it is the plain sigmoid of the logit.
"""

import html
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from audio import fit_length, is_silent, load_audio, refuse_short, refuse_silence, refuse_unscaled
from backend import keras
from calibration import log_likelihood_ratio
from clip_reader import ClipReader
from config import SAMPLE_RATE, FeatureConfig
from data_generator import evaluation_batches
from errors import AudioError, CommandParser, UserError, run_command, tell_failures
from feature_extraction import feature_shape, log_stft
from file_index import AUDIO_SUFFIXES
from model import SpoofLogit, find_model, load_model, spoof_logits

DEFAULT_MODEL = "resmax"
MODEL_HELP = ".keras or .h5 file, run folder, or what ships: resmax, resmax_tiny (%(default)s)"
POOLING = "mean logit of half-overlapping windows"
WINDOWS_AT_ONCE = 8  # 2 GB with AASIST
CLIPS_AT_ONCE = 64  # in memory
NO_OPERATING_POINT = "the model carries no threshold: logit 0 is used"
Logits = Callable[[keras.Model, np.ndarray], np.ndarray]  # model, waveforms (n, samples) -> logits (n,)
CSV_COLUMNS = (
    "path",
    "prediction",
    "verdict",
    "spoof_probability",
    "logit",
    "threshold",
    "calibrated_on",
    "seconds",
    "warnings",
    "error",
)


class Prediction(dict):
    """The result for one file: a dict that prints as one line and draws itself in a notebook."""

    def __init__(self, values: dict[str, Any], waveform: np.ndarray):
        super().__init__(values)
        self.waveform = waveform  # (samples,) at 16 kHz, not part of the dict

    def __str__(self) -> str:
        notes = f"  [{'; '.join(self['warnings'])}]" if self["warnings"] else ""
        return (
            f"{self['path']}: {self['verdict']}  spoof probability {self['spoof_probability']:.3f}"
            f"  {logit_words(self['logit'], self['threshold'], self['uncertain_band'])}{notes}"
        )

    def _repr_html_(self) -> str:
        from clip_plots import clip_figure
        from figure_style import image_tag, png_bytes

        spectrogram = log_stft(self.waveform, FeatureConfig(samples=len(self.waveform)))[..., 0]
        picture = image_tag(png_bytes(clip_figure(self.waveform, spectrogram)), "waveform and spectrogram")
        return f"<p><b>{self['verdict']}</b> &nbsp; {html.escape(str(self))}</p>{picture}"


def predict_audio(model: keras.Model | str | Path, path: str | Path) -> Prediction:
    """Judge one audio file with a Keras model, a model file, a run folder or a shipped detector's name."""
    return predict_waveform(as_model(model), load_audio(path), str(path))


def as_model(model: keras.Model | str | Path) -> keras.Model:
    """A Keras model as it is; a model file, run folder or name is loaded, once while the file stays as it is."""
    if isinstance(model, keras.Model):
        return model
    file = find_model(model)
    return _loaded(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _loaded(file: Path, _written: int) -> keras.Model:
    return load_model(file)


def predict_waveform(model: keras.Model, waveform: np.ndarray, name: str = "waveform") -> Prediction:
    """Judge a mono float waveform at 16 kHz within [-1, 1], (samples,)."""
    waveform = checked_waveform(waveform, name)
    windows = cut_windows(waveform, input_samples(model))
    logit = float(window_logits(model, windows).mean())
    point = operating_point(model)
    warnings = quality_warnings(waveform)
    if not point.get("calibration"):
        warnings.append(NO_OPERATING_POINT)
    seconds = len(waveform) / SAMPLE_RATE
    warnings += too_short(point, seconds)
    values = {
        "path": name,
        **judge(logit, point, seconds),
        "logit": logit,
        "threshold": point["threshold"],
        "uncertain_band": list(point["uncertain"]),
        "calibrated_on": calibration_source(model),
        "seconds": seconds,
        "windows": len(windows),
        "pooling": POOLING,
        "model": model.name,
        "warnings": warnings,
    }
    return Prediction(values, waveform)


def checked_waveform(waveform: np.ndarray, name: str) -> np.ndarray:
    """The waveform, if it is what load_audio would give; `name` is used in the error."""
    waveform = np.asarray(waveform)
    if waveform.ndim != 1 or not len(waveform) or waveform.dtype.kind != "f" or not np.isfinite(waveform).all():
        raise AudioError(
            f"{name}: a mono float waveform (samples,) of finite values is needed, got "
            f"{waveform.dtype} {waveform.shape}; load_audio gives one"
        )
    refuse_short(len(waveform) / SAMPLE_RATE, name)
    peak = float(np.abs(waveform).max())
    refuse_silence(peak, name)
    refuse_unscaled(peak, name)
    return waveform


def too_short(point: dict[str, Any], seconds: float) -> list[str]:
    """Why sound of this length gets no verdict, as a list of warnings: none, or one."""
    shortest = point.get("minimum_seconds", 0)
    return [f"undecided: below {shortest:g} s the detector has not been measured"] if seconds < shortest else []


def in_band(logit: float, band: Sequence[float]) -> bool:
    """Whether a logit lies in an uncertain band [low, high)."""
    low, high = band
    return low <= logit < high


def logit_words(logit: float, threshold: float, band: Sequence[float]) -> str:
    """A logit with what makes a verdict of it."""
    words = ", uncertain from {:+.3f} to {:+.3f}".format(*band) if in_band(logit, band) else ""
    return f"logit {logit:+.3f} (threshold {threshold:+.3f}{words})"


def judge(logit: float, point: dict[str, Any], seconds: float = np.inf) -> dict[str, Any]:
    """Prediction, verdict and spoof probability that an operating point makes of the logit of so long a sound."""
    undecided = in_band(logit, point["uncertain"]) or too_short(point, seconds)
    prediction = "spoof" if logit >= point["threshold"] else "bonafide"
    llr = log_likelihood_ratio(-logit, point["calibration"]) if point.get("calibration") else -logit
    return {
        "prediction": prediction,
        "verdict": "uncertain" if undecided else prediction,
        "spoof_probability": float(1 / (1 + np.exp(np.clip(llr, -500, 500)))),
    }


def operating_point(model: keras.Model) -> dict[str, Any]:
    """Threshold, uncertain band and calibration that a model carries; logit 0 where it carries none."""
    last = model.layers[-1]
    if isinstance(last, SpoofLogit):
        return last.operating_point or {"threshold": 0.0, "uncertain": [0.0, 0.0]}
    activation = getattr(last, "activation", None)
    if activation not in (None, keras.activations.linear):
        raise UserError(f"model {model.name} ends in {activation.__name__}; a raw spoof logit is expected")
    return {"threshold": 0.0, "uncertain": [0.0, 0.0]}


def calibration_source(model: keras.Model) -> str | None:
    """The clips that the probabilities of a model refer to; None where they are not calibrated."""
    point = operating_point(model)
    return point.get("source", "the dev part of the data it was trained on") if point.get("calibration") else None


def calibration_note(model: keras.Model) -> str:
    """What the probabilities of a model refer to, in one line."""
    source = calibration_source(model)
    if source is None:
        return "probabilities are not calibrated: take them as a rank only"
    return f"probabilities are calibrated on {source}, for equally many recorded and synthetic clips"


def input_samples(model: keras.Model) -> int:
    """How many samples a model hears at once; (250, 513, 1) networks are fed with the log-STFT of 4 s."""
    shape = tuple(model.input_shape[1:])
    if len(shape) == 1:
        return shape[0]
    if shape == feature_shape(FeatureConfig()):
        return FeatureConfig().samples
    raise UserError(f"model {model.name} takes {shape}; a waveform (samples,) or (250, 513, 1) is expected")


def cut_windows(waveform: np.ndarray, samples: int) -> list[np.ndarray]:
    """The windows of a clip of which a model hears so many samples at once."""
    return [fit_length(waveform, samples, start) for start in window_starts(waveform, samples)]


def window_starts(waveform: np.ndarray, samples: int) -> list[int]:
    """Where the windows of a clip begin: they overlap by half, the last one ends with the clip.

    Those that are silent are left out, if there is anything else: detectors call silence bona fide, or anything.
    """
    last = max(0, len(waveform) - samples)
    starts = [*range(0, last, samples // 2), last]
    return [start for start in starts if not is_silent(waveform[start : start + samples])] or starts


def window_logits(
    model: keras.Model,
    windows: list[np.ndarray],
    logits_of: Logits = spoof_logits,
) -> np.ndarray:
    """Logit of every window."""
    parts = []
    for first in range(0, len(windows), WINDOWS_AT_ONCE):
        parts.append(logits_of(model, as_input(model, np.stack(windows[first : first + WINDOWS_AT_ONCE]))))
    return np.concatenate(parts)


def as_input(model: keras.Model, waveforms: np.ndarray) -> np.ndarray:
    """Waveforms (n, samples) as a model takes them: as they are, or (n, 250, 513, 1) without its front end."""
    return np.stack([log_stft(waveform) for waveform in waveforms]) if len(model.input_shape) == 4 else waveforms


def quality_warnings(waveform: np.ndarray) -> list[str]:
    """What about this clip makes the verdict less certain, in a few words each."""
    warnings = []
    seconds = len(waveform) / SAMPLE_RATE
    if seconds < 1:
        warnings.append(f"short ({seconds:.2f} s)")
    frame = SAMPLE_RATE // 50
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame)
    levels = np.sqrt((frames**2).mean(axis=1))
    silent = float((levels < 0.01 * levels.max()).mean())  # 40 dB below the loudest 20 ms
    if silent > 0.6:
        warnings.append(f"mostly silence ({100 * silent:.0f} %)")
    clipped = float((np.abs(waveform) > 0.999).mean())
    if clipped > 0.001:
        warnings.append(f"clipped ({100 * clipped:.1f} % of the samples at full scale)")
    power = np.abs(np.fft.rfft(frames * np.hanning(frame))) ** 2  # 50 Hz a bin
    if power[:, power.shape[1] // 2 :].sum() < 1e-5 * power.sum():
        warnings.append("narrow band (nothing above 4 kHz)")
    return warnings


# ---------------------------------------------------------------- many files


def score_clips(
    model: keras.Model,
    reader: ClipReader,
    what: str,
    logits_of: Logits = spoof_logits,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that could be read and their logits, from the first window of every clip (as in ASVspoof)."""
    rows, logits = [], []
    batches = evaluation_batches(reader, input_samples(model))
    for waveforms, numbers in tqdm(batches, desc=what, unit="batch", leave=False, disable=None):
        rows.append(np.asarray(numbers))
        logits.append(logits_of(model, as_input(model, np.asarray(waveforms))))
    refuse_nothing(rows, reader, what)
    return np.concatenate(rows), np.concatenate(logits)


def judge_clips(
    model: keras.Model,
    reader: ClipReader,
    what: str,
    logits_of: Logits = spoof_logits,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that could be read and their logits as predict_audio has them, of all windows of every clip."""
    rows, logits = [], []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(reader), desc=what, leave=False, disable=None) as bar,
    ):
        for first in range(0, len(reader), CLIPS_AT_ONCE):
            chunk = range(first, min(first + CLIPS_AT_ONCE, len(reader)))
            clips = dict(zip(chunk, pool.map(reader.read_or_none, chunk), strict=True))
            windows = {row: cut_windows(clip, input_samples(model)) for row, clip in clips.items() if clip is not None}
            if windows:
                each = window_logits(model, [window for parts in windows.values() for window in parts], logits_of)
                starts = np.cumsum([0, *map(len, windows.values())])[:-1]
                logits.append(np.add.reduceat(each, starts) / [len(parts) for parts in windows.values()])
                rows.extend(windows)
            bar.update(len(chunk))
    refuse_nothing(rows, reader, what)
    return np.array(rows), np.concatenate(logits)


def refuse_nothing(rows: list, reader: ClipReader, what: str) -> None:
    """One line where no clip at all could be read."""
    if not rows:
        first = next(iter(reader.failures.values()), "no clips")
        raise UserError(f"{what}: none of {len(reader)} clips could be read; the first: {first}")


def find_audio(names: str | Path | Iterable[str | Path]) -> list[Path]:
    """The files named, and every audio file in the folders named; one name may stand alone.

    A missing file and a folder that holds none stay in the list: they are reported when their turn comes.
    """
    files = []
    for name in map(Path, [names] if isinstance(names, (str, Path)) else names):
        if name.is_dir():
            inside = sorted(f for f in name.rglob("*") if f.suffix.lower() in AUDIO_SUFFIXES)
            files += inside or [name]
        else:
            files.append(name)
    return files


def refuse_empty_folder(path: Path) -> None:
    """Say of a folder that `find_audio` has left in its list why it is there."""
    if path.is_dir():
        raise AudioError(f"{path}: no audio files ({', '.join(sorted(AUDIO_SUFFIXES))}) in this folder")


def predict_folder(
    model: keras.Model | str | Path, names: str | Path | Iterable[str | Path]
) -> Iterator[tuple[Path, Prediction | AudioError]]:
    """Judge many files and folders; a file that cannot be used yields its error and the rest goes on."""
    if not isinstance(model, keras.Model):
        model = load_model(model)
    for path in find_audio(names):
        try:
            refuse_empty_folder(path)
            yield path, predict_audio(model, path)
        except AudioError as error:
            yield path, error


def table_row(name: str, result: Prediction | AudioError) -> dict[str, Any]:
    """The verdict on a file, or its error, under the names of CSV_COLUMNS."""
    if isinstance(result, AudioError):
        return {"path": name, "error": str(result)}
    return {**result, "warnings": "; ".join(result["warnings"])}


def main(argv: list[str] | None = None) -> int:
    parser = CommandParser(description="A verdict on audio files: recorded speech or synthetic?")
    parser.add_argument("files", nargs="+", metavar="FILE_OR_DIR")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=MODEL_HELP)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table of verdicts here")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of text")
    arguments = parser.parse_args(argv)

    if arguments.csv is not None and not arguments.csv.parent.is_dir():
        raise UserError(f"--csv {arguments.csv}: there is no folder {arguments.csv.parent}")
    rows, failures = [], []
    files = find_audio(arguments.files)
    model = load_model(arguments.model)
    judged = predict_folder(model, files)
    for path, result in tqdm(judged, "files", len(files), leave=False, disable=None if len(files) > 9 else True):
        rows.append(table_row(str(path), result))
        if isinstance(result, AudioError):
            failures.append(result)
            line = json.dumps({"path": str(path), "error": str(result)})
        else:
            line = json.dumps(result) if arguments.json else str(result)
        if arguments.json or not isinstance(result, AudioError):
            tqdm.write(line)
    if not arguments.json and len(failures) < len(files):
        print(f"({calibration_note(model)})")
    if arguments.csv is not None:
        pd.DataFrame(rows, columns=CSV_COLUMNS).to_csv(arguments.csv, index=False)
    return tell_failures(failures, len(files), "could not be judged")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
