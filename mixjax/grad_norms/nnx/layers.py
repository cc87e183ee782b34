"""Says how the layers of flax use their parameters, and notes it on a tape whenever a layer is called."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mixjax.checks import as_ids
from mixjax.grad_norms.recording import RecordingTape
from mixjax.grad_norms.tape import Parameter, UseKind
from mixjax.grad_norms.windows import geometry_of

__all__ = ["Hook", "hooked", "is_known", "listening"]

Uses = list[tuple[str, UseKind, jax.Array | None]]


class Layer(NamedTuple):
    """Describes a class of flax whose gradients have two factors.

    Attributes:
        methods: for each method, a function of a layer and the method's arguments that returns how the parameters are
            used: an attribute's name, the kind, and the input, without an axis of examples.
        is_plain: tells whether a layer computes what its class does by default.
    """

    methods: dict[str, Callable[..., Uses]]
    is_plain: Callable[[Any], bool]


def _linear(layer, inputs, out_sharding=None) -> Uses:
    return [("kernel", "matrix", jnp.atleast_2d(inputs)), ("bias", "rows", None)]


def _linear_general(layer, inputs, out_sharding=None) -> Uses:
    axes = sorted(axis % inputs.ndim for axis in layer.axis)
    inputs = jnp.moveaxis(inputs, axes, range(-len(axes), 0))
    places = inputs.shape[: inputs.ndim - len(axes)]
    inputs = inputs.reshape(math.prod(places), math.prod(layer.in_features))
    return [("kernel", "matrix", inputs), ("bias", "rows", None)]


def _conv(layer, inputs, out_sharding=None) -> Uses:
    window = tuple(layer.kernel_size)
    images = inputs.reshape(-1, *inputs.shape[inputs.ndim - len(window) - 1 :])
    dilation, padding = layer.kernel_dilation, layer.padding
    steps = dilation if isinstance(dilation, Sequence) else (dilation or 1,) * len(window)
    spans = [(size - 1) * step + 1 for size, step in zip(window, steps, strict=True)]
    if padding == "CAUSAL":
        padding = [(span - 1, 0) for span in spans]
    elif padding in ("CIRCULAR", "REFLECT"):
        # The entries around the input come from the input itself.
        pads = [((span - 1) // 2, span // 2) for span in spans]
        mode = "wrap" if padding == "CIRCULAR" else "reflect"
        images, padding = jnp.pad(images, [(0, 0), *pads, (0, 0)], mode=mode), "VALID"
    geometry = geometry_of(
        images.shape[1:-1],
        window,
        strides=layer.strides,
        padding=padding,
        input_dilation=layer.input_dilation,
        kernel_dilation=dilation,
        groups=layer.feature_group_count,
    )
    return [("kernel", geometry, images), ("bias", "rows", None)]


def _embed(layer, inputs, out_sharding=None) -> Uses:
    ids, size = as_ids("inputs", inputs), layer.num_embeddings
    ids = jnp.where(ids < 0, ids + size, ids)
    # The lookup gives NaN for ids out of range, and no row of the table a gradient.
    ids = jnp.where((ids < 0) | (ids >= size), size, ids)
    return [("embedding", "table", jnp.atleast_1d(ids))]


def _attend(layer, query, out_sharding=None) -> Uses:
    return [("embedding", "transpose", jnp.atleast_2d(query))]


def _has_defaults(cls: type, *names: str) -> Callable[[Any], bool]:
    """Returns a function that tells whether a layer has none of the user's own functions in place of flax's."""
    parameters = inspect.signature(cls.__init__).parameters
    return lambda layer: all(getattr(layer, name) is parameters[name].default for name in names)


def _is_plain_linear_general(layer) -> bool:
    custom = layer.dot_general_cls is not None or layer.dot_general not in (None, jax.lax.dot_general)
    # With axes of its own kernels, a layer is several layers in one.
    return not custom and not layer.batch_axis and _has_defaults(nnx.LinearGeneral, "promote_dtype")(layer)


def _is_plain_conv(layer) -> bool:
    return layer.mask is None and _has_defaults(nnx.Conv, "promote_dtype", "conv_general_dilated")(layer)


def _is_plain_embed(layer) -> bool:
    # A table of one row is broadcast to all ids, in range or not.
    return layer.num_embeddings > 1 and _has_defaults(nnx.Embed, "promote_dtype")(layer)


LAYERS = {
    nnx.Linear: Layer({"__call__": _linear}, _has_defaults(nnx.Linear, "promote_dtype", "dot_general")),
    nnx.LinearGeneral: Layer({"__call__": _linear_general}, _is_plain_linear_general),
    nnx.Conv: Layer({"__call__": _conv}, _is_plain_conv),
    nnx.Embed: Layer({"__call__": _embed, "attend": _attend}, _is_plain_embed),
}


def known_class(module: Any) -> type | None:
    """Returns the class of flax whose methods a module has, or None; a subclass with methods of its own has none."""
    for cls, layer in LAYERS.items():
        own = type(module)
        if isinstance(module, cls) and all(getattr(own, name) is getattr(cls, name) for name in layer.methods):
            return cls
    return None


def is_known(module: Any) -> bool:
    """Tells whether a module's gradients can be made of its inputs and its outputs' derivatives."""
    cls = known_class(module)
    return cls is not None and LAYERS[cls].is_plain(module)


class Hook(NamedTuple):
    """Holds what a call of a layer needs, to be noted.

    Attributes:
        path: the layer's place in the model.
        twin: the same layer with the parameters' true values; the model's own are there to see who else reads them.
        tape: the tape that takes notes.
        parameters: the layer's parameters on the tape, by attribute.
        missed: gets the indices of the parameters if the layer is called where nothing can be noted, with the reason.
    """

    path: str
    twin: Any
    tape: RecordingTape
    parameters: dict[str, Parameter]
    missed: dict[int, str]


_HOOKS: contextvars.ContextVar[dict[int, Hook]] = contextvars.ContextVar("hooks")


@contextlib.contextmanager
def listening(hooks: dict[int, Hook]) -> Iterator[None]:
    """Notes the calls of some layers within the block.

    Args:
        hooks: by the ``id`` of each layer.

    Yields:
        Nothing.
    """
    token = _HOOKS.set(hooks)
    try:
        yield
    finally:
        _HOOKS.reset(token)


@functools.cache
def hooked(cls: type) -> type:
    """Returns a subclass of a layer's class whose calls are noted while :func:`listening`.

    There is one subclass for a class, since flax keeps every class of modules for ever.

    Args:
        cls: a class whose modules are known, or ``nnx.BatchNorm``.
    """
    base = next(known for known in (*LAYERS, nnx.BatchNorm) if issubclass(cls, known))
    if base is nnx.BatchNorm:
        return type(cls.__name__, (cls,), {"__call__": _checked_batch_norm(cls)})
    methods = {name: _noted(cls, name, uses) for name, uses in LAYERS[base].methods.items()}
    return type(cls.__name__, (cls,), methods)


def _noted(cls: type, name: str, uses: Callable[..., Uses]) -> Callable[..., jax.Array]:
    original = getattr(cls, name)

    @functools.wraps(original)
    def method(self, *args, **kwargs):
        # A layer that flax has split and merged again, as nnx.jit and nnx.scan do, is another object without a hook.
        hook = _HOOKS.get({}).get(id(self))
        if hook is None:
            return original(self, *args, **kwargs)
        if not hook.tape.is_where_it_started():
            for parameter in hook.parameters.values():
                hook.missed[parameter.index] = "its layer is called within jit, vmap, scan, cond, remat or grad"
            return original(self, *args, **kwargs)
        found: list[tuple[Parameter, UseKind, jax.Array | None]] = [
            (hook.parameters[attribute], kind, factor)
            for attribute, kind, factor in uses(hook.twin, *args, **kwargs)
            if attribute in hook.parameters
        ]
        return hook.tape._tap(name, getattr(hook.twin, name)(*args, **kwargs), *found)

    return method


def _checked_batch_norm(cls: type) -> Callable[..., jax.Array]:
    @functools.wraps(cls.__call__)
    def method(self, x, use_running_average=None, **kwargs):
        running = self.use_running_average if use_running_average is None else use_running_average
        if not running:
            hook = _HOOKS.get({}).get(id(self))
            place = "a BatchNorm within nnx.jit or nnx.scan" if hook is None else f"{hook.path} (BatchNorm)"
            raise ValueError(
                f"{place} takes its mean and variance from the batch, so that no example has a gradient of its own: "
                "use its running averages (model.eval() or use_running_average=True), or GroupNorm or LayerNorm."
            )
        return cls.__call__(self, x, use_running_average, **kwargs)

    return method
