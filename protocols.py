"""What the lists of each dataset look like, and how it becomes rows: label, attack, speaker, split.

`PROTOCOLS` describes the official ASVspoof lists; `read_sheet` reads a CSV / TSV with a header, In-the-Wild's
meta.csv among them. Nothing here looks at audio files: `data_utils.py` joins the rows to the files.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from config import BONAFIDE, LABELS, SPOOF
from errors import UserError

UNLABELLED = -1  # a row of ASVspoof 2021 read without its keys: it can be scored, not trained or evaluated on
UNKNOWN_ATTACK = "unknown"  # spoof, but the dataset does not say which system made it
ROW_COLUMNS = ("file", "label", "attack", "speaker", "split", "utterance_id")

SPELLINGS = {
    **dict.fromkeys(("bonafide", "bona-fide", "bona_fide", "genuine", "real"), BONAFIDE),
    **dict.fromkeys(("spoof", "spoofed", "fake", "synthetic", "deepfake"), SPOOF),
}
SPLIT_SPELLINGS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "development", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("eval", "evaluation", "test", "testing"), "eval"),
    **dict.fromkeys(("-", ""), "-"),
}
SPLIT_OF_LETTER = {"T": "train", "D": "dev", "E": "eval"}  # LA_T_1138215, DF_E_2000011, D_0000000001
SHEET_SUFFIXES = (".csv", ".tsv")
# other headers that mean one of ours: In-the-Wild says `file`, many manifests say `system`
SHEET_COLUMNS = {
    "path": ("path", "file", "filename", "filepath"),
    "label": ("label",),
    "attack": ("attack", "system"),
    "speaker": ("speaker",),
    "split": ("split",),
}


@dataclass(frozen=True)
class Protocol:
    """One official list: columns separated by blanks or tabs, no header line."""

    dataset: str
    columns: str  # names in order; speaker, file, attack, key and subset are read, the others are not
    utterance: str  # regular expression of the file column
    official_name: str  # regular expression of the end of the path

    @property
    def names(self) -> list[str]:
        return self.columns.split()

    def is_named(self, path: Path) -> bool:
        return re.search(self.official_name, path.as_posix()) is not None

    def describes(self, path: Path, words: list[str]) -> bool:
        """Tell whether a line of this list has the right shape; one column alone needs the name as well."""
        names = self.names
        return (
            len(words) == len(names)
            and re.fullmatch(self.utterance, words[names.index("file")]) is not None
            and (len(names) > 1 or self.is_named(path))
        )


_LA21 = "speaker file codec transmission attack key trim subset"
_DF21 = "speaker file codec source attack key trim subset vocoder task team gender language"
_SPOOF5 = "speaker file gender codec codec_q codec_seed attack_tag attack key tmp"
PROTOCOLS = (
    Protocol("asvspoof2019_LA", "speaker file - attack key", r"LA_[TDE]_\d+", r"ASVspoof2019\.LA\.cm\..*txt$"),
    Protocol("asvspoof2019_PA", "speaker file environment attack key", r"PA_[TDE]_\d+", r"2019\.PA\.cm\..*txt$"),
    Protocol("demo_corpus", "speaker file - attack key", r"DEMO_[TDE]_\d+", r"ASVspoof2019\.LA\.cm\..*txt$"),
    Protocol("asvspoof2021_LA", _LA21, r"LA_E_\d+", r"LA/CM/trial_metadata\.txt$"),
    Protocol("asvspoof2021_LA", "file", r"LA_E_\d+", r"ASVspoof2021\.LA\.cm\.eval\.trl\.txt$"),
    Protocol("asvspoof2021_DF", _DF21, r"DF_E_\d+", r"DF/CM/trial_metadata\.txt$"),
    Protocol("asvspoof2021_DF", "file", r"DF_E_\d+", r"ASVspoof2021\.DF\.cm\.eval\.trl\.txt$"),
    Protocol("asvspoof5", _SPOOF5, r"[TDE]_\d+", r"ASVspoof5\.(train|dev\.track_1|eval\.track_1)\.tsv$"),
)


def first_line(path: Path) -> str:
    """Return the first line that is not blank (at most 4,096 characters are looked at)."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return next((line for line in file.read(4096).splitlines() if line.strip()), "")


def recognise(path: Path) -> Protocol | None:
    """Find which official list a file is, by its first line; by its name where that line is broken."""
    words = first_line(path).split()
    by_content = (p for p in PROTOCOLS if p.describes(path, words))
    by_name = (p for p in PROTOCOLS if p.is_named(path))
    return next(by_content, None) or next(by_name, None)


def _refuse(path: Path, line: int, problem: str) -> None:
    raise UserError(f"{path}, line {line}: {problem}")


