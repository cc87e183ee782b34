"""Writes the section of ``RESULTS.md`` on the comparison of mixing methods, with its figure, from the results.

``python -m experiments.live_mix.comparison_page RESULTS_DIR``
"""

import argparse
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import xarray
from matplotlib.figure import Figure
from PIL import Image

from experiments.live_mix.comparison_claims import overheads, sentences
from experiments.live_mix.comparison_figure import figure
from experiments.live_mix.comparison_tables import (
    BEST_STATIC,
    COSTS,
    MEASURES,
    NAMES,
    REFERENCE,
    STATIC,
    at_equal,
    best_of,
    compared,
    final,
    last_step,
    methods,
    speed_up,
)
from experiments.live_mix.methods import METHODS, Settings
from experiments.live_mix.tuning import summary
from experiments.shared.sections import replace_section
from experiments.shared.statistics import mean_stderr
from mixjax.runner import results as results_lib
from mixjax.runner.claims import Claim, rows
from mixjax.runner.texts import claim_texts, markdown_table, mean_text

__all__ = ["advice", "main", "section"]

FOLDER = Path(__file__).parent
GUIDE = FOLDER.parent / "guides" / "choosing_a_mix.md"
BENCHMARK = Path("experiments/benchmarks/results/mixing_methods/results.json")
NAME = "comparison"
READS = (
    "Every method uses, in a step, the weights from before that step's update. Aioli reads the losses of four held-out "
    "rows of a domain after each window, which makes its law noisy; more rows would cost it more steps."
)
# method -> the settings that it reads, of those that the runs of a config may differ in
READ = {
    "temperature": ("temperature",),
    "unimax": ("max_epochs",),
    "erma": ("prior", "gamma1", "gamma2", "floor", "probe_every"),
    "erma_va": ("prior", "gamma1", "gamma2", "floor", "probe_every"),
    "va": ("prior", "floor", "probe_every"),
    "group_dro": ("prior", "step_size", "floor"),
    "doremi": ("prior", "step_size", "floor"),
    "doge": ("prior", "step_size", "floor"),
    "odm": ("decay", "waiting"),
    "ado": ("credit", "pace", "waiting"),
    "aioli": ("step_size", "decay", "window", "rounds", "hold"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.live_mix.comparison_page", description=__doc__)
    parser.add_argument("results", type=Path, help="the folder that `mixjax run` wrote")
    parser.add_argument("--tuning", type=Path, nargs="+", default=[], help="folders of the tuning's results, in order")
    parser.add_argument(
        "--costs", type=Path, default=BENCHMARK, help=f"results of the benchmark, by default {BENCHMARK}"
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"the folder of RESULTS.md, by default {FOLDER}")
    parser.add_argument("--guide", type=Path, default=GUIDE, help=f"the page that gets the outcome, by default {GUIDE}")
    options = parser.parse_args(arguments)
    results = results_lib.read(options.results)
    config = results_lib.read_config(options.results)
    ratios = read_ratios(options.costs)
    tried = joined([results_lib.read(folder) for folder in options.tuning])
    drawn = figure(results)
    options.out.mkdir(parents=True, exist_ok=True)
    _save(drawn, options.out / f"{NAME}.png")
    page = options.out / "RESULTS.md"
    text = section(results, config, ratios, tried)
    page.write_text(replace_section(page.read_text() if page.exists() else "# The live mix\n", NAME, text))
    options.guide.write_text(replace_section(options.guide.read_text(), NAME, advice(results)))
    print(f"written: {page}, {options.guide} and {options.out / NAME}.png")


def joined(rounds: Sequence[Mapping[str, xarray.Dataset]]) -> dict[str, xarray.Dataset]:
    """Joins the results of several rounds of tuning; a run of the same name as a later one is named as an earlier one.

    Args:
        rounds: run name -> metrics, for each round.
    """
    found: dict[str, xarray.Dataset] = {}
    for number, results in enumerate(rounds, start=1):
        for name, data in results.items():
            later = [each[name] for each in rounds[number:] if name in each]
            # A round may take over the runs of an earlier one.
            if not any(data.equals(other) for other in later):
                found[f"{name} (round {number})" if later else name] = data
    return found


def _save(drawn: Figure, path: Path) -> None:
    """Writes a figure with 256 colours, which is a third of the size and looks the same."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=100)
    Image.open(buffer).convert("RGB").quantize(256).save(path, optimize=True)


def read_ratios(path: Path) -> dict[str, list[float]]:
    """Reads the processor time of each method over the uniform mix's, one ratio for each turn; {} without the file."""
    if not path.is_file():
        return {}
    return json.loads(path.read_text())["data"]["over_uniform"]


def section(
    results: Mapping[str, xarray.Dataset],
    config: Mapping[str, Any],
    ratios: Mapping[str, Sequence[float]],
    tried: Mapping[str, xarray.Dataset] = MappingProxyType({}),
) -> str:
    """Writes the section.

    Args:
        results: run name -> metrics.
        config: the resolved config of the runs.
        ratios: method -> processor time over the uniform mix's, one for each turn of the benchmark.
        tried: results of the tuning, from :func:`joined`.
    """
    tables = {baseline: compared(results, baseline) for baseline in (REFERENCE, BEST_STATIC)}
    parts = [
        "## Mixing methods at equal cost",
        _setting(results, config, tried),
        _methods(results, config, ratios),
        _differences(results, tables[REFERENCE]),
        _in_words(results, tables),
        f"![The comparison: mean against worst domain, held-out domain, each domain, weights over time]({NAME}.png)",
        _papers([*sentences(results), *overheads(ratios)]),
        _limits(results, tried),
        _how_to(),
    ]
    if tried:
        parts.append(
            "### What was tried\n\nThe chosen settings of each method, as tables of a config, and then every setting "
            f"that was tried:\n\n{summary(tried)}"
        )
    return "\n\n".join(parts)


def advice(results: Mapping[str, xarray.Dataset]) -> str:
    """Writes which methods were better and worse than the uniform mix at equal processor time, for the guide."""
    table = compared(results, REFERENCE)
    first = results[REFERENCE]
    lines = [
        f"Measured on {first.sizes['domain']} domains of text with a small decoder and {first.sizes['seed']} paired "
        "seeds, against equal shares at equal processor time ([numbers](../live_mix/RESULTS.md)):",
        "",
    ]
    for measure, words in MEASURES.items():
        lines.append(f"- {words}: {_outcome(table[(table.cost == 'time') & (table.measure == measure)])}")
    lines += ["", _conclusion(table)]
    return "\n".join(lines)


def _setting(results, config, tried) -> str:
    first = next(iter(results.values()))
    own = {"experiment", "run", "sweep", "domains", *(field.name for field in dataclasses.fields(Settings))}
    settings = ", ".join(f"{key} {value}" for key, value in config.items() if key not in own)
    seeds = first["seed"].values
    passes = config.get("repetition", 1.0)
    repetition = "once" if passes == 1 else f"{passes:g} times"
    tuned = ""
    if tried:
        other = next(iter(tried.values()))["seed"].values
        tuned = (
            f" Settings were chosen by the mean validation loss of {other.size} other seeds ({other.min()} to "
            f"{other.max()}), from {_number_tried(tried)} a method; no test loss was looked at "
            "([below](#what-was-tried))."
        )
    return (
        f"{len(methods(results))} methods train the same decoder on the same {first.sizes['domain']} domains "
        f"({', '.join(map(str, first['domain'].values))}), and are tested on text of these and of one domain that none "
        f"of them sees. {seeds.size} seeds, {seeds.min()} to {seeds.max()}, are paired: a seed has the same first "
        f"parameters for all methods.{tuned} Each domain is cut so that a run passes {repetition} over all domains "
        "together, as a far larger run would; what is drawn more often than its size is repeated, and what is drawn "
        f"less is not all seen. Settings that all share: {settings}."
    )


def _number_tried(tried) -> str:
    """Says how many settings were tried of a method that has settings, in all rounds."""
    tries: dict[str, int] = {}
    for name, data in tried.items():
        method = name.partition(" (round ")[0]
        tries[method] = tries.get(method, 0) + data.sizes.get("point", 1)
    numbers = sorted({number for method, number in tries.items() if method in READ and number > 1} or {1})
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _methods(results, config, ratios) -> str:
    """Tabulates what each method was run with, and what it cost."""
    chosen = {run.get("name"): run for run in config.get("run", [])}
    table = []
    for name in methods(results):
        values = {**config, **chosen.get(name, {})}
        own = [f"{key} {values[key]}" for key in READ.get(name, ()) if key in values]
        steps, timed = (last_step(at_equal(results, cost)[name]) for cost in COSTS)
        cost = "-"
        if name in ratios:
            ordered = sorted(ratios[name])
            cost = f"{ordered[len(ordered) // 2]:.3f} ({ordered[0]:.3f} to {ordered[-1]:.3f})"
        elif name == REFERENCE:
            cost = "1"
        least = results[name]["least_effective_domains"]
        epochs = results[name]["epochs"].mean("seed")
        table.append(
            [
                NAMES.get(name, name),
                METHODS[name].words if name in METHODS else "-",
                ", ".join(own) or "-",
                cost,
                f"{steps:,}",
                f"{timed:,}" if timed != steps else "the same",
                f"{float(epochs.min()):.2g} to {float(epochs.max()):.2g}",
                f"{float(least.mean()):.1f}",
            ]
        )
    header = [
        "method",
        "what it does",
        "its settings",
        "cost",
        "steps",
        "steps at equal time",
        "epochs",
        "least effective domains",
    ]
    notes = _steps_missed(results, ratios)
    return "\n".join(
        [
            *markdown_table(header, table),
            "",
            "Cost is the processor time of a whole training, proxies and probes included, over that of the uniform mix "
            "in the same turn (median, least and most); it was not measured where a dash stands, for mixes that never "
            "move. A method of higher cost gets fewer steps at equal processor time. Epochs are passes over the domain "
            "that was seen least and over the one that was seen most. The least effective number of domains is the "
            "lowest that the weights came to during a run, mean over seeds: 8 are equal weights of 8 domains, and near "
            "1 a single domain has all. [Choosing a mix](../guides/choosing_a_mix.md) names the rule of each method."
            f"{notes}",
        ]
    )


def _steps_missed(results, ratios) -> str:
    """Says how far steps at equal time are from what the costs allow, where another measurement has set them."""
    missed = []
    for name in methods(results):
        if name in ratios:
            steps, timed = (last_step(at_equal(results, cost)[name]) for cost in COSTS)
            # A method whose cost is that of the uniform mix has the same steps, which its cost may not quite allow.
            missed.append(steps / max(float(np.median(ratios[name])), 1.0) / timed - 1.0)
    if not missed or max(map(abs, missed)) < 0.01:
        return ""
    return (
        f" The steps at equal time were set by an earlier measurement of the costs: they are between {max(missed):.0%} "
        f"fewer and {max(-min(missed), 0.0):.0%} more than these costs allow."
    )


def _differences(results, table) -> str:
    """Tabulates the differences to the uniform mix: a row a method, best mean first."""
    cells = table.set_index(["method", "cost", "measure"])
    order = table[(table.cost == "steps") & (table.measure == "mean")].sort_values("difference").method
    base = {measure: mean_stderr(final(results[REFERENCE], measure)) for measure in MEASURES}
    header = ["method", *(f"{measure}, {COSTS[cost]}" for cost in COSTS for measure in MEASURES), "speed-up"]
    rows_ = [
        [
            NAMES.get(name, name),
            *(_cell(cells, name, cost, measure) for cost in COSTS for measure in MEASURES),
            mean_text(*map(float, mean_stderr(speed_up(results[name], results[REFERENCE])))),
        ]
        for name in order
    ]
    uniform = [f"({mean_text(*map(float, base[measure]))})" for measure in MEASURES]
    at = [name for name in order if table[(table.method == name) & table.reused].empty]
    same = ""
    if at:
        same = (
            f" For equal processor time {_listed(at)} were trained again with fewer steps; the other methods cost "
            "about as much as the uniform mix, and their numbers are given twice."
        )
    return "\n".join(
        [
            *markdown_table(header, [[NAMES[REFERENCE], *uniform, *uniform, "1"], *rows_]),
            "",
            "Differences of the final test loss to the uniform mix in nats per token, ± standard error over paired "
            f"seeds; in brackets the uniform mix's loss. Mean: {MEASURES['mean']}; worst: {MEASURES['worst']}; target: "
            f"{MEASURES['target']}. Bold: better or worse by the paired t-test after Holm's correction over all "
            f"{int((~table.reused).sum())} tests of this table (p at most 0.05); the others are undecided.{same}",
            "",
            "Speed-up: the steps of the uniform mix over those in which the method came to the uniform mix's final "
            "mean loss. Where the method never did, it is below 1: the share of all steps in which the uniform mix "
            "came to the method's final mean loss.",
        ]
    )


def _cell(cells: pd.DataFrame, name: str, cost: str, measure: str) -> str:
    row = cells.loc[(name, cost, measure)]
    if not row.num_seeds:
        return "diverged"
    text = f"{'+' if row.difference >= 0 else ''}{mean_text(row.difference, row.stderr)}"
    left = f" ({row.left_out} seeds diverged)" if row.left_out else ""
    return (f"**{text}** {row.verdict}" if row.verdict != "undecided" else text) + left


def _in_words(results, tables) -> str:
    """Says for each measure which methods are better and worse; the sentences follow from the verdicts."""
    lines = ["In words:", ""]
    for cost in COSTS:
        for measure, words in MEASURES.items():
            for baseline, table in tables.items():
                rows_ = table[(table.cost == cost) & (table.measure == measure)]
                against = "the uniform mix"
                if baseline == BEST_STATIC:
                    losses = {n: final(d, measure) for n, d in at_equal(results, cost).items() if n in STATIC}
                    against = f"the best static mix ({NAMES[best_of(losses).name]})"
                lines.append(f"- {words}, equal {COSTS[cost]}, against {against}: {_outcome(rows_)}")
    lines += ["", _conclusion(tables[REFERENCE])]
    return "\n".join(lines)


def _outcome(table: pd.DataFrame) -> str:
    """Says which methods are better, worse and undecided."""
    parts = []
    for verdict in ("better", "worse"):
        own = table[table.verdict == verdict].sort_values("difference")
        if len(own):
            parts.append(f"{_listed(own.method)} {'is' if len(own) == 1 else 'are'} {verdict}")
    left = len(table) - sum((table.verdict == verdict).sum() for verdict in ("better", "worse"))
    if not parts:
        return f"nothing is decided for any of {left} methods."
    return "; ".join(parts) + (f"; {left} undecided." if left else ".")


def _conclusion(table: pd.DataFrame) -> str:
    """Names the methods that are better by the mean loss and worse in nothing, against the uniform mix."""
    wins = [
        name
        for name in dict.fromkeys(table.method)
        if (table[(table.method == name) & (table.measure == "mean")].verdict == "better").all()
        and not (table[table.method == name].verdict == "worse").any()
    ]
    if not wins:
        return (
            "No method has a lower mean loss than the uniform mix at equal steps and at equal processor time without "
            "being worse on the worst domain or on the held-out one."
        )
    verb = "has" if len(wins) == 1 else "have"
    return (
        f"{_listed(wins)} {verb} a lower mean loss than the uniform mix at equal steps and at equal processor time, "
        "without being worse on the worst domain or on the held-out one."
    )


def _papers(judged: Sequence[Claim]) -> str:
    """Tabulates the papers' sentences and what became of them, and the notes below."""
    lines = ["### What the papers say", ""]
    texts = claim_texts(rows(judged))
    table = [
        [str(number), claim.statement, claim.source, text.value or "-", text.threshold or "-", text.holds]
        for number, (claim, text) in enumerate(zip(judged, texts, strict=True), start=1)
    ]
    lines += markdown_table(["", "sentence", "source", "here", "compared with", "holds"], table)
    lines += ["", "The numbers in the column *here* are:", ""]
    return "\n".join([*lines, *(f"{number}. {claim.note}." for number, claim in enumerate(judged, start=1))])


def _limits(results, tried) -> str:
    rounds = any(" (round " in name for name in tried)
    budget = "Every method got about as many settings to choose from."
    if rounds:
        budget = (
            f"Methods got {_number_tried(tried)} settings to choose from, in rounds: the grids of a later round were "
            "drawn up after a look at the validation losses of an earlier one, which started from another mix."
        )
    first = next(iter(results.values()))
    domains = first.sizes["domain"]
    return "\n".join(
        [
            "### What this does not say",
            "",
            f"- One corpus of {domains} domains, one small decoder, one budget. Methods that pay at a thousand times "
            "as many tokens, where proxies are a small part of the cost, may lose here.",
            "- Paired seeds vary the first parameters and the order of the rows, not the corpus.",
            f"- {budget} One with more settings may have been left farther from its best.",
            "- Speed-ups are read off losses under a learning rate that falls to the end, which brings all of them "
            "closer to 1 than a constant rate would.",
            f"- {READS}",
            "- Losses are nats per token of one vocabulary, and say nothing of downstream tasks.",
        ]
    )


def _how_to() -> str:
    return "\n".join(
        [
            "### To reproduce",
            "",
            "```sh",
            "mixjax data tokens --vocabulary 1024",
            "mixjax run configs/live_mix/comparison_tuning.toml",
            "python -m experiments.benchmarks mixing_methods",
            "mixjax run configs/live_mix/comparison.toml",
            "python -m experiments.live_mix.comparison_page results/comparison --tuning results/comparison_tuning",
            "```",
            "",
            "`mixjax run configs/live_mix/comparison_quick.toml` goes the same way in two minutes, on texts that need "
            "no download.",
        ]
    )


def _listed(names) -> str:
    texts = [NAMES.get(str(name), str(name)) for name in names]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


if __name__ == "__main__":
    main()
