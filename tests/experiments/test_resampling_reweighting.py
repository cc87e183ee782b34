"""Paper 003's experiments: the exact chain, lemma 2.1, the surfaces, the Welsch problems, and tiny runs to the end."""

import functools
import json
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from experiments.resampling_reweighting import feature_norms, lattice, molecules, piecewise, runs, surfaces, welsch
from mixjax.runner import configs, experiment

pytestmark = pytest.mark.usefixtures("quick_compilation")

FOLDER = Path(__file__).parents[2] / "configs" / "resampling_reweighting"


@pytest.mark.parametrize("scheme", piecewise.METHODS)
def test_every_move_is_unbiased(scheme):
    for theta in (
        Fraction(-2),
        Fraction(-1),
        Fraction(-1, 3),
        Fraction(0),
        Fraction(1, 9),
        Fraction(1, 5),
        Fraction(3),
    ):
        gradients = lattice.slopes(theta, Fraction(1, 10), Fraction(5))
        moves = lattice.moves(scheme, (Fraction(2, 5), Fraction(3, 5)), gradients, Fraction(5))
        mean = sum(p * step for p, step in moves)
        assert mean == -(Fraction(2, 5) * gradients[0] + Fraction(3, 5) * gradients[1])
        assert sum(p for p, _ in moves) == 1


def test_section_2s_numbers():
    moves = lattice.moves("static", (Fraction(2, 5), Fraction(3, 5)), (Fraction(1), Fraction(-5)), Fraction(5))
    (f1, step1), (f2, step2) = moves
    np.testing.assert_allclose([float(f1), float(f2)], [0.117647, 0.882353], rtol=1e-5)
    np.testing.assert_allclose([float(step1), float(step2)], [-3.4, 0.68 * 5], rtol=1e-6)


@pytest.mark.parametrize(
    ("scheme", "expected"),  # at 0.04 within 100, 1000 and 10000 steps, from an independent computation
    [("sgd", (0.315, 0.951, 1.0)), ("static", (0.0, 0.0001, 0.0006)), ("per_term", (0.006, 0.081, 0.578))],
)
def test_exit_probabilities(scheme, expected):
    chain = lattice.walk(scheme, Fraction(1, 25))
    np.testing.assert_allclose(chain.chances.sum(1), 1.0)
    assert (np.diff(chain.positions) > 0).all()
    np.testing.assert_allclose(lattice.exit_probabilities(chain, -0.5, [100, 1000, 10_000]), expected, atol=6e-4)


@pytest.mark.parametrize("scheme", piecewise.METHODS)
@pytest.mark.parametrize("rate", [0.038, 0.06])
def test_runs_follow_the_chain(scheme, rate):
    config = piecewise.Piecewise(learning_rate=rate, num_steps=400)
    runs = jax.jit(jax.vmap(functools.partial(piecewise.train, config=config)))(
        jax.random.split(jax.random.key(1), 1500)
    )
    left = np.asarray(runs["left_at"])[:, list(piecewise.METHODS).index(scheme)]
    exact = lattice.exit_probabilities(piecewise.chain(scheme, config, rate), -0.5, [100, 400])
    for steps, p in zip((100, 400), exact, strict=True):
        assert stats.binomtest(int((left <= steps).sum()), left.size, min(max(p, 0.0), 1.0)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("scheme", "rate", "share"), [("sgd", 1, 0.2020), ("sgd", 2, 0.3680), ("static", Fraction(1, 5), 0.0092)]
)
def test_the_stationary_law_stays_as_it_is(scheme, rate, share):
    chain = lattice.walk(scheme, Fraction(rate))
    law = lattice.stationary(chain)
    np.testing.assert_allclose(lattice._forward(chain, law), law, atol=1e-12)
    np.testing.assert_allclose(law[chain.positions > 0].sum(), share, atol=1e-4)
    assert law.min() >= 0


