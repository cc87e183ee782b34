"""Defines the commands ``mixjax design ...``. Packages that are slow to import are imported when a command runs."""

from pathlib import Path
from typing import Annotated

import typer

from mixjax.cli.terminal import Mistake, reported

__all__ = ["make_design"]


def make_design() -> typer.Typer:
    """Makes the group of commands about mixtures that are chosen before training."""
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Choose a mixture by the losses of small runs.",
    )
    # With a callback, a group of one command keeps the command's name.
    group.callback()(_top)
    group.command("fit")(fit)
    return group


def _top() -> None:
    """Choose a mixture by the losses of small runs."""


def fit(
    ratios: Annotated[
        Path,
        typer.Argument(metavar="RATIOS", help="CSV of the mixtures: a row per run, a column per domain."),
    ],
    metrics: Annotated[
        Path, typer.Argument(metavar="METRICS", help="CSV of the losses: a row per run, a column per metric.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the result.")] = Path("results/design"),
    law: Annotated[
        str, typer.Option(metavar="NAME", help="The law, or auto for the one that predicts left-out runs best.")
    ] = "auto",
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="mean|worst|METRIC",
            help="What is to be low: the mean or the worst of all metrics, or a metric; several are averaged. "
            "[default: mean]",
        ),
    ] = None,
    max_share: Annotated[
        list[str] | None,
        typer.Option(metavar="SHARE|DOMAIN=SHARE", help="The largest share of every domain, or of one."),
    ] = None,
    min_share: Annotated[
        list[str] | None,
        typer.Option(metavar="SHARE|DOMAIN=SHARE", help="The least share of every domain, or of one."),
    ] = None,
    prior: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON of the domains' sizes, to compare with: {domain: size}.")
    ] = None,
    penalty: Annotated[
        float, typer.Option(metavar="NUMBER", help="Factor of the divergence from the prior, or from uniform.")
    ] = 0.0,
    resamples: Annotated[int, typer.Option(metavar="N", help="Resamples of the runs, for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the resamples.")] = 0,
) -> None:
    """Fit a law to the losses of a swarm of runs and propose a mixture, with 90 % intervals.

    \b
    Examples:
      mixjax design fit ratios.csv metrics.csv --out results/design
      mixjax design fit ratios.csv metrics.csv --objective worst --max-share 0.5
      mixjax design fit ratios.csv metrics.csv --objective code_loss --max-share web=0.6 --prior sizes.json

    The rows of both files belong together by a column run, run_id, index or name. Tables of Olmix and of RegMix are
    read as they are. DIR gets mixture.json, report.md, figure.png and tables.
    """
    with reported(ValueError, TypeError, OSError, ImportError):
        from mixjax import design
        from mixjax.design.report import write_design
        from mixjax.files import local_path

        folder = local_path("--out", out)
        swarm = design.read_tables(ratios, metrics)
        sizes = None if prior is None else _sizes(prior, swarm.domains)
        bounds = {"min_share": _shares("--min-share", min_share), "max_share": _shares("--max-share", max_share)}
        wanted = objective[0] if objective and len(objective) == 1 else objective
        fitted = design.fit(
            swarm.mixtures,
            swarm.losses,
            law,
            seed,
            resamples=resamples,
            domains=swarm.domains,
            metrics=swarm.metrics,
        )
        found = design.propose(fitted, wanted, prior=sizes, penalty=penalty, seed=seed, **bounds)
        write_design(folder, found, source=f"`{ratios}` and `{metrics}`")
        for domain, share in zip(swarm.domains, found.weights, strict=True):
            typer.echo(f"{domain}  {share:.4f}")
        typer.echo(f"{found.objective.name}: {found.value:.5g} ({found.low:.5g} to {found.high:.5g}), by {fitted.law}")
        for comparison in found.comparisons:
            typer.echo(str(comparison))
        typer.echo(f"report: {folder / 'report.md'}")


def _shares(option, texts):
    """Reads shares: one number for all domains, or numbers by the domains' names."""
    found = {}
    for text in texts or ():
        # A name may hold an equals sign, and a number does not.
        domain, equals, number = text.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            raise Mistake(f"{option} {text}: write SHARE or DOMAIN=SHARE, for example 0.5 or web=0.5") from None
        if not equals and len(texts) > 1:
            raise Mistake(f"{option} {text}: with several of them, write DOMAIN=SHARE each")
        if not equals:
            return share
        found[domain] = share
    return found or None


def _sizes(path, domains):
    import json

    try:
        sizes = json.loads(path.read_text())
        numbers = {str(name): float(size) for name, size in sizes.items()}
    except (ValueError, AttributeError, TypeError):
        raise Mistake(f"{path}: must be JSON of the form {{domain: size}}") from None
    for name in domains:
        if name not in numbers:
            raise Mistake(f"{path}: has no size of the domain {name!r}")
    return [numbers[name] for name in domains]
