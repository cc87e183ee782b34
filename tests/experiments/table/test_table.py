"""Tests the table's configs: every pair runs or is excluded with a reason, and its problems can be traced."""

from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.table import pairs as pairs_lib
from experiments.table import report
from experiments.table.table import load, table
from mixjax.rules import RULES
from mixjax.runner import configs

CONFIGS = Path(__file__).parents[3] / "configs" / "loss_and_sampling_weights"


@pytest.mark.parametrize("name", ["table", "table_gpu"])
def test_every_pair_runs_or_is_excluded_with_a_reason_and_all_have_as_many_tries(name):
    config, run_somewhere = configs.load(CONFIGS / f"{name}.toml"), set()
    assert config.sweep.first_seed >= 1000
    assert config.sweep.seeds - config.runs[0].values.selection_seeds >= 20
    assert config.runs[0].values.pairs[0].name == report.BASELINE
    for run in config.runs:
        problem, experiment = load(run.values), table(run.values)
        tries = Counter(experiment.points["pair"])
        left_out = [pair for pair in run.values.pairs if pairs_lib.excluded(pair, problem)]
        assert all(pairs_lib.reason(pair) for pair in left_out)
        assert sorted([*tries, *(pair.name for pair in left_out)]) == sorted(pair.name for pair in run.values.pairs)
        assert len(set(tries.values())) == 1
        run_somewhere |= {
            rule for pair in run.values.pairs if pair.name in tries for rule in (pair.loss, pair.sampling)
        }
    assert run_somewhere == set(RULES) - set(pairs_lib.LEFT_OUT)


@pytest.mark.parametrize("number", [0, 6, 9])
def test_the_problems_of_the_large_table_can_be_traced(number):
    experiment = table(configs.load(CONFIGS / "table_gpu.toml").runs[number].values)
    hparams = {name: jax.ShapeDtypeStruct((), np.float32) for name in experiment.points}
    hparams["pair"] = jax.ShapeDtypeStruct((), np.int32)
    shapes = jax.eval_shape(experiment.train, jax.random.key(0), hparams, experiment.data)
    assert set(shapes) == set(experiment.dims)
