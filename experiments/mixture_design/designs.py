"""Compares ways to choose the mixtures of a swarm, where the law is known: how good is the proposal after n runs?

``python -m experiments.mixture_design.designs`` writes a table into the results page, with a row for each way to spend
n runs:

- dirichlet, sobol, d_optimal: one sweep of n mixtures, from :func:`mixjax.design.swarm`;
- informative, thompson: a sweep of n / 2 mixtures ("dirichlet"), then n / 2 from :func:`mixjax.design.next_round`.

All ways see the same truths. Kinds of swarms that are done are kept in a folder, and are not drawn again.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path

import numpy as np

from experiments.mixture_design.simulation import Kind, best_mixture, inside, planted
from experiments.shared.sections import replace_section
from mixjax import design
from mixjax.design.laws import LAWS
from mixjax.files import write_whole

__all__ = ["CASES", "WAYS", "compared", "main", "section"]

PAGE = Path(__file__).with_name("RESULTS.md")
WAYS = ("dirichlet", "sobol", "d_optimal", "informative", "thompson")
# What the true law is, and what is fitted.
CASES = (
    (Kind("log_linear", 3, 24, 1, 0.02), "log_linear"),
    (Kind("log_linear", 7, 64, 1, 0.02), "log_linear"),
    (Kind("log_linear", 7, 64, 1, 0.1), "log_linear"),
    (Kind("power", 7, 64, 1, 0.02), "power"),
    (Kind("quadratic", 7, 64, 1, 0.02), "quadratic"),
    (Kind("power", 7, 64, 1, 0.02), "log_linear"),
    (Kind("log_linear", 7, 64, 1, 0.02), "quadratic"),
)


def compared(kind: Kind, law: str, num_swarms: int, *, resamples: int = 200) -> dict[str, dict[str, list[float]]]:
    """Draws truths, spends n runs on each in every way, and compares the proposals with the truth.

    Args:
        kind: the kind of swarms; its ``num_mixtures`` is n.
        law: the law to fit, and that "d_optimal" is for.
        num_swarms: number of truths.
        resamples: number of resamples of each fit.

    Returns:
        Way -> column of the table -> a number for each truth.
    """
    true, size, num = LAWS[kind.law], kind.num_domains, kind.num_mixtures
    found: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    for seed in range(num_swarms):
        rng = np.random.default_rng([seed, size, num, 6])
        params = planted(kind, rng)
        fresh = rng.dirichlet(np.full(size, 0.7), 20)
        best = best_mixture(kind.law, params)

        def run(mixtures, number, params=params, seed=seed):
            noise = np.random.default_rng([seed, number]).normal(size=(len(mixtures), size))
            return true.predict(params, mixtures).T + kind.noise * noise

        def proposed(mixtures, losses):
            return design.propose(design.fit(mixtures, losses, law=law, resamples=resamples))

        half = design.swarm(np.ones(size), num // 2, seed=seed)
        first = proposed(half, run(half, 1))
        for way in WAYS:
            if way in ("informative", "thompson"):
                more = design.next_round(first, num - len(half), kind=way, seed=seed).mixtures
                mixtures, losses = np.concatenate([half, more]), np.concatenate([run(half, 1), run(more, 2)])
            else:
                mixtures = _swarm(way, size, num, law, 0 if way == "d_optimal" else seed)
                losses = run(mixtures, 1)
            proposal = proposed(mixtures, losses)
            expected = true.predict(params, np.concatenate([[proposal.weights, best], fresh])).T
            values = {
                "regret": float(expected[0].mean() - expected[1].mean()),
                "slack": proposal.slack,
                "diameter": design.next_round(proposal, 0).diameter,
                "coverage": inside(expected[2:], *proposal.fitted.predict(fresh)[1:]),
                "optimum": float(proposal.contains(best)[0]),
            }
            for name, value in values.items():
                found[way].setdefault(name, []).append(value)
    return found


@functools.lru_cache
def _swarm(way, size, num, law, seed):
    return design.swarm(np.ones(size), num, kind=way, law=law, seed=seed)


def section(rows: dict[tuple[Kind, str], dict[str, dict[str, list[float]]]]) -> str:
    """Writes the table.

    Args:
        rows: case -> what :func:`compared` returned.

    Returns:
        Markdown.
    """
    num_swarms = {len(one["dirichlet"]["regret"]) for one in rows.values()}
    lines = [
        "## Which mixtures to run",
        "",
        f"`python -m experiments.mixture_design.designs` draws {' or '.join(map(str, sorted(num_swarms)))} truths of "
        "each kind and spends the same number of runs on each in five ways: one sweep (dirichlet, sobol, d_optimal), "
        "or half of them as dirichlet and half by `design.next_round` (informative, thompson).",
        "",
        "| true law | fitted | domains | runs | noise | mixtures | regret, 1e-5 | against dirichlet | slack | diameter "
        "| coverage | optimum |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (kind, law), ways in rows.items():
        start = f"| {kind.law} | {law} | {kind.num_domains} | {kind.num_mixtures} | {kind.noise:g} |"
        for way, columns in ways.items():
            means = {name: float(np.mean(values)) for name, values in columns.items()}
            lines.append(
                f"{start} {way} | {_mean_stderr(columns['regret'])} | "
                f"{_mean_stderr(np.subtract(columns['regret'], ways['dirichlet']['regret']))} | {means['slack']:.4f} | "
                f"{means['diameter']:.3f} | {means['coverage']:.1%} | {means['optimum']:.1%} |"
            )
    lines += [
        "",
        '- regret: what the proposal truly loses to the best mixture, ± standard error; "against dirichlet" is the '
        "difference over the same truths.",
        "- slack: the bound on this loss that the proposal itself states. diameter: how much of the batch a mixture of "
        "the region has elsewhere than the proposal.",
        "- coverage: the 90 % interval of the mean loss holds it, at mixtures that no run had. optimum: the truly best "
        "mixture is in the region.",
    ]
    return "\n".join(lines)


def _mean_stderr(values):
    return f"{1e5 * np.mean(values):.1f} ± {1e5 * np.std(values, ddof=1) / np.sqrt(len(values)):.1f}"


def main() -> None:
    """Draws what is not done yet, and writes the section of the page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--swarms", type=int, default=40)
    parser.add_argument("--folder", type=Path, default=Path("results/mixture_design_designs"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    for kind, law in CASES:
        named = kind.law, kind.num_domains, kind.num_mixtures, kind.repeats, kind.noise, law, given.swarms
        path = given.folder / f"{'_'.join(map(str, named))}.json"
        if not path.exists():
            write_whole(path, json.dumps(compared(kind, law, given.swarms)))
        rows[kind, law] = json.loads(path.read_text())
        print(path, flush=True)
    write_whole(PAGE, replace_section(PAGE.read_text(), "designs", section(rows)))


if __name__ == "__main__":
    main()
