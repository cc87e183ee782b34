"""The compiled programs of a chunk of runs, split over devices.

A chunk is a fixed number of slots. Each slot holds one run; where there are fewer runs than slots, the last slots hold
padding. Run ``i`` is computed on device ``i % devices``, so that a chunk that is not full keeps every device busy.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mixjax.sweeps.devices import Device
from mixjax.sweeps.keys import with_keys, with_words
from mixjax.sweeps.runs import Part
from mixjax.sweeps.segments import Segments
from mixjax.sweeps.shapes import Shapes
from mixjax.sweeps.spec import Train, Vectorize

__all__ = ["Inputs", "OutOfMemoryError", "Program", "memory_errors"]

_SPLIT, _WHOLE = PartitionSpec("runs"), PartitionSpec()


class OutOfMemoryError(MemoryError):
    """Says that a device has no memory for a chunk."""


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


class Program:
    """Runs chunks of one size: compiled when first called, and kept for later sweeps of the same shapes.

    Args:
        train: the training run. :class:`Segments` have two programs: one makes the carry, one runs a segment.
        slots: number of runs in a call, rounded up to a multiple of the devices.
        vectorize: "vmap" or "map", see :class:`mixjax.sweeps.Sweep`.
        devices: where to run; of more devices than slots only as many are used.
        hparams: the shapes of one run's hyperparameters that are numbers.
        labels: the shapes of one run's labels.
        data: the shapes of the data.
    """

    def __init__(
        self,
        train: Train | Segments,
        slots: int,
        *,
        vectorize: Vectorize,
        devices: Sequence[Device],
        hparams: Shapes,
        labels: Shapes,
        data: Shapes,
    ):
        """Traces the programs, without compiling them."""
        devices = tuple(devices)[: max(slots, 1)]
        self.num_devices = len(devices)
        self.slots = -(-slots // self.num_devices) * self.num_devices
        mesh = Mesh(np.array(devices), ("runs",))
        self._split, self._whole = NamedSharding(mesh, _SPLIT), NamedSharding(mesh, _WHOLE)
        signature = _Signature(train, self.slots, vectorize, mesh, hparams, labels, data, _settings())
        self._lowered = lower(signature)

    @property
    def fingerprint(self) -> str:
        """Returns a digest of the programs' code."""
        return hashlib.sha256("".join(program.as_text() for program in self._lowered.programs).encode()).hexdigest()

    def compile(self) -> None:
        """Compiles what was not compiled before.

        Raises:
            OutOfMemoryError: the compiler says that the chunk does not fit.
        """
        with memory_errors():
            for program in self._lowered.programs:
                _compile(program)

    def bytes_per_device(self) -> int:
        """Returns the memory that a call needs on each device, by the compiler's analysis.

        Arguments and results count; of two programs, the one that needs more.
        """
        self.compile()
        analyses = [_compile(program).memory_analysis() for program in self._lowered.programs]
        return max(
            one.temp_size_in_bytes + one.argument_size_in_bytes + one.output_size_in_bytes - one.alias_size_in_bytes
            for one in analyses
            if one is not None
        )

    def place_data(self, data: Any) -> Any:
        """Copies the data, or anything that all runs share, to every device.

        Raises:
            OutOfMemoryError: it does not fit.
        """
        with memory_errors():
            return jax.block_until_ready(jax.device_put(data, self._whole))

    def inputs(self, part: Part, data: Any) -> Inputs:
        """Puts some runs into the slots.

        Args:
            part: at most as many runs as there are slots.
            data: as :meth:`place_data` returned it.

        Returns:
            The arguments of :meth:`start`, or of :meth:`run`.

        Raises:
            OutOfMemoryError: they do not fit.
        """
        return Inputs(
            valid=self._scattered(np.arange(self.slots) < len(part.seeds)),
            state=self._place_runs(part.seeds),
            hparams=self._place_runs(part.hparams),
            labels=self.place_data(part.labels),
            data=data,
        )

    def start(self, inputs: Inputs) -> Any:
        """Makes the carry of :class:`Segments`; keys in it are :class:`mixjax.sweeps.keys.KeyWords`."""
        return self._call(self._lowered.programs[0], inputs)

    def run(self, inputs: Inputs) -> Any:
        """Runs a chunk, or one segment of it.

        Args:
            inputs: of :meth:`inputs`; for a segment with the carry as ``state``, whose memory the new carry takes over.

        Returns:
            metrics; or carry and metrics of a segment. Everything is ``[slots, ...]``, on the devices.
        """
        return self._call(self._lowered.programs[-1], inputs)

    def take(self, tree: Any, num: int) -> Any:
        """Copies the entries of the first ``num`` runs from the devices, in the runs' order, as NumPy arrays."""

        def take(x):
            x = np.asarray(x)
            grouped = x.reshape(self.num_devices, len(x) // self.num_devices, *x.shape[1:])
            return grouped.swapaxes(0, 1).reshape(x.shape)[:num]

        return jax.tree.map(take, tree)

    def take_carry(self, carry: Any, num: int) -> dict[str, np.ndarray]:
        """Copies the carry of the first ``num`` runs from the devices, as arrays that can be written to a file."""
        return {f"carry {i}": leaf for i, leaf in enumerate(jax.tree.leaves(self.take(carry, num)))}

    def place_carry(self, arrays: dict[str, np.ndarray]) -> Any:
        """Puts a carry back on the devices that :meth:`take_carry` has copied from them."""
        structure = self._lowered.carry
        return self._place_runs(structure.unflatten([arrays[f"carry {i}"] for i in range(structure.num_leaves)]))

    def _place_runs(self, tree):
        """Puts one entry of each run into its slot; the padding repeats the last run's."""
        return jax.tree.map(lambda x: self._scattered(x[np.minimum(np.arange(self.slots), len(x) - 1)]), tree)

    def _scattered(self, x):
        """Deals the entries out to the devices, one after the other."""
        x = x.reshape(-1, self.num_devices, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
        with memory_errors():
            return jax.device_put(x, self._split)

    def _call(self, program, inputs):
        with memory_errors():
            # Without the wait, an error of the devices would surface later and elsewhere.
            return jax.block_until_ready(_compile(program)(*inputs))


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turns JAX's errors of a block that ran out of memory into an OutOfMemoryError."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
            raise
        raise OutOfMemoryError(str(error)) from error


class _Signature(NamedTuple):
    """Holds everything that a program depends on; hashable, so that equal ones share a program."""

    train: Train | Segments
    slots: int
    vectorize: Vectorize
    mesh: Mesh
    hparams: Shapes
    labels: Shapes
    data: Shapes
    settings: tuple


class _Lowered(NamedTuple):
    """Holds the traced programs of a chunk.

    ``programs`` has one for a function, or two for Segments: one that makes the carry and one that runs a segment.
    ``carry`` is the pytree structure of that carry, or None.
    """

    programs: tuple[Any, ...]
    carry: Any


def _settings():
    """Returns the settings of JAX that change the program of a function."""
    names = ("enable_x64", "default_prng_impl", "default_matmul_precision", "threefry_partitionable", "debug_nans")
    names += ("numpy_dtype_promotion", "numpy_rank_promotion", "disable_jit")
    # Some versions of JAX do not have all of these.
    return tuple(getattr(jax.config, f"jax_{name}", None) for name in names)


@functools.lru_cache(maxsize=8)
def lower(signature: _Signature) -> _Lowered:
    """Traces the programs of a chunk; equal signatures share them."""
    train = signature.train
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    if isinstance(train, Segments):
        init, advance = _on_words(train)
        carry = jax.eval_shape(init, seed, signature.hparams.tree, signature.labels.tree, signature.data.tree)
        # The old carry is donated: its memory becomes the new one's.
        programs = (_lower_one(init, seed, signature), _lower_one(advance, carry, signature, donate=True))
        return _Lowered(programs, jax.tree.structure(carry))

    def run(seed, hparams, labels, data):
        return train(jax.random.key(seed), hparams | labels, data)

    return _Lowered((_lower_one(run, seed, signature),), None)


def _on_words(segments: Segments):
    """Returns ``init`` and ``advance`` for a carry that can be kept on disk, with the words of its random keys."""

    def init(seed, hparams, labels, data):
        return with_words(segments.init(jax.random.key(seed), hparams | labels, data))

    def advance(carry, hparams, labels, data):
        carry, metrics = segments.advance(with_keys(carry), hparams | labels, data)
        return with_words(carry), metrics

    return init, advance


def _lower_one(function: Callable, state: Any, signature: _Signature, donate: bool = False):
    """Lowers one run's ``function(state, hparams, labels, data)`` as a program of all slots, with :class:`Inputs`."""
    mesh, slots = signature.mesh, signature.slots

    def of_slots(tree):
        sharding = NamedSharding(mesh, _SPLIT)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((slots, *x.shape), x.dtype, sharding=sharding), tree)

    def of_all(tree):
        sharding = NamedSharding(mesh, _WHOLE)
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
        in_specs = (_SPLIT, _SPLIT, _SPLIT, _WHOLE, _WHOLE)  # in the order of Inputs
        # check_vma would refuse programs whose loops mix values that vary over the devices with values that do not.
        repeated = jax.shard_map(repeated, mesh=mesh, in_specs=in_specs, out_specs=_SPLIT, check_vma=False)
    donated = inputs._fields.index("state") if donate else ()
    return jax.jit(repeated, out_shardings=NamedSharding(mesh, _SPLIT), donate_argnums=donated).lower(*inputs)


def _as_batch(function):
    """Makes a function of one run one of all slots, computed together."""

    def batch(valid, state, hparams, labels, data):
        del valid  # the padding costs nothing more in a batch
        return jax.vmap(function, in_axes=(0, 0, None, None))(state, hparams, labels, data)

    return batch


def _one_by_one(function):
    """Makes a function of one run one of all slots, computed one after the other; padding is passed over."""

    def loop(valid, state, hparams, labels, data):
        def slot(inputs):
            valid, state, hparams = inputs
            shapes = jax.eval_shape(function, state, hparams, labels, data)
            return jax.lax.cond(
                valid,
                lambda: function(state, hparams, labels, data),
                lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
            )

        return jax.lax.map(slot, (valid, state, hparams))

    return loop


# Keyed by the lowered program itself, of which `lower` keeps one for each signature.
@functools.lru_cache(maxsize=16)
def _compile(lowered):
    return lowered.compile()
