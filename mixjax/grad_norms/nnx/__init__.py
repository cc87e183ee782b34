r"""Measures the norms of per-example gradients of flax ``nnx`` modules, which stay as they are.

:func:`value_grads_and_norms` takes the place of ``nnx.value_and_grad`` in a training step. :func:`explain` says for
each parameter, before the first step, how its gradients are measured. :func:`check` compares everything with
``vmap(grad)`` on a few examples.

A parameter's gradients are measured in one of two ways, and the norms are exact in both:

- *By factors*, without being formed: parameters of ``Linear``, ``LinearGeneral`` (and so ``MultiHeadAttention``),
  ``Conv`` and ``Embed`` (and so tied weights, by ``attend``), where these layers are called in plain Python.
- *Themselves*, as ``vmap(grad)`` would: all other parameters. These are scales and biases of normalisations, tables of
  positions, LoRA's matrices, parameters of a user's own layers, and layers that are called within ``nnx.scan``,
  ``nnx.remat``, ``nnx.jit`` and the like. They take a copy of the parameter for each example. ``microbatch`` bounds the
  number of copies.
"""

from mixjax.grad_norms.nnx.checking import check
from mixjax.grad_norms.nnx.norms import Route, explain, value_grads_and_norms

__all__ = ["Route", "check", "explain", "value_grads_and_norms"]
