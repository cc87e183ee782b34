"""Losses, priors and samplers that the tests of this folder share."""

import jax
import numpy as np
import pytest

from mixjax.samplers import hardness

N = 24
LOSSES = np.random.default_rng(0).normal(size=N).astype(np.float32)
PRIOR = np.r_[0.0, np.arange(1.0, N)]
KEY = jax.random.key(0)
both_modes = pytest.mark.parametrize("replacement", [True, False])
VARIANTS = {
    "plain": {},
    "floor": {"floor": 0.3},
    "prior": {"prior": PRIOR},
    "prior and floor": {"prior": PRIOR, "floor": 0.2},
}


def expected_p(beta=1.0, prior=None, floor=0.0, losses=LOSSES):
    prior = np.full(N, 1 / N) if prior is None else np.float64(prior) / np.sum(prior)
    p = prior * np.exp(beta * (np.float64(losses) - losses.max()))
    return (1 - floor) * p / p.sum() + floor * prior, prior


def compiled(sampler):
    """The same sampler; every function is one program, where eager ones are dozens."""
    return sampler._replace(
        init=jax.jit(sampler.init),
        sample=jax.jit(sampler.sample, static_argnums=2),
        log_probs=jax.jit(sampler.log_probs),
        update=jax.jit(sampler.update),
        importance_weights=jax.jit(sampler.importance_weights, static_argnums=3),
        rebuild=jax.jit(sampler.rebuild),
        extend=jax.jit(sampler.extend),
    )


USUAL = compiled(hardness(N, 1.0))
