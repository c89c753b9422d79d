"""Judge sound while it arrives: from a microphone, from a pipe, or piece by piece in your own program.

    python streaming.py --mic --model runs/<run>                                   # needs: pip install sounddevice
    ffmpeg -i talk.mp3 -f s16le -ac 1 -ar 16000 - | python streaming.py --rate 16000 --model runs/<run>
    cat talk.wav | python streaming.py --model runs/<run>                          # a WAV header brings its rate

    from streaming import StreamingDetector
    detector = StreamingDetector("runs/<run>", rate=44_100)
    for chunk in source:  # any number of samples
        for window in detector.feed(chunk):
            print(window.start, window.end, window.verdict)
    rest = detector.flush()

Windows of `window` seconds start every `hop` seconds, and the last one ends with the sound. A window shorter than
the model's input is repeated until it fills it, as predict_audio does with short clips. The logits are averaged
over windows that start up to SMOOTHING seconds earlier or later, so a row comes SMOOTHING seconds after its window
has ended, plus the time the model takes. Windows are judged one at a time: however the sound is cut into
pieces, the numbers are the same, and `python timeline.py` gets its own from here.
"""

import json
import queue
import sys
import wave
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from audio import MIN_SECONDS, MonoStream, fit_length, is_silent, refuse_unscaled
from backend import keras
from config import SAMPLE_RATE
from errors import AudioError, CommandParser, UserError, run_command
from inference import (
    DEFAULT_MODEL,
    MODEL_HELP,
    NO_OPERATING_POINT,
    as_model,
    input_samples,
    judge,
    operating_point,
    too_short,
    window_logits,
)

HOP = 0.5  # seconds between the starts of windows
WINDOW = 2.0  # seconds a window holds; or the hop where that is longer, but no more than the model's input
SMOOTHING = 0.5  # seconds by which the start of an averaged window may differ
INTEGERS = {"int16": 2**15, "int32": 2**31}  # sample types and their full scale
MOST_CHANNELS = 64
PIECE = 2**18  # samples that are mixed and resampled at once
BACKLOG = 20.0  # seconds of a microphone's sound that may wait for the model


class Window(NamedTuple):
    """One row of a timeline; a silent window has no logit (NaN)."""

    start: float  # seconds
    end: float
    logit: float
    smoothed: float  # mean logit of the windows around
    spoof_probability: float  # of the smoothed logit
    verdict: str  # bonafide | uncertain | spoof, of the smoothed logit; or silent


