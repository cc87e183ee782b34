"""The site's files and their places, and the equations, pictures and links of its pages."""

import ast
import html
import re
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("latex2mathml")

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import PluginCollection
from mkdocs.structure.files import Files

from experiments.guides.site import hooks
from experiments.guides.site.docstrings import to_markdown

GUIDES = hooks.GUIDES


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("README.md", "index.html"),
        (f"{GUIDES}README.md", "guides/index.html"),
        (f"{GUIDES}rules/README.md", "rules/index.html"),
        (f"{GUIDES}start.md", "start/index.html"),
        (f"{GUIDES}papers/unimax.md", "papers/unimax/index.html"),
        (f"{GUIDES}papers/figures/unimax/unimax.png", "papers/figures/unimax/unimax.png"),
        ("experiments/live_mix/RESULTS.md", "results/live_mix/index.html"),
        (".github/CHANGELOG.md", "changelog/index.html"),
        ("configs/quickstart.toml", "configs/quickstart.toml.txt"),
    ],
)
def test_where_the_site_has_a_file(path, place):
    assert hooks.place_of(path) == place


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Puts the files of a small repository together: files(page name -> text, ...)."""
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    monkeypatch.setattr(hooks.reference, "pages", lambda: {"reference/command.md": "# The command"})
    config = MkDocsConfig()
    config.load_dict({"site_name": "x", "docs_dir": str(tmp_path / "none"), "site_dir": str(tmp_path / "site")})
    config.plugins = PluginCollection()
    # mkdocs sets it while it calls a hook.
    monkeypatch.setattr(config.plugins, "_current_plugin", None, raising=False)

    def files(pages):
        for name, text in {"README.md": "# Home", hooks.INDEX: "# Guides", **pages}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return hooks.on_files(Files([]), config), config

    return files


def test_the_navigation_is_the_index_of_the_guides(files):
    index = "# Guides\n## Start\n[a](a.md), [result](../live/RESULTS.md)\n## More\n[a](a.md) [b](b.md#x)\n"
    _, config = files({hooks.INDEX: index, f"{GUIDES}a.md": "", f"{GUIDES}b.md": "", "experiments/live/RESULTS.md": ""})
    assert config.nav == [
        {"Home": "README.md"},
        {
            "Guides": [
                hooks.INDEX,
                {"Start": [f"{GUIDES}a.md", "experiments/live/RESULTS.md"]},
                {"More": [f"{GUIDES}b.md"]},
            ]
        },
        {"Reference": ["reference/command.md"]},
    ]


def test_what_pages_show_and_link_is_in_the_site(files):
    text = (
        '![x](figures/x.png) <img src="figures/y.png"> [c](../../configs/c.toml#L3) `[no](code.md)` [w](https://a.org)'
    )
    pages = {f"{GUIDES}a.md": text, f"{GUIDES}figures/x.png": "", f"{GUIDES}figures/y.png": "", "configs/c.toml": ""}
    found, _ = files(pages)
    assert {f"{GUIDES}figures/x.png", f"{GUIDES}figures/y.png", "configs/c.toml"} <= set(found.src_uris)


@pytest.mark.parametrize("link", ["missing.md", "../../..", "figures/", "../../../outside.md"])
def test_a_link_that_leads_nowhere_ends_the_build(files, link):
    with pytest.raises(PluginError, match=r"the link .* leads to no file of the repository"):
        files({f"{GUIDES}a.md": f"[x]({link})", f"{GUIDES}figures/x.png": ""})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"{GUIDES}live.md", "experiments/live.md"),
        (f"{GUIDES}Live.md", f"{GUIDES}live/README.md"),
        (f"{GUIDES}results/live.md", "experiments/live/RESULTS.md"),
        (f"{GUIDES}reference/command.md", "reference/command.md"),
    ],
)
def test_two_files_with_one_place_end_the_build(files, one, other):
    pages = {name: "" for name in (one, other) if not name.startswith("reference/")}
    with pytest.raises(PluginError, match="have one place in the site: ") as error:
        files(pages)
    assert one in str(error.value) and other in str(error.value)


def test_every_page_of_the_repository_has_a_place_of_its_own():
    pages = ["README.md", *hooks._below(".github", "*.md"), *hooks._below("experiments", "*.md")]
    places = [hooks.place_of(page) for page in pages]
    assert sorted(set(places)) == sorted(places)
    assert {"live_mix/index.html", "results/live_mix/index.html"} <= set(places)


def test_html_is_led_to_its_files_and_pictures_follow_the_switch_to_dark(files):
    picture = (
        '<picture>\n <source media="(prefers-color-scheme: dark)" srcset="figures/d.png">\n'
        ' <img src="figures/l.png" width="800" alt="A.">\n</picture>'
    )
    code = '`<img src="figures/l.png">`'
    pages = {f"{GUIDES}a.md": picture, f"{GUIDES}figures/d.png": "", f"{GUIDES}figures/l.png": ""}
    found, config = files(pages)
    page = type("Page", (), {"file": found.get_file_from_path(f"{GUIDES}a.md")})
    text = hooks.on_page_markdown(f"{picture} {code} [a] [b]", page, config, found)
    assert text == (
        '<img src="../figures/l.png#only-light" width="800" alt="A.">'
        f'<img src="../figures/d.png#only-dark" width="800" alt="A."> {code} [a] \\[b]'
    )


def test_equations_become_mathml():
    content = r'<p><span class="arithmatex">\(a &lt; b\)</span></p><div class="arithmatex">\[\frac{1}{2}\]</div>'
    text = hooks.equations(content)
    assert text.count("<math") == 2 and 'display="inline"' in text and 'display="block"' in text
    for formula in (r"a = b, \\ c = d", r"\begin{aligned}a &amp;= b, \\ c &amp;= d\end{aligned}"):
        lines = hooks.equations(rf'<div class="arithmatex">\[{formula}\]</div>')
        assert lines.count("<mtr>") == 2, formula
    assert "<mfrac>" in text and "&#x0003C;" in text and "arithmatex" not in text


@pytest.mark.parametrize(
    ("formula", "found"),
    [
        (r"\arg\max_q x", '<mi mathvariant="normal">g</mi></mrow><mspace width="0.167em" /><msub><mo>max</mo>'),
        (r"\operatorname{ab} x", '<mi mathvariant="normal">a</mi>'),
        (r"\bigl\| x \Bigr\Vert", 'minsize="1.2em" maxsize="1.2em">‖</mo>'),
    ],
)
def test_commands_that_the_converter_lacks_are_spelled_otherwise(formula, found):
    assert found in hooks.equations(rf'<div class="arithmatex">\[{formula}\]</div>')


def test_an_unknown_command_ends_the_build():
    with pytest.raises(PluginError, match="has a command that latex2mathml does not know"):
        hooks.equations(r'<span class="arithmatex">\(\nonsense x\)</span>')


def formulas(text):
    """The equations of Markdown: blocks, and those within a line."""
    blocks = re.findall(r"^```math\n(.*?)^```|\$\$(.*?)\$\$", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^ *```.*?^ *```|\$\$.*?\$\$|`[^`\n]+`", "", text, flags=re.DOTALL | re.MULTILINE)
    return [one or other for one, other in [*blocks, *re.findall(r"\\\((.*?)\\\)|\$([^$\n]+)\$", rest)]]


def test_every_equation_of_pages_and_docstrings_is_known_to_the_converter():
    root = Path(__file__).parents[4]
    texts = [path.read_text() for path in (root / "experiments").rglob("*.md")]
    for path in (root / "mixjax").rglob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "body")]
        documented = [node for node in nodes if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))]
        docstrings = [ast.get_docstring(node) or "" for node in documented]
        texts += [to_markdown(text, lambda *_: None) for text in docstrings if "math:" in text]
    found = [formula for text in texts for formula in formulas(text)]
    assert len(found) > 100
    for formula in found:
        text = hooks.equations(rf'<div class="arithmatex">\[{html.escape(formula, quote=False)}\]</div>')
        assert len(re.findall(r"\\[bB]ig", formula)) == text.count("minsize"), formula
