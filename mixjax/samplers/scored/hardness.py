"""Samples examples by how hard they are (paper 004, algorithm 1), or in proportion to a positive score."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import check_non_negative
from mixjax.samplers.scored.checks import LARGEST
from mixjax.samplers.scored.levels import Nodes
from mixjax.samplers.scored.placement import functions
from mixjax.samplers.scored.sampler import ScoredSampler
from mixjax.samplers.scored.types import ExampleSampler

__all__ = ["hardness", "proportional"]


def hardness(
    n: int,
    beta: ArrayLike,
    *,
    prior: ArrayLike | None = None,
    replacement: bool = True,
    decay: ArrayLike = 0.0,
    floor: ArrayLike | None = None,
    clip: tuple[ArrayLike, ArrayLike] = (0.1, 10.0),
    fanout: int = 8,
    axis_name: str | None = None,
    growing: bool = False,
) -> ExampleSampler:
    r"""Draws examples in proportion to the exponential of their stale loss: hardness weighted sampling.

    .. math:: p_i \propto \pi_i \exp(\beta L_i), \qquad L_i \leftarrow m L_i + (1 - m) \, \ell_i
              \text{ for the examples of the batch}

    ``L`` is ``state.values``, the stored loss of each example. It is refreshed only when the example is drawn, so it is
    *stale*, whatever the augmentation under which it was seen. ``π`` is ``prior`` and ``m`` is ``decay``.
    A draw and an update of a batch of ``B`` touch O(B log n) numbers.
    ``beta = 0`` gives the prior, exactly. An infinite ``beta`` counts as 1e30 and gives the prior on the largest stale
    losses.

    One step of algorithm 1::

        indices, _ = sampler.sample(state, key, batch_size)
        losses = ...                                                # [B], the forward pass
        w = sampler.importance_weights(state, indices, losses)      # optional; without it, w = 1
        grads = ...                                                 # of mean(w * losses), with w held fixed
        state = sampler.update(state, indices, losses)

    *With replacement* the draws are independent, as in algorithm 1 and lemma 3.2: an unweighted batch mean estimates
    ``E_p[loss]``. From ``beta = 10`` on, draws pile up on few examples and the other losses go stale.

    *Without replacement* the examples of a batch are distinct, each next one drawn from ``p`` among those left, as the
    authors' code does. Training is steadier, but the unweighted batch mean is not ``E_p[loss]``. It becomes an
    estimate of ``E_p[loss]`` if each loss is multiplied by ``weights * p / prior``. (Where ``beta`` times a difference
    of losses exceeds about 1e7, float32 loses the random part, and examples that tie below the hardest are taken in
    order.)

    Args:
        n: number of examples, a Python integer; of this device's share where ``axis_name`` is given.
        beta: scalar in [0, inf], in 1 / loss: the robustness parameter.
        prior: ``[n]``, non-negative, normalised here; uniform if left out. An example of prior zero is never drawn.
        replacement: a Python bool, see above.
        decay: ``m``, scalar in [0, 1], the weight of the old loss.
        floor: scalar in [0, 1]; draws follow ``(1 - floor) p + floor prior``. None, the default, mixes nothing in and
            saves the sums of the prior. (The authors' code raises each probability to at least 1e-4 / n instead.)
        clip: lowest and highest importance weight of kind ``"clipped"``, the paper's ``w_min`` and ``w_max``.
        fanout: children of a node of the tree below its root, at least 2.
        axis_name: mesh axis over which the examples are split, under ``shard_map``, with or without ``check_vma``.
            Every device holds the state of its ``n`` examples, and its own part of ``prior`` and of the initial losses.
            ``indices`` are global and, like ``key`` and the batch's losses, the same on every device. Sampling needs
            one all-gather of O(B) numbers, and one more of two scalars with a floor.
        growing: a Python bool: whether examples come and go, as in a stream or in the ring of a replay buffer. ``n`` is
            then the number of slots, and ``insert`` fills them. A slot that is empty is never drawn. Where all slots
            are, indices have no meaning. It takes no ``prior``, and about ``2.6 n`` floats.

    Returns:
        An :class:`ExampleSampler` whose functions run under ``jit``, ``scan`` and ``vmap``; ``values`` are losses here:

        - ``init(values, key=None)``: takes a scalar for all, or ``[n]``. With a key, normal noise of a thousandth of
          the value is added, to break ties. Losses that are not finite count as the largest finite one.
        - ``sample(state, key, batch_size)``: returns int32 ``indices [B]`` and float32 ``weights [B]``, with which
          ``mean(weights * losses)`` estimates ``sum_i prior_i loss_i`` without bias, if ``p > 0`` where ``prior > 0``.
          Ignore the weights for the robust objective. They are ``prior / p`` with replacement. Without, they are
          ``B prior / P(drawn | threshold)``, the threshold being the perturbed log-probability of the first example
          left out. Where fewer than ``B`` examples can be drawn without replacement, the first is repeated with weight
          0.
        - ``update(state, indices, values)``: keeps out losses that are not finite, averages several of one example,
          caps magnitudes at 1e30, and ignores indices outside ``[0, n)``.
        - ``importance_weights(state, indices, values, kind="clipped")``: compares the refreshed batch with the history
          that it was drawn by.

          - ``"clipped"`` is ``exp(beta (L_new - L_old))`` within ``clip``.
          - ``"self_normalised"`` is the same divided by its batch mean, not clipped.
          - ``"tree"`` is the exact ratio ``p_new / p_old``, at most exp(80). ``p_new`` is the distribution after
            ``update``: this batch refreshed, the rest as stale as before, not ``softmax(beta L)`` of fresh losses.

          The first two take a ratio of 1 for a loss that is not finite, and ignore ``floor``.
        - ``log_probs(state, indices=None)``: returns the log-probabilities of one draw, ``[B]`` or, without indices,
          ``[n]``.
        - ``rebuild(state)``: computes the tree's sums anew, in O(n). To change ``beta``, make a sampler with the new
          one and call its ``rebuild`` on the old state. Do so rarely, since it costs 1 to 2 ns an example.
        - ``extend(state, values, key=None)``: takes over the state of a sampler of fewer examples, in O(n). The new
          examples come last and start with ``values`` as by ``init``. The old ones keep their losses. The prior is this
          sampler's: ``hardness(n + 2, beta).extend(state, 1.0)`` adds two examples.
        - ``remove(state, indices)``: takes over the state of a sampler of more examples, without those at ``indices``,
          outside ``jit``. The others keep their losses and their order, and count from 0 without a gap.
        - ``insert(state, indices, values, prior=1.0)``: of a ``growing`` sampler, in O(B log n). It puts examples into
          the slots at ``indices``, whatever these held, with a loss and a weight in the prior for each. A prior of 0
          empties the slot, and so does one below the least normal float32. Losses that are not finite count as the
          largest finite one of the batch. There, ``init(losses)`` fills the first slots and ``init([])`` none. A ring
          of ``n`` slots overwrites its oldest examples by ``insert(state, (start + jnp.arange(B)) % n, losses)``.

    Raises:
        ValueError: hyperparameters out of range; ``n`` below 1, or 2^31 and more; a prior or losses of another shape;
            ``batch_size`` below 1, or above ``n`` without replacement; an unknown ``kind``; concrete initial losses
            none of which is finite.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> sampler = mixjax.samplers.hardness(4, beta=1.0)
        >>> state = sampler.init(jnp.log(jnp.array([1.0, 1.0, 2.0, 4.0])))
        >>> jnp.exp(sampler.log_probs(state)).round(3).tolist()
        [0.125, 0.125, 0.25, 0.5]
        >>> indices, weights = sampler.sample(state, jax.random.key(0), 2)
        >>> state = sampler.update(state, jnp.array([3]), jnp.array([0.0]))
        >>> jnp.exp(sampler.log_probs(state)).round(3).tolist()
        [0.2, 0.2, 0.4, 0.2]

        A stream in three slots:

        >>> sampler = mixjax.samplers.hardness(3, beta=1.0, growing=True)
        >>> state = sampler.insert(sampler.init([]), jnp.array([0, 1]), jnp.log(jnp.array([1.0, 3.0])))
        >>> jnp.exp(sampler.log_probs(state)).round(3).tolist()
        [0.25, 0.75, 0.0]

    References:
        Paper 004, algorithm 1 and appendix 9. Deviations:

        - Eq. 13's exact ratio refreshes one example at a time, kind ``"tree"`` the batch; for ``B = 1`` they are the
          same.
        - The prior is ours.
        - The noise, ``floor`` and ``decay`` (called momentum there) are from the authors' code, not from the paper.
          With a decay, importance weights are those of the smoothed loss.
        - The paper says "without replacement" above eq. 51, but the equation itself draws independently.
        - ``clip`` defaults to the values of appendix 8.2.1.

        Weights without replacement: Kool, van Hoof and Welling, "Estimating gradients for discrete random variables by
        sampling without replacement", ICLR 2020, section 3.
    """
    check_non_negative("beta", beta)
    sampler = ScoredSampler(
        n,
        _score_of_loss,
        # The tree calls beta the heat. An infinite one times a difference of 0 would be NaN.
        jnp.minimum(jnp.asarray(beta, jnp.float32), LARGEST),
        prior=prior,
        replacement=replacement,
        decay=decay,
        floor=floor,
        clip=clip,
        fanout=fanout,
        axis_name=axis_name,
        growing=growing,
    )
    return functions(sampler)


def proportional(
    n: int,
    *,
    prior: ArrayLike | None = None,
    replacement: bool = True,
    decay: ArrayLike = 0.0,
    floor: ArrayLike | None = None,
    clip: tuple[ArrayLike, ArrayLike] = (0.1, 10.0),
    fanout: int = 8,
    axis_name: str | None = None,
    growing: bool = False,
) -> ExampleSampler:
    r"""Draws examples in proportion to the prior times a stale positive score, such as a gradient norm.

    .. math:: p_i \propto \pi_i s_i

    The sampler keeps the same tree as :func:`hardness`, and ``state.values`` are the scores ``s``. Scores that are all
    zero fall back to the prior. An example whose score is 0 is not drawn and so never seen again, and weighted means
    are biased by leaving it out: give a ``floor`` where scores may vanish.

    Args:
        n: number of examples.
        prior: ``π``, as for :func:`hardness`, like all that follow.
        replacement: see there.
        decay: see there.
        floor: see there.
        clip: see there.
        fanout: see there.
        axis_name: see there.
        growing: see there.

    Returns:
        An :class:`ExampleSampler`, whose functions take scores in place of losses, finite and non-negative; negative
        ones count as 0. Kinds ``"clipped"`` and ``"self_normalised"`` use the ratio of the new score to the old.
        With the ``weights`` of ``sample``, ``mean(weights * losses)`` is unbiased for the prior's
        mean loss.

    Raises:
        ValueError: as :func:`hardness`.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> sampler = mixjax.samplers.proportional(3)
        >>> state = sampler.init(jnp.array([1.0, 1.0, 2.0]))
        >>> jnp.exp(sampler.log_probs(state)).round(3).tolist()
        [0.25, 0.25, 0.5]

    References:
        Paper 003, eq. 3.5 (scores are gradient norms, refreshed for the batch only).
    """
    sampler = ScoredSampler(
        n,
        _positive_score,
        0.0,
        prior=prior,
        replacement=replacement,
        decay=decay,
        floor=floor,
        clip=clip,
        fanout=fanout,
        axis_name=axis_name,
        growing=growing,
        fallback=True,
    )
    return functions(sampler)


def _score_of_loss(losses: jax.Array) -> Nodes:
    # The heat multiplies differences of losses only, so nothing overflows; see the tree.
    return Nodes(losses, jnp.zeros_like(losses))


def _positive_score(scores: jax.Array) -> Nodes:
    # With a heat of 0 and a top of 0 the mass is the score itself; a log of -inf is a score of zero.
    return Nodes(jnp.zeros_like(scores), jnp.log(jnp.maximum(scores, 0.0)))
