"""Reads the rows of batches in a process that :func:`mixjax.live.mix` has started, or in the main process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixjax.live.reading import read_batch

__all__ = ["Reader", "open_in_worker", "read_in_worker"]


class Reader:
    """Reads rows of the data sets, which it finds by the number of their domain."""

    def __init__(self, datasets: dict[str, Any]):
        """Keeps the data sets, by name."""
        self._names, self._datasets = list(datasets), list(datasets.values())

    def read(self, domain_ids: NDArray[np.int32], rows: NDArray[np.int64]) -> Any:
        """Returns the rows of a batch stacked, as :func:`mixjax.live.reading.read_batch` does."""
        return read_batch(self._datasets, domain_ids, rows, self._names)


# The data sets of a worker process, which are sent to it once.
_READER = Reader({})


def open_in_worker(datasets: Any) -> None:
    """Starts a worker process: it keeps the data sets, leaves Ctrl-C to the main process, and ends with it.

    Args:
        datasets: data sets by name. They are sent as :class:`mixjax.live.sending.Sent`, and arrive as a dictionary.
    """
    global _READER
    # Ctrl-C in a terminal reaches the workers too. What it means for the run is for the main process to say, which may
    # go on for a checkpoint, and needs no traceback of each worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _READER = Reader(datasets)


def _end_with_parent() -> None:
    """Ends a worker when the main process is killed: the pool would leave it waiting for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
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