def test_lemma_2_1_is_the_law_of_its_own_equation_and_not_of_the_walk():
    def density(theta, rate):
        first, second = (abs(theta + 1) - 1, -0.1 * theta) if theta <= 0 else (0.1 * theta, abs(5 * theta - 1) - 1)
        noise = 0.4 * 0.6 * rate / 2 * (1 if theta <= 0 else 25)
        return np.exp(-(0.4 * first + 0.6 * second) / noise) / (1 if theta <= 0 else 25)

    for rate in (0.5, 1.0, 4.0):
        left, right = (
            integrate.quad(density, *ends, (rate,), points=[kink], limit=200)[0]
            for ends, kink in (((-30, 0), -1), ((1e-12, 300), 0.2))
        )
        np.testing.assert_allclose(lattice.gibbs_mass_right(rate), right / (left + right), rtol=1e-6)
    # Zero flux at either side and a continuous sigma^2 p at 0, hence stationary: p' sigma^2 / 2 = -V' p.
    step = 1e-6
    for theta, sigma2, slope in ((-0.5, 0.24, 0.4 - 0.06), (0.1, 0.24 * 25, 0.04 - 3.0)):
        change = (density(theta + step, 1.0) - density(theta - step, 1.0)) / (2 * step)
        np.testing.assert_allclose(change * sigma2 / 2, -slope * density(theta, 1.0), rtol=1e-4)
    np.testing.assert_allclose(density(-1e-12, 1.0) * 0.24, density(1e-12, 1.0) * 0.24 * 25, rtol=1e-6)
    exact = lattice.stationary(lattice.walk("sgd", Fraction(1)))
    assert lattice.gibbs_mass_right(1.0) < 0.03 * exact[lattice.walk("sgd", Fraction(1)).positions > 0].sum()


@pytest.mark.parametrize(
    ("make", "minimum", "value"),
    [(surfaces.mueller_brown, (-0.558, 1.442), -146.70 / 4), (surfaces.large_system, (2.751, 1.297), -24.27)],
)
def test_surfaces(make, minimum, value):
    surface, place = make(), jnp.float32(minimum)
    np.testing.assert_allclose(surfaces.energy(surface, place), value, rtol=1e-3)
    for z in (place + 0.1, jnp.float32([-0.8, 1.0])):
        gradient = jax.grad(functools.partial(surfaces.energy, surface))(z)
        np.testing.assert_allclose(surfaces.gradients(surface, z).mean(0), gradient, rtol=1e-4, atol=1e-4)
    grid = np.stack(np.meshgrid(*[np.linspace(-2, 4, 121)] * 2), -1).reshape(-1, 2)
    heights = jax.lax.map(functools.partial(surfaces.energy, surface), jnp.float32(grid[grid[:, 1] < 2.2]))
    assert heights.min() >= value - 0.05  # nothing is lower


def test_steps_that_lead_too_far_are_not_taken():
    config = molecules.Molecules(learning_rate=1e6, last_rate=1e6, num_steps=20)
    found = molecules.train(jax.random.key(0), config, surfaces.mueller_brown())
    assert np.isfinite(found["z"]).all() and (abs(found["z"]) <= molecules.FAR).all()


@pytest.mark.parametrize("problem", ["classification", "regression"])
def test_welsch_gradients_and_data(problem):
    config = welsch.Welsch(problem=problem, sizes=(30, 50))
    points = getattr(welsch, problem)(jax.random.key(0), config)
    theta = points.best + 0.05
    expected = jax.vmap(lambda x, y: jax.grad(lambda t: -jnp.expm1(-((y - x @ t) ** 2) / 2))(theta))(points.x, points.y)
    np.testing.assert_allclose(welsch.gradients(theta, points.x, points.y), expected, rtol=1e-4, atol=1e-6)
    assert (welsch.gradients(theta + 1e4, points.x, points.y)[:30] == 0).all()  # underflow, not NaN
    assert abs(points.x[:30].mean() - 20) < 1 and abs(points.x[30:].mean()) < 1


