"""Training on two linear domains: the loop against its algorithm, resuming, the state, and errors."""

import warnings

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jax.sharding import AxisType, PartitionSpec

from mixjax import rules, samplers, training

pytestmark = pytest.mark.usefixtures("quick_compilation")

PRIOR = [0.5, 0.5]


def losses(params, batch):
    return jnp.square(batch["x"] * params - batch["y"])


def draw(key, ids):
    x = jax.random.normal(key, ids.shape)
    return {"x": x, "y": 2.0 * x + ids}, ids


def measure(params, key):
    batch, _ = draw(key, jnp.repeat(jnp.arange(2), 16))
    values = losses(params, batch)
    means = jnp.stack([values[:16].mean(), values[16:].mean()])
    return {"counts": jnp.array([16, 16]), "losses": means, "grad_stds": jnp.sqrt(means)}


def plan(q):
    return samplers.counts_to_ids(samplers.allocate(q, 8), 8)


def build(loss_rule=None, sampling_rule=None, **kwargs):
    loss_rule, sampling_rule = loss_rule or rules.one_shot_fgls(0.5), sampling_rule or rules.variance_aware()
    optimizer = optax.sgd(0.05)
    state = training.init_state(jnp.zeros(()), optimizer, PRIOR, loss_rule, sampling_rule)
    step = training.make_step(losses, optimizer, **kwargs)
    return state, step, training.make_probe(measure, loss_rule, sampling_rule)


def run(num_steps, probe_every, **kwargs):
    state, step, probe = build(**kwargs)
    return training.fit(
        step, probe, plan, draw, state, jax.random.key(0), num_steps=num_steps, probe_every=probe_every,
        record=lambda s: (s.step, s.params, s.loss_state.weights, s.sampling_state.weights),
    )  # fmt: skip


def test_fit_is_algorithm_1_and_2_written_as_a_loop():
    state, step, probe = build()
    step_key, probe_key = jax.random.split(jax.random.key(0))
    for t in range(7):
        batch, ids = draw(jax.random.fold_in(step_key, t), plan(state.sampling_state.weights))
        c = np.asarray(state.loss_state.weights)
        n = np.bincount(ids, minlength=2)
        residual = np.asarray(batch["x"] * state.params - batch["y"])
        gradient = sum(
            c[d] / n[d] * np.sum((2 * residual * np.asarray(batch["x"]))[np.asarray(ids) == d]) for d in (0, 1)
        )
        expected = float(state.params) - 0.05 * gradient
        state, _ = step(state, batch, ids)
        np.testing.assert_allclose(state.params, expected, rtol=1e-5)
        if t % 3 == 2:
            state = probe(state, jax.random.fold_in(probe_key, t + 1))
    final, _ = run(7, 3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), final, state)


def test_fit_records_each_round_and_ends_with_the_steps_left_over():
    final, (step, params, c, q) = run(10, 4)
    assert step.tolist() == [4, 8]
    assert params.shape == (2,) and c.shape == q.shape == (2, 2)
    assert int(final.step) == 10
    np.testing.assert_array_equal(final.loss_state.weights, c[-1])


def test_fit_without_steps_returns_the_first_state():
    final, records = run(0, 4)
    assert int(final.step) == 0 and records[0].shape == (0,)


def test_a_longer_run_begins_with_the_shorter_one():
    _, short = run(8, 4)
    _, long = run(16, 4)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:2]), short, long)


def test_a_run_cut_after_a_round_goes_on_as_if_it_had_not_been():
    whole, _ = run(12, 4)
    state, step, probe = build()
    for num_steps in (8, 4):
        state, _ = training.fit(
            step, probe, plan, draw, state, jax.random.key(0), num_steps=num_steps, probe_every=4
        )  # fmt: skip
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state, whole)


def test_q_sees_the_new_c():
    state, _, probe = build()
    state = probe(state, jax.random.key(1))
    signals = measure(state.params, jax.random.key(1))
    scores = state.loss_state.weights * signals["grad_stds"]
    np.testing.assert_allclose(state.sampling_state.weights, scores / scores.sum(), rtol=1e-5)


def test_warm_up_holds_the_loss_weights_only():
    _, (_, _, c, q) = run(16, 4, loss_rule=rules.every(rules.one_shot_fgls(), 1, start=2))
    np.testing.assert_array_equal(c[:2], np.full((2, 2), 0.5))
    assert abs(float(c[2, 0]) - 0.5) > 0.01 and abs(float(q[0, 0]) - 0.5) > 0.01


