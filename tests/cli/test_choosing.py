"""``mixjax compare --best``: each label at its own best setting, chosen on other seeds than those that judge."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from tests.cli.written import LOWER, dataset

METHODS, GAMMAS, SEEDS = ["sgd", "erma"], [0.1, 1.0, 10.0], list(range(8))


def losses(values):
    """A loss [gamma, seed, method] of values [method, gamma, half of the seeds]; seeds differ by 0, 1, 2, 3."""
    half = np.repeat(np.asarray(values, np.float32), 4, axis=2) + np.tile(np.arange(4, dtype=np.float32), 2)
    coords = {"gamma": GAMMAS, "seed": SEEDS, "method": METHODS}
    return xr.DataArray(half.transpose(1, 2, 0), coords, ("gamma", "seed", "method"))


# sgd is best at 1.0 on the first seeds, and at 0.1 on the others; erma is best at 10.0 on the first ones.
VALUES = [[[5, 0], [4, 4], [6, 6]], [[9, 0], [8, 0], [3, 3.5]]]


def test_the_setting_is_chosen_on_the_first_seeds_and_judged_on_the_others(command, write):
    write("toy", dataset(loss=losses(VALUES)))
    code, out, err = command("compare", "toy", *LOWER, "--along", "method", "--best", "loss")
    assert (code, err) == (0, "")
    assert "each method at its best setting by loss, chosen on 4 seeds (0 to 3), judged on 4 seeds (4 to 7)" in out
    assert "  sgd: gamma = 1.0\n  erma: gamma = 10.0\n" in out
    (row,) = [line.split() for line in out.splitlines() if line.startswith("erma ")]
    assert row[:4] == ["erma", "5", "5.5", "-0.5"] and "4 of 4" in out  # 3.5 + 1.5 against 4 + 1.5


def test_another_metric_chooses_and_higher_may_be_better(command, write):
    scores = -losses(VALUES)
    judged = losses([[[0, 10], [0, 20], [0, 30]], [[0, 12], [0, 24], [0, 36]]])
    write("toy", dataset(score=scores, reward=judged))
    options = ("--metric", "reward", "--better", "higher", "--along", "method", "--best", "score")
    code, out, err = command("compare", "toy", *options)
    assert (code, err) == (0, "")
    (row,) = [line.split() for line in out.splitlines() if line.startswith("erma ")]
    assert row[1:4] == ["37.5", "21.5", "16"]


def test_a_setting_that_diverged_is_the_last_choice(command, write):
    lost = losses(VALUES)
    lost[1, 0, 0] = np.nan  # sgd at its best, in one choosing seed
    write("toy", dataset(loss=lost))
    assert "sgd: gamma = 0.1\n" in command("compare", "toy", *LOWER, "--along", "method", "--best", "loss")[1]


def test_columns_of_points_are_settings(command, write):
    columns = {"rule": ("point", ["a", "a", "b", "b"]), "rate": ("point", [1.0, 2.0, 3.0, 4.0])}
    values = np.array([[1, 9], [2, 8], [7, 3], [6, 4]], np.float32).repeat(2, axis=1) + np.arange(4)
    loss = xr.DataArray(values, {"point": range(4), "seed": range(4), **columns}, ("point", "seed"))
    write("toy", dataset(loss=loss))
    out = command("compare", "toy", *LOWER, "--along", "rule", "--best", "loss")[1]
    assert "  a: rate = 1.0\n  b: rate = 4.0\n" in out


def test_chance_does_not_win(command, write):
    # All settings of erma are as good as sgd. The best of them would look better on the seeds that chose it.
    values = np.random.default_rng(0).normal(size=(200, 20, 2)).astype(np.float32)
    values[:, :, 0] = 0.0
    coords = {"gamma": np.arange(200.0), "seed": range(20), "method": METHODS}
    write("toy", dataset(loss=xr.DataArray(values, coords, ("gamma", "seed", "method"))))
    out = command("compare", "toy", *LOWER, "--along", "method", "--best", "loss")[1]
    cells = next(line for line in out.splitlines() if line.startswith("erma "))
    assert float(cells.split("of 10")[1].split()[0]) > 0.05
    best = values[values[:, :, 1].mean(axis=1).argmin(), :, 1]
    assert scipy.stats.ttest_1samp(best, 0.0).pvalue < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--best", "lsos"), "--best lsos: must be one of loss, other; did you mean 'loss'?"),
        (("--best", "loss", "--select", "gamma=1"), "--best loss: there is nothing to choose, only method varies"),
        (("--best", "other"), "--best other: does not have method, which is compared"),
    ],
)
def test_mistakes(command, write, options, message):
    write("toy", dataset(loss=losses(VALUES), other=losses(VALUES).isel(method=0, drop=True)))
    code, out, err = command("compare", "toy", *LOWER, "--along", "method", *options)
    assert (code, out, err) == (2, "", f"mixjax: {message}\n")


def test_few_seeds_cannot_choose_and_judge(command, write):
    write("toy", dataset(loss=losses(VALUES).isel(seed=slice(3))))
    code, _, err = command("compare", "toy", *LOWER, "--along", "method", "--best", "loss")
    assert code == 2 and "needs four seeds, two to choose and two to judge, got 3" in err


def test_a_label_without_seeds_to_judge_on_is_named(command, write):
    write("whole", dataset(loss=losses(VALUES)))
    write("short", dataset(loss=losses(VALUES).isel(seed=slice(1))))
    select = ("--along", "result", "--select", "method=erma", "--best", "loss")
    code, out, err = command("compare", "whole", "short", *LOWER, *select)
    assert (code, out) == (2, "") and "--best loss: result short has no seed that chooses" in err
