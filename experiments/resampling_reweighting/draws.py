"""The methods of the real-data experiment: they draw batches uniformly, by spread, by gradient norms or by losses."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from experiments.resampling_reweighting.domains import Problem
from mixjax import grad_norms, objectives, rules, samplers

__all__ = ["Method", "Plan", "Spread", "by_example", "measure", "methods", "uniform", "variance_aware"]

# The share of the draws by loss that is uniform. It keeps every importance weight at most 1 / FLOOR = 10.
FLOOR = 0.1


class Spread(NamedTuple):
    """Holds what the gradients at ``M`` points of each of ``D`` domains tell about their spread.

    Attributes:
        rows: the points, as row numbers of the training set, ``[D, M]``.
        norms: the norms of the gradients at the points, ``[D, M]``.
        stds: the standard deviation of the gradient within each domain, ``[D]``.
        square: the squared norm of the mean gradient over the training set, estimated without bias.
        uniform: ``Tr Σ``, the total variance of the gradient of one example drawn uniformly from the training set.
    """

    rows: jax.Array
    norms: jax.Array
    stds: jax.Array
    square: jax.Array
    uniform: jax.Array


class Method(NamedTuple):
    """Draws batches, and learns from each batch how to draw the next one.

    Attributes:
        scores: the scores of a batch that ``observe`` reads: its ``"losses"``, or its gradient ``"norms"``, which cost
            more.
        start: ``start(loss, norm) -> state`` returns the first state, given the mean loss and the mean gradient norm
            of a few examples.
        draw: ``draw(state, key) -> (indices, weights)`` draws a batch and the weights to multiply its losses with.
        observe: ``observe(state, indices, scores) -> state`` is called after each step.
        probe: ``probe(state, params, key) -> state`` is called once between two records.
        variance: ``variance(state, spread)`` returns ``B Tr Σ``, the batch size times the total variance of the
            gradient estimated from a batch.
    """

    scores: Literal["losses", "norms"]
    start: Callable[[jax.Array, jax.Array], Any]
    draw: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    observe: Callable[[Any, jax.Array, jax.Array], Any] = lambda state, *_: state
    probe: Callable[[Any, Any, jax.Array], Any] = lambda state, *_: state
    variance: Callable[[Any, Spread], jax.Array] = lambda state, spread: spread.uniform


class Plan(NamedTuple):
    """Holds the state of :func:`variance_aware`, which says what the next batches will hold.

    Attributes:
        rule: the state of the rule.
        counts: the number of examples of each domain in a batch, ``[D]``.
        domain_ids: the domain of each example of a batch, ``[B]``.
        weights: the weight of each example of a batch, ``[B]``.
    """

    rule: Any
    counts: jax.Array
    domain_ids: jax.Array
    weights: jax.Array


def measure(key: jax.Array, problem: Problem, params: Any, batch_of: Callable, num: int) -> Spread:
    """Measures the gradients at ``num`` points of each domain, with one backward pass a domain.

    Args:
        key: draws the points, with replacement.
        problem: the domains and the losses.
        params: the parameters at which gradients are taken.
        batch_of: maps indices into the training set to ``(x, y)``.
        num: the number of points of each domain, at least 2.
    """
    count, prior = len(problem.sizes), problem.prior
    rows = samplers.with_replacement(key, problem.groups, jnp.repeat(jnp.arange(count), num)).reshape(count, num)

    def of_domain(rows):
        _, grads, norms = grad_norms.value_grads_and_norms(problem.losses, params, batch_of(rows))
        return grads, norms

    grads, norms = jax.lax.map(of_domain, rows)
    squares = jnp.square(norms).mean(1)
    # Rounding can make the difference slightly negative where a domain's gradients are nearly equal.
    variances = jnp.maximum(squares - jnp.square(grad_norms.norm(grads)), 0.0) * num / (num - 1)
    mean = jax.tree.map(lambda g: jnp.tensordot(prior, g, 1), grads)
    # The square of an estimated mean is too large by the variance of the estimate.
    square = jnp.square(grad_norms.norm(mean, 0)) - jnp.square(prior) @ variances / num
    return Spread(rows, norms, jnp.sqrt(variances), square, prior @ squares - square)


def uniform(problem: Problem, batch_size: int) -> Method:
    """Draws every example of the training set with the same probability, with replacement."""
    n = int(problem.sizes.sum())
    return Method(
        "losses",
        start=lambda loss, norm: (),
        draw=lambda state, key: (jax.random.randint(key, (batch_size,), 0, n), jnp.ones(batch_size)),
    )


def variance_aware(problem: Problem, batch_size: int, batch_of: Callable, floor: jax.Array, num_probed: int) -> Method:
    """Draws exact counts of each domain by :func:`mixjax.rules.variance_aware`, which probes of each domain feed.

    Losses are weighted by the stratified estimator.
    """
    prior, rule = problem.prior, rules.floor(rules.variance_aware(), floor)

    def plan(state):
        counts = samplers.allocate(state.weights, batch_size)
        ids = samplers.counts_to_ids(counts, batch_size)
        return Plan(state, counts, ids, batch_size * objectives.example_weights(prior, ids, counts))

    def probe(state, params, key):
        stds = measure(key, problem, params, batch_of, num_probed).stds
        counts = jnp.full(prior.shape, num_probed)
        return plan(rule.update(state.rule, counts=counts, loss_weights=prior, grad_stds=stds))

    return Method(
        "losses",
        start=lambda loss, norm: plan(rule.init(prior)),
        draw=lambda state, key: (samplers.with_replacement(key, problem.groups, state.domain_ids), state.weights),
        probe=probe,
        variance=lambda state, spread: batch_size * jnp.sum(jnp.square(prior * spread.stds) / state.counts),
    )


def by_example(
    problem: Problem,
    batch_size: int,
    sampler: samplers.ExampleSampler,
    scores: Literal["losses", "norms"],
    weighted: bool = True,
) -> Method:
    """Draws by an example sampler, which learns from the scores that each batch's backward pass gives anyway.

    Where the draws are not weighted back to the mean loss, the estimate is one of another objective, and ``variance``
    is NaN.
    """
    n = int(problem.sizes.sum())

    def draw(state, key):
        indices, weights = sampler.sample(state, key, batch_size)
        return indices, weights if weighted else jnp.ones(batch_size)

    def variance(state, spread):
        log_probs = sampler.log_probs(state, spread.rows.reshape(-1)).reshape(spread.rows.shape)
        # The points of a domain are drawn uniformly, so that weighting their squared norms by 1 / q gives the mean
        # square of an estimate that draws by q.
        squares = jnp.exp(-log_probs) / n * jnp.square(spread.norms)
        return problem.prior @ squares.mean(1) - spread.square if weighted else jnp.nan

    return Method(
        scores,
        start=lambda loss, norm: sampler.init(norm if scores == "norms" else loss),
        draw=draw,
        observe=sampler.update,
        variance=variance,
    )


def methods(
    problem: Problem, batch_size: int, batch_of: Callable, strengths: Mapping[str, jax.Array], num_probed: int
) -> dict[str, Method]:
    """Builds all methods of the experiment and returns them by name.

    Args:
        problem: the domains and the losses of the training set.
        batch_size: ``B``, at least the number of domains.
        batch_of: maps indices into the training set to ``(x, y)``.
        strengths: the hyperparameter of each method: the floor for ``va``, ``rr`` and ``switch``, and beta, in 1 /
            nats, for ``by_loss`` and ``hardness``.
        num_probed: the number of points of each domain in a probe.
    """
    n = int(problem.sizes.sum())

    def by_norm(name):
        return samplers.proportional(n, floor=strengths[name])

    return {
        "sgd": uniform(problem, batch_size),
        "va": variance_aware(problem, batch_size, batch_of, strengths["va"], num_probed),
        "rr": by_example(problem, batch_size, by_norm("rr"), "norms"),
        "switch": by_example(problem, batch_size, samplers.when_it_pays(by_norm("switch")), "norms"),
        "by_loss": by_example(problem, batch_size, samplers.hardness(n, strengths["by_loss"], floor=FLOOR), "losses"),
        "hardness": by_example(
            problem, batch_size, samplers.hardness(n, strengths["hardness"]), "losses", weighted=False
        ),
    }
