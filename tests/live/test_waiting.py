"""Tests that a thread which reads ahead of the weights ends its wait when nobody could end it otherwise."""

import concurrent.futures
import subprocess
import sys
import threading
import time
from pathlib import Path

import grain
import jax
import numpy as np
import pytest
from grain.experimental import ThreadPrefetchIterDataset, device_put

from mixjax.live import Plan, mix, sizes_of
from mixjax.live import plan as plan_module

DATASETS = {"a": np.arange(40), "b": np.arange(100, 130)}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    monkeypatch.setattr(plan_module, "_SECONDS_BETWEEN_LOOKS", 0.02)


def plan_of(**changes):
    # The waits below would take this long if nothing ended them.
    return Plan(**({"sizes": sizes_of(DATASETS), "batch_size": 4, "weights": [0.5, 0.5], "lag": 3} | changes))


def in_a_thread(dataset):
    return ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=6)


def to_the_device(dataset):
    arrays = dataset.map(lambda element: {"step": element["step"], "value": element["value"]})
    return device_put(arrays, jax.devices()[0], cpu_buffer_size=4, device_buffer_size=4)


readers = pytest.mark.parametrize("reader", [in_a_thread, to_the_device])


def train(plan, iterator, steps):
    for step in steps:
        assert int(next(iterator)["step"]) == step
        plan.keep(step)


def wait_until_it_waits(plan, lag=3):
    """Returns when a thread has read all that is known."""
    begin = time.monotonic()
    while plan.step < plan.next_to_publish + lag and time.monotonic() < begin + 20:
        time.sleep(0.001)
    assert plan.step == plan.next_to_publish + lag


@readers
@pytest.mark.parametrize("how", ["close", "delete", "set_state"])
def test_a_loop_ends_while_a_thread_waits_for_weights(reader, how):
    plan = plan_of()
    iterator = iter(reader(mix(DATASETS, plan)))
    train(plan, iterator, range(5))
    wait_until_it_waits(plan)
    begin, state = time.monotonic(), plan.get_state()
    if how == "set_state":
        iterator.set_state(state)
        train(plan, iterator, range(5, 9))
    elif how == "close":
        iterator.close()
    del iterator
    assert time.monotonic() < begin + 10
    # The plan itself is open.
    plan.set_state(plan.get_state())
    train(plan, iter(reader(mix(DATASETS, plan))), range(plan.step, plan.step + 6))


@readers
def test_a_forgotten_publication_is_named_where_a_thread_reads(reader):
    plan = plan_of()
    iterator = iter(reader(mix(DATASETS, plan)))
    train(plan, iterator, range(2))
    with pytest.raises(RuntimeError, match=r"step 5 has no weights yet: call plan.publish\(2, weights\) or plan.keep"):
        for _ in range(4):
            next(iterator)


def slow(element):
    """Takes longer than the looks after which a thread is given up."""
    time.sleep(0.5)
    return element


def slow_in_another_thread(element):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(slow, element).result()


@pytest.mark.parametrize("function", [slow, slow_in_another_thread])
def test_a_thread_that_works_is_waited_for(function):
    """The loop waits for the second thread, which works, while the first one waits for weights."""
    plan = plan_of(lag=2)
    iterator = iter(in_a_thread(in_a_thread(mix(DATASETS, plan)).map(function)))
    train(plan, iterator, range(3))
    iterator.close()


def test_a_loop_that_takes_its_time_is_waited_for():
    plan = plan_of(lag=1)
    iterator = iter(in_a_thread(mix(DATASETS, plan)))
    for step in range(2):
        assert next(iterator)["step"] == step
        time.sleep(0.5)
        plan.keep(step)
    iterator.close()


def test_closing_the_iterator_ends_the_wait_of_a_users_thread_and_leaves_the_plan_open():
    plan, got = plan_of(), []
    iterator = iter(mix(DATASETS, plan))
    thread = threading.Thread(target=lambda: got.extend(element["step"] for element in iterator))
    thread.start()
    wait_until_it_waits(plan)
    iterator.close()
    thread.join(10)
    assert not thread.is_alive() and got == [0, 1, 2]
    plan.set_state(plan.get_state())
    assert next(iter(mix(DATASETS, plan)))["step"] == 0


def test_steps_that_a_thread_read_ahead_are_not_lost_in_silence():
    want, plan = plan_of(), plan_of()
    for step in range(8):
        last = next(want)
        want.keep(step)
    for element in in_a_thread(mix(DATASETS, plan)):
        plan.keep(element["step"])
        wait_until_it_waits(plan)
        if element["step"] == 4:
            break
    with pytest.raises(RuntimeError, match=r"read ahead to step 7, and steps are published up to 4: go back .*set_st"):
        iter(mix(DATASETS, plan))
    plan.set_state(plan.get_state())
    for element in in_a_thread(mix(DATASETS, plan)):
        plan.keep(element["step"])
        if element["step"] == 7:
            break
    np.testing.assert_array_equal(element["rows"], last.rows)


def test_a_thread_that_waits_does_not_keep_a_program_from_ending():
    script = """
import threading
import numpy as np
from mixjax.live import Plan, mix

plan = Plan([4, 4], 2, [0.5, 0.5], lag=1)
iterator = iter(mix([np.arange(4), np.arange(4)], plan))
threading.Thread(target=lambda: list(iterator)).start()
"""
    subprocess.run([sys.executable, "-c", script], timeout=60, check=True, cwd=Path(__file__).parents[2])


def test_an_iterator_that_reads_from_another_source_is_none_of_its_readers():
    """Closing a data set of its own, as for an evaluation, ends no wait."""
    plan = plan_of(lag=1)
    iterator = iter(in_a_thread(mix(DATASETS, plan)))
    other = iter(in_a_thread(grain.MapDataset.range(3).to_iter_dataset().map(slow)))
    assert next(iterator)["step"] == 0 and next(other) == 0
    other.close()
    plan.keep(0)
    assert next(iterator)["step"] == 1
    iterator.close()
