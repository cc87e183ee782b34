"""Tests DoReMi against the paper's recursion in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.rules import doremi, effective_domains

PRIOR = np.array([0.5, 0.3, 0.2])
COUNTS = np.array([8, 8, 8])


def test_doremi_over_20_steps():
    rng, rule = np.random.default_rng(0), doremi(0.5, floor=0.01)
    state, c = rule.init(PRIOR), PRIOR.copy()
    for _ in range(20):
        losses, reference = rng.uniform(0, 3, (2, 3))
        state = rule.update(state, counts=COUNTS, losses=losses, reference_losses=reference)
        c = c * np.exp(0.5 * np.maximum(losses - reference, 0))
        c = 0.99 * c / c.sum() + 0.01 * PRIOR
        np.testing.assert_allclose(state.weights, c, rtol=2e-5)


def test_doremi_stays_at_the_prior_where_no_loss_is_in_excess():
    rule = doremi()
    state = rule.update(rule.init(PRIOR), counts=COUNTS, losses=np.ones(3), reference_losses=np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(state.weights, PRIOR, rtol=1e-6)


def test_doremi_smooths_within_the_rows_seen():
    rule = doremi(0.0, floor=0.5)
    state = rule.init(PRIOR)._replace(weights=jnp.array([0.1, 0.3, 0.6]), log_w=jnp.log(jnp.array([0.2, 1.0, 3.0])))
    state = rule.update(
        state, counts=np.array([8, 0, 8]), losses=np.array([1, np.nan, 1]), reference_losses=np.zeros(3)
    )
    np.testing.assert_allclose(state.weights, [0.5 * (0.1 + 0.5), 0.3, 0.5 * (0.6 + 0.2)], rtol=1e-6)


@pytest.mark.parametrize(
    ("step_size", "floor", "lowest", "highest"), [(1.0, 1e-3, 1.0, 1.2), (0.1, 0.01, 2.5, 2.9), (0.1, 0.1, 2.94, 3.0)]
)
def test_an_excess_that_stays_takes_all_the_weight_where_the_floor_is_too_low(step_size, floor, lowest, highest):
    rule, excess = doremi(step_size, floor=floor), 0.1
    signals = {"counts": COUNTS, "losses": np.array([1.0 + excess, 1.0, 1.0]), "reference_losses": np.ones(3)}
    start = rule.init(np.ones(3))
    state = jax.lax.fori_loop(0, 3000, lambda _, state: rule.update(state, **signals), start)
    assert lowest < effective_domains(state.weights) < highest
    if step_size * excess > 10 * floor:
        share = 1 - (1 - 1 / 3) * floor / (step_size * excess)
        np.testing.assert_allclose(state.weights[0], share, atol=2e-3)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: doremi(-1.0), "step_size"),
        (lambda: doremi(floor=2.0), "floor"),
        (lambda: doremi(max_log_step=0.0), "max_log_step"),
    ],
)
def test_hyperparameters_out_of_range(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_the_former_name_of_the_floor_works_with_a_warning():
    with pytest.warns(DeprecationWarning, match="floor=") as warned:
        rule = doremi(0.5, smoothing=0.1)
    assert len(warned) == 1
    signals = {"counts": COUNTS, "losses": np.array([1.0, 2.0, 3.0]), "reference_losses": np.ones(3)}
    new = doremi(0.5, floor=0.1)
    np.testing.assert_array_equal(
        rule.update(rule.init(PRIOR), **signals).weights, new.update(new.init(PRIOR), **signals).weights
    )
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match="got both"):
        doremi(floor=0.1, smoothing=0.1)
