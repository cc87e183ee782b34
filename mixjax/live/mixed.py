"""Reads the batches of a plan as a grain data set, in this process or in others."""

from __future__ import annotations

import collections
import concurrent.futures
import multiprocessing
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import grain

from mixjax.live.arguments import check_integer, check_plan
from mixjax.live.batch import Batch
from mixjax.live.datasets import as_named, check_alike, sizes_of
from mixjax.live.plan import Plan
from mixjax.live.sending import Sent
from mixjax.live.waiting import Watch
from mixjax.live.workers import Closing, Reader, open_in_worker, read_in_worker

__all__ = ["MixDataset", "mix"]


def mix(
    datasets: Mapping[str, Any] | Sequence[Any], plan: Plan, workers: int = 0, prefetch: int | None = None
) -> MixDataset:
    """Makes the grain data set of a plan's batches.

    An element is a dictionary: the fields of :class:`mixjax.live.Batch` by name, and ``"value"``, the rows of the batch
    stacked. Go on with ``.map`` and with prefetching to the device. Work on single rows belongs into the data sets'
    own ``.map``, which runs in the workers.

    The plan stays in this process, where the weights are published. Workers are processes that get whole batches of
    (domain, row) and return them in order. They only get batches whose weights are known, so none of them waits. For
    the same reason grain's own ``.mp_prefetch`` after the mix is refused: it would send the plan into each worker,
    where no publication reaches it.

    Workers end with the loop and with the program. One that never comes back from a data set, as from a disk that does
    not answer, is ended two seconds later.

    Workers import the main script again, so a script that uses them needs ``if __name__ == "__main__":``. They help
    where rows are decoded or come from a slow disk. Arrays in memory are read faster without them, since a batch's way
    back from a worker costs more than reading it.

    Args:
        datasets: one data set a domain, in the plan's order or by the plan's names: ``grain.MapDataset``, arrays,
            memory maps, trees of arrays, or anything with ``len`` and ``[]``. The rows of all have the same entries,
            shapes and types, since a batch stacks them. Arrays are read on a path of their own, without a call
            per row, and so are data sets with ``read_rows(rows)``, which takes int64 ``[b]`` and returns the rows
            stacked. Workers open the files of memory maps themselves.
        plan: says what to read. It has one live iterator at a time.
        workers: number of processes; 0 reads in this one.
        prefetch: batches that workers read ahead, at most; twice the number of workers if left out. The plan's lag
            bounds it too.

    Returns:
        A ``grain.IterDataset``. ``get_state`` of its iterator is :meth:`mixjax.live.Plan.get_state`, whatever was read
        ahead. A new iterator goes on after the last element that was handed out. So does an iterator after an error of
        a data set, by reading the same batch again. Where a thread read ahead (``ThreadPrefetchIterDataset``,
        ``device_put``), set the plan back before a new iterator: ``plan.set_state(feedback.get_state())``.

    Raises:
        ValueError: data sets that do not fit the plan's domains or sizes, or a number out of range.
        TypeError: another type of ``datasets`` or ``plan``.

    Example:
        >>> import numpy as np
        >>> from mixjax.live import Plan, mix, sizes_of
        >>> datasets = {"a": np.arange(10), "b": np.arange(100, 105)}
        >>> plan = Plan(sizes_of(datasets), batch_size=4, weights=[0.5, 0.5], lag=1)
        >>> for element in mix(datasets, plan):
        ...     print(element["step"], np.sum(element["value"] >= 100))
        ...     plan.publish(element["step"], [0.25, 0.75])
        ...     if element["step"] == 1:
        ...         break
        0 2
        1 3
    """
    check_plan(plan)
    named = as_named(datasets)
    sizes = sizes_of(named)
    if sizes != plan.sizes or list(sizes) != list(plan.sizes):
        raise ValueError(f"the data sets have the sizes {sizes}, and the plan was made for {plan.sizes}.")
    check_alike(named)
    check_integer("workers", workers, 0)
    if prefetch is not None:
        check_integer("prefetch", prefetch, 0)
    return MixDataset(named, plan, workers, 2 * workers if prefetch is None else prefetch)


class MixDataset(grain.IterDataset):
    """Iterates over the batches of a plan; :func:`mix` makes it."""

    def __init__(self, datasets: dict[str, Any], plan: Plan, workers: int, prefetch: int):
        """Keeps the arguments; nothing is read before the first element is asked for."""
        super().__init__()
        self._datasets, self._plan, self._workers, self._ahead = datasets, plan, workers, prefetch
        self._iterator: weakref.ref | None = None

    def __iter__(self) -> _MixIterator:
        """Starts reading.

        Raises:
            RuntimeError: an iterator over this plan has not been closed, or a thread read steps ahead of which nobody
                knows whether they were trained.
        """
        _claim(self._plan)
        iterator = _MixIterator(self._datasets, self._plan, self._workers, self._ahead)
        _LIVE[self._plan] = weakref.ref(iterator)
        return iterator

    def mp_prefetch(self, *arguments: Any, **named: Any):
        """Refuses to be read by other processes, which would each have a plan of their own.

        Raises:
            TypeError: always.
        """
        raise TypeError(_WORKERS)

    def __reduce__(self):
        """Refuses to be pickled, which would copy the plan."""
        raise TypeError(_WORKERS)


