"""Differentiates an optimizer's step so that a factor that is not finite does not turn a zero derivative into NaN.

Optimizers guard their formulas by ``where``: the branch that is not taken may hold a division by zero or the root of a
negative number. Its derivative is 0 times a factor that is infinite or NaN, and JAX's derivatives add the product, NaN,
to those of the branch that is taken. Backwards this happens for every ``where``, forwards where a root has an infinite
slope at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["linearize"]


def linearize(fun: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any], Any]:
    """Evaluates a function and returns its derivative, in which a factor that is not finite counts as 0.

    The derivative is right where such a factor is multiplied by 0, which is the case

    - in a branch that is not taken, as in ``optax.radam`` and ``optax.clip_by_global_norm``;
    - for roots of second moments that are exactly 0, as in ``optax.adam`` for a parameter that is not used: the root's
      slope is infinite, and the first moment before it is 0.

    Args:
        fun: a function of pytrees of floats that returns ``(result, aux)``.
        *primals: its arguments.

    Returns:
        ``(result, push, aux)``. ``push(*tangents)`` maps tangents of the arguments to one of the result. It is linear,
        so ``jax.linear_transpose`` turns it around.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mixjax.hypergrad.linear import linearize
        >>> def root(x):
        ...     return jnp.where(x > 0, jnp.sqrt(x), 2.0 * x), None
        >>> _, push, _ = linearize(root, jnp.float32(-1.0))
        >>> [float(x) for x in jax.linear_transpose(push, jnp.float32(-1.0))(jnp.float32(1.0))]
        [2.0]
        >>> float(jax.grad(lambda x: root(x)[0])(-1.0))
        nan
    """
    result, push, aux = jax.linearize(fun, *primals, has_aux=True)
    # A tangent has the type of its argument.
    program, shapes = jax.make_jaxpr(push, return_shape=True)(*primals)
    structure = jax.tree.structure(shapes)

    def push_finite(*tangents):
        tangents = jax.tree.leaves(tangents)
        results = _evaluate(program, tangents, [True] * len(tangents))
        return jax.tree.unflatten(structure, results)

    return result, push_finite, aux


def _evaluate(program, inputs, linear):
    """Evaluates a linear program, with 0 in place of factors and divisors that are not finite.

    Args:
        program: from ``jax.make_jaxpr``.
        inputs: a list of arrays.
        linear: a list of bools, True where the input is a tangent. The others are factors, divisors and masks.
    """
    jaxpr = program.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*program.consts, *inputs], strict=True))
    tangents = {variable for variable, is_tangent in zip(jaxpr.invars, linear, strict=True) if is_tangent}

    def is_literal(atom):
        return hasattr(atom, "val")

    def read(atom):
        return atom.val if is_literal(atom) else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        depends = [not is_literal(atom) and atom in tangents for atom in equation.invars]
        outputs = _apply(equation, operands, depends)
        values.update(zip(equation.outvars, outputs, strict=True))
        if any(depends):
            tangents.update(equation.outvars)
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation, operands, depends):
    """Returns the list of results of one operation."""
    primitive = equation.primitive
    if primitive.name == "mul" and any(depends):
        # A product of two tangents would not be linear, so one operand is the factor.
        operands = [x if is_tangent else _or_zero(x) for x, is_tangent in zip(operands, depends, strict=True)]
    if primitive.name == "div" and any(depends):
        tangent, divisor = operands
        fine = jnp.isfinite(divisor) & (jnp.abs(divisor) >= jnp.finfo(divisor.dtype).tiny)
        # Both sides are guarded, because a quotient that a where hides has a NaN for a cotangent of its own.
        quotient = tangent / jnp.where(fine, divisor, jnp.ones_like(divisor))
        return [jnp.where(fine, quotient, jnp.zeros_like(quotient))]
    # The functions of jax.numpy are jitted, so many products are one level down.
    if primitive.name in ("jit", "pjit"):
        return _evaluate(equation.params["jaxpr"], operands, depends)
    if primitive.name == "cond":
        # The first operand chooses the branch.
        branches = [
            lambda *inputs, branch=branch: _evaluate(branch, inputs, depends[1:])
            for branch in equation.params["branches"]
        ]
        return jax.lax.switch(operands[0], branches, *operands[1:])
    outputs = primitive.bind(*operands, **equation.params)
    return outputs if primitive.multiple_results else [outputs]


def _or_zero(factor):
    return jnp.where(jnp.isfinite(factor), factor, jnp.zeros_like(factor))
