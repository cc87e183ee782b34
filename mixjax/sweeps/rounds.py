"""Trains on the host in rounds, and saves between them, so that a run of days that is killed loses minutes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.checks import check_integer, check_non_negative
from mixjax.stopping import Preempted
from mixjax.sweeps.blocks import read_block, write_block
from mixjax.sweeps.host_loops import HostRun
from mixjax.sweeps.keys import bits

__all__ = ["in_rounds"]

_LOG = logging.getLogger(__name__)

# Saving takes at most this share of the time.
_SHARE = 0.01


def in_rounds(
    run: HostRun,
    start: Callable[[], Any],
    advance: Callable[[Any, int], tuple[Any, dict[str, Any]]],
    num: int,
    *,
    finish: Callable[[Any], dict[str, Any]] | None = None,
    name: str = "rounds",
    at_least: float = 60.0,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Trains round after round, and goes on from the last saved one where the run was killed.

    The state and the metrics are saved in ``run.scratch`` after the last round, and after any other one that ends
    ``at_least`` seconds after the last save; and when a signal of a scheduler asks for the end, see
    :func:`mixjax.sweeps.preemptible`. Where saving is slow it is done less often: it takes at most 1 % of the
    time. A process that is killed while it saves leaves the save before. A damaged file is reported as a warning, and
    its rounds are trained again.

    Nothing is compiled here. A jitted step that ``advance`` calls again and again may donate its state. XLA's
    convolutions are many times slower in a compiled loop on a CPU, so that this is also the quicker way there.

    Args:
        run: what a :class:`HostLoop` hands to its ``train``.
        start: ``start() -> state``, a pytree of arrays and random keys: the state before the first round.
        advance: ``advance(state, number) -> (state, metrics)``, round ``number`` from 0 on; metrics are name -> array.
            The state keeps its structure, types and shapes, and metrics their names and shapes.
        num: number of rounds, at least 1.
        finish: ``finish(state) -> metrics``, what the run is worth at its end, such as its test accuracy: called with
            the state after the last round. A run that is killed afterwards does not call it again.
        name: tells several loops of one run apart, such as one for each method; the name of a file.
        at_least: least number of seconds between two saves.

    Returns:
        The state after the last round, and metrics: those of the rounds ``[num, ...]``, and those of ``finish``.

    Raises:
        ValueError: ``num`` is not positive, ``at_least`` is negative, what was saved does not fit ``start()``, a
            round returns a state unlike that of ``start()`` or metrics unlike those of the first round, or a metric of
            ``finish`` has the name of a round's.
        TypeError: ``start()`` holds something that is neither an array nor a random key, such as a Python number.

    Example:
        >>> import mixjax, jax.numpy as jnp
        >>> def train(run):
        ...     def advance(x, number):
        ...         return x * run.hparams["rate"], {"x": x}
        ...     def finish(x):
        ...         return {"last": x}
        ...     return mixjax.sweeps.in_rounds(run, lambda: jnp.float32(1.0), advance, num=3, finish=finish)[1]
        >>> found = mixjax.sweep(mixjax.sweeps.HostLoop(train), seeds=1, axes={"rate": [0.5]}, dims={"x": ("round",)})
        >>> found.x.values.tolist(), found["last"].values.tolist()
        ([[[1.0, 0.5, 0.25]]], [[0.125]])
    """
    check_integer("num", num, 1)
    check_non_negative("at_least", at_least)
    path = run.scratch / f"{name}.npz"
    state = start()
    kinds = _kinds(state)
    state, rounds, ends = _restored(path, state)
    saved, cost = time.monotonic(), 0.0
    for number in range(len(rounds), num):
        state, metrics = advance(state, number)
        # Found now, and not when the run was killed and what it saved does not fit.
        _check_same("state", kinds, _kinds(state), number)
        # Copied, since the next round may donate the buffers of this one.
        rounds.append({metric: np.array(value) for metric, value in metrics.items()})
        _check_same("metrics", _shapes(rounds[0]), _shapes(rounds[-1]), number)
        now = time.monotonic()
        if number + 1 == num or now - saved >= max(at_least, cost / _SHARE):
            _save(path, state, rounds)
            saved = time.monotonic()
            cost = saved - now
        try:
            run.report((number + 1) / num)
        except Preempted:
            # Only there is the signal noticed, so that no moment is left at which it would cost a round.
            _save(path, state, rounds)
            raise
    if finish is not None and not ends:
        ends = {metric: np.array(value) for metric, value in finish(state).items()}
        twice = sorted(ends.keys() & rounds[0].keys())
        if twice:
            raise ValueError(f"metrics of finish need other names than those of advance, got {twice} from both.")
        _save(path, state, rounds, ends)
    return state, _stacked(rounds) | ends


