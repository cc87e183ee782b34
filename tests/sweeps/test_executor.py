"""Chunks that run out of memory."""

import logging

import jax
import numpy as np
import pytest

from mixjax.sweeps import programs
from tests.sweeps.test_loop import sweep


def out_of_memory_above(monkeypatch, rows):
    run = programs.Program.run

    def limited(self, *arguments):
        with programs.memory_errors():
            if self.slots > rows:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes.")
        return run(self, *arguments)

    monkeypatch.setattr(programs.Program, "run", limited)


def test_a_chunk_that_runs_out_of_memory_is_halved_and_computed_again(monkeypatch, caplog, tmp_path):
    whole = sweep(seeds=30, vectorize="vmap", devices=jax.devices()[:2])
    out_of_memory_above(monkeypatch, 20)
    for folder in (None, tmp_path):
        with caplog.at_level(logging.WARNING):
            result = sweep(seeds=30, vectorize="vmap", devices=jax.devices()[:2], checkpoint=folder)
        assert "chunk of 60 runs: going on with 30" in caplog.text and "going on with 15" in caplog.text
        np.testing.assert_allclose(result.error, whole.error, rtol=1e-6)
        caplog.clear()
    assert sorted(int(path.stem[6:]) for path in tmp_path.glob("chunk_*")) == [0, 16]
    for path in tmp_path.glob("chunk_*"):
        path.unlink()
    with caplog.at_level(logging.WARNING):  # the size that worked was kept
        again = sweep(seeds=30, vectorize="vmap", devices=jax.devices()[:2], checkpoint=tmp_path)
    assert not caplog.text
    np.testing.assert_array_equal(again.error, result.error)


def test_a_chunk_of_a_given_size_that_does_not_fit_is_an_error(monkeypatch):
    out_of_memory_above(monkeypatch, 1)
    with pytest.raises(MemoryError, match="no memory for a chunk of 4 runs"):
        sweep(chunk=4)
    out_of_memory_above(monkeypatch, 0)
    with pytest.raises(MemoryError, match="no memory for a chunk of one run:"):  # nothing left to halve
        sweep(vectorize="vmap", devices=jax.devices()[:1])


def test_other_failures_of_the_runtime_are_not_taken_for_it(monkeypatch):
    def broken(self, *arguments):
        with programs.memory_errors():
            raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(programs.Program, "run", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        sweep()