def test_resampling_stays_where_sgd_leaves():
    config = welsch.Welsch(num_steps=1200, record_every=100, margin=0.08)
    found = jax.jit(jax.vmap(functools.partial(welsch.train, config=config)))(jax.random.split(jax.random.key(2), 12))
    last = np.asarray(found["loss"])[:, :, -1]
    assert (last[:, 0] > 0.25).mean() > 0.5 and (last[:, 1:] < 0.25).mean() > 0.95


@pytest.mark.parametrize("method", feature_norms.METHODS)
def test_every_direction_is_unbiased(method):
    sizes, grads = jnp.array([2, 5]), jax.random.normal(jax.random.key(3), (7, 1)).at[:2].multiply(9.0)

    def draw(key):
        return runs.direction(method, key, lambda i: grads[i], sizes, 7, jnp.repeat(jnp.array([9.0, 1.0]), sizes, 0))[0]

    draws = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(4), 20_000)))
    assert abs(draws.mean() - grads.mean()) < 4 * draws.std() / np.sqrt(draws.size)


def test_remark_2_2s_problem_has_a_sharp_minimum_that_is_lower():
    config = feature_norms.FeatureNorms(num_examples=60, dim=3)
    points, number = feature_norms.problem(jax.random.key(0), config)
    assert number == 12
    np.testing.assert_allclose(np.linalg.norm(points.x, axis=1), np.where(np.arange(60) < 12, 20.0, 1.0), rtol=1e-5)
    theta = points.sharp + 0.03
    own = jax.jit(jax.grad(feature_norms.loss))(theta, points)
    np.testing.assert_allclose(feature_norms.gradients(theta, points.x, points.y).mean(0), own, rtol=1e-4)
    places, line = jax.jit(feature_norms.along_axis)(points)
    np.testing.assert_allclose(places[jnp.array([0, -1])], [0.05, -0.5], rtol=1e-6)
    np.testing.assert_allclose(line[-1], feature_norms.loss(points.flat, points), rtol=1e-5)
    assert line[0] < line[-1] < line.max() and 0 < jnp.argmax(line) < len(line) - 1


@pytest.mark.parametrize("kind", [piecewise.Piecewise, molecules.Molecules, welsch.Welsch, feature_norms.FeatureNorms])
def test_steps_that_do_not_fit_are_refused(kind):
    with pytest.raises(ValueError, match="num_steps must be a multiple of 7"):
        kind(num_steps=100, record_every=7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("piecewise", ["num_steps=60", "sweep.learning_rate=[0.03, 0.04]", "shown=[0.04, 0.03]"]),
        ("equilibrium", ["num_steps=400"]),
        ("mueller_brown", ["num_steps=40"]),
        ("large_system", ["num_steps=50", "record_every=10"]),
        ("classification", ["num_steps=40", "record_every=20", "sizes=[20, 60]", "sweep.learning_rate=[0.01, 0.015]"]),
        ("regression", ["num_steps=40", "record_every=20", "sizes=[20, 60]"]),
        ("theory", ["num_steps=20", "runs=2", "horizon=0.2"]),
        ("feature_norms", ["num_steps=20", "num_examples=20", "sweep.learning_rate=[0.01]", "sweep.share=[0.2, 0.6]"]),
    ],
)
def test_tiny_runs_end_in_claims(name, changes, tmp_path):
    config = configs.load(FOLDER / f"{name}.toml", [*changes, "sweep.seeds=4", "sweep.chunk=4"])
    out = experiment.run(config, out=tmp_path / "out")
    rows = json.loads((out / "claims.json").read_text(encoding="utf-8"))
    assert rows and all(np.isfinite(row["value"]) for row in rows)
    assert (out / "figure.png").stat().st_size > 20_000
