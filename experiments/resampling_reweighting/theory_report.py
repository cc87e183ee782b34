"""Section 3 of paper 003 as an experiment: its sentences, judged on random problems, and its figure."""

import matplotlib.pyplot as plt
import numpy as np

from experiments.resampling_reweighting.sentences import quote
from experiments.resampling_reweighting.theory import DIMS, METHODS, Theory, train
from experiments.shared.figures import text
from mixjax.runner import configs
from mixjax.runner.claims import near, paired, versus
from mixjax.runner.experiment import Experiment


def theory(config: Theory) -> Experiment:
    """Section 3."""
    one, dim = ("method",), ("method", "dim")
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams)),
        data=None,
        dims={
            **dict.fromkeys(("bias", "trace", "rate", "stayed", "small"), one),
            **dict.fromkeys(("limit", "square"), dim),
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
    """Section 3's sentences, and where one of them needs another word."""
    ours = {"source": "paper 003, section 3"}
    sgd, rr = (data.sel({"method": method}) for method in METHODS)
    last_sgd, last_rr = (side.error.isel(step=-1) for side in (sgd, rr))

    def limit(name, side, dim, **sentence):
        note = f"mean square after one step at the limit of the worst direction drawn, over that before; d = {dim}"
        return near(name, side.square.sel(dim=dim), 1.0, 0.05, **sentence, note=note)

    def within(name, last, kind, **sentence):
        bound = data.bound.sel(kind=kind)
        note = (
            f"step times mean square over the bound, after {config.num_steps} steps; step times mean square, SGD / RR: "
            f"{text(last_sgd)} / {text(last_rr)}, bounds {text(data.bound.sel(kind='largest'))} and "
            f"{text(data.bound.sel(kind='mean'))}"
        )
        return versus(name, last / bound, "<=", 1.0, **sentence, note=note)

    def compared(metric):
        a, b = (text(side[metric].isel(learning_rate=0)) for side in (rr, sgd))
        return f"{a} against {b}"

    def stays(name, side, **sentence):
        note = f"share of runs in the neighbourhood throughout, δ = {config.delta:g}; R_k stayed below ε in "
        return versus(name, side.stayed, ">=", 1 - config.delta, **sentence, note=note + text(side.small))

    ratio = (data.printed / rr.limit).sel(dim=DIMS[-1])
    printed_note = (
        f"eq. 3.11's largest step over that up to which no direction drawn grows, d = {DIMS[-1]}: its matrix depends "
        "on the error, and its largest eigenvalue belongs to another direction"
    )
    scaled = rr.deviation.isel(learning_rate=0) / rr.deviation.isel(learning_rate=1)
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
        limit("stability_sgd", sgd, DIMS[-1], **quote("stability_sgd")),
        limit("stability_rr_1", rr, 1, **quote("stability_rr_1")),
        near("stability_rr_5", ratio, 1.0, 0.1, **quote("stability_rr_5"), note=printed_note),
        limit(
            "stability_rr_direction",
            rr,
            DIMS[-1],
            statement="ours: RR is stable in mean square up to the least step of any direction",
            **ours,
        ),
        *(
            paired(
                f"wider_steps_{dim}",
                rr.limit.sel(dim=dim),
                ">",
                sgd.limit.sel(dim=dim),
                **quote(f"wider_steps_{dim}"),
                note=f"{text(rr.limit.sel(dim=dim))} against {text(sgd.limit.sel(dim=dim))}",
            )
            for dim in DIMS
        ),
        stays("stays_sgd", sgd, **quote("stays_sgd")),
        stays("stays_rr", rr, **quote("stays_rr")),
        within("rate_sgd", last_sgd, "largest", **quote("rate_sgd")),
        within("rate_rr", last_rr, "mean", **quote("rate_rr")),
        *(
            near(
                f"rate_exact_{method}",
                side.error.isel(step=-1) / side.rate,
                1.0,
                0.1,
                statement=f"ours: the limit for {METHODS[method]} is γ² Tr Σ / (2 α γ - 1){also}",
                **ours,
                note=f"step times mean square over it, after {config.num_steps} steps",
            )
            for method, side, also in (
                ("sgd", sgd, ", which is the bound that eq. 3.23 has for RR, not eq. 3.21's for SGD"),
                ("rr", rr, ""),
            )
        ),
        paired(
            "faster_rate", last_rr, "<", last_sgd, **quote("faster_rate"), note=f"{text(last_rr)}, {text(last_sgd)}"
        ),
        paired(
            "faster_in_time",
            rr.area.isel(learning_rate=0),
            "<",
            sgd.area.isel(learning_rate=0),
            **quote("faster_in_time"),
            note=f"integral of the squared distance to the minimum until time {config.horizon:g}, steps of "
            f"{config.rates[0]:g}: {compared('area')}",
        ),
        paired(
            "nearer_to_flow",
            rr.deviation.isel(learning_rate=0),
            "<",
            sgd.deviation.isel(learning_rate=0),
            **quote("nearer_to_flow"),
            note=f"largest squared distance to gradient descent over the step: {compared('deviation')}",
        ),
        near(
            "deviation_in_proportion",
            scaled,
            1.0,
            0.25,
            statement="ours: the largest squared distance to gradient descent is in proportion to the step (eq. 3.46)",
            **ours,
            note=f"of RR, its ratio to the step at {config.rates[0]:g} over that at {config.rates[1]:g}",
        ),
    ]


