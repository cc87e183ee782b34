"""Reads a ledger into a data set: what was asked for, in force and drawn, step by step."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from mixjax.files import local_path
from mixjax.live.ledger_form import has_steps, is_start, read_lines

if TYPE_CHECKING:
    import xarray

__all__ = ["read_ledger"]

_VECTORS = ("tokens", "asked", "weights", "loss_weights", "losses")


def read_ledger(path: str | os.PathLike) -> xarray.Dataset:
    """Reads a ledger, also one that a run is writing.

    Args:
        path: the file.

    Returns:
        A Dataset over ``step``, the last one of each line, and ``domain``, by name: ``counts``, the rows drawn in the
        line's steps; ``tokens``, those drawn, NaN where the plan counted rows; ``epochs``, how often each domain had
        been seen by then; ``asked`` and ``weights`` in its last step; ``losses`` and ``loss_weights``, NaN where there
        are none; ``num_steps`` of the line. Domains that were not there yet, or any more, have counts of 0 and weights
        of NaN. Attributes are the plan's last ones (``max_epochs`` by domain unless it is one number), and ``events``,
        a list of dictionaries, of which the last one says why the plan ended.

    Raises:
        ValueError: the file is no ledger, or a line is damaged; the error has its number.

    Example:
        >>> import tempfile
        >>> from mixjax.live import Ledger, Plan, read_ledger
        >>> plan = Plan({"web": 100, "code": 10}, batch_size=4, weights=[0.75, 0.25], lag=1)
        >>> path = tempfile.mkdtemp() + "/ledger.jsonl"
        >>> with Ledger(path, plan) as ledger:
        ...     ledger.write(next(plan))
        >>> read_ledger(path).counts.sel(domain="web").values.tolist()
        [3]
    """
    import xarray

    lines = read_lines(local_path("path", path))
    starts = [line for line in lines if is_start(line)]
    sizes: dict[str, int] = {}
    for start in starts:
        sizes |= start["domains"]
    places = {name: i for i, name in enumerate(sizes)}

    steps = [line for line in lines if has_steps(line)]
    shape = len(steps), len(sizes)
    arrays = {name: np.full(shape, np.nan) for name in _VECTORS}
    counts = np.zeros(shape, np.int64)
    events: list[dict[str, Any]] = []
    # The places of a line's domains among those of all lines.
    columns = np.zeros(0, int)
    row = 0
    for line in lines:
        events += [line["event"]] if "event" in line else line.get("events", [])
        if is_start(line):
            columns = np.array([places[name] for name in line["domains"]])
        if not has_steps(line):
            continue
        counts[row, columns] = line["counts"]
        if "tokens" in line:
            arrays["tokens"][row] = 0.0
        # What was asked for is only written where something else is in force.
        for name, values in {"asked": line.get("weights"), **line}.items():
            if name in arrays and values is not None:
                arrays[name][row, columns] = np.array(values, np.float64)
        row += 1
    epochs = counts.cumsum(axis=0) / np.array(list(sizes.values()))
    variables: dict[str, Any] = {name: (("step", "domain"), array) for name, array in arrays.items()}
    variables["epochs"] = (("step", "domain"), epochs)
    variables["counts"] = (("step", "domain"), counts)
    variables["num_steps"] = (("step",), np.array([line["step"] - line["from"] + 1 for line in steps], np.int64))
    coords = {"step": [line["step"] for line in steps], "domain": list(sizes)}
    attrs = {name: starts[-1].get(name) for name in ("batch_size", "seed", "unit", "budget", "max_epochs")}
    if isinstance(attrs["max_epochs"], list):
        attrs["max_epochs"] = dict(zip(starts[-1]["domains"], attrs["max_epochs"], strict=True))
    return xarray.Dataset(variables, coords, attrs | {"sizes": sizes, "events": events})