def _label(path: Path, line: int, word: str) -> int:
    label = SPELLINGS.get(word.strip().lower())
    if label is None:
        hint = " (numbers are refused: datasets disagree on which class is 1)" if word.strip().isdigit() else ""
        _refuse(path, line, f"label {word!r} is neither {LABELS[0]} nor {LABELS[1]}{hint}")
    return label


def _refuse_repeats(path: Path, lines: list[int], utterances: list[str]) -> None:
    if len(set(utterances)) == len(utterances):
        return
    seen: dict[str, int] = {}
    for line, utterance in zip(lines, utterances, strict=True):
        if utterance in seen:
            _refuse(path, line, f"{utterance} is listed twice, first on line {seen[utterance]}; keep one")
        seen[utterance] = line


def read_protocol(path: Path, protocol: Protocol) -> pd.DataFrame:
    """Read an official list as rows (ROW_COLUMNS), checking the columns, utterance and key of every line."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    numbered = [(n, line.split()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not numbered:
        raise UserError(f"{path}: the file is empty; {protocol.dataset} lists have {protocol.columns}")
    names = protocol.names
    place = {name: i for i, name in enumerate(names)}
    valid = f"{protocol.dataset} lists have {len(names)}: {protocol.columns}"
    is_utterance = re.compile(protocol.utterance).fullmatch
    rows = []
    for line, words in numbered:
        if len(words) != len(names):
            _refuse(path, line, f"{len(words)} columns ({' '.join(words)[:80]}); {valid}")
        name = words[place["file"]]
        if not is_utterance(name):
            _refuse(path, line, f"{name!r} is not an utterance like {protocol.utterance}; {valid}")
        split = SPLIT_OF_LETTER[name.rsplit("_", 2)[-2]]
        if "key" not in place:
            rows.append((name, UNLABELLED, "-", "-", split, name))
            continue
        label = _label(path, line, words[place["key"]])
        attack = words[place["attack"]]
        if label == SPOOF:
            attack = UNKNOWN_ATTACK if attack == "-" else attack
        elif attack != "-" and attack.lower() not in SPELLINGS:
            _refuse(path, line, f"{name} is {LABELS[BONAFIDE]} and yet names the attack {attack!r}")
        else:
            attack = "-"
        if "subset" in place and words[place["subset"]] != "eval":
            split = "-"  # 2021: progress and hidden trials belong to no figure that papers print
        rows.append((name, label, attack, words[place["speaker"]], split, name))
    _refuse_repeats(path, [line for line, _ in numbered], [row[0] for row in rows])
    return pd.DataFrame(rows, columns=list(ROW_COLUMNS))


def sheet_columns(path: Path) -> tuple[str, dict[str, int]] | None:
    """Return the delimiter and the place of each known column of a sheet; None without path or label."""
    line = first_line(path)
    for delimiter in ("\t", ",", ";", "|"):
        header = [name.strip().lower() for name in next(csv.reader([line], delimiter=delimiter), [])]
        place = {}
        for column, spellings in SHEET_COLUMNS.items():
            used = next((s for s in spellings if s in header), None)
            if used is not None:
                place[column] = header.index(used)
        if "path" in place and "label" in place:
            return delimiter, place
    return None


def is_in_the_wild(path: Path) -> bool:
    """Tell In-the-Wild's meta.csv by its header: file, speaker, label."""
    return [w.strip().lower() for w in first_line(path).split(",")] == ["file", "speaker", "label"]


def read_sheet(path: Path) -> pd.DataFrame:
    """Read a CSV / TSV with the header path,label[,attack,speaker,split] as rows (ROW_COLUMNS)."""
    found = sheet_columns(path)
    if found is None:
        header = first_line(path).strip()[:120]
        raise UserError(f"{path}, line 1: header {header!r}; needed: path,label[,attack,speaker,split]")
    delimiter, place = found
    in_the_wild = is_in_the_wild(path)
    rows, lines, width = [], [], None
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if width is None:
                width = len(cells)  # the header
                continue
            line = reader.line_num
            if len(cells) != width:
                _refuse(path, line, f"{len(cells)} columns, the header names {width}")
            cell = {column: cells[i].strip() for column, i in place.items()}
            if not cell["path"]:
                _refuse(path, line, "the path is empty")
            label = _label(path, line, cell["label"])
            split = SPLIT_SPELLINGS.get(cell.get("split", "-").lower())
            if split is None:
                _refuse(path, line, f"split {cell['split']!r}; valid: train, dev, eval or -")
            attack = cell.get("attack", "-")
            attack = "-" if label == BONAFIDE else UNKNOWN_ATTACK if attack in ("", "-") else attack
            utterance = Path(cell["path"]).stem if in_the_wild else cell["path"]
            rows.append((cell["path"], label, attack, cell.get("speaker") or "-", split, utterance))
            lines.append(line)
    if not rows:
        raise UserError(f"{path}: a header and no rows")
    _refuse_repeats(path, lines, [row[-1] for row in rows])
    return pd.DataFrame(rows, columns=list(ROW_COLUMNS))
