"""Trains by jitted JAX steps in a Python loop, one run at a time, as one writes it without a sweep."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.loss_and_sampling_weights import glm, linear
from mixjax import probes, samplers, training

__all__ = ["make"]


def make(config: linear.Linear) -> dict[str, Callable[[glm.Batch, jax.Array], dict[str, np.ndarray]]]:
    """Returns for each method a function ``train(data, key)`` that does what ``linear.train_on`` does for the method.

    The state is donated, the data are an argument, and the next round's counts come out of the probe. Each method has
    two compiled functions, of which figure 1's settings call one 2000 times and the other 50 times. Nothing is read
    back before the end.
    """
    groups = samplers.partition(np.repeat(np.arange(2), config.num_examples))
    points, point_ids = probes.fixed_points(groups, config.estimation_size)(jax.random.key(0))
    fresh = probes.fresh_draws(groups, config.gradient_size)
    optimizer = optax.sgd(config.learning_rate)
    rounds = config.num_steps // config.probe_every
    weighted_step = training.make_step(
        lambda params, batch: linear.squared_error(glm.predict(params, batch), batch.target), optimizer
    )

    def take(data, rows):
        return jax.tree.map(lambda leaf: leaf[rows], data)

    @jax.jit
    def plan(state):
        counts = samplers.allocate(state.sampling_state.weights, config.batch_size)
        return samplers.counts_to_ids(counts, config.batch_size)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, ids, key, data):
        rows = samplers.with_replacement(jax.random.fold_in(key, state.step), groups, ids)
        return weighted_step(state, take(data, rows), ids)[0]

    def trainer(method):
        @functools.partial(jax.jit, donate_argnums=0)
        def probe(state, key, probe_data, data):
            def measure(params, key):
                rows, ids = fresh(jax.random.split(key)[1])
                found = glm.measure(linear.squared_error, params, probe_data, point_ids)
                gradients = glm.measure(linear.squared_error, params, take(data, rows), ids)
                return {**found, "grad_stds": gradients["grad_stds"]}

            state = training.make_probe(measure, method.loss_rule, method.sampling_rule)(
                state, jax.random.fold_in(key, state.step)
            )
            error = jnp.linalg.norm(state.params - glm.truth(config.dim))
            return state, plan(state), (error, state.loss_state.weights[0], state.sampling_state.weights[0])

        def train(data, key):
            # the keys that train_on and fit derive, so that all sides see the same random numbers
            step_key, probe_key = jax.random.split(jax.random.split(key)[1])
            probe_data, records = take(data, points), []
            state = training.init_state(
                jnp.zeros(config.dim), optimizer, [0.5, 0.5], method.loss_rule, method.sampling_rule
            )
            # the rules' states share buffers, which cannot be donated twice
            state = jax.tree.map(jnp.copy, state)
            ids = plan(state)
            for t in range(config.num_steps):
                state = step(state, ids, step_key, data)
                if (t + 1) % config.probe_every == 0:
                    state, ids, record = probe(state, probe_key, probe_data, data)
                    records.append(record)
            error, loss_weight, sampling_weight = np.array(jax.device_get(records)).reshape(rounds, 3).T
            return {
                "params": np.asarray(state.params),
                "error": error,
                "loss_weight": loss_weight,
                "sampling_weight": sampling_weight,
            }

        return train

    return {name: trainer(method) for name, method in zip(linear.METHODS, linear.methods(config), strict=True)}
