"""The options of ``mixjax compare``: what they select, average over and compare, and mistakes in them."""

import numpy as np
import pytest
import xarray as xr

from tests.cli.written import LOWER, METHODS, SEEDS, dataset, loss


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
    assert rows[1][4:7] == ["-10 ± 0", "4 of 4", "-"] and "the same in every seed" in notes
    _, where, rows, _ = compared("toy", *LOWER, "--along", "step", "--select", "gamma=0.1", "--select", "method=sgd")
    assert where == "toy; gamma = 0.1; method = sgd" and rows[1][0] == "20" and rows[1][3] == "-100 ± 0"


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
        (["toy", *LOWER, "--select", "gamma=0.2"], "--select gamma=0.2: '0.2' is no label of gamma (0.1, inf)\n"),
        (["toy", "plain", *LOWER], "nothing can be paired: 'gamma' is 0.1, inf for 'toy', and not there for the other"),
        (["toy", *LOWER, "--select", "method=ema"], "(sgd, erma, va); did you mean 'erma'?"),
        (["toy", *LOWER, "--mean", "seed"], "--mean seed: must be one of gamma (0.1, inf); method"),
        (["toy", *LOWER, "--mean", "method", "--along", "method"], "--mean method: is compared or selected"),
        (["toy", "toy", *LOWER], "toy: given twice"),
        (["toy", "later", *LOWER], "no seed in common: no label of 'result' has one that 'toy' has too"),
        (["toy", "percent", *LOWER], "--metric loss: has several units, [nats], [%]; compare results that share one"),
        (["toy", "later", *LOWER, "--select", "result=toy", "--select", "gamma=7"], "nothing has all of these"),
        (["absent", *LOWER], "absent: holds no result of `mixjax run` (no metrics.json)"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(command, write, argv, message):
    share = loss().isel(method=0, drop=True).assign_attrs(units="1")
    plain = xr.DataArray([1.0] * 4, {"seed": range(4)}, ("seed",))
    write("toy", dataset(loss=loss(), share=share, plain=plain))
    write("later", dataset(loss=loss(gammas=(0.1, 7), first_seed=10)))
    write("plain", dataset(loss=loss().isel(gamma=0, drop=True)))
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
    assert where == "toy" and rows[1] == ["2", "2.50", "0.00", "2.50 ± 0.65", "4 of 4", "0.03", "better", "0"]


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


def test_a_baseline_may_be_given_by_all_its_digits(compared, write):
    values = xr.DataArray(np.arange(8.0).reshape(2, 4), {"gamma": [1 / 3, 0.5]}, ("gamma", "seed"))
    write("toy", dataset(loss=values), claims=[])
    for text in ("0.3333333333333333", "0.333333"):
        assert "compared with 0.333333" in compared("toy", *LOWER, "--along", "gamma", "--baseline", text)[0]


def test_a_vector_may_be_written_without_spaces(compared, write):
    values = xr.DataArray(np.arange(8.0).reshape(2, 4), {"mix": ["[0.5, 0.5]", "[0.1, 0.9]"]}, ("mix", "seed"))
    write("toy", dataset(loss=values), claims=[])
    assert "compared with [0.1, 0.9]" in compared("toy", *LOWER, "--along", "mix", "--baseline", "[0.1,0.9]")[0]
