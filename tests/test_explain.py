"""Explanations name what a detector listens to: shown on detectors that listen to a known place and to nothing else."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import contract
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from known_detectors import REGION, SAMPLES, clip, known_picture, known_samples, within

import explain as command
import inference
import relevance
from backend import keras
from clip_plots import explanation_figure
from config import LABELS, SAMPLE_RATE, FeatureConfig
from errors import UserError, run_command
from explain import explain, heaviest_rectangle
from faithfulness import LOUDEST
from figure_style import png_bytes
from model import MODELS, build_model, save_model
from relevance import METHODS, PATCH, find_method, reason_against
from sound_cells import CELL_HERTZ, CELL_SECONDS, SoundCells

REPOSITORY = Path(__file__).resolve().parents[1]
CHEAP = {"smooth_gradient": {"draws": 1}, "integrated_gradients": {"steps": 1}}
HEAVY = {"resmax_wide", "resnet50", "rawnet2", "aasist", "aasist_l", "res_efficient_cnn", "res2net50", "resmax_gap"}
HEAVY |= {"se_res2net50_thin", "lcnn"}


@pytest.fixture(scope="module")
def picture() -> keras.Model:
    return known_picture()


@pytest.fixture(scope="module")
def samples() -> keras.Model:
    return known_samples()


# ---------------------------------------------------------------- a known detector is explained to what it hears


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_a_detector_hears_is_named(picture: keras.Model, method: str, sign: float) -> None:
    explanation = explain(picture if sign > 0 else known_picture(-1.0), clip(), method)
    inside = np.outer(within(explanation.time, "seconds"), within(explanation.frequency, "hertz"))
    relevance = explanation.relevance
    # a patch may touch the region with its last cell, and a frame of 64 ms reaches over one
    places, reach = (inside.any(1), inside.any(0)), [2 * size + 1 for size in PATCH]
    near = np.outer(*(np.convolve(part, np.ones(r), "same") > 0 for part, r in zip(places, reach, strict=True)))
    assert np.abs(relevance[near]).sum() > 0.95 * np.abs(relevance).sum()
    assert np.abs(relevance[inside]).mean() > 20 * np.abs(relevance[~near]).mean()
    assert np.sign(relevance.sum()) == sign  # sound here raises, or lowers, the logit
    over_time = np.abs(relevance.sum(axis=1))
    assert explanation.time[over_time > over_time.max() / 10].min() > REGION["seconds"][0] - 0.3


@pytest.mark.parametrize("method", ["smooth_gradient", "occlusion", "integrated_gradients", "gradient"])
def test_what_a_raw_detector_hears_is_named(samples: keras.Model, method: str) -> None:
    explanation = explain(samples, clip(), method)
    over_time = explanation.relevance.sum(axis=1)
    near = (explanation.time > REGION["seconds"][0] - 0.25) & (explanation.time < REGION["seconds"][1] + 0.25)
    assert np.abs(over_time[near]).sum() > 0.95 * np.abs(over_time).sum()
    assert over_time.sum() > 0


@pytest.mark.parametrize(("method", "most"), [("grad_cam", 0.9), ("occlusion", 0.6)])  # patches reach over the edge
def test_the_strongest_region_is_the_one_that_is_heard(picture: keras.Model, method: str, most: float) -> None:
    explanation = explain(picture, clip(), method)
    assert explanation.label == 1
    (first, *_) = explanation.regions()
    assert np.abs(np.subtract(first["seconds"], REGION["seconds"])).max() < 0.15
    assert np.abs(np.subtract(first["hertz"], REGION["hertz"])).max() <= 2 * CELL_HERTZ
    assert first["share"] > most
    assert "% of the evidence is for spoof: " in str(explanation) and "kHz" in str(explanation)


def test_evidence_that_is_spread_evenly_is_still_evidence(picture: keras.Model) -> None:
    explanation = replace(explain(picture, clip()), relevance=np.full((32, 32), 0.01))
    (everything,) = explanation.regions()
    assert everything["share"] == pytest.approx(1) and everything["hertz"] == [0, 8000]
    against = replace(explanation, relevance=np.full((32, 32), -0.01))
    assert against.regions() == [] and "nothing in this window speaks for spoof" in str(against)


def test_regions_come_by_their_share_and_small_ones_are_not_named(picture: keras.Model) -> None:
    cells = np.zeros((32, 32))
    cells[2:12, 2:12], cells[20:22, 20:22], cells[28, 28] = 1, 20, 10  # 100, 80 and 10 of 190
    cells[28, 2] = -10
    explanation = replace(explain(picture, clip(), "gradient"), relevance=cells)
    shares = [region["share"] for region in explanation.regions()]
    assert shares == pytest.approx([100 / 190, 80 / 190, 10 / 190])  # though the second is denser
    assert "95 % of the evidence is for spoof: " in explanation.sentence()  # 190 of 200
    cells[28, 28] = 5  # less than a twentieth now
    assert len(explanation.regions()) == 2


def test_the_window_that_speaks_most_for_the_verdict_is_explained(picture: keras.Model) -> None:
    quiet, loud = 0.01 * clip(1), clip(2)
    spoof = np.concatenate([quiet, loud, loud, loud, quiet])
    explanation = explain(picture, spoof, "gradient")
    starts = inference.window_starts(spoof, SAMPLES)
    logits = relevance.clip_logits(picture, [spoof[start : start + SAMPLES] for start in starts])
    assert logits.mean() > 0 and explanation.logit == pytest.approx(logits.max(), abs=1e-4)
    bonafide = np.concatenate([quiet, loud, quiet, quiet, quiet, quiet])
    explanation = explain(picture, bonafide, "gradient")
    assert explanation.verdict == "bonafide" and explanation.start != 2.0
    assert explain(picture, bonafide, "gradient", start=2.0).verdict == "spoof"


def test_the_background_is_what_stands_where_sound_was_removed(picture: keras.Model) -> None:
    explanation = explain(picture, clip())
    removed = SoundCells(clip()).without(np.ones((32, 32), bool))
    assert explanation.background == pytest.approx(relevance.clip_logits(picture, [removed])[0], abs=1e-4)
    assert explanation.background < explanation.logit - 1  # this detector hears how loud REGION is
    assert explanation.to_dict()["background_logit"] == explanation.background


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_cells_add_up_to_the_logit_over_the_background(picture: keras.Model, method: str) -> None:
    sound, options = SoundCells(clip()), {"steps": 64} if method == "integrated_gradients" else {}
    there, background = relevance.clip_logits(picture, [sound.with_share(1.0), sound.with_share(0.0)])
    assert METHODS[method](picture, sound, **options).sum() == pytest.approx(there - background, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=12), st.integers(-40, 40))
def test_values_are_made_to_add_up_without_turning_their_signs(numbers: list[int], whole: int) -> None:
    values = np.array(numbers, float)
    scaled = relevance.adding_up(values, whole)
    if whole and (np.sign(values) == np.sign(whole)).any():
        assert scaled.sum() == pytest.approx(whole)
    elif whole:
        np.testing.assert_allclose(scaled, values)
    assert (scaled * values >= 0).all() and (scaled[values == 0] == 0).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(scaled[order]) >= -1e-9).all()  # and the order stays, so nothing else is named
    if values.sum() == whole:
        np.testing.assert_allclose(scaled, values)


def test_a_short_clip_is_explained_in_its_own_time(picture: keras.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relevance, "PATCH", (2, 8))
    short = clip(5, 1.0)  # heard twice: the region of 0.6 to 1.2 s is its end and its beginning
    for method in METHODS:
        explanation = explain(picture, short, method)
        assert explanation.time[-1] < 1.0
        over_time = np.abs(explanation.relevance.sum(axis=1))
        heard = (explanation.time > 0.6) | (explanation.time < 0.2)
        assert over_time[heard].mean() > 4 * over_time[(explanation.time > 0.35) & (explanation.time < 0.45)].mean()


def test_a_later_window_is_explained_in_the_time_of_the_clip(picture: keras.Model) -> None:
    long = clip(6, 5.0)
    explanation = explain(picture, long, "gradient", start=2.0)
    np.testing.assert_allclose(explanation.relevance, explain(picture, long[32_000:64_000], "gradient").relevance)
    assert explanation.time[0] == pytest.approx(2.0 + CELL_SECONDS / 2)
    assert 2.5 < explanation.regions()[0]["seconds"][0] < 2.75
    with pytest.raises(UserError, match="begins between 0 and 3 s"):
        explain(picture, long, start=3.5)


def test_cepstra_have_no_frequency_for_grad_cam(picture: keras.Model) -> None:
    explanation = explain(known_picture(features=FeatureConfig("lfcc", SAMPLES)), clip(), "grad_cam")
    assert explanation.frequency is None and explanation.relevance.shape == (len(explanation.time), 1)
    assert explanation.regions()[0]["hertz"] is None
    assert explanation.figure().axes


@pytest.mark.parametrize("kind", ["log_stft", "mel", "cqt"])
@pytest.mark.parametrize("seconds", [2.0, 0.8])
def test_a_coarse_map_keeps_its_sum_and_its_place(kind: str, seconds: float) -> None:
    sound, hertz = SoundCells(clip(0, seconds)), relevance.picture_hertz(FeatureConfig(kind, SAMPLES))
    parts = np.zeros((25, 16))
    parts[:, 12] = 0.5  # three quarters up the picture, whatever its scale
    cells = relevance._on_cells(parts, hertz, SAMPLES, sound)
    assert cells.shape == sound.shape and cells.sum() == pytest.approx(parts.sum())
    low, high = np.interp([12 / 16, 13 / 16], np.linspace(0, 1, len(hertz)), hertz)
    near = (sound.frequency > low - CELL_HERTZ) & (sound.frequency < high + CELL_HERTZ)
    assert cells[:, near].sum() == pytest.approx(parts.sum())


def test_the_default_is_by_what_the_network_hears(
    picture: keras.Model, samples: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_method(picture)[0] == "occlusion"
    assert find_method(samples)[0] == "smooth_gradient"
    with monkeypatch.context() as patch:
        patch.setattr(relevance, "reason_against", lambda model, name: "no gradients" if name != "occlusion" else None)
        assert relevance.default_method(samples) == "occlusion"


def test_methods_that_do_not_fit_say_why(samples: keras.Model) -> None:
    with pytest.raises(UserError, match="grad_cam does not fit known_raw: it reads raw samples"):
        explain(samples, clip(), "grad_cam")
    with pytest.raises(UserError, match="unknown method 'magic'; valid: occlusion, grad_cam"):
        explain(samples, clip(), "magic")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in MODELS]
)
def test_every_network_can_be_explained(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relevance, "PATCH", (16, 32))
    keras.utils.set_random_seed(1)
    model = build_model(contract.small(name))
    model(contract.clips()[0], training=True)  # batch statistics of its own
    sound = SoundCells(contract.clips()[0][0])
    for method in METHODS:
        if name in HEAVY and method in CHEAP:  # they run the same code as `gradient`
            continue
        if method == "grad_cam" and MODELS[name].front_end == "raw":
            assert reason_against(model, method)
            continue
        values = find_method(model, method)[1](model, sound, **CHEAP.get(method, {}))
        alone = method == "grad_cam" and MODELS[name].front_end == "lfcc"
        assert values.shape == (sound.shape[0], 1 if alone else sound.shape[1])
        assert np.isfinite(values).all() and np.abs(values).max() > 0, method


def test_a_network_of_several_columns_is_explained_by_all_of_them() -> None:
    keras.utils.set_random_seed(1)
    model = build_model(replace(contract.small("small_resnet"), model_args={"width": 0.2, "sees": "fine,fine"}))
    model(contract.clips()[0], training=True)
    relevances = [explain(model, contract.clips()[0][0], "grad_cam").relevance]
    last = model.get_layer("small_resnet").get_layer("column_logits")
    kernel, bias = last.get_weights()
    kernel[:, 1] = 0  # the second column is not asked
    last.set_weights([kernel, bias])
    relevances.append(explain(model, contract.clips()[0][0], "grad_cam").relevance)
    assert np.isfinite(relevances).all() and np.abs(relevances[0] - relevances[1]).max() > 1e-6


def test_a_network_without_front_end_is_explained_as_it_is_heard() -> None:
    keras.utils.set_random_seed(1)
    model = build_model(contract.Config(model="simple_cnn", features=FeatureConfig()))
    network, waveform = model.get_layer("simple_cnn"), clip(7)
    for method in ("gradient", "grad_cam"):
        expected = explain(model, waveform, method).relevance
        np.testing.assert_allclose(explain(network, waveform, method).relevance, expected, rtol=1e-3, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10_000))
def test_the_heaviest_rectangle_is_the_heaviest(rows: int, columns: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(-5, 6, (rows, columns)).astype(float)
    best = max(
        values[a:b, c:d].sum()
        for a in range(rows)
        for b in range(a + 1, rows + 1)
        for c in range(columns)
        for d in range(c + 1, columns + 1)
    )
    assert values[heaviest_rectangle(values)].sum() == best


# ---------------------------------------------------------------- figure and command


def test_the_figure_shows_both_signs_and_the_notebook_gets_it(picture: keras.Model) -> None:
    explanation = explain(picture, clip(), "gradient")
    labels = {axes.get_ylabel() for axes in explanation.figure().axes}
    assert {"amplitude", "frequency (kHz)", "logits a frame", "logits a cell"} <= labels
    assert "data:image/png;base64," in explanation._repr_html_()
    costly = replace(explanation, name="folder/$5 or $6.wav")  # no formula
    assert costly.figure().axes[0].get_title().startswith("$5 or $6.wav\nspoof: logit ")
    assert b"PNG" in png_bytes(costly.figure())
    long = replace(explanation, name=f"first{80 * 'x'}last.wav")
    (name, _) = long.figure().axes[0].get_title().split("\n")
    assert name.startswith("first") and name.endswith("last.wav") and len(name) < 60
    nothing = explanation_figure(clip(), np.zeros((10, 5)), np.zeros((32, 32)), CELL_SECONDS)
    assert nothing.axes


@pytest.fixture
def folder(tmp_path: Path, picture: keras.Model) -> Path:
    save_model(picture, tmp_path / "known.keras", {"model": "known"})
    for number, label in enumerate(["bonafide", "spoof"] * 3):
        path = tmp_path / "data" / label / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, clip(number), SAMPLE_RATE)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    return run_command(lambda: command.main([str(word) for word in words]))


def test_the_verdict_is_that_of_inference_on_the_window_it_names(picture: keras.Model, monkeypatch) -> None:
    sound = clip()
    point = {"threshold": 0.0, "uncertain": [-50.0, 50.0], "minimum_seconds": 0.0, "calibration": None}
    monkeypatch.setattr(command, "operating_point", lambda model: point)
    whole = explain(picture, sound, name="a.wav")
    assert whole.verdict == "uncertain" == whole.to_dict()["verdict"] and str(whole).startswith(
        "a.wav: uncertain  logit"
    )
    point["uncertain"] = [0.0, 0.0]
    half = explain(picture, np.concatenate([sound, sound]), start=0.5, name="a.wav")
    heard = len(half.waveform) / 16_000
    assert str(half).startswith(f"a.wav, 0.5-{0.5 + heard:g} s of {len(sound) / 8_000:.2f} s: {half.verdict}  logit")
    assert half.verdict == LABELS[half.label]
    point["minimum_seconds"] = 2 * len(sound) / 16_000 + 0.1
    short = explain(picture, sound)
    assert short.verdict == "uncertain" and "the detector has not been measured]" in str(short)


def test_files_are_explained_and_a_bad_one_is_reported(folder: Path, monkeypatch, capsys) -> None:
    (folder / "bad.wav").write_bytes(b"")
    files = [folder / "data" / "spoof" / "1.wav", folder / "bad.wav", folder / "data" / "spoof" / "3.wav"]
    options = ["--model", folder / "known.keras", "--method", "gradient", "--out", folder / "out"]
    assert run(monkeypatch, *files, *options) == 1
    printed = capsys.readouterr()
    assert printed.out.count("of the evidence is for spoof: ") == 2 and "bad.wav: empty file" in printed.err
    assert (folder / "out" / "1.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((folder / "out" / "3.json").read_text(encoding="utf-8"))
    assert written["prediction"] == "spoof" and written["regions"][0]["share"] > 0.5


def test_a_check_writes_its_report(folder: Path, monkeypatch, capsys) -> None:
    options = ["--model", folder / "known.keras", "--method", "gradient", "--out", folder / "out"]
    assert run(monkeypatch, "--check", folder / "data", *options, "--limit", "6") == 0
    printed = capsys.readouterr().out
    assert "gradient: removing what it names moves the logit more than random regions do." in printed
    assert LOUDEST in printed
    page = (folder / "out" / "check.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page and "Known segments" in page and "6 clips" in page


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "give audio files to explain, or --check DATASET"),
        (("a.wav", "--check", "d"), "give audio files to explain, or --check DATASET"),
        (("a.wav", "--seed", "2"), "--seed belongs to --check"),
        (("a.wav", "--allow-missing"), "--allow-missing belongs to --check"),
        (("--check", "d", "--start", "1"), "--start is for files"),
        (("--check", "d", "--limit", "0"), "--limit 0: must be 1 or more"),
        (("a.wav",), "no model 'none'"),
    ],
)
def test_wrong_commands_are_one_line(words: tuple, problem: str, monkeypatch, capsys) -> None:
    assert run(monkeypatch, *words, "--model", "none") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and problem in line


JAX = """
import sys
import numpy as np
import test_explain as t
values = [t.METHODS[m](t.known_picture(), t.SoundCells(t.clip())) for m in ("gradient", "grad_cam")]
np.savez(sys.argv[1], *values)
"""


@pytest.mark.slow
def test_jax_explains_the_same(picture: keras.Model, tmp_path: Path) -> None:
    file = tmp_path / "values.npz"
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join([str(REPOSITORY), "tests"])}
    subprocess.run([sys.executable, "-c", JAX, str(file)], cwd=REPOSITORY, env=environment, check=True)
    with np.load(file) as there:
        for name, method in (("arr_0", "gradient"), ("arr_1", "grad_cam")):
            here = METHODS[method](picture, SoundCells(clip()))
            np.testing.assert_allclose(there[name], here, atol=1e-3 * np.abs(here).max())
