"""Fields of a config that cannot be swept over: found, and named in an error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax

from mixjax.runner.configs import Config, ConfigError
from mixjax.runner.labels import Part
from mixjax.sweeps import HostLoop, Labels, Segments

if TYPE_CHECKING:
    from mixjax.runner.experiment import Experiment

__all__ = ["axes_are_numbers"]


@contextlib.contextmanager
def axes_are_numbers(config: Config, experiment: Experiment, part: Part) -> Iterator[None]:
    """Turns JAX's error about a traced value that must be known into one that names the config's field.

    ``train`` needs a field before it is compiled if it takes a shape, a number of steps or a branch from it. Such a
    field cannot be swept over.

    Args:
        config: the config, for the names of the fields.
        experiment: what its function made of one of its runs.
        part: the labels of that run.

    Yields:
        Nothing; trace ``train`` inside the ``with`` block.

    Raises:
        ConfigError: fields that cannot be axes.
    """
    try:
        yield
    except TypeError as error:  # all of JAX's errors of this kind are TypeErrors
        needed = _fields_needed(experiment, part)
        if not needed:
            raise
        raise ConfigError(
            f"{config.path}: [sweep] {', '.join(needed)}: sets a shape, a number of steps or a branch in "
            f"{config.experiment}, and cannot be an axis; use [[run]] tables, which are compiled one by one"
        ) from error


def _fields_needed(experiment: Experiment, part: Part) -> list[str]:
    """Finds the swept fields without whose values ``train`` cannot be traced; none where the fault lies elsewhere."""
    # A HostLoop is not traced at all.
    if experiment.points or isinstance(experiment.train, HostLoop):
        return []
    # Labels are known when a part is traced; their positions are numbers like any other.
    swept = {}
    for name, values in (part.axes | part.points).items():
        swept[name] = values.positions[0] if isinstance(values, Labels) else values[0]
    train: Callable = _once(experiment.train) if isinstance(experiment.train, Segments) else experiment.train

    # One field at a time is unknown, the others have a value: so the error can say which one it is.
    def traces(unknown: dict[str, Any]) -> bool:
        try:
            jax.eval_shape(
                lambda key, given, data: train(key, {**swept, **given}, data),
                jax.random.key(0),
                {name: jax.numpy.asarray(value) for name, value in unknown.items()},
                experiment.data,
            )
        except Exception:
            return False
        return True

    if not traces({}):
        return []
    return [name for name, value in swept.items() if not traces({name: value})]


def _once(segments: Segments) -> Callable:
    """Returns a function of a run's arguments that calls each function of a run that is cut in time, once."""

    def once(key, hparams, data):
        carry, metrics = segments.advance(segments.init(key, hparams, data), hparams, data)
        return metrics, None if segments.finish is None else segments.finish(carry, hparams, data)

    return once