_WORKERS = (
    "a live mix cannot be sent to another process, since its plan would not hear of new weights there: in place of "
    ".mp_prefetch after the mix use mixjax.live.mix(datasets, plan, workers=...)."
)

_LIVE: weakref.WeakKeyDictionary[Plan, weakref.ref] = weakref.WeakKeyDictionary()

# Plans from which a thread read that did not make the iterator, with what num_restored was.
_READ_BY_THREAD: weakref.WeakKeyDictionary[Plan, int] = weakref.WeakKeyDictionary()


def _claim(plan: Plan) -> None:
    """Checks that nobody else draws from the plan, and that it stands where the loop before it ended."""
    before = _LIVE[plan]() if plan in _LIVE else None
    if before is not None and not before.is_closed:
        raise RuntimeError("the plan has a live iterator: close() it, or give the other loop a plan of its own.")
    if _READ_BY_THREAD.get(plan) == plan.num_restored and plan.step > plan.next_to_publish:
        raise RuntimeError(
            f"a thread read ahead to step {plan.step - 1}, and steps are published up to {plan.next_to_publish - 1}: "
            "go back to the step after the last one trained by plan.set_state(feedback.get_state()), or "
            "plan.set_state(plan.get_state()) without a Feedback."
        )


class _MixIterator(grain.DatasetIterator):
    """Hands out the batches of a plan in order, while workers read the next ones."""

    def __init__(self, datasets: dict[str, Any], plan: Plan, workers: int, prefetch: int):
        super().__init__()
        self._reader, self._plan, self._prefetch = Reader(datasets), plan, max(prefetch, workers)
        self._pending: collections.deque[tuple[Batch, concurrent.futures.Future]] = collections.deque()
        self._restored = plan.num_restored
        self._thread = threading.get_ident()
        self._pool = None
        if workers:
            # Forked processes would inherit JAX's threads and locks in whatever state they are.
            context = multiprocessing.get_context("spawn")
            self._closing = Closing(context)
            self._pool = concurrent.futures.ProcessPoolExecutor(
                workers,
                mp_context=context,
                initializer=open_in_worker,
                initargs=(Sent(datasets), self._closing.for_workers),
            )
        self.is_closed = False

    def __next__(self) -> dict[str, Any]:
        self._assert_not_closed()
        if threading.get_ident() != self._thread:
            _READ_BY_THREAD[self._plan] = self._plan.num_restored
        if self._pool is None:
            batch = self._draw()
            try:
                return _element(batch, self._reader.read(batch.domain_ids, batch.rows))
            except BaseException:
                self._plan.take_back(batch)
                raise
        # The plan may have been set back by its own set_state.
        if self._restored != self._plan.num_restored:
            self._drop_pending()
            self._restored = self._plan.num_restored
        self._submit()
        batch, reading = self._pending[0]
        try:
            value = reading.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            self._take_back()
            raise _died(batch) from error
        except Exception:
            self._take_back()
            raise
        self._pending.popleft()
        # The next ones are read while this one is used.
        self._submit(only_known=True)
        return _element(batch, value)

    def _submit(self, only_known: bool = False) -> None:
        """Sends batches to the workers as long as their weights are known; waits for the first one if there is none."""
        while len(self._pending) < self._prefetch and (self._plan.is_known() or not (self._pending or only_known)):
            try:
                batch = self._draw()
            except StopIteration:
                if self._pending or only_known:
                    return
                raise
            assert self._pool is not None
            try:
                reading = self._pool.submit(read_in_worker, batch.domain_ids, batch.rows)
            except concurrent.futures.process.BrokenProcessPool as error:
                self._plan.take_back(batch)
                # Batches that were read before are handed out first.
                if self._pending or only_known:
                    return
                raise _died(batch) from error
            except Exception:
                # The data sets cannot be sent.
                self._plan.take_back(batch)
                raise
            self._pending.append((batch, reading))

    def _draw(self) -> Batch:
        """Draws a batch; stops waiting for its weights where that is in vain."""
        watch = Watch(self)

        def while_waiting(publisher):
            # At the end of the program threads are waited for that are no daemons.
            is_over = self.is_closed or not threading.main_thread().is_alive()
            return "unwanted" if is_over else watch.look(publisher)

        return self._plan.draw(while_waiting)

    def get_state(self) -> dict[str, Any]:
        return self._plan.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._drop_pending()
        self._plan.set_state(state)

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._take_back()
        if self._pool is not None:
            self._closing.tell()
            self._pool.shutdown(wait=True, cancel_futures=True)
        super().close()

    def __del__(self):
        # A loop that breaks off leaves no process behind.
        if not getattr(self, "is_closed", True) and self._pool is not None:
            self._take_back()
            self._closing.tell()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _take_back(self):
        """Gives batches that were read ahead back to the plan, for the next reader."""
        if self._pending and self._restored == self._plan.num_restored:
            self._plan.take_back(self._pending[0][0])
        self._drop_pending()

    def _drop_pending(self):
        for _, reading in self._pending:
            reading.cancel()
        self._pending.clear()


def _died(batch: Batch) -> RuntimeError:
    return RuntimeError(
        f"a worker of the mix died while step {batch.step} was read: it was killed, ran out of memory, or could not "
        "start (see above; the script has to be a file with `if __name__ == '__main__':`). A new iterator over the mix "
        "goes on with this step."
    )


def _element(batch: Batch, value: Any) -> dict[str, Any]:
    return batch._asdict() | {"value": value}
