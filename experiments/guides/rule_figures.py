"""Draws how each rule moves the weights of the toy's domains, once for light pages and once for dark ones."""

import itertools
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.guides.pictures import colours_of
from experiments.guides.toy import DOMAINS, PRIOR

__all__ = ["draw", "sheet"]

# One colour a domain. All are told apart by colour-blind readers, and are legible on white and on black.
_COLOURS = {
    "light": ("#0969da", "#bc4c00", "#1a7f37", "#8250df"),
    "dark": ("#58a6ff", "#f0883e", "#3fb950", "#bc8cff"),
}
Kept = Mapping[str, Any]
"""What is kept of a rule's runs: ``steps``, ``weights``, ``low``, ``high`` and ``losses``, a row for each probe."""


def draw(kept: Kept, plain: Kept, page: str, title: str) -> Figure:
    """Draws the weights of a rule, and the held-out losses with the rule and without weights.

    Args:
        kept: of the rule's runs.
        plain: of the runs without weights.
        page: "light" or "dark", the background.
        title: the title of the weights.

    Returns:
        The figure, 8 inches wide.
    """
    with colours_of(page):
        figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.9), layout="constrained", width_ratios=(1.25, 1))
        _weights(left, kept, page)
        ends = np.asarray(kept["weights"])[-1]
        for name, colour, height, end in zip(DOMAINS, _COLOURS[page], _apart(ends, 0.085), ends, strict=True):
            left.text(
                1.02, height, f"{name} {end:.2f}", color=colour, transform=left.get_yaxis_transform(), va="center"
            )
        left.set(title=title, ylabel="weight", xlabel="training steps")
        for d, colour in enumerate(_COLOURS[page]):
            right.plot(plain["steps"], np.asarray(plain["losses"])[:, d], ":", color=colour, lw=1.2)
            right.plot(kept["steps"], np.asarray(kept["losses"])[:, d], color=colour, lw=1.8)
        right.set(yscale="log", xlabel="training steps", ylim=(8e-3, 30))
        right.set_title("held-out loss (dotted: no weighting)", fontsize=9.5)
    return figure


def sheet(kept: Mapping[str, Kept], page: str, columns: int = 4) -> Figure:
    """Draws the weights of several rules as small panels with the same axes.

    Args:
        kept: from a rule's name to what is kept of its runs.
        page: "light" or "dark", the background.
        columns: number of panels in a row.

    Returns:
        The figure, 8 inches wide.
    """
    rows = -(-len(kept) // columns)
    with colours_of(page):
        figure, axes = plt.subplots(
            rows, columns, figsize=(8, 1.55 * rows + 0.35), sharex=True, sharey=True, layout="constrained"
        )
        for axis, (name, each) in zip(axes.flat, kept.items(), strict=False):
            _weights(axis, each, page)
            axis.set_title(name, fontsize=9.5, pad=3)
        lines = [plt.Line2D([], [], color=colour, lw=2) for colour in _COLOURS[page]]
        figure.legend(lines, DOMAINS, loc="outside lower center", ncols=len(DOMAINS), frameon=False)
    return figure


def _weights(axis: Axes, kept: Kept, page: str) -> None:
    """Draws the weights' means over the runs, bands from the least to the most, and the prior as marks at the left."""
    steps = np.asarray(kept["steps"])
    for d, colour in enumerate(_COLOURS[page]):
        low, high = np.asarray(kept["low"])[:, d], np.asarray(kept["high"])[:, d]
        axis.fill_between(steps, low, high, color=colour, alpha=0.25, lw=0)
        axis.plot(steps, np.asarray(kept["weights"])[:, d], color=colour, lw=1.8)
        axis.plot(0, PRIOR[d], "o", color=colour, ms=4, clip_on=False)
    axis.set(ylim=(-0.02, 1.02), xlim=(0, steps[-1]), xticks=(0, 200, 400))


def _apart(heights: np.ndarray, gap: float) -> np.ndarray:
    """Moves labels up where they are nearer than ``gap`` to the one below, and all down where one is too high."""
    order = np.argsort(heights, kind="stable")
    moved = heights.astype(float).copy()
    for below, above in itertools.pairwise(order):
        moved[above] = max(moved[above], moved[below] + gap)
    return moved - max(moved.max() - 1.0, 0.0)
