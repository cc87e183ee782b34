"""Tests that every sentence of a paper that states a comparison or a limit has a row in some config's claims."""

import dataclasses
import functools
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import xarray

import mixjax.data
from experiments.fewer_weight_updates import sentences as mixing_sentences
from experiments.hardness_sampling import sentences as hardness_sentences
from experiments.loss_and_sampling_weights import sentences
from experiments.resampling_reweighting import sentences as resampling_sentences
from experiments.shared import sentences as shared_sentences
from mixjax.data import anatomies
from mixjax.runner import configs
from mixjax.runner.claims import Claim
from tests.whole import whole

CONFIGS = Path(__file__).parents[3] / "configs"
# Sentences of other papers, which are judged beside those of the folder's own.
ELSEWHERE = ("Yang et al., Change is Hard, 2023 (SubpopBench)",)
FEW_SEEDS = {  # where a run is long; every other config has at least 100
    "mnist": 4,
    "segmentation": 5,
    "group_shift": 50,
    "group_selection": 16,
    "wide_relu": 20,
    "wrn": 1,
    "brats": 1,
    "real_mlp": 16,
    "real_transformer": 8,
    "loss_and_sampling_weights/mnist": 20,
    "table": 28,
    "stochastic_gradients": 48,
    "text": 5,
}


class Paper(NamedTuple):
    """A folder of configs, the figures it must hold, and what is quoted there."""

    folder: str
    figures: set
    sentences: object
    elsewhere: frozenset = (
        frozenset()
    )  # quote no sentence, or have points of their own, or want data of the user's: see their own tests

    @property
    def paths(self):
        """The configs whose claims are looked at."""
        found = sorted((CONFIGS / self.folder).glob("*.toml"))
        assert {path.stem for path in found} >= self.figures | self.elsewhere
        return [path for path in found if path.stem not in self.elsewhere]


PAPERS = [
    Paper(
        "loss_and_sampling_weights",
        {"linear", "linear_appendix", "logistic", "mnist", "single_weight"},
        sentences,
        frozenset({"table", "table_gpu"}),
    ),
    Paper("hardness_sampling", {"mnist", "wrn", "wide_relu", "segmentation"}, hardness_sentences, frozenset({"brats"})),
    Paper(
        "resampling_reweighting",
        {"piecewise", "feature_norms", "theory", "classification", "regression", "mueller_brown", "large_system"},
        resampling_sentences,
        frozenset({"real_mlp", "real_transformer"}),
    ),
    Paper(
        "fewer_weight_updates",
        {"two_domains", "full_gradients", "stochastic_gradients"},
        mixing_sentences,
        frozenset({"mnist", "text"}),
    ),
]


@functools.cache  # every run of a config loads them anew
def fake_images(name, **kwargs):
    rng = np.random.default_rng(0)
    train, test = rng.random((60000, 784), np.float32), rng.random((10000, 784), np.float32)
    labels = [np.arange(len(images), dtype=np.int32) % 10 for images in (train, test)]
    return mixjax.data.Images(train, labels[0], test, labels[1], (28, 28), 10, "noise, for shapes only")


def fake_table(name, **kwargs):
    rng, num_groups = np.random.default_rng(0), {"adult": 10, "compas": 6, "heart": 4, "opinions": 8}[name]
    groups = np.repeat(np.arange(num_groups, dtype=np.int32), 70)
    labels, names = rng.integers(2, size=groups.size, dtype=np.int32), tuple(f"group {g}" for g in range(num_groups))
    features = rng.normal(size=(groups.size, 2)).astype(np.float32)
    return mixjax.data.Table(features, labels, groups, names, ("a", "b"), "noise, for shapes only")


def fake_anatomies(names, grid=48, root=None):
    distance = np.linalg.norm(np.stack(np.meshgrid(*[np.linspace(-1, 1, grid)] * 3)), axis=0)
    inside = (distance < 0.8).astype(np.float32)
    return [anatomies.Anatomy(name, np.stack([0.1 * inside, 0.5 * inside, 0.4 * inside], -1)) for name in names]


