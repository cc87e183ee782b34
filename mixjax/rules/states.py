"""Defines the states of all rules: what each rule remembers from one update to the next.

Every state is a NamedTuple, as optax's are, and begins with the two fields of :class:`mixjax.types.WeightState`:

- ``weights``: float32 ``[D]`` on the simplex, zero wherever the prior is zero;
- ``prior``: float32 ``[D]``, the normalised prior.

The states of rules that read signals end with ``unseen_updates``: int32 scalar, the number of updates in a row that had
examples but no row that the rule could use. :func:`mixjax.rules.unseen_updates` reads it through wrappers and chains.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

__all__ = [
    "AverageLossState",
    "ConstantState",
    "CountingState",
    "LastLossState",
    "LiteralWeightState",
    "LogWeightState",
    "MixingLawState",
    "NormLogWeightState",
    "NormState",
    "RawWeightState",
    "RewardState",
    "ScalingLawState",
    "ScoreState",
    "SelectState",
    "WrapperState",
]


class ConstantState(NamedTuple):
    """Holds weights that never move (``fixed``, ``gls``).

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
    """

    weights: jax.Array
    prior: jax.Array


class LogWeightState(NamedTuple):
    """Holds the log of the raw weights, from which the next exponentiated step starts (``erma``, ``doge``, ``doremi``).

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        log_w: float32 ``[D]``, the log of the raw weights ``weights / prior``.
        unseen_updates: int32 scalar, see :func:`mixjax.rules.unseen_updates`.
    """

    weights: jax.Array
    prior: jax.Array
    log_w: jax.Array
    unseen_updates: jax.Array


class LiteralWeightState(NamedTuple):
    """Holds the log of raw weights that are never rescaled (``erma(normalised=False)``).

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        log_w: float32 ``[D]``, the log of the raw weights ``w``; ``weights`` is proportional to ``prior * w``.
        unseen_updates: int32 scalar, see :func:`mixjax.rules.unseen_updates`.
    """

    weights: jax.Array
    prior: jax.Array
    log_w: jax.Array
    unseen_updates: jax.Array


class AverageLossState(NamedTuple):
    """Holds the log of the raw weights and a moving average of each domain's losses (``group_dro``).

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        log_w: float32 ``[D]``, log of ``weights / prior``.
        losses: float32 ``[D]``, each domain's moving average of its losses, without the adjustment.
        seen: bool ``[D]``, True where there has been a loss.
        unseen_updates: int32 scalar, see :func:`mixjax.rules.unseen_updates`.
    """

    weights: jax.Array
    prior: jax.Array
    log_w: jax.Array
    losses: jax.Array
    seen: jax.Array
    unseen_updates: jax.Array


class NormLogWeightState(NamedTuple):
    """Holds the log of the raw weights, the norm of all hypergradients so far and a step size (``mirror_descent``).

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        log_w: float32 ``[D]``, log of ``weights / prior``.
        norm: float32 scalar, root of the sum of squares of all centred hypergradients' largest entries.
        step_size: float32 scalar, the step size ``alpha`` of the last update; 0 before the first.
        unseen_updates: int32 scalar, see :func:`mixjax.rules.unseen_updates`.
    """

    weights: jax.Array
    prior: jax.Array
    log_w: jax.Array
    norm: jax.Array
    step_size: jax.Array
    unseen_updates: jax.Array


class NormState(NamedTuple):
    """Holds the norm of all hypergradients so far (``projected_gradient``).

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        norm: float32 scalar, root of the sum of squares of all centred hypergradients' Euclidean norms.
        unseen_updates: int32 scalar, see :func:`mixjax.rules.unseen_updates`.
    """

    weights: jax.Array
    prior: jax.Array
    norm: jax.Array
    unseen_updates: jax.Array


class LastLossState(NamedTuple):
    """Holds the last loss seen in each domain (``fgls``, ``dro``).

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        losses: float32 ``[D]``, each domain's last seen loss.
        seen: bool ``[D]``, True where there has been a loss.
        unseen_updates: int32 scalar, see :func:`mixjax.rules.unseen_updates`.
    """

    weights: jax.Array
    prior: jax.Array
    losses: jax.Array
    seen: jax.Array
    unseen_updates: jax.Array


class RawWeightState(NamedTuple):
    """Holds the log of raw weights whose absolute scale matters (``one_shot_fgls``).

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        log_w: float32 ``[D]``, the log of the paper's raw ``w``. The scale of ``w`` matters where ``gamma < 1``.
        seen: bool ``[D]``, True where there has been a loss.
        unseen_updates: int32 scalar, see :func:`mixjax.rules.unseen_updates`.
    """

    weights: jax.Array
    prior: jax.Array
    log_w: jax.Array
    seen: jax.Array
    unseen_updates: jax.Array


class ScoreState(NamedTuple):
    """Holds the last score of each domain and the last loss weights (``variance_aware``, ``gradient_norm``).

    Attributes:
        weights: float32 ``[D]`` on the simplex: the sampling weights.
        prior: float32 ``[D]``.
        scores: float32 ``[D]``, each domain's last seen gradient standard deviation or gradient norm.
        loss_weights: float32 ``[D]``, the last loss weights.
        seen: bool ``[D]``, True where there has been a score.
        unseen_updates: int32 scalar, see :func:`mixjax.rules.unseen_updates`.
    """

    weights: jax.Array
    prior: jax.Array
    scores: jax.Array
    loss_weights: jax.Array
    seen: jax.Array
    unseen_updates: jax.Array


class RewardState(NamedTuple):
    """Holds the rewards of a bandit and the number of its updates (``exp3``).

    Attributes:
        weights: float32 ``[D]`` on the simplex, positive wherever the prior is.
        prior: float32 ``[D]``.
        rewards: float32 ``[D]``, moving averages of the importance-weighted losses.
        step: int32 scalar, the number of updates so far that saw a domain.
        unseen_updates: int32 scalar, see :func:`mixjax.rules.unseen_updates`.
    """

    weights: jax.Array
    prior: jax.Array
    rewards: jax.Array
    step: jax.Array
    unseen_updates: jax.Array


class ScalingLawState(NamedTuple):
    """Holds regressions of each domain's loss on powers of its number of examples, and past weights (``ado``).

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        credit: float32 ``[D]`` on the simplex, the moving average of the weights.
        preference: float32 ``[D]`` on the simplex, the mean of the preferences so far.
        num_examples: float32 ``[D]``, the number of examples seen.
        rounding: float32 ``[D]``, what ``num_examples`` lacks by rounding.
        num_losses: float32 ``[D]``, the number of losses in the regressions.
        mean_loss: float32 ``[D]``, their mean.
        mean_powers: float32 ``[D, M]``, the mean of ``n ** -alpha`` for each of ``M`` exponents.
        spreads: float32 ``[D, M]``, the sum of squared distances of ``n ** -alpha`` from its mean.
        slopes: float32 ``[D, M]``, the slope of the regression.
        errors: float32 ``[D, M]``, the sum of squared distances of the losses from the regression.
        step: int32 scalar, the number of updates so far that saw a domain.
        unseen_updates: int32 scalar, see :func:`mixjax.rules.unseen_updates`.
    """

    weights: jax.Array
    prior: jax.Array
    credit: jax.Array
    preference: jax.Array
    num_examples: jax.Array
    rounding: jax.Array
    num_losses: jax.Array
    mean_loss: jax.Array
    mean_powers: jax.Array
    spreads: jax.Array
    slopes: jax.Array
    errors: jax.Array
    step: jax.Array
    unseen_updates: jax.Array


class MixingLawState(NamedTuple):
    """Holds how much each domain's share lowers each loss, and how far its next estimate is (``aioli``).

    Attributes:
        weights: float32 ``[D]`` on the simplex: the mixture or a probe, whatever the next window draws by.
        prior: float32 ``[D]``.
        mixture: float32 ``[D]`` on the simplex.
        law: float32 ``[D, D]``, row ``i`` for the loss of domain ``i``, column ``j`` for the share of domain ``j``; the
            moving average of the normalised estimates.
        measured: bool ``[D]``, True where the row of ``law`` has been estimated.
        losses: float32 ``[D]``, each domain's last seen loss.
        drops: float32 ``[D, D]``, by how much loss ``i`` fell in the probes of domain ``j`` so far.
        complete: bool ``[D]``, True where the loss was seen in every window of the estimate so far.
        probes: int32 ``[D]``, the number of probes of each domain in the estimate so far.
        left: int32 scalar, the number of windows of the mixture before the next probe.
        unseen_updates: int32 scalar, see :func:`mixjax.rules.unseen_updates`.
    """

    weights: jax.Array
    prior: jax.Array
    mixture: jax.Array
    law: jax.Array
    measured: jax.Array
    losses: jax.Array
    drops: jax.Array
    complete: jax.Array
    probes: jax.Array
    left: jax.Array
    unseen_updates: jax.Array


class WrapperState(NamedTuple):
    """Holds the state of a wrapped rule beside the changed weights (``smooth``, ``floor``, ``kl_to_prior``).

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        inner: the wrapped rule's state.
    """

    weights: jax.Array
    prior: jax.Array
    inner: Any


class CountingState(NamedTuple):
    """Holds the state of a wrapped rule and counts the updates (``every``, ``freeze_after``).

    Attributes:
        weights: float32 ``[D]`` on the simplex: the wrapped rule's.
        prior: float32 ``[D]``.
        inner: the wrapped rule's state.
        step: int32 scalar, the number of updates so far with at least one positive count.
    """

    weights: jax.Array
    prior: jax.Array
    inner: Any
    step: jax.Array


class SelectState(NamedTuple):
    """Holds the states of several rules, of which one moves (``select``).

    Attributes:
        weights: float32 ``[D]`` on the simplex: the selected rule's.
        prior: float32 ``[D]``.
        states: tuple of all rules' states.
    """

    weights: jax.Array
    prior: jax.Array
    states: tuple[Any, ...]
