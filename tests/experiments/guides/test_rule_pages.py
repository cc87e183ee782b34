"""Checks the pages of the rules: one template, and generated parts that are what results and kept numbers say."""

import functools
import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.guides import pictures, rule_figures, rule_pages, toy, why_figures
from experiments.shared.sections import replace_section
from mixjax import rules

KEPT = json.loads((rule_pages.FOLDER / "figures" / "toy.json").read_text())
WRAPPERS = ("every", "freeze_after", "smooth", "floor", "cap", "kl_to_prior", "select")


def headings(page):
    return tuple(re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE))


def test_every_rule_has_a_page_of_the_same_template():
    assert set(toy.RULES) == set(rules.RULES)
    for name in rules.RULES:
        page = rule_pages.FOLDER / f"{name}.md"
        text = page.read_text()
        assert text.startswith(f"# `{name}`: "), name
        assert headings(page) == rule_pages.HEADINGS, name
        equation, symbols = re.search(r"```math\n(.*?)```\n\n(.*?)\n\n## ", text, re.DOTALL).groups()
        assert len(re.findall(r"^- ", symbols, re.MULTILINE)) >= 2 and "$" in symbols, name
        assert equation.strip(), name
    assert set(WRAPPERS) < set(headings(rule_pages.FOLDER / "wrappers.md"))


def test_the_arguments_that_a_page_names_exist():
    for name, factory in rules.RULES.items():
        text = (rule_pages.FOLDER / f"{name}.md").read_text()
        arguments = factory.__code__.co_varnames[: factory.__code__.co_argcount + factory.__code__.co_kwonlyargcount]
        example = re.search(rf"rules\.{name}\(([^)]*)\)", text)
        assert example, name
        for argument in re.findall(r"(\w+)=", example.group(1).replace("1 / 0.3", "")):
            assert argument in arguments, (name, argument)


def test_the_generated_sections_are_what_results_and_kept_numbers_say():
    for name in rules.RULES:
        text = (rule_pages.FOLDER / f"{name}.md").read_text()
        for section, generated in rule_pages.sections(name, KEPT).items():
            assert replace_section(text, section, generated) == text, (name, section)


def test_the_cells_of_a_page_are_those_of_the_table():
    whole = (rule_pages.ROOT / "experiments" / "table" / "RESULTS.md").read_text()
    row = next(line for line in whole.splitlines() if line.startswith("| ERMA + VA |"))
    cell = row.split(" | ")[2]
    assert f" | {cell} |" in rule_pages.sections("erma", KEPT)["results"]
    with pytest.raises(ValueError, match="has no table whose header begins with"):
        rule_pages.table_of(rule_pages.FOLDER / "README.md", "| nothing |")


@pytest.mark.slow
def test_the_toy_still_moves_as_its_picture_shows():
    name = "variance_aware"
    # The first steps of the same runs: their keys do not depend on how many steps follow.
    found = toy.train(toy.RULES[name], num_steps=9 * toy.PROBE_EVERY)
    mean = found["weights"].mean(axis=0)
    np.testing.assert_allclose(mean[::2], KEPT[name]["weights"][:5], atol=2e-3)


def test_signals_of_the_pages_are_what_a_rule_cannot_do_without():
    row, counts = np.full(4, 0.5, np.float32), np.full(4, 4)
    for name in rules.RULES:
        rule = toy.RULES[name].make()
        state = rule.init(np.ones(4))
        signals = dict.fromkeys(toy.read_signals(name), row)
        # A trace is enough, since a missing argument is an error before anything is computed.
        jax.eval_shape(functools.partial(rule.update, counts=counts, **signals), state)
        for left_out in signals:
            with pytest.raises(TypeError, match=left_out):
                rule.update(state, counts=counts, **{key: row for key in signals if key != left_out})


def test_pictures_exist_for_light_and_dark_pages_and_are_small():
    names = {rule_pages.FOLDER / "figures": (*rules.RULES, "all", "wrappers"), why_figures.FOLDER: why_figures.FIGURES}
    for folder, stems in names.items():
        for stem in stems:
            for page in pictures.PAGES:
                assert 5_000 < (folder / f"{stem}_{page}.png").stat().st_size < 150_000, stem


def test_a_picture_that_explains_is_drawn_as_light_and_as_dark(tmp_path, monkeypatch):
    monkeypatch.setattr(why_figures, "FIGURES", {"judging": why_figures.draw_judging})
    why_figures.main(["--out", str(tmp_path)])
    corners = [Image.open(tmp_path / f"judging_{page}.png").convert("L").getpixel((0, 0)) for page in ("light", "dark")]
    assert corners[0] > 215 and corners[1] < 40


def test_labels_at_the_ends_of_lines_do_not_touch():
    moved = rule_figures._apart(np.array([0.99, 0.97, 0.5, 0.02]), 0.085)
    assert (np.diff(np.sort(moved)) >= 0.085 - 1e-9).all() and moved.max() <= 1.0
