"""The web page: from an upload to a verdict in words, whatever is uploaded, and nothing left behind."""

import fnmatch
import io
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import streamlit
from streamlit.testing.v1 import AppTest
from test_structure import imports, parse

import app
import figure_style
import inference
import model as model_file
import uploads
import verdict_words
from backend import keras
from config import SAMPLE_RATE, Config, feature_config
from errors import AudioError
from inference import as_model, predict_audio, predict_waveform
from model import build_model, save_model, set_operating_point

REPOSITORY = Path(__file__).resolve().parents[1]
NETWORK = Config(model="simple_cnn", features=feature_config("lfcc"))
PIXEL = figure_style.png_bytes(figure_style.new_figure(0.01, 0.01))
CALIBRATION = {"a": 0.8, "b": 0.1}
CARD = {
    "model": "simple_cnn",
    "parameters": 268_961,
    "data": {"dataset": "Anna's_voices", "clips": {"train": {"bonafide": 1200, "spoof": 40}}},
    "metrics": {
        "dev": {"eer": 0.02},
        "eval": {
            "eer": 0.25,
            "intervals": {"trials": {"eer": [0.23, 0.27]}, "speakers": {"eer": [0.21, 0.31]}},
            "decision": {"frr": 0.045, "far": 0.425},
        },
    },
    "licence": "for research alone",
}


def sound(seconds: float = 2.0, seed: int = 0, rate: int = SAMPLE_RATE) -> bytes:
    """A FLAC file of noise under a moving envelope."""
    moments = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(moments))
    file = io.BytesIO()
    soundfile.write(file, 0.1 * (np.abs(np.sin(9 * moments)) + 0.02) * noise, rate, format="FLAC")
    return file.getvalue()


def make_site(site: Path) -> Path:
    """A folder whose runs hold one network three times: for the clip of seed 0 each has another verdict."""
    keras.utils.set_random_seed(4)
    model = build_model(NETWORK)
    (site / "clip.flac").write_bytes(sound())
    logit = predict_audio(model, site / "clip.flac")["logit"]
    for name, threshold, low, high in (("uncertain", 0.5, -1, 1), ("bonafide", 2, 1, 3), ("spoof", -2, -3, -1)):
        folder = site / "runs" / name
        folder.mkdir(parents=True)
        point = {"threshold": logit + threshold, "uncertain": [logit + low, logit + high], "calibration": CALIBRATION}
        point |= {"dev_bonafide": 2548, "dev_spoof": 300}
        set_operating_point(model, point)
        save_model(model, folder / "best.keras", CARD | {"operating_point": point})
        (folder / "metrics.json").write_text("{}", encoding="utf-8")
    (site / "runs" / "unfinished").mkdir()
    save_model(model, site / "runs" / "unfinished" / "best.keras", CARD)
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def open_page(monkeypatch, request) -> Callable[..., AppTest]:
    """(folder, address) -> the page of a server that was started in a folder and listens at an address.

    Pictures are drawn in the slow tests alone, most of the others' time would go there.
    """
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(figure_style, "png_bytes", lambda figure: PIXEL)

    def opened(folder: Path, address: str = "localhost") -> AppTest:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(model_file, "PRETRAINED", folder / "pretrained")  # the runs of a test are all there is
        monkeypatch.setattr(streamlit, "get_option", {"server.address": address}.get)
        return AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=120).run()

    return opened


@pytest.fixture
def page(site, open_page) -> AppTest:
    return open_page(site)


def upload(page: AppTest, *files: tuple[str, bytes]) -> AppTest:
    page.file_uploader[0].set_value([(name, data, "audio/flac") for name, data in files])
    page.run()
    assert not page.exception
    return page


def words(page: AppTest) -> str:
    """Everything the page says, without the marks that keep Markdown from reading names."""
    kinds = ("title", "subheader", "markdown", "caption", "info", "warning", "error")
    return "\n".join(element.value for kind in kinds for element in getattr(page, kind)).replace("\\", "")


def test_without_a_model_the_page_says_how_to_get_one(tmp_path, open_page):
    page = open_page(tmp_path)
    assert "python main.py" in words(page) and not page.error and not page.exception
    page.text_input[0].set_value("no/such.keras").run()
    (error,) = page.error
    assert "no/such.keras" in error.value.replace("\\", "") and not page.exception


def test_a_model_may_be_given_by_its_path(page, site):
    page.selectbox[0].select(page.selectbox[0].options[-1]).run()
    page.text_input[0].set_value(str(site / "runs" / "spoof")).run()
    assert "Sounds synthetic" in words(upload(page, ("clip.flac", sound())))


