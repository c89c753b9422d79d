"""Leaving pages out: every clip is judged once, by a model that heard nothing of its page; figures are right."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import cross_validate
import training_corpus
from config import BONAFIDE, LABELS, SAMPLE_RATE, read_config
from data_utils import read_dataset
from errors import run_command
from fold_figures import read_logits, write_logits
from metrics import compute_eer
from score_files import read_scores
from splits import split_table

PAGES, CLIPS = 8, 4


@pytest.fixture
def dataset(tmp_path):
    """Noise: recordings are dull, fakes bright; eight pages of four clips each, all with both classes."""
    rng, rows = np.random.default_rng(0), []
    for page in range(PAGES):
        for clip in range(CLIPS):
            waveform = rng.normal(0, 0.1, SAMPLE_RATE)
            if clip % 2 == BONAFIDE:
                waveform = np.convolve(waveform, np.ones(8) / 3, "same")
            name = f"{page}_{clip}.wav"
            soundfile.write(tmp_path / name, waveform, SAMPLE_RATE)
            rows.append((name, LABELS[clip % 2], "-" if clip % 2 == BONAFIDE else "bright", f"page{page}"))
    pd.DataFrame(rows, columns=["path", "label", "attack", "page"]).to_csv(tmp_path / "clips.csv", index=False)
    return tmp_path / "clips.csv"


def run(*words):
    return run_command(lambda: cross_validate.main([*map(str, words)]))


@pytest.mark.long
def test_every_clip_is_judged_once_by_a_model_that_did_not_hear_its_page(
    dataset, tmp_path, capsys, monkeypatch, unpainted
):
    judging = cross_validate.FOLDS[:2]  # half of the parts: half the time
    monkeypatch.setattr(cross_validate, "FOLDS", judging)
    options = ["--data", dataset, "--recipe", "simple_cnn_balanced", "--epochs", 1, "--stages", 1, "--learning-rate"]
    options += [0.001, "--balance", "groups", "--runs", tmp_path / "runs", "--conditions", "1s"]
    assert run(*options) == 0
    (folder,) = (tmp_path / "runs").glob("cv-*")
    scores = read_logits(folder / "scores_1s.csv")
    assert scores["utterance_id"].is_unique
    splits = {fold: split_table(read_dataset(dataset).usable(), fold) for fold in judging}
    for fold, table in splits.items():
        dev = table[table["split"] == "dev"]
        assert set(scores.loc[scores["fold"] == fold, "utterance_id"]) == set(dev["utterance_id"])
        assert not set(dev["page"]) & set(table.loc[table["split"] == "train", "page"])
    row = pd.read_csv(folder / "figures.csv").set_index("condition").loc["1s"]
    assert row["eer"] == pytest.approx(compute_eer(-scores["spoof_logit"], scores["label"])[0])
    evaluated = read_scores(folder / "scores_1s.csv")  # as evaluate.py and eda.py read it
    assert row["eer"] == pytest.approx(compute_eer(evaluated["score"], evaluated["label"])[0])
    first = capsys.readouterr().out
    assert run(*options) == 0  # all of it is there already
    again = capsys.readouterr().out
    assert again.count("is finished already") == 2
    assert again.splitlines()[-4:] == first.splitlines()[-4:]

    assert run(*options, "--teachers", folder) == 0  # each part learns from the run of that part
    (taught,) = set((tmp_path / "runs").glob("cv-*")) - {folder}
    configs = [read_config(file) for file in taught.glob("*/config.json")]
    assert len(configs) == 2
    for config in configs:
        (teacher,) = config.training.teachers
        assert Path(teacher).parent == folder
        assert read_config(Path(teacher) / "config.json").training.split == config.training.split
    assert capsys.readouterr().out.count(f"taught by {folder}") == 2

    write_logits(folder / "scores_1s.csv", scores.iloc[:-3])
    assert run(*options) == 1  # as if three clips could not have been read
    assert "1s: 3 of 16 clips could not be judged" in capsys.readouterr().out

    lines = dataset.read_text(encoding="utf-8").splitlines()
    dataset.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")  # a clip less: all of it again
    assert run(*options) == 0
    assert len(list((tmp_path / "runs").glob("cv-*"))) == 3
    assert "is finished already" not in capsys.readouterr().out


def test_what_trains_a_part_holds_nothing_of_its_pages_nor_copies_of_them(dataset, tmp_path, monkeypatch):
    corpus = tmp_path / "corpus"
    made = ["--methods", "frozen_phase", "--jobs", "1"]
    assert run_command(lambda: training_corpus.main([str(dataset), "--out", str(corpus), *made])) == 0
    trained, judged = {}, {}

    def carry_out(config, tables, folder):
        folder.mkdir(parents=True, exist_ok=True)
        trained[config.training.split] = tables["train"]
        return config.training.split  # in place of a run folder, and of its model

    def judge_clips(model, reader, what):
        judged.setdefault(model, []).append(reader)
        return np.arange(len(reader)), reader.labels + np.random.default_rng(0).normal(size=len(reader))

    monkeypatch.setattr(cross_validate, "carry_out", carry_out)
    monkeypatch.setattr(cross_validate, "load_model", lambda run: run)
    monkeypatch.setattr(cross_validate, "judge_clips", judge_clips)
    options = ["--data", dataset, "--extra", corpus, "--recipe", "simple_cnn_balanced", "--runs", tmp_path / "runs"]
    assert run(*options, "--conditions", "clean,noise") == 0
    assert set(trained) == set(judged) == set(cross_validate.FOLDS)
    table = read_dataset(dataset).usable()
    page = dict(zip(table["path"], table["page"], strict=True))
    named = dict(zip(training_corpus.recording_names(table), table["page"], strict=True))
    heard = []
    for fold, readers in judged.items():
        assert len(readers) == 2 and readers[0].paths == readers[1].paths
        pages, learned = {page[path] for path in readers[0].paths}, trained[fold]
        heard += readers[0].paths
        assert learned["extra"].sum() == 2 * (~learned["extra"] & (learned["label"] == BONAFIDE)).sum()
        assert not pages & set(learned["page"])
        assert not pages & {named[source] for source in learned.loc[learned["extra"], "source"]}
    assert sorted(heard) == sorted(table["path"])  # each clip once


def test_figures_of_conditions_measured_before_are_kept(tmp_path):
    for rows in (
        {"1s": {"clips": 4.0, "eer": 0.5}},
        {"clean": {"clips": 4.0, "eer": 0.1}},
        {"1s": {"clips": 5.0, "eer": 0.25}},
    ):
        cross_validate.keep_figures(tmp_path / "figures.csv", rows)
    kept = pd.read_csv(tmp_path / "figures.csv")
    assert kept.to_numpy().tolist() == [["clean", 4.0, 0.1], ["1s", 5.0, 0.25]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "x", "--split", "official"], "leave out --split"),
        (["--data", "x", "--select", "best"], "leave out --select"),
        (["--data", "x", "--patience", "3"], "leave out --patience"),
        ([], "--data DIR is needed"),
        (["--data", "x", "--conditions", "underwater"], "unknown condition underwater; valid: clean"),
        (["--data", "x", "--epoch", "3", "--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(words, message, capsys):
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_pairs_without_copies_are_refused_before_there_is_a_run(dataset, tmp_path, capsys):
    assert run("--data", dataset, "--recipe", "resnet_wild", "--runs", tmp_path / "runs") == 2
    assert "give copies with --extra (training_corpus.py makes them), or --pairs 0" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
