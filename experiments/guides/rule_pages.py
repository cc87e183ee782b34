"""Draws the pictures of the rules' pages and writes what the pages generate, so that text and numbers cannot part.

``python -m experiments.guides.rule_pages`` draws the toy's runs and writes the generated sections, from the numbers
that were kept and from the tables of results. With ``--train`` it first trains the toy by every rule, a few minutes.
"""

import argparse
import json
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from experiments.guides import pictures, rule_figures, toy
from experiments.shared.sections import replace_section
from mixjax import rules
from mixjax.runner.texts import markdown_table
from mixjax.types import SIGNALS

__all__ = ["FOLDER", "HEADINGS", "keep", "main", "sections", "table_of"]

FOLDER = Path(__file__).parent / "rules"
ROOT = FOLDER.parents[2]

HEADINGS = ("Equation", "What it reads", "Example", "On a toy", "When it helps, and where it failed", "Source")
"""The headings of every rule's page, in their order."""

_TABLE = ROOT / "experiments" / "table" / "RESULTS.md"
_MIXING = ROOT / "experiments" / "live_mix" / "RESULTS.md"
_PAIRS = ROOT / "configs" / "loss_and_sampling_weights" / "table.toml"
_NAMED = 3
# Every second probe is enough for a line of 3 inches.
_THINNED = 2

# The methods of the comparison of mixes that each rule is a part of.
_METHODS = {
    "fixed": ("proportional", "temperature"),
    "erma": ("ERMA", "ERMA + VA"),
    "variance_aware": ("VA", "ERMA + VA"),
    "group_dro": ("group DRO",),
    "doremi": ("DoReMi",),
    "doge": ("DoGE",),
    "exp3": ("ODM",),
    "ado": ("ADO",),
    "aioli": ("Aioli",),
}


def keep(shown: toy.Shown) -> dict[str, Any]:
    """Trains the toy by a rule and returns what its picture and its table show.

    Args:
        shown: the rule.
    """
    found = toy.train(shown)
    weights, losses = found["weights"][:, ::_THINNED], found["losses"][:, ::_THINNED]
    steps = np.arange(found["weights"].shape[1])[::_THINNED] * toy.PROBE_EVERY
    kept = {"steps": steps, "weights": weights.mean(axis=0), "low": weights.min(axis=0), "high": weights.max(axis=0)}
    kept |= {"losses": losses.mean(axis=0), "last_losses": found["last_losses"]}
    rounded = {name: np.round(values.astype(float), 3).tolist() for name, values in kept.items()}
    return {"text": shown.text} | rounded


def sections(name: str, kept: dict[str, Any]) -> dict[str, str]:
    """Writes the generated sections of a rule's page.

    Args:
        name: a name of ``mixjax.rules.RULES``.
        kept: from a rule's name to what :func:`keep` returned.

    Returns:
        Markdown by the section's name.
    """
    return {"signals": _signals(name), "toy": _toy(name, kept), "results": _results(name)}


def table_of(path: Path, first: str) -> list[dict[str, str]]:
    """Reads a table of a Markdown page, as one dictionary for each row.

    Args:
        path: the page.
        first: how the line of the table's header begins.

    Raises:
        ValueError: the page has no such table.
    """
    lines = path.read_text().splitlines()
    try:
        start = next(number for number, line in enumerate(lines) if line.startswith(first))
    except StopIteration:
        raise ValueError(f"{path.name} has no table whose header begins with {first!r}.") from None
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def _signals(name: str) -> str:
    needed, optional = toy.read_signals(name), toy.optional_signals(name)
    if not needed and not optional:
        return "No signal: the weights do not move. `update` takes `counts`, as every rule does, and any other signal."
    rows = [[f"`{signal}`", SIGNALS[signal], "needed"] for signal in needed]
    rows += [[f"`{signal}`", SIGNALS[signal], "optional"] for signal in optional]
    rows += [["`counts`", SIGNALS["counts"], "needed"]]
    return "\n".join(
        [*markdown_table(["signal", "a number for each domain", ""], rows), "", "Other signals are ignored."]
    )


def _picture(name: str, alternative: str) -> list[str]:
    return [
        "<picture>",
        f'  <source media="(prefers-color-scheme: dark)" srcset="figures/{name}_dark.png">',
        f'  <img src="figures/{name}_light.png" width="800" alt="{alternative}">',
        "</picture>",
    ]


def _toy(name: str, kept: dict[str, Any]) -> str:
    mine, plain = kept[name], kept["plain"]
    moved = {"c": "the loss weights c", "q": "the sampling weights q", "both": "c and q alike"}[toy.RULES[name].moves]
    last, before = np.asarray(mine["last_losses"]), np.asarray(plain["last_losses"])
    rows = []
    for d, domain in enumerate(toy.DOMAINS):
        difference = last[:, d] - before[:, d]
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        losses = [f"{last[:, d].mean():.3f}", f"{before[:, d].mean():.3f}", f"{difference.mean():+.3f} ± {error:.3f}"]
        rows.append([domain, str(toy.PRIOR[d]), f"{mine['weights'][-1][d]:.2f}", *losses])
    alternative = f"Weights of four domains over 400 steps under {name}, and the held-out losses"
    head = ["domain", "prior", "weight at the end", "held-out loss", "without weights", "difference"]
    lines = [
        _paragraph(
            f"`{mine['text']}` moves {moved} on [four small domains](README.md#the-toy).",
            "Lines are means over 16 runs, bands go from the least run to the most, and the dots are the prior.",
        ),
        "",
        *_picture(name, alternative),
        "",
        *markdown_table(head, rows),
        "",
        "Losses are squared errors on held-out examples, and differences have the standard error over paired runs.",
    ]
    return "\n".join(lines)


