"""Reading and writing score files: every common layout becomes one table, every bad line one clear error.

The table has the columns utterance_id, attack, label (0 bona fide, 1 spoof), score (cm_score), speaker.
Our own file is the ASVspoof layout below a comment header:

    # cm_score = -spoof_logit; higher = more bona fide
    # model: resmax
    # dataset: ASVspoof 2019 LA eval
    # columns: utterance attack key score
    LA_E_2834763 A11 spoof -6.1053839
"""

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from config import BONAFIDE, LABELS, SCORE_CONVENTION, SPOOF
from errors import UserError

KEY_WORDS = dict.fromkeys(("bonafide", "genuine", "human", "real"), BONAFIDE) | dict.fromkeys(
    ("spoof", "spoofed", "fake", "synthetic", "deepfake", "generated"), SPOOF
)
HEADER_WORDS = {  # per column, the names it goes by; the first that a header has is taken
    "utterance_id": "utterance_id utterance utt_id utt id filename file_name file path trial_id trial audio",
    "key": "key label class cm_label",
    "score": "score cm_score scores",
    "spoof_logit": "spoof_logit",
    "attack": "attack attack_type attack_id system system_id",
    "speaker": "speaker speaker_id spk",
}
AUDIO_SUFFIXES = {".flac", ".wav", ".mp3", ".ogg", ".opus", ".m4a"}
SCORE_LAYOUTS = (
    "valid: 'utterance attack key score', 'utterance key score', 'utterance score' with --protocol, "
    "or CSV / TSV with a header such as id,label,score"
)
PROTOCOL_LAYOUTS = (
    "valid: ASVspoof 2019 'speaker utterance - attack key', ASVspoof 2021 trial_metadata.txt, "
    "ASVspoof 5 .tsv, or CSV / TSV with a header such as id,label,speaker"
)


