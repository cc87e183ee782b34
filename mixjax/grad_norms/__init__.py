r"""Computes exact norms of per-example gradients, the signal of resampling by the size of the gradient.

============================== ======================================= ==========================================
function                       use it for                              cost beside the mean gradient's
============================== ======================================= ==========================================
:func:`linear`                 generalised linear models               none: no gradient is formed
:func:`value_grads_and_norms`  networks written on a :class:`Tape`     a product per layer, from the same backward pass
:func:`last_layer`             the last layer's part of the norm       a forward pass and a product in its place
:func:`per_example`            any loss                                a gradient per example, in time and memory
============================== ======================================= ==========================================

:func:`by_domain` turns the norms into the signal ``grad_norms`` of :func:`mixjax.rules.gradient_norm`. All norms are
float32 ``[B]``:

- They are scaled, so that neither tiny nor huge gradients are lost to their squares.
- A norm is exactly 0 where the gradient is, or where all its entries are below the normal floats.
- A norm is not finite where the gradient is not, so that the caller can leave such an example out.
- They come from arithmetic on gradients, never from differentiating a norm. No gradient flows through them.
"""

from mixjax.grad_norms.ghost import value_grads_and_norms
from mixjax.grad_norms.norms import by_domain, last_layer, linear, norm, per_example
from mixjax.grad_norms.tape import Parameter, Tape

__all__ = ["Parameter", "Tape", "by_domain", "last_layer", "linear", "norm", "per_example", "value_grads_and_norms"]
