"""No rule or wrapper has a bad weight in 1e5 updates with the worst signals there are, from one domain to 300."""

import functools
import itertools

import jax
import numpy as np
import pytest

from mixjax.types import SIGNALS
from tests.laws.contract.cases import CASES

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

RUNS, UPDATES = 96, 16
FLOAT = np.finfo(np.float32)
POSITIVE = np.float32([1e-45, FLOAT.tiny, 1e-30, 1e-12, 1e-3, 1.0, 1.0 + FLOAT.eps, 7.0, 1e6, 1e19, 1e30, FLOAT.max])
HOSTILE = np.concatenate([POSITIVE, -POSITIVE, np.float32([0.0, -0.0, np.nan, np.inf, -np.inf])])
# Every rule with a few domains, and with one other number of domains.
PROBLEMS = [*((name, 7) for name in CASES), *zip(CASES, itertools.cycle([1, 2, 33, 300]), strict=False)]


def simplex_points(rng, shape):
    """Points of the simplex, many entries of which are zero, denormal or nearly everything."""
    raw = 10.0 ** rng.uniform(-44, 0, shape) * rng.choice([0.0, 1.0, 1.0, 1e20], shape)
    raw[..., 0] += raw.max(axis=-1) == 0
    return (raw / raw.sum(axis=-1, keepdims=True)).astype(np.float32)


def hostile_inputs(rng, size):
    """A prior for each run, and signals for each update of it."""
    shape = (RUNS, UPDATES, size)
    signals = {}
    for name in SIGNALS:
        # A few values at once where everything else is harmless, or nothing that is harmless.
        wild = rng.random((RUNS, UPDATES, 1)) < rng.choice([0.1, 1.0], (RUNS, 1, 1))
        extreme = np.where(rng.random(shape) < 0.5, rng.choice(HOSTILE, shape), rng.choice([-1, 1], shape))
        extreme = extreme * np.float32(10.0) ** rng.uniform(-8, 8, shape).astype(np.float32)
        signals[name] = np.where(wild, extreme, rng.uniform(0.1, 3.0, shape)).astype(np.float32)
    for name in ("loss_weights", "sampling_weights"):
        signals[name] = simplex_points(rng, shape)
    signals["counts"] = rng.choice(np.int32([0, 1, 1, 9, 2**31 - 1]), shape)
    return simplex_points(rng, (RUNS, size)), signals


@functools.partial(jax.jit, static_argnums=0)
def run(rule, priors, signals):
    def one(prior, signals):
        def step(state, row):
            state = rule.update(state, **row)
            return state, state.weights

        return jax.lax.scan(step, rule.init(prior), signals)

    return jax.vmap(one)(priors, signals)


@pytest.mark.parametrize(("name", "size"), PROBLEMS)
def test_no_update_makes_a_bad_weight(name, size):
    with np.errstate(all="ignore"):
        priors, signals = hostile_inputs(np.random.default_rng(size), size)
    if name.startswith("cap"):
        priors = np.maximum(priors, FLOAT.tiny)  # the limits leave no room for all weight on one domain
    states, weights = run(CASES[name].make(np.arange(size) % 3), priors, signals)
    weights = np.asarray(weights, np.float64)
    bad = ~np.isfinite(weights).all(-1) | (weights < 0).any(-1) | ~(np.abs(weights.sum(-1) - 1.0) < 1e-5)
    bad |= (weights * (priors[:, None] == 0)).any(-1)
    assert not bad.any(), f"{bad.sum()} of {bad.size} updates, first in run {np.argwhere(bad)[0]}"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states))


def test_there_are_many_updates():
    assert len(PROBLEMS) * RUNS * UPDATES >= 100_000
