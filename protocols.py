"""What the lists of each dataset look like, and how a list becomes rows: label, attack, speaker, split.

`PROTOCOLS` describes the official ASVspoof lists, `HEADER_WORDS` the columns of a CSV / TSV with a header
(In-the-Wild's meta.csv among them). `data_utils.py` joins the rows to audio files, `score_files.py` to scores;
nothing here looks at either.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NoReturn

import pandas as pd

from config import BONAFIDE, LABELS, SPOOF
from errors import UserError

UNLABELLED = -1  # a row of ASVspoof 2021 read without its keys: it can be scored, not trained or evaluated on
UNKNOWN_ATTACK = "unknown"  # spoof, but the dataset does not say which system made it
UNKNOWN_SPEAKER = "-"
UNKNOWN_PAGE = "-"
ROW_COLUMNS = ("file", "label", "attack", "speaker", "split", "utterance_id", "page", "kind", "family", "source")

SPELLINGS = {  # in lower case, without hyphens, underscores and blanks
    **dict.fromkeys(("bonafide", "genuine", "human", "real"), BONAFIDE),
    **dict.fromkeys(("spoof", "spoofed", "fake", "synthetic", "deepfake", "generated"), SPOOF),
}
SPLIT_SPELLINGS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "development", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("eval", "evaluation", "test", "testing"), "eval"),
    **dict.fromkeys(("-", ""), "-"),
}
SPLIT_OF_LETTER = {"T": "train", "D": "dev", "E": "eval"}
SHEET_SUFFIXES = (".csv", ".tsv")
HEADER_WORDS = {  # per column, the names it goes by; the first that a header has is taken
    "file": "path file filename file_name filepath file_path audio",
    "utterance_id": "utterance_id utterance utt_id utt id trial_id trial",
    "key": "label key class cm_label",
    "attack": "attack attack_type attack_id system system_id",
    "speaker": "speaker speaker_id spk",
    "split": "split",
    "page": "page repo repository",  # where clips come from together: never on both sides of a fair split
    "kind": "kind",  # of synthesis: tts, vc, vocoder, codec ...
    "family": "family",  # what several attacks share: one vocoder, one way of making speech
    "source": "source",  # names a recording: its own row and those of the copies made of it say the same
    "score": "score cm_score scores",
    "spoof_logit": "spoof_logit",
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
_PA21 = "speaker file room mic distance attacker_room attacker_mic device attacker_distance key trim subset"
_SPOOF5 = "speaker file gender codec codec_q codec_seed attack_tag attack key tmp"
PROTOCOLS = (
    Protocol("asvspoof2019_LA", "speaker file - attack key", r"LA_[TDE]_\d+", r"ASVspoof2019\.LA\.cm\..*txt$"),
    Protocol("asvspoof2019_PA", "speaker file environment attack key", r"PA_[TDE]_\d+", r"2019\.PA\.cm\..*txt$"),
    Protocol("demo_corpus", "speaker file - attack key", r"DEMO_[TDE]_\d+", r"ASVspoof2019\.LA\.cm\..*txt$"),
    Protocol("asvspoof2021_LA", _LA21, r"LA_E_\d+", r"LA/CM/trial_metadata\.txt$"),
    Protocol("asvspoof2021_LA", "file", r"LA_E_\d+", r"ASVspoof2021\.LA\.cm\.eval\.trl\.txt$"),
    Protocol("asvspoof2021_DF", _DF21, r"DF_E_\d+", r"DF/CM/trial_metadata\.txt$"),
    Protocol("asvspoof2021_DF", "file", r"DF_E_\d+", r"ASVspoof2021\.DF\.cm\.eval\.trl\.txt$"),
    Protocol("asvspoof2021_PA", _PA21, r"PA_E_\d+", r"PA/CM/trial_metadata\.txt$"),
    Protocol("asvspoof2021_PA", "file", r"PA_E_\d+", r"ASVspoof2021\.PA\.cm\.eval\.trl\.txt$"),
    Protocol("asvspoof5", _SPOOF5, r"[TDE]_\d+", r"ASVspoof5\.(train|dev\.track_1|eval\.track_1)\.tsv$"),
)


def refuse(path: Path, line: int, problem: str) -> NoReturn:
    """Raise the one-line error of a bad line."""
    raise UserError(f"{path}: line {line}: {problem}")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Read the numbered lines of a text file, without blank ones and without the comments at its top."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    lines = [(n, line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
    first = next((i for i, (_, line) in enumerate(lines) if not line.startswith("#")), len(lines))
    if first == len(lines):
        raise UserError(f"{path}: no lines with data")
    return lines[first:]


def first_line(path: Path) -> str:
    """Return the first line of `read_lines`, of any file at all (at most 4,096 characters are looked at)."""
    try:
        with Path(path).open(encoding="utf-8-sig", errors="replace") as file:
            lines = file.read(4096).splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return next((line for line in lines if line.strip() and not line.startswith("#")), "")


@cache
def label_of(word: str) -> int | None:
    """Return the label of one spelling (bonafide, Bona-Fide, genuine, fake ...), None if it is none."""
    return SPELLINGS.get(re.sub(r"[-_\s]", "", word.lower()))


def split_of(utterance: str) -> str:
    """Return train, dev or eval by the letter of an official utterance (LA_E_2834763), `-` for another."""
    named = re.fullmatch(r"(?:(?:LA|PA|DF|DEMO)_)?([TDE])_\d+", utterance)
    return SPLIT_OF_LETTER[named[1]] if named else "-"


def recognise(path: Path) -> Protocol | None:
    """Find which official list a file is, by its first line; by its name where that line is broken."""
    words = first_line(path).split()
    by_content = (p for p in PROTOCOLS if p.describes(path, words))
    by_name = (p for p in PROTOCOLS if p.is_named(path))
    return next(by_content, None) or next(by_name, None)


def refuse_repeats(path: Path, numbers: Sequence[int], utterances: Sequence[str]) -> None:
    """Refuse an utterance that two lines name."""
    if len(set(utterances)) == len(utterances):
        return
    seen: dict[str, int] = {}
    for number, utterance in zip(numbers, utterances, strict=True):
        if utterance in seen:
            refuse(path, number, f"utterance '{utterance}' was already on line {seen[utterance]}; keep one")
        seen[utterance] = number


def _labels(path: Path, numbers: Sequence[int], words: Sequence[str]) -> list[int]:
    labels = [label_of(word) for word in words]
    if None in labels:
        at = labels.index(None)
        numeric = " (0 and 1 mean opposite things in different sets)" if words[at].isdigit() else ""
        valid = " / ".join(", ".join(w for w, v in SPELLINGS.items() if v == k) for k in (BONAFIDE, SPOOF))
        refuse(path, numbers[at], f"label '{words[at]}' is not known{numeric}; valid: {valid}")
    return labels


def to_rows(path: Path, numbers: Sequence[int], columns: dict[str, Sequence[str]]) -> pd.DataFrame:
    """Turn columns of words (keys of HEADER_WORDS) into ROW_COLUMNS without split, and `line`; check each key.

    A bona fide row has the attack `-`; without keys every row is UNLABELLED.
    """
    utterances = columns.get("utterance_id", columns.get("file"))
    refuse_repeats(path, numbers, utterances)
    unknown = ["-"] * len(numbers)
    labels = _labels(path, numbers, columns["key"]) if "key" in columns else [UNLABELLED] * len(numbers)
    named = zip(labels, columns.get("attack", unknown), strict=True)
    return pd.DataFrame(
        {
            "file": columns.get("file", utterances),
            "label": labels,
            "attack": ["-" if k != SPOOF else UNKNOWN_ATTACK if a in ("", "-") else a for k, a in named],
            "speaker": [speaker or UNKNOWN_SPEAKER for speaker in columns.get("speaker", unknown)],
            "utterance_id": utterances,
            "page": [page or UNKNOWN_PAGE for page in columns.get("page", unknown)],
            **{
                name: [word if k == SPOOF and word else "-" for k, word in zip(labels, words, strict=True)]
                for name, words in ((name, columns.get(name, unknown)) for name in ("kind", "family"))
            },
            "source": [source or "-" for source in columns.get("source", unknown)],
            "line": numbers,
        }
    )


def read_protocol(path: Path, protocol: Protocol) -> pd.DataFrame:
    """Read an official list as ROW_COLUMNS and `line`, in 2021 also `subset`; every line is checked."""
    names = protocol.names
    valid = f"{protocol.dataset} lists have {len(names)}: {protocol.columns}"
    is_utterance = re.compile(protocol.utterance).fullmatch
    numbers, rows = [], []
    for number, line in read_lines(path):
        words = line.split()
        if len(words) != len(names):
            refuse(path, number, f"{len(words)} columns ({' '.join(words)[:80]}); {valid}")
        name = words[names.index("file")]
        if not is_utterance(name):
            refuse(path, number, f"'{name}' is not an utterance like {protocol.utterance}; {valid}")
        numbers.append(number)
        rows.append(words)
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    table = to_rows(path, numbers, columns)
    for row in table.index[table["label"] == BONAFIDE] if "attack" in columns else []:
        attack = columns["attack"][row]
        if attack != "-" and label_of(attack) is None:
            refuse(path, numbers[row], f"the key is {LABELS[BONAFIDE]} and yet the line names the attack '{attack}'")
    table["split"] = [split_of(utterance) for utterance in columns["file"]]
    if "subset" in columns:
        table["subset"] = columns["subset"]
        table.loc[table["subset"] != "eval", "split"] = "-"  # progress and hidden are in no figure that papers print
    return table


def _split(lines: list[str], delimiter: str | None) -> list[list[str]]:
    return [line.split() for line in lines] if delimiter is None else list(csv.reader(lines, delimiter=delimiter))


def _header(path: Path) -> tuple[str | None, dict[str, int]] | None:
    """Return the delimiter (None: blanks) and the place of each known column; None if there is no header."""
    line = first_line(path)
    for delimiter in ("\t", ",", ";", "|", None):
        header = [name.strip().lower().replace("-", "_").replace(" ", "_") for name in _split([line], delimiter)[0]]
        place = {
            column: header.index(word)
            for column, words in HEADER_WORDS.items()
            for word in reversed(words.split())
            if word in header
        }
        if len(place) > 1 and not place.keys().isdisjoint(("file", "utterance_id")):
            return delimiter, place
    return None


def is_sheet(path: Path) -> bool:
    """Tell whether a file has the header of a dataset: the path and the label of each clip."""
    found = _header(path)
    return path.suffix.lower() in SHEET_SUFFIXES and found is not None and found[1].keys() >= {"file", "key"}


def is_in_the_wild(path: Path) -> bool:
    """Tell In-the-Wild's meta.csv by its header: file, speaker, label."""
    return [w.strip().lower() for w in first_line(path).split(",")] == ["file", "speaker", "label"]


