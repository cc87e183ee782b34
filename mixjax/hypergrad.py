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

========= ==================================== ============================= ===========================================
mode      computes                             costs, beside T plain steps   memory beyond it
========= ==================================== ============================= ===========================================
reverse   g, backwards through the T steps     about 3 to 5 times            T or sqrt(T) copies of params and opt_state
forward   g, with D tangents carried along     about 2 D times               D copies, whatever T; T may be traced
implicit  g of an inner optimum (T infinite)   as many steps as iterations   a few copies
alignment :math:`-\langle\nabla F, \nabla f_d\rangle`  about one step        one copy
========= ==================================== ============================= ===========================================

``g`` matters up to a constant added to all entries: on the simplex, only differences move weights.

``params`` may be any pytree of floats. A ``flax.nnx`` model takes part as its state: ``graphdef, params =
nnx.split(model)``, with ``nnx.merge(graphdef, params)`` inside the loss.

References:
    Papers 001 and 002: Das, Patel, Razaviyayn and Mirrokni, "Less is more: convergence benefits of fewer data weight
    updates over longer horizon" (arXiv:2602.19510). We have its abstract only; the recursions are the chain rule.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.rules.base import check_integer, check_positive, check_range

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

Loss = Callable[[Any, Any], jax.Array]


class Hypergradient(NamedTuple):
    """What T steps of training bring.

    Attributes:
        hypergrads: ``[D]``, dF/dc, in units of the validation loss; NaN, which rules take for unseen, where that is
            not finite.
        params: the parameters after the T steps.
        opt_state: the optimizer's state after them.
        losses: ``[D]``, each domain's training loss, mean over the T steps, each before its update.
        val_loss: scalar ``F`` at ``params``.
    """

    hypergrads: jax.Array
    params: Any
    opt_state: Any
    losses: jax.Array
    val_loss: jax.Array


def _same(batch):
    return batch


