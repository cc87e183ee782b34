"""Hooks of mkdocs: which files make up the site, where they lie in it, and what their Markdown becomes.

Pages stay where GitHub shows them, and their links lead from file to file of the repository. mkdocs follows such links
once it knows every file by its path in the repository, so nothing is copied or rewritten. What remains is HTML within
Markdown, which mkdocs leaves as it is, and equations, which become MathML here: browsers show it without a script.
"""

from __future__ import annotations

import html
import os
import posixpath
import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from experiments.guides.site import reference

__all__ = ["ROOT", "equations", "on_files", "on_page_content", "on_page_markdown", "place_of"]

ROOT = Path(__file__).parents[3]
GUIDES = "experiments/guides/"
INDEX = f"{GUIDES}README.md"

_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
_ATTRIBUTE = re.compile(r'\b(src|srcset|href)="(?!\w+:|#|//)([^"#]+)')
_CODE = re.compile(r"^(```+).*?^\1|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_PICTURE = re.compile(
    r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="([^"]+)">\s*'
    r'<img src="([^"]+)"(.*?)>\s*</picture>',
    re.DOTALL,
)
# What the converter would show as it is written, or in italics, and what it knows instead.
_SPELLINGS = (
    (re.compile(r"\\arg(?![a-zA-Z])"), r"\\mathrm{arg}\\,"),
    (re.compile(r"\\operatorname(?![a-zA-Z])\*?"), r"\\mathrm"),
    (re.compile(r"(\\[bB]igg?[lmr]?)\\(\||[lr]?Vert(?![a-zA-Z]))"), r"\1‖"),
)
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def place_of(path: str) -> str:
    """Returns where the site has a file.

    Args:
        path: that of the file in the repository.

    Returns:
        The path below the site. Pages become folders with an ``index.html``. Sources become plain text, which browsers
        show and do not save.
    """
    if path == INDEX:
        return "guides/index.html"
    if posixpath.basename(path) == "README.md":
        return posixpath.join(posixpath.dirname(path).removeprefix(GUIDES), "index.html")
    short = path.removeprefix(GUIDES).removeprefix(".github/").removeprefix("experiments/")
    folder, name = posixpath.split(short)
    # Apart from the guides: a guide may be named like the experiment whose results it explains.
    if name == "RESULTS.md":
        return posixpath.join("results", folder, "index.html")
    stem, suffix = posixpath.splitext(short)
    if suffix == ".md":
        return f"{stem.lower()}/index.html"
    return short if suffix in (".png", ".svg", ".css", ".html") else f"{short}.txt"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Puts the site's files together, and makes the navigation of the index of the guides.

    Args:
        files: those of the theme and of plugins.
        config: that of mkdocs.

    Returns:
        All files, by their paths in the repository.

    Raises:
        PluginError: a link of a page leads to a folder, or out of the repository, or nowhere; or two files would have
            one place in the site.
    """
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    pages = ["README.md", *_below(".github", "*.md"), *_below("experiments", "*.md")]
    linked = {target for page in pages for target in _targets(page)} - set(pages)
    for path in [*pages, *sorted(linked), f"{GUIDES}site/style.css"]:
        file = File(path, str(ROOT), config.site_dir, use_directory_urls=True)
        file.dest_uri = place_of(path)
        files.append(file)
    generated = reference.pages()
    for path, content in generated.items():
        files.append(File.generated(config, path, content=content))
    _check_places(files)
    config.nav = [{"Home": "README.md"}, {"Guides": [INDEX, *_sections(pages)]}, {"Reference": list(generated)}]
    return files


def _check_places(files: Files) -> None:
    """Raises a PluginError where two files have one place, of which mkdocs would write the last one only."""
    places: dict[str, str] = {}
    for file in files:
        # Some disks take names that differ in case for one.
        other = places.setdefault(file.dest_uri.lower(), file.src_uri)
        if other != file.src_uri:
            raise PluginError(f"{other} and {file.src_uri} have one place in the site: {file.dest_uri}")


def _below(folder: str, pattern: str) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob(pattern))


def _targets(page: str) -> set[str]:
    """Returns the files of the repository that a page links or shows."""
    text = _CODE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    links = _LINK.findall(text) + [link for _, link in _ATTRIBUTE.findall(text)]
    found = set()
    for link in links:
        if re.match(r"\w+:", link):
            continue
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
        if not (ROOT / path).is_file() or path.startswith(".."):
            raise PluginError(f"{page}: the link {link} leads to no file of the repository")
        found.add(path)
    return found


def _sections(pages: list[str]) -> list[dict[str, list[str]]]:
    """Returns the sections of the index of the guides, each with the pages that it is the first to link."""
    seen = {"README.md", INDEX}
    sections = []
    for part in re.split(r"^## +", (ROOT / INDEX).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        paths = [posixpath.normpath(posixpath.join(GUIDES, link)) for link in _LINK.findall(body)]
        own = [path for path in dict.fromkeys(paths) if path in pages and path not in seen]
        seen |= set(own)
        if own:
            sections.append({title.strip(): own})
    rest = [page for page in pages if page not in seen]
    return [*sections, {"More": rest}] if rest else sections


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads the links of HTML to their files, and shows one of two pictures by the site's own switch to dark.

    Args:
        markdown: a page's text.
        page: the page.
        config: that of mkdocs.
        files: all files.

    Returns:
        The text.
    """

    def switched(found: re.Match[str]) -> str:
        dark, light, rest = found.groups()
        return f'<img src="{light}#only-light"{rest}><img src="{dark}#only-dark"{rest}>'

    def led(found: re.Match[str]) -> str:
        folder = posixpath.dirname(page.file.src_uri)
        target = files.get_file_from_path(posixpath.normpath(posixpath.join(folder, found[2])))
        return found[0] if target is None else f'{found[1]}="{target.url_relative_to(page.file)}'

    def changed(text: str) -> str:
        # Python's Markdown takes "[a] [b]" for a link, and GitHub does not.
        return _ATTRIBUTE.sub(led, _PICTURE.sub(switched, text)).replace("] [", "] \\[")

    pieces, end = [], 0
    for code in _CODE.finditer(markdown):
        pieces += [changed(markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*pieces, changed(markdown[end:])])


