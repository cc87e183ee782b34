"""Runs the code of the page on choosing a mix as a reader would copy it, and follows its links."""

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[3] / "experiments" / "guides" / "choosing_a_mix.md"


def test_the_code_runs_as_it_stands(capsys):
    names = {}
    blocks = re.findall(r"<!-- \w+ -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == PAGE.read_text().count("```python") == 3
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    # Books are drawn four times, and the others share the rest alike.
    assert "{'web': 2800, 'code': 2800, 'books': 400}" in capsys.readouterr().out
    for method in names["methods"]:
        c, q = names["start"](method, np.ones(3))
        # ODM explores with all of its weight at first.
        for _ in range(20):
            c, q = names["update"](method, (c, q), **names["signals"])
        moved = q if c is None or method == "ERMA + VA" else c
        assert (np.abs(np.asarray(moved.weights) - 1 / 3).max() > 1e-3) == (method != "ADO")
        np.testing.assert_allclose(moved.weights.sum(), 1.0, rtol=1e-5)


def test_pages_that_it_names_are_there():
    for link in re.findall(r"\]\(([\w./]+\.md)\)", PAGE.read_text()):
        if link != "../live_mix/RESULTS.md":
            assert (PAGE.parent / link).is_file(), link
