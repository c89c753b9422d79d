"""Score files of every layout, one clear line for every bad one, the report and the command line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import evaluate as ev
import metrics
from config import SCORE_CONVENTION
from errors import UserError
from protocols import read_trials
from score_files import read_asv_scores

REPO = Path(__file__).resolve().parents[1]
PROTOCOL_2019 = "S1 a - - bonafide\nS1 b - A07 spoof\nS2 c - - bonafide\nS2 d - A08 spoof\n"


def _write(folder: Path, text: str, name: str = "scores.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _random_table(seed: int = 0, bonafide: int = 60, spoof: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1], [bonafide, spoof])
    attack = np.where(label == 0, "-", rng.choice(["A07", "A08", "A09"], len(label)))
    return pd.DataFrame(
        {
            "utterance_id": [f"LA_E_{i}" for i in range(len(label))],
            "attack": attack,
            "label": label,
            "score": rng.normal(np.where(label == 0, 2.0, -2.0), 1.5),
            "speaker": rng.choice([f"S{i}" for i in range(10)], len(label)),
        }
    )


LAYOUTS = {
    "asvspoof": "a - bonafide 2.5\nb A07 spoof -1\n",
    "without attack": "a bonafide 2.5\nb spoof -1\n",
    "spaces in an id": "my clip - real 2.5\nmy other clip A07 fake -1\n",
    "csv": "id,label,score\na,bona-fide,2.5\nb,spoof,-1\n",
    "csv from a spreadsheet": "\ufeffid;score;label\na;2.5;Bona Fide\nb;-1;Fake\n",
    "tsv": "filename\tcm-score\tkey\tattack\na\t2.5\tgenuine\t-\nb\t-1\tspoof\tA07\n",
    "quoted csv": '"path","score","label"\n"a, b/c.wav",2.5,human\n"d.wav",-1,spoof\n',
    "header in columns": "utterance score label\na 2.5 bonafide\nb -1 spoof\n",
    "spoof logits": "utterance_id,spoof_logit,label,speaker\na,-2.5,real,S1\nb,1,synthetic,S2\n",
    "comments and blank lines": "# a comment\n\n# another\na - bonafide 2.5\n\nb A07 spoof -1\n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path) -> None:
    table = ev.read_scores(_write(tmp_path, LAYOUTS[layout]))
    assert list(table.columns) == ["utterance_id", "attack", "label", "score", "speaker"]
    assert list(table["label"]) == [0, 1]
    assert list(table["score"]) == [2.5, -1.0]


def test_higher_is_spoof_flips(tmp_path: Path) -> None:
    table = ev.read_scores(_write(tmp_path, "a - bonafide -2\nb A07 spoof 1\n"), higher_is="spoof")
    assert list(table["score"]) == [2.0, -1.0]


def test_own_file_is_read_back_exactly(tmp_path: Path) -> None:
    table = _random_table()
    table.loc[3, "utterance_id"] = "a clip, with spaces.wav"
    table.loc[70, "attack"] = "Tacotron 2"
    path = tmp_path / "out.txt"
    ev.write_scores(path, table, model="resmax", dataset="some set")
    head = path.read_text(encoding="utf-8").splitlines()[:5]
    assert head[0] == f"# {SCORE_CONVENTION}"
    assert head[1:] == [
        "# model: resmax",
        "# dataset: some set",
        "# windows: first",
        "# columns: utterance attack key score",
    ]
    again = ev.read_scores(path)
    for column in ("utterance_id", "label", "score"):
        assert list(again[column]) == list(table[column])
    assert again.loc[70, "attack"] == "Tacotron_2"


@pytest.mark.parametrize("utterance", ["#1", "two\nlines", " blank "])
def test_ids_that_cannot_be_written_are_refused(utterance: str, tmp_path: Path) -> None:
    table = _random_table().assign(utterance_id=utterance)
    with pytest.raises(UserError, match="cannot be written"):
        ev.write_scores(tmp_path / "out.txt", table, model="m", dataset="d")


BAD_SCORES = {
    "nan": ("a - bonafide 1\nb A07 spoof nan\n", "line 2: score is nan"),
    "inf": ("# c\na - bonafide inf\nb A07 spoof 1\n", "line 2: score is inf"),
    "no number": ("a - bonafide 1\nb A07 spoof high\n", "line 2: score 'high' is not a number"),
    "unknown label": (
        "a - bonafide 1\nb A07 maybe 1\n",
        "line 2: label 'maybe' is not known; valid: bonafide",
    ),
    "numeric label": (
        "id,label,score\na,0,1\nb,1,2\n",
        "line 2: label '0' is not known (0 and 1 mean opposite",
    ),
    "duplicate": (
        "a - bonafide 1\nb A07 spoof 1\na - bonafide 2\n",
        "line 3: utterance 'a' was already on line 1",
    ),
    "one class": ("a - bonafide 1\nb - bonafide 1\n", "no spoof utterance among 2"),
    "no labels": ("a 1\nb 2\n", "the scores have no labels; give --protocol FILE"),
    "no score column": ("id,label\na,real\n", "the header has no score column; valid:"),
    "short line": ("a bonafide 1\nb\n", "line 2: 1 columns where line 1 has 3"),
    "short csv line": ("id,label,score\na,real\n", "line 2: 2 columns where the header has 3"),
    "open quote": ('id,label,score\n"a,real,1\nb,fake,2\n', "a quotation mark is opened and not closed"),
    "no layout": ("what is this about\n", "line 1: 'what is this about' is no known layout; valid:"),
    "empty": ("# only a comment\n", "no lines with data"),
}


@pytest.mark.parametrize("case", BAD_SCORES)
def test_bad_score_files(case: str, tmp_path: Path) -> None:
    text, message = BAD_SCORES[case]
    path = _write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        ev.read_scores(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x00\xff\xfe\x80")
    for path, message in (
        (binary, "not a text file"),
        (tmp_path / "none", "No such file"),
        (tmp_path, "cannot"),
    ):
        with pytest.raises(UserError, match=message):
            ev.read_scores(path)


def test_protocol_gives_labels_attacks_and_speakers(tmp_path: Path) -> None:
    protocol = _write(tmp_path, PROTOCOL_2019, "protocol.txt")
    table = ev.read_scores(_write(tmp_path, "d -2\nc 1\nb -1\na 2\n"), protocol)
    assert list(table["speaker"]) == ["S1", "S1", "S2", "S2"]
    assert list(table["attack"]) == ["-", "A07", "-", "A08"]
    assert list(table["score"]) == [2, -1, 1, -2]


def test_protocol_and_scores_may_name_files_differently(tmp_path: Path) -> None:
    protocol = _write(tmp_path, "file,speaker,label\n0.wav,Ann,bona-fide\n1.wav,Bob,spoof\n", "meta.csv")
    table = ev.read_scores(_write(tmp_path, "clips/0.flac 1\nclips/1.flac -1\n"), protocol)
    assert list(table["speaker"]) == ["Ann", "Bob"]


BAD_JOINS = {
    "no score": ("a 1\nb 1\nc 1\n", "1 of 4 utterances in {p} have no score, first 'd' (protocol line 4)"),
    "stranger": ("a 1\nb 1\nc 1\nd 1\ne 1\n", "line 5: 'e' is not in {p}"),
    "contradiction": (
        "a real 1\nb real 1\nc real 1\nd fake 1\n",
        "line 2: 'b' is bonafide here but spoof in {p}",
    ),
    "another set": ("x 1\ny 1\n", "4 of 4 utterances in {p} have no score, first 'a' (protocol line 1)"),
}


@pytest.mark.parametrize("case", BAD_JOINS)
def test_scores_and_protocol_that_do_not_fit(case: str, tmp_path: Path) -> None:
    text, message = BAD_JOINS[case]
    protocol = _write(tmp_path, PROTOCOL_2019, "protocol.txt")
    path = _write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        ev.read_scores(path, protocol)
    assert str(caught.value) == f"{path}: " + message.format(p=protocol)


BAD_PROTOCOLS = {
    "few columns": ("a - bonafide\n", "line 1: 3 columns; valid: ASVspoof 2019"),
    "no key": ("S1 a - A07 x\n", "line 1: label 'x' is not known; valid:"),
    "uneven": (
        "S1 a - - bonafide\nS1 b - A07\n",
        "line 2: 4 columns (S1 b - A07); asvspoof2019_LA lists have 5",
    ),
    "csv without labels": ("id,speaker\na,S1\n", "header 'id,speaker'; needed: path,label"),
}


@pytest.mark.parametrize("case", BAD_PROTOCOLS)
def test_bad_protocols(case: str, tmp_path: Path) -> None:
    text, message = BAD_PROTOCOLS[case]
    path = _write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_trials(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_protocols_of_2021_and_their_subsets(tmp_path: Path) -> None:
    text = (
        "LA_1 E_1 alaw ita_tx A07 spoof notrim eval\nLA_2 E_2 none loc_tx bonafide bonafide notrim eval\n"
        "LA_3 E_3 alaw ita_tx A08 spoof notrim progress\nLA_4 E_4 alaw ita_tx A08 spoof trim hidden\n"
    )
    path = _write(tmp_path, text, "trial_metadata.txt")
    assert list(read_trials(path)["label"]) == [1, 0, 1, 1]
    assert list(read_trials(path)["attack"]) == ["A07", "-", "A08", "A08"]
    assert list(read_trials(path, "eval")["utterance_id"]) == ["E_1", "E_2"]
    table = ev.read_scores(_write(tmp_path, "E_1 1\nE_2 2\nE_3 3\nE_4 4\n"), path, subset="eval")
    assert list(table["score"]) == [1, 2]
    with pytest.raises(UserError, match="no subset 'dev'; valid: eval, hidden, progress"):
        read_trials(path, "dev")
    with pytest.raises(UserError, match="only ASVspoof 2021"):
        read_trials(_write(tmp_path, PROTOCOL_2019, "p.txt"), "eval")


def test_protocol_of_the_2021_df_track(tmp_path: Path) -> None:
    text = "LA_1 DF_E_1 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -\n"
    table = read_trials(_write(tmp_path, text), "progress")
    assert table.loc[0, ["utterance_id", "attack", "label", "speaker"]].tolist() == [
        "DF_E_1",
        "A14",
        1,
        "LA_1",
    ]


def test_attack_that_no_list_names_makes_no_table(tmp_path: Path) -> None:
    protocol = _write(tmp_path, "file,speaker,label\n0.wav,Ann,bona-fide\n1.wav,Bob,spoof\n", "meta.csv")
    report = ev.evaluate(ev.read_scores(_write(tmp_path, "0 1\n1 -1\n"), protocol), bootstrap=0)
    assert list(report["per_attack"]) == ["unknown"]
    assert "attack" not in ev.format_report(report)


def test_protocol_of_asvspoof_5(tmp_path: Path) -> None:
    text = "D_1 D_01 F - - - AC1 A11 spoof -\nD_2 D_02 M - - - - bonafide bonafide -\n"
    table = read_trials(_write(tmp_path, text, "ASVspoof5.dev.track_1.tsv"))
    assert list(table["label"]) == [1, 0]
    assert list(table["attack"]) == ["A11", "-"]
    assert list(table["speaker"]) == ["D_1", "D_2"]


def test_asv_file_errors(tmp_path: Path) -> None:
    for text, message in (
        ("bonafide target 1\nbonafide friend 2\n", "line 2: not an ASV score line; valid:"),
        ("bonafide target 1\nbonafide nontarget x\n", "line 2: score 'x' is not a number"),
        ("bonafide target 1\nbonafide nontarget 2\n", "no spoof trial"),
    ):
        with pytest.raises(UserError, match=message):
            read_asv_scores(_write(tmp_path, text))


def test_golden_report(shared_data: Path) -> None:
    """Each attack's EER, the t-DCF with its ASV file, and dev figures, in one call as main.py makes it."""
    la = shared_data / "LA"
    protocol = la / "ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.eval.trl.txt"
    table = ev.read_scores(shared_data / "scores/AASIST_LA_eval.txt", protocol)
    dev = ev.read_scores(shared_data / "scores/AASIST_LA_dev.txt")
    asv = la / "ASVspoof2019_LA_asv_scores/ASVspoof2019.LA.asv.eval.gi.trl.scores.txt"
    report = ev.evaluate(table, asv_scores=asv, dev=dev, threshold="dev-eer", bootstrap=20)
    golden = "384 424 000 635 180 513 122 146 424 587 1385 2730 652"
    expected = {f"A{n:02}": int(eer) / 1000 for n, eer in enumerate(golden.split(), start=7)}
    assert {k: round(100 * v["eer"], 3) for k, v in report["per_attack"].items()} == expected
    assert report["trials"] == {"bonafide": 7355, "spoof": 63882, "speakers": 67}
    assert round(report["t_dcf"]["t_dcf_2019"], 6) == 0.026348
    assert report["t_dcf"]["asv_scores"] == str(asv)
    assert (round(100 * report["decision"]["frr"], 2), round(100 * report["decision"]["far"], 2)) == (
        0.15,
        8.76,
    )
    assert round(report["calibrated"]["cllr"], 3) == 0.135
    assert round(report["calibrated"]["act_dcf"], 4) == 0.0885
    assert set(report["intervals"]["speakers"]) == {"eer", "auc", "min_dcf", "t_dcf_2019", "t_dcf_2021"}
    assert report["warnings"] == []
    text = ev.format_report(report)
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.replace(str(asv), "").splitlines())) <= 110


