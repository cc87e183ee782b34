"""Computes losses, gradients and every example's gradient norm of a flax module, from one backward pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from mixjax.checks import check_integer
from mixjax.grad_norms.backward import Measured, as_weights, batch_spec, measure
from mixjax.grad_norms.nnx.model import Model, Routes, State, over_examples
from mixjax.grad_norms.recording import RecordingTape
from mixjax.grad_norms.scaling import wide
from mixjax.meshes import spec_of, varying_axes, varying_over, with_auto_axes

__all__ = ["Route", "explain", "measured", "size_of", "value_grads_and_norms"]

# Numbers of an example's own gradients above which a user is told of them: 4 MB an example.
_MANY = 2**20


class Route(NamedTuple):
    """Says how the gradients of one parameter are measured.

    Attributes:
        numbers: how many numbers are held for each example: 0 where the gradients are measured by factors.
        reason: why the gradients are formed; empty where they are not.
    """

    numbers: int
    reason: str


def value_grads_and_norms(
    loss: Callable[[Any, Any], jax.Array],
    model: Any,
    batch: Any,
    *,
    weights: ArrayLike | None = None,
    wrt: Any = nnx.Param,
    microbatch: int | None = None,
) -> tuple[jax.Array, Any, jax.Array]:
    r"""Returns losses, the gradient of their weighted mean, and every example's gradient norm, of an nnx module.

    .. math:: \nabla \frac1B \sum_b u_b \ell_b
              \quad\text{and}\quad \|\nabla \ell_b\|^2 = \sum_{\text{leaves}} \|\nabla_{\text{leaf}} \ell_b\|^2

    It takes the place of ``nnx.value_and_grad`` in a training step. The module is an ordinary one, and its classes are
    not touched: the loss is traced with a copy of it, for one example at a time, under ``vmap``. In the copy, known
    layers note their inputs on a :class:`mixjax.grad_norms.Tape`, from which the norms are made as in
    :func:`mixjax.grad_norms.value_grads_and_norms`. The gradients of all other parameters are formed for each example.
    :func:`explain` lists which is which.

    No example's loss may depend on another example. ``BatchNorm`` in training mode is refused by name; :func:`check`
    finds anything else of this kind. Each example has random numbers of its own (for dropout), from the module's
    ``Rngs``, whose counters advance as they would in a call of the module.

    Args:
        loss: ``loss(model, batch) -> [B]``, the examples' losses ``ℓ``. It is called with one example, ``B = 1``.
        model: an ``nnx.Module``, or any graph of flax.
        batch: pytree of arrays with a leading axis of ``B`` examples each.
        weights: ``u``, ``[B]``, such as importance weights ``c / q``; ones by default. With
            ``B * mixjax.objectives.example_weights(...)`` the gradient is that of :func:`mixjax.weighted_loss`. No
            gradient flows through them. An example of weight 0 is left out of the gradient, even if its own gradient
            is not finite.
        wrt: a filter of flax: the variables with respect to which the gradient is taken, such as ``nnx.LoRAParam``.
        microbatch: how many examples are taken at a time, to bound the memory; all ``B`` by default.

    Returns:
        ``(losses, grads, norms)``: the losses ``[B]``; the gradient, a state like that of ``nnx.grad``, which
        ``nnx.Optimizer.update`` takes; and the norms of the losses without weights, float32 ``[B]``. Under
        ``shard_map`` the gradient is that of the device's own examples; average it over the devices.

    Raises:
        ValueError: a loss that is not ``[B]``; arrays of the batch with other leading axes; weights of another shape;
            ``wrt`` that selects nothing; a ``BatchNorm`` in training mode, or another variable that the loss changes.

    Warns:
        UserWarning: gradients of more than a million numbers are formed for each example, and ``microbatch`` is not
            given. The warning names the largest parameters and the reasons.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mixjax import grad_norms
        >>> def loss(model, batch):
        ...     x, y = batch
        ...     return 0.5 * jnp.square(model(x)[:, 0] - y)
        >>> model = nnx.Linear(1, 1, kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(0))
        >>> batch = jnp.array([[0.75], [0.0]]), jnp.array([-4.0, -1.0])
        >>> losses, grads, norms = grad_norms.nnx.value_grads_and_norms(loss, model, batch)
        >>> losses.tolist(), grads["kernel"][...].tolist(), norms.tolist()
        ([8.0, 0.5], [[1.5]], [5.0, 1.0])

    References:
        As :func:`mixjax.grad_norms.value_grads_and_norms`; Yousefpour et al., "Opacus: user-friendly differential
        privacy library in PyTorch" (2021), for norms of modules that are not rewritten. Deviation: modules are copied,
        and have no hooks.
    """
    traced = Model(loss, model, wrt)
    size = size_of(batch)
    weights = as_weights(weights, size)
    if microbatch is not None:
        check_integer("microbatch", microbatch, 1)

    def run(state, batch, weights):
        return measured(traced, state, batch, weights, microbatch)

    spec = batch_spec((batch, weights))
    run = with_auto_axes(run, (spec, [spec_of(leaf) for leaf in traced.state.leaves], spec, PartitionSpec()))
    losses, grads, norms, counts = run(traced.state, batch, weights)
    nnx.update(model, counts)
    return losses, traced.structure.unflatten(grads), norms


def explain(loss: Callable[[Any, Any], jax.Array], model: Any, batch: Any, *, wrt: Any = nnx.Param) -> dict[str, Route]:
    """Says for each parameter how :func:`value_grads_and_norms` measures its gradients, without a computation.

    Args:
        loss: as for :func:`value_grads_and_norms`.
        model: the module.
        batch: a batch; only its shapes matter.
        wrt: a filter of flax.

    Returns:
        A :class:`Route` by the name of each parameter.

    Raises:
        ValueError: as :func:`value_grads_and_norms`.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mixjax import grad_norms
        >>> rngs = nnx.Rngs(0)
        >>> model = nnx.Sequential(nnx.Linear(3, 8, rngs=rngs), nnx.LayerNorm(8, rngs=rngs))
        >>> routes = grad_norms.nnx.explain(lambda model, x: model(x).sum(1), model, jnp.ones((5, 3)))
        >>> for name, route in routes.items():
        ...     print(name, *route)
        model.layers[0].bias 0
        model.layers[0].kernel 0
        model.layers[1].bias 8 LayerNorm is not a layer whose gradients have two factors
        model.layers[1].scale 8 LayerNorm is not a layer whose gradients have two factors
    """
    size_of(batch)
    traced = Model(loss, model, wrt)
    # Shapes alone, since how the arrays are sharded over a mesh with Explicit axes could stop the trace.
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (traced.state, batch))
    itself = traced.routes(*shapes).itself
    return {
        name: Route(leaf.size if index in itself else 0, itself.get(index, ""))
        for index, (name, leaf) in enumerate(zip(traced.names, traced.state.leaves, strict=True))
    }


def measured(
    traced: Model, state: State, batch: Any, weights: jax.Array | None, microbatch: int | None
) -> tuple[jax.Array, list[jax.Array], jax.Array, Any]:
    """Returns losses, the leaves' gradients, norms, and the counters of the module's random numbers afterwards."""
    size = len(jax.tree.leaves(batch)[0])
    routes = traced.routes(state, batch)
    if microbatch is None:
        _warn_of_large(traced, routes)
    take = max(size if microbatch is None else min(microbatch, size), 1)
    # Under shard_map, JAX would sum the derivatives with respect to zeros that are the same on all devices.
    axes = frozenset().union(*map(varying_axes, jax.tree.leaves((state.leaves, batch, weights))))

    def chunk(first, batch, weights):
        return _chunk(traced, routes, state, axes, first, batch, weights)

    full = max(size // take, 1)
    rest = size - full * take if size else 0
    if full == 1 and not rest:
        losses, sums, norms, counts = chunk(0, batch, weights)
    else:
        zeros = [varying_over(jnp.zeros(leaf.shape, wide(leaf.dtype)), axes) for leaf in state.leaves]

        def body(sums, inputs):
            found = chunk(*inputs)
            return _added(sums, found.sums), (found.losses, found.norms, found.aux)

        def chunks(x):
            return x[: full * take].reshape(full, take, *x.shape[1:])

        firsts = take * jnp.arange(full)
        sums, found = jax.lax.scan(body, zeros, (firsts, *jax.tree.map(chunks, (batch, weights))))
        losses, norms = found[0].reshape(-1), found[1].reshape(-1)
        # Every chunk starts from the same counters, and moves them alike.
        counts = jax.tree.map(lambda count: count[0], found[2])
        if rest:
            last = chunk(full * take, *jax.tree.map(lambda x: x[full * take :], (batch, weights)))
            losses, norms = jnp.concatenate([losses, last.losses]), jnp.concatenate([norms, last.norms])
            sums = _added(sums, last.sums)
    grads = [(total / max(size, 1)).astype(leaf.dtype) for leaf, total in zip(state.leaves, sums, strict=True)]
    return losses, grads, norms, counts


def _added(sums: list[jax.Array], others: list[jax.Array]) -> list[jax.Array]:
    return [a + b for a, b in zip(sums, others, strict=True)]


def _chunk(traced: Model, routes: Routes, state, axes, first, batch, weights) -> Measured:
    """Measures some examples of a batch, of which the first has the number ``first``."""
    size, itself = len(jax.tree.leaves(batch)[0]), frozenset(routes.itself)

    def forward(zeros):
        def one(number, inputs):
            example, zeros = inputs
            tape = RecordingTape(zeros)
            loss, after = traced.example(tape, itself, state.leaves, state, number, example)
            return (loss, tape.factors), after

        (losses, factors), after = over_examples(one, (batch, zeros), first)
        return losses, (factors, after)

    zeros = [varying_over(jnp.zeros((size, *o.type.shape), o.type.dtype), axes) for o in routes.record.outputs]
    return measure(forward, zeros, routes.record, state.leaves, weights)


def _warn_of_large(traced: Model, routes: Routes) -> None:
    sizes = {index: traced.state.leaves[index].size for index in routes.itself}
    total = sum(sizes.values())
    if total > _MANY:
        largest = sorted(sizes, key=lambda index: -sizes[index])[:3]
        named = "; ".join(f"{traced.names[i]}, {sizes[i]:,} numbers: {routes.itself[i]}" for i in largest)
        warnings.warn(
            f"Gradients of {total:,} numbers are formed for each example ({named}). Pass microbatch= to bound how many "
            "examples are in memory at a time; grad_norms.nnx.explain lists all parameters.",
            stacklevel=4,
        )


def size_of(batch: Any) -> int:
    """Returns the number of a batch's examples, and refuses arrays that disagree on it."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError(f"batch must have arrays with a leading axis of the same examples, got shapes {shapes}.")
    return sizes.pop()[0]
