"""The example samplers in NumPy, for an input pipeline outside ``jit``, such as a data loader in another process."""

import functools

import jax
import numpy as np
from numpy.typing import ArrayLike

from mixjax.samplers.scored import host_tree, threefry, tree
from mixjax.samplers.scored.stale import (
    LARGEST,
    LARGEST_LOG_WEIGHT,
    SamplerState,
    check_batch,
    check_batch_size,
    check_kind,
    check_settings,
    check_values,
)

_SETTINGS = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_high_dynamic_range_gumbel": False,
}
_quiet = np.errstate(divide="ignore", invalid="ignore", over="ignore")


class HostSampler:
    r"""The twin of :func:`mixjax.samplers.hardness` and ``proportional`` on the host: the same draws for the same key.

    .. math:: p_i \propto \pi_i \exp(\beta L_i) \quad\text{or, without } \beta, \quad p_i \propto \pi_i s_i

    A plain object, changed in place. It holds the same tree, so that a draw and an update of a batch of ``B`` touch
    O(B log n) numbers, and has the same rules for floor, prior, momentum, repeated indices and NaN. No method makes a
    JAX array, so a worker process claims no device. It belongs to one process: the one that loads owns it and gets the
    losses through a queue. (After a fork, updates made in the parent are not seen by the child.) Pickling keeps all:
    state and hyperparameters; keys, and so the batches to come, are the caller's.

    The random bits are those of ``jax.random``, and all arithmetic is float32, but the last bits of NumPy's and XLA's
    ``exp``, ``log`` and sums differ. With replacement, 14 of 12 million draws were not the JAX sampler's: a uniform
    number within rounding of an edge goes to the neighbour. Without, up to 3 in 1000 batches of 64 were not (4 draws in
    10 000): two examples whose perturbed log-masses tie up to rounding change places, and where two inner nodes do, the
    examples below them are drawn with each other's numbers. (On a CPU, n = 10^3 and 10^5, beta from 0.1 to 100.)
    Weights of equal batches agree to 1e-3.

    The state is interchangeable with the JAX sampler's (without ``axis_name``)::

        host.state = sampler.init(losses, noise_key)    # or any later state
        state = jax.device_put(host.state)

    At ``n = 10^7`` and ``B = 64``, a draw with its update took 0.7 ms on one core, without replacement 0.8 ms.

    Args:
        n: number of examples.
        values: initial losses (scores where ``beta`` is left out), a scalar for all, or ``[n]``. Those that are not
            finite count as the largest finite one.
        beta: scalar in [0, inf], as for :func:`hardness`; None: proportional to the values, as ``proportional``.
        prior: as for :func:`mixjax.samplers.hardness`, like all that follow.
        replacement: see there.
        momentum: see there.
        floor: see there.
        clip: see there.
        fanout: see there.

    Raises:
        ValueError: as :func:`mixjax.samplers.hardness`.
        RuntimeError: JAX is set to another random number generator than its default.

    Example:
        >>> import jax, mixjax
        >>> host = mixjax.samplers.HostSampler(1000, 2.3, beta=10.0, replacement=False)
        >>> indices, weights = host.sample(7, batch_size=4)
        >>> sampler = mixjax.samplers.hardness(1000, beta=10.0, replacement=False)
        >>> indices.tolist() == sampler.sample(sampler.init(2.3), jax.random.key(7), 4)[0].tolist()
        True
        >>> host.update(indices, [0.1, 0.5, 0.2, 9.0])
        >>> host.hardest(1)[1].tolist()
        [9.0]

    References:
        Paper 004, algorithm 1; see :func:`mixjax.samplers.hardness` for the deviations.
    """

    @_quiet
    def __init__(
        self,
        n: int,
        values: ArrayLike,
        beta: float | None = None,
        *,
        prior: ArrayLike | None = None,
        replacement: bool = True,
        momentum: float = 0.0,
        floor: float | None = None,
        clip: tuple[float, float] = (0.1, 10.0),
        fanout: int = 8,
    ):
        """See the class."""
        for name, wanted in _SETTINGS.items():
            if (setting := getattr(jax.config, name, wanted)) != wanted:
                raise RuntimeError(f"HostSampler needs JAX's default random numbers, {name} = {wanted}, got {setting}.")
        check_settings(n, prior, momentum, floor, clip, fanout)
        check_values(n, values)
        if beta is not None and not beta >= 0:
            raise ValueError(f"beta must be in [0, inf], got {beta}.")
        values = np.atleast_1d(np.asarray(values, np.float32))
        finite = np.isfinite(values)
        self.n, self.beta, self.replacement, self.momentum = n, beta, replacement, momentum
        self.floor, self.clip, self.fanout = floor, clip, fanout
        self._sizes = tree.sizes(n, fanout)
        values = np.where(finite, values, values[finite].max()).clip(-LARGEST, LARGEST)
        # Siblings are rows, see host_tree. Past the end there are values of NaN.
        self._values = host_tree.as_rows(np.broadcast_to(values, (n,)), fanout, np.nan)
        self._log_prior, self._prior_sums = -np.log(np.float32(n)), ()
        if prior is not None:
            log_prior = host_tree.as_rows(_log_simplex(prior), fanout, -np.inf)
            flat = np.zeros_like(log_prior)
            self._log_prior = log_prior - host_tree.root(tree.Nodes(flat, log_prior), self._heat)[1]
            self._prior_sums = self._build(tree.Nodes(flat, self._log_prior)) if self._mixes else ()
        self.rebuild()

    @_quiet
    def sample(self, key: ArrayLike | int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws a batch.

        Args:
            key: uint32 ``[2]``, from ``jax.random.key_data(key)`` or ``scored.threefry``; or a seed, which stands for
                ``jax.random.key(seed)``.
            batch_size: ``B``.

        Returns:
            int32 ``indices [B]`` and float32 ``weights [B]``, as from the JAX sampler's ``sample``.

        Raises:
            ValueError: ``batch_size`` out of range, or a key of another kind.
        """
        check_batch_size(batch_size, self.n, self.replacement)
        key, (top, log) = _key_data(key), self._root()
        masses = functools.partial(self._masses, (top, log) if self._mixes else (top, np.float32(0)))
        if self.replacement:
            ids, logs = host_tree.draw(threefry.split(key)[0], masses, self._sizes, self.fanout, batch_size)
            return ids.astype(np.int32), np.exp(self._prior_of(ids) - (logs if self._mixes else logs - log))
        ids, logs, perturbed = host_tree.draw_distinct(key, masses, self._sizes, self.fanout, batch_size + 1)
        drawn, threshold = perturbed[:-1] > -np.inf, perturbed[-1]
        inclusion = -np.expm1(-np.exp(logs[:-1] - threshold))
        weights = np.float32(batch_size) * np.exp(self._prior_of(ids[:-1])) / np.where(drawn, inclusion, np.float32(1))
        return np.where(drawn, ids[:-1], ids[0]).astype(np.int32), np.where(drawn, weights, np.float32(0))

    @_quiet
    def update(self, indices: ArrayLike, values: ArrayLike) -> None:
        """Stores the losses (or scores) ``[B]`` of the examples ``indices [B]``, by the rules of ``hardness``.

        Raises:
            ValueError: ``indices`` and ``values`` are not vectors of one length.
        """
        self._store(*self._refreshed(indices, values))

    @_quiet
    def importance_weights(self, indices: ArrayLike, values: ArrayLike, kind: str = "clipped") -> np.ndarray:
        """Weights float32 ``[B]`` of a batch once its losses are known, before ``update``; see ``hardness``.

        Raises:
            ValueError: an unknown ``kind``, or vectors of two lengths.
        """
        check_kind(kind)
        indices, new, finite = self._refreshed(indices, values)
        if kind == "tree":
            before = self.log_probs(indices)
            undo = self._store(indices, new, finite)
            after = self.log_probs(indices)
            for array, ids, old in undo:
                array[ids] = old
            ratio = np.exp(np.minimum(after - before, np.float32(LARGEST_LOG_WEIGHT)))
            return np.where(after > -np.inf, ratio, np.float32(0))  # also where both are zero
        old, new = self._score(self._values_of(indices)), self._score(new)
        was, is_now = old.log > -np.inf, new.log > -np.inf  # always, but for scores of zero
        log_ratio = host_tree.relative(new, old.top, _finite(old.log), self._heat).clip(-LARGEST, LARGEST)
        log_ratio = np.where(finite & (was | is_now), np.where(was, log_ratio, np.float32(LARGEST)), np.float32(0))
        if kind == "self_normalised":
            ratio = np.exp(log_ratio - log_ratio.max())
            return ratio / ratio.mean()
        return np.exp(log_ratio).clip(*self.clip)

    @_quiet
    def log_probs(self, indices: ArrayLike | None = None) -> np.ndarray:
        """Log-probabilities of one draw, float32: ``[n]`` of all examples, in O(n), or ``[B]`` of some."""
        indices = np.arange(self.n) if indices is None else np.asarray(indices, np.intp)
        nodes, log_prior = self._score(self._values_of(indices)), self._prior_of(indices)
        total = self._root()
        log_probs = self._relative(tree.Nodes(nodes.top, nodes.log + log_prior), total)
        return self._mix(log_probs, log_prior, total) if self._mixes else log_probs

    def hardest(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``k`` examples of largest value, descending, in O(n): int32 ``indices`` and float32 ``values [k]``.

        Raises:
            ValueError: ``k`` outside [1, n].
        """
        if not 1 <= k <= self.n:
            raise ValueError(f"k must be in [1, {self.n}], got {k}.")
        indices = host_tree.top_k(self.values, k)
        return indices.astype(np.int32), self.values[indices]

    @_quiet
    def rebuild(self) -> None:
        """Computes the sums anew, in O(n): after a change of ``beta``."""
        self._sums = self._build(self._leaves(slice(None)))

    @property
    def values(self) -> np.ndarray:
        """float32 ``[n]``, the stored losses or scores; a view, for reading."""
        view = self._values.reshape(-1)[: self.n]
        view.flags.writeable = False
        return view

    @property
    def state(self) -> SamplerState:
        """All that changes, in the JAX sampler's type and shapes; a copy. Setting it copies too."""

        def flat(rows, level):
            return rows.reshape(-1)[: self._sizes[level]].copy()

        def trim(levels):
            return tuple(tree.Nodes(*(flat(x, i + 1) for x in nodes)) for i, nodes in enumerate(levels))

        log_prior = flat(self._log_prior, 0) if self._log_prior.ndim else self._log_prior
        return SamplerState(flat(self._values, 0), trim(self._sums), log_prior, trim(self._prior_sums))

    @state.setter
    def state(self, state: SamplerState) -> None:
        state, shapes = jax.tree.map(np.asarray, state), jax.tree.map(np.shape, self.state)
        if jax.tree.map(np.shape, state) != shapes:
            raise ValueError(f"state must have the shapes {shapes}, got {jax.tree.map(np.shape, state)}.")
        self._values = host_tree.as_rows(state.values, self.fanout, np.nan)
        self._sums = tuple(host_tree.nodes_as_rows(nodes, self.fanout) for nodes in state.sums)
        prior = state.log_prior
        self._log_prior = host_tree.as_rows(prior, self.fanout, -np.inf) if prior.ndim else np.float32(prior)
        self._prior_sums = tuple(host_tree.nodes_as_rows(nodes, self.fanout) for nodes in state.prior_sums)

    # What follows mirrors mixjax.samplers.scored.stale, operation by operation.

    @property
    def _mixes(self):
        return self.beta is None or self.floor is not None

    @property
    def _heat(self):
        return np.float32(0.0 if self.beta is None else min(self.beta, 1e30))

    def _root(self):
        return host_tree.root(self._sums[-1] if self._sums else self._leaves(slice(None)), self._heat)

    def _build(self, leaves):
        return host_tree.build(leaves, len(self._sizes) - 1, self._heat)

    def _score(self, values):
        if self.beta is None:
            return tree.Nodes(np.zeros_like(values), np.log(np.maximum(values, np.float32(0))))
        return tree.Nodes(values, np.zeros_like(values))

    def _leaves(self, rows):
        values = self._values[rows]
        top, log = self._score(values)
        log = log + (self._log_prior[rows] if self._log_prior.ndim else self._log_prior)
        return tree.Nodes(top, np.where(np.isnan(values), np.float32(-np.inf), log))

    def _relative(self, nodes, total):
        return host_tree.relative(nodes, total[0], _finite(total[1]), self._heat)

    def _masses(self, total, level, nodes):
        level_nodes = tree.Nodes(*(x.take(nodes, 0) for x in self._sums[level - 1])) if level else self._leaves(nodes)
        logs = self._relative(level_nodes, total)
        if self.floor is None and total[1] > -np.inf:
            return logs
        if self._log_prior.ndim:
            return self._mix(logs, self._prior_sums[level - 1].log[nodes] if level else self._log_prior[nodes], total)
        width = self.fanout**level
        starts = (nodes[:, None] * self.fanout + np.arange(self.fanout)) * width
        below = (self.n - starts).clip(0, width).astype(np.float32)
        return self._mix(logs, self._log_prior + np.log(below), total)

    def _mix(self, log_probs, log_prior, total):
        if total[1] == -np.inf:
            return np.broadcast_to(log_prior, log_probs.shape)
        if self.floor is None:
            return log_probs
        rate = np.float32(self.floor)
        return np.logaddexp(np.log1p(-rate) + log_probs, np.log(rate) + log_prior)

    def _prior_of(self, indices):
        return self._log_prior.reshape(-1)[indices] if self._log_prior.ndim else self._log_prior

    def _values_of(self, indices):
        inside = (indices >= 0) & (indices < self.n)
        return np.where(inside, self._values.reshape(-1)[np.where(inside, indices, 0)], np.float32(0))

    def _refreshed(self, indices, values):
        """Indices, what the store would hold of each occurrence, and which are finite."""
        check_batch(indices, values)
        indices, new = np.asarray(indices, np.intp), np.asarray(values, np.float32)
        finite, rate = np.isfinite(new), np.float32(self.momentum)
        new = np.where(finite, new, np.float32(0)).clip(-LARGEST, LARGEST)
        return indices, rate * self._values_of(indices) + (1 - rate) * new, finite

    def _store(self, indices, new, finite):
        """Writes values and their ancestors' sums; returns what it overwrote."""
        kept = finite & (indices >= 0) & (indices < self.n)
        ids, slots, counts = np.unique(indices[kept], return_inverse=True, return_counts=True)
        means = np.bincount(slots, new[kept], len(ids)).astype(np.float32) / counts.astype(np.float32)
        undo = [host_tree.write(self._values, ids, means)]
        return undo + host_tree.refresh(self._sums, self._leaves, ids, self._heat)


def _finite(log):
    return np.where(log > -np.inf, log, np.float32(0))


def _key_data(key):
    if isinstance(key, int | np.integer):
        return threefry.key(int(key))
    if getattr(key, "dtype", None) != np.uint32 or key.shape != (2,):
        raise ValueError(
            "key must be a seed, or uint32 of shape (2,) such as jax.random.key_data(key) of a threefry key, got "
            f"{getattr(key, 'dtype', type(key).__name__)} of shape {np.shape(key)}."
        )
    return np.asarray(key)


def _log_simplex(prior):
    prior = np.asarray(prior, np.float32)
    if not (np.isfinite(prior).all() and (prior >= 0).all() and prior.any()):
        raise ValueError(f"prior must be finite, non-negative and not all zero, got {prior}.")
    scaled = prior / prior.max()
    scaled = np.where(prior > 0, np.maximum(scaled / scaled.sum(), np.finfo(np.float32).tiny), np.float32(0))
    return np.log(scaled)
