"""Finds out, by tracing, which metrics a run will return, and names and checks their dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mixjax.sweeps.lowering import Shapes
from mixjax.sweeps.segments import Segments, num_calls
from mixjax.sweeps.spec import Train

__all__ = ["SegmentShapes", "metric_dims", "metric_shapes", "segment_shapes", "time_axes"]


class SegmentShapes(NamedTuple):
    """Holds the shapes of one segment of one run, as pytrees of ``jax.ShapeDtypeStruct``.

    Args:
        before: the carry that the segment takes.
        after: the carry that the segment returns.
        metrics: the segment's metrics, time first.
        ends: the metrics of a run's end; empty without ``finish``.
    """

    before: Any
    after: Any
    metrics: Any
    ends: Any


def segment_shapes(segments: Segments, hparams: Any, data: Any) -> SegmentShapes:
    """Traces one segment of one run.

    Args:
        segments: the training run.
        hparams: hyperparameter -> scalar or array, or its ``jax.ShapeDtypeStruct``.
        data: pytree of arrays.

    Returns:
        The shapes of the segment's carries and metrics.
    """
    before = jax.eval_shape(segments.init, jax.random.key(0), hparams, data)
    after, metrics = jax.eval_shape(segments.advance, before, hparams, data)
    ends = {} if segments.finish is None else jax.eval_shape(segments.finish, after, hparams, data)
    return SegmentShapes(before, after, metrics, ends)


def metric_dims(
    train: Train | Segments,
    hparams: Any,
    data: Any,
    *,
    taken: Sequence[str],
    dims: Mapping[str, tuple[str, ...]],
    coords: Mapping[str, Sequence],
) -> dict[str, tuple[str, ...]]:
    """Names the dimensions of every metric, and checks the names against the shapes that ``train`` would return.

    Args:
        train: the training run, with flat metrics (:func:`mixjax.sweeps.nested.with_flat_metrics`); traced, not run.
        hparams: hyperparameter -> ``jax.ShapeDtypeStruct``.
        data: pytree of arrays.
        taken: names that no dimension or metric may have.
        dims: metric -> names of its dimensions; a metric that is left out gets made-up names.
        coords: dimension -> the labels along it.

    Returns:
        Metric -> names of its dimensions, for all metrics.

    Raises:
        TypeError: the carry of :class:`Segments` changes its shapes, or their ``stop`` returns no bool.
        ValueError: ``dims`` or ``coords`` do not fit the metrics, or a name has two meanings.
    """
    shapes = metric_shapes(train, hparams, data)
    unknown = sorted(set(dims) - set(shapes))
    if unknown:
        raise ValueError(f"dims name metrics that train does not return: {unknown}; it returns {sorted(shapes)}.")
    named = {}
    for name, shape in shapes.items():
        if isinstance(dims.get(name), str):
            raise ValueError(f"dims of {name!r} must be a tuple of names, got {dims[name]!r}.")
        named[name] = tuple(dims.get(name, [f"{name}_{i}" for i in range(shape.ndim)]))
        if len(named[name]) != shape.ndim:
            raise ValueError(f"metric {name!r} has shape {shape.shape}, which does not fit dims {named[name]}.")
    sizes = _sizes(shapes, named, coords)
    names = [*taken, *sizes, *shapes]
    clashes = sorted({name for name in names if names.count(name) > 1})
    if clashes:
        raise ValueError(f"axes, 'seed', dims and metrics need different names, got {clashes} twice.")
    return named


def time_axes(
    train: Train | Segments, dims: Mapping[str, tuple[str, ...]], hparams: Any = None, data: Any = None
) -> dict[str, int | None]:
    """Finds the dimension of time of each metric.

    Args:
        train: the training run.
        dims: metric -> names of its dimensions.
        hparams: hyperparameter -> ``jax.ShapeDtypeStruct``; needed where ``train`` has a ``finish``.
        data: pytree of arrays, or of their shapes; needed there too.

    Returns:
        Metric -> the place of time among the metric's own dimensions, or None where it has no time. With
        :class:`Segments` the first dimension is time in what segments return. Else, and at a run's end, the first
        dimension called "step" or "time" is.
    """
    whole = dims
    if isinstance(train, Segments):
        whole = () if train.finish is None else segment_shapes(train, hparams, data).ends
    places: dict[str, int | None] = dict.fromkeys(dims, 0)
    for name in whole:
        places[name] = next((place for place, dim in enumerate(dims[name]) if dim in ("step", "time")), None)
    return places


def _sizes(shapes, named, coords):
    """Returns each dimension's size, checked to be the same in all metrics and coordinates."""
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        for dim, size in zip(named[name], shape.shape, strict=True):
            expected = sizes.setdefault(dim, len(coords[dim]) if dim in coords else size)
            if size != expected:
                raise ValueError(
                    f"metric {name!r} has {size} entries along {dim!r}, its coords or another metric {expected}."
                )
    return sizes


def metric_shapes(train, hparams, data) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of one run's metrics, with all segments of :class:`Segments` joined along time.

    Args:
        train: the training run, with flat metrics; traced, not run.
        hparams: hyperparameter -> ``jax.ShapeDtypeStruct``.
        data: pytree of arrays, or of their shapes.

    Returns:
        Metric -> shape and dtype.

    Raises:
        TypeError, ValueError: as :func:`metric_dims`.
    """
    ends = {}
    if isinstance(train, Segments):
        _, _, one, ends = _checked_segment(train, hparams, data)
    else:
        one = jax.eval_shape(train, jax.random.key(0), hparams, data)
    if not one:
        raise ValueError("train returned no metric.")
    if not isinstance(train, Segments):
        return one
    num = train.num * num_calls(train)
    joined = {name: jax.ShapeDtypeStruct((num * x.shape[0], *x.shape[1:]), x.dtype) for name, x in one.items()}
    twice = sorted(joined.keys() & ends.keys())
    if twice:
        raise ValueError(f"metrics of finish need other names than those of advance, got {twice} from both.")
    return joined | ends


def _checked_segment(segments, hparams, data) -> SegmentShapes:
    if not isinstance(segments.num, int | np.integer) or segments.num < 1:
        raise ValueError(f"num must be an integer, at least 1 segment, got {segments.num}.")
    if not isinstance(num_calls(segments), int | np.integer) or num_calls(segments) < 1:
        raise ValueError(f"calls must be None or an integer, at least 1 call a segment, got {segments.calls}.")
    shapes = segment_shapes(segments, hparams, data)
    # One program runs all segments: a carry of another type would need a second one.
    if Shapes(shapes.before) != Shapes(shapes.after):
        raise TypeError(f"advance must return a carry like the one it got, {shapes.before}, got {shapes.after}.")
    for name, x in shapes.metrics.items():
        if x.ndim == 0:
            raise ValueError(f"metric {name!r} of a segment needs time as its first dimension, got a scalar.")
    if segments.stop is not None:
        done = jax.eval_shape(segments.stop, shapes.metrics)
        if getattr(done, "shape", None) != () or done.dtype != bool:
            raise TypeError(f"stop must return one bool, got {done}.")
    return shapes
