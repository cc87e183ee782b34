"""Standard output and error that are full or closed: a line and a code, for every command."""

import io
import sys

import pytest

from mixjax import cli
from mixjax.cli.streams import OutputError, guarded_streams

COMMANDS = [
    ["list"],
    ["--help"],
    ["--version"],
    *([name, "--help"] for name in ("run", "sweep", "data", "compare", "show", "live", "design")),
    ["run", "configs/paper/toy.toml"],
    ["show", "results/toy"],
    ["run", "configs/paper/toy.toml", "--dry-run"],
    ["sweep", "configs/paper/toy.toml", "--vary", "shift=0.5,1.0", "--seeds", "2"],
    ["compare", "results/toy_sweep", "--metric", "value", "--along", "shift", "--better", "lower"],
]
MISTAKES = [["show", "nowhere"], ["run", "nothing.toml"], ["run"], ["no-command"], ["live", "show", "nowhere"]]


class Full(io.TextIOBase):
    """A stream on a full disk, which says so when it is written to, or when it is flushed."""

    def __init__(self, at):
        self._at, self._waits = at, False

    def write(self, text):
        if self._at == "write":
            raise OSError(28, "No space left on device")
        self._waits = True
        return len(text)

    def flush(self):
        if self._at == "flush" and self._waits:
            raise OSError(28, "No space left on device")


def code_of(argv):
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    return exit_.value.code or 0


def test_a_full_standard_output_is_a_line_of_every_command(project, monkeypatch, capsys):
    for argv in COMMANDS:
        for at in ("write", "flush"):
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stdout", Full(at))
                code = code_of(argv)
            lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("mixjax", "Traceback"))]
            assert (code, lines) == (1, ["mixjax: standard output cannot be written: No space left on device"]), argv


@pytest.mark.parametrize("argv", MISTAKES, ids=" ".join)
def test_a_mistake_keeps_its_code_where_standard_error_is_full(argv, project, monkeypatch):
    for stream in (Full("write"), Full("flush"), None):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            assert code_of(argv) == 2


def test_a_closed_standard_output_is_none_to_write_to(project, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert code_of(["list"]) == 0 and sys.stdout is None


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch):
    class Head(Full):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Head(None))
    with pytest.raises(BrokenPipeError), guarded_streams():
        sys.stdout.write("x")


def test_a_stream_that_is_closed_is_told_too(monkeypatch):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(OutputError, match="closed file"), guarded_streams():
        sys.stdout.write("x")
