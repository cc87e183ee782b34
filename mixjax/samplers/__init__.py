"""Turns sampling weights into examples: weights to counts, counts to domain ids, domain ids to example indices.

- Exact counts: :func:`allocate`, which gives every domain a row in each batch, or :func:`carry`, whose counts add up
  to the weights over many batches; then :func:`counts_to_ids`.
- Random counts: :func:`systematic`, :func:`stratified` or :func:`multinomial`, which return domain ids at once.
- Examples of the domains: :func:`with_replacement` or :func:`without_replacement`.

Where every example has a weight of its own, :func:`hardness` and :func:`proportional` draw examples at once, in
O(log n), by a signal that is refreshed for the batch only. :class:`HostSampler` does so outside JAX, and
:class:`HostBatchSampler` offers its batches to data loaders such as PyTorch's.

Each function is imported when it is first named: :class:`HostSampler` can be used in a process that never loads JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

# Type checkers and editors do not run __getattr__ below; this tells them what it loads.
if TYPE_CHECKING:
    from mixjax.samplers.allocation import allocate, counts_to_ids
    from mixjax.samplers.carried import CarryState, carry, start_carry
    from mixjax.samplers.draws import multinomial, stratified, systematic
    from mixjax.samplers.examples import (
        EpochState,
        Partition,
        extend_epochs,
        partition,
        split,
        start_epochs,
        with_replacement,
        without_replacement,
    )
    from mixjax.samplers.scored.hardness import hardness, proportional
    from mixjax.samplers.scored.history import AgedState, effective_sample_size, hardest, with_ages
    from mixjax.samplers.scored.host import HostSampler
    from mixjax.samplers.scored.loaders import HostBatch, HostBatchSampler, HostIndexSampler
    from mixjax.samplers.scored.switch import SwitchState, when_it_pays
    from mixjax.samplers.scored.types import ExampleSampler, SamplerState

__all__ = [
    "AgedState",
    "CarryState",
    "EpochState",
    "ExampleSampler",
    "HostBatch",
    "HostBatchSampler",
    "HostIndexSampler",
    "HostSampler",
    "Partition",
    "SamplerState",
    "SwitchState",
    "allocate",
    "carry",
    "counts_to_ids",
    "effective_sample_size",
    "extend_epochs",
    "hardest",
    "hardness",
    "multinomial",
    "partition",
    "proportional",
    "split",
    "start_carry",
    "start_epochs",
    "stratified",
    "systematic",
    "when_it_pays",
    "with_ages",
    "with_replacement",
    "without_replacement",
]

_HOMES = {
    "AgedState": "scored.history",
    "CarryState": "carried",
    "EpochState": "examples",
    "ExampleSampler": "scored.types",
    "HostBatch": "scored.loaders",
    "HostBatchSampler": "scored.loaders",
    "HostIndexSampler": "scored.loaders",
    "HostSampler": "scored.host",
    "Partition": "examples",
    "SamplerState": "scored.types",
    "SwitchState": "scored.switch",
    "allocate": "allocation",
    "carry": "carried",
    "counts_to_ids": "allocation",
    "effective_sample_size": "scored.history",
    "extend_epochs": "examples",
    "hardest": "scored.history",
    "hardness": "scored.hardness",
    "multinomial": "draws",
    "partition": "examples",
    "proportional": "scored.hardness",
    "split": "examples",
    "start_carry": "carried",
    "start_epochs": "examples",
    "stratified": "draws",
    "systematic": "draws",
    "when_it_pays": "scored.switch",
    "with_ages": "scored.history",
    "with_replacement": "examples",
    "without_replacement": "examples",
}
_MODULES = ("allocation", "carried", "draws", "examples", "host_carried", "inverse_cdf", "scored")


def __getattr__(name: str) -> Any:
    """Imports a function, a class or a module of the package when it is first named."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        # Kept, so that the next access is an ordinary one.
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
