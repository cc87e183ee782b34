"""Accumulates gradients over microbatches and keeps the domain signals of every one of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mixjax.checks import check_integer, check_real, check_shape
from mixjax.meshes import placed_like, varying_like
from mixjax.placement import NO_SIGNALS
from mixjax.signals import Moments, merge
from mixjax.transforms import AggregateState, find_states, to_sum
from mixjax.types import UNKNOWN

__all__ = ["AccumulateState", "accumulate"]

# What becomes of each signal of the vocabulary over the microbatches. Counts add up.
_MOMENTS = ("losses", "loss_vars")
_MEANS = ("reference_losses", "hypergrads")
_ROOT_MEAN_SQUARES = ("grad_norms", "grad_stds")
_LATEST = ("loss_weights", "sampling_weights")


class AccumulateState(NamedTuple):
    """Holds the gradients and signals gathered since the last update of :func:`accumulate`.

    Attributes:
        inner: state of the wrapped transformation.
        microbatch: int32 scalar, microbatches since the last update.
        grads: sums of gradients; where ``tx`` contains ``aggregate``, stacked ``[D, *param]`` and weighted by counts.
            They are float32 for parameters of half precision, else of the parameters' dtype.
        moments: :class:`mixjax.signals.Moments` ``[D]`` of the losses.
        means: by signal, float32 ``[D]``: the mean, or the root of the mean square, over the microbatches so far.
        masses: by signal, float32 ``[D]``: the sum of the weights behind that mean.
    """

    inner: Any
    microbatch: jax.Array
    grads: Any
    moments: Moments
    means: dict[str, jax.Array]
    masses: dict[str, jax.Array]


def accumulate(tx: optax.GradientTransformation, k: int) -> optax.GradientTransformationExtraArgs:
    r"""Updates with ``tx`` once every ``k`` microbatches, on their merged gradients and merged domain signals.

    ``optax.MultiSteps`` hands the inner transformation the last microbatch's extra arguments only. Here every signal is
    merged in its own way:

    =========================================  ======================================================================
    signal                                     over the microbatches
    =========================================  ======================================================================
    ``counts``                                 sum
    ``losses``                                 mean by counts
    ``loss_vars``                              variance of all examples, by Chan's formula
    ``reference_losses``, ``hypergrads``       mean by counts
    ``grad_norms``                             root of the mean square by counts
    ``grad_stds``                              root of the mean square by ``counts - 1``: one example says nothing
    ``loss_weights``, ``sampling_weights``     the last value; also of extra arguments that are no signals
    =========================================  ======================================================================

    A non-finite ``reference_losses``, ``hypergrads``, ``grad_norms`` or ``grad_stds`` in one row of one microbatch is
    left out of that row's mean. A non-finite loss makes its row unseen, as it would in one batch of all examples.

    In the other calls the returned parameter updates are zeros, and the state of ``tx`` stays as it is.

    Around a chain that begins with :func:`mixjax.aggregate` the stacked gradients are averaged by counts, row by row.
    ``k`` microbatches then give exactly the update of one batch of all of them, but for two signals:

    - pooled ``grad_stds`` are an unbiased estimate, not the batch's own value;
    - :func:`mixjax.rules.doge` reads the norm of a domain's mean gradient as ``grad_norms``. Microbatches have noisier
      mean gradients, so the merged value lies above the norm of the whole batch's, and DoGE steps more carefully. Take
      the norms of the accumulated gradients in a probe of their own where that matters.

    Around :func:`mixjax.track` gradients are plain means over microbatches. That is exact where the objective is a
    Horvitz-Thompson one over microbatches of equal size, or where the counts are the same in every microbatch.

    With a :func:`mixjax.live.mix` each batch of the plan is a microbatch: weigh its losses by ``row_weights``, and send
    the weights after every one of them (:class:`mixjax.live.Feedback`).

    A checkpoint from the middle of a window may be restored with another ``k``. The window closes with the first
    microbatch that makes it at least ``k`` long, and means are taken over the microbatches gathered.

    Args:
        tx: a transformation that contains ``aggregate`` or ``track``.
        k: number of microbatches per update, an integer of at least 1.

    Signals:
        The signals that the rules need, the same ones in every microbatch.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` with state :class:`AccumulateState`. As in ``optax.MultiSteps`` the
        state of ``tx`` keeps the dtypes that ``tx.init`` gave it, whatever the gradients' dtype.

    Raises:
        TypeError: ``update`` without ``counts``, with ``loss_vars`` but no ``losses``, with a complex signal, or with
            complex gradients of real parameters.
        ValueError: ``k`` below 1, a ``tx`` with neither ``aggregate`` nor ``track``, or a signal that is not ``[D]``.

    Example:
        >>> import jax.numpy as jnp, mixjax, optax
        >>> prior = jnp.array([0.5, 0.5])
        >>> inner = optax.chain(mixjax.aggregate(mixjax.rules.fixed(), prior), optax.sgd(1.0))
        >>> tx = mixjax.accumulate(inner, k=2)
        >>> params = jnp.zeros(())
        >>> state = tx.init(params)
        >>> first, state = tx.update(jnp.array([1.0, 0.0]), state, params, counts=jnp.array([1, 0]))
        >>> second, state = tx.update(jnp.array([3.0, 2.0]), state, params, counts=jnp.array([3, 1]))
        >>> first.tolist(), second.tolist()          # -(1/2 * (1 * 1 + 3 * 3) / 4 + 1/2 * 2)
        (0.0, -2.25)
    """
    check_integer("k", k, 1)
    tx = optax.with_extra_args_support(tx)

    def init(params):
        inner = tx.init(params)
        states = [state for _, state in find_states(inner)]
        if not states:
            raise ValueError("accumulate needs a transformation that contains mixjax.aggregate or mixjax.track.")
        domains = states[0].rule_state.weights.shape
        lead = domains if _is_stacked(inner) else ()

        def rows():
            # Every row is an array of its own: a state that holds one buffer twice cannot be donated.
            return jnp.zeros(domains, jnp.float32)

        return AccumulateState(
            inner=inner,
            microbatch=jnp.zeros((), jnp.int32),
            grads=jax.tree.map(lambda p: _zeros_to_sum(p, lead), params),
            moments=Moments(rows(), rows(), rows()),
            means={name: rows() for name in (*_MEANS, *_ROOT_MEAN_SQUARES)},
            masses={name: rows() for name in (*_MEANS, *_ROOT_MEAN_SQUARES)},
        )

    def update(updates, state, params=None, *, counts=None, **extra):
        if counts is None:
            raise TypeError(f"accumulate {NO_SIGNALS}")
        signals, latest = _split(extra)
        _check_rows(state, counts=counts, **signals)
        gathered = _gather(state, updates, _as_signal("counts", counts), signals)

        def emit():
            means = _mean_gradients(gathered, updates)
            merged = _merged_signals(gathered)
            passed = {name: merged[name] for name in ("counts", *signals)}
            out, inner = tx.update(means, state.inner, params, **passed, **latest)
            inner = jax.tree.map(_as_before, inner, state.inner)
            return out, jax.tree.map(jnp.zeros_like, gathered._replace(inner=None))._replace(inner=inner)

        def wait():
            # The branches of a cond need equal types, so zeros follow what tx returns, not the gradients it gets.
            out, new = jax.eval_shape(emit)
            zeros = jax.tree.map(lambda leaf: varying_like(jnp.zeros_like(leaf), leaf), out)
            return zeros, gathered._replace(inner=jax.tree.map(varying_like, state.inner, new.inner))

        # A cond, so that tx runs once every k microbatches; a where would run it every time. After a restored window
        # that was begun with a larger k, there may be more than k microbatches.
        return jax.lax.cond(gathered.microbatch >= jnp.asarray(k, jnp.int32), emit, wait)

    return optax.GradientTransformationExtraArgs(init, update)


def _zeros_to_sum(param, lead):
    """Makes zeros in which to sum gradients of a parameter, with leading axes ``lead`` and the parameter's sharding."""
    zeros = jnp.zeros_like(to_sum(jnp.asarray(param)))
    return jnp.broadcast_to(zeros, lead + zeros.shape)


def _as_before(new, old):
    """Casts a leaf of the new inner state to the old one's type: its dtype, its sharding, and what it varies over."""
    # Adam's moments take the dtype of the gradients, which may be another than that of the parameters.
    # A state of the user's own may hold Python numbers, which have no dtype.
    if getattr(new, "dtype", None) != getattr(old, "dtype", None):
        new = jnp.asarray(new, jnp.asarray(old).dtype)
    new = placed_like(new, old) if isinstance(new, jax.Array) else new
    return varying_like(new, old)


def _is_stacked(inner):
    return any(isinstance(state, AggregateState) for _, state in find_states(inner))


def _split(extra):
    """Splits the extra arguments into signals that are merged, and arguments whose last value is passed on."""
    if "loss_vars" in extra and "losses" not in extra:
        raise TypeError("accumulate cannot merge loss_vars without losses: give both.")
    merged = (*_MOMENTS, *_MEANS, *_ROOT_MEAN_SQUARES)
    signals = {name: _as_signal(name, value) for name, value in extra.items() if name in merged}
    return signals, {name: value for name, value in extra.items() if name not in merged}


def _as_signal(name, value):
    check_real(f"signal {name!r}", value)
    # No gradient flows through weights, and that of the roots below would be NaN at zero.
    return jax.lax.stop_gradient(jnp.asarray(value).astype(jnp.float32))


def _check_rows(state, **signals):
    for name, value in signals.items():
        check_shape(f"signal {name!r}", value, state.moments.count.shape, "one row per domain")


def _gather(state, updates, counts, signals) -> AccumulateState:
    """Adds a microbatch's gradients and signals to the state; its ``inner`` stays as it is."""
    stacked = _is_stacked(state.inner)
    # On a mesh the state keeps its sharding, whatever that of the gradients and signals.
    counts, signals = jax.tree.map(lambda row: placed_like(row, state.moments.count), (counts, signals))
    means, masses = dict(state.means), dict(state.masses)
    for name in means.keys() & signals.keys():
        means[name], masses[name] = _average(name, means[name], masses[name], signals[name], counts)
    return state._replace(
        microbatch=state.microbatch + 1,
        grads=jax.tree.map(lambda total, g: total + _weigh(g, counts, stacked, total), state.grads, updates),
        moments=merge(state.moments, _read_moments(counts, signals)),
        means=means,
        masses=masses,
    )


def _average(name, mean, mass, values, counts):
    """Takes a microbatch's ``values [D]`` of one signal into their mean, or into the root of their mean square."""
    weights = jnp.maximum(counts - 1.0, 0.0) if name == "grad_stds" else counts
    known = (weights > 0) & jnp.isfinite(values)
    # A NaN value times a weight of 0 would be NaN.
    values, weights = jnp.where(known, values, 0.0), jnp.where(known, weights, 0.0)
    mass = mass + weights
    share = weights / jnp.maximum(mass, jnp.finfo(jnp.float32).tiny)
    if name in _MEANS:
        return (1.0 - share) * mean + share * values, mass
    # hypot, since the square of a large norm is infinite.
    return jnp.hypot(jnp.sqrt(1.0 - share) * mean, jnp.sqrt(share) * values), mass


def _mean_gradients(gathered, updates):
    """Divides the gathered gradients by their counts, or by the number of microbatches; dtypes are the gradients'."""
    stacked = _is_stacked(gathered.inner)
    counts = jnp.maximum(gathered.moments.count, 1.0)

    def mean(total, g):
        parts = _column(counts, total) if stacked else gathered.microbatch
        value = total / parts.astype(total.dtype)
        # Real gradients of complex parameters are summed as complex numbers.
        return placed_like((value if jnp.iscomplexobj(g) else value.real).astype(g.dtype), g)

    return jax.tree.map(mean, gathered.grads, updates)


def _merged_signals(gathered):
    averages = {name: jnp.where(gathered.masses[name] > 0, mean, UNKNOWN) for name, mean in gathered.means.items()}
    return {**gathered.moments.signals(), **averages}


def _column(rows, like):
    """Shapes ``rows [D]`` to broadcast against a stacked gradient."""
    return rows.reshape(-1, *[1] * (like.ndim - 1))


def _weigh(grads, counts, stacked, total):
    """Casts gradients to the dtype of their sum and, where they are stacked, weighs each row by its count."""
    if jnp.iscomplexobj(grads) and not jnp.iscomplexobj(total):
        raise TypeError(
            f"accumulate got {grads.dtype} gradients for a real parameter, the imaginary part would be lost."
        )
    # Sums in bfloat16 stall once they are a few hundred times an addend.
    grads = jnp.asarray(grads).astype(total.dtype)
    if grads.shape != total.shape:
        kind = "stacked gradients" if stacked else "gradients"
        raise ValueError(f"accumulate takes {kind} of shape {total.shape}, got {grads.shape}.")
    grads = placed_like(grads, total)
    if not stacked:
        return grads
    weights = _column(counts, grads)
    # The row of an absent domain may hold NaN, and NaN times 0 is NaN.
    return weights.astype(total.dtype) * jnp.where(weights > 0, grads, 0.0)


def _read_moments(counts, signals):
    """Turns a microbatch's ``losses`` and ``loss_vars`` into moments; signals not given count as 0 and go nowhere."""
    zeros = jnp.zeros_like(counts)
    mean = jnp.where(counts > 0, signals.get("losses", zeros), 0.0)
    # A variance of which nothing is known has no squared deviations.
    variances = jnp.where(counts > 1, signals.get("loss_vars", zeros), 0.0)
    return Moments(counts, mean, variances * jnp.maximum(counts - 1.0, 0.0))
