"""Leaving pages out: every clip is judged once, by a model that heard nothing of its page; figures are right."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import cross_validate
import training_corpus
from config import BONAFIDE, LABELS, SAMPLE_RATE, SPOOF, read_config
from cross_validate import errors_by, figures, format_pages, kind_errors, page_errors, unheard_families
from data_utils import read_dataset
from errors import run_command
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


@pytest.mark.slow
def test_every_clip_is_judged_once_by_a_model_that_did_not_hear_its_page(
    dataset, tmp_path, capsys, monkeypatch, unpainted
):
    judging = cross_validate.FOLDS[:2]  # half of the parts: half the time
    monkeypatch.setattr(cross_validate, "FOLDS", judging)
    options = ["--data", dataset, "--recipe", "simple_cnn_balanced", "--epochs", 1, "--stages", 1, "--learning-rate"]
    options += [0.001, "--balance", "groups", "--runs", tmp_path / "runs", "--conditions", "1s"]
    assert run(*options) == 0
    (folder,) = (tmp_path / "runs").glob("cv-*")
    scores = cross_validate.read_logits(folder / "scores_1s.csv")
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

    cross_validate.write_logits(folder / "scores_1s.csv", scores.iloc[:-3])
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


def scored(rows):
    return pd.DataFrame(rows, columns=["page", "label", "spoof_logit"]).assign(fold="pages-1-of-4")


def test_names_of_clips_and_pages_stay_the_words_they_are(tmp_path):
    columns = {"utterance_id": ["001", "002"], "page": ["None", "7"], "kind": "NA", "family": "-", "attack": "-"}
    scores = pd.DataFrame(columns | {"label": [0, 1], "fold": "1", "spoof_logit": [-0.1, 2 / 3]})
    cross_validate.write_logits(tmp_path / "scores.csv", scores)
    pd.testing.assert_frame_equal(cross_validate.read_logits(tmp_path / "scores.csv"), scores, check_dtype=False)


def test_figures_of_conditions_measured_before_are_kept(tmp_path):
    for rows in (
        {"1s": {"clips": 4.0, "eer": 0.5}},
        {"clean": {"clips": 4.0, "eer": 0.1}},
        {"1s": {"clips": 5.0, "eer": 0.25}},
    ):
        cross_validate.keep_figures(tmp_path / "figures.csv", rows)
    kept = pd.read_csv(tmp_path / "figures.csv")
    assert kept.to_numpy().tolist() == [["clean", 4.0, 0.1], ["1s", 5.0, 0.25]]


def test_a_page_counts_with_both_classes_only():
    rows = [("both", BONAFIDE, -1.0), ("both", SPOOF, 1.0), ("mixed", BONAFIDE, 1.0), ("mixed", SPOOF, -1.0)]
    errors = errors_by(scored([*rows, ("recordings", BONAFIDE, 5.0)]), "page")
    assert errors.to_dict() == {"both": 0.0, "mixed": 1.0}


def test_a_page_of_recordings_alone_can_make_the_errors_of_all():
    """Each page is told without an error, all together are not: one page of recordings lies where fakes lie."""
    rows = [("quiet", BONAFIDE, -4.0)] * 6 + [("studio", BONAFIDE, 1.0)] * 2
    rows += [("quiet", SPOOF, 0.5)] * 3 + [("demo", SPOOF, 3.0)] * 5
    pages = page_errors(scored(rows))
    assert pages.index.tolist() == ["quiet", "studio", "demo"]  # most wrong first
    assert pages["rejected"].tolist() == [0, 2, 0] and pages["accepted"].tolist() == [3, 0, 0]
    assert pages["eer"].iloc[0] == 0 and pages["eer"].iloc[1:].isna().all()
    assert pages["rejected"].sum() / 8 == 0.25 and pages["accepted"].sum() / 8 == 0.375
    lines = format_pages(pages).splitlines()
    assert lines[1].split() == ["6", "0", "3", "3", "0.0", "quiet"]
    assert lines[2].split() == ["2", "2", "0", "0", "-", "studio"]


def test_figures_of_known_scores():
    rng = np.random.default_rng(0)
    rows = [(f"p{i % 10}", label, rng.normal(2 * label, 1)) for i in range(400) for label in (BONAFIDE, SPOOF)]
    scores = scored(rows)
    scores["fold"] = np.where(scores["page"] < "p5", "pages-1-of-4", "pages-2-of-4")
    row = figures(scores)
    assert row["clips"] == 800
    assert row["eer"] == pytest.approx(0.159, abs=0.03)  # two normals, two deviations apart
    assert row["low_clips"] < row["eer"] < row["high_clips"]
    assert row["low_pages"] < row["eer"] < row["high_pages"]
    assert row["eer_of_pages"] == pytest.approx(errors_by(scores, "page").mean())
    # one fold's scores shifted: each fold is as good as before, together they are not
    shifted = scores.assign(spoof_logit=scores["spoof_logit"] + 4 * (scores["page"] < "p5"))
    pd.testing.assert_series_equal(errors_by(shifted, "fold"), errors_by(scores, "fold"))
    assert figures(shifted)["eer"] > row["eer"] + 0.1


def test_kinds_are_measured_against_all_recordings():
    rows = [("p", BONAFIDE, 0.0), ("q", BONAFIDE, 1.0), ("p", SPOOF, 2.0), ("p", SPOOF, -1.0), ("q", SPOOF, 0.5)]
    scores = scored(rows).assign(kind=["-", "-", "tts", "vc", "-"])
    assert kind_errors(scores).to_dict() == {"tts": 0.0, "vc": 1.0}


def test_families_that_two_parts_hold_were_heard():
    rows = [("p", BONAFIDE, 0.0), ("q", BONAFIDE, 1.0), *[("p", SPOOF, 2.0), ("q", SPOOF, -1.0)] * 2]
    scores = scored(rows).assign(
        fold=["pages-1-of-4", "pages-2-of-4"] * 3,
        family=["-", "-", "VITS", "VITS", "WaveNet", "-"],  # of the last, its attack stands for it
        attack=["-", "-", "a", "b", "c", "d"],
    )
    unheard = unheard_families(scores, set())
    assert unheard["fakes"] == 2 and unheard["clips"] == 4 and unheard["eer"] == 0.5
    assert unheard_families(scores[scores["family"] == "VITS"], set()) == {}
    # also those of which a part was heard, in another part of the pages or in --extra; here one part has none left
    named = scores.assign(family=["-", "-", "VITS", "VITS", "Glow-TTS+HiFi-GAN", "-"])
    assert unheard_families(named, {"hifigan"})["fakes"] == 1
    assert unheard_families(named.replace("VITS", "HiFi-GAN"), set())["fakes"] == 1
    assert unheard_families(named, {"hifigan", "d"}) == {}
    # a name that holds another is of its kind, and so are known abbreviations
    held = scores.assign(family=["-", "-", "VITS", "VITS", "Unit-HiFiGAN", "QPPWG"])
    assert unheard_families(held, set())["fakes"] == 2
    assert unheard_families(held, {"hifigan"})["fakes"] == 1
    assert unheard_families(held, {"hifigan", "parallelwavegan"}) == {}


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
