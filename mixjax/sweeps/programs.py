"""A chunk of a sweep's runs as compiled programs, split over devices.

A chunk is a number of rows: runs, of which the last ones may be padding. Row ``r`` lives on device ``r % devices``, so
that a chunk that is not full keeps every device busy.
"""

import contextlib
import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mixjax.sweeps.segments import Segments

__all__ = ["OutOfMemoryError", "Program", "Spec", "bits", "default_rows", "fitting"]

_LOG = logging.getLogger(__name__)
_SHARE = 0.8  # of the memory that is free: what the analysis does not see needs some too
_ROWS = 16  # a device, where runs go one after the other and memory does not grow with them


class OutOfMemoryError(MemoryError):
    """The device has no memory for a chunk."""


class Spec:
    """Structure, shapes and dtypes of a pytree, as a hashable key.

    Args:
        tree: a pytree of arrays or of ``ShapeDtypeStruct``.
    """

    def __init__(self, tree: Any):
        """Keeps ``tree``, as a pytree of ``ShapeDtypeStruct``."""
        self.tree = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
        leaves, treedef = jax.tree.flatten(self.tree)
        self._key = (treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves))

    def __hash__(self):
        """Of structure, shapes and dtypes."""
        return hash(self._key)

    def __eq__(self, other):
        """Equal structure, shapes and dtypes."""
        return self._key == other._key


