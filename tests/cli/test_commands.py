"""The commands by name, and the examples of their help."""

import re
import shlex
import subprocess
import sys

import pytest
import typer.main

from mixjax.cli.commands import make_app

APP = typer.main.get_command(make_app())
HELPS = {"mixjax": APP.help, **{name: command.help for name, command in APP.commands.items()}}
# A long line goes on after a backslash, as in a shell.
LINES = [line for text in HELPS.values() for line in re.findall("  mixjax .*", re.sub(r"\\\n +", "", text))]
EXAMPLES = sorted({re.split(r" {2,}", line.strip())[0] for line in LINES})


def test_every_command_shows_what_it_does_in_one_line(command):
    out = command("--help")[1]
    assert [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line] == list(APP.commands)
    assert "..." not in out.partition("Commands:")[2]
    for text in (
        "Compare with a baseline over paired seeds: a table, a figure.",
        "Show what a result holds: runs, claims, time, final metrics.",
        "List experiments, weight rules and samplers, with a line each.",
    ):
        assert text in out


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_help_have_only_options_that_exist(example):
    name, *words = shlex.split(example)[1:]
    if "--help" not in words:
        APP.commands[name].make_context(name, words)


def test_there_are_examples_of_every_command():
    # A group's examples stand with its own commands, and test_help.py runs them.
    single = {name for name, command in APP.commands.items() if not hasattr(command, "commands")}
    assert {example.split()[1] for example in EXAMPLES} == single


def words_of_commands(group, words=()):
    """Yields the words of every command and every group of commands."""
    yield words
    for name, command in getattr(group, "commands", {}).items():
        yield from words_of_commands(command, (*words, name))


def test_no_help_waits_for_jax_or_numpy():
    # In a process of its own, since this one has imported both. One for all: none may import them.
    calls = [[*words, "--help"] for words in words_of_commands(APP)] + [["--version"]]
    script = f"""
import contextlib, io, sys
from mixjax.cli import main
for words in {calls!r}:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
        main(words)
    assert out.getvalue().strip(), words
    slow = {{"jax", "numpy", "optax", "xarray", "pandas", "matplotlib", "scipy", "sklearn"}} & set(sys.modules)
    assert not slow, (words, slow)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(calls) > 12
