"""Any audio file becomes mono float32 at 16 kHz, or one line that names it."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audio import audio_blocks, fit_length, load_audio
from config import SAMPLE_RATE
from errors import AudioError

EDGE = 800  # 50 ms at either end, where a resampler and a lossy codec settle
RATES = (8_000, 11_025, 16_000, 22_050, 44_100, 48_000)
# container, subtype, largest difference that its depth allows (full scale is 1)
LOSSLESS = (
    ("wav", "PCM_U8", 1.2e-2),
    ("wav", "PCM_16", 4e-4),
    ("wav", "PCM_24", 4e-4),
    ("wav", "PCM_32", 4e-4),
    ("wav", "FLOAT", 4e-4),
    ("wav", "DOUBLE", 4e-4),
    ("wav", "ULAW", 2e-2),
    ("flac", "PCM_S8", 1.2e-2),
    ("flac", "PCM_16", 4e-4),
    ("flac", "PCM_24", 4e-4),
    ("aiff", "PCM_16", 4e-4),
    ("aiff", "PCM_24", 4e-4),
    ("aiff", "FLOAT", 4e-4),
)


def _channels(voice: np.ndarray, count: int) -> np.ndarray:
    """Unequal channels whose mean is the voice, (samples, count)."""
    gains = np.linspace(0.2, 1.8, count) if count > 1 else np.ones(1)
    return voice[:, None] * gains


def _snr(found: np.ndarray, wanted: np.ndarray) -> float:
    """dB, away from the edges."""
    found, wanted = found[EDGE:-EDGE], wanted[EDGE:-EDGE]
    return 10 * np.log10(np.sum(wanted**2) / np.sum((found - wanted) ** 2))


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("container", "subtype", "tolerance"), LOSSLESS)
def test_every_rate_depth_and_channel_count(
    container: str, subtype: str, tolerance: float, rate: int, channels: int, tmp_path: Path, speech_like: Callable
) -> None:
    path = tmp_path / f"clip.{container}"
    soundfile.write(path, _channels(speech_like(0.5, rate) * 0.9, channels), rate, subtype)
    waveform = load_audio(path)
    wanted = speech_like(0.5) * 0.9
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert abs(len(waveform) - len(wanted)) <= 1
    common = slice(EDGE, min(len(waveform), len(wanted)) - EDGE)
    assert np.abs(waveform[common] - wanted[common]).max() < tolerance


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("container", "subtype"), [("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", "MPEG_LAYER_III")])
def test_lossy_containers(
    container: str, subtype: str, rate: int, channels: int, tmp_path: Path, speech_like: Callable
) -> None:
    if subtype == "OPUS" and rate not in (8_000, 16_000, 48_000):
        pytest.skip("Opus has no such rate")
    path = tmp_path / f"clip.{container}"
    # equal channels: a codec's joint stereo may turn unequal ones into something else
    voice = np.repeat(speech_like(1.0, rate)[:, None], channels, axis=1)
    soundfile.write(path, voice, rate, subtype, format=container.upper())
    waveform, wanted = load_audio(path), speech_like(1.0)
    assert abs(len(waveform) - len(wanted)) <= 2
    common = min(len(waveform), len(wanted))
    assert _snr(waveform[:common], wanted[:common]) > 12


def _write_with_ffmpeg(path: Path, voice: np.ndarray, rate: int, codec: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(voice[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = rate
        to_codec = av.AudioResampler(stream.codec_context.format, layout="mono", rate=rate)
        for ready in [*to_codec.resample(frame), *to_codec.resample(None)]:
            container.mux(stream.encode(ready))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.m4a", "aac", 16_000), ("a.m4a", "aac", 44_100), ("a.mp4", "aac", 48_000), ("a.webm", "libopus", 48_000)],
)
def test_what_soundfile_does_not_know_goes_to_ffmpeg(
    name: str, codec: str, rate: int, tmp_path: Path, speech_like: Callable
) -> None:
    path = tmp_path / name
    _write_with_ffmpeg(path, speech_like(1.0, rate), rate, codec)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(path)
    waveform, wanted = load_audio(path), speech_like(1.0)
    assert waveform.dtype == np.float32
    assert abs(len(waveform) - len(wanted)) <= 2_100  # two codec frames
    # an encoder's lead-in of at most 100 ms may stay: find it, then compare
    voice = wanted[:14_000]
    lag = int(np.argmax(np.correlate(waveform[: len(voice) + 1_600], voice, "valid")))
    assert _snr(waveform[lag : lag + len(voice)], voice) > 12


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_resampler_keeps_7_khz_and_folds_nothing_back(rate: int, tmp_path: Path) -> None:
    time = np.arange(rate) / rate
    for hertz, decibels in ((7_000, 0.0), (9_000, None)):
        soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * hertz * time), rate, "FLOAT")
        waveform = load_audio(tmp_path / "tone.wav")[EDGE:-EDGE]
        level = 20 * np.log10(np.sqrt(2 * np.mean(waveform**2)) / 0.5)
        if decibels is None:
            assert level < -80
        else:
            assert level == pytest.approx(decibels, abs=0.05)


def test_16_bit_files_at_16_khz_are_exact(tmp_path: Path, speech_like: Callable) -> None:
    pcm = np.rint(speech_like() * 32_767).astype(np.int16)
    for suffix in ("wav", "flac", "aiff"):
        soundfile.write(tmp_path / f"ä 語.{suffix}", pcm, SAMPLE_RATE)
        assert np.array_equal(load_audio(str(tmp_path / f"ä 語.{suffix}")), pcm.astype(np.float32) / 32_768)


def test_flac_files_that_libsndfile_refuses(shared_data: Path) -> None:
    files = sorted((shared_data / "refused_flac").glob("*.flac"))
    assert len(files) == 17
    refused = 0
    for file in files:
        pcm, rate = soundfile.read(file.with_suffix(".wav"), dtype="int16")
        assert rate == SAMPLE_RATE
        assert np.array_equal(load_audio(file), pcm.astype(np.float32) / 32_768), file.name
        try:
            soundfile.read(file)
        except soundfile.LibsndfileError:
            refused += 1
    assert refused > 0  # or this test no longer shows anything


# ---------------------------------------------------------------- block by block


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.m4a"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_blocks_are_the_samples_of_the_whole(
    name: str, rate: int, tmp_path: Path, speech_like: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, voice = tmp_path / name, speech_like(2.3, rate)
    if name.endswith("m4a"):
        _write_with_ffmpeg(path, voice, rate, "aac")
    else:
        soundfile.write(path, np.stack([voice, 0.3 * voice], axis=1), rate)
    whole = load_audio(path)
    monkeypatch.setattr("audio.BLOCK", 1_000)
    rounding = 1e-6 if name.endswith("mp3") else 0  # libsndfile's MP3 decoder rounds by where it starts to read
    np.testing.assert_allclose(load_audio(path), whole, rtol=0, atol=rounding)
    seconds, blocks = audio_blocks(path)
    blocks = list(blocks)
    assert len(blocks) > 20
    np.testing.assert_allclose(np.concatenate(blocks), whole, rtol=0, atol=rounding)
    assert seconds == pytest.approx(len(whole) / SAMPLE_RATE, abs=1e-4)


def test_blocks_of_files_that_libsndfile_refuses_midway(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audio.BLOCK", 4_000)
    for file in sorted((shared_data / "refused_flac").glob("*.flac"))[:5]:
        assert np.array_equal(np.concatenate(list(audio_blocks(file)[1])), load_audio(file))


# ---------------------------------------------------------------- what cannot be used


def _refusal(path: Path) -> str:
    with pytest.raises(AudioError) as error:
        load_audio(path)
    line = str(error.value)
    with pytest.raises(AudioError) as error:  # before the first block
        audio_blocks(path)
    assert str(error.value) == line
    assert line.startswith(str(path))
    assert "\n" not in line
    return line.removeprefix(str(path))


def test_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "empty.flac").touch()
    assert "no such file" in _refusal(tmp_path / "missing.wav")
    assert "a folder, not an audio file" in _refusal(tmp_path / "folder.wav")
    assert "empty file" in _refusal(tmp_path / "empty.flac")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a", "raw", "png", "xyz"])
def test_not_audio(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{suffix}"
    path.write_text("These are words, not sounds.\n" * 100, encoding="utf-8")
    _refusal(path)
    path.write_bytes(np.random.default_rng(0).bytes(40_000))
    _refusal(path)


@pytest.mark.parametrize("rate", RATES)
def test_shorter_than_a_tenth_of_a_second(rate: int, tmp_path: Path, speech_like: Callable) -> None:
    path, voice, enough = tmp_path / "clip.wav", speech_like(0.2, rate), -(-rate // 10)
    for count, reason in ((0, "0.0000 s long; at least 0.1 s"), (enough - 1, " s long; at least 0.1 s is needed")):
        soundfile.write(path, voice[:count], rate)
        assert reason in _refusal(path)
    soundfile.write(path, voice[:enough], rate)
    assert abs(len(load_audio(path)) - 1600) <= 1


def test_silence(tmp_path: Path, speech_like: Callable) -> None:
    path, voice = tmp_path / "clip.wav", speech_like()
    for samples in (
        np.zeros(16_000),
        np.full(16_000, 0.9e-4),
        np.stack([voice, -voice], axis=1),  # channels that cancel
    ):
        soundfile.write(path, samples, SAMPLE_RATE, "FLOAT")
        assert "silent" in _refusal(path)
    soundfile.write(path, voice * 1e-3, SAMPLE_RATE, "FLOAT")  # -66 dBFS is quiet, not silent
    assert np.abs(load_audio(path)).max() == pytest.approx(np.abs(voice).max() * 1e-3, rel=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_non_finite(value: float, rate: int, tmp_path: Path, speech_like: Callable) -> None:
    voice = speech_like(1.0, rate)
    voice[1000] = value
    soundfile.write(tmp_path / "clip.wav", voice, rate, "FLOAT")
    assert "not finite" in _refusal(tmp_path / "clip.wav")


def test_a_video_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert "no audio stream" in _refusal(path)


@pytest.mark.parametrize("fraction", [0.002, 0.3, 0.9, 0.999])
def test_truncated_flac(fraction: float, tmp_path: Path, speech_like: Callable) -> None:
    path = tmp_path / "clip.flac"
    soundfile.write(path, speech_like(2.0), SAMPLE_RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * fraction)])
    _refusal(path)


@pytest.mark.parametrize("name", ["clip.wav", "clip.aiff"])
def test_sound_that_is_cut_off(name: str, tmp_path: Path, speech_like: Callable) -> None:
    path = tmp_path / name
    soundfile.write(path, speech_like(2.0), SAMPLE_RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert re.search(r"cut off, 3\d,\d{3} of 64,0\d{2} bytes of sound are there", _refusal(path))
    path.write_bytes(whole[:-20])  # a header that is off by a few bytes is no harm
    assert len(load_audio(path)) == pytest.approx(32_000, abs=10)


def test_a_wav_that_was_written_to_a_pipe_has_no_length(tmp_path: Path, speech_like: Callable) -> None:
    path = tmp_path / "piped.wav"
    soundfile.write(path, speech_like(2.0), SAMPLE_RATE)
    header = bytearray(path.read_bytes())
    for unknown in (0xFFFFFFFF, 0x80000000 - 36, 0x7FFFFFFF):
        place = header.index(b"data") + 4
        header[place : place + 4] = unknown.to_bytes(4, "little")
        header[4:8] = min(unknown + 36, 0xFFFFFFFF).to_bytes(4, "little")
        path.write_bytes(header)
        assert len(load_audio(path)) == 32_000


@pytest.mark.parametrize("name", ["clip.flac", "flac renamed.wav"])
def test_damage_inside_a_flac_never_passes_for_sound(name: str, tmp_path: Path, speech_like: Callable) -> None:
    """Decoders skip a damaged frame or turn it into noise: the clip is then refused, whatever was hit."""
    voice = speech_like(2.0) + 1e-3 * np.random.default_rng(0).normal(size=32_000)
    soundfile.write(tmp_path / "whole.flac", voice, SAMPLE_RATE)
    whole, wanted = (tmp_path / "whole.flac").read_bytes(), load_audio(tmp_path / "whole.flac")
    path, refused = tmp_path / name, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        damaged = bytearray(whole)
        start, count = int(rng.integers(200, len(whole) - 300)), int(rng.integers(1, 200))
        damaged[start : start + count] = rng.bytes(count)
        path.write_bytes(damaged)
        try:
            found = load_audio(path)
        except AudioError as error:
            assert str(error).startswith(str(path))
            refused += 1
        else:
            assert np.array_equal(found, wanted)  # the byte drawn was the byte that stood there
    assert refused >= 39


def test_ogg_of_which_a_part_decodes_is_refused(tmp_path: Path, speech_like: Callable) -> None:
    path = tmp_path / "clip.ogg"
    soundfile.write(path, speech_like(3.0) + 0.02 * np.random.default_rng(0).normal(size=48_000), SAMPLE_RATE)
    damaged = bytearray(path.read_bytes())
    middle, count = len(damaged) // 2, len(damaged) // 4
    damaged[middle : middle + count] = bytes(count)
    path.write_bytes(damaged)
    assert "damaged" in _refusal(path)


@pytest.mark.skipif(os.name == "nt" or getattr(os, "geteuid", lambda: 0)() == 0, reason="root reads everything")
def test_a_file_without_permission(tmp_path: Path, speech_like: Callable) -> None:
    soundfile.write(tmp_path / "clip.wav", speech_like(), SAMPLE_RATE)
    (tmp_path / "clip.wav").chmod(0)
    _refusal(tmp_path / "clip.wav")


# ---------------------------------------------------------------- fixed length


@given(length=st.integers(1, 300), samples=st.integers(1, 300), data=st.data())
def test_fit_length_crops_or_repeats(length: int, samples: int, data: st.DataObject) -> None:
    waveform = np.arange(length, dtype=np.float32)
    start = data.draw(st.integers(0, max(0, length - samples)))
    fitted = fit_length(waveform, samples, start)
    assert fitted.shape == (samples,)
    assert fitted.dtype == np.float32
    first = start if length >= samples else 0
    assert np.array_equal(fitted, (first + np.arange(samples)) % length)
