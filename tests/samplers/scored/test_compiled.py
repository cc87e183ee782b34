"""Draws and updates that numba compiles against NumPy's and JAX's: the same batches, weights and states."""

import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from mixjax.samplers import HostSampler
from mixjax.samplers.scored import compiled, host, host_tree
from tests.samplers.scored.host_cases import twins

BETAS = (None, 0.0, 1.0, 30.0, 1e7, np.inf)
STRANGE = np.float32([np.nan, np.inf, -np.inf, 0.0, 1e38, -5.0])


def start(random):
    """Values with ties, zeros and infinities, and settings of a sampler of up to 400 examples."""
    n, beta = int(random.choice([1, 2, 9, 64, 65, 400])), BETAS[random.integers(len(BETAS))]
    values = np.round(random.gamma(2.0, 1.0, n), random.integers(4)).astype(np.float32)
    values[random.random(n) < 0.1] = 0.0
    if beta is None and random.random() < 0.2:
        values[:] = 0.0
    if n > 1 and random.random() < 0.3:
        values[random.integers(1, n)] = np.inf
    prior = random.random(n) * (random.random(n) < 0.8) + 1e-6
    settings = {
        "beta": beta,
        "prior": prior if random.random() < 0.5 else None,
        "replacement": bool(random.integers(2)),
        "decay": random.choice([0.0, 0.3, 1.0]),
        "floor": (None, 0.0, 0.2, 1.0)[random.integers(4)],
        "fanout": int(random.choice([2, 3, 8, 17])),
    }
    return n, values, settings


def batch(random, n):
    """Indices of which some repeat and some are of nobody, and values of which some are not finite."""
    size = random.integers(min(n, 60) + 5)
    values = random.gamma(2.0, 1.0, size).astype(np.float32)
    strange = random.random(size) < 0.2
    values[strange] = random.choice(STRANGE, strange.sum())
    return random.integers(-3, n + 3, size), values


def assert_same_bits(ours, theirs):
    assert pickle.dumps([np.asarray(x) for x in ours]) == pickle.dumps([np.asarray(x) for x in theirs])


@pytest.mark.parametrize("widest", [4, 1024], indirect=True)
def test_compiled_draws_and_states_are_numpys_to_the_bit(widest):
    pytest.importorskip("numba")
    for case in range(60):
        random = np.random.default_rng(case)
        n, values, settings = start(random)
        ours, plain = (HostSampler(n, values, compiled=way, **settings) for way in (True, False))
        for _ in range(4):
            key, size = random.integers(2**32, size=2, dtype=np.uint32), random.integers(min(n, 60)) + 1
            assert_same_bits(ours.sample(key, size), plain.sample(key, size))
            indices, fresh = batch(random, n)
            ours.update(indices, fresh)
            plain.update(indices, fresh)
            assert_same_bits(jax.tree.leaves(ours.state), jax.tree.leaves(plain.state))


@pytest.mark.parametrize(
    ("beta", "settings"),
    [
        (5.0, {"floor": 0.2}),
        (np.inf, {"replacement": False, "decay": 0.3}),
        (None, {"prior": np.arange(300.0), "fanout": 3}),
        (None, {"replacement": False, "floor": 0.1}),
    ],
)
def test_all_three_draw_the_same_batches(beta, settings):
    values = np.round(np.random.default_rng(0).gamma(2.0, 1.0, 300), 1).astype(np.float32)
    sampler, state, plain = twins(300, beta, values, compiled=False, **settings)
    hosts = [plain]
    if host._kernels(None) is not None:
        hosts.append(HostSampler(300, values, beta, compiled=True, **settings))
    sample, update = jax.jit(sampler.sample, static_argnums=2), jax.jit(sampler.update)
    random = np.random.default_rng(1)
    for step in range(40):
        theirs, _ = sample(state, jax.random.key(step), 32)
        fresh = np.round(random.gamma(2.0, 1.0, 32), 1).astype(np.float32)
        fresh[random.integers(32, size=4)] = [0.0, np.inf, np.nan, 1e30]
        state = update(state, theirs, fresh)
        for ours in hosts:
            assert ours.sample(step, 32)[0].tolist() == theirs.tolist()
            ours.update(theirs, fresh)


def test_the_exponential_is_right():
    x = np.float32([0.0, -0.0, 1.0, -1e-8, 88.7, 89.0, -87.0, -110.0, np.inf, -np.inf, 3e38, -3e38])
    x = np.append(x, np.random.default_rng(0).uniform(-80, 80, 5000).astype(np.float32))
    with np.errstate(over="ignore"):
        ours, right = host_tree.exp(x), np.exp(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_max_ulp(ours[np.isfinite(right)], right[np.isfinite(right)], 1)
    assert (ours != right).mean() < 1e-3 and (np.isinf(ours) == np.isinf(right)).all()


def test_numba_is_loaded_by_whoever_makes_a_sampler_only():
    code = "import sys, mixjax.samplers as s; s.HostSampler; s.hardness; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_numba_that_is_missing_is_told(monkeypatch):
    host._kernels.cache_clear()
    monkeypatch.setattr(compiled, "numba", None)
    try:
        with pytest.raises(ImportError, match="compiled=True needs numba: pip install numba"):
            HostSampler(4, 1.0, compiled=True)
        assert HostSampler(4, 1.0).sample(0, 2)[0].shape == (2,)
    finally:
        host._kernels.cache_clear()
