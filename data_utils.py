"""Datasets become one table: every reader gives the same columns, and a check says what is there.

    python data_utils.py DIR                          rows, files found, missing, extra, classes, hours
    python data_utils.py DIR --split attack-held-out  the same, and what a split makes of it

Understood: ASVspoof 2019 LA / PA, 2021 LA / DF / PA (keys optional), ASVspoof 5, In-the-Wild, a folder with
bonafide/ and spoof/ (also below train/, dev/, eval/), a CSV / TSV
(path,label[,attack,speaker,split,page,kind,family,source]). Lists are found by their content, wherever the tree sits.
`protocols.py` says what they look like, `splits.py` divides the table, `dataset_report.py` counts and prints.
"""

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from config import BONAFIDE, TABLE_COLUMNS
from dataset_report import check, count_split, format_report, format_split
from errors import CommandParser, UserError, run_command
from file_index import Folders, stem_and_suffix, walk
from protocols import (
    ROW_COLUMNS,
    SHEET_SUFFIXES,
    SPLIT_SPELLINGS,
    UNKNOWN_ATTACK,
    UNKNOWN_PAGE,
    UNKNOWN_SPEAKER,
    UNLABELLED,
    Protocol,
    is_in_the_wild,
    is_sheet,
    label_of,
    read_protocol,
    read_sheet,
    recognise,
    split_of,
)
from splits import SPLITS, split_table

SOUGHT = (
    "an ASVspoof 2019 LA / PA, 2021 LA / DF / PA or 5 protocol, In-the-Wild's meta.csv, a CSV / TSV with "
    "path,label, or folders bonafide/ and spoof/"
)
EXIT_RULE = (
    "Ends 0 if the set can be used: train, eval or an undivided set has files of both classes (or there are "
    "files and no keys: it can be scored). Missing files are reported and do not change that; to train on "
    "the rest pass --allow-missing. Ends 2 with one line if the set cannot be used."
)


@dataclass(frozen=True)
class Dataset:
    """A dataset as its lists describe it: all rows, also those whose file is missing (path None).

    Rows of ASVspoof 2021 without keys have label -1 and attack "-": to be scored, refused by `usable` unless
    it is called with labelled=False.
    """

    name: str
    root: Path
    table: pd.DataFrame  # TABLE_COLUMNS
    lists: tuple[Path, ...] = ()  # the files that were read
    extra: dict[str, list[str]] = field(default_factory=dict)  # split (or "-") -> audio files no list names
    notes: tuple[str, ...] = ()

    def usable(self, allow_missing: bool = False, labelled: bool = True) -> pd.DataFrame:
        """Return the rows that have a file; missing files are an error unless allowed, and never replaced."""
        rows = self.table
        unlabelled = int((rows["label"] == UNLABELLED).sum())
        if labelled and unlabelled:
            raise UserError(
                f"{self.name} in {self.root}: {unlabelled:,} rows have no label, the keys are not there; "
                "unpack the keys (CM/trial_metadata.txt) in this folder, or only score it with inference.py"
            )
        missing = rows["path"].isna()
        count = int(missing.sum())
        if count == len(rows):
            raise UserError(f"{self.name} in {self.root}: none of the {count:,} files that its lists name is there")
        if count and not allow_missing:
            first = ", ".join(rows.loc[missing, "utterance_id"].head(3))
            raise UserError(
                f"{self.name} in {self.root}: {count:,} of {len(rows):,} files are missing ({first} ...); "
                "get the rest, or leave them out with --allow-missing"
            )
        return rows[~missing].reset_index(drop=True)


def _tops(folders: list[Path], others: list[Path], root: Path) -> list[Path]:
    """Climb from each folder as long as nothing of another dataset comes below it."""
    tops = []
    for top in folders:
        while top != root and not any(other.is_relative_to(top.parent) for other in others):
            top = top.parent
        tops.append(top)
    return tops


def _refuse_several(root: Path, homes: dict[str, list[Path]], sheets: list[Path], audio: list[str]) -> None:
    """Name the datasets below a folder, each by the place to point at."""
    named = [str(sheet.relative_to(root)) for sheet in sheets]
    for name, folders in homes.items():
        others = [folder for other, places in homes.items() if other != name for folder in places]
        others += [sheet.parent for sheet in sheets]
        tops = _tops(folders, others, root)
        top = next((t for t in tops if any(path.startswith(f"{t}{os.sep}") for path in audio)), tops[0])
        if any(other.is_relative_to(top) for other in others):
            named.append(f"{name} (its lists lie among the others': give it a folder of its own)")
        else:
            named.append(f"{top.relative_to(root)} ({name})")
    raise UserError(f"{root} holds {len(named)} datasets; point at one of: {', '.join(named)}")


