"""Ghost norms: per-example norms from the products that a backward pass has anyway."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.grad_norms.norms import anywhere, as_float, scale_of, scaled_norm
from mixjax.grad_norms.tape import Parameter, Tape


def value_grads_and_norms(
    losses_fn: Callable[[Tape, Any, Any], jax.Array], params: Any, batch: Any, *, weights: ArrayLike | None = None
) -> tuple[jax.Array, Any, jax.Array]:
    r"""Losses, the gradient of their weighted mean, and every example's gradient norm, from one backward pass.

    .. math:: \nabla \frac1B \sum_b u_b \ell_b
              \quad\text{and}\quad \|\nabla \ell_b\|^2 = \sum_{\text{leaves}} \|\nabla_{\text{leaf}} \ell_b\|^2

    ``u`` are the ``weights``. The pass gives ``δ_b``, the derivative of example ``b``'s part ``u_b ℓ_b`` with respect
    to each operation's output; the rest is products of ``δ_b`` with the operation's input ``x_b``:

    - a dense layer on ``[B, in]``: ``‖x_b‖² ‖δ_b‖²``; on ``[B, T, in]``: ``sum_{t,s} (x_bt·x_bs)(δ_bt·δ_bs)`` if
      ``2 T² <= in · out``, else ``‖sum_t x_bt δ_btᵀ‖²``, whichever takes less memory;
    - an embedding: the sum of ``δ_bt`` over the places of each token, squared, that is
      ``sum_{t,s} [id_bt = id_bs] δ_bt·δ_bs``;
    - biases and elementwise scales: their gradients ``sum_t δ_bt`` and ``sum_t x_bt δ_bt`` themselves.

    The gradient is assembled from the same ``x`` and ``δ``, one product per layer as in any backward pass. The norms
    are divided by ``u_b``, and so those of the losses without weights. A weight of zero counts as one until the example
    is left out of the gradient. Zero weights, and operands too small or too large to be squared in float32, cost
    further passes over the activations in the batches that have them (under ``vmap``, in all if one has). Under
    ``shard_map`` the gradient is that of the device's own examples, to be averaged over the devices.

    Args:
        losses_fn: ``losses_fn(tape, params, batch) -> [B]``, the examples' losses, by a model on a :class:`Tape`; it
            is traced twice. ``params`` has a :class:`Parameter` in place of each array.
        params: pytree of parameters; each leaf must be used on the tape.
        batch: what ``losses_fn`` takes.
        weights: ``u``, ``[B]``, such as importance weights ``c / q``; ones by default. No gradient flows through them.
            An example of weight 0 is left out of the gradient, even if its own is not finite. One so small or so large
            that ``u δ`` leaves the normal range of an operation's dtype makes its norm inexact.

    Returns:
        ``(losses, grads, norms)``: the losses ``[B]``, the gradient in the structure and dtypes of ``params``, and
        float32 ``[B]``. Sums are in float32 or wider, products in the device's default precision for matrices. Where a
        dense layer's sum over time cancels, Gram matrices give its norm to about ``1e-3`` of that of the terms.

    Raises:
        ValueError: a leaf that is not used on the tape, or outside it, or both elementwise and as a matrix; losses
            that are not ``[B]``; an operation whose first axis is not ``B`` long; weights of another shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> def losses_fn(tape, params, batch):
        ...     x, y = batch
        ...     return 0.5 * jnp.square(tape.dense(x, params["kernel"], params["bias"])[:, 0] - y)
        >>> params = {"kernel": jnp.zeros((1, 1)), "bias": jnp.zeros(1)}
        >>> batch = jnp.array([[0.75], [0.0]]), jnp.array([-4.0, -1.0])
        >>> losses, grads, norms = grad_norms.value_grads_and_norms(losses_fn, params, batch)
        >>> losses.tolist(), grads["kernel"].tolist(), grads["bias"].tolist(), norms.tolist()
        ([8.0, 0.5], [[1.5]], [2.5], [5.0, 1.0])

    References:
        Goodfellow, "Efficient per-example gradient computations" (2015), for dense layers; Li, Tramèr, Liang and
        Hashimoto, "Large language models can be strong differentially private learners" (ICLR 2022), section 4, for
        sequences and embeddings; Bu, Mao and Xu, "Scalable and efficient training of large convolutional neural
        networks with differential privacy" (NeurIPS 2022), for the choice between the two. Deviations: scaled sums;
        an example's norm does not depend on its weight, zero included.
    """
    paths, structure = jax.tree.flatten_with_path(params)
    names = [f"params{jax.tree_util.keystr(path)}" for path, _ in paths]
    leaves = [jnp.asarray(leaf) for _, leaf in paths]
    tapes = []

    def forward(zeros):
        tape = Tape()
        tape._zeros = zeros
        handles = [Parameter(*row) for row in zip(names, range(len(leaves)), leaves, strict=True)]
        losses = losses_fn(tape, structure.unflatten(handles), batch)
        tapes.append(tape)
        return losses, tape._factors

    kind, _ = jax.eval_shape(forward, None)
    tape = tapes[0]
    _check_tape(tape, kind, names)
    if weights is not None:
        weights = jax.lax.stop_gradient(jnp.asarray(weights))
        if weights.shape != kind.shape:
            raise ValueError(f"weights must have one entry per example, shape {kind.shape}, got {weights.shape}.")
    losses, pullback, factors = jax.vjp(forward, [_zeros(*output) for output in tape._outputs], has_aux=True)
    scale = jnp.ones_like(losses)
    if weights is not None:
        weights = weights.astype(losses.dtype)
        left_out = weights == 0
        scale = jnp.where(left_out, scale, weights)  # not 0, for the norms' sake
    (deltas,) = pullback(scale)

    terms = [[] for _ in leaves]
    for use, factor in zip(tape._uses, factors, strict=True):
        terms[use.leaf].append(_term(use.kind, factor, deltas[use.operation], leaves[use.leaf]))

    def sums(terms):
        return [_sum(leaf, rows) for leaf, rows in zip(leaves, terms, strict=True)]

    if weights is None:
        totals = sums(terms)
    else:
        totals = jax.lax.cond(anywhere(left_out), lambda: sums(_without(terms, left_out)), lambda: sums(terms))
    grads = [(total / max(len(losses), 1)).astype(leaf.dtype) for leaf, total in zip(leaves, totals, strict=True)]
    norms = _norms([rows for rows in terms if rows]) / jnp.abs(scale) if any(terms) else jnp.zeros_like(losses)
    return losses, structure.unflatten(grads), jax.lax.stop_gradient(norms.astype(jnp.float32))


def last_layer(derivatives: ArrayLike, features: ArrayLike, *, intercept: bool = False) -> jax.Array:
    r"""Norms of the gradients of a network's last layer alone, from a forward pass.

    .. math:: \Bigl\| \sum_t x_{bt} \delta_{bt}^\top \Bigr\| \le \|\nabla \ell_b\|

    Exact for the layer, and so a lower bound of the norm of the whole gradient, of which it is a part: a score to draw
    by where a backward pass for norms costs too much. How much it leaves out depends on the example.

    Args:
        derivatives: ``δ``, those of each example's loss with respect to the layer's outputs ``[B, ..., K]``, such as
            ``softmax(logits) - onehot``; over the number of places where the loss is their mean.
        features: ``x``, what goes into the layer, ``[B, ..., p]``.
        intercept: whether the layer has a bias that counts.

    Returns:
        float32 ``[B]``. Without axes between the first and the last it is :func:`linear`.

    Raises:
        ValueError: other shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> delta, x = jnp.array([[[3.0], [1.0]]]), jnp.array([[[1.0, 0.0], [0.0, 4.0]]])   # two places
        >>> grad_norms.last_layer(delta, x).tolist()
        [5.0]

    References:
        Katharopoulos and Fleuret, "Not all samples are created equal: deep learning with importance sampling" (ICML
        2018), use ``‖δ_b‖``, which is ``norm(derivatives)``. Deviation: theirs is, up to a factor that nobody
        knows but that is the same for every example, an upper bound of the whole norm; this is a lower bound, without
        any factor.
    """
    derivatives, features = jnp.asarray(derivatives), jnp.asarray(features)
    if features.ndim < 2 or derivatives.shape[:-1] != features.shape[:-1]:
        raise ValueError(
            f"derivatives must be [B, ..., K] and features [B, ..., p], got {derivatives.shape} and {features.shape}."
        )
    if intercept:
        features = jnp.concatenate([features, jnp.ones_like(features[..., :1])], -1)
    return jax.lax.stop_gradient(_norms([[("matrix", features, derivatives)]]).astype(jnp.float32))


def _zeros(kind, axes):
    """Zeros that vary over the mesh axes over which an operation's output does: else its derivative is summed there."""
    zeros = jnp.zeros(kind.shape, kind.dtype)
    if not axes:
        return zeros
    return jax.lax.pcast(zeros, axes, to="varying") if hasattr(jax.lax, "pcast") else jax.lax.pvary(zeros, axes)


