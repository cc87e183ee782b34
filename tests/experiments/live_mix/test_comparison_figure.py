"""Tests the figure of the comparison of mixing methods: the front, the places of labels, and that all is drawn."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.live_mix.comparison_figure import figure
from experiments.live_mix.comparison_labels import place_labels
from experiments.live_mix.comparison_pareto import front, pareto
from experiments.live_mix.comparison_tables import NAMES, compared
from tests.experiments.live_mix.fake_comparison import DOMAINS, EFFECTS, results

NUMBERS = st.integers(-5, 5).map(float)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=12))
def test_nothing_beats_the_front_and_the_front_beats_all_else(points):
    x, y = np.array(points).T
    found = front(x, y)
    assert found and list(x[found]) == sorted(x[found])
    for place in range(len(points)):
        beaten = [x[each] <= x[place] and y[each] <= y[place] for each in found if each != place]
        same = [(x[each], y[each]) == (x[place], y[place]) for each in found]
        assert (place in found) or any(beaten)
        if place in found:
            assert not any(
                x[each] <= x[place] and y[each] <= y[place] and (x[each], y[each]) != (x[place], y[place])
                for each in range(len(points))
            )
            assert sum(same) == 1


def test_points_that_are_no_numbers_are_not_on_the_front():
    assert front([np.nan, 1.0, -np.inf], [0.0, np.nan, np.nan]) == []


@pytest.mark.parametrize("seed", range(3))
def test_labels_hide_neither_each_other_nor_points(seed):
    rng = np.random.default_rng(seed)
    drawn, axis = plt.subplots(figsize=(4.0, 4.0))
    points = rng.normal(size=(13, 2))
    axis.plot(*points.T, "o")
    for (x, y), name in zip(points, NAMES.values(), strict=True):
        axis.annotate(name, (x, y), fontsize=8.5)
    place_labels(axis)
    drawn.canvas.draw()
    boxes = [text.get_window_extent() for text in axis.texts if text.get_text()]
    places = axis.transData.transform(points)
    plt.close(drawn)
    assert len(boxes) == 13
    for one, other in itertools.combinations(boxes, 2):
        overlap = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
        # Half of a letter: a place farther off may cost more.
        assert min(overlap) <= 0.0 or overlap[0] * overlap[1] < 30.0
    assert not any(box.contains(*place) for box in boxes for place in places)


@pytest.mark.parametrize("names", [None, ["uniform", "erma"]])
def test_the_figure_has_every_method_and_domain(names):
    drawn = figure(results(seeds=4, names=names))
    texts = {text.get_text() for axis in drawn.axes for text in [*axis.texts, *axis.get_xticklabels()]}
    labels = {text.get_text().split(" (")[0] for axis in drawn.axes for text in axis.get_yticklabels()}
    titles = {axis.get_title() for axis in drawn.axes}
    drawn.savefig("/dev/null", format="png", dpi=30)
    plt.close(drawn)
    assert {NAMES[name] for name in names or NAMES} <= texts
    assert set(DOMAINS) <= labels
    assert {"at equal steps", "at equal processor time", "ERMA\nloss weights"} <= titles
    assert ("VA\nsampling weights" in titles) == (names is None)


def test_a_method_that_diverged_is_left_out_of_the_front_and_the_rest_is_drawn():
    found = results(seeds=4, names=["uniform", "erma", "ado"])
    found["ado"]["loss"][...] = np.nan
    found["ado"]["target_loss"][...] = np.nan
    drawn = figure(found)
    drawn.savefig("/dev/null", format="png", dpi=30)
    left = next(axis for axis in drawn.axes if axis.get_title() == "at equal steps")
    assert "ADO" not in {text.get_text() for text in left.texts}
    plt.close(drawn)


def test_a_method_far_from_all_others_stands_at_the_edge_with_its_numbers():
    effects = {name: EFFECTS[name] for name in ("uniform", "unimax", "erma", "va", "erma_va")}
    found = results(seeds=4, effects=effects | {"doge": ((5.0,) * 4, 0.0), "ado": ((-5.0,) * 4, 0.0)})
    drawn, axis = plt.subplots()
    pareto(axis, compared(found, "uniform"), "steps")
    texts = {text.get_text() for text in axis.texts}
    plt.close(drawn)
    assert "DoGE (+5.00, +5.00)" in texts and axis.get_xlim()[1] < 3.0
    # A method that is far better is on the front, and is drawn where it is.
    assert "ADO" in texts and axis.get_xlim()[0] < -5.0