def _key(word: str) -> int | None:
    """The label of one spelling (bonafide, bona-fide, Bona Fide, genuine, fake ...), None if it is none."""
    return KEY_WORDS.get(word.lower().translate(str.maketrans("", "", "-_ ")))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines of a text file without blanks and without the comments at its top."""
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


def _header(fields: list[str]) -> dict[str, int]:
    """Column number of every known column, from the fields of a header line; empty if it is no header."""
    names = [f.strip().lower().replace("-", "_").replace(" ", "_") for f in fields]
    columns = {
        column: names.index(word)
        for column, words in HEADER_WORDS.items()
        for word in reversed(words.split())
        if word in names
    }
    return columns if len(columns) > 1 and "utterance_id" in columns else {}


def _split(texts: list[str], delimiter: str | None) -> list[list[str]]:
    return [t.split() for t in texts] if delimiter is None else list(csv.reader(texts, delimiter=delimiter))


def _read_columns(path: Path, lines: list[tuple[int, str]]) -> dict[str, list[str]] | None:
    """The known columns of a file with a header line, None if there is no header."""
    first, *texts = (line for _, line in lines)
    for delimiter in ("\t", ",", ";", None):
        header = _split([first], delimiter)[0]
        if columns := _header(header):
            break
    else:
        return None
    rows = _split(texts, delimiter)
    if len(rows) != len(texts):
        raise UserError(f"{path}: a quotation mark is opened and not closed on its line")
    for (number, _), row in zip(lines[1:], rows, strict=True):
        if len(row) != len(header):
            raise UserError(f"{path}: line {number}: {len(row)} columns where the header has {len(header)}")
    return {name: [row[i].strip() for row in rows] for name, i in columns.items()}


def _keys(path: Path, numbers: list[int], words: list[str]) -> np.ndarray:
    known = {word: _key(word) for word in set(words)}
    bad = {word for word, label in known.items() if label is None}
    if bad:
        i = next(i for i, word in enumerate(words) if word in bad)
        numeric = " (0 and 1 mean opposite things in different sets)" if words[i] in ("0", "1") else ""
        raise UserError(
            f"{path}: line {numbers[i]}: label '{words[i]}' is not known{numeric}; "
            "valid: bonafide, bona-fide, genuine, human, real / spoof, fake, synthetic, deepfake"
        )
    return np.array([known[word] for word in words], dtype=np.int64)


def _numbers(path: Path, numbers: list[int], words: list[str]) -> np.ndarray:
    if not all(map(_is_number, words)):
        i = next(i for i, word in enumerate(words) if not _is_number(word))
        raise UserError(f"{path}: line {numbers[i]}: score '{words[i]}' is not a number; {SCORE_LAYOUTS}")
    values = np.array(words, dtype=np.float64)
    if not np.isfinite(values).all():
        i = int(np.flatnonzero(~np.isfinite(values))[0])
        raise UserError(f"{path}: line {numbers[i]}: score is {words[i]}; every score must be a finite number")
    return values


def _refuse_duplicates(path: Path, numbers: list[int], ids: list[str]) -> None:
    if len(set(ids)) == len(ids):
        return
    seen: dict[str, int] = {}
    for number, utterance in zip(numbers, ids, strict=True):
        if utterance in seen:
            raise UserError(f"{path}: line {number}: utterance '{utterance}' was already on line {seen[utterance]}")
        seen[utterance] = number


def _scores_by_position(path: Path, lines: list[tuple[int, str]]) -> dict[str, list[str]]:
    """Columns of a score file without a header, counted from the right: an id may contain spaces."""
    fields = [lines[0][1].rsplit(None, n) for n in (3, 2, 1)]
    if len(fields[0]) == 4 and _key(fields[0][2]) is not None:
        names = ("utterance_id", "attack", "key", "score")
    elif len(fields[1]) == 3 and _key(fields[1][1]) is not None:
        names = ("utterance_id", "key", "score")
    elif len(lines[0][1].split()) == 2 and _is_number(fields[2][1]):
        names = ("utterance_id", "score")
    else:
        raise UserError(f"{path}: line {lines[0][0]}: '{lines[0][1].strip()[:80]}' is no known layout; {SCORE_LAYOUTS}")
    rows = [line.rsplit(None, len(names) - 1) for _, line in lines]
    for (number, line), row in zip(lines, rows, strict=True):
        if len(row) != len(names) or (names[1] == "score" and " " in row[0].strip()):
            count = len(line.split())
            raise UserError(f"{path}: line {number}: {count} columns where line {lines[0][0]} has {len(names)}")
    return {name: [row[i].strip() for row in rows] for i, name in enumerate(names)}


def read_protocol(path: Path, subset: str | None = None) -> pd.DataFrame:
    """Table utterance_id, attack, label, speaker of a protocol; `subset` selects by the 2021 last columns."""
    lines = _read_lines(path)
    columns = _read_columns(path, lines)
    if columns is not None:
        if "key" not in columns:
            raise UserError(f"{path}: the header has no label column; {PROTOCOL_LAYOUTS}")
        if subset:
            raise UserError(f"{path}: --subset needs an ASVspoof 2021 trial_metadata.txt")
        lines = lines[1:]
    else:
        columns, lines = _protocol_by_position(path, lines, subset)
    numbers = [number for number, _ in lines]
    ids = columns["utterance_id"]
    _refuse_duplicates(path, numbers, ids)
    blank = ["-"] * len(ids)
    table = pd.DataFrame({"utterance_id": ids, "attack": columns.get("attack", blank)})
    table["label"] = _keys(path, numbers, columns["key"])
    table["speaker"] = columns.get("speaker", [""] * len(ids))
    table["line"] = numbers
    return table


def _protocol_by_position(
    path: Path, lines: list[tuple[int, str]], subset: str | None
) -> tuple[dict[str, list[str]], list[tuple[int, str]]]:
    """Columns of an official protocol: the key is the last column with a label, attack before it."""
    first = lines[0][1].split()
    if len(first) < 5:
        raise UserError(f"{path}: line {lines[0][0]}: {len(first)} columns; {PROTOCOL_LAYOUTS}")
    key = max((i for i, word in enumerate(first) if i > 1 and _key(word) is not None), default=None)
    if key is None:
        raise UserError(f"{path}: line {lines[0][0]}: no column says bonafide or spoof; {PROTOCOL_LAYOUTS}")
    rows = [line.split() for _, line in lines]
    for (number, _), row in zip(lines, rows, strict=True):
        if len(row) != len(first):
            raise UserError(f"{path}: line {number}: {len(row)} columns where line {lines[0][0]} has {len(first)}")
    if subset:
        found = sorted({row[key + 2] for row in rows}) if len(first) > key + 2 else []
        if subset not in found:
            valid = f"valid: {', '.join(found)}" if found else "only ASVspoof 2021 protocols have subsets"
            raise UserError(f"{path}: no subset '{subset}'; {valid}")
        kept = [i for i, row in enumerate(rows) if row[key + 2] == subset]
        rows, lines = [rows[i] for i in kept], [lines[i] for i in kept]
    places = {"speaker": 0, "utterance_id": 1, "attack": key - 1, "key": key}
    return {name: [row[i] for row in rows] for name, i in places.items()}, lines


def _stem(utterance: str) -> str:
    """An utterance id without folders and audio suffix, for protocols that name files another way."""
    name = utterance.replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in AUDIO_SUFFIXES else name


def _join(path: Path, scores: pd.DataFrame, protocol_path: Path, subset: str | None) -> pd.DataFrame:
    """Scores with label, attack and speaker of the protocol; both must name the same utterances."""
    protocol = read_protocol(protocol_path, subset)
    if not set(scores["utterance_id"]) & set(protocol["utterance_id"]):
        for table, source in ((scores, path), (protocol, protocol_path)):
            table["utterance_id"] = table["utterance_id"].map(_stem)
            _refuse_duplicates(source, list(table["line"]), list(table["utterance_id"]))
    joined = protocol.merge(scores, on="utterance_id", how="left", suffixes=("", "_in_scores"))
    missing = joined["score"].isna().to_numpy()
    if missing.any():
        first = joined[missing].iloc[0]
        raise UserError(
            f"{path}: {missing.sum()} of {len(protocol)} utterances in {protocol_path} have no score, "
            f"first '{first['utterance_id']}' (protocol line {first['line']})"
        )
    unknown = scores[~scores["utterance_id"].isin(protocol["utterance_id"])]
    if len(unknown) and not subset:  # with a subset the others belong to another part of the set
        first = unknown.iloc[0]
        raise UserError(f"{path}: line {first['line']}: '{first['utterance_id']}' is not in {protocol_path}")
    if "label_in_scores" in joined:
        wrong = joined[joined["label"] != joined["label_in_scores"]]
        if len(wrong):
            first = wrong.iloc[0]
            raise UserError(
                f"{path}: line {first['line_in_scores']}: '{first['utterance_id']}' is "
                f"{LABELS[first['label_in_scores']]} here but {LABELS[first['label']]} in {protocol_path}"
            )
    return joined


def read_scores(
    path: Path, protocol: Path | None = None, *, subset: str | None = None, higher_is: str = "bonafide"
) -> pd.DataFrame:
    """Read a score file of any layout above; the score column is cm_score (higher = more bona fide).

    `protocol` adds labels, attacks and speakers; `higher_is="spoof"` flips scores of the other direction.
    """
    lines = _read_lines(path)
    columns = _read_columns(path, lines)
    if columns is None:
        columns = _scores_by_position(path, lines)
    else:
        lines = lines[1:]
    numbers = [number for number, _ in lines]
    score_column = next((name for name in ("score", "spoof_logit") if name in columns), None)
    if score_column is None:
        raise UserError(f"{path}: the header has no score column; {SCORE_LAYOUTS}")
    if subset and protocol is None:
        raise UserError("--subset selects lines of a protocol: give --protocol FILE too")
    _refuse_duplicates(path, numbers, columns["utterance_id"])
    sign = -1.0 if (score_column == "spoof_logit") != (higher_is == "spoof") else 1.0
    table = pd.DataFrame({"utterance_id": columns["utterance_id"], "line": numbers})
    table["score"] = sign * _numbers(path, numbers, columns[score_column])
    if "key" in columns:
        table["label"] = _keys(path, numbers, columns["key"])
    if protocol is not None:
        table = _join(path, table, protocol, subset)
    elif "key" not in columns:
        raise UserError(f"{path}: the scores have no labels; give --protocol FILE, or use {SCORE_LAYOUTS[7:]}")
    else:
        table["attack"] = columns.get("attack", "-")
        table["speaker"] = columns.get("speaker", "")
    for label, name in enumerate(LABELS):
        if not (table["label"] == label).any():
            raise UserError(f"{path}: no {name} utterance among {len(table)}; metrics need both classes")
    return table[["utterance_id", "attack", "label", "score", "speaker"]]


def write_scores(path: Path, table: pd.DataFrame, *, model: str, dataset: str) -> None:
    """Write utterance_id, attack, label and score (cm_score) of a table in our own layout."""
    header = [
        SCORE_CONVENTION,
        f"model: {model}",
        f"dataset: {dataset}",
        "columns: utterance attack key score",
    ]
    lines = [f"# {' '.join(text.split())}" for text in header]
    for row in table.itertuples():
        utterance = str(row.utterance_id)
        if utterance.startswith("#") or len(utterance.splitlines()) != 1 or utterance != utterance.strip():
            raise UserError(f"{path}: utterance id {utterance!r} cannot be written; rename the file")
        attack = "_".join(str(row.attack).split()) or "-"  # an attack is one word, an id may hold spaces
        lines.append(f"{utterance} {attack} {LABELS[row.label]} {float(row.score)!r}")
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_asv_scores(path: Path) -> dict[str, np.ndarray]:
    """Scores of a speaker verifier by trial kind (target, nontarget, spoof), ASVspoof 2019 layout."""
    valid = "valid: 'attack target|nontarget|spoof score', as in ASVspoof2019.LA.asv.eval.gi.trl.scores.txt"
    lines = _read_lines(path)
    numbers = [number for number, _ in lines]
    rows = [line.split() for _, line in lines]
    for number, row in zip(numbers, rows, strict=True):
        if len(row) != 3 or row[1] not in ("target", "nontarget", "spoof"):
            raise UserError(f"{path}: line {number}: not an ASV score line; {valid}")
    values = _numbers(path, numbers, [row[2] for row in rows])
    kinds = np.array([row[1] for row in rows])
    for kind in ("target", "nontarget", "spoof"):
        if not (kinds == kind).any():
            raise UserError(f"{path}: no {kind} trial; a t-DCF needs target, nontarget and spoof trials")
    return {kind: values[kinds == kind] for kind in ("target", "nontarget", "spoof")}
