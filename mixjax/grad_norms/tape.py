"""Offers the operations through which a model's parameters act, for norms that come from one backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_ids
from mixjax.grad_norms.windows import Geometry, convolve, geometry_of

__all__ = ["Parameter", "Tape", "UseKind", "value_of"]

UseKind = Literal["matrix", "transpose", "table", "rows"] | Geometry
"""How a parameter enters an operation: as a matrix on the right of ``x @ p``, as its transpose, as a table whose rows
are looked up, elementwise along the last axes, or as the kernel of a convolution of this geometry."""


class Parameter:
    """Stands for one leaf of ``params`` in a model on a :class:`Tape`. Hand it to the tape, and to nothing else.

    Any other use would go unseen, and its part of the gradient would be missing. Such a use raises a ValueError that
    names the leaf. (Comparisons with == are by identity, and do not.)

    Attributes:
        name: the leaf's path, such as ``params['out']['kernel']``.
        index: the leaf's place among the leaves of ``params``.
        shape: the array's shape; ``ndim`` and ``dtype`` are also the array's.
    """

    def __init__(self, name: str, index: int, array: jax.Array):
        """Wraps the ``index``-th leaf; :func:`mixjax.grad_norms.value_grads_and_norms` does this."""
        self.name, self.shape, self.ndim, self.dtype = name, array.shape, array.ndim, array.dtype
        self.index, self._array = index, array

    def __repr__(self):
        """Shows the leaf's path and type."""
        return f"Parameter({self.name}, {self.dtype}{list(self.shape)})"

    def __getattr__(self, attribute):
        """Refuses an array's other attributes, which are uses outside the tape."""
        if hasattr(jax.Array, attribute):
            self._refuse()
        raise AttributeError(attribute)

    @property
    def __jax_array__(self):
        """Refuses conversion to an array; as a property, since JAX looks for the attribute before it calls it."""
        return self._refuse()

    def _refuse(self, *_, **__):
        raise ValueError(
            f"{self.name} is used outside the tape, so its gradient would be incomplete: hand it to tape.dense, conv, "
            "embed, attend, scale or add, or take its value, without a gradient, from tape.constant."
        )


# Python looks up operators on the class, so `__getattr__` never sees them.
for _name in ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"]:
    setattr(Parameter, f"__{_name}__", Parameter._refuse)
    setattr(Parameter, f"__r{_name}__", Parameter._refuse)
for _name in ["array", "neg", "pos", "abs", "getitem", "iter", "len", "float", "lt", "le", "gt", "ge"]:
    setattr(Parameter, f"__{_name}__", Parameter._refuse)
del _name


