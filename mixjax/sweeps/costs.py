"""What a function costs, counted from its traced program: XLA's own analysis counts a loop's body once."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

__all__ = ["flops"]

_FREE = {  # moves or makes numbers, computes none
    "and", "bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type", "copy",
    "device_put", "dynamic_slice", "dynamic_update_slice", "eq", "expand_dims", "gather", "ge", "gt", "iota",
    "is_finite", "le", "lt", "ne", "not", "or", "pad", "random_bits", "random_fold_in", "random_seed",
    "random_split", "random_unwrap", "random_wrap", "reshape", "rev", "scatter", "select_n", "shift_left",
    "shift_right_logical", "slice", "split", "squeeze", "stop_gradient", "threefry2x32", "transpose", "xor",
}  # fmt: skip


def flops(function: Callable, *args: Any) -> float:
    """Floating-point operations of one call.

    Products of matrices count ``2 m n k``, convolutions likewise, every other operation one for each number that it
    gives (reductions: that it takes). Loops count their length, a ``cond`` its dearer branch; a ``while`` whose length
    is not known counts once, so that the number is a lower bound there. Moving, comparing and random bits are free.

    Args:
        function: to be traced.
        *args: arrays or ``ShapeDtypeStruct``.

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
    if inner and name not in ("reduce", "scatter", "scatter-add", "sort"):
        return sum(map(_jaxpr, inner))
    if name in _FREE:
        return 0
    shapes = [variable.aval.shape for variable in equation.outvars if hasattr(variable.aval, "shape")]
    made = sum(math.prod(shape) for shape in shapes)
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2 * made * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, spec = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
        return 2 * made * math.prod(kernel) // kernel[spec[0]]
    if name.startswith(("reduce", "arg", "cum")) or name == "scatter-add":
        return max(int(np.prod(v.aval.shape)) for v in equation.invars if hasattr(v.aval, "shape"))
    return made


def _inner(value):
    """The jaxprs among an equation's parameters."""
    if hasattr(value, "eqns"):
        yield value
    elif hasattr(value, "jaxpr"):
        yield value.jaxpr
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _inner(item)
