"""Records the operations of a model, and the inputs from which the gradients of its parameters are made."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.extend.core

from mixjax.grad_norms.tape import Parameter, Tape, UseKind, value_of
from mixjax.meshes import varying_axes

__all__ = ["Output", "RecordingTape", "Use"]


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
    axes: frozenset[str]


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
        """Starts an empty record, to be used in the transformation, if any, in which it is made.

        Args:
            added: an array for each operation's output, or None to add nothing.
        """
        self.uses: list[Use] = []
        self.factors: list[jax.Array | None] = []
        self.outputs: list[Output] = []
        self.constants: set[int] = set()
        self._added = added
        self._trace = jax.extend.core.get_opaque_trace_state()

    def is_where_it_started(self) -> bool:
        """Tells whether the caller is traced as the tape's first user was, and not within a further ``jit`` or so."""
        return self._trace == jax.extend.core.get_opaque_trace_state()

    def constant(self, parameter: Any) -> jax.Array:
        """Returns a parameter's value and notes that it is used without a gradient."""
        if isinstance(parameter, Parameter):
            self.constants.add(parameter.index)
        return value_of(parameter)

    def _tap(self, operation: str, y: jax.Array, *uses: tuple[Any, UseKind, jax.Array | None]) -> jax.Array:
        recorded = [use for use in uses if isinstance(use[0], Parameter)]
        # An operation without parameters has no gradient to record.
        if not recorded:
            return y
        if not self.is_where_it_started():
            # What is noted below would leak out of the inner transformation, or would be one of many steps of a scan.
            raise ValueError(
                f"tape.{operation} on {recorded[0][0].name} is called inside a jit, vmap, scan, cond, checkpoint or "
                "grad of the model, where its part of the gradient cannot be noted: call it outside (a Python loop in "
                "place of a scan), or measure by grad_norms.per_example."
            )
        place = len(self.outputs)
        for parameter, kind, factor in recorded:
            self.uses.append(Use(parameter.index, kind, place))
            self.factors.append(factor)
        self.outputs.append(Output(jax.ShapeDtypeStruct(y.shape, y.dtype), varying_axes(y)))
        return y if self._added is None else y + self._added[place]
