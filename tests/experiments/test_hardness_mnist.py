"""Imbalanced MNIST: classifiers, split, ways to draw, the training step, curves, the long run, both configs."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import mixjax.data
from experiments.hardness_sampling import classifiers, curves, imbalanced, mnist, mnist_claims, sentences, wrn
from mixjax import objectives
from mixjax.runner import configs, experiment, results
from mixjax.sweeps.checkpoints import ChangedError

pytestmark = pytest.mark.usefixtures("quick_compilation")

FOLDER = Path(__file__).parents[2] / "configs" / "hardness_sampling"
NAMES = {name for name in sentences.SENTENCES if name.startswith(("mnist_", "importance_sampling_compensates"))}


def fake_images(name="mnist"):
    """Ten noisy patterns, 600 training and 200 test images."""
    rng = np.random.default_rng(0)
    patterns = rng.random((10, 784))
    labels = [np.arange(size, dtype=np.int32) % 10 for size in (600, 200)]
    images = [(patterns[y] + 0.4 * rng.standard_normal((len(y), 784))).clip(0, 1).astype(np.float32) for y in labels]
    return mixjax.data.Images(images[0], labels[0], images[1], labels[1], (28, 28), 10, "a test")


@pytest.fixture
def images(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load", fake_images)
    return jax.tree.map(jnp.asarray, imbalanced.load(3))


@pytest.fixture
def small_wrn(monkeypatch):
    """One block, and chunks no longer than what is measured."""
    monkeypatch.setattr(classifiers.WideResNet, "GROUPS", ((16, 64, 4),))
    monkeypatch.setattr(imbalanced, "CHUNK", 30)


PROBLEM = mnist.Mnist(keep=0.1, batch_size=8, probe_size=106, test_size=120, num_steps=16, record_every=4)


def test_numbers_of_weights():
    assert [classifiers.num_weights(name) for name in ("mlp", "cnn", "wrn")] == [203_530, 55_338, 174_778]


def test_patches_make_a_convolution_of_stride_two():
    key, x = jax.random.key(0), jax.random.normal(jax.random.key(1), (2, 8, 6, 3))
    kernel = jax.random.normal(key, (3, 3, 3, 5))
    expected = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(classifiers.patches(x) @ kernel.reshape(27, 5), expected, rtol=1e-4, atol=1e-4)


def test_batch_normalisation_by_the_batch_by_running_and_by_fresh_statistics(small_wrn):
    model = classifiers.build("wrn")
    model = model._replace(**{name: jax.jit(getattr(model, name)) for name in model._fields})
    params, stats = model.init(jax.random.key(0))
    images, labels = jax.random.uniform(jax.random.key(1), (16, 784)), jnp.arange(16) % 10
    losses, moved = model.train_losses(params, stats, images, labels)
    fresh = model.refresh(params, stats, images)
    np.testing.assert_allclose(model.losses(params, fresh, images, labels)[0], losses, rtol=1e-4)
    assert not np.allclose(model.losses(params, stats, images, labels)[0], losses, rtol=1e-2)
    for before, after, batch in zip(*map(jax.tree.leaves, (stats, moved, fresh)), strict=True):
        np.testing.assert_allclose(after, 0.9 * before + 0.1 * batch, rtol=1e-4, atol=1e-6)
    assert classifiers.build("mlp").refresh is None


split = jax.jit(imbalanced.split, static_argnums=1)
start = jax.jit(imbalanced.start, static_argnums=(1, 3))


def test_split_keeps_all_but_most_of_the_rare_class(images):
    parts = split(jax.random.key(0), PROBLEM, images)
    labels = images.train_labels[parts.kept]
    assert imbalanced.num_rare(PROBLEM, images) == 6 and len(labels) == imbalanced.num_kept(PROBLEM, images) == 546
    assert len(np.unique(parts.kept)) == 546 and (labels[-6:] == 3).all() and (labels[:-6] != 3).all()
    assert (labels[parts.probe.ids[-6:]] == 3).all() and len(np.unique(parts.probe.ids)) == 106
    assert len(np.unique(parts.test.ids)) == 120 and (images.test_labels[parts.test.ids] == 3).sum() == 20
    other = split(jax.random.key(1), PROBLEM, images)
    assert set(np.asarray(parts.kept[-6:])) != set(np.asarray(other.kept[-6:]))


def test_a_sample_stands_for_its_set(images):
    parts = split(jax.random.key(0), PROBLEM, images)
    rare = (jnp.arange(106) >= 100).astype(jnp.float32)
    share = 6 / 546
    np.testing.assert_allclose(parts.probe.mean(jnp.ones(106)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(parts.probe.mean(rare), share, rtol=1e-5)
    np.testing.assert_allclose(parts.probe.std(rare), (share * (1 - share)) ** 0.5, rtol=1e-5)
    np.testing.assert_allclose(parts.test.mean((jnp.arange(120) >= 100) * 1.0), 0.1, rtol=1e-5)
    np.testing.assert_allclose(parts.probe.correlation(rare, 1.0 - 2.0 * rare), -1.0, rtol=1e-4)
    assert float(parts.probe.correlation(rare, jnp.ones(106))) == 0.0


def test_over_returns_every_chunk_in_order():
    ids = jnp.arange(imbalanced.CHUNK + 7)
    np.testing.assert_array_equal(imbalanced.over(lambda x: 2 * x, ids), 2 * ids)


def compiled(scheme):
    """The same scheme, each function one program."""
    return imbalanced.Scheme(*map(jax.jit, scheme))


def test_erm_goes_through_epochs():
    scheme = compiled(imbalanced.shuffled(24, 8))
    state, drawn = scheme.init(jnp.ones(24), jax.random.key(0)), []
    for step in range(6):
        positions, state = scheme.sample(state, jax.random.key(step))
        drawn.append(np.asarray(positions))
    first, second = np.concatenate(drawn[:3]), np.concatenate(drawn[3:])
    np.testing.assert_array_equal(np.sort(first), np.arange(24))
    np.testing.assert_array_equal(np.sort(second), np.arange(24))
    assert (first != second).any()
    state = scheme.update(state, jnp.array([3]), jnp.array([7.0]))
    assert scheme.history(state)[3] == 7.0 and scheme.history(state)[2] == 1.0
    np.testing.assert_allclose(jnp.exp(scheme.log_probs(state)), 1 / 24, rtol=1e-5)


def test_schemes_draw_from_the_robust_distribution_of_their_history():
    losses = jax.random.uniform(jax.random.key(0), (50,))
    positions, new = jnp.array([4, 9]), jnp.array([1.5, 0.1])
    expected = losses.at[positions].set(new)
    for scheme, weights in (
        (imbalanced.hardness(50, 2, jnp.float32(10.0)), jax.nn.softmax(10.0 * expected)),
        (imbalanced.chi_squared(50, 2, 10.0), objectives.robust_weights(expected, jnp.ones(50), 10.0, "chi2")),
    ):
        scheme = compiled(scheme)
        state = scheme.update(scheme.init(losses, jax.random.key(0)), positions, new)
        np.testing.assert_allclose(scheme.history(state), expected, rtol=1e-6)
        np.testing.assert_allclose(jnp.exp(scheme.log_probs(state)), weights, rtol=1e-3, atol=1e-6)
        keys = jax.random.split(jax.random.key(1), 4000)
        drawn = jax.jit(jax.vmap(lambda key, s=scheme, st=state: s.sample(st, key)[0]))(keys)
        share = float((drawn == 4).mean())
        assert abs(share - float(weights[4])) < 4 * (float(weights[4]) / 8000) ** 0.5
        assert (scheme.weights(state, positions, new) == 1.0).all()


def test_importance_weights_are_those_of_the_library():
    scheme = compiled(imbalanced.hardness(5, 2, jnp.float32(2.0), importance="clipped"))
    state = scheme.init(jnp.ones(5), jax.random.key(0))
    weights = scheme.weights(state, jnp.array([0, 1]), jnp.array([1.5, 9.0]))
    np.testing.assert_allclose(weights, [np.exp(1.0), 10.0], rtol=1e-5)


@pytest.fixture(scope="module")
def begun():
    """The start of every scheme with hardness weighted sampling: images, split, state."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixjax.data, "load", fake_images)
        images = jax.tree.map(jnp.asarray, imbalanced.load(3))
    scheme = imbalanced.hardness(imbalanced.num_kept(PROBLEM, images), 8, jnp.float32(3.0))
    return images, *start(jax.random.key(0), PROBLEM, images, scheme)


