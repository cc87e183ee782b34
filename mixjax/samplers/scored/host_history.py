"""Keeps the stale values, the prior and the sums of a :class:`HostSampler`, in NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mixjax.samplers.scored import host_tree
from mixjax.samplers.scored.checks import LARGEST, LEAST_PRIOR, as_indices, check_batch, check_fixed, check_removal
from mixjax.samplers.scored.levels import Level, Nodes, sizes
from mixjax.samplers.scored.types import SamplerState

__all__ = ["HostHistory", "finite_or_zero", "known", "log_simplex", "quiet"]

quiet = np.errstate(divide="ignore", invalid="ignore", over="ignore")
"""Silences NumPy where logs of zero and differences of infinities are meant; decorates whole methods."""

_ZERO = np.float32(0)


class HostHistory:
    """Keeps what changes while a :class:`HostSampler` is in use, and computes masses from it.

    The methods mirror those of :class:`mixjax.samplers.scored.sampler.ScoredSampler`, operation by operation, so that
    the same key gives the same draws. Levels are stored as rows of siblings, see
    :mod:`mixjax.samplers.scored.host_tree`. All levels lie in one array ``[rows, 2, fanout]``, from the lowest up, so
    that a row's tops and logs share a line of the processor's cache, and compiled code takes one array.
    """

    def __init__(
        self,
        n: int,
        values: ArrayLike,
        beta: float | None,
        *,
        prior: ArrayLike | None,
        decay: float,
        floor: float | None,
        fanout: int,
        growing: bool,
    ):
        """Takes arguments of :class:`HostSampler` that have been checked."""
        self.beta, self.decay, self.floor, self.fanout, self.growing = beta, decay, floor, fanout, growing
        filled = np.shape(values)[0] if np.ndim(values) else n
        values = np.broadcast_to(known(values, values), (filled,))
        if growing:
            prior = np.arange(n) < filled
        self._start(n, np.pad(values, (0, n - filled)), prior)

    def _start(self, n, values, prior):
        """Begins with ``n`` examples of known values and a prior, which is None where it is uniform."""
        self.n, fanout = n, self.fanout
        self._sizes = sizes(n, fanout)
        # NaN marks the places past the end of the last row, which get a mass of zero.
        self._values = host_tree.as_rows(np.broadcast_to(values, (n,)), fanout, np.nan)
        self._set_sums(())
        self._log_prior: Any = -np.log(np.float32(n))
        self._prior_sums: tuple[Nodes, ...] = ()
        self._log_scale = _ZERO
        if self.growing:
            # Weights as they are given, not normalised: the number of examples changes.
            self._log_prior = host_tree.as_rows(host_tree.log(np.asarray(prior, np.float32)), fanout, -np.inf)
            self._prior_sums = self._build(Nodes(np.zeros_like(self._log_prior), self._log_prior))
        elif prior is not None:
            log_prior = host_tree.as_rows(log_simplex(prior), fanout, -np.inf)
            # With tops of 0, the tree adds up the prior as it adds up scores; this one normalises the prior.
            flat = np.zeros_like(log_prior)
            self._log_prior = log_prior - host_tree.root(Nodes(flat, log_prior), self._heat)[1]
            if self._mixes:
                self._prior_sums = self._build(Nodes(flat, self._log_prior))
        self._pack_prior()
        self.rebuild()

    def _pack_prior(self):
        self._no_prior = np.empty((0, self.fanout), np.float32)
        self._prior_rows = np.concatenate([self._no_prior, *(nodes.log for nodes in self._prior_sums)])
        if self.growing:
            self._view_prior()
            self._scale_prior()

    def _view_prior(self):
        # Views, so that compiled code sees what an insertion writes.
        levels = [self._prior_rows[start:end] for start, end in itertools.pairwise(self._level_starts())]
        self._prior_sums = tuple(Nodes(np.zeros_like(rows), rows) for rows in levels)

    def _level_starts(self):
        return np.cumsum([0, *(-(-size // self.fanout) for size in self._sizes[1:])])

    def _scale_prior(self):
        """Looks up by what the prior's weights are divided to be shares: the sum of a growing sampler's weights."""
        logs = self._prior_sums[-1].log if self._prior_sums else self._log_prior
        total = host_tree.root(Nodes(np.zeros_like(logs), logs), self._heat).log
        # Without any example there are no shares.
        self._log_scale = -finite_or_zero(total)[()]

    def _insert_prior(self, indices, prior):
        inside = (indices >= 0) & (indices < self.n)
        ids, prior = indices[inside], np.where(prior >= LEAST_PRIOR, prior, _ZERO)
        host_tree.write(self._log_prior, ids, host_tree.log(prior[inside]))

        def leaves(rows):
            return Nodes(np.zeros_like(self._log_prior[rows]), self._log_prior[rows])

        host_tree.refresh(self._prior_sums, leaves, ids, self._heat)
        self._scale_prior()

    @quiet
    def extend(self, values: ArrayLike, prior: ArrayLike | None = None) -> None:
        """Adds examples, in O(n): they come last, and the old ones keep their losses (or scores).

        Args:
            values: the new examples' losses, one each; see the class for what is not finite.
            prior: one entry for each example, old and new. It is needed where the sampler has a prior, and not given
                where its prior is uniform.

        Raises:
            ValueError: values that are not a vector, or a prior that does not fit.
        """
        check_fixed("extend", self.growing)
        if np.ndim(values) != 1:
            raise ValueError(f"values must be a vector, one entry per new example, got shape {np.shape(values)}.")
        new = known(values, np.append(values, self.values))
        self._check_prior(self.n + new.size, prior)
        self._start(self.n + new.size, np.append(self.values, new), prior)

    @quiet
    def remove(self, indices: ArrayLike, prior: ArrayLike | None = None) -> None:
        """Removes examples, in O(n): the others keep their losses and their order, and count from 0 without a gap.

        Args:
            indices: the examples to remove.
            prior: one entry for each example that stays, needed where the sampler has one.

        Raises:
            TypeError: indices that are not integers.
            ValueError: indices out of range, no example left, or a prior that does not fit.
        """
        check_fixed("remove", self.growing)
        n = self.n - np.unique(as_indices(indices)).size
        kept = check_removal(n, self.n, indices)
        if n < 1:
            raise ValueError(f"remove must leave at least one of {self.n} examples.")
        self._check_prior(n, prior)
        self._start(n, self.values[kept], prior)

    def _check_prior(self, n, prior):
        if (prior is None) != (self._log_prior.ndim == 0):
            raise ValueError("prior must be given where the sampler has one, and only there.")
        if prior is not None and np.shape(prior) != (n,):
            raise ValueError(f"prior must have shape {(n,)}, got {np.shape(prior)}.")

    @quiet
    def rebuild(self) -> None:
        """Computes the sums anew, in O(n): after a change of ``beta``."""
        self._set_sums(self._build(self._leaves(slice(None))))

    def _set_sums(self, sums: tuple[Nodes, ...]) -> None:
        """Copies levels of rows into one array, and keeps a view of each."""
        blocks = [np.stack(nodes, 1) for nodes in sums]
        self._rows = np.concatenate([np.empty((0, 2, self.fanout), np.float32), *blocks])
        # Where each level starts in the array, and where the last one ends.
        self._starts = np.cumsum([0, *(len(block) for block in blocks)])
        self._view_sums()

    def _view_sums(self):
        levels = [self._rows[start:end] for start, end in itertools.pairwise(self._starts)]
        self._sums = tuple(Nodes(rows[:, 0], rows[:, 1]) for rows in levels)

    def _arrays(self):
        """Returns what the compiled functions read; see :mod:`mixjax.samplers.scored.compiled`."""
        if self._log_prior.ndim:
            return self._starts, self._values, self._rows, self._log_prior, self._prior_rows, self._log_scale
        return self._starts, self._values, self._rows, self._no_prior, self._no_prior, self._log_prior

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a pickle keeps: not the views, which would be pickled as copies."""
        views = {"_sums", "_prior_sums"} if self.growing else {"_sums"}
        return {name: value for name, value in self.__dict__.items() if name not in views}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes what a pickle kept, and views the levels again."""
        self.__dict__.update(state)
        self._view_sums()
        if self.growing:
            self._view_prior()

    @property
    def values(self) -> np.ndarray:
        """Returns the stored losses or scores, float32 ``[n]``: a view, for reading."""
        view = self._values.reshape(-1)[: self.n]
        # Writing a value here would leave the sums behind.
        view.flags.writeable = False
        return view

    @property
    def state(self) -> SamplerState:
        """Returns a copy of all that changes, in the JAX sampler's type and shapes. Setting it copies too."""

        def flat(rows, level):
            return rows.reshape(-1)[: self._sizes[level]].copy()

        def trim(levels):
            return tuple(
                Level(np.stack([flat(nodes.top, level), flat(nodes.log, level)], -1))
                for level, nodes in enumerate(levels, start=1)
            )

        log_prior = flat(self._log_prior, 0) if self._log_prior.ndim else self._log_prior
        # Any: SamplerState is typed for JAX, and here its leaves are NumPy's.
        values: Any = flat(self._values, 0)
        return SamplerState(values, trim(self._sums), log_prior, trim(self._prior_sums))

    @state.setter
    def state(self, state: SamplerState) -> None:
        # A checkpoint may come back as dictionaries, or as lists.
        if not isinstance(state, SamplerState):
            raise TypeError(f"state must be a SamplerState, got {type(state).__name__}.")
        # A state of another n, fanout or prior would be taken without complaint and draw nonsense.
        state, shapes = _mapped(np.asarray, state), _mapped(np.shape, self.state)
        if _mapped(np.shape, state) != shapes:
            raise ValueError(f"state must have the shapes {shapes}, got {_mapped(np.shape, state)}.")
        if state.log_prior.ndim and not self.growing:
            # A growing sampler keeps weights as they were given. Here they would be taken for shares.
            total = np.exp(state.log_prior, dtype=np.float64).sum()
            if not abs(total - 1) < 1e-2:
                raise ValueError(f"state must have a prior that adds up to 1, got {total:.6g}: is it a growing one's?")
        self._values = host_tree.as_rows(state.values, self.fanout, np.nan)
        self._set_sums(tuple(host_tree.nodes_as_rows(nodes, self.fanout) for nodes in state.sums))
        prior = state.log_prior
        self._log_prior = host_tree.as_rows(prior, self.fanout, -np.inf) if prior.ndim else np.float32(prior)
        self._prior_sums = tuple(host_tree.nodes_as_rows(nodes, self.fanout) for nodes in state.prior_sums)
        self._pack_prior()

    @property
    def _mixes(self):
        # Draws may need the prior's own masses: with a floor, or where all scores are zero. Losses always have a mass.
        return self.beta is None or self.floor is not None

    @property
    def _heat(self):
        return np.float32(0.0 if self.beta is None else min(self.beta, LARGEST))

    def _root(self):
        return host_tree.root(self._sums[-1] if self._sums else self._leaves(slice(None)), self._heat)

    def _build(self, leaves):
        return host_tree.build(leaves, len(self._sizes) - 1, self._heat)

    def _score(self, values):
        # Scores are masses themselves, so their logs count. A loss is a mass only after the heat multiplies it.
        if self.beta is None:
            return Nodes(np.zeros_like(values), host_tree.log(np.maximum(values, np.float32(0))))
        return Nodes(values, np.zeros_like(values))

    def _leaves(self, rows):
        values = self._values[rows]
        top, log = self._score(values)
        log = log + (self._log_prior[rows] if self._log_prior.ndim else self._log_prior)
        # A stored value is never NaN, so a NaN marks a place past the end.
        return Nodes(top, np.where(np.isnan(values), np.float32(-np.inf), log))

    def _relative(self, nodes, unit):
        return host_tree.relative(nodes, unit.top, finite_or_zero(unit.log), self._heat)

    def _log_masses(self, unit, level: int, parents):
        """Returns the log-masses by which draws descend: those of the parents' children, which are of ``level``."""
        if level == 0:
            nodes = self._leaves(parents)
        else:
            sums = self._sums[level - 1]
            # Indices, not take, which copies the whole of an array that is a view.
            nodes = Nodes(sums.top[parents], sums.log[parents])
        logs = self._relative(nodes, unit)
        # unit.log is finite unless all scores are zero, which is the other reason to look at the prior.
        if self.floor is None and unit.log > -np.inf:
            return logs
        return self._mix(logs, self._prior_masses(level, parents), unit)

    def _prior_masses(self, level: int, parents):
        if self._log_prior.ndim:
            rows = self._prior_sums[level - 1].log[parents] if level else self._log_prior[parents]
            return rows + self._log_scale
        # A uniform prior has no sums: count the examples below each node. The last node of a level may have fewer.
        width = self.fanout**level
        starts = (parents[:, None] * self.fanout + np.arange(self.fanout)) * width
        below = (self.n - starts).clip(0, width).astype(np.float32)
        return self._log_prior + host_tree.log(below)

    def _mix(self, log_probs, log_prior, total):
        if total.log == -np.inf:
            return np.broadcast_to(log_prior, log_probs.shape)
        if self.floor is None:
            return log_probs
        floor = np.float32(self.floor)
        return host_tree.log_add_exp(host_tree.log1p(-floor) + log_probs, host_tree.log(floor) + log_prior)

    def _prior_of(self, indices):
        return self._log_prior.reshape(-1)[indices] if self._log_prior.ndim else self._log_prior

    def _share_of(self, indices):
        return self._prior_of(indices) + self._log_scale

    def _values_of(self, indices):
        # Indices outside [0, n) read as 0, as in the JAX sampler, and nothing is stored for them.
        inside = (indices >= 0) & (indices < self.n)
        return np.where(inside, self._values.reshape(-1)[np.where(inside, indices, 0)], np.float32(0))

    def _smoothed(self, indices, values, decay):
        """Returns indices, what the store would hold by each occurrence, and which values are finite."""
        check_batch(indices, values)
        indices, new = as_indices(indices), np.asarray(values, np.float32)
        finite, decay = np.isfinite(new), np.float32(decay)
        new = np.where(finite, new, np.float32(0)).clip(-LARGEST, LARGEST)
        return indices, decay * self._values_of(indices) + (1 - decay) * new, finite

    def _store(self, indices, new, finite):
        """Writes values and the sums above them; returns what was overwritten, see :func:`host_tree.write`."""
        kept = finite & (indices >= 0) & (indices < self.n)
        # An example that occurs twice gets the mean of its finite values.
        ids, slots, counts = np.unique(indices[kept], return_inverse=True, return_counts=True)
        means = np.bincount(slots, new[kept], len(ids)).astype(np.float32) / counts.astype(np.float32)
        undo = [host_tree.write(self._values, ids, means)]
        return undo + host_tree.refresh(self._sums, self._leaves, ids, self._heat)


