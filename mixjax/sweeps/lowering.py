"""Makes compiled programs of all slots of a chunk out of the functions of one run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mixjax.sweeps.keys import with_keys, with_words
from mixjax.sweeps.segments import Segments
from mixjax.sweeps.shapes import Shapes
from mixjax.sweeps.spec import Train, Vectorize

__all__ = ["SPLIT", "WHOLE", "Inputs", "Lowered", "Signature", "compiled", "lower"]

SPLIT = PartitionSpec("runs")
"""Splits the slots over the devices."""

WHOLE = PartitionSpec()
"""Puts the whole on every device."""


class Inputs(NamedTuple):
    """Holds the arguments of one call, on the devices.

    Args:
        valid: bool ``[slots]``, which slots hold a run.
        state: what a run starts from, ``[slots, ...]``: its seed; or, for a segment, the carry.
        hparams: hyperparameter -> numbers ``[slots]``.
        labels: hyperparameter -> the position that all runs share, ``[]``.
        data: the sweep's data.
    """

    valid: jax.Array
    state: Any
    hparams: Any
    labels: Any
    data: Any


def _settings() -> tuple:
    """Returns the settings of JAX that change the program of a function."""
    names = ("enable_x64", "default_prng_impl", "default_matmul_precision", "threefry_partitionable", "debug_nans")
    names += ("numpy_dtype_promotion", "numpy_rank_promotion", "disable_jit")
    # Not every version of JAX has all of these.
    return tuple(getattr(jax.config, f"jax_{name}", None) for name in names)


@dataclasses.dataclass(frozen=True)
class Signature:
    """Holds everything that the programs of a chunk depend on. Equal signatures share their programs.

    Args:
        train: the training run.
        slots: number of runs in a call.
        vectorize: "vmap" or "map".
        mesh: the devices, as one axis "runs".
        hparams: the shapes of one run's hyperparameters that are numbers.
        labels: the shapes of one run's labels.
        data: the shapes of the data.
        settings: those of JAX when the signature is made.
    """

    train: Train | Segments
    slots: int
    vectorize: Vectorize
    mesh: Mesh
    hparams: Shapes
    labels: Shapes
    data: Shapes
    settings: tuple = dataclasses.field(default_factory=_settings)


class Lowered(NamedTuple):
    """Holds the traced programs of a chunk.

    Args:
        programs: one program for a function. Two for :class:`Segments`: one that makes the carry, one that runs a
            segment.
        carry: the pytree structure of that carry; None for a function.
    """

    programs: tuple[Any, ...]
    carry: Any


# Few are kept: each holds a whole traced program, and a sweep needs one, or one more each time it halves a chunk.
@functools.lru_cache(maxsize=8)
def lower(signature: Signature) -> Lowered:
    """Traces the programs of a chunk.

    Args:
        signature: what they depend on.

    Returns:
        The programs, not compiled; the same object for equal signatures.
    """
    train = signature.train
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    if isinstance(train, Segments):
        init, advance = _on_words(train)
        carry = jax.eval_shape(init, seed, signature.hparams.tree, signature.labels.tree, signature.data.tree)
        # The old carry is donated: the new one takes over its memory, which for large models is most of what they need.
        programs = (_lower_one(init, seed, signature), _lower_one(advance, carry, signature, donate=True))
        return Lowered(programs, jax.tree.structure(carry))

    # The key is made inside the program: seeds are plain integers, which can be dealt out to devices and kept on disk.
    def run(seed, hparams, labels, data):
        return train(jax.random.key(seed), hparams | labels, data)

    return Lowered((_lower_one(run, seed, signature),), None)


def _on_words(segments: Segments):
    """Returns ``init`` and ``advance`` for a carry that can be kept on disk, with the words of its random keys."""

    def init(seed, hparams, labels, data):
        return with_words(segments.init(jax.random.key(seed), hparams | labels, data))

    def advance(carry, hparams, labels, data):
        carry, metrics = segments.advance(with_keys(carry), hparams | labels, data)
        return with_words(carry), metrics

    return init, advance


def _lower_one(function: Callable, state: Any, signature: Signature, donate: bool = False):
    """Lowers one run's ``function(state, hparams, labels, data)`` as a program of all slots, with :class:`Inputs`."""
    mesh, slots = signature.mesh, signature.slots

    def of_slots(tree):
        sharding = NamedSharding(mesh, SPLIT)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((slots, *x.shape), x.dtype, sharding=sharding), tree)

    def of_all(tree):
        sharding = NamedSharding(mesh, WHOLE)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    inputs = Inputs(
        valid=of_slots(jax.ShapeDtypeStruct((), bool)),
        state=of_slots(state),
        hparams=of_slots(signature.hparams.tree),
        labels=of_all(signature.labels.tree),
        data=of_all(signature.data.tree),
    )
    repeated = _as_batch(function) if signature.vectorize == "vmap" else _one_by_one(function)
    if mesh.devices.size > 1:
        # In the order of Inputs.
        in_specs = (SPLIT, SPLIT, SPLIT, WHOLE, WHOLE)
        # check_vma would refuse programs whose loops mix values that vary over the devices with values that do not.
        repeated = jax.shard_map(repeated, mesh=mesh, in_specs=in_specs, out_specs=SPLIT, check_vma=False)
    donated = inputs._fields.index("state") if donate else ()
    return jax.jit(repeated, out_shardings=NamedSharding(mesh, SPLIT), donate_argnums=donated).lower(*inputs)


def _as_batch(function):
    """Makes a function of one run one of all slots, computed together."""

    def batch(valid, state, hparams, labels, data):
        del valid  # in a batch the padding costs no time
        # Labels are not batched: a switch over a batched index would run all of its branches.
        return jax.vmap(function, in_axes=(0, 0, None, None))(state, hparams, labels, data)

    return batch


def _one_by_one(function):
    """Makes a function of one run one of all slots, computed one after the other; padding is passed over."""

    def loop(valid, state, hparams, labels, data):
        def slot(inputs):
            valid, state, hparams = inputs
            shapes = jax.eval_shape(function, state, hparams, labels, data)
            # Not a `where`: inside a loop a `cond` runs one branch only, and zeros cost nothing.
            return jax.lax.cond(
                valid,
                lambda: function(state, hparams, labels, data),
                lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
            )

        return jax.lax.map(slot, (valid, state, hparams))

    return loop


# A cache of its own, keyed by the lowered program's identity: lowering is cheap beside compiling, and a dry run or a
# comparison of checkpoints lowers programs that nobody compiles.
@functools.lru_cache(maxsize=16)
def compiled(lowered: Any) -> Any:
    """Compiles a lowered program, once.

    Args:
        lowered: one of the programs of :class:`Lowered`.

    Returns:
        The compiled program; call it with the fields of :class:`Inputs`.
    """
    return lowered.compile()
