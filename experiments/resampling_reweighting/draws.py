"""Ways to draw a batch for the mean loss: uniformly, by the domains' spread, by gradient norms, by losses."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from experiments.resampling_reweighting.domains import Problem
from mixjax import grad_norms, objectives, rules, samplers

FLOOR = 0.1  # share of the draws by loss that is uniform, so that no weight exceeds 10


class Spread(NamedTuple):
    """Gradients at ``M`` points of each domain.

    Attributes:
        rows: the points, ``[D, M]``.
        norms: their gradients' norms, ``[D, M]``.
        stds: the gradient's spread in each domain, ``[D]``.
        square: the squared norm of the mean gradient over the training set, estimated without bias.
        uniform: ``Tr Σ`` of one example drawn uniformly from the training set.
    """

    rows: jax.Array
    norms: jax.Array
    stds: jax.Array
    square: jax.Array
    uniform: jax.Array


class Method(NamedTuple):
    """What a method draws, and what it learns from it.

    Attributes:
        scores: what ``observe`` is told of a batch: its ``"losses"``, or its gradient ``"norms"``, which cost more.
        start: ``start(loss, norm) -> state``, given the means of a few examples'.
        draw: ``draw(state, key) -> (indices, weights)``: a batch, and what to multiply its losses with.
        observe: ``observe(state, indices, scores) -> state``, after each step.
        probe: ``probe(state, params, key) -> state``, now and then.
        variance: ``variance(state, spread)``, ``B Tr Σ`` of the mean over a batch of ``B``.
    """

    scores: Literal["losses", "norms"]
    start: Callable[[jax.Array, jax.Array], Any]
    draw: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    observe: Callable[[Any, jax.Array, jax.Array], Any] = lambda state, *_: state
    probe: Callable[[Any, Any, jax.Array], Any] = lambda state, *_: state
    variance: Callable[[Any, Spread], jax.Array] = lambda state, spread: spread.uniform


class Plan(NamedTuple):
    """State of :func:`variance_aware`.

    Attributes:
        rule: the rule's state.
        counts: ``[D]``, examples of each domain in a batch.
        domain_ids: ``[B]``.
        weights: ``[B]``.
    """

    rule: Any
    counts: jax.Array
    domain_ids: jax.Array
    weights: jax.Array


def measure(key: jax.Array, problem: Problem, params: Any, batch_of: Callable, num: int) -> Spread:
    """Gradients at ``num`` points of each domain, drawn with replacement, by one backward pass a domain.

    Args:
        key: of the draws.
        problem: whose ``losses`` and domains.
        params: where.
        batch_of: indices into the training set to ``(x, y)``.
        num: points of each domain, at least 2.
    """
    count, prior = len(problem.sizes), problem.prior
    rows = samplers.with_replacement(key, problem.groups, jnp.repeat(jnp.arange(count), num)).reshape(count, num)

    def of_domain(rows):
        _, grads, norms = grad_norms.value_grads_and_norms(problem.losses, params, batch_of(rows))
        return grads, norms

    grads, norms = jax.lax.map(of_domain, rows)
    squares = jnp.square(norms).mean(1)
    variances = jnp.maximum(squares - jnp.square(grad_norms.norm(grads)), 0.0) * num / (num - 1)
    mean = jax.tree.map(lambda g: jnp.tensordot(prior, g, 1), grads)
    square = jnp.square(grad_norms.norm(mean, 0)) - jnp.square(prior) @ variances / num
    return Spread(rows, norms, jnp.sqrt(variances), square, prior @ squares - square)


def uniform(problem: Problem, batch_size: int) -> Method:
    """Every example of the training set as likely, with replacement."""
    n = int(problem.sizes.sum())
    return Method(
        "losses",
        start=lambda loss, norm: (),
        draw=lambda state, key: (jax.random.randint(key, (batch_size,), 0, n), jnp.ones(batch_size)),
    )


def variance_aware(problem: Problem, batch_size: int, batch_of: Callable, floor: jax.Array, num_probed: int) -> Method:
    """:func:`mixjax.rules.variance_aware` with the stratified estimator and exact counts, by probes of each domain."""
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
    problem: Problem, batch_size: int, sampler: samplers.ExampleSampler, scores: str, weighted: bool = True
) -> Method:
    """An example sampler fed with what the batch's own pass tells; where it is not weighted, ``variance`` is NaN."""
    n = int(problem.sizes.sum())

    def draw(state, key):
        indices, weights = sampler.sample(state, key, batch_size)
        return indices, weights if weighted else jnp.ones(batch_size)

    def variance(state, spread):
        log_probs = sampler.log_probs(state, spread.rows.reshape(-1)).reshape(spread.rows.shape)
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
    """All of them, by name.

    Args:
        problem: the training set's domains and losses.
        batch_size: ``B``, at least the number of domains.
        batch_of: indices into the training set to ``(x, y)``.
        strengths: ``va``, ``rr`` and ``switch``: the floor; ``by_loss`` and ``hardness``: beta, in 1 / nats.
        num_probed: points of each domain in a probe.
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
