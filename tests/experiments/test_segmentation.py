"""Segmentation with hardness weighted sampling: losses, scores, prediction, training and both sources."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.hardness_sampling import dice, segmentation
from experiments.hardness_sampling.segmentation import Segmentation
from mixjax.data import anatomies
from mixjax.data.anatomies import Anatomy
from mixjax.data.segmentation import Cases
from mixjax.runner import configs, experiment, results

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIGS = Path(__file__).parents[2] / "configs" / "hardness_sampling"
LN4 = np.log(4.0)


# --- losses and scores ----------------------------------------------------------------------------------------------


def test_soft_dice_and_cross_entropy_by_hand():
    labels = jnp.zeros((1, 2, 2, 2), int).at[0, 0].set(1).at[0, 1, 0].set(2)  # 4, 2 and no voxels of labels 1, 2, 3
    scores = jnp.zeros((1, 2, 2, 2, 4))  # probability 1/4 everywhere
    expected = 1 - (2 * 1 / (2 + 4) + 2 * 0.5 / (2 + 2) + 0) / 3
    np.testing.assert_allclose(dice.soft_dice_losses(scores, labels), [expected], rtol=1e-4)
    np.testing.assert_allclose(dice.losses([scores], labels), [expected + LN4], rtol=1e-4)
    perfect = 100.0 * jax.nn.one_hot(labels, 4)
    np.testing.assert_allclose(dice.losses([perfect], labels), [0.0], atol=1e-5)  # absent and not predicted is right


def test_deep_supervision_weighs_two_to_one_and_takes_every_other_voxel():
    labels = jnp.zeros((1, 4, 4, 4), int).at[0, ::2, ::2, ::2].set(1)
    fine, coarse = 100.0 * jax.nn.one_hot(labels, 4), jnp.zeros((1, 2, 2, 2, 4))  # right, and undecided
    at_coarse = 1 - (2 * 2 / (2 + 8)) / 3 + LN4
    np.testing.assert_allclose(dice.losses([fine, coarse], labels), [at_coarse / 3], rtol=1e-4)
    with pytest.raises(ValueError, match=r"scores 1 must be \(1, 2, 2, 2, 'classes'\), got \(1, 4, 4, 4, 4\)"):
        dice.losses([fine, fine], labels)


def test_losses_are_one_number_an_example_whatever_the_batch():
    key = jax.random.key(0)
    scores = [jax.random.normal(key, (3, n, n, n, 4)) for n in (4, 2)]
    labels = jax.random.randint(key, (3, 4, 4, 4), 0, 4)
    losses = jax.jit(dice.losses)
    together = losses(scores, labels)
    assert together.shape == (3,) and len(set(together.tolist())) == 3
    for i in range(3):
        alone = losses([s[i : i + 1] for s in scores], labels[i : i + 1])
        np.testing.assert_allclose(alone, together[i : i + 1], rtol=1e-5)
    jacobian = jax.jit(jax.jacobian(lambda s: dice.losses([s], labels)))(scores[0])  # [loss of, x, y, z, class]
    reach = jnp.abs(jacobian).sum((2, 3, 4, 5))
    np.testing.assert_array_equal(reach > 0, np.eye(3, dtype=bool))


def test_dice_of_regions_by_hand():
    truth = jnp.array([0, 1, 1, 2, 3, 3]).reshape(1, 1, 6)
    found = jnp.array([1, 1, 0, 3, 3, 2]).reshape(1, 1, 6)
    np.testing.assert_allclose(dice.dice(found, truth), [2 * 4 / (5 + 5), 2 * 3 / (3 + 3), 2 * 1 / (2 + 2)])


def test_empty_regions_score_as_in_brats():
    empty, oedema = jnp.zeros((2, 2, 2), int), jnp.ones((2, 2, 2), int)
    np.testing.assert_array_equal(dice.dice(empty, empty), [1, 1, 1])
    np.testing.assert_array_equal(dice.dice(oedema, empty), [0, 1, 1])
    np.testing.assert_array_equal(dice.dice(oedema, oedema + 2), [1, 0, 0])


# --- prediction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "patch", "starts"), [(32, 24, [0, 8]), (24, 24, [0]), (48, 24, [0, 12, 24]), (49, 24, [0, 8, 17, 25])]
)
def test_windows_cover_the_side_and_overlap_by_half(size, patch, starts):
    assert dice.window_starts(size, patch) == starts


def test_prediction_from_windows_is_that_of_the_whole_where_scores_are_local():
    image = jax.random.normal(jax.random.key(0), (7, 6, 9, 3))
    found = jax.jit(lambda image: dice.predict(lambda x: 5 * x, image, 4))(image)
    np.testing.assert_array_equal(found, image.argmax(-1))
    with pytest.raises(ValueError, match="a window of 8 does not fit into 7 voxels"):
        dice.predict(lambda x: x, image, 8)


def test_the_middle_of_a_window_counts_most():
    image = jnp.zeros((6, 4, 4, 1))  # two windows along x, from 0 and from 2

    def score(window):  # sure of class 1 near its beginning, less sure of class 2 elsewhere
        return jnp.zeros((4, 4, 4, 3)).at[:1, ..., 1].set(9.0).at[1:, ..., 2].set(2.0)

    assert dice.predict(score, image, 4)[:, 0, 0].tolist() == [1, 2, 2, 2, 2, 2]  # at 2 the first window's 2 wins


# --- optimiser ------------------------------------------------------------------------------------------------------


def updates(config, gradient, num):
    optimizer = segmentation.make_optimizer(config)
    state, found = optimizer.init(gradient), []
    for _ in range(num):
        update, state = optimizer.update(gradient, state)
        found.append(float(update))
    return np.array(found)


def test_the_learning_rate_falls_from_epoch_to_epoch():
    config = Segmentation(learning_rate=0.5, momentum=0.0, num_epochs=4, batches=2)
    expected = [-0.5 * (1 - t / 4) ** 0.9 * 3.0 for t in (0, 0, 1, 1, 2, 2, 3, 3)]
    np.testing.assert_allclose(updates(config, jnp.float32(3.0), 8), expected, rtol=1e-5)


def test_nesterov_momentum_and_gradient_clipping():
    config = Segmentation(learning_rate=0.1, momentum=0.99, num_epochs=1000, batches=250)
    traces = [1.0, 1.99]  # g + 0.99 * trace, trace = g, then 1.99 g
    np.testing.assert_allclose(
        updates(config, jnp.float32(1.0), 2), [-0.1 * (1 + 0.99 * trace) for trace in traces], rtol=1e-5
    )
    np.testing.assert_allclose(updates(config, jnp.float32(600.0), 1), [-0.1 * 12 * 1.99], rtol=1e-5)


# --- training -------------------------------------------------------------------------------------------------------

TINY = Segmentation(grid=8, patch=8, num_levels=2, width=4, num_heads=1, num_epochs=1, batches=1, momentum=0.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    """Only the simulation's run augments: compiling that takes longer than the other tests do."""
    if request.node.name != "test_the_simulation_end_to_end":
        monkeypatch.setattr(segmentation.augmentation, "augment", lambda key, image, label: (image, label))


