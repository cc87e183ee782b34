"""What the options of `mixjax compare` mean: from results to the one table of values that is compared."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from mixjax.cli.terminal import Mistake
from mixjax.runner.configs import DEFAULT_RUN
from mixjax.runner.frames import columns, final, label_text, label_texts, to_frame
from mixjax.runner.results import Results

__all__ = [
    "along_dim",
    "as_number",
    "known_label",
    "metric_arrays",
    "select",
    "settle",
    "shorten",
    "unit_text",
]


def metric_arrays(folders: Mapping[str, Results], metric: str | None) -> list[xr.DataArray]:
    """The metric of every run that has it, with dimensions "result" and "run" of size 1 in front."""
    datasets = [(result, run, data) for result, runs in folders.items() for run, data in runs.items()]
    known = {
        str(name): unit_text(values)
        for _, _, data in datasets
        for name, values in data.data_vars.items()
        if "seed" in values.dims and values.dtype.kind in "biuf"
    }
    if metric is None and len(known) == 1:
        (metric,) = known
    if metric not in known:
        listed = ", ".join(name + unit for name, unit in known.items()) or "none: there are no numbers over seeds"
        given = "" if metric is None else f" {metric}"
        raise Mistake(f"--metric{given}: must be one of {listed}{_near(metric or '', known)}")
    arrays = [
        _labelled(data[metric]).expand_dims(result=[result], run=[run])
        for result, run, data in datasets
        if metric in data
    ]
    if len({unit_text(values) for values in arrays}) > 1:
        raise Mistake(f"--metric {metric}: has several units:{','.join(dict.fromkeys(map(unit_text, arrays)))}")
    return arrays


def _labelled(values: xr.DataArray) -> xr.DataArray:
    """With positions as the labels of dimensions that have none."""
    bare = [dim for dim in values.dims if dim not in values.coords]
    return values.assign_coords({dim: np.arange(values.sizes[dim]) for dim in bare})


def unit_text(values: xr.DataArray) -> str:
    """The unit in brackets, with a space before them; nothing where there is none."""
    return f" [{values.attrs['units']}]" if values.attrs.get("units") else ""


def _choices(arrays: Sequence[xr.DataArray]) -> dict[str, list[str]]:
    """Every dimension but the seeds, and every column of points -> its labels, in all of the arrays together."""
    labels: dict[str, dict[str, None]] = {}
    for values in arrays:
        for dim in values.dims:
            for name in [str(dim), *columns(values, dim)] if dim != "seed" else []:
                labels.setdefault(name, {}).update(dict.fromkeys(label_texts(values, name)))
    return {name: list(known) for name, known in labels.items()}


def _check_dim(option: str, dim: str, choices: Mapping[str, Sequence[str]]) -> None:
    if dim not in choices:
        several = [f"{d} ({shorten(labels)})" for d, labels in choices.items() if len(labels) > 1]
        known = "must be one of " + "; ".join(several) if several else "there is nothing but seeds"
        raise Mistake(f"{option}: {known}{_near(dim, choices)}")


def known_label(option: str, dim: str, text: str, labels: Sequence[str]) -> str:
    """The label that a text means: the same text, else the same number."""
    if text in labels:
        return text
    number = as_number(text)
    equal = [label for label in labels if as_number(label) == number]
    if not equal and isinstance(number, float):  # labels have six digits where these tell them apart
        equal = [label for label in labels if label == label_text(number)]
    if not equal:
        raise Mistake(f"{option}: {text!r} is no label of {dim} ({shorten(labels)}){_near(text, labels)}")
    return equal[0]


def as_number(text: str) -> float | str:
    """A text as a number, if it is one."""
    try:
        return float(text)
    except ValueError:
        return text


def shorten(labels: Sequence[str]) -> str:
    """Labels in a row, the middle ones left out where there are many."""
    labels = [repr(label) if "," in label else label for label in labels]
    return ", ".join(labels if len(labels) <= 8 else [*labels[:5], "...", labels[-1]])


def _near(text: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(text, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def select(
    arrays: Sequence[xr.DataArray], texts: Sequence[str], along: str | None, baseline: str | None
) -> tuple[list[xr.DataArray], list[str]]:
    """The labels of --select (and the baseline) alone, and the dimensions they belong to."""
    choices = _choices(arrays)
    wanted: dict[str, list[str]] = {}
    for text in texts:
        dim, equals, label = text.partition("=")
        if not equals:
            raise Mistake(f"--select {text}: write DIM=LABEL, for example --select step=100")
        _check_dim(f"--select {text}", dim, choices)
        wanted.setdefault(dim, []).append(known_label(f"--select {text}", dim, label, choices[dim]))
    if along in wanted and baseline is not None:
        wanted[along].append(known_label(f"--baseline {baseline}", along, baseline, choices[along]))
    for dim, labels in wanted.items():
        arrays = [values for values in arrays if dim in values.coords]
        kept = [[known in labels for known in label_texts(values, dim)] for values in arrays]
        arrays = [values.isel({values[dim].dims[0]: mask}) for values, mask in zip(arrays, kept, strict=True)]
    arrays = [values for values in arrays if values.size]
    if not arrays:
        raise Mistake(f"--select {' --select '.join(texts)}: nothing has all of these")
    return arrays, list(wanted)


def along_dim(arrays: Sequence[xr.DataArray], along: str | None) -> str:
    """The dimension to compare along: the one given, else the only one of the first kind that has several labels."""
    choices = _choices(arrays)
    text, axes = set(), {"run"}
    for values in arrays:
        for dim in (dim for dim in values.dims if dim not in ("result", "run", "seed")):
            names = columns(values, dim) or [str(dim)]
            text |= {name for name in names if values[name].dtype.kind in "OUT"}
            axes |= set(names) if values.dims.index(dim) < values.dims.index("seed") else set()
    several = [[dim for dim in dims if len(choices[dim]) > 1] for dims in ({"result"}, text, axes)]
    default = next(filter(None, several), [])
    along = along or (default[0] if len(default) == 1 else "")
    _check_dim(f"--along {along}".rstrip(), along, choices)
    return along


def settle(
    arrays: Sequence[xr.DataArray], mean: Sequence[str], along: str, *, keep: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """One row a value, a column for each dimension that varies or is kept; and how the others were settled."""
    choices = {dim: labels for dim, labels in _choices(arrays).items() if any(dim in v.dims[2:] for v in arrays)}
    for dim in mean:
        _check_dim(f"--mean {dim}", dim, choices)
        if dim in (along, *keep):
            raise Mistake(f"--mean {dim}: is compared or selected; average over another dimension")
    frames, last = [], {}
    for values in arrays:
        averaged = values.mean([dim for dim in mean if dim in values.dims], skipna=False)
        reduced, at = final(averaged, [along, *keep])
        for dim, label in at.items():
            last.setdefault(dim, {})[label] = None
        frames.append(to_frame(reduced, str(values.name), joined=along))
    frame = pd.concat(frames, ignore_index=True)
    dims = [name for name in frame.columns if name not in ("seed", arrays[0].name)]
    frame[dims] = frame[dims].fillna("")  # a dimension that this run does not have
    settled = [f"{dim} = {', '.join(labels)} (last)" for dim, labels in last.items()]
    settled += [f"mean over {dim}" for dim in mean]
    constant = [dim for dim in dims if frame[dim].nunique() == 1 and dim != along]
    settled += [f"{dim} = {frame[dim][0]}" for dim in constant if dim != "result" and frame[dim][0] != DEFAULT_RUN]
    return frame.drop(columns=constant), settled
