"""Readers, the search for the tree, the report and the command, on small trees and on the partial real LA."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import data_utils
from config import BONAFIDE, SPOOF, TABLE_COLUMNS
from data_utils import main, read_dataset
from dataset_report import check, measure_seconds
from errors import UserError
from protocols import UNLABELLED, read_protocol, recognise

REPO = Path(data_utils.__file__).parent

LA_LISTS = {
    "train.trn": ["LA_0079 LA_T_1000001 - - bonafide", "LA_0080 LA_T_1000002 - A01 spoof"],
    "dev.trl": ["LA_0069 LA_D_1000001 - - bonafide", "LA_0070 LA_D_1000002 - A02 spoof"],
    "eval.trl": ["LA_0039 LA_E_1000001 - - bonafide", "LA_0014 LA_E_1000002 - A11 spoof"],
}


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def audio(path, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(16_000 * seconds), np.float32), 16_000)
    return path


def make_la(base, kind="LA", lists=LA_LISTS, leave_out=()):
    """Write a 2019 tree as its zip does: protocols and one flac folder a split."""
    for name, lines in lists.items():
        lines = [line.replace("LA_", f"{kind}_") for line in lines]
        write(base / f"ASVspoof2019_{kind}_cm_protocols" / f"ASVspoof2019.{kind}.cm.{name}.txt", lines)
        for line in lines:
            utterance = line.split()[1]
            if utterance not in leave_out:
                audio(base / f"ASVspoof2019_{kind}_{name.split('.')[0]}" / "flac" / f"{utterance}.flac")
    return base


# ---- ASVspoof 2019 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["LA", "LA/LA", ".", "ASVspoof2019 LA (1)/LA", "7549_42/LA.zip_files"])
def test_la_is_found_wherever_it_sits(tmp_path, inner):
    make_la(tmp_path / inner)
    dataset = read_dataset(tmp_path)
    assert dataset.name == "asvspoof2019_LA"
    assert tuple(dataset.table.columns) == TABLE_COLUMNS
    table = dataset.usable().set_index("utterance_id")
    assert list(table["split"].value_counts().sort_index().items()) == [("dev", 2), ("eval", 2), ("train", 2)]
    row = table.loc["LA_T_1000002"]
    assert (row["label"], row["attack"], row["speaker"]) == (SPOOF, "A01", "LA_0080")
    assert Path(row["path"]).is_absolute() and Path(row["path"]).is_file()
    assert table.loc["LA_T_1000001", ["label", "attack"]].tolist() == [BONAFIDE, "-"]
    assert set(table["dataset"]) == {"asvspoof2019_LA"}


def test_la_flat_with_audio_beside_the_lists_in_another_format(tmp_path):
    for name, lines in LA_LISTS.items():
        write(tmp_path / f"ASVspoof2019.LA.cm.{name}.txt", lines)
        for line in lines:
            audio(tmp_path / f"{line.split()[1]}.wav")
    table = read_dataset(tmp_path).usable()
    assert len(table) == 6 and all(path.endswith(".wav") for path in table["path"])


def test_lists_are_known_by_content_not_by_name(tmp_path):
    path = write(tmp_path / "my_list.txt", LA_LISTS["train.trn"])
    assert recognise(path).dataset == "asvspoof2019_LA"
    scores = write(tmp_path / "scores.txt", ["LA_E_2834763 A11 spoof -6.1"])
    asv = write(tmp_path / "asv.txt", ["LA_0069 LA_D_1047731 bonafide target"])
    assert recognise(scores) is None and recognise(asv) is None


def test_pa_names_environment_then_attack(tmp_path):
    lists = {
        "train.trn": ["LA_0079 LA_T_0000001 aaa - bonafide", "LA_0079 LA_T_0005401 abc AA spoof"],
        "dev.trl": ["LA_0069 LA_D_0000001 aaa - bonafide", "LA_0069 LA_D_0005401 abc CB spoof"],
    }
    make_la(tmp_path / "PA", "PA", lists)
    table = read_dataset(tmp_path).usable()
    assert set(table["dataset"]) == {"asvspoof2019_PA"}
    assert table["attack"].tolist().count("-") == 2 and set(table["attack"]) == {"-", "AA", "CB"}


@pytest.mark.parametrize(("bonafide", "spoof"), [("bona-fide", "spoof"), ("bonafide", "fake"), ("Bonafide", "SPOOF")])
def test_label_spellings(tmp_path, bonafide, spoof):
    lines = [f"LA_0079 LA_T_1 - - {bonafide}", f"LA_0080 LA_T_2 - A01 {spoof}"]
    path = write(tmp_path / "list.txt", lines)
    assert read_protocol(path, recognise(path))["label"].tolist() == [BONAFIDE, SPOOF]


def test_missing_files_are_named_and_left_out_only_on_request(tmp_path):
    make_la(tmp_path, leave_out=("LA_T_1000002", "LA_E_1000001"))
    dataset = read_dataset(tmp_path)
    assert len(dataset.table) == 6 and dataset.table["path"].isna().sum() == 2
    assert all(path is None or isinstance(path, str) for path in dataset.table["path"])
    with pytest.raises(UserError, match=r"2 of 6 files are missing \(LA_E_1000001, LA_T_1000002.*--allow-missing"):
        dataset.usable()
    rest = dataset.usable(allow_missing=True)
    assert set(rest["utterance_id"]) & {"LA_T_1000002", "LA_E_1000001"} == set()
    assert len(rest) == 4 and rest["path"].notna().all() and list(rest.index) == [0, 1, 2, 3]


def test_no_file_at_all_cannot_be_allowed_away(tmp_path):
    write(tmp_path / "ASVspoof2019.LA.cm.train.trn.txt", LA_LISTS["train.trn"])
    with pytest.raises(UserError, match="none of the 2 files"):
        read_dataset(tmp_path).usable(allow_missing=True)


def test_extra_files_are_explained(tmp_path):
    make_la(tmp_path, lists={k: v for k, v in LA_LISTS.items() if k != "eval.trl"})
    audio(tmp_path / "ASVspoof2019_LA_dev" / "flac" / "LA_D_9999999.flac")
    audio(tmp_path / "ASVspoof2019_LA_eval" / "flac" / "LA_E_9999999.flac")
    audio(tmp_path / "ASVspoof2019_LA_train" / "flac" / "LA_T_9999999.flac")
    report = check(read_dataset(tmp_path))
    assert {name: c["extra"] for name, c in report["splits"].items()} == {"train": 1, "dev": 1, "eval": 1}
    assert "ASV enrolment" in report["splits"]["dev"]["extra_why"]
    assert "142" in report["splits"]["dev"]["extra_why"]
    assert "no list of this split" in report["splits"]["eval"]["extra_why"]
    assert report["splits"]["train"]["extra_why"] == "named by no list, not used"


def test_a_second_copy_of_the_tree_is_read_once(tmp_path):
    make_la(tmp_path / "LA")
    make_la(tmp_path / "copy" / "LA")
    dataset = read_dataset(tmp_path)
    assert len(dataset.table) == 6
    assert any("repeats" in note for note in dataset.notes)
    assert any("6 audio files share their name" in note for note in dataset.notes)


def test_unofficial_subset_list_gives_way_to_the_official_one(tmp_path):
    make_la(tmp_path)
    write(tmp_path / "my_subset.txt", LA_LISTS["train.trn"][:1])
    dataset = read_dataset(tmp_path)
    assert len(dataset.table) == 6 and any("my_subset.txt" in note for note in dataset.notes)


def test_two_different_lists_with_the_same_utterance_are_refused(tmp_path):
    write(tmp_path / "a.txt", LA_LISTS["train.trn"])
    write(tmp_path / "b.txt", LA_LISTS["train.trn"][:1])
    with pytest.raises(UserError, match=r"b\.txt: LA_T_1000001 .* also in .*a\.txt"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["LA_T_1138215 - - bonafide"], r"line 1: 4 columns.*have 5: speaker file - attack key"),
        (["LA_0079 LA_T_1 - - bonafide", "", "LA_0079 LA_T_2 - -"], r"line 3: 4 columns"),
        (
            ["LA_0079 LA_T_1 - - bonafide", "LA_T_2 LA_0079 - - bonafide"],
            r"line 2: 'LA_0079' is not an utterance",
        ),
        (
            ["LA_0079 LA_T_1 - - bonafide", "LA_0079 LA_T_2 - A01 spof"],
            r"line 2: label 'spof' is not known",
        ),
        (["LA_0079 LA_T_1 - - 1"], r"line 1: label '1' is not known \(0 and 1 mean opposite"),
        (
            ["LA_0079 LA_T_1 - - bonafide", "LA_0079 LA_T_1 - A01 spoof"],
            r"line 2: utterance 'LA_T_1' was already on line 1",
        ),
        (["LA_0079 LA_T_1 - A04 bonafide"], r"line 1: the key is bonafide and yet the line names the attack 'A04'"),
        ([""], r"no lines with data"),
    ],
)
def test_broken_protocol_is_one_line_with_file_and_line(tmp_path, lines, message):
    write(tmp_path / "p" / "ASVspoof2019.LA.cm.train.trn.txt", lines)
    with pytest.raises(UserError, match=message) as caught:
        read_dataset(tmp_path)
    assert "ASVspoof2019.LA.cm.train.trn.txt" in str(caught.value) and "\n" not in str(caught.value)


# ---- ASVspoof 2021 and 5 -----------------------------------------------------------------------------------

LA21 = [
    "LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval",
    "LA_0020 LA_E_7294490 g722 loc_tx bonafide bonafide notrim eval",
    "LA_0009 LA_E_8589971 alaw loc_tx A07 spoof notrim progress",
    "LA_0009 LA_E_8589972 alaw loc_tx A08 spoof trim hidden",
]
DF21 = [
    "LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -",
    "TEF2 DF_E_2000013 low_m4a vcc2020 Task1-team20 spoof notrim eval neural_vocoder Task1 team20 FF E",
    "LA_0024 DF_E_2000015 nocodec asvspoof - bonafide notrim eval bonafide - - - -",
]


def make_2021(base, part, lines, keys="keys/{part}/CM"):
    folder = base / f"ASVspoof2021_{part}_eval"
    utterances = [line.split()[1] for line in lines]
    write(folder / f"ASVspoof2021.{part}.cm.eval.trl.txt", utterances)
    for utterance in utterances:
        audio(folder / "flac" / f"{utterance}.flac")
    if keys:
        write(base / keys.format(part=part) / "trial_metadata.txt", lines)
    return folder


def test_2021_la_with_keys(tmp_path):
    make_2021(tmp_path, "LA", LA21)
    write(  # the ASV keys beside: other columns of the same number
        tmp_path / "keys/LA/ASV/trial_metadata.txt",
        ["LA_0007-alaw-ita_tx LA_E_5013670-alaw-ita_tx alaw ita_tx bonafide nontarget notrim eval"],
    )
    table = read_dataset(tmp_path).usable().set_index("utterance_id")
    assert table["split"].tolist() == ["eval", "eval", "-", "-"]
    assert table.loc["LA_E_7294490", ["label", "attack", "speaker"]].tolist() == [BONAFIDE, "-", "LA_0020"]
    assert table.loc["LA_E_9332881", ["label", "attack"]].tolist() == [SPOOF, "A07"]


def test_2021_df_with_keys_of_stage_one(tmp_path):
    make_2021(tmp_path, "DF", DF21, keys="DF-keys-stage-1/keys/CM")
    dataset = read_dataset(tmp_path)
    assert dataset.name == "asvspoof2021_DF"
    assert dataset.table["attack"].tolist() == ["A14", "Task1-team20", "-"]


def test_2021_without_keys_can_be_scored_only(tmp_path):
    make_2021(tmp_path, "LA", LA21, keys=None)
    dataset = read_dataset(tmp_path)
    assert set(dataset.table["label"]) == {UNLABELLED} and set(dataset.table["split"]) == {"eval"}
    assert len(dataset.usable(labelled=False)) == 4
    with pytest.raises(UserError, match="have no label"):
        dataset.usable()
    report = check(dataset)
    assert report["usable"] and "scored only" in report["verdict"]


def test_2021_pa_with_keys_names_no_attack(tmp_path):
    lines = [
        f"PA_0010 PA_E_100000{i} R3 M3 d4 r1 m1 s4 c4 {key} notrim eval" for i, key in enumerate(("bonafide", "spoof"))
    ]
    make_2021(tmp_path, "PA", lines)
    dataset = read_dataset(tmp_path / "ASVspoof2021_PA_eval")
    assert dataset.name == "asvspoof2021_PA" and dataset.usable()["attack"].tolist() == ["-", "unknown"]


@pytest.mark.parametrize("keys", ["keys/{part}/CM", "{part}-keys-full/keys/{part}/CM"])
def test_2021_la_and_df_side_by_side_each_find_their_keys(tmp_path, keys):
    make_2021(tmp_path, "LA", LA21, keys)
    make_2021(tmp_path, "DF", DF21, keys)
    with pytest.raises(UserError, match=r"ASVspoof2021_LA_eval \(asvspoof2021_LA\)") as caught:
        read_dataset(tmp_path)
    assert "point at one of" in str(caught.value) and "ASVspoof2021_DF_eval" in str(caught.value)
    for part, spoofs in (("LA", 3), ("DF", 2)):
        table = read_dataset(tmp_path / f"ASVspoof2021_{part}_eval").usable()
        assert (table["label"] == SPOOF).sum() == spoofs


@pytest.mark.parametrize("blank", [" ", "\t"])
def test_asvspoof5(tmp_path, blank):
    lists = {
        "train.tsv": [
            "T_4850 T_0000000000 F - - - AC3 A05 spoof -",
            "T_3734 T_0000000011 F - - - - bonafide bonafide -",
        ],
        "dev.track_1.tsv": [
            "D_0062 D_0000000001 F - - - AC1 A11 spoof -",
            "D_1 D_2 M - - - - bonafide bonafide -",
        ],
        "eval.track_1.tsv": [
            "E_1 E_0000000001 M C05 3 E_0000000077 AC2 A22 spoof -",
            "E_2 E_3 F - - - - bonafide bonafide -",
        ],
    }
    for name, lines in lists.items():
        write(
            tmp_path / "ASVspoof5_protocols" / f"ASVspoof5.{name}",
            [line.replace(" ", blank) for line in lines],
        )
        for line in lines:
            folder = {"T": "flac_T", "D": "flac_D", "E": "flac_E_eval"}[line[0]]
            audio(tmp_path / folder / f"{line.split()[1]}.flac")
    write(tmp_path / "ASVspoof5_protocols" / "ASVspoof5.dev.track_2.enroll.tsv", ["D_4952\tD_1,D_2"])
    dataset = read_dataset(tmp_path)
    assert dataset.name == "asvspoof5"
    table = dataset.usable().set_index("utterance_id")
    assert table["split"].value_counts().to_dict() == {"train": 2, "dev": 2, "eval": 2}
    assert table.loc["T_0000000000", ["label", "attack", "speaker"]].tolist() == [SPOOF, "A05", "T_4850"]
    assert table.loc["T_0000000011", ["label", "attack"]].tolist() == [BONAFIDE, "-"]


# ---- In-the-Wild, CSV / TSV, folders -----------------------------------------------------------------------


@pytest.mark.parametrize("inner", [".", "release_in_the_wild", "zip/release_in_the_wild"])
def test_in_the_wild(tmp_path, inner):
    base = tmp_path / inner
    write(base / "meta.csv", ["file,speaker,label", "0.wav,Alec Guinness,spoof", "1.wav,Barack Obama,bona-fide"])
    audio(base / "0.wav")
    audio(base / "1.wav")
    dataset = read_dataset(tmp_path)
    table = dataset.usable()
    assert dataset.name == "in_the_wild" and table["utterance_id"].tolist() == ["0", "1"]
    assert table["label"].tolist() == [SPOOF, BONAFIDE] and table["attack"].tolist() == ["unknown", "-"]
    assert table["speaker"].tolist() == ["Alec Guinness", "Barack Obama"] and set(table["split"]) == {"-"}


@pytest.mark.parametrize("header", ["page", "repo"])
def test_a_csv_names_the_page_of_each_clip(tmp_path, header):
    sheet = write(tmp_path / "list.csv", [f"path,label,{header}", "a.wav,spoof,site/demo", "b.wav,bonafide,"])
    assert read_dataset(sheet).table["page"].tolist() == ["site/demo", "-"]
    write(tmp_path / "set" / "list.csv", ["path,label", "a.wav,spoof", "b.wav,bonafide"])
    assert read_dataset(tmp_path / "set").table["page"].tolist() == ["-", "-"]


def test_a_csv_names_kind_and_family_of_fakes(tmp_path):
    lines = ["path,label,kind,family", "a.wav,spoof,vc,HiFi-GAN", "b.wav,bonafide,recorded,none", "c.wav,spoof,,"]
    table = read_dataset(write(tmp_path / "list.csv", lines)).table
    assert table["kind"].tolist() == ["vc", "-", "-"] and table["family"].tolist() == ["HiFi-GAN", "-", "-"]


def test_csv_with_every_column_and_an_absolute_path(tmp_path):
    away = audio(tmp_path / "away" / "x.flac")
    audio(tmp_path / "set" / "a" / "y.wav")
    lines = ["label,path,split,attack,speaker,more", f"fake,{away},test,XTTS,s1,1", "real,a/y.wav,valid,,,2"]
    sheet = write(tmp_path / "set" / "list.csv", lines)
    for place in (sheet, tmp_path / "set"):
        table = read_dataset(place).usable()
        assert table["path"].tolist() == [str(away), str(tmp_path / "set" / "a" / "y.wav")]
        assert table["split"].tolist() == ["eval", "dev"] and table["speaker"].tolist() == ["s1", "-"]
        assert table["attack"].tolist() == ["XTTS", "-"]


@pytest.mark.parametrize(("ids", "expected"), [("12", ["1", "2"]), ("11", ["a.wav", "b.wav"])])
def test_ids_of_a_sheet_are_used_where_each_is_of_one_clip(tmp_path, ids, expected):
    lines = ["id,path,label", f"{ids[0]},a.wav,spoof", f"{ids[1]},b.wav,bonafide"]
    assert read_dataset(write(tmp_path / "list.csv", lines)).table["utterance_id"].tolist() == expected


def test_a_folder_is_no_clip(tmp_path):
    (tmp_path / "a").mkdir()
    audio(tmp_path / "b.wav")
    sheet = write(tmp_path / "list.csv", ["path,label", "a,spoof", "b,bonafide"])
    assert read_dataset(sheet).table["path"].tolist() == [None, str(tmp_path / "b.wav")]


def test_tsv_semicolons_bom_quotes_windows_paths_and_another_suffix(tmp_path):
    audio(tmp_path / "a b" / "x, y.wav")
    (tmp_path / "l.tsv").write_text("\ufeffpath\tlabel\na b\\x, y.flac\tbonafide\n", encoding="utf-8")
    dataset = read_dataset(tmp_path / "l.tsv")
    assert dataset.usable()["path"].tolist() == [str(tmp_path / "a b" / "x, y.wav")]
    assert any("another suffix" in note for note in dataset.notes)
    write(tmp_path / "m.csv", ["path;label", '"a b/x, y.wav";spoof'])
    assert read_dataset(tmp_path / "m.csv").usable()["attack"].tolist() == ["unknown"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,label", "a.wav,maybe"], r"line 2: label 'maybe'"),
        (["path,label", "a.wav,1"], r"line 2: label '1' is not known \(0 and 1"),
        (["path,label", "a.wav,spoof,x"], r"line 2: 3 columns where the header has 2"),
        (["path,label", ",spoof"], r"line 2: the path is empty"),
        (["path,label,split", "a.wav,spoof,later"], r"line 2: split 'later'; valid: train, dev, eval"),
        (
            ["path,label", "a.wav,spoof", "b.wav,spoof", "a.wav,spoof"],
            r"line 4: utterance 'a\.wav' was already on line 2",
        ),
        (["path,label"], r"no rows"),
        (["path,label", '"a.wav,spoof', *["b.wav,spoof"] * 12_000], r"a quotation mark is opened and not closed"),
        (["clip,label", "a.wav,spoof"], r"header 'clip,label'; needed: path,label"),
    ],
)
def test_broken_csv(tmp_path, lines, message):
    sheet = write(tmp_path / "list.csv", lines)
    with pytest.raises(UserError, match=message) as caught:
        read_dataset(sheet)
    assert str(sheet) in str(caught.value)


def test_a_sheet_that_is_not_utf_8_is_refused(tmp_path):
    sheet = tmp_path / "list.csv"
    sheet.write_bytes("path,label,speaker\na.wav,spoof,Jürgen\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"list\.csv: not a text file in UTF-8 \(byte 32\)"):
        read_dataset(sheet)


def test_folder_names_attacks_by_sub_folder(tmp_path):
    audio(tmp_path / "set" / "bonafide" / "anna" / "1.wav")
    audio(tmp_path / "set" / "spoof" / "xtts" / "1.wav")
    audio(tmp_path / "set" / "spoof" / "2.ogg")
    audio(tmp_path / "set" / "noise.wav")
    dataset = read_dataset(tmp_path / "set")
    table = dataset.usable().set_index("utterance_id")
    assert table["attack"].to_dict() == {
        "bonafide/anna/1.wav": "-",
        "spoof/2.ogg": "unknown",
        "spoof/xtts/1.wav": "xtts",
    }
    assert dataset.name == "set" and set(table["split"]) == {"-"} and len(dataset.extra["-"]) == 1
    assert len(read_dataset(tmp_path).usable()) == 3  # one folder higher


def test_folder_with_splits(tmp_path):
    for split in ("training", "validation", "testing"):
        audio(tmp_path / split / "real" / "1.wav")
        audio(tmp_path / split / "fake" / "1.wav")
    table = read_dataset(tmp_path).usable()
    assert table["split"].value_counts().to_dict() == {"train": 2, "dev": 2, "eval": 2}


def test_several_label_folders_are_refused(tmp_path):
    for name in ("one", "two"):
        audio(tmp_path / name / "bonafide" / "1.wav")
        audio(tmp_path / name / "spoof" / "1.wav")
    with pytest.raises(UserError, match="point at one of: one, two"):
        read_dataset(tmp_path)


# ---- finding -----------------------------------------------------------------------------------------------


def test_two_datasets_are_refused_with_their_places(tmp_path):
    make_la(tmp_path / "LA")
    make_la(tmp_path / "PA", "PA")
    write(tmp_path / "own" / "list.csv", ["path,label", "a.wav,spoof"])
    with pytest.raises(UserError) as caught:
        read_dataset(tmp_path)
    message = str(caught.value)
    assert "holds 3 datasets" in message and "LA (asvspoof2019_LA)" in message and "\n" not in message
    assert "PA (asvspoof2019_PA)" in message and str(Path("own/list.csv")) in message
    assert read_dataset(tmp_path / "PA").name == "asvspoof2019_PA"


def test_a_csv_inside_an_official_tree_is_left_aside(tmp_path):
    make_la(tmp_path)
    write(tmp_path / "extras" / "list.csv", ["path,label", "a.wav,spoof"])
    dataset = read_dataset(tmp_path)
    assert dataset.name == "asvspoof2019_LA" and any("list.csv" in note for note in dataset.notes)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no dataset found; looked for an ASVspoof 2019"):
        read_dataset(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_dataset(tmp_path / "nowhere")
    other = write(tmp_path / "ASVspoof2019.LA.cm.train.trn.txt", LA_LISTS["train.trn"])
    with pytest.raises(UserError, match="point at the folder"):
        read_dataset(other)


def test_hidden_and_resource_fork_files_are_passed_over(tmp_path):
    make_la(tmp_path)
    write(tmp_path / "__MACOSX" / "ASVspoof2019.LA.cm.train.trn.txt", ["junk"])
    write(tmp_path / "._ASVspoof2019.LA.cm.train.trn.txt", ["junk"])
    assert len(read_dataset(tmp_path).usable()) == 6


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_linked_folders_are_followed_and_loops_end(tmp_path):
    make_la(tmp_path / "real")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "LA").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real", target_is_directory=True)
    assert len(read_dataset(tmp_path / "set").usable()) == 6


# ---- the report and the command ----------------------------------------------------------------------------


def test_hours_and_unreadable_headers(tmp_path):
    make_la(tmp_path)
    (tmp_path / "ASVspoof2019_LA_train" / "flac" / "LA_T_1000002.flac").write_bytes(b"not audio")
    report = check(read_dataset(tmp_path))
    train, dev = report["splits"]["train"], report["splits"]["dev"]
    assert train["headers_unreadable"] == 1 and dev["hours"] == pytest.approx(1 / 3600, abs=5e-4)
    assert any("headers" in note for note in report["notes"])
    sampled = check(read_dataset(tmp_path), headers=1)["splits"]["dev"]
    assert sampled["hours_estimated"] and sampled["hours"] == pytest.approx(1 / 3600, abs=5e-4)
    assert check(read_dataset(tmp_path), headers=0)["splits"]["dev"]["hours"] is None


def test_measure_seconds_keeps_order(tmp_path):
    paths = [str(audio(tmp_path / f"{i}.wav", seconds=0.01 * (i + 1))) for i in range(300)]
    assert np.allclose(measure_seconds(paths), 0.01 * np.arange(1, 301), atol=1e-4)


def test_command_prints_text_and_ends_zero(tmp_path, command):
    make_la(tmp_path, leave_out=("LA_T_1000002",))
    code, output, errors = command(main, tmp_path, "--list-missing", "1", "--split", "random-80-10-10")
    assert code == 0, errors
    assert "missing in train: 1: LA_T_1000002" in output and "--allow-missing" in output
    assert "random-80-10-10:" in output


def test_command_json_is_json_alone(tmp_path, command):
    make_la(tmp_path, leave_out=("LA_T_1000002",))
    code, output, _ = command(main, tmp_path, "--json", "--split", "official", "--allow-missing")
    report = json.loads(output)
    assert code == 0 and report["usable"] and report["name"] == "asvspoof2019_LA"
    assert report["splits"]["train"]["missing"] == 1 and report["splits"]["train"]["spoof"]["found"] == 0
    assert report["split"]["splits"]["train"]["rows"] == 1


def test_command_ends_two_with_one_line(tmp_path, command):
    make_la(tmp_path / "one_class", leave_out=("LA_T_1000002", "LA_E_1000002"))
    for words, message in (
        ((tmp_path / "one_class",), "cannot be used: neither train nor eval has files of both classes"),
        ((tmp_path / "nowhere",), "no such folder"),
        ((tmp_path, "--split", "half"), "invalid choice: 'half'"),
        ((tmp_path, "--headers", "-1"), "must be 0 or more"),
    ):
        code, _, errors = command(main, *words)
        assert code == 2 and errors.count("\n") == 1
        assert errors.startswith("error: ") and message in errors


def test_import_brings_no_heavy_library():
    code = (
        "import sys, data_utils, splits; "
        "print([m for m in ('tensorflow', 'keras', 'librosa', 'torch', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- real data ---------------------------------------------------------------------------------------------


def test_the_partial_real_la(shared_data):
    dataset = read_dataset(shared_data / "LA")
    report = check(dataset)
    rows = {name: (c["rows"], c["found"]) for name, c in report["splits"].items()}
    assert rows == {"train": (25_380, 101), "dev": (24_844, 100), "eval": (71_237, 0)}
    counts = {name: (c["bonafide"]["rows"], c["spoof"]["rows"]) for name, c in report["splits"].items()}
    assert counts == {"train": (2_580, 22_800), "dev": (2_548, 22_296), "eval": (7_355, 63_882)}
    assert {a: c["rows"] for a, c in report["splits"]["train"]["attacks"].items()} == {
        f"A0{i}": 3_800 for i in range(1, 7)
    }
    assert set(report["splits"]["eval"]["attacks"]) == {f"A{i:02d}" for i in range(7, 20)}
    speakers = report["splits"]["eval"]
    assert (speakers["bonafide"]["speakers"], speakers["spoof"]["speakers"]) == (67, 48)
    assert report["usable"] and len(dataset.usable(allow_missing=True)) == 201


def test_the_real_la_by_command(shared_data, command):
    code, output, _ = command(main, shared_data / "LA", "--json")
    assert code == 0 and json.loads(output)["splits"]["eval"]["missing"] == 71_237


def test_the_manifest_of_wild(shared_data):
    dataset = read_dataset(shared_data / "wild")
    table = dataset.usable()
    assert set(table["split"]) == {"train", "dev"} and not dataset.extra
    assert any("relative to" in note for note in dataset.notes)
