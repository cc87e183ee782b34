"""Mistakes and Ctrl-C: a line on stderr and an exit code."""

import signal

import jax.numpy as jnp
import pytest
import typer

from mixjax import rules
from mixjax.cli.terminal import Mistake, refusals_placed, reported
from mixjax.stopping import Preempted


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (Mistake("--out a.jpg: must end in .png"), 2, "mixjax: --out a.jpg: must end in .png\n"),
        (FileNotFoundError("x: no such file"), 2, "mixjax: x: no such file\n"),
        (OSError("two\n  lines"), 2, "mixjax: two lines\n"),
        (OSError(), 2, "mixjax: OSError\n"),
        (KeyboardInterrupt(), 130, "mixjax: interrupted; nothing was written\n"),
        (Preempted(signal.SIGTERM), 143, "mixjax: SIGTERM; nothing was written\n"),
        (Preempted(signal.SIGUSR1), 138, "mixjax: SIGUSR1; nothing was written\n"),
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


def lookup():
    return {"sgd": 1}["adam"]


REFUSED = [
    (lambda: rules.erma(gamma1=-1.0), r"gamma1 must be .* got -1\.0"),
    (lambda: jnp.ones(3) + jnp.ones(4), r"incompatible shapes .*\(3,\).*\(4,\)"),
    (lambda: int("x"), "invalid literal"),
    (lookup, "KeyError: 'adam'"),
]


@pytest.mark.parametrize(("refused", "message"), REFUSED)
def test_a_refused_value_is_a_line_that_says_where(refused, message, monkeypatch):
    with pytest.raises(Mistake, match=message) as error, refusals_placed():
        refused()
    assert "test_terminal.py, line " in str(error.value) and "set MIXJAX_TRACEBACK=1" in str(error.value)
    monkeypatch.setenv("MIXJAX_TRACEBACK", "1")
    with pytest.raises((ValueError, TypeError, KeyError), match=r"^[^;]*$") as error, refusals_placed():
        refused()
    assert not isinstance(error.value, Mistake)


def test_a_bug_is_not_a_refusal():
    with pytest.raises(ZeroDivisionError), refusals_placed():
        raise ZeroDivisionError