def _check_tape(tape, losses, names):
    if getattr(losses, "ndim", None) != 1 or not jnp.issubdtype(losses.dtype, jnp.floating):
        raise ValueError(f"losses_fn must return one loss per example, float [B], got {losses}.")
    for use in tape._uses:
        output, _ = tape._outputs[use.operation]
        if output.shape[0] != losses.shape[0] or not jnp.issubdtype(output.dtype, jnp.floating):
            raise ValueError(
                f"{names[use.leaf]} acts on {output.dtype}{list(output.shape)}, which is not a float array of the "
                f"{losses.shape[0]} examples along its first axis."
            )
    for index, name in enumerate(names):
        kinds = {use.kind for use in tape._uses if use.leaf == index}
        if not kinds and index not in tape._constants:
            raise ValueError(f"{name} is not used on the tape; if that is meant, say tape.constant.")
        if "rows" in kinds and len(kinds) > 1:
            raise ValueError(f"{name} is used both elementwise and as a matrix, which is not supported.")


def _term(kind, factor, delta, leaf):
    """One use's share in the gradient: ``("rows", [B, *shape])``, ``("table", ids, [B, T, d])``, ``("matrix", l, r)``.

    A matrix's gradient is ``sum_t l_t r_tᵀ`` with ``l`` ``[B, ..., n]`` and ``r`` ``[B, ..., m]``, t being all axes
    between; a table's has one-hot vectors for ``l``.
    """

    if kind == "rows":
        product = as_float(delta) if factor is None else as_float(factor) * as_float(delta)
        return "rows", product.sum(axis=tuple(range(1, delta.ndim - leaf.ndim)))
    if kind == "table":
        return "table", factor.reshape(len(factor), math.prod(factor.shape[1:])), _positions(delta)
    return ("matrix", delta, factor) if kind == "transpose" else ("matrix", factor, delta)


