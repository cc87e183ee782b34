"""What a state holds, and what users rely on in its type and the sampler's."""

import jax
import numpy as np

from mixjax import samplers
from mixjax.samplers import ExampleSampler, SamplerState, hardness


def test_state_is_at_most_three_floats_an_example():
    for kwargs, most in ({}, 1.3), ({"prior": np.ones(10_000), "floor": 0.1}, 2.6):
        state = jax.eval_shape(hardness(10_000, 1.0, **kwargs).init, 0.0)
        assert sum(leaf.size for leaf in jax.tree.leaves(state)) < most * 10_000


def test_names_and_their_order():
    """Checkpoints are read by the order of the state's fields."""
    assert SamplerState._fields == ("values", "sums", "log_prior", "prior_sums")
    drawing, growing = (
        ("init", "sample", "update", "importance_weights", "log_probs", "rebuild"),
        ("extend", "remove", "insert"),
    )
    assert ExampleSampler._fields == drawing + growing


def test_a_sampler_is_a_static_argument_of_jit():
    sampler = hardness(4, 1.0)
    assert hash(sampler) == hash(sampler._replace()) and sampler == sampler._replace()
    assert sampler != hardness(4, 1.0)
    drawn = jax.jit(lambda sampler, key: sampler.sample(sampler.init(1.0), key, 2)[0], static_argnums=0)
    assert drawn(sampler, jax.random.key(0)).shape == (2,)


def test_public_names():
    for name in ("hardness", "proportional", "hardest", "with_ages", "effective_sample_size", "ExampleSampler"):
        assert name in samplers.__all__
