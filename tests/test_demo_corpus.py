"""The demo corpus: layout, determinism, and that nothing trivial tells its two classes apart."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import demo_corpus
from demo_corpus import ATTACKS, MARKER, NOTICE, main, plan_corpus, write_demo_corpus
from errors import UserError, run_command
from frames import stft
from metrics import compute_eer

SCALE = 0.06  # 10-14 bona fide and 8-12 spoof utterances a split
PROTOCOLS = {"train": "train.trn", "dev": "dev.trl", "eval": "eval.trl"}


def read_protocol(directory: Path, split: str) -> list[list[str]]:
    path = directory / "ASVspoof2019_LA_cm_protocols" / f"ASVspoof2019.LA.cm.{PROTOCOLS[split]}.txt"
    return [line.split(" ") for line in path.read_text(encoding="utf-8").splitlines()]


def flac(directory: Path, split: str, utterance: str) -> Path:
    return directory / f"ASVspoof2019_LA_{split}" / "flac" / f"{utterance}.flac"


def contents(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory) -> Path:
    return write_demo_corpus(tmp_path_factory.mktemp("demo") / "corpus", 1, SCALE, progress=False)


@pytest.fixture
def tiny_settings(monkeypatch) -> dict:
    """Three utterances a class and split at most, for tests that write again and again."""
    smaller = [part[:4] for part in plan_corpus(1, 0.01)]
    monkeypatch.setattr(demo_corpus, "plan_corpus", lambda seed, scale: smaller)
    return {"seed": 1, "scale": 0.01, "progress": False}


def test_layout(small_corpus):
    top = {"README.txt", MARKER, "ASVspoof2019_LA_cm_protocols", *(f"ASVspoof2019_LA_{s}" for s in PROTOCOLS)}
    assert {p.name for p in small_corpus.iterdir()} == top
    for split, letter in zip(PROTOCOLS, "TDE", strict=True):
        lines = read_protocol(small_corpus, split)
        for number, (speaker, utterance, dash, attack, key) in enumerate(lines, start=1):
            assert utterance == f"DEMO_{letter}_{number:07d}"
            assert speaker.startswith("DEMO_") and dash == "-"
            assert (key, attack) == ("bonafide", "-") or (key == "spoof" and attack in ATTACKS)
        on_disk = {p.stem for p in (small_corpus / f"ASVspoof2019_LA_{split}" / "flac").iterdir()}
        assert on_disk == {line[1] for line in lines}


def test_audio_is_16_khz_16_bit_mono(small_corpus):
    for split in PROTOCOLS:
        for line in read_protocol(small_corpus, split):
            path = flac(small_corpus, split, line[1])
            info = sf.info(path)
            assert (info.format, info.subtype, info.samplerate, info.channels) == (
                "FLAC",
                "PCM_16",
                16_000,
                1,
            )
            assert 1.0 < info.duration < 6.0
            waveform = sf.read(path)[0]
            assert np.abs(waveform).max() < 0.999 and waveform.std() > 0.005


def test_speakers_and_attacks_of_the_splits():
    plan = plan_corpus(seed=1, scale=1.0)
    speakers = [{u.speaker for u in part} for part in plan]
    assert not (speakers[0] & speakers[1] or speakers[0] & speakers[2] or speakers[1] & speakers[2])
    train, dev, evaluation = [{u.attack for u in part} - {None} for part in plan]
    assert train == dev and len(train) >= 4 and len(evaluation) >= 3 and not train & evaluation
    assert train | evaluation == set(ATTACKS)
    for part, people in zip(plan, speakers, strict=True):
        for wanted in (True, False):  # every speaker is heard in both classes
            assert {u.speaker for u in part if (u.attack is None) == wanted} == people


def test_no_place_in_the_list_tells_the_class():
    for part in plan_corpus(seed=1, scale=4.0):
        spoof = np.array([u.attack is not None for u in part])
        assert abs(np.corrcoef(np.arange(len(spoof)), spoof)[0, 1]) < 4 / np.sqrt(len(spoof))


def test_it_says_what_it_is(small_corpus, capsys):
    readme = (small_corpus / "README.txt").read_text(encoding="utf-8")
    assert readme.startswith(NOTICE) and all(attack in readme for attack in ATTACKS)
    assert main([str(small_corpus), "--scale", str(SCALE)]) == 0
    printed = capsys.readouterr().out
    assert NOTICE in printed and f"python main.py --data {small_corpus}" in printed


def test_same_seed_same_bytes_whatever_the_workers(tmp_path, tiny_settings, monkeypatch):
    first = contents(write_demo_corpus(tmp_path / "a", **tiny_settings))
    pool = demo_corpus.ThreadPoolExecutor
    monkeypatch.setattr(demo_corpus, "ThreadPoolExecutor", lambda: pool(max_workers=1))
    assert contents(write_demo_corpus(tmp_path / "b", **tiny_settings)) == first
    other = contents(write_demo_corpus(tmp_path / "c", **tiny_settings | {"seed": 2}))
    sounds = [name for name in first if name.endswith(".flac")]
    assert sounds and all(first[name] != other[name] for name in sounds)


def test_complete_corpus_is_reused_and_other_settings_write_anew(tmp_path, tiny_settings, monkeypatch):
    directory = write_demo_corpus(tmp_path / "demo", **tiny_settings)
    before = contents(directory)
    with monkeypatch.context() as patch:
        patch.setattr(demo_corpus, "render", lambda *_: pytest.fail("a finished corpus was computed again"))
        assert write_demo_corpus(directory, **tiny_settings) == directory
    write_demo_corpus(directory, **tiny_settings | {"seed": 2})
    assert contents(directory)["demo_corpus.json"] != before["demo_corpus.json"]
    monkeypatch.setattr(demo_corpus, "VERSION", demo_corpus.VERSION + 1)
    write_demo_corpus(directory, **tiny_settings)
    assert json.loads((directory / MARKER).read_text(encoding="utf-8"))["version"] == demo_corpus.VERSION


def test_half_written_corpus_is_finished_before_use(tmp_path, tiny_settings, monkeypatch):
    whole = contents(write_demo_corpus(tmp_path / "whole", **tiny_settings))
    real, done = demo_corpus.render, []

    def interrupted(*arguments):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(arguments)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(demo_corpus, "render", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_demo_corpus(tmp_path / "demo", **tiny_settings)
    assert not (tmp_path / "demo" / MARKER).exists()
    assert contents(write_demo_corpus(tmp_path / "demo", **tiny_settings)) == whole


@pytest.mark.parametrize("lost", ["ASVspoof2019_LA_eval/flac", "ASVspoof2019_LA_cm_protocols", MARKER])
def test_damaged_corpus_is_repaired(tmp_path, tiny_settings, lost):
    directory = write_demo_corpus(tmp_path / "demo", **tiny_settings)
    whole = contents(directory)
    if (directory / lost).is_dir():
        shutil.rmtree(directory / lost)
    else:
        (directory / lost).unlink()
    assert contents(write_demo_corpus(directory, **tiny_settings)) == whole


def test_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "README.txt").write_text("My recordings", encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="no demo corpus"):
        write_demo_corpus(tmp_path, progress=False)
    with pytest.raises(UserError, match="is a file"):
        write_demo_corpus(tmp_path / "README.txt", progress=False)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("option", [["--seed", "-1"], ["--scale", "0"], ["--scale", "nan"], ["--scale", "1e9"]])
def test_wrong_values_are_one_line(tmp_path, capsys, option):
    assert run_command(lambda: main([str(tmp_path / "demo"), *option])) == 2
    message = capsys.readouterr().err
    assert message.startswith("error:") and message.count("\n") == 1 and "must" in message
    assert not (tmp_path / "demo").exists()


def trivial_features(waveform: np.ndarray) -> dict[str, float]:
    """What a detector could cheat with: loudness, length, silence, colour, band and noise."""
    frames = waveform[: len(waveform) // 320 * 320].reshape(-1, 320)
    level = 10 * np.log10((frames**2).mean(axis=1) + 1e-10)
    active = np.flatnonzero(level > level.max() - 25)
    zero = waveform == 0
    power = (np.abs(stft(waveform, 1024, 256)) ** 2).mean(axis=0)
    share = np.cumsum(power) / power.sum()
    return {
        "level": 10 * np.log10((waveform**2).mean()),
        "active level": np.quantile(level, 0.95),
        "peak": np.abs(waveform).max(),
        "crest factor": np.abs(waveform).max() / waveform.std(),
        "duration": len(waveform),
        "leading silence": active[0],
        "trailing silence": len(level) - active[-1],
        "zeros": zero.mean(),
        "longest run of zeros": np.diff(np.flatnonzero(np.r_[True, ~zero, True])).max(),
        "noise floor": np.quantile(level, 0.05),
        "centroid": power @ np.arange(513) / power.sum(),
        "bandwidth": (share < 0.99).sum(),
        "rolloff": (share < 0.95).sum(),
        "zero crossings": (np.diff(np.sign(waveform)) != 0).mean(),
    }


def artefact_features(waveform: np.ndarray) -> list[float]:
    """How the log-STFT changes from frame to frame and from bin to bin, by band: what a network can see."""
    log = np.log(np.abs(stft(np.resize(waveform, 64_000), 1024, 256)) ** 2 + 1e-5)[:250, :512]
    values = []
    for change in (np.diff(log, axis=0), np.diff(log, axis=1), np.diff(log, 2, axis=1)):
        for band in np.array_split(change, 24, axis=1):
            values += [band.std(), np.abs(band).mean(), (band**4).mean() / (band.var() ** 2 + 1e-9)]
    return values


@pytest.fixture(scope="session")
def large_corpus(tmp_path_factory):
    """Labels, trivial features, artefact features and attacks of train and eval of a larger corpus."""
    directory = write_demo_corpus(tmp_path_factory.mktemp("large") / "corpus", 1, 2.0, progress=False)
    parts = {}
    for split in ("train", "eval"):
        lines = read_protocol(directory, split)
        waveforms = [sf.read(flac(directory, split, line[1]), dtype="float32")[0] for line in lines]
        trivial = [trivial_features(waveform) for waveform in waveforms]
        parts[split] = {
            "label": np.array([line[4] == "spoof" for line in lines]).astype(int),
            "attack": np.array([line[3] for line in lines]),
            "trivial": np.array([list(row.values()) for row in trivial]),
            "artefact": np.array([artefact_features(waveform) for waveform in waveforms]),
        }
        parts["names"] = list(trivial[0])
    shutil.rmtree(directory)
    return parts


def chance_band(label: np.ndarray) -> float:
    """3.5 standard errors of an EER at 50 %: half the difference of two rates of one half."""
    return 3.5 * 0.5 * np.sqrt(0.25 / (label == 0).sum() + 0.25 / (label == 1).sum())


@pytest.mark.long
def test_no_trivial_feature_alone_beats_chance(large_corpus):
    for split in ("train", "eval"):
        part = large_corpus[split]
        for name, values in zip(large_corpus["names"], part["trivial"].T, strict=True):
            # a random share of a step breaks ties, which whole frames and counts have many of
            jitter = 1e-9 * (1 + np.abs(values)) * np.random.default_rng(0).random(len(values))
            eer = compute_eer(values + jitter, part["label"])[0]
            assert abs(eer - 0.5) < chance_band(part["label"]), f"{name} alone gives {eer:.1%} on {split}"


@pytest.mark.long
@pytest.mark.parametrize("model", ["logistic", "forest"])
def test_all_trivial_features_together_stay_near_chance(large_corpus, model):
    train, evaluation = large_corpus["train"], large_corpus["eval"]
    learner = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced")),
        "forest": RandomForestClassifier(300, min_samples_leaf=3, class_weight="balanced", random_state=0),
    }[model].fit(train["trivial"], train["label"])
    eer = compute_eer(learner.predict_proba(evaluation["trivial"])[:, 0], evaluation["label"])[0]
    assert abs(eer - 0.5) < chance_band(evaluation["label"]), f"{model} on trivial features: {eer:.1%}"


@pytest.mark.long
def test_the_marks_of_resynthesis_carry_over_to_unseen_attacks(large_corpus):
    """The control of the tests above: such a learner does well where there is something to learn."""
    train, evaluation = large_corpus["train"], large_corpus["eval"]
    learner = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=2000, class_weight="balanced"))
    learner.fit(train["artefact"], train["label"])
    scores = learner.predict_proba(evaluation["artefact"])[:, 0]
    assert compute_eer(scores, evaluation["label"])[0] < 0.20
    for attack in np.unique(evaluation["attack"][evaluation["label"] == 1]):
        chosen = (evaluation["attack"] == attack) | (evaluation["label"] == 0)
        assert compute_eer(scores[chosen], evaluation["label"][chosen])[0] < 0.35, attack
