"""Writes what a design has found: the mixture as JSON, tables, a figure, and a report for a reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixjax.checks import requires
from mixjax.design.candidates import candidates
from mixjax.design.choosing import verdict
from mixjax.design.fitted import law_of
from mixjax.design.writing import write_mixtures
from mixjax.files import make_folder, write_whole, writing

if TYPE_CHECKING:
    from mixjax.design.proposing import Proposal

__all__ = ["report_text", "write_design"]


def write_design(folder: Path, proposal: Proposal, *, source: str = "") -> None:
    """Writes the files of a design.

    - ``mixture.json``: ``{"weights": {domain: share}, "value", "low", "high"}``;
    - ``predictions.csv``: measured and predicted losses of each run, with the interval for a new run;
    - ``region.csv``: the mixtures that may be the best as well;
    - ``candidates.csv``: the mixtures to train on fresh seeds, see :func:`mixjax.design.candidates`;
    - ``scores.csv``: how well each law predicts left-out runs, where the laws were compared;
    - ``figure.png`` and ``report.md``.

    Args:
        folder: a folder, which is made if it is missing.
        proposal: from :func:`mixjax.design.propose`.
        source: what the report names as the source of the runs.

    Raises:
        OSError: the folder cannot be written.
        ImportError: pandas or matplotlib is missing (extra ``experiments``).
    """
    with requires("experiments", "mixjax.design.report.write_design"):
        import matplotlib.pyplot as plt
        import pandas as pd

    from mixjax.design.figures import design_figure

    fitted, swarm = proposal.fitted, proposal.fitted.swarm
    make_folder("--out", folder)
    weights = dict(zip(swarm.domains, map(float, proposal.weights), strict=True))
    mixture = {"weights": weights, "value": proposal.value, "low": proposal.low, "high": proposal.high}
    if fitted.budget is not None:
        mixture["budget"] = fitted.budget
    write_whole(folder / "mixture.json", json.dumps(mixture, indent=2) + "\n")
    predicted = fitted.predict(swarm.mixtures, "run", budget=swarm.budgets)
    columns = {"run": np.repeat(np.arange(len(swarm.losses)), len(swarm.metrics))}
    columns["metric"] = np.tile(swarm.metrics, len(swarm.losses))
    columns["measured"] = swarm.losses.ravel()
    columns |= {name: array.ravel() for name, array in zip(("predicted", "low", "high"), predicted, strict=True)}
    write_whole(folder / "predictions.csv", pd.DataFrame(columns).to_csv(index=False))
    region = pd.DataFrame(proposal.region, columns=list(swarm.domains))
    write_whole(folder / "region.csv", region.to_csv(index=False))
    tried = candidates(proposal)
    write_mixtures(list(tried.values()), folder / "candidates.csv", swarm.domains, runs=list(tried))
    if fitted.scores:
        rows = [
            {"law": score.law, "metric": name, "spearman": score.spearman[m], "r2": score.r2[m]}
            | {"coverage": score.coverage[m]}
            for score in fitted.scores
            for m, name in enumerate(swarm.metrics)
        ]
        write_whole(folder / "scores.csv", pd.DataFrame(rows).to_csv(index=False))
    figure = design_figure(proposal)
    with writing(folder / "figure.png"):
        figure.savefig(folder / "figure.png", dpi=130)
    # A figure of pyplot stays in memory until it is closed.
    plt.close(figure)
    write_whole(folder / "report.md", report_text(proposal, source=source))


def report_text(proposal: Proposal, *, source: str = "") -> str:
    """Writes the report of a design.

    Args:
        proposal: from :func:`mixjax.design.propose`.
        source: what it names as the source of the runs.

    Returns:
        Markdown.
    """
    fitted, swarm = proposal.fitted, proposal.fitted.swarm
    num_mixtures = int(swarm.groups(across_budgets=True).max()) + 1
    lines = [
        "# A mixture from a swarm of runs",
        "",
        f"{len(swarm.losses)} runs of {num_mixtures} mixtures of {len(swarm.domains)} domains, "
        f"{len(swarm.metrics)} metrics{f', from {source}' if source else ''}.",
        "",
        "## The proposal",
        "",
        *_for_budget(proposal),
        f"Objective: {proposal.objective.name}. Predicted: {proposal.value:.5g}, 90 % interval {proposal.low:.5g} to "
        f"{proposal.high:.5g}, for the mean over seeds if the law holds.",
        "",
        "It is predicted to be",
        "",
        *(f"- {comparison}" for comparison in proposal.comparisons),
        "",
        *_shares(proposal),
        "",
        "The mixtures of the region cannot be told from the best one. Each resample of the runs has a best mixture of "
        "its own, and the region holds 99 % of them.",
        *_beyond(proposal),
        "",
        "## The law",
        "",
        f"`{fitted.law}`: {law_of(fitted.law, swarm).equation}.",
        "",
        *(_scores(proposal) if fitted.scores else ["It was named, and not compared with others."]),
        "",
        "![Predicted and measured losses, and the proposal](figure.png)",
    ]
    return "\n".join(lines) + "\n"


def _for_budget(proposal):
    """Tells how many tokens the mixture is for, and how far that is from the runs."""
    fitted = proposal.fitted
    if fitted.budget is None:
        return []
    largest = fitted.swarm.budgets.max()
    beyond = ""
    if fitted.budget > largest:
        beyond = f", {fitted.budget / largest:.3g} times the largest of the runs: the law extrapolates"
    return [f"For a run of {fitted.budget:.6g} tokens{beyond}.", ""]


def _shares(proposal):
    swarm = proposal.fitted.swarm
    low, high = proposal.region.min(axis=0), proposal.region.max(axis=0)
    rows = ["| domain | share | in the region | in the swarm |", "| --- | --- | --- | --- |"]
    for d in np.argsort(-proposal.weights, kind="stable"):
        tried = swarm.mixtures[:, d]
        name = swarm.domains[d].replace("|", "\\|")
        rows.append(
            f"| {name} | {proposal.weights[d]:.4f} | {low[d]:.4f} to {high[d]:.4f} | "
            f"{tried.min():.4f} to {tried.max():.4f} |"
        )
    return rows


def _beyond(proposal):
    """Warns where the proposal has shares that no run of the swarm had: there the law is a guess."""
    swarm = proposal.fitted.swarm
    over = np.flatnonzero(proposal.weights > swarm.mixtures.max(axis=0) + 1e-6)
    under = np.flatnonzero(proposal.weights < swarm.mixtures.min(axis=0) - 1e-6)
    names = [swarm.domains[d] for d in [*over, *under]]
    if not names:
        return []
    return ["", f"**Beyond what the swarm has tried**: {', '.join(names)}. The law extrapolates there."]


def _scores(proposal):
    scores = proposal.fitted.scores
    rows = [
        f"{verdict(scores, proposal.fitted.swarm)}.",
        "",
        "| law | Spearman | R² | coverage of 90 % intervals | least Spearman |",
        "| --- | --- | --- | --- | --- |",
    ]
    for score in scores:
        worst = int(np.argmin(score.spearman))
        rows.append(
            f"| {score.law} | {score.spearman.mean():.3f} | {score.r2.mean():.3f} | {score.coverage.mean():.1%} | "
            f"{score.spearman[worst]:.3f} ({proposal.fitted.swarm.metrics[worst].replace('|', '/')}) |"
        )
    return rows
