"""Writes the page of the choice of settings under group shift from a result, so that text and numbers cannot part.

python -m experiments.hardness_sampling.group_selection_page results/group_selection
"""

import argparse
import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.hardness_sampling import group_selection_report
from mixjax.files import write_whole
from mixjax.runner import claims as claims_lib
from mixjax.runner import results as results_lib
from mixjax.runner.texts import claim_texts, markdown_table, mean_text

__all__ = ["PAGE", "advice", "main", "page"]

PAGE = Path(__file__).with_name("RESULTS.md")

HEAD = """\
# Choosing settings under group shift

Nine methods on three tables and a text, each with the same trials of learning rate and strength. In every split, a
rule chooses a method's trial: by the **worst group** on validation rows, by the **average** on validation rows, or by
the test rows themselves (**oracle**, which nobody can use: it bounds the others). This is the protocol of WILDS and
SubpopBench. The model is logistic regression. Splits of one data set share rows, so errors say how sure a difference is
on it. No setting was chosen on these splits.

| data | rows | groups | predicted |
| --- | --- | --- | --- |
| Adult | 48,842 | 10: race and sex | a high income |
| COMPAS | 6,172 | 6: race and sex | a new offence |
| heart disease | 920 | 4 hospitals | the diagnosis |
| opinions | 23,120 | 8: source and label | whether a sentence is positive, from its words |

The sources of the opinions are tweets, reviews of products and of films, and newspaper editorials.

The data are what package registries hold. WILDS' and SubpopBench's own images and texts are not there: the packages
`wilds`, `medmnist`, `folktables`, `aif360`, `whyshift` and `textbook` hold programs that download them from elsewhere.
The opinions lie in the source package of `vaderSentiment`. They have what makes CivilComments hard: the source tells
something of the label (69 % of the tweets are positive, 45 % of the editorials), and a model that relies on it fails
the tweets that are negative and the editorials that are positive.

`mixjax run configs/hardness_sampling/group_selection.toml` makes it again."""


def page(results: results_lib.Results, versions: Mapping[str, str]) -> str:
    """Writes the page.

    Args:
        results: run name to data set.
        versions: package to version, of the run.

    Returns:
        Markdown, with the figure beside it.
    """
    claims = claims_lib.rows(group_selection_report.claims(results))
    rows = [
        (claim["statement"], text.value, text.threshold, text.holds, claim["note"])
        for claim, text in zip(claims, claim_texts(claims), strict=True)
    ]
    told = ", ".join(f"{name} {versions[name]}" for name in ("mixjax", "jax") if name in versions)
    parts = [
        HEAD + f" It ran with {told}.",
        "![Gain over ERM in the worst group](groups.png)",
        advice(claims),
        group_selection_report.summary(results),
        "## Claims",
        "\n".join(markdown_table(["statement", "measured", "threshold", "holds", "note"], rows)),
    ]
    return "\n\n".join(parts) + "\n"


def advice(claims: Sequence[Mapping]) -> str:
    """Answers which rule to use, from ERM's gains by choosing by the worst group in place of the average.

    Args:
        claims: rows of ``claims.json``; those that end in "groups_to_choose" are read.
    """
    rows = [claim for claim in claims if claim["name"].endswith("_groups_to_choose")]
    names = [claim["statement"].rpartition("(")[2].rstrip(")") for claim in rows]
    gains = [
        f"{mean_text(claim['value'], claim['stderr'])} points on {name}"
        for claim, name in zip(rows, names, strict=True)
    ]
    better = [name for claim, name in zip(rows, names, strict=True) if claim["holds"]]
    if better:
        answer = f"By the worst group on {', '.join(better)}; elsewhere no difference is certain."
    else:
        answer = (
            "The average will do, which needs no groups on validation rows: choosing by the worst group is certainly "
            "better on none of these data."
        )
    text = (
        f"**Which rule to use?** {answer} Choosing by the worst group in place of the average changes ERM's "
        f"accuracy in the worst group of the test rows by {'; '.join(gains)}."
    )
    return textwrap.fill(text, 120, break_on_hyphens=False)


def main(arguments: Sequence[str] | None = None, target: Path = PAGE) -> None:
    """Reads a result's folder and writes the page and its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="folder that mixjax run has written")
    folder = parser.parse_args(arguments).result
    versions = json.loads((folder / "metrics.json").read_text())["versions"]
    write_whole(target, page(results_lib.read(folder), versions))
    shutil.copyfile(folder / "figure.png", target.with_name("groups.png"))


if __name__ == "__main__":
    main()
