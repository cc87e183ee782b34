"""Theorem 3.1 at work: SGD with hardness weighted sampling on a wide ReLU network (paper 004, sections 3.1, 3.3, 12).

Section 12.1's network and initialisation. Each run trains it twice from one start: with *exact* losses, the
probabilities ``p̄(L)`` being those of all the losses as they are (theorem 12.1), and with *stale* ones, algorithm 1
without importance sampling (theorem 12.2). One seed is one draw of the data, the network and the batches.

What this can show: whether the gradient norm gets below a given epsilon, and the largest step of a grid with which it
does. What it cannot: the theorems give steps that *suffice*, by bounds with unspecified constants, so a step that works
beyond them contradicts nothing; that the bounds fall with beta is algebra, that the largest stable step does is what
section 12.2 reads into them, and is what is measured here.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.hardness_sampling.sentences import quote
from experiments.hardness_sampling.wide_network import WideReLU, data_set, laws, train_both
from experiments.shared.sentences import text, verdict
from experiments.shared.statistics import error_bars
from mixjax.runner import configs
from mixjax.runner.claims import near, paired, versus
from mixjax.runner.experiment import Experiment

METHODS = {"exact": "exact losses", "stale": "stale losses (algorithm 1)"}
ROUNDING = 1e-6  # of a probability in float32
FALL = 0.1  # a run has converged when the robust loss is below this share of its start, and the gradient below epsilon


def wide_relu(config: WideReLU) -> Experiment:
    """Theorems 3.1, 3.2, 12.1 and 12.2, and lemma 3.2."""

    def train(key, hparams, data):
        del data  # each seed draws its own
        settings = configs.replace(config, hparams)
        x, _ = data_set(jax.random.split(key, 3)[0], settings)
        gaps = jnp.linalg.norm(x[:, None] - x, axis=-1) + 2.0 * jnp.eye(config.num_examples)
        return {**train_both(key, settings), **laws(key, settings), "separation": gaps.min()}

    trained = dict.fromkeys(("grad_norm", "robust", "distance"), ("method", "record"))
    checked = dict.fromkeys(("law_error", "own_change", "other_change"), ("divergence",))
    return Experiment(
        train=train,
        data=None,
        dims={**trained, **checked, "separation": ()},
        coords={
            "method": list(METHODS),
            "divergence": ["kl", "chi2"],
            "record": [config.num_steps // config.num_records * i for i in range(config.num_records + 1)],
        },
        units={
            "grad_norm": "first gradient norm of ERM",
            "robust": "loss units",
            **dict.fromkeys(("distance", "own_change", "other_change"), "probability"),
            **dict.fromkeys(("law_error", "separation"), "1"),
        },
        figure=lambda results: figure(results, config),
        claims=lambda results: claims(results, config),
    )


def log_largest_step(data, epsilon: float):
    """Log2 of the largest step of the grid that is stable, ``[beta, seed, method]``; one notch below it where none is.

    Stable: over the last tenth of the horizon (the last two records at least) the gradient norm stays below epsilon and
    the robust loss below ``FALL`` of its start. The second is needed because the loss is bounded: where tanh is
    saturated at the wrong sign, gradients vanish as well, and nothing can blow up to infinity.
    """
    late = {"record": slice(-max(2, data.sizes["record"] // 10), None)}
    calm = data.grad_norm.isel(late).max("record") <= epsilon
    low = data.robust.isel(late).max("record") <= FALL * data.robust.isel(record=0)
    steps = np.log2(data.step_size)
    notch = float(steps[1] - steps[0]) if steps.size > 1 else 1.0
    return steps.where(calm & low).max("step_size").fillna(float(steps.min()) - notch)


def by_beta(log_steps) -> str:
    """Geometric means over seeds at each beta."""
    means = 2.0 ** log_steps.mean("seed")
    return ", ".join(f"{mean.item():.3g} at {mean.beta.item():g}" for mean in means)


def judged(results, note: str, judge):
    """The claim on the first network, with what the numbers are; its note tells how it fares on the others.

    Args:
        results: run name to data set.
        note: what the value is.
        judge: ``judge(data) -> claim``, whose note has numbers only.
    """
    main, *others = [judge(data) for data in results.values()]
    first, *names = results
    rest = [
        f"{name}: {verdict(claim)}{claim.note and ', ' + claim.note}"
        for name, claim in zip(names, others, strict=True)
        if claim.stderr is not None
    ]
    own = f"{first}: {main.note}" if main.note else ""
    return dataclasses.replace(main, note="; ".join(filter(None, [note, own, *rest])))


def claims(results, config: WideReLU) -> list:
    """The sentences of sections 3.1, 3.3 and 12.2."""
    shown_step = f"step {config.shown_step:g} d / m"

    def at_start(name, value, side, threshold, note):
        def judge(data):
            return versus(name, value(data.isel(step_size=0)), side, threshold, **quote(name))

        return judged(results, f"{note}, at the initial network", judge)

    def while_training(data, metric):
        return data[metric].sel(step_size=config.shown_step, method="nearest")

    def converges(name, method):
        def judge(data):
            last, value = (while_training(data, metric).sel({"method": method}) for metric in ("grad_norm", "robust"))
            left = (value.isel(record=-1) / value.isel(record=0)).max("beta")
            apart = data.separation.isel(beta=0, step_size=0)
            numbers = f"share of the robust loss left at most {text(left)}, examples at least {text(apart)} apart"
            return versus(name, last.isel(record=-1).max("beta"), "<=", config.epsilon, **quote(name), note=numbers)

        note = (
            f"gradient norm in units of ERM's first, largest over beta, after {config.num_steps} steps at {shown_step}"
        )
        return judged(results, note, judge)

    def falls(name, method):
        def judge(data):
            steps = log_largest_step(data, config.epsilon).sel({"method": method})
            return paired(name, steps[-1], "<", steps[0], **quote(name), note=by_beta(steps))

        note = "log2 of the largest stable step, at the largest beta less at 0; geometric means in d / m"
        return judged(results, note, judge)

    def falls_faster(data):
        steps = log_largest_step(data, config.epsilon)
        exact, stale = (steps.sel({"method": method}) for method in METHODS)
        name, numbers = "stale_step_falls_faster", f"stale / exact {by_beta(stale - exact)}"
        return paired(name, stale[-1] - stale[0], "<", exact[-1] - exact[0], **quote(name), note=numbers)

    def small_beta(data):
        curves = while_training(data, "grad_norm")
        ratio = np.log10(curves.isel(beta=1) / curves.isel(beta=0)).mean(("method", "record"))
        return near("beta_zero_is_erm", ratio, 0.0, 0.02, **quote("beta_zero_is_erm"))

    def staleness(data):
        error = while_training(data, "distance").sel({"method": "stale"}).mean("record")
        return paired(
            "staleness_error_rises",
            error.isel(beta=-1),
            ">",
            error.isel(beta=1),
            statement="ours: the error made by using stale losses increases when beta increases",
            source="paper 004, appendix 12.2",
            note=", ".join(f"{text(row, 2)} at {row.beta.item():g}" for row in error),
        )

    everywhere = ("beta", "divergence")
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
        converges("exact_losses_converge", "exact"),
        converges("stale_losses_converge", "stale"),
        falls("stable_step_falls_with_beta_exact", "exact"),
        falls("stable_step_falls_with_beta_stale", "stale"),
        judged(
            results,
            "log2 of the largest stable step, at the largest beta less at 0, stale less exact; geometric means",
            falls_faster,
        ),
        judged(
            results,
            "log10 of the gradient norm at the smallest positive beta over that at 0, which is ERM; mean over both "
            f"methods and all of training at {shown_step}",
            small_beta,
        ),
        judged(
            results,
            "total variation between the probabilities drawn from and those of the exact losses, mean over training at "
            f"{shown_step}, largest beta less smallest positive one",
            staleness,
        ),
    ]


def _band(log_values, base):
    """Returns the geometric mean over the seeds and its error bar's ends, from logarithms to a base."""
    mean, error = error_bars(log_values)
    return (base**edge for edge in (mean, mean - error, mean + error))


