"""Reads the rows of batches in a process that :func:`mixjax.live.mix` has started, or in the main process."""

from __future__ import annotations

import atexit
import concurrent.futures.process  # noqa: F401 (registers its wait, see below)
import multiprocessing
import os
import pickle
import signal
import threading
import time
import weakref
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixjax.live.reading import read_batch

__all__ = ["Closing", "Reader", "open_in_worker", "read_in_worker"]

# A worker that reads has so long to come to an end, before it ends itself.
_SECONDS_TO_FINISH = 2.0


class Reader:
    """Reads rows of the data sets, which it finds by the number of their domain."""

    def __init__(self, datasets: dict[str, Any]):
        """Keeps the data sets, by name."""
        self._names, self._datasets = list(datasets), list(datasets.values())

    def read(self, domain_ids: NDArray[np.int32], rows: NDArray[np.int64]) -> Any:
        """Returns the rows of a batch stacked, as :func:`mixjax.live.reading.read_batch` does."""
        return read_batch(self._datasets, domain_ids, rows, self._names)


class Closing:
    """Tells workers that nobody wants their batches any more, also at the end of the program.

    A pool waits for its workers before the program ends. Where a worker never comes back from a data set, as from a
    disk that does not answer, neither Ctrl-C nor the end of the loop would end the program.

    Args:
        context: how the workers are started.
    """

    def __init__(self, context: BaseContext):
        """Opens a pipe, whose end at the main process says by being closed that it is time to end."""
        self.for_workers, self._here = context.Pipe(duplex=False)
        _OPEN.add(self)

    def tell(self) -> None:
        """Gives workers that read two seconds to finish."""
        self._here.close()


_OPEN: weakref.WeakSet[Closing] = weakref.WeakSet()


def _tell_all() -> None:
    for closing in list(_OPEN):
        closing.tell()


# Python waits for pools before it calls what ``atexit`` knows. What is registered here is called before that, the last
# one first: so this comes before the wait, which ``concurrent.futures.process`` registered when it was imported.
getattr(threading, "_register_atexit", atexit.register)(_tell_all)


# The data sets of a worker process, which are sent to it once.
_READER = Reader({})


def open_in_worker(datasets: Any, closing: Connection) -> None:
    """Starts a worker process: it keeps the data sets, leaves Ctrl-C to the main process, and ends with it.

    Args:
        datasets: data sets by name. They are sent as :class:`mixjax.live.sending.Sent`, and arrive as a dictionary.
        closing: a pipe that ends when nobody wants batches any more, see :class:`Closing`.
    """
    global _READER
    # Ctrl-C in a terminal reaches the workers too. What it means for the run is for the main process to say, which may
    # go on for a checkpoint, and needs no traceback of each worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.Thread(target=_end_when_told, args=(closing,), daemon=True).start()
    _READER = Reader(datasets)


def _end_with_parent() -> None:
    """Ends a worker when the main process is killed: the pool would leave it waiting for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _end_when_told(closing: Connection) -> None:
    """Ends a worker that nobody waits for, if it has not ended by itself: it may never come back from a data set."""
    # True as soon as the other end is closed.
    closing.poll(None)
    time.sleep(_SECONDS_TO_FINISH)
    os._exit(1)


def read_in_worker(domain_ids: NDArray[np.int32], rows: NDArray[np.int64]) -> Any:
    """Returns the rows of a batch stacked, in a worker process; raises errors only that can be sent back."""
    try:
        return _READER.read(domain_ids, rows)
    except Exception as error:
        # An error that cannot be sent, such as one whose class takes two arguments, would break the whole pool.
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(
                "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
            ) from error
        raise