class Tape:
    """Offers the operations through which a model's parameters act, so that one backward pass gives all norms.

    Write the model as a function of a tape, parameters and a batch. :func:`mixjax.grad_norms.value_grads_and_norms`
    runs it on a tape that records. With a new ``Tape()`` and plain arrays as parameters it is an ordinary function, for
    instance for evaluation.

    Anything may happen between the operations: activations, attention, normalisation over features. The limits are:

    - The first axis of all that passes through the tape is the batch's.
    - No example's loss may depend on another example. Batch normalisation breaks this, and makes the norms wrong.
    - An operation must be called where the model is, and not inside ``jit``, ``vmap``, ``scan``, ``cond``,
      ``checkpoint`` or ``grad`` within the model. While norms are measured, such a call raises a ValueError.

    A leaf may be used several times. Weight tying between :meth:`embed` and :meth:`attend`, or a layer applied again
    and again, is accounted for exactly.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> def model(tape, params, x):
        ...     hidden = jnp.tanh(tape.dense(x, params["kernel"], params["bias"]))
        ...     return tape.dense(hidden, params["out"])[:, 0]
        >>> params = {"kernel": jnp.eye(2), "bias": jnp.zeros(2), "out": jnp.ones((2, 1))}
        >>> model(grad_norms.Tape(), params, jnp.array([[0.5, -0.5]])).tolist()
        [0.0]
    """

    def dense(self, x: ArrayLike, kernel: Any, bias: Any = None) -> jax.Array:
        """Applies a dense layer, ``x @ kernel + bias``.

        Args:
            x: ``[B, ..., in]``.
            kernel: ``[in, out]``.
            bias: ``[out]``, or None.

        Returns:
            ``[B, ..., out]``.

        Raises:
            ValueError: other shapes.
        """
        x = jnp.asarray(x)
        if x.ndim < 2 or kernel.ndim != 2 or x.shape[-1] != kernel.shape[0]:
            raise ValueError(f"dense takes x [B, ..., in] and kernel [in, out], got {x.shape} and {kernel.shape}.")
        if bias is not None and bias.shape != kernel.shape[1:]:
            raise ValueError(f"dense takes a bias of shape {kernel.shape[1:]}, got {bias.shape}.")
        y = x @ value_of(kernel)
        if bias is None:
            return self._tap("dense", y, (kernel, "matrix", x))
        return self._tap("dense", y + _aligned(bias, y), (kernel, "matrix", x), (bias, "rows", None))

    def conv(
        self,
        x: ArrayLike,
        kernel: Any,
        bias: Any = None,
        *,
        strides: int | Sequence[int] = 1,
        padding: str | int | Sequence[int | tuple[int, int]] = "SAME",
        input_dilation: int | Sequence[int] = 1,
        kernel_dilation: int | Sequence[int] = 1,
        feature_group_count: int = 1,
    ) -> jax.Array:
        """Applies a convolution over any number of spatial axes, channels last.

        Args:
            x: ``[B, *spatial, in]``.
            kernel: ``[*window, in / feature_group_count, out]``.
            bias: ``[out]``, or None.
            strides: one number, or one per spatial axis.
            padding: ``"SAME"``, ``"VALID"`` or ``"SAME_LOWER"``; a number; or a number or a pair per spatial axis.
            input_dilation: one number, or one per spatial axis; above 1 for a transposed convolution.
            kernel_dilation: one number, or one per spatial axis.
            feature_group_count: the number of groups of channels; ``in`` for a depthwise convolution.

        Returns:
            ``[B, *places, out]``.

        Raises:
            ValueError: other shapes, or another padding.
        """
        x = jnp.asarray(x)
        groups, channels = feature_group_count, x.shape[-1:]
        fits = x.ndim >= 3 and kernel.ndim == x.ndim and channels == (groups * kernel.shape[-2],)
        if not fits or kernel.shape[-1] % groups:
            raise ValueError(
                f"conv takes x [B, *spatial, in] and kernel [*window, in / {groups}, out], out a multiple of {groups}, "
                f"got {x.shape} and {kernel.shape}."
            )
        if bias is not None and bias.shape != kernel.shape[-1:]:
            raise ValueError(f"conv takes a bias of shape {kernel.shape[-1:]}, got {bias.shape}.")
        geometry = geometry_of(
            x.shape[1:-1],
            kernel.shape[:-2],
            strides=strides,
            padding=padding,
            input_dilation=input_dilation,
            kernel_dilation=kernel_dilation,
            groups=groups,
        )
        y = convolve(x, value_of(kernel), geometry)
        if bias is None:
            return self._tap("conv", y, (kernel, geometry, x))
        return self._tap("conv", y + _aligned(bias, y), (kernel, geometry, x), (bias, "rows", None))

    def embed(self, ids: ArrayLike, table: Any) -> jax.Array:
        """Looks up rows of a table, ``table[ids]``.

        Args:
            ids: integers of any type, ``[B, ...]``. Negative ids count from the end; ids out of range are clipped to
                the range.
            table: ``[V, d]``.

        Returns:
            ``[B, ..., d]``.

        Raises:
            ValueError: other shapes.
            TypeError: ids that are not integers.
        """
        # Unsigned ids would not show that they are below zero, and narrow ones wrap where `size` is added.
        ids = as_ids("ids", ids)
        if ids.ndim < 1 or table.ndim != 2:
            raise ValueError(f"embed takes ids [B, ...] and a table [V, d], got {ids.shape} and {table.shape}.")
        size = table.shape[0]
        # The same ids go into the lookup and into its gradient, which must not clip or wrap in another way.
        ids = jnp.clip(jnp.where(ids < 0, ids + size, ids), 0, size - 1)
        return self._tap("embed", value_of(table)[ids], (table, "table", ids))

    def attend(self, x: ArrayLike, table: Any) -> jax.Array:
        """Applies a table of embeddings as an output layer, ``x @ table.T``.

        Args:
            x: ``[B, ..., d]``.
            table: ``[V, d]``.

        Returns:
            ``[B, ..., V]``.

        Raises:
            ValueError: other shapes.
        """
        x = jnp.asarray(x)
        if x.ndim < 2 or table.ndim != 2 or x.shape[-1] != table.shape[1]:
            raise ValueError(f"attend takes x [B, ..., d] and a table [V, d], got {x.shape} and {table.shape}.")
        return self._tap("attend", x @ value_of(table).T, (table, "transpose", x))

    def scale(self, x: ArrayLike, gamma: Any, beta: Any = None) -> jax.Array:
        """Applies an elementwise affine map, ``x * gamma + beta``, as at the end of a layer normalisation.

        Args:
            x: ``[B, ..., *shape]``.
            gamma: ``[*shape]``, the last axes of ``x`` in full.
            beta: the same shape as ``gamma``, or None.

        Returns:
            ``[B, ..., *shape]``.

        Raises:
            ValueError: other shapes.
        """
        x = jnp.asarray(x)
        _check_trailing("scale", x, gamma)
        y = x * _aligned(gamma, x)
        if beta is None:
            return self._tap("scale", y, (gamma, "rows", x))
        _check_trailing("scale", x, beta)
        return self._tap("scale", y + _aligned(beta, y), (gamma, "rows", x), (beta, "rows", None))

    def add(self, x: ArrayLike, bias: Any) -> jax.Array:
        """Adds a bias, a table of positions, or whatever has the last axes of ``x``: ``x + bias``.

        Args:
            x: ``[B, ..., *shape]``.
            bias: ``[*shape]``, the last axes of ``x`` in full.

        Returns:
            ``[B, ..., *shape]``.

        Raises:
            ValueError: other shapes.
        """
        x = jnp.asarray(x)
        _check_trailing("add", x, bias)
        return self._tap("add", x + _aligned(bias, x), (bias, "rows", None))

    def constant(self, parameter: Any) -> jax.Array:
        """Returns a leaf's value, for uses that are to have no gradient: a frozen layer's, a buffer's.

        Args:
            parameter: a leaf of ``params``.

        Returns:
            The leaf's array. A leaf with no other use has gradient zero and no part in the norms.
        """
        return value_of(parameter)

    def _tap(self, operation: str, y: jax.Array, *uses: tuple[Any, UseKind, jax.Array | None]) -> jax.Array:
        """Passes an operation's output on; a subclass may note the uses: a leaf, its kind, the input it meets."""
        return y


def value_of(parameter: Any) -> jax.Array:
    """Returns the array behind a :class:`Parameter`, or the array itself."""
    return parameter._array if isinstance(parameter, Parameter) else jnp.asarray(parameter)


def _aligned(parameter: Any, x: jax.Array) -> jax.Array:
    """Returns a parameter's array with leading axes of length one, for users who have switched rank promotion off."""
    value = value_of(parameter)
    return value.reshape((1,) * (x.ndim - value.ndim) + value.shape)


def _check_trailing(name, x, parameter):
    if x.ndim <= parameter.ndim or x.shape[x.ndim - parameter.ndim :] != parameter.shape:
        raise ValueError(f"{name} takes x [B, ..., *shape] and a parameter [*shape], got {x.shape}, {parameter.shape}.")
