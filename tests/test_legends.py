"""Legends show names as they are written, in every figure whose entries users have named."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

from mixjax import design
from mixjax.design.figures import design_figure
from mixjax.legends import named_legend
from mixjax.runner.figures import sweep_figure
from mixjax.runner.site_page import site_figure
from mixjax.runner.sites import site_report

# Beginning with "_", between "$", both, a formula that matplotlib could not read, and letters beyond ASCII.
NAMES = ["_web", "$x_$", "_$a$", r"$\frac$", "Bücher_"]


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def drawn(figure):
    # An unreadable formula is found when the figure is drawn.
    figure.draw_without_rendering()
    return figure


def test_a_legend_has_every_name_and_one_for_each_handle():
    figure = Figure()
    axis = figure.subplots()
    handles = [axis.plot([0, 1])[0] for _ in NAMES]
    assert texts(named_legend(axis, handles, NAMES)) == NAMES
    assert texts(named_legend(figure, handles, NAMES, title="t", loc="outside lower center")) == NAMES
    drawn(figure)
    assert texts(named_legend(axis, [], [])) == []
    with pytest.raises(ValueError, match="names must be as many as handles, 5, got 4"):
        named_legend(axis, handles, NAMES[:4])


def test_scores_by_site():
    table = [(site, f"{site}{case}", method, case / 8) for site in "AB" for case in range(6) for method in NAMES]
    report = site_report(pd.DataFrame(table, columns=["site", "case", "method", "score"]), [NAMES[0]])
    levels, differences = drawn(site_figure(report)).axes
    assert texts(levels.get_legend()) == NAMES
    assert texts(differences.get_legend()) == [f"{name} - {NAMES[0]}" for name in NAMES[1:]]


def test_a_sweep():
    values = np.arange(20.0).reshape(2, 2, 5)
    runs = {}
    for name in NAMES:
        coords = {name: [0.1, 20.0], "seed": [0, 1], "method": NAMES}
        runs[name] = xr.Dataset({f"{name} loss": ((name, "seed", "method"), values)}, coords)
    figure = drawn(sweep_figure(runs))
    assert texts(figure.legends[0]) == NAMES
    assert [axis.get_title() for axis in figure.axes if axis.axison] == NAMES


def test_a_design():
    mixtures = design.swarm([100.0] * 5, 20, seed=0)
    names = {"domains": NAMES, "metrics": NAMES[1:2]}
    fitted = design.fit(mixtures, mixtures[:, :1] + 1.0, **names, law="quadratic", resamples=20)
    figure = drawn(design_figure(design.propose(fitted, NAMES[1])))
    assert sorted(texts(figure.axes[2].get_legend())) == sorted(NAMES)
    assert sorted(text.get_text() for text in figure.axes[1].get_yticklabels()) == sorted(NAMES)
