"""Every sentence of the paper that states a comparison or a limit has a row in some config's claims."""

from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray

import mixjax.data
from experiments.sentences import SENTENCES, quote
from mixjax import configs

FOLDER = Path(__file__).parents[2] / "configs" / "loss_and_sampling_weights"
CONFIGS = sorted(FOLDER.glob("*.toml"))


def fake_images(name, **kwargs):
    rng = np.random.default_rng(0)
    train, test = rng.random((60000, 784), np.float32), rng.random((10000, 784), np.float32)
    labels = [np.arange(len(images), dtype=np.int32) % 10 for images in (train, test)]
    return mixjax.data.Images(train, labels[0], test, labels[1], (28, 28), 10, "noise, for shapes only")


def made_up_results(config):
    """Data sets of the right shapes with random numbers: what a claims function needs to name its rows."""
    rng = np.random.default_rng(0)
    results, first = {}, None
    for run in config.runs:
        experiment = config.function(run.values)
        first = first or experiment
        axes = {name: list(values) for name, values in config.sweep.axes.items()}
        hparams = {name: jax.ShapeDtypeStruct((), np.float32) for name in axes}
        shapes = jax.eval_shape(experiment.train, jax.random.key(0), hparams, experiment.data)
        sizes = (*map(len, axes.values()), 3)
        variables = {
            name: ((*axes, "seed", *experiment.dims[name]), rng.random(sizes + shape.shape))
            for name, shape in shapes.items()
        }
        results[run.name] = xarray.Dataset(variables, {**axes, "seed": np.arange(3), **experiment.coords})
    return first, results


@pytest.fixture(scope="module")
def claims():
    patch = pytest.MonkeyPatch()
    patch.setattr(mixjax.data, "load", fake_images)
    rows = []
    for path in CONFIGS:
        experiment, results = made_up_results(configs.load(path))
        rows += [(path.stem, claim) for claim in experiment.claims(results)]
    patch.undo()
    return rows


def test_every_figure_has_a_config():
    names = {path.stem for path in CONFIGS}
    assert {"linear", "linear_appendix", "logistic", "mnist", "single_weight"} <= names


def test_every_sentence_has_a_row(claims):
    named = {claim.name for _, claim in claims}
    assert not sorted(set(SENTENCES) - named)


def test_rows_quote_the_sentence_they_judge(claims):
    for _, claim in claims:
        if claim.name in SENTENCES:
            assert {"statement": claim.statement, "source": claim.source} == quote(claim.name)
        else:
            assert claim.statement.startswith("ours"), claim


def test_row_names_are_unique(claims):
    repeated = [name for name, count in Counter(claim.name for _, claim in claims).items() if count > 1]
    assert not repeated


def test_judging_seeds_are_not_those_that_chose_the_settings():
    for path in CONFIGS:
        sweep = configs.load(path).sweep
        assert sweep.first_seed >= 1000, path
        assert sweep.seeds >= (20 if path.stem == "mnist" else 100), path
