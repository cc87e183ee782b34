"""Implements ADO: samples the domains that still learn, by a scaling law of each domain's loss (Jiang et al., 2024)."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_choice, check_integer, check_range
from mixjax.meshes import placed_like
from mixjax.rules.base import HUGE, bounded, first_state, if_news, read_signals, share
from mixjax.rules.states import ScalingLawState
from mixjax.types import UNKNOWN, WeightRule

__all__ = ["ado", "scaling_law"]

# The exponents among which a law is fitted. The authors' penalties and floor keep theirs between the same bounds.
_EXPONENTS = np.linspace(0.05, 0.8, 31, dtype=np.float32)

# Squares of misses are summed over up to 1e8 updates, and must stay finite in float32.
_MAX_MISS = 1e15


def ado(
    gamma1: ArrayLike = 0.1,
    gamma2: ArrayLike = 0.1,
    s: ArrayLike = 0.5,
    *,
    delta_min: ArrayLike = 0.01,
    warmup: ArrayLike = 1000,
    skip: ArrayLike = 500,
    count: Literal["domain", "total"] = "domain",
) -> WeightRule:
    r"""Makes sampling weights for the domains whose loss falls fastest per example, as a scaling law of each says.

    .. math:: \hat L_d(n) = \varepsilon_d + \beta_d n^{-\alpha_d}, \qquad
              -\frac{d \hat L_d}{d n} = \frac{\alpha_d \beta_d n_d^{-\alpha_d}}{n_d}, \qquad
              h_d \leftarrow (1 - \gamma_1) h_d + \gamma_1 q_d

    .. math:: \rho_d \propto \pi_d h_d^s \Bigl(-\frac{d \hat L_d}{d n}\Bigr), \qquad
              q_d = \gamma_2 \rho_d + (1 - \gamma_2) \bar\rho_d, \qquad
              \bar\rho_d \leftarrow \bar\rho_d + \frac{\rho_d - \bar\rho_d}{t + 1}

    ``pi`` is the ``prior``, ``q`` is ``state.weights``, and ``t`` is the number of updates. ``n`` is the number of
    examples seen of the domain, the sum of its ``counts``. ``h`` gives a domain credit for its loss, since the loss may
    also fall by what the model learns in other domains. ``rhobar`` is the mean preference over the run. At last
    each ``q_d`` is raised to ``delta_min`` and ``q`` is normalised. ``q``, ``h`` and ``rhobar`` start at the prior.

    The losses are those of the batches that the model trains on, or of held-out examples with the ``counts`` trained
    on. :func:`scaling_law` reads the fitted laws.

    Args:
        gamma1: scalar in [0, 1], the weight of the new ``q`` in ``h``.
        gamma2: scalar in [0, 1], the weight of the new preference in ``q``.
        s: non-negative scalar, the exponent of the credit; 0 gives all domains the same.
        delta_min: scalar in [0, 1], the least weight before the last normalisation. It should be far below ``1 / D``:
            from there on, ``q`` is uniform.
        warmup: number of updates in which the weights stay at the prior, a non-negative integer.
        skip: number of updates whose losses the fit leaves out, a non-negative integer; the first losses of a model
            follow no power law.
        count: ``"total"`` lets ``n`` be the number of examples of all domains, as in the authors' code. Preferences
            then stay near the prior, while ``"domain"`` compares a rare domain by its own few examples.

    Signals:
        losses: mean losses ``[D]``.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.ScalingLawState`. Rows not seen keep their
        law and their ``n``. A row with fewer than three losses has no law, and keeps its prior in ``rho``.

    Raises:
        ValueError: ``gamma1``, ``gamma2`` or ``delta_min`` is outside [0, 1], ``s`` is negative, ``warmup`` or ``skip``
            is not a non-negative integer, or ``count`` is unknown.

    Example:
        The first domain has learned what it can, and the second one goes on:

        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.ado(warmup=10, skip=0)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> for t in range(1, 31):
        ...     losses = jnp.array([2.0, 1.0 + 3.0 * (8 * t) ** -0.3])
        ...     state = rule.update(state, counts=jnp.array([8, 8]), losses=losses)
        >>> {name: round(float(x[1]), 2) for name, x in mixjax.rules.scaling_law(state).items()}
        {'epsilon': 1.0, 'beta': 3.0, 'alpha': 0.3}
        >>> bool(state.weights[1] > 0.7)
        True

    References:
        Jiang, Zhou, Feng, Malladi and Kolter, "Adaptive data optimization: dynamic sample selection with scaling laws"
        (ICLR 2025, arXiv:2410.11820), algorithm 1, with its ``gamma1 = gamma2 = 0.1``, ``s = 1/2`` and
        ``delta_min = 0.01``; that ``rhobar`` averages ``rho``, and that ``n`` may count all domains, is in the authors'
        code. Deviations:

        - The fit. Every 1,000 steps the authors fit all past losses, smoothed and every tenth of them, by a Huber loss
          of the logarithms with L-BFGS from a grid of starts. Here each update adds its losses to a least-squares fit
          of ``epsilon`` and ``beta`` for each of 31 exponents ``alpha`` = 0.05, 0.075, ..., 0.8, and the exponent of
          least error is taken. The state holds what this needs, some 130 numbers a domain however long the run is, and
          the fit is the exact least-squares fit of all losses since ``skip``. It is not robust against single losses
          far off, and ``alpha`` is known to a grid step. ``epsilon`` is not bounded below. A law that rises counts as
          flat.
        - ``h`` follows the weights, as in the paper. The authors' code has the shares of the batch there, and applies
          ``delta_min`` to ``rho``.
    """
    check_range("gamma1", gamma1, 0.0, 1.0)
    check_range("gamma2", gamma2, 0.0, 1.0)
    check_range("s", s, 0.0)
    check_range("delta_min", delta_min, 0.0, 1.0)
    check_integer("warmup", warmup, 0)
    check_integer("skip", skip, 0)
    check_choice("count", count, ("domain", "total"))

    def init(prior):
        prior = as_simplex("prior", prior)
        zeros, zero = jnp.zeros_like(prior), jnp.zeros((), jnp.int32)
        # Made of the prior, so that on a mesh with Explicit axes they are placed as it is.
        table = zeros[:, None] * jnp.zeros((1, len(_EXPONENTS)), jnp.float32)
        return first_state(
            ScalingLawState,
            prior,
            credit=prior,
            preference=prior,
            num_examples=zeros,
            rounding=zeros,
            num_losses=zeros,
            mean_loss=zeros,
            mean_powers=table,
            spreads=table,
            slopes=table,
            errors=table,
            step=zero,
        )

    def update(state, *, counts, losses, **signals):
        del signals
        seen, losses = read_signals(state, counts, losses=losses)
        counted = placed_like(jnp.asarray(counts).astype(jnp.float32), state.prior)
        new_examples = jnp.where(seen, counted, 0.0)
        if count == "total":
            new_examples = jnp.where(state.prior > 0, new_examples.sum(), 0.0)
        new = _with_examples(state, new_examples)
        fitted = seen & (state.step >= jnp.asarray(skip, jnp.int32))
        new = _with_losses(new, fitted, losses)

        rate1, rate2 = jnp.asarray(gamma1, jnp.float32), jnp.asarray(gamma2, jnp.float32)
        step = state.step + jnp.any(seen).astype(jnp.int32)
        credit = (1.0 - rate1) * state.credit + rate1 * state.weights
        rho = _preferences(new, credit, jnp.asarray(s, jnp.float32))
        policy = rate2 * rho + (1.0 - rate2) * state.preference
        policy = jnp.where(state.prior > 0, jnp.maximum(policy, jnp.asarray(delta_min, jnp.float32)), 0.0)

        # An update that saw no domain is not a step.
        moves = jnp.any(seen) & (step > jnp.asarray(warmup, jnp.int32))
        mean = state.preference + (rho - state.preference) / (step.astype(jnp.float32) + 1.0)
        new = new._replace(
            weights=jnp.where(moves, policy / policy.sum(), state.weights),
            credit=jnp.where(moves, credit, state.credit),
            preference=jnp.where(moves, mean, state.preference),
            step=step,
        )
        return if_news(counts, new, state, seen)

    return WeightRule(init, update)


def scaling_law(state: ScalingLawState) -> dict[str, jax.Array]:
    """Reads the fitted law ``epsilon + beta * n ** -alpha`` of each domain's loss from a state of :func:`ado`.

    Args:
        state: the rule's state.

    Returns:
        ``{"epsilon": ..., "beta": ..., "alpha": ...}``, float32 ``[D]`` each; infinity for domains of fewer than three
        losses.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.ado(skip=0)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> for t in range(1, 31):
        ...     losses = jnp.array([2.0 + t**-0.5, 1.0 + 3.0 * t**-0.2])
        ...     state = rule.update(state, counts=jnp.array([1, 1]), losses=losses)
        >>> mixjax.rules.scaling_law(state)["alpha"].round(2).tolist()
        [0.5, 0.2]
    """
    known = _has_law(state)
    law = dict(zip(("epsilon", "beta", "alpha"), _best(state), strict=True))
    return {name: jnp.where(known, value, UNKNOWN) for name, value in law.items()}


def _has_law(state):
    return state.num_losses >= 3


def _best(state):
    """Returns intercept, slope and exponent of the regression of least error."""
    best = jnp.argmin(state.errors, axis=1)[:, None] == jnp.arange(len(_EXPONENTS))[None, :]

    def of_best(table):
        # A sum over one entry, since indexing by an array needs to be told its sharding on a mesh of Explicit axes.
        return jnp.where(best, table, 0.0).sum(axis=1)

    beta = of_best(state.slopes)
    epsilon = state.mean_loss - bounded(beta * of_best(state.mean_powers))
    return epsilon, beta, of_best(jnp.broadcast_to(_EXPONENTS[None, :], best.shape))


def _preferences(state, credit, s):
    """Computes ``rho``: the prior times the credit to the power ``s`` times the slope of the law."""
    known = _has_law(state)
    _, beta, alpha = _best(state)
    # A sum of logarithms, because n^(-alpha - 1) of 1e12 tokens times a small slope leaves float32.
    log_size = jnp.log(jnp.where(beta > 0, alpha * beta, 1.0))
    log_speed = jnp.where(beta > 0, log_size - (alpha + 1.0) * _log(state.num_examples), -jnp.inf)
    log_credit = bounded(s * jnp.log(jnp.maximum(credit, jnp.finfo(jnp.float32).tiny)))
    return share(state.prior, jnp.log(state.prior) + log_credit + log_speed, known)


def _with_examples(state, new_examples):
    """Adds to the numbers of examples, with the part of the sum that float32 rounds off kept for the next time.

    Batches of 1,000 tokens would otherwise stop counting at 3e10 of them.
    """
    addend = new_examples + state.rounding
    total = jnp.minimum(state.num_examples + addend, HUGE)
    return state._replace(num_examples=total, rounding=bounded(addend - (total - state.num_examples)))


def _with_losses(state, rows, losses):
    """Adds one loss for each of ``rows`` to the regressions of the loss on ``n ** -alpha``, one for each exponent.

    Moments about the mean, slopes and errors are updated rather than sums of squares. A residual that is computed as
    the difference of two such sums would have no correct digits in float32.
    """
    powers = jnp.exp(-_EXPONENTS[None, :] * _log(state.num_examples)[:, None])
    number = state.num_losses + 1.0
    gain = (state.num_losses / number)[:, None]
    ahead = powers - state.mean_powers
    above = bounded(losses, _MAX_MISS) - state.mean_loss
    miss = bounded(above[:, None] - bounded(state.slopes * ahead, _MAX_MISS), _MAX_MISS)
    spreads = state.spreads + gain * ahead * ahead
    # The first loss has nothing to be compared with, and 0 / 0 would be NaN.
    divisor = jnp.where(spreads > 0, spreads, 1.0)
    new = state._replace(
        num_losses=number,
        mean_loss=state.mean_loss + above / number,
        mean_powers=state.mean_powers + ahead / number[:, None],
        spreads=spreads,
        slopes=bounded(state.slopes + bounded(gain * ahead * miss) / divisor),
        errors=bounded(state.errors + gain * jnp.square(miss) * (state.spreads / divisor), 1e37),
    )

    def of_rows(new, old):
        return jnp.where(rows.reshape(-1, *[1] * (old.ndim - 1)), new, old) if old.ndim else new

    return jax.tree.map(of_rows, new, state)


def _log(num_examples):
    # Rows never seen have no example, and a row of counts below 1 would have a power above 1.
    return jnp.log(jnp.maximum(num_examples, 1.0))
