"""Reading and writing score files: every common layout becomes one table, every bad line one clear error.

The table has the columns utterance_id, attack, label (0 bona fide, 1 spoof), score (cm_score), speaker.
Our own file is the ASVspoof layout below a comment header:

    # cm_score = -spoof_logit; higher = more bona fide
    # model: resmax
    # dataset: ASVspoof 2019 LA eval
    # windows: first
    # columns: utterance attack key score
    LA_E_2834763 A11 spoof -6.1053839
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from config import LABELS, SCORE_CONVENTION
from errors import UserError
from file_index import AUDIO_SUFFIXES
from protocols import label_of, read_columns, read_lines, read_trials, refuse, refuse_repeats, to_rows

SCORE_LAYOUTS = (
    "valid: 'utterance attack key score', 'utterance key score', 'utterance score' with --protocol, "
    "or CSV / TSV with a header such as id,label,score"
)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _numbers(path: Path, numbers: Sequence[int], words: Sequence[str]) -> np.ndarray:
    if not all(map(_is_number, words)):
        i = next(i for i, word in enumerate(words) if not _is_number(word))
        refuse(path, numbers[i], f"score '{words[i]}' is not a number")
    values = np.array(words, dtype=np.float64)
    if not np.isfinite(values).all():
        i = int(np.flatnonzero(~np.isfinite(values))[0])
        refuse(path, numbers[i], f"score is {words[i]}; every score must be a finite number")
    return values


def _columns_by_position(path: Path) -> tuple[list[int], dict[str, list[str]]]:
    """Columns of a score file without a header, counted from the right: an id may contain spaces."""
    numbers, lines = zip(*read_lines(path), strict=True)
    fields = [lines[0].rsplit(None, n) for n in (3, 2, 1)]
    if len(fields[0]) == 4 and label_of(fields[0][2]) is not None:
        names = ("utterance_id", "attack", "key", "score")
    elif len(fields[1]) == 3 and label_of(fields[1][1]) is not None:
        names = ("utterance_id", "key", "score")
    elif len(lines[0].split()) == 2 and _is_number(fields[2][1]):
        names = ("utterance_id", "score")
    else:
        refuse(path, numbers[0], f"'{lines[0].strip()[:80]}' is no known layout; {SCORE_LAYOUTS}")
    rows = [line.rsplit(None, len(names) - 1) for line in lines]
    for number, row in zip(numbers, rows, strict=True):
        if len(row) != len(names) or (names[1] == "score" and " " in row[0].strip()):
            count = len(" ".join(row).split())
            refuse(path, number, f"{count} columns where line {numbers[0]} has {len(names)}")
    return list(numbers), {name: [row[i].strip() for row in rows] for i, name in enumerate(names)}


def _stem(utterance: str) -> str:
    """An utterance id without folders and audio suffix, for protocols that name files another way."""
    path = PurePosixPath(utterance.replace("\\", "/"))
    return path.stem if path.suffix.lower() in AUDIO_SUFFIXES else path.name


def _join(path: Path, scores: pd.DataFrame, protocol_path: Path, subset: str | None) -> pd.DataFrame:
    """Scores with label, attack and speaker of the protocol; both must name the same utterances."""
    protocol = read_trials(protocol_path, subset)
    if not set(scores["utterance_id"]) & set(protocol["utterance_id"]):
        for table, source in ((scores, path), (protocol, protocol_path)):
            table["utterance_id"] = table["utterance_id"].map(_stem)
            refuse_repeats(source, table["line"].tolist(), table["utterance_id"].tolist())
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
        refuse(path, first["line"], f"'{first['utterance_id']}' is not in {protocol_path}")
    wrong = joined[(joined["label_in_scores"] >= 0) & (joined["label"] != joined["label_in_scores"])]
    if len(wrong):
        first = wrong.iloc[0]
        here, there = LABELS[first["label_in_scores"]], LABELS[first["label"]]
        problem = f"'{first['utterance_id']}' is {here} here but {there} in {protocol_path}"
        refuse(path, first["line_in_scores"], problem)
    return joined


def _convention(path: Path) -> str:
    """What a score file's comment says a score is, as `write_scores` put it there."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    return first.removeprefix("# ").strip() if first.startswith("# cm_score") else SCORE_CONVENTION


def read_scores(
    path: Path, protocol: Path | None = None, *, subset: str | None = None, higher_is: str = "bonafide"
) -> pd.DataFrame:
    """Read a score file of any layout above; the score column is cm_score (higher = more bona fide).

    `protocol` adds labels, attacks and speakers; `higher_is="spoof"` flips scores of the other direction.
    `attrs["convention"]` of the table is what the file says a score is, or else the usual.
    """
    numbers, columns = read_columns(path) or _columns_by_position(path)
    score_column = next((name for name in ("score", "spoof_logit") if name in columns), None)
    if score_column is None:
        raise UserError(f"{path}: the header has no score column; {SCORE_LAYOUTS}")
    if subset and protocol is None:
        raise UserError("--subset selects lines of a protocol: give --protocol FILE too")
    sign = -1.0 if (score_column == "spoof_logit") != (higher_is == "spoof") else 1.0
    table = to_rows(path, numbers, columns)
    table["score"] = sign * _numbers(path, numbers, columns[score_column])
    if protocol is not None:
        table = _join(path, table, protocol, subset)
    elif "key" not in columns:
        raise UserError(f"{path}: the scores have no labels; give --protocol FILE, or use {SCORE_LAYOUTS[7:]}")
    for label, name in enumerate(LABELS):
        if not (table["label"] == label).any():
            raise UserError(f"{path}: no {name} utterance among {len(table)}; metrics need both classes")
    table = table[["utterance_id", "attack", "label", "score", "speaker"]]
    table.attrs["convention"] = _convention(path)
    return table


def write_scores(
    path: Path,
    table: pd.DataFrame,
    *,
    model: str,
    dataset: str,
    windows: str = "first",
    convention: str = SCORE_CONVENTION,
) -> None:
    """Write utterance_id, attack, label and score (cm_score) of a table in our own layout.

    `windows` says what the scores are from: the first window of every clip, or the mean over all.
    """
    header = [
        convention,
        f"model: {model}",
        f"dataset: {dataset}",
        f"windows: {windows}",
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
    numbers, rows = zip(*((number, line.split()) for number, line in read_lines(path)), strict=True)
    for number, row in zip(numbers, rows, strict=True):
        if len(row) != 3 or row[1] not in ("target", "nontarget", "spoof"):
            refuse(path, number, f"not an ASV score line; {valid}")
    values = _numbers(path, numbers, [row[2] for row in rows])
    kinds = np.array([row[1] for row in rows])
    for kind in ("target", "nontarget", "spoof"):
        if not (kinds == kind).any():
            raise UserError(f"{path}: no {kind} trial; a t-DCF needs target, nontarget and spoof trials")
    return {kind: values[kinds == kind] for kind in ("target", "nontarget", "spoof")}
