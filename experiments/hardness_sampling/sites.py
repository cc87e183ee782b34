"""Writes the scores of a segmentation experiment by site, as `mixjax sites` reads them.

    python -m experiments.hardness_sampling.sites results/segmentation scores.csv
    mixjax sites scores.csv --baseline ERM

ERM counts each case the same, which is weighting by volume: a centre counts as many times as it has cases.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mixjax.files import write_whole
from mixjax.runner import results as results_lib

__all__ = ["main", "site_scores"]


def site_scores(results: results_lib.Results) -> pd.DataFrame:
    """Lists the Dice score of each test case, region and method.

    Every seed has a split of its own, and draws its test cases anew: a case is one of one seed.

    Args:
        results: run name to data set, with ``dice`` of dimensions seed, method, case and region; the coordinate of a
            case is its centre.

    Returns:
        One row for each score: site, case, label, method and score. With several runs a method has its run's name too.
    """
    tables = []
    for run, data in results.items():
        dice = data["dice"].transpose("seed", "method", "case", "region")
        centres = dice["case"].values
        table = dice.assign_coords(case=range(len(centres))).to_series().rename("score").reset_index()
        prefix = f"{run}, " if len(results) > 1 else ""
        tables.append(
            pd.DataFrame(
                {
                    "site": centres[table["case"]],
                    "case": [f"{case} of seed {seed}" for case, seed in zip(table["case"], table["seed"], strict=True)],
                    "label": table["region"],
                    "method": prefix + table["method"].astype(str),
                    "score": table["score"],
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads a result's folder and writes the CSV file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="folder that mixjax run has written")
    parser.add_argument("scores", type=Path, help="CSV file to write")
    given = parser.parse_args(arguments)
    write_whole(given.scores, site_scores(results_lib.read(given.result)).to_csv(index=False))


if __name__ == "__main__":
    main()
