"""The section of the results page on a language model on a live mix."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray
from matplotlib.colors import same_color

from experiments.live_mix.text_page import _text, section
from experiments.live_mix.text_results import by_source, claims, figure
from mixjax.live import Ledger, Plan, read_ledger

CONFIG = {"batch_size": 4, "length": 8, "prior": "temperature", "cells": False}


def results(domains):
    rng = np.random.default_rng(0)
    shape = (2, 3, 2, len(domains))
    metrics = {name: (("method", "seed", "step", "domain"), rng.random(shape)) for name in ("loss", "loss_weight")}
    metrics["sampling_weight"] = metrics["loss_weight"]
    coords = {"method": ["static", "erma_va"], "seed": [7, 8, 9], "step": [1, 2], "domain": domains}
    return {"run": xarray.Dataset(metrics, coords)}


def ledger(path, cut=False):
    plan = Plan({"a": 100, "b": 10}, batch_size=4, weights=[0.7, 0.3], lag=1)
    state = plan.get_state()
    with Ledger(path, plan) as written:
        for step in range(10):
            if step == 5:
                state = plan.get_state()
            written.write(next(plan))
            plan.keep(step)
    if cut:
        plan.set_state(state)
        with Ledger(path, plan) as written:
            for step in range(5, 10):
                written.write(next(plan))
                plan.keep(step)
    return read_ledger(path)


def test_the_section_says_what_was_measured_and_where_it_was_interrupted(tmp_path):
    ledgers = {"seed=7": ledger(tmp_path / "a"), "seed=8": ledger(tmp_path / "b", cut=True)}
    found = results(["a", "b"])
    again = {"run": found["run"].isel(seed=[1], method=[1])}
    text = section("text", found, CONFIG, ledgers, again)
    assert "without a kill, ERMA + VA with seed 8 gave the same metrics, bit by bit." in text
    other = {"run": again["run"] + 1e-7}
    assert "with seed 8 gave other metrics." in section("text", found, CONFIG, ledgers, other)
    loss = found["run"].loss.isel(step=-1)
    difference = (loss.sel({"method": "erma_va"}) - loss.sel({"method": "static"})).sel(domain="a")
    static = loss.sel({"method": "static", "domain": "a"})
    assert f"| a | {_text(static)} |" in text and f"| {_text(difference)} |" in text
    assert float(difference.mean()) == pytest.approx(float(_text(difference).split()[0]), abs=0.01)
    assert "static and ERMA + VA, with 3 paired seeds, 7 to 9" in text
    assert "The 2 ledgers have 10 steps each." in text
    assert "in the run `seed=8`" in text and "steps 5 to 9 were trained again" in text and "`seed=7`" not in text
    assert "| cells |" not in text and "length 8" in text


def test_cells_share_the_row_of_their_domain(tmp_path):
    text = section("cells", results(["x/1", "x/2", "y"]), CONFIG, {"a": ledger(tmp_path / "a")})
    assert "| domain | cells |" in text and "| x | 2 |" in text and "| y | 1 |" in text and "killed" not in text


@pytest.mark.parametrize("unit", ["nats per byte", "nats per token"])
def test_a_report_has_one_unit_and_one_order_of_domains(unit, tmp_path):
    found = results(["python/1", "c", "reference", "python/2"])
    found["run"].loss.attrs["units"] = unit
    drawn = figure(found)
    labels = [axis.get_ylabel() for axis in drawn.axes]
    assert labels[::3] == [f"test loss ({unit})", f"test loss - static ({unit})"] and labels[1] == "loss weight (share)"
    assert all(claim.statement.endswith(f", in {unit}") for claim in claims(found))
    assert f"in {unit}, means" in section("text", found, CONFIG, {"a": ledger(tmp_path / "a")})
    # A report's charts number the domains in the order of the coordinate, and so do the colours of the figure.
    assert by_source(found["run"]).domain.values.tolist() == ["python", "c", "reference"]
    lines = drawn.axes[0].get_legend_handles_labels()[0]
    assert [line.get_label() for line in lines] == ["python", "c", "reference"]
    assert all(same_color(line.get_color(), f"C{number}") for number, line in enumerate(lines))
    plt.close(drawn)
