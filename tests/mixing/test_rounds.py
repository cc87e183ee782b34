"""The data-mixing loop: fixed points in closed form, budgets, resuming, the choice of T, and errors."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from mixjax import mixing, rules
from tests.mixing.problems import CENTERS, EPS, SGD, TARGET, draw, draw_val, loss, noisy, val_loss

pytestmark = pytest.mark.usefixtures("quick_compilation")


def start(rule=None, optimizer=SGD):
    return mixing.init_state(jnp.zeros(2), optimizer, [0.5, 0.5], rule or rules.mirror_descent())


@functools.partial(jax.jit, static_argnames=("T", "num_steps", "mode", "rounds_per_update", "draws"))
def run(state, key, num_steps, T, mode="reverse", rounds_per_update=1, draws=draw):
    return mixing.fit(
        loss,
        val_loss,
        SGD,
        rules.mirror_descent(),
        draws,
        draw_val,
        state,
        key,
        num_steps=num_steps,
        T=T,
        mode=mode,
        rounds_per_update=rounds_per_update,
        record=lambda state, result: (state.rule_state.weights, result.val_loss),
    )


def fixed_point(num_steps):
    """The weight of the first domain at which T steps' hypergradient vanishes."""
    response = 1 - (1 - EPS) ** num_steps
    return np.clip((TARGET[0] + response * TARGET[1]) / (1 + response), 0, 1)


@pytest.mark.parametrize(("T", "mode"), [(1, "reverse"), (5, "reverse"), (5, "forward"), (20, "reverse")])
def test_weights_converge_to_the_fixed_point_of_t_steps(T, mode):
    state, (weights, _) = run(start(), jax.random.key(0), 400 * T, T, mode)
    np.testing.assert_allclose(state.rule_state.weights[0], fixed_point(T), atol=2e-3)
    np.testing.assert_allclose(state.params, state.rule_state.weights[0] * np.ones(2), atol=5e-3)
    assert int(state.round) == len(weights) == 400 and int(state.step) == 400 * T and int(state.T) == T


def test_the_fixed_points_are_the_numbers_worked_out():
    np.testing.assert_allclose([fixed_point(t) for t in (1, 5, 80)], [0.863636, 0.564200, 0.250082], atol=1e-6)


def test_alignment_keeps_the_fixed_point_of_one_step_for_every_t():
    state, _ = run(start(), jax.random.key(0), 8000, 20, "alignment")
    np.testing.assert_allclose(state.rule_state.weights[0], fixed_point(1), atol=2e-3)


def test_without_curvature_a_long_horizon_keeps_the_fixed_point_of_one_step():
    def flat(x, center):  # the gradient of `loss`, and no Hessian
        return jnp.sum(jax.lax.stop_gradient(jax.grad(loss)(x, center)) * x)

    rule = rules.mirror_descent()
    state, _ = jax.jit(
        lambda key: mixing.fit(flat, val_loss, SGD, rule, draw, draw_val, start(), key, num_steps=8000, T=20)
    )(jax.random.key(0))
    np.testing.assert_allclose(state.rule_state.weights[0], fixed_point(1), atol=2e-3)


def test_implicit_needs_no_horizon():
    state, _ = run(start(), jax.random.key(0), 1000, 1, "implicit")
    np.testing.assert_allclose(state.rule_state.weights[0], 0.25, atol=5e-3)


def test_mean_weights_are_those_the_rounds_were_trained_with():
    state, (weights, _) = run(start(), jax.random.key(0), 200, 5)
    used = np.vstack([[0.5, 0.5], weights[:-1]])
    np.testing.assert_allclose(state.mean_weights, used.mean(axis=0), rtol=1e-5)


def test_steps_left_over_are_taken_with_the_last_weights():
    a, _ = run(start(), jax.random.key(0), 10, 5)
    b, records = run(start(), jax.random.key(0), 13, 5)
    assert len(records[0]) == 2 and int(b.step) == 13
    np.testing.assert_allclose(a.rule_state.weights, b.rule_state.weights)
    x = np.asarray(a.params)
    for _ in range(3):
        x = x - np.array([1.0, EPS]) * (x - a.rule_state.weights[0])
    np.testing.assert_allclose(b.params, x, rtol=1e-5)


def test_a_run_cut_after_a_round_goes_on_as_if_it_had_not_been():
    key = jax.random.key(3)
    whole, _ = run(start(), key, 40, 5, draws=noisy)
    half, _ = run(start(), key, 20, 5, draws=noisy)
    resumed, _ = run(half, key, 20, 5, draws=noisy)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(whole.params - half.params).max() > 1e-3


