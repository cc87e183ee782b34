"""Defines the command ``mixjax sites``. Packages that are slow to import are imported when the command runs."""

from pathlib import Path
from typing import Annotated

import typer

from mixjax.cli.terminal import reported

__all__ = ["sites"]


def sites(
    scores: Annotated[
        Path,
        typer.Argument(metavar="SCORES", help="CSV file of scores, or the folder of a result of mixjax run."),
    ],
    baseline: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD", help="A weighting to compare with; may be given several times."),
    ] = None,
    better: Annotated[str, typer.Option(metavar="higher|lower", help="Which scores are good.")] = "higher",
    worst: Annotated[int, typer.Option(metavar="N", help="How many of the worst cases are named.")] = 3,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the report.")] = Path("results/sites"),
) -> None:
    """Show each site its scores, also under other weightings.

    \b
    Examples:
      mixjax sites scores.csv
      mixjax sites scores.csv --baseline volume --baseline uniform --out sites
      mixjax sites distances.csv --baseline volume --better lower

    SCORES has a row for each score, and must have the columns site (centre, scanner, hospital), case (patient), method
    and score. The columns label (the structure that was segmented) and seed are optional. An empty score is a missing
    one. A result of mixjax run will do where it has scores of single cases, as those of segmentation.toml and
    brats.toml have; there --baseline "Nesterov, ERM" is volume weighting.

    A baseline is a method too: the same model, trained with another weighting. Under volume weighting each case counts
    the same, so large hospitals count more; under uniform weighting each hospital counts the same.

    DIR gets report.md, figure.png, levels.csv (support, mean, quartiles, worst cases) and differences.csv (difference
    from each baseline over the same cases, its 95 % interval by bootstrap, a verdict).

    In Python: mixjax.runner.sites.site_report.
    """
    with reported(ValueError, TypeError, OSError, ImportError):
        from mixjax.files import local_path, make_folder, write_whole
        from mixjax.runner import results
        from mixjax.runner.result_scores import result_scores
        from mixjax.runner.site_page import site_figure, site_markdown
        from mixjax.runner.sites import read_scores, site_report

        folder = local_path("--out", out)
        table = result_scores(results.read(scores)) if scores.is_dir() else read_scores(scores)
        # Not narrowed to the two choices here: site_report refuses another one.
        report = site_report(table, baseline or (), better=better, num_worst=worst)  # pyright: ignore
        make_folder("--out", folder)
        page = [*site_markdown(report), "", "![Scores by site](figure.png)"]
        write_whole(folder / "report.md", "\n".join(page) + "\n")
        write_whole(folder / "levels.csv", report.levels.to_csv(index=False))
        write_whole(folder / "differences.csv", report.differences.to_csv(index=False))
        site_figure(report).savefig(folder / "figure.png", dpi=150)
        for line in site_markdown(report):
            typer.echo(line)
        typer.echo(f"report: {folder / 'report.md'}")
