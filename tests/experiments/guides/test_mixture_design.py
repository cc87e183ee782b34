"""Runs the code of the guide to mixture design as a reader would copy it."""

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[3] / "experiments" / "guides" / "mixture_design.md"


def test_the_code_runs_as_it_stands(capsys):
    names = {}
    blocks = re.findall(r"<!-- \w+ -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == PAGE.read_text().count("```python") == 4
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    # The mean of squared distances is least at the mean of the targets: at equal shares.
    found = names["found"]
    assert names["fitted"].law == "quadratic"
    assert found.contains(np.full((1, 3), 1 / 3))[0]
    said = capsys.readouterr().out
    assert "better than the proportional mixture by the interval" in said
    # Uniform shares are the best there are, and a proposal as good as they are cannot be told from them.
    assert "not better than noise against uniform" in said and "proposal is better than proportional" in said
    assert "stop: " in said and names["more"].slack < 0.05
    assert [len(part) for part in names["examples"]] == names["small"].tolist() == [9000, 900, 100]
