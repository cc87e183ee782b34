"""Computes the norm of a tree of arrays, and gradient norms that take no backward pass of their own."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from mixjax.checks import as_ids, as_size
from mixjax.grad_norms.scaling import as_float, scale_of, scaled_norm
from mixjax.grad_norms.squares import norms_of
from mixjax.grad_norms.terms import Matrix
from mixjax.meshes import varying_like, with_auto_axes
from mixjax.signals import as_real, moments

__all__ = ["by_domain", "last_layer", "linear", "norm", "per_example"]


def norm(tree: Any, batch_ndim: int = 1) -> jax.Array:
    r"""Returns the Euclidean norm over all entries of a pytree, one number per example.

    .. math:: \|g\| = s \sqrt{\textstyle\sum_i (g_i / s)^2}, \qquad s = \max_i |g_i|

    Args:
        tree: ``g``, a pytree of real or complex arrays ``[*batch, ...]`` with the same ``batch_ndim`` leading axes.
        batch_ndim: the number of leading axes that are kept; 0 for one gradient.

    Returns:
        float32 ``[*batch]``; inf or NaN where an entry is.

    Raises:
        ValueError: a tree without arrays, or arrays whose leading axes differ.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> kernel, bias = jnp.array([[3e-25, 0.0], [3e30, 0.0], [0.0, 0.0]]), jnp.array([4e-25, 4e30, 0.0])
        >>> grad_norms.norm({"kernel": kernel, "bias": bias})
        Array([5.e-25, 5.e+30, 0.e+00], dtype=float32)
    """
    leaves = [as_real(jnp.asarray(leaf)) for leaf in jax.tree.leaves(tree)]
    batches = {leaf.shape[:batch_ndim] for leaf in leaves}
    if len(batches) != 1 or len(*batches) != batch_ndim:
        shapes = [leaf.shape for leaf in leaves]
        raise ValueError(f"tree must have arrays that share their first {batch_ndim} axes, got shapes {shapes}.")
    # The last size is computed, since reshape cannot tell a -1 where the array is empty.
    rows = [as_float(leaf.reshape(*leaf.shape[:batch_ndim], math.prod(leaf.shape[batch_ndim:]))) for leaf in leaves]
    return jax.lax.stop_gradient(scaled_norm(rows).astype(jnp.float32))


def per_example(
    loss: Callable[[Any, Any], jax.Array], params: Any, examples: Any, *, batch_size: int | None = None
) -> jax.Array:
    r"""Returns the norm of every example's gradient by forming the gradients themselves.

    .. math:: \|\nabla_\theta \ell(\theta, z_b)\|, \qquad b = 1, \dots, B

    It works for any loss. The tests of the other functions compare with it.

    Args:
        loss: ``ℓ``, called as ``loss(params, example) -> scalar`` for one example.
        params: ``θ``, a pytree of parameters.
        examples: ``z``, a pytree of arrays with a leading axis of ``B`` examples.
        batch_size: the number of gradients that may be in memory at a time; all ``B`` by default.

    Returns:
        float32 ``[B]``.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> x = jnp.array([[3.0, 4.0], [0.0, 1.0]])
        >>> grad_norms.per_example(lambda theta, x: x @ theta, jnp.zeros(2), x).tolist()
        [5.0, 1.0]
    """

    # Under shard_map, the gradient of parameters that all devices share would be summed over the devices.
    params = varying_like(params, examples)

    def one(params, example):
        return norm(jax.grad(loss)(params, example), 0)

    if batch_size is None:
        return jax.vmap(one, (None, 0))(params, examples)

    def in_turn(params, examples):
        return jax.lax.map(lambda example: one(params, example), examples, batch_size=as_size("batch_size", batch_size))

    # A loop goes over an axis that is not sharded, so on a mesh with Explicit axes XLA has to place the examples.
    return with_auto_axes(in_turn, PartitionSpec())(params, examples)


def linear(derivatives: ArrayLike, features: ArrayLike, *, intercept: bool = False) -> jax.Array:
    r"""Returns the norms of the gradients of a generalised linear model, without forming a gradient.

    .. math:: \ell(\theta, z) = f_y(\Theta^\top x), \qquad \|\nabla_\Theta \ell\| = \|f_y'\| \, \|x\|

    Args:
        derivatives: ``f_y'``, the loss's derivative with respect to the model's output: ``[B]``, or ``[B, K]`` for
            ``K`` outputs. It is ``prediction - y`` for half a squared residual, and ``sigmoid(z) - y`` or
            ``softmax(z) - onehot`` for a log loss.
        features: ``x``, ``[B, p]``.
        intercept: True if the model has an intercept for each output, and the gradient is also taken with respect to
            it. Then ``(x, 1)`` takes the place of ``x``.

    Returns:
        float32 ``[B]``. The cost is one pass over ``features``.

    Raises:
        ValueError: other shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> grad_norms.linear(jnp.array([2.0, -1.0]), jnp.array([[3.0, 4.0], [0.0, 1.0]])).tolist()
        [10.0, 1.0]
    """
    derivatives, features = jnp.asarray(derivatives), jnp.asarray(features)
    if features.ndim != 2 or derivatives.ndim not in (1, 2) or len(derivatives) != len(features):
        raise ValueError(
            f"derivatives must be [B] or [B, K] and features [B, p], got {derivatives.shape} and {features.shape}."
        )
    columns = (features, jnp.ones(len(features))) if intercept else features
    return norm(derivatives) * norm(columns)


def last_layer(derivatives: ArrayLike, features: ArrayLike, *, intercept: bool = False) -> jax.Array:
    r"""Returns the norms of the gradients of a network's last layer alone, from a forward pass.

    .. math:: \Bigl\| \sum_t x_{bt} \delta_{bt}^\top \Bigr\| \le \|\nabla \ell_b\|

    The last layer's gradient is a part of the whole gradient, so its norm is a lower bound of the whole norm. Draw by
    this bound where a backward pass for norms costs too much. How much the bound leaves out depends on the example.

    Args:
        derivatives: ``δ``, the derivatives of each example's loss with respect to the layer's outputs, ``[B, ..., K]``,
            such as ``softmax(logits) - onehot``. Where the loss is a mean over places (the axes ``...``, numbered by
            ``t``), divide by the number of places.
        features: ``x``, the layer's input, ``[B, ..., p]``.
        intercept: True if the layer has a bias whose gradient counts.

    Returns:
        float32 ``[B]``. Without axes between the first and the last, the result is that of :func:`linear`.

    Raises:
        ValueError: other shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> delta, x = jnp.array([[[3.0], [1.0]]]), jnp.array([[[1.0, 0.0], [0.0, 4.0]]])   # two places
        >>> grad_norms.last_layer(delta, x).tolist()
        [5.0]

    References:
        Katharopoulos and Fleuret, "Not all samples are created equal: deep learning with importance sampling" (ICML
        2018), use ``‖δ_b‖``, which is ``norm(derivatives)``. Deviation: their score is an upper bound of the whole norm
        up to a factor that is unknown and the same for every example. This function returns a lower bound, without any
        factor.
    """
    derivatives, features = jnp.asarray(derivatives), jnp.asarray(features)
    if features.ndim < 2 or derivatives.shape[:-1] != features.shape[:-1]:
        raise ValueError(
            f"derivatives must be [B, ..., K] and features [B, ..., p], got {derivatives.shape} and {features.shape}."
        )
    if intercept:
        features = jnp.concatenate([features, jnp.ones_like(features[..., :1])], axis=-1)
    return jax.lax.stop_gradient(norms_of([[Matrix(features, derivatives)]]).astype(jnp.float32))


def by_domain(norms: ArrayLike, domain_ids: ArrayLike, num_domains: int) -> jax.Array:
    r"""Returns the root mean square of the norms in each domain, which is the signal ``grad_norms``.

    .. math:: m_d = \sqrt{\frac{1}{n_d} \sum_{z \in d} \|\nabla \ell(\theta, z)\|^2}

    The mean is of the squares and not of the norms for this reason. The Horvitz-Thompson estimate ``(c_d / q_d) ∇ℓ(z)``
    draws a domain ``d`` from ``q`` and an example ``z`` uniformly from ``d``. The trace of its covariance is
    ``sum_d (c_d² / q_d) E_d‖∇ℓ‖² - ‖∇L_c‖²``. Over all ``q``, that is least at ``q_d`` proportional to
    ``c_d sqrt(E_d‖∇ℓ‖²)``.

    Args:
        norms: ``‖∇ℓ(θ, z)‖``, ``[B]``, non-negative. A norm that is not finite spoils its own domain's row only.
        domain_ids: integers of any type, ``[B]``; ids outside ``[0, num_domains)`` mark padding, or examples to leave
            out.
        num_domains: ``D``.

    Returns:
        ``m``, float32 ``[D]``, infinite, which means unknown, for domains without an example. As in :func:`norm`, no
        square overflows or vanishes.

    Raises:
        ValueError: shapes that differ or are not vectors.
        TypeError: ids that are not integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> grad_norms.by_domain(jnp.array([1.0, 7.0, 3.0]), jnp.array([0, 0, 1]), num_domains=3).tolist()
        [5.0, 3.0, inf]

    References:
        Paper 003, eq. 3.45, for domains of several examples.
    """
    norms, domain_ids = jax.lax.stop_gradient(jnp.asarray(norms, jnp.float32)), as_ids("domain_ids", domain_ids)
    if norms.ndim != 1 or norms.shape != domain_ids.shape:
        raise ValueError(f"norms and domain_ids must both be [B], got {norms.shape} and {domain_ids.shape}.")
    num_domains = as_size("num_domains", num_domains)
    # A mesh with Explicit axes has no way of its own to place a sum by domain.
    run = with_auto_axes(functools.partial(_root_mean_squares, num_domains=num_domains), PartitionSpec())
    return run(norms, domain_ids)


def _root_mean_squares(norms, domain_ids, num_domains):
    # Examples without a domain share one more segment, which is dropped below.
    ids = jnp.where((domain_ids >= 0) & (domain_ids < num_domains), domain_ids, num_domains)
    # Zeros in place of what is left out, whose infinities over their own scale would be NaN.
    norms = jnp.where(ids < num_domains, norms, 0.0)
    # An empty segment's maximum is -inf, which is not a scale.
    scale = scale_of(jnp.maximum(jax.ops.segment_max(norms, ids, num_domains + 1), 0.0))
    squares = moments(jnp.square(norms / scale[ids]), ids, num_domains).signals()["losses"]
    return scale[:num_domains] * jnp.sqrt(squares)
