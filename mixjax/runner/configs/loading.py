"""A config file, read, overridden and checked whole, and the experiment that it names."""

import dataclasses
import importlib.machinery
import sys
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from mixjax.runner.configs.fields import ConfigError, as_json, check_keys, nearest, validate
from mixjax.runner.configs.overrides import RESERVED, assign, check_takes_effect, parse
from mixjax.runner.configs.sweep import POINTS, SWEEP_KEYS, Draws, Sweep, check_swept, sweep_of
from mixjax.runner.configs.tables import at, merge, nest, own, shared

DEFAULT_RUN = "run"  # the name of the only run of a config without [[run]] tables


@dataclasses.dataclass(frozen=True)
class Run:
    """One compiled run.

    Args:
        name: the label of the run, a key of the results.
        values: the experiment's own frozen dataclass, complete.
    """

    name: str
    values: Any


@dataclasses.dataclass(frozen=True)
class Config:
    """A loaded config: `function(run.values)` gives the Experiment of each run.

    Args:
        name: the file's stem (for a `config.toml` its folder's name); names the result.
        experiment: "module:function", as written.
        function: that function.
        runs: at least one.
        sweep: seeds and axes.
        path: the file.
        overrides: the `--set` arguments it was loaded with.
        command: of `mixjax`, which runs it: "run", or "sweep".
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
        """Values that all runs share, defaults included, as plain TOML types."""
        return self._split()[0]

    def to_toml(self) -> str:
        """The fully resolved config as TOML: loading it gives the same runs and the same sweep."""
        base, rest = self._split()
        table: dict[str, Any] = {"experiment": self.experiment, **base}
        if [run.name for run in self.runs] != [DEFAULT_RUN]:
            table["run"] = [{"name": run.name, **own} for run, own in zip(self.runs, rest, strict=True)]
        sweep = {key: value for key in SWEEP_KEYS if (value := getattr(self.sweep, key)) is not None}
        for name, values in self.sweep.axes.items():
            sweep = merge(sweep, nest(name.split("."), list(values)))
        for name, values in self.sweep.points.items():
            sweep = merge(sweep, nest(["points", *name.split(".")], list(values)))
        return tomli_w.dumps(table | {"sweep": sweep})

    def _split(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        dumps = [as_json(run.values) for run in self.runs]
        base = shared(dumps)
        return base, [own(dump, base) for dump in dumps]


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads, overrides and validates a config file, and imports the experiment it names.

    Args:
        path: a TOML file.
        overrides: "key=value" strings, as `mixjax run --set` takes them: dotted keys (`sweep.seeds=100`,
          `run.0.steps=5`), TOML values; what is not TOML is a string.

    Returns:
        The Config, with every value checked against the type of its field.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: anything wrong inside it; an unknown key is named with the nearest known one.

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
    path = Path(path)
    raw = _read(path)
    documents = [(str(path), raw)]
    parsed = [(f"--set {text}", *parse(text)) for text in overrides]
    documents += [(where, nest(keys, value)) for where, keys, value in parsed]
    experiment = next((d["experiment"] for _, d in reversed(documents) if "experiment" in d), None)
    function, cls = _resolve(experiment, path)
    for where, document in documents:
        _check_document(document, cls, where)
    for where, keys, value in parsed:
        check_takes_effect(raw, keys, where)
        assign(raw, keys, value, where)

    base = {key: value for key, value in raw.items() if key not in RESERVED}
    sweep = sweep_of(raw.get("sweep", {}), cls, str(path))
    swept = sweep.axes | sweep.points
    for name, values in swept.items():
        base = merge(nest(name.split("."), values[0]), base)
    runs = []
    for table in raw.get("run", [{"name": DEFAULT_RUN}]):
        name = table.get("name")
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{path}: every [[run]] needs a name, a non-empty string; got {name!r}")
        if any(name == run.name for run in runs):
            raise ConfigError(f"{path}: two [[run]] tables are named {name!r}; names must differ")
        given = {key: value for key, value in table.items() if key != "name"}
        for key in swept:
            if at(given, key.split(".")) is not None:
                raise ConfigError(f"{path}: [[run]] {name!r} sets {key!r}, which [sweep] replaces; keep one of the two")
        runs.append(
            Run(name, validate(cls, merge(base, given), f"{path}: [[run]] {name!r}" if "run" in raw else str(path)))
        )
    if not runs:
        raise ConfigError(f"{path}: run is empty; leave it out, or give at least one [[run]] table")
    for name, values in swept.items():  # each value must be one that the field takes; 1 in a float field is 1.0
        keys, where = name.split("."), f"{path}: [sweep] {name}"
        trials = [merge(as_json(runs[0].values), nest(keys, value)) for value in values]
        swept[name] = tuple(at(as_json(validate(cls, trial, where)), keys) for trial in trials)
        if name in sweep.axes and (twice := [v for i, v in enumerate(swept[name]) if v in swept[name][:i]]):
            raise ConfigError(f"{where}: the values of an axis differ, {twice[0]!r} stands there twice")
    sweep = dataclasses.replace(
        sweep, axes={name: swept[name] for name in sweep.axes}, points={name: swept[name] for name in sweep.points}
    )
    name = path.resolve().parent.name if path.name == "config.toml" else path.stem
    return Config(name, experiment, function, tuple(runs), sweep, path, tuple(overrides))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such config file; `mixjax list` shows those under ./configs")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as exc:  # no TOML, no UTF-8, or an integer or a nesting beyond Python's limits
        raise ConfigError(f"{path}: not valid TOML: {exc}") from exc


def _check_document(document: Mapping[str, Any], cls: type, where: str) -> None:
    """Every key of a config (or of the part that one `--set` gives) must be known."""
    base = {key: value for key, value in document.items() if key not in RESERVED}
    check_keys(base, (cls,), where, extra=RESERVED)
    runs, sweep = document.get("run", []), document.get("sweep", {})
    if not isinstance(runs, list) or not all(isinstance(table, dict) for table in runs):
        raise ConfigError(f"{where}: run must be a list of tables; write [[run]], not [run]")
    for table in runs:
        label = f"{where}: [[run]] {table['name']!r}" if "name" in table else f"{where}: [[run]]"
        check_keys({k: v for k, v in table.items() if k != "name"}, (cls,), label, extra=("name",))
    if not isinstance(sweep, dict):
        raise ConfigError(f"{where}: sweep must be a table; write [sweep]")
    check_swept({k: v for k, v in sweep.items() if k not in POINTS}, cls, f"{where}: [sweep]", SWEEP_KEYS + POINTS)
    for key in POINTS:
        points = sweep.get(key, {})
        if not isinstance(points, dict):
            raise ConfigError(f"{where}: [sweep] {key} must be a table; write [sweep.{key}]")
        extra = tuple(f.name for f in dataclasses.fields(Draws)) if key == "random" else ()
        check_swept(points, cls, f"{where}: [sweep.{key}]", extra)


def _resolve(experiment: Any, path: Path) -> tuple[Callable, type]:
    """Imports "module:function"; returns the function and the dataclass its first parameter is annotated with."""
    if experiment is None:
        raise ConfigError(f'{path}: no experiment; write experiment = "module:function" at the top')
    where = f"{path}: experiment = {experiment!r}"
    module_name, _, name = experiment.partition(":") if isinstance(experiment, str) else ("", "", "")
    if not all(module_name.split(".")) or not name:
        raise ConfigError(f'{where}: must be a string "module:function"')
    folders = [next((p for p in path.resolve().parents if (p / "pyproject.toml").is_file()), path.resolve().parent)]
    folders += [Path.cwd()] if Path.cwd() != folders[0] else []
    sys.path[:] = [*map(str, folders), *(p for p in sys.path if p not in map(str, folders))]
    importlib.invalidate_caches()
    top = module_name.partition(".")[0]
    spec, loaded = importlib.machinery.PathFinder.find_spec(top, [str(p) for p in folders]), sys.modules.get(top)
    if spec and loaded and loaded.__spec__ and spec.origin != loaded.__spec__.origin:
        raise ConfigError(f"{where}: this process has already imported another {top!r}, {loaded.__spec__.origin}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise  # something that the module itself imports
        looked = " and ".join(map(str, folders))
        raise ConfigError(f"{where}: no module {exc.name!r} in {looked}, nor among the installed packages") from exc
    function = getattr(module, name, None)
    if not callable(function):
        functions = [n for n, v in vars(module).items() if isinstance(v, types.FunctionType) and n[0] != "_"]
        raise ConfigError(f"{where}: {module_name} has no function {name!r}; {nearest(name, functions)}")
    try:
        annotations = [v for k, v in typing.get_type_hints(function).items() if k != "return"]
    except NameError as exc:
        raise ConfigError(f"{where}: cannot read the annotations of {name}: {exc}") from exc
    cls = annotations[0] if annotations else None
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen):
        raise ConfigError(f"{where}: {name} must take one argument annotated with a frozen dataclass, got {cls}")
    clash = {f.name for f in dataclasses.fields(cls)} & {*RESERVED, "name"}
    if clash:
        raise ConfigError(f"{where}: {cls.__name__} has a field {clash.pop()!r}, a name that configs reserve")
    return function, cls