def test_other_splits_verifier_is_warned_about(shared_data: Path) -> None:
    asv = shared_data / "LA/ASVspoof2019_LA_asv_scores/ASVspoof2019.LA.asv.dev.gi.trl.scores.txt"
    report = ev.evaluate(_random_table(), asv_scores=asv, bootstrap=0)
    assert "seems to be of dev but these scores of eval" in report["warnings"][0]


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("ASVspoof2019.LA.asv.dev.gi.trl.scores.txt", "dev"),
        ("asv_eval_scores.txt", "eval"),
        ("LA_D_1047731", "dev"),
        ("T_0000000001", "train"),
        ("evaluation.txt", None),
        ("my_clip", None),
    ],
)
def test_split_from_a_name(text: str, split: str | None) -> None:
    assert ev._split_of(text) == split


def test_reversed_scores_are_named_and_left_as_they_are() -> None:
    table = _random_table()
    table["score"] *= -1
    report = ev.evaluate(table, bootstrap=0)
    assert report["reversed"]
    assert report["eer"] > 0.8
    assert "--higher-is spoof" in ev.format_report(report)


def test_chance_is_not_called_reversed() -> None:
    rng = np.random.default_rng(1)
    for seed in range(20):
        table = _random_table(seed, 8, 8).assign(score=rng.normal(size=16))
        if metrics.auc(table["score"], table["label"]) > 0.2:
            assert not ev.evaluate(table, bootstrap=0)["reversed"]


