"""Draws and tabulates a ledger: what was asked for, what was drawn, how often each domain has been seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixjax.checks import requires

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

__all__ = ["ledger_figure", "ledger_lines"]

# Beyond this, lines cannot be told apart, and the figure shows the domains drawn most.
_MOST = 10


def ledger_figure(ledger: xarray.Dataset) -> Figure:
    """Draws the shares asked, in force and drawn, the epochs, and the losses where there are any, over the steps.

    Args:
        ledger: from :func:`mixjax.live.read_ledger`, of at least one step.

    Returns:
        The figure; of more than 10 domains it shows the 10 of most rows, and says so.

    Raises:
        ValueError: the ledger has no step yet.
        ImportError: matplotlib is missing (extra ``experiments``).
    """
    with requires("experiments", "mixjax.live.figures.ledger_figure"):
        import matplotlib.pyplot as plt

    _check(ledger)
    counts = ledger.counts.values
    shown = np.argsort(-counts.sum(axis=0), kind="stable")[:_MOST]
    has_losses = bool(np.isfinite(ledger.losses.values).any())
    # Single steps draw whole rows: shares are those of windows of a fiftieth of the run.
    window = max(len(counts) // 50, 1)
    fig, axes = plt.subplots(1, 2 + has_losses, figsize=(5.5 * (2 + has_losses), 4.2), layout="constrained")
    rows = _windows(counts, window)
    drawn = rows / np.maximum(rows.sum(axis=1, keepdims=True), 1)
    steps = ledger.step.values
    for place, domain in enumerate(shown):
        colour, name = f"C{place % 10}", str(ledger.domain.values[domain])
        axes[0].plot(steps[window - 1 :: window][: len(drawn)], drawn[:, domain], color=colour, label=name)
        axes[0].plot(steps, ledger.weights[:, domain], color=colour, linestyle="--", linewidth=1)
        axes[0].plot(steps, ledger.asked[:, domain], color=colour, linestyle=":", linewidth=1)
        axes[1].plot(steps, ledger.epochs[:, domain], color=colour, label=name)
        if has_losses:
            loss = ledger.losses[:, domain].values
            known = np.isfinite(loss)
            axes[2].plot(steps[known], loss[known], color=colour, label=name)
    title = "share of the rows: drawn (line), in force (dashed), asked (dotted)"
    axes[0].set(xlabel="step", ylabel="share", title=title)
    axes[1].set(xlabel="step", ylabel="epochs", title="how often a domain was seen")
    for limit in np.unique(np.atleast_1d(ledger.attrs["max_epochs"] or [])):
        axes[1].axhline(limit, color="0.5", linewidth=1, linestyle="--", label=f"limit {limit:g}")
    if has_losses:
        axes[2].set(xlabel="step", ylabel="loss", title="loss by domain")
    for axis in axes:
        axis.title.set_fontsize(9)
    axes[1].legend(fontsize=8, title=f"{_MOST} of {counts.shape[1]} domains" if counts.shape[1] > _MOST else None)
    return fig


def ledger_lines(ledger: xarray.Dataset) -> list[str]:
    """Tabulates a ledger: a line for each domain, and one for each kind of event.

    Args:
        ledger: from :func:`mixjax.live.read_ledger`, of at least one step.

    Raises:
        ValueError: the ledger has no step yet.
    """
    _check(ledger)
    rows, sizes = ledger.counts.values.sum(axis=0), ledger.attrs["sizes"]
    head = ("domain", "rows", "share", "epochs", "asked", "in force")
    table = [head] + [
        (
            str(name),
            f"{rows[d]:,}",
            f"{rows[d] / max(rows.sum(), 1):.4f}",
            f"{rows[d] / sizes[str(name)]:.3g}",
            _number(ledger.asked.values[-1, d]),
            _number(ledger.weights.values[-1, d]),
        )
        for d, name in enumerate(ledger.domain.values)
    ]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = [
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
    last = int(ledger.step.values[-1])
    kinds: dict[str, list[int]] = {}
    for event in ledger.attrs["events"]:
        kinds.setdefault(event["event"], []).append(event["step"])
    events = [f"{kind}: {len(at)} times, first at step {at[0]}, last at {at[-1]}" for kind, at in kinds.items()]
    return [f"{rows.sum():,} rows in the steps 0 to {last:,}", *lines, *events]


def _check(ledger):
    if not ledger.sizes["step"]:
        raise ValueError("the ledger has no step yet.")


def _windows(counts, window):
    """Sums the rows of counts over windows; the last, shorter one is left out."""
    whole = len(counts) // window * window
    return counts[:whole].reshape(-1, window, counts.shape[1]).sum(axis=1)


def _number(value):
    return f"{value:.4f}" if np.isfinite(value) else "-"
