"""Files that appear whole or not at all, whatever interrupts their writing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Another name to write under (same suffix); the file takes `path`'s place when the block ends without an error."""
    unfinished = path.with_name(f"unfinished_{path.name}")  # what a killed process left there is written over
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
