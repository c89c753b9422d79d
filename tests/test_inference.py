"""predict_audio and the inference command: from any file to a verdict, in the process of a stranger."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import inference
from backend import keras
from clip_reader import ClipReader
from config import SAMPLE_RATE, Config, FeatureConfig
from errors import AudioError, UserError
from inference import (
    POOLING,
    calibration_note,
    cut_windows,
    judge_clips,
    predict_audio,
    predict_folder,
    predict_waveform,
    quality_warnings,
    score_clips,
    window_starts,
)
from model import build_model, build_network, load_model, save_model, set_operating_point, spoof_logits

REPOSITORY = Path(__file__).resolve().parents[1]
POINT = {
    "threshold": 0.25,
    "uncertain": [-0.5, 0.75],
    "calibration": {"a": 1.5, "b": 0.125},
}


def speech_like(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise under a moving envelope, with energy up to 8 kHz and pauses."""
    samples = int(seconds * SAMPLE_RATE)
    envelope = np.abs(np.sin(np.arange(samples) / SAMPLE_RATE * 2 * np.pi * 1.5)) + 0.02
    return (0.1 * envelope * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """An untrained ResMax on the log-STFT of 4 s that carries an operating point."""
    keras.utils.set_random_seed(3)
    model = build_model(Config())
    set_operating_point(model, POINT)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model) -> Path:
    """Two good files, one long file, three bad ones, and the model in both formats."""
    folder = tmp_path_factory.mktemp("inference")
    save_model(model, folder / "resmax_model.keras", {"model": "resmax"})
    save_model(model, folder / "resmax_model.h5")
    (folder / "clips" / "deeper").mkdir(parents=True)
    for number, seconds in enumerate((3.0, 4.0, 9.3)):
        soundfile.write(folder / "clips" / f"good_{number}.flac", speech_like(seconds, number), SAMPLE_RATE)
    soundfile.write(folder / "clips" / "deeper" / "silent.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    (folder / "clips" / "text.mp3").write_text("not audio", encoding="utf-8")
    (folder / "clips" / "empty.wav").write_bytes(b"")
    (folder / "clips" / "notes.txt").write_text("not looked at", encoding="utf-8")
    return folder


def python(code: str) -> str:
    """What some code prints in a fresh process, which must not complain."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def test_the_readme_snippet_in_a_fresh_process(model, folder):
    """With the model in both formats."""
    (block,) = re.findall(
        r"```python\n([^`]*load_model[^`]*)```", (REPOSITORY / "README.md").read_text(encoding="utf-8")
    )
    block = block.replace("my.wav", str(folder / "clips" / "good_0.flac"))
    block += 'print(result["prediction"], repr(result["spoof_probability"]), repr(result["logit"]))\n'
    formats = [block.replace("resmax_model.h5", str(folder / f"resmax_model.{suffix}")) for suffix in ("h5", "keras")]
    here = predict_audio(model, folder / "clips" / "good_0.flac")
    lines = python("".join(formats)).splitlines()
    assert len(lines) == 2
    for line in lines:
        prediction, probability, logit = line.split()
        assert prediction == here["prediction"]
        assert float(probability) == pytest.approx(here["spoof_probability"], abs=1e-6)
        assert float(logit) == pytest.approx(here["logit"], abs=1e-5)


def test_a_result_holds_what_the_readme_says(model, folder):
    result = predict_audio(model, folder / "clips" / "good_1.flac")
    logit = result["logit"]
    assert result["prediction"] == ("spoof" if logit >= 0.25 else "bonafide")
    assert result["verdict"] == ("uncertain" if -0.5 <= logit < 0.75 else result["prediction"])
    # llr = a * cm_score + b with cm_score = -logit; equal priors
    assert result["spoof_probability"] == pytest.approx(1 / (1 + np.exp(1.5 * -logit + 0.125)), rel=1e-6)
    assert result["seconds"] == pytest.approx(4.0)
    assert result["threshold"] == 0.25 and result["pooling"] == POOLING and result["windows"] == 1
    json.dumps(result)  # plain values only
    line = str(result)
    assert "\n" not in line and result["verdict"] in line and "good_1.flac" in line


@pytest.mark.parametrize(
    "shift, prediction, verdict",
    [
        (-1.0, "bonafide", "bonafide"),
        (0.0, "bonafide", "uncertain"),
        (0.3, "spoof", "uncertain"),
        (1.0, "spoof", "spoof"),
    ],
)
def test_the_three_verdicts(model, monkeypatch, shift, prediction, verdict):
    monkeypatch.setattr(inference, "window_logits", lambda model, windows: np.full(len(windows), shift, np.float32))
    result = predict_waveform(model, speech_like(2))
    assert (result["prediction"], result["verdict"]) == (prediction, verdict)
    assert ("uncertain from -0.500 to +0.750" in str(result)) == (verdict == "uncertain")


def test_a_model_without_operating_point_says_so_and_uses_zero(folder):
    result = predict_audio(build_model(Config()), folder / "clips" / "good_1.flac")
    assert result["threshold"] == 0.0 and any("no threshold" in warning for warning in result["warnings"])
    assert result["spoof_probability"] == pytest.approx(1 / (1 + np.exp(-result["logit"])), rel=1e-6)


def test_model_may_be_an_object_a_path_or_a_run_folder(model, folder, tmp_path):
    clip = folder / "clips" / "good_0.flac"
    save_model(model, tmp_path / "best.keras", {"model": "resmax"})
    results = [predict_audio(m, clip)["logit"] for m in (model, folder / "resmax_model.h5", str(tmp_path))]
    np.testing.assert_allclose(results, results[0], atol=1e-5)


def test_a_network_without_front_end_gives_the_same_logit(model, folder):
    clip = folder / "clips" / "good_2.flac"
    network = build_network(Config())
    network.set_weights(model.get_layer("resmax").get_weights())
    assert network.input_shape == (None, 250, 513, 1)
    assert predict_audio(network, clip)["logit"] == pytest.approx(predict_audio(model, clip)["logit"], abs=1e-4)


def test_models_that_speak_another_language_are_refused(folder):
    clip = folder / "clips" / "good_0.flac"
    waveform = keras.Input((64_000,))
    probability = keras.layers.Dense(1, activation="sigmoid")(waveform)
    with pytest.raises(UserError, match="ends in sigmoid"):
        predict_audio(keras.Model(waveform, probability), clip)
    picture = keras.Input((99, 40, 1))
    with pytest.raises(UserError, match=r"\(250, 513, 1\)"):
        predict_audio(keras.Model(picture, keras.layers.Flatten()(picture)), clip)


def test_a_clip_scores_the_same_alone_in_a_batch_and_in_a_table(model, folder):
    clips = sorted((folder / "clips").glob("good_[01].flac"))
    table = pd.DataFrame({"path": list(map(str, clips)), "label": [0, 1]})
    rows, logits = score_clips(model, ClipReader(table), "test")
    alone = [predict_audio(model, clip)["logit"] for clip in clips]
    assert rows.tolist() == [0, 1]
    np.testing.assert_allclose(logits, alone, atol=1e-4)  # the convolutions add up in another order


def test_a_table_is_judged_as_its_files_are(model, folder):
    files = sorted((folder / "clips").rglob("*.*"))
    table = pd.DataFrame({"path": list(map(str, files)), "label": 0})
    reader = ClipReader(table)
    rows, logits = judge_clips(model, reader, "test")
    results = [result for _, result in predict_folder(model, files)]
    good = [row for row, result in enumerate(results) if not isinstance(result, AudioError)]
    assert rows.tolist() == good and 0 < len(reader.failures) == len(files) - len(good)
    assert max(results[row]["windows"] for row in good) > 1
    np.testing.assert_allclose(logits, [results[row]["logit"] for row in good], atol=1e-4)
    with pytest.raises(UserError, match=r"nothing: none of 1 clips could be read; the first: .*gone\.wav"):
        judge_clips(model, ClipReader(pd.DataFrame({"path": ["gone.wav"], "label": [0]})), "nothing")


def test_a_long_clip_is_the_mean_of_its_windows(model):
    waveform = speech_like(11)
    windows = cut_windows(waveform, 64_000)
    assert [len(w) for w in windows] == [64_000] * len(windows)
    starts = [0, 32_000, 64_000, 96_000, 112_000]  # half a window apart; the last ends with the clip
    for window, start in zip(windows, starts, strict=True):
        np.testing.assert_array_equal(window, waveform[start : start + 64_000])
    result = predict_waveform(model, waveform)
    each = [spoof_logits(model, window[None])[0] for window in windows]
    assert result["windows"] == 5
    assert result["logit"] == pytest.approx(np.mean(each), abs=1e-5)


def test_windows_cover_every_sample_whatever_the_length():
    for length in (1, 9, 10, 11, 15, 20, 21, 37):
        waveform = np.arange(1, length + 1)
        windows = cut_windows(waveform, 10)
        assert set(np.concatenate(windows)) == set(waveform)
        assert all(len(window) == 10 for window in windows)


def test_silence_has_no_say(model):
    """The mean is that of the windows that hold sound, wherever the silence is."""
    speech, silence = speech_like(8), np.zeros(20 * SAMPLE_RATE, np.float32)
    followed = predict_waveform(model, np.concatenate([speech, silence]))
    ending = np.concatenate([speech, silence[: 2 * SAMPLE_RATE]])  # the last window that holds speech ends here
    expected = predict_waveform(model, ending)
    assert followed["windows"] == expected["windows"] == 4
    assert followed["logit"] == pytest.approx(expected["logit"], abs=1e-5)
    heard = window_starts(np.concatenate([silence, speech, silence]), 4 * SAMPLE_RATE)
    assert min(heard) > 16 * SAMPLE_RATE and max(heard) < 28 * SAMPLE_RATE
    assert window_starts(silence, 4 * SAMPLE_RATE)[:2] == [0, 2 * SAMPLE_RATE]  # where there is nothing else


@pytest.mark.parametrize(
    ("waveform", "words"),
    [(np.zeros(32_000, np.float32), "silent"), (np.float32(3_000) * speech_like(1), "floats are expected within")],
)
def test_silence_and_unscaled_floats_are_refused(model, waveform, words):
    with pytest.raises(AudioError, match=words):
        predict_waveform(model, waveform)


def test_one_name_may_stand_alone(model, folder):
    several = [path for path, _ in predict_folder(model, [folder / "clips"])]
    assert len(several) > 1
    for name in (folder / "clips", str(folder / "clips")):
        assert [path for path, _ in predict_folder(model, name)] == several


@pytest.mark.parametrize(
    "waveform, words",
    [
        (speech_like(0.5), "short (0.50 s)"),
        (np.clip(30 * speech_like(3), -1, 1), "clipped"),
        (np.concatenate([speech_like(1), np.zeros(4 * SAMPLE_RATE, np.float32)]), "mostly silence"),
        (0.3 * np.sin(2 * np.pi * 1000 * np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE), "narrow band"),
    ],
)
def test_warnings_name_what_is_wrong_with_the_clip(waveform, words):
    warnings = quality_warnings(np.asarray(waveform, np.float32))
    assert len(warnings) == 1 and words in warnings[0]


def test_no_warning_for_an_ordinary_clip():
    assert quality_warnings(speech_like(3)) == []


def test_the_notebook_display_shows_verdict_and_picture(model, folder):
    page = predict_audio(model, folder / "clips" / "good_0.flac")._repr_html_()
    assert "good_0.flac" in page and "spoof probability" in page
    assert "data:image/png;base64,iVBORw0KGgo" in page  # the PNG signature


def test_names_in_the_display_are_escaped(model):
    page = predict_waveform(model, speech_like(1), "<script>alert(1)</script>.wav")._repr_html_()
    assert "<script>" not in page


def test_the_command_goes_on_past_bad_files_lists_them_and_ends_1(folder, tmp_path, command):
    out = tmp_path / "verdicts.csv"
    model = folder / "resmax_model.keras"
    code, output, errors = command(inference.main, folder / "clips", "nowhere.wav", "--model", model, "--csv", out)
    assert code == 1
    *verdicts, note = output.splitlines()
    assert "calibrated on the dev part of the data it was trained on" in note
    assert [line.split(":")[0].rsplit("/", 1)[1] for line in verdicts] == [
        "good_0.flac",
        "good_1.flac",
        "good_2.flac",
    ]
    complaints = errors.splitlines()
    assert "4 of 7 files could not be judged:" in complaints
    for name, reason in (
        ("silent.wav", "silent"),
        ("text.mp3", "decoded"),
        ("empty.wav", "0 bytes"),
        ("nowhere", "no such"),
    ):
        assert sum(name in line and reason in line for line in complaints[1:]) == 1
    table = pd.read_csv(out)
    assert table["error"].isna().sum() == 3 and len(table) == 7
    assert {"path", "prediction", "verdict", "spoof_probability", "logit"} <= set(table)
    assert set(table["calibrated_on"].dropna()) == {"the dev part of the data it was trained on"}


def test_the_command_prints_json_lines(folder, command):
    clips = folder / "clips"
    files = (clips / "good_0.flac", clips / "empty.wav")
    code, output, _ = command(inference.main, *files, "--model", folder / "resmax_model.keras", "--json")
    first, second = map(json.loads, output.splitlines())
    assert first["calibrated_on"] == "the dev part of the data it was trained on"
    assert first["prediction"] in ("bonafide", "spoof") and "0 bytes" in second["error"]
    assert code == 1


def test_good_files_only_end_0_and_say_nothing_else(folder, command):
    code, output, errors = command(
        inference.main, folder / "clips" / "good_0.flac", "--model", folder / "resmax_model.h5"
    )
    verdict, note = output.splitlines()
    assert (code, errors) == (0, "") and "good_0.flac" in verdict and "probabilities are" in note


def test_the_note_says_what_probabilities_refer_to(folder):
    model = load_model(folder / "resmax_model.keras")
    set_operating_point(model, POINT | {"source": "scores of unheard pages"})
    assert "calibrated on scores of unheard pages, for equally many" in calibration_note(model)
    assert predict_waveform(model, speech_like(1))["calibrated_on"] == "scores of unheard pages"
    set_operating_point(model, {"threshold": 0.0, "uncertain": [0.0, 0.0]})
    assert "not calibrated" in calibration_note(model)
    assert predict_waveform(model, speech_like(1))["calibrated_on"] is None


def test_below_what_was_measured_the_verdict_is_open(folder):
    model = load_model(folder / "resmax_model.keras")
    decided = POINT | {"uncertain": [POINT["threshold"]] * 2}
    set_operating_point(model, decided | {"minimum_seconds": 1.0})
    below, enough = (predict_waveform(model, speech_like(seconds)) for seconds in (0.9, 1.0))
    assert below["verdict"] == "uncertain" and enough["verdict"] == enough["prediction"]
    assert any("below 1 s the detector has not been measured" in text for text in below["warnings"])
    assert not any("has not been measured" in text for text in enough["warnings"])


def test_one_line_for_an_unknown_model(folder, command):
    code, _, errors = command(inference.main, folder / "clips" / "good_0.flac", "--model", "resnext")
    assert code == 2 and errors.startswith("error: no model 'resnext'") and errors.count("\n") == 1


def test_an_empty_folder_is_listed_and_the_rest_is_judged(folder, tmp_path, command):
    (tmp_path / "empty").mkdir()
    files = [tmp_path / "empty", folder / "clips" / "good_0.flac", "--model", folder / "resmax_model.h5"]
    code, shown, errors = command(inference.main, *files)
    assert code == 1 and "good_0.flac: " in shown
    assert "1 of 2 files could not be judged:" in errors and "empty: no audio files (.aac, " in errors


@pytest.mark.parametrize(
    "waveform", [np.zeros((2, 9)), np.ones(9, np.int16), np.zeros(0), np.full(64_000, np.nan)], ids=str
)
def test_a_waveform_of_another_kind_is_refused(model, waveform):
    with pytest.raises(AudioError, match="a mono float waveform"):
        predict_waveform(model, waveform)


def test_a_waveform_that_is_too_short_is_refused_as_a_file_is(model):
    with pytest.raises(AudioError, match=r"click: 0\.0999 s long; at least 0\.1 s is needed"):
        predict_waveform(model, np.full(1_599, 0.1), "click")


def test_csv_into_a_missing_folder_is_refused_before_the_work(folder, tmp_path, command):
    out = tmp_path / "nowhere" / "verdicts.csv"
    model = folder / "resmax_model.h5"
    code, output, errors = command(inference.main, folder / "clips" / "good_0.flac", "--model", model, "--csv", out)
    assert (code, output) == (2, "") and "there is no folder" in errors


def test_predict_audio_names_the_file_it_cannot_read(model, tmp_path):
    with pytest.raises(AudioError, match=r"missing\.wav: no such file"):
        predict_audio(model, tmp_path / "missing.wav")


def test_importing_inference_pulls_nothing_slow_that_is_not_needed():
    code = "import inference, sys; print([m for m in ('streamlit', 'librosa', 'plots') if m in sys.modules])"
    assert python(code).strip() == "[]"


def test_other_input_lengths_come_from_the_model():
    config = Config(features=FeatureConfig(samples=8_000), model_args={"head": "average"})
    assert predict_waveform(build_model(config), speech_like(1.25))["windows"] == 4
