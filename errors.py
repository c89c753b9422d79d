"""Errors that a user can cause, and how every command ends.

Raise `UserError` with one line that names the file or value, what is wrong and what is valid.
A script ends with `raise SystemExit(run_command(main))`.
"""

import argparse
import io
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn


class UserError(Exception):
    """Something the user can put right; shown as one line, never as a traceback."""


class AudioError(UserError):
    """An audio file that cannot be used, named together with the reason."""


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, too."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def tell_failures(problems: Sequence[object], total: int, what: str) -> int:
    """List on stderr which of so many files went wrong; the exit code of a command that did the others."""
    if problems:
        print(f"{len(problems):,} of {total:,} files {what}:", file=sys.stderr)
        for problem in problems:
            print(f"  {problem}", file=sys.stderr)
    return 1 if len(problems) else 0


class CtrlC:
    """Ctrl-C, noted as well as raised: what a destructor raises is dropped, so `check` raises it again.

    `with ctrl_c: ...` around a command; long work calls `ctrl_c.check()` now and then.
    """

    def __init__(self) -> None:
        self.noted = False

    def __enter__(self) -> None:
        self.noted = False
        self.usual = signal.signal(signal.SIGINT, self.note)

    def __exit__(self, *problem: object) -> None:
        signal.signal(signal.SIGINT, self.usual)

    def note(self, *details: object) -> NoReturn:
        self.noted = True
        raise KeyboardInterrupt

    def check(self) -> None:
        if self.noted:
            raise KeyboardInterrupt


ctrl_c = CtrlC()


def run_command(main: Callable[[], int | None]) -> int:
    """Run a command's main function; return 2 on a user's error and 130 on Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name that the terminal cannot show must not end a batch
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with ctrl_c:
            return main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) went away: nothing is wrong
        sys.stderr.close()
        return 0
    except OSError as error:  # a folder that is a file, no right to write, a full disk
        print(f"error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 2
