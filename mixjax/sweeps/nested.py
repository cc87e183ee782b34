"""Gives nested metrics flat names, and refuses by name what is no metric."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.files import can_name_arrays
from mixjax.sweeps.segments import Segments
from mixjax.sweeps.spec import Train

__all__ = ["flat_metrics", "with_flat_metrics"]

_SEPARATOR = "."
"""Joins the names of nested metrics. Not a slash, which the names in a netCDF file must not have."""

_ARRAYS = (jax.Array, np.ndarray, np.generic)
_NUMBERS = (*_ARRAYS, bool, int, float, complex)


def flat_metrics(metrics: Any) -> dict[str, Any]:
    """Names the metrics of one run by their paths, and checks that each is an array.

    Args:
        metrics: a dict of arrays, or of dicts of arrays, nested as deep as one likes.

    Returns:
        ``{"loss.train": array}`` of ``{"loss": {"train": array}}``.

    Raises:
        TypeError: no dict, a name that is no text, or a metric that is no array of numbers: None, a list, a random key.
        ValueError: two metrics get one name.

    Example:
        >>> flat_metrics({"loss": {"train": 1.0, "test": 2.0}, "steps": 3})
        {'loss.train': 1.0, 'loss.test': 2.0, 'steps': 3}
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(f"train must return a dict of arrays, got {type(metrics).__name__}.")
    found: dict[str, Any] = {}
    for name, metric in metrics.items():
        if not isinstance(name, str):
            raise TypeError(f"train must name its metrics by texts, got {name!r}.")
        if not can_name_arrays(name):
            raise TypeError(f"metric {name!r}: a name cannot hold a NUL, nor what is no UTF-8.")
        inner = {name: metric}
        if isinstance(metric, Mapping):
            inner = {f"{name}{_SEPARATOR}{below}": value for below, value in _inner(name, metric).items()}
        else:
            _check_metric(name, metric)
        twice = sorted(found.keys() & inner.keys())
        if twice:
            raise ValueError(f"metric {twice[0]!r} is there twice, nested and not.")
        found |= inner
    return found


def with_flat_metrics(train: Train | Segments, hparams: Any, data: Any) -> Any:
    """Wraps a training run, so that it returns its metrics by flat names.

    Args:
        train: the training run.
        hparams: hyperparameter -> ``jax.ShapeDtypeStruct``.
        data: pytree of arrays, or of their shapes.

    Returns:
        A training run of the same kind; equal to that of an equal ``train``. The function ``stop`` of :class:`Segments`
        gets the metrics nested as ``advance`` returned them.

    Raises:
        TypeError, ValueError: as :func:`flat_metrics`, here or when the run is traced.
    """
    if not isinstance(train, Segments):
        return _Flat(train)
    stop = train.stop
    if stop is not None:
        carry = jax.eval_shape(train.init, jax.random.key(0), hparams, data)
        _, metrics = jax.eval_shape(_FlatAdvance(train.advance, keep=True), carry, hparams, data)
        if any(isinstance(metric, Mapping) for metric in metrics.values()):
            names, structure = jax.tree.flatten(_names(metrics))
            stop = _NestedStop(stop, tuple(names), structure)
    # A function of other arguments than a whole run, of which `_Flat` flattens the metrics all the same.
    finish = None if train.finish is None else _Flat(train.finish)
    return train._replace(advance=_FlatAdvance(train.advance), stop=stop, finish=finish)


# Classes, not closures: the compiled programs are found again by equality, which a new closure would not have.
@dataclasses.dataclass(frozen=True)
class _Flat:
    train: Callable

    def __call__(self, state, hparams, data):
        return flat_metrics(self.train(state, hparams, data))


@dataclasses.dataclass(frozen=True)
class _FlatAdvance:
    """Names a segment's metrics; with ``keep`` it only checks them."""

    advance: Callable
    keep: bool = False

    def __call__(self, carry, hparams, data):
        carry, metrics = self.advance(carry, hparams, data)
        flat = flat_metrics(metrics)
        return carry, metrics if self.keep else flat


@dataclasses.dataclass(frozen=True)
class _NestedStop:
    """Calls ``stop`` with nested metrics; ``names`` are in the order of the leaves of ``structure``."""

    stop: Callable
    names: tuple[str, ...]
    structure: Any

    def __call__(self, metrics):
        return self.stop(jax.tree.unflatten(self.structure, [metrics[name] for name in self.names]))


def _inner(name, metrics):
    """Returns the flat metrics of a dict inside the metrics."""
    try:
        found = flat_metrics(metrics)
    except TypeError as error:
        raise TypeError(f"in metric {name!r}: {error}") from None
    if not found:
        raise TypeError(f"metric {name!r} must be an array or a dict of arrays, got an empty dict.")
    return found


def _check_metric(name, metric):
    if not isinstance(metric, _NUMBERS):
        advice = "; join its entries by jnp.stack, or name them in a dict" if isinstance(metric, (list, tuple)) else ""
        given = "None" if metric is None else f"a {type(metric).__name__}"
        raise TypeError(f"metric {name!r} must be an array or a dict of arrays, got {given}{advice}.")
    dtype = metric.dtype if isinstance(metric, _ARRAYS) else np.dtype(type(metric))
    if not (jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)):
        raise TypeError(f"metric {name!r} must be an array of numbers, got {dtype}.")


def _names(metrics, prefix=""):
    """Returns a nested dict like the metrics, with each metric's flat name in its place."""
    return {
        name: _names(metric, f"{prefix}{name}{_SEPARATOR}") if isinstance(metric, Mapping) else f"{prefix}{name}"
        for name, metric in metrics.items()
    }
