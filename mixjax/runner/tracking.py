"""How far a sweep is: progress, records, and the trackers that keep them.

A tracker is a function of a record; those that must be closed are context managers. `mixjax run` always keeps a
`progress.jsonl` and takes the others by name (`--track tensorboard`).

```python
with mixjax.runner.tracking.tensorboard("logs") as track:
    mixjax.sweep(train, seeds=1000, track=track)
```
"""

import contextlib
import importlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from mixjax.sweeps.progress import Record, together

__all__ = ["Record", "json_lines", "tensorboard", "together", "wandb"]


def json_lines(path: str | os.PathLike) -> Callable[[Record], None]:
    """Appends each record to a file, a JSON object a line; ``pandas.read_json(path, lines=True)`` reads it.

    A line that a killed process left unfinished is taken off first.

    Args:
        path: the file; made with the first record.

    Returns:
        The tracker.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "progress.jsonl")
        >>> track = json_lines(path)
        >>> track({"done": 1, "total": 2, "metrics": {"loss": 0.5}})
        >>> path.read_text()
        '{"done": 1, "total": 2, "metrics": {"loss": 0.5}}\\n'
    """

    def track(record: Record) -> None:
        with open(path, "a+b") as file:
            if end := file.tell():
                file.seek(end - 1)
                if file.read() != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")

    return track


@contextlib.contextmanager
def tensorboard(folder: str | os.PathLike) -> Iterator[Callable[[Record], None]]:
    """Writes each record's numbers as scalars of TensorBoard, against the segments of runs that are done.

    Args:
        folder: for the event file, as `tensorboard --logdir` takes it; one more is made each time.

    Yields:
        The tracker.

    Raises:
        ImportError: tensorboardX is missing (extra ``tensorboard``).

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with tensorboard(folder) as track:
        ...     track({"done": 1, "total": 2, "segment": 1, "segments": 1, "metrics": {"loss": 0.5}})
        >>> len(list(pathlib.Path(folder).iterdir()))
        1
    """
    try:
        import tensorboardX
    except ImportError as error:
        raise ImportError("this tracker needs tensorboardX: pip install 'mixjax[tensorboard]'") from error
    with tensorboardX.SummaryWriter(str(folder)) as writer:

        def track(record: Record) -> None:
            step = round(record["done"] * record["segments"])
            for name, value in _scalars(record).items():
                writer.add_scalar(name, value, step)
            writer.flush()

        yield track


@contextlib.contextmanager
def wandb(module: str = "wandb", **settings: Any) -> Iterator[Callable[[Record], None]]:
    """Logs each record with Weights & Biases, or with a library that takes its place (trackio, swanlab).

    Args:
        module: a library with ``init``, ``log`` and ``finish`` like those of wandb.
        **settings: of its ``init``, such as ``project``, ``name`` and ``config``.

    Yields:
        The tracker.

    Raises:
        ImportError: the library is missing (extra ``wandb``; others by their own name).

    Example:
        >>> def sweep_and_log(train):
        ...     with wandb(project="mixtures", name="rates") as track:
        ...         return mixjax.sweep(train, seeds=1000, track=track)
    """
    try:
        library = importlib.import_module(module)
    except ImportError as error:
        package = "mixjax[wandb]" if module == "wandb" else module
        raise ImportError(f"this tracker needs {module}: pip install '{package}'") from error
    library.init(**settings)
    try:
        yield lambda record: library.log(_scalars(record))
    finally:
        library.finish()


def _scalars(record):
    """The numbers of a record by one name each, those of a config's run below the run's name."""
    prefix = f"{record['run']}/" if "run" in record else ""
    numbers = {name: value for name, value in record.items() if name not in ("run", "metrics")} | record["metrics"]
    return {prefix + name: value for name, value in numbers.items() if value is not None}
