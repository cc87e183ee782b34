"""The IDX format: a round trip, the layout, and what is refused."""

import numpy as np
import pytest

from mixjax.data import idx
from tests.data.small_mnist import PIXELS


@pytest.mark.parametrize("shape", [(0,), (7,), (2, 3), (2, 3, 4), (2, 0, 3)])
def test_idx_round_trip(shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    np.testing.assert_array_equal(idx.decode(idx.encode(array)), array, strict=True)


def test_idx_layout_is_that_of_the_mnist_files():
    assert idx.encode(PIXELS)[:16].hex() == "00000803" + "00000005" + "0000001c" + "0000001c"
    assert idx.encode(PIXELS)[16:] == PIXELS.tobytes()
    assert idx.encode(PIXELS.T) == idx.encode(PIXELS.T.copy())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "magic number"),
        (b"\0\0\x08", "magic number"),
        (b"\0\1\x08\x01\0\0\0\0", "magic number"),
        (b"\0\0\x0d\x01\0\0\0\1\0\0\0\0", "magic number"),
        (b"\0\0\x08\0", "at least one axis"),
        (b"\0\0\x08\x03\0\0\0\1", "header of 3 axes takes 16 bytes, got 8"),
        (b"\0\0\x08\x01\0\0\0\4abc", "takes 4 bytes, got 3"),
        (b"\0\0\x08\x01\0\0\0\2abc", "takes 2 bytes, got 3"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "bytes, got 0"),
    ],
)
def test_malformed_idx(content, reason):
    with pytest.raises(ValueError, match=f"some file: .*{reason}"):
        idx.decode(content, "some file")


@pytest.mark.parametrize("array", [np.zeros(3), np.uint8(3)])
def test_idx_takes_bytes_only(array):
    with pytest.raises(ValueError, match="uint8"):
        idx.encode(array)
