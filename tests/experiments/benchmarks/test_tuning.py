"""The comparison of what a sweep chooses with fixed choices."""

import contextlib

import pytest

from experiments.benchmarks import tuning, workers
from mixjax.runner import configs


@pytest.mark.parametrize(("chosen", "holds"), [("64", True), ("16", False)])
def test_the_choice_is_judged_by_the_fastest_fixed_one(monkeypatch, chosen, holds):
    seconds = {"map": 4e-3, "16": 2e-3, "64": 1.05e-3, "vmap": 1e-3}
    found = {"walk": {"seconds": seconds, "chosen": chosen}}

    @contextlib.contextmanager
    def worker(devices, quick):
        yield lambda function, *arguments: found

    monkeypatch.setattr(workers, "worker", worker)
    report = tuning.run(quick=True)
    assert report.targets[0].holds is holds and f"| {chosen} | {1.05 if holds else 2} |" in report.text


def test_every_problem_is_a_config_with_these_settings():
    assert len(tuning.PROBLEMS) == 8
    for problem in tuning.PROBLEMS:
        config = configs.load(tuning.CONFIGS / f"{problem.config}.toml")
        changed = configs.replace(config.runs[0].values, dict(problem.settings))
        for name, value in problem.settings.items():
            found = getattr(changed, name)
            assert (list(found) if isinstance(value, list) else found) == value, (problem.name, name)
