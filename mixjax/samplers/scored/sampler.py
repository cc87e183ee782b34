"""Implements the sampler behind ``hardness`` and ``proportional``: it draws by stored values, which updates refresh."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mixjax.checks import as_ids, as_size
from mixjax.samplers.scored import levels, lookups, tree
from mixjax.samplers.scored.checks import (
    LARGEST,
    LARGEST_LOG_WEIGHT,
    LEAST_PRIOR,
    check_batch,
    check_batch_size,
    check_extension,
    check_fixed,
    check_growing,
    check_insertion,
    check_kind,
    check_removal,
    check_settings,
    check_values,
)
from mixjax.samplers.scored.devices import Candidates, devices_of
from mixjax.samplers.scored.levels import Nodes
from mixjax.samplers.scored.types import ImportanceKind, SamplerState

__all__ = ["Numbers", "ScoredSampler"]


class Numbers(NamedTuple):
    """Holds the hyperparameters that may be arrays, traced ones too; see :func:`mixjax.samplers.hardness`.

    Attributes:
        heat: float32 scalar in [0, 1e30].
        prior: ``[n]`` or None.
        decay: scalar.
        floor: scalar or None.
        clip: two scalars.
    """

    heat: jax.Array
    prior: Any
    decay: ArrayLike
    floor: Any
    clip: tuple[ArrayLike, ArrayLike]


class ScoredSampler:
    """Draws examples in proportion to ``prior * exp(log + heat * top)``, and keeps their stale values and the sums.

    The object holds hyperparameters only and is never changed. Its methods are pure functions of a
    :class:`SamplerState`, and :func:`mixjax.samplers.scored.placement.functions` hands them to users. Log-masses are
    relative to a unit, see :mod:`mixjax.samplers.scored.tree`. Where draws mix the prior in, the unit is the total mass
    of all devices. Else it is ``exp(heat * top)``, ``top`` being this device's largest loss.
    """

    def __init__(
        self,
        n: int,
        score: Callable[[jax.Array], Nodes],
        heat: ArrayLike,
        *,
        prior: ArrayLike | None,
        replacement: bool,
        decay: ArrayLike,
        floor: ArrayLike | None,
        clip: tuple[ArrayLike, ArrayLike],
        fanout: int,
        axis_name: str | None,
        growing: bool = False,
        fallback: bool = False,
    ):
        """Checks and keeps the hyperparameters.

        Args:
            n: number of examples of this device.
            score: maps stored values to ``top`` and ``log``, elementwise; a ``log`` of -inf is a score of zero.
            heat: scalar in [0, 1e30].
            prior: see :func:`mixjax.samplers.hardness`, like all that follow.
            replacement: see there.
            decay: see there.
            floor: see there.
            clip: see there.
            fanout: see there.
            axis_name: see there.
            growing: see there.
            fallback: whether to draw from the prior where all scores are zero.

        Raises:
            ValueError: see there.
        """
        n = as_size("n", n)
        check_settings(n, prior=prior, decay=decay, floor=floor, clip=clip, fanout=fanout)
        check_growing(growing, prior)
        # None of these is looked at as a number: a sampler can be made inside jit and vmap, where they are traced.
        self.n, self.score, self.replacement, self.fanout = n, score, replacement, fanout
        self.axis_name, self.growing = axis_name, growing
        self.sizes = levels.sizes(n, fanout)
        # Where draws mix the prior in, they look at the prior's sums too.
        self.mixes = fallback or floor is not None
        # A list would be taken for a pytree of numbers.
        prior = np.asarray(prior) if isinstance(prior, list | tuple) else prior
        self._set(Numbers(jnp.asarray(heat, jnp.float32), prior, decay, floor, clip))

    def _set(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.heat, self.prior, self.decay, self.floor, self.clip = numbers
        self.devices = devices_of(self.n, self.heat, self.axis_name)

    def with_numbers(self, numbers: Numbers) -> ScoredSampler:
        """Returns a sampler of other hyperparameters, which are of the same kind: None stays None."""
        other = copy.copy(self)
        other._set(numbers)
        return other

    def init(self, values: ArrayLike, key: jax.Array | None = None) -> SamplerState:
        """Makes a state of initial values, a scalar or ``[n]``; with a key, noise breaks their ties."""
        check_values(self.n, values, self.growing)
        filled = np.shape(values)[0] if np.ndim(values) else self.n
        known = self.known(values, filled, key=key)
        return self.start(jnp.pad(known, (0, self.n - filled)), filled)

    def known(
        self, values: ArrayLike, count: int, others: jax.Array | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Prepares values to be stored, ``[count]``: where one is not finite, the largest of all takes its place.

        Args:
            values: a scalar for all, or ``[count]``.
            count: number of examples.
            others: values that are stored already, all finite.
            key: for the noise that breaks ties, or None.
        """
        # Cast before the gradient is stopped: integers are values too, and have none.
        values = jnp.broadcast_to(jax.lax.stop_gradient(jnp.asarray(values).astype(jnp.float32)), (count,))
        largest = jnp.where(jnp.isfinite(values), values, -jnp.inf).max(initial=-jnp.inf)
        largest = self.devices.largest(largest if others is None else jnp.maximum(largest, others.max()))
        # Traced values are not checked: where none is finite, all become 0.
        values = jnp.where(jnp.isfinite(values), values, jnp.where(jnp.isfinite(largest), largest, 0.0))
        # Relative noise: it breaks ties whatever the unit of the loss.
        if key is not None:
            noise = jax.random.normal(self.devices.own_key(key), (count,), jnp.float32)
            values += 1e-3 * jnp.abs(values) * noise
        return jnp.clip(values, -LARGEST, LARGEST)

    def start(self, values: jax.Array, filled: int | None = None) -> SamplerState:
        """Makes a state of values that can be stored as they are, ``[n]``; the first ``filled`` are examples."""
        log_prior, prior_sums = self._init_prior(self.n if filled is None else filled)
        return self.rebuild(SamplerState(values, (), log_prior, prior_sums))

    def extend(self, state: SamplerState, values: ArrayLike, key: jax.Array | None = None) -> SamplerState:
        """Takes over the state of a sampler of fewer examples; the new ones come last and start as by :meth:`init`."""
        check_fixed("extend", self.growing)
        more = check_extension(self.n, state.values.size, values, self.axis_name)
        new = self.known(values, more, state.values, key)
        return self.start(jnp.concatenate([state.values, new]))

    def remove(self, state: SamplerState, indices: ArrayLike) -> SamplerState:
        """Takes over the state of a sampler of more examples, without those at ``indices``."""
        check_fixed("remove", self.growing)
        kept = check_removal(self.n, state.values.size, indices, self.axis_name)
        return self.start(state.values[kept])

    def rebuild(self, state: SamplerState) -> SamplerState:
        """Computes the sums anew."""
        return state._replace(sums=tree.build(self._leaves(state), self.heat, self.fanout))

    def log_probs(self, state: SamplerState, indices: ArrayLike | None = None) -> jax.Array:
        """Computes log-probabilities of one draw, of all examples of this device or of those at global ``indices``.

        Indices that no device holds give numbers without meaning.
        """
        total = self.devices.total_mass(self._own_mass(state))
        if indices is None:
            values, log_prior = state.values, jnp.broadcast_to(state.log_prior, (self.n,))
        else:
            local = self._local(indices)
            values, log_prior = self._pick(state.values, local), self._pick(state.log_prior, local)
        log_probs = tree.relative(self._nodes(values, log_prior), total, self.heat)
        return self._mix(log_probs, self._share_of(state, log_prior), total) if self.mixes else log_probs

    def sample(self, state: SamplerState, key: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array]:
        """Draws a batch: its indices, and weights with which means are unbiased for the prior."""
        batch_size = as_size("batch_size", batch_size)
        check_batch_size(batch_size, self.devices.num_examples(), self.replacement)
        own = self._own_mass(state)
        if self.mixes:
            # own = None tells the devices that log-masses are relative to the total already.
            unit, own = self.devices.total_mass(own), None
        else:
            # Not the total, which only the weights need: on a mesh it would cost an all-gather of its own, and it comes
            # with the gathered candidates anyway.
            unit = Nodes(own.top, jnp.zeros((), jnp.float32))
        masses = functools.partial(self._log_masses, state, unit)
        draw = self._draw_independent if self.replacement else self._draw_distinct
        return draw(state, self.devices.own_key(key), batch_size, masses=masses, own=own)

    def update(self, state: SamplerState, indices: ArrayLike, values: ArrayLike) -> SamplerState:
        """Stores a batch's fresh values, and refreshes the sums above them."""
        check_batch(indices, values)
        return self._store(state, self._local(indices), values, self.decay)

    def insert(
        self, state: SamplerState, indices: ArrayLike, values: ArrayLike, prior: ArrayLike = 1.0
    ) -> SamplerState:
        """Puts examples into slots, whatever these held: their values, and their weights in the prior."""
        check_insertion(self.growing, indices, values, prior)
        local, size = self._local(indices), np.shape(indices)[0]
        prior = jax.lax.stop_gradient(jnp.broadcast_to(jnp.asarray(prior, jnp.float32), (size,)))
        prior = jnp.where(prior >= LEAST_PRIOR, prior, 0.0)
        state = state._replace(log_prior=lookups.write(state.log_prior, local, jnp.log(prior)))

        def prior_leaves(parents):
            return tree.take(self._flat(state.log_prior), parents, self.fanout)

        prior_sums = tree.refresh(state.prior_sums, prior_leaves, local, self.heat, self.fanout)
        # A decay of 0: what the slot held is another example's.
        return self._store(state._replace(prior_sums=prior_sums), local, self.known(values, size), 0.0)

    def _store(self, state, local, values, decay):
        """Stores values at local positions, and refreshes the sums above them."""
        old, new, finite = self._smoothed(state, local, values, decay)
        # An example that occurs several times gets the mean of its finite values. Each occurrence writes its position
        # in the batch to the example's place in the store, and one of them wins. All read the winner back as their
        # common slot, into which their values are added. Adding 0 * new makes the write depend on the read, so that XLA
        # need not copy the store.
        positions = jnp.arange(local.size, dtype=jnp.float32) + 0.0 * new
        held = lookups.write(state.values, local, positions)
        slots = jnp.where(local < self.n, lookups.elements(held, local).astype(jnp.int32), local.size)
        counted = jnp.stack([finite.astype(jnp.float32), jnp.where(finite, new, 0.0)], -1)
        summed = jnp.zeros_like(counted).at[slots].add(counted, mode="drop")
        # A slot past the end reads any row: the store below drops its example.
        count, total = summed[slots].T
        new = jnp.where(count > 0, total / jnp.maximum(count, 1.0), old)
        state = state._replace(values=lookups.write(held, local, new))
        leaves = functools.partial(self._leaves, state)
        return state._replace(sums=tree.refresh(state.sums, leaves, local, self.heat, self.fanout))

    def importance_weights(
        self, state: SamplerState, indices: ArrayLike, values: ArrayLike, kind: ImportanceKind = "clipped"
    ) -> jax.Array:
        """Computes the importance weights of a batch whose fresh values are known, before the update."""
        check_kind(kind)
        check_batch(indices, values)
        if kind == "tree":
            after = self.log_probs(self.update(state, indices, values), indices)
            before = self.log_probs(state, indices)
            # An example that cannot be drawn afterwards has the weight 0. Where it could not be drawn before either,
            # the difference of infinities would be NaN, which jax_debug_nans finds although it is of no consequence.
            before = jnp.where(after > -jnp.inf, before, 0.0)
            return jnp.exp(jnp.minimum(after - before, LARGEST_LOG_WEIGHT))
        log_ratio = self._log_ratio(*self._smoothed(state, self._local(indices), values, self.decay))
        if kind == "self_normalised":
            return log_ratio.size * jax.nn.softmax(log_ratio)
        return jnp.clip(jnp.exp(log_ratio), *self.clip)

    def _init_prior(self, filled):
        """Returns the normalised log-prior, a scalar where it is uniform, and its sums where draws need them."""
        if self.growing:
            # Weights of 1, not normalised: the number of examples changes.
            log_prior = jnp.where(jnp.arange(self.n) < filled, 0.0, -jnp.inf).astype(jnp.float32)
            return log_prior, tree.build(self._flat(log_prior), self.heat, self.fanout)
        if self.prior is None:
            return -jnp.log(jnp.float32(self.devices.num_examples())), ()
        # A heat times a top of 0 leaves the prior alone, so the tree adds up the prior as it adds up scores.
        log_prior, flat = jnp.log(self.devices.prior_shares(self.prior)), jnp.zeros(self.n, jnp.float32)
        log_prior -= self.devices.total_mass(tree.combine(Nodes(flat, log_prior), self.heat)).log
        return log_prior, tree.build(Nodes(flat, log_prior), self.heat, self.fanout) if self.mixes else ()

    def _draw_independent(self, state, key, batch_size, *, masses, own):
        """Draws with replacement; returns global indices and the weights ``prior / p``."""
        # The second key settles a slot between devices. One device leaves it unused, and HostSampler splits likewise.
        draw_key, device_key = jax.random.split(key)
        ids, logs = tree.draw(draw_key, masses, self.sizes, self.fanout, batch_size)

        # A function, since only a mesh needs the number.
        def log_mass():
            return jax.nn.logsumexp(masses(len(self.sizes) - 1, None))

        candidates = Candidates(ids, logs, self._share_of(state, self._prior_of(state, ids)))
        drawn = self.devices.settle_independent(device_key, candidates, own, log_mass)
        return drawn.ids, jnp.exp(drawn.log_prior - drawn.log_masses)

    def _draw_distinct(self, state, key, batch_size, *, masses, own):
        """Draws without replacement by Gumbel top-k; returns global indices and their weights."""
        # One example more than needed: its perturbed log-mass is the threshold that those of the batch exceed.
        ids, logs, perturbed = tree.draw_distinct(key, masses, self.sizes, self.fanout, batch_size + 1)
        candidates = Candidates(ids, logs, self._share_of(state, self._prior_of(state, ids)), perturbed)
        ids, logs, log_prior, perturbed = self.devices.settle_distinct(candidates, own)
        drawn, threshold = perturbed[:-1] > -jnp.inf, perturbed[-1]
        # P(an example's perturbed log-mass exceeds the threshold), for a Gumbel variable around its log-mass.
        inclusion = -jnp.expm1(-jnp.exp(logs[:-1] - threshold))
        weights = batch_size * jnp.exp(log_prior[:-1]) / jnp.where(drawn, inclusion, 1.0)
        # Slots that no example is left for repeat the first one, with weight 0.
        return jnp.where(drawn, ids[:-1], ids[0]), jnp.where(drawn, weights, 0.0)

    def _log_ratio(self, old, new, finite):
        """Returns ``log(new score / old score)``; 0 for a new value that is not finite, and for 0 / 0."""
        old, new = self.score(old), self.score(new)
        # Only scores of zero, which losses do not have, make these False.
        was_positive, is_positive = old.log > -jnp.inf, new.log > -jnp.inf
        change = jnp.clip(tree.relative(new, old, self.heat), -LARGEST, LARGEST)
        log_ratio = jnp.where(was_positive, change, LARGEST)
        return jnp.where(finite & (was_positive | is_positive), log_ratio, 0.0)

    def _smoothed(self, state, local, values, decay):
        """Returns the stored values, what they become by the batch's, and which of the batch's are finite."""
        # No gradient flows through the history, hence through draws and importance weights.
        old = self._pick(state.values, local)
        new = jax.lax.stop_gradient(jnp.asarray(values).astype(jnp.float32))
        finite = jnp.isfinite(new)
        decay = jnp.asarray(decay, jnp.float32)
        new = decay * old + (1.0 - decay) * jnp.clip(jnp.where(finite, new, 0.0), -LARGEST, LARGEST)
        return old, new, finite

    def _local(self, indices):
        """Returns positions on this device, ``n`` for examples that other devices hold or nobody does."""
        local = as_ids("indices", indices) - self.devices.offset()
        return jnp.where((local >= 0) & (local < self.n), local, self.n)

    def _pick(self, x, local):
        """Looks up ``x [n]`` at local positions, on the device that holds them; leaves a scalar as it is."""
        if x.ndim == 0:
            return x
        # Zero on all devices but one, so that the sum over devices is that one's.
        return self.devices.sum_of(jnp.where(local < self.n, lookups.elements(x, local), 0.0))

    def _prior_of(self, state, local):
        """Returns the log-prior of this device's examples, and of anyone past the end."""
        prior = state.log_prior
        return jnp.broadcast_to(prior, local.shape) if prior.ndim == 0 else lookups.elements(prior, local)

    def _share_of(self, state, log_prior):
        """Returns log-shares of the whole prior: the prior of a sampler of changing examples is not normalised."""
        if not self.growing:
            return log_prior
        top = state.prior_sums[-1] if state.prior_sums else self._flat(state.log_prior)
        total = self.devices.total_mass(tree.combine(top, self.heat))
        # Without any example there are no shares.
        return log_prior - jnp.where(total.log > -jnp.inf, total.log, 0.0)

    def _nodes(self, values, log_prior):
        top, log = self.score(values)
        return Nodes(top, log + log_prior)

    def _flat(self, log_prior):
        """Returns the prior as nodes."""
        return Nodes(jnp.zeros_like(log_prior), log_prior)

    def _leaves(self, state, parents=None):
        """Returns the masses of this device's examples: of all, or of the children ``[B, fanout]`` of some nodes."""
        if parents is None:
            # Without this comparison, which is always true, XLA takes a uniform prior for a constant array and spends a
            # minute of compilation on what the tree makes of it.
            nodes = self._nodes(state.values, state.log_prior)
            return Nodes(nodes.top, jnp.where(jnp.arange(self.n) < self.n, nodes.log, -jnp.inf))
        inside = tree.children_ids(parents, self.fanout) < self.n
        log_prior = state.log_prior
        if log_prior.ndim:
            log_prior = lookups.rows(log_prior, parents, self.fanout)
        nodes = self._nodes(lookups.rows(state.values, parents, self.fanout), log_prior)
        return Nodes(nodes.top, jnp.where(inside, nodes.log, -jnp.inf))

    def _own_mass(self, state):
        """Returns the mass of all of this device's examples."""
        return tree.combine(state.sums[-1] if state.sums else self._leaves(state), self.heat)

    def _log_masses(self, state, unit, level, parents):
        """Returns the log-masses by which draws descend: of the parents' children in a level, or of all of it."""
        nodes = self._leaves(state, parents) if level == 0 else tree.take(state.sums[level - 1], parents, self.fanout)
        logs = tree.relative(nodes, unit, self.heat)
        if not self.mixes:
            return logs
        return self._mix(logs, self._share_of(state, self._prior_masses(state, level, parents)), unit)

    def _prior_masses(self, state, level, parents):
        """Returns the log of the prior's mass below the parents' children in a level, or below all nodes of it."""
        if state.log_prior.ndim:
            nodes = state.prior_sums[level - 1] if level > 0 else self._flat(state.log_prior)
            return tree.take(nodes, parents, self.fanout).log
        # A uniform prior has no sums: a node has as many examples below it as any other of its level. Only the last one
        # may have fewer. These are constants; a logarithm for each node would take a third of the time of a draw.
        width = self.fanout**level
        full, rest = divmod(self.n, width)
        of_last = np.float32(np.log(rest)) if rest else np.float32(-np.inf)
        ids = jnp.arange(self.sizes[level]) if parents is None else tree.children_ids(parents, self.fanout)
        below = jnp.where(ids < full, np.float32(np.log(width)), jnp.where(ids == full, of_last, -jnp.inf))
        return state.log_prior + below

    def _mix(self, log_probs, log_prior, total):
        """Returns the log of ``(1 - floor) p + floor prior``, and of the prior where all scores are zero."""
        if self.floor is not None:
            floor = jnp.asarray(self.floor, jnp.float32)
            log_probs = jnp.logaddexp(jnp.log1p(-floor) + log_probs, jnp.log(floor) + log_prior)
        # Where all scores are zero, log_probs have no unit, and whatever they are is replaced.
        return jnp.where(total.log > -jnp.inf, log_probs, log_prior)
