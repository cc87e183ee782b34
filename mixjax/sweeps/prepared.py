"""Checks the arguments of a sweep, lays out its runs, and chooses and builds the program of a chunk."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mixjax.sweeps import devices as devices_lib
from mixjax.sweeps.devices import Device
from mixjax.sweeps.host_loops import HostLoop
from mixjax.sweeps.lowering import Shapes
from mixjax.sweeps.metrics import metric_dims, time_axes
from mixjax.sweeps.nested import with_flat_metrics
from mixjax.sweeps.programs import OutOfMemoryError, Program
from mixjax.sweeps.runs import Runs
from mixjax.sweeps.segments import Segments
from mixjax.sweeps.spec import Sweep, Train, Vectorize

__all__ = ["Prepared", "fitting"]

_LOG = logging.getLogger(__name__)

_MAP_SLOTS = 16
"""Slots a device where runs go one after the other ("map"): a larger chunk would need no more memory, nor be faster."""

_BATCH_DEPENDENT = ("rbg", "unsafe_rbg")
"""Generators whose keys draw other numbers in a batch than alone."""

_USABLE = 0.8
"""The part of the free memory that a program may need: the compiler's analysis does not see everything."""

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
        free = devices_lib.free_bytes(devices) + sum(x.nbytes for x in resident)
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
    def map_slots(self) -> int:
        """Returns the number of slots of a chunk whose runs go one after the other."""
        return (1 if self.is_called_from_host else _MAP_SLOTS) * len(self.devices)

    @property
    def is_called_from_host(self) -> bool:
        """Tells whether runs go one by one in calls from the host; see ``calls`` of :class:`Segments`."""
        return isinstance(self.train, Segments) and self.train.calls is not None and self.vectorize == "map"

    def build(self, slots: int) -> Program:
        """Traces the program of a chunk of ``slots`` runs; with "auto", the one that computes one run at once.

        Where runs are called from the host a chunk has one run a device, however many ``slots`` are asked for.
        """
        if self.is_called_from_host:
            slots = min(slots, len(self.devices))
        return Program(
            self.train,
            slots,
            vectorize=1 if self.vectorize == "auto" else self.vectorize,
            devices=self.devices,
            hparams=Shapes(self.runs.batched_spec),
            labels=Shapes(self.runs.label_spec),
            data=Shapes(self.data),
        )

    def fits(self, program: Program) -> bool:
        """Tells whether a program needs no more than the memory that is free, by the compiler's analysis."""
        try:
            return program.bytes_per_device() <= _USABLE * self.free_bytes
        except OutOfMemoryError:
            return False

    def build_fitting(self) -> Program:
        """Builds the program of the largest chunk that fits the memory; with "map", of :attr:`map_slots`.

        With a number of runs at once, the chunk has about as many slots as with "map", or one batch a device.
        """
        if self.vectorize in ("map", "auto"):
            return self.build(self.map_slots)
        if isinstance(self.vectorize, int):
            # All batches of the runs get about as many: otherwise the last one could be mostly padding.
            per_device = math.ceil(self.runs.largest_group / len(self.devices))
            lanes = math.ceil(per_device / math.ceil(per_device / self.vectorize))
            return self.build(max(_MAP_SLOTS // lanes, 1) * lanes * len(self.devices))
        return fitting(self.build, self.runs.largest_group, self.free_bytes)


def _vectorize(spec: Sweep, devices: tuple[Device, ...]) -> Vectorize:
    """Returns how a device computes its runs, chosen where the user leaves it open."""
    # JAX adds its options when it is loaded, where pyright does not see them.
    generator = jax.config.jax_default_prng_impl  # pyright: ignore[reportAttributeAccessIssue]
    vectorize, on_cpu = spec.vectorize, devices[0].platform == "cpu"
    if not isinstance(vectorize, (str, type(None))):
        # Not one of NumPy's numbers, which no JSON file takes.
        vectorize = int(vectorize)
    if isinstance(spec.train, Segments) and spec.train.calls is not None and vectorize not in ("map", "vmap", None):
        if vectorize != "auto":
            raise ValueError(f"vectorize must be 'map' or 'vmap' for Segments with calls, got {vectorize!r}.")
        vectorize = None
    if generator in _BATCH_DEPENDENT:
        if vectorize == "vmap" or (isinstance(vectorize, int) and vectorize > 1):
            raise ValueError(
                f"vectorize={vectorize!r} with jax_default_prng_impl={generator!r}: a batch of such keys draws other "
                "numbers than each key alone, so that a seed's run would depend on its chunk; take 'map', or "
                "'threefry2x32' keys."
            )
        return {None: "map", "auto": 1}.get(vectorize, vectorize)
    # On accelerators a batch of all runs that fit is the fastest, and there is nothing to measure.
    if vectorize is None or (vectorize == "auto" and not on_cpu):
        return "map" if on_cpu else "vmap"
    return vectorize


def fitting(build: Callable[[int], Program], num_runs: int, free: float) -> Program:
    """Builds the program of the largest chunk that fits the memory.

    The compiler's analysis of one size gives the next size to try. That size is then lowered so far that all calls of
    the program get about the same number of runs: otherwise the last call could be mostly padding.

    Args:
        build: number of slots -> Program.
        num_runs: the most runs that are to share a chunk, at least 1.
        free: free bytes of a device.

    Returns:
        The program, compiled. A program of one run a device is returned whether it fits or not: nothing smaller is
        left to try.
    """
    slots, usable = num_runs, _USABLE * free
    while True:
        program = build(slots)
        try:
            needed = program.bytes_per_device()
        except OutOfMemoryError:
            # The error does not say how much was needed: twice the usable bytes make half the size the next to try.
            needed = 2 * usable
        if needed <= usable or program.slots <= program.num_devices:
            return program
        per_device = int(program.slots // program.num_devices * min(usable / needed, _SHRINK))
        calls = math.ceil(num_runs / (max(per_device, 1) * program.num_devices))
        slots = math.ceil(num_runs / calls)
        _LOG.info("a chunk of %d runs needs %.3g GB a device of %.3g: trying %d", program.slots, needed, usable, slots)
