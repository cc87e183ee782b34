"""All modes behind one signature: they train alike, take drawn batches and any model, and refuse what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mixjax.hypergrad import MODES, hypergrad, unroll
from tests.hypergrad.problems import (
    CENTERS,
    CURVATURES,
    SIZE,
    TARGET,
    WEIGHTS,
    D,
    T,
    difference,
    distance,
    loss,
    problem,
    quadratic,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


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
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every"),
        ({"mode": "forward", "checkpoint_every": 2}, TypeError, "checkpoint_every"),
        ({"mode": "implicit", "ridge": -1.0}, ValueError, "ridge"),
        ({"mode": "implicit", "tolerance": -1.0}, ValueError, "tolerance"),
        ({"mode": "implicit", "max_iterations": 0}, ValueError, "max_iterations"),
        ({"mode": "implicit", "neumann_step": 0.0}, ValueError, "neumann_step"),
    ],
)
def test_options_that_do_not_exist_or_fit(options, kind, match):
    with pytest.raises(kind, match=match):
        hypergrad(loss, loss, optax.sgd(0.1), **options)


def test_registry_names_the_functions():
    assert {name: function.__name__ for name, function in MODES.items()} == {name: name for name in MODES}


def on_devices(fun, *args, in_specs, check_vma=True):
    mesh = jax.make_mesh((2,), ("d",), devices=jax.devices()[:2])
    args = jax.tree.map(lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec)), args, in_specs)
    return jax.jit(jax.shard_map(fun, mesh=mesh, in_specs=in_specs, out_specs=P(), check_vma=check_vma))(*args)


@pytest.mark.parametrize("mode", ["reverse", "forward", "alignment", "implicit"])
def test_losses_that_average_over_devices_are_those_of_the_whole_batch(mode):
    optimizer, (params, batches, val_batch) = optax.adam(0.05, eps_root=1e-12), problem(num_steps=2)
    state = optimizer.init(params)
    val_batch = jax.tree.map(lambda x: jnp.asarray(x)[:8], val_batch)

    def averaged(params, batch):
        return jax.lax.pmean(loss(params, batch), "d")

    def run(batches, val_batch):
        return hypergrad(averaged, averaged, optimizer, mode=mode)(WEIGHTS, params, state, batches, val_batch)

    got = on_devices(run, batches, val_batch, in_specs=((P(None, None, "d"),) * 2, (P("d"),) * 2))
    want = jax.jit(hypergrad(loss, loss, optimizer, mode=mode))(WEIGHTS, params, state, batches, val_batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), got, want)

    # Unchecked, JAX would not add up the gradients, and nothing would say so.
    with pytest.raises(ValueError, match=r"a loss averages over the mesh axes \['d'\] under shard_map"):
        on_devices(run, batches, val_batch, in_specs=((P(None, None, "d"),) * 2, (P("d"),) * 2), check_vma=False)

    # An average over devices for training, and a validation loss of each device's own: neither reading fits.
    def mixed(batches, val_batch):
        return hypergrad(averaged, loss, optimizer, mode=mode)(WEIGHTS, params, state, batches, val_batch)

    with pytest.raises(ValueError, match=r"loss averages over the mesh axes \['d'\]"):
        on_devices(mixed, batches, val_batch, in_specs=((P(None, None, "d"),) * 2, (P("d"),) * 2))


def test_what_is_stopped_is_held_fixed_which_finite_differences_do_not_do():
    def bootstrapped(x, target):
        return 0.5 * (x - 0.5 * jax.lax.stop_gradient(x) - target) ** 2

    optimizer, x, targets = optax.sgd(0.5), jnp.array(0.5), jnp.tile(jnp.array([0.0, 1.0]), (2, 1))
    inputs = x, optimizer.init(x), targets
    results = [
        hypergrad(bootstrapped, quadratic_1d, optimizer, mode=mode)(np.full(2, 0.5), *inputs, jnp.array(1.0))
        for mode in ("reverse", "forward")
    ]
    # By hand: the slope of the gradient is 1 with the stop, and 1/2 without. x goes 0.5 -> 0.625 -> 0.71875.
    first, second = -0.5 * (0.25 - np.array([0.0, 1.0])), -0.5 * (0.3125 - np.array([0.0, 1.0]))
    for result in results:
        np.testing.assert_allclose(result.hypergrads, (0.71875 - 1.0) * (0.5 * first + second), rtol=1e-12)
    differences = difference(
        lambda w: quadratic_1d(unroll(bootstrapped, optimizer)(w, *inputs)[0], 1.0), np.full(2, 0.5)
    )
    np.testing.assert_allclose(differences, (0.71875 - 1.0) * (0.75 * first + second), rtol=1e-6)


def quadratic_1d(x, target):
    return 0.5 * (x - target) ** 2


@pytest.mark.parametrize("mode", MODES)
def test_a_complex_parameter_is_two_real_ones(mode):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 3)) + 1j * rng.normal(size=(2, 3, 4, 3))
    batches, val_batch = {"x": x, "y": rng.normal(size=(2, 3, 4))}, {"x": x[0, 0], "y": rng.normal(size=4)}
    params, weights = jnp.array([0.1 + 0.1j, 0.2, -0.1j]), jnp.array([0.2, 0.3, 0.5])

    def complex_loss(params, batch):
        return jnp.mean(jnp.square(jnp.abs(batch["x"] @ params - batch["y"])))

    def real_loss(parts, batch):
        return complex_loss(parts[..., 0] + 1j * parts[..., 1], batch)

    # optax steps against the conjugate of what JAX calls the gradient.
    conjugate = optax.stateless(lambda grads, params: jax.tree.map(jnp.conj, grads))

    def run(loss, params, *before):
        optimizer = optax.chain(*before, optax.sgd(0.1))
        gradient = jax.jit(hypergrad(loss, loss, optimizer, mode=mode))
        return gradient(weights, params, optimizer.init(params), batches, val_batch).hypergrads

    got = run(complex_loss, params, conjugate)
    want = run(real_loss, jnp.stack([params.real, params.imag], axis=-1), conjugate)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert np.abs(want).min() > 1e-3
