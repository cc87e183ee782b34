"""Tests that the mix gives the plan's batches, whatever reads them, and ends as a user would expect."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import grain
import jax
import numpy as np
import pytest

from mixjax.live import Plan, mix, sizes_of


class Shift(grain.transforms.Map):
    """Work on single rows, which a worker has to import."""

    def map(self, element):
        return element + 1000


class Exit(grain.transforms.Map):
    """Kills the process that reads."""

    def map(self, element):
        os.kill(os.getpid(), signal.SIGKILL)


def datasets():
    return {
        "array": np.arange(60).reshape(30, 2),
        "dataset": grain.MapDataset.source(np.arange(14).reshape(7, 2)).map(Shift()),
    }


def plan_of(**changes):
    return Plan(**({"sizes": sizes_of(datasets()), "batch_size": 6, "weights": [0.6, 0.4], "lag": 4} | changes))


def take(plan, iterator, steps):
    elements = []
    for step in steps:
        element = next(iterator)
        assert element["step"] == step
        elements.append(element)
        plan.publish(step, np.random.default_rng(step).dirichlet(np.ones(2)))
    return elements


def assert_same(got, want):
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def undisturbed(num_steps):
    plan = plan_of()
    return take(plan, iter(mix(datasets(), plan)), range(num_steps))


def test_elements_are_batches_with_their_rows():
    arrays = {name: np.stack([dataset[i] for i in range(len(dataset))]) for name, dataset in datasets().items()}
    for element in undisturbed(30):
        want = [arrays[list(arrays)[d]][row] for d, row in zip(element["domain_ids"], element["rows"], strict=True)]
        np.testing.assert_array_equal(element["value"], want)


def test_workers_and_stops_change_no_batch():
    want, state, got = undisturbed(40), None, []
    # Each stretch has other workers, another prefetch and another number of hosts' worth of read-ahead.
    for workers, prefetch, start, stop in [(2, 5, 0, 13), (0, 0, 13, 20), (1, 1, 20, 40)]:
        plan = plan_of()
        iterator = iter(mix(datasets(), plan, workers=workers, prefetch=prefetch))
        if state is not None:
            iterator.set_state(state)
        got += take(plan, iterator, range(start, stop))
        state = iterator.get_state()
        iterator.close()
    assert_same(got, want)


class Counting:
    """Notes which of its rows are read."""

    def __init__(self, size):
        self.size, self.read = size, []

    def __len__(self):
        return self.size

    def __getitem__(self, row):
        self.read.append(row)
        return np.array([row])


@pytest.mark.parametrize("num_hosts", [1, 2, 3, 4, 6])
def test_each_host_reads_its_rows_of_the_global_batch_and_no_more(num_hosts):
    sizes, whole = {"a": 30, "b": 7}, plan_of(sizes={"a": 30, "b": 7}, batch_size=12)
    plans = [plan_of(sizes=sizes, batch_size=12, host=(host, num_hosts)) for host in range(num_hosts)]
    parts = [{name: Counting(size) for name, size in sizes.items()} for _ in plans]
    iterators = [iter(mix(part, plan)) for part, plan in zip(parts, plans, strict=True)]
    read = {name: [] for name in sizes}
    for step in range(12):
        batch = next(whole)
        for host, iterator in enumerate(iterators):
            (element,) = take(plans[host], iterator, [step])
            np.testing.assert_array_equal(element["rows"], batch.rows[host::num_hosts])
            np.testing.assert_array_equal(element["domain_ids"], batch.domain_ids[host::num_hosts])
            np.testing.assert_array_equal(element["value"][:, 0], element["rows"])
            np.testing.assert_array_equal(element["row_weights"], batch.row_weights[host::num_hosts])
        for domain, row in zip(batch.domain_ids, batch.rows, strict=True):
            read[list(sizes)[domain]].append(row)
        whole.publish(step, np.random.default_rng(step).dirichlet(np.ones(2)))
    for part in parts:
        assert sum(len(data.read) for data in part.values()) == 12 * 12 // num_hosts
    for name in sizes:
        assert sorted(row for part in parts for row in part[name].read) == sorted(read[name])


def test_a_user_goes_on_with_map():
    plan = plan_of()
    sums = iter(mix(datasets(), plan).map(lambda element: element["value"].sum()))
    want = undisturbed(4)
    assert [next(sums) for _ in range(4)] == [element["value"].sum() for element in want]


def test_a_forgotten_publication_is_named_with_and_without_workers():
    for workers in (0, 1):
        plan = plan_of()
        iterator = iter(mix(datasets(), plan, workers=workers, prefetch=9))
        for _ in range(4):
            next(iterator)
        with pytest.raises(RuntimeError, match=r"step 4 has no weights yet: call plan.publish\(0, weights\)"):
            next(iterator)
        iterator.close()


def test_the_end_of_the_plan_is_the_end_of_the_data():
    plan = plan_of(budget=30)
    iterator = iter(mix(datasets(), plan, workers=1))
    assert len(take(plan, iterator, range(5))) == 5
    with pytest.raises(StopIteration):
        next(iterator)
    iterator.close()


def test_a_mix_is_not_sent_to_another_process():
    message = r"in place of .mp_prefetch after the mix use mixjax.live.mix\(.*workers="
    with pytest.raises(TypeError, match=message):
        pickle.dumps(mix(datasets(), plan_of()))
    with pytest.raises(TypeError, match=message):
        mix(datasets(), plan_of()).mp_prefetch(grain.MultiprocessingOptions(num_workers=2))


def test_a_plan_has_one_live_iterator():
    plan = plan_of()
    first = iter(mix(datasets(), plan))
    with pytest.raises(RuntimeError, match="the plan has a live iterator"):
        iter(mix(datasets(), plan))
    first.close()
    second = iter(mix(datasets(), plan))
    assert next(second)["step"] == 0
    with pytest.raises(ValueError, match="closed iterator"):
        next(first)
    del second
    iter(mix(datasets(), plan)).close()


def test_a_dead_worker_is_named():
    broken = {"array": np.arange(60).reshape(30, 2), "dataset": grain.MapDataset.range(7).map(Exit())}
    iterator = iter(mix(broken, plan_of(), workers=1))
    with pytest.raises(RuntimeError, match=r"a worker of the mix died while step 0 was read"):
        next(iterator)
    iterator.close()


def test_a_worker_that_dies_between_two_batches_costs_none():
    want, plan, got = undisturbed(8), plan_of(), []
    iterator = iter(mix(datasets(), plan, workers=1, prefetch=2))
    got += take(plan, iterator, range(3))
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    # What was read before is handed out; then the next call names what happened.
    with pytest.raises(RuntimeError, match=r"a worker of the mix died while step \d was read"):
        for step in range(3, 8):
            got += take(plan, iterator, [step])
    iterator.close()
    iterator = iter(mix(datasets(), plan, workers=0))
    got += take(plan, iterator, range(len(got), 8))
    assert_same(got, want)


def test_elements_with_events_go_to_the_device():
    plan = plan_of(sizes={"array": 30, "dataset": 7}, batch_size=6, max_epochs=3)
    elements = take(plan, iter(mix(datasets(), plan).map(jax.device_put)), range(12))
    events = [event for element in elements for event in element["events"]]
    assert any(isinstance(event["event"], str) for event in events)
    jax.jit(lambda element: element["value"])(elements[-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"datasets": {"array": np.ones(3), "dataset": np.ones(7)}}, "the data sets have the sizes"),
        ({"datasets": [np.ones(30), np.ones(7)]}, "the data sets have the sizes"),
        ({"workers": None}, "workers must be an integer of at least 0, got None"),
        (
            {"datasets": {"array": np.ones((30, 2), np.uint8), "dataset": np.ones((7, 2), np.float32)}},
            r"rows of the domains 'array' and 'dataset' differ: uint8\[2\] and float32\[2\]",
        ),
        ({"workers": -1}, "workers must be an integer of at least 0, got -1"),
        ({"prefetch": 1.5}, "prefetch must be an integer of at least 0, got 1.5"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        mix(**({"datasets": datasets(), "plan": plan_of()} | arguments))


@pytest.mark.parametrize("changes", [{"plan": {"a": 1}}, {"plan": [1]}, {"datasets": np.ones((30, 2))}])
def test_arguments_of_another_type_are_named(changes):
    with pytest.raises(TypeError, match=f"^{next(iter(changes))} must be a .*, got [a-z]*[.]$"):
        mix(**({"datasets": datasets(), "plan": plan_of()} | changes))


def test_workers_take_functions_without_a_name():
    shift = 1000
    local = datasets() | {"dataset": grain.MapDataset.source(np.arange(14).reshape(7, 2)).map(lambda row: row + shift)}
    plan = plan_of()
    with contextlib.closing(iter(mix(local, plan, workers=1))) as iterator:
        assert_same(take(plan, iterator, range(3)), undisturbed(3))


class Open:
    """Holds what no process can send to another."""

    def __init__(self):
        self.file = open(__file__, "rb")  # noqa: SIM115 (what a user would do)

    def __len__(self):
        return 7

    def __getitem__(self, row):
        return np.zeros(2)


def test_what_cannot_be_sent_to_a_worker_is_named():
    opened = datasets() | {"dataset": Open()}
    message = "^the data set of domain 'dataset' cannot be sent to a worker: cannot pickle '_io.BufferedReader' object"
    plan = plan_of()
    iterator = iter(mix(opened, plan, workers=1))
    with contextlib.closing(iterator), pytest.raises(TypeError, match=message):
        next(iterator)
    assert plan.step == 0
    opened["dataset"].file.close()


class TwoArguments(Exception):
    def __init__(self, path, why):
        super().__init__(f"{path}: {why}")


class Unreadable(grain.transforms.Map):
    def map(self, element):
        raise TwoArguments("file.jpg", "is no picture")


def test_an_error_that_cannot_be_sent_from_a_worker_is_told():
    broken = datasets() | {"dataset": grain.MapDataset.range(7).map(Unreadable())}
    message = r"TwoArguments: file.jpg: is no picture\nThis was raised while example \d of domain 'dataset' was read"
    iterator = iter(mix(broken, plan_of(), workers=1))
    with contextlib.closing(iterator), pytest.raises(RuntimeError, match=message):
        next(iterator)


INTERRUPTED = """
import os, signal, sys
import numpy as np
from mixjax.live import Plan, mix
if __name__ == "__main__":
    told = []
    signal.signal(signal.SIGINT, lambda *_: told.append(True))
    plan = Plan([30], 2, [1.0], lag=2)
    for batch in mix([np.arange(30)], plan, workers=1):
        plan.keep(batch["step"])
        if batch["step"] == 3:
            os.killpg(0, signal.SIGINT)
        if batch["step"] == 12:
            break
    print(batch["step"], told)
