"""Results on disk: written whole or not at all, read back in one line.

A result is a folder:

- `config.toml`: the resolved config; `mixjax run` on it gives the same numbers again;
- `metrics.npz`: the arrays, keyed "run/metric"; `metrics.json`: their dims, coords and units, versions, device, timing;
- `figure.png`, `claims.json` (a list of rows) and `report.md` (all of it, to read);
- `progress.jsonl`: the sweeps' records, a line after each chunk and each segment (see `mixjax.runner.tracking`).

```python
import mixjax.runner.results

results = mixjax.runner.results.read("results/linear")  # dict[run name, xarray.Dataset], in config order
results["(100, 1)"].error.mean("seed")
```
"""

import importlib.metadata
import io
import json
import math
import os
import platform
import shlex
import shutil
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mixjax.runner.claims import claims_table
from mixjax.runner.configs import Config, ConfigError

try:
    import xarray as xr
except ImportError as exc:
    raise ImportError(f"mixjax.runner.results needs {exc.name}: pip install 'mixjax[experiments]'") from exc

__all__ = ["FILES", "Results", "check_out", "read", "render", "write"]

Results = dict[str, xr.Dataset]
"""Run name -> its metrics, in config order."""

FILES = ("config.toml", "metrics.npz", "metrics.json", "figure.png", "claims.json", "report.md", "progress.jsonl")
_COUNTS = ("num_runs", "num_computed", "compile_seconds", "run_seconds")
_ATTRS = (*_COUNTS, "chunk", "vectorize")


def read(path: str | Path) -> Results:
    """Reads a result folder.

    Args:
        path: the folder, such as "results/linear".

    Returns:
        Run name -> xarray.Dataset, in config order. Each metric has dims (*axes, "seed", *its own) and
        `attrs["units"]`; the dataset's attrs are those of :func:`mixjax.sweep`.

    Raises:
        FileNotFoundError: the folder holds no result.
        OSError: its files are damaged.

    Example:
        >>> import mixjax.runner.results
        >>> error = mixjax.runner.results.read("results/linear")["(100, 1)"].error  # doctest: +SKIP
    """
    path = Path(path)
    if not (path / "metrics.json").is_file():
        raise FileNotFoundError(f"{path}: holds no result of `mixjax run` (no metrics.json)")
    try:
        meta = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
        with np.load(path / "metrics.npz") as arrays:
            return {name: _dataset(name, run, arrays) for name, run in meta["runs"].items()}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        raise OSError(f"{path}: metrics.json or metrics.npz is damaged; run it again ({exc})") from exc


