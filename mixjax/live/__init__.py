"""Mixes domains by weights that move while a model trains.

A training loop needs the first three:

- :class:`Plan` says which rows the next batches hold. Every host computes the same plan from a small NumPy state, which
  can be saved as JSON beside the parameters. :func:`sizes_of` counts the examples of data sets for it.
- :func:`mix` reads the plan's batches from the data sets, as a grain data set (extra ``live``). Its elements have the
  fields of :class:`Batch`.
- ``plan.publish(step, weights)`` moves the weights after a step, ``plan.keep(step)`` leaves them. :class:`Feedback`
  publishes arrays that the device is still computing.

Beside them:

- :class:`Ledger` writes down what was drawn; :func:`read_ledger` reads it (with xarray).
- :func:`windows` cuts a file of tokens into rows. :func:`pack` and :class:`PackedRows` make rows of whole documents.
  :class:`Shards` joins the files of a domain.
- :class:`PackedMix` makes rows of documents after they were mixed, with weaker promises (grain too).
- :class:`BatchSampler` offers a plan's batches to loaders that ask for lists of indices, such as PyTorch's.

The package loads no JAX. It loads grain when :func:`mix` or :class:`PackedMix` is first named.
"""

from typing import TYPE_CHECKING, Any

from mixjax.extras import install_command
from mixjax.live.batch import Batch
from mixjax.live.batch_sampler import BatchSampler
from mixjax.live.datasets import sizes_of
from mixjax.live.feedback import Feedback
from mixjax.live.ledger import Ledger
from mixjax.live.ledger_reading import read_ledger
from mixjax.live.packed_rows import PackedRows
from mixjax.live.packing import Packing, pack
from mixjax.live.plan import Plan
from mixjax.live.shards import Shards
from mixjax.live.windows import windows

# Type checkers and editors do not run __getattr__ below; this tells them what it loads.
if TYPE_CHECKING:
    from mixjax.live.mixed import MixDataset, mix
    from mixjax.live.packed_mix import PackedMix

__all__ = [
    "Batch",
    "BatchSampler",
    "Feedback",
    "Ledger",
    "MixDataset",
    "PackedMix",
    "PackedRows",
    "Packing",
    "Plan",
    "Shards",
    "mix",
    "pack",
    "read_ledger",
    "sizes_of",
    "windows",
]


def __getattr__(name: str) -> Any:
    """Loads the part that needs grain when it is first named."""
    if name not in ("MixDataset", "PackedMix", "mix"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from mixjax.live import mixed, packed_mix
    except ModuleNotFoundError as error:
        command = install_command("live", str(error.name))
        raise ImportError(f"mixjax.live.{name} needs {error.name}: {command}") from error
    return getattr(packed_mix if name == "PackedMix" else mixed, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
