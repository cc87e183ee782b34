"""Checks the promises of ``mixjax.design`` on swarms whose law is known: intervals and regions.

``python -m experiments.mixture_design.simulation`` prints a table. Each row is a kind of swarm, drawn many times:

- coverage: how often the 90 % interval of the mean loss holds the true one, at mixtures that no run had;
- runs: how often the 90 % interval of a new run holds a new run;
- optimum: how often the true best mixture is in the proposal's region;
- value: how often the proposal's 90 % interval holds the true objective of the proposed mixture;
- regret: the true objective of the proposal above that of the best mixture, in the unit of the losses.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from mixjax import design
from mixjax.design.laws import LAWS
from mixjax.design.minimise import minimise
from mixjax.design.simplex import as_bounds

__all__ = ["KINDS", "Kind", "checked", "main", "planted"]


class Kind(NamedTuple):
    """Describes swarms.

    Attributes:
        law: the true law.
        num_domains: D, which is the number of metrics too.
        num_mixtures: number of different mixtures of a swarm.
        repeats: runs of each mixture.
        noise: standard deviation of a run's losses; they range over about 2.
    """

    law: str
    num_domains: int
    num_mixtures: int
    repeats: int
    noise: float


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
)


def planted(kind: Kind, rng: np.random.Generator) -> np.ndarray:
    """Draws the parameters of the true law of each metric: its own domain lowers its loss most.

    Args:
        kind: the kind of swarm.
        rng: the generator that draws the parameters.

    Returns:
        ``[D, P]``, the parameters of each metric's law.
    """
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


def checked(kind: Kind, num_swarms: int, *, law: str | None = None, resamples: int = 300) -> dict[str, float]:
    """Draws swarms, fits the law and proposes, and compares with the truth.

    Args:
        kind: the kind of swarms.
        num_swarms: number of swarms.
        law: the law to fit; by default the true one.
        resamples: number of resamples of each fit.

    Returns:
        The columns of the table, see the module.
    """
    true, size = LAWS[kind.law], kind.num_domains
    rows = []
    for seed in range(num_swarms):
        rng = np.random.default_rng([seed, size, kind.num_mixtures])
        params = planted(kind, rng)
        mixtures = rng.dirichlet(np.full(size, 0.7), kind.num_mixtures).repeat(kind.repeats, axis=0)
        losses = true.predict(params, mixtures).T
        noisy = losses + kind.noise * rng.normal(size=losses.shape)
        fitted = design.fit(mixtures, noisy, law=law or kind.law, resamples=resamples)
        fresh = rng.dirichlet(np.full(size, 0.7), 20)
        expected = true.predict(params, fresh).T
        runs = expected + kind.noise * rng.normal(size=expected.shape)
        found = design.propose(fitted)

        def truth(points, params=params):
            return true.predict(params, points).mean(axis=0)

        best = best_mixture(kind.law, params)
        at = truth(np.stack([found.weights, best]))
        rows.append(
            {
                "coverage": inside(expected, *fitted.predict(fresh)[1:]),
                "runs": inside(runs, *fitted.predict(fresh, "run")[1:]),
                "optimum": float(found.contains(best)[0]),
                "value": float(found.low <= at[0] <= found.high),
                "regret": at[0] - at[1],
            }
        )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


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


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--swarms", type=int, default=100)
    num_swarms = parser.parse_args().swarms
    print("law domains mixtures repeats noise | coverage runs optimum value regret", flush=True)
    for kind in KINDS:
        row = checked(kind, num_swarms)
        print(*kind, "|", *(f"{value:.4f}" for value in row.values()), flush=True)


if __name__ == "__main__":
    main()
