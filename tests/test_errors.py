"""How commands end: one line, the right exit code, and no Ctrl-C that gets lost."""

import signal

import pytest

from errors import UserError, ctrl_c, run_command


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("x.wav: too short"), 2, "error: x.wav: too short\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
        (FileNotFoundError(2, "No such file", "x.csv"), 2, "error: x.csv: No such file\n"),
    ],
)
def test_an_error_is_one_line_and_a_code(error, code, line, capsys):
    assert run_command(lambda: fail(error)) == code
    assert capsys.readouterr().err == line


def test_what_a_command_returns_is_its_code():
    assert [run_command(main) for main in (lambda: None, lambda: 0, lambda: 1)] == [0, 0, 1]


class Destroyed:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)  # Python drops what a destructor raises


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_in_a_destructor_is_not_lost():
    reached = []

    def work() -> None:
        doomed = Destroyed()
        del doomed
        reached.append("after the destructor")
        ctrl_c.check()
        reached.append("after the check")

    assert run_command(work) == 130
    assert reached == ["after the destructor"]
    assert run_command(ctrl_c.check) == 0  # the next command starts afresh


def test_the_usual_handler_comes_back():
    before = signal.getsignal(signal.SIGINT)
    run_command(lambda: None)
    assert signal.getsignal(signal.SIGINT) is before
