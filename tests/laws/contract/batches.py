"""The functions of mixjax that take a batch or weights, each called on one example: the laws go over these tables."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mixjax
from mixjax import grad_norms, probes, resampling, rules, samplers, signals, training
from mixjax.objectives import example_weights

SIZE = 16


def weights_of(num_domains: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(num_domains, 3.0)).astype(np.float32)


def batch(num_domains: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    tokens = rng.exponential(size=(SIZE, 4)).astype(np.float32)
    return {
        "losses": rng.exponential(size=SIZE).astype(np.float32),
        "tokens": tokens,
        "mask": rng.random(tokens.shape) > 0.3,
        "ids": rng.integers(-1, num_domains, SIZE),
        "inside": rng.integers(0, num_domains, SIZE),
    }


def loss_of(batch, num_domains, **kwargs):
    rule = rules.erma(0.3, 0.5)
    state = rule.init(jnp.ones(num_domains))

    def objective(losses):
        return mixjax.weighted_loss(rule, state, losses, batch["ids"], **kwargs)

    (value, after), grads = jax.value_and_grad(objective, has_aux=True)(batch["losses"])
    return value, after.weights, grads


def token_loss_of(batch, num_domains):
    weights = jnp.asarray(weights_of(num_domains))

    def objective(losses):
        return mixjax.weighted_loss(None, weights, losses, batch["ids"], mask=batch["mask"])[0]

    return jax.value_and_grad(objective)(batch["tokens"])


def without_replacement(batch, num_domains):
    state = samplers.start_epochs(jax.random.key(0), num_domains)
    return samplers.without_replacement(state, groups_of(num_domains), batch["inside"])


def sums_of(batch, num_domains):
    total, per_example = signals.domain_sums(batch["ids"], num_domains)
    return total(batch["losses"]), total(batch["tokens"]), per_example(jnp.arange(num_domains, dtype=jnp.float32))


def groups_of(num_domains):
    return samplers.partition(np.arange(5 * num_domains) % num_domains)


# Each takes a batch spread over the mesh.
OF_BATCHES = {
    "weighted_loss": loss_of,
    "weighted_loss, Horvitz-Thompson": lambda b, D: loss_of(
        b, D, estimator="horvitz_thompson", sampling_weights=weights_of(D)
    ),
    "weighted_loss of tokens": token_loss_of,
    "moments": lambda b, D: signals.moments(b["losses"], b["ids"], D),
    "domain_sums": sums_of,
    "example_weights": lambda b, D: example_weights(weights_of(D), b["ids"], jnp.ones(D), mask=b["mask"]),
    "with_replacement": lambda b, D: samplers.with_replacement(jax.random.key(0), groups_of(D), b["inside"]),
    "without_replacement": without_replacement,
    "partitions on the mesh": lambda b, D: samplers.with_replacement(
        jax.random.key(0), samplers.Partition(b["inside"], jnp.arange(D) % 4, jnp.full(D, 3)), b["inside"]
    ),
}


# Each takes weights, which may be spread over the mesh.
OF_WEIGHTS = {
    "allocate": lambda b, D: samplers.allocate(b["weights"], 2 * D),
    "allocate to ids": lambda b, D: samplers.counts_to_ids(samplers.allocate(b["weights"], 2 * D), 2 * D),
    "systematic": lambda b, D: samplers.systematic(jax.random.key(0), b["weights"], SIZE),
    "stratified": lambda b, D: samplers.stratified(jax.random.key(0), b["weights"], SIZE),
    "multinomial": lambda b, D: samplers.multinomial(jax.random.key(0), b["weights"], SIZE),
    "weighted_loss": lambda b, D: mixjax.weighted_loss(None, b["weights"], jnp.ones(D), jnp.arange(D))[0],
}


def _squared(theta, x):
    return jnp.square(theta - x).sum()


def _microbatches(b, D):
    grads = jnp.reshape(b["tokens"], (2, -1, 4))[:, :D]
    return signals.microbatch_grad_stds(grads, jnp.arange(2 * D).reshape(2, D))


def _merged(b, D):
    first, second = signals.moments(b["losses"], b["ids"], D), signals.moments(b["losses"][:3], b["ids"][:3], D)
    both = jax.tree.map(lambda *rows: jnp.stack(rows), first, second)
    merged = signals.merge(first, second)
    return merged, merged.signals(), jax.vmap(lambda m: signals.psum(m, "i"), axis_name="i")(both)


def _training(b, D):
    rule, optimizer = rules.erma(0.3, 0.5), optax.sgd(0.1)

    def measure(theta, key):
        indices, ids = source(key)
        return signals.moments(jnp.square(theta - b["losses"][indices % SIZE]), ids, D).signals()

    source = probes.fresh_draws(groups_of(D), 2)
    step = training.make_step(lambda theta, batch: jnp.square(theta - batch), optimizer)
    return training.fit(
        step,
        training.make_probe(measure, rule, rules.fixed()),
        lambda q: samplers.counts_to_ids(samplers.allocate(q, 2 * D), 2 * D),
        lambda key, ids: (jax.random.normal(key, ids.shape, jnp.float32), ids),
        training.init_state(jnp.float32(0.5), optimizer, jnp.ones(D), rule, rules.fixed()),
        jax.random.key(0),
        num_steps=5,
        probe_every=2,
        record=lambda state: state.loss_state.weights,
    )


def _probes(b, D):
    groups = samplers.partition(np.arange(5 * D) % D)
    sources = [
        probes.fixed_points(groups, 3),
        probes.whole_hold_out(groups),
        probes.hold_out_draws(groups, [25] * D, rho=0.8, rounds=2),
        probes.fresh_draws(groups, 2),
    ]
    return [source(jax.random.key(0)) for source in sources]


# What is measured on a batch but is not a function of one array spread like it.
OF_OTHERS = {
    "merge and psum": _merged,
    "grad_stds": lambda b, D: signals.grad_stds(_squared, jnp.zeros(4), b["tokens"], b["ids"], D),
    "microbatch_grad_stds": _microbatches,
    "by_domain": lambda b, D: grad_norms.by_domain(b["losses"], b["ids"], D),
    "gains": lambda b, D: resampling.gains(_squared, jnp.zeros(4), b["tokens"], b["ids"], D, 4),
    "training": _training,
    "probes": _probes,
}
