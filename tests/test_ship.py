"""What ships is trained on everything, judged by scores of models that had not heard the page, and names no machine."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from cross_validations import CONFIG, cross_validation

import model as model_file
import ship
from backend import keras
from checkpoint import Progress
from config import SPOOF
from errors import run_command
from fold_figures import mean_scores, read_logits, write_logits
from inference import operating_point, predict_waveform
from metrics import compute_eer, error_rates
from model import build_model, load_model, read_card, save_model, spoof_logits


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A list of 160 clips of eight pages; and an empty pretrained/."""
    rows = [
        (f"{i}.wav", *(("spoof", f"A{i % 3}", "vc") if i % 2 else ("bonafide", "-", "-")), f"page{i % 8}", "train")
        for i in range(160)
    ]
    rows += [("kept.wav", "spoof", "A9", "vc", "page9", "eval")]
    folder = tmp_path / "mine"
    folder.mkdir()
    table = pd.DataFrame(rows, columns=["path", "label", "attack", "kind", "page", "split"])
    table.to_csv(folder / "clips.csv", index=False)
    for path in table["path"]:
        (folder / path).touch()
    rows = [(f"{i}.flac", ("bonafide", "spoof")[i % 2], f"page{i % 10}", i % 3, f"r{i}") for i in range(12)]
    copies = pd.DataFrame(rows, columns=["path", "label", "page", "split", "source"])
    copies["split"] = copies["split"].map({0: "train", 1: "dev", 2: "eval"})
    (tmp_path / "corpus").mkdir()
    copies.to_csv(tmp_path / "corpus" / "manifest.csv", index=False)
    for path in copies["path"]:
        (tmp_path / "corpus" / path).touch()
    monkeypatch.setattr(ship, "PRETRAINED", tmp_path / "pretrained")
    monkeypatch.setattr(model_file, "PRETRAINED", tmp_path / "pretrained")
    return folder / "clips.csv"


@pytest.fixture
def folder(tmp_path, data) -> Path:
    return cross_validation(tmp_path / "runs" / "cv-1", data, CONFIG, 0)


@pytest.fixture
def trained(monkeypatch):
    """What `train` was given; it leaves an untrained model."""
    given = {}

    def train(config, table, watched, run):
        given.update(table=table, watched=watched)
        keras.utils.set_random_seed(config.training.seed)
        save_model(build_model(config), run / "best.keras")
        np.savez(run / "last.npz", progress=json.dumps(asdict(Progress(history=[{}]))))

    monkeypatch.setattr(ship, "train", train)
    return given


