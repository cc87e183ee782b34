"""Draws a design: predictions against measurements, the proposal with its region, and losses along each share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixjax.checks import requires
from mixjax.legends import named_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mixjax.design.proposing import Proposal

__all__ = ["design_figure"]

_MOST = 8  # lines in one panel that can be told apart
_POINTS = 41


def design_figure(proposal: Proposal) -> Figure:
    """Draws three panels: predicted against measured objective, the shares, and the objective along each share.

    Args:
        proposal: from :func:`mixjax.design.propose`.

    Returns:
        The figure. Of more than 8 domains the last panel shows the 8 of the largest shares.

    Raises:
        ImportError: matplotlib is missing (extra ``experiments``).
    """
    with requires("experiments", "mixjax.design.figures.design_figure"):
        import matplotlib.pyplot as plt
        from matplotlib.text import Text

    size = len(proposal.weights)
    height = max(4.4, 0.24 * size + 1.2)
    figure, axes = plt.subplots(1, 3, figsize=(16.0, height), layout="constrained")
    _draw_predictions(axes[0], proposal)
    _draw_shares(axes[1], proposal)
    _draw_slices(axes[2], proposal)
    for axis in axes:
        axis.title.set_fontsize(10)
    for text in figure.findobj(Text):
        # Names of domains and of the objective may hold dollar signs.
        text.set_parse_math(False)
    return figure


def _draw_predictions(axis, proposal):
    """Draws predictions against measurements.

    They are those for left-out runs where the laws were compared, and else those of the fit, which has seen the runs.
    """
    fitted, objective = proposal.fitted, proposal.objective
    measured = objective.value(fitted.swarm.losses)
    if fitted.scores:
        predicted, what = fitted.scores[0].predicted, "left-out runs"
    else:
        predicted, what = fitted.predict(fitted.swarm.mixtures)[0], "runs of the fit"
    axis.plot(measured, objective.value(predicted), "o", markersize=4, alpha=0.6)
    ends = [measured.min(), measured.max()]
    axis.plot(ends, ends, color="0.4", linewidth=1)
    # An outlier of a poor law must not squeeze all others into a corner; it stays out of sight.
    margin = 0.25 * np.ptp(ends)
    axis.set(xlim=(ends[0] - margin / 4, ends[1] + margin / 4), ylim=(ends[0] - margin, ends[1] + margin))
    axis.set(xlabel="measured", ylabel="predicted", title=f"{objective.name}: {what}, {fitted.law}")


def _draw_shares(axis, proposal):
    domains, weights = proposal.fitted.swarm.domains, proposal.weights
    order = np.argsort(weights, kind="stable")
    low, high = proposal.region.min(axis=0), proposal.region.max(axis=0)
    places = np.arange(len(weights))
    axis.barh(places, weights[order], color="C0", alpha=0.75, label="proposal")
    axis.hlines(places, low[order], high[order], color="k", linewidth=1.5, label="region")
    if proposal.prior is not None:
        axis.plot(proposal.prior[order], places, "d", color="C1", label="prior")
    axis.plot(proposal.comparisons[-1].mixture[order], places, ".", color="C3", label="the swarm's best run")
    axis.set_yticks(places, [_short(domains[d]) for d in order], fontsize=8)
    axis.set(xlabel="share", title="proposal and region")
    axis.legend(fontsize=8)


def _draw_slices(axis, proposal):
    """Moves one share at a time, the others in their proportions, over the shares that the swarm has tried."""
    fitted, weights = proposal.fitted, proposal.weights
    mixtures, surface = fitted.swarm.mixtures, fitted.surface()
    shown = np.argsort(-weights, kind="stable")[:_MOST]
    lines = []
    for number, d in enumerate(shown):
        shares = np.linspace(mixtures[:, d].min(), mixtures[:, d].max(), _POINTS)
        rest = np.where(np.arange(len(weights)) == d, 0.0, weights)
        # A proposal of one domain alone has no proportions; the others then share alike.
        rest = rest if rest.sum() > 1e-6 else (np.arange(len(weights)) != d).astype(float)
        line = (1.0 - shares[:, None]) * rest / rest.sum()
        line[:, d] = shares
        colour = f"C{number}"
        value = proposal.objective.value(surface.predict(surface.params, line).T)
        resampled = proposal.objective.value(np.moveaxis(surface.predict(surface.resampled, line), 1, -1))
        low, high = np.quantile(resampled, [0.05, 0.95], axis=0)
        lines += axis.plot(shares, value, color=colour)
        axis.fill_between(shares, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.plot(weights[d], proposal.value, "o", color=colour, markersize=4)
    title = "objective along each share, 90 % bands"
    if len(shown) < len(weights):
        title += f" ({len(shown)} of {len(weights)} domains)"
    axis.set(xlabel="share of the domain", ylabel=proposal.objective.name, title=title)
    named_legend(axis, lines, [_short(fitted.swarm.domains[d]) for d in shown], fontsize=8)


def _short(name):
    return name if len(name) <= 28 else f"…{name[-27:]}"
