"""Judges the claims of text.toml and draws its figure."""

import re
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import xarray

from experiments.shared.figures import line, points
from experiments.shared.sentences import text
from mixjax.runner.claims import Claim, paired, versus

SOURCE = "ours (not in the abstract of papers 001 and 002)"
OPEN = "ours (paper 000, section 6, leaves dependent samples open)"
# The runs of the config, beside T = 1, 4, ...
UNIFORM, ALIGNMENT, DOGE = "uniform", "alignment, T = 16", "DoGE"
SPARSE, FULL = "T = 4, one round in 16", "T = 4"
FEW, SEQUENCES, BYTES = "few bytes: uniform", "few bytes: ERMA, sequences", "few bytes: ERMA, bytes"
# The domains that hold some English.
ENGLISH = ["python", "shakespeare"]
# The cheap hypergradient may cost so many nats a byte. Fixed before the judging seeds were run, as is the next bound.
COST = 0.02
# Two methods' weights differ if at least this share of the weight is on other domains.
APART = 0.02


def horizons(results) -> dict[int, xarray.Dataset]:
    """Returns T -> data set, for the runs that are named after their T alone."""
    found = {re.fullmatch(r"T = (\d+)", name): data for name, data in results.items()}
    return {int(match[1]): data for match, data in found.items() if match}


def final(data) -> xarray.DataArray:
    """Returns the target's test loss of the model trained while the weights moved, one value for each seed."""
    return data["target_loss"].isel(step=-1)


def mean_loss(data) -> xarray.DataArray:
    """Returns the mean test loss of the domains trained on, one value for each seed."""
    return data["test_losses"].mean("domain")


def weights(data) -> str:
    """Writes the mean weights, for a note."""
    mean = data["mean_weights"].mean("seed")
    return ", ".join(f"{name} {value:.2f}" for name, value in zip(mean.domain.values, mean.values, strict=True))


def claims(results) -> list[Claim]:
    """Judges the horizon, the cost of the cheap hypergradient, and ERMA on dependent bytes."""
    return [*_mixing(results), *_erma(results)]


def _lower(name, a, b, what, source=SOURCE, note="nats/byte") -> Claim:
    return paired(name, a, "<", b, statement=f"ours: {what}", source=source, note=note)


def _mixing(results) -> list[Claim]:
    uniform, runs, found = results[UNIFORM], horizons(results), []
    level = f"nats/byte; uniform mixing: {text(final(uniform), 4)}"
    for T, data in runs.items():
        found += [
            _lower(
                f"t_{T}_helps",
                final(data),
                final(uniform),
                f"weights moved with T = {T} lower the target's loss below uniform mixing's",
                note=f"{level}; mean weights: {weights(data)}",
            ),
            _lower(
                f"t_{T}_retrained_helps",
                data["retrained_loss"],
                final(uniform),
                f"a model trained anew with the mean weights of T = {T} has a lower target loss than uniform mixing's",
                note=level,
            ),
            versus(
                f"t_{T}_finds_english",
                data["mean_weights"].sel(domain=ENGLISH).sum("domain"),
                ">=",
                len(ENGLISH) / data.sizes["domain"],
                statement=f"ours: at T = {T} the domains that hold English get more than their uniform share",
                source=SOURCE,
            ),
        ]
    for T, longer in ((1, 16), (16, 64)):
        found += [
            _lower(
                f"t_{longer}_over_t_{T}",
                final(runs[longer]),
                final(runs[T]),
                f"T = {longer} ends at a lower target loss than T = {T}",
            ),
            _lower(
                f"t_{longer}_over_t_{T}_retrained",
                runs[longer]["retrained_loss"],
                runs[T]["retrained_loss"],
                f"T = {longer}'s mean weights train a better model than T = {T}'s",
            ),
        ]
    for name, other in (("alignment", ALIGNMENT), ("doge", DOGE)):
        found.append(
            _lower(
                f"t_16_over_{name}",
                final(runs[16]),
                final(results[other]),
                f"T = 16 ends at a lower target loss than {other}",
                note=f"nats/byte; {other} minus uniform mixing: {text(final(results[other]) - final(uniform), 2)}",
            )
        )
    sparse = results[SPARSE]
    return [
        *found,
        _lower(
            "one_round_in_16_helps",
            final(sparse),
            final(uniform),
            "differentiating one round in 16 (T = 4) still lowers the target's loss below uniform mixing's",
        ),
        versus(
            "one_round_in_16_cost",
            final(sparse) - final(results[FULL]),
            "<=",
            COST,
            statement=f"ours: it costs at most {COST:g} nats/byte beside differentiating every round",
            source=SOURCE,
        ),
    ]


def _erma(results) -> list[Claim]:
    few, sequences, of_bytes = (results[name] for name in (FEW, SEQUENCES, BYTES))
    effects = few["design_effects"].isel(block=-1)
    found = [
        versus(
            f"dependence_{domain}",
            effects.sel(domain=domain),
            ">=",
            1.0,
            statement=f"ours: a sequence's mean loss ({domain}) varies more than that of as many independent bytes",
            source=OPEN,
            note=f"ratio of the variances for {effects.block.item()} bytes, on test windows",
        )
        for domain in effects.domain.values
    ]
    gap = (few["test_losses"] - few["train_losses"]).mean("domain")
    level = f"nats/byte; uniform weights {text(mean_loss(few), 4)}, its test minus training loss {text(gap, 2)}"
    apart = abs(sequences["mean_weights"] - of_bytes["mean_weights"]).sum("domain") / 2
    for name, data in (("sequences", sequences), ("bytes", of_bytes)):
        found.append(
            _lower(
                f"erma_{name}_helps",
                mean_loss(data),
                mean_loss(few),
                f"ERMA with the variance over {name} lowers the mean test loss of the domains trained on",
                source=OPEN,
                note=f"{level}; mean weights: {weights(data)}",
            )
        )
    return [
        *found,
        versus(
            "erma_weights_differ",
            apart,
            ">=",
            APART,
            statement=f"ours: taking bytes for independent moves more than {APART:g} of ERMA's weight elsewhere",
            source=OPEN,
            note="total variation distance of the mean weights",
        ),
        _lower(
            "erma_sequences_over_bytes",
            mean_loss(sequences),
            mean_loss(of_bytes),
            "ERMA with the variance over sequences has a lower mean test loss than with that over bytes",
            source=OPEN,
        ),
    ]


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
