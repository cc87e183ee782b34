"""Tests Aioli against the paper's algorithms in float64, with NumPy's solver."""

import jax
import numpy as np
import pytest

from mixjax.rules import aioli

pytestmark = pytest.mark.usefixtures("quick_compilation")

PRIOR = np.array([0.5, 0.3, 0.2])
COUNTS = np.array([8, 8, 8])


def reference(update_losses, eta, rounds, hold, epsilon, decay, restart, windows):
    """The weights of each window; ``update_losses(q)`` trains for a window on ``q`` and returns the losses after it."""
    probes = (1 - epsilon) * np.eye(3) + epsilon * PRIOR
    p, average, drawn = PRIOR.copy(), None, [PRIOR.copy()]
    losses = update_losses(p)
    while len(drawn) < windows:
        drops = np.zeros((3, 3))
        for back in range(rounds):
            for j in [0, 1, 2] if back % 2 == 0 else [2, 1, 0]:  # PRIOR falls
                drawn.append(probes[j])
                after = update_losses(probes[j])
                drops[:, j] += (losses - after) / rounds
                losses = after
        law = np.stack([np.linalg.solve(probes, row) for row in drops])
        law -= min(law.min(), 0.0)
        law /= law.sum()
        average = law if average is None else decay * average + (1 - decay) * law
        p = (PRIOR if restart else p) * np.exp(eta * average.sum(axis=0))
        p /= p.sum()
        for _ in range(hold):
            drawn.append(p)
            losses = update_losses(p)
    return np.array(drawn[:windows]), average


class World:
    """Losses that fall by a linear law which slows down, with noise."""

    def __init__(self, seed, noise=0.02):
        self.rng, self.noise, self.losses, self.t = np.random.default_rng(seed), noise, np.full(3, 9.0), 0
        self.law = self.rng.uniform(-0.05, 0.2, (3, 3))

    def __call__(self, q):
        self.t += 1
        self.losses = self.losses - self.law @ q / (1 + 0.01 * self.t) + self.noise * self.rng.normal(size=3)
        return self.losses


@pytest.mark.parametrize(
    ("rounds", "hold", "decay", "restart"), [(2, 3, 0.0, False), (1, 1, 0.5, False), (3, 2, 0.1, True)]
)
def test_aioli_over_60_windows(rounds, hold, decay, restart):
    want, average = reference(World(0), 0.8, rounds, hold, 0.3, decay, restart, 60)
    rule = aioli(0.8, rounds=rounds, hold=hold, epsilon=0.3, decay=decay, restart=restart)
    world, update, state = World(0), jax.jit(rule.update), rule.init(PRIOR)
    for q in want:
        np.testing.assert_allclose(state.weights, q, rtol=1e-4)
        state = update(state, counts=COUNTS, losses=world(np.float64(state.weights)))
    assert average.max() > 0.12
    assert np.abs(want[-1] - PRIOR).max() > 0.05


def test_the_law_of_a_linear_world_is_found_exactly():
    world = World(3, noise=0.0)
    rule = aioli(rounds=2, hold=1, epsilon=0.4)
    update, state = jax.jit(rule.update), rule.init(PRIOR)
    for _ in range(7):  # one window of the mixture, two probes of each domain
        world.t = 0
        state = update(state, counts=COUNTS, losses=world(np.float64(state.weights)))
    law = world.law - min(world.law.min(), 0.0)
    np.testing.assert_allclose(state.law, law / law.sum(), atol=1e-5)


def test_an_even_number_of_rounds_cancels_a_steady_slowing_down():
    """All domains lower all losses alike, by less and less: fixed orders would take the first for the best."""

    def law(rounds):
        rule = aioli(rounds=rounds, hold=1, epsilon=0.0)
        update, state, losses = jax.jit(rule.update), rule.init(np.ones(3)), 9.0
        for t in range(1 + 3 * rounds):
            state = update(state, counts=COUNTS, losses=np.full(3, losses, np.float32))
            losses -= 1.0 - 0.05 * t
        return np.asarray(state.law)

    np.testing.assert_allclose(law(2), np.full((3, 3), 1 / 9), rtol=1e-5)
    assert law(1)[0, 0] > law(1)[0, 2] + 0.005


def test_a_loss_missing_in_one_window_keeps_the_old_row_of_the_law():
    rule, world = aioli(0.5, rounds=1, hold=1), World(1)
    update, state = jax.jit(rule.update), rule.init(PRIOR)
    for window in range(8):  # two estimates; the loss of domain 1 is missing in a probe of the second one
        losses = world(np.float64(state.weights))
        state = update(
            state,
            counts=np.where([False, window == 6, False], 0, 8),
            losses=np.where([False, window == 6, False], np.nan, losses),
        )
        if window == 3:
            first = state.law
    np.testing.assert_array_equal(state.law[1], first[1])
    assert np.abs(np.asarray(state.law - first))[[0, 2]].max() > 1e-3
    np.testing.assert_allclose(np.asarray(state.law)[[0, 2]].sum(), 2 / 3, rtol=1e-5)


def test_a_window_without_any_loss_is_drawn_again():
    rule = aioli(rounds=1)
    state = rule.update(rule.init(PRIOR), counts=COUNTS, losses=np.ones(3))
    again = rule.update(state, counts=COUNTS, losses=np.full(3, np.nan))
    np.testing.assert_array_equal(again.weights, state.weights)
    np.testing.assert_array_equal(again.probes, state.probes)
    assert not again.complete.any() and int(again.unseen_updates) == 1


def test_domains_of_zero_prior_are_not_probed():
    rule = aioli(rounds=1, hold=1)
    state = rule.init([0.7, 0.0, 0.3])
    for _ in range(3):
        state = rule.update(state, counts=COUNTS, losses=np.ones(3))
        assert state.weights[1] == 0
    np.testing.assert_allclose(state.weights, [0.7, 0.0, 0.3], rtol=1e-6)  # nothing fell, so nothing moved
    assert int(state.left) == 1


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: aioli(-1.0), "step_size"),
        (lambda: aioli(rounds=0), "rounds"),
        (lambda: aioli(hold=0), "hold"),
        (lambda: aioli(epsilon=1.0), "epsilon"),
        (lambda: aioli(decay=1.5), "decay"),
        (lambda: aioli(max_log_step=0.0), "max_log_step"),
    ],
)
def test_hyperparameters_out_of_range(make, named):
    with pytest.raises(ValueError, match=named):
        make()
