"""Trains logistic regression on two domains: paper 000, section 5.2 and appendices C and D (figures 2, 5 and 6)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.loss_and_sampling_weights import glm
from experiments.loss_and_sampling_weights.sentences import quote
from experiments.shared import figures
from experiments.shared.statistics import final
from mixjax import WeightRule, rules, samplers
from mixjax.runner import configs
from mixjax.runner.claims import paired, versus
from mixjax.runner.experiment import Experiment

__all__ = [
    "FIGURE_6",
    "Logistic",
    "accuracy",
    "cosine_distance",
    "cross_entropy",
    "label",
    "logistic",
    "methods",
    "single_weight",
]

FIGURE_2 = {
    "vanilla": "vanilla SGD",
    "va": "VA",
    "erma": "ERMA",
    "erma_va": "ERMA + VA",
    "erma_unnormalised": "ERMA, w not rescaled",
}
FIGURE_6 = {
    "vanilla": "vanilla SGD",
    "erma": "ERMA",
    "erma_va": "ERMA + VA",
    "single_mean": "single weight, mean by domain",
    "single_pooled": "single weight, mean of the batch",
}
SETTINGS = {"(100, 100)": "100_100", "(10, 100)": "10_100"}


@dataclasses.dataclass(frozen=True)
class Logistic(glm.GaussianProblem):
    """Holds the settings of section 5.2 and of its rules; ``noise`` are flip probabilities.

    Attributes:
        gamma1: ERMA's ``gamma1``.
        gamma2: ERMA's ``gamma2``.
    """

    scales: tuple[float, float] = (100.0, 100.0)
    noise: tuple[float, float] = (0.0, 0.2)
    gamma1: float = 0.01
    gamma2: float = 0.05


class CombinedState(NamedTuple):
    """Holds the state of :func:`combined` and :func:`pooled`."""

    weights: jax.Array
    prior: jax.Array
    loss_state: NamedTuple
    sampling_state: NamedTuple


def combined(loss_rule: WeightRule, sampling_rule: WeightRule) -> WeightRule:
    """Makes appendix D's single weight a sampling rule: ``q`` in proportion to the loss rule's ``c`` times VA's factor.

    The loss rule's weights are used for drawing only; the objective stays uniform.
    """

    def init(prior):
        loss_state, sampling_state = loss_rule.init(prior), sampling_rule.init(prior)
        return CombinedState(sampling_state.weights, sampling_state.prior, loss_state, sampling_state)

    def update(state, *, counts, loss_weights=None, **signals):
        del loss_weights  # the objective's, which this rule replaces by its own
        loss_state = loss_rule.update(state.loss_state, counts=counts, **signals)
        sampling_state = sampling_rule.update(
            state.sampling_state, counts=counts, loss_weights=loss_state.weights, **signals
        )
        return CombinedState(sampling_state.weights, state.prior, loss_state, sampling_state)

    return WeightRule(init, update)


def pooled(rule: WeightRule, batch_size: int) -> WeightRule:
    """Makes loss weights that turn the domain-wise mean into the batch's plain mean, ``c_d = n_d / B``."""

    def share(state):
        counts = samplers.allocate(state.sampling_state.weights, batch_size)
        return state._replace(weights=counts / jnp.float32(batch_size))

    return WeightRule(
        lambda prior: share(rule.init(prior)), lambda state, **signals: share(rule.update(state, **signals))
    )


def label(key: jax.Array, logit: jax.Array, flip: jax.Array) -> jax.Array:
    """Draws ``y ~ Bernoulli(sigmoid(logit))`` and flips it with probability ``flip``."""
    label_key, flip_key = jax.random.split(key)
    y = jax.random.uniform(label_key, logit.shape) < jax.nn.sigmoid(logit)
    return jnp.logical_xor(y, jax.random.uniform(flip_key, logit.shape) < flip).astype(jnp.float32)


