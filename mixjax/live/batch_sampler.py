"""Offers a plan to loaders that ask for lists of indices, such as PyTorch's ``DataLoader``."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import numpy as np

from mixjax.live.batch import Batch
from mixjax.live.plan import Plan

__all__ = ["BatchSampler"]


class BatchSampler:
    """Yields the rows of each batch as indices into the concatenated domains.

    It has the shape of PyTorch's batch samplers, and does not import PyTorch: pass it to ``DataLoader`` as
    ``batch_sampler``, with the ``ConcatDataset`` of the domains in the plan's order. The loader asks for
    ``num_workers * prefetch_factor`` batches ahead, in the process and the thread of the loop, so the plan's lag has to
    be larger than that.

    The loader hands out values only. The rest of a batch (its step, domain ids and row weights) comes from
    :meth:`batch`, called once for each batch that the loader hands out. The state to save is the plan's,
    :meth:`mixjax.live.Plan.get_state`, whatever the loader has asked for ahead.

    Args:
        plan: says which rows to read.

    Example:
        >>> from mixjax.live import BatchSampler, Plan
        >>> plan = Plan({"web": 100, "code": 10}, batch_size=4, weights=[0.5, 0.5], lag=2)
        >>> sampler = BatchSampler(plan)
        >>> indices = next(iter(sampler))           # what the loader does
        >>> sum(index >= 100 for index in indices)
        2
        >>> batch = sampler.batch()                 # what the loop does
        >>> batch.step, batch.domain_ids.tolist()
        (0, [0, 0, 1, 1])
        >>> plan.keep(batch.step)
    """

    def __init__(self, plan: Plan):
        """Starts at the plan's step."""
        self._plan = plan
        sizes = np.array(list(plan.sizes.values()), np.int64)
        self._starts = np.cumsum(sizes) - sizes
        self._drawn: collections.deque[Batch] = collections.deque()
        self._restored = plan.num_restored

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the indices of batch after batch, from the first that no earlier loop took by :meth:`batch`."""
        if self._drawn and self._restored == self._plan.num_restored:
            self._plan.take_back(self._drawn[0])
        self._drawn.clear()
        self._restored = self._plan.num_restored
        for batch in self._plan:
            self._drawn.append(batch)
            yield (self._starts[batch.domain_ids] + batch.rows).tolist()

    def __len__(self) -> int:
        """Counts the batches of the whole run.

        Raises:
            TypeError: the plan has no budget, and so no end, or its budget is a number of tokens.
        """
        if self._plan.budget is None:
            raise TypeError("the plan has no end: give Plan a budget, or do not ask for the number of batches.")
        if self._plan.token_totals is not None:
            raise TypeError("the plan's budget is in tokens: how many batches it holds is known when they are drawn.")
        return self._plan.budget // self._plan.batch_size

    def batch(self) -> Batch:
        """Returns the batch whose values the loader has handed out, the oldest one not returned before.

        Raises:
            RuntimeError: the loader has not asked for another batch.
        """
        if not self._drawn:
            raise RuntimeError(
                "no batch was drawn that was not returned yet: call batch() once for each of the loader's."
            )
        return self._drawn.popleft()
