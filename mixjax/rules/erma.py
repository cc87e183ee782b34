"""ERMA, loss weights aware of empirical risk minimisation's generalisation gap (paper 000, section 3.2)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_range
from mixjax.rules.base import HUGE, MAX_LOG_W, if_news, log_ratio, read_signals, share
from mixjax.types import WeightRule


class ERMAState(NamedTuple):
    """State of :func:`erma`.

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        log_w: float32 ``[D]``, log of the paper's raw w.
    """

    weights: jax.Array
    prior: jax.Array
    log_w: jax.Array


def erma(
    gamma1: ArrayLike = 0.01,
    gamma2: ArrayLike = 0.05,
    *,
    normalised: bool = True,
    max_log_step: ArrayLike = 5.0,
) -> WeightRule:
    r"""Mirror descent on a variance-based bound of the generalisation gap.

    .. math:: w_d \leftarrow w_d \exp(\gamma_1 \pi_d G L_d - \gamma_2 \pi_d w_d V_d), \qquad
              G = \sum_j \pi_j (1 - w_j) L_j, \qquad c_d \propto \pi_d w_d

    ``pi`` is the ``prior``, ``L`` the ``losses``, ``V`` the ``loss_vars``. The second term takes weight from domains
    whose loss varies; the first, by the sign of ``G``, gives it to domains of high or of low loss.

    Args:
        gamma1: non-negative scalar, in 1 / loss². ``4 * step_size`` of mirror descent on the bound's first term.
        gamma2: non-negative scalar, in 1 / loss². With ``gamma2 = 0``, ``w = 1`` never moves: ``G`` is 0 there.
        normalised: rescale ``w`` after each step to prior-mean 1, i.e. ``w_d = c_d / pi_d``: the scale on which
            ``1 - w`` is centred. (With a prior that is not uniform, its fixed point equalises the bound's partial
            derivatives, which is not the bound's minimum on the simplex.) ``False`` is the literal recursion without
            the proportionality, whose fixed point is the minimiser of the bound, ``w_d`` proportional to
            ``L_d / V_d``; only its reading ``c`` is normalised, and a row not seen follows the others' scale.
        max_log_step: positive scalar; bound on the exponent's absolute value.

    Signals:
        losses: mean losses ``[D]``.
        loss_vars: variances of the loss ``[D]``, non-negative.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`ERMAState`. Rows not seen keep their ``c_d``, and ``G`` sums
        over the seen ones.

    Raises:
        ValueError: a negative ``gamma1`` or ``gamma2``, or a ``max_log_step`` that is not positive.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.erma(gamma1=0.0, gamma2=2.0)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> signals = dict(losses=jnp.array([1.0, 1.0]), loss_vars=jnp.array([0.0, jnp.log(3.0)]))
        >>> rule.update(state, counts=jnp.array([9, 9]), **signals).weights.tolist()
        [0.75, 0.25]

    References:
        Paper 000, eq. 11-12 and appendix B, where ``gamma1 = 4 eta`` (the printed "4 eta pi" counts the prior twice)
        and ``gamma2 = 2 C eta / |V|``, with ``|V_d| = pi_d |V|``. Deviations: the exponent is clipped to
        ``±max_log_step`` and raw ``w`` is kept within ``exp(±80)``, since for losses of 1e3 the literal recursion
        reaches 0 (absorbing) or 0/0 in one step.
    """
    check_range("gamma1", gamma1, 0.0)
    check_range("gamma2", gamma2, 0.0)
    check_positive("max_log_step", max_log_step)

    def init(prior):
        prior = as_simplex("prior", prior)
        return ERMAState(prior, prior, jnp.zeros_like(prior))

    def update(state, *, counts, losses, loss_vars, **signals):
        del signals
        seen, losses, loss_vars = read_signals(state, counts, losses=losses, loss_vars=loss_vars)
        rate1, rate2 = jnp.asarray(gamma1, jnp.float32), jnp.asarray(gamma2, jnp.float32)
        bound = jnp.asarray(max_log_step, jnp.float32)
        pi, w = state.prior, jnp.exp(state.log_w)

        gap = jnp.clip(jnp.sum(pi * (1.0 - w) * losses), -HUGE, HUGE)
        slope, brake = (jnp.clip(x, -HUGE, HUGE) for x in (rate1 * pi * gap, rate2 * pi * w))
        gain, cost = (jnp.clip(x, -HUGE, HUGE) for x in (slope * losses, brake * loss_vars))
        step = jnp.clip(gain - cost, -bound, bound)

        log_w = jnp.clip(state.log_w + jnp.where(seen, step, 0.0), -MAX_LOG_W, MAX_LOG_W)
        weights = share(state.weights, jnp.log(pi) + log_w, seen)
        if normalised:
            log_w = jnp.where(seen, log_ratio(weights, pi), state.log_w)
        else:  # rows not seen keep their c, so their raw w follows the total of the others
            logs = (jnp.where(seen, jnp.log(pi) + x, -jnp.inf) for x in (state.log_w, log_w))
            before, after = map(jax.nn.logsumexp, logs)
            follow = jnp.where(jnp.any(seen), after - before, 0.0)
            log_w = jnp.clip(jnp.where(seen, log_w, log_w + follow), -MAX_LOG_W, MAX_LOG_W)
        return if_news(counts, ERMAState(weights, pi, log_w), state)

    return WeightRule(init, update)
