"""Draws the design of a mixture for real text: predictions, the proposal and its region, validation, a ternary grid."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.mixture_design.text_analysis import Analysis, analysed, objective
from experiments.shared.statistics import error_bars
from mixjax.design.laws import LAWS

__all__ = ["figure"]

_NAMES = {"swarm_best": "swarm's best", "all_rows": "without simulated epochs", "unimax": "UniMax"}


def figure(results: Mapping[str, xarray.Dataset]) -> Figure:
    """Draws eight panels: what the law predicts, what it proposes, and how the proposal does when it is trained."""
    (data,) = results.values()
    data = data.isel(seed=0, drop=True)
    found = analysed(data)
    drawn, axes = plt.subplots(2, 4, figsize=(20.0, 9.6), layout="constrained")
    unit = data.loss.attrs.get("units", "nats per token")
    _draw_predictions(axes[0, 0], found, unit)
    _draw_slices(axes[0, 1], found, unit)
    _draw_shares(axes[0, 2], found)
    _draw_region(axes[0, 3], found)
    _draw_validation(axes[1, 0], data, unit)
    _draw_grid(axes[1, 1], data, unit)
    _draw_sizes(axes[1, 2], found, unit)
    _draw_transfer(axes[1, 3], data, unit)
    for axis in axes.flat:
        axis.title.set_fontsize(10)
    runs = data.loss.shape[0] * data.loss.shape[1]
    drawn.suptitle(f"A mixture of {data.sizes['domain']} domains from {runs} proxies; bands and bars: see the titles")
    return drawn


def _draw_predictions(axis: Axes, found: Analysis, unit: str) -> None:
    fitted = found.proposal.fitted
    for d, domain in enumerate(fitted.swarm.metrics):
        measured, predicted = fitted.swarm.losses[:, d], fitted.scores[0].predicted[:, d]
        axis.plot(measured, predicted, ".", color=f"C{d}", markersize=4, alpha=0.6, label=domain)
    ends = [fitted.swarm.losses.min(), fitted.swarm.losses.max()]
    axis.plot(ends, ends, color="0.3", lw=1)
    axis.set(xlabel=f"measured loss ({unit})", ylabel="predicted loss")
    axis.set_title(f"left-out runs, {fitted.law}: R² {fitted.scores[0].r2.mean():.3f}")
    axis.legend(fontsize=7, markerscale=2)


def _draw_slices(axis: Axes, found: Analysis, unit: str) -> None:
    """Moves one share at a time, the others in the proportions of the proposal."""
    fitted, weights = found.proposal.fitted, found.proposal.weights
    law = LAWS[fitted.law]
    for d, domain in enumerate(fitted.swarm.domains):
        shares = np.linspace(0.0, fitted.swarm.mixtures[:, d].max(), 41)
        rest = np.where(np.arange(len(weights)) == d, 0.0, weights)
        line = (1.0 - shares[:, None]) * rest / rest.sum()
        line[:, d] = shares
        losses = law.predict(fitted.resampled, line)
        low, high = np.quantile(losses.mean(axis=1), [0.05, 0.95], axis=0)
        axis.plot(shares, objective(fitted.predict(line)[0]), color=f"C{d}", label=domain)
        axis.fill_between(shares, low, high, color=f"C{d}", alpha=0.2, lw=0)
        axis.plot(weights[d], found.proposal.value, "o", color=f"C{d}", ms=4)
    axis.set(xlabel="share of the domain", ylabel=f"predicted mean loss ({unit})")
    axis.set_title("along each share, 90 % bands; points: the proposal")
    axis.legend(fontsize=7)


def _draw_shares(axis: Axes, found: Analysis) -> None:
    proposal = found.proposal
    order = np.argsort(proposal.weights, kind="stable")
    places = np.arange(len(order))
    region = proposal.region
    axis.barh(places, proposal.weights[order], color="C0", alpha=0.75, label="proposal")
    axis.hlines(places, region.min(axis=0)[order], region.max(axis=0)[order], color="k", lw=1.5, label="region")
    axis.plot(found.all_rows.weights[order], places, "x", color="C3", label="without simulated epochs")
    axis.plot(proposal.prior[order], places, "d", color="C1", label="sizes")
    axis.set_yticks(places, [proposal.fitted.swarm.domains[d] for d in order])
    axis.set(xlabel="share", title="the proposal, with the shares of all mixtures that may be as good")
    axis.legend(fontsize=8)


def _draw_region(axis: Axes, found: Analysis) -> None:
    """Draws each mixture of the region as a line over the domains."""
    proposal = found.proposal
    order = np.argsort(-proposal.weights, kind="stable")
    places = np.arange(len(order))
    axis.plot(places, proposal.region[:, order].T, color="C0", alpha=0.08, lw=0.8)
    axis.plot(places, proposal.weights[order], color="k", lw=2, label="proposal")
    axis.plot(places, np.full(len(order), 1.0 / len(order)), color="C1", ls="--", label="uniform")
    axis.set_xticks(places, [proposal.fitted.swarm.domains[d] for d in order], rotation=45, ha="right")
    axis.set(ylabel="share", ylim=(0.0, None), title=f"{len(proposal.region)} mixtures of the region")
    axis.legend(fontsize=8)


def _draw_validation(axis: Axes, data: xarray.Dataset, unit: str) -> None:
    """Draws how much higher the losses of other mixtures are, on the same seeds."""
    kept = data.domain.values
    sizes = [("candidate", "fresh_seed", "candidate_loss", "proxies")]
    if "large_loss" in data:
        sizes.append(("large_candidate", "large_seed", "large_loss", "large size"))
    names = data.candidate.values[1:].tolist()
    for number, (dim, seed, metric, label) in enumerate(sizes):
        values = data[metric].sel(metric=kept).mean("metric").rename({seed: "seed"})
        own = values.sel({dim: "proposal"})
        for name in names:
            if name not in values[dim].values:
                continue
            mean, bar = error_bars(values.sel({dim: name}) - own)
            place = names.index(name) + 0.2 * (number - 0.5 * (len(sizes) - 1))
            text = f"{label}, {values.sizes['seed']} seeds" if name == names[0] else None
            axis.errorbar(mean, place, xerr=bar, fmt="o", color=f"C{number}", capsize=3, label=text)
    axis.axvline(0.0, color="0.3", lw=1)
    axis.set_yticks(range(len(names)), [_NAMES.get(name, name) for name in names])
    axis.set(xlabel=f"mean loss above the proposal's ({unit})", title="fresh paired seeds, ±2 standard errors")
    axis.legend(fontsize=8)


def _draw_grid(axis: Axes, data: xarray.Dataset, unit: str) -> None:
    """Draws all trained mixtures of three domains in a triangle, with the proposal of a small swarm."""
    names = data.grid_domain.values.tolist()
    loss = objective(data.grid_loss.values)
    # Corners would take all colours: a domain that is never trained on has a far higher loss.
    shown = np.minimum(loss, np.quantile(loss, 0.7))
    points = axis.scatter(*_in_triangle(data.grid_mixture.values), c=shown, cmap="viridis_r", s=60)
    axis.figure.colorbar(points, ax=axis, label=f"mean loss ({unit}), cut at the 70 % quantile", shrink=0.8)
    finalists = data.finalist_mixture.values
    axis.plot(*_in_triangle(finalists[1:]), "o", mfc="none", color="k", ms=10, label="best of the grid")
    axis.plot(*_in_triangle(finalists[:1]), "*", color="C3", ms=15, label=f"proposal of {data.sizes['three']} mixtures")
    for corner, name, vertical in zip(np.eye(3), names, ("top", "top", "bottom"), strict=True):
        x, y = _in_triangle(corner[None])
        axis.text(x[0], y[0] + (0.04 if vertical == "bottom" else -0.04), name, ha="center", va=vertical)
    axis.set(xlim=(-0.15, 1.15), ylim=(-0.15, 1.1), aspect="equal", title=f"{len(loss)} trained mixtures")
    axis.set_axis_off()
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2)


def _in_triangle(mixtures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return mixtures[:, 1] + 0.5 * mixtures[:, 2], 0.5 * np.sqrt(3.0) * mixtures[:, 2]


def _draw_sizes(axis: Axes, found: Analysis, unit: str) -> None:
    for number, (sizes, domains) in enumerate(((found.sizes, len(found.proposal.weights)), (found.three_sizes, 3))):
        if not sizes:
            continue
        times = [each.num_mixtures / domains for each in sizes]
        mean, bar = np.array([error_bars(each.regret) for each in sizes]).T
        axis.errorbar(times, mean, yerr=bar, marker="o", color=f"C{number}", capsize=3, label=f"{domains} domains")
    axis.axhline(0.01, color="0.4", ls=":", lw=1)
    axis.set(xlabel="mixtures a domain", ylabel=f"regret by the law of all runs ({unit})")
    axis.set_title("smaller swarms: random parts, ±2 standard errors")
    axis.legend(fontsize=8)


def _draw_transfer(axis: Axes, data: xarray.Dataset, unit: str) -> None:
    if "transfer_loss" not in data:
        axis.set_axis_off()
        return
    kept = data.sizes["domain"]
    small = objective(data.loss.values[data.transfer_place.values][..., :kept]).mean(axis=1)
    axis.plot(small, objective(data.transfer_loss.values[..., :kept]), "o", label="mixtures of the swarm")
    for number, name in enumerate(data.large_candidate.values):
        x = objective(data.candidate_loss.sel(candidate=name).values[..., :kept])
        y = objective(data.large_loss.sel(large_candidate=name).values[..., :kept])
        style = {"color": f"C{number + 1}", "capsize": 2, "fmt": "s", "label": _NAMES.get(str(name), str(name))}
        axis.errorbar(x.mean(), y.mean(), xerr=error_bars(x)[1], yerr=error_bars(y)[1], **style)
    axis.set(xlabel=f"mean loss of proxies ({unit})", ylabel="mean loss at the large size")
    axis.set_title("does the order hold across sizes?")
    axis.legend(fontsize=8)
