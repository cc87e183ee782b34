"""Draws how far a run is, in a terminal of any width, with colours or without."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mixjax.files import write_whole
from mixjax.runner.domain_rows import DomainRow, domain_rows, worst_domain
from mixjax.runner.pages.watching import runs_text, state_text, time_texts, watch_page
from mixjax.runner.watching import Progress, View, view

__all__ = ["drawn", "watch_run"]

# Watching takes at most this share of the time of one core.
_SHARE = 0.004
_MAX_PARTS = 8
_STYLES = {"waiting": "yellow", "running": "cyan", "finished": "green"}


def watch_run(path: Path, *, once: bool, every: float, page: Path | None, console: Console) -> View:
    """Shows how far a run is until it is finished, or once.

    Args:
        path: as :func:`mixjax.runner.watching.view` takes it.
        once: show it once, as it is now.
        every: seconds between two looks, at least; looks that take long are fewer.
        page: a file that is kept up to date as a page, or None.
        console: the terminal.

    Returns:
        What was shown last.
    """
    seen = view(path)
    _write(page, seen, None if once else every)
    if once:
        console.print(drawn(seen, console))
        return seen
    with Live(drawn(seen, console), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while seen.state != "finished":
            start, used = time.monotonic(), time.process_time()
            found = view(path, seen)
            if (found.stamp, found.is_silent) != (seen.stamp, seen.is_silent):
                _write(page, found, every)
            seen = found
            live.update(drawn(seen, console), refresh=True)
            if seen.state == "finished":
                break
            used = time.process_time() - used
            time.sleep(max(every - (time.monotonic() - start), used / _SHARE))
    return seen


def _write(page: Path | None, seen: View, every: float | None) -> None:
    if page is not None:
        # A page about a run that is over stays as it is.
        refresh = None if every is None or seen.state == "finished" else max(round(every), 1)
        write_whole(page, watch_page(seen, refresh=refresh))


def drawn(seen: View, console: Console) -> RenderableType:
    """Draws a view.

    Args:
        seen: what is known of the run.
        console: the terminal, for its width, its height and its letters.

    Returns:
        What rich prints.
    """
    parts: list[RenderableType] = [_head(seen, console)]
    if seen.parts:
        parts.append(_progress(seen.parts, console))
    rows = domain_rows(seen)
    if seen.ledger is not None:
        parts += [Text(""), Text(_ledger_line(seen), overflow="fold")]
    if rows:
        # A head, a line for each part and a few more stand above and below the domains.
        room = max(console.height - 8 - min(len(seen.parts), _MAX_PARTS), 5) if console.is_terminal else len(rows)
        parts += _domains(rows, console, room)
    return Group(*parts)


def _head(seen: View, console: Console) -> Text:
    text = Text(seen.folder.as_posix(), style="bold", overflow="fold")
    text.append("  ")
    text.append(state_text(seen), style="yellow" if seen.is_silent else _STYLES[seen.state])
    if seen.state == "waiting":
        text.append("  nothing is written yet: the program is being compiled, or the run has not begun")
        return text
    if seen.state == "running" and seen.ledger is None and not any(part.total for part in seen.parts):
        text.append("  the first runs are being compiled or computed")
    for part in time_texts(seen):
        text.append(f"  {part}")
    return text


def _progress(parts: Sequence[Progress], console: Console) -> Table:
    # The part at work stays in sight.
    at_work = max((i for i, part in enumerate(parts) if part.is_begun), default=0)
    first = max(min(at_work - _MAX_PARTS // 2, len(parts) - _MAX_PARTS), 0)
    shown = parts[first : first + _MAX_PARTS]
    done = [runs_text(part, "/") for part in shown]
    names = [part.name or "runs" for part in shown]
    bar_width = min(max(console.width // 6, 8), 24)
    name_width = min(max(map(cell_len, names)), max(console.width // 3, 6))
    table = _table(console, [name_width, bar_width, max(map(len, done)), None])
    for part, name, runs in zip(shown, names, done, strict=True):
        share = part.done / part.total if part.total else 0.0
        more = [f"segment {part.segment}/{part.segments}"] if part.segments > 1 and share < 1 else []
        more += [f"{part.diverged} diverged"] if part.diverged else []
        more += [f"{part.rate:.3g} runs/s"] if part.rate and share < 1 else []
        table.add_row(Text(name), _bar(share, bar_width, console), Text(runs), Text(", ".join(more)))
    if len(parts) > _MAX_PARTS:
        finished = sum(1 for part in parts if part.total and part.done >= part.total)
        table.caption = f"{finished} of {len(parts)} parts done"
        table.caption_justify = "left"
    return table


def _table(console: Console, widths: Sequence[int | None]) -> Table:
    """Makes a table without lines, whose columns are as wide as said, or take what is left."""
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=False, width=console.width)
    for width in widths:
        # A terminal without the letter of three dots would show its code.
        cut = "crop" if console.options.ascii_only else "ellipsis"
        table.add_column(no_wrap=True, overflow=cut, width=width, ratio=None if width else 1)
    return table


def _bar(share: float, width: int, console: Console, most: float = 1.0) -> Text:
    """Draws a bar whose length is a share of the width; terminals without block letters get signs of numbers."""
    share = min(max(share / most if most > 0 else 0.0, 0.0), 1.0) if math.isfinite(share) else 0.0
    if console.options.ascii_only:
        return Text(("#" * round(share * width)).ljust(width, "."))
    eighths = round(share * width * 8)
    text = Text("█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8], style="cyan")
    return text.append(" " * (width - len(text)))


def _ledger_line(seen: View) -> str:
    tail = seen.ledger
    assert tail is not None, "only views with a ledger come here"
    rows = int(tail.drawn.sum())
    since = f" since step {tail.since:,}" if tail.since else ""
    texts = [f"step {tail.step:,}" if tail.step >= 0 else "no step yet", f"{rows:,} rows{since}"]
    if tail.budget and tail.unit == "rows" and not tail.since:
        texts.append(f"{rows / tail.budget:.1%} of the budget")
    if tail.ended:
        texts.append(f"ended: {tail.ended}")
    elif tail.events:
        last = tail.events[-1]
        texts.append(f"step {last.get('step', 0):,}: {last.get('event', '')}")
    return f"{seen.ledger_name}: " + ", ".join(texts)


# Name, least width of the terminal, number of a row, and whether a bar stands before the number.
_Column = tuple[str, int, Callable[[DomainRow], float], bool]
_COLUMNS: tuple[_Column, ...] = (
    ("q", 0, lambda row: row.q, True),
    ("c", 0, lambda row: row.c, True),
    ("loss", 60, lambda row: row.loss, False),
    ("drawn", 80, lambda row: row.drawn, False),
    ("asked", 80, lambda row: row.asked, False),
    ("epochs", 50, lambda row: row.epochs, False),
)


def _domains(rows: Sequence[DomainRow], console: Console, room: int) -> list[RenderableType]:
    columns = [
        column
        for column in _COLUMNS
        if console.width >= column[1] and any(math.isfinite(column[2](row)) for row in rows)
    ]
    room = max(room, 1)
    shown = list(rows)
    if len(rows) > room:
        shown = sorted(rows, key=lambda row: -_first_known(row.q, row.c, row.loss))[: max(room - 1, 1)]
    cells = {name: [_cell(name, row, number(row)) for row in shown] for name, _, number, _ in columns}
    widths = {name: max(map(len, [name, *texts])) for name, texts in cells.items()}
    name_width = min(max(6, *(cell_len(row.name) for row in shown)), max(console.width // 3, 6))
    # What is left beside the names and the numbers.
    bars = [name for name, _, _, has_bar in columns if has_bar]
    left = console.width - name_width - 2 - sum(widths.values()) - len(widths)
    bar_width = min(left // max(len(bars), 1) - 1, 24)
    with_bars = bar_width >= 3
    heads: list[RenderableType] = [Text("domain", style="bold")]
    column_widths: list[int | None] = [name_width]
    for name in widths:
        if with_bars and name in bars:
            heads.append(Text(""))
            column_widths.append(bar_width)
        heads.append(Text(name, style="bold", justify="right"))
        column_widths.append(widths[name])
    table = _table(console, [*column_widths, None])
    table.add_row(*heads, Text(""))
    worst = worst_domain(list(rows))
    longest = {name: max(number(row) for row in rows if math.isfinite(number(row))) for name, _, number, _ in columns}
    for i, row in enumerate(shown):
        line: list[RenderableType] = [Text(row.name, style="bold red" if row is worst else "")]
        for name, _, number, _ in columns:
            if with_bars and name in bars:
                line.append(_bar(number(row), bar_width, console, longest[name]))
            line.append(Text(cells[name][i], justify="right"))
        table.add_row(*line, Text(""))
    found: list[RenderableType] = [table]
    if len(shown) < len(rows):
        found.append(Text(f"and {len(rows) - len(shown)} more domains"))
    if worst is not None:
        found.append(Text(f"worst domain: {worst.name}, loss {worst.loss:.4g}", style="red"))
    return found


def _first_known(*numbers: float) -> float:
    return next((number for number in numbers if math.isfinite(number)), 0.0)


def _cell(name: str, row: DomainRow, number: float) -> str:
    if not math.isfinite(number):
        return "-"
    if name == "epochs":
        return f"{number:.3g}" + (f"/{row.limit:.3g}" if math.isfinite(row.limit) else "")
    return f"{number:.3g}" if name == "loss" else f"{number:.3f}"
