"""The list of public names and their parameters: a change of it is seen, and every name has one home.

After a change that is meant, write the list anew: `python -m tests.test_public_api`. A module whose names are public
stands in the list of the reference's pages.
"""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import mixjax
from experiments.guides.site.names import MODULES as PACKAGES

LIST = Path(__file__).with_name("public_api.txt")
HEAVY = ("matplotlib", "orbax", "pandas", "pydantic", "scipy", "typer", "xarray")


def default_text(value) -> str:
    """Returns a default's text, the same in every process: functions and objects have an address in theirs."""
    return "..." if callable(value) or " at 0x" in repr(value) else repr(value)


def parameters(function) -> str:
    """Returns a function's parameters as `(a, b=1, *, c)`: names, kinds and defaults, without types."""
    parts, keyword_only = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            parts.append("*")
        keyword_only |= parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={default_text(parameter.default)}"
        parts.append(f"{star}{parameter.name}{default}")
    return f"({', '.join(parts)})"


def described(value) -> str:
    """Returns what stands behind a public name: its kind, and its parameters if it can be called."""
    if isinstance(value, ModuleType):
        return "module"
    if inspect.isclass(value):
        # Own methods and those of mixjax's base classes, not those of tuple, list or a dataclass library.
        own = [base for base in value.__mro__ if base.__module__.startswith("mixjax")]
        names = {name for base in own for name in vars(base) if not name.startswith("_")}
        methods = sorted(name for name in names if callable(getattr(value, name)))
        try:
            made = parameters(value)
        except ValueError:  # some classes of C have no signature
            made = "(...)"
        return f"class {made}" + (f" with {', '.join(methods)}" if methods else "")
    return parameters(value) if inspect.isfunction(value) else type(value).__name__


def public_names() -> list[str]:
    """Returns one line for each public name of each package."""
    lines = []
    for package in sorted(PACKAGES):
        module = importlib.import_module(package)
        lines += [f"{package}.{name}: {described(getattr(module, name))}" for name in sorted(module.__all__)]
    return lines


def test_public_names_and_parameters_are_those_of_the_list():
    before, now = LIST.read_text().splitlines(), public_names()
    changes = [f"- {line}" for line in before if line not in now] + [f"+ {line}" for line in now if line not in before]
    assert not changes, "\n".join(["public names changed; if that is meant, see this file's docstring", *changes])


def test_every_public_object_has_one_home():
    homes: dict[int, list[str]] = {}
    for package in PACKAGES:
        if package == "mixjax":  # the core names may be named there too
            continue
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if not isinstance(value, ModuleType) and (inspect.isclass(value) or inspect.isfunction(value)):
                homes.setdefault(id(value), []).append(f"{package}.{name}")
    assert not [names for names in homes.values() if len(names) > 1]


def modules() -> list[str]:
    """Returns the names of all modules of mixjax."""
    root = Path(mixjax.__file__).parent
    paths = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py")]
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_others_may_import(name):
    module = importlib.import_module(name)
    assert isinstance(module.__all__, list) and all(hasattr(module, each) for each in module.__all__)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_mixjax_loads_nothing_heavy():
    heavy = (*HEAVY, "flax", "chex", "jax", "optax")
    assert run(f"import sys, mixjax; print([name for name in {heavy} if name in sys.modules])") == "[]\n"
    core = "import sys, mixjax; mixjax.rules.erma(), mixjax.weighted_loss, mixjax.aggregate"
    assert run(f"{core}; print([name for name in {(*HEAVY, 'flax')} if name in sys.modules])") == "[]\n"


def test_every_public_name_can_be_imported_from_a_lazy_package():
    for package in ("mixjax", "mixjax.samplers"):
        found = run(f"from {package} import *; import {package} as package; print(set(package.__all__) <= set(dir()))")
        assert found == "True\n"


def test_packages_load_when_they_are_first_named():
    names = [
        "sweep",
        "data.load_text",
        "sweeps.search.search",
        "runner.sweep_figure",
        "training.fit",
        "mixing.fit",
        "samplers.hardness",
        "samplers.draws.choose",
        "accumulation.accumulate",
        "transforms.track",
        "types.SIGNALS",
        "checks.as_simplex",
    ]
    names += [f"runner.{name}" for name in ("results.read", "comparison", "launch", "configs", "experiment")]
    names += [f"runner.{name}" for name in ("report", "texts", "tracking")]
    # Each name is the first that is asked of a mixjax without any module; what mixjax imports from others may be there.
    forget = "for module in [name for name in sys.modules if name.split('.')[0] == 'mixjax']: del sys.modules[module]"
    run("\n".join(["import sys", *(f"{forget}\nimport mixjax; mixjax.{name}" for name in names)]))
    assert set(mixjax.__all__) <= set(dir(mixjax)) and set(mixjax.samplers.__all__) <= set(dir(mixjax.samplers))
    with pytest.raises(AttributeError, match="no attribute 'swep'"):
        mixjax.swep  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'hardnes'"):
        mixjax.samplers.hardnes  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'result'"):
        mixjax.runner.result  # noqa: B018


if __name__ == "__main__":
    LIST.write_text("\n".join(public_names()) + "\n")
