"""What a stranger uploads -> a waveform, within limits of size and length that hold before anything is decoded.

    waveform = read_clip("my.mp3", data)        # (samples,) at 16 kHz; AudioError with a line for the visitor

The decoders need a file: it lies in a temporary folder while they read, and is gone afterwards, come what may.
"""

import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile

from audio import REFUSED, audio_blocks
from errors import AudioError

MAX_MEGABYTES = 50  # a file; half an hour of good MP3. .streamlit/config.toml tells the server the same
MAX_MINUTES = 30  # a file; AASIST thinks about that for two minutes on two cores


def read_clip(name: str, data: bytes) -> np.ndarray:
    """Decode an upload, (samples,) at 16 kHz."""
    if len(data) > MAX_MEGABYTES * 2**20:
        raise AudioError(f"{name}: {len(data) / 2**20:.0f} MB; up to {MAX_MEGABYTES} MB are accepted")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip").with_suffix(Path(name).suffix)
        path.write_bytes(data)
        try:
            refuse_long(claimed_seconds(path), path)
            seconds, blocks = audio_blocks(path)
            refuse_long(seconds, path)
            return np.concatenate(list(blocks))
        except AudioError as error:
            reason, _, _ = str(error).partition(" (by soundfile or ")  # what the decoders say is no help to a visitor
            raise AudioError(reason.replace(str(path), name)) from error


def refuse_long(seconds: float, path: Path) -> None:
    if seconds > 60 * MAX_MINUTES:
        raise AudioError(f"{path}: {seconds / 60:.0f} minutes long; up to {MAX_MINUTES} are accepted, cut it first")


def claimed_seconds(path: Path) -> float:
    """Length as the file states it, without decoding: a small file can hold days of silence."""
    try:
        return soundfile.info(path).duration
    except REFUSED:
        pass
    try:
        with av.open(str(path)) as container:
            packets = [p for p in container.demux(audio=0) if p.pts is not None]
            return float(max((p.pts + (p.duration or 0)) * p.time_base for p in packets))
    except (av.error.FFmpegError, IndexError, ValueError):
        return 0.0  # no sound in it: audio_blocks says why
