"""Computes the chunks of a sweep one after the other, and halves their size where memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from mixjax.stopping import check_preempted
from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.programs import Inputs, OutOfMemoryError, Program
from mixjax.sweeps.progress import Progress
from mixjax.sweeps.saving import Saver
from mixjax.sweeps.segments import History, Segments, num_calls

__all__ = ["Executor", "Finished"]

_LOG = logging.getLogger(__name__)


class Finished(NamedTuple):
    """Holds a chunk that has been computed.

    Args:
        first: the number of its first run.
        stop: the number behind its last one.
        metrics: name -> ``[runs, ...]``.
    """

    first: int
    stop: int
    metrics: dict[str, np.ndarray]


class Executor:
    """Computes chunks of a sweep.

    Args:
        prepared: the sweep.
        program: the compiled program to start with.
        may_halve: whether the chunks may become smaller where memory runs out.
        saver: keeps the carries of unfinished chunks, and returns those that an earlier call kept.
        progress: is told of every segment but a chunk's last one, after which the caller gets the whole chunk.
    """

    def __init__(self, prepared: Prepared, program: Program, *, may_halve: bool, saver: Saver, progress: Progress):
        """Copies the data to the devices."""
        self._prepared, self._program, self._may_halve = prepared, program, may_halve
        self._saver, self._progress = saver, progress
        self._data = program.place_data(prepared.data)

    @property
    def slots(self) -> int:
        """Returns the number of runs in a full chunk."""
        return self._program.slots

    def results(self, chunks: Iterable[tuple[int, int]]) -> Iterator[Finished]:
        """Computes chunks one by one.

        Args:
            chunks: for each the number of its first run, and the number behind its last one.

        Yields:
            Each chunk when it is done; in its place several smaller ones, once memory has run out.

        Raises:
            MemoryError: a chunk does not fit, and may not become smaller.
            Preempted: a signal has asked for the end, see :func:`mixjax.stopping.preemptible`.
        """
        for first, stop in chunks:
            while first < stop:
                # Chunks that are done have been handed over by now.
                check_preempted()
                end = min(first + self.slots, stop)
                try:
                    metrics = self._compute(first, end)
                except OutOfMemoryError as error:
                    self._halve(error)
                    continue
                yield Finished(first, end, metrics)
                first = end

    def _halve(self, error):
        """Replaces the program by one of half the slots, or raises if the chunks may not become smaller."""
        if not self._may_halve or self.slots <= self._prepared.least_slots:
            size = "one run" if self.slots == 1 else f"{self.slots} runs"
            raise MemoryError(f"no memory for a chunk of {size}: {error}") from error
        # The list of chunks is not cut anew: `results` computes each chunk in pieces of at most `slots` runs.
        half = self._prepared.halved(self.slots)
        _LOG.warning("no memory for a chunk of %d runs: going on with %d", self.slots, half)
        self._program = self._prepared.build(half)
        self._saver.shrink(self.slots)

    def _compute(self, first, end):
        program = self._program
        inputs = program.inputs(self._prepared.runs.part(first, end), self._data)
        train, num = self._prepared.train, end - first
        if isinstance(train, Segments):
            return self._compute_segments(train, inputs, first, num)
        return program.take(program.run(inputs), num)

    def _compute_segments(self, train: Segments, inputs: Inputs, first: int, num: int):
        """Computes a chunk of :class:`Segments`, from its last carry on disk if there is one."""
        program = self._program
        kept = self._saver.find_carry(first)
        # A carry of another number of runs was kept before a chunk was halved.
        if kept is not None and len(kept.arrays["done"]) != num:
            kept = None
        history = History(train, kept)
        carry = program.start(inputs) if kept is None else program.place_carry(kept.arrays)
        while not history.is_complete:
            parts = []
            for _ in range(num_calls(train)):
                carry, metrics = program.run(inputs._replace(state=carry))
                parts.append(program.take(metrics, num))
            ended = history.add({name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]})
            if train.finish is not None and ended.any():
                history.end(ended, program.take(program.finish(inputs._replace(state=carry), ended), num))
            # The caller reports and saves the whole chunk: after its last segment there is nothing to keep.
            if history.is_complete:
                break
            self._progress.segment(history.last, history.num_done)
            self._saver.add_carry(first, history.num_done, _kept(history, program, carry, num))
            check_preempted()
        return history.metrics()


def _kept(history: History, program: Program, carry, num: int) -> Callable[[], dict[str, Any]]:
    """Returns a function that names the arrays of an unfinished chunk; the saver calls it only if it saves."""
    return lambda: history.arrays() | program.carry_pieces(carry, num)
