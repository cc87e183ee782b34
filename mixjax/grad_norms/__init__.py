r"""Computes exact norms of per-example gradients, the signal of resampling by the size of the gradient.

================================== =================================== ==========================================
function                           use it for                          cost beside the mean gradient's
================================== =================================== ==========================================
:func:`linear`                     generalised linear models           none: no gradient is formed
:func:`nnx.value_grads_and_norms`  modules of flax, as they are        a product per layer, from the same backward pass
:func:`value_grads_and_norms`      networks written on a :class:`Tape` a product per layer, from the same backward pass
:func:`last_layer`                 the last layer's part of the norm   a forward pass and a product in its place
:func:`per_example`                any loss                            a gradient per example, in time and memory
================================== =================================== ==========================================

:func:`by_domain` turns the norms into the signal ``grad_norms`` of :func:`mixjax.rules.gradient_norm`. All norms are
float32 ``[B]``:

- They are scaled, so that neither tiny nor huge gradients are lost to their squares.
- A norm is exactly 0 where the gradient is, or where all its entries are below the normal floats.
- A norm is not finite where the gradient is not, so that the caller can leave such an example out.
- They come from arithmetic on gradients, never from differentiating a norm. No gradient flows through them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mixjax.grad_norms.ghost import value_grads_and_norms
from mixjax.grad_norms.norms import by_domain, last_layer, linear, norm, per_example
from mixjax.grad_norms.tape import Parameter, Tape

# Type checkers and editors do not run __getattr__ below; this tells them what it loads.
if TYPE_CHECKING:
    from mixjax.grad_norms import nnx

__all__ = [
    "Parameter",
    "Tape",
    "by_domain",
    "last_layer",
    "linear",
    "nnx",
    "norm",
    "per_example",
    "value_grads_and_norms",
]


def __getattr__(name: str) -> Any:
    """Imports :mod:`mixjax.grad_norms.nnx` on first access, since it imports flax."""
    if name == "nnx":
        return importlib.import_module("mixjax.grad_norms.nnx")
    raise AttributeError(f"module 'mixjax.grad_norms' has no attribute {name!r}")
