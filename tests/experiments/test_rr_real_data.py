"""Importance sampling on real data, on made-up data: nothing here needs the cache."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import mixjax.data
from experiments.resampling_reweighting import domains, draws, real_data, real_data_report
from experiments.resampling_reweighting.domains import Problem
from mixjax import grad_norms
from mixjax.runner import configs, experiment

pytestmark = pytest.mark.usefixtures("quick_compilation")

FOLDER = Path(__file__).parents[2] / "configs" / "resampling_reweighting"
SIZES = np.array([30, 10])
BATCH = 8


def losses(tape, params, batch):
    x, y = batch
    return 0.5 * jnp.square(tape.dense(jnp.tanh(tape.dense(x, params[0])), params[1])[:, 0] - y)


@pytest.fixture(scope="module")
def toy():
    """A problem of two domains, the second of larger gradients, its training set, and parameters."""
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (40, 3)) * jnp.repeat(jnp.array([1.0, 3.0]), SIZES)[:, None]
    examples = x, jax.random.normal(keys[1], (40,)) * jnp.repeat(jnp.array([1.0, 4.0]), SIZES)
    params = jax.random.normal(keys[2], (3, 4)), jax.random.normal(keys[3], (4, 1))
    problem = Problem(("small", "large"), SIZES, None, lambda *_: examples, lambda *_: params, losses)
    return problem, examples, params


@pytest.fixture(scope="module")
def informed(toy):
    """Every method with its state after it has seen every example once, and a probe."""
    problem, examples, params = toy

    def batch_of(indices):
        return jax.tree.map(lambda x: x[indices], examples)

    strengths = {"va": 0.1, "rr": 0.2, "switch": 0.2, "by_loss": 0.5, "hardness": 0.5}
    methods = draws.methods(problem, BATCH, batch_of, strengths, num_probed=30)

    @jax.jit
    def inform():
        values, _, norms = grad_norms.value_grads_and_norms(losses, params, examples)
        states = {}
        for name, method in methods.items():
            scores = norms if method.scores == "norms" else values
            state = method.observe(method.start(1.0, 1.0), jnp.arange(40), scores)
            states[name] = method.probe(state, params, jax.random.key(1))
        spread = draws.measure(jax.random.key(2), problem, params, batch_of, 300)
        return states, spread, {name: method.variance(states[name], spread) for name, method in methods.items()}

    states, spread, variances = inform()
    return methods, states, spread, variances


def gradients(toy):
    _, examples, params = toy

    def one(params, example):
        return losses(grad_norms.Tape(), params, jax.tree.map(lambda x: x[None], example))[0]

    grads = jax.vmap(jax.grad(one), (None, 0))(params, examples)
    return np.concatenate([np.asarray(g).reshape(40, -1) for g in grads], axis=1)


def many(method, state, num=4000):
    """Indices and weights of many batches."""
    draw = jax.jit(jax.vmap(lambda key: method.draw(state, key)))
    return map(np.asarray, draw(jax.random.split(jax.random.key(3), num)))


@pytest.mark.parametrize("name", ["sgd", "va", "rr", "switch", "by_loss"])
def test_a_batch_estimates_the_mean_gradient_with_the_variance_told(toy, informed, name):
    methods, states, _, variances = informed
    grads = gradients(toy)
    indices, weights = many(methods[name], states[name])
    estimates = (weights[..., None] * grads[indices]).mean(1)
    error = estimates.std(0) / np.sqrt(len(estimates))
    assert (np.abs(estimates.mean(0) - grads.mean(0)) < 4.5 * error).all()
    np.testing.assert_allclose(variances[name], BATCH * estimates.var(0).sum(), rtol=0.15)


def test_importance_sampling_pays_where_gradients_differ(informed):
    *_, spread, variances = informed
    ratio = {name: float(variance / spread.uniform) for name, variance in variances.items()}
    assert ratio["sgd"] == 1 and ratio["rr"] < 0.7 and ratio["va"] < 0.7
    np.testing.assert_allclose(ratio["switch"], ratio["rr"], rtol=1e-4)  # it is on
    assert np.isnan(ratio["hardness"])


def test_hardness_sampling_is_not_weighted_back(informed):
    methods, states, *_ = informed
    indices, weights = many(methods["hardness"], states["hardness"], 500)
    assert (weights == 1).all() and (indices >= 30).mean() > 0.5  # the large ones, a quarter of the examples


def test_spread_is_that_of_the_gradients(toy, informed):
    grads, spread = gradients(toy), informed[2]
    np.testing.assert_allclose(spread.norms, np.linalg.norm(grads, axis=1)[spread.rows], rtol=1e-4)
    assert (np.asarray(spread.rows)[1] >= 30).all() and (np.asarray(spread.rows)[0] < 30).all()
    for d, part in enumerate(np.split(grads, [30])):
        np.testing.assert_allclose(spread.stds[d] ** 2, part.var(0).sum(), rtol=0.2)
    np.testing.assert_allclose(spread.uniform, grads.var(0).sum(), rtol=0.2)


# --- data -----------------------------------------------------------------------------------------------------------


def made_up_images(name):
    rng = np.random.default_rng(0)
    labels = np.arange(300, dtype=np.int32) % 10
    images = (rng.random((300, 12)) + 0.1 * labels[:, None]).astype(np.float32)
    return mixjax.data.Images(images, labels, images[:9], labels[:9], (3, 4), 10, "made up")


def made_up_text(name):
    letters = np.frombuffer(f"what {name} says, ".encode() * 9, np.uint8)
    return mixjax.data.Text(letters, letters, letters, "made up")


def test_digits_have_random_labels_in_one_domain_and_more_contrast_in_another(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load", made_up_images)
    problem = domains.mnist(200, width=4, layers=1)
    assert problem.sizes.sum() == 200 and problem.sizes.tolist() == sorted(problem.sizes, reverse=True)
    x, y = map(np.asarray, jax.jit(problem.draw)(jax.random.key(0), problem.source))
    images, labels = problem.source
    ids = np.repeat(range(3), problem.sizes)
    scaled = x / np.where(ids == 2, 4, 1)[:, None]
    rows = np.abs(scaled[:, None] - images).sum(-1).argmin(1)
    np.testing.assert_allclose(images[rows], scaled, rtol=1e-6)
    assert len(set(rows)) == 200 and (y == labels[rows])[ids != 1].all() and (y == labels[rows])[ids == 1].mean() < 0.5
    with pytest.raises(ValueError, match="num_examples must be at most the source's 300, got 301"):
        domains.mnist(301, width=4, layers=1)


def test_text_is_cut_in_windows_whose_targets_are_the_next_bytes(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load_text", made_up_text)
    problem = domains.text(20, width=8, layers=1)
    x, y = map(np.asarray, jax.jit(problem.draw)(jax.random.key(0), problem.source))
    assert x.shape == y.shape == (20, domains.LENGTH) and (x[:, 1:] == y[:, :-1]).all()
    for row, d in zip(x, np.repeat(range(len(problem.sizes)), problem.sizes), strict=True):
        assert bytes(row.astype(np.uint8)) in problem.source[d].tobytes()
    shape = jax.eval_shape(lambda key: problem.losses(grad_norms.Tape(), problem.init(key), (x, y)), jax.random.key(1))
    assert shape.shape == (20,)


# --- the report -----------------------------------------------------------------------------------------------------


def records(curves, times, target=1.0):
    """A data set of losses by method, the same steps 0, 100, ... and a little noise over the seeds."""
    loss = np.stack(list(curves.values())) + 1e-3 * np.arange(4)[:, None, None]
    shape = (4, len(curves), 2)
    ratio = np.ones(loss.shape) * np.array([1.0, 0.5, 2.0, np.nan])[: len(curves), None]
    return xarray.Dataset(
        {
            "loss": (("seed", "method", "step"), loss),
            "variance_ratio": (("seed", "method", "step"), ratio),
            "possible_ratio": (("seed", "when", "scheme"), np.full((4, 2, 2), 0.3)),
            "milliseconds": (("seed", "method", "turn"), np.broadcast_to(np.array(times)[:, None], shape)),
            "target": (("seed",), np.full(4, target)),
        },
        {
            "seed": range(4),
            "method": list(curves),
            "step": 100 * np.arange(loss.shape[-1]),
            "when": ["start", "end"],
            "scheme": ["rr", "va"],
        },
    )


def test_steps_to_the_target_are_those_of_the_first_crossing():
    data = records({"sgd": [3.0, 2.0, 0.0, 2.0], "rr": [0.5, 2.0, 0.0, 2.0], "va": [3.0, 2.0, 2.0, 1.5]}, [1, 1, 1])
    steps = real_data_report.steps_to_target(data).isel(seed=0)
    np.testing.assert_allclose(steps, [150.0, 0.0, np.nan])
    late = np.log(300) - np.log(150)  # not arrived counts as the last step
    np.testing.assert_allclose(real_data_report.log_ratios(data, "va")[0], late)


def test_equal_time_is_that_of_all_steps_of_uniform_draws():
    data = records({"sgd": [3.0, 2.0, 1.0], "rr": [4.0, 2.0, 0.0], "va": [4.0, 2.0, 0.0]}, [1.0, 2.0, 0.5])
    assert real_data_report.at_equal_time(data, "rr").isel(seed=0).item() == 2.0  # half of the 200 steps
    assert real_data_report.at_equal_time(data, "va").isel(seed=0).item() == 0.0  # no more than all of them


def test_verdicts():
    curves = {"sgd": [3.0, 2.0, 0.5], "rr": [3.0, 1.5, 0.3], "va": [3.0, 2.5, 1.5], "hardness": [3.0, 0.5, 0.5]}
    found = {c.name: c for c in real_data_report.claims({"Toy": records(curves, [1.0, 2.0, 1.0, 1.0])})}
    assert found["toy_rr_fewer_steps"].holds is True and found["toy_rr_less_time"].holds is False
    assert found["toy_rr_lower_loss"].holds is False  # half the steps
    assert found["toy_rr_less_variance"].holds is True and found["toy_va_less_variance"].holds is False
    assert "toy_hardness_less_variance" not in found and found["toy_hardness_fewer_steps"].holds is True
    assert found["toy_va_fewer_steps"].holds is False and "0 of 4 runs" in found["toy_va_fewer_steps"].note


# --- the whole ------------------------------------------------------------------------------------------------------


def test_a_batch_has_an_example_of_each_domain(toy, monkeypatch):
    monkeypatch.setattr(domains, "mnist", lambda *_: toy[0])
    with pytest.raises(ValueError, match="batch_size must be at least 2, one a domain, got 1"):
        real_data.real_data(real_data.RealData(source="mnist", num_examples=40, batch_size=1))


@pytest.mark.parametrize("name", ["real_mlp", "real_transformer"])
def test_configs_judge_on_new_seeds(name):
    config = configs.load(FOLDER / f"{name}.toml")
    assert config.sweep.first_seed >= 1000 and not config.sweep.axes
    for run in config.runs:
        assert run.values.learning_rate == run.values.strength == 1.0


def test_a_tiny_run_to_the_end(toy, monkeypatch, tmp_path):
    monkeypatch.setattr(domains, "mnist", lambda *_: toy[0])
    measured = real_data.milliseconds

    def of_one(config, problem):  # each method more is compiled once more
        return np.repeat(measured(dataclasses.replace(config, methods=("sgd",)), problem), 2, axis=0)

    monkeypatch.setattr(real_data, "milliseconds", of_one)
    config = tmp_path / "tiny.toml"
    config.write_text("""
        experiment = "experiments.resampling_reweighting.real_data:real_data"
        source = "mnist"
        num_examples = 40
        num_evaluated = 40
        num_measured = 4
        num_probed = 4
        batch_size = 8
        num_steps = 20
        record_every = 10
        target = 4.0
        rates = {sgd = 0.01, rr = 0.01}
        methods = ["sgd", "rr"]
        sweep.seeds = 2
    """)
    path = experiment.run(configs.load(config), out=tmp_path / "out")
    claims = json.loads((path / "claims.json").read_text())
    assert len(claims) == 4 and (path / "figure.png").stat().st_size > 10_000
    metrics = np.load(path / "metrics.npz")
    loss = next(metrics[key] for key in metrics.files if key.endswith("loss"))
    times = next(metrics[key] for key in metrics.files if key.endswith("milliseconds"))
    assert times.shape == (2, 2, real_data.TURNS) and (times > 0).all()
    assert loss.shape == (2, 2, 3) and np.ptp(loss[:, :, 0], axis=1).max() < 1e-6  # from the same parameters
    assert np.isfinite(loss).all() and np.ptp(loss[:, :, 2], axis=1).min() > 1e-5
