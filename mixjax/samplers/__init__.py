"""From sampling weights to examples: weights to counts, to domain ids, to example indices.

Exact counts: :func:`allocate`, then :func:`counts_to_ids`. Random counts: :func:`systematic`, :func:`stratified` or
:func:`multinomial`, which go to domain ids at once. Then, within each domain, :func:`with_replacement` or
:func:`without_replacement` go to indices of examples.
"""

from mixjax.samplers.allocation import allocate, counts_to_ids
from mixjax.samplers.draws import multinomial, stratified, systematic
from mixjax.samplers.examples import (
    EpochState,
    Partition,
    partition,
    split,
    start_epochs,
    with_replacement,
    without_replacement,
)

__all__ = [
    "EpochState",
    "Partition",
    "allocate",
    "counts_to_ids",
    "multinomial",
    "partition",
    "split",
    "start_epochs",
    "stratified",
    "systematic",
    "with_replacement",
    "without_replacement",
]