def _keys_beside(root: Path, dataset: str) -> list[Path]:
    """Look for the 2021 keys where their archives unpack to beside the audio folder."""
    part = dataset[-2:]
    below = [f"keys/{part}", f"{part}-keys-full/keys/{part}", f"{part}-keys-stage-1/keys", "keys"]
    places = [base / place / "CM" / "trial_metadata.txt" for base in (root, root.parent) for place in below]
    return [place for place in places if place.is_file() and _is_keyed(place, dataset)][:1]


def _is_keyed(path: Path, dataset: str) -> bool:
    protocol = recognise(path)
    return protocol is not None and protocol.dataset == dataset and "key" in protocol.names


def _table(rows: pd.DataFrame, paths: list[str | None], name: str) -> pd.DataFrame:
    return rows.assign(path=pd.Series(paths, index=rows.index, dtype=object), dataset=name)[list(TABLE_COLUMNS)]


def _read_official(root: Path, name: str, found: list[tuple[Path, Protocol]], audio: list[str]) -> Dataset:
    notes = []
    if not any("key" in protocol.names for _, protocol in found):
        found = [(path, recognise(path)) for path in _keys_beside(root, name)] or found
    keyed = [(path, protocol) for path, protocol in found if "key" in protocol.names]
    if not keyed:
        notes.append("no keys (CM/trial_metadata.txt) found: rows have no label and can only be scored")
    found = keyed or found
    named = [(path, protocol) for path, protocol in found if protocol.is_named(path)]
    if named and len(named) < len(found):
        left = [path.name for path, protocol in found if not protocol.is_named(path)]
        notes.append(f"lists without an official name left aside: {', '.join(left)}")
    read: list[tuple[Path, pd.DataFrame]] = []
    for path, protocol in named or found:
        rows = read_protocol(path, protocol)[list(ROW_COLUMNS)]
        for earlier, other in read:
            if other.equals(rows):
                notes.append(f"{path} repeats {earlier}: read once")
                break
            both = set(other["utterance_id"]) & set(rows["utterance_id"])
            if both:
                raise UserError(f"{path}: {min(both)} and {len(both) - 1:,} others are also in {earlier}; keep one")
        else:
            read.append((path, rows))
    rows = pd.concat([rows for _, rows in read], ignore_index=True)
    files: dict[str, str] = {}
    repeated = 0
    for path in audio:
        stem = stem_and_suffix(path)[0]
        repeated += stem in files
        files.setdefault(stem, path)
    if repeated:
        notes.append(f"{repeated:,} audio files share their name with another one: the first by path is used")
    table = _table(rows, [files.get(utterance) for utterance in rows["utterance_id"]], name)
    extra: dict[str, list[str]] = {}
    for stem in files.keys() - set(rows["utterance_id"]):
        extra.setdefault(split_of(stem), []).append(files[stem])
    extra = {split: sorted(paths) for split, paths in sorted(extra.items())}
    return Dataset(name, root, table, tuple(path for path, _ in read), extra, tuple(notes))


def _read_sheet_dataset(path: Path, audio: list[str]) -> Dataset:
    rows = read_sheet(path)
    folders, notes = Folders(), []
    for base in (path.parent, path.parent.parent):
        wanted = [os.path.normpath(base / name.replace("\\", "/")) for name in rows["file"]]
        paths = [folders.find(name) for name in wanted]
        if any(paths):
            break
    if base != path.parent and any(paths):
        notes.append(f"paths are relative to {base}, the parent of the list's folder")
    renamed = sum(there is not None and there != name for there, name in zip(paths, wanted, strict=True))
    if renamed:
        notes.append(f"{renamed:,} files found under another suffix than the list says")
    name = "in_the_wild" if is_in_the_wild(path) else path.parent.name
    extra = sorted({there for there in audio if there.startswith(f"{path.parent}{os.sep}")} - set(paths))
    return Dataset(name, path.parent, _table(rows, paths, name), (path,), {"-": extra} if extra else {}, tuple(notes))


def _label_folders(root: Path, audio: list[str]) -> dict[tuple[str, ...], dict[int, list[tuple[str, ...]]]]:
    """Group audio files by what holds bonafide/ or spoof/: container -> label -> parts below the root."""
    containers: dict[tuple[str, ...], dict[int, list[tuple[str, ...]]]] = {}
    skip = len(root.parts)
    for path in audio:
        parts = Path(path).parts[skip:]
        at = next((i for i, part in enumerate(parts[:-1]) if label_of(part) is not None), None)
        if at is not None:
            containers.setdefault(parts[:at], {}).setdefault(label_of(parts[at]), []).append(parts)
    return containers