def hypergrad(
    loss: Loss,
    val_loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    mode: str = "reverse",
    draw: Callable[[Any], Any] = _same,
    **options,
) -> Callable[..., Hypergradient]:
    """The derivative of a validation loss after T optimizer steps, with respect to the loss weights of those steps.

    Args:
        loss: ``loss(params, batch) -> scalar``, the mean loss of one domain; it is vmapped over the domains.
        val_loss: ``val_loss(params, val_batch) -> scalar``.
        optimizer: any optax transformation of ordinary gradients.
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


def reverse(
    loss: Loss,
    val_loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    draw: Callable[[Any], Any] = _same,
    segment: int | None = None,
) -> Callable[..., Hypergradient]:
    r"""Backwards through the steps; its cost does not depend on D. The default.

    For SGD with learning rate η:

    .. math:: \lambda_T = \nabla F(\theta_T), \quad
              g_d \mathrel{-}= \eta \langle \nabla f_d(\theta_t), \lambda_{t+1} \rangle, \quad
              \lambda_t = (I - \eta \nabla^2 \textstyle\sum_d c_d f_d(\theta_t)) \lambda_{t+1}

    and for any other optimizer the same with its own pullback in place of η. Hessian products and all D inner products
    of a step come from one forward derivative of its gradient.

    Args:
        loss: see :func:`hypergrad`; so are ``val_loss``, ``optimizer``, ``draw`` and what is returned.
        val_loss: likewise.
        optimizer: likewise.
        draw: likewise.
        segment: steps from one kept state (params and optimizer state) to the next, an integer of at least 1. Between,
            states are computed again. 1 keeps all T; ``None`` does so up to T = 64, and takes the square root of T
            beyond it, for 2 sqrt(T) states at once and one more pass of training.

    Raises:
        ValueError: a ``segment`` that is not an integer of at least 1.
    """
    if segment is not None:
        check_integer("segment", segment, 1)
    gradient, advance = gradient_of(loss), advance_of(optimizer)

    def adjoint(weights, state, x, cotangent):
        """The cotangent of a step's state and its part of g, from the cotangent of the step's result."""
        (params, opt_state), batch = state, draw(x)
        slots, rebuild = float_leaves(opt_state)

        def move(params, slots, grads):
            params, opt_state = advance((params, rebuild(slots)), grads)
            return params, float_leaves(opt_state)[0]

        grads, _ = gradient(weights, params, batch)
        _, pull = jax.vjp(move, params, slots, grads)
        direct, slots_cotangent, grads_cotangent = pull(cotangent)
        # The Hessian is symmetric: its product, and <grad f_d, u> for every d, are forward derivatives along u.
        _, (curved, slopes) = jax.jvp(lambda params: gradient(weights, params, batch), (params,), (grads_cotangent,))
        return (jax.tree.map(jnp.add, direct, curved), slots_cotangent), slopes

    def run(weights, params, opt_state, batches, val_batch):
        weights, num_steps = jnp.asarray(weights), length_of(batches)
        length = segment or (1 if num_steps <= 64 else math.isqrt(num_steps))
        rest = num_steps % length
        head = jax.tree.map(lambda x: x[: num_steps - rest].reshape(-1, length, *x.shape[1:]), batches)
        tail = jax.tree.map(lambda x: x[num_steps - rest :], batches)

        def step(state, x):
            grads, losses = gradient(weights, state[0], draw(x))
            return advance(state, grads), losses

        def forth(state, xs):
            end, losses = jax.lax.scan(step, state, xs)
            return end, (state, losses.sum(axis=0))

        def back(carry, start_and_xs):
            start, xs = start_and_xs

            def one(carry, state_and_x):
                cotangent, total = carry
                cotangent, slopes = adjoint(weights, *state_and_x, cotangent)
                return (cotangent, total + slopes), None

            if length == 1:
                states = jax.tree.map(lambda x: x[None], start)
            else:
                _, states = jax.lax.scan(lambda state, x: (step(state, x)[0], state), start, xs)
            return jax.lax.scan(one, carry, (states, xs), reverse=True)

        middle, (starts, sums) = jax.lax.scan(forth, (params, opt_state), head)
        end, losses = middle, sums.sum(axis=0)
        if rest:
            end, (_, sums) = forth(middle, tail)
            losses += sums
        value, slope = jax.value_and_grad(val_loss)(end[0], val_batch)
        carry = (slope, jax.tree.map(jnp.zeros_like, float_leaves(opt_state)[0])), jnp.zeros_like(weights)
        if rest:
            carry, _ = back(carry, (middle, tail))
        (_, total), _ = jax.lax.scan(back, carry, (starts, head), reverse=True)
        return Hypergradient(_known(total, value), *end, losses / num_steps, value)

    return run


def forward(
    loss: Loss, val_loss: Loss, optimizer: optax.GradientTransformation, *, draw: Callable[[Any], Any] = _same
) -> Callable[..., Hypergradient]:
    r"""D tangents carried along with the steps: memory does not grow with T, and T may be traced.

    For SGD with learning rate η:

    .. math:: J_{t+1} = (I - \eta \nabla^2 \textstyle\sum_d c_d f_d(\theta_t)) J_t
              - \eta [\nabla f_1, \ldots, \nabla f_D](\theta_t), \quad J_0 = 0, \quad g = J_T^\top \nabla F(\theta_T)

    and for any other optimizer the same with its own derivative in place of η.

    Args:
        loss: see :func:`hypergrad`; so are ``val_loss``, ``optimizer`` and ``draw``.
        val_loss: likewise.
        optimizer: likewise.
        draw: likewise.

    Returns:
        The function of :func:`hypergrad`, with one more argument, ``num_steps=None``: how many of the T batches to use,
        an integer scalar in [1, T] that may be traced (clamped into it).
    """
    gradient, advance = gradient_of(loss), advance_of(optimizer)

    def run(weights, params, opt_state, batches, val_batch, num_steps=None):
        weights, longest = jnp.asarray(weights), length_of(batches)
        num_steps = longest if num_steps is None else jnp.clip(num_steps, 1, longest)

        def step(t, carry):
            (params, opt_state), (tangents, slot_tangents), total = carry
            batch = draw(jax.tree.map(lambda x: x[t], batches))
            slots, rebuild = float_leaves(opt_state)

            def move(params, slots, grads):
                params, opt_state = advance((params, rebuild(slots)), grads)
                return (params, float_leaves(opt_state)[0]), opt_state

            (grads, losses), along = jax.linearize(lambda params: gradient(weights, params, batch), params)
            by_domain = jax.vmap(jax.grad(loss), (None, 0))(params, batch)
            grad_tangents = jax.tree.map(jnp.add, jax.vmap(lambda j: along(j)[0])(tangents), by_domain)
            (params, _), push, opt_state = jax.linearize(move, params, slots, grads, has_aux=True)
            return (params, opt_state), jax.vmap(push)(tangents, slot_tangents, grad_tangents), total + losses

        def columns(tree):
            return jax.tree.map(lambda x: jnp.zeros((weights.size, *x.shape), x.dtype), tree)

        start = (params, opt_state), (columns(params), columns(float_leaves(opt_state)[0])), jnp.zeros_like(weights)
        (params, opt_state), (tangents, _), total = jax.lax.fori_loop(0, num_steps, step, start)
        value, slope = jax.value_and_grad(val_loss)(params, val_batch)
        hypergrads = jax.vmap(lambda tangent: optax.tree.vdot(tangent, slope))(tangents)
        hypergrads = _known(hypergrads.astype(weights.dtype), value)
        return Hypergradient(hypergrads, params, opt_state, total / num_steps, value)

    return run


def implicit(
    loss: Loss,
    val_loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    draw: Callable[[Any], Any] = _same,
    ridge: ArrayLike = 0.0,
    tolerance: ArrayLike = 1e-5,
    max_iterations: int = 100,
    neumann_step: ArrayLike | None = None,
) -> Callable[..., Hypergradient]:
    r"""The hypergradient of the inner optimum, by the implicit function theorem. For convex losses only.

    .. math:: g_d = -\langle \nabla f_d(\theta_T),\;
              (\nabla^2 \textstyle\sum_d c_d f_d(\theta_T) + \rho I)^{-1} \nabla F(\theta_T) \rangle

    after T plain steps, on the batch of the last of them. It is right where :math:`\theta_T` is the optimum and that
    batch stands for the whole data. Far from the optimum, on small batches, and for losses that are not convex, where
    the Hessian has negative eigenvalues, it can have any sign.

    Args:
        loss: see :func:`hypergrad`; so are ``val_loss``, ``optimizer``, ``draw`` and what is returned. All losses have
            to be convex in ``params``; this is not checked.
        val_loss: likewise.
        optimizer: likewise; it makes the steps, and does not enter ``g``.
        draw: likewise.
        ridge: ``ρ``, non-negative, in the units of the Hessian.
        tolerance: non-negative: stop when the residual's norm is below ``tolerance`` times that of ``∇F``.
        max_iterations: Hessian products at most, an integer of at least 1.
        neumann_step: None solves by conjugate gradients. A positive number ``α`` below 2 / (L + ridge), L the largest
            curvature, takes the Neumann series ``α Σ_j (I - α (H + ρ I))^j ∇F``, which with ``max_iterations`` terms
            and ``α`` SGD's learning rate is what ``max_iterations`` of its steps from the optimum would see.

    Raises:
        ValueError: an option out of range.
    """
    check_range("ridge", ridge, 0.0)
    check_range("tolerance", tolerance, 0.0)
    check_integer("max_iterations", max_iterations, 1)
    if neumann_step is not None:
        check_positive("neumann_step", neumann_step)

    def direction(weights, params, batch, slope):
        def curvature(v):
            _, product = jax.jvp(lambda params: gradient_of(loss)(weights, params, batch)[0], (params,), (v,))
            return jax.tree.map(lambda h, x: h + ridge * x, product, v)

        if neumann_step is None:
            solution, _ = jax.scipy.sparse.linalg.cg(curvature, slope, tol=tolerance, maxiter=max_iterations)
            return solution
        limit = tolerance * optax.tree.norm(slope)

        def add(carry):
            solution, residual, count = carry
            solution = jax.tree.map(lambda x, r: x + neumann_step * r, solution, residual)
            return solution, optax.tree.sub(slope, curvature(solution)), count + 1

        def more(carry):
            return (carry[2] < max_iterations) & (optax.tree.norm(carry[1]) > limit)

        return jax.lax.while_loop(more, add, (optax.tree.zeros_like(slope), slope, 0))[0]

    return _after_training(loss, val_loss, optimizer, draw, direction)


def alignment(
    loss: Loss, val_loss: Loss, optimizer: optax.GradientTransformation, *, draw: Callable[[Any], Any] = _same
) -> Callable[..., Hypergradient]:
    r"""First order: how well each domain's gradient points down the validation loss.

    .. math:: g_d = -\langle \nabla F(\theta_T), \nabla f_d(\theta_T) \rangle

    after T plain steps, on the batch of the last of them. It is what DoGE and other methods with T = 1 use, in units of
    loss per unit of learning rate: without the step's η, and with both gradients at the same parameters, where one step
    of SGD would have ∇F after it. Its fixed points are those of T = 1, whatever T is.

    Args:
        loss: see :func:`hypergrad`; so are ``val_loss``, ``optimizer``, ``draw`` and what is returned.
        val_loss: likewise.
        optimizer: likewise; it makes the steps, and does not enter ``g``.
        draw: likewise.

    References:
        Fan, Pagliardini and Jaggi, "DoGE: domain reweighting with generalization estimation" (ICML 2024).
    """
    return _after_training(loss, val_loss, optimizer, draw, lambda weights, params, batch, slope: slope)


MODES = {"reverse": reverse, "forward": forward, "implicit": implicit, "alignment": alignment}
"""Every mode's function by name."""