@pytest.fixture(scope="module")
def cases():
    """Six cases in which a bright cube is the tumour."""
    rng = np.random.default_rng(0)
    labels = np.zeros((6, 8, 8, 8), np.int8)
    for label in labels:
        x, y, z = rng.integers(0, 4, 3)
        label[x : x + 5, y : y + 5, z : z + 5] = 1
        label[x + 1 : x + 4, y + 1 : y + 4, z + 1 : z + 4] = 2
        label[x + 1 : x + 3, y + 1 : y + 3, z + 1 : z + 3] = 3
    images = labels[..., None] + rng.normal(0, 0.3, (*labels.shape, 4))
    return jax.tree.map(jnp.asarray, Cases(images.astype(np.float32), labels, np.array([0, 0, 0, 0, 1, 1])))


@pytest.fixture(scope="module")
def change(cases):
    """By how much one step moves the parameters, as a function of initial loss, beta and importance sampling."""

    @jax.jit
    def moved(initial_loss, beta, importance):
        config = dataclasses.replace(TINY, initial_loss=initial_loss, max_gradient=1e9)
        key, two = jax.random.key(3), jnp.arange(2)
        _, before = segmentation.make_net(config, jax.random.split(key, 3)[0])
        _, after, _ = segmentation.fit(key, config, cases, two, beta, importance)
        return jax.tree.map(lambda a, b: b - a, before, after)

    return moved


