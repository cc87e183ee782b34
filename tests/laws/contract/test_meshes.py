"""Objectives, signals and simple samplers on meshes with Explicit and Auto axes, and under ``shard_map``."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import mixjax
from mixjax import grad_norms, resampling, rules, signals
from mixjax.objectives import example_weights
from tests.laws.contract.batches import OF_BATCHES, OF_WEIGHTS, SIZE, batch, loss_of, weights_of

pytestmark = pytest.mark.usefixtures("quick_compilation")

KINDS = {
    "Explicit": (AxisType.Explicit, AxisType.Explicit),
    "Auto": (AxisType.Auto, AxisType.Auto),
    "mixed": (AxisType.Explicit, AxisType.Auto),
}


def mesh_of(kind: str):
    return jax.make_mesh((2, 2), ("d", "m"), axis_types=KINDS[kind])


# How the batch is spread, over either axis or both.
SPECS = {"losses": P("d"), "tokens": P("d", "m"), "mask": P("d", "m"), "ids": P("d"), "inside": P("d")}


def placed(tree, specs, mesh):
    return {name: jax.device_put(x, NamedSharding(mesh, specs[name])) for name, x in tree.items()}


def assert_close(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-7)


@functools.cache
def wanted(table, name, num_domains):
    inputs = batch(num_domains) if table == "batches" else {"weights": weights_of(num_domains)}
    function = {"batches": OF_BATCHES, "weights": OF_WEIGHTS}[table][name]
    return jax.jit(lambda inputs: function(inputs, num_domains))(inputs)


# Three domains take masks, five take segment sums.
FEW = ("weighted_loss", "weighted_loss of tokens", "moments")
CASES = [(name, 5) for name in OF_BATCHES] + [(name, 3) for name in FEW]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "num_domains"), CASES)
def test_batches_on_a_mesh(name, num_domains, kind):
    mesh = mesh_of(kind)
    with jax.set_mesh(mesh):
        inputs = placed(batch(num_domains), SPECS, mesh)
        got = jax.jit(lambda inputs: OF_BATCHES[name](inputs, num_domains))(inputs)
    assert_close(got, wanted("batches", name, num_domains))


@pytest.mark.parametrize("name", ["weighted_loss", "with_replacement"])
def test_batches_on_a_mesh_without_jit(name):
    mesh = mesh_of("Explicit")
    with jax.set_mesh(mesh):
        got = OF_BATCHES[name](placed(batch(5), SPECS, mesh), 5)
    assert_close(got, wanted("batches", name, 5))


def test_an_explicit_batch_keeps_its_sharding():
    mesh = mesh_of("Explicit")
    with jax.set_mesh(mesh):
        inputs = placed(batch(5), SPECS, mesh)
        rows = OF_BATCHES["example_weights"](inputs, 5)
        drawn = OF_BATCHES["with_replacement"](inputs, 5)
        _, weights, grads = loss_of(inputs, 5)
    assert jax.typeof(rows).sharding.spec == P("d", "m")
    assert jax.typeof(drawn).sharding.spec == jax.typeof(grads).sharding.spec == P("d")
    assert not any(jax.typeof(weights).sharding.spec)


@pytest.mark.parametrize("spec", [P(), P("d")], ids=["whole", "spread"])
@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
@pytest.mark.parametrize("num_domains", [4, 40])
@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_weights_on_a_mesh(name, num_domains, kind, spec):
    mesh = mesh_of(kind)
    with jax.set_mesh(mesh):
        inputs = placed({"weights": weights_of(num_domains)}, {"weights": spec}, mesh)
        got = jax.jit(OF_WEIGHTS[name], static_argnums=1)(inputs, num_domains)
    assert_close(got, wanted("weights", name, num_domains))


@pytest.mark.parametrize("name", ["allocate", "systematic"])
def test_weights_on_a_mesh_without_jit(name):
    mesh = mesh_of("Explicit")
    with jax.set_mesh(mesh):
        got = OF_WEIGHTS[name](placed({"weights": weights_of(40)}, {"weights": P("d")}, mesh), 40)
    assert_close(got, wanted("weights", name, 40))


# A run a device: state that all devices hold alike, and weights or batches of their own.


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_each_device_has_weights_of_its_own(name, check_vma):
    own = {"weights": np.stack([weights_of(40), weights_of(40, seed=1)])}

    def one(inputs):
        return OF_WEIGHTS[name](inputs, 40)

    assert_close(a_run_a_device(one, own, check_vma), jax.jit(jax.vmap(one))(own))


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("name", sorted(set(OF_BATCHES) - {"partitions on the mesh"}))
def test_each_device_has_a_batch_of_its_own(name, check_vma):
    first, second = batch(5), batch(5)
    own = {key: np.stack([first[key], np.flip(second[key], 0)]) for key in first}

    def one(inputs):
        return OF_BATCHES[name](inputs, 5)

    assert_close(a_run_a_device(one, own, check_vma), jax.jit(jax.vmap(one))(own))


def a_run_a_device(one, inputs, check_vma):
    def local(inputs):
        out = one(jax.tree.map(lambda x: x[0], inputs))
        return jax.tree.map(lambda x: x[None], out)

    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=P("d"), out_specs=P("d"), check_vma=check_vma))(inputs)


# shard_map over one axis of a mesh whose other axis is Explicit.


def test_a_batch_over_a_manual_and_an_explicit_axis():
    mesh = mesh_of("Explicit")
    whole = {name: x for name, x in batch(5).items() if name in ("losses", "ids")}

    def local(losses, ids):
        found = signals.moments(losses, ids, 5)
        value, state = mixjax.weighted_loss(rules.fgls(), rules.fgls().init(jnp.ones(5)), losses, ids, axis_name="d")
        return signals.psum(found, "d"), value, state.weights

    with jax.set_mesh(mesh):
        inputs = placed(whole, {"losses": P(("d", "m")), "ids": P(("d", "m"))}, mesh)
        step = jax.shard_map(local, in_specs=P("d"), out_specs=P(), axis_names={"d"})
        moments, value, weights = jax.jit(step)(inputs["losses"], inputs["ids"])
    assert_close(moments, wanted("batches", "moments", 5))
    want, state = mixjax.weighted_loss(rules.fgls(), rules.fgls().init(jnp.ones(5)), whole["losses"], whole["ids"])
    assert_close((value, weights), (want, state.weights))


# Gradients of replicated parameters: whole, or refused where no device could have them whole.

X = np.random.default_rng(2).normal(size=(SIZE, 3)).astype(np.float32)
IDS = np.random.default_rng(3).integers(-1, 5, SIZE)
THETA = jnp.array([0.3, -0.5, 0.8])
RULE = rules.erma(0.3, 0.5)
STATE = RULE.init(jnp.ones(5))


def losses_of(theta, x):
    return jnp.square(x @ theta - 1.0)


def objective_of(theta, x, ids, axis_name, update=True):
    return mixjax.weighted_loss(RULE, STATE, losses_of(theta, x), ids, axis_name=axis_name, update=update)


def over_devices(function, check_vma, axes=("d",)):
    mesh = jax.make_mesh((2,) * len(axes), axes, axis_types=(AxisType.Auto,) * len(axes))
    specs = {"in_specs": (P(), P(axes), P(axes)), "out_specs": P(), "mesh": mesh, "check_vma": check_vma}
    return jax.jit(jax.shard_map(function, **specs))(THETA, X, IDS)


@functools.cache
def whole_batch(update=True):
    function = jax.value_and_grad(lambda theta: objective_of(theta, X, IDS, None, update), has_aux=True)
    (value, state), grads = jax.jit(function)(THETA)
    return value, state.weights, grads


@pytest.mark.parametrize("update", [True, False])
@pytest.mark.parametrize("axes", [("d",), ("d", "m")])
def test_gradients_are_whole_under_a_checked_shard_map(axes, update):
    def local(theta, x, ids):
        axis_name = axes if len(axes) > 1 else axes[0]
        function = jax.value_and_grad(lambda theta: objective_of(theta, x, ids, axis_name, update), has_aux=True)
        (value, state), grads = function(theta)
        return value, state.weights, grads

    assert_close(over_devices(local, True, axes), whole_batch(update))


def test_losses_that_are_the_same_on_every_device():
    """A batch that no device shares: its objective is the whole batch's, whose examples count once a device."""

    def local(theta):
        (value, state), grads = jax.value_and_grad(lambda t: objective_of(t, X, IDS, "d"), has_aux=True)(theta)
        return value, state.weights, grads

    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    value, _, grads = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=P(), out_specs=P()))(THETA)
    doubled = jax.value_and_grad(lambda t: objective_of(t, np.concatenate([X, X]), np.concatenate([IDS, IDS]), None)[0])
    assert_close((value, grads), jax.jit(doubled)(THETA))


