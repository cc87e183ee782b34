"""Writes the page of a run that goes on, which a browser reads again every few seconds."""

from __future__ import annotations

import math
import time

from mixjax.runner.domain_rows import DomainRow, domain_rows, worst_domain
from mixjax.runner.pages.elements import Html, document, element, joined
from mixjax.runner.pages.tables import Cell, facts, sections, table
from mixjax.runner.texts import seconds_text
from mixjax.runner.watching import Progress, View

__all__ = ["runs_text", "state_text", "time_texts", "watch_page"]


def state_text(seen: View) -> str:
    """Names the state of a run.

    Args:
        seen: what is known of the run.

    Returns:
        "waiting", "running", "finished", or "perhaps ended" where nothing says that it is running.
    """
    return "perhaps ended" if seen.is_silent else seen.state


def time_texts(seen: View) -> list[str]:
    """Writes the times of a run that goes on: what is left, and when something was last written.

    Args:
        seen: what is known of the run.

    Returns:
        Texts; none about a time that is not known.
    """
    found = []
    if seen.state != "running":
        return found
    if seen.eta is not None and not seen.is_silent:
        found.append(f"{seconds_text(round(seen.eta))} left" + ("" if seen.is_last_part else " in this part"))
    # Before its first file a run has written nothing, and the age is infinite.
    if math.isfinite(seen.age):
        found.append(f"last written {seconds_text(round(seen.age))} ago")
    if seen.is_silent:
        found.append("nothing says that it is running")
    return found


def runs_text(part: Progress, of: str) -> str:
    """Writes how many runs of a part are done.

    Args:
        part: a part of a config.
        of: what stands between the runs that are done and all of them.

    Returns:
        The text, such as "2/4"; "begun" or "not begun" where no record tells.
    """
    if not part.total:
        return "begun" if part.is_begun else "not begun"
    return f"{part.done:.4g}{of}{part.total}"


def watch_page(seen: View, *, refresh: int | None) -> str:
    """Writes how far a run is as a page.

    Args:
        seen: what is known of the run.
        refresh: seconds after which a browser reads the file again; None for a page that stays as it is.

    Returns:
        HTML, one file that loads nothing.
    """
    parts = [("progress", "Progress", _progress(seen)), ("domains", "Domains", _domains(seen))]
    head = element("h1", seen.folder.as_posix())
    title = f"{state_text(seen)}: {seen.folder.name} - mixjax"
    return document(title, head, _facts(seen), sections(parts), refresh=refresh)


def _facts(seen: View) -> Html:
    found: list[tuple[str, str]] = [(state_text(seen), ""), *((text, "") for text in time_texts(seen))]
    if seen.ledger is not None:
        found.append((f"{max(seen.ledger.step + 1, 0):,}", "steps drawn"))
        found.append((f"{int(seen.ledger.drawn.sum()):,}", "rows drawn"))
    worst = worst_domain(domain_rows(seen))
    if worst is not None:
        found.append((worst.name, f"is the worst domain, loss {worst.loss:.4g}"))
    found.append((time.strftime("%H:%M:%S"), "was the time of this view"))
    return facts(*found)


def _progress(seen: View) -> list[Html]:
    rows = []
    for part in seen.parts:
        share = part.done / part.total if part.total else 0.0
        done = runs_text(part, " of ")
        segment = f"{part.segment} of {part.segments}" if part.segments > 1 else ""
        rows.append(
            [
                part.name or "runs",
                Cell(_meter(share), share),
                Cell(done, part.done, "number"),
                Cell(segment, part.segment, "number"),
                Cell(part.diverged, part.diverged, "number"),
            ]
        )
    header = ["part", "progress", "runs", "segment", "diverged"]
    return [table(header, rows, caption="Progress of all parts")] if rows else []


def _domains(seen: View) -> list[Html]:
    rows = domain_rows(seen)
    max_q, max_c = (max((v for v in values if math.isfinite(v)), default=0.0) for values in _weights(rows))
    body = []
    for row in rows:
        cells = [Cell(row.name)]
        for value, most in ((row.q, max_q), (row.c, max_c)):
            known = math.isfinite(value) and most > 0
            cells.append(Cell(joined(_meter(value / most), f" {value:.3f}") if known else "-", value, "number"))
        for value in (row.loss, row.drawn, row.asked):
            cells.append(Cell(f"{value:.3g}" if math.isfinite(value) else "-", value, "number"))
        limit = f" of {row.limit:.3g}" if math.isfinite(row.limit) else ""
        cells.append(Cell(f"{row.epochs:.3g}{limit}" if math.isfinite(row.epochs) else "-", row.epochs, "number"))
        body.append(cells)
    header = ["domain", "q, sampling weight", "c, loss weight", "loss", "drawn", "asked", "epochs"]
    if not body:
        return []
    said = []
    if seen.ledger is not None:
        said.append(element("p", "From ", element("code", seen.ledger_name), ".", class_="soft"))
    return [*said, table(header, body, caption="Domains")]


def _weights(rows: list[DomainRow]) -> tuple[list[float], list[float]]:
    return [row.q for row in rows], [row.c for row in rows]


def _meter(share: float) -> Html:
    share = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    inner = element("i", style=f"width: {100 * share:.1f}%")
    return element("span", inner, class_="meter", role="img", aria_label=f"{share:.0%}")
