"""Adds domains to an optimizer's state in the middle of a run, and takes domains out of it.

What the optimizer knows of the parameters, such as Adam's moments, stays. What it knows of the domains is carried over
as :func:`mixjax.rules.extend` and :func:`mixjax.rules.remove` do for the state of one rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixjax.rules.resizing import carry_over
from mixjax.transforms import find_states

__all__ = ["extend", "remove"]


def extend(tx: optax.GradientTransformation, opt_state: Any, params: Any) -> Any:
    """Carries an optimizer's state over to more domains; the new ones come last.

    Args:
        tx: the transformation made anew, with rules for all domains and a prior that begins with the old ones.
        opt_state: the state so far. It may hold any number of :func:`mixjax.aggregate`, :func:`mixjax.track` and
            :func:`mixjax.accumulate` states, in chains and wrappers. A window of ``accumulate`` goes on, and new
            domains have counts of zero in it.
        params: pytree of parameters.

    Returns:
        The state of ``tx``, which goes on where ``opt_state`` stands.

    Raises:
        ValueError: ``tx`` makes a state of another structure, or of fewer domains, or ``params`` have other shapes.

    Example:
        >>> import jax.numpy as jnp, mixjax, optax
        >>> def make(prior):
        ...     return optax.chain(mixjax.track(mixjax.rules.fgls(), prior), optax.adam(1e-3))
        >>> tx, params = make(jnp.array([0.5, 0.5])), jnp.zeros(2)
        >>> signals = dict(losses=jnp.array([1.0, 3.0]), counts=jnp.array([8, 8]))
        >>> _, opt_state = tx.update(jnp.ones(2), tx.init(params), params, **signals)
        >>> tx = make(jnp.array([0.4, 0.4, 0.2]))
        >>> opt_state = mixjax.domains.extend(tx, opt_state, params)
        >>> mixjax.get_weights(opt_state).tolist()
        [0.6, 0.2, 0.2]

        ``flax.nnx.Optimizer`` keeps its state in variables, which are written anew::

            optimizer.tx = make(prior)
            params = nnx.as_pure(nnx.state(model, nnx.Param))
            opt_state = mixjax.domains.extend(optimizer.tx, nnx.as_pure(optimizer.opt_state), params)
            nnx.update(optimizer.opt_state, nnx.state(opt_state))
    """

    number, fresh = _num_domains(opt_state), _init(tx, params, opt_state)
    if _num_domains(fresh) < number:
        raise ValueError(
            f"tx must have the {number} domains of opt_state and the new ones, got {_num_domains(fresh)}; "
            "mixjax.domains.remove takes domains out."
        )
    return carry_over(fresh, opt_state, range(number))


def remove(tx: optax.GradientTransformation, opt_state: Any, params: Any, domains: Sequence[int]) -> Any:
    """Carries an optimizer's state over to fewer domains.

    Args:
        tx: the transformation made anew, with rules for the domains that stay and a prior of theirs.
        opt_state: the state so far, as for :func:`extend`. A window of ``accumulate`` forgets the removed domains.
        params: pytree of parameters.
        domains: the domains to remove, indices into those of ``opt_state``.

    Returns:
        The state of ``tx``, which goes on where ``opt_state`` stands.

    Raises:
        ValueError: ``tx`` makes a state of another structure, the domains that stay are not as many as it has, or
            ``params`` have other shapes.

    Example:
        >>> import jax.numpy as jnp, mixjax, optax
        >>> def make(prior):
        ...     return optax.chain(mixjax.track(mixjax.rules.fgls(), prior), optax.adam(1e-3))
        >>> tx, params = make(jnp.array([0.5, 0.25, 0.25])), jnp.zeros(2)
        >>> signals = dict(losses=jnp.array([1.0, 1.0, 3.0]), counts=jnp.array([8, 8, 8]))
        >>> _, opt_state = tx.update(jnp.ones(2), tx.init(params), params, **signals)
        >>> tx = make(jnp.array([0.5, 0.5]))
        >>> mixjax.get_weights(mixjax.domains.remove(tx, opt_state, params, domains=[0])).tolist()
        [0.75, 0.25]
    """
    number, fresh, gone = _num_domains(opt_state), _init(tx, params, opt_state), np.asarray(domains)
    # An empty list has no type of its own.
    if (gone.size and not np.issubdtype(gone.dtype, np.integer)) or np.any(gone < 0) or np.any(gone >= number):
        raise ValueError(f"domains must be integers in [0, {number}), got {domains}.")
    rest = np.setdiff1d(np.arange(number), gone)
    if _num_domains(fresh) != len(rest):
        raise ValueError(f"tx must have the {len(rest)} domains that stay of {number}, got {_num_domains(fresh)}.")
    return carry_over(fresh, opt_state, rest)


def _num_domains(opt_state):
    sizes = {state.rule_state.prior.size for _, state in find_states(opt_state)}
    if len(sizes) != 1:
        found = " and ".join(map(str, sorted(sizes))) or "no such state"
        raise ValueError(f"opt_state must hold aggregate or track states of one number of domains, got {found}.")
    return sizes.pop()


def _init(tx, params, opt_state):
    fresh = tx.init(params)
    new, old = jax.tree.structure(fresh), jax.tree.structure(opt_state)
    if new != old:
        raise ValueError(f"tx must make a state of the structure of opt_state, {old}, got {new}.")
    _check_shapes(fresh, opt_state)
    return fresh


def _check_shapes(fresh, opt_state):
    """Raises a ValueError where arrays differ in more than the number of domains, as with other parameters."""
    sizes = _num_domains(opt_state), _num_domains(fresh)
    leaves, _ = jax.tree_util.tree_flatten_with_path(fresh)
    for (path, new), old in zip(leaves, jax.tree.leaves(opt_state), strict=True):
        before, after = jnp.shape(old), jnp.shape(new)
        if before != after and not (before[1:] == after[1:] and (before[:1], after[:1]) == ((sizes[0],), (sizes[1],))):
            raise ValueError(
                f"params must be those of opt_state, whose {jax.tree_util.keystr(path)} has shape {before}; "
                f"with these it has {after}."
            )
