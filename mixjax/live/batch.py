"""Names what one batch of a plan holds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch"]


class Batch(NamedTuple):
    """Holds what one host reads in one step, and what all hosts together do.

    Attributes:
        step: the step's number, from 0 on.
        domain_ids: int32 ``[B / hosts]``, the domain of each row of this host, in ascending order.
        rows: int64 ``[B / hosts]``, the example of its domain that each row is.
        row_weights: float32 ``[B / hosts]``, the factor of each row's loss. Multiply and sum, over all hosts. In a plan
            that counts tokens it is the factor of the row's *mean* loss over its tokens.
        counts: int32 ``[D]``, rows of each domain in the batch of all hosts.
        weights: float32 ``[D]``, the sampling weights in force, after limits: shares of rows, or of tokens in a plan
            that counts those.
        asked: float32 ``[D]``, the sampling weights that were published for this step, before limits.
        events: what happened in this step beside drawing, as dictionaries that the ledger writes down. They come
            out of ``jax.device_put`` as they are, and a jitted function may be given a batch that has some.
        tokens: int64 ``[D]``, tokens of each domain in the batch of all hosts; None in a plan that counts rows.
        lengths: int32 ``[B / hosts]``, tokens of each row of this host; None in a plan that counts rows.
    """

    step: int
    domain_ids: NDArray[np.int32]
    rows: NDArray[np.int64]
    row_weights: NDArray[np.float32]
    counts: NDArray[np.int32]
    weights: NDArray[np.float32]
    asked: NDArray[np.float32]
    events: tuple[dict[str, Any], ...] = ()
    tokens: NDArray[np.int64] | None = None
    lengths: NDArray[np.int32] | None = None
