"""Draws a ledger: what was asked for, what was drawn, how often each domain has been seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixjax.checks import requires
from mixjax.legends import named_legend
from mixjax.live.ledger_table import check_steps, drawn_of

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

__all__ = ["ledger_figure"]

# Beyond this, lines cannot be told apart, and the figure shows the domains drawn most.
_MOST = 10


def ledger_figure(ledger: xarray.Dataset) -> Figure:
    """Draws the shares asked, in force and drawn, the epochs, and the losses where there are any, over the steps.

    Shares are those of the tokens where the plan counted tokens.

    Args:
        ledger: from :func:`mixjax.live.read_ledger`, of at least one step.

    Returns:
        The figure; of more than 10 domains it shows the 10 drawn most, and says so.

    Raises:
        ValueError: the ledger has no step yet.
        ImportError: matplotlib is missing (extra ``live``).
    """
    with requires("live", "mixjax.live.figures.ledger_figure"):
        import matplotlib.pyplot as plt

    check_steps(ledger)
    unit, amounts = drawn_of(ledger)
    shown = np.argsort(-amounts.sum(axis=0), kind="stable")[:_MOST]
    has_losses = bool(np.isfinite(ledger.losses.values).any())
    # Single steps draw whole rows: shares are those of windows of a fiftieth of the run.
    window = max(len(amounts) // 50, 1)
    fig, axes = plt.subplots(1, 2 + has_losses, figsize=(5.5 * (2 + has_losses), 4.2), layout="constrained")
    sums = _windows(amounts, window)
    drawn = sums / np.maximum(sums.sum(axis=1, keepdims=True), 1)
    steps = ledger.step.values
    for place, domain in enumerate(shown):
        colour = f"C{place % 10}"
        axes[0].plot(steps[window - 1 :: window][: len(drawn)], drawn[:, domain], color=colour)
        axes[0].plot(steps, ledger.weights[:, domain], color=colour, linestyle="--", linewidth=1)
        axes[0].plot(steps, ledger.asked[:, domain], color=colour, linestyle=":", linewidth=1)
        axes[1].plot(steps, ledger.epochs[:, domain], color=colour, label=str(place))
        if has_losses:
            loss = ledger.losses[:, domain].values
            known = np.isfinite(loss)
            axes[2].plot(steps[known], loss[known], color=colour)
    title = f"share of the {unit}: drawn (line), in force (dashed), asked (dotted)"
    axes[0].set(xlabel="step", ylabel="share", title=title)
    axes[1].set(xlabel="step", ylabel="epochs", title="how often a domain was seen")
    names = [str(ledger.domain.values[domain]) for domain in shown]
    _draw_limits(axes[1], ledger, names)
    if has_losses:
        axes[2].set(xlabel="step", ylabel="loss", title="loss by domain")
    for axis in axes:
        axis.title.set_fontsize(9)
    title = f"{_MOST} of {amounts.shape[1]} domains" if amounts.shape[1] > _MOST else None
    handles, labels = axes[1].get_legend_handles_labels()
    named_legend(axes[1], handles, [*names, *labels[len(names) :]], fontsize=8, title=title)
    return fig


def _draw_limits(axis, ledger, shown):
    """Draws one limit for all domains in grey, or the limits of the domains shown in their colours."""
    limits = ledger.attrs["max_epochs"]
    if isinstance(limits, dict):
        for place, name in enumerate(shown):
            if limits.get(name) is not None:
                axis.axhline(limits[name], color=f"C{place % 10}", linewidth=1, linestyle="--")
        axis.plot([], [], color="0.5", linewidth=1, linestyle="--", label="limits")
    elif limits is not None:
        axis.axhline(limits, color="0.5", linewidth=1, linestyle="--", label=f"limit {limits:g}")


def _windows(amounts, window):
    """Sums rows over windows of steps; the last, shorter one is left out."""
    whole = len(amounts) // window * window
    return amounts[:whole].reshape(-1, window, amounts.shape[1]).sum(axis=1)
