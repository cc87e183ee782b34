"""Trains paper 000's methods side by side on two Gaussian domains with a linear predictor, for sections 5.1 and 5.2.

Every method of a figure trains in one program on common random numbers. The methods are an axis under ``vmap``, so that
one pass over a row of data serves all of them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixjax import WeightRule, probes, rules, samplers, signals, training

__all__ = [
    "Batch",
    "Estimation",
    "GaussianProblem",
    "LinearModel",
    "Method",
    "data_set",
    "finite",
    "generate",
    "measure",
    "predict",
    "steps",
    "stream",
    "train_methods",
    "truth",
]

Estimation = Literal["train", "hold_out_draws", "whole_hold_out", "fresh"]


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """Describes two domains that share a linear model; the paper gives the noise only.

    Attributes:
        noise: label-noise variance of each domain (linear regression) or its flip probability (logistic).
        dim: ``d``, the number of features. The true parameter is the normalised all-ones vector.
    """

    noise: tuple[float, float] = (1.0, 20.0)
    dim: int = 10

    @property
    def best(self) -> float:
        """Returns domain one's share under Aitken's weights, where ``noise`` are variances."""
        return self.noise[1] / (self.noise[0] + self.noise[1])


@dataclasses.dataclass(frozen=True)
class GaussianProblem(LinearModel):
    """Holds the settings that sections 5.1 and 5.2 have in common.

    The paper gives neither n, B, T, T₀ nor the estimation sizes.

    Attributes:
        scales: ``C_d``; features of domain ``d`` are N(0, C_d I).
        num_examples: examples a domain, drawn from with replacement; 0 is a fresh stream.
        batch_size: ``B``.
        num_steps: ``T``.
        learning_rate: SGD's step size.
        probe_every: ``T₀ = T₁``, the steps between two probes.
        warmup: fraction of the steps before loss weights move.
        estimation: where losses are estimated:

            - ``train``: the first ``estimation_size`` training points of each domain (section 5.1);
            - ``hold_out_draws`` and ``whole_hold_out``: a fraction ``1 - rho`` of the examples, held out (algorithm 1),
              or ``estimation_size`` points of each domain where examples are a stream;
            - ``fresh``: new points each time.
        estimation_size: points a domain.
        rho: training fraction, for the two kinds of hold-out.
        gradient_size: points a domain drawn anew for ``v_d``; 0 takes the points of the losses.
    """

    dim: int = 1000
    scales: tuple[float, float] = (100.0, 1.0)
    num_examples: int = 2000
    batch_size: int = 16
    num_steps: int = 2000
    learning_rate: float = 5e-5
    probe_every: int = 40
    warmup: float = 0.2
    estimation: Estimation = "train"
    estimation_size: int = 100
    rho: float = 0.9
    gradient_size: int = 32

    @property
    def warmup_rounds(self) -> int:
        """Counts the probes before the loss weights may move."""
        return round(self.warmup * self.num_steps / self.probe_every)


class Batch(NamedTuple):
    """Holds examples.

    Attributes:
        x: ``[n, d]``.
        scale: ``[n]``; the features are ``scale * x``.
        target: ``[n]``.
    """

    x: jax.Array
    scale: jax.Array
    target: jax.Array


class Method(NamedTuple):
    """Holds what a row of a figure's legend stands for.

    Attributes:
        loss_rule: the rule for the loss weights.
        sampling_rule: the rule for the sampling weights.
    """

    loss_rule: WeightRule
    sampling_rule: WeightRule


# (prediction, target) -> loss, elementwise
Loss = Callable[[jax.Array, jax.Array], jax.Array]
# (key, true prediction, noise) -> target
Label = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def truth(dim: int) -> jax.Array:
    """Returns the true parameter, the normalised all-ones vector."""
    return jnp.full((dim,), dim**-0.5, jnp.float32)


def generate(key: jax.Array, problem: GaussianProblem, label: Label, domain_ids: jax.Array) -> Batch:
    """Draws fresh examples of the given domains.

    The normals do not depend on the ids, so that methods share them.
    """
    x_key, label_key = jax.random.split(key)
    x = jax.random.normal(x_key, (domain_ids.shape[0], problem.dim))
    scale = jnp.sqrt(jnp.asarray(problem.scales))[domain_ids]
    target = label(label_key, scale * (x @ truth(problem.dim)), jnp.asarray(problem.noise)[domain_ids])
    return Batch(x, scale, target)


def predict(params: jax.Array, batch: Batch) -> jax.Array:
    """Returns the linear predictions ``[n]``."""
    return batch.scale * (batch.x @ params)


def measure(loss: Loss, params: jax.Array, batch: Batch, domain_ids: jax.Array) -> dict[str, jax.Array]:
    """Measures ``counts``, ``losses``, ``loss_vars`` and ``grad_stds`` of a probe.

    The gradient of one example is ``a x`` with a scalar ``a``, so eq. 15 needs no per-example gradients:
    ``(n - 1) v² = sum a² |x|² - n |mean gradient|²``.
    """
    prediction = predict(params, batch)
    values = loss(prediction, batch.target)
    slopes = batch.scale * jax.grad(lambda u: loss(u, batch.target).sum())(prediction)
    rows = jax.nn.one_hot(domain_ids, 2, axis=0)
    counts = rows.sum(axis=1)
    means = ((rows * slopes) @ batch.x) / counts[:, None]
    squares = rows @ (jnp.square(slopes) * jnp.square(batch.x).sum(axis=1))
    variances = (squares - counts * jnp.square(means).sum(axis=1)) / (counts - 1.0)
    found = signals.moments(values, domain_ids, 2).signals()
    # rounding may leave a variance below 0 where all gradients are the same
    return {**found, "grad_stds": jnp.sqrt(jnp.maximum(variances, 0.0))}


class Source(NamedTuple):
    """Tells where a run's examples come from.

    Attributes:
        draw: ``draw(key, domain_ids)`` gives a training batch.
        probe: ``probe(key)`` gives the points for the losses, ``(batch, domain_ids)``.
        gradient_probe: the same for ``v``, or None where its points are those of the losses.
    """

    draw: Callable
    probe: Callable
    gradient_probe: Callable | None


def stream(key: jax.Array, problem: GaussianProblem, label: Label) -> Source:
    """Returns a source whose batches are all new and whose hold-out is drawn once."""

    def draw(key, domain_ids):
        return generate(key, problem, label, domain_ids)

    def points(key, num):
        ids = jnp.repeat(jnp.arange(2), num)
        return generate(key, problem, label, ids), ids

    held_out = points(key, problem.estimation_size)
    fresh = problem.estimation == "fresh"
    return Source(
        draw=draw,
        probe=(lambda key: points(key, problem.estimation_size)) if fresh else (lambda key: held_out),
        gradient_probe=(lambda key: points(key, problem.gradient_size)) if problem.gradient_size else None,
    )


def data_set(key: jax.Array, problem: GaussianProblem, label: Label) -> Batch:
    """Draws ``num_examples`` of each domain, domain by domain, with the features already scaled."""
    batch = generate(key, problem, label, jnp.repeat(jnp.arange(2), problem.num_examples))
    return Batch(batch.scale[:, None] * batch.x, jnp.ones_like(batch.scale), batch.target)


def finite(data: Batch, problem: GaussianProblem) -> Source:
    """Returns a source that draws batches with replacement from a data set.

    Losses are estimated by one of algorithm 1's readings.
    """
    groups = samplers.partition(np.repeat(np.arange(2), problem.num_examples))
    if problem.estimation in ("hold_out_draws", "whole_hold_out"):
        groups, held_out = samplers.split(groups, problem.rho)
    if problem.estimation == "hold_out_draws":
        rounds = max(problem.num_steps // problem.probe_every, 1)
        choose = probes.hold_out_draws(held_out, [problem.num_examples] * 2, problem.rho, rounds)
    elif problem.estimation == "fresh":
        choose = probes.fresh_draws(groups, problem.estimation_size)
    elif problem.estimation == "whole_hold_out":
        choose = probes.whole_hold_out(held_out)
    else:
        choose = probes.fixed_points(groups, problem.estimation_size)

    def take(indices):
        return jax.tree.map(lambda leaf: leaf[indices], data)

    def chosen(choose):
        def points(key):
            indices, domain_ids = choose(key)
            return take(indices), domain_ids

        return points

    # points that stay the same are gathered once, outside the training loop
    once = chosen(choose)(jax.random.key(0))
    constant = problem.estimation in ("train", "whole_hold_out")
    return Source(
        draw=lambda key, domain_ids: take(samplers.with_replacement(key, groups, domain_ids)),
        probe=(lambda key: once) if constant else chosen(choose),
        gradient_probe=chosen(probes.fresh_draws(groups, problem.gradient_size)) if problem.gradient_size else None,
    )


def train_methods(
    key: jax.Array,
    problem: GaussianProblem,
    methods: Sequence[Method],
    loss: Loss,
    source: Source,
    evaluate: Callable[[jax.Array], dict[str, jax.Array]],
) -> dict[str, jax.Array]:
    """Trains every method from zero on the same random numbers.

    Args:
        key: decides the batches and the probes.
        problem: the settings.
        methods: the figure's methods.
        loss: elementwise loss of a prediction.
        source: the examples.
        evaluate: metrics of the parameters, one scalar each.

    Returns:
        ``evaluate``'s metrics and ``loss_weight``, ``sampling_weight`` (domain one's) and ``probe_losses``, each
        ``[method, round]``, the last one with the domains behind.
    """
    optimizer = optax.sgd(problem.learning_rate)
    step = training.make_step(lambda params, batch: loss(predict(params, batch), batch.target), optimizer)

    def probe_signals(params, key):
        loss_key, gradient_key = jax.random.split(key)
        found = measure(loss, params, *source.probe(loss_key))
        if source.gradient_probe is not None:
            found["grad_stds"] = measure(loss, params, *source.gradient_probe(gradient_key))["grad_stds"]
        return found

    def draw(key, domain_ids):
        return source.draw(key, domain_ids), domain_ids

    def plan(sampling_weights):
        counts = samplers.allocate(sampling_weights, problem.batch_size)
        return samplers.counts_to_ids(counts, problem.batch_size)

    def run(index):
        loss_rule = rules.select([method.loss_rule for method in methods], index)
        sampling_rule = rules.select([method.sampling_rule for method in methods], index)

        def record(state):
            return {
                **evaluate(state.params),
                "loss_weight": state.loss_state.weights[0],
                "sampling_weight": state.sampling_state.weights[0],
            }

        state = training.init_state(jnp.zeros(problem.dim), optimizer, [0.5, 0.5], loss_rule, sampling_rule)
        probe = training.make_probe(probe_signals, loss_rule, sampling_rule)
        return training.fit(
            step,
            probe,
            plan,
            draw,
            state,
            key,
            num_steps=problem.num_steps,
            probe_every=problem.probe_every,
            record=record,
        )[1]

    return jax.vmap(run)(jnp.arange(len(methods)))


def steps(problem: Any) -> list[int]:
    """Returns the number of steps taken at each record, for settings with ``num_steps`` and ``probe_every``."""
    rounds = problem.num_steps // problem.probe_every
    return [problem.probe_every * (r + 1) for r in range(rounds)]