@pytest.mark.parametrize("importance", [None, "clipped"])
def test_a_step_is_algorithm_1(begun, importance):
    images, parts, carry = begun
    n = imbalanced.num_kept(PROBLEM, images)
    scheme = compiled(imbalanced.hardness(n, 8, jnp.float32(3.0), importance=importance))
    np.testing.assert_allclose(scheme.history(carry.state), np.log(10), rtol=6e-3)
    assert 0.0005 < float(scheme.history(carry.state).std()) / np.log(10) < 0.0015
    new, seen = jax.jit(imbalanced.step, static_argnums=(1, 4))(carry, PROBLEM, images, parts, scheme)

    positions, _ = scheme.sample(carry.state, jax.random.split(carry.key)[1])
    ids, model = parts.kept[positions], classifiers.build("mlp")

    @jax.jit
    def losses(params):
        return model.losses(params, carry.stats, images.train[ids], images.train_labels[ids])[0]

    old, fresh = scheme.history(carry.state), losses(carry.params)
    w = jnp.exp(3.0 * (fresh - old[positions])).clip(0.1, 10.0) if importance else jnp.ones(8)
    grads = jax.jit(jax.grad(lambda params: jnp.dot(w, losses(params)) / 8))(carry.params)
    expected = jax.tree.map(lambda p, g: p - 0.01 * g, carry.params, grads)
    for a, b in zip(*map(jax.tree.leaves, (new.params, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scheme.history(new.state)[positions], fresh, rtol=1e-5)
    untouched = np.setdiff1d(np.arange(n), positions)
    np.testing.assert_array_equal(scheme.history(new.state)[untouched], old[untouched])
    np.testing.assert_allclose(seen["batch_loss"], fresh.mean(), rtol=1e-5)
    np.testing.assert_allclose(seen["rare_share"], (positions >= n - 6).mean(), rtol=1e-6)


def test_methods_start_from_one_network(images):
    starts = [
        start(jax.random.key(5), PROBLEM, images, mnist.scheme(PROBLEM, 546, kind, jnp.float32(1.0)))
        for kind in ("erm", "wr", "chi2")
    ]
    for parts, carry in starts[1:]:
        np.testing.assert_array_equal(parts.kept, starts[0][0].kept)
        for a, b in zip(*map(jax.tree.leaves, (carry.params, starts[0][1].params)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_fresh_history_has_no_distance_and_a_stale_one_is_compensated():
    fresh = jax.random.uniform(jax.random.key(0), (100,))
    measure = jax.jit(mnist.freshness, static_argnums=4)
    found = measure(jax.random.key(1), jnp.float32(2.0), fresh, fresh, 64)
    assert float(found["tv_stale"]) < 1e-5 and float(found["tv_clipped"]) < 1e-5
    np.testing.assert_allclose(found["bias"][:4], 0.0, atol=4 * float(found["error"][0]) / mnist.NUM_BATCHES**0.5)
    assert float(found["bias"][4]) < -0.05  # 64 of 100 without replacement: nearly uniform

    stale = jax.random.uniform(jax.random.key(2), (100,))
    found = measure(jax.random.key(1), jnp.float32(1.0), stale, fresh, 64)  # ratios within the clip
    expected = 0.5 * jnp.abs(jax.nn.softmax(stale) - jax.nn.softmax(fresh)).sum()
    np.testing.assert_allclose(found["tv_stale"], expected, rtol=1e-4)
    assert float(found["tv_clipped"]) < 1e-5
    assert abs(float(found["bias"][3])) < abs(float(found["bias"][0]))


def test_roughness_is_the_noise_about_a_line():
    line = 3.0 * np.arange(4000.0)
    noise = np.random.default_rng(0).normal(0, 2.0, 4000)
    values = xarray.DataArray(np.stack([line, line + noise]), dims=("seed", "step"))
    np.testing.assert_allclose(curves.roughness(values), [0.0, 2.0], atol=0.1)


def test_a_curve_at_a_level_of_another():
    def array(*rows):
        return xarray.DataArray(np.array(rows, float), dims=("seed", "step"))

    level = xarray.DataArray([1.5, 4.0, 0.0], dims="seed")
    losses, values = array([3, 2, 1], [3, 2, 1], [3, 2, 1]), array([0, 10, 20], [5, 6, 7], [0, 0, 0])
    np.testing.assert_allclose(curves.at_level(values, losses, level), [15.0, 5.0, np.nan])
    data = xarray.Dataset(
        {
            "train_loss": (("method", "seed", "step"), [[[3.0, 2.0, 1.0]], [[3.0, 1.0, 0.5]]]),
            "rare_accuracy": (("method", "seed", "step"), [[[0.0, 10.0, 20.0]], [[0.0, 40.0, 50.0]]]),
        },
        {"method": ["a", "b"]},
    )
    a, b, level = curves.equal_loss(data, "a", "b")
    assert (float(a[0]), float(b[0]), float(level[0])) == (20.0, 40.0, 1.0)


def test_rank_correlation_and_dips():
    step = np.arange(20.0)
    one = xarray.DataArray(step[None], dims=("seed", "step"))
    np.testing.assert_allclose(curves.rank_correlation(one, np.exp(one)), 1.0)
    np.testing.assert_allclose(curves.rank_correlation(one, -(one**3)), -1.0)
    dips = np.random.default_rng(0).random((2, 40))
    data = xarray.Dataset(
        {
            "accuracy": (("seed", "method", "step"), (90 - dips)[:, None]),
            "train_loss_std": (("seed", "method", "step"), (1 + dips)[:, None]),
        },
        {"method": ["m"], "step": np.arange(40)},
    )
    np.testing.assert_allclose(mnist_claims.dips_and_spread(data, "m"), 1.0)


def test_steps_to_reach():
    values = [[[10.0, 50.0, 90.0, 95.0]], [[0.0, 0.0, 0.0, 0.0]]]
    data = xarray.Dataset(
        {"accuracy": (("seed", "method", "step"), values)}, {"method": ["m"], "step": [10, 20, 30, 40]}
    )
    np.testing.assert_allclose(mnist_claims.steps_to_reach(data, "accuracy", "m", 90.0), [0.75, 1.0])


@pytest.mark.parametrize(("gap", "holds"), [(8.0, True), (2.0, False), (lambda step: 8 + 100 / step, None)])
def test_optima_that_still_come_closer_decide_nothing(gap, holds):
    step = np.arange(1, 41)
    gaps = gap(step) if callable(gap) else np.full(40, gap)
    noise = np.random.default_rng(0).normal(0, 1e-3, (4, 40))
    values = np.stack([50 + gaps + noise, np.full((4, 40), 50.0)], axis=1)
    data = xarray.Dataset(
        {"rare_accuracy": (("seed", "method", "step"), values)}, {"method": ["nr_10", "erm"], "step": step}
    )
    claim = mnist_claims.optima(data)
    assert claim.holds is holds and ("still closing" in claim.note) == (holds is None)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"methods": ("erm", "adam")}, "methods must be among .* got .'adam'."), ({"num_steps": 10}, "multiple of")],
)
def test_mnist_refuses(change, message, images):
    with pytest.raises(ValueError, match=message):
        mnist.mnist(mnist.Mnist(**change))


