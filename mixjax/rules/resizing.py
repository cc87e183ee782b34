"""Adds domains to a rule's state in the middle of a run, and takes domains out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mixjax.checks import check_shape
from mixjax.rules.base import MAX_LOG_W, bounded, log_ratio, own_buffers, total_of
from mixjax.rules.states import ConstantState, LiteralWeightState, RawWeightState
from mixjax.types import WeightRule

__all__ = ["carry_over", "extend", "remove"]

Tree = TypeVar("Tree")

# The fields of states that are shares of all domains, so that new domains take a part of them.
_SHARES = {"weights", "loss_weights", "credit", "preference", "mixture"}


def extend(rule: WeightRule, state: Any, prior: ArrayLike) -> Any:
    """Adds domains to a rule's state, behind those that it has.

    - The old domains keep the ratios of their weights to each other, and what the rule remembers of them: last signals,
      averages, rewards. Counters go on.
    - A new domain starts as all domains start: with its prior share of the weight, and never seen.

    A domain whose old or new prior is 0 counts as new. Where the old domains' priors change in their ratios, rules in
    closed form (``fgls``, ``dro``, ...) follow the new prior from their next update on. ``fixed`` and ``gls`` remember
    nothing, so they follow it at once.

    Args:
        rule: the rule for the new number of domains. It is the same rule as before, but what has one entry per domain
            (``gls(variances)``, ``group_dro(adjustment=)``, ``cap(limits)``) has entries for the new domains too.
        state: the state of the rule for the old domains. Wrappers and :func:`mixjax.rules.select` are no exception.
        prior: non-negative ``[D]``, for the old domains in their order and then the new ones; normalised here.

    Returns:
        A state of ``rule`` with ``D`` domains. It shares no memory with the old one.

    Raises:
        ValueError: fewer domains than ``state`` has.
        TypeError: ``state`` is not one of ``rule``.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.fgls()
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> state = rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([1.0, 3.0]))
        >>> state.weights.tolist(), mixjax.rules.extend(rule, state, jnp.array([0.4, 0.4, 0.2])).weights.tolist()
        ([0.75, 0.25], [0.6, 0.2, 0.2])
    """
    number = _number_of_domains(state)
    check_shape("prior", prior, ("D",), "one entry per domain")
    if np.size(prior) < number:
        raise ValueError(
            f"prior must have an entry for each of the state's {number} domains and for the new ones, got "
            f"{np.size(prior)}; mixjax.rules.remove takes domains out."
        )
    return carry_over(rule.init(prior), state, range(number))


def remove(rule: WeightRule, state: Any, domains: Sequence[int]) -> Any:
    """Takes domains out of a rule's state; the others keep their order and what the rule remembers of them.

    The weights and the prior of the others keep their ratios and are normalised again.

    Args:
        rule: the rule for the domains that stay; see :func:`extend`.
        state: the state of the rule for all domains.
        domains: indices of the domains to take out, each in ``[0, D)``; Python or NumPy integers, not traced.

    Returns:
        A state of ``rule`` with fewer domains. It shares no memory with the old one.

    Raises:
        ValueError: an index out of range, or no domain would stay.
        TypeError: ``state`` is not one of ``rule``, or an index is not an integer.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.group_dro()
        >>> mixjax.rules.remove(rule, rule.init(jnp.array([0.5, 0.2, 0.3])), [0]).weights.tolist()
        [0.4, 0.6]
    """
    number = _number_of_domains(state)
    gone = np.asarray(domains)
    if gone.size and not np.issubdtype(gone.dtype, np.integer):
        raise TypeError(f"domains must be integers, got {domains}.")
    if np.any(gone < 0) or np.any(gone >= number):
        raise ValueError(f"domains must be in [0, {number}), got {domains}.")
    rest = np.setdiff1d(np.arange(number), gone)
    if not rest.size:
        raise ValueError(f"domains must leave at least one of {number} domains, got {domains}.")
    return carry_over(rule.init(state.prior[rest]), state, rest)


def carry_over(fresh: Tree, old: Any, rows: Sequence[int] | np.ndarray) -> Tree:
    """Puts what an old state remembers of some domains into the first rows of a fresh state.

    Args:
        fresh: a rule's first state for the new domains, or a pytree that holds some, such as an optimizer state.
        old: a pytree of the same structure for the old domains.
        rows: the domains of ``old`` that become the first domains of ``fresh``, in this order.

    Returns:
        A pytree like ``fresh``. Arrays of one size in both, such as counters and the moments of Adam, are the old ones;
        others have one row per domain along their first axis.

    Raises:
        TypeError: the structures differ.
    """
    if jax.tree.structure(fresh) != jax.tree.structure(old):
        raise TypeError(
            f"state must be one of the given rule, {jax.tree.structure(fresh)}, got {jax.tree.structure(old)}."
        )
    return own_buffers(_carried(fresh, old, np.asarray(rows)))


def _number_of_domains(state):
    if not _is_rule_state(state):
        raise TypeError(f"state must be a rule's state, got {type(state).__name__}.")
    return state.prior.size


def _is_rule_state(node):
    return isinstance(node, tuple) and {"weights", "prior"} <= set(getattr(node, "_fields", ()))


def _carried(fresh, old, rows):
    def carry(fresh, old):
        return _carried_rule_state(fresh, old, rows) if _is_rule_state(fresh) else _carried_rows(fresh, old, rows)

    return jax.tree.map(carry, fresh, old, is_leaf=_is_rule_state)


def _carried_rows(fresh, old, rows):
    """Takes an array of the old state as it is, or along each axis of another size its entries of ``rows``."""
    if jnp.shape(fresh) == jnp.shape(old):
        return old
    sources, places = [], []
    for size, size_before in zip(jnp.shape(fresh), jnp.shape(old), strict=True):
        kept = rows if size != size_before else np.arange(size)
        sources.append(kept)
        places.append(np.arange(kept.size))
    return fresh.at[np.ix_(*places)].set(old[np.ix_(*sources)])


def _carried_rule_state(fresh, old, rows):
    # Weights that never move are the rule's own, and remember nothing.
    if isinstance(fresh, ConstantState):
        return fresh
    carried = {name: _carried(getattr(fresh, name), getattr(old, name), rows) for name in fresh._fields}
    before = _carried_rows(jnp.zeros_like(fresh.prior), old.prior, rows)
    kept = (before > 0) & (fresh.prior > 0)
    changed = {"prior": fresh.prior}
    for name in _SHARES & set(fresh._fields):
        changed[name] = _shared_out(getattr(fresh, name), carried[name], kept)
    # The raw weights of one-shot FGLS are a memory of losses, row by row, and stay as they were carried over.
    if "log_w" in fresh._fields and not isinstance(fresh, RawWeightState):
        log_w = log_ratio(changed["weights"], fresh.prior)
        if isinstance(fresh, LiteralWeightState):
            log_w = bounded(log_w + _log_mean(carried["log_w"], before, kept), MAX_LOG_W)
        changed["log_w"] = jnp.where(fresh.prior > 0, log_w, fresh.log_w)
    return fresh._replace(**{**carried, **changed})


def _shared_out(fresh, old, kept):
    """Gives the kept rows their total in ``fresh``, in the proportions of ``old``, and the other rows theirs."""
    tiny = jnp.finfo(jnp.float32).tiny
    old = jnp.where(kept, old, 0.0)
    total = old.sum()
    scaled = old * (total_of(fresh, kept) / jnp.maximum(total, tiny))
    # A sampling weight must not vanish where it was positive.
    scaled = jnp.where(old > 0, jnp.maximum(scaled, tiny), 0.0)
    return jnp.where(kept & (total > 0), scaled, fresh)


def _log_mean(log_w, prior, kept):
    """Returns the log of the mean of the raw weights under the prior, over the kept rows: the scale they keep."""
    there = jnp.any(kept)
    logs = jnp.where(kept, jnp.log(prior), -jnp.inf)
    # Without a row both sums would be -inf, and their difference NaN.
    logs = jnp.where(there, logs, 0.0)
    return jnp.where(there, jax.nn.logsumexp(logs + log_w) - jax.nn.logsumexp(logs), 0.0)