def counterfactual(result: Hypergradient, weights: ArrayLike, other: ArrayLike) -> jax.Array:
    r"""The validation loss there would be, to first order, had the T steps been taken with other weights.

    .. math:: F(\theta_T(c')) \approx F(\theta_T(c)) + \langle g, c' - c \rangle

    The error is of second order in ``c' - c``. Only modes that differentiate the steps, ``reverse`` and ``forward``,
    say this.

    Args:
        result: of the steps that were taken.
        weights: ``c`` ``[D]``, what they were taken with.
        other: ``c'``, ``[..., D]``.

    Returns:
        ``[...]``, in units of the validation loss.

    Raises:
        ValueError: weights that do not fit the hypergradient.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax.hypergrad import Hypergradient, counterfactual
        >>> result = Hypergradient(jnp.array([0.5, -0.5]), None, None, None, jnp.array(2.0))
        >>> counterfactual(result, [0.5, 0.5], [[0.5, 0.5], [0.0, 1.0]]).tolist()
        [2.0, 1.5]
    """
    weights, other = jnp.asarray(weights), jnp.asarray(other)
    size = result.hypergrads.shape
    if weights.shape != size or other.shape[-1:] != size:
        raise ValueError(f"weights must be {size} and other [..., {size[0]}], got {weights.shape} and {other.shape}.")
    return result.val_loss + (other - weights) @ result.hypergrads


