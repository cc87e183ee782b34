"""Computes the gradient of a step, and what the rules are told of its batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.shared.device_plan import Drawn
from mixjax import signals

__all__ = ["gradient", "gradients_by_domain"]

RowLosses = Callable[[Any, jax.Array], jax.Array]
"""``row_losses(params, rows [n, length + 1]) -> [n]``."""


def gradient(
    row_losses: RowLosses,
    params: Any,
    rows: jax.Array,
    batch: Drawn,
    *,
    tells: bool,
    reference: Callable[[jax.Array], jax.Array] | None,
) -> tuple[Any, dict[str, jax.Array]]:
    """Computes the gradient of the weighted losses of a batch.

    Args:
        row_losses: the losses of rows.
        params: the parameters.
        rows: the rows of the batch.
        batch: their domains and weights.
        tells: whether the rules read the losses of the batch.
        reference: row losses of a reference model, which the rules read as well; None for none.

    Returns:
        The gradient, and the signals of the batch; {} where nothing reads them.
    """

    def objective(params):
        losses = row_losses(params, rows)
        return jnp.sum(batch.row_weights * losses), losses

    grads, losses = jax.grad(objective, has_aux=True)(params)
    if not tells:
        return grads, {}
    num_domains = batch.counts.size
    told = signals.moments(losses, batch.domain_ids, num_domains).signals()
    if reference is not None:
        of_reference = signals.moments(reference(rows), batch.domain_ids, num_domains).signals()
        told["reference_losses"] = of_reference["losses"]
    return grads, told


def gradients_by_domain(
    row_losses: RowLosses, params: Any, rows: jax.Array, loss_weights: jax.Array
) -> tuple[Any, dict[str, jax.Array]]:
    """Computes each domain's gradient, their sum weighted by ``loss_weights``, and how they agree with the sum of all.

    The target of DoGE's universal generalisation is all domains together.

    Args:
        row_losses: the losses of rows.
        params: the parameters.
        rows: as many rows of each domain, one domain after the other.
        loss_weights: ``[D]``.

    Returns:
        The weighted gradient, and the signals that :func:`mixjax.rules.doge` reads.
    """
    num_domains = loss_weights.size
    by_domain = rows.reshape(num_domains, -1, rows.shape[-1])
    stacked = jax.vmap(jax.grad(lambda params, rows: row_losses(params, rows).mean()), (None, 0))(params, by_domain)
    flat = jnp.concatenate([g.reshape(num_domains, -1) for g in jax.tree.leaves(stacked)], axis=1)
    told = {
        "counts": jnp.full(num_domains, float(by_domain.shape[1])),
        "hypergrads": -(flat @ flat.sum(axis=0)),
        "grad_norms": jnp.linalg.norm(flat, axis=1),
    }
    return jax.tree.map(lambda g: jnp.tensordot(loss_weights, g, axes=1), stacked), told
