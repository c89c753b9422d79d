"""The tests of explanations can tell good from bad: on a detector that listens to a known place."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from known_detectors import REGION, clip, known_picture

import faithfulness
from backend import keras
from config import SAMPLE_RATE
from faithfulness import Check, check_methods, move_region, named_regions, resynthesise_segment
from relevance import METHODS
from resynthesis import CHAINS
from sound_cells import SoundCells


@pytest.fixture(scope="module")
def picture() -> keras.Model:
    return known_picture()


def checked(model: keras.Model, monkeypatch: pytest.MonkeyPatch, wrong: Callable | None = None) -> Check:
    if wrong is not None:
        monkeypatch.setitem(METHODS, "gradient", wrong)
    clips = [(clip(seed), 1) for seed in range(6)]
    return check_methods(model, clips, ["gradient"])[0]


def test_a_verdict_on_places_needs_some_stretches() -> None:
    named, random = [np.ones(6)] * 6, [np.zeros(6)] * 6
    findings = {
        what: Check("m", named, random, auc=values).finding()
        for what, values in {
            "right": [0.9, 0.8, 0.7, 0.9, 0.8],
            "chance": [0.1, 0.9, 0.5, 0.4, 0.6],
            "wrong": [0.1, 0.2, 0.3, 0.1, 0.2],
            "few": [0.9, 0.9],
        }.items()
    }
    assert "only 2 clips, too few" in Check("m", named[:2], random[:2]).finding()
    table = faithfulness.summary(
        [Check("m", named, random, inside=[1, 1], length=[1, 1], auc=[0.9, 0.9]), Check("m", named[:2], random[:2])]
    )
    assert table["named - random, all shares"].tolist() == ["1.00 [1.00, 1.00]", "1.00"]
    assert table["AUC of frames"].iloc[0] == "0.90"
    assert all(text.startswith("m: removing what it names moves the logit more") for text in findings.values())
    assert "It finds re-synthesised stretches." in findings["right"]
    assert "no better than chance" in findings["chance"]
    assert "names OTHER places" in findings["wrong"]
    assert "Only 2 re-synthesised stretches" in findings["few"]


def test_methods_of_resynthesis_are_tried_until_one_turns_the_verdict(
    picture: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud = clip(1)
    monkeypatch.setattr(faithfulness, "CHAINS", {name: name for name in ("unheard", "heard")})
    monkeypatch.setattr(
        faithfulness,
        "resynthesise_segment",
        lambda waveform, chain, rng: (loud if chain == "heard" else waveform, REGION["seconds"]),
    )
    check, _ = check_methods(picture, [(0.01 * clip(seed), 0) for seed in range(2)], ["gradient"])
    assert len(check.auc) == 2 and min(check.auc) > 0.9


def test_a_right_explanation_beats_random_regions(picture: keras.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    check = checked(picture, monkeypatch)
    assert (check.advantage() > 1).all()
    assert "more than random regions do" in check.finding()


@pytest.mark.parametrize("kind", ["random", "wrong sign", "shifted"])
def test_a_wrong_explanation_is_found_out(kind: str, picture: keras.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    right, rng = METHODS["gradient"], np.random.default_rng(0)
    wrong = {
        "random": lambda model, sound: rng.standard_normal(sound.shape),
        "wrong sign": lambda model, sound: -right(model, sound),
        "shifted": lambda model, sound: np.roll(right(model, sound), 16, axis=1),
    }[kind]
    check = checked(picture, monkeypatch, wrong)
    assert check.advantage().mean() < 0.5
    if kind != "random":
        assert "do not" in check.finding()


def test_regions_grow_and_keep_their_shape_when_moved() -> None:
    rng = np.random.default_rng(0)
    regions = named_regions(rng.standard_normal((30, 32)))
    assert [int(region.sum()) for region in regions] == [round(s * 960) for s in faithfulness.SHARES]
    assert all((larger >= smaller).all() for smaller, larger in pairwise(regions))
    moved = move_region(regions[2], rng)
    assert moved.sum() == regions[2].sum() and not (moved == regions[2]).all()
    assert sorted(moved.sum(axis=1)) == sorted(regions[2].sum(axis=1))


def test_only_the_segment_is_resynthesised(speech_like: Callable) -> None:
    waveform = (0.2 * speech_like(2.5)).astype(np.float32)
    edited, (start, end) = resynthesise_segment(waveform, CHAINS["lpc_vocoder"], np.random.default_rng(2))
    assert 0.3 * 2.5 <= end - start <= 0.45 * 2.5 + 1e-3
    inside = slice(round(start * SAMPLE_RATE) + 400, round(end * SAMPLE_RATE) - 400)
    outside = np.ones(len(waveform), bool)
    outside[inside.start - 800 : inside.stop + 800] = False
    np.testing.assert_array_equal(edited[outside], waveform[outside])
    power = [np.mean(sound[inside] ** 2) for sound in (edited, waveform)]
    assert 0.7 < power[0] / power[1] < 1.4
    assert np.abs(edited[inside] - waveform[inside]).max() > 0.01


def test_the_known_segment_measures_where_evidence_lies() -> None:
    sound, check = SoundCells(clip()), Check("m")
    right = np.outer((sound.time > 0.5) & (sound.time < 1.0), np.ones(32)).astype(float)
    for values in (right - 0.1, 0.1 - right):
        faithfulness._locate(sound, values, (0.5, 1.0), check)
    assert check.inside == [1.0, 0.0] and check.auc == [1.0, 0.0]
    assert check.length[0] == pytest.approx(0.25, abs=0.03)
