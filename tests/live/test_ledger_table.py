"""Tests the table of a ledger by what it says."""

import numpy as np
import pytest

from mixjax.live import Ledger, Plan, read_ledger
from mixjax.live.ledger_table import ledger_lines

SIZES = {"web": 5000, "books": 90, "code": 20}


def ledger_of(path, num_steps=120, **changes):
    plan = Plan(**({"sizes": SIZES, "batch_size": 8, "weights": [0.5, 0.3, 0.2], "lag": 2} | changes))
    with Ledger(path, plan) as ledger:
        for _, batch in zip(range(num_steps), plan, strict=False):
            ledger.write(batch)
            plan.keep(batch.step)
    return read_ledger(path)


def events_of(lines):
    return dict(line.split(": ", maxsplit=1) for line in lines if ": " in line)


def test_each_domain_and_each_kind_of_event_has_a_line(tmp_path):
    lines = ledger_lines(ledger_of(tmp_path / "ledger", max_epochs=[100, 2, 1]))
    assert lines[0] == "960 rows in the steps 0 to 119"
    assert lines[1].split() == ["domain", "rows", "share", "epochs", "asked", "in", "force"]
    assert lines[3].split() == ["books", "180", "0.1875", "2", "0.3000", "0.0000"]
    events = events_of(lines)
    assert events["limit reached"] == "code (step 12), books (step 62)"
    assert events["begins epoch 2"] == "books (step 32)"
    assert events["written off"] == "2 times, first at step 12, last at 62; rows: books 1.5, code 0.8"
    assert "ended" not in events


def test_a_line_says_over_how_many_domains_the_weights_are_spread(tmp_path):
    spread = events_of(ledger_lines(ledger_of(tmp_path / "spread")))["effective domains"]
    assert spread == "2.80 of 3, least 2.80 at step 0"  # 0.5^-0.5 0.3^-0.3 0.2^-0.2
    narrow = events_of(ledger_lines(ledger_of(tmp_path / "narrow", max_epochs=[100, 2, 1])))["effective domains"]
    assert narrow.startswith("1.00 of 3, least 1.00 at step ")
    assert narrow.endswith("; the weights come near a single domain")
    two = ledger_of(tmp_path / "two", sizes={"web": 900, "code": 900}, weights=[0.9, 0.1])
    assert events_of(ledger_lines(two))["effective domains"] == "1.38 of 2, least 1.38 at step 0"
    unknown = two.assign(weights=two.weights * np.nan)
    assert "effective domains" not in events_of(ledger_lines(unknown))


def test_a_plan_that_has_ended_says_why(tmp_path):
    spent = events_of(ledger_lines(ledger_of(tmp_path / "spent", weights=[0.0, 1.0, 1.0], max_epochs=1)))
    assert spent["ended"] == "at step 13, rows spent; rows left: books 6, code 0"
    reached = events_of(ledger_lines(ledger_of(tmp_path / "reached", budget=100)))
    assert reached["ended"] == "at step 12, budget reached"


def test_tokens_are_shown_where_the_plan_counts_them(tmp_path):
    lengths = [np.full(5000, 100), np.full(90, 300), np.full(20, 1000)]
    lines = ledger_lines(ledger_of(tmp_path / "ledger", lengths=lengths, num_steps=60))
    assert lines[1].split() == ["domain", "rows", "tokens", "share", "epochs", "asked", "in", "force"]
    total = sum(int(line.split()[2].replace(",", "")) for line in lines[2:5])
    assert lines[0] == f"480 rows and {total:,} tokens in the steps 0 to 59"
    assert float(lines[2].split()[3]) == pytest.approx(0.5, abs=0.02)


def test_long_lists_of_domains_are_cut(tmp_path):
    found = ledger_of(tmp_path / "ledger", sizes=[2] * 12, batch_size=12, weights=np.ones(12), num_steps=5)
    text = events_of(ledger_lines(found))["begins epoch 2"]
    assert text == ", ".join(f"{d} (step 2)" for d in range(8)) + " and 4 more"
