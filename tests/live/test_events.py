"""Tests that batches go through JAX whole, whatever happened in their steps."""

import subprocess
import sys

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.live import Batch, Ledger, Plan, mix, read_ledger, sizes_of

DATASETS = {"a": np.arange(6.0), "b": np.arange(100.0, 190.0)}


def plan_of():
    # Every few steps have an event: an epoch begins, a limit is reached, rows are written off.
    return Plan(sizes_of(DATASETS), batch_size=4, weights=[0.5, 0.5], lag=3, max_epochs=[2, 100])


def train(elements, plan, steps=10):
    """Passes whole elements to a jitted function; returns their events and how often it was compiled."""
    compiled, seen = 0, []

    @jax.jit
    def step(batch):
        nonlocal compiled
        compiled += 1
        return jnp.sum(batch["row_weights"] * batch["value"])

    for element in elements:
        step(element)
        seen.append(element["events"])
        plan.keep(element["step"])
        if element["step"] == steps - 1:
            return seen, compiled


@pytest.mark.parametrize("to_the_device", [False, True])
def test_elements_with_events_are_moved_and_jitted_and_compile_nothing_anew(tmp_path, to_the_device):
    want, plan = [], plan_of()
    for batch in plan:
        want.append(batch.events)
        plan.keep(batch.step)
        if batch.step == 9:
            break
    assert len({str(events) for events in want}) > 2
    plan = plan_of()
    data = mix(DATASETS, plan)
    if to_the_device:
        data = grain.experimental.device_put(data, jax.devices()[0], cpu_buffer_size=2, device_buffer_size=2)
    assert train(data, plan) == (want, 1)


def test_the_ledger_takes_elements_from_the_device(tmp_path):
    events = []
    for place in (lambda element: element, jax.device_put):
        plan, path = plan_of(), tmp_path / place.__name__
        with Ledger(path, plan) as ledger:
            for element in mix(DATASETS, plan):
                element = place(element)
                ledger.write(element)
                plan.keep(element["step"])
                if element["step"] == 9:
                    break
        events.append(read_ledger(path).attrs["events"])
    assert events[0] == events[1] != []


def test_batches_are_trees_of_their_arrays():
    plan = plan_of()
    batches = [next(plan) for _ in range(3)]
    moved = jax.tree.map(np.asarray, batches)
    assert [type(each) for each in moved] == [Batch] * 3
    assert [each.events for each in moved] == [each.events for each in batches]
    assert all(isinstance(leaf, int | np.ndarray) for leaf in jax.tree.leaves(batches))


def test_jax_may_be_loaded_after_the_plan():
    script = """
import sys
from mixjax.live import Plan
plan = Plan([2, 2], 4, [0.5, 0.5])
next(plan)
assert "jax" not in sys.modules
import jax
batch = next(plan)
assert batch.events and jax.device_put(batch).events == batch.events
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