def figure(data, config: Theory):
    """Step limits, theorem 3.4's mean square with its bounds, and the distance to gradient descent."""
    drawn, axes = plt.subplots(1, 4, figsize=(16, 4.4), layout="constrained")
    sgd, rr = (data.sel({"method": method}) for method in METHODS)
    axes[0].plot(sgd.trace, rr.trace, ".", ms=3, color="C1")
    axes[0].set(
        xlabel="Tr Σ of SGD", ylabel="Tr Σ of RR", xscale="log", yscale="log", title="at the minimum (eq. 3.45)"
    )
    axes[1].plot(sgd.limit.sel(dim=5), rr.limit.sel(dim=5), ".", ms=3, color="C1", label="RR, least of any direction")
    axes[1].plot(
        sgd.limit.sel(dim=5), data.printed.sel(dim=5), ".", ms=3, color="C4", label="RR, eq. 3.11's eigenvalue"
    )
    axes[1].set(xlabel="largest stable η of SGD", ylabel="largest stable η of RR", xscale="log", yscale="log")
    axes[1].set(title="lemma 3.2, d = 5")
    for axis in axes[:2]:
        low, high = axis.get_xlim()
        axis.plot([low, high], [low, high], color="0.4", lw=0.9, ls=":", label="equal")
        axis.xaxis.set_minor_formatter("")
        axis.yaxis.set_minor_formatter("")
        axis.legend(fontsize=8.5)
    for number, (method, label) in enumerate(METHODS.items()):
        side, color = data.sel({"method": method}), f"C{number}"
        curve = side.error / side.rate
        mean, error = curve.mean("seed"), curve.std("seed", ddof=1) / np.sqrt(curve.sizes["seed"])
        axes[2].plot(data.step, mean, color=color, lw=1.4, label=label)
        axes[2].fill_between(data.step, mean - 2 * error, mean + 2 * error, color=color, alpha=0.25, lw=0)
        bound = data.bound.sel(kind="largest" if method == "sgd" else "mean") / side.rate
        axes[2].axhline(
            float(bound.median()), color=color, lw=1, ls="--", label=f"the theorem's bound, {label.split()[0]}"
        )
        values = side.deviation
        error = 2 * values.std("seed", ddof=1) / np.sqrt(values.sizes["seed"])
        style = {"fmt": "o-", "ms": 4, "lw": 1.2, "capsize": 2, "color": color, "label": label}
        axes[3].errorbar(data.learning_rate, values.mean("seed"), error, **style)
    axes[2].set(xlabel="steps k", ylabel="k times mean square, over its limit", yscale="log", ylim=(0.5, None))
    axes[2].set(title="theorem 3.4, p = 1, δ = 0")
    axes[3].set(
        xlabel="learning rate η", ylabel="largest squared distance to GD, over η", title="lemma 3.8", ylim=(0, None)
    )
    axes[3].set_xticks(config.rates)
    axes[2].legend(fontsize=8.5, loc="center right", bbox_to_anchor=(1.0, 0.7))
    axes[3].legend(fontsize=8.5)
    for axis in axes:
        axis.grid(alpha=0.3, lw=0.5)
    drawn.suptitle(
        f"Paper 003, section 3: {data.sizes['seed']} problems, bands and bars: ±2 standard errors", fontsize=11
    )
    return drawn
