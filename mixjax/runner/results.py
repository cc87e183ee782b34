"""Writes results to disk, whole or not at all, and reads them back.

A result is a folder:

- ``config.toml``: the resolved config; ``mixjax run`` on it gives the same numbers again;
- ``metrics.npz``: the arrays, keyed "run/metric"; ``metrics.json``: their dims, coords and units, versions, device and
  times;
- ``figure.png``, ``claims.json`` (a list of rows), ``report.md`` (the above as text) and ``report.html`` (the same as a
  page for a browser, with weights over time);
- ``progress.jsonl``: the sweeps' records, a line after each chunk and each segment (see :mod:`mixjax.runner.tracking`);
- ``files``: a folder for each run of a :class:`mixjax.sweeps.HostLoop` with the files that it kept, such as a ledger.

::

    results = mixjax.runner.results.read("results/linear")  # dict[run name, xarray.Dataset], in config order
    results["(100, 1)"].error.mean("seed")
"""

import dataclasses
import glob
import io
import json
import os
import shutil
import tomllib
import traceback
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixjax.checks import requires
from mixjax.files import local_path, make_folder, writing
from mixjax.runner.claims import Claim
from mixjax.runner.configs import Config, ConfigError
from mixjax.runner.configs.fields import from_json
from mixjax.runner.metadata import ATTRS, Meta, RunMeta, metadata
from mixjax.runner.report import Report, path_in_project
from mixjax.sweeps.arrays import as_computable
from mixjax.sweeps.on_host import FILES as KEPT
from mixjax.sweeps.vectors import indexed

with requires("experiments", "mixjax.runner.results"):
    import xarray as xr

__all__ = ["FILES", "Results", "check_out", "read", "read_claims", "read_config", "read_meta", "render", "write"]

Results = dict[str, xr.Dataset]
"""Run name -> its metrics, in config order."""

FILES = (
    "config.toml", "metrics.npz", "metrics.json", "figure.png", "claims.json", "report.md", "report.html",
    "progress.jsonl",
)  # fmt: skip
"""The files of a result."""


def read(path: str | Path) -> Results:
    """Reads a result folder.

    Args:
        path: the folder, such as "results/linear".

    Returns:
        Run name -> xarray.Dataset, in config order. Each metric has the dimensions of the sweep's axes, "seed" and then
        its own, and ``attrs["units"]``. The attributes of the dataset are those of :func:`mixjax.sweep`.

    Raises:
        FileNotFoundError: the folder holds no result.
        OSError: its files are damaged.

    Example:
        >>> import mixjax
        >>> error = mixjax.runner.results.read("results/linear")["(100, 1)"].error  # doctest: +SKIP
    """
    path = _folder(path)
    meta = read_meta(path)
    if not meta.runs:
        raise OSError(f"{path}: metrics.json is damaged, it names no run; run it again")
    try:
        with np.load(path / "metrics.npz") as arrays:
            return {name: _dataset(name, run, arrays) for name, run in meta.runs.items()}
    except OSError:
        raise
    # A damaged archive raises errors of many kinds, depending on where it is cut or altered.
    except Exception as exc:
        raise OSError(f"{path}: metrics.json or metrics.npz is damaged; run it again ({_one_line(exc)})") from exc


def read_meta(path: str | Path) -> Meta:
    """Reads the ``metrics.json`` of a result folder.

    Args:
        path: the folder.

    Returns:
        Its content, checked.

    Raises:
        FileNotFoundError: the folder holds no result.
        OSError: the file is damaged.
    """
    if not (_folder(path) / "metrics.json").is_file():
        raise FileNotFoundError(f"{path}: holds no result of `mixjax run` (no metrics.json)")
    meta = _read_json(_folder(path) / "metrics.json", Meta)
    # A result of a version that did not count them tells no runs of an earlier command apart.
    return meta if meta.num_computed is not None else dataclasses.replace(meta, num_computed=meta.num_runs)


def read_claims(path: str | Path) -> list[dict[str, Any]]:
    """Reads the ``claims.json`` of a result folder.

    Args:
        path: the folder.

    Returns:
        The rows.

    Raises:
        OSError: the file is missing or damaged.
    """
    return [dataclasses.asdict(claim) for claim in _read_json(_folder(path) / "claims.json", list[Claim])]


