"""Audio files become waveforms: any container, rate, depth and channel count -> mono float32 at 16 kHz.

    from audio import audio_blocks, fit_length, load_audio
    waveform = fit_length(load_audio("clip.mp3"), 64_000)
    seconds, blocks = audio_blocks("three hours.mp3")      # the same samples, in pieces

soundfile reads first. What it refuses (m4a, webm; the thousands of ASVspoof 2021 and PA FLAC files that
today's libsndfile gives up on) goes to FFmpeg's decoders through PyAV, which ships wheels for Linux, macOS
and Windows. A file of which only a part can be decoded is an error: a clip is whole or it is not used.
"""

import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
import soundfile
import soxr

from config import SAMPLE_RATE
from errors import AudioError

MIN_SECONDS = 0.1
SILENCE_PEAK = 1e-4  # -80 dBFS: below this there is nothing to judge
LOUDEST = 16.0  # +24 dBFS: floats beyond were never scaled to [-1, 1]
BLOCK = 2**20  # samples that are decoded at once
CUT_OFF = re.compile(r"^ *(?:data|SSND) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_LENGTH = 2**31 - 2**16  # what writes to a pipe puts a number like 2**31 or 2**32 in the header
REFUSED = (soundfile.LibsndfileError, RuntimeError, TypeError)  # TypeError: headerless .raw

Blocks = Iterator[tuple[np.ndarray, int]]  # (samples, channels) float32, and the rate
T = TypeVar("T")


def load_audio(path: str | Path) -> np.ndarray:
    """Read one file as a mono float32 waveform at 16 kHz, shape (samples,), within [-1, 1]."""
    return to_mono_16k(*decode(path), path)


def pcm16(waveform: np.ndarray) -> np.ndarray:
    """A waveform within [-1, 1] as int16, clipped at the largest sample; exact for what was 16 bits before."""
    return np.clip(np.rint(waveform * 32_768), -32_768, 32_767).astype(np.int16)


def write_flac(path: Path, waveform: np.ndarray) -> None:
    """A mono waveform at 16 kHz as FLAC of 16 bits."""
    soundfile.write(path, pcm16(waveform), SAMPLE_RATE, format="FLAC", subtype="PCM_16")


def audio_blocks(path: str | Path) -> tuple[float, Iterator[np.ndarray]]:
    """Seconds of one file of any length and, block by block, the waveform that load_audio gives.

    The file is decoded twice, so that what load_audio refuses is refused before the first block.
    """
    path = Path(path)
    decoder, (seconds, rate, peak) = _decoded(path, lambda blocks: _survey(blocks, path))
    refuse_short(seconds, path)
    refuse_silence(peak, path)
    return seconds, _mono_blocks(decoder(path), MonoStream(rate))


def to_mono_16k(samples: np.ndarray, rate: int, name: str | Path) -> np.ndarray:
    """Mix (samples, channels) down, refuse silence, resample to 16 kHz; `name` is used in the error."""
    refuse_silence(_mono_peak(samples), name)
    stream = MonoStream(rate)
    return np.concatenate([stream.feed(samples), stream.flush()])


class MonoStream:
    """Sound of any rate in pieces of any size -> the mono 16 kHz samples of the whole, as far as they are certain."""

    def __init__(self, rate: int):
        # soxr's default quality is HQ; in pieces it gives the samples of the whole, bit for bit
        self._resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Mix (samples, channels) down and resample; what the filter still holds back comes later."""
        return self._resample(samples.mean(axis=1, dtype=np.float32), last=False)

    def flush(self) -> np.ndarray:
        """What is left once the sound has ended."""
        return self._resample(np.zeros(0, np.float32), last=True)

    def _resample(self, waveform: np.ndarray, last: bool) -> np.ndarray:
        if self._resampler is not None:
            waveform = self._resampler.resample_chunk(waveform, last)
        return np.clip(waveform, -1, 1)  # as any 16-bit file would be; float files and resampling can overshoot


def _mono_blocks(blocks: Blocks, stream: MonoStream) -> Iterator[np.ndarray]:
    for samples, _ in blocks:
        yield stream.feed(samples)
    yield stream.flush()


def _mono_peak(samples: np.ndarray) -> float:
    return float(np.abs(samples.mean(axis=1, dtype=np.float32)).max(initial=0))


def _survey(blocks: Blocks, path: Path) -> tuple[int, int, float]:
    """Seconds, rate and peak of a whole file, of which one block at a time is kept."""
    count, peak, rates = 0, 0.0, set()
    for samples, rate in blocks:
        _refuse_not_finite(samples, path)
        count, peak = count + len(samples), max(peak, _mono_peak(samples))
        rates.add(rate)
    (rate,) = rates
    return count / rate, rate, peak


def _refuse_not_finite(samples: np.ndarray, path: Path) -> None:
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: holds values that are not finite (NaN or infinity)")


def refuse_short(seconds: float, name: str | Path) -> None:
    if seconds < MIN_SECONDS:
        raise AudioError(f"{name}: {seconds:.4f} s long; at least {MIN_SECONDS} s is needed")


def is_silent(waveform: np.ndarray) -> bool:
    return float(np.abs(waveform).max(initial=0)) < SILENCE_PEAK


def refuse_silence(peak: float, name: str | Path) -> None:
    if peak < SILENCE_PEAK:
        raise AudioError(f"{name}: silent (peak below {SILENCE_PEAK:g} of full scale after mixing to mono)")


def refuse_unscaled(peak: float, name: str) -> None:
    if peak > LOUDEST:
        raise AudioError(f"{name} with a peak of {peak:g}: floats are expected within [-1, 1]")


# ---------------------------------------------------------------- decoders


def decode(path: str | Path) -> tuple[np.ndarray, int]:
    """Decode a whole file to float32 (samples, channels), finite and not too short, and its sample rate."""
    path = Path(path)
    _, blocks = _decoded(path, list)
    rate = blocks[0][1]
    samples = blocks[0][0] if len(blocks) == 1 else np.concatenate([part for part, _ in blocks])
    _refuse_not_finite(samples, path)
    refuse_short(len(samples) / rate, path)
    return samples, rate


def _decoded(path: Path, use: Callable[[Blocks], T]) -> tuple[Callable[[Path], Blocks], T]:
    """The first decoder that reads a whole file, and what `use` has made of its blocks."""
    if path.is_dir():
        raise AudioError(f"{path}: a folder, not an audio file")
    if not path.is_file():
        raise AudioError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: empty file (0 bytes)")
    try:
        return _soundfile_blocks, use(_soundfile_blocks(path))
    except REFUSED:
        try:
            return _ffmpeg_blocks, use(_ffmpeg_blocks(path))
        except av.error.FFmpegError as error:
            reason = error.strerror or type(error).__name__
            raise AudioError(f"{path}: cannot be decoded (by soundfile or FFmpeg: {reason})") from error


def _soundfile_blocks(path: Path) -> Blocks:
    with soundfile.SoundFile(path) as file:
        _refuse_cut_off(file, path)
        declared = left = file.frames
        while True:
            samples = file.read(min(left, BLOCK), dtype="float32", always_2d=True)
            left -= len(samples)
            yield samples, file.samplerate
            if not left or not len(samples):
                break
        if left and file.format != "MP3":  # an MP3's length can be an estimate
            raise AudioError(f"{path}: damaged, {declared - left} of {declared} samples can be decoded")


def _refuse_cut_off(file: soundfile.SoundFile, path: Path) -> None:
    """Refuse a WAV or AIFF file that ends long before its header says; libsndfile only notes it and reads the rest."""
    if found := CUT_OFF.search(file.extra_info):
        promised, there = map(int, found.groups())
        if there < 0.99 * promised and promised < UNKNOWN_LENGTH:
            raise AudioError(f"{path}: cut off, {there:,} of {promised:,} bytes of sound are there")


def _ffmpeg_blocks(path: Path) -> Blocks:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise AudioError(f"{path}: holds no audio stream")
        stream = container.streams.audio[0]
        flac = container.format.name == "flac"
        if flac:  # or a frame whose checksum is wrong is decoded into noise
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
        to_float = av.AudioResampler(format="fltp")  # planar float, rate and channels untouched
        count = 0
        for frame in chain(container.decode(stream), [None]):  # None empties the resampler
            for part in to_float.resample(frame):
                count += part.samples
                yield np.ascontiguousarray(part.to_ndarray().T), stream.rate
        if not count:
            raise AudioError(f"{path}: holds no audio samples")
        # FLAC states its length: a damaged file that decodes in part must not pass for the whole clip
        if flac and stream.duration and count != stream.duration:
            raise AudioError(f"{path}: damaged, {count} of {stream.duration} samples can be decoded")


def fit_length(waveform: np.ndarray, samples: int, start: int = 0) -> np.ndarray:
    """Cut `samples` from `start` on; a shorter clip is repeated until it is long enough."""
    if len(waveform) < samples:
        return np.tile(waveform, -(-samples // len(waveform)))[:samples]
    return waveform[start : start + samples]
