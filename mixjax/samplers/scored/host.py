"""Draws by stale losses in NumPy, for an input pipeline outside ``jit``, such as a data loader in another process."""

from __future__ import annotations

import functools
import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mixjax.extras import install_command
from mixjax.numbers import as_size, check_non_negative
from mixjax.samplers.scored import host_tree, threefry
from mixjax.samplers.scored.checks import (
    LARGEST,
    LARGEST_LOG_WEIGHT,
    as_indices,
    check_batch,
    check_batch_size,
    check_growing,
    check_insertion,
    check_kind,
    check_settings,
    check_values,
)
from mixjax.samplers.scored.host_history import HostHistory, finite_or_zero, known, quiet
from mixjax.samplers.scored.levels import Nodes
from mixjax.samplers.scored.types import ImportanceKind

__all__ = ["HostSampler"]

# The settings of JAX under which jax.random gives the numbers of scored.threefry.
_SETTINGS = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_high_dynamic_range_gumbel": False,
}


class HostSampler(HostHistory):
    r"""Draws examples on the host as :func:`mixjax.samplers.hardness` and ``proportional`` do: a key gives one batch.

    .. math:: p_i \propto \pi_i \exp(\beta L_i) \quad\text{or, without } \beta, \quad p_i \propto \pi_i s_i

    ``L`` and ``s`` are the stored ``values``, ``π`` is ``prior``. The sampler is a plain object, changed in place. It
    holds the same tree as the JAX samplers, so a draw and an update of a batch of ``B`` touch O(B log n) numbers. It
    has the same rules for floor, prior, decay, repeated indices and NaN.

    *Processes.* Nothing here loads JAX or makes a JAX array, so a worker process starts quickly and claims no device.
    Where JAX is not loaded, a key is a seed or comes from ``scored.threefry``. A sampler belongs to one process: the
    process that loads owns it and gets the losses through a queue. (After a fork, the child does not see updates made
    in the parent.) Pickling keeps the state and the hyperparameters. The caller keeps the keys, and so the batches to
    come.

    *Speed.* Where numba is installed (``pip install numba``), draws and updates are compiled, with the same
    results to the bit as NumPy's. The first draw and the first update compile, for about ten seconds; numba keeps
    the machine code for later processes.

    *Rounding.* The random bits are those of ``jax.random``, and all results are float32, but the last bits of XLA's
    ``exp``, ``log`` and sums are other ones than here. (Measured on a CPU, n = 10^3 and 10^5, beta from 0.1 to 100.)

    - With replacement, 14 of 12 million draws were not the JAX sampler's: a uniform number within rounding of an edge
      goes to the neighbour.
    - Without replacement, up to 3 in 1000 batches of 64 were not (4 draws in 10 000). Two examples whose perturbed
      log-masses tie up to rounding change places. Where two inner nodes tie, they swap their random numbers, and
      other examples below them may be drawn.
    - Weights of equal batches agree to 1e-3.

    The state is interchangeable with the JAX sampler's (without ``axis_name``)::

        host.state = sampler.init(losses, noise_key)    # or any later state
        state = jax.device_put(host.state)

    For a schedule, set ``host.beta`` and call ``host.rebuild()``, which takes O(n). When the data set grows or shrinks,
    call ``host.extend(losses)`` or ``host.remove(indices)``.

    Args:
        n: number of examples.
        values: initial losses (scores where ``beta`` is left out), a scalar for all, or ``[n]``. Values that are not
            finite count as the largest finite one.
        beta: scalar in [0, inf], as for :func:`hardness`; None draws in proportion to the values, as ``proportional``.
        prior: as for :func:`mixjax.samplers.hardness`, like all that follow.
        replacement: see there.
        decay: see there.
        floor: see there.
        clip: see there.
        fanout: see there.
        growing: see there; :meth:`insert` fills the slots.
        compiled: whether numba compiles draws and updates; None, the default, where it is installed.

    Raises:
        ValueError: as :func:`mixjax.samplers.hardness`.
        ImportError: ``compiled=True`` without numba.
        RuntimeError: JAX is loaded, and a setting that changes its random numbers differs from its default.

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

    _has_warned = False

    @quiet
    def __init__(
        self,
        n: int,
        values: ArrayLike,
        beta: float | None = None,
        *,
        prior: ArrayLike | None = None,
        replacement: bool = True,
        decay: float = 0.0,
        floor: float | None = None,
        clip: tuple[float, float] = (0.1, 10.0),
        fanout: int = 8,
        growing: bool = False,
        compiled: bool | None = None,
    ):
        """Takes the arguments that the class describes."""
        _check_jax_settings()
        self.compiled = compiled
        # Looked up here, so that a numba that is missing is told at once.
        _kernels(compiled)
        n = as_size("n", n)
        check_settings(n, prior=prior, decay=decay, floor=floor, clip=clip, fanout=fanout)
        check_growing(growing, prior)
        check_values(n, values, growing)
        if beta is not None:
            check_non_negative("beta", beta)
        self.replacement, self.clip = replacement, clip
        super().__init__(n, values, beta, prior=prior, decay=decay, floor=floor, fanout=fanout, growing=growing)

    @quiet
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
        batch_size = as_size("batch_size", batch_size)
        check_batch_size(batch_size, self.n, self.replacement)
        key, kernels = _key_data(key), _kernels(self.compiled)
        if kernels is not None:
            draw = kernels.draw if self.replacement else kernels.draw_distinct
            floor = np.float32(-1 if self.floor is None else self.floor)
            return draw(key, batch_size, self.n, self._sizes[-1], *self._arrays(), self._heat, self.beta is None, floor)
        total = self._root()
        # As in ScoredSampler.sample: relative to the total only where the prior is mixed in.
        unit = total if self._mixes else Nodes(total.top, np.float32(0))
        masses = functools.partial(self._log_masses, unit)
        if self.replacement:
            # The JAX sampler draws by the first half of its key, the second is for devices of a mesh.
            ids, logs = host_tree.draw(threefry.split(key)[0], masses, self._sizes, self.fanout, batch_size)
            log_probs = logs if self._mixes else logs - total.log
            return ids.astype(np.int32), host_tree.exp(self._share_of(ids) - log_probs)
        # One example more than needed: its perturbed log-mass is the threshold that those of the batch exceed.
        ids, logs, perturbed = host_tree.draw_distinct(key, masses, self._sizes, self.fanout, batch_size + 1)
        drawn, threshold = perturbed[:-1] > -np.inf, perturbed[-1]
        inclusion = np.where(drawn, -host_tree.expm1(-host_tree.exp(logs[:-1] - threshold)), np.float32(1))
        weights = np.float32(batch_size) * host_tree.exp(self._share_of(ids[:-1])) / inclusion
        return np.where(drawn, ids[:-1], ids[0]).astype(np.int32), np.where(drawn, weights, np.float32(0))

    def update(self, indices: ArrayLike, values: ArrayLike) -> None:
        """Stores the losses (or scores) ``[B]`` of the examples ``indices [B]``, by the rules of ``hardness``.

        An entry that is not finite leaves its example's loss as it was. An example that never has a finite one keeps
        its first guess, and may be drawn in every batch once the losses of the others have fallen: the first such
        update warns, once for each sampler.

        Raises:
            ValueError: ``indices`` and ``values`` are not vectors of one length.

        Warns:
            RuntimeWarning: an entry of an example in [0, n) is not finite.
        """
        self._update(indices, values)
        self._warn_of_unseen(indices, values)

    @quiet
    def _update(self, indices, values):
        """Stores losses as :meth:`update` does, without a warning."""
        self._write(indices, values, self.decay)

    def _warn_of_unseen(self, indices, values):
        """Warns, once for a sampler, of losses that are not finite; shows the line that called the caller."""
        if self._has_warned:
            return
        # The common case first: what follows takes a tenth of a compiled step.
        if getattr(values, "dtype", None) == np.float32 and np.isfinite(values).all():
            return
        # A float64 may be beyond float32: the history takes it for infinite too.
        with np.errstate(over="ignore"):
            indices, values = as_indices(indices), np.asarray(values, np.float32)
        # An index outside [0, n) is padding, whose loss is nobody's.
        unseen = ~np.isfinite(values) & (indices >= 0) & (indices < self.n)
        if not unseen.any():
            return
        self._has_warned = True
        first = int(np.argmax(unseen))
        warnings.warn(
            f"{unseen.sum()} of {values.size} losses are not finite, the first is {values[first]} of example "
            f"{indices[first]}: such an example keeps the loss it had, and may be drawn again and again. Mend it, or "
            "give it a prior of 0. Later ones are not told.",
            RuntimeWarning,
            stacklevel=3,
        )

    @quiet
    def insert(self, indices: ArrayLike, values: ArrayLike, prior: ArrayLike = 1.0) -> None:
        """Puts examples into slots of a ``growing`` sampler, whatever these held, in O(B log n); see ``hardness``.

        Args:
            indices: the slots, ``[B]``.
            values: their examples' losses (or scores), a scalar or ``[B]``.
            prior: their weights in the prior, a scalar or ``[B]``; 0 empties a slot.

        Raises:
            ValueError: a sampler that was made without ``growing=True``, or arguments of other shapes.
        """
        check_insertion(self.growing, indices, values, prior)
        indices = as_indices(indices)
        self._insert_prior(indices, np.broadcast_to(np.asarray(prior, np.float32), indices.shape))
        self._write(indices, known(np.broadcast_to(values, indices.shape), values), 0.0)

    def _write(self, indices, values, decay):
        """Stores values, smoothed by a decay, by whichever code there is."""
        kernels = _kernels(self.compiled)
        if kernels is None:
            self._store(*self._smoothed(indices, values, decay))
            return
        check_batch(indices, values)
        starts, stored, rows, log_prior, _, log_uniform = self._arrays()
        indices, fresh, decay = as_indices(indices), np.asarray(values, np.float32), np.float32(decay)
        kernels.store(
            indices, fresh, self.n, decay, starts, stored, rows, log_prior, log_uniform, self._heat, self.beta is None
        )

    @quiet
    def importance_weights(self, indices: ArrayLike, values: ArrayLike, kind: ImportanceKind = "clipped") -> np.ndarray:
        """Computes weights float32 ``[B]`` of a batch once its losses are known, before ``update``; see ``hardness``.

        Raises:
            ValueError: an unknown ``kind``, or vectors of two lengths.
        """
        check_kind(kind)
        indices, new, finite = self._smoothed(indices, values, self.decay)
        if kind == "tree":
            before, after = self._log_probs_around_update(indices, new, finite)
            ratio = np.exp(np.minimum(after - before, np.float32(LARGEST_LOG_WEIGHT)))
            # An example that can be drawn neither before nor after has the difference NaN, and the weight 0.
            return np.where(after > -np.inf, ratio, np.float32(0))
        log_ratio = self._log_ratio(indices, new, finite)
        if kind == "self_normalised":
            # The largest is subtracted so that none overflows; it cancels in the mean.
            ratio = np.exp(log_ratio - log_ratio.max())
            return ratio / ratio.mean()
        return np.exp(log_ratio).clip(*self.clip)

    @quiet
    def log_probs(self, indices: ArrayLike | None = None) -> np.ndarray:
        """Computes log-probabilities of one draw, float32: ``[n]`` of all examples, in O(n), or ``[B]`` of some."""
        indices = np.arange(self.n) if indices is None else as_indices(indices)
        nodes, log_prior = self._score(self._values_of(indices)), self._prior_of(indices)
        total = self._root()
        # The masses hold the prior as it is stored, which need not be normalised.
        log_probs = self._relative(Nodes(nodes.top, nodes.log + log_prior), total)
        return self._mix(log_probs, log_prior + self._log_scale, total) if self._mixes else log_probs

    def hardest(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Finds the ``k`` examples of largest value, descending, in O(n).

        Returns:
            int32 ``indices [k]`` and float32 ``values [k]``. Empty slots of a ``growing`` sampler come last, with -inf.

        Raises:
            ValueError: ``k`` outside [1, n].
        """
        k = as_size("k", k)
        if not 1 <= k <= self.n:
            raise ValueError(f"k must be in [1, {self.n}], got {k}.")
        values = self.values
        if self.growing:
            # An empty slot keeps the value of the example before.
            values = np.where(self._prior_of(np.arange(self.n)) > -np.inf, values, np.float32(-np.inf))
        indices = host_tree.top_k(values, k)
        return indices.astype(np.int32), values[indices]

    def _log_probs_around_update(self, indices, new, finite):
        """Returns the batch's log-probabilities before and after an update, which is undone."""
        # The store is changed in place, so what the update overwrites is kept and written back.
        before = self.log_probs(indices)
        undo = self._store(indices, new, finite)
        after = self.log_probs(indices)
        for array, positions, old in undo:
            array[positions] = old
        return before, after

    def _log_ratio(self, indices, new, finite):
        """Returns ``log(new score / old score)``; 0 for a new value that is not finite, and for 0 / 0."""
        old, new = self._score(self._values_of(indices)), self._score(new)
        # Only scores of zero, which losses do not have, make these False.
        was_positive, is_positive = old.log > -np.inf, new.log > -np.inf
        change = host_tree.relative(new, old.top, finite_or_zero(old.log), self._heat).clip(-LARGEST, LARGEST)
        log_ratio = np.where(was_positive, change, np.float32(LARGEST))
        return np.where(finite & (was_positive | is_positive), log_ratio, np.float32(0))


