"""Measures what one of ten thousand hosts spends on the plan of a live mix, near the end of a run of 10^12 rows."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import timing
from mixjax import live

__all__ = ["measure", "near_the_end", "run"]

HOSTS, ROWS_A_HOST, ROWS = 10_000, 8, 10**12
DOMAINS = 7, 200, 2000
# A host has to plan a step within a small part of the seconds that such a step takes, and to restore at once.
STEP_MS, RESTORE_MS = 50.0, 10.0


def near_the_end(num_domains: int, hosts: int = HOSTS, host: int = 7) -> live.Plan:
    """Makes the plan of one host, a thousand steps before the last row of the run.

    Args:
        num_domains: ``D``; the weights are drawn from the simplex, and each domain has a share of the rows like its
            weight, so that the run sees each row once or twice.
        hosts: number of hosts, each of which reads 8 rows a step.
        host: the one whose plan it is.
    """
    batch_size = hosts * ROWS_A_HOST
    weights = np.random.default_rng(num_domains).dirichlet(np.ones(num_domains))
    sizes = np.clip(ROWS * weights, 1, 2**40).astype(np.int64)
    plan = live.Plan(sizes.tolist(), batch_size, weights, lag=8, host=(host, hosts))
    step = ROWS // batch_size - 1000
    drawn = np.floor(step * batch_size * weights).astype(np.int64)
    drawn[0] += step * batch_size - drawn.sum()
    state = plan.get_state() | {"step": step, "drawn": drawn.tolist(), "next_to_publish": step}
    plan.set_state(state)
    return plan


def measure(num_domains: int, steps: int, hosts: int = HOSTS) -> dict[str, list[float] | float]:
    """Draws some steps, each followed by a publication, and writes them to a ledger.

    Returns:
        Milliseconds of processor time of each step's draw, publication and ledger line, and of restoring; bytes of the
        state and of a ledger line.
    """
    plan, rng = near_the_end(num_domains, hosts), np.random.default_rng(0)
    spent: dict[str, Any] = {"draw": [], "publish": [], "ledger": [], "restore": []}

    def timed(name, function, *arguments):
        start = time.process_time()
        result = function(*arguments)
        spent[name].append(1e3 * (time.process_time() - start))
        return result

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        # The first host is the one that writes.
        ledger = live.Ledger(path, near_the_end(num_domains, hosts, host=0))
        before = path.stat().st_size
        for _ in range(steps):
            batch = timed("draw", next, plan)
            timed("ledger", ledger.write, batch)
            timed("publish", plan.publish, batch.step, rng.dirichlet(np.ones(num_domains)))
        ledger.close()
        spent["line_bytes"] = (path.stat().st_size - before) / steps
    state = json.dumps(plan.get_state())
    spent["state_bytes"] = float(len(state))
    for _ in range(steps):
        timed("restore", lambda: plan.set_state(json.loads(state)))
    return spent


def run(quick: bool = False) -> timing.Report:
    """Measures each number of domains."""
    hosts, steps = (10, 3) if quick else (HOSTS, 40)
    spent = {d: measure(d, steps, hosts) for d in DOMAINS}
    names = {"draw": "draw a batch", "publish": "publish", "ledger": "a ledger line", "restore": "restore from JSON"}
    rows = [
        (f"{label}, ms of processor time", *(str(timing.summarize(spent[d][name])) for d in DOMAINS))
        for name, label in names.items()
    ]
    rows += [
        (f"{label}, bytes", *(f"{spent[d][name]:.0f}" for d in DOMAINS))
        for name, label in (("state_bytes", "state with 8 pending weights"), ("line_bytes", "a ledger line"))
    ]
    text = "\n\n".join(
        [
            f"One of {hosts} hosts, {ROWS_A_HOST} rows each a step, in the last thousand of the "
            f"{ROWS // (hosts * ROWS_A_HOST)} steps that 10^12 rows take. Every host draws the counts of the whole "
            "batch, and looks up the examples of its own rows.",
            timing.table(["", *(f"D = {d}" for d in DOMAINS)], rows),
        ]
    )
    draw = [timing.summarize(spent[d]["draw"]).median for d in DOMAINS]
    restore = [timing.summarize(spent[d]["restore"]).median for d in DOMAINS]
    targets = [
        timing.Target(f"a host draws a batch in {STEP_MS:.0f} ms", f"{max(draw):.1f} ms", max(draw) <= STEP_MS),
        timing.Target(f"restoring in {RESTORE_MS:.0f} ms", f"{max(restore):.1f} ms", max(restore) <= RESTORE_MS),
    ]
    return timing.Report("A live mix on ten thousand hosts", text, {str(d): spent[d] for d in DOMAINS}, targets)
