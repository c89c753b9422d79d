"""The lists of ASVspoof and of In-the-Wild, CSV and TSV: recognised, read, refused with file and line."""

import pytest
from dataset_trees import LA_LISTS, audio, make_la, write

from config import BONAFIDE, SPOOF
from data_utils import read_dataset
from dataset_report import check
from errors import UserError
from protocols import UNLABELLED, read_protocol, recognise


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


# ---- In-the-Wild, CSV and TSV -----------------------------------------------------------------------------


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


def test_the_manifest_of_wild(shared_data):
    dataset = read_dataset(shared_data / "wild")
    table = dataset.usable()
    assert set(table["split"]) == {"train", "dev"} and not dataset.extra
    assert any("relative to" in note for note in dataset.notes)