def _positions(x):
    """All axes between the first and the last as one."""
    return x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])


def _without(terms, left_out):
    """The leaves' terms with zeros for some examples: not 0 times what may be infinite."""

    def zero(x):
        return jnp.where(left_out.reshape(-1, *[1] * (x.ndim - 1)), jnp.zeros_like(x), x)

    return [[(kind, *map(zero, parts)) for kind, *parts in rows] for rows in terms]


def _sum(leaf, terms):
    """The sum of the examples' gradients, float32 or wider."""
    dtype = jnp.promote_types(leaf.dtype, jnp.float32)
    total = jnp.zeros(leaf.shape, dtype)
    for kind, *parts in terms:
        if kind == "rows":
            total += parts[0].sum(axis=0)
        elif kind == "table":
            total = total.at[parts[0]].add(parts[1].astype(dtype))
        else:
            # With an axis of positions, be it of one: XLA on a CPU then copies the left operand's transpose and has
            # YNNPACK multiply, which takes 4 % off a step of an MLP.
            total += jnp.einsum("btn,btm->nm", *map(_positions, parts), preferred_element_type=dtype)
    return total


def _norms(leaves):
    """Norms ``[B]`` of the examples' gradients, from the terms of each leaf."""
    roots = []

    def root_of_squares(x):  # as it is, which takes one pass over what may be as large as the activations
        roots.append(jnp.sqrt(jnp.square(as_float(x)).sum(axis=tuple(range(1, x.ndim)))))
        return roots[-1]

    usual = _whole([_leaf_norms(terms, root_of_squares) for terms in leaves])
    if not roots:
        return usual
    # Squares fit where their sum is far from the ends of the type: what is lost of smaller ones is below its rounding.
    limits = jnp.finfo(jnp.result_type(*roots))
    fits = [(root > limits.tiny**0.5 / limits.eps) & (root < jnp.inf) for root in roots]
    return jax.lax.cond(
        anywhere(~jnp.stack(fits).all(axis=0)),
        lambda: _whole([_leaf_norms(terms, _scaled_root) for terms in leaves]),
        lambda: usual,
    )


