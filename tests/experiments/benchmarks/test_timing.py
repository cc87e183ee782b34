"""Tests turns, summaries, the count of compilations and the description of the machine."""

import jax
import numpy as np

from experiments.benchmarks import timing


def test_sides_take_turns():
    calls = []
    seconds = timing.interleave({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert calls == list("abbaab")
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_summaries():
    assert timing.summarize([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0, 3)
    assert timing.ratios([2.0, 8.0], [1.0, 2.0]) == (3.0, 2.0, 4.0, 2)
    assert str(timing.summarize([1234.5, 0.01234])) == "617 (0.0123 to 1234)"
    low, high = timing.median_interval(list(range(100)))
    assert (low, high) == (40, 60)  # ranks of a binomial's 2.5 and 97.5 % quantiles


def test_compilations_are_counted():
    with timing.compilations() as seconds:
        jax.jit(lambda x: x + 1)(np.float32(1.0))
    assert len(seconds) == 1 and seconds[0] > 0


def test_the_machine_is_described():
    machine = timing.machine() | timing.versions()
    assert all(machine.values())
    assert ("not run on a GPU" in machine["JAX device"]) == (jax.default_backend() == "cpu")
    assert {"CPU", "memory", "caches", "OS", "load average at the start", "jax", "torch"} <= set(machine)


def test_sides_take_turns_by_the_given_clock():
    now, calls = [0.0], []

    def side(name, seconds):
        calls.append(name)
        now[0] += seconds

    sides = {"a": lambda: side("a", 1.0), "b": lambda: side("b", 2.0)}
    assert timing.interleave(sides, 3, clock=lambda: now[0]) == {"a": [1.0] * 3, "b": [2.0] * 3}
    assert calls == ["a", "b", "b", "a", "a", "b"]
