"""`mixjax compare` and `mixjax show` on small results written by hand: tables, options, mistakes, figures."""

import math
import sys

import numpy as np
import pytest
import xarray as xr

from mixjax import cli
from mixjax.runner import results
from mixjax.runner.configs import load

CONFIG = """
experiment = "{module}:toy"
steps = 5
[[run]]
name = "MLP"
[[run]]
name = "CNN, wide"
width = 9
[sweep]
seeds = 4
"""
CLAIM = {
    "name": "erma_wins",
    "statement": "ERMA wins",
    "source": "ours",
    "value": 0.5,
    "stderr": 0.125,
    "threshold": 0.0,
    "num_seeds": 4,
    "holds": True,
    "note": "",
}
SEEDS = np.array([0.0, 1.0, 4.0, 2.0])  # what a seed adds to every loss
METHODS = {"sgd": np.zeros(4), "erma": np.array([-1.0, -1.0, 0.0, 1.0]), "va": np.array([2.0, 1.0, 2.0, 3.0])}


def loss(methods=METHODS, gammas=(0.1, math.inf), steps=(10, 20), units="nats", first_seed=0):
    """[gamma, seed, method, step]: the seed's own, the method's, 10 more for each gamma, and 100 less for each step."""
    table = SEEDS[:, None] + np.stack(list(methods.values()), 1)
    values = (
        table[None, :, :, None] + 10.0 * np.arange(len(gammas))[:, None, None, None] - 100.0 * np.arange(len(steps))
    )
    coords = {"gamma": list(gammas), "seed": np.arange(4) + first_seed, "method": list(methods), "step": list(steps)}
    return xr.DataArray(values.astype(np.float32), coords, ("gamma", "seed", "method", "step"), attrs={"units": units})


def dataset(**variables):
    attrs = {"num_runs": 8, "num_computed": 8, "compile_seconds": 1.5, "run_seconds": 3.0}
    return xr.Dataset(variables, attrs=attrs)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a result folder under the current folder: write(name, runs, --set texts, claims)."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    module = f"mod_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Toy:\n    steps: int = 1\n    width: int = 1\n"
        "def toy(config: Toy): ...\n"
    )

    def call(name, runs, overrides=(), claims=(CLAIM,)):
        (tmp_path / "toy.toml").write_text(CONFIG.format(module=module))
        config = load(tmp_path / "toy.toml", overrides)
        runs = runs if isinstance(runs, dict) else {"run": runs}
        return results.write(name, config, runs, figure=None, claims=list(claims))

    return call


@pytest.fixture
def command(capsys):
    def call(*argv):
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return exit_.value.code or 0, out, err

    return call


@pytest.fixture
def compared(command):
    """Compares, and gives the title, the line below it, the table's rows as lists of cells, and the notes."""

    def call(*argv):
        code, out, err = command("compare", *argv)
        assert (code, err) == (0, "")
        head, table, notes = out.split("\n\n")
        title, _, where = head.partition("\n")
        rows = [[cell for cell in line.split("  ") if cell] for line in table.splitlines()]
        return title, where, [[cell.strip() for cell in row] for row in rows], notes

    return call


LOWER = ("--metric", "loss", "--better", "lower")


def test_methods_within_a_result(compared, write):
    write("toy", dataset(loss=loss().isel(gamma=0, drop=True)))
    title, where, rows, notes = compared("toy", "--better", "lower")  # the only metric, the only text labels
    assert title == "loss [nats]: method compared with sgd, lower is better"
    assert where == "toy; step = 20 (last)"
    assert rows == [
        ["method", "mean", "baseline", "difference", "better in", "p (Holm)", "left out"],
        ["erma", "-98.50", "-98.25", "-0.25 ± 0.48", "2 of 4, 1 tie", "0.64", "0"],
        ["va", "-96.25", "-98.25", "2.00 ± 0.41", "0 of 4", "0.033", "0"],
    ]
    assert "Holm-corrected for the number of tests in the table, 2" in notes
    assert compared("toy", "--better", "higher")[2][2][4] == "4 of 4"