def _whole(norms):
    """The norm from the leaves' norms."""
    return scaled_norm([jnp.stack(norms, axis=-1)])


def _leaf_norms(terms, root_of_squares):
    """Norms ``[B]`` for one leaf; ``root_of_squares`` is that of all entries of each example's operand."""
    rows = [parts[0] for kind, *parts in terms if kind == "rows"]
    if rows:
        return root_of_squares(sum(rows))
    matrix = [parts for kind, *parts in terms if kind == "matrix"]
    table = [parts for kind, *parts in terms if kind == "table"]
    if len(terms) == 1 and matrix and matrix[0][0].ndim == 2:
        return root_of_squares(matrix[0][0]) * root_of_squares(matrix[0][1])
    if matrix:  # uses one after the other are one use of all their positions
        (left_size, left), (right_size, right) = (
            _unit(jnp.concatenate([*map(_positions, parts)], axis=1)) for parts in zip(*matrix, strict=True)
        )
        matrix_squares = _matrix_squares(left, right)
    if table:
        ids, deltas = (jnp.concatenate(parts, axis=1) for parts in zip(*table, strict=True))
        table_size, deltas = _unit(deltas)
        table_squares = _table_squares(ids, deltas)
    if not table:
        return left_size * _root(matrix_squares) * right_size
    if not matrix:
        return table_size * _root(table_squares)
    # Tied: <onehot(id_t) δ_tᵀ, l_s r_sᵀ> = l_s[id_t] (δ_t · r_s).
    cross = jnp.take_along_axis(left, ids[:, None, :], axis=2) * jnp.einsum("bsm,btm->bst", right, deltas)
    matrix_size = left_size * right_size
    scale = scale_of(jnp.maximum(matrix_size, table_size))
    a, b = matrix_size / scale, table_size / scale
    squares = a * a * matrix_squares + b * b * table_squares + 2.0 * a * b * cross.sum(axis=(1, 2))
    return scale * _root(squares)


def _scaled_root(x):
    """Root of the sum of squares of each example's entries, relative to the largest."""
    return scaled_norm([as_float(x.reshape(len(x), math.prod(x.shape[1:])))])


def _unit(x):
    """The size of each example's entries, ``[B]``, 0 where all are, and ``x`` relative to it."""
    x = as_float(x)
    top = jnp.max(jnp.abs(x), axis=(1, 2), initial=0.0)
    scale = scale_of(top)
    return jnp.where(top == 0, 0.0, scale), x / scale[:, None, None]


def _root(squares):
    """Square root of a sum of squares that rounding may have made negative."""
    return jnp.sqrt(jnp.maximum(squares, 0.0))


def _matrix_squares(left, right):
    """``‖sum_t l_t r_tᵀ‖²`` from Gram matrices over time, or from the sum itself where that is smaller."""
    if 2 * left.shape[1] ** 2 <= left.shape[2] * right.shape[2]:
        return (jnp.einsum("btn,bsn->bts", left, left) * jnp.einsum("btm,bsm->bts", right, right)).sum(axis=(1, 2))
    return jnp.square(jnp.einsum("btn,btm->bnm", left, right)).sum(axis=(1, 2))


def _table_squares(ids, deltas):
    """``sum_v ‖sum_{t: id_t = v} δ_t‖²``: each position adds to the first place of its id among the sorted ones."""
    first = jax.vmap(jnp.searchsorted)(jnp.sort(ids, axis=1), ids)
    sums = jax.vmap(lambda place, delta: jnp.zeros_like(delta).at[place].add(delta))(first, deltas)
    return jnp.square(sums).sum(axis=(1, 2))
