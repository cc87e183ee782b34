"""Traces and compiles programs that compute a whole chunk of runs, from functions that compute one run.

A program has a fixed number of slots. Each slot holds one run, or padding where there are fewer runs than slots.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mixjax.sweeps.contractions import with_merged_contractions
from mixjax.sweeps.devices import compiler_options
from mixjax.sweeps.keys import with_keys, with_words
from mixjax.sweeps.segments import Segments
from mixjax.sweeps.spec import Train, Vectorize

__all__ = [
    "SPLIT",
    "WHOLE",
    "Inputs",
    "Lowered",
    "Shapes",
    "Signature",
    "compile_seconds",
    "compiled",
    "decomposes_batches",
    "lower",
]

SPLIT = PartitionSpec("runs")
"""Splits an array's first dimension, the slots, over the devices."""

WHOLE = PartitionSpec()
"""Puts a copy of the whole array on every device."""


class Inputs(NamedTuple):
    """Holds the arguments of one call of a program, on the devices.

    Args:
        valid: bool ``[slots]``, True where a slot holds a run.
        state: ``[slots, ...]``: each run's seed or, for a segment, its carry.
        hparams: hyperparameter -> numbers ``[slots]``, of vectors ``[slots, ...]``.
        labels: hyperparameter -> the label's position ``[]``, which all runs share.
        data: the sweep's data.
    """

    valid: jax.Array
    state: Any
    hparams: Any
    labels: Any
    data: Any


class Shapes:
    """Describes a pytree by its structure and by the shape and dtype of each leaf.

    Two descriptions are equal where a program compiled for one pytree takes the other.

    Args:
        tree: a pytree of arrays or of ``jax.ShapeDtypeStruct``.

    Example:
        >>> import jax.numpy as jnp
        >>> Shapes({"x": jnp.zeros(2)}) == Shapes({"x": jnp.ones(2)}), Shapes(jnp.zeros(2)) == Shapes(jnp.zeros(3))
        (True, False)
    """

    def __init__(self, tree: Any):
        """Keeps the description as ``self.tree``, a pytree of ``jax.ShapeDtypeStruct``."""
        self.tree = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
        leaves, structure = jax.tree.flatten(self.tree)
        self._key = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))

    def __hash__(self):
        """Returns one number for equal descriptions."""
        return hash(self._key)

    def __eq__(self, other):
        """Compares structures, shapes and dtypes."""
        return isinstance(other, Shapes) and self._key == other._key


def _settings() -> tuple:
    """Returns the settings of JAX that change the program of a function."""
    names = (
        "enable_x64",
        "default_prng_impl",
        "default_matmul_precision",
        "threefry_partitionable",
        "debug_nans",
        "numpy_dtype_promotion",
        "numpy_rank_promotion",
        "disable_jit",
    )
    # Not every version of JAX has all of these.
    return tuple(getattr(jax.config, f"jax_{name}", None) for name in names)


@dataclasses.dataclass(frozen=True)
class Signature:
    """Holds everything that the programs of a chunk depend on: the key under which they are kept.

    Args:
        train: the training run.
        slots: number of runs in a call.
        vectorize: "vmap", "map", or the number of runs that a device computes at once, which divides its slots.
        mesh: the devices, as one axis "runs".
        hparams: the shapes of one run's hyperparameters that are numbers.
        labels: the shapes of one run's labels.
        data: the shapes of the data.
        settings: the settings of JAX when the signature is made.
    """

    train: Train | Segments
    slots: int
    vectorize: Vectorize
    mesh: Mesh
    hparams: Shapes
    labels: Shapes
    data: Shapes
    settings: tuple = dataclasses.field(default_factory=_settings)

    @property
    def is_called_from_host(self) -> bool:
        """Tells whether runs go one by one in calls from the host, one on each device."""
        return isinstance(self.train, Segments) and self.train.calls is not None and self.vectorize == "map"