def read_columns(path: Path) -> tuple[list[int], dict[str, list[str]]] | None:
    """Read the known columns of a file with a header, and the number of each line; None without a header."""
    found = _header(path)
    if found is None:
        return None
    delimiter, place = found
    numbers, lines = zip(*read_lines(path), strict=True)
    if len(lines) == 1:
        raise UserError(f"{path}: a header and no rows")
    try:
        header, *rows = _split(list(lines), delimiter)
    except csv.Error:  # the open quotation holds more than the module takes
        rows = []
    if len(rows) != len(lines) - 1:
        raise UserError(f"{path}: a quotation mark is opened and not closed on its line")
    for number, row in zip(numbers[1:], rows, strict=True):
        if len(row) != len(header):
            refuse(path, number, f"{len(row)} columns where the header has {len(header)}")
    return list(numbers[1:]), {name: [row[i].strip() for row in rows] for name, i in place.items()}


def read_sheet(path: Path) -> pd.DataFrame:
    """Read a CSV / TSV, path,label[,attack,speaker,split,page,kind,family,source], as ROW_COLUMNS and `line`."""
    found = read_columns(path)
    if found is None or "key" not in found[1]:
        header = first_line(path).strip()[:120]
        raise UserError(f"{path}: header '{header}'; needed: path,label[,attack,speaker,split]")
    numbers, columns = found
    if "file" in columns and not all(columns["file"]):
        refuse(path, numbers[columns["file"].index("")], "the path is empty")
    if is_in_the_wild(path):
        columns["utterance_id"] = [Path(name).stem for name in columns["file"]]
    elif "file" in columns and len(set(columns.get("utterance_id", ()))) < len(numbers):
        columns["utterance_id"] = columns["file"]  # an id that repeats names something else, a speaker perhaps
    table = to_rows(path, numbers, columns)
    splits = columns.get("split", ["-"] * len(numbers))
    for number, word in zip(numbers, splits, strict=True):
        if word.lower() not in SPLIT_SPELLINGS:
            refuse(path, number, f"split '{word}'; valid: train, dev, eval or -")
    table["split"] = [SPLIT_SPELLINGS[word.lower()] for word in splits]
    return table


def read_trials(path: Path, subset: str | None = None) -> pd.DataFrame:
    """Read the labelled trials of an official list or a sheet, whatever its utterances are called.

    The layout of an official list is known by its number of columns; `subset` is a part of a 2021 list.
    """
    if _header(path) is not None:
        table = read_sheet(path)
    else:
        number, line = read_lines(path)[0]
        width = len(line.split())
        layout = next((p for p in PROTOCOLS if "key" in p.names and len(p.names) == width), None)
        if layout is None:
            refuse(
                path,
                number,
                f"{width} columns; valid: ASVspoof 2019 'speaker utterance - attack key', ASVspoof 2021 "
                "trial_metadata.txt, ASVspoof 5 .tsv, or CSV / TSV with a header such as id,label,speaker",
            )
        table = read_protocol(path, replace(layout, utterance=r"\S+"))
    if subset is None:
        return table
    found = sorted(set(table["subset"])) if "subset" in table else []
    if subset not in found:
        valid = f"valid: {', '.join(found)}" if found else "only ASVspoof 2021 protocols have subsets"
        raise UserError(f"{path}: no subset '{subset}'; {valid}")
    return table[table["subset"] == subset].reset_index(drop=True)
