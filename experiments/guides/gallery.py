"""Puts figures and claims of results into the pages of the papers, so that their text and numbers cannot part.

``python -m experiments.guides.gallery results/linear results/piecewise`` copies the figures, made smaller, and the
claims of these results to ``experiments/guides/papers/figures/``, and writes the last section of each paper's page anew
from all that lies there. ``captions.toml`` says in words what the paper's figure shows, which is not ours to copy, and
why a config has no result here.
"""

import argparse
import json
import textwrap
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.shared.sections import replace_section
from mixjax.runner import results
from mixjax.runner.texts import claim_texts, counted, markdown_table

__all__ = ["ABSENT", "CAPTIONS", "PAGES", "keep", "main", "section"]

FOLDER = Path(__file__).parent / "papers"
ROOT = FOLDER.parents[2]

PAGES = {
    "experiments.loss_and_sampling_weights": "sampling_and_loss_weights.md",
    "experiments.fewer_weight_updates": "fewer_weight_updates.md",
    "experiments.resampling_reweighting": "resampling_and_reweighting.md",
    "experiments.hardness_sampling": "hardness_weighted_sampling.md",
    "experiments.live_mix": "unimax.md",
}
"""The page of each folder of experiments."""

_WORDS: dict[str, dict[str, str]] = tomllib.loads((FOLDER / "captions.toml").read_text())

ABSENT: dict[str, str] = _WORDS.pop("absent")
"""Why a config has no result in the gallery, by its name with its folder."""

CAPTIONS: dict[str, dict[str, str]] = _WORDS
"""What the paper and what our figure shows, by the config's name with its folder: ``paper`` and ``ours``."""

# Twice the width at which GitHub shows a page, and enough colours for lines with bands.
_WIDTH, _COLOURS = 1600, 128
# The longest note, in characters, unless its first clause is longer.
_NOTE = 160


def keep(result: Path, folder: Path) -> str:
    """Copies what a page shows of a result: the figure, made smaller, and the claims.

    Args:
        result: folder of a result of ``mixjax run``, with the config's name.
        folder: that of the pages.

    Returns:
        The name of the page on which the result belongs.

    Raises:
        ValueError: no page is about the result's experiment.
    """
    experiment = results.read_config(result)["experiment"]
    package = experiment.rpartition(":")[0].rpartition(".")[0]
    if package not in PAGES:
        raise ValueError(f"{result}: no page is about {experiment}; pages are about {', '.join(PAGES)}.")
    page = PAGES[package]
    config = Path("configs", package.rpartition(".")[2], f"{result.name}.toml")
    if not (ROOT / config).is_file():
        config = Path("configs", config.name)
    versions = results.read_meta(result).versions
    kept = {
        "config": str(config),
        "versions": {name: versions[name] for name in ("mixjax", "jax")},
        "claims": results.read_claims(result),
    }
    figures = _figures(page, folder)
    figures.mkdir(parents=True, exist_ok=True)
    image = Image.open(result / "figure.png").convert("RGB")
    image.thumbnail((_WIDTH, 10 * _WIDTH), Image.Resampling.LANCZOS)
    image.quantize(_COLOURS).save(figures / f"{result.name}.png", optimize=True)
    (figures / f"{result.name}.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return page


def section(page: str, folder: Path) -> str:
    """Writes the last section of a paper's page: the figure of each result that was kept, and a table of its claims.

    Configs without a result follow, with the reason.

    Args:
        page: the page's name.
        folder: that of the pages.

    Returns:
        Markdown.
    """
    lines = [
        "## Figures and claims",
        "",
        "`python -m experiments.guides.gallery` wrote this section from results that we ran. A value has the standard",
        "error over the seeds. A claim is undecided where its value is too close to the threshold for that error. A",
        "note that ends in dots goes on in the report that the command writes.",
    ]
    figures = _figures(page, folder)
    for path in sorted(figures.glob("*.json")):
        kept = json.loads(path.read_text())
        versions = ", ".join(f"{name} {version}" for name, version in kept["versions"].items())
        picture = path.with_suffix(".png").relative_to(folder)
        lines += ["", f"### {path.stem}", ""]
        caption = CAPTIONS.get(kept["config"].removeprefix("configs/").removesuffix(".toml"))
        if caption:
            lines += [_wrapped(f"*In the paper.* {caption['paper']}"), "", _wrapped(f"*Here.* {caption['ours']}"), ""]
        lines += [f"![{path.stem}]({picture})", "", f"`mixjax run {kept['config']}`, with {versions}.", ""]
        lines += [_verdicts(kept["claims"]), "", *_table(kept["claims"])]
    absent = _absent(page, {path.stem for path in figures.glob("*.json")})
    if absent:
        lines += ["", "### Configs without a figure here", "", *absent]
    return "\n".join(lines)


def _absent(page: str, kept: Collection[str]) -> list[str]:
    """Lists the configs of a page that have no result, with the reason."""
    folders = {package.rpartition(".")[2] for package, name in PAGES.items() if name == page}
    found = []
    for config, reason in ABSENT.items():
        folder, _, name = config.partition("/")
        if folder in folders and name not in kept:
            found.append(_wrapped(f"- `{name}.toml`: {reason}", indent="  "))
    return found


def _figures(page: str, folder: Path) -> Path:
    return folder / "figures" / page.removesuffix(".md")


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _verdicts(claims: Sequence[dict[str, Any]]) -> str:
    """Counts the claims that hold, that do not, and that are undecided."""
    holds, fails, undecided = (sum(claim["holds"] is verdict for claim in claims) for verdict in (True, False, None))
    return (
        f"Of {counted(len(claims), 'claim')} {counted(holds, 'holds', 'hold')}, "
        f"{counted(fails, 'does not', 'do not')}, and {counted(undecided, 'is', 'are')} undecided."
    )


def _table(claims: Sequence[dict[str, Any]]) -> list[str]:
    rows = []
    for claim, text in zip(claims, claim_texts(claims), strict=True):
        statement = f"{claim['statement']} ({claim['source']})"
        rows.append([statement, text.value, text.threshold, text.holds, _first_clauses(claim["note"] or "")])
    return markdown_table(["claim", "value", "threshold", "holds", "note"], rows)


def _first_clauses(note: str) -> str:
    """Returns the first clauses of a note, since some notes list a whole grid of numbers."""
    kept, *clauses = note.split("; ")
    for clause in clauses:
        if len(kept) + len(clause) > _NOTE:
            return f"{kept} ..."
        kept = f"{kept}; {clause}"
    return kept


def main(arguments: list[str] | None = None) -> None:
    """Keeps the results named, and writes the last section of all pages that show some.

    Args:
        arguments: of the command line; those of the process when None.
    """
    parser = argparse.ArgumentParser(description="Puts results into the pages of the papers.")
    parser.add_argument("results", type=Path, nargs="*", help="folders of results, named as their configs")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the folder of the pages")
    chosen = parser.parse_args(arguments)
    for result in chosen.results:
        keep(result, chosen.folder)
    for name in PAGES.values():
        if _figures(name, chosen.folder).is_dir():
            page = chosen.folder / name
            page.write_text(replace_section(page.read_text(), "figures and claims", section(name, chosen.folder)))


if __name__ == "__main__":
    main()
