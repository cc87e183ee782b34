"""Tells how many domains weights are really spread over."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

__all__ = ["effective_domains"]


def effective_domains(weights: ArrayLike) -> jax.Array:
    r"""Computes the number of domains that equal weights of the same entropy would be spread over.

    .. math:: \exp\Bigl(-\sum_d c_d \log c_d\Bigr)

    Below 2 the weights come near a single domain. Of a run that is meant to mix more, that is a fault to look into:
    steps too large, batches too small, or losses that are not comparable. :func:`mixjax.rules.doremi` says more.

    Args:
        weights: ``[..., D]`` on the simplex; ``c``.

    Returns:
        float32 ``[...]``, from 1 (one domain has all the weight) to ``D`` (uniform).

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> mixjax.rules.effective_domains(jnp.array([[0.5, 0.5, 0.0], [0.98, 0.01, 0.01]])).round(2).tolist()
        [2.0, 1.12]
    """
    return jnp.exp(jax.scipy.special.entr(jnp.asarray(weights, jnp.float32)).sum(axis=-1))