def on_page_content(content: str, **kwargs: Any) -> str:
    """Turns the equations of a page into MathML.

    Args:
        content: the page's HTML.
        **kwargs: what else mkdocs says about it.

    Returns:
        HTML.
    """
    return equations(content)


def equations(content: str) -> str:
    r"""Turns each equation that arithmatex has marked into MathML.

    Args:
        content: HTML with elements of the class "arithmatex", which hold ``\(x\)`` or ``\[x\]``.

    Returns:
        HTML with ``<math>`` in their places.

    Raises:
        PluginError: the converter does not know a command of an equation.
    """

    def mathml(found: re.Match[str]) -> str:
        element, bracket, formula = found.groups()
        formula = html.unescape(formula).strip()
        # GitHub breaks lines of an equation, and the converter does so in environments that it knows.
        formula = formula.replace("{aligned}", "{align}")
        if "\\\\" in formula and "\\begin" not in formula:
            formula = f"\\begin{{array}}{{l}}{formula}\\end{{array}}"
        for spelling, known in _SPELLINGS:
            formula = spelling.sub(known, formula)
        text = latex2mathml.converter.convert(formula, display="inline" if bracket == "(" else "block")
        # The converter shows a command that it does not know as a word.
        if "\\" in text:
            raise PluginError(f"the equation {formula!r} has a command that latex2mathml does not know: {text}")
        return f'<{element} class="equation">{text}</{element}>'

    return _FORMULA.sub(mathml, content)


def on_pre_build(config: MkDocsConfig) -> None:
    """Lets commands and docstrings be read as on any machine: no display, no colour.

    Args:
        config: that of mkdocs.
    """
    os.environ.update(MPLBACKEND="Agg", NO_COLOR="1")
