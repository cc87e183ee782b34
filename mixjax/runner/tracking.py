"""Makes trackers, which keep or pass on the records that say how far a sweep is.

A tracker is a function of a record. Where a tracker has to be closed, a context manager gives it. ``mixjax run`` always
keeps the records in ``progress.jsonl``, and takes the other trackers by name (``--track tensorboard``)::

    with mixjax.runner.tracking.tensorboard("logs") as tracker:
        mixjax.sweep(train, seeds=1000, tracker=tracker)
"""

import contextlib
import importlib
import json
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from mixjax.checks import requires
from mixjax.sweeps.progress import Record, together

__all__ = ["json_lines", "tensorboard", "together", "wandb"]


def json_lines(path: str | os.PathLike) -> Callable[[Record], None]:
    """Makes a tracker that appends each record to a file, one JSON object a line.

    ``pandas.read_json(path, lines=True)`` reads the file. If a killed process left a line unfinished, the next record
    replaces that line.

    Args:
        path: the file; it is made with the first record.

    Returns:
        The tracker.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "progress.jsonl")
        >>> tracker = json_lines(path)
        >>> tracker({"done": 1, "total": 2, "metrics": {"loss": 0.5}})
        >>> path.read_text()
        '{"done": 1, "total": 2, "metrics": {"loss": 0.5}}\\n'
    """

    def tracker(record: Record) -> None:
        # Open the file anew for each record, so that a sweep that is killed loses no record that was written.
        # In append mode every write goes to the end of the file, also after the reads that look for a cut-off line.
        with open(path, "a+b") as file:
            size = file.tell()
            if size:
                file.seek(size - 1)
                # A killed process left its last line unfinished: cut the file behind the last whole line.
                if file.read() != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            # A record has None in place of NaN, which JSON lacks.
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")

    return tracker


@contextlib.contextmanager
def tensorboard(folder: str | os.PathLike) -> Iterator[Callable[[Record], None]]:
    """Opens a tracker that writes each record's numbers as scalars of TensorBoard.

    The horizontal axis counts the segments of runs that are done.

    Args:
        folder: the folder of the event file, as ``tensorboard --logdir`` takes it. Each call adds one file.

    Yields:
        The tracker.

    Raises:
        ImportError: tensorboardX is missing (extra ``tensorboard``).

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with tensorboard(folder) as tracker:
        ...     tracker({"done": 1, "total": 2, "segment": 1, "segments": 1, "metrics": {"loss": 0.5}})
        >>> len(list(pathlib.Path(folder).iterdir()))
        1
    """
    with requires("tensorboard", "mixjax.runner.tracking.tensorboard"):
        import tensorboardX
    with tensorboardX.SummaryWriter(str(folder)) as writer:

        def tracker(record: Record) -> None:
            # TensorBoard's steps are integers, and `done` counts fractions of runs.
            step = round(record["done"] * record["segments"])
            for name, value in _scalars(record).items():
                writer.add_scalar(name, value, step)
            # Somebody may be watching now, and the process may be killed before the next record.
            writer.flush()

        yield tracker


@contextlib.contextmanager
def wandb(module: str = "wandb", **settings: Any) -> Iterator[Callable[[Record], None]]:
    """Opens a tracker that logs each record with Weights & Biases, or with a library like it (trackio, swanlab).

    Args:
        module: a library with functions ``init``, ``log`` and ``finish`` like those of wandb.
        **settings: arguments of the library's ``init``, such as ``project``, ``name`` and ``config``.

    Yields:
        The tracker.

    Raises:
        ImportError: the library is missing (wandb: extra ``wandb``; others: the package of their name).

    Example:
        >>> def sweep_and_log(train):
        ...     with wandb(project="mixtures", name="rates") as tracker:
        ...         return mixjax.sweep(train, seeds=1000, tracker=tracker)
    """
    library = _library(module)
    library.init(**settings)
    try:
        yield lambda record: library.log(_scalars(record))
    finally:
        library.finish()


def _library(module: str) -> ModuleType:
    if module == "wandb":
        with requires("wandb", "mixjax.runner.tracking.wandb"):
            return importlib.import_module(module)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # No extra of mixjax installs the libraries that take wandb's place.
        raise ImportError(f"mixjax.runner.tracking.wandb needs {module}: pip install '{module}'") from error


def _scalars(record: Record) -> dict[str, Any]:
    """Returns a record's numbers in one flat dict. Where the record names a run, so do the keys: "run/loss"."""
    # A dashboard shows one chart for each name, so the runs of one config must not share names.
    prefix = f"{record['run']}/" if "run" in record else ""
    numbers = {name: value for name, value in record.items() if name not in ("run", "metrics", "by_domain")} | record[
        "metrics"
    ]
    return {prefix + name: value for name, value in numbers.items() if value is not None}
