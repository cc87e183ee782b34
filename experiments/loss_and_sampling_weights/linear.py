"""Trains linear regression on two domains: paper 000, section 5.1 (figure 1) and appendix C (figure 4)."""

import dataclasses

import jax
import jax.numpy as jnp

from experiments.loss_and_sampling_weights import glm
from experiments.loss_and_sampling_weights.sentences import quote
from experiments.shared import figures
from experiments.shared.statistics import final
from mixjax import rules
from mixjax.runner import configs
from mixjax.runner.claims import near, paired, versus
from mixjax.runner.experiment import Experiment

__all__ = ["METHODS", "Linear", "label", "linear", "linear_appendix", "methods", "squared_error", "train_on"]

METHODS = {
    "vanilla": "vanilla SGD",
    "va": "VA",
    "aitken": "Aitken",
    "aitken_va": "Aitken + VA",
    "fgls": "One-shot FGLS",
    "fgls_va": "One-shot FGLS + VA",
}
# a colour for the loss weights, dashes for VA
STYLES = {
    name: {"color": f"C{number // 2}", "ls": "--" if name.endswith("va") else "-"}
    for number, name in enumerate(METHODS)
}
PANELS = [
    figures.Panel("error", r"$\|\theta - \theta_{gt}\|$", "log"),
    figures.Panel("loss_weight", "loss weight, domain one", limits=(0, 1)),
    figures.Panel("sampling_weight", "sampling weight, domain one", limits=(0, 1)),
]


@dataclasses.dataclass(frozen=True)
class Linear(glm.GaussianProblem):
    """Holds the settings of section 5.1 and of its rules.

    Attributes:
        gamma: one-shot FGLS's ``gamma``.
    """

    gamma: float = 1.0


def label(key: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
    """Draws ``y = mean + noise``, noise of the given variance."""
    return mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape)


