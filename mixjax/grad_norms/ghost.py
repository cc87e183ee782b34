"""Computes ghost norms: every example's gradient norm from the products that a backward pass has anyway."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.grad_norms.backward import as_weights, batch_spec, measure
from mixjax.grad_norms.recording import RecordingTape
from mixjax.grad_norms.tape import Parameter, Tape, UseKind
from mixjax.grad_norms.windows import Geometry
from mixjax.meshes import spec_of, varying_axes, varying_over, with_auto_axes

__all__ = ["value_grads_and_norms"]


def value_grads_and_norms(
    losses_fn: Callable[[Tape, Any, Any], jax.Array], params: Any, batch: Any, *, weights: ArrayLike | None = None
) -> tuple[jax.Array, Any, jax.Array]:
    r"""Returns losses, the gradient of their weighted mean, and every example's gradient norm, from one backward pass.

    .. math:: \nabla \frac1B \sum_b u_b \ell_b
              \quad\text{and}\quad \|\nabla \ell_b\|^2 = \sum_{\text{leaves}} \|\nabla_{\text{leaf}} \ell_b\|^2

    ``ℓ`` are the losses and ``u`` the ``weights``. The backward pass gives ``δ_b``, the derivative of example ``b``'s
    part ``u_b ℓ_b`` with respect to each operation's output. Everything else is products of ``δ_b`` with the
    operation's input ``x_b``. Each kind of operation gets its squared norm from

    - a dense layer on ``[B, in]``: ``‖x_b‖² ‖δ_b‖²``;
    - a dense layer on ``[B, T, in]``: ``sum_{t,s} (x_bt·x_bs)(δ_bt·δ_bs)`` if ``2 T² <= in · out``, else
      ``‖sum_t x_bt δ_btᵀ‖²``, whichever takes less memory;
    - an embedding: the sum of ``δ_bt`` over the places of each token, squared, which is
      ``sum_{t,s} [id_bt = id_bs] δ_bt·δ_bs``;
    - a convolution: that of a dense layer on ``[B, T, in]`` whose ``T`` places are the windows. The gradients are
      summed up one entry of the window at a time, without a copy of the windows;
    - biases and elementwise scales: their gradients ``sum_t δ_bt`` and ``sum_t x_bt δ_bt`` themselves.

    The gradient is assembled from the same ``x`` and ``δ``, with one product per layer as in any backward pass.

    The norms are divided by ``u_b``, so they are the norms of the losses without weights. A weight of zero counts as
    one until the example is left out of the gradient.

    Zero weights, and operands too small or too large to be squared in float32, cost further passes over the activations
    in the batches that have them. Under ``vmap`` all batches pay if one has them. Under ``shard_map`` the gradient is
    that of the device's own examples; average it over the devices.

    Args:
        losses_fn: ``losses_fn(tape, params, batch) -> [B]``, the examples' losses ``ℓ``, by a model on a :class:`Tape`.
            It is traced twice. Its ``params`` have a :class:`Parameter` in place of each array.
        params: pytree of parameters; each leaf must be used on the tape.
        batch: pytree of arrays, handed to ``losses_fn`` as it is.
        weights: ``u``, ``[B]``, such as importance weights ``c / q``; ones by default. With
            ``B * mixjax.objectives.example_weights(...)`` the gradient is that of :func:`mixjax.weighted_loss`. No
            gradient flows through them. An example of weight 0 is left out of the gradient, even if its own gradient
            is not finite. A weight so small or so large that ``u δ`` leaves the normal range of an operation's dtype
            makes its norm inexact.

    Returns:
        ``(losses, grads, norms)``: the losses ``[B]``, the gradient in the structure and dtypes of ``params``, and the
        norms, float32 ``[B]``. Sums are in float32 or wider, products in the device's default precision for matrices.
        Where a dense layer's sum over places cancels, Gram matrices give its norm with an error of about ``1e-3`` of
        the norm of the terms.

    Raises:
        ValueError: a leaf that is not used on the tape, or is used outside it, or is used both elementwise and as a
            matrix; an operation within a transformation such as ``scan`` or ``checkpoint``; losses that are not
            ``[B]``; an operation whose first axis is not ``B`` long; weights of another shape.

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
        sequences and embeddings; Rochette, Manoel and Tramel, "Efficient per-example gradient computations in
        convolutional neural networks" (2019), for convolutions; Bu, Mao and Xu, "Scalable and efficient training of
        large convolutional neural networks with differential privacy" (NeurIPS 2022), for the choice between the two
        ways. Deviations: scaled sums; an example's norm does not depend on its weight, zero included.
    """
    # On a mesh with Explicit axes XLA places what is computed here, the model included.
    spec = batch_spec((batch, weights))
    run = with_auto_axes(functools.partial(_measured, losses_fn), specs=(spec, jax.tree.map(spec_of, params), spec))
    return run(params, batch, weights)


def _measured(losses_fn, params, batch, weights):
    names, leaves, parameters, structure = _wrapped(params)
    # The first trace gives the operations' output types, for which the second one needs zeros.
    record, losses_type = _traced(losses_fn, parameters, batch)
    _check_losses(losses_type)
    _check_uses(record, len(losses_type), names)

    def forward(zeros):
        tape = RecordingTape(zeros)
        return losses_fn(tape, parameters, batch), (tape.factors, None)

    # Under shard_map, JAX would sum the derivatives with respect to zeros that are the same on all devices.
    axes = frozenset().union(*map(varying_axes, jax.tree.leaves((params, batch))))
    zeros = [varying_over(jnp.zeros(o.type.shape, o.type.dtype), axes | o.axes) for o in record.outputs]
    size = len(losses_type)
    losses, sums, norms, _ = measure(forward, zeros, record, leaves, as_weights(weights, size))
    # `max` keeps a batch without examples from a division by zero.
    grads = [(total / max(size, 1)).astype(leaf.dtype) for leaf, total in zip(leaves, sums, strict=True)]
    return losses, structure.unflatten(grads), norms


def _traced(losses_fn, parameters, batch):
    """Returns the record of a trace of the model, and the type of the losses."""
    records = []

    def run():
        # The tape has to be made inside the transformation in which it is used.
        records.append(RecordingTape())
        return losses_fn(records[0], parameters, batch)

    losses_type = jax.eval_shape(run)
    return records[0], losses_type


def _wrapped(params):
    """Returns the names, arrays and tree of :class:`Parameter` of the leaves, and the tree's structure."""
    paths, structure = jax.tree.flatten_with_path(params)
    names = [f"params{jax.tree_util.keystr(path)}" for path, _ in paths]
    leaves = [jnp.asarray(leaf) for _, leaf in paths]
    parameters = [Parameter(name, index, leaf) for index, (name, leaf) in enumerate(zip(names, leaves, strict=True))]
    return names, leaves, structure.unflatten(parameters), structure


