"""The options of ``mixjax compare``: they turn results into the one table of values that is compared."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from mixjax.checks import closest
from mixjax.cli.terminal import Mistake
from mixjax.runner.configs import DEFAULT_RUN
from mixjax.runner.frames import (
    column_names,
    final_values,
    holds_numbers,
    holds_text,
    label_text,
    label_texts,
    long_frame,
)
from mixjax.runner.results import Results

__all__ = [
    "along_dim",
    "as_number",
    "known_label",
    "metric_arrays",
    "select_labels",
    "settle",
    "shorten",
    "unit_text",
]


def metric_arrays(folders: Mapping[str, Results], metric: str | None, option: str = "--metric") -> list[xr.DataArray]:
    """Collects a metric from every run that has it.

    Args:
        folders: name of a result -> its runs.
        metric: the metric's name; None takes the only one.
        option: the option that gave the name, for messages.

    Returns:
        One array for each run, with dimensions "result" and "run" of size 1 in front.

    Raises:
        Mistake: no such metric, or it has several units.
    """
    datasets = [(result, run, data) for result, runs in folders.items() for run, data in runs.items()]
    known = {
        str(name): unit_text(values)
        for _, _, data in datasets
        for name, values in data.data_vars.items()
        if "seed" in values.dims and holds_numbers(values)
    }
    if metric is None and len(known) == 1:
        (metric,) = known
    if metric not in known:
        listed = ", ".join(name + unit for name, unit in known.items()) or "none: there are no numbers over seeds"
        given = "" if metric is None else f" {metric}"
        raise Mistake(f"{option}{given}: must be one of {listed}{_suggestion(metric or '', known)}")
    arrays = [
        _labelled(data[metric]).expand_dims(result=[result], run=[run])
        for result, run, data in datasets
        if metric in data and "seed" in data[metric].dims and holds_numbers(data[metric])
    ]
    units = list(dict.fromkeys(unit_text(values) for values in arrays))
    if len(units) > 1:
        listed = ", ".join(unit.strip() or "none" for unit in units)
        raise Mistake(f"{option} {metric}: has several units, {listed}; compare results that share one")
    return arrays


def _labelled(values: xr.DataArray) -> xr.DataArray:
    """Gives dimensions without labels their positions as labels, so that --select and --along work for them too."""
    bare = [dim for dim in values.dims if dim not in values.coords]
    return values.assign_coords({dim: np.arange(values.sizes[dim]) for dim in bare})


def unit_text(values: xr.DataArray) -> str:
    """Returns the unit of a metric in brackets, with a space in front, such as " [nats]"; "" where it has none."""
    return f" [{values.attrs['units']}]" if values.attrs.get("units") else ""


def _choices(arrays: Sequence[xr.DataArray]) -> dict[str, list[str]]:
    """Returns the labels of each dimension but the seeds, and of each column of points, in all arrays together."""
    labels: dict[str, dict[str, None]] = {}  # dicts without values: sets that keep their order
    for values in arrays:
        for dim in (str(dim) for dim in values.dims if dim != "seed"):
            for name in [dim, *column_names(values, dim)]:
                labels.setdefault(name, {}).update(dict.fromkeys(label_texts(values, name)))
    return {name: list(known) for name, known in labels.items()}


def _check_dim(option: str, dim: str, choices: Mapping[str, Sequence[str]]) -> None:
    if dim not in choices:
        several = [f"{d} ({shorten(labels)})" for d, labels in choices.items() if len(labels) > 1]
        known = "must be one of " + "; ".join(several) if several else "there is nothing but seeds"
        raise Mistake(f"{option}: {known}{_suggestion(dim, choices)}")


def known_label(option: str, dim: str, text: str, labels: Sequence[str]) -> str:
    """Finds the label that a text means: the same text, or else the same number or vector.

    Args:
        option: the option that gave the text, for the message.
        dim: the dimension of the labels.
        text: as the user wrote it.
        labels: those of the dimension.

    Returns:
        One of the labels.

    Raises:
        Mistake: no such label.
    """
    if text in labels:
        return text
    number = as_number(text)
    equal = [label for label in labels if as_number(label) == number]
    if not equal and isinstance(number, float):  # labels have six digits, and the user may give all of them
        equal = [label for label in labels if label == label_text(number)]
    if not equal and text.startswith("["):  # a vector, which may be written without spaces
        equal = [label for label in labels if _tight(label) == _tight(text)]
    if not equal:
        raise Mistake(f"{option}: {text!r} is no label of {dim} ({shorten(labels)}){_suggestion(text, labels)}")
    return equal[0]


def _tight(text: str) -> str:
    return "".join(text.split())


def as_number(text: str) -> float | str:
    """Returns a text as a number, if it is one, and else as it is."""
    try:
        return float(text)
    except ValueError:
        return text


def shorten(labels: Sequence[str]) -> str:
    """Writes labels in a row, without those in the middle where there are more than eight."""
    labels = [repr(label) if "," in label else label for label in labels]
    return ", ".join(labels if len(labels) <= 8 else [*labels[:5], "...", labels[-1]])


def _suggestion(text: str, known: Iterable[str]) -> str:
    """Returns the end of a message that has listed all known names: the closest one, if any is close."""
    # Numbers that are spelled alike are no more alike than others.
    close = None if isinstance(as_number(text), float) else closest(text, known)
    return "" if close is None else f"; did you mean {close!r}?"


def select_labels(
    arrays: Sequence[xr.DataArray], texts: Sequence[str], along: str | None, baseline: str | None
) -> tuple[list[xr.DataArray], list[str]]:
    """Drops all labels but those of ``--select`` and the baseline's.

    An array without a selected dimension is dropped whole.

    Args:
        arrays: as :func:`metric_arrays` returns them.
        texts: "DIM=LABEL" each.
        along: the dimension that is compared, or None.
        baseline: its label to compare with, or None.

    Returns:
        The arrays that have something left, and the dimensions that were selected from.

    Raises:
        Mistake: an unknown dimension or label, or nothing is left.
    """
    choices = _choices(arrays)
    wanted: dict[str, list[str]] = {}
    for text in texts:
        dim, equals, label = text.partition("=")
        if not equals:
            raise Mistake(f"--select {text}: write DIM=LABEL, for example --select step=100")
        _check_dim(f"--select {text}", dim, choices)
        wanted.setdefault(dim, []).append(known_label(f"--select {text}", dim, label, choices[dim]))
    # Selecting labels along the compared dimension must not take away what they are compared with.
    if along in wanted and baseline is not None:
        wanted[along].append(known_label(f"--baseline {baseline}", along, baseline, choices[along]))
    kept = list(arrays)
    for dim, labels in wanted.items():
        kept = [_with_labels(values, dim, labels) for values in kept if dim in values.coords]
    kept = [values for values in kept if values.size]
    if not kept:
        raise Mistake(f"--select {' --select '.join(texts)}: nothing has all of these")
    return kept, list(wanted)


def _with_labels(values: xr.DataArray, name: str, labels: Sequence[str]) -> xr.DataArray:
    """Keeps some labels of a dimension, or of one of the columns along it."""
    mask = [label in labels for label in label_texts(values, name)]
    return values.isel({values[name].dims[0]: mask})


def along_dim(arrays: Sequence[xr.DataArray], along: str | None) -> str:
    """Returns the dimension to compare along.

    Args:
        arrays: as :func:`select_labels` returns them.
        along: the dimension that the user gave. With None it is, among dimensions with several labels: the result; else
            the only one with text labels; else the only axis, or the run.

    Returns:
        The dimension's name.

    Raises:
        Mistake: an unknown dimension, or there is not exactly one to take.
    """
    choices = _choices(arrays)
    with_text: set[str] = set()
    axes = {"run"}
    for values in arrays:
        dims = [str(dim) for dim in values.dims]
        swept = dims[: dims.index("seed")]
        for dim in dims:
            if dim in ("result", "run", "seed"):
                continue
            names = column_names(values, dim) or [dim]
            with_text |= {name for name in names if holds_text(values[name])}
            if dim in swept:
                axes |= set(names)
    if not along:
        groups = [[dim for dim in dims if len(choices[dim]) > 1] for dims in ({"result"}, with_text, axes)]
        candidates = next((group for group in groups if group), [])
        along = candidates[0] if len(candidates) == 1 else ""
    _check_dim(f"--along {along}".rstrip(), along, choices)
    return along


def settle(
    arrays: Sequence[xr.DataArray], mean: Sequence[str], along: str, *, keep: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Lays the arrays out as one long table, and reduces other dimensions: to a mean, or to the last label.

    Args:
        arrays: as :func:`select_labels` returns them.
        mean: dimensions to average over.
        along: the dimension that is compared.
        keep: dimensions that were selected from, and stay.

    Returns:
        A table with one row for each value, and a column for ``along``, the seed and each dimension with several
        labels; and a text for each other dimension that says how it was settled, such as "step = 20 (last)".

    Raises:
        Mistake: an unknown dimension to average over, or one that is compared or selected.
    """
    own = {str(dim) for values in arrays for dim in values.dims[2:]}  # without "result" and "run"
    choices = {dim: labels for dim, labels in _choices(arrays).items() if dim in own}
    for dim in mean:
        _check_dim(f"--mean {dim}", dim, choices)
        if dim in (along, *keep):
            raise Mistake(f"--mean {dim}: is compared or selected; average over another dimension")
    frames: list[pd.DataFrame] = []
    last: dict[str, dict[str, None]] = {}
    for values in arrays:
        # A run that diverged in one step has diverged: its mean must not look finite.
        averaged = values.mean([dim for dim in mean if dim in values.dims], skipna=False)
        reduced, at = final_values(averaged, [along, *keep])
        for dim, label in at.items():
            last.setdefault(dim, {})[label] = None
        frames.append(long_frame(reduced, str(values.name), joined=along))
    frame = pd.concat(frames, ignore_index=True)
    dims = [name for name in frame.columns if name not in ("seed", arrays[0].name)]
    frame[dims] = frame[dims].fillna("")  # a dimension that this run does not have
    settled = [f"{dim} = {', '.join(labels)} (last)" for dim, labels in last.items()]
    settled += [f"mean over {dim}" for dim in mean]
    labels = {dim: list(dict.fromkeys(frame[dim])) for dim in dims if dim != along}
    constant = {dim: found[0] for dim, found in labels.items() if len(found) == 1}
    # The only result, and the only run of a config without [[run]], have names that the user never gave.
    hidden = {("result", constant.get("result")), ("run", DEFAULT_RUN)}
    settled += [f"{dim} = {label}" for dim, label in constant.items() if (dim, label) not in hidden]
    return frame.drop(columns=list(constant)), settled