def figure(results, config: WideReLU):
    """A row a network: gradient norms while training, the largest stable step against beta, and stale over exact."""
    drawn, axes = plt.subplots(
        len(results), 3, figsize=(13, 3.7 * len(results) + 0.4), squeeze=False, layout="constrained"
    )
    for row, (name, data) in zip(axes, results.items(), strict=True):
        shown = np.log10(data.grad_norm.sel(step_size=config.shown_step, method="nearest"))
        betas = dict.fromkeys((0, data.sizes["beta"] // 2, data.sizes["beta"] - 1))
        for number, position in enumerate(betas):
            for method, style in zip(METHODS, ("-", "--"), strict=True):
                mean, low, high = _band(shown.isel(beta=position).sel({"method": method}), 10.0)
                label = f"{method}, β = {data.beta[position].item():g}"
                row[0].plot(data.record, mean, style, color=f"C{number}", lw=1.4, label=label)
                row[0].fill_between(data.record, low, high, color=f"C{number}", alpha=0.2, lw=0)
        row[0].axhline(config.epsilon, color="0.4", lw=1, ls=":", label="ε")
        row[0].set(
            yscale="log",
            xlabel="training steps",
            ylabel="gradient norm of R\n(units of ERM's first)",
            title=f"{name}: step {config.shown_step:g} d / m",
        )
        steps = log_largest_step(data, config.epsilon)
        for number, (method, label) in enumerate(METHODS.items()):
            mean, low, high = _band(steps.sel({"method": method}), 2.0)
            style = {"fmt": "o-", "ms": 4, "lw": 1.2, "capsize": 2, "color": f"C{number}", "label": label}
            row[1].errorbar(data.beta, mean, [mean - low, high - mean], **style)
        row[1].set_yscale("log", base=2)
        row[1].set(ylabel="largest stable step (d / m)", title=f"{name}: stable steps")
        mean, low, high = _band(steps.sel({"method": "stale"}) - steps.sel({"method": "exact"}), 2.0)
        row[2].errorbar(data.beta, mean, [mean - low, high - mean], fmt="o-", ms=4, lw=1.2, capsize=2, color="C3")
        row[2].axhline(1.0, color="0.4", lw=1, ls=":")
        row[2].set(ylabel="largest stable step, stale / exact", title=f"{name}: what staleness costs")
        smallest = float(data.beta[1])
        for axis in row[1:]:
            axis.set_xscale("symlog", linthresh=smallest)
            axis.set(xlabel="β (1 / loss)", xlim=(-0.3 * smallest, 1.5 * float(data.beta[-1])))
        for axis in row:
            axis.grid(alpha=0.3, lw=0.5)
        row[1].legend(fontsize=8.5)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8.5, title="left column")
    seeds = next(iter(results.values())).sizes["seed"]
    drawn.suptitle(
        f"Hardness weighted sampling on a wide ReLU network: geometric means over {seeds} seeds, ±2 standard errors",
        fontsize=11,
    )
    return drawn