def _check_losses(losses: Any) -> None:
    if getattr(losses, "ndim", None) != 1 or not jnp.issubdtype(losses.dtype, jnp.floating):
        raise ValueError(f"losses_fn must return one loss per example, float [B], got {losses}.")


def _check_uses(record: RecordingTape, batch_size: int, names: list[str]) -> None:
    for use in record.uses:
        output = record.outputs[use.operation].type
        if output.shape[0] != batch_size or not jnp.issubdtype(output.dtype, jnp.floating):
            raise ValueError(
                f"{names[use.leaf]} acts on {output.dtype}{list(output.shape)}, which is not a float array of the "
                f"{batch_size} examples along its first axis."
            )
    for index, name in enumerate(names):
        kinds = {way_of(use.kind) for use in record.uses if use.leaf == index}
        if not kinds and index not in record.constants:
            raise ValueError(f"{name} is not used on the tape; if that is meant, say tape.constant.")
        if len(kinds) > 1:
            ways = " and ".join(sorted(kinds, reverse=True))
            raise ValueError(f"{name} is used both {ways}, which is not supported.")


def way_of(kind: UseKind) -> str:
    """Returns how a parameter is used, in words; uses of one parameter in different ways cannot be joined."""
    if isinstance(kind, Geometry):
        return f"as a convolution's kernel with {kind.groups} groups"
    return "elementwise" if kind == "rows" else "as a matrix"
