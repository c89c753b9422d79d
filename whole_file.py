"""Files that appear whole or not at all, whatever interrupts their writing; and folders that are nobody else's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import UserError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Another name to write under (same suffix); the file takes `path`'s place when the block ends without an error."""
    unfinished = path.with_name(f"unfinished_{path.name}")  # what a killed process left there is written over
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def refuse_other_files(folder: Path, what: str) -> None:
    """Refuse a folder that holds anything: what a command writes there could take its place."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: holds other files; give a new or empty folder for the {what}")