class StreamingDetector:
    """Sound in pieces of any size, at any rate -> windows with their verdicts, as soon as they are certain."""

    def __init__(
        self, model: keras.Model | str | Path, rate: int = SAMPLE_RATE, hop: float = HOP, window: float | None = None
    ):
        if not 1_000 <= rate <= 1_000_000:
            raise UserError(f"rate {rate}: samples per second are expected, such as 16000 or 44100")
        self.model = as_model(model)
        self.rate = rate
        self.point = operating_point(self.model)
        self._input = input_samples(self.model)
        longest = self._input / SAMPLE_RATE
        window = min(max(WINDOW, hop), longest) if window is None else window
        if not MIN_SECONDS <= window <= longest:
            raise UserError(f"window {window:g} s: between {MIN_SECONDS} and {longest:g} s, the input of the model")
        if not hop >= 0.01:
            raise UserError(f"hop {hop:g} s: at least 0.01 s")
        self._hop, self._window = round(hop * SAMPLE_RATE), round(window * SAMPLE_RATE)
        self.hop, self.window = self._hop / SAMPLE_RATE, self._window / SAMPLE_RATE
        self._reach = int(SMOOTHING / self.hop + 1e-9)  # windows on either side
        self.reset()

    @property
    def latency(self) -> float:
        """Seconds between a window's start and its row, without the time the model takes."""
        return self.window + self._reach * self.hop

    def reset(self) -> None:
        """Forget all sound; the next sample is at 0 s."""
        self._mono = MonoStream(self.rate)
        self._pieces: list[np.ndarray] = []  # the last samples heard, at least a window of them
        self._heard = 0  # samples at 16 kHz
        self._judged: deque[tuple[int, int, float]] = deque(maxlen=2 * self._reach + 1)  # start, end, logit
        self.windows = 0  # judged so far
        self._ended = False

    def feed(self, samples: np.ndarray) -> list[Window]:
        """Hear (samples,) or (samples, channels), floats in [-1, 1] or int16 / int32; the rows now certain."""
        if self._ended:
            raise UserError("feed after flush: the sound has ended; reset() starts a new one")
        samples = self._checked(samples)
        rows: list[Window] = []
        for first in range(0, len(samples), PIECE):  # sound of hours in one call takes no more memory
            piece = samples[first : first + PIECE]
            if piece.dtype.name in INTEGERS:
                piece = (piece / INTEGERS[piece.dtype.name]).astype(np.float32)
            rows += self._hear(self._mono.feed(piece.astype(np.float32, copy=False)))
        return rows

    def flush(self) -> list[Window]:
        """End the sound: the rows that were waiting, with a last window that ends with it."""
        if self._ended:
            return []
        rows = self._hear(self._mono.flush())
        self._ended = True
        sound = np.concatenate([*self._pieces, np.zeros(0, np.float32)])
        if self._heard < self._window and self._heard >= MIN_SECONDS * SAMPLE_RATE:
            rows += self._judge(0, sound)
        elif self.windows and self._judged[-1][1] < self._heard:
            rows += self._judge(self._heard - self._window, sound[-self._window :])
        waiting = range(max(0, self.windows - self._reach), self.windows)
        return rows + [self._row(number) for number in waiting]

    def _checked(self, samples: np.ndarray) -> np.ndarray:
        """The chunk as (samples, channels); refused as a whole before any of it is heard."""
        samples = np.asarray(samples)
        kind, shape = samples.dtype, samples.shape
        if kind.kind != "f" and kind.name not in INTEGERS:
            raise AudioError(f"chunk of {kind}: floats within [-1, 1], int16 or int32 are expected")
        if samples.ndim == 1:
            samples = samples[:, None]
        if samples.ndim != 2 or not 1 <= samples.shape[1] <= MOST_CHANNELS:
            raise AudioError(f"chunk of shape {shape}: (samples,) or (samples, channels) is expected")
        if kind.kind == "f" and samples.size:
            peak = np.abs(samples).max()
            if not np.isfinite(peak):
                raise AudioError("chunk holds values that are not finite (NaN or infinity)")
            refuse_unscaled(peak, f"chunk of {kind}")
        return samples

    def _hear(self, waveform: np.ndarray) -> list[Window]:
        """Take mono sound at 16 kHz; judge every window that is now complete."""
        rows: list[Window] = []
        self._pieces.append(waveform)
        self._heard += len(waveform)
        due = self.windows * self._hop
        if self._heard < due + self._window:
            return rows
        sound = np.concatenate(self._pieces)
        first = self._heard - len(sound)
        for start in range(due, self._heard - self._window + 1, self._hop):
            rows += self._judge(start, sound[start - first : start - first + self._window])
        self._pieces = [sound[-self._window :].copy()]  # the last window may yet end with the sound
        return rows

    def _judge(self, start: int, sound: np.ndarray) -> list[Window]:
        """Logit of one window, and the row that it makes certain."""
        logit = np.nan if is_silent(sound) else float(window_logits(self.model, [fit_length(sound, self._input)])[0])
        self._judged.append((start, start + len(sound), logit))
        self.windows += 1
        ready = self.windows - 1 - self._reach
        return [self._row(ready)] if ready >= 0 else []

    def _row(self, number: int) -> Window:
        """The row of a window of which all neighbours are judged, or will not come."""
        oldest = self.windows - len(self._judged)
        start, end, logit = self._judged[number - oldest]
        near = [other for place, (_, _, other) in enumerate(self._judged, oldest) if abs(place - number) <= self._reach]
        smoothed, probability, verdict = np.nan, np.nan, "silent"
        if not np.isnan(logit):
            smoothed = float(np.nanmean(near))
            judged = judge(smoothed, self.point, (end - start) / SAMPLE_RATE)
            probability, verdict = judged["spoof_probability"], judged["verdict"]
        return Window(start / SAMPLE_RATE, end / SAMPLE_RATE, logit, smoothed, probability, verdict)


# ---------------------------------------------------------------- where sound comes from


