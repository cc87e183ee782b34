"""Rewrites functions so that their matrix products sum over one dimension, which XLA computes faster on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core

__all__ = ["merges", "with_merged_contractions"]

# Of other primitives that hold functions, such as kernels or a shard_map, nothing is known: they stay as they are.
_ENTERED = frozenset({"jit", "pjit", "closed_call", "core_call", "scan", "while", "cond", "checkpoint", "remat2"})


def with_merged_contractions(function: Callable) -> Callable:
    """Rewrites a function so that each matrix product sums over one dimension where it summed over several.

    The gradient of a dense layer's kernel sums over the batch and the places of a window at once,
    ``Σ_ij x[i, j, m] y[i, j, n]``. Of such a product XLA copies one operand, transposed, on a CPU. Here the dimensions
    are merged first, ``Σ_k x[k, m] y[k, n]``, which is a matrix product without copies. They are merged where they
    follow one another in both operands, in loops and branches too. The sums may be added up in another order, so that
    results differ by rounding.

    Args:
        function: pure and traceable, of pytrees of arrays.

    Returns:
        A function of the same arguments and results, to be called while JAX traces.

    Example:
        >>> import jax.numpy as jnp
        >>> def product(x, y):
        ...     return jnp.einsum("ijm,ijn->mn", x, y)
        >>> x, y = jnp.ones((2, 3, 4)), jnp.ones((2, 3, 5))
        >>> jax.make_jaxpr(with_merged_contractions(product))(x, y).out_avals[0].shape
        (4, 5)
    """

    def rewritten(*args):
        jaxpr, result = jax.make_jaxpr(function, return_shape=True)(*args)
        leaves = core.jaxpr_as_fun(_in_closed(jaxpr))(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(result), leaves)

    return rewritten


def merges(function: Callable, *args: Any) -> bool:
    """Tells whether :func:`with_merged_contractions` changes a function.

    Args:
        function: pure and traceable.
        *args: its arguments, arrays or ``jax.ShapeDtypeStruct``.

    Returns:
        True where a product would be merged.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.ones((2, 3, 4))
        >>> merges(lambda x: jnp.einsum("ijm,ijn->mn", x, x), x), merges(lambda x: x @ x.mT, x)
        (True, False)
    """
    return _merges(jax.make_jaxpr(function)(*args).jaxpr)


def _merges(jaxpr: core.Jaxpr) -> bool:
    return any(_is_merged(equation) for equation in jaxpr.eqns)


def _is_merged(equation: core.JaxprEqn) -> bool:
    if equation.primitive.name == "dot_general":
        return _merged(equation) is not equation
    if equation.primitive.name not in _ENTERED:
        return False
    leaves = jax.tree.leaves(list(equation.params.values()))
    inner = [value.jaxpr if isinstance(value, core.ClosedJaxpr) else value for value in leaves]
    return any(_merges(value) for value in inner if isinstance(value, core.Jaxpr))


def _in_closed(closed: core.ClosedJaxpr) -> core.ClosedJaxpr:
    return closed.replace(jaxpr=_in_jaxpr(closed.jaxpr))


def _in_jaxpr(jaxpr: core.Jaxpr) -> core.Jaxpr:
    return jaxpr.replace(eqns=[_in_equation(equation) for equation in jaxpr.eqns])


def _in_equation(equation: core.JaxprEqn) -> core.JaxprEqn:
    if equation.primitive.name == "dot_general":
        return _merged(equation)
    if equation.primitive.name in _ENTERED:
        return equation.replace(params={name: _in_param(value) for name, value in equation.params.items()})
    return equation


def _in_param(value: Any) -> Any:
    """Rewrites a parameter of an equation where it is a function, or the branches of a ``cond``."""
    if isinstance(value, core.ClosedJaxpr):
        return _in_closed(value)
    if isinstance(value, core.Jaxpr):
        return _in_jaxpr(value)
    if isinstance(value, tuple) and value and all(isinstance(one, core.ClosedJaxpr) for one in value):
        return tuple(map(_in_closed, value))
    return value


def _merged(equation: core.JaxprEqn) -> core.JaxprEqn:
    """Rewrites a ``dot_general``, unless it sums over one dimension already or its dimensions lie apart."""
    params = equation.params
    (lhs_summed, rhs_summed), batch = params["dimension_numbers"]
    # In the order of one operand; what counts is that the other one has the same order.
    pairs = sorted(zip(lhs_summed, rhs_summed, strict=True))
    summed = tuple(zip(*pairs, strict=True))
    # A product that is split over devices has an `out_sharding`, which speaks of the dimensions as they are.
    if len(pairs) < 2 or not all(map(_follow_one_another, summed)) or params.get("out_sharding") is not None:
        return equation

    (lhs_batch, rhs_batch), (lhs_dims, rhs_dims) = batch, summed

    def merged_product(lhs, rhs):
        return lax.dot_general(
            _merge(lhs, lhs_dims),
            _merge(rhs, rhs_dims),
            (
                (lhs_dims[:1], rhs_dims[:1]),
                ([_after_merge(i, lhs_dims) for i in lhs_batch], [_after_merge(i, rhs_dims) for i in rhs_batch]),
            ),
            precision=params["precision"],
            preferred_element_type=params["preferred_element_type"],
        )

    # As one equation, a call, which takes the place of the old one: no variable needs a new name.
    (call,) = jax.make_jaxpr(jax.jit(merged_product))(*(_shape(x.aval) for x in equation.invars)).eqns
    return call.replace(invars=equation.invars, outvars=equation.outvars)


def _shape(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def _follow_one_another(dims: Sequence[int]) -> bool:
    return list(dims) == list(range(dims[0], dims[0] + len(dims)))


def _merge(x: jax.Array, dims: Sequence[int]) -> jax.Array:
    """Reshapes an array so that dimensions that follow one another become one."""
    first, stop = dims[0], dims[-1] + 1
    return x.reshape(*x.shape[:first], math.prod(x.shape[first:stop]), *x.shape[stop:])


def _after_merge(dim: int, dims: Sequence[int]) -> int:
    """Returns the number that another dimension has after ``dims`` became one."""
    return dim if dim < dims[0] else dim - len(dims) + 1