@pytest.mark.slow
def test_config_end_to_end(images, first_run_only, tmp_path):
    overrides = [f"run.{i}.{key}={value}" for i in range(4) for key, value in (("num_steps", 24), ("record_every", 2))]
    config = configs.load(
        FOLDER / "mnist.toml",
        ["keep=0.1", "batch_size=8", "probe_size=106", "test_size=120", "sweep.seeds=2", *overrides],
    )
    assert config.sweep.first_seed >= 1000
    out = experiment.run(config, out=tmp_path / "result")
    rows = {row["name"]: row for row in json.loads((out / "claims.json").read_text())}
    assert set(rows) >= NAMES and (out / "figure.png").stat().st_size > 10_000
    for name, row in rows.items():
        assert row["statement"] == sentences.SENTENCES[name][1] if name in NAMES else row["statement"][:4] == "ours"
        assert np.isfinite(row["value"]), name
    data = results.read(out)["MLP"]
    assert all(np.isfinite(variable).all() for variable in data.values())
    assert (data["effective_sample_size"].sel({"method": "erm"}) > 0.999).all()
    assert (data["tv_stale"].sel({"method": "wr_0"}) < 1e-4).all()
    assert (data["effective_sample_size"].sel({"method": "wr_100"}) < 0.5).any()
    start = data["train_loss"].isel(step=0)
    assert (data["train_loss"].sel({"method": "erm"}).isel(step=-1) < start.sel({"method": "erm"})).all()


