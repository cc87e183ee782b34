"""Products that sum over several dimensions, rewritten to sum over one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.sweeps.contractions import with_merged_contractions

pytestmark = pytest.mark.usefixtures("quick_compilation")

X, Y = (np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32) for _ in range(2))


def contractions(jaxpr):
    """Lists how many dimensions each product of a program sums over, in its loops and branches too."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append(len(equation.params["dimension_numbers"][0][0]))
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                found += contractions(inner)
    return found


def check(function, *args, merged):
    """Compares a function with its rewritten form, and the dimensions summed over with ``merged``."""
    rewritten = with_merged_contractions(function)
    result = jax.make_jaxpr(rewritten)(*args)
    assert sorted(contractions(result.jaxpr)) == sorted(merged)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5),
        jax.jit(rewritten)(*args),
        jax.jit(function)(*args),
    )


@pytest.mark.parametrize(
    ("formula", "y", "num"),
    [
        ("abcd,abce->de", Y, 1),
        ("abcd,abed->ce", Y, 2),  # a and b follow one another, d lies apart
        ("abcd,aecd->abe", Y, 1),  # a batch dimension before the two
        ("abcd,abcd->", Y, 1),
        ("abcd,cdab->", Y.transpose(2, 3, 0, 1), 4),
        ("abcd,cde->abe", Y.reshape(4, 5, 6), 1),
        ("abcd,dce->abe", Y.reshape(5, 4, 6), 2),  # not in the same order
        ("abcd,de->abce", Y.reshape(5, 24), 1),
    ],
)
def test_dimensions_that_follow_one_another_are_merged(formula, y, num):
    def product(x, y):
        return jnp.einsum(formula, x, y)

    before = contractions(jax.make_jaxpr(product)(X, y).jaxpr)
    check(product, X, y, merged=[1] if num == 1 else before)


def test_an_empty_product_is_zeros():
    check(lambda x, y: jnp.einsum("abi,abj->ij", x, y), jnp.ones((0, 2, 3)), jnp.ones((0, 2, 4)), merged=[1])


def loss(kernel, x):
    return jnp.square(jax.nn.gelu(x @ kernel)).sum()


def in_loops(kernel, x):
    kernel = jax.lax.fori_loop(0, 2, lambda _, k: k - 1e-3 * jax.grad(loss)(k, x), kernel)
    return jax.lax.scan(lambda k, x: (k - 1e-3 * jax.grad(loss)(k, x), loss(k, x)), kernel, jnp.stack([x, x]))


def in_branches(kernel, x):
    return jax.lax.cond(x.sum() > 0, lambda: jax.grad(loss)(kernel, x), lambda: kernel)


def in_a_while(kernel, x):
    def go_on(k):
        return jnp.abs(k).sum() > 40

    return jax.lax.while_loop(go_on, lambda k: k - 1e-2 * jax.grad(loss)(k, x), kernel)


def in_checkpoints_and_calls(kernel, x):
    return jax.grad(jax.checkpoint(jax.jit(loss)))(kernel, x)


@pytest.mark.parametrize("function", [in_loops, in_branches, in_a_while, in_checkpoints_and_calls])
def test_gradients_of_layers_are_merged_wherever_they_are(function):
    kernel = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    result = jax.make_jaxpr(with_merged_contractions(function))(kernel, X)
    assert set(contractions(result.jaxpr)) == {1}
    assert 3 in contractions(jax.make_jaxpr(function)(kernel, X).jaxpr)
    check(function, kernel, X, merged=contractions(result.jaxpr))


def test_batches_and_precision_are_kept():
    def product(x, y):
        return jnp.einsum("abi,abj->ij", x, y, precision="highest", preferred_element_type=jnp.float32)

    x, y = jnp.ones((3, 2, 4, 5), jnp.bfloat16), jnp.ones((3, 2, 4, 6), jnp.bfloat16)
    jaxpr = jax.make_jaxpr(with_merged_contractions(product))(x[0], y[0])
    (inner,) = (equation.params["jaxpr"].jaxpr for equation in jaxpr.eqns if "jaxpr" in equation.params)
    while not any(equation.primitive.name == "dot_general" for equation in inner.eqns):
        (inner,) = (equation.params["jaxpr"].jaxpr for equation in inner.eqns if "jaxpr" in equation.params)
    (dot,) = (equation for equation in inner.eqns if equation.primitive.name == "dot_general")
    assert dot.params["preferred_element_type"] == jnp.float32
    assert "HIGHEST" in str(dot.params["precision"])
    batch = jax.vmap(with_merged_contractions(product))(x, y)
    np.testing.assert_array_equal(batch, jax.vmap(product)(x, y))


def test_what_a_function_does_aside_still_happens():
    seen = []

    def train(key, x):
        jax.debug.callback(lambda total: seen.append(float(total)), x.sum())
        return {"noise": jax.random.normal(key), "product": jnp.einsum("ab,ab->", x, x)}

    x = jnp.ones((2, 3))
    result = jax.jit(with_merged_contractions(train))(jax.random.key(0), x)
    jax.effects_barrier()
    assert seen == [6.0] and result["product"] == 6 and result["noise"] == jax.random.normal(jax.random.key(0))
