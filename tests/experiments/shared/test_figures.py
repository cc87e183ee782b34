"""Tests that lines, bands and bars are drawn where the numbers are."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray

from experiments.shared import figures

RNG = np.random.default_rng(0)
DATA = xarray.Dataset(
    {"loss": (("seed", "method", "step"), 1.0 + RNG.random((9, 2, 4)))},
    {"method": ["a", "b"], "step": [1, 2, 3, 4], "seed": range(9)},
)
VALUES = DATA.loss.sel({"method": "a"})
MEAN, ERROR = VALUES.mean("seed"), 2 * VALUES.std("seed", ddof=1) / 3


@pytest.fixture
def axis():
    figure, axis = plt.subplots()
    yield axis
    plt.close(figure)


def edges(band):
    """Returns the lowest and the highest edge of a filled band."""
    heights = band.get_paths()[0].vertices[:, 1]
    return heights.min(), heights.max()


def test_a_line_is_the_mean_with_two_standard_errors_to_each_side(axis):
    figures.line(axis, DATA.step, VALUES, color="C1")
    np.testing.assert_allclose(axis.lines[0].get_ydata(), MEAN)
    np.testing.assert_allclose(edges(axis.collections[0]), ((MEAN - ERROR).min(), (MEAN + ERROR).max()))


def test_a_quantile_band_holds_four_fifths_of_the_seeds(axis):
    figures.quantile_band(axis, DATA.step, VALUES, color="C1")
    low, high = np.quantile(VALUES, [0.1, 0.9], axis=VALUES.get_axis_num("seed"))
    np.testing.assert_allclose(edges(axis.collections[0]), (low.min(), high.max()))


def test_points_have_error_bars_of_two_standard_errors(axis):
    figures.points(axis, DATA.step, VALUES)
    bars = axis.containers[0][2][0].get_segments()
    np.testing.assert_allclose([segment[:, 1] for segment in bars], np.stack([MEAN - ERROR, MEAN + ERROR], 1))


def test_curves_draw_a_row_for_each_run_and_a_line_for_each_method():
    panels = [figures.Panel("loss", "loss (nats)", scale="log", limits=(0.5, 3.0), reference=(1.0, "the best"))]
    drawn = figures.curves({"one": DATA, "two": DATA}, panels, {"a": "method a", "b": "method b"}, "title")
    assert len(drawn.axes) == 2 and all(len(axis.lines) == 3 for axis in drawn.axes)
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["method a", "method b", "the best"]
    assert drawn.get_suptitle().startswith("title\nmean over 9 paired seeds")
    plt.close(drawn)
