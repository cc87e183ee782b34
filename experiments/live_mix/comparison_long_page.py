"""Writes the section of ``RESULTS.md`` that compares mixing methods at two lengths of training.

``python -m experiments.live_mix.comparison_long_page RESULTS_DIR LONG_RESULTS_DIR``
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray
from scipy.stats import spearmanr

from experiments.live_mix.comparison_page import FOLDER
from experiments.live_mix.comparison_tables import MEASURES, NAMES, REFERENCE, compared, final, last_step, methods
from experiments.shared.sections import replace_section
from experiments.shared.statistics import mean_stderr
from mixjax.runner import results as results_lib
from mixjax.runner.texts import markdown_table, mean_text

__all__ = ["main", "order_kept", "section"]

NAME = "comparison_long"
RESAMPLES = 2000


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.live_mix.comparison_long_page", description=__doc__)
    parser.add_argument("results", type=Path, help="the folder of comparison.toml's results")
    parser.add_argument("long", type=Path, help="the folder of comparison_long.toml's results")
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"the folder of RESULTS.md, by default {FOLDER}")
    options = parser.parse_args(arguments)
    page = options.out / "RESULTS.md"
    text = section(results_lib.read(options.results), results_lib.read(options.long))
    page.write_text(replace_section(page.read_text() if page.exists() else "# The live mix\n", NAME, text))
    print(f"written: {page}")


def order_kept(
    short: Mapping[str, xarray.Dataset], long: Mapping[str, xarray.Dataset], measure: str
) -> tuple[float, float, float]:
    """Computes Spearman's correlation of the methods' mean losses at two lengths, with a bootstrap over seeds.

    Args:
        short: run name -> metrics.
        long: the same runs, longer.
        measure: a key of :data:`experiments.live_mix.comparison_tables.MEASURES`.

    Returns:
        The correlation, and the ends of its 90 % interval.
    """
    names = [name for name in methods(short) if name in long]
    losses = [np.stack([final(results[name], measure).values for name in names]) for results in (short, long)]
    rng = np.random.default_rng(0)
    seeds = rng.integers(losses[0].shape[1], size=(RESAMPLES, losses[0].shape[1]))
    # The seeds of both lengths are the same numbers, and are resampled together.
    drawn = [_correlation(*(each[:, chosen].mean(axis=1) for each in losses)) for chosen in seeds]
    low, high = np.quantile(drawn, [0.05, 0.95])
    return _correlation(*(each.mean(axis=1) for each in losses)), float(low), float(high)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.asarray(spearmanr(first, second).statistic))


def section(short: Mapping[str, xarray.Dataset], long: Mapping[str, xarray.Dataset]) -> str:
    """Writes the section.

    Args:
        short: run name -> metrics of ``comparison.toml``.
        long: those of ``comparison_long.toml``.
    """
    steps = [last_step(results[REFERENCE]) for results in (short, long)]
    tables = [compared(results, REFERENCE) for results in (short, long)]
    tables = [table[table.cost == "steps"].set_index(["measure", "method"]) for table in tables]
    names = [name for name in methods(short) if name in long and name != REFERENCE]
    rows = []
    for name in sorted(names, key=lambda name: tables[1].difference[("mean", name)]):
        cells = [_cell(table.loc[(measure, name)]) for measure in MEASURES for table in tables]
        rows.append([NAMES.get(name, name), *cells])
    header = ["method", *(f"{measure}, {number:,} steps" for measure in MEASURES for number in steps)]
    kept = [
        f"{words}: {value:.2f} ({low:.2f} to {high:.2f})"
        for measure, words in MEASURES.items()
        for value, low, high in [order_kept(short, long, measure)]
    ]
    base = [mean_text(*mean_stderr(final(results[REFERENCE], "mean"))) for results in (short, long)]
    return "\n\n".join(
        [
            "## Mixing methods in longer runs",
            f"The same methods with the same settings in {steps[1]:,} steps on {steps[1] / steps[0]:g} times the rows. "
            f"The uniform mix's mean loss is {base[0]} after {steps[0]:,} steps, and {base[1]} here. Settings were "
            f"chosen for {steps[0]:,} steps. Differences to the uniform mix in nats per token:",
            "\n".join(markdown_table(header, rows)),
            "Bold: better or worse after Holm's correction over all tests of its length, as above.",
            "Spearman's correlation of the methods' losses at both lengths, with 90 % intervals by resampled seeds:",
            "\n".join(f"- {each}" for each in kept),
            "`mixjax run configs/live_mix/comparison_long.toml` repeats it, and `python -m "
            "experiments.live_mix.comparison_long_page results/comparison results/comparison_long` writes this "
            "section.",
        ]
    )


def _cell(row) -> str:
    number = f"{row.difference:+.4f} ± {row.stderr:.4f}"
    return number if row.verdict == "undecided" else f"**{number}** {row.verdict}"


if __name__ == "__main__":
    main()