def cross_entropy(logit: jax.Array, y: jax.Array) -> jax.Array:
    """Returns ``-log p(y)`` in nats."""
    return jnp.logaddexp(0.0, logit) - y * logit


def cosine_distance(params: jax.Array) -> jax.Array:
    """Returns eq. 17's distance to the true parameter, and 1 for the zero vector, where eq. 17 is 0/0."""
    norm = jnp.linalg.norm(params)
    # the inner where keeps 0/0 out of both branches
    return jnp.where(norm > 0, 1.0 - params @ glm.truth(params.size) / jnp.where(norm > 0, norm, 1.0), 1.0)


def accuracy(distance: jax.Array, scales: tuple[float, float]) -> jax.Array:
    """Returns the accuracy on labels before flipping, mean over the domains, from the cosine distance.

    With ``u`` the standardised true logit and ``r`` the cosine, the prediction is 1 with probability
    ``Phi(r u / sqrt(1 - r²))``; the integral over ``u`` is a sum over 400 midpoints.
    """
    u = jnp.linspace(-8.0, 8.0, 401)
    density = jax.scipy.stats.norm.pdf(u)
    r = jnp.clip(1.0 - distance, -1.0, 1.0)
    positive = jax.scipy.stats.norm.cdf(r * u / jnp.sqrt(jnp.maximum(1.0 - r * r, 1e-12)))

    def one(scale):
        y = jax.nn.sigmoid(jnp.sqrt(scale) * u)
        return jnp.sum(density * (y * positive + (1.0 - y) * (1.0 - positive))) / density.sum()

    return jnp.mean(jnp.stack([one(scale) for scale in scales]))


def methods(config: Logistic, names: tuple[str, ...]) -> list[glm.Method]:
    """Returns the named methods."""

    def erma(normalised=True):
        rule = rules.erma(config.gamma1, config.gamma2, normalised=normalised)
        return rules.every(rule, 1, start=config.warmup_rounds)

    prior, va = rules.fixed(), rules.variance_aware()
    single = combined(erma(), va)
    known = {
        "vanilla": glm.Method(prior, prior),
        "va": glm.Method(prior, va),
        "erma": glm.Method(erma(), prior),
        "erma_va": glm.Method(erma(), va),
        "erma_unnormalised": glm.Method(erma(normalised=False), prior),
        "single_mean": glm.Method(prior, single),
        "single_pooled": glm.Method(pooled(single, config.batch_size), single),
    }
    return [known[name] for name in names]


def _experiment(config, names, figure, claims):
    def train(key, hparams, data):
        del data  # each seed draws its own
        settings = configs.replace(config, hparams)
        data_key, key = jax.random.split(key)
        if settings.num_examples:
            source = glm.finite(glm.data_set(data_key, settings, label), settings)
        else:
            source = glm.stream(data_key, settings, label)

        def evaluate(params):
            distance = cosine_distance(params)
            return {"cosine_distance": distance, "accuracy": accuracy(distance, settings.scales)}

        return glm.train_methods(key, settings, methods(settings, names), cross_entropy, source, evaluate)

    metrics = {"cosine_distance": "1", "accuracy": "share", "loss_weight": "share", "sampling_weight": "share"}
    return Experiment(
        train=train,
        data=None,
        dims={metric: ("method", "step") for metric in metrics},
        coords={"method": list(names), "step": glm.steps(config)},
        units=metrics,
        figure=figure,
        claims=claims,
    )


PANELS = [
    figures.Panel("cosine_distance", "cosine distance to the truth", "log"),
    figures.Panel("accuracy", "accuracy, clean labels"),
    figures.Panel("loss_weight", "loss weight, domain one", limits=(0, 1)),
    figures.Panel("sampling_weight", "sampling weight, domain one", limits=(0, 1)),
]


