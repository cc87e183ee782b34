"""Tests that the figure of imbalanced MNIST has a label and a line style for every method that it shows."""

import matplotlib.pyplot as plt
import numpy as np
import xarray

from experiments.hardness_sampling import mnist, mnist_figure


def test_every_method_but_beta_zero_has_a_label():
    assert set(mnist_figure.LABELS) == set(mnist.METHODS) - {"wr_0"}
    assert set(mnist_figure.PAPER) | set(mnist_figure.OURS) == set(mnist_figure.LABELS)
    assert list(mnist_figure.ESTIMATES) == list(mnist.ESTIMATES)


def test_a_curve_is_the_mean_with_a_band_that_stays_positive_on_a_logarithmic_axis():
    values = xarray.DataArray([[1.0, 1.0], [5.0, 3.0]], dims=("seed", "step"), coords={"step": [10, 20]})
    figure, axis = plt.subplots()
    axis.set_yscale("log")
    mnist_figure.curve(axis, values, "erm")
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [3.0, 2.0])
    (band,) = axis.collections
    assert band.get_paths()[0].vertices[:, 1].min() == 1.0  # half the mean, where the band would go below 0
    plt.close(figure)
