"""Checks every page that GitHub shows: links, names, commands, and that its code runs as a reader would paste it."""

import importlib
import json
import os
import re
import signal
import sys
import tomllib
import unittest.mock
import urllib.parse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.runner.configs import sweep
from tests.data import test_brats

ROOT = Path(__file__).parents[3]
GUIDES = ROOT / "experiments" / "guides"
README = ROOT / "README.md"
PAGES = [README, *sorted(GUIDES.rglob("*.md"))]


def relative(page):
    return str(page.relative_to(ROOT))


def prose(page):
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def anchors(page):
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower().strip()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page)) + re.findall(r'(?:src|srcset)="([^"]+)"', prose(page))
    for link in links:
        if re.match(r"https?://", link):
            continue
        path, _, anchor = urllib.parse.unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_name_and_config_exists(page):
    for name in re.findall(r"`(mixjax(?:\.\w+)+)", prose(page)):
        found = importlib.import_module("mixjax")
        for part in name.split(".")[1:]:
            try:
                found = getattr(found, part)
            except AttributeError:
                # A module that its package does not import, which a reader would import by its name.
                found = importlib.import_module(f"{found.__name__}.{part}")
    for config in re.findall(r"configs/[\w/]+\.toml", page.read_text()):
        # NAME stands for any of the table's names.
        path = ROOT / config
        assert path.parent.is_dir() if path.stem == "NAME" else path.is_file(), config
    for command in re.findall(r"python -m (experiments[\w.]+)", page.read_text()):
        assert importlib.util.find_spec(command), command


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_table_and_key_of_a_sweep_exists(page):
    own, tables = sweep.SWEEP_KEYS, sweep.POINTS
    for table in re.findall(r"`\[+sweep\.([\w.]+)\]", prose(page)):
        assert table in tables, table
    # A key that is named beside the table; "[sweep] KEY = VALUE" sets a field of the experiment.
    for key in re.findall(r"\[sweep\] (\w+)(?! =)\b", prose(page)):
        assert key in own + tables, key
    for block in blocks(page, "toml"):
        config = tomllib.loads(block)
        if "experiment" not in config:
            continue
        assert config.keys() >= {"sweep"}
        found = config["sweep"]
        assert all(isinstance(found[key], dict) == (key in tables) for key in found), found
        columns = {len(column) for column in found.get("points", {}).values()}
        assert len(columns) <= 1, found


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_code_can_be_pasted(page):
    for block in blocks(page, r"(?:python|sh|toml)"):
        assert not re.search(r"^(>>>|\.\.\.|\$|%) ", block, re.MULTILINE), block


def test_the_readme_is_short_and_has_its_parts_in_order():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles == [
        "Install",
        "Which door is yours?",
        "The rules",
        "Numbers that matter",
        "How it is tested",
        "Citing, licence",
    ]


def test_the_index_lists_every_page():
    index = (GUIDES / "README.md").read_text()
    for page in PAGES[1:]:
        if page != GUIDES / "README.md":
            assert f"]({page.relative_to(GUIDES)})" in index, page


def test_the_page_of_benchmarks_links_every_table():
    page = (GUIDES / "benchmarks.md").read_text()
    for folder in (ROOT / "experiments" / "benchmarks" / "results").iterdir():
        assert f"](../benchmarks/results/{folder.name}/RESULTS.md)" in page, folder


def test_the_page_of_installing_has_every_extra_and_its_packages():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", (GUIDES / "install.md").read_text(), re.MULTILINE)
    packages = {name: cell for name, cell in rows if "`pyproject.toml`" not in cell}
    assert {name for name, _ in rows} == set(extras) and len(packages) == len(extras) - 2
    for name, cell in packages.items():
        assert cell == ", ".join(sorted(re.split(r"[\[>]", package)[0] for package in extras[name])), name


