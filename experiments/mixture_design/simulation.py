"""Checks the promises of ``mixjax.design`` on swarms whose law is known: intervals and regions.

``python -m experiments.mixture_design.simulation`` draws swarms of each kind and writes what it counts into the results
page. A kind whose row is in the folder of the results is not drawn again. Each row of the table is a kind of swarm:

- coverage: how often the 90 % interval of the mean loss holds the true one, at mixtures that no run had;
- runs: how often the 90 % interval of a new run holds a new run;
- optimum: how often the true best mixture is in the proposal's region;
- value: how often the proposal's 90 % interval holds the true objective of the proposed mixture;
- regret: the true objective of the proposal above that of the best mixture, in the unit of the losses.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.shared.sections import replace_section
from mixjax import design
from mixjax.design.laws import LAWS, TOKEN_LAWS
from mixjax.design.minimise import minimise
from mixjax.design.simplex import as_bounds

__all__ = ["KINDS", "Kind", "checked", "main", "planted", "table"]

PAGE = Path(__file__).parent / "RESULTS.md"
COLUMNS = ("coverage", "runs", "optimum", "value")
# A draw takes seconds of these, and fewer are enough to see whether an interval is honest.
FEW = {"gaussian_process": 3, "lightgbm": 6}
TOKENS = (1.0, 3.0, 10.0)  # budgets of the runs, in units of the smallest; proposals are made for the next in the row
BIG = 30.0


class Kind(NamedTuple):
    """Describes swarms.

    Attributes:
        law: the true law.
        num_domains: D, which is the number of metrics too.
        num_mixtures: number of different mixtures of a swarm.
        repeats: runs of each mixture.
        noise: standard deviation of a run's losses; they range over about 2.
        fitted: the law that is fitted; the true one where it is empty.
        in_tokens: whether the runs have one of three budgets each, and a bigger one is predicted.
    """

    law: str
    num_domains: int
    num_mixtures: int
    repeats: int
    noise: float
    fitted: str = ""
    in_tokens: bool = False


KINDS = (
    Kind("log_linear", 3, 24, 1, 0.02),
    Kind("log_linear", 7, 64, 1, 0.02),
    Kind("log_linear", 7, 32, 2, 0.02),
    Kind("log_linear", 7, 64, 1, 0.1),
    Kind("log_linear", 20, 128, 1, 0.02),
    Kind("power", 3, 24, 1, 0.02),
    Kind("power", 7, 64, 1, 0.02),
    Kind("quadratic", 3, 24, 1, 0.02),
    Kind("quadratic", 7, 64, 1, 0.02),
    Kind("log_linear", 3, 24, 3, 0.02, in_tokens=True),
    Kind("log_linear", 7, 32, 3, 0.02, in_tokens=True),
    Kind("power", 3, 24, 3, 0.02, in_tokens=True),
    Kind("power", 7, 32, 3, 0.02, in_tokens=True),
    Kind("log_linear", 3, 48, 1, 0.02, "gaussian_process"),
    Kind("power", 7, 96, 1, 0.02, "gaussian_process"),
    Kind("log_linear", 3, 128, 1, 0.02, "lightgbm"),
)


def planted(kind: Kind, rng: np.random.Generator) -> np.ndarray:
    """Draws the parameters of the true law of each metric: its own domain lowers its loss most.

    Args:
        kind: the kind of swarm.
        rng: the generator that draws the parameters.

    Returns:
        ``[D, P]``, the parameters of each metric's law.
    """
    params = _planted(kind, rng)
    if kind.in_tokens:
        speeds = rng.uniform(0.1, 0.4, kind.num_domains)
        # Where the law in tokens has the exponent: the log-linear law takes it as one more coefficient.
        params = np.insert(params, 2, speeds, axis=1) if kind.law == "power" else np.c_[params, -speeds]
    return params


def _planted(kind, rng):
    size = kind.num_domains
    own = np.eye(size, dtype=bool)
    if kind.law == "log_linear":
        logs = rng.normal(0.2, 0.4, (size, size)) - 3.0 * own
        return np.concatenate([rng.uniform(1.0, 3.0, (size, 1)), logs], axis=1)
    if kind.law == "power":
        factors = np.where(own, rng.uniform(20.0, 60.0, (size, size)), rng.uniform(0.5, 3.0, (size, size)))
        shapes = np.stack([rng.uniform(1.0, 3.0, size), rng.uniform(0.3, 0.8, size)], axis=1)
        return np.concatenate([shapes, factors], axis=1)
    # A bowl around a mixture of its own: the squared distance, in the terms of Scheffé.
    centres = rng.dirichlet(np.ones(size), size)
    linear = 1.0 - 2.0 * centres + np.square(centres).sum(axis=1, keepdims=True)
    return np.concatenate([linear, np.full((size, size * (size - 1) // 2), -2.0)], axis=1)


def checked(kind: Kind, num_swarms: int, *, resamples: int = 300) -> dict[str, float]:
    """Draws swarms, fits the law and proposes, and compares with the truth.

    Args:
        kind: the kind of swarms.
        num_swarms: number of swarms.
        resamples: number of resamples of each fit.

    Returns:
        The columns of the table, see the module.
    """
    size = kind.num_domains
    rows = []
    for seed in range(num_swarms):
        rng = np.random.default_rng([seed, size, kind.num_mixtures])
        params = planted(kind, rng)
        mixtures = rng.dirichlet(np.full(size, 0.7), kind.num_mixtures).repeat(kind.repeats, axis=0)
        losses, budgets, budget = _losses(kind, params, mixtures, rng)
        noisy = losses + kind.noise * rng.normal(size=losses.shape)
        fitted = design.fit(mixtures, noisy, law=kind.fitted or kind.law, resamples=resamples, budgets=budgets)
        found = design.propose(fitted, budget=budget)
        fresh = rng.dirichlet(np.full(size, 0.7), 20)
        if budget is not None:
            # The first budget is the reference of what was planted, and the mean of their logarithms that of the fit.
            params = TOKEN_LAWS[kind.law].at(params, np.log(budget))
        true = LAWS[kind.law]
        params = params[:, : true.num_parameters(size)]
        expected = true.predict(params, fresh).T
        runs = expected + kind.noise * rng.normal(size=expected.shape)
        best = best_mixture(kind.law, params)
        at = true.predict(params, np.stack([found.weights, best])).mean(axis=0)
        rows.append(
            {
                "coverage": inside(expected, *fitted.predict(fresh, budget=budget)[1:]),
                "runs": inside(runs, *fitted.predict(fresh, "run", budget=budget)[1:]),
                "optimum": float(found.contains(best)[0]),
                "value": float(found.low <= at[0] <= found.high),
                "regret": at[0] - at[1],
            }
        )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _losses(kind, params, mixtures, rng):
    """Returns the true losses, the runs' budgets and the proposal's budget; None for these where budgets are equal."""
    if not kind.in_tokens:
        return LAWS[kind.law].predict(params, mixtures).T, None, None
    budgets = np.resize(TOKENS, len(mixtures))
    return TOKEN_LAWS[kind.law].predict(params, np.column_stack([mixtures, np.log(budgets)])).T, budgets, BIG


def inside(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Returns the part of the values within their intervals."""
    return float(((low <= values) & (values <= high)).mean())


