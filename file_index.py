"""Which files are there: one walk over a folder, so that a million rows cost no question to the disk each."""

import os
from pathlib import Path

from protocols import SHEET_SUFFIXES

AUDIO_SUFFIXES = frozenset(
    f".{name}" for name in ("flac", "wav", "mp3", "ogg", "opus", "m4a", "aac", "wma", "aif", "aiff", "au", "webm")
)
LIST_SUFFIXES = frozenset({".txt", ".trl", ".trn", *SHEET_SUFFIXES})


def stem_and_suffix(path: str) -> tuple[str, str]:
    """Split a file's name; strings, because a set has up to a million of them."""
    stem, dot, suffix = path.rpartition(os.sep)[2].rpartition(".")
    return (stem, f".{suffix.lower()}") if dot else (suffix, "")


def walk(root: Path) -> tuple[list[Path], list[str], list[str]]:
    """List every text list and every audio file below a folder in one walk; unreadable folders are noted."""
    lists, audio, notes, seen = [], [], [], set()
    pending = [str(root)]
    while pending:
        folder = pending.pop()
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            notes.append(f"folder left out, it cannot be opened: {folder} ({error.strerror})")
            continue
        for entry in inside:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                pending.append(entry.path)
                continue
            suffix = stem_and_suffix(entry.name)[1]
            if suffix in AUDIO_SUFFIXES:
                audio.append(entry.path)
            elif suffix in LIST_SUFFIXES:
                lists.append(Path(entry.path))
    return sorted(lists), sorted(audio), notes


class Folders:
    """Names in folders, each folder listed once however many rows point into it."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, str]] = {}

    def _list(self, folder: str) -> dict[str, str]:
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if not entry.is_dir())
        except OSError:  # no such folder: its files are missing, which is reported
            return {}
        split = [(*stem_and_suffix(name), name) for name in names]
        return {stem: name for stem, suffix, name in split if suffix in AUDIO_SUFFIXES} | {n: n for n in names}

    def find(self, path: str) -> str | None:
        """Return the path of a file that is there, under another audio suffix if need be."""
        folder, _, name = path.rpartition(os.sep)
        if folder not in self._names:
            self._names[folder] = self._list(folder)
        there = self._names[folder].get(name) or self._names[folder].get(stem_and_suffix(name)[0])
        return f"{folder}{os.sep}{there}" if there else None
