"""Every example of every ``--help`` runs as it stands, one after the other, as a reader would try them."""

import itertools
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main

import mixjax.data
from mixjax import design
from mixjax.cli.commands import make_app
from mixjax.data.catalogue import FETCHED
from mixjax.live import Ledger, Plan
from mixjax.runner.configs import locating

ROOT = Path(__file__).parents[2]
# In the order in which a reader comes by them: what one example writes, the next ones read.
COMMANDS = (
    (),
    ("run",),
    ("sweep",),
    ("show",),
    ("watch",),
    ("compare",),
    ("sites",),
    ("list",),
    ("new",),
    ("data",),
    ("live", "show"),
    ("design", "swarm"),
    ("design", "fit"),
    ("design", "validate"),
)
# The quickstart, with fewer and shorter runs.
SMALL = {"num_steps": "100", "hidden": "4", "batch_size": "8", "probe_size": "8", "seeds": "4", "chunk": "50"}


def examples(text):
    """Returns the command lines in a help text; what follows after two spaces describes them."""
    # A long line goes on after a backslash, as in a shell.
    lines = re.findall(r"^ +(mixjax .*)$", re.sub(r"\\\n +", "", text), flags=re.MULTILINE)
    return [re.split(r" {2,}", line.strip())[0] for line in lines]


@pytest.mark.parametrize("names", [*COMMANDS, ("live",), ("design",)], ids=" ".join)
def test_every_help_fits_on_a_screen(names, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, text, _ = command(*names, "--help")
    lines = text.splitlines()
    assert code == 0 and len(lines) <= 40 and max(map(len, lines)) < 80, text
    # The groups of commands list these, which have the examples.
    assert examples(text) or "Commands:" in text


@pytest.fixture
def quickstart(tmp_path, monkeypatch):
    """Makes a project with a small quickstart the current folder; the name "quickstart" means it too."""
    monkeypatch.setattr("mixjax.runner.configs.locating.shipped_folder", lambda: tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    monkeypatch.setattr(locating, "shipped_folder", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    text = (ROOT / "configs" / "quickstart.toml").read_text()
    for name, value in SMALL.items():
        text, count = re.subn(rf"^{name} = \d+", f"{name} = {value}", text, flags=re.MULTILINE)
        assert count == 1
    (tmp_path / "configs" / "quickstart.toml").write_text(text)


@pytest.fixture
def ledger(quickstart):
    """Writes the ledger of a short live mix."""
    plan = Plan({"web": 50, "code": 5}, 4, [0.75, 0.25], lag=1)
    Path("run").mkdir()
    with Ledger("run/ledger.jsonl", plan) as opened:
        for step in range(3):
            opened.write(next(plan))
            plan.keep(step)


@pytest.fixture
def tables(quickstart):
    """Writes the tables of a swarm of 20 runs, the sizes of its domains, and the losses of two mixtures."""
    mixtures = np.random.default_rng(0).dirichlet(np.ones(2), 20)
    runs = design.as_swarm(mixtures, np.exp(-mixtures), domains=["web", "code"], metrics=["web_loss", "code_loss"])
    design.write_tables(runs, "ratios.csv", "metrics.csv")
    head, *lines = Path("metrics.csv").read_text().splitlines()
    lines = [f"{line},{budget}" for line, budget in zip(lines, itertools.cycle([1e6, 1e7]))]
    Path("metrics_of_budgets.csv").write_text("\n".join([f"{head},budget", *lines]) + "\n")
    Path("sizes.json").write_text('{"web": 9, "code": 1}')
    rows = [f"{name},{seed},{seed}.5,2.0\n" for name in ("proposal", "uniform") for seed in range(7, 10)]
    Path("losses.csv").write_text("mixture,seed,code_loss,web_loss\n" + "".join(rows))


@pytest.fixture
def scores(quickstart):
    """Writes the scores of two cases under two weightings, and distances in the same form."""
    rows = [f"A,{case},{method},{case}.5\n" for method in ("volume", "uniform") for case in (1, 2)]
    for name in ("scores.csv", "distances.csv"):
        Path(name).write_text("site,case,method,score\n" + "".join(rows))


@pytest.fixture
def no_downloads(monkeypatch):
    """Checks what ``mixjax data`` would fetch, and fetches nothing."""

    def fetch(name, *, source=None, folder=None):
        assert source is None or source in FETCHED[name].sources
        return f"cache/{name}"

    def make_tokens(names, **how):
        assert names is None or set(names) <= set(mixjax.data.TEXT_DOMAINS)
        return "cache/tokens"

    monkeypatch.setattr(mixjax.data, "fetch", fetch)
    monkeypatch.setattr(mixjax.data, "make_tokens", make_tokens)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_every_example_runs(command, quickstart, ledger, tables, scores, no_downloads):
    ran = set()
    for names in COMMANDS:
        code, text, _ = command(*names, "--help")
        found = examples(text)
        assert code == 0 and found, names
        # The examples of `mixjax` itself are samples of the others', and come last.
        for line in found if names else []:
            ran.add(line)
            code, out, err = command(*shlex.split(line)[1:])
            assert code == 0 and out and "Traceback" not in err, f"{line}\n{out}\n{err}"
    for line in examples(command("--help")[1]):
        code, out, err = command(*shlex.split(line)[1:])
        assert code == 0 and out, f"{line}\n{out}\n{err}"
    assert len(ran) >= 20


def commands(group, names=()):
    """Yields the words of each command that does something, and of `mixjax` itself."""
    for name, inner in group.commands.items():
        yield from commands(inner, (*names, name)) if hasattr(inner, "commands") else [(*names, name)]


def test_every_example_is_tested():
    assert {*commands(typer.main.get_command(make_app())), ()} == set(COMMANDS)
