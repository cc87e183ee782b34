"""Writes a section of ``RESULTS.md`` on a language model on a live mix, with its figure, from a folder of results.

``python -m experiments.live_mix.text_page RESULTS_DIR``, where ``mixjax run`` wrote the folder for
``configs/live_mix/text.toml`` or ``configs/live_mix/cells.toml``. Each has a section of its own.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from experiments.live_mix.text_results import NAMES, by_method, by_source, claims, figure, unit_of
from experiments.shared.sections import replace_section
from experiments.shared.statistics import mean_stderr
from mixjax.live import read_ledger
from mixjax.runner import results as results_lib
from mixjax.runner.claims import rows
from mixjax.runner.texts import claim_texts, markdown_table, mean_text

__all__ = ["main", "section"]

FOLDER = Path(__file__).parent
TITLES = {
    "text": "A language model on nine domains",
    "cells": "Two hundred domains, more than a batch has rows",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.live_mix.text_page", description=__doc__)
    parser.add_argument("results", type=Path, help="the folder that `mixjax run` wrote")
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"the folder of RESULTS.md, by default {FOLDER}")
    parser.add_argument("--unkilled", type=Path, help="results of a killed run that was trained again without a kill")
    options = parser.parse_args(arguments)
    results, config = results_lib.read(options.results), results_lib.read_config(options.results)
    name = "cells" if config["cells"] else "text"
    ledgers = {path.parent.name: read_ledger(path) for path in sorted(options.results.glob("files/**/ledger.jsonl"))}
    options.out.mkdir(parents=True, exist_ok=True)
    figure(results).savefig(options.out / f"{name}.png", dpi=80)
    page = options.out / "RESULTS.md"
    text = section(name, results, config, ledgers, options.unkilled and results_lib.read(options.unkilled))
    page.write_text(replace_section(page.read_text() if page.exists() else "# The live mix\n", name, text))
    print(f"written: {page} and {options.out / name}.png")


def section(
    name: str,
    results: Mapping[str, xarray.Dataset],
    config: Mapping[str, Any],
    ledgers: Mapping[str, xarray.Dataset],
    unkilled: Mapping[str, xarray.Dataset] | None = None,
) -> str:
    """Writes the section.

    Args:
        name: the config's name, "text" or "cells".
        results: run name -> metrics.
        config: the resolved config of the runs.
        ledgers: the ledger of each training run by the name of its folder.
        unkilled: results of some of the training runs, trained once more without an interruption.
    """
    methods = by_method(results)
    parts = [
        f"## {TITLES[name]}",
        _setting(methods, config),
        _table(methods),
        _verdicts(results),
        _moved(methods),
        _drawn(ledgers, config["batch_size"]) + _compared(methods, unkilled),
        f"![Test losses and weights by domain]({name}.png)",
        f"`mixjax run configs/live_mix/{name}.toml` repeats it, and `python -m experiments.live_mix.text_page "
        f"results/{name}` writes this section.",
    ]
    return "\n\n".join(parts)


def _setting(methods, config) -> str:
    first = next(iter(methods.values()))
    model = ("rows", "vocabulary", "length", "batch_size", "num_steps", "layers", "width", "learning_rate")
    weights = ("prior", "temperature", "floor", "gamma1", "gamma2", "probe_every", "probe_size", "probe_domains")
    settings = ", ".join(f"{key} {config[key]}" for key in (*model, *weights) if key in config)
    seeds = first.seed.values
    return (
        f"A decoder is trained on {first.sizes['domain']} domains of [text](../guides/text_data.md) by "
        f"{_listed(methods)}, with {seeds.size} paired seeds, {seeds.min()} to {seeds.max()}. Every run draws from a "
        "[live plan](../guides/live_mix.md) and writes a ledger and checkpoints. Static keeps the first weights, by "
        "default the domains' sizes to the power `temperature`. A moving method starts from them and learns from "
        f"validation rows. The settings were not tuned: {settings}."
    )


def _table(methods) -> str:
    """Tabulates the last test loss and weights by domain; cells of a domain share a row."""
    sources = [str(domain).partition("/")[0] for domain in methods["static"].domain.values]
    has_cells = len(set(sources)) < len(sources)
    joined = {name: by_source(data).isel(step=-1) for name, data in methods.items()}
    moving = [name for name in joined if name != "static"]
    header = ["domain", *(["cells"] if has_cells else []), "static: loss", "share"]
    header += [part for name in moving for part in (f"{NAMES[name]}: loss - static", "c", "q")]
    table = []
    for domain in joined["static"].domain.values:
        static = joined["static"].sel(domain=domain)
        cells = [sources.count(domain)] if has_cells else []
        line = [domain, *cells, _text(static.loss), f"{float(static.sampling_weight.mean()):.3f}"]
        for name in moving:
            data = joined[name].sel(domain=domain)
            weights = (f"{float(data[weight].mean()):.3f}" for weight in ("loss_weight", "sampling_weight"))
            line += [_text(data.loss - static.loss), *weights]
        table.append(line)
    return "\n".join(
        [
            *markdown_table(header, table),
            "",
            f"Losses of test rows after the last step, in {unit_of(methods)}, means ± standard error over seeds. Share "
            "is the static mix's weight, c the loss weight and q the sampling weight after the last step."
            + (" Losses are means over the cells of a domain, weights are sums." if has_cells else ""),
        ]
    )


def _verdicts(results) -> str:
    judged = claims(results)
    texts = claim_texts(rows(judged))
    table = [[claim.statement, text.value, text.holds] for claim, text in zip(judged, texts, strict=True)]
    return "\n".join(markdown_table(["sentence", "difference", "holds"], table))


def _moved(methods) -> str:
    """Says how far weights went from those of the static mix, in total variation: the share of rows that moved."""
    last = {name: data.isel(step=-1) for name, data in methods.items()}
    told = []
    for name, data in last.items():
        if name == "static":
            continue
        shares = []
        for weight, words in (("loss_weight", "loss"), ("sampling_weight", "sampling")):
            distance = abs(data[weight] - last["static"][weight]).sum("domain") / 2
            shares.append(f"{100 * float(distance.mean()):.2g} % of the {words} weights")
        told.append(f"By the last step {NAMES[name]} had moved {_listed(shares)} from one domain to another.")
    return " ".join(told)


def _drawn(ledgers, batch_size) -> str:
    """Says what the ledgers hold: how exact the draws were, and where runs were interrupted."""
    ahead, behind, absent = -np.inf, -np.inf, []
    cuts = {}
    for name, ledger in ledgers.items():
        owed = (ledger.weights * batch_size).cumsum("step") - ledger.counts.cumsum("step")
        ahead, behind = max(ahead, -float(owed.min())), max(behind, float(owed.max()))
        absent.append(float((ledger.counts == 0).mean()))
        starts = [event["steps"] for event in ledger.events if event["event"].startswith("ledger cut")]
        if starts:
            cuts[name] = starts
    steps = {int(ledger.num_steps.sum()) for ledger in ledgers.values()}
    lines = [
        f"The {len(ledgers)} ledgers have {_listed(sorted(steps))} steps each. A domain was never more than "
        f"{ahead:.2f} rows ahead of the sum of its sampling weights, and never more than {behind:.2f} behind; a batch "
        f"lacked {np.mean(absent):.0%} of the domains on average."
    ]
    for name, steps_ in cuts.items():
        told = _listed([f"{first} to {last}" for first, last in steps_])
        lines.append(
            f"The command was killed (SIGKILL) in the run `{name}` and given again: it went on from the last "
            f"checkpoint, and steps {told} were trained again."
        )
    return " ".join(lines)


def _compared(methods, unkilled) -> str:
    """Says whether runs that were killed ended like those that were not."""
    told = []
    for method, data in by_method(unkilled or {}).items():
        first = methods[method].sel(seed=data.seed)
        same = all(np.array_equal(first[name], data[name], equal_nan=True) for name in data)
        seeds = _listed(data.seed.values)
        told.append(
            f" Trained once more without a kill, {NAMES.get(method, method)} with seed {seeds} gave "
            f"{'the same metrics, bit by bit' if same else 'other metrics'}."
        )
    return "".join(told)


def _text(values: xarray.DataArray) -> str:
    return mean_text(*map(float, mean_stderr(values)))


def _listed(words) -> str:
    *first, last = [NAMES.get(word, str(word)) for word in words]
    return f"{', '.join(first)} and {last}" if first else last


if __name__ == "__main__":
    main()
