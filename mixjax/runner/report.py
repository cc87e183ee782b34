"""The report of a result, ``report.md`` and ``report.html``: claims, figure, runs that diverged and times."""

import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixjax.checks import requires
from mixjax.runner.configs import Config
from mixjax.runner.configs.locating import project_root, shipped_name
from mixjax.runner.frames import finite_values, holds_text
from mixjax.runner.pages.result import ResultPage
from mixjax.runner.texts import claim_texts, counted, markdown_table

with requires("experiments", "mixjax.runner.report"):
    import xarray as xr

__all__ = ["Report", "path_in_project"]


@dataclasses.dataclass(frozen=True)
class Report:
    """Holds what a report tells; :meth:`text` writes it.

    Args:
        config: what was run.
        out: the folder of the result, absolute; the command that reproduces it names it.
        results: run name -> metrics.
        claims: rows of ``claims.json``.
        meta: the content of ``metrics.json``.
        summary: Markdown for the head of the report, or "".
        has_figure: whether the folder holds a ``figure.png``.
        failures: "figure", "claims" or "summary" -> the traceback of what went wrong with it.
    """

    config: Config
    out: Path
    results: Mapping[str, xr.Dataset]
    claims: Sequence[Mapping[str, Any]]
    meta: Mapping[str, Any]
    summary: str = ""
    has_figure: bool = False
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def text(self) -> str:
        """Writes the report.

        Returns:
            Markdown.
        """
        sections = [self._head(), self._failures(), self._summary(), self._claims(), self._figure()]
        sections += [self._not_finite(), self._time()]
        return "\n".join(line for section in sections for line in section) + "\n"

    def page(self, figure: bytes | None) -> str:
        """Writes the report as a page.

        Args:
            figure: the PNG, or None.

        Returns:
            HTML, one file that loads nothing.
        """
        config = self.config
        commands = [self._command(), ["mixjax", config.command, _from_here(self.out / "config.toml")]]
        return ResultPage(
            config.name,
            config.experiment,
            commands,
            str(Path.cwd()),
            config.to_toml(),
            self.results,
            self.claims,
            self.meta,
            self.summary,
            figure,
            self.failures,
        ).text()

    def _command(self) -> list[str]:
        config = self.config
        # All paths are from the current folder, which the report names: modules, data and other fields of the config
        # may be looked for there.
        command = ["mixjax", config.command, _config_from_here(config)]
        for override in config.overrides:
            command += ["--set", override]
        # The default of --out need not be said.
        if self.out != Path("results", config.name).resolve():
            command += ["--out", _from_here(self.out)]
        return command

    def _head(self) -> list[str]:
        config = self.config
        return [
            f"# {config.name}",
            "",
            f"`{config.experiment}`; to reproduce, in `{Path.cwd()}`:",
            "",
            "```sh",
            shlex.join(self._command()),
            "```",
            "",
            f"or `mixjax {config.command} config.toml`, the resolved config beside this file.",
            "",
        ]

    def _failures(self) -> list[str]:
        lines = []
        for part, error in self.failures.items():
            lines += [f"**The {part} failed**; the metrics are complete.", "", "```", error.rstrip(), "```", ""]
        return lines

    def _summary(self) -> list[str]:
        return ["## Summary", "", self.summary.rstrip(), ""] if self.summary else []

    def _claims(self) -> list[str]:
        explained = (
            "Value ± standard error over the seeds. Where a claim is undecided, the note says why; without a reason "
            "there, the value is too close to the threshold for its error."
        )
        rows = [
            (*texts, row["num_seeds"], f"{row['statement']} ({row['source']})", row["note"])
            for texts, row in zip(claim_texts(self.claims), self.claims, strict=True)
        ]
        header = ("claim", "holds", "value", "threshold", "seeds", "statement", "note")
        return ["## Claims", "", explained, "", *(markdown_table(header, rows) if rows else ["None."])]

    def _figure(self) -> list[str]:
        return ["", "## Figure", "", f"![{self.config.name}](figure.png)"] if self.has_figure else []

    def _not_finite(self) -> list[str]:
        rows = [row for run, dataset in self.results.items() for row in _non_finite_rows(run, dataset)]
        table = markdown_table(("run", "metric", "label", "runs not finite"), rows) if rows else ["None."]
        return ["", "## Runs with values that are not finite", "", *table]

    def _time(self) -> list[str]:
        num, computed, seconds = (self.meta[key] for key in ("num_runs", "num_computed", "run_seconds"))
        runs = counted(num, "run") + ("" if num == computed else f", of which {computed:,} by this process")
        # A call that found all chunks on disk computed no run.
        each = 1000 * seconds / max(computed, 1)
        compilation = self.meta["compile_seconds"]
        versions = ", ".join(f"{name} {version}" for name, version in self.meta["versions"].items() if version)
        return [
            "",
            "## Time",
            "",
            f"{runs}, in {seconds:.3g} s, {each:.3g} ms each, after {compilation:.3g} s of compilation.",
            f"On {self.meta['device']}; {versions}.",
        ]


def _non_finite_rows(run: str, dataset: xr.Dataset) -> list[list[str]]:
    """Returns a row ``[run, metric, label, "3 of 10"]`` for each metric and text label with runs not finite."""
    rows = []
    for metric, values in dataset.data_vars.items():
        bad = ~finite_values(values)
        # A run counts once for each label, however many of its steps are bad.
        labels = [dim for dim in bad.dims if dim in bad.coords and holds_text(bad[dim])]
        own = bad.dims[bad.dims.index("seed") + 1 :] if "seed" in bad.dims else ()
        bad = bad.any([dim for dim in own if dim not in labels])
        total = bad.size // math.prod(bad.sizes[dim] for dim in labels)
        count = bad.sum([dim for dim in bad.dims if dim not in labels])
        for index in np.ndindex(count.shape):
            number = int(count.values[index])
            if number:
                where = ", ".join(str(count[dim].values[i]) for dim, i in zip(count.dims, index, strict=True))
                rows.append([run, str(metric), where, f"{number} of {total}"])
    return rows


def _from_here(path: Path) -> str:
    """Returns a path relative to the current folder where it is below it, and else as it is."""
    here = Path.cwd()
    shown = (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()
    # A name that begins with a dash would be taken for an option.
    return f"./{shown}" if shown.startswith("-") else shown


def _config_from_here(config: Config) -> str:
    """Returns the argument that names the config on the command line."""
    path = config.path.resolve()
    name = None if path.is_relative_to(Path.cwd()) else shipped_name(path)
    return _from_here(path) if name is None else name


def path_in_project(config: Config) -> str:
    """Returns the path of a config's file as a reader can use it: relative to the root of its project.

    Args:
        config: a loaded config.

    Returns:
        The path below the project's root, see :func:`mixjax.runner.configs.locating.project_root`.
    """
    path = config.path.resolve()
    return path.relative_to(project_root(path)).as_posix()