def _dataset(name: str, run: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> xr.Dataset:
    variables = {
        metric: (info["dims"], arrays[f"{name}/{metric}"], {"units": info["units"]} if info["units"] else {})
        for metric, info in run["metrics"].items()
    }
    coords = {k: (c["dims"], np.asarray(c["values"], dtype=c["dtype"])) for k, c in run["coords"].items()}
    return xr.Dataset(variables, coords, {key: run[key] for key in _ATTRS if run.get(key) is not None})


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
) -> Path:
    """Writes a result folder, replacing an earlier one only when the new one is complete.

    Everything goes into a temporary folder beside `out`, which is renamed at the end and removed on any failure.

    Args:
        out: the folder; it must not exist, or be empty, or hold an earlier result and nothing else.
        config: what was run.
        results: run name -> metrics.
        figure: a PNG (see `render`), or None.
        claims: rows of `claims.json` (see `mixjax.runner.claims.rows`).
        summary: Markdown for the head of the report.
        failures: "figure", "claims" or "summary" -> what went wrong with it, for the report.
        progress: the file of the sweeps' records, copied if it exists.

    Returns:
        `out`, absolute.

    Raises:
        ConfigError: `out` holds something else.
    """
    out = check_out(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    new, old = (out.with_name(f".{out.name}.{os.getpid()}.{kind}") for kind in ("new", "old"))
    try:
        new.mkdir()
        meta = _meta(results)
        version = meta["versions"]["mixjax"]
        header = f"# Resolved by mixjax {version} from {_shown(config)}; for `mixjax {config.command}`.\n"
        (new / "config.toml").write_text(header + config.to_toml(), encoding="utf-8")
        arrays = {f"{run}/{metric}": _array(v) for run, ds in results.items() for metric, v in ds.data_vars.items()}
        np.savez_compressed(new / "metrics.npz", **arrays)
        _write_json(new / "metrics.json", meta)
        _write_json(new / "claims.json", claims)
        if figure is not None:
            (new / "figure.png").write_bytes(figure)
        if progress is not None and progress.exists():
            shutil.copyfile(progress, new / "progress.jsonl")
        report = _report(config, out, results, claims, summary, meta, figure is not None, failures or {})
        (new / "report.md").write_text(report, encoding="utf-8")
        if out.exists():
            out.rename(old)
        new.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
    return out


def check_out(out: str | Path) -> Path:
    """Makes `out` absolute, and refuses one whose replacement would delete anything but an earlier result.

    Args:
        out: the folder to write.

    Returns:
        Its absolute path.

    Raises:
        ConfigError: it is a file, the current folder or one above it, or holds a file that `write` does not write.
    """
    out = Path(out).resolve()
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; a result is a folder")
    other = sorted(p.name for p in out.iterdir() if p.name not in FILES) if out.exists() else []
    if other:
        raise ConfigError(
            f"{out}: holds {other[0]!r}, which is no part of a result; give --out an empty or a new folder"
        )
    if Path.cwd().is_relative_to(out):
        raise ConfigError(f"{out}: is the folder you are in, or above it, which a result would replace; give another")
    above = next(p for p in out.parents if p.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ConfigError(f"{out}: cannot be made, {above} is no folder that can be written to")
    return out


def render(figure: Any) -> bytes:
    """A matplotlib figure as PNG bytes; closes it.

    Args:
        figure: a matplotlib Figure.

    Returns:
        The bytes of the file.

    Raises:
        TypeError: not a Figure.
        ImportError: matplotlib is missing (extra `experiments`).

    Example:
        >>> import matplotlib.figure
        >>> render(matplotlib.figure.Figure())[1:4]
        b'PNG'
    """
    try:
        import matplotlib.figure
        import matplotlib.pyplot as plt
    except ImportError as exc:
        raise ImportError(f"figures need {exc.name}: pip install 'mixjax[experiments]'") from exc
    if not isinstance(figure, matplotlib.figure.Figure):
        raise TypeError(f"figure must return a matplotlib Figure, got {type(figure).__name__}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()


def _meta(results: Results) -> dict[str, Any]:
    runs = {}
    for name, dataset in results.items():
        runs[name] = {
            "metrics": {
                metric: {"dims": list(variable.dims), "units": variable.attrs.get("units", "")}
                for metric, variable in dataset.data_vars.items()
            },
            "coords": {
                key: {"dims": list(coord.dims), "values": _coordinate(coord.values), "dtype": _dtype(coord.values)}
                for key, coord in dataset.coords.items()
            },
            **{key: dataset.attrs.get(key) for key in _ATTRS},
        }
    devices = jax.devices()
    cores = f", {os.cpu_count()} cores" if devices[0].platform == "cpu" else ""
    libraries = ("mixjax", "jax", "jaxlib", "flax", "optax", "numpy", "xarray")
    return {
        **{key: sum(run[key] or 0 for run in runs.values()) for key in _COUNTS},
        "device": f"{len(devices)} x {devices[0].device_kind} ({platform.machine()}{cores})",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in libraries}},
        "runs": runs,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _array(variable: xr.DataArray) -> np.ndarray:
    values = np.asarray(variable.values)
    return values.astype(np.float32) if values.dtype.kind == "V" else values  # bfloat16 has no place in a .npy file


def _dtype(values: np.ndarray) -> str:
    return "str" if values.dtype.kind in "OUT" else str(values.dtype)


def _coordinate(values: Any) -> Any:
    """A coordinate as JSON; an infinity (a valid beta) is kept as the text "inf"."""
    if isinstance(values, np.ndarray):
        values = (values.astype(str) if _dtype(values) == "str" else values).tolist()
    if isinstance(values, list):
        return [_coordinate(v) for v in values]
    return str(values) if isinstance(values, float) and not math.isfinite(values) else values


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _shown(config: Config) -> str:
    """The config's path as a reader can use it: relative to its project."""
    path = config.path.resolve()
    root = next((p for p in path.parents if (p / "pyproject.toml").is_file()), path.parent)
    return path.relative_to(root).as_posix()


def _non_finite(results: Results) -> list[tuple[str, str, str, str]]:
    """(run, metric, labels, "bad of all") for every metric and label (method, ...) with non-finite runs."""
    rows = []
    for run, dataset in results.items():
        for metric, variable in dataset.data_vars.items():
            if variable.dtype.kind not in "fcV":
                continue
            bad = ~np.isfinite(variable.astype(np.float32) if variable.dtype.kind == "V" else variable)
            labels = [d for d in bad.dims if d in bad.coords and _dtype(bad[d].values) == "str"]
            own = bad.dims[bad.dims.index("seed") + 1 :] if "seed" in bad.dims else ()
            bad = bad.any([d for d in own if d not in labels])
            total = bad.size // math.prod(bad.sizes[d] for d in labels)
            count = bad.sum([d for d in bad.dims if d not in labels])
            for index in np.ndindex(count.shape):
                if number := int(count.values[index]):
                    where = ", ".join(str(count[d].values[i]) for d, i in zip(count.dims, index, strict=True))
                    rows.append((run, metric, where, f"{number} of {total}"))
    return rows


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in line) + " |" for line in lines]