def test_baseline_select_and_mean(compared, write):
    write("toy", dataset(loss=loss()))
    _, where, rows, _ = compared("toy", *LOWER, "--along", "method", "--baseline", "va", "--select", "method=sgd")
    assert [row[:2] for row in rows] == [["gamma", "method"], ["0.1", "sgd"], ["inf", "sgd"]]
    _, where, rows, _ = compared("toy", *LOWER, "--select", "gamma=Infinity", "--select", "step=10.0")
    assert where == "toy; gamma = inf; step = 10" and [row[1] for row in rows[1:]] == ["11.50", "13.75"]
    _, where, rows, _ = compared("toy", *LOWER, "--select", "gamma=0.1", "--mean", "step")
    assert where == "toy; mean over step; gamma = 0.1" and [row[1] for row in rows[1:]] == ["-48.50", "-46.25"]


def test_an_axis_and_a_dimension_of_numbers(compared, write):
    write("toy", dataset(loss=loss(METHODS | {"erma": np.zeros(4)})))
    title, where, rows, notes = compared("toy", *LOWER, "--along", "gamma", "--baseline", "inf")
    assert title.startswith("loss [nats]: gamma compared with inf") and where == "toy; step = 20 (last)"
    assert [row[:2] for row in rows[1:]] == [["sgd", "0.1"], ["erma", "0.1"], ["va", "0.1"]]
    assert rows[1][4:7] == ["-10 ± 0", "4 of 4", "0"] and "the same in every seed" in notes
    _, where, rows, _ = compared("toy", *LOWER, "--along", "step", "--select", "gamma=0.1", "--select", "method=sgd")
    assert where == "toy; gamma = 0.1; method = sgd" and rows[1][0] == "20" and rows[1][3] == "-100 ± 0"


def test_runs_are_rows_or_are_compared(compared, write):
    wide = {"sgd": METHODS["erma"], "va": METHODS["erma"]}
    runs = {"MLP": dataset(loss=loss(gammas=[1])), "CNN, wide": dataset(loss=loss(wide, [1], (10, 40)))}
    write("toy", runs | {"no loss": dataset(error=loss())})
    _, where, rows, notes = compared("toy", *LOWER)
    assert where == "toy; step = 20, 40 (last); gamma = 1" and "\nwithout loss: no loss\n" in notes
    assert [row[:2] for row in rows[1:]] == [["MLP", "erma"], ["MLP", "va"], ["CNN, wide", "va"]]
    assert rows[3][4:7] == ["0 ± 0", "0 of 4, 4 ties", "1"]
    _, _, rows, _ = compared("toy", *LOWER, "--along", "run")
    assert [row[:2] for row in rows[1:]] == [["sgd", "CNN, wide"], ["va", "CNN, wide"]]
    assert rows[1][4] == "-0.25 ± 0.48"
    _, where, rows, _ = compared("toy", *LOWER, "--select", "run=CNN, wide")
    assert where == "toy; step = 40 (last); run = CNN, wide; gamma = 1" and [row[0] for row in rows[1:]] == ["va"]


def test_results_are_paired_by_seed(compared, write):
    methods = {"sgd": METHODS["sgd"]}
    write("one/before", dataset(loss=loss(methods, [1])))
    after = loss({"sgd": SEEDS[[1, 2, 3, 0]] - SEEDS - 1.0}, [1], first_seed=1)  # seeds 1 to 4, each lower by 1
    write("two/after", dataset(loss=after), ["steps=7", "run.1.width=3"])
    title, where, rows, notes = compared("one/before", "two/after", *LOWER)
    assert title.startswith("loss [nats]: result compared with before, lower")
    assert where.startswith("before, after; step = 20 (last)")
    assert rows == [
        ["result", "mean", "baseline", "difference", "better in", "p (Holm)", "left out", "unpaired"],
        ["after", "-98.67", "-97.67", "-1 ± 0", "3 of 3", "0", "0", "2"],
    ]
    assert "after differs from before in steps = 7 (5), run.CNN, wide.width = 3 (9)" in notes
    assert "unpaired: seeds that only one of the two has" in notes
    write("two/before", dataset(loss=after))
    _, where, rows, notes = compared("one/before", "two/before", *LOWER)
    assert rows[1][0] == "two/before" and "two/before differs from one/before in nothing of its config" in notes


