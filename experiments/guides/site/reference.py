"""Writes the reference: a page a module from its docstrings, the command's page from its help, the keys of configs."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import click
import typer.main

from experiments.guides.site.names import MODULES, public
from mixjax.cli.commands import make_app
from mixjax.runner.configs import Sweep
from mixjax.runner.configs.locating import shipped_folder, shipped_names
from mixjax.runner.configs.resolving import resolve
from mixjax.runner.configs.sweep import POINTS, SWEEP_KEYS, Draws
from mixjax.runner.texts import markdown_table

__all__ = ["command_page", "config_page", "module_page", "pages"]

# Letters of a line of help, as many terminals have them and as fit into the site's column.
_WIDTH = 80


def pages() -> dict[str, str]:
    """Writes all pages of the reference.

    Returns:
        Path below the site's pages -> Markdown, in the order of the navigation.

    Raises:
        ValueError: a public name has no docstring.
    """
    modules = {f"reference/{name}.md": module_page(name) for name in MODULES}
    return {"reference/command.md": command_page(), "reference/configs.md": config_page(), **modules}


def module_page(name: str) -> str:
    """Writes the page of a module: its docstring, then each public name.

    Args:
        name: such as "mixjax.rules".

    Returns:
        Markdown with the blocks that mkdocstrings fills in.

    Raises:
        ValueError: a public function or class has no docstring.
    """
    # mkdocs does not see the heading that mkdocstrings makes.
    lines = ["---", f"title: {name}", "---", "", f"::: {name}", "    options:", "      heading_level: 1"]
    lines += [f"      heading: {name}", "      members: false", ""]
    for path, one in public().items():
        module, _, short = path.rpartition(".")
        if module != name:
            continue
        value = getattr(importlib.import_module(module), short)
        if (inspect.isroutine(value) or inspect.isclass(value)) and not inspect.getdoc(value):
            raise ValueError(f"{path} has no docstring, which the reference would show")
        lines += [f"::: {one}", "    options:", f"      heading: {path}", f"      toc_label: {short}", ""]
    return "\n".join(lines)


def command_page() -> str:
    """Writes the page of the command ``mixjax``: the help of each of its commands.

    Returns:
        Markdown.
    """
    lines = ["# The command mixjax", "", "This is what `mixjax --help` and the help of each command print."]
    for name, command, context in _commands(typer.main.get_command(make_app()), "mixjax", None):
        lines += ["", f"## {name}", "", "```text", command.get_help(context).rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _commands(
    command: Any, name: str, parent: click.Context | None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Yields each command with its full name and the context of its help: a group first, then its members."""
    context = command.make_context(
        name, ["--help"], parent=parent, resilient_parsing=True, terminal_width=_WIDTH, max_content_width=_WIDTH
    )
    yield context.command_path, command, context
    for short in getattr(command, "commands", {}):
        yield from _commands(command.commands[short], short, context)


def config_page() -> str:
    """Writes the page of configs: their form, the keys of ``[sweep]``, and the fields of each of mixjax's experiments.

    Returns:
        Markdown.
    """
    lines = ["# Keys of configs", "", "::: mixjax.runner.configs", "    options:", "      members: false"]
    lines += ["      show_root_heading: false", "      show_root_toc_entry: false", "", "## Keys of [sweep]", ""]
    lines += _fields(Sweep, SWEEP_KEYS)
    lines += ["", f"`{'` and `'.join(POINTS)}` are tables of fields. Any other key is an axis over a field.", ""]
    lines += ["## Keys of [sweep.random]", "", *_fields(Draws), ""]
    lines += ["Any other key is a field to draw, as `{start, stop, scale}` or as a list to choose from.", ""]
    lines += ["## Fields of the experiments that come with mixjax", ""]
    lines += ["A config gives values for them, and so does `--set`. A field without a default must be given."]
    users: dict[str, tuple[type, list[str]]] = {}
    for name in shipped_names():
        path = shipped_folder() / "configs" / f"{name}.toml"
        experiment = re.search(r'^experiment *= *"(.*)"', path.read_text(encoding="utf-8"), re.MULTILINE)
        if experiment:
            cls = resolve(experiment[1], path).cls
            users.setdefault(experiment[1], (cls, []))[1].append(name)
    for experiment, (cls, names) in sorted(users.items()):
        lines += ["", f"### {experiment.removeprefix('experiments.')}", ""]
        lines += [f"Of the configs {', '.join(f'`{name}`' for name in names)}.", "", *_fields(cls)]
    return "\n".join(lines) + "\n"


def _fields(cls: type, names: Sequence[str] | None = None) -> list[str]:
    """Writes a table of a dataclass's fields: name, type, default and what its docstring says."""
    described = _described(cls)
    rows = []
    for field in dataclasses.fields(cls):
        if names is None or field.name in names:
            text = described.get(field.name, "")
            rows.append([f"`{field.name}`", f"`{_type_text(cls, field.name)}`", _default_text(field), text])
    return markdown_table(("key", "type", "default", "meaning"), rows)


def _type_text(cls: type, name: str) -> str:
    """Returns a type as a reader writes it, without the limits that only pydantic reads."""
    hint = typing.get_type_hints(cls)[name]
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)|<class '(?:\w+\.)*(\w+)'>", r"\1", text)


def _default_text(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    return "" if field.default_factory is dataclasses.MISSING else f"`{field.default_factory()!r}`"


def _described(cls: type) -> dict[str, str]:
    """Returns what the section ``Args`` of a class's docstring says of each field."""
    section = re.search(r"^(?:Args|Attributes):\n((?: .*\n|\n)*)", f"{inspect.getdoc(cls)}\n", re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section[1], re.MULTILINE) if section else []
    return {name: re.sub(r":\w+:`([^`]*)`", r"`\1`", " ".join(text.split())) for name, text in entries}
