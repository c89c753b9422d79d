"""Audio files become waveforms: any container, rate, depth and channel count -> mono float32 at 16 kHz.

    from audio import load_audio, fit_length
    waveform = fit_length(load_audio("clip.mp3"), 64_000)

soundfile reads first. What it refuses (m4a, webm; the thousands of ASVspoof 2021 and PA FLAC files that
today's libsndfile gives up on) goes to FFmpeg's decoders through PyAV, which ships wheels for Linux, macOS
and Windows. A file of which only a part can be decoded is an error: a clip is whole or it is not used.
"""

from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from config import SAMPLE_RATE
from errors import AudioError

MIN_SECONDS = 0.1
SILENCE_PEAK = 1e-4  # -80 dBFS: below this there is nothing to judge


def load_audio(path: str | Path) -> np.ndarray:
    """Read one file as a mono float32 waveform at 16 kHz, shape (samples,), within [-1, 1]."""
    path = Path(path)
    samples, rate = decode(path)  # (samples, channels)
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: holds values that are not finite (NaN or infinity)")
    if len(samples) < MIN_SECONDS * rate:
        raise AudioError(f"{path}: {len(samples) / rate:.4f} s long; at least {MIN_SECONDS} s is needed")
    return to_mono_16k(samples, rate, path)


def to_mono_16k(samples: np.ndarray, rate: int, name: str | Path) -> np.ndarray:
    """Mix (samples, channels) down, refuse silence, resample to 16 kHz; `name` is used in the error."""
    waveform = samples.mean(axis=1, dtype=np.float32)
    if np.abs(waveform).max() < SILENCE_PEAK:
        raise AudioError(f"{name}: silent (peak below {SILENCE_PEAK:g} of full scale after mixing to mono)")
    if rate != SAMPLE_RATE:
        waveform = soxr.resample(waveform, rate, SAMPLE_RATE)  # soxr's default quality is HQ
    return np.clip(waveform, -1, 1)  # as any 16-bit file would be; float files and resampling can overshoot


def decode(path: Path) -> tuple[np.ndarray, int]:
    """Decode a whole file to float32 (samples, channels) and its sample rate."""
    if not path.is_file():
        raise AudioError(f"{path}: no such file" if not path.exists() else f"{path}: not a file")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: empty file (0 bytes)")
    try:
        with soundfile.SoundFile(path) as file:
            rate, declared = file.samplerate, file.frames
            samples = file.read(declared, dtype="float32", always_2d=True)
            whole = len(samples) == declared or file.format == "MP3"  # an MP3's length can be an estimate
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as refusal:  # TypeError: headerless .raw
        return _decode_with_ffmpeg(path, refusal)
    if not whole:
        raise AudioError(f"{path}: damaged, {len(samples)} of {declared} samples can be decoded")
    return samples, rate


def _decode_with_ffmpeg(path: Path, refusal: Exception) -> tuple[np.ndarray, int]:
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise AudioError(f"{path}: holds no audio stream")
            stream = container.streams.audio[0]
            flac = container.format.name == "flac"
            if flac:  # or a frame whose checksum is wrong is decoded into noise
                stream.codec_context.options = {"err_detect": "crccheck+explode"}
            to_float = av.AudioResampler(format="fltp")  # planar float, rate and channels untouched
            frames = [out for frame in container.decode(stream) for out in to_float.resample(frame)]
            frames += to_float.resample(None)
            declared = stream.duration if flac else None
            rate = stream.rate
    except av.error.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise AudioError(f"{path}: cannot be decoded (soundfile: {refusal}; FFmpeg: {reason})") from error
    if not frames:
        raise AudioError(f"{path}: holds no audio samples")
    samples = np.concatenate([frame.to_ndarray() for frame in frames], axis=1).T
    # FLAC states its length: a damaged file that decodes in part must not pass for the whole clip
    if declared and len(samples) != declared:
        raise AudioError(f"{path}: damaged, {len(samples)} of {declared} samples can be decoded")
    return np.ascontiguousarray(samples, dtype=np.float32), rate


def fit_length(waveform: np.ndarray, samples: int, start: int = 0) -> np.ndarray:
    """Cut `samples` from `start` on; a shorter clip is repeated until it is long enough."""
    if len(waveform) < samples:
        return np.tile(waveform, -(-samples // len(waveform)))[:samples]
    return waveform[start : start + samples]