def piped_sound(stream: BinaryIO, rate: int | None) -> tuple[int, Iterator[np.ndarray]]:
    """Rate and int16 chunks (samples, channels) of a pipe: a 16-bit WAV file, or raw mono samples of a given rate."""
    if stream.peek(4)[:4] != b"RIFF":
        if rate is None:
            raise UserError("raw 16-bit mono samples on standard input need their --rate; a WAV file brings its own")
        return rate, _pcm_chunks(stream.read, rate // 10 * 2, channels=1)
    try:
        file = wave.open(stream)  # noqa: SIM115 - read until the sound ends
    except (wave.Error, EOFError) as error:
        raise UserError(f"the WAV header on standard input cannot be read ({error})") from error
    width, channels = file.getsampwidth(), file.getnchannels()
    if width != 2:
        raise UserError(f"the WAV file on standard input holds {8 * width}-bit samples; 16-bit ones are expected")
    if rate not in (None, file.getframerate()):
        raise UserError(f"--rate {rate}: the WAV file on standard input has {file.getframerate()} samples a second")
    return file.getframerate(), _pcm_chunks(file.readframes, file.getframerate() // 10, channels)


def _pcm_chunks(read, count: int, channels: int) -> Iterator[np.ndarray]:
    while data := read(count):
        if len(data) % (2 * channels):
            raise UserError("standard input ends within a sample: 16-bit samples are expected")
        yield np.frombuffer(data, "<i2").astype(np.int16).reshape(-1, channels)


def microphone(rate: int | None) -> tuple[int, Iterator[np.ndarray]]:
    """Rate and float chunks (samples, 1) of the default microphone, until Ctrl-C."""
    try:
        import sounddevice
    except ImportError as error:
        raise UserError("--mic needs sounddevice: pip install sounddevice") from error
    except OSError as error:  # no PortAudio; its wheels for Windows and macOS bring it
        raise UserError("--mic needs the PortAudio library: apt install libportaudio2") from error
    try:
        rate = rate or int(sounddevice.query_devices(kind="input")["default_samplerate"])
        sounddevice.check_input_settings(channels=1, samplerate=rate)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise UserError(f"--mic: no microphone that gives {rate or 'any'} samples a second ({error})") from error
    waiting: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()

    def chunks() -> Iterator[np.ndarray]:
        size = rate // 10
        keep = lambda data, *_: waiting.put(data.copy())  # noqa: E731
        with sounddevice.InputStream(samplerate=rate, channels=1, dtype="float32", blocksize=size, callback=keep):
            while True:
                if waiting.qsize() * size > BACKLOG * rate:
                    raise UserError(f"--mic: the model is {BACKLOG:g} s behind; raise --hop or take a smaller model")
                try:
                    yield waiting.get(timeout=0.2)  # wakes up, so that Ctrl-C is heard on Windows too
                except queue.Empty:
                    continue

    return rate, chunks()


def judged(detector: StreamingDetector, chunks: Iterable[np.ndarray], endless: bool) -> Iterator[Window]:
    """Rows of all sound, to its end; Ctrl-C is the end of sound that has none of its own."""
    try:
        for chunk in chunks:
            yield from detector.feed(chunk)
    except KeyboardInterrupt:
        if not endless:
            raise
    yield from detector.flush()


def main(argv: list[str] | None = None) -> int:
    parser = CommandParser(description="Judge sound while it arrives, from standard input or a microphone.")
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help=MODEL_HELP)
    add("--mic", action="store_true", help="listen to the microphone until Ctrl-C (needs sounddevice)")
    add("--rate", type=int, help="samples a second; needed for raw 16-bit mono samples on standard input")
    add("--hop", type=float, default=HOP, help="seconds between windows (%(default)s)")
    add("--window", type=float, help=f"seconds a window holds, at most the model's input (default {WINDOW:g})")
    add("--json", action="store_true", help="one JSON object a line instead of text")
    arguments = parser.parse_args(argv)
    if not arguments.mic and sys.stdin.isatty():
        raise UserError("no sound: pipe samples or a WAV file into standard input, or give --mic (see --help)")
    rate, chunks = microphone(arguments.rate) if arguments.mic else piped_sound(sys.stdin.buffer, arguments.rate)
    detector = StreamingDetector(arguments.model, rate, arguments.hop, arguments.window)
    if not detector.point.get("calibration"):
        print(f"warning: {NO_OPERATING_POINT}", file=sys.stderr)
    for warning in too_short(detector.point, detector.window):
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.mic:
        print(f"listening at {rate} Hz; the first row takes {detector.latency:g} s; Ctrl-C ends", file=sys.stderr)
    for window in judged(detector, chunks, endless=arguments.mic):
        print(json_line(window) if arguments.json else text_line(window), flush=True)
    if not detector.windows:
        raise UserError(f"less than {MIN_SECONDS} s of sound: nothing could be judged")
    return 0


def text_line(window: Window) -> str:
    """A row as text for people."""
    span = f"{window.start:9.2f} - {window.end:9.2f} s  {window.verdict:<9}"
    if window.verdict == "silent":
        return span.rstrip()
    return f"{span}  spoof probability {window.spoof_probability:.3f}  logit {window.smoothed:+.3f}"


def json_line(window: Window) -> str:
    """A row as JSON; what a silent window lacks is null."""
    return json.dumps({key: None if value != value else value for key, value in window._asdict().items()})


if __name__ == "__main__":
    raise SystemExit(run_command(main))