@pytest.mark.parametrize(("initial_loss", "factor"), [(50.0, 0.1), (0.0, 10.0)])
def test_importance_weights_are_clipped_and_scale_the_step(change, initial_loss, factor):
    """Both cases are in the batch, whose losses are near 2: far below the stale ones, or far above."""
    plain, weighted = (change(initial_loss, 100.0, importance) for importance in (False, True))
    for a, b in zip(*(map(np.asarray, jax.tree.leaves(tree)) for tree in (plain, weighted)), strict=True):
        assert np.abs(a).max() > 0
        np.testing.assert_allclose(b, factor * a, rtol=1e-2, atol=1e-5)


def test_beta_zero_ignores_importance_sampling(change):
    plain, weighted = (change(2.0, 0.0, importance) for importance in (False, True))
    jax.tree.map(np.testing.assert_array_equal, plain, weighted)


def test_hard_sampling_sees_every_case_once_before_any_twice(cases):
    config = dataclasses.replace(TINY, initial_loss=20.0, batches=3)
    fit = jax.jit(lambda beta: segmentation.fit(jax.random.key(0), config, cases, jnp.arange(6), beta, True)[2])
    records = fit(100.0)
    assert records["draws"].tolist() == [[1.0] * 6]


def test_hard_sampling_prefers_the_case_that_cannot_be_learned(cases, monkeypatch):
    def patches(key, cases, indices, patch):
        """The labels of case 0 are noise, another one each time."""
        labels = cases.labels[indices]
        noise = jax.random.randint(key, labels.shape, 0, 4, labels.dtype)
        return cases.images[indices], jnp.where((indices == 0)[:, None, None, None], noise, labels)

    monkeypatch.setattr(segmentation, "patches", patches)
    config = dataclasses.replace(TINY, learning_rate=0.1, momentum=0.9, num_epochs=3, batches=30)
    fit = jax.jit(lambda beta: segmentation.fit(jax.random.key(0), config, cases, jnp.arange(6), beta, False)[2])
    share, size = {}, {}
    for beta in (0.0, 10.0):
        found = fit(beta)
        share[beta], size[beta] = found["draws"][-1, 0] / 60, found["effective_sample_size"][-1]
    assert share[0.0] < 0.3 and share[10.0] > 0.4  # 1/6, and at most 1/2, without replacement
    np.testing.assert_allclose(size[0.0], 6, rtol=1e-4)
    assert size[10.0] < 3


def test_the_loss_falls_and_the_tumour_is_found(cases):
    config = dataclasses.replace(TINY, learning_rate=0.1, momentum=0.9, num_epochs=4, batches=30)

    @jax.jit
    def run(beta):
        key, image = jax.random.key(0), cases.images[5]
        apply, params, records = segmentation.fit(key, config, cases, jnp.arange(4), beta, False)
        found = dice.predict(lambda x: apply(params, x[None])[0][0], image, 8)
        return records["loss"], dice.dice(found, cases.labels[5])

    losses, score = run(0.0)
    assert losses[-1] < 0.6 * losses[0]
    assert score[0] > 0.7


def test_split_keeps_the_centres_shares_and_no_case_twice():
    members = [jnp.arange(5), jnp.arange(5, 12)]
    one, other = (segmentation.split(jax.random.key(seed), members, [2, 3]) for seed in (0, 1))
    assert sorted([*one.train.tolist(), *one.test.tolist()]) == list(range(12))
    assert (one.test < 5).tolist() == [True] * 2 + [False] * 3 and (one.train < 5).sum() == 3
    assert one.test.tolist() != other.test.tolist()


