"""Finds the page of a result, or makes it."""

from __future__ import annotations

import os
from pathlib import Path

from mixjax.files import local_path, write_whole
from mixjax.runner import results
from mixjax.runner.pages.result import ResultPage

__all__ = ["report_page"]


def report_page(path: Path) -> Path:
    """Returns the page of a result, and writes it where the result has none.

    Args:
        path: the folder of the result.

    Returns:
        The file ``report.html`` in it.

    Raises:
        OSError: the folder holds no result, or a damaged one, or cannot be written.
    """
    runs, meta, claims = results.read(path), results.read_meta(path), results.read_claims(path)
    folder = local_path("result", path)
    page = folder / "report.html"
    # One that is there has the experiment's summary, and what went wrong.
    if page.is_file():
        return page
    config, figure = folder / "config.toml", folder / "figure.png"
    experiment = results.read_config(path).get("experiment", "of no experiment")
    text = ResultPage(
        folder.resolve().name,
        str(experiment),
        [["mixjax", "run", os.path.relpath(config)]],
        str(Path.cwd()),
        config.read_text(encoding="utf-8"),
        runs,
        claims,
        vars(meta),
        figure=figure.read_bytes() if figure.is_file() else None,
    ).text()
    write_whole(page, text)
    return page
