"""The table of overheads."""

import pytest

from experiments.fewer_weight_updates import text_overhead
from tests.experiments.fewer_weight_updates.made_up_text import TINY, replace_texts


@pytest.fixture(autouse=True)
def texts(monkeypatch):
    replace_texts(monkeypatch)


def test_the_overhead_is_told_beside_uniform_mixing():
    seconds = text_overhead.measure({text_overhead.BASELINE: TINY}, turns=2)
    assert len(seconds[text_overhead.BASELINE]) == 2 and min(seconds[text_overhead.BASELINE]) > 0
    found = text_overhead.report({text_overhead.BASELINE: [1.0] * 9, "cheap": [1.2] * 9, "dear": [4.0] * 9})
    assert "| cheap | 1.20 (1.20 to 1.20) | yes |" in found and "| dear | 4.00 (4.00 to 4.00) | no |" in found
    assert {config.rounds_per_update for config in text_overhead.sides().values()} == {1, text_overhead.EVERY}