def read_config(path: str | Path) -> dict[str, Any]:
    """Reads the ``config.toml`` of a result folder, without its experiment.

    Args:
        path: the folder.

    Returns:
        The document.

    Raises:
        OSError: the file is missing or damaged.
    """
    path = _folder(path) / "config.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    # No TOML, no UTF-8, or an integer or a nesting beyond Python's limits.
    except (ValueError, RecursionError) as exc:
        raise OSError(f"{path}: is damaged; run it again ({_one_line(exc)})") from exc


def _folder(path: str | Path) -> Path:
    """Returns the path of a result folder; what is no path of the local file system holds no result."""
    try:
        return local_path("result", path)
    except ValueError as exc:
        raise FileNotFoundError(str(exc)) from None


def _read_json(path: Path, kind: Any) -> Any:
    """Reads a JSON file whose content must be of a type."""
    try:
        return from_json(kind, path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise OSError(f"{path}: is damaged; run it again ({_one_line(exc)})") from exc


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _dataset(name: str, run: RunMeta, arrays: Mapping[str, np.ndarray]) -> xr.Dataset:
    for metric in run.metrics:
        if (dtype := arrays[f"{name}/{metric}"].dtype).kind not in "biufc":
            raise ValueError(f"{metric} holds {dtype} in place of numbers")
    variables = {
        metric: (info.dims, arrays[f"{name}/{metric}"], {"units": info.units} if info.units else {})
        for metric, info in run.metrics.items()
    }
    coords = {k: (c.dims, np.asarray(c.values, dtype=c.dtype)) for k, c in run.coords.items()}
    attrs = {key: getattr(run, key) for key in ATTRS if getattr(run, key) is not None}
    return indexed(xr.Dataset(variables, coords, attrs))


def write(
    out: str | Path,
    config: Config,
    results: Results,
    *,
    figure: bytes | None,
    claims: Sequence[Mapping[str, Any]],
    summary: str = "",
    failures: Mapping[str, str] | None = None,
    progress: Path | None = None,
    files: Mapping[Path, str] | None = None,
) -> Path:
    """Writes a result folder, replacing an earlier one only when the new one is complete.

    Everything goes into a temporary folder beside ``out``, which is renamed at the end and removed on any failure.

    Args:
        out: the folder. It must not exist, or be empty, or hold an earlier result and nothing else.
        config: what was run.
        results: run name -> metrics.
        figure: a PNG (see :func:`render`), or None.
        claims: rows of ``claims.json`` (see :func:`mixjax.runner.claims.rows`).
        summary: Markdown for the head of the report.
        failures: "figure", "claims" or "summary" -> its traceback, for the report.
        progress: the file of the sweeps' records, copied if it exists.
        files: folder of files that runs have kept -> the name of the folder they come into, below ``files``. Several
            may come into one.

    Returns:
        ``out``, absolute.

    Raises:
        ConfigError: ``out`` cannot be written, see :func:`check_out`.
        OSError: the disk is full, for instance; names the folder.
    """
    out = check_out(out)
    make_folder("--out", out.parent)
    # Beside the target, so that a rename never crosses file systems; of a random name, so that two writers do not mix,
    # and what a killed one left is in nobody's way.
    new, old = (out.with_name(f".{out.name}.{uuid.uuid4().hex}.{kind}") for kind in ("new", "old"))
    with writing(out):
        try:
            new.mkdir()
            meta = metadata(results)
            _write_config(new / "config.toml", config, meta["versions"]["mixjax"])
            _write_arrays(new / "metrics.npz", results)
            _write_json(new / "metrics.json", meta)
            _write_json(new / "claims.json", claims)
            if figure is not None:
                (new / "figure.png").write_bytes(figure)
            if progress is not None and progress.exists():
                shutil.copyfile(progress, new / "progress.jsonl")
            for folder, name in (files or {}).items():
                if any(path.is_file() for path in folder.rglob("*")):
                    shutil.copytree(folder, new / KEPT / name, dirs_exist_ok=True)
            report = Report(
                config, out, results, claims, meta, summary, has_figure=figure is not None, failures=failures or {}
            )
            report = _with_page(report, new / "report.html", figure)
            (new / "report.md").write_text(report.text(), encoding="utf-8")
            # A folder cannot be renamed onto one that holds files: the earlier result steps aside for a moment.
            if out.exists():
                out.rename(old)
            new.rename(out)
        except BaseException:
            # Ctrl-C too: between the two renames there is no result at the target.
            if old.exists() and not out.exists():
                old.rename(out)
            raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
            if out.exists():
                shutil.rmtree(old, ignore_errors=True)
    # A killed writer has left these. What it moved aside is worth nothing any more: a later result is complete.
    for kind in ("new", "old"):
        for left in out.parent.glob(f".{glob.escape(out.name)}.{'[0-9a-f]' * 32}.{kind}"):
            shutil.rmtree(left, ignore_errors=True)
    return out


def _with_page(report: Report, path: Path, figure: bytes | None) -> Report:
    """Writes the page of a report; one that cannot be made is named in the report, since the runs are too dear."""
    try:
        path.write_text(report.page(figure), encoding="utf-8")
    except OSError:
        raise
    except Exception:
        return dataclasses.replace(report, failures={**report.failures, "page": traceback.format_exc()})
    return report


def _write_config(path: Path, config: Config, version: str | None) -> None:
    header = f"# Resolved by mixjax {version} from {path_in_project(config)}; for `mixjax {config.command}`.\n"
    path.write_text(header + config.to_toml(), encoding="utf-8")


def _write_arrays(path: Path, results: Results) -> None:
    """Writes all metrics by the name "run/metric", bfloat16 as float32, since a .npy file has no type for it."""
    arrays = {
        f"{run}/{metric}": as_computable(np.asarray(values.values))
        for run, dataset in results.items()
        for metric, values in dataset.data_vars.items()
    }
    # pyright takes an array for savez's own keyword allow_pickle. A name with a slash cannot be that keyword.
    np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def check_out(out: str | Path) -> Path:
    """Makes a path absolute, and refuses it if writing there would delete anything but an earlier result.

    Args:
        out: the folder to write.

    Returns:
        Its absolute path.

    Raises:
        ConfigError: ``out`` is a file, the current folder or one above it; or it holds a file that :func:`write` does
            not write; or it cannot be made.
    """
    try:
        out = local_path("--out", out).resolve()
        # A report names the folder, and a report is text.
        str(out).encode()
    except UnicodeEncodeError as exc:
        raise ConfigError(f"--out {out}: the folder's name is no UTF-8") from exc
    except (ValueError, OSError, RuntimeError) as exc:  # a URL, a NUL, a name that is too long, a loop of links
        raise ConfigError(str(exc)) from exc
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; a result is a folder")
    # A typo in --out must not cost somebody's files.
    other = sorted(p.name for p in out.iterdir() if p.name not in (*FILES, KEPT)) if out.exists() else []
    if other:
        raise ConfigError(
            f"{out}: holds {other[0]!r}, which is no part of a result; give --out an empty or a new folder"
        )
    if Path.cwd().is_relative_to(out):
        raise ConfigError(f"{out}: is the folder you are in, or above it, which a result would replace; give another")
    # Checked now, not after hours of computing.
    above = next(p for p in out.parents if p.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ConfigError(f"{out}: cannot be made, {above} is no folder that can be written to")
    return out


def render(figure: Any) -> bytes:
    """Draws a matplotlib figure as a PNG, and closes it.

    Args:
        figure: a matplotlib Figure.

    Returns:
        The bytes of the file.

    Raises:
        TypeError: ``figure`` is no Figure.
        ImportError: matplotlib is missing (extra ``experiments``).

    Example:
        >>> import matplotlib.figure
        >>> render(matplotlib.figure.Figure())[1:4]
        b'PNG'
    """
    with requires("experiments", "mixjax.runner.results.render"):
        import matplotlib.figure
        import matplotlib.pyplot as plt

    if not isinstance(figure, matplotlib.figure.Figure):
        raise TypeError(f"figure must be a matplotlib Figure, got {type(figure).__name__}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
    # pyplot keeps every figure that it made until it is closed.
    plt.close(figure)
    return buffer.getvalue()