def test_the_tables_of_rules_have_every_rule():
    rules = importlib.import_module("mixjax.rules")
    factories = {*rules.RULES, "every", "smooth", "floor", "freeze_after", "kl_to_prior", "select", "cap"}
    for page in (README, GUIDES / "choosing.md"):
        missing = [name for name in factories if f"`{name}`" not in page.read_text()]
        assert not missing, (page, missing)


def numbers(text):
    return re.findall(r"(?<![\w^])\d[\d,.]*(?<![,.])", text)


def test_the_numbers_of_the_readme_are_those_of_the_pages_it_links():
    part = re.search(r"## Numbers that matter\n(.*?)\n## ", README.read_text(), re.DOTALL).group(1)
    lines = part.strip().splitlines()
    assert len(lines) == 6
    for line in lines:
        text, link = re.search(r"- (.*): \[.*\]\((\S+)\)", line).groups()
        there = (README.parent / link.partition("#")[0]).read_text()
        assert numbers(text)
        for number in numbers(text):
            assert number in numbers(there) or f"10^{number}" in there, (line, number)


def test_the_numbers_below_the_figure_are_those_it_was_drawn_from():
    accuracies = json.loads((GUIDES / "figures" / "quickstart.json").read_text())
    text = README.read_text()
    for method in ("vanilla", "erma_va"):
        assert text.count(f"{accuracies[method]['mean']:.1f} %") == 2, method


def test_the_extract_of_the_table_has_the_cells_of_the_whole_table():
    def rows(path):
        # Claims, further down on the page, have tables of their own.
        text = path.read_text().partition("<!-- figures and claims")[0]
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
        return {line[0]: set(line[1:]) for line in cells if len(line) > 5 and "---" not in line}

    whole = rows(ROOT / "experiments" / "table" / "RESULTS.md")
    extract = rows(GUIDES / "papers" / "sampling_and_loss_weights.md")
    del extract["pair"]
    assert len(extract) == 12
    for pair, cells in extract.items():
        # A dash stands for "excluded".
        assert cells - {"–"} <= whole[pair.removesuffix(" (its test error)")], pair


def run(page, folder, monkeypatch):
    """Runs the blocks of Python of a page, in order, and returns all names that they leave."""
    monkeypatch.chdir(folder)
    names = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        # The README's blocks are for different readers, and each stands alone. A guide's go on from block to block.
        own = {"__name__": "__main__"} if page == README else names
        exec(compile(block, str(page), "exec"), own)
        names |= own
    return names


def check_start(names):
    assert float(names["rule_state"].weights[0]) > 0.9
    np.testing.assert_allclose(names["params"], [1.0, 2.0, 3.0], atol=0.2)
    assert int(names["counts"].sum()) == 16


def check_optax_chain(names):
    np.testing.assert_allclose(names["c"], [0.75, 0.25], rtol=1e-5)
    assert names["counts"].tolist() == [8, 8]


def check_nnx_loop(names):
    weights = names["mixjax"].get_weights(names["optimizer"].opt_state, "weights")
    # The floor keeps three tenths of the prior, and the domain of the largest loss has gained.
    assert (weights >= 0.3 * names["prior"] - 1e-6).all() and weights[2] > 0.25
    # Both are new ones, into which the checkpoint was put.
    restored, saved = names["model"], names["found"]["model"]
    np.testing.assert_array_equal(restored.out.kernel[...], saved["out"]["kernel"])
    fresh = names["Model"](names["nnx"].Rngs(0))
    assert not np.array_equal(restored.out.kernel[...], fresh.out.kernel[...])


def check_your_rule(names):
    weights = names["state"].weights
    np.testing.assert_allclose(weights.sum(), 1, atol=1e-6)
    assert weights[1] > 0.25 > weights[0] and float(weights[2]) == 0.5


def check_data_mixing(names):
    assert float(names["rule_state"].weights[0]) > 0.9
    assert float(names["state"].rule_state.weights[0]) > 0.95


