"""What a dataset holds, counted and printed: rows, files found, missing and extra, classes, speakers, hours.

`python data_utils.py DIR` is the command; `check(read_dataset(DIR))` gives the same as a dict.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from config import LABELS, SPOOF
from protocols import UNKNOWN_SPEAKER, UNLABELLED
from splits import SPLIT_ORDER

if TYPE_CHECKING:
    from data_utils import Dataset

ENROLMENT_FILES = {("asvspoof2019_LA", "dev"): 142, ("asvspoof2019_LA", "eval"): 696}
LONGEST = 24 * 3600  # seconds; a header that claims more is broken
SHOWN_ATTACKS = 40
CHUNK = 256  # headers a thread reads at a time


def _chunk_seconds(paths: list[str]) -> list[float]:
    import soundfile

    seconds = []
    for path in paths:
        try:
            info = soundfile.info(path)
            length = info.frames / info.samplerate
            seconds.append(length if 0 < length < LONGEST else np.nan)
        except (soundfile.SoundFileError, RuntimeError, OSError, ZeroDivisionError):
            seconds.append(np.nan)
    return seconds


def measure_seconds(paths: list[str]) -> np.ndarray:
    """Read the duration in seconds from every file's header; nan where it cannot be read."""
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=len(paths), desc="headers", unit="file", delay=2, disable=None, leave=False) as bar,
    ):
        seconds: list[float] = []
        for part in pool.map(_chunk_seconds, chunks):
            seconds += part
            bar.update(len(part))
    return np.array(seconds)


def _hours(paths: list[str], headers: int) -> dict[str, Any]:
    if not paths or headers == 0:
        return {"hours": 0.0 if not paths else None, "hours_estimated": False, "headers_unreadable": 0}
    sampled = len(paths) > headers
    if sampled:
        chosen = np.random.default_rng(1).choice(len(paths), headers, replace=False)
        read = measure_seconds([paths[i] for i in np.sort(chosen)])
    else:
        read = measure_seconds(paths)
    readable = read[~np.isnan(read)]
    # a sample stands for all files, the unreadable ones left out in proportion
    hours = readable.sum() / 3600 * len(paths) / len(read)
    return {
        "hours": round(float(hours), 3),
        "hours_estimated": sampled,
        "headers_unreadable": int(np.isnan(read).sum()),
    }


def _why_extra(name: str, split: str, count: int, rows: int) -> str:
    if split != "-" and not rows:
        return "no list of this split is there, not used"
    if name.startswith("asvspoof2019") and split in ("dev", "eval"):
        known = ENROLMENT_FILES.get((name, split))
        if known and count > known:
            return f"not used; ASV enrolment explains {known}, the protocol lacks the others"
        return f"ASV enrolment, not used{f' (the full set has {known})' if known else ''}: nothing is wrong"
    return "named by no list, not used"


def _count_rows(rows: pd.DataFrame) -> dict[str, Any]:
    """Count classes, attacks and speakers of rows, all of them and those whose file is there."""
    found = rows["path"].notna()
    spoof = rows["label"] == SPOOF
    known = rows["speaker"] != UNKNOWN_SPEAKER
    attacks = rows[spoof].assign(found=found[spoof]).groupby("attack", sort=True)["found"].agg(["size", "sum"])
    counts: dict[str, Any] = {"rows": len(rows), "found": int(found.sum()), "missing": int((~found).sum())}
    for label, word in [*enumerate(LABELS), (UNLABELLED, "unlabelled")]:
        of_label = rows["label"] == label
        counts[word] = {
            "rows": int(of_label.sum()),
            "found": int((of_label & found).sum()),
            "speakers": int(rows.loc[of_label & known, "speaker"].nunique()),
        }
    counts["speakers"] = int(rows.loc[known, "speaker"].nunique())
    counts["speaker_unknown"] = int((~known).sum())
    counts["attacks"] = {str(a): {"rows": int(r["size"]), "found": int(r["sum"])} for a, r in attacks.iterrows()}
    return counts


def _verdict(splits: dict[str, Any]) -> tuple[bool, str]:
    """Apply the rule of `data_utils.py --help`: can the set be used, and one sentence on it."""
    found = sum(counts["found"] for counts in splits.values())
    missing = sum(counts["missing"] for counts in splits.values())
    labelled = {name: c for name, c in splits.items() if c["unlabelled"]["rows"] == 0 and c["rows"]}
    whole = [name for name, c in labelled.items() if all(c[label]["found"] for label in LABELS)]
    rest = f"; {missing:,} files are missing, pass --allow-missing to go on with the rest" if missing else ""
    if set(whole) & {"train", "eval", "-"}:
        named = ", ".join("the undivided set" if name == "-" else name for name in whole)
        return True, f"can be used: {named} with files of both classes{rest}"
    if found and not labelled:
        return True, f"can be scored only, there are no keys{rest}"
    have = "; ".join(
        f"{'undivided' if name == '-' else name} " + ", ".join(f"{c[word]['found']:,} {word}" for word in LABELS)
        for name, c in splits.items()
        if c["rows"]
    )
    return False, f"cannot be used: neither train nor eval has files of both classes (files found: {have})"


