"""The operations through which a model's parameters act, for norms that come from one backward pass."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Parameter:
    """One leaf of ``params`` as a model on a :class:`Tape` sees it: to be handed to the tape, and to nothing else.

    Any other use raises a ValueError that names the leaf, for its part of the gradient would be missing.

    Attributes:
        name: the leaf's path, such as ``params['out']['kernel']``.
        shape: as the array's; so are ``ndim`` and ``dtype``.
    """

    def __init__(self, name: str, index: int, array: jax.Array):
        """Wraps the ``index``-th leaf; :func:`value_grads_and_norms` does."""
        self.name, self.shape, self.ndim, self.dtype = name, array.shape, array.ndim, array.dtype
        self._index, self._array = index, array

    def __repr__(self):
        """The leaf's path and type."""
        return f"Parameter({self.name}, {self.dtype}{list(self.shape)})"

    def __getattr__(self, attribute):
        """Raises: an array's other attributes are uses outside the tape."""
        if hasattr(jax.Array, attribute):
            self._refuse()
        raise AttributeError(attribute)

    def _refuse(self, *_, **__):
        raise ValueError(
            f"{self.name} is used outside the tape, so its gradient would be incomplete: hand it to tape.dense, embed, "
            "attend, scale or add, or take its value, without a gradient, from tape.constant."
        )


for _name in ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"]:
    setattr(Parameter, f"__{_name}__", Parameter._refuse)
    setattr(Parameter, f"__r{_name}__", Parameter._refuse)
for _name in ["array", "neg", "pos", "abs", "getitem", "iter", "len", "float", "lt", "le", "gt", "ge"]:
    setattr(Parameter, f"__{_name}__", Parameter._refuse)
Parameter.__jax_array__ = property(Parameter._refuse)  # JAX looks for it before it calls it
del _name


class Use(NamedTuple):
    """That a leaf (its index) enters an operation (its index) as a "matrix", its "transpose", a "table" or "rows"."""

    leaf: int
    kind: str
    operation: int


class Tape:
    """The operations through which a model's parameters act, so that one backward pass gives every example's norm.

    The model is a function of a tape, parameters and a batch. :func:`value_grads_and_norms` runs it on a tape that
    remembers; a new ``Tape()`` and parameters that are plain arrays make it an ordinary function, say for evaluation.

    What happens between the operations is free (activations, attention, normalisation over features), with two limits:
    the first axis of all that passes through the tape is the batch's, and no example's loss may depend on another
    example (batch normalisation does that, and makes the norms wrong). An operation must not be called inside ``vmap``,
    ``scan`` or ``checkpoint``. A leaf may be used several times; weight tying between :meth:`embed` and :meth:`attend`,
    or a layer applied again and again, is accounted for exactly. A convolution is a dense layer on patches.

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

    def __init__(self):
        """A tape that changes nothing."""
        self._zeros, self._outputs = None, []  # what is added to each operation's output, and its type
        self._uses, self._factors, self._constants = [], [], set()

    def dense(self, x: ArrayLike, kernel: Any, bias: Any = None) -> jax.Array:
        """A dense layer, ``x @ kernel + bias``.

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
        y = x @ _array(kernel)
        if bias is None:
            return self._tap(y, (kernel, "matrix", x))
        return self._tap(y + _array(bias), (kernel, "matrix", x), (bias, "rows", None))

    def embed(self, ids: ArrayLike, table: Any) -> jax.Array:
        """Rows of a table, ``table[ids]``.

        Args:
            ids: int ``[B, ...]``; negative ones count from the end, and those out of range are clipped to it.
            table: ``[V, d]``.

        Returns:
            ``[B, ..., d]``.

        Raises:
            ValueError: other shapes, or ids that are not integers.
        """
        ids = jnp.asarray(ids)
        if not jnp.issubdtype(ids.dtype, jnp.integer) or ids.ndim < 1 or table.ndim != 2:
            raise ValueError(f"embed takes integer ids [B, ...] and a table [V, d], got {ids.aval} and {table.shape}.")
        size = table.shape[0]
        ids = jnp.clip(jnp.where(ids < 0, ids + size, ids), 0, size - 1)
        return self._tap(_array(table)[ids], (table, "table", ids))

    def attend(self, x: ArrayLike, table: Any) -> jax.Array:
        """A table of embeddings as an output layer, ``x @ table.T``.

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
        return self._tap(x @ _array(table).T, (table, "transpose", x))

    def scale(self, x: ArrayLike, gamma: Any, beta: Any = None) -> jax.Array:
        """An elementwise affine map, ``x * gamma + beta``, such as ends a layer normalisation.

        Args:
            x: ``[B, ..., *shape]``.
            gamma: ``[*shape]``, the last axes of ``x`` in full.
            beta: as ``gamma``, or None.

        Returns:
            As ``x``.

        Raises:
            ValueError: other shapes.
        """
        x = jnp.asarray(x)
        _check_trailing("scale", x, gamma)
        y = x * _array(gamma)
        if beta is None:
            return self._tap(y, (gamma, "rows", x))
        _check_trailing("scale", x, beta)
        return self._tap(y + _array(beta), (gamma, "rows", x), (beta, "rows", None))

    def add(self, x: ArrayLike, bias: Any) -> jax.Array:
        """A sum, ``x + bias``, with a bias, a table of positions, or whatever has the last axes of ``x``.

        Args:
            x: ``[B, ..., *shape]``.
            bias: ``[*shape]``, the last axes of ``x`` in full.

        Returns:
            As ``x``.

        Raises:
            ValueError: other shapes.
        """
        x = jnp.asarray(x)
        _check_trailing("add", x, bias)
        return self._tap(x + _array(bias), (bias, "rows", None))

    def constant(self, parameter: Any) -> jax.Array:
        """The leaf's value, for uses that are to have no gradient: a frozen layer's, a buffer's.

        Args:
            parameter: a leaf of ``params``.

        Returns:
            Its array. A leaf with no other use has gradient zero and no part in the norms.
        """
        if isinstance(parameter, Parameter):
            self._constants.add(parameter._index)
        return _array(parameter)

    def _tap(self, y, *uses):
        """Adds the operation's zero to its output ``y``, and keeps what the gradients of its leaves are made of."""
        uses = [use for use in uses if isinstance(use[0], Parameter)]
        if not uses:
            return y
        operation = len(self._outputs)
        for parameter, kind, factor in uses:
            self._uses.append(Use(parameter._index, kind, operation))
            self._factors.append(factor)
        self._outputs.append((jax.ShapeDtypeStruct(y.shape, y.dtype), _varying(y)))
        return y if self._zeros is None else y + self._zeros[operation]


def _array(parameter):
    return parameter._array if isinstance(parameter, Parameter) else jnp.asarray(parameter)


def _varying(y):
    """The mesh axes over which it varies, under ``shard_map``."""
    kind = jax.typeof(y)
    return tuple(kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else getattr(kind, "vma", ()))


def _check_trailing(name, x, parameter):
    if x.ndim <= parameter.ndim or x.shape[x.ndim - parameter.ndim :] != parameter.shape:
        raise ValueError(f"{name} takes x [B, ..., *shape] and a parameter [*shape], got {x.shape}, {parameter.shape}.")
