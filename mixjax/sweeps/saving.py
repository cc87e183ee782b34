"""Decides when a sweep writes to its checkpoint folder."""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from mixjax.sweeps.checkpoints import Chunks

__all__ = ["Pauses", "Saver", "pauses"]


class Pauses(NamedTuple):
    """Holds how long a sweep waits between two saves.

    A kill costs the work since the last save: what the pause took, or the chunk at work where that takes longer.

    Args:
        share: the part of the time that saving may take. After a save of 6 ms, a share of 0.01 waits 0.6 s.
        longest: the most seconds between two saves, however long one takes.
    """

    share: float = 0.01
    longest: float = 60.0


_DEFAULT = Pauses()
_PAUSES = contextvars.ContextVar("pauses", default=_DEFAULT)


@contextlib.contextmanager
def pauses(*, share: float | None = None, longest: float | None = None) -> Iterator[None]:
    """Sets how long the sweeps started inside a ``with`` block wait between two saves.

    Args:
        share: the part of the time that saving may take, above 0; None leaves it as it is.
        longest: the most seconds between two saves; 0 saves after each chunk and each segment, None leaves it.

    Yields:
        Nothing.

    Example:
        >>> with pauses(longest=0.0):
        ...     pass   # mixjax.sweep(train, seeds=100, checkpoint=folder) would save after each chunk
    """
    before = _PAUSES.get()
    token = _PAUSES.set(
        Pauses(
            share=before.share if share is None else share,
            longest=before.longest if longest is None else longest,
        )
    )
    try:
        yield
    finally:
        _PAUSES.reset(token)


class Saver:
    """Writes finished chunks, and carries of unfinished ones, to a store.

    The first chunk is written at once, so that a folder that cannot be written shows early. Chunks that come faster
    than saves may follow each other wait, and are written together.

    Args:
        store: where to write; None keeps nothing, and every method then does nothing.
        waits: how long to wait between two saves; the default is what :func:`pauses` has set.
        clock: returns seconds.
    """

    def __init__(
        self,
        store: Chunks | None,
        waits: Pauses | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Starts with nothing to write."""
        self._store, self._waits, self._clock = store, waits or _PAUSES.get(), clock
        self._unsaved: dict[int, Mapping[str, np.ndarray]] = {}
        # Both 0: the first save is due at once.
        self._last_end, self._last_seconds = 0.0, 0.0

    def add(self, first: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Takes over a finished chunk, and writes it, with those that wait, if a save is due.

        Args:
            first: the number of the chunk's first run.
            metrics: name to ``[runs, ...]``.
        """
        if self._store is None:
            return
        self._unsaved[first] = metrics
        if self._is_due():
            self.flush()

    def flush(self) -> None:
        """Writes the chunks that wait."""
        if self._store is not None and self._unsaved:
            with self._timed():
                self._store.write(self._unsaved)
            # Only after the write: if it raises, the chunks are still there.
            self._unsaved = {}

    def add_carry(self, first: int, segments: int, arrays: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Writes an unfinished chunk, if a save is due.

        Args:
            first: the number of the chunk's first run.
            segments: the number of segments that are done.
            arrays: makes what is needed to go on; called only if a save is due, since it copies from the devices.
        """
        if self._store is not None and self._is_due():
            with self._timed():
                self._store.write_carry(first, segments, arrays())

    def find_carry(self, first: int) -> tuple[int, dict[str, np.ndarray]] | None:
        """Reads an unfinished chunk.

        Args:
            first: the number of the chunk's first run.

        Returns:
            The number of segments that are done and the arrays to go on from, or None where there are none.
        """
        return None if self._store is None else self._store.read_carry(first)

    def shrink(self, slots: int) -> None:
        """Writes down the size of a chunk that fits, so that the next call of the sweep starts with it.

        Args:
            slots: the size. Of several hosts, the smallest size that any of them found counts.
        """
        if self._store is not None:
            self._store.chunk_size = min(self._store.chunk_size or slots, slots)

    def _is_due(self):
        pause = min(self._last_seconds / self._waits.share, self._waits.longest)
        return self._clock() - self._last_end >= pause

    @contextlib.contextmanager
    def _timed(self):
        """Measures a save, since its time sets the pause after it."""
        start = self._clock()
        yield
        self._last_end = self._clock()
        self._last_seconds = self._last_end - start
