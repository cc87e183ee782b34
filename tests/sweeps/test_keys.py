"""Random keys among arrays that are stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.sweeps.keys import KeyWords, bits, with_keys, with_words


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_are_words_and_keys_again(impl):
    tree = {"key": jax.random.split(jax.random.key(3, impl=impl), 2), "x": jnp.ones(2), "step": 0}
    stored = with_words(tree)
    assert all(not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(stored))
    again = with_keys(jax.tree.map(jnp.asarray, jax.tree.map(np.asarray, stored)))
    assert jax.random.key_impl(again["key"]) == impl
    np.testing.assert_array_equal(jax.random.normal(again["key"][1]), jax.random.normal(tree["key"][1]))
    assert again["step"].dtype == jnp.int32 and again["x"].tolist() == [1.0, 1.0]
    assert bits(tree["key"]).tolist() == stored["key"].words.tolist()


def test_words_pass_through_programs_and_batches():
    @jax.jit
    def step(tree):
        key, own = jax.random.split(with_keys(tree)["key"])
        return with_words({"key": key}), jax.random.normal(own)

    words, value = step(with_words({"key": jax.random.key(0)}))
    assert isinstance(words["key"], KeyWords) and value == jax.random.normal(jax.random.split(jax.random.key(0))[1])
    batch = jax.vmap(lambda key: with_words({"key": key}))(jax.random.split(jax.random.key(0), 3))
    assert batch["key"].words.shape == (3, 2)


def test_another_generator_is_another_structure():
    one, other = (jax.tree.structure(with_words(jax.random.key(0, impl=impl))) for impl in ("threefry2x32", "rbg"))
    assert one != other
