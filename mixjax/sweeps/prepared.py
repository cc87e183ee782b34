"""A sweep that is ready to run: its arguments checked, its runs laid out, its programs to be built."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mixjax.sweeps import devices as devices_lib
from mixjax.sweeps.devices import Device
from mixjax.sweeps.memory import MAP_SLOTS, fitting
from mixjax.sweeps.metrics import metric_dims
from mixjax.sweeps.programs import Program
from mixjax.sweeps.runs import Runs
from mixjax.sweeps.segments import Segments
from mixjax.sweeps.shapes import Shapes
from mixjax.sweeps.spec import Sweep, Train, Vectorize

__all__ = ["Prepared"]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Holds a sweep whose arguments are checked, and builds its programs.

    Args:
        train: the training run.
        runs: which run has which hyperparameters and seed.
        data: pytree of arrays on the default device.
        dims: metric -> the names of its own dimensions, for all metrics.
        vectorize: "vmap" or "map".
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
        """Checks a sweep; traces ``train``, and computes nothing.

        Args:
            spec: the sweep.

        Returns:
            The sweep, ready to run.

        Raises:
            ValueError, TypeError: as :func:`mixjax.sweep` does.
        """
        devices = tuple(jax.local_devices() if spec.devices is None else spec.devices)
        if not devices or any(device.process_index != jax.process_index() for device in devices):
            raise ValueError(f"devices must be some of jax.local_devices(), got {devices}.")
        runs = Runs(spec.axes or {}, spec.points or {}, spec.seeds, spec.first_seed)
        # Data on the device already are not free memory, yet the program's analysis counts them among its arguments.
        there = [x for x in jax.tree.leaves(spec.data) if isinstance(x, jax.Array) and devices[0] in x.devices()]
        free = devices_lib.free_bytes(devices) + sum(x.nbytes for x in there)
        # As JAX's arrays: the program is compiled for their types, where Python's numbers and 64 bits have no place.
        data = jax.tree.map(jnp.asarray, spec.data)
        dims = metric_dims(
            spec.train,
            runs.batched_spec | runs.label_spec,
            data,
            taken=runs.names,
            dims=spec.dims or {},
            coords=spec.coords or {},
        )
        vectorize = spec.vectorize or ("map" if devices[0].platform == "cpu" else "vmap")
        return cls(spec.train, runs, data, dims, vectorize, devices, free)

    @property
    def hparams(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Describes the hyperparameters that one run gets: numbers and labels."""
        return self.runs.batched_spec | self.runs.label_spec

    @property
    def map_slots(self) -> int:
        """Returns the number of slots of a chunk whose runs go one after the other."""
        return MAP_SLOTS * len(self.devices)

    def build(self, slots: int) -> Program:
        """Traces the program of a chunk of so many slots."""
        return Program(
            self.train,
            slots,
            vectorize=self.vectorize,
            devices=self.devices,
            hparams=Shapes(self.runs.batched_spec),
            labels=Shapes(self.runs.label_spec),
            data=Shapes(self.data),
        )

    def build_fitting(self) -> Program:
        """Builds the program of the largest chunk that fits the memory, or that is worth its while with "map"."""
        if self.vectorize == "map":
            return self.build(self.map_slots)
        return fitting(self.build, self.runs.largest_group, self.free_bytes)
