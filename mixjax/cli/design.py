"""Defines the commands ``mixjax design ...``. Packages that are slow to import are imported when a command runs."""

from pathlib import Path
from typing import Annotated

import typer

from mixjax.cli.terminal import Mistake, reported

__all__ = ["make_design"]

_MaxShareOption = Annotated[
    list[str] | None,
    typer.Option(metavar="[DOMAIN=]SHARE", help="Largest share of every domain, or of one."),
]
_MinShareOption = Annotated[
    list[str] | None,
    typer.Option(metavar="[DOMAIN=]SHARE", help="Least share of every domain, or of one."),
]


def make_design() -> typer.Typer:
    """Makes the group of commands about mixtures that are chosen before training."""
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Choose a mixture by the losses of small runs.",
    )
    for command in (swarm, fit, validate):
        group.command(command.__name__)(command)
    return group


def swarm(
    sizes: Annotated[Path, typer.Argument(metavar="SIZES", help="JSON of the domains' sizes: {domain: size}.")],
    num: Annotated[int, typer.Option(metavar="N", help="Number of different mixtures.")] = 128,
    out: Annotated[Path, typer.Option(metavar="FILE", help="CSV of the mixtures.")] = Path("ratios.csv"),
    kind: Annotated[
        str, typer.Option(metavar="NAME", help="dirichlet (around the sizes), sobol (even) or d_optimal (for a law).")
    ] = "dirichlet",
    law: Annotated[str, typer.Option(metavar="NAME", help="The law that d_optimal is for.")] = "log_linear",
    temperature: Annotated[
        float, typer.Option(metavar="NUMBER", help="1 draws around the sizes, 0 around uniform shares.")
    ] = 0.5,
    floor: Annotated[float, typer.Option(metavar="SHARE", help="Smaller shares become 0.")] = 0.0,
    max_share: _MaxShareOption = None,
    min_share: _MinShareOption = None,
    repeats: Annotated[int, typer.Option(metavar="N", help="Runs of each mixture.")] = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the draws.")] = 0,
) -> None:
    """Choose the mixtures of a swarm of small runs.

    \b
    Examples:
      mixjax design swarm sizes.json --num 64 --out swarm.csv
      mixjax design swarm sizes.json --out swarm.csv --max-share web=0.8

    FILE gets a row for each run and a column for each domain. Train a run of each row, write its losses to another CSV,
    and give both to mixjax design fit.
    """
    with reported(ValueError, TypeError, OSError, ImportError):
        from mixjax import design
        from mixjax.runner.texts import counted

        numbers = _read_sizes(sizes)
        mixtures = design.swarm(
            list(numbers.values()),
            num,
            kind=kind,  # pyright: ignore[reportArgumentType]
            law=law,
            temperature=temperature,
            floor=floor,
            max_share=_shares("--max-share", max_share),
            min_share=_shares("--min-share", min_share),
            repeats=repeats,
            seed=seed,
            domains=list(numbers),
        )
        design.write_mixtures(mixtures, out, list(numbers))
        typer.echo(f"{counted(len(mixtures), 'run')}: {out}")


