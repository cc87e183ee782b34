"""The Markdown that docstrings become: each kind of their reST, and all docstrings of mixjax."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

import mixjax
from experiments.guides.site.docstrings import to_markdown
from experiments.guides.site.names import MODULES, find, public

PACKAGE = Path(mixjax.__file__).parent


def nowhere(kind, name):
    return None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("The weights :math:`c_d` move.", r"The weights \(c_d\) move."),
        (".. math:: a = b,\n          c = d\n\nNext.", "\n$$\na = b, c = d\n$$\n\n\nNext."),
        (".. math:: a = b \\\\\n          c = d", "\n$$\na = b \\\\ c = d\n$$\n"),
        ("  .. math::\n\n     a\n\n     b", "\n  $$\n  a\n  $$\n\n\n  $$\n  b\n  $$\n"),
        ("Made by::\n\n    x = 1\n\n    y = 2\n\nNext.", "Made by:\n\n```python\nx = 1\n\ny = 2\n```\n\n\nNext."),
        ("Thus::\n\n    [sweep]\n    seeds = 2", "Thus:\n\n```toml\n[sweep]\nseeds = 2\n```\n"),
        ("Example:\n    >>> 1\n    1", "Examples:\n    >>> 1\n    1"),
        ("In words.\n\n>>> 1\n1\n\nNext.", "In words.\n\n```pycon\n>>> 1\n1\n```\n\nNext."),
        ("Signals:\n    losses: means,\n        ``[D]``.", "Signals:\n    - `losses`: means,\n        ``[D]``."),
        ("Args:\n    losses: means.", "Args:\n    losses: means."),
        (
            "===  ====\na    b\n===  ====\n1    x | y\n===  ====\nNext.",
            "\n| a | b |\n|---|---|\n| 1 | x \\| y |\n\nNext.",
        ),
    ],
)
def test_a_kind_of_rest(before, after):
    assert to_markdown(before, nowhere) == after


def test_roles_become_links_or_code():
    def link(kind, name):
        return {("func", "mixjax.sweep"): "mixjax.sweeps.sweep", ("meth", "Plan.publish"): "plan.Plan.publish"}.get(
            (kind, name)
        )

    text = ":func:`mixjax.sweep` and :meth:`~Plan.publish`, :class:`Other`"
    expected = "[``mixjax.sweep``][mixjax.sweeps.sweep] and [``Plan.publish``][plan.Plan.publish], ``Other``"
    assert to_markdown(text, link) == expected


def docstrings():
    """Yields each docstring of mixjax with its module and the class around it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(["mixjax", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
        tree = ast.parse(path.read_text())
        yield name, "", ast.get_docstring(tree)
        pending = [(tree, "")]
        while pending:
            node, owner = pending.pop()
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.FunctionDef):
                    yield name, owner, ast.get_docstring(child)
                elif isinstance(child, ast.ClassDef):
                    inside = f"{owner}.{child.name}".lstrip(".")
                    yield name, inside, ast.get_docstring(child)
                    pending.append((child, inside))


def test_every_role_of_every_docstring_names_something_and_no_rest_is_left():
    count = 0
    for module, owner, text in docstrings():
        found = []

        def link(kind, name, module=module, owner=owner, found=found):
            found.append(name)
            return find(name, module, owner if kind in ("meth", "attr") else "")

        markdown = to_markdown(text or "", link)
        count += len(found)
        words = re.sub(r"``[^`]*``|^ *```.*?^ *```", "", markdown, flags=re.DOTALL | re.MULTILINE)
        assert not re.search(r":\w+:`|^\s*\.\. \w+::|^ *=+ =+", words, re.MULTILINE), (module, owner)
    assert count > 500


def test_a_role_that_names_nothing_is_an_error():
    with pytest.raises(LookupError, match=r"mixjax\.rules: a docstring names no_such_rule, which is nowhere"):
        find("no_such_rule", "mixjax.rules")
    # A method is looked for in its class, a function in its module and the packages around it.
    assert find("publish", "mixjax.live.plan", "Plan") == "mixjax.live.plan.Plan.publish"
    assert find("variance_aware", "mixjax.rules.gradient_norm") == "mixjax.rules.variance_aware.variance_aware"
    # What no page shows has no id to link to.
    assert find("mixjax.sweeps.points.as_values", "mixjax") is None


def test_the_reference_has_every_public_module_and_name():
    assert all(importlib.util.find_spec(module) for module in MODULES)
    ids = list(public().values())
    assert len(ids) == len(set(ids)) > 250
    assert public()["mixjax.weighted_loss"] == "mixjax.objectives.weighted_loss"
    assert public()["mixjax.rules.erma"] == "mixjax.rules.erma.erma"
    assert public()["mixjax.rules.RULES"] == "mixjax.rules.RULES"