def logistic(config: Logistic) -> Experiment:
    """Makes the experiment of figures 2 and 5."""
    styles = {"va": {"color": "C0", "ls": "--"}, "erma": {"color": "C1"}, "erma_va": {"color": "C1", "ls": "--"}}

    def figure(results):
        shown = {name: results[name] for name in SETTINGS if name in results}
        title = "Logistic regression, flip probabilities (0, 0.2), paper 000 figures 2 and 5"
        return figures.curves(shown, PANELS, FIGURE_2, title, styles)

    return _experiment(config, tuple(FIGURE_2), figure, figure_2_claims)


def single_weight(config: Logistic) -> Experiment:
    """Makes the experiment of figure 6."""

    def figure(results):
        return figures.curves(results, PANELS, FIGURE_6, "One weight in place of two, paper 000 figure 6")

    return _experiment(config, tuple(FIGURE_6), figure, figure_6_claims)


def _lower(name, data, method, than):
    a, b = (final(data, "cosine_distance", m) for m in (method, than))
    return paired(name, a, "<", b, **quote(name))


def _share(name, data, metric, method, side):
    return versus(name, final(data, metric, method), side, 0.5, **quote(name))


def figure_2_claims(results) -> list:
    """Judges section 5.2's and appendix C's sentences, at the end of training."""
    rows = []
    for setting, stem in SETTINGS.items():
        data = results[setting]
        for method in ("va", "erma"):
            rows.append(_lower(f"{method}_improves_{stem}", data, method, "vanilla"))
            accuracies = [final(data, "accuracy", m) for m in (method, "vanilla")]
            name = f"accuracy_{method}_{stem}"
            rows.append(paired(name, accuracies[0], ">", accuracies[1], **quote(name)))
        rows.append(
            paired(
                f"erma_va_over_erma_{stem}",
                final(data, "cosine_distance", "erma_va"),
                "<",
                final(data, "cosine_distance", "erma"),
                statement=f"ours: ERMA + VA improves on ERMA alone, {setting}",
                source="paper 000, section 5.2",
            )
        )
    same, other = results["(100, 100)"], results["(10, 100)"]
    relative = 1.0 - final(other, "cosine_distance", "erma") / final(other, "cosine_distance", "vanilla")
    return [
        *rows,
        _share("erma_prefers_clean_100_100", same, "loss_weight", "erma", ">="),
        _share("va_prefers_two_100_100", same, "sampling_weight", "va", "<="),
        _share("va_flips_with_erma_100_100", same, "sampling_weight", "erma_va", ">="),
        versus(
            "erma_large_margin_10_100",
            relative,
            ">=",
            0.25,
            **quote("erma_large_margin_10_100"),
            note="value: share of vanilla's cosine distance removed; 'large' was set to a quarter before looking",
        ),
        *[
            paired(
                f"erma_even_more_weight_{kind}",
                final(other, "loss_weight", method),
                ">",
                final(same, "loss_weight", method),
                **quote(f"erma_even_more_weight_{kind}"),
            )
            for kind, method in (("normalised", "erma"), ("unnormalised", "erma_unnormalised"))
        ],
    ]


def figure_6_claims(results) -> list:
    """Judges appendix D's sentence, in both readings and both settings, against ERMA + VA with its two weights."""
    rows = []
    for setting, stem in SETTINGS.items():
        data = results[setting]
        for kind in ("mean", "pooled"):
            name = f"single_{kind}_suboptimal_{stem}"
            single = final(data, "cosine_distance", f"single_{kind}")
            rows.append(paired(name, single, ">", final(data, "cosine_distance", "erma_va"), **quote(name)))
            for than in ("vanilla", "erma"):
                rows.append(
                    paired(
                        f"single_{kind}_against_{than}_{stem}",
                        single,
                        ">",
                        final(data, "cosine_distance", than),
                        statement=f"ours: the single weight ({FIGURE_6[f'single_{kind}'].split(', ')[1]}) is worse "
                        f"than {FIGURE_6[than]} too, {setting}",
                        source="paper 000, appendix D",
                    )
                )
    return rows
