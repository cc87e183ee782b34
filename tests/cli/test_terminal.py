"""Mistakes and Ctrl-C: a line on stderr and an exit code."""

import pytest
import typer

from mixjax.cli.terminal import Mistake, reported


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (Mistake("--out a.jpg: must end in .png"), 2, "mixjax: --out a.jpg: must end in .png\n"),
        (FileNotFoundError("x: no such file"), 2, "mixjax: x: no such file\n"),
        (KeyboardInterrupt(), 130, "mixjax: interrupted; nothing was written\n"),
    ],
)
def test_mistakes_are_a_line_and_a_code(capsys, error, code, message):
    with pytest.raises(typer.Exit) as exit_, reported(Mistake, OSError):
        raise error
    assert exit_.value.exit_code == code and capsys.readouterr() == ("", message)


@pytest.mark.parametrize("error", [ZeroDivisionError, BrokenPipeError])
def test_other_errors_pass(error):
    with pytest.raises(error), reported(OSError):
        raise error
