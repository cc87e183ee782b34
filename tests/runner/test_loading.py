"""Data that several experiments need are loaded once, and kept no longer than needed."""

import dataclasses
import functools
import gc
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.runner.loading import load_once, one_experiment, sharing


class Loader:
    """Loads arrays, and knows which of them are still in memory when it loads another."""

    def __init__(self):
        self.loaded, self.alive, self._refs = [], [], {}
        self.load = load_once(self._load)

    def _load(self, name, size=3):
        gc.collect()
        self.alive.append([name for name, ref in self._refs.items() if ref() is not None])
        self.loaded.append(name)
        value = np.full(size, 1.0)
        self._refs[name] = weakref.ref(value)
        return value


def test_equal_arguments_load_once_whichever_way_they_are_given():
    loader = Loader()
    with sharing():
        values = [loader.load("a"), loader.load("a", 3), loader.load(name="a", size=3)]
        assert all(value is values[0] for value in values) and loader.load("a", 4) is not values[0]
    assert loader.loaded == ["a", "a"]
    # Elsewhere nothing is shared or kept.
    assert loader.load("a") is not values[0] and len(loader.loaded) == 3


def test_data_that_no_run_needs_any_more_go_before_others_are_loaded():
    loader = Loader()
    with sharing():
        for name in ("a", "a", "b", "a"):
            with one_experiment():
                loader.load(name)
    assert loader.loaded == ["a", "b", "a"] and loader.alive == [[], [], []]


def test_an_experiment_may_load_several_and_what_it_does_not_load_goes():
    one, other = Loader(), Loader()
    with sharing():
        for _ in range(2):
            with one_experiment():
                for name in ("train", "test"):
                    one.load(name)
                other.load("x")
        with one_experiment():
            one.load("test")
        with one_experiment():
            one.load("train")
            other.load("x")
    assert one.loaded == ["train", "test", "train"] and one.alive == [[], ["train"], []]
    assert other.loaded == ["x", "x"] and other.alive == [[], []]


def test_a_load_that_fails_is_tried_again():
    @load_once
    def load(calls):
        calls.append(1)
        if len(calls) == 1:
            raise OSError("no such folder")
        return len(calls)

    calls = []
    with sharing(), pytest.raises(OSError, match="no such folder"), one_experiment():
        load(calls)
    with sharing(), one_experiment():
        assert load(calls) == 2


def test_threads_share_nothing():
    loader = Loader()
    with sharing():
        loader.load("a")
        thread = threading.Thread(target=lambda: loader.load("a"))
        thread.start()
        thread.join()
    assert loader.loaded == ["a", "a"]


@dataclasses.dataclass(frozen=True)
class Setting:
    value: object


def plain():
    """Makes values that differ in type or value, new objects at each call."""
    numbers = [0, False, 0.0, -0.0, 1, True, 1.0, 1j, np.float32(1), np.int64(1), float("nan"), float("inf")]
    arrays = [np.zeros(0), np.zeros(1), np.zeros(3), np.zeros((3, 1)), np.zeros(3, int), np.full(3, np.nan)]
    of_jax = [jnp.zeros(3), jnp.zeros(3, jnp.bfloat16), jax.random.key(0), jax.random.key(1)]
    return [*numbers, "", "1", b"1", None, len, {}, [], (), *arrays, *of_jax]


def test_arguments_are_the_same_if_and_only_if_their_types_and_values_are():
    wrappers = [lambda x: x, lambda x: [x], lambda x: (x,), lambda x: {"a": x}, lambda x: Setting((x,))]
    calls = []
    load = load_once(lambda x: calls.append(x))
    with sharing():
        for wrap in wrappers:
            for value, equal in zip(plain(), plain(), strict=True):
                num_before = len(calls)
                load(wrap(value))
                load(wrap(equal))
                assert len(calls) == num_before + 1, wrap(value)


def test_an_argument_that_is_changed_afterwards_is_another_one():
    calls = []
    load = load_once(lambda *given: calls.append(len(calls)) or calls[-1])
    names, table, sizes = ["a"], {"a": [1]}, np.zeros(2)
    with sharing():
        assert load(names, table, sizes) == load(names, table, sizes) == 0
        for number, change in enumerate(
            [lambda: names.append("b"), lambda: table["a"].append(2), lambda: np.add(sizes, 1, out=sizes)], 1
        ):
            change()
            assert load(names, table, sizes) == load(names, table, sizes) == number


def test_what_cannot_be_compared_or_read_again_is_told_at_the_first_call():
    @load_once
    def numbers(size):
        yield from range(size)

    with sharing():
        with pytest.raises(TypeError, match=r"numbers must return data that can be read again.*, got generator"):
            numbers(3)
        with pytest.raises(TypeError, match=r"argument size of .*numbers must be .* hashable, got set\.$"):
            numbers([{1}])
    assert list(numbers(3)) == list(numbers(3)) == [0, 1, 2]


def test_a_run_cannot_change_the_data_of_the_next_one():
    array = functools.partial(np.zeros, 3)
    shared = load_once(lambda: {"a": array(), "rest": [(array(),), Setting(array()), "text", 1]})
    with sharing():
        data = shared()
        for x in (data["a"], data["rest"][0][0], data["rest"][1].value):
            with pytest.raises(ValueError, match="read-only"):
                x += 1
    shared()["a"][:] = 1


def test_data_that_a_run_has_donated_are_loaded_again():
    shared = load_once(lambda: [jnp.zeros(3), np.zeros(3)])
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    with sharing():
        for _ in range(2):
            with one_experiment():
                assert step(shared()[0]).tolist() == [1, 1, 1]
        with one_experiment():
            assert shared()[0] is shared()[0]
