"""Trains the network of paper 004, section 12.1, with hardness weighted sampling on exact and on stale losses."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mixjax import rules, samplers

__all__ = ["TARGET", "WideReLU", "data_set", "init", "laws", "losses", "norm", "train_both", "uniform"]

# The absolute value of the labels. Outputs are in (-1, 1), so that a loss of 0 can be reached.
TARGET = 0.8


@dataclasses.dataclass(frozen=True)
class WideReLU:
    """Holds the settings of the experiment. The theorem gives none of them.

    Attributes:
        num_examples: ``n``, the number of examples. They lie on the unit sphere and have labels of random sign.
        input_dim: the dimension of an example.
        output_dim: ``d``, the dimension of the output.
        depth: ``L``, the number of ``m x m`` layers. The paper counts ``L + 2`` layers in all.
        width: ``m``, the width of a layer. The theorem asks for a polynomial of ``n`` that it does not name.
        batch_size: ``b``, the number of examples in a batch.
        num_steps: the number of steps.
        num_records: the number of evenly spaced times at which the true gradient is measured. The last one is the end.
        epsilon: the gradient norm to be reached, in units of the seed's first gradient norm under ``beta = 0``.
        beta: the inverse temperature of the robust loss, in 1 / loss.
        step_size: the learning rate of SGD, in units of ``d / m``.
        shown_step: the value of ``step_size`` at which curves are drawn and convergence is judged.
        raised: the amount by which a loss is raised to test theorem 3.2.
    """

    num_examples: int = 32
    input_dim: int = 10
    output_dim: int = 1
    depth: int = 1
    width: int = 256
    batch_size: int = 4
    num_steps: int = 500
    num_records: int = 20
    epsilon: float = 0.05
    beta: float = 1.0
    step_size: float = 4.0
    shown_step: float = 4.0
    raised: float = 0.1


def data_set(key: jax.Array, config: WideReLU) -> tuple[jax.Array, jax.Array]:
    """Draws unit vectors ``[n, input]`` and labels ``[n, d]``, which are ``TARGET`` with random signs."""
    input_key, label_key = jax.random.split(key)
    x = jax.random.normal(input_key, (config.num_examples, config.input_dim))
    signs = jax.random.rademacher(label_key, (config.num_examples, config.output_dim), jnp.float32)
    return x / jnp.linalg.norm(x, axis=1, keepdims=True), TARGET * signs


def init(key: jax.Array, config: WideReLU) -> list[jax.Array]:
    """Draws the weights of assumption 12.1: normal with variance ``2 / m``, and ``1 / d`` in the last layer."""
    sizes = [config.input_dim, *(config.width for _ in range(config.depth + 1))]
    keys = jax.random.split(key, len(sizes))
    scale = math.sqrt(2 / config.width)
    hidden = [scale * jax.random.normal(key, shape) for key, *shape in zip(keys, sizes, sizes[1:], strict=False)]
    last = jax.random.normal(keys[-1], (config.width, config.output_dim)) / math.sqrt(config.output_dim)
    return [*hidden, last]


def losses(params: list[jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the loss ``|tanh(h) - y|² / 2`` of each example, where ``h`` are the outputs.

    It is bounded and smooth in the outputs, as assumption 12.2 asks.
    """
    for weights in params[:-1]:
        x = jax.nn.relu(x @ weights)
    return 0.5 * jnp.sum(jnp.square(jnp.tanh(x @ params[-1]) - y), axis=-1)


def norm(tree) -> jax.Array:
    """Returns the Euclidean norm over all leaves of a tree."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def uniform(config: WideReLU) -> jax.Array:
    """Returns the paper's ``p_train``, the uniform distribution over the examples."""
    return jnp.full(config.num_examples, 1 / config.num_examples)


class Drawing(NamedTuple):
    """Draws batches by probabilities that follow the losses.

    Attributes:
        start: the first history of losses; empty where none is kept.
        draw: ``draw(key, params, history) -> indices`` draws a batch.
        refresh: ``refresh(history, indices, losses) -> history`` takes a batch's losses into the history.
        drawn_from: ``drawn_from(params, history)`` returns the probabilities ``[n]`` of the next draw.
    """

    start: Any
    draw: Callable
    refresh: Callable
    drawn_from: Callable


