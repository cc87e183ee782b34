"""Cuts a file of tokens into rows of one length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixjax.live.arguments import check_integer

__all__ = ["windows"]


def windows(tokens: NDArray, length: int, overlap: int = 0) -> NDArray:
    r"""Views a flat array of tokens as rows of consecutive tokens.

    Row ``r`` is ``tokens[r * length : (r + 1) * length + overlap]``. Nothing is copied: the rows of an ``np.memmap``
    are read when they are drawn. Documents that were written one after the other are cut wherever a row ends, and a
    row may hold the end of one and the start of the next.

    Tokens at the end that fill no row, fewer than ``length + overlap`` of them, are never drawn.

    Args:
        tokens: ``[n]``, the tokens of one domain, usually ``np.memmap(path, np.uint16, "r")``.
        length: ``T``, tokens from one row's start to the next one's, at least 1.
        overlap: tokens of the next row that a row repeats. With 1, inputs are ``row[:-1]`` and targets ``row[1:]``, and
            every token but the first is a target once.

    Returns:
        A read-only view ``[rows, T + overlap]``, which :func:`mixjax.live.mix` takes as a data set.

    Raises:
        ValueError: tokens that are not one flat array or fill no row, or a number out of range.

    Example:
        >>> import numpy as np
        >>> from mixjax.live import windows
        >>> windows(np.arange(10), 3, overlap=1).tolist()
        [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    """
    check_integer("length", length, 1)
    check_integer("overlap", overlap, 0)
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 1:
        raise ValueError(f"tokens must be a flat array [n], got {getattr(tokens, 'shape', type(tokens).__name__)}.")
    if tokens.size < length + overlap:
        raise ValueError(f"tokens must fill a row of {length + overlap}, got {tokens.size} of them.")
    return np.lib.stride_tricks.sliding_window_view(tokens, length + overlap)[::length]