def test_the_detector_that_ships(folder, trained, tmp_path, capsys):
    about = tmp_path / "about.json"
    about.write_text(json.dumps({"licence": "for research", "domain": "a workshop"}), encoding="utf-8")
    words = [str(folder), "--name", "voice", "--about", str(about)]
    assert run_command(lambda: ship.main(words)) == 0
    assert len(trained["table"]) == 160 and set(trained["table"]["split"]) == {"train"}  # every clip but eval's
    assert len(trained["watched"]) and set(trained["watched"]["path"]) <= set(trained["table"]["path"])
    shown = capsys.readouterr().out
    assert "voice.keras" in shown and "1 clips of eval are not trained on" in shown

    card = read_card(tmp_path / "pretrained" / "voice.keras")
    assert card["licence"] == "for research"
    assert card["data"]["dataset"] == "mine" and card["data"]["clips"] == {"train": {"bonafide": 80, "spoof": 80}}
    assert str(tmp_path) not in json.dumps(card)
    assert list(card["leave_pages_out"]) == ["clean", "1s"]
    clean, low, high = read_logits(folder / "scores_clean.csv"), *card["operating_point"]["uncertain"]
    row, called = card["leave_pages_out"]["clean"], clean["spoof_logit"] >= high
    decided = called | (clean["spoof_logit"] < low)
    assert row["decided"] == pytest.approx(decided.mean()) and 0.3 < decided.mean() < 1
    assert row["wrong_of_decided"] == pytest.approx((called != (clean["label"] == SPOOF))[decided].mean())
    source = "clips of a workshop, in 2 conditions, by models that had not heard their page"
    assert card["operating_point"]["source"] == source and card["operating_point"]["dev_spoof"] == 80
    assert card["leave_pages_out"]["clean"]["eer"] < card["leave_pages_out"]["1s"]["eer"]
    assert set(card["leave_pages_out_by_kind"]) == {"vc"}
    assert card["leave_pages_and_families_out"]["fakes"] == 80  # the only part here
    assert len(card["leave_pages_out_by_page"]) == 0  # here each page has one class

    together = pd.concat([read_logits(file) for file in folder.glob("scores_*.csv")])
    for name, point in card["operating_points"].items():
        frr, far = error_rates(-together["spoof_logit"], together["label"], -point["threshold"])
        assert (frr, far) == (point["frr"], point["far"])
        assert {"FAR 1 %": far <= 0.01, "FRR 1 %": frr <= 0.01, "EER": abs(far - frr) < 0.02}[name]

    detector = load_model("voice")  # by name, as anybody would
    assert card["check_logit"] == pytest.approx(spoof_logits(detector, ship.check_signal(16_000)[None])[0], abs=1e-5)
    assert operating_point(detector)["threshold"] == card["operating_points"]["EER"]["threshold"]
    result = predict_waveform(detector, np.random.default_rng(0).normal(0, 0.1, 16_000))
    assert result["threshold"] is not None and result["model"] == "voice"


def test_copies_of_what_is_kept_for_eval_are_not_trained_on(data, trained, tmp_path):
    folder = cross_validation(tmp_path / "runs" / "cv-9", data, replace(CONFIG, extra=str(tmp_path / "corpus")), 0)
    assert run_command(lambda: ship.main([str(folder), "--name", "voice"])) == 0
    extra = trained["table"][trained["table"]["extra"]]
    assert len(extra) == 8 and set(extra["split"]) == {"train", "dev"}
    card = read_card(tmp_path / "pretrained" / "voice.keras")
    assert card["data"]["clips"]["train"]["spoof"] == 80 + 4 and card["data"]["pages"] == 8


def test_columns_may_be_trained_with_and_without_extra(data, trained, tmp_path):
    alone = replace(CONFIG, model="small_resnet", model_args={"width": 0.2})
    extra = replace(alone, extra=str(tmp_path / "corpus"), training=replace(CONFIG.training, epochs=(7,)))
    folders = []
    for seed, config in enumerate((alone, extra), start=1):
        folders.append(cross_validation(tmp_path / "runs" / f"cv-{seed}", data, config, seed))
    assert run_command(lambda: ship.main([*map(str, folders), "--name", "voice"])) == 0
    logs = [(folder / "all" / "log.txt").read_text(encoding="utf-8") for folder in folders]
    assert "160 clips to train on" in logs[0] and "168 clips to train on" in logs[1]
    card = read_card(tmp_path / "pretrained" / "voice.keras")
    assert [training["extra"] for training in card["trainings"]] == [None, "corpus"]
    assert [training["training.epochs"] for training in card["trainings"]] == [list(CONFIG.training.epochs), [7]]
    made, counts = card["data"]["made_of"], card["data"]["clips"]["train"]
    assert sum(made["recordings"].values()) == counts["bonafide"] == 80 + 4
    assert sum(made["fakes"].values()) == 80 and sum(made["made_fakes"].values()) == 4


def test_scores_of_other_clips_do_not_ship(folder, data, trained, capsys):
    words = [str(folder), "--name", "voice"]
    scores = read_logits(folder / "scores_clean.csv")
    changed = scores.assign(label=1 - scores["label"])
    renamed = scores.assign(utterance_id="old/" + scores["utterance_id"])
    for other in (changed, renamed):
        write_logits(folder / "scores_clean.csv", other)
        assert run_command(lambda: ship.main(words)) == 2
        assert "scores of other clips or labels than the dataset has now" in capsys.readouterr().err
    write_logits(folder / "scores_clean.csv", scores.iloc[:-5])
    assert run_command(lambda: ship.main(words)) == 0
    assert "6 clips have no score" in capsys.readouterr().out  # those five, and eval's


