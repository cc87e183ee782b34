"""The norm of a tree of arrays, and the norms of gradients that take no backward pass of their own."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.signals import moments


def norm(tree: Any, batch_ndim: int = 1) -> jax.Array:
    r"""Euclidean norm over all entries of a pytree of per-example arrays, one number per example.

    .. math:: \|g\| = s \sqrt{\textstyle\sum_i (g_i / s)^2}, \qquad s = \max_i |g_i|

    Args:
        tree: pytree of real arrays ``[*batch, ...]`` with the same ``batch_ndim`` leading axes.
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
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    batches = {leaf.shape[:batch_ndim] for leaf in leaves}
    if len(batches) != 1 or len(*batches) != batch_ndim:
        shapes = [leaf.shape for leaf in leaves]
        raise ValueError(f"tree must have arrays that share their first {batch_ndim} axes, got shapes {shapes}.")
    leaves = [as_float(leaf.reshape(*leaf.shape[:batch_ndim], math.prod(leaf.shape[batch_ndim:]))) for leaf in leaves]
    return jax.lax.stop_gradient(scaled_norm(leaves).astype(jnp.float32))


def scaled_norm(leaves: list[jax.Array]) -> jax.Array:
    """:func:`norm` of arrays ``[*batch, n]``, in their own dtype."""
    top = jnp.stack([jnp.max(jnp.abs(leaf), axis=-1, initial=0.0) for leaf in leaves]).max(axis=0)
    scale = scale_of(top)
    squares = sum(jnp.square(leaf / scale[..., None]).sum(axis=-1) for leaf in leaves)
    return jnp.where(jnp.isinf(top), top, scale * jnp.sqrt(squares))


def per_example(
    loss: Callable[[Any, Any], jax.Array], params: Any, examples: Any, *, batch_size: int | None = None
) -> jax.Array:
    """Norm of every example's gradient, from the gradients themselves: for any loss, and what the others are tested by.

    Args:
        loss: ``loss(params, example) -> scalar``, for one example.
        params: pytree of parameters.
        examples: pytree of arrays with a leading axis of ``B`` examples.
        batch_size: how many gradients there may be in memory at a time; all ``B`` by default.

    Returns:
        float32 ``[B]``.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> x = jnp.array([[3.0, 4.0], [0.0, 1.0]])
        >>> grad_norms.per_example(lambda theta, x: x @ theta, jnp.zeros(2), x).tolist()
        [5.0, 1.0]
    """

    def one(example):
        return norm(jax.grad(loss)(params, example), 0)

    return jax.vmap(one)(examples) if batch_size is None else jax.lax.map(one, examples, batch_size=batch_size)


def linear(derivatives: ArrayLike, features: ArrayLike, *, intercept: bool = False) -> jax.Array:
    r"""Norms of the gradients of a generalised linear model, without forming one.

    .. math:: \ell(\theta, z) = f_y(\Theta^\top x), \qquad \|\nabla_\Theta \ell\| = \|f_y'\| \, \|x\|

    Args:
        derivatives: ``f_y'``, the loss's derivative with respect to the model's output: ``[B]``, or ``[B, K]`` for
            ``K`` outputs. ``prediction - y`` for half a squared residual, ``sigmoid(z) - y`` or ``softmax(z) - onehot``
            for a log loss.
        features: ``x``, ``[B, p]``.
        intercept: whether the model has one (per output) that the gradient is also taken in; then ``x`` is ``(x, 1)``.

    Returns:
        float32 ``[B]``. Cost: one pass over ``features``.

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


def by_domain(norms: ArrayLike, domain_ids: ArrayLike, num_domains: int) -> jax.Array:
    r"""Root mean square of the norms in each domain: the signal ``grad_norms``.

    .. math:: m_d = \sqrt{\frac{1}{n_d} \sum_{z \in d} \|\nabla \ell(\theta, z)\|^2}

    The mean of the squares and not of the norms, because the Horvitz-Thompson estimate ``(c_d / q_d) ∇ℓ(z)``, with
    ``d`` drawn from ``q`` and ``z`` uniform in ``d``, has the variance ``sum_d (c_d² / q_d) E_d‖∇ℓ‖² - ‖∇L_c‖²``
    (trace), and that is least over ``q`` at ``q_d`` proportional to ``c_d sqrt(E_d‖∇ℓ‖²)``.

    Args:
        norms: ``[B]``, non-negative. One that is not finite spoils its own domain's row only.
        domain_ids: int ``[B]``; ids outside ``[0, num_domains)`` mark padding, or examples to leave out.
        num_domains: ``D``.

    Returns:
        float32 ``[D]``, NaN for domains that are absent. Scaled like :func:`norm`.

    Raises:
        ValueError: shapes that differ or are not vectors.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> grad_norms.by_domain(jnp.array([1.0, 7.0, 3.0]), jnp.array([0, 0, 1]), num_domains=3).tolist()
        [5.0, 3.0, nan]

    References:
        Paper 003, eq. 3.45, for domains of several examples.
    """
    norms, domain_ids = jax.lax.stop_gradient(jnp.asarray(norms, jnp.float32)), jnp.asarray(domain_ids)
    if norms.ndim != 1 or norms.shape != domain_ids.shape:
        raise ValueError(f"norms and domain_ids must both be [B], got {norms.shape} and {domain_ids.shape}.")
    ids = jnp.where((domain_ids >= 0) & (domain_ids < num_domains), domain_ids, num_domains)
    scale = scale_of(jnp.maximum(jax.ops.segment_max(norms, ids, num_domains + 1), 0.0))
    squares = moments(jnp.square(norms / scale[ids]), ids, num_domains).signals()["losses"]
    return scale[:num_domains] * jnp.sqrt(squares)


@jax.custom_batching.custom_vmap
def anywhere(flags):
    """Whether any flag is set; under ``vmap``, in any of the batch, so that a ``lax.cond`` on it stays a branch."""
    return flags.any()


@anywhere.def_vmap
def _(axis_size, batched, flags):
    return anywhere(flags), False


def as_float(x):
    """In float32, or wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def scale_of(top):
    """What to divide by: the largest entry; 1 where that is below the normal floats; no finite number whose inverse,
    which XLA multiplies with instead, is below them."""
    tiny = jnp.finfo(top.dtype).tiny
    return jnp.where(top < tiny, 1.0, jnp.where(jnp.isinf(top), top, jnp.minimum(top, 0.125 / tiny)))
