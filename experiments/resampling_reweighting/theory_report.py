"""The experiment on section 3 of paper 003: it judges the section's sentences on random problems and draws a figure."""

import matplotlib.pyplot as plt

from experiments.resampling_reweighting.quadratics import METHODS, Theory
from experiments.resampling_reweighting.sentences import quote
from experiments.resampling_reweighting.theory import DIMS, train
from experiments.shared.figures import line, points
from experiments.shared.sentences import text
from mixjax.runner import configs
from mixjax.runner.claims import near, paired, versus
from mixjax.runner.experiment import Experiment

__all__ = ["claims", "figure", "theory"]

SOURCE = "paper 003, section 3"


def theory(config: Theory) -> Experiment:
    """Builds the experiment on section 3."""
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams)),
        data=None,
        dims={
            **dict.fromkeys(("bias", "trace", "rate", "stayed", "small"), ("method",)),
            **dict.fromkeys(("limit", "square"), ("method", "dim")),
            **dict.fromkeys(("deviation", "area"), ("method", "learning_rate")),
            "error": ("method", "step"),
            "printed": ("dim",),
            "bound": ("kind",),
        },
        coords={
            "method": list(METHODS),
            "dim": list(DIMS),
            "step": range(config.record_every, config.num_steps + 1, config.record_every),
            "learning_rate": list(config.rates),
            "kind": ["largest", "mean"],
        },
        units={"stayed": "share", "small": "share"},
        figure=lambda results: figure(next(iter(results.values())), config),
        claims=lambda results: claims(next(iter(results.values())), config),
    )


def claims(data, config: Theory) -> list:
    """Judges section 3's sentences, and adds claims of ours where a sentence needs another word."""
    sgd, rr = (data.sel({"method": method}) for method in METHODS)
    return [
        *_mean_and_variance(sgd, rr),
        *_stability(data, sgd, rr),
        *_staying(sgd, rr, config),
        *_rates(data, sgd, rr, config),
        *_beside_flow(sgd, rr, config),
    ]


def _mean_and_variance(sgd, rr) -> list:
    """Judges what section 3.1.1 says of the estimates' mean and section 3.4 of their variance."""
    return [
        versus(
            "unbiased", rr.bias, "<=", 1e-6, **quote("unbiased"), note="exact mean less the gradient, over mean norm"
        ),
        paired(
            "smaller_trace",
            rr.trace,
            "<",
            sgd.trace,
            **quote("smaller_trace"),
            note=f"{text(rr.trace)}, {text(sgd.trace)}",
        ),
    ]


def _stability(data, sgd, rr) -> list:
    """Judges lemma 3.2, which says up to which learning rate a method is stable."""

    def limit(name, side, dim, **sentence):
        note = f"mean square after one step at the limit of the worst direction drawn, over that before; d = {dim}"
        return near(name, side.square.sel(dim=dim), 1.0, 0.05, **sentence, note=note)

    def wider(dim):
        name, ours, theirs = f"wider_steps_{dim}", rr.limit.sel(dim=dim), sgd.limit.sel(dim=dim)
        return paired(name, ours, ">", theirs, **quote(name), note=f"{text(ours)} against {text(theirs)}")

    ratio = (data.printed / rr.limit).sel(dim=DIMS[-1])
    printed_note = (
        f"eq. 3.11's largest step over that up to which no direction drawn grows, d = {DIMS[-1]}: its matrix depends "
        "on the error, and its largest eigenvalue belongs to another direction"
    )
    return [
        limit("stability_sgd", sgd, DIMS[-1], **quote("stability_sgd")),
        limit("stability_rr_1", rr, 1, **quote("stability_rr_1")),
        near("stability_rr_5", ratio, 1.0, 0.1, **quote("stability_rr_5"), note=printed_note),
        limit(
            "stability_rr_direction",
            rr,
            DIMS[-1],
            statement="ours: RR is stable in mean square up to the least step of any direction",
            source=SOURCE,
        ),
        *(wider(dim) for dim in DIMS),
    ]


def _staying(sgd, rr, config: Theory) -> list:
    """Judges theorem 3.4's probability to stay in the neighbourhood of the minimum."""

    def stays(name, side):
        note = f"share of runs in the neighbourhood throughout, δ = {config.delta:g}; R_k stayed below ε in "
        return versus(name, side.stayed, ">=", 1 - config.delta, **quote(name), note=note + text(side.small))

    return [stays("stays_sgd", sgd), stays("stays_rr", rr)]


