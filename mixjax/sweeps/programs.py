"""Calls the compiled programs of a chunk of runs, and moves the runs to the devices and back.

A program has a fixed number of slots. Each slot holds one run; where a chunk has fewer runs than slots, the last slots
hold padding. Run ``i`` is computed on device ``i % devices``, so that a chunk that is not full keeps every device busy.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mixjax.sweeps.arrays import Pieces
from mixjax.sweeps.devices import Device
from mixjax.sweeps.lowering import (
    SPLIT,
    WHOLE,
    Inputs,
    Shapes,
    Signature,
    compile_seconds,
    compiled,
    decomposes_batches,
    lower,
)
from mixjax.sweeps.runs import Part
from mixjax.sweeps.segments import Segments, num_segments
from mixjax.sweeps.spec import Train, Vectorize

__all__ = ["OutOfMemoryError", "Program", "memory_errors"]

_PIECE_BYTES = 2**20
"""The bytes that each device gives to a piece of a carry, at most, while the carry is written to a file."""


class OutOfMemoryError(MemoryError):
    """Says that a device has too little memory for a chunk."""


class Program:
    """Runs chunks of one size. The compiled code is kept for later sweeps of the same function and shapes.

    Args:
        train: the training run. :class:`Segments` make two compiled programs: one makes the carry, one runs a segment.
            With ``finish`` there is a third one.
        slots: number of runs in a call, rounded up to a multiple of the devices.
        vectorize: "vmap", "map", or how many runs a device computes at once, see :class:`mixjax.sweeps.Sweep`.
        devices: where to run; no more of them are used than there are slots. Of a CPU's, one is used where the
            programs hand batches of matrices to LAPACK.
        hparams: the shapes of one run's hyperparameters that are numbers.
        labels: the shapes of one run's labels.
        data: the shapes of the data.

    Attributes:
        num_devices: the devices in use.
        slots: the runs in a call.
        lanes: the runs that a device computes at once.
        signature: the key of the compiled code.
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
        # A device without a run would compute nothing but padding.
        devices = tuple(devices)[: max(slots, 1)]
        trace = functools.partial(self._trace, train, vectorize=vectorize, hparams=hparams, labels=labels, data=data)
        trace(slots, devices=devices)
        # XLA decomposes a batch of matrices in several threads of one pool, and waits for them in another of its
        # threads. When all devices of a CPU do so at once, no thread may be left, and the sweep stands still for ever.
        if len(devices) > 1 and devices[0].platform == "cpu" and decomposes_batches(self._lowered):
            # Runs that are called from the host are one a device.
            trace(1 if self.signature.is_called_from_host else slots, devices=devices[:1])

    def _trace(self, train, slots, *, devices, vectorize, hparams, labels, data):
        """Traces the programs for some devices."""
        self.num_devices = len(devices)
        self.slots = math.ceil(slots / self.num_devices) * self.num_devices
        per_device = self.slots // self.num_devices
        if isinstance(vectorize, int):
            vectorize = self.lanes = _largest_divisor(per_device, vectorize)
        else:
            self.lanes = 1 if vectorize == "map" else per_device
        mesh = Mesh(np.array(devices), ("runs",))
        self._split, self._whole = NamedSharding(mesh, SPLIT), NamedSharding(mesh, WHOLE)
        self.signature = Signature(
            train=train,
            slots=self.slots,
            vectorize=vectorize,
            mesh=mesh,
            hparams=hparams,
            labels=labels,
            data=data,
        )
        self._lowered = lower(self.signature)

    @property
    def fingerprint(self) -> str:
        """Returns a digest of the programs' code."""
        # The text has no file names and line numbers: the digest stays the same if `train` is moved in its file.
        return hashlib.sha256("".join(program.as_text() for program in self._lowered.programs).encode()).hexdigest()

    def compile(self) -> None:
        """Compiles the programs, unless they were compiled before.

        Raises:
            OutOfMemoryError: the compiler says that the chunk does not fit.
        """
        with memory_errors():
            for program in self._lowered.programs:
                compiled(program)

    @property
    def compile_seconds(self) -> float:
        """Returns how long the programs took to compile, now or when they were compiled before."""
        return sum(compile_seconds(program) for program in self._lowered.programs)

    def bytes_per_device(self) -> int:
        """Returns the memory that a call needs on each device, by the compiler's analysis.

        Arguments and results are counted. For :class:`Segments`, the largest of the programs counts. The number is 0
        where the backend has no analysis: every chunk then seems to fit, and is halved where it does not.
        """
        self.compile()
        analyses = [_memory_analysis(compiled(program)) for program in self._lowered.programs]
        # A donated carry is both an argument and a result: its memory, the alias size, is subtracted once.
        sizes = [
            one.temp_size_in_bytes + one.argument_size_in_bytes + one.output_size_in_bytes - one.alias_size_in_bytes
            for one in analyses
            if one is not None
        ]
        return max(sizes, default=0)

    @property
    def metric_bytes(self) -> int:
        """Returns the memory of the metrics of one run."""
        first, *others = (program.out_info for program in self._lowered.programs)
        if self._lowered.carry is None:
            return _row_bytes(first)
        (_, of_segment), *at_the_end = others
        return num_segments(self.signature.train) * _row_bytes(of_segment) + _row_bytes(at_the_end)

    def place_data(self, data: Any) -> Any:
        """Copies the data, or anything that all runs share, to every device.

        Raises:
            OutOfMemoryError: the data do not fit.
        """
        with memory_errors():
            # The copy is asynchronous: without the wait, its error would be raised outside this block.
            return jax.block_until_ready(jax.device_put(data, self._whole))

    def inputs(self, part: Part, data: Any) -> Inputs:
        """Puts some runs into the slots.

        Args:
            part: at most as many runs as there are slots.
            data: as :meth:`place_data` returned it.

        Returns:
            The arguments of :meth:`start`, or of :meth:`run`.

        Raises:
            OutOfMemoryError: the runs do not fit.
        """
        return Inputs(
            valid=self._deal(np.arange(self.slots) < len(part.seeds)),
            state=self._place_runs(part.seeds),
            hparams=self._place_runs(part.hparams),
            labels=self.place_data(part.labels),
            data=data,
        )

    def start(self, inputs: Inputs) -> Any:
        """Makes the carry of :class:`Segments`, in which :class:`mixjax.sweeps.keys.KeyWords` stand for random keys."""
        return self._call(self._lowered.programs[0], inputs)

    def run(self, inputs: Inputs) -> Any:
        """Runs a chunk, or one segment of it.

        Args:
            inputs: as :meth:`inputs` returned them. For a segment, ``state`` must be the carry; it is donated, and
                cannot be used again.

        Returns:
            The metrics of a chunk, or the carry and the metrics of a segment: ``[slots, ...]``, on the devices.
        """
        # The first program of a run cut in time makes the carry.
        return self._call(self._lowered.programs[0 if self._lowered.carry is None else 1], inputs)

    def finish(self, inputs: Inputs, ended: np.ndarray) -> Any:
        """Computes the metrics of the end of some runs of :class:`Segments`.

        Args:
            inputs: as :meth:`run` takes them for a segment; the carry is not donated.
            ended: bool, at most ``[slots]``, for which of the first runs.

        Returns:
            Metrics ``[slots, ...]``, on the devices. Rows of other runs mean nothing.
        """
        valid = np.zeros(self.slots, bool)
        valid[: len(ended)] = ended
        # Runs that go on are skipped as padding is, where runs are computed one by one.
        return self._call(self._lowered.programs[2], inputs._replace(valid=self._deal(valid)))

    def take(self, tree: Any, num: int) -> Any:
        """Copies the entries of the first ``num`` runs from the devices, in the runs' order, as NumPy arrays.

        With a single CPU device the arrays are views of the device's memory.
        """

        def take(x):
            shards = _shards(x)
            if len(shards) == 1:
                return shards[0][:num]
            # Undoes `_deal`, shard by shard: JAX would put the shards together first, in a copy that it keeps.
            taken = np.empty((num, *x.shape[1:]), x.dtype)
            for i, shard in enumerate(shards):
                taken[i :: len(shards)] = shard[: len(range(i, num, len(shards)))]
            return taken

        return jax.tree.map(take, tree)

    def carry_pieces(self, carry: Any, num: int) -> dict[str, Pieces]:
        """Names the arrays of the carry of the first ``num`` runs, to be written to a file before the next call.

        On a CPU the pieces are views of the carry. The next call of the program takes the carry's memory over.
        """

        def pieces(x):
            return Pieces((num, *x.shape[1:]), np.dtype(x.dtype), lambda: _in_runs_order(_shards(x), num))

        return {f"carry {i}": pieces(leaf) for i, leaf in enumerate(jax.tree.leaves(carry))}

    def place_carry(self, arrays: dict[str, np.ndarray]) -> Any:
        """Puts a carry on the devices.

        Args:
            arrays: those of :meth:`carry_pieces`, ``[runs, ...]``. They are taken out of the dict one by one, so that
                the memory of each can be freed when it is on the devices.

        Returns:
            The carry, in whose padding the last run is repeated.
        """
        structure = self._lowered.carry
        return structure.unflatten([self._place_leaf(arrays.pop(f"carry {i}")) for i in range(structure.num_leaves)])

    def _place_leaf(self, x):
        """Copies ``[runs, ...]`` to the slots, one device after the other, so that no second copy is made of all."""
        runs, devices = np.minimum(np.arange(self.slots), len(x) - 1), self.signature.mesh.devices.flat
        with memory_errors():
            shards = [jax.device_put(x[runs[i :: self.num_devices]], device) for i, device in enumerate(devices)]
            shape = (self.slots, *x.shape[1:])
            return jax.block_until_ready(jax.make_array_from_single_device_arrays(shape, self._split, shards))

    def _place_runs(self, tree):
        """Puts each run's entry into the run's slot. The padding repeats the last run."""
        return jax.tree.map(lambda x: self._deal(x[np.minimum(np.arange(self.slots), len(x) - 1)]), tree)

    def _deal(self, x):
        """Copies ``[slots, ...]`` to the devices, entry ``i`` to device ``i % devices``."""
        # A device gets a contiguous part of the array, so that the entries are sorted by device first.
        # All sizes are written out: of an array without entries, NumPy could not find a size that is left open.
        grouped = x.reshape(len(x) // self.num_devices, self.num_devices, *x.shape[1:])
        x = grouped.swapaxes(0, 1).reshape(x.shape)
        with memory_errors():
            return jax.device_put(x, self._split)

    def _call(self, program, inputs):
        with memory_errors():
            # Without the wait, an error on a device would be raised later and elsewhere.
            return jax.block_until_ready(compiled(program)(*inputs))


def _row_bytes(tree: Any) -> int:
    """Returns the bytes of one slot's entries in a pytree of ``[slots, ...]``."""
    return sum(math.prod(x.shape[1:]) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _shards(x: jax.Array) -> list[np.ndarray]:
    """Returns what each device holds of an array ``[slots, ...]``; views where the devices are a CPU's."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return [np.asarray(shard.data) for shard in shards]


def _in_runs_order(shards: Sequence[np.ndarray], num: int) -> Iterator[np.ndarray]:
    """Yields the entries of the first ``num`` runs, of which run ``i`` is on device ``i % devices``, in order."""
    num_devices, row_bytes = len(shards), shards[0][:1].nbytes
    if num_devices == 1:
        yield shards[0][:num]
    elif row_bytes >= _PIECE_BYTES:
        for run in range(num):
            yield shards[run % num_devices][run // num_devices][None]
    else:
        # Small entries are put together, since each piece costs a call or two.
        step = max(_PIECE_BYTES // max(row_bytes, 1), 1)
        for start in range(0, math.ceil(num / num_devices), step):
            dealt = np.stack([shard[start : start + step] for shard in shards], axis=1)
            # The size is written out: of an array without entries, one that is left open could not be found.
            yield dealt.reshape(len(dealt) * num_devices, *dealt.shape[2:])[: num - start * num_devices]


def _largest_divisor(number: int, limit: int) -> int:
    """Returns the largest divisor of a number that is not above a limit."""
    return max(divisor for divisor in range(1, min(number, limit) + 1) if number % divisor == 0)


def _memory_analysis(executable: Any) -> Any:
    """Returns the compiler's analysis of a program's memory, or None where the backend has none."""
    # JAX returns None or raises, by the backend.
    try:
        return executable.memory_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Raises OutOfMemoryError in place of JAX's error where memory runs out inside a ``with`` block."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
            raise
        raise OutOfMemoryError(str(error)) from error
