"""Checks the arguments of a sweep, lays out its runs, and chooses and builds the program of a chunk."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

import jax
import jax.numpy as jnp

from mixjax.sweeps import devices as devices_lib
from mixjax.sweeps.contractions import merges
from mixjax.sweeps.devices import Device
from mixjax.sweeps.host_loops import HostLoop
from mixjax.sweeps.lowering import Shapes
from mixjax.sweeps.metrics import metric_dims, metric_shapes, time_axes
from mixjax.sweeps.nested import with_flat_metrics
from mixjax.sweeps.programs import OutOfMemoryError, Program
from mixjax.sweeps.runs import Runs
from mixjax.sweeps.segments import Segments
from mixjax.sweeps.spec import Sweep, Train, Vectorize

__all__ = ["Prepared"]

_LOG = logging.getLogger(__name__)

_MAP_SLOTS = 16
"""Most slots a device where runs go one after the other ("map"): a larger chunk would not be faster."""

_BATCH_DEPENDENT = ("rbg", "unsafe_rbg")
"""Generators whose keys draw other numbers in a batch than alone."""

_USABLE = 0.8
"""The part of the free memory that a sweep may need: the analysis does not see everything."""

_SHRINK = 0.9
"""The next size to try is at most this part of the last one, so that the search ends whatever the analysis says."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Holds a sweep whose arguments are checked, and builds its programs.

    Args:
        train: the training run, which returns its metrics by flat names.
        runs: the hyperparameters and the seed of each run.
        data: pytree of arrays on the default device.
        dims: metric -> the names of its own dimensions, for all metrics.
        vectorize: "vmap", "map", "auto", or the number of runs that a device computes at once.
        devices: where the runs are computed.
        free_bytes: the memory of a device that the program and its arguments may use.
    """

    train: Train | Segments
    runs: Runs
    data: Any
    dims: dict[str, tuple[str, ...]]
    vectorize: Vectorize
    devices: tuple[Device, ...]
    free_bytes: float

    @classmethod
    def of(cls, spec: Sweep) -> Prepared:
        """Checks a sweep. ``train`` is traced, and nothing is computed.

        Args:
            spec: the sweep.

        Returns:
            The sweep, ready to run.

        Raises:
            ValueError, TypeError: as :func:`mixjax.sweep` does.
        """
        if isinstance(spec.train, HostLoop):
            raise ValueError(
                "a HostLoop is an ordinary loop: there is no program to compile, to size or to search with."
            )
        devices = tuple(jax.local_devices() if spec.devices is None else spec.devices)
        if not devices or any(device.process_index != jax.process_index() for device in devices):
            raise ValueError(f"devices must be some of jax.local_devices(), got {devices}.")
        runs = Runs(spec.axes or {}, spec.points or {}, spec.seeds, spec.first_seed, spec.paired)
        for dim, size in runs.own_sizes.items():
            labels = (spec.coords or {}).get(dim)
            if labels is not None and len(labels) != size:
                raise ValueError(f"coords of {dim!r} must be {size} labels, one for each entry, got {labels}.")
        # The compiler's analysis counts the data among the program's arguments. Data that are on the device already
        # take no more memory there, so that their bytes are added to what is free.
        resident = [x for x in jax.tree.leaves(spec.data) if isinstance(x, jax.Array) and devices[0] in x.devices()]
        copies = len(devices) if devices[0].platform == "cpu" else 1
        # Of a CPU's devices, which share its memory, one has the data.
        free = devices_lib.free_bytes(devices) + sum(x.nbytes for x in resident) / copies
        # Converted before the tracing: the program is compiled for the types of JAX's arrays, not for Python's numbers
        # or NumPy's 64 bits.
        data = jax.tree.map(jnp.asarray, spec.data)
        hparams = runs.batched_spec | runs.label_spec
        shapes = Shapes(data).tree
        train = with_flat_metrics(spec.train, hparams, shapes)
        dims = metric_dims(
            train,
            hparams,
            shapes,
            taken=runs.names,
            dims=spec.dims or {},
            coords=spec.coords or {},
        )
        return cls(train, runs, data, dims, _vectorize(spec, devices), devices, free)

    @property
    def hparams(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Describes one run's hyperparameters, numbers and labels, by shape and dtype."""
        return self.runs.batched_spec | self.runs.label_spec

    @property
    def data_shapes(self) -> Any:
        """Describes the data by shape and dtype. Their shardings, such as those of a user's mesh, are no part of it."""
        return Shapes(self.data).tree

    @property
    def time_axes(self) -> dict[str, int | None]:
        """Returns the place of time among each metric's own dimensions, or None; see :func:`metrics.time_axes`."""
        return time_axes(self.train, self.dims, self.hparams, self.data_shapes)

    @property
    def metric_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Describes one run's metrics by shape and dtype."""
        return metric_shapes(self.train, self.hparams, self.data_shapes)

    @property
    def map_slots(self) -> int:
        """Returns the number of slots of a chunk whose runs go one after the other."""
        return (1 if self.is_called_from_host else _MAP_SLOTS) * len(self.devices)

    @property
    def is_called_from_host(self) -> bool:
        """Tells whether runs go one by one in calls from the host; see ``calls`` of :class:`Segments`."""
        return isinstance(self.train, Segments) and self.train.calls is not None and self.vectorize == "map"

    @property
    def merges(self) -> bool:
        """Tells whether a number of runs at once, be it 1, changes products; see :mod:`mixjax.sweeps.contractions`."""
        key, hparams, data = jax.eval_shape(lambda: jax.random.key(0)), self.hparams, self.data_shapes
        if not isinstance(self.train, Segments):
            return merges(self.train, key, hparams, data)
        carry = jax.eval_shape(self.train.init, key, hparams, data)
        return merges(self.train.advance, carry, hparams, data)

    def build(self, slots: int) -> Program:
        """Traces the program of a chunk of ``slots`` runs; with "auto", the one of "map".

        Where runs are called from the host a chunk has one run a device, however many ``slots`` are asked for.
        """
        if self.is_called_from_host:
            slots = min(slots, len(self.devices))
        return Program(
            self.train,
            slots,
            vectorize="map" if self.vectorize == "auto" else self.vectorize,
            devices=self.devices,
            hparams=Shapes(self.runs.batched_spec),
            labels=Shapes(self.runs.label_spec),
            data=Shapes(self.data),
        )

    @property
    def least_slots(self) -> int:
        """Returns the number of slots below which a chunk needs no less memory on a device."""
        # A CPU's devices share its memory: a chunk that leaves some of them idle leaves the others more.
        return 1 if self._on_cpu else len(self.devices)

    def halved(self, slots: int) -> int:
        """Returns half of a number of slots, or the least number; a program rounds it to as many on each device."""
        return max(slots // 2, self.least_slots)

    def bytes_per_device(self, program: Program) -> float:
        """Returns the memory that the sweep takes on each device at its peak.

        On accelerators that is what a call of the program takes. A CPU's memory also holds the metrics of all runs that
        are done; the carries of :class:`mixjax.sweeps.Segments` are saved without a copy.

        Args:
            program: the program of a chunk.

        Returns:
            Bytes; 0 where the backend has no analysis of its programs.

        Raises:
            OutOfMemoryError: the compiler says that the chunk does not fit.
        """
        needed = program.bytes_per_device()
        if not self._on_cpu or not needed:
            return needed
        metrics = program.metric_bytes
        chunk = min(program.slots, self.runs.num)
        kept = self.runs.num
        if isinstance(self.train, Segments):
            # At the end of the last chunk its segments are joined into an array of their own.
            kept += chunk
        elif program.num_devices == 1:
            # A single device's results are kept as they are, and so are counted in the program's analysis already.
            kept -= chunk
        computing = needed + kept * metrics / program.num_devices
        # When all runs are done their metrics are joined, chunk by chunk.
        return max(computing, (self.runs.num + chunk) * metrics / program.num_devices)

    def fits(self, program: Program) -> bool:
        """Tells whether a sweep by a program needs no more than the memory that is free."""
        return self._load(program) <= 1

    def build_fitting(self) -> Program:
        """Builds the program of the largest chunk that fits the memory, and at most of about :attr:`map_slots` runs.

        With "vmap" the limit is the number of runs that may share a chunk. With a number of runs at once, it is about
        as many slots as with "map", or one batch a device.

        Returns:
            The program, compiled where the memory is limited. A program of one run is returned whether it fits or not,
            with a warning: nothing smaller is left to try. On accelerators that is a program of one run a device.
        """
        if self.vectorize in ("map", "auto"):
            slots = self.map_slots
        elif isinstance(self.vectorize, int):
            # All batches of the runs get about as many: otherwise the last one could be mostly padding.
            per_device = math.ceil(self.runs.largest_group / len(self.devices))
            lanes = math.ceil(per_device / math.ceil(per_device / self.vectorize))
            slots = max(_MAP_SLOTS // lanes, 1) * lanes * len(self.devices)
        else:
            slots = self.runs.largest_group
        while True:
            program = self.build(slots)
            load = self._load(program)
            if load <= 1:
                return program
            if program.slots <= self.least_slots:
                _LOG.warning(
                    "one run a device needs %.2g times the memory that it may take, %.3g GB: the process may be "
                    "stopped for it; give each run less to hold, or the process more memory",
                    load,
                    self._usable(program) / 1e9,
                )
                return program
            slots = self._smaller(program, load)
            _LOG.info("a chunk of %d runs needs %.3g times the free memory: trying %d", program.slots, load, slots)

    @property
    def _on_cpu(self) -> bool:
        return self.devices[0].platform == "cpu"

    def _usable(self, program):
        """Returns the bytes that a program may take on each device."""
        shared = len(self.devices) / program.num_devices if self._on_cpu else 1
        return _USABLE * self.free_bytes * shared

    def _load(self, program):
        """Returns how much a program takes of the memory that it may take; above 1 it does not fit."""
        usable = self._usable(program)
        try:
            needed = self.bytes_per_device(program)
        except OutOfMemoryError:
            # The error does not say how much was needed: half the size is the next to try.
            return 2.0
        return needed / usable if usable > 0 else math.inf

    def _smaller(self, program, load):
        """Returns the next number of slots to try, below the program's."""
        num_devices = len(self.devices)
        size = max(int(program.slots * min(1 / load, _SHRINK)), self.least_slots)
        if self.vectorize == "vmap":
            size -= size % num_devices if size > num_devices else 0
            # All calls get about the same number of runs: otherwise the last call could be mostly padding.
            return math.ceil(self.runs.largest_group / math.ceil(self.runs.largest_group / size))
        # Whole batches on every device, or a smaller batch, or fewer devices.
        unit = next(unit for unit in (num_devices * program.lanes, num_devices, 1) if unit <= size)
        return size - size % unit


def _vectorize(spec: Sweep, devices: tuple[Device, ...]) -> Vectorize:
    """Returns how a device computes its runs, chosen where the user leaves it open."""
    # JAX adds its options when it is loaded, where pyright does not see them.
    generator = jax.config.jax_default_prng_impl  # pyright: ignore[reportAttributeAccessIssue]
    vectorize, on_cpu = spec.vectorize, devices[0].platform == "cpu"
    if not isinstance(vectorize, (str, type(None))):
        # Not one of NumPy's numbers, which no JSON file takes.
        vectorize = int(vectorize)
    if isinstance(spec.train, Segments) and spec.train.calls is not None and isinstance(vectorize, int):
        raise ValueError(f"vectorize must be 'map' or 'vmap' for Segments with calls, got {vectorize!r}.")
    if generator in _BATCH_DEPENDENT:
        if vectorize == "vmap" or (isinstance(vectorize, int) and vectorize > 1):
            raise ValueError(
                f"vectorize={vectorize!r} with jax_default_prng_impl={generator!r}: a batch of such keys draws other "
                "numbers than each key alone, so that a seed's run would depend on its chunk; take 'map', or "
                "'threefry2x32' keys."
            )
        return "map" if vectorize in (None, "auto") else vectorize
    if vectorize not in (None, "auto"):
        return vectorize
    # On accelerators a batch of all runs that fit is the fastest, and there is nothing to measure.
    if not on_cpu:
        return "vmap"
    # On a CPU the default is measured, except where a number of runs at once would not do.
    return "map" if isinstance(spec.train, Segments) and spec.train.calls is not None else "auto"
