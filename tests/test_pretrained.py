"""The detectors that ship: small, whole, the same numbers on every machine, and what their cards say is there."""

import json

import numpy as np
import pytest
import soundfile

import inference
from backend import keras
from clip_reader import ClipReader
from data_utils import read_dataset
from inference import DEFAULT_MODEL, judge_clips, operating_point, predict_audio, predict_waveform
from metrics import compute_eer
from model import PRETRAINED, load_model, parameter_count, read_card, sha256, spoof_logits
from robustness import CONDITIONS, resampled
from ship import check_signal

SHIPPED = sorted(path.name.split(".")[0] for path in PRETRAINED.glob("*.about.json"))  # not what a user adds
LARGEST = 5_000_000  # bytes of a file
MOST_PARAMETERS = 1_000_000


def test_the_default_detector_ships():
    assert DEFAULT_MODEL in SHIPPED


def test_a_tiny_one_ships():
    assert parameter_count(load_model("resmax_tiny")) <= 100_000


@pytest.mark.parametrize("name", SHIPPED)
def test_small_and_with_a_whole_card(name):
    file = PRETRAINED / f"{name}.keras"
    card = read_card(file)
    assert file.stat().st_size < LARGEST
    assert card["sha256"] == sha256(file)
    assert parameter_count(load_model(name)) == card["parameters"] <= MOST_PARAMETERS
    assert set(card["operating_points"]) == {"FAR 1 %", "EER", "FRR 1 %"}
    for condition, row in card["leave_pages_out"].items():
        assert row["low_clips"] < row["eer"] < row["high_clips"], condition
    assert set(card["leave_pages_out"]) == set(CONDITIONS)
    assert card["licence"] and card["limits"] and card["never_heard"]
    point = card["operating_point"]
    assert card["minimum_seconds"] == point["minimum_seconds"] >= 1
    assert point["windows"] == "all"  # of a clip, in measuring as in inference.py
    made, heard = card["data"]["made_of"], card["data"]["clips"]["train"]
    assert sum(made["recordings"].values()) == heard["bonafide"]
    assert sum(made["fakes"].values()) + sum(made["made_fakes"].values()) == heard["spoof"]
    assert card["trainings"] and all("training.seed" in training for training in card["trainings"])
    assert f"{len(CONDITIONS)} conditions" in point["source"]
    low, high = point["uncertain"]
    assert low <= point["threshold"] <= high and point["calibration"]["a"] > 0


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_says_what_a_verdict_is_worth(name):
    card = read_card(PRETRAINED / f"{name}.keras")
    for condition, row in card["leave_pages_out"].items():
        assert 0 < row["decided"] < 1 and row["wrong_of_decided"] < row["eer"], condition  # to abstain is worth it
    about = json.loads((PRETRAINED / f"{name}.about.json").read_text(encoding="utf-8"))
    assert {"domain", "licence", "limits", "never_heard", "minimum_seconds", "elsewhere"} == set(about)
    assert all(card[key] == value for key, value in about.items())
    assert set(card["leave_pages_out_by_kind"]) == {"tts", "vc", "vocoder", "codec"}
    assert card["leave_pages_and_families_out"]["fakes"] > 500 and len(card["leave_pages_out_by_page"]) > 10


@pytest.mark.parametrize("name", SHIPPED)
def test_the_same_logit_as_where_it_was_trained(name):
    model = load_model(name)
    signal = check_signal(model.input_shape[1])
    assert spoof_logits(model, signal[None])[0] == pytest.approx(
        read_card(PRETRAINED / f"{name}.keras")["check_logit"], abs=0.01
    )


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_a_copy_at_a_higher_rate_does_not_decide_a_clip_in_doubt(rate, speech_like):
    """Resampling leaves a slope below 8 kHz, and on demo pages most fakes have it: it must not become the verdict.

    A clip at the threshold, which is uncertain, must stay uncertain.
    """
    model = load_model(DEFAULT_MODEL)
    point = operating_point(model)
    low, high = point["uncertain"]
    for seed in range(3):
        hiss = 0.003 * np.random.default_rng(seed).standard_normal(48_000)
        waveform = (0.3 * speech_like(3.0, seed=seed) + hiss).astype(np.float32)
        before, after = (predict_waveform(model, w)["logit"] for w in (waveform, resampled(waveform, rate)))
        assert low < point["threshold"] + after - before < high


@pytest.mark.parametrize("name", SHIPPED)
def test_plain_keras_loads_it(name):
    model = keras.models.load_model(PRETRAINED / f"{name}.keras")
    assert model.output_shape == (None, 1)


def test_a_strangers_file_is_judged_with_no_model_named(tmp_path, capsys):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "mine.ogg", rng.normal(0, 0.1, (3 * 44_100, 2)), 44_100)
    assert inference.main([str(tmp_path / "mine.ogg"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["verdict"] in ("bonafide", "spoof", "uncertain")
    again = predict_audio(DEFAULT_MODEL, tmp_path / "mine.ogg")
    assert again["prediction"] == result["prediction"]
    assert result["model"] == DEFAULT_MODEL
    assert again["spoof_probability"] == pytest.approx(result["spoof_probability"], abs=1e-6)


def test_a_moment_of_sound_gets_no_verdict():
    result = predict_waveform(load_model(DEFAULT_MODEL), np.random.default_rng(0).normal(0, 0.1, 6_000))
    assert result["verdict"] == "uncertain" and "below 1 s" in " ".join(result["warnings"])


@pytest.mark.parametrize("name", SHIPPED)
def test_better_than_chance_on_data_it_was_not_trained_on(name, shared_data):
    """ASVspoof 2019 LA: other recordings, older systems. The card has the figure."""
    table = read_dataset(shared_data / "LA").usable(allow_missing=True)
    table = table[table["split"].isin(["train", "dev"])].reset_index(drop=True)
    reader = ClipReader(table)
    rows, logits = judge_clips(load_model(name), reader, "LA")
    eer = compute_eer(-logits.astype(np.float64), reader.labels[rows])[0]
    assert eer == pytest.approx(
        read_card(PRETRAINED / f"{name}.keras")["elsewhere"]["ASVspoof 2019 LA"]["eer"], abs=0.03
    )
    assert eer < 0.4
