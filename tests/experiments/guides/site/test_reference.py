"""The pages of the reference that are written from the command's help and from the classes of configs."""

import dataclasses

import typer.main

from experiments.guides.site.reference import command_page, config_page, module_page
from mixjax.cli.commands import make_app
from mixjax.runner.configs import Sweep
from mixjax.runner.configs.locating import shipped_names


def test_the_page_of_the_command_has_the_help_of_every_command():
    page = command_page()
    for name, command in typer.main.get_command(make_app()).commands.items():
        assert f"\n## mixjax {name}\n" in page and f"Usage: mixjax {name} " in page
        for inner in getattr(command, "commands", {}):
            assert f"\n## mixjax {name} {inner}\n" in page
    assert "mixjax run quickstart --set" in page or "mixjax run configs/quickstart.toml --set" in page


def test_the_page_of_configs_has_every_key_and_every_config():
    page = config_page()
    keys = {field.name for field in dataclasses.fields(Sweep)} - {"axes", "points"}
    for key in (*keys, "num", "seed"):
        row = next(line for line in page.splitlines() if line.startswith(f"| `{key}` |"))
        assert row.split("|")[-2].strip(), row
    for name in shipped_names():
        assert f"`{name}`" in page
    assert "| `num_steps` | `int` | `1000` |" in page


def test_the_page_of_a_module_has_its_names_in_order():
    page = module_page("mixjax.rules")
    names = [line.removeprefix("      heading: ") for line in page.splitlines() if "heading: mixjax.rules." in line]
    assert names == sorted(names) and "mixjax.rules.erma" in names and "::: mixjax.rules.erma.erma\n" in page
