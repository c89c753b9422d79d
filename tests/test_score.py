"""Scoring a dataset with a trained model: the scores are the model's, the file says what they are."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import evaluate
import score
from audio import fit_length, load_audio
from backend import keras
from config import BONAFIDE, Config, FeatureConfig
from data_utils import read_dataset
from demo_corpus import write_demo_corpus
from errors import CommandParser, UserError
from inference import predict_audio
from model import PRETRAINED, build_model, class_logits, load_model, read_card, save_model, spoof_logits
from score_files import read_scores


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_demo_corpus(tmp_path_factory.mktemp("score") / "corpus", seed=5, scale=0.08, progress=False)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """A small network with two class logits, untrained and without a threshold."""
    keras.utils.set_random_seed(1)
    model = build_model(Config(model="rawnet2", features=FeatureConfig("raw", 6_000), model_args={"gru_units": 8}))
    path = tmp_path_factory.mktemp("network") / "raw.keras"
    save_model(model, path, {"model": "rawnet2"})
    return path


@pytest.fixture
def model_file(network: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may change."""
    for file in (network, network.with_suffix(".json")):
        shutil.copy(file, tmp_path)
    return tmp_path / network.name


def command(monkeypatch, *words: object) -> int:
    monkeypatch.setattr(score, "evaluate", partial(evaluate.evaluate, bootstrap=20))  # intervals are tested elsewhere
    return score.main([*map(str, words)])


def test_both_kinds_of_scores_are_the_models_own(model_file, corpus, tmp_path, monkeypatch, capsys):
    model, table = load_model(model_file), read_dataset(corpus).usable()
    path = table.loc[table["split"] == "dev", "path"].iloc[0]
    clip = fit_length(load_audio(path), 6_000)[None]
    wanted = {
        "spoof-logit": -spoof_logits(model, clip)[0],
        "bonafide-logit": class_logits(model, clip)[0, BONAFIDE],
    }
    for kind, value in wanted.items():
        out = tmp_path / f"{kind}.txt"
        assert command(monkeypatch, model_file, "--data", corpus, "--split", "dev", "--score", kind, "--out", out) == 0
        scores = read_scores(out)
        assert len(scores) == (table["split"] == "dev").sum()
        assert scores.set_index("utterance_id")["score"][Path(path).stem] == pytest.approx(value, abs=1e-5)
        header = out.read_text(encoding="utf-8").splitlines()[0]
        assert header == f"# {score.SCORES[kind][0]}"
        output = capsys.readouterr().out
        evaluate.main([str(out), "--bootstrap", "0"])
        output += capsys.readouterr().out
        assert output.count(score.SCORES[kind][0]) == 3
        assert ("spoof_logit >=" in output) == (kind == "spoof-logit")
    assert wanted["spoof-logit"] != pytest.approx(wanted["bonafide-logit"], abs=1e-4)


def test_a_threshold_from_dev_goes_into_the_model_and_its_card(model_file, corpus, tmp_path, monkeypatch, capsys):
    out = tmp_path / "dev.txt"
    options = ["--data", corpus, "--split", "dev", "--out", out]
    before = spoof_logits(load_model(model_file), np.zeros((1, 6_000), np.float32))
    assert command(monkeypatch, model_file, *options, "--set-threshold") == 0
    model, card = load_model(model_file), read_card(model_file)  # the card's sha256 is that of the new file
    threshold = model.layers[-1].operating_point["threshold"]
    assert card["operating_point"]["threshold"] == threshold and card["model"] == "rawnet2"
    assert card["operating_point"]["source"].endswith(f"{corpus}, dev")
    np.testing.assert_array_equal(spoof_logits(model, np.zeros((1, 6_000), np.float32)), before)
    path = read_dataset(corpus).usable()["path"].iloc[0]
    result = predict_audio(model_file, path)
    assert result["threshold"] == threshold and not any("no threshold" in text for text in result["warnings"])
    capsys.readouterr()
    command(monkeypatch, model_file, *options)
    assert "the model's own threshold, from " in capsys.readouterr().out


def test_what_ships_keeps_its_threshold_and_a_copy_loses_what_the_old_one_decided(corpus, tmp_path, monkeypatch):
    words = ["--data", corpus, "--split", "dev", "--out", tmp_path / "dev.txt", "--set-threshold"]
    with pytest.raises(UserError, match="resmax ships with its card; copy its file"):
        command(monkeypatch, "resmax", *words)
    for suffix in (".keras", ".json"):
        (tmp_path / f"copy{suffix}").write_bytes((PRETRAINED / f"resmax{suffix}").read_bytes())
    old = read_card(tmp_path / "copy.keras")
    (tmp_path / "copy.json").write_text(json.dumps(old | {"file": "copy.keras"}), encoding="utf-8")
    assert command(monkeypatch, tmp_path / "copy.keras", *words) == 0
    card = read_card(tmp_path / "copy.keras")
    assert card["operating_point"]["threshold"] != old["operating_point"]["threshold"]
    assert card["operating_point"]["minimum_seconds"] == old["minimum_seconds"]
    assert "operating_points" not in card and "metrics" not in card
    clean = card["leave_pages_out"]["clean"]
    assert clean["eer"] == old["leave_pages_out"]["clean"]["eer"] and not {"far", "frr", "decided"} & set(clean)
    assert not {"far", "frr"} & set(card["elsewhere"]["ASVspoof 2019 LA"])