def test_horvitz_thompson_step_uses_the_states_sampling_weights():
    state, step, _ = build(sampling_rule=rules.fixed([0.25, 0.75]), estimator="horvitz_thompson")
    ids = jnp.array([0, 1, 1, 1])
    batch = {"x": jnp.ones(4), "y": jnp.array([1.0, 2.0, 2.0, 2.0])}
    _, objective = step(state, batch, ids)
    np.testing.assert_allclose(objective, (2.0 * 1.0 + 3 * (2 / 3) * 4.0) / 4, rtol=1e-6)


@pytest.mark.parametrize(("num_steps", "probe_every"), [(-1, 1), (4, 0)])
def test_bad_lengths_are_named(num_steps, probe_every):
    with pytest.raises(ValueError, match="num_steps >= 0 and probe_every >= 1"):
        run(num_steps, probe_every)


def test_a_nan_probe_does_not_poison_the_weights():
    state, _, _ = build()
    bad = training.make_probe(
        lambda params, key: {**measure(params, key), "losses": jnp.array([jnp.nan, 1.0])},
        rules.one_shot_fgls(0.5),
        rules.variance_aware(),
    )
    state = bad(state, jax.random.key(0))
    assert bool(jnp.isfinite(state.loss_state.weights).all()) and float(state.loss_state.weights.sum()) == 1.0


def test_probes_that_are_all_nan_are_news():
    state, step, _ = build()

    def nan(params, key):
        return {**measure(params, key), "losses": jnp.full(2, jnp.nan)}

    probe = training.make_probe(nan, rules.one_shot_fgls(0.5), rules.variance_aware())
    with pytest.warns(RuntimeWarning, match="training.fit: a rule could use no row of signals in 2 updates") as seen:
        training.fit(step, probe, plan, draw, state, jax.random.key(0), num_steps=4, probe_every=2)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(4, 2)


def test_each_device_trains_for_itself_on_batches_of_its_own():
    def fit(scale):
        state, step, probe = build()

        def scaled(key, ids):
            batch, ids = draw(key, ids)
            return {"x": batch["x"], "y": scale * batch["y"]}, ids

        state, _ = training.fit(step, probe, plan, scaled, state, jax.random.key(0), num_steps=5, probe_every=2)
        return state.params, state.loss_state.weights

    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    spec = PartitionSpec("d")
    mapped = jax.shard_map(
        lambda x: jax.tree.map(lambda y: y[None], fit(x[0])), mesh=mesh, in_specs=spec, out_specs=spec
    )
    got = jax.jit(mapped)(jnp.array([1.0, 3.0]))
    for i, scale in enumerate([1.0, 3.0]):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5), got, jax.jit(fit)(scale))


def test_the_callers_parameters_outlive_a_donated_state():
    params, prior = {"x": jnp.zeros(3)}, jnp.array(PRIOR)
    # Lookahead and schedule-free optimizers keep the parameters in their state.
    optimizer = optax.contrib.schedule_free_sgd(0.1)
    state = training.init_state(params, optimizer, prior, rules.erma(), rules.variance_aware())
    jax.jit(lambda state: state.replace(step=state.step + 1), donate_argnums=0)(state)
    assert params["x"].tolist() == [0.0] * 3 and prior.tolist() == PRIOR


def test_the_first_state_can_be_donated():
    (state, step, _), (again, _, _) = build(), build()
    batch, ids = draw(jax.random.key(0), jnp.array([0, 1, 1]))
    expected, _ = step(state, batch, ids)
    donated, _ = jax.jit(step, donate_argnums=0)(again, batch, ids)
    assert isinstance(donated, training.TrainState)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), donated, expected)


def test_the_state_is_a_pytree_under_jit_scan_and_vmap():
    state, step, _ = build()
    batch, ids = draw(jax.random.key(0), jnp.array([0, 1, 1]))

    @jax.jit
    @jax.vmap
    def run_from(params):
        return jax.lax.scan(lambda s, _: step(s, batch, ids), state.replace(params=params), length=2)

    starts = jnp.array([0.0, 1.0, 2.0])
    last, objectives = run_from(starts)
    assert objectives.shape == (3, 2) and last.step.tolist() == [2] * 3
    for i, params in enumerate(starts):
        alone = state.replace(params=params)
        for _ in range(2):
            alone, _ = step(alone, batch, ids)
        np.testing.assert_allclose(last.params[i], alone.params, rtol=1e-5)


def test_the_fields_keep_their_order():
    assert jax.tree.leaves(training.TrainState(*"abcde")) == [*"abcde"]


def test_the_state_can_be_saved_and_read_back():
    first, step, probe = build()
    batch, ids = draw(jax.random.key(0), jnp.array([0, 1, 1]))
    state = probe(step(first, batch, ids)[0], jax.random.key(1))
    read = flax.serialization.from_bytes(first, flax.serialization.to_bytes(state))
    assert isinstance(read, training.TrainState) and isinstance(read.loss_state, type(state.loss_state))
    jax.tree.map(np.testing.assert_array_equal, read, state)
