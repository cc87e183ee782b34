"""Labels as text, final values, and tables of one row a value."""

import math

import ml_dtypes
import numpy as np
import pytest
import xarray as xr

from mixjax.runner.frames import (
    column_names,
    final_values,
    finite_values,
    holds_numbers,
    holds_text,
    label_text,
    label_texts,
    long_frame,
)


def test_final_takes_the_last_of_what_is_no_label():
    dims = ("beta", "seed", "method", "step", "domain")
    values = xr.DataArray(np.arange(48.0).reshape(2, 2, 2, 3, 2), {"method": ["a", "b"], "step": [1, 2, 4]}, dims)
    last, at = final_values(values)
    assert last.dims == ("beta", "seed", "method") and at == {"step": "4", "domain": "1"}
    np.testing.assert_array_equal(last, values[..., -1, -1])
    kept, at = final_values(values, keep=["step"])
    assert kept.dims == dims[:-1] and at == {"domain": "1"}


def test_labels():
    values = xr.DataArray(np.zeros((2, 2, 2)), {"beta": [0.1, math.inf]}, ("beta", "point", "seed"))
    values = values.assign_coords(method=("point", ["sgd", "va"]), rate=("point", [0.5, 1.0]))
    assert label_texts(values, "beta") == ["0.1", "inf"]
    third = xr.DataArray(np.zeros(2), {"rate": [1 / 3, 2 / 3]}, ("rate",))
    assert label_texts(third, "rate") == ["0.333333", "0.666667"]
    close = xr.DataArray(np.zeros(3), {"rate": [0.1, 0.10000001, 1 / 3]}, ("rate",))  # as many digits as it takes
    assert label_texts(close, "rate") == ["0.1", "0.10000001", "0.3333333333333333"]
    assert label_texts(values, "point") == ["method=sgd, rate=0.5", "method=va, rate=1.0"]
    assert label_texts(values, "seed") == ["0", "1"]
    assert label_texts(values, "rate") == ["0.5", "1.0"]
    assert column_names(values, "point") == ["method", "rate"] and column_names(values, "beta") == []


def test_a_table_of_values():
    values = xr.DataArray(np.arange(8).reshape(2, 2, 2), {"seed": [7, 8]}, ("beta", "point", "seed"))
    values = values.assign_coords(point=[0, 1], method=("point", ["sgd", "va"]), rate=("point", [0.5, 1.0]))
    table = long_frame(values, "loss")
    assert list(table.columns) == ["beta", "method", "rate", "seed", "loss"]
    assert table.values.tolist()[2:5] == [["0", "va", "1.0", 7, 2], ["0", "va", "1.0", 8, 3], ["1", "sgd", "0.5", 7, 4]]
    joined = long_frame(values, "loss", joined="point")
    assert list(joined.columns) == ["beta", "point", "seed", "loss"] and joined.point[0] == "method=sgd, rate=0.5"


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.complex64])
def test_finite_values_keep_dimensions_and_labels(dtype):
    values = xr.DataArray(
        np.array([[1.0, math.inf], [math.nan, 0.0]]).astype(dtype), {"seed": [3, 4]}, ("seed", "step")
    )
    finite = finite_values(values)
    assert finite.dims == ("seed", "step") and finite.dtype == bool and finite.seed.values.tolist() == [3, 4]
    assert finite.values.tolist() == [[True, False], [False, True]]


def test_what_cannot_be_infinite_is_finite():
    for array in (np.array([1, 2]), np.array(["a", "b"]), np.array([True, False])):
        assert finite_values(xr.DataArray(array, dims="seed")).values.all()


def test_numbers_and_texts():
    arrays = {"f": [1.0], "i": [1], "b": [True], "U": ["a"], "c": [1j]}
    values = {kind: xr.DataArray(array, dims="seed") for kind, array in arrays.items()}
    assert [kind for kind, array in values.items() if holds_numbers(array)] == ["f", "i", "b"]
    assert [kind for kind, array in values.items() if holds_text(array)] == ["U"]
    assert not holds_numbers(xr.DataArray(np.ones(1, ml_dtypes.bfloat16), dims="seed"))
    assert holds_text(np.array(["a", None], object))


def test_label_text():
    assert [label_text(x) for x in (1 / 3, 0.5, 12345678901, "a long label", np.float32(0.1))] == [
        "0.333333", "0.5", "12345678901", "a long label", "0.1"
    ]  # fmt: skip
