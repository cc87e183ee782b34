"""Turns sampling weights into examples: weights to counts, counts to domain ids, domain ids to example indices.

- Exact counts: :func:`allocate`, then :func:`counts_to_ids`.
- Random counts: :func:`systematic`, :func:`stratified` or :func:`multinomial`, which return domain ids at once.
- Examples of the domains: :func:`with_replacement` or :func:`without_replacement`.

Where every example has a weight of its own, :func:`hardness` and :func:`proportional` draw examples at once, in
O(log n), by a signal that is refreshed for the batch only. :class:`HostSampler` does so outside JAX, for data loaders.
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
from mixjax.samplers.scored.hardness import hardness, proportional
from mixjax.samplers.scored.history import AgedState, effective_sample_size, hardest, with_ages
from mixjax.samplers.scored.host import HostSampler
from mixjax.samplers.scored.switch import SwitchState, when_it_pays
from mixjax.samplers.scored.types import ExampleSampler, SamplerState

__all__ = [
    "AgedState",
    "EpochState",
    "ExampleSampler",
    "HostSampler",
    "Partition",
    "SamplerState",
    "SwitchState",
    "allocate",
    "counts_to_ids",
    "effective_sample_size",
    "hardest",
    "hardness",
    "multinomial",
    "partition",
    "proportional",
    "split",
    "start_epochs",
    "stratified",
    "systematic",
    "when_it_pays",
    "with_ages",
    "with_replacement",
    "without_replacement",
]
