"""Tests what a reader of the report and of the figure is told."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mixjax import design
from mixjax.design.figures import design_figure
from mixjax.design.report import report_text, write_design
from tests.design.synthetic import swarm

NAMES = ["web", "code", "books|old"]


@pytest.fixture(scope="module")
def found():
    _, mixtures, losses = swarm(3, 3, 30, 0.01, seed=0)
    fitted = design.fit(mixtures, losses, resamples=50, domains=NAMES, metrics=["a", "b", "c"])
    return design.propose(fitted, prior=[5, 3, 2])


def test_the_report_has_the_proposal_its_words_and_the_scores(found):
    text = report_text(found, source="two files")
    assert "30 runs of 30 mixtures of 3 domains, 3 metrics, from two files." in text
    assert f"Predicted: {found.value:.5g}, 90 % interval" in text
    for comparison in found.comparisons:
        assert f"- {comparison}\n" in text
    # The largest share first; a bar in a name does not end the cell.
    rows = [line for line in text.splitlines() if line.startswith("| ") and "to" in line]
    shares = [float(line.split(" | ")[1]) for line in rows]
    assert shares == sorted(shares, reverse=True) and "books\\|old" in text
    assert all(f"| {score.law} | {score.spearman.mean():.3f} |" in text for score in found.fitted.scores)
    assert "Beyond what the swarm has tried" not in text


def test_the_report_warns_of_shares_that_no_run_had():
    rng = np.random.default_rng(0)
    mixtures = rng.dirichlet(np.full(3, 20.0), 30)
    losses = np.exp(-2.0 * mixtures[:, :1]) + 0.001 * rng.normal(size=(30, 1))
    fitted = design.fit(mixtures, losses, law="log_linear", resamples=50, domains=NAMES)
    text = report_text(design.propose(fitted))
    assert "**Beyond what the swarm has tried**: web, code, books|old. The law extrapolates there." in text
    assert "It was named, and not compared with others." in text


def test_the_figure_shows_runs_shares_and_slices(found):
    figure = design_figure(found)
    runs, shares, slices = figure.axes
    assert len(runs.lines[0].get_xdata()) == 30 and "left-out runs" in runs.get_title()
    widths = sorted(bar.get_width() for bar in shares.patches)
    np.testing.assert_allclose(widths, np.sort(found.weights))
    labels = {text.get_text() for text in shares.get_legend().texts}
    assert labels == {"proposal", "region", "prior", "the swarm's best run"}
    # Each slice passes through the proposal.
    for line, point in zip(slices.lines[::2], slices.lines[1::2], strict=True):
        at = np.interp(point.get_xdata()[0], line.get_xdata(), line.get_ydata())
        assert at == pytest.approx(found.value, abs=0.01 * np.ptp(line.get_ydata()) + 1e-3)
    plt.close(figure)


def test_many_domains_are_cut_in_the_slices():
    _, mixtures, losses = swarm(10, 2, 40, 0.01, seed=0)
    figure = design_figure(design.propose(design.fit(mixtures, losses, law="log_linear", resamples=20), "loss_0"))
    assert figure.axes[2].get_title().endswith("(8 of 10 domains)")
    assert "runs of the fit" in figure.axes[0].get_title()
    plt.close(figure)


def test_files_are_written_into_a_new_folder(found, tmp_path):
    write_design(tmp_path / "deep" / "down", found)
    mixture = json.loads((tmp_path / "deep/down/mixture.json").read_text())
    assert mixture["weights"] == dict(zip(NAMES, found.weights.tolist(), strict=True))
    assert (mixture["value"], mixture["low"], mixture["high"]) == (found.value, found.low, found.high)
    rows = (tmp_path / "deep/down/scores.csv").read_text().splitlines()
    assert rows[0] == "law,metric,spearman,r2,coverage" and len(rows) == 1 + 3 * len(found.fitted.scores)


def test_long_names_are_cut_in_the_figure():
    from mixjax.design.figures import _short

    assert _short("x" * 40) == "…" + "x" * 27 and _short("x" * 28) == "x" * 28
