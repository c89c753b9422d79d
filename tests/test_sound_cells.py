"""All cells of a clip are the clip, and one that is removed sounds like its pauses."""

import numpy as np
import pytest
from known_detectors import clip

from sound_cells import SoundCells


def test_a_clip_with_all_its_cells_is_the_clip() -> None:
    for seconds in (0.1, 0.73, 2.0):
        waveform = clip(1, seconds)
        sound = SoundCells(waveform)
        np.testing.assert_allclose(sound.with_share(1.0), waveform, atol=1e-6)
        assert sound.shape == (len(sound.time), len(sound.frequency))
        assert sound.time[0] > 0 and sound.time[-1] < seconds


@pytest.mark.parametrize("cell", [(0, 0), (7, 5), (-1, -1)])
def test_relevance_of_a_linear_score_is_what_removing_a_cell_costs(cell: tuple[int, int]) -> None:
    waveform = clip(2, 1.03)
    sound = SoundCells(waveform)
    weights = np.random.default_rng(3).standard_normal(len(waveform)).astype(np.float32)
    hidden = np.zeros(sound.shape, bool)
    hidden[cell] = True
    lost = weights @ (sound.with_share(1.0) - sound.without(hidden))
    assert lost == pytest.approx(sound.relevance(weights)[cell], rel=1e-3, abs=1e-4)


def test_a_removed_region_sounds_like_the_clips_pauses_and_the_rest_is_left_alone() -> None:
    waveform = clip(4)
    sound = SoundCells(waveform)
    hidden = np.zeros(sound.shape, bool)
    hidden[10:20] = True  # 0.64 to 1.28 s at all frequencies
    edited = sound.without(hidden)
    removed, pauses = (np.sqrt(np.mean(part**2)) for part in (edited[11_300:19_400], waveform[100:1500]))
    assert 0.5 < removed / pauses < 2
    np.testing.assert_allclose(edited[: 9 * 1024], waveform[: 9 * 1024], atol=1e-6)
    np.testing.assert_allclose(edited[21 * 1024 :], waveform[21 * 1024 :], atol=1e-6)
