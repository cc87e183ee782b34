r"""Computes hypergradients: how a validation loss after T training steps changes with the loss weights of those steps.

Training minimises :math:`\sum_d c_d f_d(\theta)`, where :math:`f_d` is the loss of domain d and :math:`c_d` its weight.
The aim is a low validation loss :math:`F`. The *hypergradient* is

.. math:: g = \frac{d F(\theta_T(c))}{d c}, \qquad
          \theta_{t+1}, s_{t+1} = \text{optimizer}\Bigl(\theta_t, s_t, \textstyle\sum_d c_d \nabla f_d(\theta_t)\Bigr)

The start :math:`\theta_0, s_0` is held fixed (a warm start). The optimizer's state :math:`s` is differentiated too.
Four modes share one signature::

    gradient = hypergrad(loss, val_loss, optax.adam(1e-3, eps_root=1e-12), mode="reverse")
    result = gradient(weights, params, opt_state, batches, val_batch)       # leaves of batches begin with axes [T, D]
    result.hypergrads                                                       # [D]
    result.params, result.opt_state                                         # the state after the T steps

========= =============================================== =========================== ==================================
mode      computes                                        time                        memory beyond training's
========= =============================================== =========================== ==================================
reverse   g, backwards through the T steps                2 to 4.5 times plain steps  T or 2 sqrt(T) copies of the state
forward   g, with D tangents carried along                D / 2 to 2 D times          D copies, whatever T is
implicit  g of a fully trained model (T infinite)         T steps and the solver's    D and a few more copies
alignment :math:`-\langle\nabla F, \nabla f_d\rangle`     T steps and about two more  D + 1 copies
========= =============================================== =========================== ==================================

The first two times are multiples of the time of T plain training steps, measured on an MLP. The solver of ``implicit``
computes one Hessian product per iteration. A copy has the size of the parameters, in ``reverse`` and ``forward`` of the
parameters and the optimizer's state. In ``forward`` the number of steps may be traced.

Adding a constant to all entries of ``g`` changes nothing: on the simplex, only their differences move weights.

``params`` may be any pytree of floats. A ``flax.nnx`` model takes part as its parameters: ``graphdef, params, rest =
nnx.split(model, nnx.Param, ...)``, with ``nnx.merge(graphdef, params, rest)`` inside the loss. Everything else that the
model holds, such as the statistics of batch normalisation and random number generators, stays as it is.

References:
    Papers 001 and 002: Das, Patel, Razaviyayn and Mirrokni, "Less is more: convergence benefits of fewer data weight
    updates over longer horizon" (arXiv:2602.19510). We have its abstract only. The recursions are the chain rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optax

from mixjax.hypergrad.endpoint import alignment, implicit
from mixjax.hypergrad.steps import Hypergradient, Loss, Mode, identity, unroll
from mixjax.hypergrad.unrolled import counterfactual, forward, reverse

__all__ = [
    "MODES",
    "Hypergradient",
    "Mode",
    "alignment",
    "counterfactual",
    "forward",
    "hypergrad",
    "implicit",
    "reverse",
    "unroll",
]

MODES: dict[Mode, Callable[..., Callable[..., Hypergradient]]] = {
    "reverse": reverse,
    "forward": forward,
    "implicit": implicit,
    "alignment": alignment,
}
"""Maps each mode's name to the function that makes its hypergradient."""


