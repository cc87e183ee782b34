"""Operations counted through loops and branches, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from mixjax.sweeps.costs import flops

A, B, X = jnp.ones((3, 4)), jnp.ones((4, 5)), jnp.ones(7)


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (lambda a, b: a @ b, (A, B), 2 * 3 * 4 * 5),
        (lambda a: jnp.einsum("bij,bjk->bik", a, a), (jnp.ones((2, 3, 3)),), 2 * 2 * 3 * 3 * 3),
        (lambda x: jnp.exp(x) * x + 1.0, (X,), 3 * 7),
        (lambda x: x.sum(), (X,), 7),
        (lambda x: jnp.concatenate([x[::2], x]).reshape(11, 1).T, (X,), 0),
        (lambda x: jax.lax.scan(lambda c, r: (c * r, c + r), 1.0, x), (X,), 2 * 7),
        (lambda x: jax.lax.fori_loop(0, 10, lambda i, x: x * 2.0, x), (X,), 10 * 7),
        (lambda x: jax.lax.cond(x[0] > 0, lambda: jnp.sin(jnp.cos(x)), lambda: x), (X,), 2 * 7),
        (jax.jit(lambda a, b: jax.checkpoint(jnp.matmul)(a, b)), (A, B), 120),
        (jax.vmap(lambda x: x * x), (jnp.ones((6, 7)),), 42),
    ],
)
def test_by_hand(function, arguments, expected):
    assert flops(function, *arguments) == pytest.approx(expected, abs=12)  # a loop's own counter is a few more


def test_a_convolution():
    def convolution(x, kernel):
        return jax.lax.conv(x, kernel, (1, 1), "SAME")

    assert flops(convolution, jnp.ones((2, 3, 8, 8)), jnp.ones((5, 3, 3, 3))) == 2 * (2 * 5 * 8 * 8) * 3 * 3 * 3


def test_a_gradient_costs_about_two_more():
    def loss(w, x):
        return jnp.square(x @ w).sum()

    w, x = jnp.ones((64, 32)), jnp.ones((128, 64))
    forward = 2 * 128 * 64 * 32
    assert flops(jax.grad(loss, argnums=(0, 1)), w, x) == pytest.approx(3 * forward, rel=0.05)
    assert flops(loss, jax.ShapeDtypeStruct(w.shape, w.dtype), x) == pytest.approx(forward, rel=0.05)
