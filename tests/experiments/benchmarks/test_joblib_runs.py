"""The rival by joblib: its clock counts what its processes take."""

import dataclasses
import multiprocessing

import pytest

from experiments.benchmarks import figure_1, joblib_runs


def test_the_clock_counts_the_processes(monkeypatch):
    crew = joblib_runs.Crew(2)
    monkeypatch.setattr(joblib_runs.time, "process_time", lambda: 5.0)
    crew.used = {1: 2.0, 2: 0.5}
    assert crew.seconds() == 7.5


@pytest.mark.slow
def test_every_process_trains_before_the_clock_is_read():
    pytest.importorskip("torch")
    config = dataclasses.replace(figure_1.settings(quick=True)[0], num_steps=8)
    crew = joblib_runs.Crew(2)
    crew.start(config)
    assert len(crew.used) == 2 and min(crew.used.values()) > 0
    before = crew.seconds()
    crew.run(config, 2)
    assert crew.seconds() > before
    crew.close()
    assert not [child for child in multiprocessing.active_children() if child.is_alive()]