def squared_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Returns ``(prediction - target)²``.

    There is no factor 1/2, as in section 3.1: the factor matters at a fixed step size.
    """
    return jnp.square(prediction - target)


def methods(config: Linear) -> list[glm.Method]:
    """Returns the six methods of figure 1, in the order of ``METHODS``."""
    prior, aitken = rules.fixed(), rules.gls(config.noise)
    fgls = rules.every(rules.one_shot_fgls(config.gamma), 1, start=config.warmup_rounds)
    return [
        glm.Method(loss_rule, sampling_rule)
        for loss_rule in (prior, aitken, fgls)
        for sampling_rule in (prior, rules.variance_aware())
    ]


def train_on(data: glm.Batch | None, key: jax.Array, config: Linear) -> dict[str, jax.Array]:
    """Trains all methods on one data set, or on a fresh stream where ``data`` is None."""
    source_key, key = jax.random.split(key)
    source = glm.stream(source_key, config, label) if data is None else glm.finite(data, config)

    def evaluate(params):
        return {"error": jnp.linalg.norm(params - glm.truth(config.dim))}

    return glm.train_methods(key, config, methods(config), squared_error, source, evaluate)


def _experiment(config, figure, claims):
    def train(key, hparams, data):
        del data  # each seed draws its own
        settings = configs.replace(config, hparams)
        data_key, key = jax.random.split(key)
        data_set = glm.data_set(data_key, settings, label) if config.num_examples else None
        return train_on(data_set, key, settings)

    curve = ("method", "step")
    return Experiment(
        train=train,
        data=None,
        dims={"error": curve, "loss_weight": curve, "sampling_weight": curve},
        coords={"method": list(METHODS), "step": glm.steps(config)},
        units={"error": "parameter units", "loss_weight": "share", "sampling_weight": "share"},
        figure=figure,
        claims=claims,
    )


def linear(config: Linear) -> Experiment:
    """Makes the experiment of figure 1."""

    def figure(results):
        shown = {name: results[name] for name in ("(100, 1)", "(1, 100)") if name in results}
        return figures.curves(
            shown, PANELS, METHODS, "Linear regression, noise variances (1, 20), paper 000 figure 1", STYLES
        )

    return _experiment(config, figure, figure_1_claims)


def linear_appendix(config: Linear) -> Experiment:
    """Makes the experiment of figure 4."""

    def figure(results):
        shown = {name: data for name, data in results.items() if "stream" not in name}
        return figures.curves(shown, PANELS, METHODS, "Linear regression, paper 000 figure 4", STYLES)

    return _experiment(config, figure, figure_4_claims)


def after_warmup(data, metric: str, method: str):
    """Returns the metric's mean over the second half of training, one value a seed."""
    return data[metric].sel({"method": method}).isel(step=slice(data.sizes["step"] // 2, None)).mean("step")


def _better(name, data, method, than, *, metric="error", note=""):
    return paired(name, final(data, metric, method), "<", final(data, metric, than), **quote(name), note=note)


def figure_1_claims(results) -> list:
    """Judges section 5.1's sentences. Errors are those at the end of training, weights those of its second half."""
    one, two = results["(100, 1)"], results["(1, 100)"]
    long, limit = results["(1, 100), four times the steps"], results["(100, 1), fresh data, B = 1024, d = 100"]

    def share(name, data, metric, method, side):
        return versus(name, after_warmup(data, metric, method), side, 0.5, **quote(name))

    aitken = Linear().best
    return [
        _better("va_effective_100_1", one, "va", "vanilla"),
        _better("va_effective_1_100", two, "va", "vanilla"),
        _better("fgls_effective_100_1", one, "fgls", "vanilla"),
        _better("fgls_effective_1_100", two, "fgls", "vanilla"),
        _better("combination_over_fgls_1_100", two, "fgls_va", "fgls"),
        _better("combination_over_va_1_100", two, "fgls_va", "va"),
        *[
            paired(
                f"combination_best_1_100_{other}",
                final(two, "error", "fgls_va"),
                "<",
                final(two, "error", other),
                statement=f"ours: VA + one-shot FGLS is best in (1, 100) [against {METHODS[other]}]",
                source="paper 000, section 5.1",
            )
            for other in ("vanilla", "aitken", "aitken_va")
        ],
        paired(
            "combination_over_fgls_100_1",
            final(one, "error", "fgls_va"),
            "<",
            final(one, "error", "fgls"),
            statement="ours: the combination improves on one-shot FGLS in (100, 1) too, which the paper does not say",
            source="paper 000, section 5.1",
        ),
        share("va_prefers_one_100_1", one, "sampling_weight", "va", ">="),
        share("fgls_prefers_one_100_1", one, "loss_weight", "fgls", ">="),
        near(
            "fgls_converges_to_aitken",
            final(limit, "loss_weight", "fgls"),
            aitken,
            0.005,
            **quote("fgls_converges_to_aitken"),
            note="measured where the limit is meant: fresh data and a batch large enough that C s << noise, "
            "s = |θ - θ_gt|²; elsewhere the weight tends to 1/(C s + noise)",
        ),
        near(
            "fgls_near_aitken_as_run",
            final(one, "loss_weight", "fgls"),
            aitken,
            0.02,
            statement="ours: the same at figure 1's own settings",
            source="paper 000, section 5.1",
            note="here C s is not small beside the noise; 100 training points understate the loss they were fitted to, "
            "and the two errors partly cancel",
        ),
        share("va_prefers_two_1_100", two, "sampling_weight", "va", "<="),
        share("fgls_prefers_one_1_100", two, "loss_weight", "fgls", ">="),
        paired(
            "aitken_suboptimal_1_100",
            final(two, "error", "aitken"),
            ">",
            final(two, "error", "vanilla"),
            **quote("aitken_suboptimal_1_100"),
        ),
        _better(
            "aitken_far_from_convergence",
            long,
            "aitken",
            "vanilla",
            note="with four times the steps at the same learning rate Aitken's weights should win",
        ),
    ]


def figure_4_claims(results) -> list:
    """Judges appendix C's sentences on linear regression."""
    noise, scale = results["(i) scales (100, 1), noise (1, 1)"], results["(ii) scales (1, 1), noise (1, 20)"]
    rows = [
        _better("appendix_va_equal_noise", noise, "va", "vanilla"),
        _better("appendix_fgls_equal_noise", noise, "fgls", "vanilla"),
        _better("appendix_va_equal_scale", scale, "va", "vanilla"),
        _better("appendix_fgls_equal_scale", scale, "fgls", "vanilla"),
    ]
    for name, data in results.items():
        if "stream" in name:
            for method in ("va", "fgls"):
                rows.append(
                    paired(
                        f"{'equal_noise' if name.startswith('(i)') else 'equal_scale'}_{method}_stream",
                        final(data, "error", method),
                        "<",
                        final(data, "error", "vanilla"),
                        statement=f"ours: {METHODS[method]} improves upon vanilla on fresh data, {name}",
                        source="paper 000, appendix C",
                    )
                )
    return rows
