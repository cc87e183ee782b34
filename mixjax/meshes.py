"""Makes functions work on any mesh: casts what varies between devices, and leaves the placing of arrays to XLA.

JAX meshes have three kinds of axes:

- *Manual* axes, inside ``shard_map``. Each device runs the program on its own part. With ``check_vma=True``, the
  default, an array's type says over which of these axes its value varies. Both branches of a ``cond`` and the carry of
  a ``scan`` or ``while_loop`` need equal types, which :func:`varying_like` makes.
- *Explicit* axes, the default of ``jax.make_mesh``. An array's type says how it is sharded, and operations such as
  scatters and gathers refuse shardings that they cannot decide on. :func:`with_auto_axes` lets XLA decide.
- *Auto* axes. XLA decides, and nothing needs to be done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import NamedSharding, PartitionSpec

__all__ = [
    "is_unchecked",
    "placed_like",
    "spec_of",
    "varying_axes",
    "varying_like",
    "varying_like_result",
    "varying_over",
    "with_auto_axes",
]

Tree = TypeVar("Tree")


def varying_axes(x: Any) -> frozenset[str]:
    """Finds the mesh axes over which an array varies, inside ``shard_map`` with ``check_vma=True``.

    Args:
        x: an array, or the ``jax.ShapeDtypeStruct`` of one. Anything else varies over nothing.

    Returns:
        Names of axes; empty outside ``shard_map``, and with ``check_vma=False``.
    """
    if not isinstance(x, (jax.Array, jax.ShapeDtypeStruct)):
        return frozenset()
    array_type = jax.typeof(x) if isinstance(x, jax.Array) else x
    # The attribute's place depends on the version of JAX.
    manual = getattr(array_type, "manual_axis_type", None)
    return frozenset(getattr(array_type, "vma", ()) if manual is None else manual.varying)


def varying_like(tree: Tree, *others: Any) -> Tree:
    """Casts arrays to vary over all mesh axes over which any of some others vary, so that their types agree.

    Use it on the carry of a ``scan`` or ``while_loop``, and on the results of a ``cond``'s branches, where a state that
    is equal on all devices meets signals that each device measures for itself.

    Args:
        tree: pytree of arrays.
        *others: pytrees; leaves that are not arrays are passed over.

    Returns:
        The same values. Outside ``shard_map``, and with ``check_vma=False``, the tree as it is.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax.sharding import PartitionSpec as P
        >>> from mixjax.meshes import varying_like
        >>> def double_until_above(x):
        ...     start = varying_like(jnp.float32(1.0), x)
        ...     return jax.lax.while_loop(lambda y: y < x[0], lambda y: 2.0 * y, start)[None]
        >>> mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
        >>> on_each = jax.shard_map(double_until_above, mesh=mesh, in_specs=P("d"), out_specs=P("d"))
        >>> on_each(jnp.array([3.0, 9.0])).tolist()
        [4.0, 16.0]
    """
    axes = frozenset().union(*map(varying_axes, jax.tree.leaves(others)))
    return jax.tree.map(lambda x: varying_over(x, axes), tree)


def varying_over(x: jax.Array, axes: frozenset[str]) -> jax.Array:
    """Casts one array to vary over the mesh axes of the given names, beside those over which it varies already.

    Args:
        x: an array.
        axes: names of axes, such as :func:`varying_axes` finds; empty outside ``shard_map``.
    """
    missing = tuple(sorted(axes - varying_axes(x)))
    if not missing:
        return x
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, missing, to="varying")
    # Versions of JAX before `pcast` have `pvary`; pyright sees the installed one.
    return jax.lax.pvary(x, missing)  # pyright: ignore[reportAttributeAccessIssue]


def varying_like_result(tree: Tree, fun: Callable[..., Any], *args: Any) -> Tree:
    """Casts arrays to vary over all mesh axes over which a function's results vary.

    Use it on the carry of a ``scan`` whose body reads arrays that each device has for itself.

    Args:
        tree: pytree of arrays.
        fun: a function of pytrees of arrays. Only its types are computed.
        *args: its arguments.

    Returns:
        The same values; outside ``shard_map`` the tree as it is, and ``fun`` is not traced.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return tree
    return varying_like(tree, jax.eval_shape(fun, *args))


def is_unchecked(axis_name: str | tuple[str, ...]) -> bool:
    """Tells whether JAX does not keep count of what varies over an axis, so that it does not complete gradients.

    Args:
        axis_name: one or several mapped axes: of ``shard_map``, ``pmap`` or ``vmap``.

    Returns:
        True inside a ``shard_map`` with ``check_vma=False`` that maps one of the axes, and inside ``pmap``, which is
        such a ``shard_map`` in recent versions of JAX. False for ``vmap`` and for a ``shard_map`` that is checked.
    """
    names = (axis_name,) if isinstance(axis_name, str) else axis_name
    manual = jax.sharding.get_abstract_mesh().manual_axes
    # The index along an axis varies over that axis, wherever JAX keeps count.
    return any(name in manual and name not in varying_axes(jax.lax.axis_index(name)) for name in names)


def spec_of(x: Any) -> PartitionSpec:
    """Returns how an array is sharded over the Explicit axes of a mesh; the empty spec where it is not.

    Args:
        x: an array, or anything that JAX takes for one.
    """
    return jax.typeof(x).sharding.spec if isinstance(x, jax.Array) else PartitionSpec()


def placed_like(x: jax.Array, like: jax.Array) -> jax.Array:
    """Shards an array over the Explicit axes of its mesh as another array of that shape is sharded.

    Args:
        x: the array to place.
        like: an array of the same shape.

    Returns:
        The same values; ``x`` itself where no axis of its mesh is Explicit.
    """
    mesh, spec = jax.typeof(x).sharding.mesh, spec_of(like)
    if not mesh.explicit_axes or spec_of(x) == spec:
        return x
    return jax.sharding.reshard(x, NamedSharding(mesh, spec))


def with_auto_axes(fun: Callable[..., Any], specs: Any) -> Callable[..., Any]:
    """Wraps a function so that XLA places what it computes, also on a mesh with Explicit axes.

    Args:
        fun: a function of pytrees of arrays.
        specs: how the results are sharded over the Explicit axes: a ``PartitionSpec``, or a pytree of them that is a
            prefix of the results.

    Returns:
        A function of the same arguments. Where no argument is sharded over an Explicit axis, it is ``fun``.
    """

    def placed(*args):
        meshes = (jax.typeof(x).sharding.mesh for x in jax.tree.leaves(args) if isinstance(x, jax.Array))
        mesh = next((mesh for mesh in meshes if mesh.explicit_axes), None)
        if mesh is None:
            return fun(*args)
        shardings = jax.tree.map(
            lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, PartitionSpec)
        )
        # The mesh's Manual axes, those of a shard_map around this call, stay as they are.
        return jax.sharding.auto_axes(fun, axes=mesh.explicit_axes, out_sharding=shardings)(*args)

    return placed
