"""Draws the figure of text.toml."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import xarray

from experiments.fewer_weight_updates.text_claims import (
    ALIGNMENT,
    BYTES,
    DOGE,
    FEW,
    SEQUENCES,
    SPARSE,
    UNIFORM,
    final,
    horizons,
)
from experiments.shared.figures import line, points


def figure(results):
    """Draws the target's loss and the weights by method, the dependence of bytes, and ERMA's weights and losses."""
    uniform, runs = results[UNIFORM], horizons(results)
    mixing = {UNIFORM: uniform, **{f"T = {T}": d for T, d in runs.items()}}
    mixing |= {name: results[name] for name in (SPARSE, ALIGNMENT, DOGE)}
    drawn, axes = plt.subplots(2, 3, figsize=(15, 9), layout="constrained")
    colors = {name: f"C{i}" for i, name in enumerate(mixing)}
    for name, data in mixing.items():
        if name != UNIFORM:
            gain = data["target_loss"] - uniform["target_loss"]
            line(axes[0, 0], gain.step, gain, alpha=0.2, lw=1.3, color=colors[name], label=name)
    axes[0, 0].axhline(0, color="0.4", lw=1, ls=":")
    axes[0, 0].set(xlabel="training steps", ylabel="target's test loss - uniform mixing's (nats/byte)")
    axes[0, 0].set_title("trained while the weights move")

    others = [name for name in mixing if name != UNIFORM]
    for shift, metric, label in ((-0.12, final, "while they move"), (0.12, _retrained, "anew, with their mean")):
        stacked = xarray.concat([metric(mixing[n]) - final(uniform) for n in others], "run")
        points(axes[0, 1], np.arange(len(others)) + shift, stacked, fmt="o" if shift < 0 else "s", label=label)
    axes[0, 1].axhline(0, color="0.4", lw=1, ls=":")
    axes[0, 1].set_xticks(range(len(others)), others, rotation=30, ha="right")
    axes[0, 1].set(ylabel="target's test loss - uniform mixing's (nats/byte)", title="at the end: trained ...")

    _by_domain(axes[0, 2], mixing, "mean_weights", colors, "mean weight")
    axes[0, 2].set_title("weights, mean over the run")

    effects = results[FEW]["design_effects"]
    for i, domain in enumerate(effects.domain.values):
        points(axes[1, 0], effects.block, effects.sel(domain=domain), color=f"C{i}", label=domain)
    axes[1, 0].plot(effects.block, effects.block, color="0.6", lw=1, ls="--", label="equal losses", zorder=0)
    axes[1, 0].axhline(1, color="0.4", lw=1, ls=":", label="independent losses")
    axes[1, 0].set_xscale("log", base=2)
    axes[1, 0].set_xticks(effects.block.values, effects.block.values)
    axes[1, 0].set(xlabel="bytes in a row, k", ylabel="k × variance of their mean loss / one byte's")
    axes[1, 0].set(ylim=(0, 1.2 * float(effects.mean("seed").max())), title="dependence of a sequence's bytes")

    erma = {name: results[name] for name in (FEW, SEQUENCES, BYTES)}
    shades = dict(zip(erma, ("0.3", "C0", "C1"), strict=True))
    _by_domain(axes[1, 1], erma, "mean_weights", shades, "mean weight")
    axes[1, 1].set_title("ERMA's weights")
    gains = {
        name: xarray.Dataset({"gain": erma[name]["test_losses"] - results[FEW]["test_losses"]})
        for name in (SEQUENCES, BYTES)
    }
    _by_domain(axes[1, 2], gains, "gain", shades, "test loss - that of uniform weights (nats/byte)")
    axes[1, 2].axhline(0, color="0.4", lw=1, ls=":")
    axes[1, 2].set_title("ERMA's losses")
    for axis in axes.flat:
        axis.grid(alpha=0.3, lw=0.5)
        low, high = axis.get_ylim()
        axis.set_ylim(low, high + 0.4 * (high - low))  # room for the legend
        axis.legend(fontsize=8, loc="upper center", ncols=2)
    drawn.suptitle(
        f"A language model of bytes over {uniform.sizes['domain']} domains: mean over {uniform.sizes['seed']} paired "
        "seeds; bands and bars: ±2 standard errors",
        fontsize=11,
    )
    return drawn


def _retrained(data) -> xarray.DataArray:
    return data["retrained_loss"]


def _by_domain(axis, datasets: Mapping[str, xarray.Dataset], metric, colors, label):
    """Draws one mark for each run and domain, side by side."""
    shifts = np.linspace(-0.3, 0.3, len(datasets)) if len(datasets) > 1 else [0.0]
    for shift, (name, data) in zip(shifts, datasets.items(), strict=True):
        x = np.arange(data.sizes["domain"]) + shift
        points(axis, x, data[metric], fmt="o", color=colors[name], label=name)
    axis.set_xticks(range(data.sizes["domain"]), data["domain"].values, rotation=20)
    axis.set(ylabel=label)