"""


def test_ctrl_c_is_for_the_main_process_to_act_on(tmp_path):
    (tmp_path / "script.py").write_text(INTERRUPTED)
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "12 [True]\n", "")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plan_set_back_under_an_iterator_gives_the_batches_from_there(workers):
    want, plan = undisturbed(8), plan_of()
    iterator = iter(mix(datasets(), plan, workers=workers, prefetch=4))
    take(plan, iterator, range(3))
    state = plan.get_state()
    take(plan, iterator, range(3, 6))
    plan.set_state(state)
    assert_same(take(plan, iterator, range(3, 8)), want[3:])
    iterator.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_new_loop_goes_on_after_the_last_element_of_the_one_before(workers):
    want, plan, got = undisturbed(9), plan_of(), []
    for stop in (2, 5, 8):
        for element in mix(datasets(), plan, workers=workers, prefetch=4):
            got.append(element)
            plan.publish(element["step"], np.random.default_rng(element["step"]).dirichlet(np.ones(2)))
            if element["step"] == stop:
                break
    assert_same(got, want)


def test_workers_end_when_the_main_process_is_killed():
    script = """
import multiprocessing, os, signal
import numpy as np
from mixjax.live import Plan, mix

if __name__ == "__main__":
    plan = Plan([9, 9], 2, [0.5, 0.5])
    iterator = iter(mix([np.arange(9), np.arange(9)], plan, workers=1))
    next(iterator)
    print("one worker" if len(multiprocessing.active_children()) == 1 else "", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    # The pipe ends with the last process that holds it: a worker that goes on would keep it open.
    assert process.communicate(timeout=60)[0] == b"one worker\n" and process.returncode == -signal.SIGKILL


HUNG = """
import signal, sys, time
from mixjax.live import Plan, mix

class Away:
    def __len__(self):
        return 9

    def __getitem__(self, row):
        print("reads", flush=True)
        time.sleep(1000)

if __name__ == "__main__":
    # Where a shell has started the tests in the background, Ctrl-C is ignored, and programs inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    iterator = iter(mix([Away()], Plan([9], 2, [1.0]), workers=1))
    if sys.argv[1] == "end":
        iterator._submit()
    elif sys.argv[1] == "close":
        iterator._submit()
        iterator.close()
    else:
        next(iterator)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["end", "close", "interrupt"])
def test_a_worker_that_never_comes_back_from_a_data_set_does_not_keep_the_program(tmp_path, ending):
    (tmp_path / "script.py").write_text(HUNG)
    command = [sys.executable, str(tmp_path / "script.py"), ending]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if ending == "interrupt":
        assert process.stdout.readline() == b"reads\n"
        process.send_signal(signal.SIGINT)
    try:
        # The worker holds the pipe too.
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == (-signal.SIGINT if ending == "interrupt" else 0)


class Flaky:
    """Fails to give its rows once."""

    failed = False

    def __len__(self):
        return 7

    def __getitem__(self, row):
        if not Flaky.failed:
            Flaky.failed = True
            raise OSError("the disk is away")
        return np.array([row, row])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_that_could_not_be_read_is_read_again(workers):
    Flaky.failed = False
    data = datasets() | {"dataset": Flaky()}
    plan = plan_of()
    iterator = iter(mix(data, plan, workers=workers))
    with pytest.raises(OSError, match="the disk is away"):
        next(iterator)
    elements = take(plan, iterator, range(5))
    assert [element["rows"].tolist() for element in elements] == [e["rows"].tolist() for e in undisturbed(5)]
    iterator.close()
