"""Judges the experiment on a wide ReLU network (paper 004, sections 3.1, 3.3 and 12.2), and draws its figure.

The config that the functions take is a :class:`experiments.hardness_sampling.wide_network.WideReLU`.
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np

from experiments.hardness_sampling.sentences import quote
from experiments.shared.sentences import text, verdict
from experiments.shared.statistics import error_bars
from mixjax.runner.claims import Claim, near, paired, versus

__all__ = ["METHODS", "by_beta", "claims", "figure", "judged", "log_largest_step"]

METHODS = {"exact": "exact losses", "stale": "stale losses (algorithm 1)"}
# The rounding error of a probability in float32.
ROUNDING = 1e-6
# A run has converged if its gradient norm is below epsilon and its robust loss below this share of the first one.
FALL = 0.1


def log_largest_step(data, epsilon: float):
    """Returns log2 of the largest stable step of the grid, ``[beta, seed, method]``.

    A step is stable if over the last tenth of the run, and the last two records at least, the gradient norm stays below
    epsilon and the robust loss below ``FALL`` of its start. The second condition is needed because the loss is bounded:
    where tanh is saturated at the wrong sign, gradients vanish as well, and nothing can blow up to infinity.

    Where no step of the grid is stable, the result is one notch of the grid below its smallest step.
    """
    late = {"record": slice(-max(2, data.sizes["record"] // 10), None)}
    calm = data.grad_norm.isel(late).max("record") <= epsilon
    low = data.robust.isel(late).max("record") <= FALL * data.robust.isel(record=0)
    steps = np.log2(data.step_size)
    # A value for "none": the grid is geometric, so that the next smaller step would be one notch below.
    notch = float(steps[1] - steps[0]) if steps.size > 1 else 1.0
    return steps.where(calm & low).max("step_size").fillna(float(steps.min()) - notch)


def by_beta(log_steps) -> str:
    """Writes the geometric mean over seeds at each beta."""
    means = 2.0 ** log_steps.mean("seed")
    return ", ".join(f"{mean.item():.3g} at {mean.beta.item():g}" for mean in means)


def judged(results, note: str, judge):
    """Judges the first network, and adds to the claim's note how the others fare.

    Args:
        results: run name to data set.
        note: a sentence that says what the value is.
        judge: ``judge(data) -> claim`` judges one network, with a note that has numbers only.
    """
    judgements = {name: judge(data) for name, data in results.items()}
    (first, main), *others = judgements.items()
    parts = [note]
    if main.note:
        parts.append(f"{first}: {main.note}")
    for name, claim in others:
        # A claim without a standard error has one seed only, which decides nothing.
        if claim.stderr is not None:
            numbers = f", {claim.note}" if claim.note else ""
            parts.append(f"{name}: {verdict(claim)}{numbers}")
    return dataclasses.replace(main, note="; ".join(parts))


def claims(results, config) -> list:
    """Judges the sentences of sections 3.1, 3.3 and 12.2, each on the first network."""
    return [
        *_laws(results, config),
        _converges(results, config, "exact_losses_converge", "exact"),
        _converges(results, config, "stale_losses_converge", "stale"),
        _step_falls(results, config, "stable_step_falls_with_beta_exact", "exact"),
        _step_falls(results, config, "stable_step_falls_with_beta_stale", "stale"),
        _stale_step_falls_faster(results, config),
        _beta_zero_is_erm(results, config),
        _staleness_rises(results, config),
    ]


def _laws(results, config) -> list:
    """Judges lemma 3.2 and theorem 3.2, which hold at any parameters, at the initial network."""
    everywhere = ("beta", "divergence")

    def at_start(name, value, side, threshold, note):
        def judge(data):
            return versus(name, value(data.isel(step_size=0)), side, threshold, **quote(name))

        return judged(results, f"{note}, at the initial network", judge)

    return [
        at_start(
            "gradient_law",
            lambda data: data.law_error.max(everywhere),
            "<=",
            0.01,
            "relative error of R's slope along the expectation, by differences of R; largest over beta, KL and "
            "chi-squared",
        ),
        at_start(
            "own_loss_raises_probability",
            lambda data: data.own_change.min(everywhere),
            ">=",
            -ROUNDING,
            f"least change of any p_i when L_i rises by {config.raised:g}, over beta, KL and chi-squared (0 where beta "
            "is 0, or where chi-squared keeps the example cut: 'increasing' should read 'non-decreasing')",
        ),
        at_start(
            "other_losses_lower_probability",
            lambda data: data.other_change.max(everywhere),
            "<=",
            ROUNDING,
            f"largest change of any p_j when L_i rises by {config.raised:g}, over beta, KL and chi-squared",
        ),
    ]


def _while_training(data, metric, config):
    """Returns a metric at the learning rate at which convergence is judged."""
    return data[metric].sel(step_size=config.shown_step, method="nearest")


def _converges(results, config, name, method) -> Claim:
    """Judges whether the gradient norm gets below epsilon, theorem 3.1 or 12.1."""

    def judge(data):
        last = _while_training(data, "grad_norm", config).sel({"method": method})
        value = _while_training(data, "robust", config).sel({"method": method})
        left = (value.isel(record=-1) / value.isel(record=0)).max("beta")
        apart = data.separation.isel(beta=0, step_size=0)
        numbers = f"share of the robust loss left at most {text(left)}, examples at least {text(apart)} apart"
        return versus(name, last.isel(record=-1).max("beta"), "<=", config.epsilon, **quote(name), note=numbers)

    note = (
        f"gradient norm in units of ERM's first, largest over beta, after {config.num_steps} steps at {_shown(config)}"
    )
    return judged(results, note, judge)


def _step_falls(results, config, name, method) -> Claim:
    """Judges whether the largest stable step is smaller at the largest beta than at 0."""

    def judge(data):
        steps = log_largest_step(data, config.epsilon).sel({"method": method})
        return paired(name, steps[-1], "<", steps[0], **quote(name), note=by_beta(steps))

    note = "log2 of the largest stable step, at the largest beta less at 0; geometric means in d / m"
    return judged(results, note, judge)


def _stale_step_falls_faster(results, config) -> Claim:
    """Judges whether the largest stable step falls faster with stale losses than with exact ones."""
    name = "stale_step_falls_faster"

    def judge(data):
        steps = log_largest_step(data, config.epsilon)
        exact, stale = (steps.sel({"method": method}) for method in METHODS)
        numbers = f"stale / exact {by_beta(stale - exact)}"
        return paired(name, stale[-1] - stale[0], "<", exact[-1] - exact[0], **quote(name), note=numbers)

    note = "log2 of the largest stable step, at the largest beta less at 0, stale less exact; geometric means"
    return judged(results, note, judge)


def _beta_zero_is_erm(results, config) -> Claim:
    """Judges whether training at the smallest positive beta is like training at 0."""

    def judge(data):
        curves = _while_training(data, "grad_norm", config)
        ratio = np.log10(curves.isel(beta=1) / curves.isel(beta=0)).mean(("method", "record"))
        return near("beta_zero_is_erm", ratio, 0.0, 0.02, **quote("beta_zero_is_erm"))

    note = (
        "log10 of the gradient norm at the smallest positive beta over that at 0, which is ERM; mean over both methods "
        f"and all of training at {_shown(config)}"
    )
    return judged(results, note, judge)


def _staleness_rises(results, config) -> Claim:
    """Judges whether stale losses do more harm to the probabilities as beta rises."""

    def judge(data):
        error = _while_training(data, "distance", config).sel({"method": "stale"}).mean("record")
        return paired(
            "staleness_error_rises",
            error.isel(beta=-1),
            ">",
            error.isel(beta=1),
            statement="ours: the error made by using stale losses increases when beta increases",
            source="paper 004, appendix 12.2",
            note=", ".join(f"{text(row, 2)} at {row.beta.item():g}" for row in error),
        )

    note = (
        "total variation between the probabilities drawn from and those of the exact losses, mean over training at "
        f"{_shown(config)}, largest beta less smallest positive one"
    )
    return judged(results, note, judge)


def _shown(config) -> str:
    return f"step {config.shown_step:g} d / m"


def _band(log_values, base):
    """Returns the geometric mean over seeds and two standard errors to each side, from logarithms to a base."""
    mean, error = error_bars(log_values)
    return (base**edge for edge in (mean, mean - error, mean + error))


def figure(results, config):
    """Draws gradient norms while training and the largest stable step against beta, with a row for each network."""
    drawn, axes = plt.subplots(
        len(results), 3, figsize=(13, 3.7 * len(results) + 0.4), squeeze=False, layout="constrained"
    )
    for (norms, stable, cost), (name, data) in zip(axes, results.items(), strict=True):
        _draw_norms(norms, name, data, config)
        steps = log_largest_step(data, config.epsilon)
        for number, (method, label) in enumerate(METHODS.items()):
            mean, low, high = _band(steps.sel({"method": method}), 2.0)
            style = {"fmt": "o-", "ms": 4, "lw": 1.2, "capsize": 2, "color": f"C{number}", "label": label}
            stable.errorbar(data.beta, mean, [mean - low, high - mean], **style)
        stable.set_yscale("log", base=2)
        stable.set(ylabel="largest stable step (d / m)", title=f"{name}: stable steps")
        mean, low, high = _band(steps.sel({"method": "stale"}) - steps.sel({"method": "exact"}), 2.0)
        cost.errorbar(data.beta, mean, [mean - low, high - mean], fmt="o-", ms=4, lw=1.2, capsize=2, color="C3")
        cost.axhline(1.0, color="0.4", lw=1, ls=":")
        cost.set(ylabel="largest stable step, stale / exact", title=f"{name}: what staleness costs")
        smallest = float(data.beta[1])
        for axis in (stable, cost):
            # The axis is linear up to the smallest positive beta, so that beta = 0 has a place on it.
            axis.set_xscale("symlog", linthresh=smallest)
            axis.set(xlabel="β (1 / loss)", xlim=(-0.3 * smallest, 1.5 * float(data.beta[-1])))
        for axis in (norms, stable, cost):
            axis.grid(alpha=0.3, lw=0.5)
        stable.legend(fontsize=8.5)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8.5, title="left column")
    seeds = next(iter(results.values())).sizes["seed"]
    drawn.suptitle(
        f"Hardness weighted sampling on a wide ReLU network: geometric means over {seeds} seeds, ±2 standard errors",
        fontsize=11,
    )
    return drawn


def _draw_norms(axis, name, data, config):
    """Draws the gradient norms of both methods while training, at the least, the middle and the largest beta."""
    shown = np.log10(_while_training(data, "grad_norm", config))
    for number, position in enumerate(dict.fromkeys((0, data.sizes["beta"] // 2, data.sizes["beta"] - 1))):
        for method, style in zip(METHODS, ("-", "--"), strict=True):
            mean, low, high = _band(shown.isel(beta=position).sel({"method": method}), 10.0)
            label = f"{method}, β = {data.beta[position].item():g}"
            axis.plot(data.record, mean, style, color=f"C{number}", lw=1.4, label=label)
            axis.fill_between(data.record, low, high, color=f"C{number}", alpha=0.2, lw=0)
    axis.axhline(config.epsilon, color="0.4", lw=1, ls=":", label="ε")
    axis.set(
        yscale="log",
        xlabel="training steps",
        ylabel="gradient norm of R\n(units of ERM's first)",
        title=f"{name}: {_shown(config)}",
    )
