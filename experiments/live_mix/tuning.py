"""Chooses the settings of the mixing methods by validation losses, on other seeds than those of the comparison.

``mixjax run configs/live_mix/comparison_tuning.toml`` tries them. Its report begins with the choice as TOML, which
``configs/live_mix/comparison.toml`` has, and a table of all that was tried.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import xarray

from experiments.live_mix.comparison import Comparison, comparison
from experiments.live_mix.methods import METHODS
from mixjax.runner.experiment import Experiment
from mixjax.runner.figures import sweep_figure
from mixjax.runner.texts import markdown_table

__all__ = ["GRIDS", "RATES", "Tuning", "chosen", "summary", "tuning"]

GRIDS: Mapping[str, Mapping[str, list[float]]] = MappingProxyType(
    {
        "erma": {"gamma1": [0.004, 0.02, 0.1, 0.4], "gamma2": [0.02, 0.1, 0.5, 2.0]},
        "erma_va": {"gamma1": [0.004, 0.02, 0.1, 0.4], "gamma2": [0.02, 0.1, 0.5, 2.0]},
        "va": {"floor": [0.0, 0.3, 0.6, 0.9]},
        "group_dro": {"step_size": [0.0003, 0.001, 0.003, 0.01]},
        "doremi": {"step_size": [0.01, 0.03, 0.1, 1.0]},
        "doge": {"step_size": [0.003, 0.01, 0.03, 0.1]},
        "odm": {"decay": [0.5, 0.7, 0.9, 0.97]},
        "ado": {"credit": [0.5, 0.5, 0.0, 1.0], "pace": [0.1, 0.5, 0.1, 0.1]},
        "aioli": {"step_size": [0.2, 0.5, 1.0, 2.0]},
    }
)
"""What is tried of each method: all lists of a method are equally long, and their first entries belong together.

Every method has as many tries. The static mixes have none, because their settings are those of their papers.
"""

RATES = {"learning_rate": [0.003, 0.01, 0.03]}
"""The learning rates that are tried for the uniform mix; all methods take the best one."""


@dataclasses.dataclass(frozen=True)
class Tuning(Comparison):
    """Holds the settings of a run, of which some are tried in several values.

    Attributes:
        rates: whether learning rates are tried in place of the method's own settings.
    """

    rates: bool = False


def tuning(config: Tuning) -> Experiment:
    """Makes the experiment that tries the settings of one method."""
    tries = RATES if config.rates else GRIDS.get(config.method)
    return dataclasses.replace(
        comparison(config), points=tries, figure=sweep_figure, claims=lambda results: [], summary=summary
    )


def chosen(data: xarray.Dataset) -> dict[str, float]:
    """Returns the settings of least validation loss, by the mean over domains and seeds; {} where none were tried.

    A setting with which a seed diverged is not chosen.

    Args:
        data: metrics of one run of the tuning.
    """
    losses = _losses(data)
    if "point" not in losses.dims:
        return {}
    best = losses.isel(point=int(np.where(np.isfinite(losses), losses, np.inf).argmin()))
    names = [name for name, coord in data.coords.items() if coord.dims == ("point",) and name != "point"]
    # Settings are float32 in the runs, and the file should have the numbers that were written.
    return {str(name): float(f"{float(best[name]):.6g}") for name in names}


def _losses(data: xarray.Dataset) -> xarray.DataArray:
    """Returns the mean validation loss of each point."""
    return data["validation_loss"].mean(["seed", "domain"], skipna=False)


def summary(results: Mapping[str, xarray.Dataset]) -> str:
    """Writes the choice as TOML, and all that was tried."""
    lines, table = [], []
    for name, data in results.items():
        losses, choice = _losses(data), chosen(data)
        for loss in losses if "point" in losses.dims else [losses]:
            own = {key: float(f"{float(loss[key]):.6g}") for key in choice}
            mark = "chosen" if choice and own == choice else ""
            words = ", ".join(f"{key} {value:g}" for key, value in own.items())
            table.append([name, words or "-", f"{float(loss):.4f}", mark])
        if name in METHODS:
            settings = [f"{key} = {value}" for key, value in choice.items()]
            lines += ["[[run]]", f'name = "{name}"', f'method = "{name}"', *settings, ""]
    header = ["run", "settings", "mean validation loss", ""]
    return "\n".join(["```toml", *lines[:-1], "```", "", *markdown_table(header, table)])
