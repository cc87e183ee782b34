"""Training in pieces: what it returns, what a piece is, and that a killed run goes on to the same bits."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from experiments.fewer_weight_updates import mnist, mnist_domains, mnist_methods, mnist_training
from experiments.fewer_weight_updates.mnist_methods import Mnist
from mixjax.sweeps import in_rounds, rounds

pytestmark = pytest.mark.slow

CONFIG = Mnist(num_steps=130, batch_size=4, validation=20, grid=2)
KNOWN = mnist_methods.methods(CONFIG, 8)
FEW = {name: KNOWN[name] for name in ("uniform", "T=16", "doge", "doremi")}


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module", autouse=True)
def few():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist_training, "methods", lambda config, auto: FEW)
        patch.setattr(mnist, "methods", lambda config, auto: FEW)
        patch.setattr(mnist, "horizon", lambda config, data: 8)
        # Saved after each piece, however short a piece is beside a save.
        patch.setattr(mnist_training, "in_rounds", functools.partial(in_rounds, at_least=0.0))
        patch.setattr(rounds, "_SHARE", math.inf)
        yield


@pytest.fixture(scope="module")
def made(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist, "load", lambda: data)
        return mnist.mnist(CONFIG)


def sweep(made, folder, callback=None):
    return mixjax.sweep(
        made.train, seeds=1, data=made.data, dims=made.dims, coords=made.coords, checkpoint=folder, callback=callback
    ).isel(seed=0)


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory):
    """A seed, 130 steps: with T = 16, two are left over."""
    return sweep(made, tmp_path_factory.mktemp("chunks"))


def test_training_learns_and_moves_weights(made, trained):
    assert set(trained.data_vars) == set(made.dims)
    assert all(np.isfinite(values).all() for values in trained.data_vars.values())
    by_name = {name: trained.sel({"method": name}) for name in FEW}
    assert by_name["T=16"].accuracy[1] > 30
    assert by_name["T=16"].steps.values.tolist() == [mnist_methods.affordable(CONFIG, FEW["T=16"]), 130]
    assert trained["T"].values.tolist() == [1, 16, 1, 1]
    np.testing.assert_allclose(trained.weights.sum("domain"), 1.0, rtol=1e-4)
    moved = abs(trained.weights - 1 / 3).max("domain").values
    assert (moved[0] < 1e-6).all() and (moved[1:, 1] > 1e-4).all()


def test_the_compute_budget_is_a_shorter_run_and_fixed_weights_are_retrained_the_same_way(trained, data):
    losses = trained.validation_loss
    # Plain training costs what plain training costs.
    np.testing.assert_allclose(*losses.sel({"method": "uniform"}), rtol=1e-5)
    np.testing.assert_allclose(
        trained.retrained_validation_loss[0], losses.sel({"method": "uniform", "budget": "updates"}), rtol=1e-3
    )
    keys = jax.random.split(jax.random.key(0), 3)

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def run(data, name, num_steps):
        """Trains without a cut."""
        problem = mnist_domains.setup(mnist_domains.begin(keys[0], CONFIG, data), CONFIG)
        state = mnist_methods.first_state(problem, FEW[name].rule)
        state, _ = mnist_methods.fit(CONFIG, problem, FEW[name], keys[1], state=state, num_steps=num_steps)
        return mnist_domains.worth(problem, state.params)["validation_loss"], state.rule_state.weights

    for name, budget in (("doge", "compute"), ("T=16", "updates")):
        found = trained.sel({"method": name, "budget": budget})
        loss, weights = run(jax.tree.map(jnp.asarray, data), name, int(found.steps))
        np.testing.assert_allclose(found.validation_loss, loss, rtol=1e-5)
        np.testing.assert_allclose(found.weights, weights, rtol=1e-5)
    assert abs(losses.sel({"method": "doge"}).diff("budget")) > 1e-3


def test_a_run_that_is_killed_again_and_again_goes_on_to_the_same_bits(made, trained, tmp_path):
    reported = []

    def die(done, total):
        reported.append(done)
        if len(reported) % 7 == 0:
            raise KilledError

    found = None
    while found is None:
        try:
            found = sweep(made, tmp_path, die)
        except KilledError:
            assert len(reported) < 100
    # Seven models, of eight pieces each: what was reported was saved before, and none of it is trained again.
    assert len(reported) == 7 * mnist_training.PIECES + 1
    for name, values in trained.data_vars.items():
        np.testing.assert_array_equal(found[name], values, err_msg=str(name))