def _pairs_of(name: str) -> list[str]:
    """Returns the pairs of the table that a rule is a part of."""
    pairs = tomllib.loads(_PAIRS.read_text())["pairs"]
    # The control is DRO of strength 0, which is no weighting.
    pairs = [pair for pair in pairs if not pair["name"].startswith("no weighting")]
    return [pair["name"] for pair in pairs if name in (pair.get("loss", "fixed"), pair.get("sampling", "fixed"))]


def _results(name: str) -> str:
    parts = [*_against_no_weighting(name), *_against_equal_shares(name)]
    return "\n\n".join(parts) or "We have not compared this rule with others."


def _against_no_weighting(name: str) -> list[str]:
    """Returns a paragraph and a table of the pairs that a rule is a part of, or nothing."""
    pairs = ["tempered prior"] if name == "fixed" else _pairs_of(name)
    if not pairs:
        return []
    by_pair = {row["pair"]: row for row in table_of(_TABLE, "| pair | mean rank")}
    problems = [column for column in by_pair[pairs[0]] if column not in ("pair", "mean rank")]
    rows = [[problem, *(by_pair[pair][problem].replace("excluded", "–") for pair in pairs)] for problem in problems]
    values = [cell for row in rows for cell in row[1:] if cell != "–"]
    lower, higher = (
        [f"{row[0]} by {pair}" for row in rows for pair, cell in zip(pairs, row[1:], strict=True) if cell[:3] == sign]
        for sign in ("**-", "**+")
    )
    # A few are named here, and the table has them all in bold.
    which = f" ({'; '.join(lower)})" if 0 < len(lower) <= _NAMED else ""
    text = _paragraph(
        f"The test error is certainly lower than without weighting in {len(lower)} of {len(values)} cells{which},",
        f"higher in {len(higher)}, and undecided in the others. A cell is the change of the test error in per cent, on",
        "Adult that of the worst group. Bold ones are certain after Holm's correction, and a dash means that the rule",
        "does not apply there ([all rules](../../table/RESULTS.md)).",
    )
    return [text, "\n".join(markdown_table(["problem", *pairs], rows))]


def _against_equal_shares(name: str) -> list[str]:
    """Returns a paragraph and a table of the ways of mixing text that a rule is a part of, or nothing."""
    if name not in _METHODS:
        return []
    by_method = {row["method"]: row for row in table_of(_MIXING, "| method | mean, steps")}
    columns = ["mean, steps", "worst, steps", "target, steps", "mean, processor time"]
    rows = [[method, *(by_method[method][column] for column in columns)] for method in _METHODS[name]]
    text = _paragraph(
        "For a [language model on eight domains of text](../../live_mix/RESULTS.md#mixing-methods-at-equal-cost),",
        "numbers are differences of the test loss to equal shares, in nats a token: the mean over the domains, the",
        "worst domain, and a domain that is not trained on. Bold ones are certain.",
    )
    return [text, "\n".join(markdown_table(["method", *columns], rows))]


def _paragraph(*lines: str) -> str:
    return textwrap.fill(" ".join(lines), 120, break_long_words=False, break_on_hyphens=False)


def _write_text(kept: dict[str, Any], folder: Path) -> None:
    """Writes the generated sections of all pages."""
    for name in rules.RULES:
        page = folder / f"{name}.md"
        text = page.read_text()
        for section, generated in sections(name, kept).items():
            text = replace_section(text, section, generated)
        page.write_text(text)


def _draw(kept: dict[str, Any], folder: Path) -> None:
    """Draws a picture for each rule, one of all of them, and one of the wrappers."""
    for page in pictures.PAGES:
        for name in rules.RULES:
            figure = rule_figures.draw(kept[name], kept["plain"], page, kept[name]["text"])
            pictures.save(figure, folder / f"{name}_{page}.png")
        every = {name: kept[name] for name in rules.RULES}
        pictures.save(rule_figures.sheet(every, page), folder / f"all_{page}.png")
        wrapped = {kept[name]["text"]: kept[name] for name in toy.WRAPPED}
        pictures.save(rule_figures.sheet(wrapped, page, columns=2), folder / f"wrappers_{page}.png")


def main(arguments: list[str] | None = None) -> None:
    """Draws the pictures and writes the generated sections of all pages.

    Args:
        arguments: of the command line; those of the process when None.
    """
    parser = argparse.ArgumentParser(description="Draws and writes the generated parts of the pages of the rules.")
    parser.add_argument("--train", action="store_true", help="train the toy first, by every rule")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the folder of the pages")
    chosen = parser.parse_args(arguments)
    numbers = chosen.folder / "figures" / "toy.json"
    if chosen.train:
        shown = {"plain": toy.Shown("fixed()", rules.fixed, "both")} | toy.RULES | toy.WRAPPED
        numbers.parent.mkdir(parents=True, exist_ok=True)
        kept = {name: keep(each) for name, each in shown.items()}
        numbers.write_text(json.dumps(kept).replace('}, "', '},\n"') + "\n")
    kept = json.loads(numbers.read_text())
    _draw(kept, numbers.parent)
    _write_text(kept, chosen.folder)


if __name__ == "__main__":
    main()