@functools.cache
def _kernels(compiled: bool | None) -> Any:
    """Returns the compiled functions, or None for NumPy's; raises an ImportError where they are asked for in vain."""
    if compiled is False:
        return None
    # Here and not above, so that numba is loaded by whoever makes a sampler, and by nobody else.
    from mixjax.samplers.scored import compiled as kernels

    if kernels.numba is not None:
        return kernels
    if compiled:
        raise ImportError(f"compiled=True needs numba: {install_command('numba', 'numba')}.")
    return None


def _check_jax_settings():
    """Raises a RuntimeError where JAX is loaded and would draw other numbers than this module."""
    # A process without JAX has no settings that could differ, and looking must not load it.
    if "jax" not in sys.modules:
        return
    import jax

    for name, wanted in _SETTINGS.items():
        # A JAX that does not know a setting behaves as its default says.
        setting = getattr(jax.config, name, wanted)
        if setting != wanted:
            raise RuntimeError(f"HostSampler needs JAX's default random numbers, {name} = {wanted}, got {setting}.")


def _key_data(key):
    # Not jax.random.key_data: reading a key's words would make a JAX array, and claim a device.
    if isinstance(key, int | np.integer):
        return threefry.key(int(key))
    if getattr(key, "dtype", None) != np.uint32 or key.shape != (2,):
        raise ValueError(
            "key must be a seed, or uint32 of shape (2,) such as jax.random.key_data(key) of a threefry key, got "
            f"{getattr(key, 'dtype', type(key).__name__)} of shape {np.shape(key)}."
        )
    return np.asarray(key)