class Lowered(NamedTuple):
    """Holds the traced programs of a chunk.

    Args:
        programs: one program where the training run is a plain function. Two or three for :class:`Segments`: the first
            makes the carry, the second runs a segment, and the third, where there is ``finish``, measures the end.
        carry: the pytree structure of the carry; None for a plain function.
    """

    programs: tuple[Any, ...]
    carry: Any


# Few are kept, since each holds a whole traced program. A sweep needs one, and one more each time it halves a chunk.
@functools.lru_cache(maxsize=8)
def lower(signature: Signature) -> Lowered:
    """Traces the programs of a chunk.

    Args:
        signature: everything that the programs depend on.

    Returns:
        The programs, not compiled; the same object for equal signatures.
    """
    train = signature.train
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    if isinstance(train, Segments):
        init, advance, finish = _on_words(train)
        carry = jax.eval_shape(init, seed, signature.hparams.tree, signature.labels.tree, signature.data.tree)
        # The old carry is donated, so that the new one takes over its memory: with large models the
        # carry is most of what a program holds.
        programs = [_lower_one(init, seed, signature), _lower_one(advance, carry, signature, donate=True)]
        if finish is not None:
            # Not donated: other runs of the chunk may go on from this carry.
            programs.append(_lower_one(finish, carry, signature))
        return Lowered(tuple(programs), jax.tree.structure(carry))

    # The key is made inside the program: seeds are plain integers, which can be dealt out to devices and kept on disk.
    def run(seed, hparams, labels, data):
        return train(jax.random.key(seed), hparams | labels, data)

    return Lowered((_lower_one(run, seed, signature),), None)


_LAPACK_CALL = re.compile(r"@(?:lapack|blas)_\w+\([^\n]*\) -> ")
"""Finds the calls of LAPACK in a program's text, each up to the types of its results."""


def decomposes_batches(lowered: Lowered) -> bool:
    """Says whether programs hand a batch of matrices to LAPACK at once, as a batched ``jnp.linalg.solve`` does.

    Args:
        lowered: the traced programs of a chunk.

    Returns:
        False where each call takes one matrix.
    """
    for program in lowered.programs:
        for call in _LAPACK_CALL.finditer(program.as_text()):
            shapes = re.findall(r"tensor<((?:\d+x)*)", call[0])
            if any(shape.count("x") > 2 and not re.match(r"(1x)+\d+x\d+x$", shape) for shape in shapes):
                return True
    return False


def _on_words(segments: Segments):
    """Returns ``init``, ``advance`` and ``finish`` for a carry that can be written: its random keys become words."""

    def init(seed, hparams, labels, data):
        return with_words(segments.init(jax.random.key(seed), hparams | labels, data))

    def advance(carry, hparams, labels, data):
        carry, metrics = segments.advance(with_keys(carry), hparams | labels, data)
        return with_words(carry), metrics

    measure = segments.finish
    if measure is None:
        return init, advance, None

    def finish(carry, hparams, labels, data):
        return measure(with_keys(carry), hparams | labels, data)

    return init, advance, finish


def _lower_one(function: Callable, state: Any, signature: Signature, donate: bool = False):
    """Lowers one run's ``function(state, hparams, labels, data)`` as a program of all slots, called with Inputs."""
    mesh, slots = signature.mesh, signature.slots

    def per_slot(tree):
        sharding = NamedSharding(mesh, SPLIT)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((slots, *x.shape), x.dtype, sharding=sharding), tree)

    def shared(tree):
        sharding = NamedSharding(mesh, WHOLE)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    inputs = Inputs(
        valid=per_slot(jax.ShapeDtypeStruct((), bool)),
        state=per_slot(state),
        hparams=per_slot(signature.hparams.tree),
        labels=shared(signature.labels.tree),
        data=shared(signature.data.tree),
    )
    # The names of the inner functions, `batch` and `loop`, are part of the program's text: to rename one is to change
    # the fingerprint of every sweep, and old checkpoints would be refused.
    if signature.is_called_from_host:
        repeated = _alone(function)
    elif signature.vectorize == "vmap":
        repeated = _as_batch(function)
    elif signature.vectorize == "map":
        repeated = _one_by_one(function)
    elif signature.vectorize == 1:
        repeated = _one_by_one(with_merged_contractions(function))
    else:
        repeated = _in_batches(with_merged_contractions(function), int(signature.vectorize))
    if mesh.devices.size > 1:
        # In the order of Inputs.
        in_specs = (SPLIT, SPLIT, SPLIT, WHOLE, WHOLE)
        # check_vma would refuse programs whose loops mix values that vary over the devices with values that do not.
        repeated = jax.shard_map(repeated, mesh=mesh, in_specs=in_specs, out_specs=SPLIT, check_vma=False)
    donated = inputs._fields.index("state") if donate else ()
    return jax.jit(
        repeated,
        out_shardings=NamedSharding(mesh, SPLIT),
        donate_argnums=donated,
        compiler_options=compiler_options(list(mesh.devices.flat)),
    ).lower(*inputs)


