"""Designs a mixture in the setting of the comparison of mixing methods, and judges it against mixes that move.

``python -m experiments.mixture_design.against_moving RESULTS_DIR LONG_RESULTS_DIR`` reads the results of
``configs/live_mix/comparison.toml`` and ``comparison_long.toml``, trains a swarm and the mixture that it proposes, and
writes a section of ``RESULTS.md``. The swarm is as large as the models of the comparison, and is judged by validation
losses; the proposal has the seeds of the comparison, and is judged by test losses.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray

from experiments.live_mix.comparison import Comparison, load, train
from experiments.live_mix.comparison_tables import (
    MEASURES,
    NAMES,
    REFERENCE,
    STATIC,
    at_equal,
    final,
    last_step,
    methods,
)
from experiments.live_mix.methods import METHODS
from experiments.shared.sections import replace_section
from experiments.shared.statistics import mean_stderr
from mixjax import design, sweeps
from mixjax.runner import results as results_lib
from mixjax.runner.texts import markdown_table, mean_text

__all__ = ["Designed", "designed", "main", "section", "settings_of"]

FOLDER = Path(__file__).parent
NAME = "against_moving"
# Beyond all seeds of the comparison and of its tuning.
SWARM_SEED = 5000


class Designed(NamedTuple):
    """Holds a designed mixture and its runs.

    Attributes:
        proposal: the mixture, with its predicted loss.
        num_runs: runs of the swarm.
        data: metrics of the mixture's runs, as of a method of the comparison.
    """

    proposal: design.Proposal
    num_runs: int
    data: xarray.Dataset


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.mixture_design.against_moving", description=__doc__)
    parser.add_argument("results", type=Path, help="the folder of comparison.toml's results")
    parser.add_argument("long", type=Path, help="the folder of comparison_long.toml's results")
    parser.add_argument("--mixtures", type=int, default=96, help="mixtures of the swarm, 96 by default")
    parser.add_argument(
        "--chunks",
        type=Path,
        default=Path("results/against_moving.chunks"),
        help="where runs are kept, so that the command may be killed; results/against_moving.chunks by default",
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"the folder of RESULTS.md, by default {FOLDER}")
    options = parser.parse_args(arguments)
    results, long = results_lib.read(options.results), results_lib.read(options.long)
    config = settings_of(results_lib.read_config(options.results))
    seeds = next(iter(results.values()))["seed"].values
    found = designed(config, seeds, options.mixtures, options.chunks)
    page = options.out / "RESULTS.md"
    text = section(found, results, long)
    page.write_text(replace_section(page.read_text() if page.exists() else "", NAME, text))
    print(f"written: {page}")


def settings_of(config: Mapping[str, Any]) -> Comparison:
    """Returns what all runs of a resolved config share, for a static mix."""
    names = {field.name for field in dataclasses.fields(Comparison)} - {"method"}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    return Comparison(method="uniform", **{name: value for name, value in values.items() if name in names})


def designed(config: Comparison, seeds: np.ndarray, num_mixtures: int, chunks: Path) -> Designed:
    """Trains a swarm, proposes the mixture of the least mean validation loss, and trains it.

    Args:
        config: the settings of a static mix.
        seeds: the seeds of the proposal's runs, a number and those that follow.
        num_mixtures: mixtures of the swarm, one run each.
        chunks: the folder where runs are kept.
    """
    corpus = load(config)

    def train_mixture(key, hparams, data):
        return train(key, config, data, hparams["mixture"])

    sizes = np.array([len(rows) for rows in corpus.train], np.float64)
    mixtures = design.swarm(sizes, num_mixtures, seed=SWARM_SEED)
    swarm = sweeps.sweep(
        train_mixture,
        seeds=1,
        first_seed=SWARM_SEED,
        points={"mixture": mixtures.tolist()},
        paired=False,
        data=corpus,
        checkpoint=chunks / "swarm",
    )
    losses = swarm["validation_loss"].values.reshape(num_mixtures, -1)
    fitted = design.fit(mixtures, losses, domains=config.domains, metrics=config.domains)
    proposal = design.propose(fitted, prior=sizes)
    data = sweeps.sweep(
        train_mixture,
        seeds=len(seeds),
        first_seed=int(seeds[0]),
        points={"mixture": [proposal.weights.tolist()]},
        dims={"loss": ("step", "domain"), "target_loss": ("step",)},
        data=corpus,
        checkpoint=chunks / "proposal",
    )
    return Designed(proposal, num_mixtures, data.isel(point=0, drop=True))


def section(found: Designed, results: Mapping[str, xarray.Dataset], long: Mapping[str, xarray.Dataset]) -> str:
    """Writes the section.

    Args:
        found: the designed mixture and its runs.
        results: run name -> metrics of the comparison.
        long: the same of longer runs.
    """
    verdicts = {measure: _verdicts(found, at_equal(results, "steps"), measure) for measure in MEASURES}
    names = sorted(methods(results), key=lambda name: -verdicts["mean"][name].gain)
    rows = [[NAMES.get(name, name), *(_cell(verdicts[measure][name]) for measure in MEASURES)] for name in names]
    domains = found.proposal.fitted.swarm.domains
    shares = ", ".join(f"{name} {share:.3f}" for name, share in zip(domains, found.proposal.weights, strict=True))
    num_seeds = found.data.sizes["seed"]
    return "\n\n".join(
        [
            "## A designed mixture against mixes that move",
            "In the setting of the [comparison of mixing methods](../live_mix/RESULTS.md#mixing-methods-at-equal-cost) "
            f"a swarm of {found.num_runs} mixtures, one run each and as large as the models compared, proposes: "
            f"{shares}. Its predicted mean validation loss is {found.proposal.value:.3f}, 90 % interval "
            f"{found.proposal.low:.3f} to {found.proposal.high:.3f}. Its mean test loss is "
            f"{mean_text(*map(float, mean_stderr(final(found.data, 'mean'))))} over {num_seeds} seeds, those of the "
            "comparison. By how much it is above each method at equal steps, the swarm not counted, in nats per token:",
            "\n".join(markdown_table(["method", *MEASURES], rows)),
            "In brackets 95 % intervals; bold where Holm's correction over the methods leaves p at most 0.05.",
            _in_words(verdicts["mean"]),
            _at_equal_cost(found, results, long),
            "`python -m experiments.mixture_design.against_moving results/comparison results/comparison_long` trains "
            "the swarm and writes this section.",
        ]
    )


def _verdicts(found: Designed, own: Mapping[str, xarray.Dataset], measure: str) -> dict[str, Any]:
    losses = {"designed": final(found.data, measure).values} | {
        name: final(data, measure).values for name, data in own.items()
    }
    used = range(SWARM_SEED, SWARM_SEED + found.num_runs)
    seeds = found.data["seed"].values.tolist()
    judged = design.validate(losses, proposal="designed", seeds=seeds, used_seeds=used, metrics=[measure])
    return {verdict.name: verdict for verdict in judged.verdicts}


def _cell(verdict) -> str:
    text = f"{-verdict.gain:+.4f} ({-verdict.high:+.4f} to {-verdict.low:+.4f})"
    return f"**{text}** {verdict.outcome}" if verdict.outcome in ("better", "worse") else text


def _in_words(verdicts: Mapping[str, Any]) -> str:
    """Says how the mixture compares with the methods that move, by its mean loss."""
    moving = {name: verdict for name, verdict in verdicts.items() if name not in STATIC}
    parts = []
    for outcome in ("better", "worse"):
        found = [NAMES.get(name, name) for name, verdict in moving.items() if verdict.outcome == outcome]
        if found:
            parts.append(f"{outcome} than {', '.join(found)}")
    rest = sum(verdict.outcome not in ("better", "worse") for verdict in moving.values())
    if rest:
        parts.append(f"not to be told from {rest} others" if parts else "not to be told from any")
    words = "; ".join(parts)
    return (
        f"Beside the {len(moving)} mixes that move the designed mixture is, by its mean loss at equal steps, {words}."
    )


def _at_equal_cost(found: Designed, results, long) -> str:
    """Says what the cost of the swarm would have bought, by the longer runs."""
    times = last_step(long[REFERENCE]) / last_step(results[REFERENCE])
    # A method of several stages costs more than its last model's steps.
    single = [name for name in methods(long) if name not in STATIC and METHODS[name].stages == 1]
    best = min(single, key=lambda name: float(final(long[name], "mean").mean()))
    ahead = mean_stderr(final(found.data, "mean") - final(long[best], "mean"))
    cost = found.num_runs + 1
    text = (
        f"With the swarm the designed mixture costs {cost} trainings. {NAMES.get(best, best)} in {times:g} times the "
        f"steps, on {times:g} times the rows, costs about {times:g}, and ends {mean_text(*map(float, ahead))} nats "
        "below it. "
    )
    if float(ahead[0]) > 2 * float(ahead[1]) and times < cost:
        return text + (
            "So at equal cost, the swarm included, a mix that moves and trains longer is better at this size. A swarm "
            "pays where its runs are small beside the run that they serve, or where its mixture serves many runs."
        )
    return text + "So what is better at equal cost, the swarm included, is undecided."


if __name__ == "__main__":
    main()
