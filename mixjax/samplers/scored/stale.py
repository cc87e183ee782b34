"""Example samplers in proportion to a score that is refreshed for the batch only, whatever the score."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_range, is_concrete
from mixjax.samplers.scored import tree

KINDS = ("clipped", "tree", "self_normalised")
LARGEST = 1e30  # of a stored value
LARGEST_LOG_WEIGHT = 80.0  # exp(80) is within float32
LARGEST_BATCH = 2**24  # positions in a batch are kept as float32 for a moment


class SamplerState(NamedTuple):
    """State of an example sampler: about ``1.3 n`` floats, ``2.6 n`` with a prior and a floor.

    Attributes:
        values: float32 ``[n]``, each example's last seen signal: its stale loss, or score.
        sums: the levels above the leaves, see :mod:`mixjax.samplers.scored.tree`.
        log_prior: float32 ``[n]``, or a scalar where the prior is uniform.
        prior_sums: the same levels for the prior; empty where they are not needed.
    """

    values: jax.Array
    sums: tuple[tree.Nodes, ...]
    log_prior: jax.Array
    prior_sums: tuple[tree.Nodes, ...]


class ExampleSampler(NamedTuple):
    """Pure functions that draw examples and keep track of their signal; see :func:`hardness` for the arguments.

    Attributes:
        init: ``init(values, key=None) -> state``.
        sample: ``sample(state, key, batch_size) -> (indices, weights)``.
        update: ``update(state, indices, values) -> state``.
        importance_weights: ``importance_weights(state, indices, values, kind="clipped") -> weights``.
        log_probs: ``log_probs(state, indices=None) -> log-probabilities`` of one draw, ``[n]`` or ``[B]``.
        rebuild: ``rebuild(state) -> state``; the sums anew, in O(n), for another sampler's hyperparameters.
    """

    init: Callable[..., SamplerState]
    sample: Callable[[Any, jax.Array, int], tuple[jax.Array, jax.Array]]
    update: Callable[[Any, ArrayLike, ArrayLike], Any]
    importance_weights: Callable[..., jax.Array]
    log_probs: Callable[..., jax.Array]
    rebuild: Callable[[Any], Any]


def check_settings(n, prior, momentum, floor, clip, fanout) -> None:
    """Raises a ValueError where an argument that every example sampler has is out of range."""
    if n < 1 or fanout < 2:
        raise ValueError(f"need n >= 1 and fanout >= 2, got {n} and {fanout}.")
    check_range("momentum", momentum, 0.0, 1.0)
    if floor is not None:
        check_range("floor", floor, 0.0, 1.0)
    for bound in clip:
        check_positive("clip", bound)
    if is_concrete(clip) and not np.all(np.asarray(clip[0]) <= np.asarray(clip[1])):
        raise ValueError(f"clip must be a lowest and a highest weight, got {clip}.")
    if prior is not None and np.shape(prior) != (n,):
        raise ValueError(f"prior must have shape {(n,)}, got {np.shape(prior)}.")


def check_values(n: int, values: ArrayLike) -> None:
    """Raises a ValueError where initial values are of another shape, or concrete and none of them finite."""
    if np.shape(values) not in ((), (n,)):
        raise ValueError(f"initial values must be a scalar or have shape {(n,)}, got {np.shape(values)}.")
    if is_concrete(values) and not np.isfinite(np.asarray(values, np.float32)).any():
        raise ValueError("initial values must be finite, got none that is.")


def check_batch_size(batch_size: int, n: int, replacement: bool) -> None:
    """Raises a ValueError for a batch of none, or of more than there are to draw without replacement."""
    if batch_size < 1 or not (replacement or batch_size <= n):
        raise ValueError(f"batch_size must be in [1, {'inf' if replacement else n}], got {batch_size}.")


def check_batch(indices: ArrayLike, values: ArrayLike) -> None:
    """Raises a ValueError unless a batch's indices and values are vectors of one length, of at most 2^24."""
    if np.ndim(indices) != 1 or np.shape(indices) != np.shape(values):
        raise ValueError(
            f"indices and values must be vectors of one length, got {np.shape(indices)} and {np.shape(values)}."
        )
    if np.shape(indices)[0] > LARGEST_BATCH:
        raise ValueError(f"a batch has at most {LARGEST_BATCH} examples, got {np.shape(indices)[0]}.")


