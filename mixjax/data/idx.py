"""Reads and writes the IDX format of the MNIST files, for unsigned bytes.

A file is a header of big-endian integers, then the raw values. The header is two zero bytes, the type code (8 for
unsigned bytes), the number of axes, and one 32-bit size per axis.
"""

import math
import struct

import numpy as np

__all__ = ["decode", "encode"]

_UBYTE = 8


def decode(data: bytes, name: str = "IDX data") -> np.ndarray:
    """Parses the bytes of one uncompressed IDX file.

    Args:
        data: the whole file.
        name: the name of the file in errors, such as its path.

    Returns:
        uint8 array with the axes that the header declares; a read-only view of ``data``.

    Raises:
        ValueError: if the magic number does not stand for unsigned bytes with at least one axis, or if the length
            does not match the header.

    Example:
        >>> decode(b"\\0\\0\\x08\\x01" + b"\\0\\0\\0\\x03" + b"abc")
        array([97, 98, 99], dtype=uint8)
    """
    if len(data) < 4 or data[:3] != bytes([0, 0, _UBYTE]) or data[3] == 0:
        raise ValueError(f"{name}: magic number must be 00 00 08 and at least one axis, got {data[:4].hex(' ')!r}")
    ndim = data[3]
    start = 4 + 4 * ndim
    if len(data) < start:
        raise ValueError(f"{name}: the header of {ndim} axes takes {start} bytes, got {len(data)}")
    shape = struct.unpack(f">{ndim}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(f"{name}: shape {shape} takes {math.prod(shape)} bytes, got {len(data) - start}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def encode(array: np.ndarray) -> bytes:
    """Writes an array as the bytes of one IDX file; the inverse of :func:`decode`.

    Args:
        array: uint8, one to 255 axes, each shorter than 2³².

    Returns:
        The whole file, uncompressed.

    Raises:
        ValueError: if the array is not uint8 or has no axis.

    Example:
        >>> encode(np.array([97, 98, 99], np.uint8)).hex(" ")
        '00 00 08 01 00 00 00 03 61 62 63'
    """
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim == 0:
        raise ValueError(f"array must be uint8 with at least one axis, got {array.dtype} with {array.ndim} axes")
    return bytes([0, 0, _UBYTE, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
