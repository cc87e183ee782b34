"""Losses, priors and pairs of a JAX and a host sampler that the tests of the host's sampler share."""

import jax
import numpy as np

from mixjax.samplers import HostSampler, hardness, proportional

N = 300
RANDOM = np.random.default_rng(0)
LOSSES = RANDOM.gamma(2.0, 1.0, N).astype(np.float32)
PRIOR = np.where(np.arange(N) % 7 == 0, 0.0, RANDOM.uniform(0.5, 1.5, N)).astype(np.float32)
# Log-masses and Gumbel variables are below 32, and a few roundings make each: they agree within 4 ulps.
ROUNDING = 4 * 2.0**-19


def twins(n, beta, losses, compiled=None, **kwargs):
    sampler = proportional(n, **kwargs) if beta is None else hardness(n, beta, **kwargs)
    return sampler, jax.jit(sampler.init)(losses), HostSampler(n, losses, beta, compiled=compiled, **kwargs)


def assert_states_agree(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype == np.float32 and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=ROUNDING)