def check(dataset: Dataset, headers: int = 100_000, list_missing: int = 3) -> dict[str, Any]:
    """Count what a dataset holds, a split at a time; the hours come from the headers of the files found.

    `headers`: most headers read for a split; of more files a seeded sample is measured and scaled. 0 reads none.
    """
    splits: dict[str, Any] = {}
    notes = list(dataset.notes)
    for split in (*SPLIT_ORDER, "-"):
        rows = dataset.table[(dataset.table["split"] == split).to_numpy()]
        extra = dataset.extra.get(split, [])
        if rows.empty and not extra:
            continue
        there = rows["path"].notna()
        counts = _count_rows(rows) | _hours(rows.loc[there, "path"].tolist(), headers)
        counts["missing_first"] = rows.loc[~there, "utterance_id"].head(list_missing).tolist()
        counts["extra"] = len(extra)
        counts["extra_first"] = extra[:list_missing]
        counts["extra_why"] = _why_extra(dataset.name, split, len(extra), len(rows)) if extra else ""
        if counts["headers_unreadable"]:
            unreadable = counts["headers_unreadable"]
            notes.append(f"{split}: {unreadable:,} headers that libsndfile cannot read, left out of the hours")
        splits[split] = counts
    usable, verdict = _verdict(splits)
    return {
        "name": dataset.name,
        "root": str(dataset.root),
        "lists": [str(path) for path in dataset.lists],
        "splits": splits,
        "notes": notes,
        "usable": usable,
        "verdict": verdict,
    }


def count_split(table: pd.DataFrame) -> dict[str, Any]:
    """Count a table that `split_table` gave."""
    splits = {
        split: _count_rows(table[(table["split"] == split).to_numpy()])
        for split in (*SPLIT_ORDER, "-")
        if (table["split"] == split).any()
    }
    return {"note": table.attrs["split_note"], "splits": splits}


def _grid(lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def _share(counts: dict[str, Any]) -> str:
    rows, found = counts["rows"], counts["found"]
    return f"{rows:,}" if rows == found else f"{found:,} of {rows:,}"


def format_report(report: dict[str, Any]) -> str:
    """Lay out what `check` gave as text."""
    splits = report["splits"]
    out = [f"{report['name']} in {report['root']}", *(f"  list {path}" for path in report["lists"]), ""]
    lines = [["split", "rows", "found", "missing", "extra", *LABELS, "speakers", "hours"]]
    for name, c in splits.items():
        hours = "not read" if c["hours"] is None else f"{'about ' * c['hours_estimated']}{c['hours']:,.2f}"
        speakers = f"{c['speakers']:,}" if c["speakers"] or not c["rows"] else "unknown"
        numbers = [f"{c[key]:,}" for key in ("rows", "found", "missing", "extra")]
        lines.append([name, *numbers, *(_share(c[label]) for label in LABELS), speakers, hours])
    out += _grid(lines)
    for name, c in splits.items():
        if c["attacks"]:
            shown = [f"{attack} {_share(counts)}" for attack, counts in c["attacks"].items()]
            more = [f"and {len(shown) - SHOWN_ATTACKS} more (--json has all)"] * (len(shown) > SHOWN_ATTACKS)
            out += ["", f"attacks of {name}, files found: {', '.join(shown[:SHOWN_ATTACKS] + more)}"]
    out.append("")
    for name, c in splits.items():
        if c["missing"]:
            more = ["..."] * (c["missing"] > len(c["missing_first"]))
            out.append(f"missing in {name}: {c['missing']:,}: {', '.join(c['missing_first'] + more)}")
        if c["extra"]:
            out.append(f"extra in {name}: {c['extra']:,}, {c['extra_why']}")
        if c["unlabelled"]["rows"]:
            out.append(f"without label in {name}: {c['unlabelled']['rows']:,}")
    out += [f"note: {note}" for note in report["notes"]]
    if report["usable"]:  # otherwise the verdict is the command's one error line
        out.append(report["verdict"])
    return "\n".join(out)


def format_split(counted: dict[str, Any]) -> str:
    """Lay out what `count_split` gave as text."""
    lines = [["split", "rows", *LABELS, "attacks", "speakers"]]
    for name, c in counted["splits"].items():
        numbers = [f"{c['rows']:,}", *(f"{c[label]['rows']:,}" for label in LABELS)]
        lines.append([name, *numbers, f"{len(c['attacks'])}", f"{c['speakers']:,}" if c["speakers"] else "unknown"])
    return "\n".join(["", *_grid(lines), counted["note"]])
