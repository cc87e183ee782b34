"""Tests the figure of a ledger by what it shows."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mixjax.live import Ledger, Plan, read_ledger
from mixjax.live.figures import ledger_figure
from mixjax.live.ledger_table import ledger_lines


def ledger_of(path, num_steps=120, losses=True, **changes):
    arguments = {"sizes": {"web": 5000, "books": 90, "code": 20}, "batch_size": 8, "weights": [0.5, 0.3, 0.2], "lag": 2}
    plan = Plan(**(arguments | changes))
    with Ledger(path, plan) as ledger:
        for step in range(num_steps):
            ledger.write(next(plan), losses=np.arange(len(plan.sizes)) + 1.0 if losses else None)
            plan.keep(step)
    return read_ledger(path)


def test_the_figure_shows_shares_epochs_and_losses(tmp_path):
    figure = ledger_figure(ledger_of(tmp_path / "ledger", max_epochs=2))
    shares, epochs, losses = figure.axes
    # A line, a dashed and a dotted one for each domain.
    assert len(shares.lines) == 9
    web = {line.get_linestyle(): line for line in shares.lines[:3]}
    assert web[":"].get_ydata()[-1] == pytest.approx(0.5) and web["--"].get_ydata()[-1] > 0.9
    assert web["-"].get_ydata()[-1] == pytest.approx(web["--"].get_ydata()[-1], abs=0.1)
    assert [text.get_text() for text in epochs.get_legend().texts] == ["web", "books", "code", "limit 2"]
    assert max(line.get_ydata()[-1] for line in epochs.lines) <= 2.0
    assert sorted(line.get_ydata()[-1] for line in losses.lines) == [1.0, 2.0, 3.0]
    plt.close(figure)


def test_names_of_domains_are_shown_as_they_are(tmp_path):
    names = ["$x_$", "_hidden", r"$\frac$"]
    figure = ledger_figure(ledger_of(tmp_path / "ledger", 5, sizes=dict.fromkeys(names, 50), max_epochs=9))
    figure.canvas.draw()
    texts = [text.get_text() for text in figure.axes[1].get_legend().texts]
    assert sorted(texts[:3]) == sorted(names) and texts[3] == "limit 9"
    plt.close(figure)


def test_limits_of_domains_have_their_colours(tmp_path):
    found = ledger_of(tmp_path / "ledger", max_epochs=[np.inf, 2, 3], losses=False)
    assert found.attrs["max_epochs"] == {"web": None, "books": 2.0, "code": 3.0}
    figure = ledger_figure(found)
    drawn = {line.get_color(): line for line in figure.axes[1].lines if line.get_linestyle() == "-"}
    limits = [line for line in figure.axes[1].lines if line.get_linestyle() == "--" and len(line.get_ydata())]
    assert [line.get_ydata()[0] for line in limits] == [2.0, 3.0]
    for line in limits:
        assert drawn[line.get_color()].get_ydata()[-1] <= line.get_ydata()[0]
    plt.close(figure)


def test_many_domains_are_cut_to_the_most_drawn_and_said_so(tmp_path):
    weights = np.arange(1, 26)
    found = ledger_of(tmp_path / "ledger", sizes=[100] * 25, weights=weights, losses=False)
    figure = ledger_figure(found)
    assert len(figure.axes) == 2
    legend = figure.axes[1].get_legend()
    assert legend.get_title().get_text() == "10 of 25 domains"
    assert legend.texts[0].get_text() == "24"
    plt.close(figure)


def test_shares_are_those_of_tokens_where_the_plan_counts_them(tmp_path):
    lengths = [np.full(5000, 10), np.full(90, 30), np.full(20, 100)]
    figure = ledger_figure(ledger_of(tmp_path / "ledger", lengths=lengths, losses=False))
    shares = figure.axes[0]
    assert shares.get_title().startswith("share of the tokens")
    drawn = sorted(line.get_ydata().mean() for line in shares.lines[::3])
    np.testing.assert_allclose(drawn, [0.2, 0.3, 0.5], atol=0.04)
    plt.close(figure)


def test_a_ledger_without_steps_is_an_error(tmp_path):
    found = ledger_of(tmp_path / "ledger", num_steps=0)
    for function in (ledger_figure, ledger_lines):
        with pytest.raises(ValueError, match="the ledger has no step yet"):
            function(found)