def test_collapsed_scores_are_named() -> None:
    dev = _random_table(1).assign(score=0.7)
    report = ev.evaluate(_random_table().assign(score=0.7), dev=dev, threshold="dev-eer", bootstrap=5)
    assert report["collapsed"]
    assert report["eer"] == 0.5
    assert "WARNING: collapsed" in ev.format_report(report)
    json.dumps(report, allow_nan=False)


def test_many_attacks_are_cut_to_the_hardest_in_the_text_alone() -> None:
    table = _random_table()
    table["attack"] = [f"tts-{i % 40:02}" for i in range(len(table))]
    report = ev.evaluate(table, bootstrap=0)
    text = ev.format_report(report)
    hardest = max(report["per_attack"], key=lambda name: report["per_attack"][name]["eer"])
    assert len(report["per_attack"]) == 40
    assert "the 26 hardest of 40 attacks" in text
    assert hardest in text
    assert len(text.splitlines()) <= 40


@pytest.mark.parametrize("speakers", [True, False])
def test_every_attack_has_the_interval_of_its_own_trials(speakers: bool) -> None:
    table = _random_table()
    rng = np.random.default_rng(3)
    table["speaker"] = rng.choice(["s1", "s2", "s3", "s4", "s5"], len(table)) if speakers else "-"
    report = ev.evaluate(table, bootstrap=50, seed=4)
    for attack, row in report["per_attack"].items():
        part = table[(table["label"] == 0) | (table["attack"] == attack)]
        kind = {"speakers": part["speaker"]} if speakers else {}
        alone = metrics.bootstrap_intervals(part["score"], part["label"], replicates=50, seed=4, **kind)
        assert row["eer_interval"] == alone["eer"]
    assert all("eer_interval" not in row for row in ev.evaluate(table, bootstrap=0)["per_attack"].values())


