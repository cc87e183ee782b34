"""Writes the tables of the design of a mixture for real text, for the report and for ``RESULTS.md``.

``python -m experiments.mixture_design.text_page RESULTS_DIR`` puts the section into ``RESULTS.md``, with its figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from experiments.mixture_design.text_analysis import Analysis, SwarmSize, analysed, interval, objective
from experiments.mixture_design.text_figure import figure
from experiments.mixture_design.text_results import claims
from experiments.shared.sections import replace_section
from experiments.shared.statistics import mean_stderr
from mixjax.design.choosing import verdict
from mixjax.runner import results as results_lib
from mixjax.runner.claims import rows
from mixjax.runner.texts import claim_texts, markdown_table, mean_text

__all__ = ["main", "section", "summary"]

FOLDER = Path(__file__).parent
NAME = "text"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.mixture_design.text_page", description=__doc__)
    parser.add_argument("results", type=Path, help="the folder that `mixjax run` wrote")
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"the folder of RESULTS.md, by default {FOLDER}")
    options = parser.parse_args(arguments)
    results = results_lib.read(options.results)
    text = section(results, results_lib.read_config(options.results))
    options.out.mkdir(parents=True, exist_ok=True)
    figure(results).savefig(options.out / f"{NAME}.png", dpi=80)
    page = options.out / "RESULTS.md"
    page.write_text(replace_section(page.read_text() if page.exists() else "", NAME, text))
    print(f"written: {page} and {options.out / NAME}.png")


def section(results: Mapping[str, xarray.Dataset], config: Mapping[str, Any]) -> str:
    """Writes the section: settings, tables, figure, claims.

    Args:
        results: run name -> metrics.
        config: the resolved config.
    """
    settings = ", ".join(
        f"{key} {value}"
        for key, value in config.items()
        if key != "experiment" and value != "" and not isinstance(value, (dict, list))
    )
    judged = rows(claims(results))
    # The table of a report leaves the notes out; here they belong to the numbers.
    table = [
        [row["statement"], row["source"], text.value, text.holds, row["note"]]
        for text, row in zip(claim_texts(judged), judged, strict=True)
    ]
    return "\n".join(
        [
            "## A mixture for real text",
            "",
            f"`mixjax run configs/mixture_design/text.toml`. Settings: {settings}.",
            "",
            *_in_words(judged),
            summary(results),
            "",
            f"![Predictions, proposal, region, validation, grid, swarm sizes, transfer]({NAME}.png)",
            "",
            *markdown_table(["claim", "source", "value", "holds", "note"], table),
        ]
    )


def _in_words(judged: Sequence[Mapping[str, Any]]) -> list[str]:
    """Says at both sizes which mixtures are worse than the proposal and which are better, from the claims."""
    words = {True: "lower than that of {}", False: "higher than that of {}", None: "not clearly apart from that of {}"}
    lines = []
    for suffix, where in (("", "At the size of the proxies"), ("_large", "At the large size")):
        outcomes: dict[bool | None, list[str]] = {holds: [] for holds in words}
        for row in judged:
            name = row["name"].removeprefix("better_than_")
            if name != row["name"] and name.endswith("_large") == bool(suffix):
                outcomes[row["holds"]].append(name.removesuffix("_large"))
        parts = [words[holds].format(", ".join(names)) for holds, names in outcomes.items() if names]
        if parts:
            lines.append(f"- {where} the proposal's mean loss on fresh seeds is {'; '.join(parts)}.")
    return ["In words:", "", *lines, ""] if lines else []


def summary(results: Mapping[str, xarray.Dataset]) -> str:
    """Writes the tables for the head of the report."""
    (data,) = results.values()
    data = data.isel(seed=0, drop=True)
    found = analysed(data)
    return "\n".join(
        [
            *_proposal(data, found),
            "",
            *_laws(found),
            "",
            *_validation(data),
            "",
            *_sizes(found),
            "",
            *_finalists(data),
        ]
    )


def _proposal(data: xarray.Dataset, found: Analysis) -> list[str]:
    proposal, shape = found.proposal, data.loss.shape
    low, high = proposal.region.min(axis=0), proposal.region.max(axis=0)
    table = [
        [
            domain,
            f"{proposal.prior[d]:.3f}",
            f"{proposal.weights[d]:.3f}",
            f"{low[d]:.3f} to {high[d]:.3f}",
            f"{found.all_rows.weights[d]:.3f}",
        ]
        for d, domain in enumerate(proposal.fitted.swarm.domains)
    ]
    own, other = interval(found.own_distances), interval(found.distances)
    return [
        f"{shape[0]} mixtures with {shape[1]} proxies each. The predicted mean loss of the proposal is "
        f"{proposal.value:.4f}, 90 % interval {proposal.low:.4f} to {proposal.high:.4f}; on fresh seeds it is "
        f"{mean_text(*mean_stderr(found.validation.values['proposal']))}.",
        "",
        *markdown_table(["domain", "size", "proposal", "region", "without simulated epochs"], table),
        "",
        "Size is the domain's share of all rows. The region has the mixtures that the runs cannot tell from the best "
        "one. The last column is the proposal of proxies that draw from all rows, where the others repeat a few rows "
        "as often as the big run will (simulated epochs).",
        "",
        "How far apart proposals are, by half the sum of the absolute differences of their shares (90 % intervals): "
        f"those of resampled swarms are {own[0]:.3f} to {own[1]:.3f} from the proposal, and {other[0]:.3f} to "
        f"{other[1]:.3f} from the one without simulated epochs.",
    ]


def _laws(found: Analysis) -> list[str]:
    scores = found.proposal.fitted.scores
    table = [
        [
            each.law,
            f"{each.spearman.mean():.3f}",
            f"{each.spearman.min():.3f}",
            f"{each.r2.mean():.3f}",
            f"{100 * each.coverage.mean():.1f} %",
        ]
        for each in scores
    ]
    header = ["law", "Spearman, mean of the domains", "least", "R²", "90 % intervals hold"]
    return [*markdown_table(header, table), "", f"Left-out runs: {verdict(scores, found.proposal.fitted.swarm)}."]


def _validation(data: xarray.Dataset) -> list[str]:
    """Tabulates the losses of the compared mixtures on fresh seeds, at both sizes, and on the target."""
    kept = data.sizes["domain"]
    has_target = data.sizes["metric"] > kept
    header = ["mixture", "mean loss of proxies"]
    header += [f"{data.metric.values[-1]}, never trained on"] if has_target else []
    header += ["mean loss at the large size"] if "large_loss" in data else []
    table = []
    for name in data.candidate.values:
        small = data.candidate_loss.sel(candidate=name).values.astype(np.float64)
        row = [name, mean_text(*mean_stderr(objective(small[..., :kept])))]
        if has_target:
            row.append(mean_text(*mean_stderr(small[..., -1])))
        if "large_loss" in data:
            is_large = name in data.large_candidate.values
            values = data.large_loss.sel(large_candidate=name).values.astype(np.float64) if is_large else None
            row.append("" if values is None else mean_text(*mean_stderr(objective(values[..., :kept]))))
        table.append(row)
    seeds = f"{data.sizes['fresh_seed']} fresh paired seeds"
    seeds += f", {data.sizes['large_seed']} at the large size" if "large_loss" in data else ""
    return [
        *markdown_table(header, table),
        "",
        f"Means over {seeds} ± standard errors of the means. Mixtures are compared by their differences within a "
        "seed, whose errors are smaller; the claims have them. `swarm_best` is the mixture of the swarm whose runs "
        "were best, `temperature` the sizes to the power 0.5, `unimax` equal shares with a limit of epochs, and "
        "`all_rows` the proposal without simulated epochs.",
    ]


def _sizes(found: Analysis) -> list[str]:
    def lines(sizes: tuple[SwarmSize, ...], domains: int) -> list[list[str]]:
        return [
            [
                str(domains),
                str(each.num_mixtures),
                mean_text(*mean_stderr(each.spearman)),
                mean_text(*mean_stderr(each.regret)),
            ]
            for each in sizes
        ]

    table = lines(found.three_sizes, 3) + lines(found.sizes, len(found.proposal.weights))
    header = ["domains", "mixtures", "Spearman on the others", "regret by the law of all runs"]
    return [
        "Smaller swarms: random parts of the swarm are fitted alone. Spearman's correlation is that of "
        "predicted and measured mean losses of the mixtures that were left out, and the regret is what the part's "
        "proposal loses to the best mixture, by the law of all runs:",
        "",
        *markdown_table(header, table),
    ]


def _finalists(data: xarray.Dataset) -> list[str]:
    names = data.grid_domain.values.tolist()
    values = objective(data.finalist_loss.values.astype(np.float64))
    table = []
    for number, (mixture, own) in enumerate(zip(data.finalist_mixture.values, values, strict=True)):
        title = f"grid, best {number}" if number else "proposal"
        gap = mean_text(*mean_stderr(own - values[0])) if number else ""
        table.append([title, *(f"{share:.3f}" for share in mixture), mean_text(*mean_stderr(own)), gap])
    return [
        f"The best of {data.sizes['grid']} trained mixtures of three domains, and the proposal of a swarm of "
        f"{data.sizes['three']}, on {values.shape[1]} fresh paired seeds:",
        "",
        *markdown_table(["mixture", *names, "mean loss", "above the proposal"], table),
    ]


if __name__ == "__main__":
    main()