@pytest.mark.parametrize("page", [f"page{number}" for number in range(8)])  # of any part
def test_figures_of_another_extra_do_not_ship(page, data, trained, tmp_path, capsys):
    folder = cross_validation(tmp_path / "runs" / "cv-9", data, replace(CONFIG, extra=str(tmp_path / "corpus")), 0)
    manifest = tmp_path / "corpus" / "manifest.csv"
    manifest.write_text(manifest.read_text() + f"12.flac,spoof,{page},train,r1\n")
    (tmp_path / "corpus" / "12.flac").touch()
    assert run_command(lambda: ship.main([str(folder), "--name", "voice"])) == 2
    assert "corpus hold now; cross-validate again" in capsys.readouterr().err


def test_labels_that_are_numbers_are_one_line(folder, trained, capsys):
    scores = read_logits(folder / "scores_clean.csv")
    scores.to_csv(folder / "scores_clean.csv", index=False)
    assert run_command(lambda: ship.main([str(folder), "--name", "voice"])) == 2
    assert "scores_clean.csv: labels are bonafide or spoof in such files; delete it" in capsys.readouterr().err


def test_a_detector_that_ships_is_replaced_only_if_told_so(folder, trained, tmp_path, capsys):
    words = [str(folder), "--name", "voice"]
    file = tmp_path / "pretrained" / "voice.keras"
    file.parent.mkdir()
    file.write_bytes(b"another")
    assert run_command(lambda: ship.main(words)) == 2
    assert "a detector of that name ships" in capsys.readouterr().err and file.read_bytes() == b"another"
    assert run_command(lambda: ship.main([*words, "--replace"])) == 0
    assert load_model("voice") is not None


def test_a_card_written_again_says_what_the_weights_were_trained_with(folder, trained, tmp_path, monkeypatch):
    words = [str(folder), "--name", "voice", "--replace"]
    for commit in ("then", "now"):
        monkeypatch.setattr(ship, "environment", lambda commit=commit: {"commit": commit})
        assert run_command(lambda: ship.main(words)) == 0
    assert read_card(tmp_path / "pretrained" / "voice.keras")["environment"] == {"commit": "then"}


def test_what_another_process_trains_is_left_alone(folder, trained, capsys):
    (folder / "all").mkdir()
    (folder / "all" / "process").write_text(f"{os.getpid()} {psutil.Process().create_time()}", encoding="utf-8")
    assert run_command(lambda: ship.main([str(folder), "--name", "voice"])) == 2
    assert "is being trained by process" in capsys.readouterr().err


def test_a_folder_that_is_no_cross_validation(tmp_path, capsys):
    assert run_command(lambda: ship.main([str(tmp_path), "--name", "voice"])) == 2
    assert "a folder of cross_validate.py is needed" in capsys.readouterr().err


