"""Implements Aioli: measures how drawing each domain lowers each loss, and climbs by it (Chen et al., 2024)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_integer, check_positive, check_range
from mixjax.meshes import spec_of, with_auto_axes
from mixjax.rules.base import (
    HUGE,
    bounded,
    fall_below_largest,
    first_state,
    if_news,
    log_ratio,
    masked_softmax,
    read_signals,
)
from mixjax.rules.states import MixingLawState
from mixjax.types import WeightRule

__all__ = ["aioli"]


def aioli(
    step_size: ArrayLike = 0.2,
    *,
    rounds: ArrayLike = 4,
    hold: ArrayLike = 50,
    epsilon: ArrayLike = 0.25,
    decay: ArrayLike = 0.0,
    restart: bool = False,
    max_log_step: ArrayLike = 5.0,
) -> WeightRule:
    r"""Makes sampling weights by a linear law of how each domain's share lowers each loss, measured by probe mixtures.

    .. math:: L_i^{t+1} = L_i^t - \sum_j A_{ij} q_j, \qquad
              \bar A \leftarrow \gamma \bar A + (1 - \gamma) \frac{A - \min(A, 0)}{\sum_{ij} (A - \min(A, 0))_{ij}},
              \qquad p_j \leftarrow p_j \exp\Bigl(\eta \sum_i \bar A_{ij}\Bigr) / Z

    ``L`` is ``losses``, ``q`` is ``state.weights``, ``p`` is ``state.mixture``, ``eta`` is ``step_size``, and ``gamma``
    is ``decay``. ``q`` and ``p`` start at the prior.

    An update ends a *window*: the training steps since the last update, in which batches were drawn by ``q``. Windows
    take turns:

    - ``hold`` windows of the mixture, ``q = p``. The losses after the last of them are what the first probe starts
      from. The first window of a run is one of these.
    - ``rounds`` *probes* of each domain ``j`` of positive prior, windows of ``q = (1 - epsilon) e_j + epsilon pi``. By
      how much each loss falls in them tells the law. After the last one ``A`` is solved for, and ``p`` takes its step.

    So the weights jump from probe to probe. Update every few training steps (the authors have 4 to 10 in a window), and
    where a loader takes on new weights with a lag, make windows much longer than that. One estimate costs
    ``rounds * D`` windows, which suits tens of domains.

    Args:
        step_size: non-negative scalar. Each row of ``A`` sums to about ``1 / D``, so it has no unit.
        rounds: number of probes of each domain in an estimate, an integer of at least 1. The order is from the largest
            prior to the smallest and back, by turns, so an even number cancels a steady slowing down of the training.
        hold: number of windows of the mixture between two estimates, an integer of at least 1.
        epsilon: scalar in [0, 1), the share of the prior in a probe.
        decay: scalar in [0, 1], the weight of the older estimates in the moving average of ``A``.
        restart: True takes each step from the prior, as the authors' code does where it averages ``A``: the weights
            then stay within ``exp(step_size)`` of the prior. False goes on from the last mixture.
        max_log_step: positive scalar, a bound on how far one step moves the logs of two weights apart.

    Signals:
        losses: mean losses ``[D]`` on held-out examples, measured at the end of the window.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.MixingLawState`, of size ``D²``. A domain
        whose loss was not seen in one of the windows of an estimate keeps its old row of ``A`` (zeros before the
        first).

    Raises:
        ValueError: ``step_size`` is negative, ``rounds`` or ``hold`` is not an integer of at least 1, ``epsilon`` is
            outside [0, 1), ``decay`` is outside [0, 1], or ``max_log_step`` is not positive.

    Example:
        What is drawn of the second domain lowers the losses of both:

        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.aioli(jnp.log(3.0), rounds=1, hold=1)
        >>> state, losses = rule.init(jnp.array([0.5, 0.5])), jnp.array([4.0, 4.0])
        >>> for window in range(3):
        ...     state = rule.update(state, counts=jnp.array([9, 9]), losses=losses)
        ...     losses -= jnp.array([[0.0, 0.2], [0.0, 0.2]]) @ state.weights
        ...     print(state.weights.round(3).tolist())
        [0.875, 0.125]
        [0.125, 0.875]
        [0.25, 0.75]

    References:
        Chen, Hu, Lourie, Cho and Ré, "Aioli: a unified optimization framework for language model data mixing" (ICLR
        2025, arXiv:2411.05735), algorithms 1 and 2; the normalisation of ``A`` and its moving average are in the
        authors' code. Their settings: ``step_size`` 0.1 to 1, ``rounds`` 2 or 4, ``decay`` 0.1 or 0.5 with
        ``restart``, and a share of the domain in its probe of 0.625 to 0.75. Deviations: ``p`` starts at the prior, and
        a probe mixes it in, where they have ``1 / D``; the order of the probes goes to and fro, where theirs is drawn;
        exponents are clipped at ``max_log_step`` below the largest.
    """
    check_range("step_size", step_size, 0.0)
    check_integer("rounds", rounds, 1)
    check_integer("hold", hold, 1)
    # The largest float32 below 1: at 1 all probes are the prior, and nothing can be told from them.
    check_range("epsilon", epsilon, 0.0, 1.0 - 2.0**-24)
    check_range("decay", decay, 0.0, 1.0)
    check_positive("max_log_step", max_log_step)

    def init(prior):
        prior = as_simplex("prior", prior)
        zeros = jnp.zeros_like(prior)
        # Made of the prior, so that on a mesh with Explicit axes its rows are placed as the prior is.
        table = zeros[:, None] * jnp.zeros((1, prior.size), jnp.float32)
        nothing = zeros > 0
        return first_state(
            MixingLawState,
            prior,
            mixture=prior,
            law=table,
            measured=nothing,
            losses=zeros,
            drops=table,
            complete=nothing,
            probes=zeros.astype(jnp.int32),
            left=jnp.ones((), jnp.int32),
        )

    def update(state, *, counts, losses, **signals):
        del signals
        seen, losses = read_signals(state, counts, losses=losses)
        # On a mesh with Explicit axes the rows and columns of a matrix cannot both be placed as the prior is.
        new = with_auto_axes(after_window, jax.tree.map(spec_of, state))(state, seen, losses)
        return if_news(counts, new, state, seen)

    def after_window(state, seen, losses):
        probing = state.left == 0
        probed = _next_probe(state) & probing
        losses = jnp.where(seen, bounded(losses), state.losses)
        drop = jnp.where(seen & state.complete, state.losses - losses, 0.0)
        probes = state.probes + probed.astype(jnp.int32)
        ended = state._replace(
            losses=losses,
            drops=bounded(state.drops + jnp.where(probed[None, :], drop[:, None], 0.0)),
            probes=probes,
            # An estimate begins with the losses after the mixture's last window.
            complete=seen & (state.complete | ~probing),
            left=jnp.maximum(state.left - 1, 0),
        )
        enough = (state.prior == 0) | (probes >= jnp.asarray(rounds, jnp.int32))
        done = probing & jnp.all(enough)
        new = jax.tree.map(lambda a, b: jnp.where(done, a, b), stepped(ended), ended)
        new = new._replace(weights=jnp.where(new.left == 0, probe(new), new.mixture))
        # A window of which nothing is known is drawn again, and spoils the estimate that it belongs to.
        nothing = state._replace(complete=jnp.zeros_like(seen))
        return jax.tree.map(lambda a, b: jnp.where(jnp.any(seen), a, b), new, nothing)

    def probe(state):
        e = jnp.asarray(epsilon, jnp.float32)
        return (1.0 - e) * _next_probe(state).astype(jnp.float32) + e * state.prior

    def stepped(state):
        """Ends an estimate: solves for the law, moves the mixture, and begins to hold it."""
        fresh = _normalised(_solved(state, jnp.asarray(epsilon, jnp.float32)), state)
        old_share = jnp.where(state.measured, jnp.asarray(decay, jnp.float32), 0.0)[:, None]
        law = jnp.where(state.complete[:, None], old_share * state.law + (1.0 - old_share) * fresh, state.law)

        there = state.prior > 0
        fall = fall_below_largest(law.sum(axis=0), there, step_size, max_log_step)
        start = jnp.log(state.prior)
        if not restart:
            # A weight of zero comes back from the least log that the ratio has.
            start += jnp.where(there, log_ratio(state.mixture, state.prior), 0.0)
        return state._replace(
            mixture=masked_softmax(start - fall, there),
            law=law,
            measured=state.measured | state.complete,
            drops=jnp.zeros_like(state.drops),
            probes=jnp.zeros_like(state.probes),
            left=jnp.zeros_like(state.left) + jnp.asarray(hold, jnp.int32),
        )

    return WeightRule(init, update)


def _next_probe(state):
    """Marks the domain to probe next: of those with the fewest probes, the largest or, in every other round, smallest.

    The number of probes by domain, and no step of a cycle, says where an estimate stands. So it stays right where
    domains are added in the middle.
    """
    there = state.prior > 0
    fewest = jnp.where(there, state.probes, jnp.iinfo(jnp.int32).max).min()
    open_to = there & (state.probes == fewest)
    forth = jnp.argmax(jnp.where(open_to, state.prior, -1.0))
    # Among equal priors the last one, so that the way back is the way forth reversed.
    back = state.prior.size - 1 - jnp.argmin(jnp.flip(jnp.where(open_to, state.prior, 2.0)))
    return jnp.arange(state.prior.size) == jnp.where(fewest % 2 == 0, forth, back)


def _solved(state, e):
    """Solves ``drops_ij = sum_k A_ik probe_jk`` for ``A``, where ``probe_j = (1 - e) e_j + e pi``.

    Multiplied by ``pi_j`` and summed, the equation says that ``sum_k A_ik pi_k`` is the mean drop under the prior.
    """
    drops = state.drops / jnp.maximum(state.probes, 1).astype(jnp.float32)[None, :]
    mean_drop = jnp.sum(drops * state.prior[None, :], axis=1, keepdims=True)
    return (drops - e * mean_drop) / jnp.maximum(1.0 - e, jnp.finfo(jnp.float32).eps)


def _normalised(law, state):
    """Shifts the law to be non-negative and scales it to sum to 1; rows that were not measured are left out of it."""
    there = state.prior > 0
    entries = (state.complete & there)[:, None] & there[None, :]
    # Scaled before the sums, which could leave float32.
    law = jnp.where(entries, bounded(law), 0.0)
    law = law / jnp.maximum(jnp.abs(law).max(), 1.0 / HUGE)
    # XLA may compute the least entry twice, with other roundings, and leave one of -1e-10.
    law = jnp.where(entries, jnp.maximum(law - jnp.minimum(law.min(), 0.0), 0.0), 0.0)
    measured = jnp.sum(entries, dtype=jnp.float32) / jnp.maximum(jnp.square(jnp.sum(there, dtype=jnp.float32)), 1.0)
    return law * (measured / jnp.maximum(law.sum(), jnp.finfo(jnp.float32).tiny))
