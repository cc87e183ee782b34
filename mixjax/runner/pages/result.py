"""Writes the page of a result, ``report.html``: claims, figure, weights over time, and how to run it again."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixjax.runner.comparison import divergent_runs
from mixjax.runner.frames import label_texts, with_vector_texts
from mixjax.runner.pages.charts import interval, legend, line_chart
from mixjax.runner.pages.curves import Curves, all_curves
from mixjax.runner.pages.elements import Html, document, element, joined
from mixjax.runner.pages.embedding import embedded
from mixjax.runner.pages.finals import final_tables
from mixjax.runner.pages.markdown import markdown
from mixjax.runner.pages.tables import Cell, facts, sections, table
from mixjax.runner.texts import claim_texts, counted, seconds_text, verdict
from mixjax.statistics import critical_value

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ResultPage"]

_MAX_SETTINGS, _MAX_LOST, _MAX_CLAIMS = 40_000, 200, 400
# Charts of one metric beyond these unfold on demand.
_MAX_OPEN = 9
_ALL = "the resolved config beside this page"


@dataclasses.dataclass(frozen=True)
class ResultPage:
    """Holds what the page of a result tells; :meth:`text` writes it.

    Args:
        title: name of the result.
        experiment: such as "module:function".
        commands: command lines, each as a list of words, that give the result again.
        folder: where they are to be run, or "".
        settings: the resolved config as TOML.
        results: run name -> metrics.
        claims: rows of ``claims.json``.
        meta: the content of ``metrics.json``.
        summary: Markdown of the experiment, or "".
        figure: a PNG, or None.
        failures: "figure", "claims" or "summary" -> the traceback of what went wrong with it.
    """

    title: str
    experiment: str
    commands: Sequence[Sequence[str]]
    folder: str
    settings: str
    results: Mapping[str, xr.Dataset]
    claims: Sequence[Mapping[str, Any]]
    meta: Mapping[str, Any]
    summary: str = ""
    figure: bytes | None = None
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def text(self) -> str:
        """Writes the page.

        Returns:
            HTML, one file that loads nothing.
        """
        results = {run: with_vector_texts(dataset) for run, dataset in self.results.items()}
        curves = all_curves(results)
        weights = [each for each in curves if each.kind in ("c", "q")]
        others = [each for each in curves if each.kind not in ("c", "q")]
        lost = {run: divergent_runs(data) for run, data in results.items() if _has_runs(data)}
        parts: list[tuple[str, str, Sequence[Html | None]]] = [
            ("failures", "What failed", self._failures()),
            ("summary", "Summary", [markdown(self.summary)] if self.summary.strip() else []),
            ("claims", "Claims", self._claims()),
            ("figure", "Figure", [] if self.figure is None else embedded(self.figure, f"Figure of {self.title}")),
            ("weights", "Weights over time", _curve_parts(weights)),
            ("curves", "Other curves", _curve_parts(others)),
            ("values", "Last values", final_tables(results)),
            ("diverged", "Runs that diverged", _lost_parts(lost)),
            ("reproduce", "Run it again", self._reproduce()),
            ("settings", "Settings", self._settings()),
            ("time", "Time", self._time()),
        ]
        head = [element("h1", self.title), element("p", element("code", self.experiment), class_="soft")]
        return document(f"{self.title} - mixjax", *head, self._facts(lost), sections(parts))

    def _facts(self, lost) -> Html:
        counts = Counter(verdict(row["holds"]) for row in self.claims)
        num_lost = sum(int(each.sum()) for each in lost.values())
        num_runs = self.meta["num_runs"]
        found = [(f"{num_runs:,}", "run" if num_runs == 1 else "runs")]
        for word, one, several in (
            ("yes", "claim holds", "claims hold"),
            ("no", "claim does not hold", "claims do not hold"),
            ("undecided", "claim is undecided", "claims are undecided"),
        ):
            found += [(counts[word], one if counts[word] == 1 else several)] if counts[word] else []
        found += [(f"{num_lost:,}", "diverged")] if num_lost else []
        return facts(*found, (seconds_text(self.meta["run_seconds"]), "of computing"))

    def _failures(self) -> list[Html]:
        return [
            joined(element("h3", f"The {part} failed; the metrics are complete."), element("pre", error.rstrip()))
            for part, error in self.failures.items()
        ]

    def _claims(self) -> list[Html]:
        if not self.claims:
            return []
        explained = (
            "A bar is the interval of the value over the seeds, at the level that decides the claim; the dashed mark "
            "is the threshold. Each bar has an axis of its own. Where a claim is undecided the note says why; without "
            "a reason there, the value is too close to the threshold for its error."
        )
        shown = self.claims[:_MAX_CLAIMS]
        with_notes = any(row["note"] for row in shown)
        rows = [_claim(row, texts, with_notes) for row, texts in zip(shown, claim_texts(shown), strict=True)]
        header = ["claim", "holds", "interval", "value", "threshold", "seeds", *(["note"] if with_notes else [])]
        parts = [element("p", explained), table(header, rows, caption="Claims")]
        if len(shown) < len(self.claims):
            note = f"{len(shown)} of {len(self.claims)} claims are shown; claims.json has all."
            parts.append(element("p", note, class_="notes"))
        return parts

    def _reproduce(self) -> list[Html]:
        lines = [element("pre", shlex.join(command)) for command in self.commands]
        where = [element("p", "In ", element("code", self.folder), ":")] if self.folder else []
        return [*where, *lines] if lines else []

    def _settings(self) -> list[Html]:
        text = self.settings
        if len(text) > _MAX_SETTINGS:
            text = f"{text[:_MAX_SETTINGS]}\n... ({_ALL} has the rest)"
        return [element("pre", text.strip())] if text.strip() else []

    def _time(self) -> list[Html]:
        num, computed, seconds = (self.meta[key] for key in ("num_runs", "num_computed", "run_seconds"))
        runs = counted(num, "run") + ("" if num == computed else f", of which {computed:,} by this process")
        # A call that found all chunks on disk computed no run.
        each = 1000 * seconds / max(computed, 1)
        versions = ", ".join(f"{name} {version}" for name, version in self.meta["versions"].items() if version)
        compilation = self.meta["compile_seconds"]
        told = f"{runs}, in {seconds:.3g} s, {each:.3g} ms each, after {compilation:.3g} s of compilation."
        return [element("p", told), element("p", f"On {self.meta['device']}; {versions}.")]


def _claim(row, texts, with_notes) -> list[Any]:
    """Makes the cells of a claim."""
    low = high = None
    if row["value"] is not None and row["stderr"] is not None and row["num_seeds"] > 1:
        half = critical_value(2.0, row["num_seeds"]) * row["stderr"]
        low, high = row["value"] - half, row["value"] + half
    drawn = interval(row["value"], low, high, at=row["threshold"], ends=None)
    order = {"yes": 0, "undecided": 1, "no": 2}[texts.holds]
    said = [
        element("b", row["name"]),
        element("br"),
        row["statement"],
        " ",
        element("span", f"({row['source']})", class_="soft"),
    ]
    return [
        Cell(joined(*said), style="claim"),
        Cell(texts.holds, order, texts.holds),
        Cell("" if drawn is None else drawn, row["value"], f"number {texts.holds}"),
        Cell(texts.value, row["value"], "number"),
        Cell(texts.threshold, row["threshold"], "number"),
        Cell(row["num_seeds"], row["num_seeds"], "number"),
        *([Cell(row["note"], style="note")] if with_notes else []),
    ]


def _has_runs(dataset) -> bool:
    return bool(dataset.data_vars) and all("seed" in values.dims for values in dataset.data_vars.values())


def _curve_parts(curves: Sequence[Curves]) -> list[Html]:
    if not curves:
        return []
    explained = (
        "A line is the mean over the seeds that are finite there, its band the interval of the mean over the seeds. "
        "Values appear below the pointer, and with the arrow keys on a chart that has the focus; a press on a name "
        "lifts its lines out."
    )
    return [
        element("p", explained, class_="notes"),
        element("div", *(_curve_section(each) for each in curves), class_="charts"),
    ]


def _curve_section(curves: Curves) -> Html:
    """Makes the section of a metric, in which its legend acts."""
    named = None
    if curves.metric not in curves.heading:
        named = element("span", " ", element("code", curves.metric), class_="soft")
    # Weights of methods are compared with each other, and so have one axis.
    beside = curves.charts if curves.kind in ("c", "q") else ()
    drawn = [line_chart(chart, beside) for chart in curves.charts]
    first, more = (drawn, []) if len(drawn) <= _MAX_OPEN + 3 else (drawn[:_MAX_OPEN], drawn[_MAX_OPEN:])
    parts = [element("div", *first, class_="charts")] if first else []
    if more:
        inner = element("div", *more, class_="charts")
        parts.append(element("details", element("summary", f"{len(more)} more charts"), inner))
    head = element("h3", curves.heading, named)
    notes = [element("p", note, class_="notes") for note in curves.notes]
    # A single chart stands beside others.
    style = "several" if len(drawn) > 1 else None
    return element("section", head, legend(curves.names) if drawn else None, *parts, *notes, class_=style)


def _lost_parts(lost: Mapping[str, Any]) -> list[Html]:
    """Lists the runs with a value that is not finite, and counts them."""
    rows: list[list[str]] = []
    total = 0
    for run, bad in lost.items():
        total += int(bad.sum())
        texts = {str(dim): label_texts(bad, str(dim)) for dim in bad.dims}
        for index in np.argwhere(bad.values)[: max(_MAX_LOST - len(rows), 0)]:
            where = [f"{dim} {texts[dim][i]}" for dim, i in zip(texts, index.tolist(), strict=True) if dim != "seed"]
            rows.append([run, ", ".join(where), texts["seed"][index[list(texts).index("seed")]]])
    if not rows:
        return [element("p", "None: all values of all runs are finite.")]
    header = ["run", "setting", "seed"]
    shown = f"; {len(rows)} of them are listed" if len(rows) < total else ""
    told = f"{total:,} {'runs have' if total > 1 else 'run has'} a value that is not finite{shown}."
    return [element("p", told), table(header, rows, caption="Runs that diverged")]
