"""A config file: read, overridden and checked whole."""

import dataclasses
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixjax.checks import requires
from mixjax.files import can_name_arrays, local_path
from mixjax.runner.configs.fields import ConfigError, as_json, check_keys, validate
from mixjax.runner.configs.locating import config_path
from mixjax.runner.configs.overrides import RESERVED, assign, check_takes_effect, drop_replaced, parse
from mixjax.runner.configs.resolving import resolve
from mixjax.runner.configs.sweep import POINTS, SWEEP_KEYS, Draws, Sweep, check_swept, choices_of, sweep_of
from mixjax.runner.configs.tables import at, merge, nest, own, shared
from mixjax.sweeps.points import as_array, as_values

with requires("experiments", "mixjax.runner.configs"):
    import tomli_w

__all__ = ["DEFAULT_RUN", "Config", "Run", "load"]

DEFAULT_RUN = "run"
"""Name of the only run of a config without [[run]] tables."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Holds the values of one run, which is compiled by itself.

    Args:
        name: the label of the run, a key of the results.
        values: the experiment's own frozen dataclass, complete.
    """

    name: str
    values: Any


@dataclasses.dataclass(frozen=True)
class Config:
    """Holds a loaded config: ``function(run.values)`` gives the Experiment of each run.

    Args:
        name: the name of the result: the file's stem, or for a ``config.toml`` the name of its folder.
        experiment: "module:function", as written.
        function: that function.
        runs: at least one.
        sweep: seeds, axes and points.
        path: the file.
        overrides: the ``--set`` arguments that the config was loaded with.
        command: which command of ``mixjax`` runs it: "run" or "sweep".
    """

    name: str
    experiment: str
    function: Callable
    runs: tuple[Run, ...]
    sweep: Sweep
    path: Path
    overrides: tuple[str, ...] = ()
    command: str = "run"

    @property
    def base(self) -> dict[str, Any]:
        """The values that all runs share, defaults included, as plain TOML types."""
        return self._split()[0]

    def to_toml(self) -> str:
        """Writes the fully resolved config as TOML.

        Returns:
            The text; loading it gives the same runs and the same sweep.
        """
        base, rest = self._split()
        table: dict[str, Any] = {"experiment": self.experiment, **base}
        # The name of the only run of a config without [[run]] was never written there.
        if [run.name for run in self.runs] != [DEFAULT_RUN]:
            table["run"] = [{"name": run.name, **values} for run, values in zip(self.runs, rest, strict=True)]
        sweep = {key: getattr(self.sweep, key) for key in SWEEP_KEYS if getattr(self.sweep, key) is not None}
        for name, values in self.sweep.axes.items():
            sweep = merge(sweep, nest(name.split("."), _as_lists(values)))
        for name, values in self.sweep.points.items():
            sweep = merge(sweep, nest(["points", *name.split(".")], _as_lists(values)))
        return tomli_w.dumps(table | {"sweep": sweep})

    def _split(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Returns the values that all runs share, and each run's own."""
        dumps = [as_json(run.values) for run in self.runs]
        base = shared(dumps)
        return base, [own(dump, base) for dump in dumps]


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads, overrides and validates a config file, and imports the experiment that it names.

    Args:
        path: a TOML file, or the name of a config that comes with mixjax, such as "quickstart".
        overrides: "key=value" strings, as ``mixjax run --set`` takes them: dotted keys (``sweep.seeds=100``,
            ``run.0.steps=5``) and TOML values; a value that is no TOML is a string.

    Returns:
        The Config, with every value checked against the type of its field.

    Raises:
        FileNotFoundError: neither such a file nor such a name.
        ConfigError: any mistake in the file or in an override; an unknown key is named with the nearest known one.
        ImportError: the experiment's module imports one that is missing; other errors of its import pass through.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "doctest_toy.py").write_text('''
        ... import dataclasses
        ... @dataclasses.dataclass(frozen=True)
        ... class Toy:
        ...     steps: int = 10
        ...     gamma: float = 0.1
        ... def toy(config: Toy): ...
        ... ''')
        >>> _ = (folder / "toy.toml").write_text('experiment = "doctest_toy:toy"\\nsweep.seeds = 3')
        >>> load(folder / "toy.toml", ["steps=20"]).base
        {'steps': 20, 'gamma': 0.1}
        >>> load(folder / "toy.toml", ["stesp=20"])
        Traceback (most recent call last):
        mixjax.runner.configs.fields.ConfigError: --set stesp=20: unknown key 'stesp'; did you mean 'steps'?
    """
    try:
        path = config_path(local_path("config", path))
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
    raw = _read(path)
    changes = [(f"--set {text}", *parse(text)) for text in overrides]
    documents = [(str(path), raw), *((where, nest(keys, value)) for where, keys, value in changes)]
    # The last one counts: a --set may name another experiment.
    experiment = next((d["experiment"] for _, d in reversed(documents) if "experiment" in d), None)
    resolved = resolve(experiment, path)
    # Each document is checked by itself, so that a message names the --set that made the mistake, not the file.
    for where, document in documents:
        _check_document(document, resolved.cls, where)
    for where, keys, value in changes:
        drop_replaced(raw, keys, value, resolved.cls)
        check_takes_effect(raw, keys, where)
        assign(raw, keys, value, where)

    sweep = sweep_of(raw.get("sweep", {}), resolved.cls, str(path))
    runs = _runs(raw, sweep, resolved.cls, path)
    # Types are those of the dataclass, so one run is enough. How a value goes with another run's values is not checked.
    sweep = _with_checked_values(sweep, runs[0], resolved.cls, path)
    # A mistake in a list that values are drawn from is one, whether it was drawn or not.
    for name, values in choices_of(raw.get("sweep", {}), resolved.cls).items():
        _checked_column(name, values, runs[0], resolved.cls, path)
    # config.toml is the resolved config in a result's folder. The folder has the name of the config that was run.
    name = path.resolve().parent.name if path.name == "config.toml" else path.stem
    return Config(name, resolved.experiment, resolved.function, runs, sweep, path, tuple(overrides))


def _as_lists(values: Sequence[Any]) -> list[Any]:
    """Returns the values of an axis as TOML has them."""
    return [list(value) if isinstance(value, tuple) else value for value in values]


def _hashable(value: Any) -> Any:
    """Returns a vector as a tuple, and any other value as it is."""
    return tuple(value) if isinstance(value, list) else value


def _read(path: Path) -> dict[str, Any]:
    # The result names the config, and its files are text.
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as exc:
        raise ConfigError(f"{path}: the file's path is no UTF-8") from exc
    try:
        # Some editors of Windows begin a file with a mark of UTF-8, which TOML does not know.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as exc:  # no TOML, no UTF-8, or an integer or a nesting beyond Python's limits
        raise ConfigError(f"{path}: not valid TOML: {exc}") from exc


def _check_document(document: Mapping[str, Any], cls: type, where: str) -> None:
    """Checks that every key of a config, or of the part that one ``--set`` gives, is known."""
    base = {key: value for key, value in document.items() if key not in RESERVED}
    fields = {f.name for f in dataclasses.fields(cls)}
    misplaced = next((key for key in base if key in (*SWEEP_KEYS, *POINTS) and key not in fields), None)
    if misplaced is not None:
        raise ConfigError(f"{where}: unknown key {misplaced!r}; did you mean 'sweep.{misplaced}'?")
    check_keys(base, (cls,), where, extra=RESERVED)
    runs, sweep = document.get("run", []), document.get("sweep", {})
    if not isinstance(runs, list) or not all(isinstance(table, dict) for table in runs):
        raise ConfigError(f"{where}: run must be a list of tables; write [[run]], not [run]")
    for table in runs:
        label = f"{where}: [[run]] {table['name']!r}" if "name" in table else f"{where}: [[run]]"
        above = next((key for key in table if key in RESERVED and key not in fields), None)
        if above is not None:
            raise ConfigError(f"{label}: {above!r} is for all runs; write it above the first [[run]]")
        check_keys({k: v for k, v in table.items() if k != "name"}, (cls,), label, extra=("name",))
    if not isinstance(sweep, dict):
        raise ConfigError(f"{where}: sweep must be a table; write [sweep]")
    check_swept(sweep, cls, f"{where}: [sweep]", SWEEP_KEYS + POINTS)
    for key in POINTS:
        points = sweep.get(key, {})
        if not isinstance(points, dict):
            raise ConfigError(f"{where}: [sweep] {key} must be a table; write [sweep.{key}]")
        extra = tuple(f.name for f in dataclasses.fields(Draws)) if key == "random" else ()
        check_swept(points, cls, f"{where}: [sweep.{key}]", extra)


def _runs(raw: Mapping[str, Any], sweep: Sweep, cls: type, path: Path) -> tuple[Run, ...]:
    """Returns the runs of a document; a field that only the sweep gives has its first value there."""
    base = {key: value for key, value in raw.items() if key not in RESERVED}
    swept = sweep.axes | sweep.points
    # A required field may come from the sweep alone. The base wins where it has the field too.
    for key, values in swept.items():
        base = merge(nest(key.split("."), values[0]), base)
    runs: list[Run] = []
    for table in raw.get("run", [{"name": DEFAULT_RUN}]):
        name = table.get("name")
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{path}: every [[run]] needs a name, a non-empty string; got {name!r}")
        if not can_name_arrays(name):
            raise ConfigError(f"{path}: [[run]] {name!r}: a name cannot hold a NUL, nor what is no UTF-8")
        if any(name == run.name for run in runs):
            raise ConfigError(f"{path}: two [[run]] tables are named {name!r}; names must differ")
        given = {key: value for key, value in table.items() if key != "name"}
        for key in swept:
            if at(given, key.split(".")) is not None:
                raise ConfigError(f"{path}: [[run]] {name!r} sets {key!r}, which [sweep] replaces; keep one of the two")
        where = f"{path}: [[run]] {name!r}" if "run" in raw else str(path)
        runs.append(Run(name, validate(cls, merge(base, given), where)))
    if not runs:
        raise ConfigError(f"{path}: run is empty; leave it out, or give at least one [[run]] table")
    return tuple(runs)


def _with_checked_values(sweep: Sweep, run: Run, cls: type, path: Path) -> Sweep:
    """Returns the sweep with each value as its field takes it: 1 in a float field is 1.0."""
    checked: dict[str, tuple] = {}
    for name, values in (sweep.axes | sweep.points).items():
        checked[name] = _checked_column(name, values, run, cls, path)
        twice = [value for i, value in enumerate(checked[name]) if value in checked[name][:i]]
        # A label of an axis names one slice of the result. A column of points may repeat values.
        if twice and name in sweep.axes:
            raise ConfigError(f"{path}: [sweep] {name}: the values of an axis differ, {twice[0]!r} stands there twice")
    axes = {name: checked[name] for name in sweep.axes}
    return dataclasses.replace(sweep, axes=axes, points={name: checked[name] for name in sweep.points})


def _checked_column(name: str, values: Sequence[Any], run: Run, cls: type, path: Path) -> tuple:
    """Returns values of one field as the field takes them."""
    keys, where = name.split("."), f"{path}: [sweep] {name}"
    trials = [merge(as_json(run.values), nest(keys, value)) for value in values]
    checked = tuple(_hashable(at(as_json(validate(cls, trial, where)), keys)) for trial in trials)
    # The checks of the sweep itself: numbers fit the types of JAX, vectors have one shape.
    try:
        as_array(name, as_values(name, checked))
    except ValueError as exc:
        raise ConfigError(f"{path}: [sweep] {exc}") from exc
    return checked
