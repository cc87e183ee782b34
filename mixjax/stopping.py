"""Lets a scheduler stop a long run: the first SIGTERM or SIGUSR1 saves at the next occasion, and ends."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["Preempted", "check_preempted", "is_preempted", "preemptible"]

_LOG = logging.getLogger(__name__)

# Windows has no SIGUSR1.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]

_received: signal.Signals | None = None

_is_noticed = False
"""Whether what has received the signal above has ended for it."""

_left: tuple[signal.Signals, float] | None = None
"""A signal that came when the last block had nothing left to stop, and when that block ended, in seconds."""

# A script goes from one block to the next in less. Later, the scheduler has let the process live, and who begins a
# block, as in a notebook, asks for something else.
_LEFT_SECONDS = 600.0

_before: dict[signal.Signals, Any] | None = None
"""The handlers that a block under way has replaced; None outside of blocks."""

# Each thread has a mask of its own, and any may fork.
_held = threading.local()


class Preempted(SystemExit):
    """Says that a signal has ended a run, after it was saved. A script that does not catch it ends with its code.

    Args:
        number: the signal.

    Attributes:
        number: the signal.
        code: 128 + its number, as shells have it: 143 for SIGTERM, 138 for SIGUSR1 on Linux.

    Example:
        >>> Preempted(signal.SIGTERM).code
        143
    """

    def __init__(self, number: signal.Signals):
        """Makes the exit code of the signal."""
        super().__init__(128 + number)
        self.number = number


@contextlib.contextmanager
def preemptible() -> Iterator[None]:
    """Lets signals of a scheduler stop the sweeps inside a ``with`` block when they have saved.

    The first SIGTERM or SIGUSR1 is noted. A sweep notices it between two calls of its program: it saves the finished
    chunks, and of :class:`mixjax.sweeps.Segments` the unfinished one, and raises :class:`Preempted`. A
    :class:`mixjax.sweeps.HostLoop` notices it in :func:`mixjax.sweeps.in_rounds`, or when it reports. A second SIGTERM
    ends the process at once, without saving. The command ``mixjax run`` does this itself.

    A signal that comes in the last chunk of a block's last sweep stops nothing, for then nothing is left to be saved:
    the sweep returns its result and the block ends as usual, so that ``mixjax run`` writes its figure and its report,
    and ends with 0. If another block begins within ten minutes, its first sweep that has something to compute stops
    before it does. Later blocks know nothing of the signal.

    In another thread than the main one nothing changes: Python handles signals in the main thread only. A signal that
    the process ignores stays ignored. A block inside another one changes nothing either: the outer one's goes on.
    Processes that are forked inside a block, such as workers of a loader, take signals as they did before it.

    Yields:
        Nothing.

    Example:
        >>> import mixjax
        >>> with preemptible():
        ...     result = mixjax.sweep(lambda key, hparams, data: {"x": 1.0}, seeds=2)
    """
    global _received, _is_noticed, _left, _before
    if _before is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # None is a handler that is not Python's, which could not be put back.
    ours = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    _before = {number: before[number] for number in ours}
    _received, _left, _is_noticed = _still_left(), None, False
    if _received is not None:
        _LOG.warning(
            "%s came in the block before: the first sweep that has something to compute will be stopped",
            _received.name,
        )
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # Python calls a handler between two of its own instructions, and a call of a compiled program may take minutes. The
    # number of a signal is in the pipe at once, and a thread reads it meanwhile.
    for number in ours:
        signal.signal(number, _nothing)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader, ours), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number in ours:
            signal.signal(number, before[number])
        _before = None
        # The end of the pipe ends the thread.
        os.close(writer)
        watcher.join()
        os.close(reader)
        if _received is not None and not _is_noticed:
            _left = _received, time.monotonic()
            _LOG.warning(
                "%s: nothing was left to stop; a sweep that begins within %g minutes will be stopped",
                _received.name,
                _LEFT_SECONDS / 60,
            )
        _received = None


def _still_left() -> signal.Signals | None:
    """Returns the signal that the last block has left, unless that was long ago."""
    if _left is None or time.monotonic() - _left[1] > _LEFT_SECONDS:
        return None
    return _left[0]


def _nothing(*_: Any) -> None:
    """Handles a signal that the pipe has told of already."""


def _hold() -> None:
    """Holds back signals while a process is forked: until its handlers are its own, they would be its parent's."""
    _held.mask = None if _before is None else signal.pthread_sigmask(signal.SIG_BLOCK, _before)


def _release() -> None:
    if _held.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _leave() -> None:
    """Puts a forked process's handlers back: the pipe is its parent's, who would take its signals for their own."""
    global _received, _left, _before
    if _before is not None:
        signal.set_wakeup_fd(-1)
        for number, handler in _before.items():
            # A handler that the code inside the block has installed meanwhile stays.
            if signal.getsignal(number) is _nothing:
                signal.signal(number, handler)
        _received = _before = None
    _left = None
    _release()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_leave)


def _watch(reader: int, ours: list[signal.Signals]) -> None:
    """Notes the first signal of those that come through a pipe, and ends the process at the second SIGTERM."""
    global _received
    # One that was left by the block before is the first.
    num_terms = int(_received == signal.SIGTERM)
    while byte := os.read(reader, 1):
        # The pipe has all signals that Python handles, such as Ctrl-C.
        if byte[0] not in ours:
            continue
        number = signal.Signals(byte[0])
        num_terms += number == signal.SIGTERM
        if num_terms > 1:
            os._exit(128 + number)
        if _received is None:
            _received = number
            _LOG.warning("%s: saving as soon as the call under way returns; a second SIGTERM ends at once", number.name)


def is_preempted() -> bool:
    """Tells whether a signal has asked for the end inside a :func:`preemptible` block."""
    return _received is not None


def check_preempted() -> None:
    """Ends the run if a signal has asked for it; call it where everything is saved.

    Raises:
        Preempted: a signal has asked for it.
    """
    global _is_noticed
    if _received is not None:
        _is_noticed = True
        raise Preempted(_received)