@pytest.mark.slow
def test_wrn_goes_on_where_it_was_stopped(images, small_wrn, tmp_path, monkeypatch):
    overrides = ["keep=0.1", "batch_size=4", "probe_size=30", "test_size=30", "num_steps=6", "record_every=2"]
    config = configs.load(FOLDER / "wrn.toml", overrides)
    assert config.sweep.first_seed >= 1000
    made = wrn.schemes(config.runs[0].values, images)
    monkeypatch.setattr(wrn, "schemes", lambda *_: made)  # equal functions: compiled once
    told = []

    def stop(line, **kwargs):
        told.append(line)
        if len(told) == 2:
            raise KeyboardInterrupt

    whole = results.read(wrn.run(FOLDER / "wrn.toml", tmp_path / "whole", overrides, report=lambda *_, **__: None))
    with pytest.raises(KeyboardInterrupt):
        wrn.run(FOLDER / "wrn.toml", tmp_path / "parts", overrides, report=stop)
    assert results.read(tmp_path / "parts")["run"].step.values.tolist() == [2, 4]
    parts = results.read(wrn.run(FOLDER / "wrn.toml", tmp_path / "parts", overrides, report=stop))
    assert parts["run"].step.values.tolist() == [2, 4, 6] and len(told) == 3
    for name, values in whole["run"].items():
        assert np.isfinite(values).all(), name
        np.testing.assert_array_equal(values, parts["run"][name], err_msg=name)
    rows = json.loads((tmp_path / "parts" / "claims.json").read_text())
    assert rows and all(row["holds"] is None and row["statement"].startswith("ours") for row in rows)

    shapes = jax.eval_shape(wrn.wrn(config.runs[0].values).train, jax.random.key(1000), {}, images)
    assert {name: shape.shape for name, shape in shapes.items()} == dict.fromkeys(whole["run"], (3, 3))
    with pytest.raises(ChangedError, match=r"config\.num_steps: 6, now 4"):
        wrn.run(FOLDER / "wrn.toml", tmp_path / "parts", [*overrides, "num_steps=4"])