def _kinds(state):
    """Returns the type and shape of each leaf of a state by its place."""
    found = {}
    for place, leaf in jax.tree.leaves_with_path(state):
        name = jax.tree_util.keystr(place)
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
            raise TypeError(f"state{name} must be an array or a random key, got {type(leaf).__name__} {leaf!r}.")
        found[name] = _described(bits(leaf) if isinstance(leaf, jax.Array) else leaf)
    return found


def _shapes(metrics):
    return {name: str(list(values.shape)) for name, values in metrics.items()}


def _check_same(what, wanted, got, number):
    """Raises a ValueError if what a round returned is not of the names, types and shapes that the first one had."""
    if wanted != got:
        texts = [", ".join(f"{name} {kind}" for name, kind in each.items()) or "none" for each in (wanted, got)]
        raise ValueError(f"advance must return {what} {texts[0]} in each round, got {texts[1]} in round {number}.")


def _save(path, state, rounds, ends=None):
    arrays = {f"state {i}": np.asarray(bits(leaf)) for i, leaf in enumerate(jax.tree.leaves(state))}
    arrays |= {f"metric {metric}": values for metric, values in _stacked(rounds).items()}
    arrays |= {f"end {metric}": value for metric, value in (ends or {}).items()}
    write_block(path, arrays | {"num_rounds": np.asarray(len(rounds))})


def _stacked(rounds):
    return {metric: np.stack([each[metric] for each in rounds]) for metric in rounds[0]}


def _restored(path, fresh):
    """Returns the state, the metrics of each round and those of the end that were saved, or the fresh state alone."""
    if not path.exists():
        return fresh, [], {}
    try:
        arrays = read_block(path)
    except Exception as error:  # whatever a damaged file makes its readers raise
        _LOG.warning("%s is damaged, and its rounds are trained again: %s", path, error)
        return fresh, [], {}
    leaves, structure = jax.tree.flatten(fresh)
    # By number: in the file, "state 10" comes before "state 2".
    saved = [arrays[f"state {i}"] for i in range(sum(name.startswith("state ") for name in arrays))]
    wanted, got = [_described(np.asarray(bits(leaf))) for leaf in leaves], [_described(array) for array in saved]
    if wanted != got:
        raise ValueError(
            f"{path} was saved by another training: its state is {', '.join(got)}, now it is {', '.join(wanted)}."
        )
    metrics = {name.removeprefix("metric "): array for name, array in arrays.items() if name.startswith("metric ")}
    ends = {name.removeprefix("end "): array for name, array in arrays.items() if name.startswith("end ")}
    rounds = [{name: array[i] for name, array in metrics.items()} for i in range(int(arrays["num_rounds"]))]
    return structure.unflatten(map(_like, leaves, saved)), rounds, ends


def _described(array):
    return f"{array.dtype}{list(array.shape)}"


def _like(leaf, array):
    """Returns a saved array as the kind of array that it was, and a key's words as a key of the same generator."""
    if not isinstance(leaf, jax.Array):
        return array
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))
    return jnp.asarray(array)