def test_only_the_last_round_of_an_update_is_differentiated():
    state, (weights, _) = run(start(), jax.random.key(0), 6000, 5, rounds_per_update=3)
    assert len(weights) == 400 and int(state.round) == 400 and int(state.step) == 6000
    np.testing.assert_allclose(state.rule_state.weights[0], fixed_point(5), atol=2e-3)


def test_rules_that_need_no_hypergradient_get_none_and_cost_no_validation():
    def never(*args):
        raise AssertionError("no validation loss is needed")

    rule, seen = rules.group_dro(0.1), []

    def record(state, result):
        seen.append((result.hypergrads, result.val_loss))
        return state.rule_state.weights

    _, weights = mixing.fit(
        loss, never, SGD, rule, draw, never, start(rule), jax.random.key(0), num_steps=20, T=4, mode=None, record=record
    )
    assert weights.shape == (5, 2) and set(seen) == {(None, None)}
    assert np.abs(weights[-1] - 0.5).max() > 1e-3


def test_signals_of_ones_own_reach_the_rule_and_replace_others():
    rule = rules.doremi(1.0, floor=0.0)

    def signals(state, key):
        assert state.params.shape == (2,)
        return {"losses": jnp.array([2.0, 1.0]), "reference_losses": jnp.zeros(2)}

    state, _ = mixing.fit(
        loss, val_loss, SGD, rule, draw, draw_val, start(rule), jax.random.key(0),
        num_steps=4, T=2, mode=None, signals=signals,
    )  # fmt: skip
    np.testing.assert_allclose(state.rule_state.weights, jax.nn.softmax(jnp.array([2.0, 0.0])), rtol=1e-5)


def test_counts_of_ones_own_make_a_bandit():
    rule = rules.exp3(0.5)

    def signals(state, key):
        return {"counts": jax.nn.one_hot(jax.random.categorical(key, jnp.log(state.rule_state.weights)), 2)}

    _, rewards = mixing.fit(
        loss, val_loss, SGD, rule, draw, draw_val, start(rule), jax.random.key(0),
        num_steps=12, T=1, mode=None, signals=signals, record=lambda state, result: state.rule_state.rewards,
    )  # fmt: skip
    assert ((np.diff(np.vstack([np.zeros(2), rewards]), axis=0) != 0).sum(axis=1) <= 1).all()
    assert len(set(np.argmax(np.diff(rewards, axis=0) != 0, axis=1))) == 2


def test_a_missing_signal_is_named():
    rule = rules.doremi()
    with pytest.raises(TypeError, match="reference_losses"):
        mixing.fit(loss, val_loss, SGD, rule, draw, draw_val, start(rule), jax.random.key(0), num_steps=4, T=2)
    rule = rules.mirror_descent()
    with pytest.raises(TypeError, match="hypergrads"):
        mixing.fit(loss, val_loss, SGD, rule, draw, draw_val, start(), jax.random.key(0), num_steps=4, T=2, mode=None)


def test_a_diverged_validation_loss_leaves_the_weights():
    def run():
        return mixing.fit(
            loss, lambda x, target: jnp.log(-jnp.sum(x**2) - 1.0), SGD, rules.mirror_descent(), draw, draw_val,
            start(), jax.random.key(0), num_steps=6, T=2,
            record=lambda state, result: (state.rule_state.weights, state.nonfinite_updates),
        )  # fmt: skip

    with pytest.warns(RuntimeWarning, match="mixing.fit: 3 of 3 hypergradients were not finite") as seen:
        state, (weights, counts) = run()
    assert len(seen) == 1 and seen[0].filename == __file__
    np.testing.assert_array_equal(weights, np.full((3, 2), 0.5))
    assert np.isfinite(state.params).all() and counts.tolist() == [1, 2, 3]
    assert int(rules.unseen_updates(state)) == 3
    # Inside jit there is no host to warn; the state says it.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert int(jax.jit(run)()[0].nonfinite_updates) == 3


def test_signals_of_ones_own_that_are_nan_are_news():
    def nan(state, key):
        return {"losses": jnp.full(2, jnp.nan)}

    with pytest.warns(RuntimeWarning, match=r"mixing.fit: a rule could use no row of signals in 3 updates"):
        mixing.fit(
            loss, val_loss, SGD, rules.group_dro(), draw, draw_val, start(rules.group_dro()), jax.random.key(0),
            num_steps=6, T=2, mode=None, signals=nan,
        )  # fmt: skip


