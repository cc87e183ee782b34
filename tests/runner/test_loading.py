"""Data that several experiments need are loaded once, and kept no longer than needed."""

import gc
import threading
import weakref

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
