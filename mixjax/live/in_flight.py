"""Takes weights that a device is still computing, and reads them later; several processes read those of the first."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixjax.numbers import is_concrete

__all__ = ["Arrays", "in_flight"]

Arrays = tuple["NDArray[np.float32] | None", "NDArray[np.float32] | None"]


def in_flight(step: int, weights: Any, loss_weights: Any, num_domains: int) -> Callable[[], Arrays]:
    """Starts moving weights to the host, without waiting for them.

    With several processes (``jax.distributed``) each has to call this once for every step, also where it has no
    weights. The weights of the first process are sent to all on the devices, behind what the devices are computing.

    Args:
        step: the step that the weights come from.
        weights: sampling weights ``[D]``, an array of JAX or of NumPy, or None.
        loss_weights: loss weights ``[D]``, or None.
        num_domains: ``D``.

    Returns:
        A function that waits for both, and returns them as float32 arrays, or None where None was given. It raises a
        ValueError where the processes called this with different steps, or some with weights and others without.

    Raises:
        ValueError: an array is not ``[D]``, or is spread over several processes.
        TypeError: an array is being traced, or ``loss_weights`` come without ``weights``.
    """
    if weights is None and loss_weights is not None:
        raise TypeError("loss_weights need weights beside them, got weights=None.")
    arrays = {"weights": weights, "loss_weights": loss_weights}
    for name, array in arrays.items():
        if array is not None:
            arrays[name] = _checked(name, array, num_domains)
    if "jax" in sys.modules:
        import jax

        if jax.process_count() > 1:
            return _of_first_process(step, arrays["weights"], arrays["loss_weights"], num_domains)
    copies = [_copy(array) for array in arrays.values()]
    return lambda: (_read(copies[0]), _read(copies[1]))


def _checked(name, array, num_domains):
    """Returns an array of JAX as it is, and anything else as float32 ``[D]`` of NumPy."""
    if _is_jax(array):
        if not is_concrete(array):
            raise TypeError(f"{name} must have values, and is being traced: send them outside of jit, got {array}.")
    else:
        try:
            # Copied, since the caller may write into the array before it is read.
            array = np.array(array, np.float32)
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be [{num_domains}], one number per domain, got {array!r}.") from None
    if array.shape != (num_domains,):
        raise ValueError(f"{name} must be [{num_domains}], one entry per domain, got shape {array.shape}.")
    return array


def _is_jax(array) -> bool:
    # A process that has not loaded JAX has no arrays of it.
    return "jax" in sys.modules and isinstance(array, sys.modules["jax"].Array)


def _copy(array):
    """Copies an array of JAX, since the next step may take the buffer of the original (``donate_argnums``)."""
    if not _is_jax(array):
        return array
    import jax.numpy as jnp

    array = jnp.copy(array)
    array.copy_to_host_async()
    return array


def _read(array):
    if _is_jax(array):
        import jax

        # Asked for by name, which jax.transfer_guard allows.
        array = jax.device_get(array)
    return None if array is None else np.asarray(array, np.float32)


def _of_first_process(step, weights, loss_weights, num_domains):
    """Sends the weights of the first process to all, and how the processes' calls differ."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    num_processes, device = jax.process_count(), jax.local_devices()[0]
    mesh, exchange = _exchange(num_processes, num_domains)
    one_part_each = NamedSharding(mesh, PartitionSpec("process"))

    def of_all(mine):
        shape = (num_processes * mine.size,)
        return jax.make_array_from_single_device_arrays(shape, one_part_each, [jax.device_put(mine, device)])

    call = np.array([step, weights is not None, loss_weights is not None], np.int32)
    nothing = np.zeros(num_domains, np.float32)
    parts = [call, *(nothing if array is None else _local(array) for array in (weights, loss_weights))]
    # The caller may have set a mesh of its own.
    with jax.set_mesh(mesh):
        arrived = [array.addressable_data(0) for array in exchange(*map(of_all, parts))]
    for array in arrived:
        array.copy_to_host_async()

    def read() -> Arrays:
        (largest, smallest, first), q, c = jax.device_get(arrived)
        if (largest != smallest).any():
            differs = (
                f"process {jax.process_index()} sent {_said(call)}" if (call != first).any() else "another did not"
            )
            raise ValueError(f"all processes have to send the same: the first sent {_said(first)}, and {differs}.")
        return q if first[1] else None, c if first[2] else None

    return read


def _local(array):
    """Returns what this process has of an array, as float32 on one device."""
    if not _is_jax(array):
        return array
    if not (array.is_fully_addressable or array.is_fully_replicated):
        raise ValueError(f"weights must be equal on all processes, got an array that is split: {array.sharding}.")
    import jax
    import jax.numpy as jnp

    if not array.is_fully_addressable:
        array = array.addressable_data(0)
    array = jax.device_put(array, jax.local_devices()[0])
    return array if array.dtype == np.float32 else jnp.asarray(array, np.float32)


@functools.cache
def _exchange(num_processes, num_domains):
    """Returns a mesh of one device a process, and a jitted function of arrays that hold one part a process."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = [next(d for d in jax.devices() if d.process_index == index) for index in range(num_processes)]
    mesh = Mesh(np.array(devices), ("process",))

    def exchange(calls, weights, loss_weights):
        calls = calls.reshape(num_processes, -1)
        q, c = (array.reshape(num_processes, num_domains)[0] for array in (weights, loss_weights))
        return jnp.stack([calls.max(0), calls.min(0), calls[0]]), q, c

    return mesh, jax.jit(exchange, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _said(call) -> str:
    step, has_weights, has_loss_weights = call.tolist()
    if not has_weights:
        return f"no weights of step {step}"
    return f"weights{' and loss weights' if has_loss_weights else ''} of step {step}"
