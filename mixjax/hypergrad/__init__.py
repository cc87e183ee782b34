r"""Hypergradients: how a validation loss after T training steps depends on the loss weights of those steps.

Training minimises :math:`\sum_d c_d f_d(\theta)`; what one wants is a low validation loss :math:`F`. A *hypergradient*
is

.. math:: g = \frac{d F(\theta_T(c))}{d c}, \qquad
          \theta_{t+1}, s_{t+1} = \text{optimizer}\Bigl(\theta_t, s_t, \textstyle\sum_d c_d \nabla f_d(\theta_t)\Bigr)

with the start :math:`\theta_0, s_0` held fixed (a warm start) and the optimizer's state :math:`s` differentiated too.
Four modes share one signature::

    gradient = hypergrad(loss, val_loss, optax.adam(1e-3), mode="reverse")
    result = gradient(weights, params, opt_state, batches, val_batch)       # batches: leading axes [T, D]
    result.hypergrads, result.params, result.opt_state                      # [D], and where training goes on

========= ============================================= =================== ========================================
mode      computes                                      time                memory beyond training's
========= ============================================= =================== ========================================
reverse   g, backwards through the T steps              2 to 4.5 times      T or 2 sqrt(T) copies of the state
forward   g, with D tangents carried along              D / 2 to 2 D times  D copies, whatever T; T may be traced
implicit  g of an inner optimum (T infinite)            and its iterations  a few copies
alignment :math:`-\langle\nabla F, \nabla f_d\rangle`   and a step or two   one copy
========= ============================================= =================== ========================================

Times are those of training with T plain steps, as measured on an MLP (experiments/fewer_weight_updates/benchmarks).

``g`` matters up to a constant added to all entries: on the simplex, only differences move weights.

``params`` may be any pytree of floats. A ``flax.nnx`` model takes part as its parameters: ``graphdef, params, rest =
nnx.split(model, nnx.Param, ...)``, with ``nnx.merge(graphdef, params, rest)`` inside the loss. What the model keeps
besides (statistics of batch normalisation, random number generators) does not move.

References:
    Papers 001 and 002: Das, Patel, Razaviyayn and Mirrokni, "Less is more: convergence benefits of fewer data weight
    updates over longer horizon" (arXiv:2602.19510). We have its abstract only; the recursions are the chain rule.
"""

from collections.abc import Callable
from typing import Any

import optax

from mixjax.hypergrad.endpoint import alignment, implicit
from mixjax.hypergrad.steps import Hypergradient, Loss, same, unroll
from mixjax.hypergrad.unrolled import counterfactual, forward, reverse

__all__ = [
    "MODES",
    "Hypergradient",
    "alignment",
    "counterfactual",
    "forward",
    "hypergrad",
    "implicit",
    "reverse",
    "unroll",
]


def hypergrad(
    loss: Loss,
    val_loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    mode: str = "reverse",
    draw: Callable[[Any], Any] = same,
    **options,
) -> Callable[..., Hypergradient]:
    """The derivative of a validation loss after T optimizer steps, with respect to the loss weights of those steps.

    Args:
        loss: ``loss(params, batch) -> scalar``, the mean loss of one domain; it is vmapped over the domains. Loss and
            gradient have to be finite in every domain, of weight 0 too: a mask's sum goes over ``max(n, 1)``. All modes
            but ``alignment`` need its forward derivative, which ``jax.custom_vjp`` does not have.
        val_loss: ``val_loss(params, val_batch) -> scalar``.
        optimizer: an optax transformation of ordinary gradients. What it does has to be differentiable where it goes:

            - Adam and its like need ``eps_root > 0`` (1e-12, say): the root of a second moment that is exactly 0, of a
              dead pixel or a row not embedded, has an infinite slope, and the hypergradient is NaN;
            - steps by the gradient's sign (``lion``) have the hypergradient 0;
            - ``optax.MultiSteps(k)`` moves parameters every k steps: let T be a multiple of k;
            - ``optax.contrib.schedule_free``'s parameters are where gradients are taken, and ``val_loss`` sees those;
            - ``optax.lbfgs`` and others that want more than gradients and parameters cannot be used.
        mode: ``"reverse"``, ``"forward"``, ``"implicit"`` or ``"alignment"``: the function of that name, whose
            ``options`` follow.
        draw: makes of one entry of ``batches`` the batch, inside the step. With keys or indices for ``batches`` the T
            batches need not be in memory together: ``draw=lambda key: sample(key, data)``.
        **options: the mode's own.

    Returns:
        A pure function ``gradient(weights, params, opt_state, batches, val_batch)`` that gives a
        :class:`Hypergradient`. ``weights`` is ``[D]``; ``batches`` a pytree whose leaves begin with axes ``[T, D]``
        (with ``draw``: with ``[T]``, and what it returns with ``[D]``). Domains get equally many examples, or masks in
        their batches. Params and state are those that T plain steps would give, in every mode.

    Raises:
        ValueError: an unknown mode; no step; leaves of ``batches`` that disagree about T; weights that are not ``[D]``.
        TypeError: an option that the mode does not have.

    Example:
        Two domains with the optima 0 and 1, a validation loss with the optimum 1; more of the second is better:

        >>> import jax.numpy as jnp, optax
        >>> from mixjax.hypergrad import hypergrad
        >>> def loss(x, target):
        ...     return 0.5 * (x - target) ** 2
        >>> gradient, tx = hypergrad(loss, loss, optax.sgd(0.5)), optax.sgd(0.5)
        >>> x, targets = jnp.array(0.5), jnp.tile(jnp.array([0.0, 1.0]), (4, 1))              # [T, D]
        >>> result = gradient(jnp.array([0.5, 0.5]), x, tx.init(x), targets, jnp.array(1.0))
        >>> [round(float(g), 4) for g in result.hypergrads], float(result.params)
        ([0.2344, -0.2344], 0.5)

        By hand: x_T depends on c_d as 1 - 2^-4 = 0.9375 times (target_d - 0.5), and dF/dx is -0.5.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    return MODES[mode](loss, val_loss, optimizer, draw=draw, **options)


MODES = {"reverse": reverse, "forward": forward, "implicit": implicit, "alignment": alignment}
"""Every mode's function by name."""
