"""Draws epochs and shares of the languages by rank, after figure 1 of the UniMax paper."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.live_mix.languages import languages
from experiments.shared.figures import finish

__all__ = ["figure"]


def figure(results) -> Figure:
    """Draws what a plan with limits drew, temperature sampling, and the rates that the paper prints."""
    (data,) = results.values()
    drawn, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    rank = np.arange(1, data.sizes["language"] + 1)
    mean = data.mean("seed")
    number = 0
    for budget in data.budget.values[::-1]:
        for epochs in data.max_epochs.values:
            one = mean.sel(max_epochs=epochs, budget=budget)
            style = {"color": f"C{number}", "lw": 1.4, "label": f"UniMax plan, N = {epochs:g}, {budget:g}× budget"}
            left.plot(rank, one.drawn / one.corpus, **style)
            right.plot(rank, 100 * one.drawn / one.rows, **style)
            number += 1
    one = mean.sel(max_epochs=data.max_epochs.values[0], budget=data.budget.values.max())
    style = {"color": "0.3", "lw": 1.2, "ls": "--", "label": "temperature sampling, 1× budget"}
    left.plot(rank, one.temperature * one.rows / one.corpus, **style)
    right.plot(rank, 100 * one.temperature, **style)
    for name, marker in (("unimax_1x", "x"), ("unimax_1/8", "+")):
        rates = np.where(languages().rates[name] > 0, languages().rates[name], np.nan)
        right.plot(rank, 100 * rates, marker, ms=4, color="k", label=f"printed, {name.replace('_', ' ')}")
    left.set(xlabel="rank of the language by size", ylabel="epochs drawn", yscale="log")
    right.set(xlabel="rank of the language by size", ylabel="share of what is drawn (%)", yscale="log", ylim=(1e-3, 10))
    seeds = data.sizes["seed"]
    return finish(drawn, f"UniMax on mC4's 107 languages\nmean over {seeds} draws of the sizes within their rounding")
