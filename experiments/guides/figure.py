"""Draws the README's figure from a result of ``configs/quickstart.toml``, once for light pages and once for dark ones.

``mixjax run configs/quickstart.toml``, then ``python -m experiments.guides.figure results/quickstart``, writes
``experiments/guides/figures/quickstart_light.png``, ``quickstart_dark.png``, and ``quickstart.json``, which holds the
accuracies that the README prints.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import xarray
from matplotlib.figure import Figure

from experiments.guides.pictures import PAGES, colours_of
from experiments.shared import figures
from experiments.shared.statistics import error_bars
from mixjax.runner import results

__all__ = ["FOLDER", "accuracies", "draw", "main"]

FOLDER = Path(__file__).parent / "figures"


class _Line(NamedTuple):
    """Describes a line: its label, its style, and where the label's right end is, in steps and the axis's unit."""

    method: str
    label: str
    style: str
    x: float
    y: float


class _Panel(NamedTuple):
    """Describes a panel: a question as its title, and the lines that answer it."""

    metric: str
    title: str
    label: str
    limits: tuple[float, float]
    lines: tuple[_Line, ...]


# One colour a method. All are told apart by colour-blind readers, and are legible on white and on black.
_COLOURS = {
    "light": {"vanilla": "#6e7781", "va": "#bc4c00", "erma": "#0969da", "erma_va": "#1a7f37"},
    "dark": {"vanilla": "#9198a1", "va": "#f0883e", "erma": "#58a6ff", "erma_va": "#3fb950"},
}

_PANELS = (
    _Panel(
        "loss_weight",
        "How much does it count?",
        "loss weight of the clean half",
        (0, 1),
        (
            _Line("erma", "ERMA", "-", 560, 0.70),
            _Line("vanilla", "no weighting", "-", 990, 0.42),
        ),
    ),
    _Panel(
        "sampling_weight",
        "How often is it drawn?",
        "share of the batch",
        (0, 1),
        (
            _Line("erma_va", "ERMA + VA", "-", 990, 0.76),
            _Line("vanilla", "no weighting", "-", 990, 0.42),
            _Line("va", "VA alone", "-", 990, 0.21),
        ),
    ),
    _Panel(
        "accuracy",
        "What does it gain?",
        "test accuracy (%)",
        (90, 98),
        (
            _Line("erma_va", "ERMA + VA", "-", 430, 97.1),
            _Line("erma", "ERMA", "--", 790, 95.7),
            _Line("vanilla", "no weighting", "-", 990, 93.1),
        ),
    ),
)


def draw(data: xarray.Dataset, page: str) -> Figure:
    """Draws the two weights and the test accuracy, with each line's name beside it.

    Args:
        data: the run of the quickstart, with the dimensions ``seed``, ``method`` and ``step``.
        page: "light" or "dark", the background.

    Returns:
        The figure, 8 inches wide.
    """
    with colours_of(page):
        figure, axes = plt.subplots(1, len(_PANELS), figsize=(8, 2.7), layout="constrained")
        for axis, panel in zip(axes, _PANELS, strict=True):
            for one in panel.lines:
                colour = _COLOURS[page][one.method]
                values = data[panel.metric].sel({"method": one.method})
                figures.line(axis, data.step, values, color=colour, ls=one.style, lw=1.8)
                axis.text(one.x, one.y, one.label, color=colour, fontweight="bold", ha="right")
            axis.set_title(panel.title, fontweight="bold", fontsize=10.5)
            axis.set(xlabel="training steps", ylabel=panel.label, ylim=panel.limits, xlim=(0, float(data.step[-1])))
            axis.set_xticks([0, 500, 1000])
    return figure


def accuracies(data: xarray.Dataset) -> dict[str, dict[str, float]]:
    """Returns each method's test accuracy after the last step, in per cent, with two standard errors over the seeds.

    Args:
        data: as for :func:`draw`.
    """
    found = {}
    for method in data.method.values:
        mean, error = error_bars(data.accuracy.isel(step=-1).sel({"method": method}))
        found[str(method)] = {"mean": round(float(mean), 2), "two_standard_errors": round(float(error), 2)}
    return found


def main(arguments: list[str] | None = None) -> None:
    """Writes the figure in both versions, and its accuracies.

    Args:
        arguments: of the command line; those of the process when None.
    """
    parser = argparse.ArgumentParser(description="Draws the README's figure.")
    parser.add_argument("result", type=Path, help="folder of the quickstart's result")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    chosen = parser.parse_args(arguments)
    (data,) = results.read(chosen.result).values()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        figure = draw(data, page)
        figure.savefig(chosen.out / f"quickstart_{page}.png", dpi=200, pil_kwargs={"optimize": True})
        plt.close(figure)
    (chosen.out / "quickstart.json").write_text(json.dumps(accuracies(data), indent=2) + "\n")


if __name__ == "__main__":
    main()
