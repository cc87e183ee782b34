"""Holds the operations of a sampler that differ between one device and the devices of a mesh axis."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex
from mixjax.meshes import varying_axes
from mixjax.samplers.scored import tree
from mixjax.samplers.scored.levels import Nodes

__all__ = ["Candidates", "OnMesh", "OneDevice", "devices_of"]


class Candidates(NamedTuple):
    """Holds drawn examples, one for each slot of the batch.

    Attributes:
        ids: int32 ``[k]``, positions among a device's own examples, or indices among all once devices have settled.
        log_masses: float32 ``[k]``, the examples' log-masses, in the unit that the method at hand documents.
        log_prior: float32 ``[k]``.
        perturbed: float32 ``[k]``, log-masses plus Gumbel noise: the largest wins. None where nothing competes.
    """

    ids: jax.Array
    log_masses: jax.Array
    log_prior: jax.Array
    # Any and not Array | None: whoever settles distinct candidates has given it.
    perturbed: Any = None


class OneDevice:
    """Holds a sampler's operations where all ``n`` examples are on one device."""

    def __init__(self, n: int):
        """Takes the number of examples."""
        self.n = n

    def num_examples(self) -> int:
        """Counts the examples of all devices; raises a ValueError above 2^31 - 1, since indices are int32."""
        return _int32_sized(self.n)

    def offset(self) -> ArrayLike:
        """Returns the index of this device's first example."""
        return 0

    def own_key(self, key: jax.Array) -> jax.Array:
        """Returns a key that no other device has."""
        return key

    def largest(self, value: jax.Array) -> jax.Array:
        """Returns the largest of all devices' values."""
        return value

    def sum_of(self, values: jax.Array) -> jax.Array:
        """Adds up all devices' arrays."""
        return values

    def total_mass(self, own: Nodes) -> Nodes:
        """Adds up all devices' masses."""
        return own

    def prior_shares(self, prior: ArrayLike) -> jax.Array:
        """Returns this device's part of the prior, up to a factor that is the same on all devices."""
        # The sampler subtracts the log of the total anyway; this also checks the prior, and keeps tiny shares.
        return as_simplex("prior", prior)

    def settle_independent(
        self,
        key: jax.Array,
        candidates: Candidates,
        own: Nodes | None,
        log_mass: Callable[[], jax.Array],
    ) -> Candidates:
        """Picks the examples of a batch from those that every device has drawn independently, slot by slot.

        Args:
            key: this device's own key.
            candidates: this device's draws.
            own: the mass of this device's examples where ``candidates.log_masses`` are relative to one example of its
                largest loss; None where they are relative to the total of all devices already.
            log_mass: computes the log-mass of all examples of this device, in the units of the candidates'.

        Returns:
            The winners, the same on every device, with log-masses relative to the total of all devices.
        """
        # Nothing competes. Only the unit changes, where it is not the total yet.
        if own is None:
            return candidates
        return candidates._replace(log_masses=candidates.log_masses - own.log)

    def settle_distinct(self, candidates: Candidates, own: Nodes | None) -> Candidates:
        """Picks the examples of a batch from the distinct ones that every device proposes.

        Args:
            candidates: this device's, by descending ``perturbed``.
            own: as for :meth:`settle_independent`.

        Returns:
            The winners by descending ``perturbed``, the same on every device. Log-masses and perturbed log-masses have
            one unit, and only their differences have a meaning.
        """
        return candidates