def test_strangers_may_not_name_paths(site, tmp_path, open_page):
    page = open_page(tmp_path, "0.0.0.0")
    assert "python main.py" in words(page) and not page.text_input and not page.selectbox
    page = open_page(site, "0.0.0.0")
    assert sorted(page.selectbox[0].options) == ["run bonafide", "run spoof", "run uncertain"]


def test_the_verdict_is_that_of_predict_audio_in_words(page, site):
    upload(page, ("clip.flac", sound()))
    for run, said in (("spoof", "Sounds synthetic"), ("bonafide", "Sounds recorded"), ("uncertain", "Undecided")):
        text = words(page.selectbox[0].select(f"run {run}").run())
        result = predict_audio(site / "runs" / run, site / "clip.flac")
        assert result["verdict"] == run
        assert [heading.value.split(": ")[1] for heading in page.subheader] == [said]
        assert f"Spoof probability **{result['spoof_probability']:.2f}**" in text
        assert "calibrated on the dev part of Anna's_voices (2,548 recorded and 300 synthetic clips)" in text
        assert "equal priors" in text and "Do not accuse anybody on this alone" in text
        assert "demo corpus" not in text


def test_a_calibration_on_few_clips_says_so():
    card = {"data": {"dataset": "mine"}, "operating_point": {"dev_bonafide": 400, "dev_spoof": 3}}
    assert "(400 recorded and 3 synthetic clips, too few to rely on)" in verdict_words.domain(card, {"warnings": []})
    card["operating_point"]["source"] = "scores of pages it had not heard"
    assert "calibrated on scores of pages it had not heard (400 recorded" in verdict_words.domain(
        card, {"warnings": []}
    )
    card["operating_point"]["dev_spoof"] = 30
    assert "too few" not in verdict_words.domain(card, {"warnings": []})


def test_the_card_is_shown(page):
    about = page.expander[0]
    lines = about.markdown[0].value.replace("\\", "").splitlines()
    rows = dict(line.removeprefix("- **").split("**: ") for line in lines)
    assert "About this detector" in about.label
    assert rows["Trained on"] == "Anna's_voices" and rows["train clips"] == "1,200 recorded, 40 synthetic"
    assert rows["EER on dev"] == "2.0 %"
    assert rows["EER on eval"] == "25.0 % [21.0, 31.0]"  # over speakers, the wider one
    assert "42.5 % of the synthetic clips called recorded" in rows["At its threshold, on eval"]
    assert rows["Licence"] == "for research alone"


def test_a_detector_that_was_measured_clean_alone_has_no_worst_condition():
    row = {"eer": 0.12, "low_pages": 0.08, "high_pages": 0.16}
    assert verdict_words.unheard_pages({"clean": row}) == "12.0 % [8.0, 16.0]"


def test_what_ships_comes_first_and_says_how_it_fares_on_pages_it_had_not_heard(site, open_page):
    shipped = site / "pretrained" / "voice.keras"
    shipped.parent.mkdir()
    apart = {
        "1s": {"eer": 0.15, "low_pages": 0.1, "high_pages": 0.2, "far": 0.3, "frr": 0.07},
        "clean": {"eer": 0.12, "low_pages": 0.08, "high_pages": 0.16, "far": 0.1, "frr": 0.1},
        "noise": {"eer": 0.2, "low_pages": 0.1, "high_pages": 0.3, "far": 0.05, "frr": 0.4},
    }
    apart["clean"] |= {"decided": 0.6, "wrong_of_decided": 0.05}
    model = as_model(site / "runs" / "spoof")
    save_model(model, shipped, {"model": "simple_cnn", "limits": ["Music", "Bells"], "leave_pages_out": apart})
    try:
        page = open_page(site)
        assert page.selectbox[0].value == "voice"
        text = words(page)
    finally:
        shutil.rmtree(shipped.parent)
    text = text.replace("**", "")
    assert "EER on pages it had not heard: 12.0 % [8.0, 16.0]; worst, noise: 20.0 % [10.0, 30.0]" in text
    assert "undecided on 40 % of the clips, sure of 60 %, 5 % of these wrong" in text
    assert "What it gets wrong: Music. Bells." in text
    assert "40 % of the recordings called synthetic (noise), 30 % of the synthetic clips called recorded (1s)" in text


def test_an_uncalibrated_model_promises_nothing(page, tmp_path):
    save_model(build_model(NETWORK), tmp_path / "bare.keras")
    page.selectbox[0].select(page.selectbox[0].options[-1]).run()
    page.text_input[0].set_value(str(tmp_path / "bare.keras")).run()
    text = words(upload(page, ("clip.flac", sound())))
    assert "not calibrated" in text and "equal priors" not in text and "1 clip in 100" not in text
    assert "without a card" in text


