"""Runs a module of flax on one example at a time, on a tape that notes how its layers use their parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mixjax.grad_norms.ghost import way_of
from mixjax.grad_norms.nnx.layers import Hook, hooked, is_known, listening
from mixjax.grad_norms.recording import RecordingTape
from mixjax.grad_norms.tape import Parameter
from mixjax.meshes import varying_like

__all__ = ["Model", "Routes", "State", "over_examples"]


class State(NamedTuple):
    """Holds the arrays of a module.

    Attributes:
        leaves: the parameters that have gradients.
        keys: the keys of its random numbers.
        rest: everything else: counters of the keys, running averages, frozen parameters.
    """

    leaves: list[jax.Array]
    keys: Any
    rest: Any


class Routes(NamedTuple):
    """Says how each parameter's gradients are measured.

    Attributes:
        itself: the indices of the leaves whose gradients are formed for every example, with the reason of each.
        record: what the tape noted for one example: the operations' outputs have no axis of examples.
    """

    itself: dict[int, str]
    record: RecordingTape


class Model:
    """Runs copies of a module, whose known layers are exchanged for layers that take notes."""

    def __init__(self, loss: Callable[[Any, Any], jax.Array], model: Any, wrt: Any):
        """Splits the module; neither it nor its classes are changed."""
        self.loss, self.wrt = loss, wrt
        self.graphdef, params, keys, rest = nnx.split(model, wrt, nnx.RngKey, ...)
        paths, self.structure = jax.tree.flatten_with_path(params)
        if not paths:
            raise ValueError(f"wrt must select variables of the model, got {wrt}, of which it has none.")
        self.names = [_parameter_name(path) for path, _ in paths]
        self.state = State([jnp.asarray(leaf) for _, leaf in paths], keys, rest)
        # In this copy each parameter's value is its index among the leaves.
        numbered = nnx.merge(self.graphdef, self.structure.unflatten(range(len(paths))), keys, rest)
        self.layers: dict[tuple, dict[str, int]] = {}
        self.batch_norms: list[tuple] = []
        self.owners: dict[int, str] = {}
        for path, module in nnx.iter_modules(numbered):
            indices = _indices(module)
            self.owners |= {index: type(module).__name__ for index in indices.values()}
            if is_known(module):
                self.layers[path] = indices
            elif isinstance(module, nnx.BatchNorm) and type(module).__call__ is nnx.BatchNorm.__call__:
                self.batch_norms.append(path)

    def routes(self, state: State, batch: Any) -> Routes:
        """Finds the parameters that are used by known layers only; the others' gradients are formed themselves.

        A known layer's parameter has the layer's true value only within the layer. All other code meets a stand-in, and
        if the traced program reads a stand-in, then the layer does not account for all of the gradient.
        """
        known = {index for indices in self.layers.values() for index in indices.values()}
        itself = {
            index: f"{self.owners.get(index, 'the module')} is not a layer whose gradients have two factors"
            for index in range(len(state.leaves))
            if index not in known
        }
        while True:
            tapes: list[RecordingTape] = []
            missed: dict[int, str] = {}

            def run(stand_ins, state, batch, tapes=tapes, missed=missed, itself=frozenset(itself)):
                def one(number, example):
                    tapes.append(RecordingTape())
                    return self.example(tapes[-1], itself, stand_ins, state, number, example, missed)

                return over_examples(one, batch)

            jaxpr = jax.make_jaxpr(run)(state.leaves, state, batch).jaxpr
            read = {id(var) for eqn in jaxpr.eqns for var in eqn.invars} | {id(var) for var in jaxpr.outvars}
            for index, var in enumerate(jaxpr.invars[: len(state.leaves)]):
                if id(var) in read and index not in itself:
                    missed.setdefault(index, "it is read outside its layer")
            missed |= dict.fromkeys(_mixed(tapes[-1]), "its uses cannot be joined")
            if not missed:
                return Routes(itself, tapes[-1])
            # A layer takes notes for all of its parameters or for none.
            layers = [set(indices.values()) for indices in self.layers.values()]
            beside = set().union(*(layer for layer in layers if layer & set(missed)))
            itself |= {index: "another parameter of its layer is used elsewhere" for index in beside} | missed

    def example(
        self,
        tape: RecordingTape,
        itself: frozenset[int],
        stand_ins: list[jax.Array],
        state: State,
        number: jax.Array,
        example: Any,
        missed: dict[int, str] | None = None,
    ) -> tuple[jax.Array, Any]:
        """Computes the loss of one example.

        Args:
            tape: takes notes.
            itself: the indices of the leaves whose gradients are formed themselves.
            stand_ins: what other code than the known layers reads as the other leaves.
            state: the module's arrays.
            number: the example's place in its batch, which gives it random numbers of its own.
            example: the example.
            missed: gets the leaves of known layers that are used where nothing can be noted, with the reason of each.

        Returns:
            The loss, and the counters of the module's random numbers afterwards.
        """
        leaves = state.leaves
        parameters = [Parameter(name, i, leaf) for i, (name, leaf) in enumerate(zip(self.names, leaves, strict=True))]
        values = [
            tape._tap("add", leaf, (parameters[i], "rows", None)) if i in itself else stand_in
            for i, (leaf, stand_in) in enumerate(zip(leaves, stand_ins, strict=True))
        ]
        keys = jax.tree.map(lambda key: _folded(key, number), state.keys)
        model = self.merged(State(values, keys, state.rest))
        twin = self.merged(State(leaves, keys, state.rest))
        modules, twins = dict(nnx.iter_modules(model)), dict(nnx.iter_modules(twin))
        missed = {} if missed is None else missed
        hooks = {}
        for path in (*self.layers, *self.batch_norms):
            indices, module = self.layers.get(path, {}), modules[path]
            if not itself & set(indices.values()):
                used = {attribute: parameters[i] for attribute, i in indices.items()}
                hooks[id(module)] = Hook(_dotted(path), twins[path], tape, used, missed)
                # Around flax's own check of attributes. The object is ours, and its class has the same fields.
                object.__setattr__(module, "__class__", hooked(type(module)))
        with listening(hooks):
            losses = self.loss(model, jax.tree.map(lambda x: x[None], example))
        if getattr(losses, "shape", None) != (1,) or not jnp.issubdtype(losses.dtype, jnp.floating):
            got = losses if not hasattr(losses, "shape") else f"{losses.dtype}{list(losses.shape)}"
            raise ValueError(
                f"loss must return one loss per example, float [B]. It is called with one example at a time, so [1], "
                f"and gave {got}."
            )
        for index, after in enumerate(jax.tree.leaves(nnx.state(model, self.wrt))):
            if after is not values[index] and index not in itself:
                missed[index] = "it is changed outside its layer"
        self._check_unchanged(model, state)
        return losses[0], nnx.state(model, nnx.RngCount)

    def merged(self, state: State) -> Any:
        """Returns a copy of the module with the arrays of a state."""
        # New variables for the old arrays: flax refuses to change a variable that was made outside of this trace.
        keys, rest = jax.tree.map(lambda x: x, (state.keys, state.rest))
        return nnx.merge(self.graphdef, self.structure.unflatten(state.leaves), keys, rest)

    def _check_unchanged(self, model: Any, state: State) -> None:
        """Refuses what would be lost with the copy: running averages and the like that the loss has changed."""
        before = dict(nnx.to_flat_state(state.rest))
        for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState))):
            if path in before and _value(variable) is not _value(before[path]):
                raise ValueError(
                    f"{_dotted(path)} ({type(variable).__name__}) changes while the loss is computed, and the change "
                    "of one example would be lost: call the module in evaluation mode (model.eval())."
                )


def _parameter_name(path: tuple) -> str:
    """Returns a parameter's name as a user writes it: ``model.layers[0].kernel``."""
    # The last entry leads from flax's variable to its array.
    keys = [getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))) for entry in path]
    return _dotted(keys[:-1] if keys and keys[-1] == "value" else keys)