def test_runs_that_diverged_are_left_out(compared, write):
    values = loss(gammas=[1])
    values[0, :2, 1, 1] = math.nan  # erma, two seeds, the last step
    values[0, :3, 2, 1] = math.inf
    values[0, 0, 0, 0] = math.nan  # sgd, before the last step
    write("toy", dataset(loss=values))
    _, _, rows, notes = compared("toy", *LOWER)
    assert rows[1] == ["erma", "-96.50", "-97.00", "0.50 ± 0.50", "0 of 2, 1 tie", "0.5", "2"]
    assert rows[2] == ["va", "-95", "-98", "3", "0 of 1", "-", "3"]
    assert "need two paired seeds" in notes and "in the table, 1" in notes
    assert compared("toy", *LOWER, "--mean", "step")[2][1][-1] == "2"  # a mean over what is not finite is not finite


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_figure(compared, write, tmp_path, suffix):
    values = loss()
    values[0, :, 1, 1] = math.nan  # a row without a number
    write("toy", dataset(loss=values))
    notes = compared("toy", *LOWER, "--out", f"deep/figure{suffix}")[-1]
    assert notes.endswith(f"\ndeep/figure{suffix}\n")
    start = (tmp_path / "deep" / f"figure{suffix}").read_bytes()[:5]
    assert start == {".png": b"\x89PNG\r", ".pdf": b"%PDF-", ".svg": b"<?xml"}[suffix]


