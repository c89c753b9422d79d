"""The report of a dataset says what is in it: planted shortcuts, missing labels, missing and broken files."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

import dataset_findings
import measurements
from config import BONAFIDE, SPOOF
from data_utils import read_dataset
from dataset_plots import attack_bars, histograms, is_others, top_attacks
from eda import main, sample_rows, summarise
from errors import UserError, run_command
from measurements import HERTZ, MEASUREMENTS, Spectra


def make_dataset(root: Path, lead: tuple[float, float], count: int = 80, broken: int = 0, missing: int = 0) -> Path:
    """A CSV manifest of noise bursts, `lead` seconds of silence before those of (bona fide, spoof)."""
    rng = np.random.default_rng(1)
    root.mkdir()
    lines = ["path,label,attack,speaker,split"]
    for number in range(count):
        label = number % 2
        silent = int(16_000 * (lead[label] + 0.06 * rng.random()))
        sound = 0.1 * rng.standard_normal(silent + rng.integers(3000, 6000))
        sound[:silent] *= 1e-4
        soundfile.write(root / f"{number}.wav", sound, 16_000)
        if number < broken:
            (root / f"{number}.wav").write_bytes(b"RIFF")
        elif number < broken + missing:
            (root / f"{number}.wav").unlink()
        attack = f"<A{number % 3}>" if label else "-"
        split = "train" if number < count / 2 else "eval"
        lines.append(f"{number}.wav,{('bonafide', 'spoof')[label]},{attack},s{number % 7},{split}")
    (root / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


def text_of(report: Path) -> str:
    page = report.read_text(encoding="utf-8")
    assert "<A1>" not in page and "&lt;A1&gt;" in page  # names from a list are shown, not run
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # one file, nothing fetched
    return re.sub(r"<[^>]*>", " ", page)


def test_a_planted_shortcut_is_the_finding(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    assert main([str(make_dataset(tmp_path / "set", (0.4, 0.1))), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    found = re.search(r"Median leading silence ([\d.]+) s bona fide and ([\d.]+) s spoof: this alone separates", said)
    assert (
        found and float(found[1]) == pytest.approx(0.43, abs=0.03) and float(found[2]) == pytest.approx(0.13, abs=0.03)
    )
    assert "0.0 % EER" in said and str(out / "report.html") in said
    text = text_of(out / "report.html")
    assert found[0] in text and "Boosted trees" in text and "80 clips" in text
    assert "digital zeros" in text and "in train, too" in text
    assert re.search(r"leading silence \(s\)\s+0\.4\d+\s+0\.1\d+\s+0\.0 % \[0\.0, 0\.0\]\s+1\s+0\.0 %\s+0\.0 %", text)
    measured = pd.read_csv(out / "measurements.csv", keep_default_na=False)
    assert len(measured) == 80 and {*MEASUREMENTS, "path", "attack", "error"} <= set(measured)
    ranked = pd.read_csv(out / "shortcuts.csv")
    best = ranked.query("split == 'all' and measurement == 'lead_silence'").iloc[0]
    assert best["eer"] == 0 and best["higher_is"] == "bonafide"
    summary = pd.read_csv(out / "summary.csv")
    whole = summary[summary["attack"] == "all"]
    assert whole["measured"].sum() == 80 and list(whole["split"]) == ["train", "train", "eval", "eval"]
    assert summary[summary["attack"] != "all"]["measured"].sum() == 40
    assert whole["hours"].sum() * 3600 == pytest.approx(measured["seconds"].sum(), rel=1e-3)
    assert len(pd.read_csv(out / "joint.csv")) >= 3


@pytest.mark.usefixtures("unpainted")
def test_no_shortcut_no_finding(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(make_dataset(tmp_path / "set", (0.2, 0.2))), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "leading silence" not in said and "No measurement alone separates" in said
    assert re.search(r"Median leading silence [^:]*: alone [34]\d", text_of(tmp_path / "out" / "report.html"))


@pytest.mark.usefixtures("unpainted")
def test_where_no_attack_is_named_nothing_is_compared_by_attack(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "set", (0.4, 0.1))
    sheet = root / "list.csv"
    sheet.write_text(re.sub(r"<A\d>", "", sheet.read_text(encoding="utf-8")), encoding="utf-8")
    assert main([str(root), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Which system made a clip is not said" in page and "spoof, eval: " in page
    assert not re.search("unknown, |Spoof clips by attack|spectrum of each attack|between one attack and all", page)


def write_csv_scores(file: Path, logits: dict[str, float]) -> Path:
    """A score file with a header; every second clip is spoof."""
    rows = [f"{name},{('bonafide', 'spoof')[int(name[:-4]) % 2]},{logit}" for name, logit in logits.items()]
    file.write_text("\n".join(["id,label,spoof_logit", *rows]), encoding="utf-8")
    return file


@pytest.mark.usefixtures("unpainted")
def test_what_scores_go_along_with(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root, out = make_dataset(tmp_path / "set", (0.2, 0.2)), tmp_path / "out"
    sheet = root / "list.csv"  # seven speakers are too few to resample: here each clip stands for itself
    sheet.write_text(re.sub(r",s\d,", ",-,", sheet.read_text(encoding="utf-8")), encoding="utf-8")
    seconds = {f"{n}.wav": soundfile.info(root / f"{n}.wav").duration for n in range(80)}
    follows = {name: int(name[:-4]) % 2 - 20 * long for name, long in seconds.items()}  # shorter is called spoof
    double = write_csv_scores(tmp_path / "double.csv", {name: 3 * logit for name, logit in follows.items()})
    against = write_csv_scores(tmp_path / "against.csv", {name: -logit for name, logit in follows.items()})
    assert main([str(root), "--out", str(out), "--scores", str(double), str(against)]) == 0  # their mean: `follows`
    said = capsys.readouterr().out
    line = r"Among spoof clips alone, the lower the duration the more spoof-like the score: rank correlation -1\.00 "
    assert re.search(line + r"\[-1\.00, -1\.00\] \(within the same attack -1\.00\)", said)
    assert "of the third with the lowest 100.0 % are called spoof" in said
    text = text_of(out / "report.html")
    assert "go along with, within each class" in text and "To know whether the detector uses it" in text
    assert not re.search(r"\bnan\b", text)
    followed = pd.read_csv(out / "followed.csv").set_index(["measurement", "label"])
    assert followed.loc["seconds", "rho"].tolist() == pytest.approx([-1, -1])
    assert main([str(root), "--out", str(out)]) == 0
    assert not (out / "followed.csv").exists()  # it would be of other scores than the report


def test_scores_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "set", (0.2, 0.2))
    every = {f"{n}.wav": float(n % 7) for n in range(80)}
    some = write_csv_scores(tmp_path / "some.csv", {name: every[name] for name in list(every)[:12]})
    other = write_csv_scores(tmp_path / "other.csv", every)
    words = [str(root), "--out", str(tmp_path / "out"), "--scores"]
    with pytest.raises(UserError, match=r"some\.csv: not the same utterances as in .*other\.csv"):
        main([*words, str(other), str(some)])
    with pytest.raises(UserError, match="6 bonafide and 6 spoof clips of this dataset have one, 10 of each class"):
        main([*words, str(some)])
    swapped = write_csv_scores(tmp_path / "swapped.csv", every)
    text = swapped.read_text(encoding="utf-8").replace("bonafide", "x").replace("spoof,", "bonafide,")
    swapped.write_text(text.replace("x,", "spoof,"), encoding="utf-8")
    with pytest.raises(UserError, match=r"80 labels differ; 0\.wav is bonafide in the dataset"):
        main([*words, str(swapped)])
    constant = write_csv_scores(tmp_path / "constant.csv", dict.fromkeys(every, 1.0))
    with pytest.raises(UserError, match=r"constant\.csv: all scores are -1"):
        main([*words, str(constant)])
    assert not (tmp_path / "out").exists()  # nothing was measured


@pytest.mark.usefixtures("unpainted")
def test_broken_and_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = make_dataset(tmp_path / "set", (0.2, 0.2), broken=2, missing=3)
    assert main([str(root), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "80 clips listed, 3 files missing, 77 to measure" in printed.out
    assert "2 of 77 files cannot be used" in printed.err and printed.err.count("0.wav:") == 1
    text = text_of(tmp_path / "out" / "report.html")
    assert "3 of the 80 files" in text and "0.wav:" in text and "75 clips" in text


@pytest.mark.usefixtures("unpainted")
def test_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flac = tmp_path / "ASVspoof2021_LA_eval" / "flac"
    flac.mkdir(parents=True)
    names = [f"LA_E_{number:07d}" for number in range(1, 7)]
    for number, name in enumerate(names):
        soundfile.write(flac / f"{name}.flac", 0.1 * np.random.default_rng(number).standard_normal(8000), 16_000)
    (flac.parent / "ASVspoof2021.LA.cm.eval.trl.txt").write_text("\n".join(names), encoding="utf-8")
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "6 of them have no label" in capsys.readouterr().out
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "6 clips have no label" in text and "Not tested" in text and "Medians of all clips: duration 0.5 s" in text


@pytest.mark.usefixtures("unpainted")
def test_interrupted_leaves_no_report_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    root, out = make_dataset(tmp_path / "set", (0.2, 0.2), count=40), tmp_path / "out"
    calls = []

    def measure(path: str):
        calls.append(path)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return measure_clip(path)

    measure_clip = measurements.measure_clip
    monkeypatch.setattr(measurements, "measure_clip", measure)
    monkeypatch.setattr(measurements, "SAVE_EVERY", 10)
    monkeypatch.setattr(measurements, "BATCH", 5)
    assert run_command(lambda: main([str(root), "--out", str(out)])) == 130
    assert not (out / "report.html").exists() and "report" not in capsys.readouterr().out
    calls.clear()
    assert main([str(root), "--out", str(out)]) == 0
    assert (out / "report.html").exists() and len(calls) == 20


def test_one_file(tmp_path: Path, speech_like, capsys: pytest.CaptureFixture) -> None:
    soundfile.write(tmp_path / "voice.wav", speech_like(2, 44_100), 44_100)
    assert main(["--file", str(tmp_path / "voice.wav"), "--out", str(tmp_path / "out")]) == 0
    picture = tmp_path / "out" / "voice.png"
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == f"figure  {picture}" and re.search(r"sample rate of the file +44100 Hz", said)
    assert imread(picture)[..., :3].std() > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either the folder"),
        (["set", "--file", "a.wav"], "either the folder"),
        (["--file", "a.wav", "--limit", "5"], "no effect"),
        (["--file", "a.wav", "--scores", "s.txt"], "no effect"),
        (["set", "--scores", "gone.txt"], "gone.txt: "),
        (["--file", "a.wav"], "a.wav: no such file"),
        (["set", "--limit", "0"], "--limit 0: must be 1"),
        (["set", "--seed", "-1"], "--seed -1: must be 0"),
        (["nowhere"], "nowhere: no such folder"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)


def test_a_set_of_which_nothing_can_be_used(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "set", (0, 0), count=4, broken=4)
    with pytest.raises(UserError, match="none of 4 files can be used"):
        main([str(root), "--out", str(tmp_path / "out")])


def make_table(sizes: dict[tuple[str, int, str], int]) -> pd.DataFrame:
    groups = [key for key, count in sizes.items() for _ in range(count)]
    table = pd.DataFrame(groups, columns=["split", "label", "attack"])
    return table.assign(path=[f"{number}.wav" for number in range(len(table))])


STRATA = [(s, k, a) for s in ("train", "dev", "eval") for k, a in ((BONAFIDE, "-"), (SPOOF, "A1"), (SPOOF, "A2"))]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=9, max_size=9), st.integers(1, 200), st.integers(0, 9))
def test_a_sample_keeps_every_split_class_and_attack(counts: list[int], limit: int, seed: int) -> None:
    table = make_table(dict(zip(STRATA, counts, strict=True)))
    sample = sample_rows(table, limit, seed)
    kept = sample.groupby(["split", "label", "attack"]).size()
    assert set(kept.index) == set(STRATA)
    assert (
        sample["path"].isin(table["path"]).all() and sample["path"].is_unique and sample.index.is_monotonic_increasing
    )
    assert len(sample) == len(table) if limit >= len(table) else abs(len(sample) - limit) <= len(STRATA)
    pd.testing.assert_frame_equal(sample, sample_rows(table, limit, seed))


def test_many_attacks_stay_readable() -> None:
    table = make_table({("train", SPOOF, f"system {'x' * 30} {n}"): 1 + n % 7 for n in range(150)} | {STRATA[0]: 9})
    shown = top_attacks(table)[table["label"] == SPOOF]
    names = shown.value_counts()
    assert len(names) == 21 and names.sum() == (table["label"] == SPOOF).sum()
    assert [name for name in names.index if is_others(name)] == ["130 others"]
    axes = attack_bars(table).axes[0]
    assert len(axes.get_yticklabels()) == 20 and "130 others" in axes.get_xlabel()


def test_the_summary_adds_up() -> None:
    listed = make_table({key: 5 for key in STRATA})
    listed.loc[::4, "path"] = None
    measured = listed[listed["path"].notna()].iloc[1:].assign(speaker="-", **dict.fromkeys(MEASUREMENTS, 2.0))
    summary = summarise(listed, measured)
    spoof = summary[summary["label"] == SPOOF]
    for column in ("listed", "found", "measured", "hours"):
        parts = spoof[spoof["attack"] != "all"].groupby("split")[column].sum()
        whole = spoof[spoof["attack"] == "all"].set_index("split")[column]
        pd.testing.assert_series_equal(parts.sort_index(), whole.sort_index(), check_names=False)
    whole = summary[summary["attack"] == "all"]
    assert whole["listed"].sum() == 45 and whole["found"].sum() == listed["path"].notna().sum()
    assert whole["measured"].sum() == len(measured) and list(whole["split"].unique()) == ["train", "dev", "eval"]


def test_constant_and_single_values_can_be_drawn() -> None:
    table = make_table({STRATA[0]: 1, STRATA[1]: 3}).assign(rms_db=-20.0, seconds=[1.0, 1.0, 1.0, 1e6])
    histograms(table, ["rms_db", "seconds"]).canvas.draw()


@pytest.mark.parametrize(
    ("bonafide", "spoof", "said"),
    [
        (1, 9, "9 times as many spoof as bona fide clips; always answering spoof is right in 90.0 %"),
        (3, 1, "3 times as many bona fide as spoof clips; always answering bona fide is right"),
        (2, 2, "train: as many spoof as bona fide clips."),
    ],
)
def test_the_balance_is_that_of_the_counts(bonafide: int, spoof: int, said: str) -> None:
    counts = pd.DataFrame({"split": "train", "label": [BONAFIDE, SPOOF], "found": [bonafide, spoof]})
    assert said in dataset_findings.balance(counts)
    assert "spoof only" in dataset_findings.balance(counts[1:])


def test_speakers_in_two_splits_are_counted() -> None:
    table = pd.DataFrame(
        {"speaker": ["a", "b", "b", "c", "-"], "split": ["train", "train", "eval", "eval", "eval"], "label": 1}
    )
    said = dataset_findings.speakers(table)
    assert "3 speakers" in said and "Of the 2 speakers in eval, 1 are in train" in said and "of 1 clips" in said
    assert "names no speakers" in dataset_findings.speakers(table[4:])


@pytest.mark.slow
def test_a_real_tree_of_which_most_is_missing(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(shared_data / "LA"), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "121,461 clips listed, 121,260 files missing, 201 to measure" in said
    assert re.search(r"leading silence .* this alone separates the classes with (2[5-9]|3[0-4])\.\d % EER", said)
    assert len(read_dataset(shared_data / "LA").table) == 121_461


def test_what_resampling_left_is_the_band_that_differs_most():
    """Not averaged away in a band of 2 kHz of which the rest differs the other way."""
    spectra, rng = Spectra(), np.random.default_rng(0)
    for number in range(20):
        spectrum = -60 + rng.normal(0, 1, len(HERTZ))
        spectrum[HERTZ > 7750] -= 20 * (number % 2)
        spectrum[(HERTZ > 6000) & (HERTZ < 7500)] += 1.5 * (number % 2)
        spectra.add(number % 2, "-", spectrum)
    assert "less than bona fide from 7.5 to 8 kHz, the band" in dataset_findings.spectrum(spectra)
