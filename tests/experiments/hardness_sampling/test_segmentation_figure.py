"""Tests the figure of the segmentation of brain tumours on made-up results."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray

from experiments.hardness_sampling import segmentation_figure
from experiments.hardness_sampling.segmentation_report import MAIN, NESTEROV, name


@pytest.mark.parametrize(("simulated", "source"), [(True, "SIMULATED"), (False, "BraTS")])
def test_the_figure_names_the_source_and_every_method(simulated, source):
    rng, methods = np.random.default_rng(0), ["ERM", name(MAIN, True)]
    data = xarray.Dataset(
        {
            "dice": (("seed", "method", "case", "region"), 100 * rng.random((2, 2, 6, 3))),
            "shown": (("seed", "method", "x", "y"), rng.integers(0, 4, (2, 2, 8, 8))),
            "shown_truth": (("seed", "x", "y"), rng.integers(0, 4, (2, 8, 8))),
            "shown_image": (("seed", "x", "y", "contrast"), rng.random((2, 8, 8, 2))),
        },
        {
            "method": methods,
            "case": ["easy"] * 3 + ["hard"] * 3,
            "region": ["whole", "core", "enhancing"],
            "contrast": ["t1", "flair"],
        },
    )
    figure = segmentation_figure.figure({NESTEROV: data}, "hard", simulated)
    assert source in figure.get_suptitle() and "2 seeds" in figure.get_suptitle()
    titles = [axis.get_title() for axis in figure.axes]
    assert {"t1", "flair", "truth", *methods, "whole", "core", "enhancing"} <= set(titles)
    rows = {label.get_text() for axis in figure.axes for label in axis.get_yticklabels()}
    assert {f"{NESTEROV}, {method}" for method in methods} <= rows
    plt.close(figure)
