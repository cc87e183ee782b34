"""Cuts an input into the windows that a convolution's kernel is applied to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mixjax.meshes import varying_like

__all__ = ["Geometry", "convolve", "geometry_of", "kernel_gradient", "shifted", "windows"]


class Geometry(NamedTuple):
    """Describes how a window moves over an input, with one entry per spatial axis.

    Attributes:
        strides: steps from one place to the next.
        padding: zeros before and after the input; negative numbers cut it.
        input_dilation: steps between neighbouring entries of the input, the gaps being zeros.
        kernel_dilation: steps between neighbouring entries of the window.
        groups: the number of parts of the channels, each with a kernel of its own.
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    input_dilation: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    groups: int


def geometry_of(
    spatial: Sequence[int],
    window: Sequence[int],
    *,
    strides: int | Sequence[int] | None = 1,
    padding: str | int | Sequence[int | tuple[int, int]] = "SAME",
    input_dilation: int | Sequence[int] | None = 1,
    kernel_dilation: int | Sequence[int] | None = 1,
    groups: int = 1,
) -> Geometry:
    """Fills in what is the same for all axes, and the padding that a name stands for.

    Args:
        spatial: the input's sizes.
        window: the kernel's sizes.
        strides: one number, or one per axis; None is 1.
        padding: ``"SAME"``, ``"SAME_LOWER"`` or ``"VALID"``, one number, or one number or pair per axis.
        input_dilation: as ``strides``.
        kernel_dilation: as ``strides``.
        groups: the number of groups of channels.

    Returns:
        The geometry.

    Raises:
        ValueError: another number of entries than axes, or another name of a padding.
    """

    def per_axis(name, value):
        values = value if isinstance(value, Sequence) else (1 if value is None else value,) * len(window)
        if len(values) != len(window):
            raise ValueError(f"{name} must have one entry per spatial axis, {len(window)}, got {value}.")
        return tuple(values)

    strides, dilation = per_axis("strides", strides), per_axis("kernel_dilation", kernel_dilation)
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "SAME_LOWER", "VALID"):
            raise ValueError(f"padding must be SAME, SAME_LOWER, VALID, numbers or pairs of them, got {padding!r}.")
        spans = [_span(size, step) for size, step in zip(window, dilation, strict=True)]
        pairs = lax.padtype_to_pads(tuple(spatial), tuple(spans), strides, padding.upper())
    else:
        entries = (padding,) * len(window) if isinstance(padding, int) else padding
        pairs = [(entry, entry) if isinstance(entry, int) else entry for entry in per_axis("padding", entries)]
    pads = tuple((int(low), int(high)) for low, high in pairs)
    return Geometry(strides, pads, per_axis("input_dilation", input_dilation), dilation, groups)


def convolve(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Applies a kernel at all places, channels last.

    Args:
        x: ``[N, *spatial, in]``.
        kernel: ``[*window, in / groups, out]``.
        geometry: how the window moves.

    Returns:
        ``[N, *places, out]``.
    """
    axes = tuple(range(1, x.ndim - 1))
    last = x.ndim - 1
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=geometry.strides,
        padding=geometry.padding,
        lhs_dilation=geometry.input_dilation,
        rhs_dilation=geometry.kernel_dilation,
        dimension_numbers=lax.ConvDimensionNumbers(
            (0, last, *axes), (last, last - 1, *(axis - 1 for axis in axes)), (0, last, *axes)
        ),
        feature_group_count=geometry.groups,
    )


def kernel_gradient(
    x: jax.Array, deltas: jax.Array, shape: tuple[int, ...], geometry: Geometry, dtype: jnp.dtype
) -> jax.Array:
    """Returns the gradient of a kernel, summed over all images and places.

    Args:
        x: ``[N, *spatial, in]``.
        deltas: the derivatives by the outputs, ``[N, *places, out]``.
        shape: the kernel's, ``(*window, in / groups, out)``.
        geometry: how the window moves.
        dtype: the gradient's.

    Returns:
        The gradient, of shape ``shape``.
    """
    x, deltas = x.astype(dtype), deltas.astype(dtype)
    # The convolution is linear in its kernel, so any kernel will do. Under shard_map it has to vary as the input does,
    # or JAX would sum the gradients over the devices.
    kernel = varying_like(jnp.zeros(shape, dtype), x, deltas)
    _, pullback = jax.vjp(lambda kernel: convolve(x, kernel, geometry), kernel)
    return pullback(deltas)[0]


def windows(x: jax.Array, window: tuple[int, ...], geometry: Geometry) -> jax.Array:
    """Copies out the windows, group by group.

    Args:
        x: ``[N, *spatial, in]``.
        window: the kernel's sizes.
        geometry: how the window moves.

    Returns:
        ``[N, T, groups, prod(window) · in / groups]`` for ``T`` places, with the entries of a window in the order of
        the kernel's.
    """
    x = _padded(x, geometry)
    axes = len(window)
    for axis, (size, stride, step) in enumerate(zip(window, geometry.strides, geometry.kernel_dilation, strict=True)):
        # Each axis is replaced by two, that of places and that of a window's entries.
        at = 1 + 2 * axis
        first = stride * np.arange(_places(x.shape[at], size, stride, step))
        x = jnp.take(x, first[:, None] + step * np.arange(size), axis=at, mode="clip")
    x = x.reshape(*x.shape[:-1], geometry.groups, x.shape[-1] // geometry.groups)
    places, entries = [1 + 2 * i for i in range(axes)], [2 + 2 * i for i in range(axes)]
    x = x.transpose(0, *places, 1 + 2 * axes, *entries, 2 + 2 * axes)
    return x.reshape(x.shape[0], math.prod(x.shape[1 : 1 + axes]), geometry.groups, math.prod(x.shape[2 + axes :]))


def shifted(x: jax.Array, window: tuple[int, ...], geometry: Geometry) -> Iterator[jax.Array]:
    """Yields, for each entry of the window, what that entry meets at all places.

    It is :func:`windows` piece by piece, for sums that need no more than a piece at a time.

    Args:
        x: ``[N, *spatial, in]``.
        window: the kernel's sizes.
        geometry: how the window moves.

    Yields:
        ``[N, *places, in]``, ``prod(window)`` times.
    """
    x = _padded(x, geometry)
    steps = zip(x.shape[1:-1], window, geometry.strides, geometry.kernel_dilation, strict=True)
    lengths = [max(stride * (_places(size, k, stride, step) - 1) + 1, 0) for size, k, stride, step in steps]
    for entry in itertools.product(*map(range, window)):
        starts = [i * step for i, step in zip(entry, geometry.kernel_dilation, strict=True)]
        limits = [start + length for start, length in zip(starts, lengths, strict=True)]
        yield lax.slice(x, (0, *starts, 0), (x.shape[0], *limits, x.shape[-1]), (1, *geometry.strides, 1))


def _padded(x: jax.Array, geometry: Geometry) -> jax.Array:
    """Adds the zeros around the input, and those between its entries."""
    inner = [(low, high, step - 1) for (low, high), step in zip(geometry.padding, geometry.input_dilation, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inner, (0, 0, 0)])


def _span(size: int, step: int) -> int:
    """Returns how many entries a window reaches over, if its own are ``step`` apart."""
    return (size - 1) * step + 1


def _places(length: int, size: int, stride: int, step: int) -> int:
    """Returns the number of places of a window along one axis of a padded input."""
    return max((length - _span(size, step)) // stride + 1, 0)