# --- configs --------------------------------------------------------------------------------------------------------

SMALL = ["patch=8", "num_levels=2", "width=2", "num_heads=1", "num_epochs=2", "batches=2", "sweep.seeds=2"]


def run(path, overrides, tmp_path):
    out = experiment.run(configs.load(path, [*SMALL, *overrides]), out=tmp_path / "result")
    assert (out / "figure.png").stat().st_size > 20_000
    for data in results.read(out).values():
        assert all(np.isfinite(values).all() for values in data.values())
        assert data["dice"].min() >= 0 and data["dice"].max() <= 100
    return results.read(out), {row["name"]: row for row in json.loads((out / "claims.json").read_text())}


def ball(grid):
    places = (np.indices((grid,) * 3) + 0.5) / grid - 0.5
    radius = np.sqrt((places**2).sum(0))
    return Anatomy("ball", np.stack([radius > 0.35, radius < 0.1, radius >= 0.1], -1) * (radius < 0.42)[..., None])


@pytest.mark.slow
def test_the_simulation_end_to_end(first_run_only, tmp_path, monkeypatch):
    monkeypatch.setattr(anatomies, "load", lambda names, grid: [ball(grid)])
    cases = ["grid=24", "train_cases=[3, 3, 2, 2]", "test_cases=[2, 2, 2, 2]"]
    runs, rows = run(CONFIGS / "segmentation.toml", cases, tmp_path)
    assert {data.sizes["method"] for data in runs.values()} == {2, 7}
    assert runs["Nesterov"]["case"].values.tolist()[-2:] == ["low field", "low field"]
    assert {"iqr_core_sgd", "fewer_poor_cases_in_one_centre", "importance_sampling_iqr_beta_1000"} <= set(rows)
    assert configs.load(CONFIGS / "segmentation.toml").sweep.first_seed >= 1000  # settings were chosen on seeds below


@pytest.mark.slow
def test_brats_end_to_end(first_run_only, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    for name in ("TCIA01_1", "TCIA02_2", "TCIA02_3", "CBICA_A", "CBICA_B", "CBICA_C"):
        folder = tmp_path / "HGG" / f"BraTS19_{name}_1"
        folder.mkdir(parents=True)
        seg = np.zeros((20, 24, 18), np.uint8)
        seg[4:13, 5:16, 6:14], seg[5:11, 7:14, 7:13], seg[6:9, 8:12, 8:12] = 2, 1, 4
        for kind in ("t1", "t1ce", "t2", "flair", "seg"):
            values = np.zeros(seg.shape, np.int16)
            values[2:18, 2:22, 2:16] = rng.integers(100, 900, (16, 20, 14))
            image = nibabel.Nifti1Image(seg if kind == "seg" else values, np.eye(4))
            nibabel.save(image, folder / f"{folder.name}_{kind}.nii.gz")
    overrides = [f"folder={json.dumps(str(tmp_path))}", "grid=16", "test_share=0.34"]
    runs, rows = run(CONFIGS / "brats.toml", overrides, tmp_path)
    assert runs["Nesterov"]["case"].values.tolist() == ["CBICA", "TCIA"]
    assert {"iqr_enhancing_nesterov", "fewer_poor_cases_in_one_centre"} <= set(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"betas": (0.0,)}, "betas and importance_sampling need one entry a method"),
        ({"patch": 26}, "patch must be at most grid = 32 and a multiple of 4, got 26"),
        ({"patch": 36}, "patch must be at most grid = 32"),
        ({"train_cases": (1, 2)}, "train_cases and test_cases need one number for each of"),
        ({"centre": "TCIA"}, "centre must be one of"),
        ({"source": "brats"}, 'source "brats" needs folder'),
    ],
)
def test_errors_name_what_is_wrong(change, message, monkeypatch):
    monkeypatch.setattr(anatomies, "load", lambda names, grid: [ball(grid)])
    few = {"train_cases": (1, 1, 1, 1), "test_cases": (0, 0, 0, 1)}
    with pytest.raises(ValueError, match=message):
        segmentation.segmentation(Segmentation(**{**few, **change}))
