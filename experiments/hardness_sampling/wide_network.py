"""Section 12.1's network, trained by SGD with hardness weighted sampling on exact and on stale losses (paper 004)."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from mixjax import objectives, rules, samplers

TARGET = 0.8  # absolute value of the labels; outputs are in (-1, 1)


@dataclasses.dataclass(frozen=True)
class WideReLU:
    """The settings; the theorem gives none of them.

    Attributes:
        num_examples: ``n``, on the unit sphere, with labels of random sign.
        input_dim: dimension of an example.
        output_dim: ``d``.
        depth: ``L``, number of ``m x m`` layers; the paper counts ``L + 2`` in all.
        width: ``m``; the theorem wants an unnamed polynomial of ``n``.
        batch_size: ``b``.
        num_steps: the horizon.
        num_records: evenly spaced times at which the true gradient is measured; the last one is the horizon.
        epsilon: the gradient norm to reach, in units of the seed's first one under ``beta = 0``.
        beta: of the robust loss, in 1 / loss.
        step_size: of SGD, in units of ``d / m``.
        shown_step: the value of ``step_size`` at which curves are drawn and convergence is judged.
        raised: how much a loss is raised to see what theorem 3.2 says.
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
    """Unit vectors ``[n, input]`` and labels ``[n, d]``, ``TARGET`` with random signs."""
    input_key, label_key = jax.random.split(key)
    x = jax.random.normal(input_key, (config.num_examples, config.input_dim))
    signs = jax.random.rademacher(label_key, (config.num_examples, config.output_dim), jnp.float32)
    return x / jnp.linalg.norm(x, axis=1, keepdims=True), TARGET * signs


def init(key: jax.Array, config: WideReLU) -> list[jax.Array]:
    """Assumption 12.1: normal weights of variance ``2 / m``, in the last layer ``1 / d``; no biases."""
    sizes = [config.input_dim, *[config.width] * (config.depth + 1)]
    keys = jax.random.split(key, len(sizes))
    scale = math.sqrt(2 / config.width)
    hidden = [scale * jax.random.normal(key, shape) for key, *shape in zip(keys, sizes, sizes[1:], strict=False)]
    last = jax.random.normal(keys[-1], (config.width, config.output_dim)) / math.sqrt(config.output_dim)
    return [*hidden, last]


def losses(params: list[jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    """``|tanh(h) - y|² / 2`` of each example: bounded and smooth in the outputs ``h``, as assumption 12.2 asks."""
    for weights in params[:-1]:
        x = jax.nn.relu(x @ weights)
    return 0.5 * jnp.sum(jnp.square(jnp.tanh(x @ params[-1]) - y), axis=-1)


def norm(tree) -> jax.Array:
    """Euclidean norm over all leaves."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def uniform(config: WideReLU) -> jax.Array:
    """The paper's ``p_train``."""
    return jnp.full(config.num_examples, 1 / config.num_examples)


def train_both(key: jax.Array, config: WideReLU) -> dict[str, jax.Array]:
    """Trains with exact and with stale losses.

    Returns:
        ``grad_norm``: the norm of the robust loss' gradient, in units of the first one under ``beta = 0``; ``robust``:
        the robust loss; ``distance``: total variation between the probabilities drawn from and ``p̄(L)``; all
        ``[method, record]``, the first record at the start.
    """
    data_key, init_key, batch_key = jax.random.split(key, 3)
    x, y = data_set(data_key, config)
    start, prior = init(init_key, config), uniform(config)
    rate = config.step_size * config.output_dim / config.width
    rule, sampler = rules.dro(config.beta), samplers.hardness(config.num_examples, config.beta)
    unit = norm(jax.grad(lambda params: losses(params, x, y).mean())(start))

    def probabilities(params):
        state = rule.update(rule.init(prior), counts=jnp.ones_like(prior), losses=losses(params, x, y))
        return state.weights

    def draw_exact(key, params, _):
        return samplers.multinomial(key, probabilities(params), config.batch_size)

    def draw_stale(key, _, history):
        return sampler.sample(history, key, config.batch_size)[0]

    def run(draw, refresh, drawn_from, history):
        def step(carry, key):
            params, history = carry
            indices = draw(key, params, history)

            def objective(params):
                batch = losses(params, x[indices], y[indices])
                return batch.mean(), batch

            grads, batch = jax.grad(objective, has_aux=True)(params)
            params = jax.tree.map(lambda p, g: p - rate * g, params, grads)
            return (params, refresh(history, indices, batch)), None

        def measure(params, history):
            def robust(params):
                return objectives.robust_loss(losses(params, x, y), prior, config.beta)

            value, grads = jax.value_and_grad(robust)(params)
            distance = 0.5 * jnp.sum(jnp.abs(drawn_from(params, history) - probabilities(params)))
            return {"grad_norm": norm(grads) / unit, "robust": value, "distance": distance}

        def stretch(carry, keys):
            carry = jax.lax.scan(step, carry, keys)[0]
            return carry, measure(*carry)

        keys = jax.random.split(batch_key, config.num_steps).reshape(config.num_records, -1)
        records = jax.lax.scan(stretch, (start, history), keys)[1]
        return jax.tree.map(lambda a, b: jnp.append(a, b), measure(start, history), records)

    exact = run(draw_exact, lambda history, *_: history, lambda params, _: probabilities(params), ())
    history = sampler.init(losses(start, x, y))
    stale = run(draw_stale, sampler.update, lambda _, history: jnp.exp(sampler.log_probs(history)), history)
    return jax.tree.map(lambda *rows: jnp.stack(rows), exact, stale)


def laws(key: jax.Array, config: WideReLU) -> dict[str, jax.Array]:
    """Lemma 3.2 and theorem 3.2 at the start of training, for the KL and the chi-squared divergence.

    Returns:
        ``law_error``: the slope of R along ``E_p̄[∇ loss]``, by central differences of R, against that vector's norm,
        relative, ``[divergence]``; ``own_change`` and ``other_change``: the least change of ``p_i`` and the largest of
        any ``p_j`` when ``L_i`` is raised, over all ``i``, ``[divergence]``.
    """
    data_key, init_key, _ = jax.random.split(key, 3)
    x, y = data_set(data_key, config)
    params, prior = init(init_key, config), uniform(config)
    values = losses(params, x, y)

    def of(divergence):
        def weights(values):
            return objectives.robust_weights(values, prior, config.beta, divergence)

        p = weights(values)
        mean_grad = jax.grad(lambda params: p @ losses(params, x, y))(params)
        length = norm(mean_grad)
        step = 0.01 / (1.0 + config.beta) / jnp.square(length)  # R moves by 0.01 / (1 + beta) to each side

        def moved(sign):
            there = jax.tree.map(lambda a, g: a + sign * step * g, params, mean_grad)
            return objectives.robust_loss(losses(there, x, y), prior, config.beta, divergence)

        slope = (moved(1.0) - moved(-1.0)) / (2 * step * length)
        own = jnp.eye(config.num_examples, dtype=bool)
        change = jax.vmap(weights)(values + config.raised * own) - p
        return {
            "law_error": jnp.abs(slope / length - 1.0),
            "own_change": jnp.where(own, change, jnp.inf).min(),
            "other_change": jnp.where(own, -jnp.inf, change).max(),
        }

    return jax.tree.map(lambda *rows: jnp.stack(rows), of("kl"), of("chi2"))