@pytest.mark.parametrize("name", ["raw", "raw.keras", "pretrained/raw.keras"])
def test_what_ships_keeps_its_threshold_however_it_is_named(name, model_file, corpus, tmp_path, monkeypatch):
    shipped = tmp_path / "pretrained"
    shipped.mkdir()
    file = Path(shutil.copy(model_file, shipped))
    model_file.unlink()
    before = file.read_bytes()
    monkeypatch.setattr("model.PRETRAINED", shipped)
    monkeypatch.setattr(score, "PRETRAINED", shipped)
    monkeypatch.chdir(shipped if name == "raw.keras" else tmp_path)
    with pytest.raises(UserError, match=f"{name} ships with its card"):
        command(monkeypatch, name, "--data", corpus, "--split", "dev", "--set-threshold")
    assert file.read_bytes() == before


def test_scores_are_made_as_those_were_that_the_threshold_is_from(corpus, tmp_path, monkeypatch, capsys):
    out, options = tmp_path / "dev.txt", ["--data", corpus, "--split", "dev", "--out", tmp_path / "dev.txt"]
    path = Path(read_dataset(corpus).usable().query("split == 'dev'")["path"].iloc[0])
    model_file = tmp_path / "cnn.keras"
    keras.utils.set_random_seed(1)
    save_model(build_model(Config(model="simple_cnn", features=FeatureConfig("mel", 6_000))), model_file)

    def scored(*words) -> tuple[float, str]:
        assert command(monkeypatch, model_file, *options, *words) == 0
        return read_scores(out).set_index("utterance_id")["score"][path.stem], capsys.readouterr().out

    first, shown = scored()
    assert "heard of each clip: the first 0.375 s" in shown
    mean = -predict_audio(model_file, path)["logit"]
    assert mean != pytest.approx(first, abs=1e-3)
    assert scored("--windows", "all", "--set-threshold")[0] == pytest.approx(mean, abs=1e-5)
    again, shown = scored()
    assert again == pytest.approx(mean, abs=1e-5) and "heard of each clip: all of it" in shown
    assert "# windows: all" in out.read_text(encoding="utf-8")
    assert scored("--windows", "first")[0] == pytest.approx(first, abs=1e-5)


def test_limit_is_stratified_and_without_split_all_are_taken(corpus):
    parser = CommandParser()
    score.add_choice_arguments(parser)
    chosen = score.chosen_clips(corpus, parser.parse_args(["--limit", "20"]))
    assert len(chosen) < 40 and set(chosen["attack"]) == {"-", *(f"D{k:02}" for k in range(1, 9))}
    assert set(chosen["split"]) == {"train", "dev", "eval"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set-threshold", "--score", "bonafide-logit"], "leave out --score"),
        (["--split", "test"], "invalid choice"),
        (["--set-threshold", "--split", "eval"], "the test set would choose"),
        (["--set-threshold"], "the test set would choose"),
        (["--out", "nowhere/scores.txt"], "there is no folder nowhere"),
        (["--limit", "0"], "--limit 0: must be 1 or more"),
        (["--seed", "-1"], "--seed -1: must be 0 or more"),
    ],
)
def test_mistakes_are_one_line(words, message, model_file, corpus, monkeypatch):
    with pytest.raises(UserError, match=message):
        command(monkeypatch, model_file, "--data", corpus, *words)


def test_a_network_of_one_logit_has_no_class_logits(corpus, tmp_path, monkeypatch):
    features = FeatureConfig("log_stft", 8_000, window=256)
    save_model(build_model(Config(features=features)), tmp_path / "one.keras")
    with pytest.raises(UserError, match="class logits are those of"):
        command(monkeypatch, tmp_path / "one.keras", "--data", corpus, "--score", "bonafide-logit")


def test_one_class_gives_scores_but_no_report(model_file, corpus, tmp_path, monkeypatch, capsys):
    table = read_dataset(corpus).usable()
    csv = tmp_path / "spoof.csv"
    table[table["label"] == 1].head(6)[["path", "attack"]].assign(label="spoof").to_csv(csv, index=False)
    out = tmp_path / "spoof.txt"
    assert command(monkeypatch, model_file, "--data", csv, "--out", out) == 0
    assert "clips of one class only" in capsys.readouterr().out and out.is_file()
    with pytest.raises(UserError, match="a threshold needs both"):
        command(monkeypatch, model_file, "--data", csv, "--out", out, "--set-threshold")
