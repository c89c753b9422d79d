"""The source-filter speaker: a voice with the pitch, the length and the structure that were asked for."""

import numpy as np
import pytest

from config import SAMPLE_RATE
from demo_speech import draw_speaker, record, speak
from frames import pitch_track, stft

SPEAKERS = [draw_speaker(np.random.default_rng(seed)) for seed in range(8)]


@pytest.fixture(scope="module")
def utterances() -> list[np.ndarray]:
    return [speak(speaker, 3.0, np.random.default_rng(i)) for i, speaker in enumerate(SPEAKERS)]


def test_length_level_and_type(utterances):
    for waveform in utterances:
        assert waveform.dtype == np.float32 and np.isfinite(waveform).all()
        assert 3.0 <= len(waveform) / SAMPLE_RATE < 4.0
        assert np.sqrt((waveform**2).mean()) == pytest.approx(0.1, rel=1e-3)


def test_pitch_is_the_speakers(utterances):
    for speaker, waveform in zip(SPEAKERS, utterances, strict=True):
        track = pitch_track(waveform, 128)
        voiced = track[track > 0]
        assert 0.3 < len(voiced) / len(track) < 0.98  # voiced and unvoiced parts
        assert abs(np.log2(np.median(voiced) / speaker.f0)) < 0.35
        assert np.std(np.log2(voiced)) > 0.03  # it moves


def test_speakers_and_utterances_differ():
    assert len({speaker.f0 for speaker in SPEAKERS}) == len(SPEAKERS)
    assert max(s.f0 for s in SPEAKERS) > 1.3 * min(s.f0 for s in SPEAKERS)
    first, again, other = (speak(SPEAKERS[0], 2.0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or not np.allclose(first, other)


def test_vowels_and_fricatives_are_there(utterances):
    shares = []
    for waveform in utterances:
        power = np.abs(stft(waveform, 512, 128)) ** 2
        loud = power.sum(axis=1) > 0.01 * power.sum(axis=1).max()
        shares.append((power[:, 96:].sum(axis=1) / power.sum(axis=1).clip(1e-9))[loud])  # above 3 kHz
    shares = np.concatenate(shares)
    assert (shares < 0.1).mean() > 0.4 and (shares > 0.6).mean() > 0.02


def test_room_adds_a_tail_and_faint_noise(utterances):
    for seed, waveform in enumerate(utterances):
        recorded = record(waveform, np.random.default_rng(seed))
        assert recorded.shape == waveform.shape and recorded.dtype == np.float32
        change = np.sqrt(((recorded - waveform) ** 2).mean()) / 0.1
        assert 0.005 < change < 0.8