def test_the_figures_words(compared, write, monkeypatch):
    import matplotlib.figure

    figures = []
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, out, dpi: figures.append(self))
    write("toy", {"MLP": dataset(loss=loss()), "CNN": dataset(loss=loss())})
    compared("toy", *LOWER, "--out", "x.png")
    (axis,) = figures[0].axes
    assert axis.get_xlabel() == "loss minus that of sgd [nats], lower is better"
    labels = [text.get_text() for text in axis.get_yticklabels()]
    assert labels[:3] == ["MLP, gamma 0.1, erma", "MLP, gamma 0.1, va", "MLP, gamma inf, erma"] and len(labels) == 8
    assert figures[0].get_suptitle().replace("\n", " ") == (
        "toy; step = 20 (last); 4 paired seeds, 95 % interval of each"
    )
    assert axis.get_ylim()[0] > axis.get_ylim()[1] and axis.get_legend() is None  # the first row on top


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["toy"], "--metric: must be one of loss [nats], share [1], plain\n"),
        (
            ["toy", "--metric", "los"],
            "--metric los: must be one of loss [nats], share [1], plain; did you mean 'loss'?",
        ),
        (["toy", "--metric", "loss"], "--better: must say if lower or higher loss [nats] is better\n"),
        (["toy", "--metric", "loss", "--better", "low"], "loss [nats] is better, got 'low'"),
        (["toy", *LOWER, "--out", "a.jpg"], "--out a.jpg: must end in .png, .pdf, .svg"),
        (
            ["toy", *LOWER, "--along", "rule"],
            "--along rule: must be one of gamma (0.1, inf); method (sgd, erma, va); st",
        ),
        (["toy", "--metric", "plain", "--better", "lower"], "--along: there is nothing but seeds"),
        (["toy", *LOWER, "--along", "run"], "--along run: nothing to compare, its only label is run"),
        (["toy", *LOWER, "--baseline", "adam"], "--baseline adam: 'adam' is no label of method (sgd, erma, va)\n"),
        (["toy", *LOWER, "--select", "step"], "--select step: write DIM=LABEL, for example --select step=100"),
        (
            ["toy", *LOWER, "--select", "stp=1"],
            "--select stp=1: must be one of gamma (0.1, inf); method (sgd, erma, va)",
        ),
        (["toy", *LOWER, "--select", "step=15"], "--select step=15: '15' is no label of step (10, 20)\n"),
        (["toy", *LOWER, "--select", "method=ema"], "(sgd, erma, va); did you mean 'erma'?"),
        (["toy", *LOWER, "--mean", "seed"], "--mean seed: must be one of gamma (0.1, inf); method"),
        (["toy", *LOWER, "--mean", "method", "--along", "method"], "--mean method: is compared or selected"),
        (["toy", "toy", *LOWER], "toy: given twice"),
        (["toy", "later", *LOWER], "no seed in common: no label of 'result' has one that 'toy' has too"),
        (["toy", "percent", *LOWER], "--metric loss: has several units: [nats], [%]"),
        (["toy", "later", *LOWER, "--select", "result=toy", "--select", "gamma=7"], "nothing has all of these"),
        (["absent", *LOWER], "absent: holds no result of `mixjax run` (no metrics.json)"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(command, write, argv, message):
    share = loss().isel(method=0, drop=True).assign_attrs(units="1")
    plain = xr.DataArray([1.0] * 4, {"seed": range(4)}, ("seed",))
    write("toy", dataset(loss=loss(), share=share, plain=plain))
    write("later", dataset(loss=loss(gammas=(0.1, 7), first_seed=10)))
    write("percent", dataset(loss=loss(units="%")))
    code, out, err = command("compare", *argv)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert err.startswith("mixjax: ") and message in err


def test_dimensions_without_labels(compared, write):
    share = xr.DataArray(np.zeros((4, 3)), dims=("seed", "domain"), attrs={"units": "1"})
    share[:, 2] = [1.0, 2.0, 3.0, 4.0]
    write("toy", dataset(share=share))
    _, where, rows, _ = compared(
        "toy", "--better", "higher", "--along", "domain", "--select", "domain=2", "--baseline", 1
    )
    assert where == "toy" and rows[1] == ["2", "2.50", "0.00", "2.50 ± 0.65", "4 of 4", "0.03", "0"]


def test_points_are_compared_by_their_columns(compared, command, write):
    methods, rates = ["sgd", "erma", "sgd", "erma"], [0.5, 0.5, 1.0, 1.0]
    table = SEEDS + np.arange(4)[:, None] * np.array([1.0, 1.0, 1.0, 2.0])
    values = xr.DataArray(table, {"point": range(4), "seed": range(4)}, ("point", "seed"), attrs={"units": "nats"})
    write("toy", dataset(loss=values.assign_coords(method=("point", methods), rate=("point", rates))))
    title, _, rows, _ = compared("toy", *LOWER)  # the only column of text
    assert title == "loss [nats]: method compared with sgd, lower is better"
    assert [row[:2] for row in rows[1:]] == [["0.5", "erma"], ["1.0", "erma"]]
    assert [row[4] for row in rows[1:]] == ["1.25 ± 0.25", "1.25 ± 0.25"]
    _, where, rows, _ = compared("toy", *LOWER, "--select", "method=erma")  # what is left is the rate
    assert where == "toy; method = erma" and rows[0][0] == "rate" and len(rows) == 2
    _, _, rows, _ = compared("toy", *LOWER, "--along", "point", "--baseline", "method=sgd, rate=1.0")
    assert [row[0] for row in rows[1:]] == ["method=sgd, rate=0.5", "method=erma, rate=0.5", "method=erma, rate=1.0"]
    shown = [line.split() for line in command("show", "toy")[1].splitlines()]
    assert ["method", "rate", "loss", "[nats]"] in shown and ["erma", "1.0", "5.5", "±", "1.2"] in shown


def test_show(command, write):
    values = loss()
    values[0, 1, 1, 1] = math.nan
    bound = xr.DataArray(np.full((2, 4), 0.25), {"gamma": [0.1, math.inf]}, ("gamma", "seed"))
    runs = {"MLP": dataset(loss=values, bound=bound), "CNN, wide": dataset(loss=loss({"sgd": np.zeros(4)}))}
    lost = CLAIM | {"name": "va_wins", "holds": False}
    write("toy", runs, claims=[CLAIM, lost, CLAIM | {"name": "open", "holds": None, "value": None, "stderr": None}])
    code, out, err = command("show", "toy")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].startswith("result toy, mod_") and lines[0].endswith(":toy")
    assert lines[1] == "config steps=5, run.MLP.width=1, run.CNN, wide.width=9"
    for line in (
        "runs 2 [[run]] (MLP, 'CNN, wide') × 2 gamma (0.1, inf) × 4 seeds (0 to 3) = 16",
        "not finite MLP: 1 of 8 runs (loss 1)",
        "claims 3: 1 yes, 1 no, 1 undecided",
        "va_wins no 0.5 ± 0.12 0",
        "open undecided 0",
        "time 16 runs in 6 s after 3 s of compilation",
        'in Python import mixjax; runs = mixjax.runner.results.read("toy")',
        "mean ± standard error over seeds; step = 20 (last)",
        "run gamma method loss [nats]",
        "MLP 0.1 sgd -98.25 ± 0.85",
        "MLP 0.1 erma -98.0 ± 1.5 (3 of 4)",
        "CNN, wide inf sgd -88.25 ± 0.85",
        "run gamma bound",
        "MLP inf 0.25 ± 0",
    ):
        assert line in lines
    assert not any(line.startswith("erma_wins") for line in lines)
    exec(lines[[line.split()[0:2] == ["in", "Python"] for line in lines].index(True)].removeprefix("in Python "), {})