class OnMesh:
    """Holds a sampler's operations where the examples are split over a mesh axis, ``n`` a device, under ``shard_map``.

    The methods are those of :class:`OneDevice`, and every device calls them together.
    """

    def __init__(self, n: int, heat: jax.Array, axis_name: str):
        """Takes the number of a device's examples, the heat of their masses, and the axis."""
        self.n, self.heat, self.axis_name = n, heat, axis_name

    def num_examples(self) -> int:
        """Counts the examples of all devices; raises a ValueError above 2^31 - 1, since indices are int32."""
        return _int32_sized(self.n * jax.lax.axis_size(self.axis_name))

    def offset(self) -> ArrayLike:
        """Returns the index of this device's first example."""
        return jax.lax.axis_index(self.axis_name) * self.n

    def own_key(self, key: jax.Array) -> jax.Array:
        """Returns a key that no other device has."""
        # Every device is given the same key, and would draw the same positions by it.
        return jax.random.fold_in(key, jax.lax.axis_index(self.axis_name))

    def largest(self, value: jax.Array) -> jax.Array:
        """Returns the largest of all devices' values."""
        return jax.lax.pmax(value, self.axis_name)

    def sum_of(self, values: jax.Array) -> jax.Array:
        """Adds up all devices' arrays."""
        return jax.lax.psum(values, self.axis_name)

    def total_mass(self, own: Nodes) -> Nodes:
        """Adds up all devices' masses."""
        return tree.combine(jax.tree.map(lambda x: _all_gather(x, self.axis_name), own), self.heat)

    def prior_shares(self, prior: ArrayLike) -> jax.Array:
        """Returns this device's part of the prior, up to a factor that is the same on all devices."""
        # Not normalised here: a device's part does not sum to one, and may be all zero.
        return jnp.asarray(prior, jnp.float32)

    def settle_independent(
        self,
        key: jax.Array,
        candidates: Candidates,
        own: Nodes | None,
        log_mass: Callable[[], jax.Array],
    ) -> Candidates:
        """Picks the examples of a batch from those that every device has drawn independently, slot by slot."""
        # The device of largest perturbed log-mass wins a slot, so each wins in proportion to its mass.
        noise = jax.random.gumbel(key, candidates.ids.shape, jnp.float32)
        rivals = self._gather(candidates._replace(perturbed=log_mass() + noise), own)
        slots = jnp.arange(candidates.ids.size, dtype=jnp.int32)
        winners = jnp.argmax(rivals.perturbed, 0)
        return jax.tree.map(lambda x: x[winners, slots], rivals)

    def settle_distinct(self, candidates: Candidates, own: Nodes | None) -> Candidates:
        """Picks the examples of a batch from the distinct ones that every device proposes."""
        # The k largest of all are among the k largest of each device.
        rivals = self._gather(candidates, own)
        winners = jax.lax.top_k(rivals.perturbed.reshape(-1), candidates.ids.size)[1]
        return jax.tree.map(lambda x: x.reshape(-1)[winners], rivals)

    def _gather(self, candidates: Candidates, own: Nodes | None) -> Candidates:
        """Returns all devices' candidates, ``[devices, k]``, with global ids and one unit of mass."""
        ids, logs, log_prior, perturbed = candidates
        ids = ids + self.offset()
        # The device's mass travels as two more rows of k equal numbers.
        masses = () if own is None else [jnp.full(ids.shape, x) for x in own]
        floats = jnp.stack([perturbed, logs, log_prior, *masses])
        # One all-gather of int32 for everything: several small collectives cost several latencies.
        packed = jnp.concatenate([ids[None], jax.lax.bitcast_convert_type(floats, jnp.int32)])
        packed = _all_gather(packed, self.axis_name, axis=1)
        ids, floats = packed[0], jax.lax.bitcast_convert_type(packed[1:], jnp.float32)
        perturbed, logs, log_prior, *masses = floats
        if own is not None:
            tops, own_logs = masses
            shift = self._log_unit(Nodes(tops[:, :1], own_logs[:, :1]))
            perturbed, logs = perturbed + shift, logs + shift
        return Candidates(ids, logs, log_prior, perturbed)

    def _log_unit(self, masses: Nodes) -> jax.Array:
        """Returns each device's unit, one example of its largest loss, relative to the total: ``[devices, 1]``."""
        total = tree.combine(Nodes(masses.top[:, 0], masses.log[:, 0]), self.heat)
        # A device of no mass has a top of 0, which may lie far above the others' losses: its unit would overflow, and
        # inf - inf is NaN. So its unit is zero.
        log_of_one = jnp.where(masses.log > -jnp.inf, 0.0, -jnp.inf)
        return tree.relative(Nodes(masses.top, log_of_one), total, self.heat)


def devices_of(n: int, heat: jax.Array, axis_name: str | None) -> OneDevice | OnMesh:
    """Returns the devices that hold a sampler's examples: one, or those of a mesh axis."""
    return OneDevice(n) if axis_name is None else OnMesh(n, heat, axis_name)


def _all_gather(x, axis_name, axis=0):
    """Gathers an array of all devices, in a type that says that the result is the same on every device."""
    # Without check_vma, and under vmap, JAX keeps no account of what varies.
    if axis_name not in varying_axes(x):
        return jax.lax.all_gather(x, axis_name, axis=axis)
    if "to" in inspect.signature(jax.lax.all_gather).parameters:
        return jax.lax.all_gather(x, axis_name, axis=axis, to="invarying")
    # Older versions of JAX gather to "varying" only, but a sum over devices is the same on all of them.
    slots = jnp.zeros((jax.lax.axis_size(axis_name), *x.shape), x.dtype).at[jax.lax.axis_index(axis_name)].set(x)
    return jnp.moveaxis(jax.lax.psum(slots, axis_name), 0, axis)


def _int32_sized(total: int) -> int:
    if total >= 2**31:
        raise ValueError(f"indices are int32: at most 2^31 - 1 examples, got {total}.")
    return total