def check_hardness(names):
    assert int((names["history"].values != 2.0).sum()) > 500


def check_sweeps(names):
    assert dict(names["result"].c.sizes) == {"point": 3, "seed": 100, "domain": 2}
    assert float(names["result"].c.isel(point=2).mean("seed")[0]) > 0.7


def check_faq(names):
    os.kill(os.getpid(), signal.SIGTERM)
    # Only noted. The handler would stay for the tests that follow.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert names["stopping"] == [signal.SIGTERM] and names["step"] == 999


def check_readme(names):
    assert float(names["state"].weights[0]) > 0.5
    assert names["plan"].step == 4
    np.testing.assert_allclose(names["found"].weights, [0.48, 0.26, 0.26], atol=0.05)
    assert names["result"].sizes["seed"] == 100


CHECKS = {
    README: check_readme,
    GUIDES / "start.md": check_start,
    GUIDES / "faq.md": check_faq,
    GUIDES / "optax_chain.md": check_optax_chain,
    GUIDES / "nnx_loop.md": check_nnx_loop,
    GUIDES / "your_rule.md": check_your_rule,
    GUIDES / "data_mixing.md": check_data_mixing,
    GUIDES / "hardness.md": check_hardness,
    GUIDES / "sweeps.md": check_sweeps,
}


@pytest.mark.slow
@pytest.mark.parametrize("page", CHECKS, ids=relative)
def test_the_code_of_a_page_runs_and_does_what_the_page_says(page, tmp_path, monkeypatch):
    CHECKS[page](run(page, tmp_path, monkeypatch))


PRINTING = [page for page in PAGES if re.search(r"^```\n\n```text\n", page.read_text(), re.MULTILINE)]


@pytest.fixture
def things_that_pages_find(tmp_path, monkeypatch):
    """Stands in for what a reader has: three cases of BraTS in the current folder, and an account of W&B."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", unittest.mock.MagicMock())
    for seed, name in enumerate(test_brats.NAMES):
        test_brats.write(tmp_path / "MICCAI_BraTS_2019_Data_Training", name, test_brats.volumes(seed))


@pytest.mark.slow
@pytest.mark.parametrize("page", PRINTING, ids=relative)
def test_the_code_of_a_page_prints_what_the_page_shows_below_it(page, things_that_pages_find):
    printed, names = [], {"__name__": "__main__"}
    names["print"] = lambda *values: printed.append(" ".join(str(value) for value in values))
    shown = re.findall(r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", page.read_text(), re.DOTALL | re.MULTILINE)
    # The pages choose how arrays are printed, which must not reach other tests.
    with np.printoptions():
        for block, output in shown:
            printed.clear()
            exec(compile(block, str(page), "exec"), names)
            assert "".join(f"{line}\n" for line in printed) == output


def test_no_page_has_code_that_is_not_run():
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    for page in PAGES:
        if blocks(page, "python") and page not in CHECKS and page not in PRINTING:
            # The code of some pages is run by a test of their own, which names the page.
            assert any(page.name in test for test in tests), page


def test_the_rule_of_the_guide_keeps_the_promises_of_a_rule(tmp_path, monkeypatch):
    rule = run(GUIDES / "your_rule.md", tmp_path, monkeypatch)["rule"]
    state = rule.init(jnp.array([0.5, 0.0, 0.5]))
    update = jax.jit(rule.update)
    for losses in ([0.0, 1e30, 1e30], [1e30, jnp.nan, 0.0], [jnp.inf] * 3):
        new = update(state, counts=jnp.array([1, 1, 1]), losses=jnp.array(losses))
        assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
        assert bool(jnp.isfinite(new.weights).all()) and float(new.weights[1]) == 0.0
        np.testing.assert_allclose(new.weights.sum(), 1, atol=1e-6)
        state = new
    same = update(state, counts=jnp.zeros(3, int), losses=jnp.ones(3))
    np.testing.assert_array_equal(same.weights, state.weights)
