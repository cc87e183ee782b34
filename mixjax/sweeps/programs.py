"""Calls the compiled programs of a chunk of runs, and moves the runs to the devices and back.

A program has a fixed number of slots. Each slot holds one run; where a chunk has fewer runs than slots, the last slots
hold padding. Run ``i`` is computed on device ``i % devices``, so that a chunk that is not full keeps every device busy.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mixjax.sweeps.devices import Device
from mixjax.sweeps.lowering import SPLIT, WHOLE, Inputs, Shapes, Signature, compiled, lower
from mixjax.sweeps.runs import Part
from mixjax.sweeps.segments import Segments
from mixjax.sweeps.spec import Train, Vectorize

__all__ = ["OutOfMemoryError", "Program", "memory_errors"]


class OutOfMemoryError(MemoryError):
    """Says that a device has too little memory for a chunk."""


class Program:
    """Runs chunks of one size. The compiled code is kept for later sweeps of the same function and shapes.

    Args:
        train: the training run. :class:`Segments` make two compiled programs: one makes the carry, one runs a segment.
            With ``finish`` there is a third one.
        slots: number of runs in a call, rounded up to a multiple of the devices.
        vectorize: "vmap", "map", or how many runs a device computes at once, see :class:`mixjax.sweeps.Sweep`.
        devices: where to run; no more of them are used than there are slots.
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
        """Copies the entries of the first ``num`` runs from the devices, in the runs' order, as NumPy arrays."""

        def take(x):
            # Undoes `_deal`.
            x = np.asarray(x)
            grouped = x.reshape(self.num_devices, len(x) // self.num_devices, *x.shape[1:])
            return grouped.swapaxes(0, 1).reshape(x.shape)[:num]

        return jax.tree.map(take, tree)

    def take_carry(self, carry: Any, num: int) -> dict[str, np.ndarray]:
        """Copies the carry of the first ``num`` runs from the devices, as arrays that can be written to a file."""
        return {f"carry {i}": leaf for i, leaf in enumerate(jax.tree.leaves(self.take(carry, num)))}

    def place_carry(self, arrays: dict[str, np.ndarray]) -> Any:
        """Puts a carry on the devices, from the arrays that :meth:`take_carry` returned."""
        structure = self._lowered.carry
        return self._place_runs(structure.unflatten([arrays[f"carry {i}"] for i in range(structure.num_leaves)]))

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