REFUSAL = r"^weighted_loss\(axis_name=\.\.\.\) cannot be differentiated under shard_map\(check_vma=False\)"


def test_an_unchecked_shard_map_may_evaluate_but_not_differentiate():
    def evaluate(theta, x, ids):
        value, state = objective_of(theta, x, ids, "d")
        return value, state.weights

    assert_close(over_devices(evaluate, False), whole_batch()[:2])
    backward, forward = (
        lambda theta, x, ids: jax.grad(lambda t: objective_of(t, x, ids, "d")[0])(theta),
        lambda theta, x, ids: jax.jacfwd(lambda t: objective_of(t, x, ids, "d")[0])(theta),
    )
    for derivative in (backward, forward):
        with pytest.raises(ValueError, match=REFUSAL) as refused:
            over_devices(derivative, False)
        assert "\n" not in str(refused.value)


def test_auxiliary_outputs_and_stopped_gradients_are_not_refused():
    def local(theta, x, ids):
        def other(theta):
            return jnp.sum(theta**2), objective_of(jax.lax.stop_gradient(theta), x, ids, "d")[0]

        grads, value = jax.grad(other, has_aux=True)(theta)
        return value, grads

    value, grads = over_devices(local, False)
    assert_close((value, grads), (whole_batch()[0], 2 * THETA))