def test_report_without_speakers_says_so() -> None:
    report = ev.evaluate(_random_table().drop(columns=["speaker", "attack"]), bootstrap=10)
    assert "speakers" not in report["intervals"]
    assert "speakers unknown" in ev.format_report(report)


def test_thresholds() -> None:
    table, dev = _random_table(), _random_table(1)
    decisions = {
        rule: ev.evaluate(table, dev=dev, threshold=rule, bootstrap=0)["decision"]
        for rule in ("eer", "dev-eer", "0.5", "0.50", "-1.25")
    }
    assert decisions["eer"]["threshold"] == metrics.compute_eer(table["score"], table["label"])[1]
    assert decisions["dev-eer"]["threshold"] == metrics.compute_eer(dev["score"], dev["label"])[1]
    assert decisions["0.5"]["threshold"] == 0
    assert "logit 0" in decisions["0.5"]["source"]
    assert decisions["0.50"]["threshold"] == 0.5  # written otherwise, a cm_score
    assert decisions["-1.25"]["spoof_logit_threshold"] == 1.25
    for rule in ("half", "nan"):
        with pytest.raises(UserError, match="valid: eer, dev-eer"):
            ev.evaluate(table, threshold=rule)
    with pytest.raises(UserError, match="give --dev-scores"):
        ev.evaluate(table, threshold="dev-eer")


