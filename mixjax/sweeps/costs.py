"""Counts the floating-point operations of a function, in its traced program.

XLA's own analysis is of no use here, since it counts the body of a loop once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

__all__ = ["flops"]

# Counted as free: these primitives move, compare or create numbers.
_FREE = {
    "and", "bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type", "copy",
    "device_put", "dynamic_slice", "dynamic_update_slice", "eq", "expand_dims", "gather", "ge", "gt", "iota",
    "is_finite", "le", "lt", "ne", "not", "or", "pad", "random_bits", "random_fold_in", "random_seed",
    "random_split", "random_unwrap", "random_wrap", "reshape", "rev", "scatter", "select_n", "shift_left",
    "shift_right_logical", "slice", "split", "squeeze", "stop_gradient", "threefry2x32", "transpose", "xor",
}  # fmt: skip


def flops(function: Callable, *args: Any) -> float:
    """Counts the floating-point operations of one call.

    - A product of matrices counts ``2 m n k``, and a convolution likewise.
    - Any other operation counts one for each number that it gives; a reduction, for each that it takes.
    - A loop counts its body as often as it runs. A ``while`` whose length is not known counts once, so that the number
      is a lower bound there.
    - A ``cond`` counts its dearer branch.
    - Moving, comparing and random bits are free.

    Args:
        function: the function; traced, not run.
        *args: its arguments, arrays or ``ShapeDtypeStruct``.

    Returns:
        The number of operations.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> flops(lambda a, b: a @ b + 1.0, jnp.ones((2, 3)), jnp.ones((3, 4)))   # 2·2·3·4 + 2·4
        56.0
        >>> flops(lambda x: jax.lax.scan(lambda x, _: (x * 2, None), x, length=10)[0], jnp.ones(5))
        50.0
    """
    return float(_jaxpr(jax.make_jaxpr(function)(*args).jaxpr))


def _jaxpr(jaxpr):
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation):
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return params["length"] * _jaxpr(params["jaxpr"].jaxpr)
    if name == "while":
        return _jaxpr(params["cond_jaxpr"].jaxpr) + _jaxpr(params["body_jaxpr"].jaxpr)
    if name == "cond":
        return max(_jaxpr(branch.jaxpr) for branch in params["branches"])
    inner = [jaxpr for value in params.values() for jaxpr in _inner(value)]
    # Inside these primitives a program says how to combine two numbers: it does not run once a call.
    if inner and name not in ("reduce", "scatter", "scatter-add", "sort"):
        return sum(_jaxpr(jaxpr) for jaxpr in inner)
    if name in _FREE:
        return 0
    made = sum(_size(variable) for variable in equation.outvars)
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2 * made * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, spec = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
        return 2 * made * math.prod(kernel) // kernel[spec[0]]
    if name.startswith(("reduce", "arg", "cum")) or name == "scatter-add":
        return max(_size(variable) for variable in equation.invars)
    return made


def _size(variable):
    """Returns how many numbers a variable holds; tokens and the like hold none."""
    return math.prod(variable.aval.shape) if hasattr(variable.aval, "shape") else 0


def _inner(value):
    """Yields the programs in one parameter of an equation."""
    if hasattr(value, "eqns"):
        yield value
    elif hasattr(value, "jaxpr"):
        yield value.jaxpr
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _inner(item)
