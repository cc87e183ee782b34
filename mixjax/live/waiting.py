"""Finds out whether a thread that waits for weights waits in vain, by looking at what the other threads wait for."""

from __future__ import annotations

import queue
import sys
import threading
from types import FrameType
from typing import Literal

import grain

__all__ = ["Watch"]

# A busy machine may leave a thread standing for a look or two.
_LOOKS = 10

# The files of Thread.join, of Queue.get and of the locks below it.
_WAITING = (threading.Thread.join.__code__.co_filename, queue.Queue.get.__code__.co_filename)


class Watch:
    """Looks at the threads that read from an iterator, while another thread waits in the iterator's ``next``.

    A grain data set that prefetches (``ThreadPrefetchIterDataset``, ``device_put``) reads from its parent in a thread.
    To stop, it joins the thread, which does not end as long as the parent waits for weights. And where the loop forgot
    to publish weights, it waits for the thread's next element, which needs those weights.

    Args:
        source: the iterator in which a thread waits.
    """

    def __init__(self, source: grain.DatasetIterator):
        """Starts before the first look."""
        self._source = source
        self._before: dict[int, FrameType] = {}
        self._same = 0

    def look(self, publisher: int) -> Literal["unwanted", "stuck"] | None:
        """Tells whether nobody wants the next element any more, or whether the publisher itself waits for it.

        Args:
            publisher: the identity of the thread that publishes weights.

        Returns:
            ``"unwanted"`` where a reader joins its thread, which closing, setting a state and deleting do; ``"stuck"``
            where the publisher and all threads between it and the iterator have waited for its element for ten looks;
            else None.
        """
        standing: dict[int, FrameType] = {}
        is_stuck = True
        for thread, frame in sys._current_frames().items():
            if thread == threading.get_ident() or not self._is_reading(frame):
                continue
            call, caller = _waits_in(frame)
            if caller is None or not self._is_reader(caller):
                # The thread works on an element, for instance in a function that the user maps.
                is_stuck = False
            elif call == "join":
                return "unwanted"
            else:
                standing[thread] = caller
        # The same frames are the same calls: no thread has got an element since.
        self._same = self._same + 1 if standing == self._before else 0
        self._before = standing
        return "stuck" if is_stuck and publisher in standing and self._same >= _LOOKS else None

    def _is_reading(self, frame: FrameType | None) -> bool:
        """Tells whether a thread is inside a method of an iterator that reads from the source."""
        while frame is not None:
            if self._is_reader(frame):
                return True
            frame = frame.f_back
        return False

    def _is_reader(self, frame: FrameType) -> bool:
        iterator = frame.f_locals.get("self") if frame.f_code.co_varnames[:1] == ("self",) else None
        ancestors = [iterator] if isinstance(iterator, grain.DatasetIterator) else []
        while ancestors:
            iterator = ancestors.pop()
            if iterator is self._source:
                return True
            # grain has no public name for what an iterator reads from.
            ancestors += getattr(iterator, "_parents", ())
        return False


def _waits_in(frame: FrameType | None) -> tuple[str, FrameType | None]:
    """Returns the name of the waiting call that a thread is in, of a queue or a thread, and the frame that made it."""
    call = ""
    while frame is not None and frame.f_code.co_filename in _WAITING:
        call, frame = frame.f_code.co_name, frame.f_back
    return call, frame if call else None