def _report(
    config: Config,
    out: Path,
    results: Results,
    claims: Sequence[Mapping[str, Any]],
    summary: str,
    meta: Mapping[str, Any],
    figure: bool,
    failures: Mapping[str, str],
) -> str:
    command = ["mixjax", config.command, _shown(config), *(word for o in config.overrides for word in ("--set", o))]
    if out != Path("results", config.name).resolve():
        command += ["--out", (out.relative_to(Path.cwd()) if out.is_relative_to(Path.cwd()) else out).as_posix()]
    lines = [f"# {config.name}", "", f"`{config.experiment}`; to reproduce:", "", "```sh", shlex.join(command), "```"]
    lines += ["", f"or `mixjax {config.command} config.toml`, the resolved config beside this file.", ""]
    for part, error in failures.items():
        lines += [f"**The {part} failed**; the metrics are complete.", "", "```", error.rstrip(), "```", ""]
    if summary:
        lines += ["## Summary", "", summary.rstrip(), ""]
    lines += [
        "## Claims",
        "",
        "Value ± standard error over the seeds; undecided: see the note, else within the error.",
        "",
    ]
    header = ("claim", "holds", "value", "threshold", "seeds", "statement", "note")
    texts = [
        (*text, row["num_seeds"], f"{row['statement']} ({row['source']})", row["note"])
        for text, row in zip(claims_table(claims), claims, strict=True)
    ]
    lines += _table(header, texts) if texts else ["None."]
    if figure:
        lines += ["", "## Figure", "", f"![{config.name}](figure.png)"]
    bad = _non_finite(results)
    lines += ["", "## Runs with values that are not finite", ""]
    lines += _table(("run", "metric", "of", "runs"), bad) if bad else ["None."]
    num, computed = meta["num_runs"], meta["num_computed"]
    timing = f"{num} runs" if num == computed else f"{num} runs, of which {computed} by this process"
    timing += f", in {meta['run_seconds']:.3g} s, {1000 * meta['run_seconds'] / max(computed, 1):.3g} ms each"
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items() if version)
    lines += ["", "## Time", "", f"{timing}, after {meta['compile_seconds']:.3g} s of compilation."]
    lines += [f"On {meta['device']}; {versions}."]
    return "\n".join(lines) + "\n"
