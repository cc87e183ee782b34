"""Tests the pairs of rules: their points, their mistakes, what a probe tells each rule."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.table import pairs as pairs_lib
from experiments.table.pairs import Pair
from experiments.table.problems import Gaussians, Groups
from experiments.table.table import Table, load
from mixjax import WeightRule, signals
from mixjax.training import init_state

pytestmark = pytest.mark.usefixtures("quick_compilation")
TINY = {"batch_size": 8, "num_steps": 8, "probe_every": 2, "warmup": 0.0, "held_out": 6, "validation": 10}


def test_a_pair_without_a_grid_tries_as_many_learning_rates_between_the_same_ends():
    compared = [Pair("plain"), Pair("robust", loss="dro", grid={"beta": (0.1, 10.0)})]
    columns = pairs_lib.points(compared, (0.25, 1.0))
    assert columns["pair"] == ["plain"] * 4 + ["robust"] * 4
    np.testing.assert_allclose(columns["learning_rate"], [0.25, 0.397, 0.63, 1.0, 0.25, 1.0, 0.25, 1.0], rtol=1e-2)
    np.testing.assert_array_equal(columns["beta"], [np.nan] * 4 + [0.1, 0.1, 10.0, 10.0])


def test_mistakes_in_a_config_are_named():
    with pytest.raises(ValueError, match="'x': no rule 'ermaa'"):
        Pair("x", loss="ermaa")
    with pytest.raises(ValueError, match="'x': neither rule has beta; they have gamma1, gamma2"):
        Pair("x", loss="erma", grid={"beta": (1.0,)})
    with pytest.raises(ValueError, match="'x': all lists of its grid must be equally long"):
        Pair("x", loss="erma", grid={"gamma1": (1.0,), "gamma2": (1.0, 2.0)})
    uneven = [Pair("x", loss="dro", grid={"beta": (1.0,)}), Pair("y", loss="exp3", grid={"decay": (0.5, 0.9)})]
    with pytest.raises(ValueError, match=r"equally long, or some get more tries, got \[1, 2\]"):
        pairs_lib.points(uneven, (1.0,))
    with pytest.raises(ValueError, match="needs one of gaussians, images, groups, got none"):
        load(Table((Pair("x"),)))
    with pytest.raises(ValueError, match="got gaussians and groups"):
        load(Table((Pair("x"),), gaussians=Gaussians(), groups=Groups()))


class Heard(NamedTuple):
    weights: jax.Array
    prior: jax.Array
    signals: dict


def test_a_probe_tells_each_rule_what_it_looks_at_and_nothing_else():
    compared = [Pair("losses"), Pair("spread", "fixed", "variance_aware"), Pair("reference", "doremi")]
    compared += [Pair("slopes", "doge"), Pair("one", "exp3"), Pair("residuals", "fgls")]
    problem = load(Table(tuple(compared), gaussians=Gaussians(dim=3, num_examples=20), **TINY))
    setup = problem.setup(jax.random.key(1), None)
    listener = WeightRule(
        lambda prior: Heard(jnp.asarray(prior), jnp.asarray(prior), {}),
        lambda state, **told: state._replace(signals=told),
    )
    params = jnp.array([0.3, -0.2, 0.1])

    @jax.jit
    def told(index):
        state = init_state(params, fixed_optimizer, problem.prior, listener, listener)
        probe = pairs_lib.make_probe(setup, compared, index, listener, listener, problem.prior, params)
        state = probe(state, jax.random.key(2))
        return state.loss_state.signals, state.sampling_state.signals

    fixed_optimizer = pairs_lib.optax.sgd(0.1)
    values, unit = setup.losses(params, setup.held_out), setup.losses(setup.params, setup.held_out).mean()
    heard = [told(jnp.int32(i)) for i in range(len(compared))]
    for loss_told, _ in heard[:4]:
        np.testing.assert_allclose(loss_told["losses"], values.mean(axis=1) / unit, rtol=1e-5)
        np.testing.assert_allclose(loss_told["loss_vars"], values.var(axis=1, ddof=1) / unit**2, rtol=1e-4)
    for number, name in ((0, "hypergrads"), (1, "reference_losses"), (2, "grad_norms")):
        assert np.isnan(heard[number][0][name]).all()
    assert np.isnan(heard[0][1]["grad_stds"]).all()
    examples = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), setup.held_out)
    stds = signals.grad_stds(lambda p, z: setup.losses(p, z) / unit, params, examples, np.repeat([0, 1], 6), 2)
    np.testing.assert_allclose(heard[1][1]["grad_stds"], stds, rtol=1e-3)
    np.testing.assert_allclose(heard[2][0]["reference_losses"], heard[2][0]["losses"], rtol=1e-5)  # its own reference
    assert np.isfinite(heard[3][0]["hypergrads"]).all() and (heard[3][0]["grad_norms"] > 0).all()
    assert sorted(heard[4][0]["counts"].tolist()) == [0.0, 6.0]
    assert (heard[5][0]["losses"] != heard[0][0]["losses"]).all()