def test_bad_files_get_a_line_each_and_the_others_a_verdict(page, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(SAMPLE_RATE), SAMPLE_RATE, format="WAV")
    upload(
        page,
        ("text.mp3", b"not audio"),
        ("good.flac", sound()),
        ("silent.wav", silence.getvalue()),
        ("empty.wav", b""),
        ("half.flac", sound()[:20_000]),
        ("other.flac", sound(seed=1)),
    )
    lines = [error.value.replace("\\", "") for error in page.error]
    assert [line.split(":")[0] for line in lines] == ["text.mp3", "silent.wav", "empty.wav", "half.flac"]
    assert lines[0] == "text.mp3: cannot be decoded" and "silent" in lines[1] and "empty" in lines[2]
    assert not any("\n" in line or str(tmp_path) in line for line in lines)
    table = page.dataframe[0].value.set_index("clip")
    assert list(table["verdict"] == "not judged") == [True, False, True, True, True, False]
    assert table["verdict"]["good.flac"] in ("Sounds recorded", "Undecided", "Sounds synthetic")
    assert list(table["error"] == "") == [False, True, False, False, False, True]
    assert page.selectbox[1].options == ["2. good.flac", "6. other.flac"]
    assert "good.flac, 2.0 s" in words(page)
    page.selectbox[1].select(5).run()
    assert "other.flac, 2.0 s" in words(page)
    assert list(tmp_path.iterdir()) == []


def test_a_recording_is_judged_too(page, site):
    file = io.BytesIO()
    soundfile.write(file, *soundfile.read(site / "clip.flac"), format="WAV")
    page.selectbox[0].select("run spoof").run()
    page.audio_input[0].set_value(("recording.wav", file.getvalue(), "audio/wav")).run()
    assert not page.exception and "Sounds synthetic" in words(page)


def test_what_was_judged_is_not_judged_again(page, monkeypatch):
    judged = []

    def counting(model, waveform, name):
        judged.append(name)
        return predict_waveform(model, waveform, name)

    monkeypatch.setattr(inference, "predict_waveform", counting)
    page.selectbox[0].select("run spoof").run()
    upload(page, ("a.flac", sound()), ("b.flac", sound(seed=1)))
    page.selectbox[1].select(1).run()
    assert judged == ["a.flac", "b.flac"]
    page.selectbox[0].select("run bonafide").run()
    assert judged == ["a.flac", "b.flac"] * 2 and "Sounds recorded" in words(page)


def test_more_files_than_the_limit_are_named(page):
    clip = sound(0.3)
    upload(page, *((f"{n}.flac", clip) for n in range(app.MAX_FILES + 1)))
    (error,) = page.error
    assert f"{app.MAX_FILES}.flac: left out" in error.value.replace("\\", "")
    assert page.dataframe[0].value["spoof probability"].notna().sum() == app.MAX_FILES
    upload(page, (f"{app.MAX_FILES}.flac", clip))
    assert not page.error and page.subheader


# ---------------------------------------------------------------- one upload


