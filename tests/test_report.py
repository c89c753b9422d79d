"""A report shows the errors it should, says what its numbers say, and is made again from the run folder alone."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import run_findings as findings
from audio import fit_length, load_audio
from calibration import operating_point
from config import BONAFIDE, SAMPLE_RATE, SPOOF, Config, FeatureConfig, TrainingConfig, read_config, write_json
from data_utils import read_dataset
from errors import UserError
from evaluate import evaluate
from experiment import leave_report
from report import main, read_run, write_report
from score_files import read_scores, write_scores
from worst_errors import SHOWN, errors_of

SAMPLES = 4_000
SHOWN_CLIP = r"((?:dev|eval)_\d+\.wav)[^:]*: score"
ATTACKS = {"dev": ("vocoder one", "A2"), "eval": ("A2", "A3")}  # a blank, which a score file cannot hold


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Noise of two lengths, with labels, attacks, speakers and splits in a CSV."""
    folder, rng, rows = tmp_path_factory.mktemp("report") / "data", np.random.default_rng(1), []
    folder.mkdir()
    for split, attacks in {"train": ("vocoder one", "A2"), **ATTACKS}.items():
        for number in range(36):
            label = number % 2
            name = f"{split}_{number:02}.wav"
            noise = 0.1 * rng.standard_normal(rng.choice([2_500, 6_000]))
            soundfile.write(folder / name, noise, SAMPLE_RATE, subtype="PCM_16")
            attack = attacks[number // 2 % 2] if label else "-"
            rows.append((name, ("bonafide", "spoof")[label], attack, f"s{number % 5}", split))
    columns = ["path", "label", "attack", "speaker", "split"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "list.csv", index=False)
    return folder


def make_run(folder: Path, dataset: Path, distance: float = 0.8, splits: tuple[str, ...] = ("dev", "eval")) -> Path:
    """A run folder as `experiment.measure` leaves it; the scores of the classes lie `distance` to each side of 0."""
    folder.mkdir(parents=True)
    table, rng = read_dataset(dataset).table, np.random.default_rng(2)
    scores = {}
    for split in splits:
        part = table[table["split"] == split]
        sign = np.where(part["label"] == SPOOF, -1, 1)
        scores[split] = part.assign(score=np.clip(distance * sign + rng.standard_normal(len(part)), -2, 2))
        if distance > 5:
            scores[split]["score"] = distance * sign + rng.uniform(-1, 1, len(part))
        write_scores(folder / f"scores_{split}.txt", scores[split], model="resmax", dataset=split)
    dev = scores["dev"]
    reports = {"dev": evaluate(dev, bootstrap=20)}
    if "eval" in scores:
        reports["eval"] = evaluate(scores["eval"], dev=dev, threshold="dev-eer", bootstrap=20)
    training = TrainingConfig(split="official", epochs=(4,))
    features = FeatureConfig("mel", SAMPLES)
    config = Config(recipe="own", data=str(dataset), features=features, training=training)
    config.write(folder / "config.json")
    named = {"train": ["A2", "vocoder one"], "dev": sorted(ATTACKS["dev"]), "eval": sorted(ATTACKS["eval"])}
    card = {
        "operating_point": operating_point(dev["score"], dev["label"]),
        "data": {
            "dataset": "own",
            "clips": {split: {"bonafide": 18, "spoof": 18} for split in ("train", "dev", "eval")},
            "attacks": named,
            "speakers": {split: 5 for split in ("train", "dev", "eval")},
            "split_note": "official: The dataset's own division. Leaks: train and dev share 5 speakers.",
        },
        "training": {
            "best": {"epoch": 3},
            "speed": {"input": 900.0, "training": 30.0},
            "scoring": {"clips": 36, "seconds": 0.5},
        },
        "environment": {
            "python": "3.11",
            "numpy": "2.4",
            "processor": "a processor",
            "accelerators": [],
            "system": "Linux",
            "commit": "abc",
        },
    }
    write_json(folder / "best.json", card)
    write_json(folder / "metrics.json", reports)
    history().to_csv(folder / "history.csv", index=False)
    return folder


def history(**columns: list[float]) -> pd.DataFrame:
    """Four epochs; any column may be given."""
    usual = {
        "stage": [1, 1, 1, 1],
        "learning_rate": [1e-3] * 4,
        "loss": [0.9, 0.6, 0.4, 0.3],
        "accuracy": [0.6, 0.7, 0.8, 0.9],
        "dev_loss": [0.9, 0.7, 0.5, 0.5],
        "dev_accuracy": [0.6, 0.7, 0.8, 0.8],
        "dev_eer": [0.4, 0.3, 0.2, 0.21],
        "clips_per_second": [10.0, 20, 20, 20],
        "seconds": [9.0, 3, 3, 3],
    }
    table = pd.DataFrame({**usual, **columns})
    table.insert(0, "epoch", range(1, len(table) + 1))
    return table


class Shown(HTMLParser):
    """The text of a page, and the sounds of its players."""

    def __init__(self, page: Path):
        super().__init__()
        self.open: list[str] = []
        self.text, self.sounds = "", []
        self.feed(page.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        source = dict(attributes).get("src", "data:")
        assert source.startswith("data:")  # nothing is loaded from elsewhere
        if tag == "audio":
            self.sounds.append(soundfile.read(io.BytesIO(base64.b64decode(source.split(",")[1])))[0])
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if self.open[-1:] != ["style"] else ""


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "one", dataset)
    write_report(folder, read_dataset(dataset).table)
    return folder


def test_the_worst_errors_are_the_furthest_on_the_wrong_side_and_sound_as_the_model_heard_them(run, dataset):
    page = Shown(run / "report.html")
    scores = read_scores(run / "scores_eval.txt")
    dev_threshold = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["eval"]["decision"]["threshold"]
    expected = []
    for label, side in ((BONAFIDE, -1), (SPOOF, 1)):
        part = scores[scores["label"] == label]
        wrong = part[part["score"] <= dev_threshold] if side < 0 else part[part["score"] > dev_threshold]
        expected += wrong.sort_values("score", ascending=side < 0, kind="stable").head(SHOWN)["utterance_id"].tolist()
    assert len(expected) > 4
    assert re.findall(SHOWN_CLIP, page.text) == expected
    for name, sound in zip(expected, page.sounds, strict=True):
        heard = fit_length(load_audio(dataset / name), SAMPLES)
        np.testing.assert_allclose(sound, heard, atol=2**-15)
    assert (run / "report.html").stat().st_size < 4e6


def test_the_page_says_what_was_done_and_what_it_is_not(run):
    text = Shown(run / "report.html").text
    for words in (
        f"python main.py --config {run.as_posix()}/config.json",
        "train and dev share 5 speakers",
        "the division of the dataset's authors",
        "between the thresholds of 1 % FRR",
        "900 clips/s",
        "72 clips/s (36 clips of dev)",
        "0.3 minutes, dev included",
        "4 of at most 4",
        "vocoder one",
        "a processor",
        "one run with seed 1",
        "Intervals (95 %) are from resampling speakers",
    ):
        assert words in text
    assert not re.search(r"\bnan\b|\binf\b|None|\{|\bnp\.", text.split("Other than the defaults")[0])


def test_the_command_makes_the_same_page_again(run):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert main([str(run)]) == 0
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.usefixtures("unpainted")
def test_data_that_moved_cost_the_players_and_no_more(dataset, tmp_path, capsys):
    run, here = make_run(tmp_path / "run", dataset), tmp_path / "here"
    config = read_run(run).config
    replace(config, data=str(tmp_path / "gone")).write(run / "config.json")
    assert main([str(run)]) == 0
    page = Shown(run / "report.html")
    assert page.sounds == [] and "No players" in page.text and "gone: no such folder" in page.text
    assert "without players" in capsys.readouterr().out

    here.mkdir()
    for file in dataset.iterdir():
        (here / file.name).write_bytes(file.read_bytes())
    names = re.findall(SHOWN_CLIP, page.text)
    (here / names[0]).unlink()
    (here / names[1]).write_bytes(b"no sound")
    assert main([str(run), "--data", str(here)]) == 0
    page = Shown(run / "report.html")
    assert len(page.sounds) == len(names) - 2 > 0
    assert re.findall(SHOWN_CLIP, page.text) == names
    assert "No player: the file was not found" in page.text and "cannot be decoded" in page.text

    with pytest.raises(UserError, match="elsewhere: no such folder"):
        main([str(run), "--data", str(tmp_path / "elsewhere")])


@pytest.mark.usefixtures("unpainted")
def test_without_errors_the_page_says_so(dataset, tmp_path):
    run = make_run(tmp_path / "run", dataset, distance=9)
    text = Shown(write_report(run, read_dataset(dataset).table)).text
    assert "No clip of eval is on the wrong side of the threshold" in text
    assert "No spoof passes the threshold" in text


@pytest.mark.usefixtures("unpainted")
def test_without_eval_the_page_is_about_dev(dataset, tmp_path):
    run = make_run(tmp_path / "run", dataset, splits=("dev",))
    page = Shown(write_report(run, read_dataset(dataset).table))
    assert "There is no eval set: these are figures of dev, on which the model was chosen." in page.text
    assert len(page.sounds) == len(re.findall(SHOWN_CLIP, page.text)) > 0
    config = read_config(run / "config.json")
    replace(config, training=replace(config.training, select="last")).write(run / "config.json")
    page = Shown(write_report(run, read_dataset(dataset).table))
    assert "figures of dev, which chose nothing but the threshold." in page.text


@pytest.mark.usefixtures("unpainted")
def test_a_run_that_recorded_less_has_a_report_too(dataset, tmp_path):
    run = make_run(tmp_path / "run", dataset)
    card, reports = (json.loads((run / name).read_text(encoding="utf-8")) for name in ("best.json", "metrics.json"))
    for part, names in ((card, ["training"]), (card["data"], ["speakers", "split_note"])):
        for name in names:
            del part[name]
    for name in ("processor", "accelerators"):
        del card["environment"][name]
    for report in reports.values():
        for row in report["per_attack"].values():
            del row["eer_interval"]
    write_json(run / "best.json", card)
    write_json(run / "metrics.json", reports)
    history().drop(columns="seconds").to_csv(run / "history.csv", index=False)
    text = Shown(write_report(run, read_dataset(dataset).table)).text
    assert "not recorded by this run" in text and "Intervals (95 %)" not in text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.json", None, "no finished run, metrics.json is missing"),
        ("metrics.json", "{", r"metrics\.json: cannot be read"),
        ("best.json", None, r"best\.json: cannot be read"),
        ("history.csv", "", r"history\.csv: not a readable history"),
        ("config.json", "{}}", r"config\.json: not a readable config"),
        ("scores_dev.txt", "x", r"scores_dev\.txt"),
    ],
)
def test_what_is_no_finished_run_is_one_line(name, text, message, run, tmp_path):
    for file in run.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).unlink()
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        main([str(tmp_path)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("problem", [UserError("the disk is full"), OSError("the disk is full"), KeyboardInterrupt()])
def test_a_report_that_fails_leaves_the_run_complete(problem, run, capsys, monkeypatch):
    def fail(*arguments):
        raise problem

    monkeypatch.setattr("report.write_report", fail)
    if isinstance(problem, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            leave_report(run, pd.DataFrame())
    else:
        leave_report(run, pd.DataFrame())
    assert f"python report.py {run}" in capsys.readouterr().out


def test_a_score_at_the_threshold_is_called_spoof_and_unknown_clips_stay():
    scores = pd.DataFrame(
        {
            "utterance_id": ["a", "b", "c", "d"],
            "attack": ["-", "-", "A1", "A1"],
            "label": [0, 0, 1, 1],
            "score": [1.0, 1.5, 1.0, 1.5],
            "speaker": "-",
        }
    )
    clips = pd.DataFrame({"utterance_id": ["a", "a"], "path": ["x.wav", "y.wav"], "speaker": ["s", "s"]})
    wrong, trials = errors_of(scores, 1.0, {"a": 0.0, "b": 0.0}, clips)
    assert wrong["utterance_id"].tolist() == ["d", "a"] and len(trials) == 4
    assert wrong["speaker"].tolist() == ["-", "s"] and (wrong["spoof_probability"] == 0.5).all()


# ---------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    ("columns", "said", "not_said"),
    [
        ({"dev_loss": [0.9, 0.7, 0.5, 0.4]}, ["still falling", "0.500 before", "0.400 after"], ["by heart"]),
        ({"dev_loss": [0.9, 0.4, 0.5, 0.7]}, ["by heart", "epoch 2", "(0.600 to 0.300)"], ["more epochs"]),
        ({"dev_loss": [0.9, 0.4, 0.4, 0.41]}, ["least in epoch 2 (0.400)"], ["by heart", "more epochs"]),
        ({"dev_eer": [0.4, 0.1, 0.2, 0.1]}, ["rose from 10.0 % to 20.0 % in epoch 3"], []),
        ({"dev_eer": [0.4, 0.1, 0.2, 0.1], "dev_loss": [0.9, 0.7, 0.5, 0.5]}, ["Best epoch 4 of 4"], []),
        ({"dev_eer": [0.4, 0.3, 0.2, 0.21]}, ["Best epoch 3 of 4: dev EER 20.0 %"], ["swings"]),
    ],
)
def test_learning_curves_are_read(columns, said, not_said):
    text = " ".join(findings.learning(history(**columns), None))
    assert all(words in text for words in said) and not any(words in text for words in not_said)


def test_one_epoch_and_averaged_weights_are_told():
    assert findings.learning(history().head(1), {"epoch": 1}) == ["Best epoch 1 of 1: dev EER 40.0 %."]
    kept = {"epoch": "average of 2", "dev_eer": 0.15}
    assert "Kept was the average of 2 epochs' weights: dev EER 15.0 %." in findings.learning(history(), kept)


def decision(accepted: int, rejected: int, passed: int, caught: int, threshold: float = 1.0) -> dict:
    confusion = {
        "bonafide": {"bonafide": accepted, "spoof": rejected},
        "spoof": {"bonafide": passed, "spoof": caught},
    }
    far, frr = passed / (passed + caught), rejected / (accepted + rejected)
    return {"confusion": confusion, "threshold": threshold, "far": far, "frr": frr}


def test_the_balanced_figures_are_those_of_equal_classes():
    text = findings.balance({"decision": decision(90, 10, 200, 700)})
    # by hand: 790 of 1000 right; (0.9 + 7 / 9) / 2; 700 of 710 called spoof; (7 / 9) / (7 / 9 + 0.1)
    for share in ("10 % of them bona fide", "79.0 % judged right", "83.9 % right", "98.6 %", "88.6 %"):
        assert share in text
    assert "No clip is called spoof" in findings.balance({"decision": decision(5, 0, 5, 0)})


def test_a_threshold_is_judged_by_where_the_errors_meet():
    report = {"decision": decision(95, 5, 40, 60), "eer": 0.2, "eer_threshold": 2.0}
    text = findings.threshold(report)
    assert "too low" in text and "20.0 points more of the spoofs pass" in text
    report = {"decision": decision(70, 30, 1, 99), "eer": 0.1, "eer_threshold": 0.5}
    assert "too high" in findings.threshold(report) and "bona fide are rejected" in findings.threshold(report)
    assert "flatters" in findings.threshold(report | {"eer_threshold": 1.0})


def test_attacks_are_weighed_by_what_passes():
    rows = {
        "A1": {"trials": 10, "eer": 0.4, "far": 0.5, "eer_interval": (0.3, 0.55)},
        "A2": {"trials": 100, "eer": 0.2, "far": 0.15, "eer_interval": (0.1, 0.3)},
    }
    text = " ".join(findings.attacks({"per_attack": rows}, ["A2"], "eval"))
    assert "Hardest on eval: A1, EER 40.0 % [30.0, 55.0]" in text
    assert "Of 20 spoofs that pass the threshold A2 makes 15 (75 %)" in text
    assert "guessing, for A1." in text
    assert "20.0 % on the 1 attacks that training held, 40.0 % on the 1 others" in text


def test_dev_is_compared_with_eval():
    attacks = {"train": ["A1", "A2"], "dev": ["A1", "A2"], "eval": ["A2", "A3"]}
    text = " ".join(findings.new_attacks({"eer": 0.05}, {"eer": 0.2}, attacks))
    assert "Dev flatters" in text and "4.0 times" in text
    assert "All of the 2 attacks of dev" in text and "1 of the 2 attacks of eval" in text
    for dev, eval_, word in ((0.1, 0.11, "foretold"), (0.2, 0.1, "easier"), (0.0, 0.0, "foretold"), (0.0, 0.1, "flat")):
        assert word in findings.new_attacks({"eer": dev}, {"eer": eval_}, attacks)[0]