def _rates(data, sgd, rr, config: Theory) -> list:
    """Judges theorem 3.4's rates of convergence against their bounds and against the exact limit."""
    last_sgd, last_rr = (side.error.isel(step=-1) for side in (sgd, rr))

    def within(name, last, kind):
        bound = data.bound.sel(kind=kind)
        note = (
            f"step times mean square over the bound, after {config.num_steps} steps; step times mean square, SGD / RR: "
            f"{text(last_sgd)} / {text(last_rr)}, bounds {text(data.bound.sel(kind='largest'))} and "
            f"{text(data.bound.sel(kind='mean'))}"
        )
        return versus(name, last / bound, "<=", 1.0, **quote(name), note=note)

    def exact(method, side, also=""):
        return near(
            f"rate_exact_{method}",
            side.error.isel(step=-1) / side.rate,
            1.0,
            0.1,
            statement=f"ours: the limit for {METHODS[method]} is γ² Tr Σ / (2 α γ - 1){also}",
            source=SOURCE,
            note=f"step times mean square over it, after {config.num_steps} steps",
        )

    return [
        within("rate_sgd", last_sgd, "largest"),
        within("rate_rr", last_rr, "mean"),
        exact("sgd", sgd, ", which is the bound that eq. 3.23 has for RR, not eq. 3.21's for SGD"),
        exact("rr", rr),
        paired(
            "faster_rate", last_rr, "<", last_sgd, **quote("faster_rate"), note=f"{text(last_rr)}, {text(last_sgd)}"
        ),
    ]


def _beside_flow(sgd, rr, config: Theory) -> list:
    """Judges remark 3.6 and lemma 3.8, which compare the methods with gradient descent."""
    larger = {"learning_rate": 0}

    def less(name, metric, note):
        ours, theirs = rr[metric].isel(larger), sgd[metric].isel(larger)
        return paired(name, ours, "<", theirs, **quote(name), note=f"{note}: {text(ours)} against {text(theirs)}")

    return [
        less(
            "faster_in_time",
            "area",
            f"integral of the squared distance to the minimum until time {config.horizon:g}, steps of "
            f"{config.rates[0]:g}",
        ),
        less("nearer_to_flow", "deviation", "largest squared distance to gradient descent over the step"),
        near(
            "deviation_in_proportion",
            rr.deviation.isel(larger) / rr.deviation.isel(learning_rate=1),
            1.0,
            0.25,
            statement="ours: the largest squared distance to gradient descent is in proportion to the step (eq. 3.46)",
            source=SOURCE,
            note=f"of RR, its ratio to the step at {config.rates[0]:g} over that at {config.rates[1]:g}",
        ),
    ]


def figure(data, config: Theory):
    """Draws the variances, the stable step sizes, theorem 3.4's mean square, and the distance to gradient descent."""
    drawn, (variances, stable, errors, deviations) = plt.subplots(1, 4, figsize=(16, 4.4), layout="constrained")
    sgd, rr = (data.sel({"method": method}) for method in METHODS)
    variances.plot(sgd.trace, rr.trace, ".", ms=3, color="C1")
    variances.set(
        xlabel="Tr Σ of SGD", ylabel="Tr Σ of RR", xscale="log", yscale="log", title="at the minimum (eq. 3.45)"
    )
    stable.plot(sgd.limit.sel(dim=5), rr.limit.sel(dim=5), ".", ms=3, color="C1", label="RR, least of any direction")
    stable.plot(sgd.limit.sel(dim=5), data.printed.sel(dim=5), ".", ms=3, color="C4", label="RR, eq. 3.11's eigenvalue")
    stable.set(xlabel="largest stable η of SGD", ylabel="largest stable η of RR", xscale="log", yscale="log")
    stable.set(title="lemma 3.2, d = 5")
    for axis in (variances, stable):
        low, high = axis.get_xlim()
        axis.plot([low, high], [low, high], color="0.4", lw=0.9, ls=":", label="equal")
        # Minor labels of the logarithmic axes would overlap.
        axis.xaxis.set_minor_formatter("")
        axis.yaxis.set_minor_formatter("")
        axis.legend(fontsize=8.5)
    for number, (method, label) in enumerate(METHODS.items()):
        _draw_errors(errors, data, method, f"C{number}", label)
        deviation = data.deviation.sel({"method": method})
        points(deviations, data.learning_rate, deviation, color=f"C{number}", label=label)
    errors.set(xlabel="steps k", ylabel="k times mean square, over its limit", yscale="log", ylim=(0.5, None))
    errors.set(title="theorem 3.4, p = 1, δ = 0")
    errors.legend(fontsize=8.5, loc="center right", bbox_to_anchor=(1.0, 0.7))
    deviations.set(
        xlabel="learning rate η", ylabel="largest squared distance to GD, over η", title="lemma 3.8", ylim=(0, None)
    )
    deviations.set_xticks(config.rates)
    deviations.legend(fontsize=8.5)
    for axis in drawn.axes:
        axis.grid(alpha=0.3, lw=0.5)
    drawn.suptitle(
        f"Paper 003, section 3: {data.sizes['seed']} problems, bands and bars: ±2 standard errors", fontsize=11
    )
    return drawn


def _draw_errors(axis, data, method, color, label):
    """Draws a method's mean square over its exact limit, with theorem 3.4's bound."""
    side = data.sel({"method": method})
    curve = side.error / side.rate
    line(axis, data.step, curve, color=color, label=label)
    bound = data.bound.sel(kind="largest" if method == "sgd" else "mean") / side.rate
    axis.axhline(float(bound.median()), color=color, lw=1, ls="--", label=f"the theorem's bound, {label.split()[0]}")