def fit(
    ratios: Annotated[
        Path,
        typer.Argument(metavar="RATIOS", help="CSV of mixtures: a row per run, a column per domain."),
    ],
    metrics: Annotated[
        Path, typer.Argument(metavar="METRICS", help="CSV of losses: a row per run, a column per metric.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the result.")] = Path("results/design"),
    law: Annotated[str, typer.Option(metavar="NAME", help="The law, or auto for the best.")] = "auto",
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC",
            help="What is to be low: mean, worst, or a metric; repeatable. [default: mean]",
        ),
    ] = None,
    max_share: _MaxShareOption = None,
    min_share: _MinShareOption = None,
    prior: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON of sizes to compare with: {domain: size}.")
    ] = None,
    penalty: Annotated[float, typer.Option(metavar="NUMBER", help="Factor of the divergence from the prior.")] = 0.0,
    budget: Annotated[
        float | None,
        typer.Option(metavar="TOKENS", help="Tokens to propose for, if runs differ in them."),
    ] = None,
    budget_column: Annotated[str, typer.Option(metavar="NAME", help="Column of each run's tokens.")] = "budget",
    resamples: Annotated[int, typer.Option(metavar="N", help="Resamples for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the resamples.")] = 0,
    drop: Annotated[bool, typer.Option("--drop", help="Leave out incomplete runs and empty domains.")] = False,
) -> None:
    """Fit a law to the losses of small runs and propose a mixture.

    \b
    Examples:
      mixjax design fit ratios.csv metrics.csv --out results/design
      mixjax design fit ratios.csv metrics.csv --objective worst --max-share 0.5
      mixjax design fit ratios.csv metrics.csv --objective code_loss \\
          --max-share web=0.6 --prior sizes.json
      mixjax design fit ratios.csv metrics_of_budgets.csv --budget 1e9

    Rows belong together by a column run, run_id, index or name; tables of Olmix and RegMix are read as they are. DIR
    gets mixture.json, report.md, figure.png and tables with 90 % intervals; mixtures of candidates.csv are to be
    trained for mixjax design validate.
    """
    with reported(ValueError, TypeError, OSError, ImportError):
        from mixjax import design
        from mixjax.design.report import write_design
        from mixjax.files import local_path

        folder = local_path("--out", out)
        swarm = design.read_tables(ratios, metrics, drop=drop, budget=budget_column)
        if budget is None and swarm.budgets is not None:
            raise Mistake(f"the runs differ in {budget_column!r}: give --budget, the tokens to propose for")
        if budget is not None and swarm.budgets is None:
            raise Mistake(f"--budget {budget:g}: needs a column {budget_column!r} with the tokens of runs that differ")
        sizes = None if prior is None else _sizes(prior, swarm.domains)
        least, largest = _shares("--min-share", min_share), _shares("--max-share", max_share)
        wanted = objective[0] if objective and len(objective) == 1 else objective
        fitted = design.fit(
            swarm.mixtures,
            swarm.losses,
            law,
            seed,
            budgets=swarm.budgets,
            resamples=resamples,
            domains=swarm.domains,
            metrics=swarm.metrics,
        )
        found = design.propose(
            fitted, wanted, largest, min_share=least, prior=sizes, penalty=penalty, budget=budget, seed=seed
        )
        write_design(folder, found, source=f"`{ratios}` and `{metrics}`")
        for domain, share in zip(swarm.domains, found.weights, strict=True):
            typer.echo(f"{domain}  {share:.4f}")
        typer.echo(f"{found.objective.name}: {found.value:.5g} ({found.low:.5g} to {found.high:.5g}), by {fitted.law}")
        for comparison in found.comparisons:
            typer.echo(str(comparison))
        typer.echo(f"report: {folder / 'report.md'}")


def validate(
    losses: Annotated[
        Path,
        typer.Argument(metavar="LOSSES", help="CSV of the losses: a row per run, with columns mixture and seed."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="CSV of the verdicts.")] = Path(
        "results/design/validation.csv"
    ),
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="mean|worst|METRIC",
            help="What is to be low, as in mixjax design fit. [default: mean]",
        ),
    ] = None,
    proposal: Annotated[str, typer.Option(metavar="NAME", help="The mixture to be judged.")] = "proposal",
    used_seeds: Annotated[
        list[str] | None,
        typer.Option(metavar="SEED|FIRST:STOP", help="Seeds of the swarm, which are not fresh; 0:4 is 0 to 3."),
    ] = None,
) -> None:
    """Judge a proposed mixture by the losses of runs on fresh paired seeds.

    \b
    Examples:
      mixjax design validate losses.csv
      mixjax design validate losses.csv --objective code_loss --used-seeds 0:2

    Train the mixtures of candidates.csv, which mixjax design fit writes, with the same seeds each. All columns of
    LOSSES besides mixture and seed are metrics. A verdict is better, worse, noise or undecided, by paired t-tests with
    Holm's correction.
    """
    with reported(ValueError, TypeError, OSError, ImportError):
        import pandas as pd

        from mixjax import design
        from mixjax.files import local_path, write_whole

        file = local_path("--out", out)
        found = design.validate(
            design.read_losses(losses),
            objective[0] if objective and len(objective) == 1 else objective,
            proposal=proposal,
            used_seeds=_seeds(used_seeds),
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, pd.DataFrame(found.verdicts).to_csv(index=False))
        typer.echo(str(found))
        typer.echo(f"verdicts: {file}")


def _seeds(texts):
    found = []
    for text in texts or ():
        first, colon, stop = text.partition(":")
        try:
            found += range(int(first), int(stop)) if colon else [int(first)]
        except ValueError:
            raise Mistake(f"--used-seeds {text}: write SEED or FIRST:STOP, for example 7 or 0:4") from None
    return found


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


def _read_sizes(path):
    import json

    try:
        return {str(name): float(size) for name, size in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError, TypeError):
        raise Mistake(f"{path}: must be JSON of the form {{domain: size}}") from None


def _sizes(path, domains):
    numbers = _read_sizes(path)
    for name in domains:
        if name not in numbers:
            raise Mistake(f"{path}: has no size of the domain {name!r}")
    return [numbers[name] for name in domains]