def test_pmap_is_refused_too():
    shards = X.reshape(2, -1, 3), IDS.reshape(2, -1)
    step = jax.pmap(
        lambda x, ids: jax.grad(lambda t: objective_of(t, x, ids, "d")[0])(THETA),
        axis_name="d",
        devices=jax.devices()[:2],
    )
    with pytest.raises(ValueError, match=REFUSAL):
        step(*shards)


@pytest.mark.parametrize("check_vma", [True, False])
def test_the_cure_that_the_refusal_names(check_vma):
    def local(theta, x, ids):
        if check_vma:
            theta = jax.lax.pcast(theta, "d", to="varying")
        losses = losses_of(theta, x)
        found = signals.psum(signals.moments(losses, ids, 5), "d")
        state = RULE.update(STATE, **found.signals())

        def own(theta):
            return jnp.sum(example_weights(state.weights, ids, found.count) * losses_of(theta, x))

        value, grads = jax.value_and_grad(own)(theta)
        return jax.lax.psum(value, "d"), state.weights, jax.lax.psum(grads, "d")

    assert_close(over_devices(local, check_vma), whole_batch())


# Signals of gradients.


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_microbatch_gradients_on_a_mesh(kind):
    mesh = mesh_of(kind)
    grads = np.random.default_rng(4).normal(size=(4, 5, 6)).astype(np.float32)
    counts = np.random.default_rng(5).integers(0, 4, (4, 5))
    want = jax.jit(signals.microbatch_grad_stds)(grads, counts)
    with jax.set_mesh(mesh):
        place = {"grads": P(None, None, "d"), "counts": P()}
        inputs = placed({"grads": grads, "counts": counts}, place, mesh)
        assert_close(jax.jit(signals.microbatch_grad_stds)(inputs["grads"], inputs["counts"]), want)


def stds_of(x, ids):
    return signals.grad_stds(lambda theta, x: jnp.square(x @ theta - 1.0), THETA, x, ids, 5)


def gains_of(x, ids):
    return resampling.gains(lambda theta, x: jnp.square(x @ theta - 1.0), THETA, x, ids, 5, 4)


def norms_by_parts(x, ids):
    del ids
    return grad_norms.per_example(lambda theta, x: jnp.square(x @ theta - 1.0), THETA, x, batch_size=3)


@pytest.mark.parametrize("function", [stds_of, gains_of, norms_by_parts])
def test_per_example_gradients_on_a_mesh(function):
    mesh = mesh_of("Explicit")
    want = jax.jit(function)(X, IDS)
    with jax.set_mesh(mesh):
        inputs = placed({"x": X, "ids": IDS}, {"x": P("d"), "ids": P("d")}, mesh)
        assert_close(jax.jit(function)(inputs["x"], inputs["ids"]), want)


def norms_of(x, ids):
    return grad_norms.per_example(lambda theta, x: jnp.square(x @ theta - 1.0), THETA, x)


@pytest.mark.parametrize("function", [stds_of, gains_of, norms_of])
def test_per_example_gradients_are_each_devices_own(function):
    """JAX sums the gradients of replicated parameters over the devices, which would mix the examples of all."""
    own = np.stack([X, 2.0 * X[::-1]]), np.stack([IDS, IDS])
    got = a_run_a_device(lambda inputs: function(*inputs), own, True)
    assert_close(got, jax.jit(jax.vmap(function))(*own))


@pytest.mark.parametrize("kind", KINDS)
def test_norms_of_a_module_on_a_mesh(kind):
    model = nnx.Sequential(nnx.Linear(X.shape[1], 4, rngs=nnx.Rngs(0)), nnx.LayerNorm(4, rngs=nnx.Rngs(1)))

    def losses(model, x):
        return jnp.square(model(x)).sum(axis=1)

    def norms(x):
        return [grad_norms.nnx.value_grads_and_norms(losses, model, x, microbatch=size)[2] for size in (None, 3)]

    want, routes, mesh = norms(X), grad_norms.nnx.explain(losses, model, X), mesh_of(kind)
    with jax.set_mesh(mesh):
        x = placed({"x": jnp.asarray(X)}, {"x": P("d")}, mesh)["x"]
        assert_close(norms(x), want)
        assert grad_norms.nnx.explain(losses, model, x) == routes
        grad_norms.nnx.check(losses, model, x)
