"""Draws the pictures of the pages that explain: loss and sampling weights, probes, and paired seeds.

``python -m experiments.guides.why_figures`` draws them again, once for light pages and once for dark ones.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.guides import pictures

__all__ = ["FIGURES", "FOLDER", "draw_c_and_q", "draw_judging", "draw_probes", "main"]

FOLDER = Path(__file__).parent / "why" / "figures"

_BLUE, _ORANGE = {"light": "#0969da", "dark": "#58a6ff"}, {"light": "#bc4c00", "dark": "#f0883e"}


def draw_c_and_q(page: str) -> Figure:
    """Draws how loss weights move the end of a training, and sampling weights only its spread.

    Args:
        page: "light" or "dark", the background.
    """
    with pictures.colours_of(page):
        figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.9), sharey=True, layout="constrained")
        for c, colour, label in ((0.5, _BLUE, "c = (0.5, 0.5)"), (0.2, _ORANGE, "c = (0.2, 0.8)")):
            _band(left, _descend(c=c, q=0.5), colour[page], label, 1.05 if c == 0.2 else 0.3)
        for q, colour, label in ((0.5, _ORANGE, "q = (0.5, 0.5)"), (0.09, _BLUE, "q by the spread")):
            _band(right, _descend(c=0.5, q=q), colour[page], label, 0.68 if q == 0.5 else 0.3)
        left.set(title="c moves the optimum", xlabel="training steps", ylabel="the parameter", xlim=(0, 300))
        right.set(title="q moves only the noise", xlabel="training steps", xlim=(0, 300), ylim=(-0.05, 1.15))
    return figure


def _descend(c: float, q: float, steps: int = 300, runs: int = 400) -> np.ndarray:
    """Returns the parameter ``[step, run]``: two domains that want 0 and 1, with gradients of spread 0.3 and 3."""
    rng = np.random.default_rng(0)
    shares, counts = np.array([c, 1 - c]), 16 * np.array([q, 1 - q])
    theta, path = np.zeros(runs), []
    for _ in range(steps):
        noise = rng.normal(0.0, [0.3, 3.0] / np.sqrt(counts), (runs, 2))
        theta = theta - 0.05 * ((theta[:, None] - [0.0, 1.0] + noise) @ shares)
        path.append(theta)
    return np.array(path)


def _band(axis, path: np.ndarray, colour: str, label: str, height: float) -> None:
    steps = np.arange(1, len(path) + 1)
    low, high = np.quantile(path, [0.1, 0.9], axis=1)
    axis.fill_between(steps, low, high, color=colour, alpha=0.25, lw=0)
    axis.plot(steps, path.mean(axis=1), color=colour, lw=1.8)
    axis.text(295, height, label, color=colour, ha="right", va="center", fontweight="bold")


def draw_probes(page: str) -> Figure:
    """Draws the bias of a weighted loss against the rows of a domain, for weights from the batch and from a probe.

    Args:
        page: "light" or "dark", the background.
    """
    rows = np.array([1, 2, 4, 8, 16, 32, 64])
    rng = np.random.default_rng(0)
    biases = {"same": [], "apart": []}
    for n in rows:
        batch, probe = rng.exponential(size=(2, 20_000, 2, n)).mean(axis=3)
        for name, seen in (("same", batch), ("apart", probe)):
            weights = np.exp(seen) / np.exp(seen).sum(axis=1, keepdims=True)
            biases[name].append((weights * batch).sum(axis=1).mean() - 1)
    with pictures.colours_of(page):
        figure, axis = plt.subplots(figsize=(8, 2.9), layout="constrained")
        axis.plot(rows, biases["same"], "o-", color=_ORANGE[page], lw=1.8)
        axis.plot(rows, biases["apart"], "o-", color=_BLUE[page], lw=1.8)
        axis.text(2.3, 0.24, "updated on the same batch", color=_ORANGE[page], fontweight="bold")
        axis.text(2.3, 0.025, "updated on a probe", color=_BLUE[page], fontweight="bold")
        axis.set(xscale="log", xlabel="rows of a domain in the batch", ylabel="bias of the loss", ylim=(-0.03, 0.5))
        axis.set_title("Two domains alike, loss 1, weights of dro(beta=1)", fontweight="bold", fontsize=10.5)
        axis.set_xticks(rows, [str(n) for n in rows])
        axis.minorticks_off()
    return figure


def draw_judging(page: str) -> Figure:
    """Draws the losses of two methods on the same seeds, and their difference, paired and apart.

    Args:
        page: "light" or "dark", the background.
    """
    rng = np.random.default_rng(0)
    luck = rng.normal(0.0, 1.0, 12)
    plain, ours = 10.0 + luck + rng.normal(0.0, 0.1, 12), 9.7 + luck + rng.normal(0.0, 0.1, 12)
    difference = ours - plain
    paired = difference.std(ddof=1) / np.sqrt(12)
    apart = np.sqrt((plain.var(ddof=1) + ours.var(ddof=1)) / 12)
    with pictures.colours_of(page):
        figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.9), layout="constrained", width_ratios=(1, 1.3))
        for a, b in zip(plain, ours, strict=True):
            left.plot([0, 1], [a, b], "o-", color=_BLUE[page], lw=1, ms=4)
        left.set(title="12 seeds, two methods", ylabel="loss", xlim=(-0.4, 1.4))
        left.set_xticks([0, 1], ["plain", "ours"])
        for height, error, colour in ((1, apart, _ORANGE), (0, paired, _BLUE)):
            right.errorbar(difference.mean(), height, xerr=2 * error, fmt="o", color=colour[page], capsize=4, lw=1.8)
        right.axvline(0, color=pictures.PAGES[page][1], lw=1, ls=":")
        right.set_yticks([0, 1], ["paired", "apart"])
        right.set(title="difference, two standard errors", ylim=(-0.6, 1.6), xlabel="loss of ours minus plain")
    return figure


FIGURES = {"c_and_q": draw_c_and_q, "probes": draw_probes, "judging": draw_judging}
"""The function that draws each picture."""


def main(arguments: list[str] | None = None) -> None:
    """Draws all pictures in both versions.

    Args:
        arguments: of the command line; those of the process when None.
    """
    parser = argparse.ArgumentParser(description="Draws the pictures of the pages that explain.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    folder = parser.parse_args(arguments).out
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        for page in pictures.PAGES:
            pictures.save(draw(page), folder / f"{name}_{page}.png")


if __name__ == "__main__":
    main()
