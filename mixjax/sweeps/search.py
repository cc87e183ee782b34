"""Searches for hyperparameters: optuna proposes points in batches, and each batch is one sweep.

All batches are computed by the same compiled program. The points of an experiment that a config names are searched so,
here with ERMA's final accuracy as the objective::

    config = mixjax.runner.configs.load("configs/quickstart.toml")
    experiment = config.function(config.runs[0].values)
    sweep = mixjax.sweeps.Sweep(
        experiment.train, seeds=8, data=experiment.data, dims=experiment.dims, coords=experiment.coords
    )

    def objective(result):
        return -result.accuracy.sel({"method": "erma"}).isel(step=-1).mean("seed")

    space = {"gamma1": ("log", 1e-3, 1.0), "gamma2": ("log", 1e-3, 1.0)}
    study = mixjax.sweeps.search.search(sweep, space, objective, num_trials=64)
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mixjax.checks import requires
from mixjax.files import local_path
from mixjax.sweeps import loop
from mixjax.sweeps.checkpoints import remove_chunks
from mixjax.sweeps.points import Labels, random_points
from mixjax.sweeps.progress import Callback, Tracker
from mixjax.sweeps.spec import Sweep

if TYPE_CHECKING:
    import optuna

__all__ = ["search"]

_BATCH = "batch"
"""Names the user attribute of a trial that holds the number of the first trial of its batch."""

_CHUNK = "chunk"
"""Names the user attribute of the study that holds the number of runs in a chunk that "auto" chose."""


def search(
    sweep: Sweep,
    space: Mapping[str, Sequence],
    objective: Callable[[Any], Any],
    *,
    num_trials: int,
    batch: int = 16,
    study: optuna.Study | None = None,
    checkpoint: str | os.PathLike | None = None,
    callback: Callback | None = None,
    tracker: Tracker | None = None,
    identity: Mapping[str, Any] | None = None,
) -> optuna.Study:
    """Asks an optuna study for points, a batch at a time, and tells it the objective at each point.

    All points have the same seeds, so that trials are compared in pairs. A point whose objective is not finite becomes
    a failed trial, and optuna's samplers ignore failed trials. To keep a sampler away from such points, return a large
    finite value instead.

    Args:
        sweep: what to run at each point, without ``points``. A ``chunk`` of "auto" is chosen for the first batch and
            kept, in the study too.
        space: for each hyperparameter ``("linear" | "log" | "integer", low, high)`` or a list to choose from, as in
            :func:`mixjax.sweeps.random_points`, but no vectors. Strings are labels: ``train`` gets their
            positions in the list. A chunk holds runs of equal labels only, so that a batch of many labels takes several
            chunks.
        objective: the ``xarray.Dataset`` of a batch -> a value for each point, ``[point]``, for instance a mean over
            ``seed``; for a study of several objectives ``[point, objective]``.
        num_trials: finished trials that ``study`` has in the end, failed ones and earlier ones among them. The last
            batch may be smaller than the others.
        batch: points that are asked for at once. More points fill a device; fewer make the search more adaptive.
        study: with its own sampler, direction and storage; the default is ``optuna.create_study()``, which minimises
            and keeps nothing on disk. The same sampler, seeded, gives the same search. Let one process at a time work
            on a study.
        checkpoint: folder for the chunks of the batch at work, see :func:`mixjax.sweep`. If the study has a storage on
            disk, the same call continues a search that was killed, from the last saved chunk of the batch at work. Give
            the sampler another seed then: with the same seed it would draw its first points again.
        callback: passed on to each batch's sweep, see :func:`mixjax.sweep`.
        tracker: passed on to each batch's sweep.
        identity: passed on to each batch's sweep.

    Returns:
        The study: ``best_params``, ``best_value``, ``trials_dataframe()``.

    Raises:
        ValueError: ``num_trials`` or ``batch`` below 1, a sweep with points, a space as
            :func:`mixjax.sweeps.random_points` refuses it, an objective of another shape, several hosts.
        ImportError: optuna is missing (extra ``search``).

    Example:
        >>> import jax, optuna
        >>> from mixjax.sweeps import Sweep
        >>> from mixjax.sweeps.search import search
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> def train(key, hparams, data):
        ...     return {"error": (hparams["x"] - 0.3) ** 2 + 0.01 * jax.random.normal(key)}
        >>> study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        >>> study = search(
        ...     Sweep(train, seeds=4), {"x": ("linear", 0.0, 1.0)}, lambda result: result.error.mean("seed"),
        ...     num_trials=64, study=study,
        ... )
        >>> len(study.trials), abs(study.best_params["x"] - 0.3) < 0.05
        (64, True)
    """
    checkpoint = None if checkpoint is None else local_path("checkpoint", checkpoint)
    with requires("search", "mixjax.sweeps.search"):
        import optuna

    if num_trials < 1 or batch < 1:
        raise ValueError(f"num_trials and batch must be at least 1, got {num_trials=}, {batch=}.")
    if sweep.points:
        raise ValueError(f"the search chooses the points; give a sweep without points, got {sorted(sweep.points)}.")
    if not sweep.paired:
        raise ValueError("the search compares points over the same seeds; give a sweep with paired=True.")
    if jax.process_count() > 1:
        raise ValueError(f"a search needs one host, got {jax.process_count()}: each would ask for points of its own.")
    distributions = _distributions(space)
    study = optuna.create_study() if study is None else study
    while trials := _next_batch(study, distributions, num_trials, batch):
        # All batches use the first batch's size of a chunk, so that they share one program.
        chunk = study.user_attrs.get(_CHUNK, "auto") if sweep.chunk == "auto" else sweep.chunk
        folder = None if checkpoint is None else checkpoint / f"batch_{trials[0].number:06d}"
        result = loop.run(
            dataclasses.replace(sweep, points=_points(trials, distributions), chunk=chunk),
            callback=callback,
            tracker=tracker,
            checkpoint=folder,
            identity=identity,
        )
        _tell(study, trials, _values(objective(result), len(trials), study))
        if folder is not None:
            remove_chunks(folder)
        # Set only when the folder is gone: with a number in place of "auto", its chunks would be refused. The size is 0
        # where all chunks were found on disk.
        if chunk == "auto" and result.attrs["chunk"]:
            study.set_user_attr(_CHUNK, result.attrs["chunk"])
    return study


def _distributions(space):
    """Returns optuna's distribution of each hyperparameter."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    # Checks the space.
    drawn = random_points(space, num=1)
    found = {}
    for name, choices in space.items():
        if np.ndim(drawn[name][0]):
            raise ValueError(
                f"{name}: optuna proposes numbers and labels, no vectors; make the vector of them in train."
            )
        scale = choices[0] if isinstance(choices, tuple) and len(choices) == 3 else None
        if scale in ("linear", "log"):
            found[name] = FloatDistribution(float(choices[1]), float(choices[2]), log=scale == "log")
        elif scale == "integer":
            found[name] = IntDistribution(int(choices[1]), int(choices[2]))
        else:
            # NumPy makes all numbers of one type. Otherwise a batch that happens to hold only the ints of a mixed list
            # would be compiled as a program of ints.
            found[name] = CategoricalDistribution(np.asarray(choices).tolist())
    return found


