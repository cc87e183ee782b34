"""Adaptive search: optuna proposes points in batches, and each batch is one sweep by the same compiled program.

Over an experiment that a config names, here with ERMA's final accuracy as the objective:

```python
config = mixjax.runner.configs.load("configs/quickstart.toml")
experiment = config.function(config.runs[0].values)

def objective(result):
    return -result.accuracy.sel({"method": "erma"}).isel(step=-1).mean("seed")

study = mixjax.sweeps.search.search(
    experiment.train, {"gamma1": ("log", 1e-3, 1.0), "gamma2": ("log", 1e-3, 1.0)}, objective,
    num_trials=64, seeds=8, data=experiment.data, dims=experiment.dims, coords=experiment.coords,
)
```
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mixjax.sweeps.loop import sweep
from mixjax.sweeps.runs import Labels, random_points
from mixjax.sweeps.segments import Segments

if TYPE_CHECKING:
    import optuna

__all__ = ["search"]

_BATCH = "batch"  # a trial's user attribute: the number of its batch's first trial
_CHUNK = "chunk"  # the study's: what "auto" chose


def search(
    train: Callable[[jax.Array, dict[str, jax.Array], Any], dict[str, jax.Array]] | Segments,
    space: Mapping[str, Sequence],
    objective: Callable[[Any], Any],
    *,
    num_trials: int,
    seeds: int,
    batch: int = 16,
    study: "optuna.Study | None" = None,
    checkpoint: str | os.PathLike | None = None,
    chunk: int | str = "auto",
    **arguments: Any,
) -> "optuna.Study":
    """Asks an optuna study for points, a batch at a time, and tells it what :func:`mixjax.sweep` makes of them.

    All points have the same seeds, so that trials are compared in pairs. A point whose objective is not finite becomes
    a failed trial, which optuna's samplers pass over: return a large finite value to keep them away from there.

    Args:
        train: as :func:`mixjax.sweep` takes it.
        space: for each hyperparameter ``("linear" | "log" | "integer", low, high)`` or a list to choose from, as in
            :func:`mixjax.sweeps.random_points`. Strings are labels: ``train`` gets their positions in the list, which
            are not batched.
        objective: the ``xarray.Dataset`` of a batch -> a value for each point, ``[point]``, or for a study of several
            objectives ``[point, objective]``: its mean over ``seed``, for instance.
        num_trials: finished trials that ``study`` shall have, failed ones among them; the last batch may be smaller.
        seeds: of each point.
        batch: points that are asked for at once. More fill a device; fewer make the search more adaptive.
        study: with its own sampler, direction and storage; the default is ``optuna.create_study()``, which minimises
            and keeps nothing. The same sampler, seeded, gives the same search. One process at a time works on it.
        checkpoint: folder for the chunks of the batch at work, see :func:`mixjax.sweep`. With a storage on disk, the
            same call finishes a search that was killed: trials asked for and not told are computed, from their last
            chunk on. Give the sampler another seed then, since it would draw its first points again.
        chunk: as :func:`mixjax.sweep` takes it; "auto" is chosen for the first batch and kept, in the study too.
        **arguments: the others of :func:`mixjax.sweep`, except ``points``.

    Returns:
        The study: ``best_params``, ``best_value``, ``trials_dataframe()``.

    Raises:
        ValueError: ``num_trials`` or ``batch`` below 1, a space as :func:`mixjax.sweeps.random_points` refuses it, an
            objective of another shape, several hosts.
        ImportError: optuna is missing (extra ``search``).

    Example:
        >>> import jax, optuna
        >>> from mixjax.sweeps.search import search
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> def train(key, hparams, data):
        ...     return {"error": (hparams["x"] - 0.3) ** 2 + 0.01 * jax.random.normal(key)}
        >>> study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        >>> study = search(
        ...     train, {"x": ("linear", 0.0, 1.0)}, lambda result: result.error.mean("seed"),
        ...     num_trials=64, seeds=4, study=study,
        ... )
        >>> len(study.trials), abs(study.best_params["x"] - 0.3) < 0.05
        (64, True)
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError("mixjax.sweeps.search needs optuna: pip install 'mixjax[search]'") from error

    if num_trials < 1 or batch < 1:
        raise ValueError(f"num_trials and batch must be at least 1, got {num_trials=}, {batch=}.")
    if jax.process_count() > 1:
        raise ValueError("a search runs on one host, of several one would ask for other points than the next.")
    distributions = _distributions(space)
    study = optuna.create_study() if study is None else study
    while trials := _unfinished(study, space) or _new(study, distributions, min(batch, num_trials - _finished(study))):
        rows = study.user_attrs.get(_CHUNK, chunk) if chunk == "auto" else chunk
        folder = None if checkpoint is None else Path(checkpoint, f"batch_{trials[0].number:06d}")
        points = _points(trials, distributions)
        result = sweep(train, seeds=seeds, points=points, chunk=rows, checkpoint=folder, **arguments)
        for trial, values in zip(trials, _values(objective(result), len(trials), study), strict=True):
            told = {"values": values} if np.isfinite(values).all() else {"state": optuna.trial.TrialState.FAIL}
            study.tell(trial.number, **told, skip_if_finished=True)
        if folder is not None:
            shutil.rmtree(folder)
        if rows == "auto" and result.attrs["chunk"]:  # after the folder, which says "auto"
            study.set_user_attr(_CHUNK, result.attrs["chunk"])
    return study


def _distributions(space):
    """optuna's, for each hyperparameter."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    random_points(space, num=1)  # checks the space
    found = {}
    for name, choices in space.items():
        scale = choices[0] if isinstance(choices, tuple) and len(choices) == 3 else None
        if scale in ("linear", "log"):
            found[name] = FloatDistribution(float(choices[1]), float(choices[2]), log=scale == "log")
        elif scale == "integer":
            found[name] = IntDistribution(int(choices[1]), int(choices[2]))
        else:
            found[name] = CategoricalDistribution(np.asarray(choices).tolist())  # of one type in every batch
    return found


def _finished(study):
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _unfinished(study, space):
    """The batch at work when a search was killed, with those of its trials that were told.

    A trial that was being asked for, or of another space, is told as failed.
    """
    from optuna.trial import TrialState

    starts = []
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        if _BATCH in trial.user_attrs and trial.params.keys() == space.keys():
            starts.append(trial.user_attrs[_BATCH])
        else:
            study.tell(trial.number, state=TrialState.FAIL)
    return [trial for trial in study.get_trials() if starts and trial.user_attrs.get(_BATCH) == starts[0]]


def _new(study, distributions, num):
    """A batch of trials; none if ``num`` is not positive."""
    trials = [study.ask(distributions) for _ in range(num)]
    for trial in trials:
        trial.set_user_attr(_BATCH, trials[0].number)
    return trials


def _points(trials, distributions):
    """One column a hyperparameter, for `sweep`."""
    points = {}
    for name, distribution in distributions.items():
        points[name], choices = [trial.params[name] for trial in trials], getattr(distribution, "choices", ())
        if choices and isinstance(choices[0], str):
            points[name] = Labels(points[name], choices)
    return points


def _values(values, num, study):
    """One row of objectives a trial."""
    values, shape = np.asarray(values, float), (num, len(study.directions))
    if values.shape != shape and (values.shape != (num,) or shape[1] > 1):
        raise ValueError(f"objective must return {num} values, one a point ({shape[1]} each), got {values.shape}.")
    return values.reshape(shape).tolist()