def test_several_ship_as_one_network_that_gives_the_mean_of_their_columns(data, trained, tmp_path, capsys):
    first = replace(CONFIG, model="small_resnet", model_args={"width": 0.2, "sees": "fine,patches"})
    second = replace(first, model_args={"width": 0.2})
    folders = [
        cross_validation(tmp_path / "runs" / f"cv-{seed}", data, config, seed)
        for seed, config in enumerate((first, second), start=1)
    ]
    assert run_command(lambda: ship.main([*map(str, folders), "--name", "voice"])) == 0
    detector, signal = load_model("voice"), ship.check_signal(16_000)[None]
    apart = [spoof_logits(load_model(folder / "all"), signal)[0] for folder in folders]
    assert apart[0] != pytest.approx(apart[1], abs=1e-3)
    assert spoof_logits(detector, signal)[0] == pytest.approx((2 * apart[0] + apart[1]) / 3, abs=1e-4)
    card = read_card(tmp_path / "pretrained" / "voice.keras")
    seeds = [{"training.seed": 1, "model_args.sees": "fine,patches"}, {"training.seed": 2, "model_args.sees": None}]
    assert card["trainings"] == seeds and card["config"]["model_args"]["sees"] == "fine,patches,fine"
    alone = [mean_scores(ship.read_settings([folder]))["clean"] for folder in folders]
    errors = [compute_eer(-scores["spoof_logit"], scores["label"])[0] for scores in alone]
    assert card["leave_pages_out"]["clean"]["eer"] < min(errors)  # chance errors of the two cancel
    both = mean_scores(ship.read_settings(folders))["clean"]
    assert set(both["fold"]) == {"pages-2-of-4 pages-3-of-4"}  # one part of the first division, one of the second

    other = cross_validation(tmp_path / "cv-3", data, replace(first, model_args={"width": 0.3}), 3)
    assert run_command(lambda: ship.main([str(folders[0]), str(other), "--name", "second"])) == 2
    assert "the datasets, front ends, networks or losses differ" in capsys.readouterr().err
    cnn = cross_validation(tmp_path / "cv-4", data, CONFIG, 4)
    assert run_command(lambda: ship.main([str(folders[0]), str(cnn), "--name", "second"])) == 2
    assert "columns of small_resnet with a plain logit can be joined" in capsys.readouterr().err
    cosine = replace(first, training=replace(CONFIG.training, loss="oc_softmax"))
    cosine = cross_validation(tmp_path / "cv-6", data, cosine, 6)
    assert run_command(lambda: ship.main([str(folders[0]), str(cosine), "--name", "second"])) == 2
    assert "columns of small_resnet with a plain logit can be joined" in capsys.readouterr().err
    part = cross_validation(tmp_path / "cv-5", data, replace(CONFIG, limit=20), 5)
    assert run_command(lambda: ship.main([str(part), "--name", "second"])) == 2
    assert "measured on a part of the clips" in capsys.readouterr().err
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    words = [*map(str, folders), "--name", "second", "--about", str(tmp_path / "list.json")]
    assert run_command(lambda: ship.main(words)) == 2
    assert "a JSON object is needed" in capsys.readouterr().err
    (folders[1] / "scores_1s.csv").unlink()
    assert run_command(lambda: ship.main([*map(str, folders), "--name", "second"])) == 2
    assert "scores_1s.csv: is not there" in capsys.readouterr().err


def test_teachers_are_trained_on_all_before_their_pupil(data, trained, tmp_path, monkeypatch):
    order, train = [], ship.train

    def noted(config, table, watched, run):
        order.append((run.parent.name, len(table), config.training.teachers))
        train(config, table, watched, run)

    monkeypatch.setattr(ship, "train", noted)
    with_extra = replace(CONFIG, extra=str(tmp_path / "corpus"))
    teacher = cross_validation(tmp_path / "runs" / "cv-teacher", data, with_extra, 3)
    taught = replace(CONFIG, training=replace(CONFIG.training, teachers=(str(teacher / "part1"),)))
    pupil = cross_validation(tmp_path / "runs" / "cv-pupil", data, taught, 3)
    assert run_command(lambda: ship.main([str(pupil), "--name", "voice"])) == 0
    assert order == [("cv-teacher", 168, ()), ("cv-pupil", 160, (str(teacher / "all"),))]
    text = (tmp_path / "pretrained" / "voice.json").read_text(encoding="utf-8")
    card = json.loads(text)
    assert card["config"]["training"]["teachers"] == ["cv-teacher"] and str(tmp_path) not in text
    assert list(card["teachers"]) == ["cv-teacher"] and card["teachers"]["cv-teacher"]["extra"] == "corpus"
    assert sum(card["data"]["made_of"]["made_fakes"].values()) == 4  # it learned from these through its teacher