def _next_batch(study, distributions, num_trials, batch):
    """Returns the trials to evaluate next: first the batch at which a search was killed, then new ones."""
    unfinished = _unfinished(study, distributions)
    if unfinished:
        return unfinished
    finished = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
    trials = [study.ask(distributions) for _ in range(min(batch, num_trials - finished))]
    for trial in trials:
        trial.set_user_attr(_BATCH, trials[0].number)
    return trials


def _unfinished(study, distributions):
    """Returns all trials of the batch at which a search was killed, or none.

    A running trial without a batch was just being asked for. It is told as failed, as is a trial of another space.
    """
    from optuna.trial import TrialState

    first = None
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        if _BATCH in trial.user_attrs and trial.params.keys() == distributions.keys():
            if first is None:
                first = trial.user_attrs[_BATCH]
        else:
            study.tell(trial.number, state=TrialState.FAIL)
    if first is None:
        return []
    return [trial for trial in study.get_trials() if trial.user_attrs.get(_BATCH) == first]


def _tell(study, trials, values):
    """Tells the study the values of each trial, or that the trial failed where a value is not finite."""
    from optuna.trial import TrialState

    for trial, own in zip(trials, values, strict=True):
        # skip_if_finished: if the search was killed in this loop, some trials of the batch were told before.
        if np.isfinite(own).all():
            study.tell(trial.number, values=own, skip_if_finished=True)
        else:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def _points(trials, distributions):
    """Returns the trials' hyperparameters as columns of points."""
    points = {}
    for name, distribution in distributions.items():
        column = [trial.params[name] for trial in trials]
        choices = getattr(distribution, "choices", ())
        if choices and isinstance(choices[0], str):
            column = Labels(column, choices)
        points[name] = column
    return points


def _values(values, num, study):
    """Checks the objective's values, and returns a list of them for each trial."""
    values, shape = np.asarray(values, float), (num, len(study.directions))
    if values.shape != shape and (values.shape != (num,) or shape[1] > 1):
        raise ValueError(f"objective must return {num} values, one a point ({shape[1]} each), got {values.shape}.")
    return values.reshape(shape).tolist()