def unroll(
    loss: Loss, optimizer: optax.GradientTransformation, *, draw: Callable[[Any], Any] = _same
) -> Callable[..., tuple[Any, Any, jax.Array]]:
    """T plain steps, with nothing differentiated.

    Args:
        loss: see :func:`hypergrad`; so are ``optimizer`` and ``draw``.
        optimizer: likewise.
        draw: likewise.

    Returns:
        ``run(weights, params, opt_state, batches) -> (params, opt_state, losses)``, as in :class:`Hypergradient`.
    """
    gradient, advance = gradient_of(loss), advance_of(optimizer)

    def run(weights, params, opt_state, batches):
        weights, num_steps = jnp.asarray(weights), length_of(batches)

        def step(carry, x):
            state, total = carry
            grads, losses = gradient(weights, state[0], draw(x))
            return (advance(state, grads), total + losses), None

        start = (params, opt_state), jnp.zeros_like(weights)
        (state, total), _ = jax.lax.scan(step, start, batches)
        return *state, total / num_steps

    return run


def _after_training(loss, val_loss, optimizer, draw, direction):
    """``g_d = -<grad f_d, v>`` after T plain steps, with ``v = direction(weights, params, batch, grad F)``."""
    train = unroll(loss, optimizer, draw=draw)

    def run(weights, params, opt_state, batches, val_batch):
        weights = jnp.asarray(weights)
        params, opt_state, losses = train(weights, params, opt_state, batches)
        batch = draw(jax.tree.map(lambda x: x[-1], batches))
        value, slope = jax.value_and_grad(val_loss)(params, val_batch)
        v = direction(weights, params, batch, slope)
        _, slopes = jax.jvp(lambda params: jax.vmap(loss, (None, 0))(params, batch), (params,), (v,))
        return Hypergradient(_known(-slopes.astype(weights.dtype), value), params, opt_state, losses, value)

    return run


def _known(hypergrads, value):
    """NaN where the validation loss is not finite: its derivative can be, and would lead nowhere."""
    return jnp.where(jnp.isfinite(value), hypergrads, jnp.nan)


def gradient_of(loss):
    """``gradient(weights, params, batch) -> (sum_d c_d grad f_d, [f_d])``: one backward pass for all domains."""

    def gradient(weights, params, batch):
        def objective(params):
            losses = jax.vmap(loss, (None, 0))(params, batch)
            if losses.shape != weights.shape:
                raise ValueError(
                    "loss must give a scalar for each domain and weights one number for each, got losses of shape "
                    f"{losses.shape} and weights of shape {weights.shape}."
                )
            losses = losses.astype(weights.dtype)
            return weights @ losses, losses

        return jax.grad(objective, has_aux=True)(params)

    return gradient


def advance_of(optimizer):
    """``advance((params, opt_state), grads) -> (params, opt_state)``."""

    def advance(state, grads):
        params, opt_state = state
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return advance


def float_leaves(opt_state):
    """The leaves that derivatives pass through, and the way back; counters and keys stay as they are."""
    leaves, structure = jax.tree.flatten(opt_state)
    floats = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)]

    def rebuild(values):
        whole = list(leaves)
        for i, value in zip(floats, values, strict=True):
            whole[i] = value
        return jax.tree.unflatten(structure, whole)

    return [leaves[i] for i in floats], rebuild


def length_of(batches) -> int:
    """T, the leading axis of every leaf."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    if len(lengths) != 1 or () in lengths or (0,) in lengths:
        raise ValueError(f"batches must have one leading axis of at least one step, got axes {sorted(lengths)}.")
    return lengths.pop()[0]
