"""Figures of cross-validations: alone, of their mean, beside each other; they are printed as documented."""

import numpy as np
import pandas as pd
import pytest
from cross_validations import CONFIG, cross_validation

import fold_figures
from config import BONAFIDE, SPOOF
from errors import run_command
from fold_figures import (
    DEGRADED,
    errors_by,
    figures,
    format_pages,
    gains,
    kind_errors,
    page_errors,
    read_logits,
    unheard_families,
    write_logits,
)
from metrics import bootstrap_intervals, compute_eer


def scored(rows):
    return pd.DataFrame(rows, columns=["page", "label", "spoof_logit"]).assign(fold="pages-1-of-4")


def test_names_of_clips_and_pages_stay_the_words_they_are(tmp_path):
    columns = {"utterance_id": ["001", "002"], "page": ["None", "7"], "kind": "NA", "family": "-", "attack": "-"}
    scores = pd.DataFrame(columns | {"label": [0, 1], "fold": "1", "spoof_logit": [-0.1, 2 / 3]})
    write_logits(tmp_path / "scores.csv", scores)
    pd.testing.assert_frame_equal(read_logits(tmp_path / "scores.csv"), scores, check_dtype=False)


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


@pytest.fixture
def data(tmp_path):
    """A list of 160 clips of eight pages, of which the list gives two to dev."""
    rows = [
        (f"{i}.wav", *(("spoof", "A1", "vc") if i // 8 % 2 else ("bonafide", "-", "-")), f"page{i % 8}")
        for i in range(160)
    ]
    table = pd.DataFrame(rows, columns=["path", "label", "attack", "kind", "page"])
    table["split"] = np.where(table["page"] < "page2", "dev", "train")
    table.to_csv(tmp_path / "clips.csv", index=False)
    for path in table["path"]:
        (tmp_path / path).touch()
    return tmp_path / "clips.csv"


def shown(capsys, *words):
    capsys.readouterr()
    assert run_command(lambda: fold_figures.main([*map(str, words)])) == 0
    return capsys.readouterr().out


def test_the_command_prints_what_the_logits_have(data, tmp_path, capsys):
    folder = cross_validation(tmp_path / "cv-1", data, CONFIG, 1)
    lines = shown(capsys, folder).splitlines()
    clean, short = read_logits(folder / "scores_clean.csv"), read_logits(folder / "scores_1s.csv")
    for line, name, scores in ((lines[2], "clean", clean), (lines[3], "1s", short)):
        low, high = bootstrap_intervals(-scores["spoof_logit"], scores["label"])["eer"]
        error = compute_eer(-scores["spoof_logit"], scores["label"])[0]
        assert line.split()[:5] == [name, "160", f"{100 * error:.1f}", f"[{100 * low:.1f},", f"{100 * high:.1f}]"]
    # at one threshold for both conditions; the shorter clips' errors are the larger
    far, frr, decided, wrong = map(int, lines[3].split()[-4:])
    assert far > int(lines[2].split()[-4]) and 0 < frr < 50 and 0 < wrong < decided < 100
    assert "degraded" not in "".join(lines)  # was not measured
    page = page_errors(clean).loc["page0"]
    (line, *_) = [line.split() for line in lines if line.endswith("  page0")]
    assert [int(line[1]), int(line[3])] == page[["rejected", "accepted"]].tolist()
    error = compute_eer(-clean["spoof_logit"], clean["label"])[0]
    assert f"EER of the parts, clean: {100 * error:.1f} %" in lines  # the scores name one part
    assert f"  {100 * error:5.1f} %  vc (80 clips)" in lines
    (at,) = [i for i, line in enumerate(lines) if line.startswith("clips that the list marks dev")]
    part = clean[clean["page"] < "page2"]
    error = compute_eer(-part["spoof_logit"], part["label"])[0]
    assert lines[at + 3].split()[:3] == ["clean", "40", f"{100 * error:.1f}"]


def test_the_mean_of_two_errs_less_than_either(data, tmp_path, capsys):
    folders = [cross_validation(tmp_path / f"cv-{seed}", data, CONFIG, seed) for seed in (1, 2)]
    alone = [float(shown(capsys, folder).splitlines()[2].split()[2]) for folder in folders]
    text = shown(capsys, *folders, "--beside", folders[0])
    together = float(text.splitlines()[2].split()[2])
    assert together < min(alone)
    assert text.splitlines()[2].split()[-6] == "-"  # parts of two divisions are not parts that one model judged
    gain = text.splitlines()[-1].split()
    assert gain[0] == "clean" and float(gain[1]) == pytest.approx(alone[0] - together, abs=0.11)


def test_the_mean_of_the_degraded_conditions(data, tmp_path, capsys):
    folder, rng, errors = cross_validation(tmp_path / "cv-1", data, CONFIG, 1), np.random.default_rng(0), []
    for name in DEGRADED:
        clean = read_logits(folder / "scores_clean.csv")
        scores = clean.assign(spoof_logit=clean["spoof_logit"] + rng.normal(0, 1, len(clean)))
        write_logits(folder / f"scores_{name}.csv", scores)
        errors.append(compute_eer(-scores["spoof_logit"], scores["label"])[0])
    (line, *_) = [line for line in shown(capsys, folder).splitlines() if line.startswith("degraded")]
    assert line.split()[1] == f"{100 * np.mean(errors):.1f}"


def test_a_gain_and_its_intervals():
    """The better logits are the others with less noise; two pages of which one alone is better have a wide interval."""
    rng = np.random.default_rng(0)
    label = np.arange(800) % 2
    names = {"utterance_id": [f"{i}" for i in range(800)], "page": [f"p{i // 400}" for i in range(800)]}
    clips = pd.DataFrame(names | {"label": label})
    noise = rng.normal(size=800)
    theirs = {"clean": clips.assign(spoof_logit=2.0 * label + noise)}
    better = np.where(np.arange(800) < 400, 0.2, 1) * noise
    ours = {"clean": clips.assign(spoof_logit=2.0 * label + better).sample(frac=1, random_state=0)}
    row = gains(ours, theirs, replicates=200).loc["clean"]
    error = {name: figures(one["clean"])["eer"] for name, one in (("ours", ours), ("theirs", theirs))}
    assert row["gain"] == pytest.approx(error["theirs"] - error["ours"]) and row["gain"] > 0.05
    assert 0 < row["low_clips"] < row["gain"] < row["high_clips"] < 0.15
    assert row["low_pages"] == pytest.approx(0, abs=0.01) and row["high_pages"] > row["high_clips"]
    nothing = gains(ours, ours, replicates=20).loc["clean"]
    assert not nothing.any()
    degraded = {name: ours["clean"] for name in DEGRADED}
    rows = gains(degraded, {name: theirs["clean"] for name in DEGRADED}, replicates=20)
    assert rows.index.tolist() == ["degraded"] and rows.loc["degraded", "gain"] == pytest.approx(row["gain"])


def test_what_cannot_be_compared_is_refused(data, tmp_path, capsys):
    folder, other = (cross_validation(tmp_path / f"cv-{seed}", data, CONFIG, seed) for seed in (1, 2))
    (other / "scores_clean.csv").unlink()
    assert run_command(lambda: fold_figures.main([str(folder), "--beside", str(other)])) == 2
    assert "clean or all of mp3, opus" in capsys.readouterr().err
    assert run_command(lambda: fold_figures.main([str(folder), str(other)])) == 2
    assert f"{other / 'scores_clean.csv'}: is not there" in capsys.readouterr().err
    write_logits(other / "scores_clean.csv", read_logits(folder / "scores_clean.csv").iloc[1:])
    assert run_command(lambda: fold_figures.main([str(folder), str(other)])) == 2
    assert "not the same clips" in capsys.readouterr().err
    for words in ([folder, "--beside", other], [other, "--beside", folder]):
        assert run_command(lambda words=words: fold_figures.main([*map(str, words)])) == 2
        said = capsys.readouterr()
        assert "the same clips, with the same labels, must be judged" in said.err and not said.out
    for file in folder.glob("scores_*.csv"):
        file.unlink()
    assert run_command(lambda: fold_figures.main([str(folder)])) == 2
    assert "holds no scores yet: finish cross_validate.py" in capsys.readouterr().err
    assert run_command(lambda: fold_figures.main([str(tmp_path)])) == 2
    assert "a folder of cross_validate.py is needed" in capsys.readouterr().err