def test_show_tells_what_the_last_call_computed(command, write):
    data = dataset(loss=loss())
    data.attrs |= {"num_runs": 8, "num_computed": 3, "run_seconds": 2.0, "compile_seconds": 1.0}
    write("toy", data, claims=[])
    assert "the last 3 of 8 runs in 2 s after 1 s of compilation" in command("show", "toy")[1]


def test_a_baseline_may_be_given_by_all_its_digits(compared, write):
    values = xr.DataArray(np.arange(8.0).reshape(2, 4), {"gamma": [1 / 3, 0.5]}, ("gamma", "seed"))
    write("toy", dataset(loss=values), claims=[])
    for text in ("0.3333333333333333", "0.333333"):
        assert "compared with 0.333333" in compared("toy", *LOWER, "--along", "gamma", "--baseline", text)[0]


def test_show_stays_short(command, write):
    many = {f"metric_{i}": loss({f"method_{j}": METHODS["va"] for j in range(30)}, [1]) for i in range(6)}
    write("toy", dataset(**many), claims=[])
    lines = command("show", "toy")[1].splitlines()
    assert len(lines) < 65 and max(map(len, lines)) < 130
    assert lines.count("... 10 more rows") == 2 and "claims      none" in lines


def test_show_needs_a_result(command, tmp_path):
    code, out, err = command("show", tmp_path)
    assert (code, out) == (2, "") and "holds no result of `mixjax run`" in err and err.count("\n") == 1


def test_help_teaches(command):
    out = command("compare", "--help")[1]
    for part in ("Examples:", "--along", "--baseline erma --select step=100", "results/before results/after", "Holm"):
        assert part in out
    assert "mixjax show results/quickstart" in command("show", "--help")[1]
    out = command("--help")[1]
    assert "Compare with a baseline over paired seeds: a table, a figure." in out
    assert "Show what a result holds: runs, claims, time, final metrics." in out
