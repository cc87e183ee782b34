"""A process that dies at any of its operations on files leaves a folder from which the same call goes on."""

import builtins
import os
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.sweeps import Segments
from mixjax.sweeps.checkpoints import remove_chunks

pytestmark = pytest.mark.usefixtures("save_always")

OPERATIONS = ("fsync", "mkdir", "open", "rename", "replace", "rmdir", "unlink")


class KilledError(BaseException):
    """Stands for the end of the process: nothing catches it."""


class Deaths:
    """Counts operations on files, and lets the process die before or after one of them: nothing works from then on."""

    def __init__(self, patch, at=None, after=False):
        self.count, self.at, self.after = 0, at, after
        for name in OPERATIONS:
            patch.setattr(os, name, self.counted(getattr(os, name)))
        patch.setattr(builtins, "open", self.counted(open))

    def counted(self, operation):
        def call(*args, **kwargs):
            number, self.count = self.count, self.count + 1
            if self.at is not None and number >= self.at:
                if number == self.at and self.after:
                    operation(*args, **kwargs)
                raise KilledError
            return operation(*args, **kwargs)

        return call


def init(key, hparams, data):
    return {"key": key, "x": jnp.float32(1.0), "none": jnp.zeros((0, 3))}


def advance(carry, hparams, data):
    key, own = jax.random.split(carry["key"])
    x = carry["x"] * 0.5 + jax.random.normal(own)
    return {**carry, "key": key, "x": x}, {"x": x[None]}


TRAIN = Segments(init, advance, 3)


def train(key, hparams, data):
    return {"x": jax.random.normal(key, (3,))}


def compute(run, folder):
    return mixjax.sweep(run, seeds=3, chunk=2, devices=jax.devices()[:2], checkpoint=folder).x.values


def call(run, folder):
    """Does what a command does: a sweep, and then its chunks go."""
    result = compute(run, folder)
    remove_chunks(folder)
    return result


@pytest.mark.parametrize("run", [train, TRAIN], ids=["function", "segments"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_same_call_goes_on_after_a_death_at_any_operation(run, after, tmp_path, monkeypatch):
    whole = call(run, tmp_path / "whole")
    with monkeypatch.context() as patch:
        counted = Deaths(patch)
        call(run, tmp_path / "counted")
    assert counted.count > 15
    for at in range(counted.count):
        place = tmp_path / f"at_{at}"
        place.mkdir()
        with monkeypatch.context() as patch, pytest.raises(KilledError):
            Deaths(patch, at, after)
            call(run, place / "chunks")
        np.testing.assert_array_equal(call(run, place / "chunks"), whole)
        assert not os.listdir(place)


def test_a_process_that_dies_again_and_again_gets_to_its_end(tmp_path, monkeypatch):
    whole, found, deaths = compute(TRAIN, tmp_path / "whole"), None, 0
    choose = random.Random(0)
    while found is None and deaths < 50:
        with monkeypatch.context() as patch:
            # Long enough for one save.
            Deaths(patch, choose.randrange(12, 24), choose.random() < 0.5)
            try:
                found = compute(TRAIN, tmp_path / "chunks")
            except KilledError:
                deaths += 1
    np.testing.assert_array_equal(found, whole)
    assert deaths > 2
