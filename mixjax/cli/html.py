"""Writes the pages that commands show: the report of a result, and where a page goes."""

from __future__ import annotations

import os
from pathlib import Path

from mixjax.cli.terminal import Mistake
from mixjax.files import local_path, make_folder, write_whole
from mixjax.runner import results
from mixjax.runner.pages import ResultPage

__all__ = ["output_file", "report_page"]


def output_file(option: str, path: Path, suffixes: tuple[str, ...]) -> Path:
    """Checks a file that a command will write, before anything is computed, and makes its folder.

    Args:
        option: the option that names the file, for messages.
        path: the file.
        suffixes: those that it may have.

    Returns:
        The path.

    Raises:
        Mistake: another suffix, a folder, or a file that cannot be written.
    """
    try:
        path = local_path(option, path)
    except ValueError as error:
        raise Mistake(error) from error
    if path.suffix not in suffixes:
        raise Mistake(f"{option} {path}: must end in {', '.join(suffixes)}")
    if path.is_dir():
        raise Mistake(f"{option} {path}: is a folder")
    try:
        make_folder(option, path.parent)
    except OSError as error:
        raise Mistake(error) from error
    return path


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
