"""Implements DoReMi: steps towards the domains of largest excess loss (Xie et al., 2023)."""

from __future__ import annotations

import warnings

import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_range
from mixjax.rules.base import (
    HUGE,
    fall_below_largest,
    first_state,
    if_news,
    log_weights,
    masked_softmax,
    read_signals,
    total_of,
    with_weights,
)
from mixjax.rules.states import LogWeightState
from mixjax.types import WeightRule

__all__ = ["doremi"]


def doremi(
    step_size: ArrayLike = 1.0,
    *,
    floor: ArrayLike | None = None,
    max_log_step: ArrayLike = 5.0,
    smoothing: ArrayLike | None = None,
) -> WeightRule:
    r"""Makes loss weights climb towards the domains where the model is furthest above a reference model.

    .. math:: \lambda_d = \max(L_d - L^{ref}_d, 0), \qquad
              c_d \leftarrow (1 - s) \, c_d \exp(\eta \lambda_d) / Z + s \, \pi_d

    ``L`` is ``losses``, ``L^ref`` is ``reference_losses`` on the same examples, ``eta`` is ``step_size``, and ``pi`` is
    the ``prior``. ``s`` is ``floor``, the share of the prior that is mixed in. The next step starts from the mixed
    weights. ``c`` starts at the prior.

    DoReMi has three stages, and the cost of all three is its cost: a reference model trained on the prior, a proxy
    model of that size trained with these weights, and the large model, trained with the *mean of the weights over the
    proxy's run*.

    What users of the authors' code met, and what happens here:

    - *Weights near one-hot.* A domain whose excess stays above the others' by ``x`` ends with the share
      ``1 - (1 - pi) s / (eta x)`` where ``eta x`` is far above ``s``, and near its prior where it is far below. The
      defaults are the paper's, so an excess of 0.1 is enough. With few examples of each domain in a batch, noise does
      the same to the weights of single updates, but not to their mean. The cures are a smaller ``step_size`` (0.1), a
      larger ``floor`` (0.01), larger batches, and a reference model trained on the prior: trained on a uniform mix it
      fits small domains by heart, whose excess then stays. :func:`mixjax.rules.effective_domains` of
      ``state.weights`` shows it: look into values under 2. A domain that the batch lacks keeps its weight.
    - *Which weights the reference model is trained on.* Any, if the proxy's run starts there: give them as the prior.
      That is where weights with no excess anywhere stay, and what ``s`` mixes in.
    - *Rounds that do not settle.* The paper repeats the stages, the mean weights being the next prior, until no weight
      moves by more than 1e-3. Users saw weights go up and down by several hundredths after three rounds, and other
      weights from another tokenizer or size of proxy. Nothing here repeats or stops by itself. Take one round, compare
      its weights over seeds, and do not carry weights over to another tokenizer.

    Args:
        step_size: non-negative scalar, in 1 / loss.
        floor: scalar in [0, 1], the share of the prior in the weights; the paper's smoothing parameter. None is 1e-3.
        max_log_step: positive scalar, a bound on how far one step moves the logs of two weights apart.
        smoothing: the former name of ``floor``, deprecated.

    Signals:
        losses: mean losses ``[D]``.
        reference_losses: mean losses ``[D]`` of the reference model, on the same examples.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.LogWeightState`. Rows not seen keep
        their ``c_d``.

    Raises:
        ValueError: ``step_size`` is negative, ``floor`` is outside [0, 1], or ``max_log_step`` is not positive.
        TypeError: both ``floor`` and ``smoothing`` are given.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.doremi(jnp.log(3.0), floor=0.0)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> signals = dict(losses=jnp.array([2.0, 3.0]), reference_losses=jnp.array([5.0, 2.0]))
        >>> rule.update(state, counts=jnp.array([9, 9]), **signals).weights.tolist()
        [0.25, 0.75]

    References:
        Xie et al., "DoReMi: optimizing data mixtures speeds up language model pretraining" (NeurIPS 2023), algorithm 1,
        with its step size 1 and smoothing 1e-3. Deviations: the excess is clipped at 0 for a domain's mean, where the
        paper clips each token's; ``c`` starts at the prior and is smoothed towards it, not towards ``1 / D``; exponents
        are taken relative to the largest, which ``Z`` cancels, and clipped at ``max_log_step`` below it.
    """
    if smoothing is not None:
        warnings.warn("doremi(smoothing=) is deprecated, its name is floor=.", DeprecationWarning, stacklevel=2)
        if floor is not None:
            raise TypeError("doremi takes floor or its former name smoothing, got both.")
        floor = smoothing
    floor = 1e-3 if floor is None else floor
    check_range("step_size", step_size, 0.0)
    check_range("floor", floor, 0.0, 1.0)
    check_positive("max_log_step", max_log_step)

    def init(prior):
        prior = as_simplex("prior", prior)
        return first_state(LogWeightState, prior, log_w=jnp.zeros_like(prior))

    def update(state, *, counts, losses, reference_losses, **signals):
        del signals
        seen, losses, reference = read_signals(state, counts, losses=losses, reference_losses=reference_losses)
        # The difference of two extreme losses may be infinite, so it is bounded above too.
        excess = jnp.clip(losses - reference, 0.0, HUGE)
        fall = fall_below_largest(excess, seen, step_size, max_log_step)

        s = jnp.asarray(floor, jnp.float32)
        # Both terms share out 1 among the rows seen, so their mixture does too, and rows not seen keep their weight.
        shares = (1.0 - s) * masked_softmax(log_weights(state) - fall, seen)
        shares += s * masked_softmax(jnp.log(state.prior), seen)
        weights = jnp.where(seen, total_of(state.weights, seen) * shares, state.weights)
        return if_news(counts, with_weights(state, weights, seen), state, seen)

    return WeightRule(init, update)