def test_each_device_mixes_for_itself_on_batches_of_its_own():
    rule, centers = rules.mirror_descent(), jnp.stack([jnp.asarray(CENTERS), 2.0 * jnp.asarray(CENTERS)])

    def run(state, centers, mode):
        state, records = mixing.fit(
            loss, val_loss, SGD, rule, lambda key: centers, draw_val, state, jax.random.key(0), num_steps=7, T=2,
            mode=mode, record=lambda state, result: state.rule_state.weights,
        )  # fmt: skip
        return state.params, records

    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    for mode in ("reverse", "forward", "alignment", "implicit"):

        def on_device(state, centers, mode=mode):
            return jax.tree.map(lambda x: x[None], run(state, centers[0], mode))

        specs = {"in_specs": (PartitionSpec(), PartitionSpec("d")), "out_specs": PartitionSpec("d")}
        got = jax.jit(jax.shard_map(on_device, mesh=mesh, **specs))(start(rule), centers)
        want = [jax.jit(run, static_argnums=2)(start(rule), each, mode) for each in centers]
        for i in range(2):
            jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5), got, want[i])


def test_auto_measures_on_the_first_steps_and_takes_the_horizon_for_the_rest():
    rule = rules.mirror_descent()
    arguments = loss, val_loss, SGD, rule, draw, draw_val
    state, _ = mixing.fit(*arguments, start(), jax.random.key(0), num_steps=2048, T="auto")
    expected = mixing.horizon(2048 - 64, 1 - EPS)
    assert abs(int(state.T) - expected) <= 1 and int(state.step) == 2048
    assert int(state.round) == (2048 - 64) // int(state.T)
    again, _ = mixing.fit(*arguments, state, jax.random.key(0), num_steps=2 * int(state.T), T="auto")
    assert int(again.T) == int(state.T) and int(again.round) == int(state.round) + 2


def test_auto_counts_updates_where_few_rounds_are_differentiated():
    rule = rules.mirror_descent()
    state, _ = mixing.fit(
        loss,
        val_loss,
        SGD,
        rule,
        draw,
        draw_val,
        start(),
        jax.random.key(0),
        num_steps=512,
        T="auto",
        rounds_per_update=8,
    )
    assert int(state.T) == mixing.horizon((512 - 32) // 8, 1 - EPS) == 3
    assert int(state.round) == 480 // 24 and int(state.step) == 512


def test_auto_of_no_steps_does_nothing():
    state, _ = mixing.fit(
        loss, val_loss, SGD, rules.mirror_descent(), draw, draw_val, start(), jax.random.key(0), num_steps=0, T="auto"
    )
    assert int(state.step) == 0


def test_auto_inside_jit_says_what_to_do():
    with pytest.raises(ValueError, match=r"mixing\.horizon"):
        run(start(), jax.random.key(0), 100, "auto")


def test_a_traced_t_is_refused():
    arguments = loss, val_loss, SGD, rules.mirror_descent(), draw, draw_val, start(), jax.random.key(0)
    with pytest.raises(ValueError, match="cannot be traced"):
        jax.jit(lambda T: mixing.fit(*arguments, num_steps=20, T=T)[0])(5)


@pytest.mark.parametrize(
    ("changes", "kind", "match"),
    [
        ({"T": 0}, ValueError, "T must be"),
        ({"T": 2.5}, ValueError, "T must be"),
        ({"rounds_per_update": 0}, ValueError, "rounds_per_update"),
        ({"num_steps": -1}, ValueError, "num_steps"),
        ({"num_steps": 9}, ValueError, r"T \* rounds_per_update = 10, the steps of one update, got 9"),
        ({"mode": "backward"}, ValueError, "mode"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every"),
        ({"mode": None, "checkpoint_every": 2}, TypeError, "checkpoint_every"),
    ],
)
def test_arguments_out_of_range(changes, kind, match):
    arguments = {"num_steps": 20, "T": 5, "rounds_per_update": 2} | changes
    with pytest.raises(kind, match=match):
        mixing.fit(loss, val_loss, SGD, rules.mirror_descent(), draw, draw_val, start(), jax.random.key(0), **arguments)


@pytest.mark.parametrize("T", [2, "auto"])
@pytest.mark.parametrize("x64", [False, True])
def test_fit_promotes_dtypes_and_ranks_by_hand(x64, T):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.enable_x64(x64):

        def narrow(parameters, batch):
            return jnp.square(batch @ parameters - 1.0).mean()

        def batch(key):
            return jax.random.normal(key, (2, 4, 2), jnp.float32)

        # Promotions are refused while a function is traced, but T is chosen by numbers.
        state, _ = mixing.fit(
            narrow,
            narrow,
            SGD,
            rules.mirror_descent(),
            batch,
            lambda key: jnp.ones((4, 2), jnp.float32),
            mixing.init_state(jnp.zeros(2, jnp.float32), SGD, [0.5, 0.5], rules.mirror_descent()),
            jax.random.key(0),
            num_steps=8,
            T=T,
        )
    assert state.rule_state.weights.dtype == state.mean_weights.dtype == jnp.float32
