"""Tests ``mixjax live show`` as a user calls it."""

import pytest

from mixjax.live import Ledger, Plan


@pytest.fixture
def ledger(tmp_path):
    plan = Plan({"web": 50, "code": 5}, 4, [0.75, 0.25], lag=1)
    with Ledger(tmp_path / "ledger.jsonl", plan) as opened:
        for step in range(5):
            opened.write(next(plan))
            plan.keep(step)
    return tmp_path / "ledger.jsonl"


def test_shows_a_ledger_and_draws_it(command, ledger, tmp_path):
    code, out, _ = command("live", "show", ledger, "--figure", tmp_path / "figure.png")
    assert code == 0 and "20 rows in the steps 0 to 4" in out and "web" in out
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_what_is_no_ledger_is_one_line(command, tmp_path):
    (tmp_path / "other").write_text("hello\n")
    for path in (tmp_path / "other", tmp_path / "none"):
        code, _, err = command("live", "show", path)
        assert code == 2 and len(err.strip().splitlines()) == 1 and str(path) in err