@pytest.mark.parametrize("fault", [AudioError("refused"), MemoryError(), KeyboardInterrupt()])
def test_no_file_stays_whatever_happens(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    clip = sound()

    def fail(path):
        assert Path(path).read_bytes() == clip and Path(path).is_relative_to(tmp_path)
        raise fault

    monkeypatch.setattr(uploads, "audio_blocks", fail)
    with pytest.raises(type(fault)):
        uploads.read_clip("clip.flac", clip)
    assert list(tmp_path.iterdir()) == []


def encoded(seconds: int, container: str, codec: str) -> bytes:
    """A file that only FFmpeg reads."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=48_000, layout="mono")
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 48_000 * seconds)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        frame.rate = 48_000
        output.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("long.flac", lambda: sound(9, rate=8000)),
        ("long.webm", lambda: encoded(9, "webm", "libopus")),
        ("long.aac", lambda: encoded(9, "adts", "aac")),
    ],
)
def test_too_long_a_clip_is_refused_before_it_is_decoded(name, data, monkeypatch):
    clip = data()
    assert len(uploads.read_clip(name, clip)) == pytest.approx(9 * SAMPLE_RATE, rel=0.02)
    monkeypatch.setattr(uploads, "MAX_MINUTES", 0.14)
    monkeypatch.setattr(uploads, "audio_blocks", lambda path: pytest.fail("decoded"))
    with pytest.raises(AudioError, match=f"^{name}: .*long"):
        uploads.read_clip(name, clip)


def test_a_clip_that_lies_about_its_length_is_refused_all_the_same(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_MINUTES", 0.1)
    monkeypatch.setattr(uploads, "claimed_seconds", lambda path: 1.0)
    with pytest.raises(AudioError, match=r"^clip.flac: .*long"):
        uploads.read_clip("clip.flac", sound(9))


def test_too_large_a_clip_is_refused_before_it_is_written(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_MEGABYTES", 0.01)
    monkeypatch.setattr(tempfile, "tempdir", "no/such/folder")
    with pytest.raises(AudioError, match=r"^clip.flac: .* MB"):
        uploads.read_clip("clip.flac", sound())


# ---------------------------------------------------------------- words


def test_a_probability_is_told_for_rare_fakes_too():
    # odds of 3 to 1 at equal priors are 3 to 99 where one clip in a hundred is synthetic
    text = verdict_words.meaning({"spoof_probability": 0.75, "warnings": []})
    assert "**What 0.75 means.**" in text and text.endswith("stands for 0.03.")
    for certain in (0.0, 1.0):
        assert "nan" not in verdict_words.meaning({"spoof_probability": certain, "warnings": []})
    assert verdict_words.rounded(0.9999) == "above 0.99" and verdict_words.rounded(0.0) == "below 0.01"


def test_the_demo_corpus_is_told_as_such(site):
    demo = CARD | {"data": {"dataset": "demo_corpus"}}
    assert verdict_words.is_demo(demo) and not verdict_words.is_demo(CARD) and not verdict_words.is_demo({})


# ---------------------------------------------------------------- around the page


def test_the_server_has_the_limit_of_the_page_and_tells_nobody():
    settings = tomllib.loads((REPOSITORY / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert settings["server"]["maxUploadSize"] == uploads.MAX_MEGABYTES
    assert settings["server"]["address"] == "localhost" and settings["browser"]["gatherUsageStats"] is False


@pytest.mark.slow
def test_inference_needs_neither_the_page_nor_a_window():
    code = (
        "import inference, sys; "
        "print(*sorted({'streamlit', 'tkinter', 'matplotlib.backends', 'librosa', 'app', 'explain', 'timeline'} "
        "& set(sys.modules))); "
        "print(*(name for name in sys.modules if name.startswith('matplotlib.backends.backend_')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() in ([], ["matplotlib.backends"])  # Keras asks for pyplot, which opens nothing yet


def test_the_container_holds_every_file_the_page_imports():
    kept = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [line[1:] for line in kept if line.startswith("!")]
    used: dict[str, set[str]] = {}
    files: dict[str, set[str]] = {}
    for shown, name, tree in parse(REPOSITORY):
        used.setdefault(name, set()).update(module for _, module, _ in imports(tree))
        files.setdefault(name, set()).add(shown)
    pending, needed = {"app"}, set()
    while pending:
        needed |= (now := pending & set(files))
        pending = set().union(*(used[name] for name in now)) - needed
    assert {"inference", "model", "architectures"} <= needed
    left_out = [f for name in needed for f in files[name] if not any(fnmatch.fnmatch(f, pattern) for pattern in kept)]
    assert left_out == []


# ---------------------------------------------------------------- what takes longer


@pytest.mark.slow
def test_explanation_and_timeline_are_made_when_asked_for_and_once(page, site, monkeypatch):
    import explain
    import timeline

    made = []
    for module, name in ((explain, "explain"), (timeline, "timeline")):
        original = getattr(module, name)

        def counting(*arguments, what=name, original=original, **options):
            made.append((what, options))
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, counting)
    page.selectbox[0].select("run spoof").run()
    upload(page, ("clip.flac", sound(9.0)))
    assert made == [] and len(page.image) == 1
    page.toggle[0].set_value(True).run()
    page.toggle[1].set_value(True).run()
    waveform = uploads.read_clip("clip.flac", sound(9.0))
    first = round(explain.strongest_window(as_model(site / "runs" / "spoof"), waveform) / SAMPLE_RATE, 1)
    named = {"name": "clip.flac"}
    assert made == [("explain", named | {"start": first}), ("timeline", named | {"hop": 0.5})] and len(page.image) == 2
    page.slider[0].set_value(1.3).run()
    assert made[2:] == [("explain", named | {"start": 1.3})] and not page.exception


def test_a_long_clip_has_longer_steps_and_gaps_are_named(site, monkeypatch):
    model = as_model(site / "runs" / "spoof")
    waveform = uploads.read_clip("clip.flac", sound(9.0))
    for windows, steps, gaps in ((12, "every 0.75 s", False), (2, "every 4.5 s", True)):
        monkeypatch.setattr(app, "MAX_WINDOWS", windows)
        figure, text = app.course(model, waveform, "clip.flac")
        assert steps in text and figure.axes
        assert ("the sound between is not heard" in text) == gaps