def best_mixture(law: str, params: np.ndarray) -> np.ndarray:
    """Finds the mixture of the least mean loss under the true law, from several starts."""
    size = params.shape[0]
    starts = np.vstack([np.full((1, size), 1.0 / size), np.random.default_rng(0).dirichlet(np.ones(size), 7)])
    every = np.broadcast_to(params, (len(starts), *params.shape))

    def function(mixtures, which):
        losses, slopes = LAWS[law].slopes(every[which], mixtures)
        return losses.mean(axis=1), slopes.mean(axis=1)

    found, values = minimise(function, starts, as_bounds(range(size)), tolerance=1e-10, max_steps=3000)
    return found[np.argmin(values)]


def table(rows: dict[Kind, dict[str, float]]) -> str:
    """Writes the table of the results page.

    Args:
        rows: what :func:`checked` has counted, with the number of swarms as "swarms".

    Returns:
        Markdown.
    """
    head = ["true law", "fitted", "domains", "mixtures", "runs of each", "noise", "swarms", *COLUMNS, "regret"]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    for kind, row in rows.items():
        law = f"{kind.law}, in tokens" if kind.in_tokens else kind.law
        cells = [law, kind.fitted or "the same", kind.num_domains, kind.num_mixtures, kind.repeats, kind.noise]
        shares = [f"{row[name]:.1%}".replace("%", " %") for name in COLUMNS]
        lines.append(f"| {' | '.join(map(str, [*cells, int(row['swarms']), *shares]))} | {row['regret']:.4f} |")
    return "\n".join(lines)


def main() -> None:
    """Draws the swarms of each kind and writes the table into the results page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--swarms", type=int, default=100, help="swarms of a kind; fewer where a fit takes seconds")
    parser.add_argument("--kinds", type=int, nargs="*", default=range(len(KINDS)), help="numbers of kinds to draw")
    parser.add_argument("--out", type=Path, default=Path("results/mixture_design_simulation"))
    settings = parser.parse_args()
    settings.out.mkdir(parents=True, exist_ok=True)
    for i in settings.kinds:
        kind, file = KINDS[i], settings.out / f"{i}.json"
        num = settings.swarms // FEW.get(kind.fitted, 1)
        if not file.exists():
            file.write_text(json.dumps(checked(kind, num) | {"swarms": num, "kind": kind}))
        print(file.read_text(), flush=True)
    found = {i: settings.out / f"{i}.json" for i in range(len(KINDS))}
    rows = {KINDS[i]: json.loads(file.read_text()) for i, file in found.items() if file.exists()}
    PAGE.write_text(replace_section(PAGE.read_text(), "simulation", table(rows)))


if __name__ == "__main__":
    main()
