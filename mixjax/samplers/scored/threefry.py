"""Computes the random numbers of ``jax.random`` in NumPy, for input pipelines, which must not claim a device.

A key is uint32 ``[2]``: ``jax.random.key_data`` of a key of JAX's default implementation, Threefry-2x32. The functions
return the bits of their namesakes in ``jax.random`` with ``jax_threefry_partitionable``, the default. There, entry
``i`` of an array is the block cipher's value at counter ``i``, so any part of an array can be computed without the
rest.

References:
    Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.
"""

import math

import numpy as np

__all__ = [
    "fold_in",
    "gumbel",
    "key",
    "random_bits",
    "split",
    "threefry2x32",
    "to_gumbel",
    "to_uniform",
    "uniform",
]

# The rounds and the parity are those of the reference implementation. The shifts are arrays, so that NumPy computes in
# uint32.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_SHIFTS = [[(np.array(r, np.uint32), np.array(32 - r, np.uint32)) for r in four] for four in _ROTATIONS]
_PARITY = np.uint32(0x1BD11BDA)


def threefry2x32(key: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Encrypts counters by the cipher of 20 rounds, elementwise.

    The cipher takes two words of 32 bits. Here the first is 0, and the second is a counter.

    Args:
        key: uint32 ``[..., 2]``.
        counters: uint32 ``[...]``; broadcast with the keys.

    Returns:
        The two words of output, uint32 ``[2, ...]``, of at least two dimensions.
    """
    words = key[..., 0], key[..., 1], key[..., 0] ^ key[..., 1] ^ _PARITY
    right = np.atleast_1d(counters) + words[1]
    left, spare = np.empty_like(right), np.empty_like(right)
    left[...] = words[0]
    for block in range(5):
        for up, down in _SHIFTS[block % 2]:
            # In place: the arrays are as large as the batch needs random numbers, and there are 20 rounds.
            left += right
            np.right_shift(right, down, spare)
            right <<= up
            right |= spare
            right ^= left
        left += words[(block + 1) % 3]
        right += words[(block + 2) % 3]
        right += np.uint32(block + 1)
    return np.stack([left, right])


def key(seed: int) -> np.ndarray:
    """Returns the data of ``jax.random.key(seed)``, uint32 ``[2]``, for a seed in [0, 2^32)."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in [0, 2**32), got {seed}.")
    return np.array([0, seed], np.uint32)


def split(key: np.ndarray, num: int = 2) -> np.ndarray:
    """Splits a key as ``jax.random.split`` does: uint32 ``[num, 2]``."""
    return threefry2x32(key, np.arange(num, dtype=np.uint32)).T


def fold_in(key: np.ndarray, data: int | np.ndarray) -> np.ndarray:
    """Folds numbers into a key as ``jax.random.fold_in`` does: uint32 ``[2]`` for one number, ``[B, 2]`` for ``[B]``.

    Example:
        >>> import jax
        >>> from mixjax.samplers.scored import threefry
        >>> threefry.fold_in(threefry.key(1), 5).tolist()
        [3243370355, 1313272271]
        >>> jax.random.key_data(jax.random.fold_in(jax.random.key(1), 5)).tolist()
        [3243370355, 1313272271]
    """
    return threefry2x32(key, np.asarray(data, np.uint32)).T.reshape(*np.shape(data), 2)


def random_bits(key: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Computes the entries ``counters`` (uint32, of any shape) of ``jax.random.bits``; keys ``[..., 2]`` broadcast."""
    left, right = threefry2x32(key, counters)
    return left ^ right


def to_uniform(bits: np.ndarray) -> np.ndarray:
    """Turns random bits into float32 in [0, 1), multiples of 2^-23."""
    # The bits become the mantissa of a number in [1, 2), as in JAX.
    return ((bits >> 9) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)


def to_gumbel(bits: np.ndarray) -> np.ndarray:
    """Turns random bits into standard Gumbel variables, float32."""
    # A uniform number of zero would give -inf.
    uniforms = np.maximum(to_uniform(bits), np.finfo(np.float32).tiny)
    # Each logarithm is computed in float64 and rounded to float32, as scored.host_tree explains.
    inner = -np.log(uniforms, dtype=np.float64).astype(np.float32)
    return -np.log(inner, dtype=np.float64).astype(np.float32)


def uniform(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Computes ``jax.random.uniform`` in float32, bit by bit, for fewer than 2^32 numbers."""
    return to_uniform(random_bits(key, np.arange(math.prod(shape), dtype=np.uint32))).reshape(shape)


def gumbel(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Computes ``jax.random.gumbel`` in float32, up to the rounding of two logarithms, for fewer than 2^32 numbers."""
    return to_gumbel(random_bits(key, np.arange(math.prod(shape), dtype=np.uint32))).reshape(shape)