def known(values: ArrayLike, others: ArrayLike) -> np.ndarray:
    """Prepares values to be stored: where one is not finite, the largest finite one of ``others`` takes its place."""
    values, others = np.atleast_1d(np.asarray(values, np.float32)), np.atleast_1d(np.asarray(others, np.float32))
    # Where none is finite, all become 0.
    largest = others[np.isfinite(others)].max(initial=-np.inf)
    largest = largest if largest > -np.inf else np.float32(0)
    return np.where(np.isfinite(values), values, largest).clip(-LARGEST, LARGEST)


def _mapped(function, state) -> SamplerState:
    """Applies a function to every array of a state, as ``jax.tree.map`` does where JAX is loaded."""

    def mapped(levels):
        return tuple(Level(function(level.pairs)) for level in levels)

    return SamplerState(function(state.values), mapped(state.sums), function(state.log_prior), mapped(state.prior_sums))


def finite_or_zero(log: np.ndarray) -> np.ndarray:
    """Replaces -inf, the log of a mass of zero, by 0, as ``tree.relative`` does."""
    return np.where(log > -np.inf, log, np.float32(0))


def log_simplex(prior: ArrayLike) -> np.ndarray:
    """Returns the log of a prior that :func:`mixjax.checks.as_simplex` would make of it, in NumPy.

    Raises:
        ValueError: a prior that is not finite, non-negative and positive somewhere.
    """
    prior = np.asarray(prior, np.float32)
    if not (np.isfinite(prior).all() and (prior >= 0).all() and prior.any()):
        raise ValueError(f"prior must be finite, non-negative and not all zero, got {prior}.")
    scaled = prior / prior.max()
    # Positive entries stay positive: what gets below the normal floats would be flushed to zero on a device.
    scaled = np.where(prior > 0, np.maximum(scaled / scaled.sum(), np.finfo(np.float32).tiny), np.float32(0))
    return np.log(scaled)
