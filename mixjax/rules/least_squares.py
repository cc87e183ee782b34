"""Generalised least squares and its feasible forms (paper 000, section 3.1)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_range
from mixjax.rules.base import if_news, masked_softmax, read_signals, share
from mixjax.types import WeightRule, WeightState

_MIN_LOSS = 1e-12


class FGLSState(NamedTuple):
    """State of :func:`fgls`.

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        losses: float32 ``[D]``, each domain's last seen mean squared residual.
        seen: bool ``[D]``, whether there has been one.
    """

    weights: jax.Array
    prior: jax.Array
    losses: jax.Array
    seen: jax.Array


class OneShotFGLSState(NamedTuple):
    """State of :func:`one_shot_fgls`.

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        log_w: float32 ``[D]``, log of the paper's raw w; its absolute scale matters where ``gamma < 1``.
        seen: bool ``[D]``, whether the domain has ever been seen.
    """

    weights: jax.Array
    prior: jax.Array
    log_w: jax.Array
    seen: jax.Array


def gls(variances: ArrayLike) -> WeightRule:
    r"""Aitken's weights for known noise variances: ``c_d ∝ prior_d / variances_d``.

    Args:
        variances: label-noise variance of each domain, ``[D]`` or a scalar, positive, in squared units of the label.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.types.WeightState`. Signals: none.

    Raises:
        ValueError: a variance that is not positive and finite, or a shape that does not match the prior's.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> mixjax.rules.gls([1.0, 20.0]).init(jnp.array([0.5, 0.5])).weights.tolist()
        [0.952, 0.048]

    References:
        Paper 000 (Salmani et al., "Sampling and Loss Weights in Multi-Domain Training"), theorem 3.1 and
        corollary 3.2, eq. 9. The corollary is optimal where the prior is proportional to the domains' sizes: since
        eq. 2 takes a mean over each domain, ``c_d`` proportional to ``|S_d| / sigma_d²`` is Aitken's weighting of the
        examples in general, so pass the sizes as the prior to get it.
    """
    check_positive("variances", variances)
    check_range("variances", variances, jnp.finfo(jnp.float32).tiny, jnp.finfo(jnp.float32).max)
    variances = jnp.asarray(variances, jnp.float32)

    def init(prior):
        prior = as_simplex("prior", prior)
        if variances.shape not in ((), prior.shape):
            raise ValueError(f"variances must be a scalar or have shape {prior.shape}, got {variances.shape}.")
        log_scores = jnp.log(prior) - jnp.log(variances)
        return WeightState(masked_softmax(log_scores, prior > 0), prior)

    def update(state, *, counts, **signals):
        del counts, signals
        return state

    return WeightRule(init, update)


def fgls(*, min_loss: ArrayLike = _MIN_LOSS) -> WeightRule:
    r"""Feasible GLS: the known variances of :func:`gls` replaced by mean squared residuals.

    .. math:: c_d \propto \pi_d / \hat\sigma_d^2, \qquad
              \hat\sigma_d^2 = \frac{1}{|S_d|} \sum_{(x, y) \in S_d} (\hat\theta^\top x - y)^2

    ``pi`` is the ``prior`` and ``sigma_d^2`` is ``losses[d]``, the mean squared residual of a model already trained.
    Updated once after an unweighted fit and used for a second fit this is two-stage FGLS; updated after every fit it is
    iterated FGLS; ``freeze_after(fgls(), k)`` stops it after ``k`` rounds. Residuals of points that were fitted exactly
    vanish (more parameters than points), and the weights then say nothing: the paper's reason for
    :func:`one_shot_fgls`.

    Args:
        min_loss: positive scalar; smaller losses count as this, so that ``1 / loss`` stays finite.

    Signals:
        losses: mean squared residuals ``[D]``, non-negative.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`FGLSState`.

    Raises:
        ValueError: ``min_loss`` not positive and finite.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.fgls()
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([1.0, 3.0])).weights.tolist()
        [0.75, 0.25]

    References:
        Paper 000, section 3.1, eq. 10. Deviation: the floor ``min_loss``.
    """
    _check_floor(min_loss)

    def init(prior):
        prior = as_simplex("prior", prior)
        return FGLSState(prior, prior, jnp.ones_like(prior), jnp.zeros(prior.shape, bool))

    def update(state, *, counts, losses, **signals):
        del signals
        now, losses = read_signals(state, counts, losses=losses)
        losses, seen = jnp.where(now, losses, state.losses), state.seen | now
        floored = jnp.maximum(losses, jnp.asarray(min_loss, jnp.float32))
        log_scores = jnp.log(state.prior) - jnp.log(floored)
        return if_news(counts, FGLSState(share(state.prior, log_scores, seen), state.prior, losses, seen), state)

    return WeightRule(init, update)


def one_shot_fgls(gamma: ArrayLike = 1.0, *, min_loss: ArrayLike = _MIN_LOSS) -> WeightRule:
    r"""One-shot FGLS: the inverse held-out loss, smoothed while the model trains.

    .. math:: w_d \leftarrow (1 - \gamma) w_d + \gamma / L_d, \qquad c_d \propto \pi_d w_d

    ``L_d`` is ``losses[d]``, the mean squared error on held-out points, ``pi`` the ``prior``; raw ``w`` starts at 1 and
    keeps its absolute scale, so with ``gamma < 1`` the first updates mix 1 with ``1 / loss`` as the paper's line does.
    The weights should wait until the first estimates are worth something: see :func:`mixjax.rules.every` and its
    ``start``.

    Args:
        gamma: scalar in [0, 1]; 1 forgets the past.
        min_loss: positive scalar; smaller losses count as this.

    Signals:
        losses: mean held-out losses ``[D]``, non-negative.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`OneShotFGLSState`. A row not seen keeps its raw ``w``; a row
        never seen keeps its prior share, since its ``w = 1`` is on no scale comparable with the others' ``1 / loss``.

    Raises:
        ValueError: ``gamma`` outside [0, 1] or ``min_loss`` not positive and finite.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.one_shot_fgls(gamma=0.5)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> state = rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([0.5, 1.0]))
        >>> jnp.exp(state.log_w).tolist(), state.weights.tolist()
        ([1.5, 1.0], [0.6, 0.4])

    References:
        Paper 000, algorithm 1, line 11 (the text calls it line 16). Deviations: the floor ``min_loss``; domains never
        seen keep their prior share.
    """
    check_range("gamma", gamma, 0.0, 1.0)
    _check_floor(min_loss)

    def init(prior):
        prior = as_simplex("prior", prior)
        return OneShotFGLSState(prior, prior, jnp.zeros_like(prior), jnp.zeros(prior.shape, bool))

    def update(state, *, counts, losses, **signals):
        del signals
        now, losses = read_signals(state, counts, losses=losses)
        rate = jnp.asarray(gamma, jnp.float32)
        log_losses = jnp.log(jnp.maximum(losses, jnp.asarray(min_loss, jnp.float32)))
        moved = jnp.logaddexp(jnp.log1p(-rate) + state.log_w, jnp.log(rate) - log_losses)
        log_w, seen = jnp.where(now, moved, state.log_w), state.seen | now
        weights = share(state.prior, jnp.log(state.prior) + log_w, seen)
        return if_news(counts, OneShotFGLSState(weights, state.prior, log_w, seen), state)

    return WeightRule(init, update)


def _check_floor(min_loss):
    """A floor whose reciprocal float32 holds."""
    check_positive("min_loss", min_loss)
    check_range("min_loss", min_loss, jnp.finfo(jnp.float32).tiny, jnp.finfo(jnp.float32).max)
