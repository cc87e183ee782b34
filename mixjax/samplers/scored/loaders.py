"""Offers a :class:`HostSampler` to loaders that ask for indices, such as PyTorch's ``DataLoader``, without PyTorch."""

from __future__ import annotations

import collections
import io
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mixjax.numbers import as_size, check_integer
from mixjax.samplers.scored.checks import check_batch_size
from mixjax.samplers.scored.host import HostSampler
from mixjax.samplers.scored.levels import Level
from mixjax.samplers.scored.types import SamplerState

__all__ = ["HostBatch", "HostBatchSampler", "HostIndexSampler"]


class HostBatch(NamedTuple):
    """Holds one process's part of a batch that a :class:`HostBatchSampler` has drawn.

    Attributes:
        step: number of the batch, counted from 0 over all epochs.
        indices: int32 ``[B]``, the examples, in the order in which the loader reads them.
        weights: float32 ``[B]``, the importance weights of the draw, see :meth:`HostSampler.sample`.
    """

    step: int
    indices: np.ndarray
    weights: np.ndarray


class HostBatchSampler:
    """Yields batches of indices, drawn by stale losses, in the shape of PyTorch's batch samplers.

    Pass it to ``DataLoader`` as ``batch_sampler``. Neither PyTorch nor JAX is imported. Batch ``t`` is drawn with the
    losses of the batches before ``t - lag``, and so is a function of ``seed``, ``t`` and these losses alone: it is the
    same for any number of workers, and after a resumption.

    *The loop* calls :meth:`batch` once for each batch that the loader hands out, and then :meth:`update` with its
    losses, or :meth:`keep` where it has none.

    *Workers.* Indices are drawn in the process that iterates, never in a worker. A loader asks for
    ``num_workers * prefetch_factor`` batches ahead, so ``lag`` has to be as large as that, and one more for each batch
    whose losses the loop hands over late. A smaller one is an error that says so.

    *Several processes that train.* Each one makes the same object but for ``rank``, draws the same batch of
    ``num_replicas * batch_size`` examples, and reads every ``num_replicas``-th of them. The losses of all ranks are
    gathered by the loop, as by ``torch.distributed.all_gather_into_tensor``, and given to :meth:`update` on each.

    *Epochs.* A loop over the object takes ``num_batches`` batches. Steps are counted on from epoch to epoch, so there
    is no ``set_epoch``. A loop that begins after another one was left goes on after the last batch that :meth:`batch`
    returned; the first one after :meth:`load_state_dict` takes the rest of the saved epoch.

    Args:
        sampler: draws the examples and stores their losses. It lags too: it has the losses by which the newest batch
            was drawn, not those that wait for a later one.
        batch_size: ``B``, examples of a batch on each rank.
        num_batches: batches of an epoch; left out, as many as draw ``sampler.n`` examples on all ranks together.
        seed: a non-negative integer, the same on all ranks.
        lag: how many batches a loss may be late, at least 0.
        rank: number of this process among those that train.
        num_replicas: how many processes train.

    Raises:
        ValueError: a number out of range.
        TypeError: a ``sampler`` of another type, or a number that is no integer.

    Example:
        >>> from mixjax.samplers import HostBatchSampler, HostSampler
        >>> batches = HostBatchSampler(HostSampler(100, 1.0, beta=2.0), batch_size=4, num_batches=2)
        >>> for indices in batches:                             # what the loader does
        ...     batch = batches.batch()                         # what the loop does
        ...     batches.update(batch.step, [0.5, 0.1, 0.3, 0.2])
        ...     print(batch.step, indices == batch.indices.tolist())
        0 True
        1 True
        >>> batches.state_dict()["step"]
        2
    """

    def __init__(
        self,
        sampler: HostSampler,
        batch_size: int,
        num_batches: int | None = None,
        *,
        seed: int = 0,
        lag: int = 0,
        rank: int = 0,
        num_replicas: int = 1,
    ):
        """Takes the arguments that the class describes."""
        if not isinstance(sampler, HostSampler):
            raise TypeError(f"sampler must be a HostSampler, got {type(sampler).__name__}.")
        self.sampler, self._n = sampler, sampler.n
        self.batch_size, self.num_replicas = as_size("batch_size", batch_size), as_size("num_replicas", num_replicas)
        check_integer("batch_size", self.batch_size, 1)
        check_integer("num_replicas", self.num_replicas, 1)
        self.global_batch_size = self.batch_size * self.num_replicas
        check_batch_size(self.global_batch_size, self._n, sampler.replacement)
        self.num_batches = -(-self._n // self.global_batch_size)
        if num_batches is not None:
            self.num_batches = as_size("num_batches", num_batches)
            check_integer("num_batches", self.num_batches, 1)
        self.seed, self.lag, self.rank = as_size("seed", seed), as_size("lag", lag), as_size("rank", rank)
        check_integer("seed", self.seed, 0)
        check_integer("lag", self.lag, 0)
        if not 0 <= self.rank < self.num_replicas:
            raise ValueError(f"rank must be in [0, {self.num_replicas}), got {self.rank}.")
        # Steps go through four stages: stored <= updated <= taken <= drawn. Each number is the first step not there.
        self._stored = self._updated = self._taken = self._next = 0
        self._drawn: collections.deque[tuple[np.ndarray, np.ndarray]] = collections.deque()  # of steps not yet updated
        self._waiting: collections.deque[tuple[np.ndarray, np.ndarray]] = collections.deque()  # updated, not yet stored
        self._epoch_end, self._restored = 0, False
        self._num_loops = 0

    def __iter__(self) -> Iterator[list[int]]:
        """Yields this rank's indices, batch after batch, to the end of an epoch.

        Raises:
            RuntimeError: losses are missing, see ``lag``, or another loop or :meth:`load_state_dict` came in between.
        """
        self._num_loops += 1
        loop, first = self._num_loops, self._taken
        if not (self._restored and first < self._epoch_end):
            self._epoch_end = first + self.num_batches
        self._restored = False
        for step in range(first, self._epoch_end):
            # The steps of an earlier loop are not those that batch() returns now.
            if loop != self._num_loops:
                raise RuntimeError("this loop cannot go on, since another one has begun or a state was loaded.")
            if step == self._next:
                self._draw()
            yield self._part(step).indices.tolist()

    def __len__(self) -> int:
        """Counts the batches of an epoch."""
        return self.num_batches

    def batch(self) -> HostBatch:
        """Returns the batch that the loader has handed out, the oldest one not returned before.

        Raises:
            RuntimeError: the loader has not asked for another batch.
        """
        if self._taken == self._next:
            raise RuntimeError(
                "no batch was drawn that was not returned yet: call batch() once for each of the loader's."
            )
        self._taken += 1
        return self._part(self._taken - 1)

    def update(self, step: int, losses: ArrayLike) -> None:
        """Takes the losses of a batch, which count from batch ``step + lag + 1`` on.

        Args:
            step: number of the batch, :attr:`HostBatch.step`. Steps come in order and none is left out.
            losses: ``[num_replicas * B]``, those of rank 0 first, or ``[num_replicas, B]``: the same on all ranks. An
                entry that is not finite leaves its example's loss as it was, with a warning as of
                :meth:`HostSampler.update`.

        Raises:
            ValueError: losses of another shape.
            RuntimeError: another step than the next one that :meth:`batch` has returned.

        Warns:
            RuntimeWarning: a loss is not finite; once for each sampler.
        """
        indices, in_draw_order = self._take(step, losses)
        self.sampler._warn_of_unseen(indices, in_draw_order)

    def keep(self, step: int) -> None:
        """Leaves the losses of a batch as they were; called in place of :meth:`update`, with its errors."""
        self._take(step, np.full(self.global_batch_size, np.nan))

    def _take(self, step, losses):
        """Lets losses wait until they count; returns the global batch's indices and losses in the order of the draw."""
        losses = np.asarray(losses, np.float32)
        if losses.shape not in ((self.global_batch_size,), (self.num_replicas, self.batch_size)):
            raise ValueError(
                f"losses must be those of all {self.num_replicas} ranks, of shape {(self.global_batch_size,)} or "
                f"{(self.num_replicas, self.batch_size)}, got {losses.shape}."
            )
        if as_size("step", step) != self._updated or step >= self._taken:
            raise RuntimeError(
                f"step {step} cannot be updated: batch() has returned the steps before {self._taken}, and the next "
                f"one to update is {self._updated}. Call update or keep once for each batch, in order."
            )
        # Back into the order of the draw, from which every rank took each num_replicas-th example.
        in_draw_order = losses.reshape(self.num_replicas, self.batch_size).T.reshape(-1)
        self._waiting.append((self._drawn.popleft()[0], in_draw_order))
        self._updated += 1
        return self._waiting[-1]

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the batches to come depend on, as of the last :meth:`update` or :meth:`keep`.

        The state of any rank serves all ranks, of any number with the same ``num_replicas * batch_size``. It holds
        integers and bytes, which ``torch.load`` takes with ``weights_only=True``.
        """
        rows = [*zip(*self._drawn, strict=True)] or [(), ()], [*zip(*self._waiting, strict=True)] or [(), ()]
        batches = [np.array(row).reshape(-1, self.global_batch_size) for pair in rows for row in pair]
        return {
            "seed": self.seed,
            "step": self._updated,
            "left_of_epoch": max(self._epoch_end - self._updated, 0),
            "arrays": _as_bytes([*batches, *_leaves(self.sampler.state)]),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state of :meth:`state_dict`: the next batch is the first one that had not been updated.

        Raises:
            TypeError: not a dictionary.
            ValueError: a dictionary that :meth:`state_dict` has not made, or a state of another number of examples or
                of another global batch size.
        """
        indices, weights, waiting, losses, *leaves = _arrays_of(state)
        if indices.shape[1] != self.global_batch_size:
            raise ValueError(
                f"the state is of batches of {indices.shape[1]} examples on all ranks together, and num_replicas * "
                f"batch_size is {self.global_batch_size}."
            )
        # First, because it raises the error where the state has another shape.
        self.sampler.state = _with_leaves(self.sampler.state, leaves)
        self.seed, self._updated = state["seed"], state["step"]
        self._drawn = collections.deque(zip(indices.astype(np.int32), weights.astype(np.float32), strict=True))
        self._waiting = collections.deque(zip(waiting.astype(np.int32), losses.astype(np.float32), strict=True))
        self._stored, self._next = self._updated - len(self._waiting), self._updated + len(self._drawn)
        # Batches that were read, but have no losses in the state, are read again.
        self._taken, self._epoch_end = self._updated, self._updated + state["left_of_epoch"]
        self._restored = True
        self._num_loops += 1

    def _draw(self):
        """Draws the next batch, with the losses of the batches before ``step - lag`` and no others."""
        step = self._next
        if self.sampler.n != self._n:
            raise RuntimeError(
                f"the sampler was made for {self._n} examples and has {self.sampler.n}: make a HostBatchSampler anew."
            )
        if self._updated < step - self.lag:
            raise RuntimeError(
                f"batch {step} needs the losses of batch {self._updated}, as lag is {self.lag}: call update or keep "
                "after each batch, and make lag at least num_workers * prefetch_factor of the loader."
            )
        while self._stored < step - self.lag:
            # Without the warning: update gave it, and keep means it so.
            self.sampler._update(*self._waiting.popleft())
            self._stored += 1
        # A key of the step's own, so that a resumed run needs no state of a generator.
        key = np.random.SeedSequence([self.seed, step]).generate_state(2)
        self._drawn.append(self.sampler.sample(key, self.global_batch_size))
        self._next += 1

    def _part(self, step: int) -> HostBatch:
        """Returns this rank's part of a batch that is not yet updated."""
        indices, weights = self._drawn[step - self._updated]
        # Every num_replicas-th example: without replacement, draws come first that are likely to be hard.
        mine = slice(self.rank, None, self.num_replicas)
        return HostBatch(step, indices[mine], weights[mine])


class HostIndexSampler:
    """Yields the indices of a :class:`HostBatchSampler` one by one, in the shape of PyTorch's samplers.

    For loaders that make the batches themselves: pass it to ``DataLoader`` as ``sampler``, with the ``batch_size`` of
    the batches. All else is done by the object that is given: the loop calls its ``batch`` and ``update``, and saves
    its state.

    Args:
        batches: draws the batches.

    Example:
        >>> from mixjax.samplers import HostBatchSampler, HostIndexSampler, HostSampler
        >>> batches = HostBatchSampler(HostSampler(100, 1.0, beta=2.0), batch_size=4, num_batches=2, lag=1)
        >>> indices = list(HostIndexSampler(batches))
        >>> len(indices), indices[:4] == batches.batch().indices.tolist()
        (8, True)
    """

    def __init__(self, batches: HostBatchSampler):
        """Takes the arguments that the class describes."""
        self.batches = batches

    def __iter__(self) -> Iterator[int]:
        """Yields this rank's indices to the end of an epoch."""
        for indices in self.batches:
            yield from indices

    def __len__(self) -> int:
        """Counts the examples of an epoch on this rank."""
        return len(self.batches) * self.batches.batch_size


def _leaves(state: SamplerState) -> list[np.ndarray]:
    """Lists the arrays of a sampler's state, those of one number per example first."""
    pairs = [level.pairs for level in (*state.sums, *state.prior_sums)]
    return [np.asarray(array) for array in (state.values, state.log_prior, *pairs)]


def _with_leaves(template: SamplerState, leaves: list[np.ndarray]) -> SamplerState:
    """Returns a state of the arrays that :func:`_leaves` lists, with as many sums as a template has."""
    values, log_prior, *pairs = leaves
    levels = [Level(array) for array in pairs]
    num = len(template.sums)
    arrays: Any = values, tuple(levels[:num]), log_prior, tuple(levels[num:])
    return SamplerState(*arrays)


def _as_bytes(arrays: list[np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, *arrays)
    return file.getvalue()


def _arrays_of(state: dict[str, Any]) -> list[np.ndarray]:
    """Reads the arrays of a loader's state: four of the batches under way, then the sampler's."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a dictionary that state_dict returned, got {type(state).__name__}.")
    missing = sorted({"seed", "step", "left_of_epoch", "arrays"} - set(state))
    if missing:
        raise ValueError(f"state must be a dictionary that state_dict returned, got one without {', '.join(missing)}.")
    try:
        arrays = _from_bytes(state["arrays"])
    except (TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"state must hold arrays that can be read, as state_dict writes them: {error}") from None
    if len(arrays) < 6 or any(array.ndim != 2 for array in arrays[:4]):
        raise ValueError(f"state must hold the arrays that state_dict writes, got {len(arrays)} of other shapes.")
    return arrays


def _from_bytes(data: bytes) -> list[np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return [file[name] for name in file.files]
