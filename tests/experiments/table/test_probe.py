"""Tests that a probe tells each rule what it looks at and nothing else."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.table.pairs import Pair
from experiments.table.probe import Probe
from experiments.table.problems import Gaussians
from experiments.table.table import Table, load
from mixjax import WeightRule, signals
from mixjax.training import init_state

TINY = {"batch_size": 8, "num_steps": 8, "probe_every": 2, "warmup": 0.0, "held_out": 6, "validation": 10}


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
        probe = Probe(
            setup,
            compared,
            index,
            loss_rule=listener,
            sampling_rule=listener,
            prior=problem.prior,
            reference=params,
        )
        state = probe(state, jax.random.key(2))
        return state.loss_state.signals, state.sampling_state.signals

    fixed_optimizer = optax.sgd(0.1)
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