def _dotted(path) -> str:
    return "model" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)


def _indices(module: Any) -> dict[str, int]:
    """Returns the indices of the numbered parameters that a module itself holds."""
    values = {name: _value(value) for name, value in vars(module).items() if isinstance(value, nnx.Variable)}
    return {name: value for name, value in values.items() if type(value) is int}


def _value(variable: Any) -> Any:
    """Returns the array of a variable; a module may also hold arrays without one."""
    if not isinstance(variable, nnx.Variable):
        return variable
    # Versions of flax before `get_raw_value` have the attribute.
    return variable.get_raw_value() if hasattr(variable, "get_raw_value") else variable.raw_value


def _folded(key: jax.Array, number: jax.Array) -> jax.Array:
    """Makes an example's own key, or keys."""
    keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(key.reshape(-1))
    return keys.reshape(key.shape)


def over_examples(one: Callable[[jax.Array, Any], Any], batch: Any, first: int | jax.Array = 0) -> Any:
    """Applies a function to each example of a batch.

    Args:
        one: ``one(number, example) -> (result, shared)``; ``shared`` does not depend on the example.
        batch: pytree of arrays with a leading axis of examples.
        first: the number of the first example.

    Returns:
        ``(results, shared)``, results with a leading axis of examples.
    """
    size = len(jax.tree.leaves(batch)[0])
    numbers = jnp.arange(size, dtype=jnp.uint32) + jnp.asarray(first, jnp.uint32)
    return jax.vmap(one, out_axes=(0, None))(varying_like(numbers, batch), batch)


def _mixed(tape: RecordingTape) -> set[int]:
    """Returns the leaves whose uses have no common form, such as a kernel of two numbers of groups."""
    ways: dict[int, set[str]] = {}
    for use in tape.uses:
        ways.setdefault(use.leaf, set()).add(way_of(use.kind))
    return {leaf for leaf, found in ways.items() if len(found) > 1}
