"""Hypergradients: the modes against one another, finite differences and closed forms, in float64; memory; errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mixjax import hypergrad as hg
from mixjax.hypergrad import MODES, counterfactual, hypergrad, unroll

pytestmark = pytest.mark.usefixtures("quick_compilation")

D, T, SIZE = 3, 7, 6
WEIGHTS = np.array([0.2, 0.5, 0.3])
OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.3),
    "momentum": lambda: optax.sgd(0.3, momentum=0.9, nesterov=True),
    "adam": lambda: optax.adam(0.05),
    "adamw": lambda: optax.adamw(optax.cosine_decay_schedule(0.1, 10), weight_decay=0.1),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.inject_hyperparams(optax.rmsprop)(0.01)),
}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def loss(params, batch):
    """Not convex, so that every part of the Hessian matters."""
    x, y = batch
    return jnp.mean(jnp.tanh(x @ params["w"] + params["b"] - y) ** 2) + 0.01 * jnp.sum(params["w"] ** 2)


def problem(seed=0, num_steps=T):
    rng = np.random.default_rng(seed)
    params = {"w": jnp.asarray(rng.normal(size=4)), "b": jnp.zeros(())}
    batches = rng.normal(size=(num_steps, D, SIZE, 4)), rng.normal(size=(num_steps, D, SIZE))
    return params, jax.tree.map(jnp.asarray, batches), (rng.normal(size=(9, 4)), rng.normal(size=9))


def difference(function, weights, step=1e-6):
    """Central differences."""
    rows = step * np.eye(len(weights))
    return np.array([(function(weights + row) - function(weights - row)) / (2 * step) for row in rows])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_reverse_forward_and_finite_differences_agree(name):
    optimizer = OPTIMIZERS[name]()
    params, batches, val_batch = problem()
    state = optimizer.init(params)
    # a few steps first, so that the optimizer's state is not zero
    params, state, _ = unroll(loss, optimizer)(WEIGHTS, params, state, problem(1)[1])

    @jax.jit
    def outcome(weights):
        return loss(unroll(loss, optimizer)(weights, params, state, batches)[0], val_batch)

    results = {
        mode: jax.jit(hypergrad(loss, loss, optimizer, mode=mode))(WEIGHTS, params, state, batches, val_batch)
        for mode in ("reverse", "forward")
    }
    expected = difference(outcome, WEIGHTS)
    assert np.abs(expected).max() > 1e-3
    for result in results.values():
        np.testing.assert_allclose(result.hypergrads, expected, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(result.val_loss, outcome(WEIGHTS), rtol=1e-12)
    np.testing.assert_allclose(results["reverse"].hypergrads, results["forward"].hypergrads, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_trains_as_plain_steps_do(mode):
    optimizer = optax.adam(0.05)
    params, batches, val_batch = problem()
    state = optimizer.init(params)
    result = jax.jit(hypergrad(loss, loss, optimizer, mode=mode))(WEIGHTS, params, state, batches, val_batch)
    plain = jax.jit(unroll(loss, optimizer))(WEIGHTS, params, state, batches)
    for a, b in zip(
        jax.tree.leaves((result.params, result.opt_state, result.losses)), jax.tree.leaves(plain), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_plain_steps_are_an_ordinary_optax_loop():
    optimizer = optax.adam(0.05)
    params, batches, _ = problem()
    state, means = optimizer.init(params), np.zeros(D)
    end, _, losses = jax.jit(unroll(loss, optimizer))(WEIGHTS, params, state, batches)

    @jax.jit
    def step(params, state, batch):
        losses = jax.vmap(loss, (None, 0))(params, batch)
        grads = jax.vmap(jax.grad(loss), (None, 0))(params, batch)
        grads = jax.tree.map(lambda g: jnp.tensordot(jnp.asarray(WEIGHTS), g, 1), grads)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, losses

    for t in range(T):
        params, state, now = step(params, state, jax.tree.map(lambda x, t=t: x[t], batches))
        means += now / T
    np.testing.assert_allclose(end["w"], params["w"], rtol=1e-10)
    np.testing.assert_allclose(losses, means, rtol=1e-10)


@pytest.mark.parametrize("segment", [2, 50])
def test_segments_change_nothing(segment):
    optimizer = optax.adam(0.05)
    params, batches, val_batch = problem()
    inputs = WEIGHTS, params, optimizer.init(params), batches, val_batch
    a = jax.jit(hypergrad(loss, loss, optimizer))(*inputs)
    b = jax.jit(hypergrad(loss, loss, optimizer, segment=segment))(*inputs)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-14)


def test_long_horizons_take_segments_of_their_own():
    optimizer = optax.sgd(0.05, momentum=0.5)
    params, batches, val_batch = problem(num_steps=67)
    inputs = WEIGHTS, params, optimizer.init(params), batches, val_batch
    a, b = (jax.jit(hypergrad(loss, loss, optimizer, mode=mode))(*inputs) for mode in ("reverse", "forward"))
    np.testing.assert_allclose(a.hypergrads, b.hypergrads, rtol=1e-8)


CENTERS = np.random.default_rng(5).normal(size=(D, 4))
CURVATURES = np.array([1.0, 0.7, 0.4, 0.2])
TARGET = np.array([0.3, -0.2, 0.5, 0.1])


def quadratic(x, center):
    return 0.5 * jnp.sum(CURVATURES * (x - center) ** 2)


def distance(x, target):
    return 0.5 * jnp.sum((x - target) ** 2)


def at_the_optimum(num_steps, mode, **options):
    optimizer, optimum = optax.sgd(1.0), jnp.asarray(WEIGHTS @ CENTERS)
    batches = jnp.broadcast_to(CENTERS, (num_steps, *CENTERS.shape))
    gradient = jax.jit(hypergrad(quadratic, distance, optimizer, mode=mode, **options))
    return gradient(WEIGHTS, optimum, optimizer.init(optimum), batches, jnp.asarray(TARGET)).hypergrads


@pytest.mark.parametrize("num_steps", [1, 5, 30])
def test_at_the_inner_optimum_t_steps_are_t_terms_of_neumann(num_steps):
    g = at_the_optimum(num_steps, "reverse")
    optimum = WEIGHTS @ CENTERS
    gradients = CURVATURES * (optimum - CENTERS)  # [D, d]
    response = (1 - (1 - CURVATURES) ** num_steps) / CURVATURES
    np.testing.assert_allclose(g, -gradients @ (response * (optimum - TARGET)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(WEIGHTS @ g, 0.0, atol=1e-12)
    neumann = at_the_optimum(1, "implicit", neumann_step=1.0, max_iterations=num_steps, tolerance=0.0)
    np.testing.assert_allclose(neumann, g, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"neumann_step": 1.0, "max_iterations": 400, "tolerance": 1e-12}])
def test_many_steps_from_the_inner_optimum_equal_implicit(options):
    g = at_the_optimum(200, "reverse")
    np.testing.assert_allclose(
        at_the_optimum(1, "implicit", **({"tolerance": 1e-12} | options)), g, rtol=1e-8, atol=1e-10
    )
    # and both are the derivative of F at the optimum, which is (c @ centers) / sum(c)
    optimum = WEIGHTS @ CENTERS
    np.testing.assert_allclose(g, (CENTERS - optimum) @ (optimum - TARGET), rtol=1e-8, atol=1e-10)


def test_ridge_and_tolerance_of_implicit():
    optimum = WEIGHTS @ CENTERS
    gradients = CURVATURES * (optimum - CENTERS)
    expected = -gradients @ ((optimum - TARGET) / (CURVATURES + 0.5))
    np.testing.assert_allclose(at_the_optimum(1, "implicit", ridge=0.5, tolerance=1e-12), expected, rtol=1e-8)
    steps = {"neumann_step": 1.0, "max_iterations": 400}
    rough, fine = (at_the_optimum(1, "implicit", tolerance=tol, **steps) for tol in (0.5, 1e-10))
    assert np.abs(rough - fine).max() > 1e-2


def test_alignment_is_minus_the_inner_products():
    optimizer = optax.sgd(0.1)
    params, batches, val_batch = problem()
    result = jax.jit(hypergrad(loss, loss, optimizer, mode="alignment"))(
        WEIGHTS, params, optimizer.init(params), batches, val_batch
    )
    slope = jax.grad(loss)(result.params, val_batch)
    for d in range(D):
        own = jax.grad(loss)(result.params, jax.tree.map(lambda x, d=d: x[-1, d], batches))
        np.testing.assert_allclose(result.hypergrads[d], -optax.tree.vdot(own, slope), rtol=1e-9)


def test_one_step_of_sgd_is_alignment_after_the_step():
    optimizer = optax.sgd(0.1)
    params, batches, val_batch = problem(num_steps=1)
    result = hypergrad(loss, loss, optimizer)(WEIGHTS, params, optimizer.init(params), batches, val_batch)
    slope = jax.grad(loss)(result.params, val_batch)
    before = jax.vmap(jax.grad(loss), (None, 0))(params, jax.tree.map(lambda x: x[0], batches))
    expected = -0.1 * jax.vmap(lambda g: optax.tree.vdot(g, slope))(before)
    np.testing.assert_allclose(result.hypergrads, expected, rtol=1e-9)


def test_forward_takes_a_traced_number_of_steps():
    optimizer = optax.adam(0.05)
    params, batches, val_batch = problem()
    state = optimizer.init(params)
    dynamic = jax.jit(hypergrad(loss, loss, optimizer, mode="forward"))
    for num_steps in (1, 4):
        a = dynamic(WEIGHTS, params, state, batches, val_batch, num_steps)
        first = jax.tree.map(lambda x, n=num_steps: x[:n], batches)
        b = jax.jit(hypergrad(loss, loss, optimizer))(WEIGHTS, params, state, first, val_batch)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-13)
    assert dynamic._cache_size() == 1


@pytest.mark.parametrize("mode", MODES)
def test_batches_can_be_drawn_inside_and_closures_traced(mode):
    """Keys for batches; data and a hyperparameter that loss and draw close over are traced, the latter batched."""
    params, batches, val_batch = problem()
    optimizer = optax.sgd(0.1)

    def run(ridge, batches):
        def own(params, batch):
            return loss(params, batch) + ridge * jnp.sum(params["w"] ** 2)

        def draw(t):
            return jax.tree.map(lambda x: x[t], batches)

        drawn = hypergrad(own, loss, optimizer, mode=mode, draw=draw)
        given = hypergrad(own, loss, optimizer, mode=mode)
        state = optimizer.init(params)
        return (
            drawn(WEIGHTS, params, state, jnp.arange(T), val_batch).hypergrads,
            given(WEIGHTS, params, state, batches, val_batch).hypergrads,
        )

    drawn, given = jax.jit(jax.vmap(run, (0, None)))(jnp.array([0.0, 0.5]), batches)
    np.testing.assert_allclose(drawn, given, rtol=1e-10)
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-4


def test_an_nnx_model_takes_part_as_its_state():
    graphdef, params = nnx.split(nnx.Linear(4, 1, rngs=nnx.Rngs(0), param_dtype=jnp.float64, dtype=jnp.float64))

    def model_loss(params, batch):
        x, y = batch
        return jnp.mean((nnx.merge(graphdef, params)(x)[..., 0] - y) ** 2)

    _, batches, val_batch = problem()
    optimizer = optax.adam(0.05)
    inputs = WEIGHTS, params, optimizer.init(params), batches, val_batch
    a, b = (
        jax.jit(hypergrad(model_loss, model_loss, optimizer, mode=mode))(*inputs) for mode in ("reverse", "forward")
    )
    np.testing.assert_allclose(a.hypergrads, b.hypergrads, rtol=1e-8)
    assert nnx.merge(graphdef, a.params)(jnp.ones((2, 4))).shape == (2, 1)


def test_a_hundred_domains():
    optimizer, rng = optax.sgd(0.5), np.random.default_rng(0)
    weights, x, centers = np.full(100, 0.01), jnp.zeros(4), jnp.asarray(rng.normal(size=(3, 100, 4)))
    inputs = weights, x, optimizer.init(x), centers, jnp.asarray(TARGET)
    a, b = (jax.jit(hypergrad(quadratic, distance, optimizer, mode=mode))(*inputs) for mode in ("reverse", "forward"))
    np.testing.assert_allclose(a.hypergrads, b.hypergrads, rtol=1e-9, atol=1e-12)


def test_a_domain_of_weight_zero_has_a_hypergradient_too():
    weights, (params, batches, val_batch), optimizer = np.array([0.0, 0.6, 0.4]), problem(), optax.sgd(0.3)
    inputs = params, optimizer.init(params), batches
    result = jax.jit(hypergrad(loss, loss, optimizer))(weights, *inputs, val_batch)
    outcome = jax.jit(lambda w: loss(unroll(loss, optimizer)(w, *inputs)[0], val_batch))
    expected = difference(outcome, weights)
    np.testing.assert_allclose(result.hypergrads, expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["reverse"])
def test_adam_needs_a_root_away_from_zero_where_a_gradient_is_exactly_zero(mode):
    params, (x, y), (val_x, val_y) = problem()
    x, val_x = x.at[..., 0].set(0.0), val_x * np.array([0, 1, 1, 1])  # a dead pixel
    params["w"] = params["w"].at[0].set(0.0)

    def gradient(optimizer):
        inputs = WEIGHTS, params, optimizer.init(params), (x, y), (val_x, val_y)
        return jax.jit(hypergrad(loss, loss, optimizer, mode=mode))(*inputs).hypergrads

    def outcome(weights):
        optimizer = optax.adam(0.05, eps_root=1e-12)
        return loss(unroll(loss, optimizer)(weights, params, optimizer.init(params), (x, y))[0], (val_x, val_y))

    assert np.isnan(gradient(optax.adam(0.05))).all()
    expected = difference(jax.jit(outcome), WEIGHTS, 1e-7)
    np.testing.assert_allclose(gradient(optax.adam(0.05, eps_root=1e-12)), expected, rtol=1e-3)


def test_alignment_takes_losses_without_a_forward_derivative():
    @jax.custom_vjp
    def square(z):
        return z**2

    square.defvjp(lambda z: (z**2, z), lambda z, g: (2 * z * g,))

    def own(x, center):
        return 0.5 * jnp.sum(CURVATURES * square(x - center))

    optimizer, x, batches = optax.sgd(0.1), jnp.zeros(4), jnp.asarray(CENTERS)[None]
    inputs = WEIGHTS, x, optimizer.init(x), batches, jnp.asarray(TARGET)
    a, b = (hypergrad(f, distance, optimizer, mode="alignment")(*inputs) for f in (own, quadratic))
    np.testing.assert_allclose(a.hypergrads, b.hypergrads, rtol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_bfloat16_parameters_and_integer_weights(mode):
    optimizer, x = optax.sgd(0.5), jnp.zeros(4, jnp.bfloat16)
    batches, target = jnp.asarray(CENTERS, jnp.bfloat16)[None], jnp.asarray(TARGET, jnp.bfloat16)
    options = {"neumann_step": jnp.float32(0.5), "ridge": jnp.float32(0.1)} if mode == "implicit" else {}

    def low(x, center):
        return 0.5 * jnp.sum(jnp.asarray(CURVATURES, x.dtype) * (x - center) ** 2)

    gradient = hypergrad(low, low, optimizer, mode=mode, **options)
    result = gradient(np.array([1, 0, 0]), x, optimizer.init(x), batches, target)
    assert result.params.dtype == jnp.bfloat16 and jnp.issubdtype(result.hypergrads.dtype, jnp.floating)
    assert np.isfinite(result.hypergrads).all() and np.abs(result.hypergrads).max() > 0


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_runs_on_devices_under_shard_map(mode):
    mesh = jax.make_mesh((8,), ("runs",), axis_types=(AxisType.Auto,))
    optimizer = optax.sgd(0.5, momentum=0.5)
    batches = jnp.broadcast_to(CENTERS, (3, *CENTERS.shape))
    gradient = hypergrad(quadratic, distance, optimizer, mode=mode)

    def run(weights, x):
        return gradient(weights, x, optimizer.init(x), batches, jnp.asarray(TARGET)).hypergrads

    def one(weights, x):
        return run(weights[0], x[0])[None]

    rng = np.random.default_rng(0)
    weights, x = rng.dirichlet(np.ones(3), 8), rng.normal(size=(8, 4))
    sharded = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=P("runs"), out_specs=P("runs")))(weights, x)
    np.testing.assert_allclose(sharded, jax.jit(jax.vmap(run))(weights, x), rtol=1e-6, atol=1e-9)


def test_a_loss_that_is_nan_says_so_in_the_hypergradient():
    optimizer = optax.sgd(0.1)
    params, (x, y), val_batch = problem()
    result = hypergrad(loss, loss, optimizer)(
        WEIGHTS, params, optimizer.init(params), (x.at[2, 1].set(np.nan), y), val_batch
    )
    assert np.isnan(result.hypergrads).any() and np.isnan(result.losses[1])


def test_counterfactual_errs_by_the_second_order():
    optimizer = optax.sgd(0.3)
    params, batches, val_batch = problem()
    state = optimizer.init(params)
    result = hypergrad(loss, loss, optimizer)(WEIGHTS, params, state, batches, val_batch)
    run = jax.jit(lambda w: loss(unroll(loss, optimizer)(w, params, state, batches)[0], val_batch))
    direction = np.array([0.3, -0.2, -0.1])
    errors = []
    for size in (0.4, 0.2, 0.1):
        other = WEIGHTS + size * direction
        errors.append(float(counterfactual(result, WEIGHTS, other) - run(other)))
        assert abs(errors[-1]) < 0.3 * abs(run(other) - run(WEIGHTS))
    np.testing.assert_allclose(errors[0] / errors[1], 4.0, rtol=0.2)
    np.testing.assert_allclose(errors[1] / errors[2], 4.0, rtol=0.1)


def temporary(num_steps, size=2000, traced=False, **options):
    """Bytes of the compiled program beside its arguments and results."""
    optimizer = optax.sgd(0.1)

    def wide(x, center):
        return jnp.mean(jnp.tanh(x - center) ** 2)

    def draw(key):
        return jax.random.normal(key, (4, 1), jnp.float32)

    x = jnp.zeros(size, jnp.float32)
    gradient = jax.jit(hypergrad(wide, wide, optimizer, draw=draw, **options))
    keys = jax.random.split(jax.random.key(0), num_steps)
    last = [jnp.int32(num_steps)] if traced else []
    compiled = gradient.lower(jnp.full(4, 0.25, jnp.float32), x, optimizer.init(x), keys, x[:1], *last).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_beyond_the_state_is_constant_or_grows_with_the_root_of_t():
    assert temporary(1024, mode="forward") <= 1.1 * temporary(2, mode="forward")
    assert temporary(1024, mode="forward", traced=True) <= 1.1 * temporary(1, mode="forward", traced=True)
    kept = temporary(1024, segment=1) - temporary(1, segment=1)
    assert 0.9 < kept / (1023 * 2000 * 4) < 1.5
    assert temporary(1024) < 0.12 * temporary(1024, segment=1)  # 2 * 32 states of 1024, and the rest


def case(**changes):
    params, batches, val_batch = problem()
    given = {"weights": WEIGHTS, "params": params, "batches": batches, "val_batch": val_batch} | changes
    optimizer = optax.sgd(0.1)
    return optimizer, (given["weights"], given["params"], optimizer.init(params), given["batches"], given["val_batch"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"weights": np.ones(2)}, r"weights of shape \(2,\)"),
        ({"weights": np.ones((3, 1))}, r"weights of shape \(3, 1\)"),
        ({"batches": (np.zeros((0, D, SIZE, 4)), np.zeros((0, D, SIZE)))}, "at least one step"),
        ({"batches": (np.zeros((2, D, SIZE, 4)), np.zeros((3, D, SIZE)))}, "one leading axis"),
    ],
)
def test_shapes_that_do_not_fit(mode, changes, match):
    optimizer, inputs = case(**changes)
    with pytest.raises(ValueError, match=match):
        hypergrad(loss, loss, optimizer, mode=mode)(*inputs)


def test_a_loss_that_is_no_scalar():
    optimizer, inputs = case()
    with pytest.raises(ValueError, match=r"losses of shape \(3, 6\)"):
        hypergrad(lambda params, batch: batch[1], loss, optimizer)(*inputs)


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"mode": "backward"}, ValueError, "reverse, forward, implicit, alignment, got 'backward'"),
        ({"segment": 0}, ValueError, "segment"),
        ({"mode": "forward", "segment": 2}, TypeError, "segment"),
        ({"mode": "implicit", "ridge": -1.0}, ValueError, "ridge"),
        ({"mode": "implicit", "tolerance": -1.0}, ValueError, "tolerance"),
        ({"mode": "implicit", "max_iterations": 0}, ValueError, "max_iterations"),
        ({"mode": "implicit", "neumann_step": 0.0}, ValueError, "neumann_step"),
    ],
)
def test_options_that_do_not_exist_or_fit(options, kind, match):
    with pytest.raises(kind, match=match):
        hypergrad(loss, loss, optax.sgd(0.1), **options)


def test_counterfactual_wants_weights_of_the_hypergradients_shape():
    result = hg.Hypergradient(jnp.zeros(3), None, None, None, jnp.zeros(()))
    for weights, other in ((np.ones(2), np.ones(3)), (np.ones(3), np.ones((4, 2)))):
        with pytest.raises(ValueError, match="weights must be"):
            counterfactual(result, weights, other)


def test_registry_names_the_functions():
    assert {name: function.__name__ for name, function in MODES.items()} == {name: name for name in MODES}