def _read_folders(root: Path, audio: list[str]) -> Dataset | None:
    """Read bonafide/ and spoof/[attack/]; they may lie below train/, dev/, eval/ or one folder deeper."""
    containers = {c: labels for c, labels in _label_folders(root, audio).items() if len(labels) == 2}
    if not containers:
        return None
    divided = all(c and c[-1].lower() in SPLIT_SPELLINGS for c in containers)
    if len({c[:-1] if divided else c for c in containers}) > 1 or (not divided and len(containers) > 1):
        places = ", ".join(sorted("/".join(container) or "." for container in containers))
        raise UserError(f"{root} holds several folders with bonafide/ and spoof/; point at one of: {places}")
    rows, paths = [], []
    for container, labels in containers.items():
        split = SPLIT_SPELLINGS[container[-1].lower()] if divided else "-"
        for label in sorted(labels):
            for parts in labels[label]:
                below = parts[len(container) + 1 : -1]
                attack = "-" if label == BONAFIDE else below[0] if below else UNKNOWN_ATTACK
                name = "/".join(parts)
                rows.append((name, label, attack, UNKNOWN_SPEAKER, split, name, UNKNOWN_PAGE, "-", "-", "-"))
                paths.append(str(root.joinpath(*parts)))
    table = _table(pd.DataFrame(rows, columns=list(ROW_COLUMNS)), paths, root.name)
    extra = sorted(set(audio) - set(paths))
    return Dataset(root.name, root, table, (), {"-": extra} if extra else {})


def _belongs(sheet: Path, home: Path, root: Path) -> bool:
    """Tell whether a CSV lies in the tree of the official lists in `home`."""
    return home.is_relative_to(sheet.parent) or sheet.is_relative_to(home if home == root else home.parent)


def read_dataset(directory: str | Path) -> Dataset:
    """Find the one dataset in a folder (or take the CSV / TSV given) and read all its rows."""
    root = Path(os.path.normpath(Path(directory).expanduser().absolute()))
    if root.is_file():
        if root.suffix.lower() not in SHEET_SUFFIXES or recognise(root):
            raise UserError(f"{root}: point at the folder of the dataset, or at a CSV / TSV with path,label")
        return _read_sheet_dataset(root, walk(root.parent)[1])
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of a dataset or a CSV / TSV")
    lists, audio, notes = walk(root)
    official: dict[str, list[tuple[Path, Protocol]]] = {}
    sheets: list[Path] = []
    for path in lists:
        protocol = recognise(path)
        if protocol:
            official.setdefault(protocol.dataset, []).append((path, protocol))
        elif is_sheet(path):
            sheets.append(path)
    homes = {name: [path.parent for path, _ in found] for name, found in official.items()}
    stray = [s for s in sheets if any(_belongs(s, home, root) for places in homes.values() for home in places)]
    sheets = [s for s in sheets if s not in stray]
    notes += [f"{path} left aside, it lies beside official lists; point at it to use it" for path in stray]
    if len(official) + len(sheets) > 1:
        _refuse_several(root, homes, sheets, audio)
    if official:
        ((name, found),) = official.items()
        dataset = _read_official(root, name, found, audio)
    elif sheets:
        dataset = _read_sheet_dataset(sheets[0], audio)
    else:
        dataset = _read_folders(root, audio)
    if dataset is None:
        seen = f"{len(audio):,} audio files and {len(lists):,} text files seen"
        raise UserError(f"{root}: no dataset found; looked for {SOUGHT} ({seen})")
    return replace(dataset, notes=(*dataset.notes, *notes))


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(description="Check a dataset.", epilog=EXIT_RULE)
    parser.add_argument("directory", metavar="DIR", help="folder of a dataset, or a CSV / TSV with path,label")
    parser.add_argument("--json", action="store_true", help="print the report as JSON and nothing else")
    parser.add_argument("--allow-missing", action="store_true", help="leave missing files out of --split's counts")
    parser.add_argument(
        "--split", metavar="SCHEME", choices=SPLITS, help="; ".join(f"{k}: {v}" for k, v in SPLITS.items())
    )
    parser.add_argument("--seed", type=int, default=1, help="of --split (default 1)")
    parser.add_argument("--list-missing", type=int, default=3, metavar="N", help="missing files named for each split")
    parser.add_argument(
        "--headers",
        type=int,
        default=100_000,
        metavar="N",
        help="audio headers read for each split's hours, a sample of more (default 100000, 0: none)",
    )
    args = parser.parse_args(argv)
    if args.headers < 0 or args.list_missing < 0:
        raise UserError("--headers and --list-missing must be 0 or more")
    dataset = read_dataset(args.directory)
    report = check(dataset, headers=args.headers, list_missing=args.list_missing)
    if args.split and report["usable"]:
        rows = dataset.usable(allow_missing=True) if args.allow_missing else dataset.table
        report["split"] = count_split(split_table(rows, args.split, args.seed))
    if args.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(format_report(report))
        if "split" in report:
            print(format_split(report["split"]))
    if not report["usable"]:
        raise UserError(f"{dataset.root}: {report['verdict']}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