class Program:
    """The programs of one chunk: compiled when first called, kept for the next sweep with the same shapes.

    Args:
        train: of :func:`mixjax.sweep`: a function, or :class:`Segments`.
        rows: runs a call, rounded up to a multiple of the devices.
        vectorize: "vmap" or "map".
        devices: where the rows live.
        hparams: Spec of one run's batched hyperparameters.
        labels: Spec of those that a chunk's runs share.
        data: Spec of the data.
    """

    def __init__(
        self,
        train: Callable | Segments,
        rows: int,
        vectorize: str,
        devices: Sequence[jax.Device],
        hparams: Spec,
        labels: Spec,
        data: Spec,
    ):
        """Traces the programs."""
        devices = tuple(devices)[: max(rows, 1)]
        self.rows = -(-rows // len(devices)) * len(devices)
        self.num_devices = len(devices)
        mesh = jax.sharding.Mesh(np.array(devices), ("runs",))
        self._split, self._whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("runs"), PartitionSpec()))
        self._lowered, self._carry = _lower(train, self.rows, vectorize, mesh, hparams, labels, data, _context())

    @property
    def fingerprint(self) -> str:
        """Of the programs' code."""
        return hashlib.sha256("".join(part.as_text() for part in self._lowered).encode()).hexdigest()

    def compile(self) -> None:
        """Compiles what was not compiled before.

        Raises:
            OutOfMemoryError: the compiler says that it does not fit.
        """
        with _memory_errors():
            for lowered in self._lowered:
                _compile(lowered)

    def bytes_per_device(self) -> int:
        """What the larger of the programs needs, arguments and results included, by the compiler's analysis."""
        self.compile()
        sizes = [_compile(lowered).memory_analysis() for lowered in self._lowered]
        return max(
            (s.temp_size_in_bytes + s.argument_size_in_bytes + s.output_size_in_bytes - s.alias_size_in_bytes)
            for s in sizes
            if s is not None
        )

    def place(self, data: Any) -> Any:
        """The data, or a chunk's labels, on every device.

        Raises:
            OutOfMemoryError: they do not fit.
        """
        with _memory_errors():
            return jax.block_until_ready(jax.device_put(data, self._whole))

    def valid(self, num: int) -> jax.Array:
        """Of the rows, which are runs: the first ``num``."""
        return self._scattered(np.arange(self.rows) < num)

    def place_rows(self, tree: Any) -> Any:
        """One entry a run, for as many runs as there are, on the runs' devices; padding repeats the last one."""

        return jax.tree.map(lambda x: self._scattered(x[np.minimum(np.arange(self.rows), len(x) - 1)]), tree)

    def take_rows(self, tree: Any, num: int) -> Any:
        """The first ``num`` runs' entries, as NumPy arrays."""

        def take(x):
            x = np.asarray(x)
            grouped = x.reshape(self.num_devices, len(x) // self.num_devices, *x.shape[1:])
            return grouped.swapaxes(0, 1).reshape(x.shape)[:num]

        return jax.tree.map(take, tree)

    def start(self, *arguments: Any) -> Any:
        """``(valid, seeds, hparams, labels, data) -> carry`` of a :class:`Segments`; keys in it as their bits."""
        return self._call(self._lowered[0], arguments)

    def run(self, *arguments: Any) -> Any:
        """``(valid, seeds or carry, hparams, labels, data) -> metrics``, or ``(carry, metrics)`` of a segment."""
        return self._call(self._lowered[-1], arguments)

    def carry(self, arrays: dict[str, np.ndarray]) -> Any:
        """A carry from the ``carry 0``, ``carry 1``, ... that were kept of it."""
        return self._carry.unflatten([arrays[f"carry {i}"] for i in range(self._carry.num_leaves)])

    def _scattered(self, x):
        x = x.reshape(-1, self.num_devices, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
        with _memory_errors():
            return jax.device_put(x, self._split)

    def _call(self, lowered, arguments):
        with _memory_errors():
            return jax.block_until_ready(_compile(lowered)(*arguments))


def fitting(build: Callable[[int], Program], num_runs: int, vectorize: str, num_devices: int, free: float) -> Program:
    """The program with the largest chunk that fits the memory, at most ``num_runs``, shared out evenly over the calls.

    The compiler's analysis of one size gives the next one to try. Where runs go one after the other ("map"), more of
    them need no more memory and are no faster: 16 a device.

    Args:
        build: rows -> Program.
        num_runs: of the sweep.
        vectorize: "vmap" or "map".
        num_devices: over which they are split.
        free: bytes a device, of which 0.8 are used at most.

    Returns:
        The program, compiled.
    """
    if vectorize == "map":
        return build(_ROWS * num_devices)
    rows, free = num_runs, _SHARE * free
    while True:
        program = build(rows)
        try:
            needed = program.bytes_per_device()
        except OutOfMemoryError:
            needed = 2 * free
        if needed <= free or program.rows <= program.num_devices:
            return program
        per_device = int(program.rows // program.num_devices * min(free / needed, 0.9))
        calls = -(-num_runs // (max(per_device, 1) * program.num_devices))
        rows = -(-num_runs // calls)
        _LOG.info("a chunk of %d runs needs %.3g GB a device of %.3g: trying %d", program.rows, needed, free, rows)


def default_rows(devices: Sequence[jax.Device]) -> int:
    """Runs of a chunk that go one after the other: 16 a device.

    Args:
        devices: those the chunk is split over.

    Returns:
        Their number.
    """
    return _ROWS * len(devices)


def _context():
    """Settings of JAX that change the program of a function."""
    names = ("enable_x64", "default_prng_impl", "default_matmul_precision", "threefry_partitionable", "debug_nans")
    names += ("numpy_dtype_promotion", "numpy_rank_promotion", "disable_jit")
    return tuple(getattr(jax.config, f"jax_{name}", None) for name in names)  # settings come and go


@functools.lru_cache(maxsize=8)
def _lower(train, rows, vectorize, mesh, hparams, labels, data, context):
    """The lowered programs: those of init and advance, or that of ``train`` alone."""
    num_devices = mesh.devices.size

    def on_rows(function):
        """``function(own, hparams, labels, data)`` of one run -> the same for ``rows`` runs, with their validity."""

        def some(valid, own, hparams, labels, data):
            if vectorize == "vmap":
                return jax.vmap(function, in_axes=(0, 0, None, None))(own, hparams, labels, data)

            def one(row):
                valid, own, hparams = row
                empty = jax.eval_shape(function, own, hparams, labels, data)
                return jax.lax.cond(  # padding costs nothing
                    valid,
                    lambda: function(own, hparams, labels, data),
                    lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), empty),
                )

            return jax.lax.map(one, (valid, own, hparams))

        if num_devices == 1:
            return some
        split, whole = PartitionSpec("runs"), PartitionSpec()
        in_specs = (split, split, split, whole, whole)
        return jax.shard_map(some, mesh=mesh, in_specs=in_specs, out_specs=split, check_vma=False)

    split, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("runs"), PartitionSpec()))

    def batched(tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape), x.dtype, sharding=split), tree)

    def shared(tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), tree)

    def lowered(function, own, donate=()):
        valid = jax.ShapeDtypeStruct((), bool)
        arguments = (batched(valid), batched(own), batched(hparams.tree), shared(labels.tree), shared(data.tree))
        return jax.jit(on_rows(function), out_shardings=split, donate_argnums=donate).lower(*arguments)

    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    if not isinstance(train, Segments):
        return (lowered(lambda seed, h, labels, data: train(jax.random.key(seed), h | labels, data), seed),), None
    kinds = []

    def init(seed, hparams, labels, data):
        carry = jax.tree.map(jnp.asarray, train.init(jax.random.key(seed), hparams | labels, data))
        kinds[:] = jax.tree.leaves(jax.tree.map(_kind, carry))
        return jax.tree.map(bits, carry)

    def advance(carry, hparams, labels, data):
        leaves, treedef = jax.tree.flatten(carry)
        carry = treedef.unflatten(map(_key_or_array, leaves, kinds))
        carry, metrics = train.advance(carry, hparams | labels, data)
        return jax.tree.map(lambda x: bits(jnp.asarray(x)), carry), metrics

    carry = jax.eval_shape(init, seed, hparams.tree, labels.tree, data.tree)
    return (lowered(init, seed), lowered(advance, carry, donate=1)), jax.tree.structure(carry)


@functools.lru_cache(maxsize=16)
def _compile(lowered):
    """The compiled program, once for each lowered one."""
    return lowered.compile()


def _kind(x):
    return str(jax.random.key_impl(x)) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else ""


def bits(x: Any) -> Any:
    """An array that can be stored: the words of keys of ``jax.random``, others as they are."""
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _key_or_array(x, kind):
    return jax.random.wrap_key_data(x, impl=kind) if kind else x


@contextlib.contextmanager
def _memory_errors():
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
            raise
        raise OutOfMemoryError(str(error)) from error