def made_up_results(config):
    """Data sets of the right shapes with random numbers: what a claims function needs to name its rows."""
    rng = np.random.default_rng(0)
    results, first = {}, None
    for run in config.runs:
        experiment = config.function(run.values)
        first = first or experiment
        axes = {name: list(values) for name, values in config.sweep.axes.items()}
        points = experiment.points or {}
        hparams = {name: jax.ShapeDtypeStruct((), np.float32) for name in (*axes, *points)}
        if points:
            axes["point"] = list(range(len(next(iter(points.values())))))
        if isinstance(experiment.train, mixjax.sweeps.HostLoop):
            # An ordinary loop cannot be traced, and all of its dimensions have coordinates.
            shapes = {
                name: tuple(len(experiment.coords[dim]) for dim in dims) for name, dims in experiment.dims.items()
            }
        else:
            train = experiment.train
            train = whole(train) if isinstance(train, mixjax.sweeps.Segments) else train
            traced = jax.eval_shape(train, jax.random.key(0), hparams, experiment.data)
            shapes = {name: metric.shape for name, metric in traced.items()}
        sizes = (*map(len, axes.values()), 3)
        variables = {
            name: ((*axes, "seed", *experiment.dims[name]), rng.random(sizes + shape)) for name, shape in shapes.items()
        }
        results[run.name] = xarray.Dataset(variables, {**axes, "seed": np.arange(3), **experiment.coords})
    return first, results


@pytest.fixture(scope="module", params=PAPERS, ids=lambda paper: paper.folder)
def paper(request):
    return request.param


@pytest.fixture(scope="module")
def claims(paper):
    rows = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixjax.data, "load", fake_images)
        patch.setattr(mixjax.data, "load_table", fake_table)
        patch.setattr(anatomies, "load", fake_anatomies)
        for path in paper.paths:
            experiment, results = made_up_results(configs.load(path))
            rows += [(path.stem, claim) for claim in experiment.claims(results)]
    return rows


def test_every_sentence_has_a_row(paper, claims):
    named = {claim.name for _, claim in claims}
    assert not sorted(set(paper.sentences.SENTENCES) - named)


def test_rows_quote_the_sentence_they_judge(paper, claims):
    for _, claim in claims:
        if claim.name in paper.sentences.SENTENCES:
            assert {"statement": claim.statement, "source": claim.source} == paper.sentences.quote(claim.name)
        else:
            assert claim.statement.startswith("ours") or claim.source in ELSEWHERE, claim


def test_row_names_are_unique(claims):
    repeated = [name for name, count in Counter(claim.name for _, claim in claims).items() if count > 1]
    assert not repeated


def test_judging_seeds_are_not_those_that_chose_the_settings(paper):
    for path in sorted((CONFIGS / paper.folder).glob("*.toml")):
        sweep = configs.load(path).sweep
        least = FEW_SEEDS.get(f"{path.parent.name}/{path.stem}", FEW_SEEDS.get(path.stem, 100))
        assert sweep.first_seed >= 1000, path
        assert sweep.seeds >= least, path


@pytest.mark.parametrize(
    ("section", "source"),
    [
        ("3.1, theorem 3.1", "paper 009, section 3.1, theorem 3.1"),
        ("8.2", "paper 009, appendix 8.2"),
        ("C", "paper 009, appendix C"),
        ("abstract", "paper 009, abstract"),
    ],
)
def test_quotations_name_their_place(section, source):
    quote = shared_sentences.quoter("009", {"name": (section, "as printed")})
    assert quote("name") == {"statement": "as printed", "source": source}
    with pytest.raises(KeyError, match="other"):
        quote("other")


def test_verdicts_tell_what_there_is_to_tell():
    claim = Claim("name", "statement", "source", 5.0, 0.577, 0.0, 3, True)
    assert shared_sentences.verdict(claim) == "5 ± 0.58, holds"
    assert shared_sentences.verdict(dataclasses.replace(claim, stderr=None, holds=False)) == "5, does not hold"
    assert shared_sentences.verdict(dataclasses.replace(claim, value=None, holds=None)) == "no number, undecided"
