"""Plain steps on weighted losses, and what the derivatives of such steps are made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

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


def same(batch):
    """The batch as it is."""
    return batch


def unroll(
    loss: Loss, optimizer: optax.GradientTransformation, *, draw: Callable[[Any], Any] = same
) -> Callable[..., tuple[Any, Any, jax.Array]]:
    """T plain steps, with nothing differentiated.

    Args:
        loss: see :func:`hypergrad`; so are ``optimizer`` and ``draw``.
        optimizer: likewise.
        draw: likewise.

    Returns:
        ``run(weights, params, opt_state, batches) -> (params, opt_state, losses)``, as in :class:`Hypergradient`.

    Raises:
        ValueError: no step, leaves of ``batches`` that disagree about T, weights that are not ``[D]``.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from mixjax.hypergrad import unroll
        >>> tx, x = optax.sgd(0.5), jnp.array(0.0)
        >>> run = unroll(lambda x, target: 0.5 * (x - target) ** 2, tx)
        >>> x, _, losses = run([0.5, 0.5], x, tx.init(x), jnp.array([[0.0, 4.0]]))         # one step, two domains
        >>> float(x), losses.tolist()
        (1.0, [0.0, 8.0])
    """
    gradient, advance = gradient_of(loss), advance_of(optimizer)

    def run(weights, params, opt_state, batches):
        weights, num_steps = as_floats(weights), length_of(batches)

        def step(carry, x):
            state, total = carry
            grads, losses = gradient(weights, state[0], draw(x))
            return (advance(state, grads), total + losses), None

        start = (params, opt_state), jnp.zeros_like(weights)
        (state, total), _ = jax.lax.scan(step, start, batches)
        return *state, total / num_steps

    return run


def known(hypergrads, value):
    """NaN where the validation loss is not finite: its derivative can be, and would lead nowhere."""
    return jnp.where(jnp.isfinite(value), hypergrads, jnp.nan)


def as_floats(weights: ArrayLike) -> jax.Array:
    """Weights in a floating-point type; derivatives have theirs."""
    weights = jnp.asarray(weights)
    return weights.astype(jnp.result_type(weights, float))


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


def move_of(optimizer, opt_state):
    """A step as a function of what derivatives pass through.

    Returns:
        The state's float leaves, and ``move(params, slots, grads) -> (params, slots), opt_state``, to be differentiated
        with ``has_aux=True``.
    """
    advance, (slots, rebuild) = advance_of(optimizer), float_leaves(opt_state)

    def move(params, slots, grads):
        params, opt_state = advance((params, rebuild(slots)), grads)
        return (params, float_leaves(opt_state)[0]), opt_state

    return slots, move


def length_of(batches) -> int:
    """T, the leading axis of every leaf."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    if len(lengths) != 1 or () in lengths or (0,) in lengths:
        raise ValueError(f"batches must have one leading axis of at least one step, got axes {sorted(lengths)}.")
    return lengths.pop()[0]
