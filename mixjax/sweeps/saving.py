"""Decides when a sweep writes to its checkpoint folder."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from mixjax.stopping import is_preempted
from mixjax.sweeps.arrays import Pieces
from mixjax.sweeps.checkpoints import Chunks
from mixjax.sweeps.segments import Kept

__all__ = ["Pauses", "Saver", "pauses"]

_LOG = logging.getLogger(__name__)


class Pauses(NamedTuple):
    """Holds how long a sweep waits between two saves.

    A killed sweep loses the work since its last save: the work of one pause, or of one chunk (or segment) that takes
    longer than the pause.

    Args:
        share: the part of the time that saving may take. With a share of 0.01, a save of 6 ms is followed by a pause of
            0.6 s.
        longest: the most seconds between two saves, however long one takes. With the ten minutes of the default, saves
            of up to 6 s keep to their share.
    """

    share: float = 0.01
    longest: float = 600.0


# A context variable reaches sweeps that are started inside other functions, such as those of the runner.
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

    The first chunk is written at once, so that a folder that cannot be written shows early. A chunk that finishes
    during a pause waits, and is written together with the chunks that finish after it.

    Args:
        store: where to write; with None every method does nothing.
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
        """Takes a finished chunk, and writes all chunks that wait if a save is due.

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

    @contextlib.contextmanager
    def flushed(self) -> Iterator[None]:
        """Writes the chunks that wait at the end of a ``with`` block, however the block ends: by Ctrl-C too."""
        try:
            yield
        except BaseException:
            try:
                self.flush()
            except Exception:
                # The error that ended the block counts more.
                _LOG.warning("chunks that were waiting could not be saved", exc_info=True)
            raise
        self.flush()

    def add_carry(self, first: int, segments: int, arrays: Callable[[], Mapping[str, np.ndarray | Pieces]]) -> None:
        """Writes an unfinished chunk, if a save is due.

        Args:
            first: the number of the chunk's first run.
            segments: the number of segments that are done.
            arrays: makes the arrays to continue from; called only if a save is due, since it copies from the devices.
        """
        if self._store is not None and self._is_due():
            with self._timed():
                self._store.write_carry(first, segments, arrays())

    def find_carry(self, first: int) -> Kept | None:
        """Reads an unfinished chunk.

        Args:
            first: the number of the chunk's first run.

        Returns:
            The chunk as :meth:`add_carry` wrote it, or None where nothing was written.
        """
        return None if self._store is None else self._store.read_carry(first)

    def shrink(self, slots: int) -> None:
        """Writes down the number of runs in a chunk that fits, so that the next call of the sweep starts with it.

        Args:
            slots: the number of runs. The smallest number that any host has written down counts.
        """
        if self._store is not None:
            self._store.shrink(slots)

    def _is_due(self):
        # After a scheduler's signal there is no later occasion.
        if is_preempted():
            return True
        # Saving takes last_seconds of every pause: a part of the time that is at most the share.
        pause = min(self._last_seconds / self._waits.share, self._waits.longest)
        return self._clock() - self._last_end >= pause

    @contextlib.contextmanager
    def _timed(self):
        """Measures how long a save takes, which sets the pause after it."""
        start = self._clock()
        yield
        self._last_end = self._clock()
        self._last_seconds = self._last_end - start
