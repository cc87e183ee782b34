"""Arrays in a file of their own."""

import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.sweeps.blocks import read_block, write_block

ARRAYS = {
    "0/half": np.asarray(jnp.array([1.5, -2.0], jnp.bfloat16)),
    "0/flag": np.array([True]),
    "3/nothing": np.zeros((0, 2), np.int32),
    "../odd\0name": np.array(1.5),
    "file": np.zeros(1),
}


def test_arrays_come_back_with_their_types(tmp_path):
    write_block(tmp_path / "block", {"old": np.ones(1)})
    write_block(tmp_path / "block", ARRAYS)  # in its place
    found = read_block(tmp_path / "block")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_another_array_by_the_same_name_is_noticed(tmp_path):
    for name in ("one", "two"):
        write_block(tmp_path / name, {"x": np.full(3, len(name) + (name == "two"))})
    with np.load(tmp_path / "one") as one, np.load(tmp_path / "two") as two:
        mixed = {**one, "array_0": two["array_0"]}
    with open(tmp_path / "one", "wb") as file:
        np.savez(file, **mixed)
    with pytest.raises(ValueError, match="its digest does not fit"):
        read_block(tmp_path / "one")
