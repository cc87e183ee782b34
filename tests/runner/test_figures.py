"""The figure of any sweep: what is on its axes, and what its lines are."""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import mixjax
from mixjax.runner.figures import sweep_figure


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def train(key, hparams, data):
    level = hparams["rate"] * jnp.arange(1.0, 3.0)[:, None]  # [method, step]
    return {"loss": level + jnp.zeros((2, 3)), "size": jnp.log(hparams["rate"] - 0.05)}


DIMS, COORDS = {"loss": ("method", "step")}, {"method": ["sgd", "erma"], "step": [1, 2, 3]}


def swept(**arguments):
    result = mixjax.sweep(train, seeds=4, dims=DIMS, coords=COORDS, **arguments)
    result.loss.attrs["units"] = "nats"
    return result


def test_axes_lines_and_legend():
    figure = sweep_figure({"a": swept(axes={"rate": [0.1, 1.0, 10.0]}), "b": swept(axes={"rate": [1.0, 2.0]})})
    panels = figure.axes
    assert [panel.get_ylabel() for panel in panels] == ["loss (nats)", "size"] * 2
    assert [panel.get_xlabel() for panel in panels] == ["rate"] * 4
    assert [panel.get_xscale() for panel in panels] == ["log", "log", "linear", "linear"]
    assert panels[0].get_title() == "a\nat step 3"
    heights = sorted(tuple(np.round(line.get_ydata(), 4)) for line in panels[0].lines if line.get_linestyle() == "-")
    assert heights == [(0.1, 1.0, 10.0), (0.2, 2.0, 20.0)]
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} >= {"sgd", "erma"}


def test_points_have_a_row_of_panels_for_each_column_and_lost_runs_are_said():
    points = {"rate": [0.01, 1.0, 3.0], "unused": [5.0, 1.0, 2.0], "name": ["x", "y", "z"]}
    figure = sweep_figure({"run": swept(points=points)})
    assert [panel.get_xlabel() for panel in figure.axes] == ["rate", "rate", "unused", "unused"]
    assert figure.axes[1].get_title() == "4 runs not finite"
    assert all(line.get_linestyle() == "None" for line in figure.axes[0].lines)


RATES, LABELS, VECTORS = [0.1, 0.4], ["sgd", "erma", "va"], [[0.5, 0.5], [0.9, 0.1]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"axes": {"rate": RATES, "rule": LABELS}},
        {"axes": {"rule": LABELS, "rate": RATES, "width": [1, 2, 3], "depth": [4, 5]}},
        {"axes": {"rate": RATES}, "points": {"rule": LABELS}},
        {"axes": {"rate": RATES, "rule": LABELS[:2]}, "points": {"width": [1, 2, 2], "kind": ["a", "b", "a"]}},
        {"axes": {"mixture": VECTORS, "rate": RATES}},
        {"axes": {"rate": RATES}, "points": {"mixture": VECTORS, "kind": ["a", "b"]}},
        {"axes": {"rule": LABELS, "kind": ["a", "b"]}},
        {"axes": {"mixture": VECTORS}},
    ],
)
def test_every_point_is_drawn_and_nothing_but_seeds_is_averaged(arguments):
    sizes = [len(values) for values in arguments.get("axes", {}).values()]
    sizes += [len(values) for values in list(arguments.get("points", {}).values())[:1]]
    result = mixjax.sweep(lambda key, hparams, data: {"cell": jnp.zeros(2)}, seeds=2, dims={"cell": ("part",)},
                          coords={"part": ["head", "tail"]}, **arguments)  # fmt: skip
    numbers = np.arange(np.prod(sizes) * 2.0).reshape(*sizes, 1, 2)
    around = np.array([[-0.25], [0.25]])  # two seeds
    result["cell"] = result.cell.copy(data=numbers + around)
    figure = sweep_figure({"run": result})
    lines = [bars.lines[0] for bars in figure.axes[0].containers]
    assert sorted(np.concatenate([line.get_ydata() for line in lines])) == sorted(numbers.ravel())
    styles = {(line.get_color(), line.get_marker()) for line in lines}
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert len(styles) == len(lines) and len(names) == min(len(lines), 24)


def test_nothing_varies():
    assert len(sweep_figure({"run": swept(axes={"rate": [1.0]})}).axes) == 2


def test_metrics_of_bfloat16_are_drawn():
    def train(key, hparams, data):
        return {"loss": jnp.bfloat16(hparams["rate"]), "exact": hparams["rate"]}

    figure = sweep_figure({"run": mixjax.sweep(train, seeds=2, axes={"rate": [1.0, 2.0]})})
    assert [panel.get_ylabel() for panel in figure.axes] == ["exact", "loss"]
    assert figure.axes[1].lines[0].get_ydata().tolist() == [1.0, 2.0]


def test_where_only_labels_vary_there_is_no_scale_of_numbers():
    def train(key, hparams, data):
        return {"loss": jnp.float32(hparams["rule"])}

    figure = sweep_figure({"run": mixjax.sweep(train, seeds=2, axes={"rule": ["erma", "fgls"]})})
    assert figure.axes[0].get_xticks().tolist() == []


def test_metrics_that_are_left_out_are_said():
    def train(key, hparams, data):
        return {f"metric_{i}": jnp.float32(i) for i in range(8)}

    figure = sweep_figure({"run": mixjax.sweep(train, seeds=2)})
    assert len(figure.axes) == 6 and figure.get_suptitle().endswith("; 6 of 8 metrics")


def test_panels_wrap_and_a_method_has_one_colour_in_all_of_them():
    def train(key, hparams, data):
        accuracies = hparams["rate"] * jnp.arange(12.0).reshape(3, 4)
        return {"groups": accuracies, "weights": accuracies} | {name: accuracies.min(1) for name in ("a", "b", "worst")}

    one, two = ("method",), ("method", "group")
    own = {"a": one, "b": one, "worst": one, "groups": two, "weights": two}
    coords = {"method": ["erm", "dro", "va"], "group": ["w", "x", "y", "z"]}
    result = mixjax.sweep(train, seeds=2, axes={"rate": [1.0, 2.0]}, dims=own, coords=coords)
    figure = sweep_figure({"one": result, "two": result})
    assert len(figure.axes) == 10 and figure.get_size_inches()[0] < 13
    for panel in figure.axes:
        bars = [bars.lines[0] for bars in panel.containers]
        # At the first rate the height tells which method a line belongs to.
        methods = {line.get_color(): int(line.get_ydata()[0]) // 4 for line in bars}
        assert methods == {"C0": 0, "C1": 1, "C2": 2}
        assert len({(line.get_color(), line.get_marker()) for line in bars}) == len(bars) in (3, 12)
