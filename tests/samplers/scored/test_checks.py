"""Arguments that are refused, and by which words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.checks import check_non_negative
from mixjax.samplers import hardness
from mixjax.samplers.scored import checks
from tests.samplers.scored.cases import KEY, USUAL

ERRORS = {
    "n must": (lambda: hardness(0, 1.0), "n >= 1"),
    "beta": (lambda: hardness(3, -1.0), "beta must be"),
    "beta nan": (lambda: hardness(3, np.nan), "beta must be"),
    "decay": (lambda: hardness(3, 1.0, decay=1.5), "decay must be"),
    "floor": (lambda: hardness(3, 1.0, floor=-0.1), "floor must be"),
    "clip": (lambda: hardness(3, 1.0, clip=(0.0, 1.0)), "clip must be"),
    "clip order": (lambda: hardness(3, 1.0, clip=(10.0, 0.1)), "clip must be a lowest and a highest"),
    "prior shape": (lambda: hardness(3, 1.0, prior=[1.0]), "prior must have shape"),
    "prior sign": (lambda: hardness(2, 1.0, prior=[1.0, -1.0]).init(0.0), "prior must be"),
    "values shape": (lambda: hardness(3, 1.0).init(np.ones(2)), "initial values must"),
    "values nan": (lambda: hardness(3, 1.0).init(np.nan), "initial values must be finite"),
    "batch of none": (lambda: hardness(3, 1.0).sample(hardness(3, 1.0).init(0.0), KEY, 0), "batch_size must be"),
    "batch above n": (
        lambda: hardness(3, 1.0, replacement=False).sample(hardness(3, 1.0).init(0.0), KEY, 4),
        r"batch_size must be in \[1, 3\]",
    ),
    "kind": (
        lambda: hardness(3, 1.0).importance_weights(hardness(3, 1.0).init(0.0), jnp.arange(2), jnp.ones(2), "exact"),
        "kind must be one of",
    ),
    "a loss reduced over the batch": (
        lambda: hardness(3, 1.0).update(hardness(3, 1.0).init(0.0), jnp.arange(2), jnp.float32(1.0)),
        "vectors of one length",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_batch_has_at_most_2_to_the_24_examples():
    shape = jax.ShapeDtypeStruct((2**24 + 1,), jnp.float32)
    with pytest.raises(ValueError, match="a batch has at most 16777216 examples, got 16777217"):
        jax.eval_shape(lambda x: USUAL.update(USUAL.init(0.0), x.astype(jnp.int32), x), shape)


def test_traced_hyperparameters_are_not_looked_at():
    """A sampler may be made inside jit and vmap, where numbers cannot be checked."""

    @jax.jit
    def size(decay, floor, low, high, beta):
        check_non_negative("beta", beta)
        checks.check_settings(3, prior=None, decay=decay, floor=floor, clip=(low, high), fanout=8)
        return jnp.float32(0)

    size(2.0, 2.0, 10.0, -1.0, -1.0)
    with pytest.raises(ValueError, match="n >= 1"):
        jax.jit(lambda decay: checks.check_settings(0, prior=None, decay=decay, floor=None, clip=(1, 2), fanout=8))(0.1)


@pytest.mark.parametrize("kind", ["clipped", "tree", "self_normalised"])
def test_known_kinds_pass(kind):
    assert checks.check_kind(kind) is None


@pytest.mark.parametrize("limits", [(1, True), (10**6, True), (4, False)])
def test_batch_sizes_that_pass(limits):
    size, replacement = limits
    assert checks.check_batch_size(size, 4, replacement) is None