def check_kind(kind: str) -> None:
    """Raises a ValueError for an unknown kind of importance weights."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}.")


def example_sampler(
    n: int,
    score: Callable[[jax.Array], tree.Nodes],
    heat: ArrayLike,
    prior: ArrayLike | None,
    replacement: bool,
    momentum: ArrayLike,
    floor: ArrayLike | None,
    clip: tuple[ArrayLike, ArrayLike],
    fanout: int,
    axis_name: str | None,
    fallback: bool = False,
) -> ExampleSampler:
    """The sampler in proportion to ``prior * exp(log + heat * top)``: what the public samplers share.

    Args:
        n: number of examples.
        score: stored values to ``top`` and ``log``, elementwise; a ``log`` of -inf is a score of zero.
        heat: scalar in [0, 1e30].
        prior: see :func:`mixjax.samplers.hardness`, like all that follow.
        replacement: see there.
        momentum: see there.
        floor: see there.
        clip: see there.
        fanout: see there.
        axis_name: see there.
        fallback: draw from the prior where all scores are zero.

    Returns:
        An :class:`ExampleSampler`.

    Raises:
        ValueError: see there.
    """
    check_settings(n, prior, momentum, floor, clip, fanout)
    sizes, heat = tree.sizes(n, fanout), jnp.asarray(heat, jnp.float32)
    mixes = fallback or floor is not None  # draws look at the prior's sums too

    def size():
        total = n if axis_name is None else n * jax.lax.axis_size(axis_name)
        if total >= 2**31:
            raise ValueError(f"indices are int32: at most 2^31 - 1 examples, got {total}.")
        return total

    def offset():
        return 0 if axis_name is None else jax.lax.axis_index(axis_name) * n

    def here(indices):
        """Positions on this device, ``n`` for the others'."""
        local = jnp.asarray(indices, jnp.int32) - offset()
        return jnp.where((local >= 0) & (local < n), local, n)

    def pick(x, local):
        """``x`` at local positions, from the device that holds them; a scalar as it is."""
        if x.ndim == 0:
            return x
        found = jnp.where(local < n, x[jnp.minimum(local, n - 1)], 0.0)
        return found if axis_name is None else jax.lax.psum(found, axis_name)

    def over_devices(own):
        """The sum of all devices' masses."""
        if axis_name is None:
            return own
        return tree.combine(jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name), own), heat)

    def own_root(state):
        """The mass of this device's examples."""
        return tree.combine(state.sums[-1] if state.sums else leaves(state, jnp.arange(n)), heat)

    def scored(values, log_prior):
        top, log = score(values)
        return tree.Nodes(top, log + log_prior)

    def prior_of(state, local):
        """Log-prior of examples of this device; of any, past the end."""
        prior = state.log_prior
        return jnp.broadcast_to(prior, local.shape) if prior.ndim == 0 else prior[jnp.minimum(local, n - 1)]

    def leaves(state, ids):
        nodes = scored(state.values[jnp.minimum(ids, n - 1)], prior_of(state, ids))
        return tree.Nodes(nodes.top, jnp.where(ids < n, nodes.log, -jnp.inf))

    def prior_masses(state, level, ids):
        if state.log_prior.ndim and level > 0:
            return tree.take(state.prior_sums[level - 1], ids).log
        if state.log_prior.ndim:
            return jnp.where(ids < n, prior_of(state, ids), -jnp.inf)
        width = min(fanout**level, n)
        below = jnp.clip(n - jnp.minimum(ids, -(-n // width)) * width, 0, width)  # examples below each node
        return state.log_prior + jnp.log(below.astype(jnp.float32))

    def mix(log_probs, log_prior, total):
        """Log of ``(1 - floor) p + floor prior``; of the prior where all scores are zero."""
        if floor is not None:
            rate = jnp.asarray(floor, jnp.float32)
            log_probs = jnp.logaddexp(jnp.log1p(-rate) + log_probs, jnp.log(rate) + log_prior)
        return jnp.where(total.log > -jnp.inf, log_probs, log_prior)

    def masses_to_draw(state, total):
        """Log-masses by level and node, relative to ``total``; what draws descend by."""

        def masses(level, ids):
            nodes = leaves(state, ids) if level == 0 else tree.take(state.sums[level - 1], ids)
            logs = tree.relative(nodes, total, heat)
            return mix(logs, prior_masses(state, level, ids), total) if mixes else logs

        return masses

    def init(values, key=None):
        check_values(n, values)
        values = jnp.broadcast_to(jax.lax.stop_gradient(jnp.asarray(values).astype(jnp.float32)), (n,))
        largest = jnp.where(jnp.isfinite(values), values, -jnp.inf).max()
        largest = largest if axis_name is None else jax.lax.pmax(largest, axis_name)
        values = jnp.where(jnp.isfinite(values), values, jnp.where(jnp.isfinite(largest), largest, 0.0))
        if key is not None:
            own_key = key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))
            values += 1e-3 * jnp.abs(values) * jax.random.normal(own_key, (n,), jnp.float32)
        log_prior, prior_sums = -jnp.log(jnp.float32(size())), ()
        if prior is not None:
            share = as_simplex("prior", prior) if axis_name is None else jnp.asarray(prior, jnp.float32)
            log_prior, flat = jnp.log(share), jnp.zeros(n, jnp.float32)
            log_prior -= over_devices(tree.combine(tree.Nodes(flat, log_prior), heat)).log
            prior_sums = tree.build(tree.Nodes(flat, log_prior), heat, fanout) if mixes else ()
        return rebuild(SamplerState(jnp.clip(values, -LARGEST, LARGEST), (), log_prior, prior_sums))

    def rebuild(state):
        return state._replace(sums=tree.build(leaves(state, jnp.arange(n)), heat, fanout))

    def log_probs(state, indices=None):
        total = over_devices(own_root(state))
        if indices is None:
            values, log_prior = state.values, jnp.broadcast_to(state.log_prior, (n,))
        else:
            values, log_prior = (pick(x, here(indices)) for x in (state.values, state.log_prior))
        own = tree.relative(scored(values, log_prior), total, heat)
        return mix(own, log_prior, total) if mixes else own

    def sample(state, key, batch_size):
        check_batch_size(batch_size, size(), replacement)
        own = own_root(state)
        # Relative to all devices' total where the prior is mixed in. Else to one example of the largest loss: the total
        # is needed for the weights only, and another device's not yet.
        total = over_devices(own) if mixes else tree.Nodes(own.top, jnp.zeros((), jnp.float32))
        masses, perturbed = masses_to_draw(state, total), None
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        if replacement:
            draw_key, root_key = jax.random.split(key)
            ids, logs = tree.draw(draw_key, masses, sizes, fanout, batch_size)
            if axis_name is not None:  # among devices, by the largest of their perturbed log-masses, one for every draw
                mass = jax.nn.logsumexp(masses(len(sizes) - 1, jnp.arange(sizes[-1])))
                perturbed = mass + jax.random.gumbel(root_key, (batch_size,), jnp.float32)
        else:  # one more than needed: the threshold
            ids, logs, perturbed = tree.draw_distinct(key, masses, sizes, fanout, batch_size + 1)
        log_prior = prior_of(state, ids)
        if axis_name is not None:
            ids, perturbed, logs, log_prior = merge(ids + offset(), perturbed, logs, log_prior, own)
        if replacement:
            log_total = 0.0 if mixes or axis_name is not None else own.log
            return ids, jnp.exp(log_prior - (logs - log_total))
        drawn, threshold = perturbed[:-1] > -jnp.inf, perturbed[-1]
        inclusion = -jnp.expm1(-jnp.exp(logs[:-1] - threshold))  # P(perturbed log-mass above the threshold)
        weights = batch_size * jnp.exp(log_prior[:-1]) / jnp.where(drawn, inclusion, 1.0)
        return jnp.where(drawn, ids[:-1], ids[0]), jnp.where(drawn, weights, 0.0)

    def merge(ids, perturbed, logs, log_prior, own):
        """The winners among all devices' candidates, by the largest perturbed log-mass; one all-gather."""
        floats = jnp.stack([perturbed, logs, log_prior, *(jnp.full(ids.shape, x) for x in own)])
        packed = jnp.concatenate([ids[None], jax.lax.bitcast_convert_type(floats, jnp.int32)])
        packed = jax.lax.all_gather(packed, axis_name, axis=1)  # [6, devices, candidates]
        ids, floats = packed[0], jax.lax.bitcast_convert_type(packed[1:], jnp.float32)
        perturbed, logs, log_prior, tops, sums = floats
        if not mixes:  # so far relative to the largest loss of each device
            total = tree.combine(tree.Nodes(tops[:, 0], sums[:, 0]), heat)
            logs_of_one = jnp.where(sums[:, :1] > -jnp.inf, 0.0, -jnp.inf)
            shift = tree.relative(tree.Nodes(tops[:, :1], logs_of_one), total, heat)
            perturbed, logs = perturbed + shift, logs + shift
        rows = ids, perturbed, logs, log_prior
        if replacement:  # slot by slot
            winners = jnp.argmax(perturbed, 0), jnp.arange(ids.shape[1])
            return tuple(x[winners] for x in rows)
        winners = jax.lax.top_k(perturbed.reshape(-1), ids.shape[1])[1]
        return tuple(x.reshape(-1)[winners] for x in rows)

    def refreshed(state, local, values):
        """The stored values as they are, smoothed by those of the batch, and which of these are finite."""
        old = pick(state.values, local)
        new = jax.lax.stop_gradient(jnp.asarray(values).astype(jnp.float32))
        finite = jnp.isfinite(new)
        rate = jnp.asarray(momentum, jnp.float32)
        new = rate * old + (1.0 - rate) * jnp.clip(jnp.where(finite, new, 0.0), -LARGEST, LARGEST)
        return old, new, finite

    def update(state, indices, values):
        check_batch(indices, values)
        indices = jnp.asarray(indices, jnp.int32)
        local = here(indices)
        old, new, finite = refreshed(state, local, values)
        # An index that occurs twice gets the mean of its finite values. Its occurrences find each other at its place
        # among the stored values, where one of them leaves its position in the batch. (The sum with zero times the new
        # values has XLA read first whatever these are made of, and then write in place.)
        positions = jnp.arange(local.size, dtype=jnp.float32) + 0.0 * new
        held = state.values.at[local].set(positions, mode="drop")
        slots = jnp.where(local < n, held[jnp.minimum(local, n - 1)].astype(jnp.int32), local.size)
        counted = jnp.stack([finite.astype(jnp.float32), jnp.where(finite, new, 0.0)], -1)
        count, total = jnp.zeros_like(counted).at[slots].add(counted, mode="drop")[slots].T
        new = jnp.where(count > 0, total / jnp.maximum(count, 1.0), old)
        state = state._replace(values=held.at[local].set(new, mode="drop"))
        return state._replace(sums=tree.refresh(state.sums, lambda ids: leaves(state, ids), local, heat, fanout))

    def importance_weights(state, indices, values, kind="clipped"):
        check_kind(kind)
        check_batch(indices, values)
        if kind == "tree":
            after, before = log_probs(update(state, indices, values), indices), log_probs(state, indices)
            ratio = jnp.exp(jnp.minimum(after - before, LARGEST_LOG_WEIGHT))
            return jnp.where(after > -jnp.inf, ratio, 0.0)  # also where both are zero
        old, new, finite = refreshed(state, here(indices), values)
        old, new = score(old), score(new)
        was, is_now = old.log > -jnp.inf, new.log > -jnp.inf  # always, but for scores of zero
        log_ratio = jnp.where(was, jnp.clip(tree.relative(new, old, heat), -LARGEST, LARGEST), LARGEST)
        log_ratio = jnp.where(finite & (was | is_now), log_ratio, 0.0)
        if kind == "self_normalised":
            return log_ratio.size * jax.nn.softmax(log_ratio)
        return jnp.clip(jnp.exp(log_ratio), *clip)

    return ExampleSampler(init, sample, update, importance_weights, log_probs, rebuild)