def test_balanced_weighs_both_classes_alike() -> None:
    table = _random_table()
    plain, balanced = (ev.evaluate(table, balanced=b, bootstrap=0)["decision"] for b in (False, True))
    assert plain["confusion"] == balanced["confusion"]
    assert balanced["accuracy"] == pytest.approx(plain["balanced_accuracy"])
    assert balanced["spoof"]["precision"] != plain["spoof"]["precision"]


def test_command_line(tmp_path: Path, command: Callable) -> None:
    path = tmp_path / "scores.txt"
    ev.write_scores(path, _random_table(), model="m", dataset="d")
    code, text, errors = command(ev.main, path, "--bootstrap", 20, "--plots", tmp_path / "plots")
    assert (code, errors) == (0, "")
    assert "EER %" in text
    assert "A09" in text
    drawn = sorted(p.name for p in (tmp_path / "plots").iterdir())
    assert drawn == ["attacks.png", "confusion.png", "det.png", "roc.png", "scores.png"]
    report = json.loads(command(ev.main, path, "--bootstrap", 20, "--json")[1])
    expected = ev.evaluate(ev.read_scores(path), name=str(path), bootstrap=20)
    assert report == json.loads(json.dumps(expected))


@pytest.mark.parametrize(
    "arguments",
    [
        ["missing.txt"],
        [],
        ["SCORES", "--unknown"],
        ["SCORES", "--threshold", "dev-eer"],
        ["SCORES", "--bootstrap", "-1"],
        ["SCORES", "--subset", "eval"],
        ["SCORES", "--bootstrap", "0", "--plots", "SCORES"],
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(arguments: list[str], tmp_path: Path, command: Callable) -> None:
    path = _write(tmp_path, "a - bonafide 2\nb A07 spoof 1\n")
    code, output, errors = command(ev.main, *(path if a == "SCORES" else a for a in arguments))
    assert (code, output) == (2, "")
    assert errors.startswith("error: ")
    assert len(errors.splitlines()) == 1


def test_heavy_libraries_are_not_imported() -> None:
    code = "import sys, evaluate, calibration, metrics; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True)
    assert not {"tensorflow", "keras", "matplotlib", "sklearn", "scipy"} & set(loaded.stdout.split())
