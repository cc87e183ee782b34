"""Records the operations of a model, and the inputs from which the gradients of its parameters are made."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mixjax.grad_norms.tape import Parameter, Tape, UseKind, value_of

__all__ = ["Output", "RecordingTape", "Use", "varying_zeros"]


class Use(NamedTuple):
    """Says that a parameter enters an operation, and how.

    Attributes:
        leaf: the parameter's index among the leaves of ``params``.
        kind: how the parameter enters: see :data:`mixjax.grad_norms.tape.UseKind`.
        operation: the operation's index in the order of calls.
    """

    leaf: int
    kind: UseKind
    operation: int


class Output(NamedTuple):
    """Describes the output of an operation.

    Attributes:
        type: the output's shape and dtype.
        axes: the mesh axes over which the output varies, under ``shard_map``.
    """

    type: jax.ShapeDtypeStruct
    axes: tuple[str, ...]


class RecordingTape(Tape):
    """Notes every use of a :class:`Parameter`, and adds a given array to every operation's output.

    The derivative of a loss with respect to an array that is added to an output is the derivative with respect to that
    output. This is how :func:`mixjax.grad_norms.value_grads_and_norms` gets these derivatives, from arrays of zeros.

    Attributes:
        uses: every use of a parameter, in the order of calls.
        factors: for each use, the operation's input that its gradient takes; None where the gradient takes none.
        outputs: for each operation, its output's type.
        constants: the indices of the leaves that were read by :meth:`constant`.
    """

    def __init__(self, added: list[jax.Array] | None = None):
        """Starts an empty record; ``added`` has an array for each operation's output, or is None to add nothing."""
        self.uses: list[Use] = []
        self.factors: list[jax.Array | None] = []
        self.outputs: list[Output] = []
        self.constants: set[int] = set()
        self._added = added

    def constant(self, parameter: Any) -> jax.Array:
        """Returns a parameter's value and notes that it is used without a gradient."""
        if isinstance(parameter, Parameter):
            self.constants.add(parameter.index)
        return value_of(parameter)

    def _tap(self, y: jax.Array, *uses: tuple[Any, UseKind, jax.Array | None]) -> jax.Array:
        recorded = [use for use in uses if isinstance(use[0], Parameter)]
        # An operation without parameters has no gradient to record.
        if not recorded:
            return y
        operation = len(self.outputs)
        for parameter, kind, factor in recorded:
            self.uses.append(Use(parameter.index, kind, operation))
            self.factors.append(factor)
        self.outputs.append(Output(jax.ShapeDtypeStruct(y.shape, y.dtype), _varying_axes(y)))
        return y if self._added is None else y + self._added[operation]


def varying_zeros(output: Output) -> jax.Array:
    """Returns zeros to add to an output, varying over the same mesh axes.

    Under ``shard_map``, JAX would sum the derivative with respect to the zeros over all devices if they did not vary.
    """
    zeros = jnp.zeros(output.type.shape, output.type.dtype)
    if not output.axes:
        return zeros
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(zeros, output.axes, to="varying")
    # Versions of JAX before `pcast` have `pvary`; pyright sees the installed one.
    return jax.lax.pvary(zeros, output.axes)  # pyright: ignore[reportAttributeAccessIssue]


def _varying_axes(y: jax.Array) -> tuple[str, ...]:
    array_type = jax.typeof(y)
    # The attribute's place depends on the version of JAX.
    if hasattr(array_type, "manual_axis_type"):
        return tuple(array_type.manual_axis_type.varying)
    return tuple(getattr(array_type, "vma", ()))