def hypergrad(
    loss: Loss,
    val_loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    mode: Mode = "reverse",
    draw: Callable[[Any], Any] = identity,
    **options: Any,
) -> Callable[..., Hypergradient]:
    """Makes a function that takes T training steps and differentiates the validation loss after them.

    The derivative is with respect to the loss weights of those steps.

    Args:
        loss: ``loss(params, batch) -> scalar``, the mean loss of one domain. It is vmapped over the domains. Its value
            and gradient have to be finite in every domain, also in one of weight 0: a masked mean has to divide by
            ``max(n, 1)``, where n is the number of examples. All modes but ``alignment`` take forward derivatives of
            its gradient, which functions with a ``jax.custom_vjp`` do not have.
            What it wraps in ``jax.lax.stop_gradient`` is held fixed in both derivatives, although training changes it.
            So the hypergradient is not what finite differences of the validation loss give; see the second example.
        val_loss: ``val_loss(params, val_batch) -> scalar``.
        optimizer: an optax transformation of ordinary gradients. ``reverse`` and ``forward`` differentiate it:

            - A slope that is not finite counts as 0. It stands in a branch of the optimizer that is not taken, or
              beside a factor of 0: Adam takes the root of a second moment that is exactly 0 where a gradient has always
              been 0, as that of a parameter that is not used.
            - Where such a gradient would answer to the weights all the same, Adam's slope there is its learning rate
              divided by ``eps``. Give ``eps_root > 0``, for example 1e-12, if 1e8 is more than your model means.
            - For optimizers that step by the gradient's sign (``lion``) the hypergradient is 0.
            - ``optax.MultiSteps(k)`` moves parameters every k steps, so T should be a multiple of k.
            - ``optax.contrib.schedule_free`` keeps two sets of parameters. ``val_loss`` sees the set at which gradients
              are taken.
            - ``optax.lbfgs``, and any other that needs more than gradients and parameters, cannot be used.
        mode: ``"reverse"``, ``"forward"``, ``"implicit"`` or ``"alignment"``. The docstring of the function of that
            name says how the mode works and which ``options`` it takes.
        draw: ``draw(entry) -> batch``, applied inside each step to that step's entry of ``batches``. It lets
            ``batches`` hold keys or indices, as in ``draw=lambda key: sample(key, data)``, so that the T batches need
            not be in memory together.
        **options: keyword arguments of the function that computes the mode, for example ``checkpoint_every`` of
            :func:`reverse`.

    Returns:
        A pure function ``gradient(weights, params, opt_state, batches, val_batch)`` that returns a
        :class:`Hypergradient`. In every mode its params and opt_state are those of T plain steps. The arguments are

        - ``weights``: ``[D]``;
        - ``batches``: a pytree whose leaves begin with axes ``[T, D]``. If ``draw`` is given they begin with ``[T]``,
          and what ``draw`` returns begins with ``[D]``. All domains have equally many examples in a batch, or the
          batch holds masks.

        Under ``shard_map`` there are two readings. Where the losses average over devices (``jax.lax.pmean``), all
        devices take the same steps, and the result is that of the whole batch; this needs ``check_vma=True``, the
        default. Where they do not, each device takes steps of its own on its own batches.

    Raises:
        ValueError: the mode is unknown, there is no step, the leaves of ``batches`` disagree about T, or the weights
            are not ``[D]``.
        TypeError: the mode does not have an option.

    Example:
        Two domains have their optima at 0 and 1. The optimum of the validation loss is 1, so more of the second domain
        is better:

        >>> import jax.numpy as jnp, optax
        >>> from mixjax.hypergrad import hypergrad
        >>> def loss(x, target):
        ...     return 0.5 * (x - target) ** 2
        >>> gradient, tx = hypergrad(loss, loss, optax.sgd(0.5)), optax.sgd(0.5)
        >>> x, targets = jnp.array(0.5), jnp.tile(jnp.array([0.0, 1.0]), (4, 1))              # [T, D]
        >>> result = gradient(jnp.array([0.5, 0.5]), x, tx.init(x), targets, jnp.array(1.0))
        >>> [round(float(g), 4) for g in result.hypergrads], float(result.params)
        ([0.2344, -0.2344], 0.5)

        By hand: dx_T/dc_d is 1 - 2^-4 = 0.9375 times (target_d - 0.5), and dF/dx is -0.5. The products are ±0.2344.

        A loss that stops a gradient moves the parameters all the same, and the hypergradient does not see how:

        >>> import jax
        >>> from mixjax.hypergrad import unroll
        >>> def bootstrapped(x, target):
        ...     return 0.5 * (x - 0.5 * jax.lax.stop_gradient(x) - target) ** 2
        >>> inputs = x, tx.init(x), targets[:2]
        >>> result = hypergrad(bootstrapped, loss, tx)(jnp.array([0.5, 0.5]), *inputs, jnp.array(1.0))
        >>> def outcome(weights):
        ...     return loss(unroll(bootstrapped, tx)(weights, *inputs)[0], 1.0)
        >>> up, down = outcome(jnp.array([0.6, 0.5])), outcome(jnp.array([0.4, 0.5]))
        >>> round(float(result.hypergrads[0]), 3), round(float(up - down) / 0.2, 3)
        (0.062, 0.07)

    References:
        Papers 001 and 002, see the module's docstring.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    return MODES[mode](loss, val_loss, optimizer, draw=draw, **options)