def train_both(key: jax.Array, config: WideReLU) -> dict[str, jax.Array]:
    """Trains the network twice from one start, with exact and with stale losses.

    Returns:
        A dict of arrays ``[method, record]``, whose first record is made at the start:

        - ``grad_norm``, the norm of the robust loss's gradient, in units of the first norm under ``beta = 0``.
        - ``robust``, the robust loss.
        - ``distance``, the total variation distance between the probabilities that are drawn from and the robust
          probabilities ``p̄(L)`` of the losses as they are.
    """
    data_key, init_key, batch_key = jax.random.split(key, 3)
    x, y = data_set(data_key, config)
    start, prior = init(init_key, config), uniform(config)
    rule, sampler = rules.dro(config.beta), samplers.hardness(config.num_examples, config.beta)
    unit = norm(jax.grad(lambda params: losses(params, x, y).mean())(start))

    def probabilities(params):
        state = rule.update(rule.init(prior), counts=jnp.ones_like(prior), losses=losses(params, x, y))
        return state.weights

    def measure(params, drawn_from):
        def robust(params):
            return rules.robust_loss(losses(params, x, y), prior, config.beta)

        value, grads = jax.value_and_grad(robust)(params)
        distance = 0.5 * jnp.sum(jnp.abs(drawn_from - probabilities(params)))
        return {"grad_norm": norm(grads) / unit, "robust": value, "distance": distance}

    exact = Drawing(
        start=(),
        draw=lambda key, params, history: samplers.multinomial(key, probabilities(params), config.batch_size),
        refresh=lambda history, indices, losses: history,
        drawn_from=lambda params, history: probabilities(params),
    )
    stale = Drawing(
        start=sampler.init(losses(start, x, y)),
        draw=lambda key, params, history: sampler.sample(history, key, config.batch_size)[0],
        refresh=sampler.update,
        drawn_from=lambda params, history: jnp.exp(sampler.log_probs(history)),
    )
    records = [_train(batch_key, config, (x, y), start, drawing, measure) for drawing in (exact, stale)]
    return jax.tree.map(lambda *rows: jnp.stack(rows), *records)


def _train(key, config: WideReLU, examples, start, drawing: Drawing, measure: Callable) -> dict[str, jax.Array]:
    """Trains the network with one way of drawing, and returns what ``measure`` finds at every record."""
    x, y = examples
    rate = config.step_size * config.output_dim / config.width

    def step(carry, key):
        params, history = carry
        indices = drawing.draw(key, params, history)

        def objective(params):
            batch = losses(params, x[indices], y[indices])
            return batch.mean(), batch

        grads, batch = jax.grad(objective, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - rate * g, params, grads)
        return (params, drawing.refresh(history, indices, batch)), None

    def record(params, history):
        return measure(params, drawing.drawn_from(params, history))

    def stretch(carry, keys):
        carry = jax.lax.scan(step, carry, keys)[0]
        return carry, record(*carry)

    keys = jax.random.split(key, config.num_steps).reshape(config.num_records, -1)
    records = jax.lax.scan(stretch, (start, drawing.start), keys)[1]
    return jax.tree.map(lambda a, b: jnp.append(a, b), record(start, drawing.start), records)


def laws(key: jax.Array, config: WideReLU) -> dict[str, jax.Array]:
    """Measures lemma 3.2 and theorem 3.2 at the start of training, for the KL and the chi-squared divergence.

    Returns:
        A dict of arrays ``[divergence]``:

        - ``law_error``, the relative error of lemma 3.2. By the lemma, the slope of the robust loss R along
          ``E_p̄[∇ loss]`` equals the norm of that vector. The slope is taken by central differences of R.
        - ``own_change``, the least change of any ``p_i`` when ``L_i`` is raised.
        - ``other_change``, the largest change of any ``p_j`` when ``L_i`` is raised, for j different from i.
    """
    data_key, init_key, _ = jax.random.split(key, 3)
    x, y = data_set(data_key, config)
    params, prior = init(init_key, config), uniform(config)
    values = losses(params, x, y)

    def measured(divergence):
        def weights(values):
            return rules.robust_weights(values, prior, config.beta, divergence)

        p = weights(values)
        mean_grad = jax.grad(lambda params: p @ losses(params, x, y))(params)
        length = norm(mean_grad)
        # This step moves R by about 0.01 / (1 + beta) to each side: enough for float32, and little enough for a slope.
        step = 0.01 / (1.0 + config.beta) / jnp.square(length)

        def moved(sign):
            there = jax.tree.map(lambda a, g: a + sign * step * g, params, mean_grad)
            return rules.robust_loss(losses(there, x, y), prior, config.beta, divergence)

        slope = (moved(1.0) - moved(-1.0)) / (2 * step * length)
        own = jnp.eye(config.num_examples, dtype=bool)
        change = jax.vmap(weights)(values + config.raised * own) - p
        return {
            "law_error": jnp.abs(slope / length - 1.0),
            "own_change": jnp.where(own, change, jnp.inf).min(),
            "other_change": jnp.where(own, -jnp.inf, change).max(),
        }

    return jax.tree.map(lambda *rows: jnp.stack(rows), measured("kl"), measured("chi2"))