def _as_batch(function):
    """Turns one run's function into a function of all slots, which computes them as one batch."""

    def batch(valid, state, hparams, labels, data):
        # In a batch the padding costs no time of its own, so that it is computed too.
        del valid
        # Labels are not batched: a switch over a batched index would run all of its branches.
        return jax.vmap(function, in_axes=(0, 0, None, None))(state, hparams, labels, data)

    return batch


def _alone(function):
    """Turns one run's function into a function of one slot a device, which computes it outside of any loop."""

    def single(valid, state, hparams, labels, data):
        # Padding is computed too: a `cond` would keep XLA from its fast convolutions as a loop does.
        del valid
        state, hparams = jax.tree.map(lambda x: x[0], (state, hparams))
        return jax.tree.map(lambda x: x[None], function(state, hparams, labels, data))

    return single


def _one_by_one(function):
    """Turns one run's function into a function of all slots, which computes them in a loop and skips the padding."""

    def loop(valid, state, hparams, labels, data):
        def slot(inputs):
            valid, state, hparams = inputs
            return _unless_padding(valid, lambda: function(state, hparams, labels, data))

        return jax.lax.map(slot, (valid, state, hparams))

    return loop


def _in_batches(function, size):
    """Turns one run's function into a function of all slots, which computes ``size`` slots at once, in a loop."""

    def loop(valid, state, hparams, labels, data):
        def batch(inputs):
            valid, state, hparams = inputs
            # Padding in a batch with a run is computed: it costs no time of its own.
            return _unless_padding(
                jnp.any(valid), lambda: jax.vmap(function, in_axes=(0, 0, None, None))(state, hparams, labels, data)
            )

        # The sizes are written out: of a metric without entries, one that is left open could not be found.
        num = len(valid) // size
        cut = jax.tree.map(lambda x: x.reshape(num, size, *x.shape[1:]), (valid, state, hparams))
        return jax.tree.map(lambda x: x.reshape(num * size, *x.shape[2:]), jax.lax.map(batch, cut))

    return loop


def _unless_padding(valid, compute):
    """Calls ``compute`` where ``valid`` is true, and returns zeros in its place where not."""
    shapes = jax.eval_shape(compute)
    # Not a `where`: inside a loop a `cond` runs one branch only, and zeros cost nothing.
    return jax.lax.cond(valid, compute, lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))


# A cache of its own, apart from that of `lower`: some programs are lowered for their code only, to compare it with a
# checkpoint, and compiling them would be slow. Lowered programs are compared by identity.
@functools.lru_cache(maxsize=16)
def _compiled(lowered: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return lowered.compile(), time.perf_counter() - start


def compiled(lowered: Any) -> Any:
    """Compiles a lowered program, once.

    Args:
        lowered: one of the programs of :class:`Lowered`.

    Returns:
        The compiled program; call it with the fields of :class:`Inputs`.
    """
    return _compiled(lowered)[0]


def compile_seconds(lowered: Any) -> float:
    """Returns how long a lowered program took to compile when it was compiled; compiles it if it was not."""
    return _compiled(lowered)[1]
