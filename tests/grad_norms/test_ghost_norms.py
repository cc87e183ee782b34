"""Ghost norms: losses, gradients and norms of one backward pass against the gradients themselves; the last layer's."""

import functools
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.grad_norms import Tape, by_domain, ghost, last_layer, linear, norm, value_grads_and_norms

pytestmark = pytest.mark.usefixtures("quick_compilation")

B, T, V, D = 6, 4, 5, 4


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def alone(losses_fn):
    """The loss of one example of the same model on a tape that changes nothing."""
    return lambda params, example: losses_fn(Tape(), params, jax.tree.map(lambda x: x[None], example))[0]


def compiled(losses_fn, params, batch):
    return jax.jit(functools.partial(value_grads_and_norms, losses_fn))(params, batch)


def mlp(tape, params, x):
    hidden = jnp.tanh(tape.dense(x, params["in"]["kernel"], params["in"]["bias"]))
    hidden = jax.nn.relu(tape.dense(hidden, params["mid"]))
    return tape.dense(hidden, params["out"])


def mlp_losses(tape, params, batch):
    x, y = batch
    return jnp.square(mlp(tape, params, x) - y).sum(axis=-1)


MLP = {"in": {"kernel": normal(0, 3, 8), "bias": normal(1, 8)}, "mid": normal(2, 8, 8), "out": normal(3, 8, 2)}
MLP_BATCH = normal(4, B, 3), normal(5, B, 2)


def bag_losses(tape, params, ids):
    """An embedding, summed over places, and dense layers: repeated tokens add before they are squared."""
    hidden = jnp.tanh(tape.embed(ids, params["table"]).sum(axis=1))
    return jnp.square(tape.dense(hidden, params["kernel"], params["bias"])).sum(axis=-1)


def normalised(x):
    return (x - x.mean(axis=-1, keepdims=True)) / jnp.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)


def sequence(tape, params, ids):
    """Embedding, positions, layer norm, causal attention and a two-layer perceptron, with a residual."""
    x = tape.add(tape.embed(ids, params["table"]), params["positions"])
    h = tape.scale(normalised(x), params["gamma"], params["beta"])
    q, k, v = (tape.dense(h, params[name]) for name in "qkv")
    scores = jnp.where(jnp.tri(T, dtype=bool), jnp.einsum("btd,bsd->bts", q, k), -jnp.inf)
    x = x + jax.nn.softmax(scores) @ v
    h = tape.scale(normalised(x), params["gamma2"])
    return x + tape.dense(jax.nn.gelu(tape.dense(h, params["up"], params["up_bias"])), params["down"])


def tied_losses(tape, params, ids):
    logits = tape.attend(sequence(tape, params, ids), params["table"])
    return -jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), ids[:, 1:, None], axis=-1).sum(axis=(1, 2))


def shared_losses(tape, params, batch):
    """One kernel and one bias three times, a scale twice, on arrays of two ranks."""
    x, z, y = batch
    x, z = (tape.scale(jnp.tanh(tape.dense(x, params["kernel"], params["bias"])), params["gamma"]) for x in (x, z))
    x = tape.add(tape.dense(x, params["kernel"]), params["bias"])
    return jnp.square(x.sum(1) + z.sum((1, 2, 3)) - y)


IDS = np.random.default_rng(0).integers(V, size=(B, T))
IDS[0], IDS[1, :3] = 2, 0
WIDTH = 24  # 2 T² = 32 against D² = 16 and D · WIDTH = 96: direct sums and Gram matrices
SEQUENCE = {
    "table": (V, D),
    "positions": (T, D),
    **dict.fromkeys(["gamma", "beta", "gamma2"], (D,)),
    **dict.fromkeys("qkv", (D, D)),
    **{"up": (D, WIDTH), "up_bias": (WIDTH,), "down": (WIDTH, D)},
}
MODELS = {
    "mlp": (mlp_losses, MLP, MLP_BATCH),
    "bag": (bag_losses, {"table": normal(0, V, D), "kernel": normal(1, D, 3), "bias": normal(2, 3)}, IDS),
    "tied": (tied_losses, {name: 0.5 * normal(i, *shape) for i, (name, shape) in enumerate(SEQUENCE.items())}, IDS),
    "shared": (
        shared_losses,
        {"kernel": normal(0, 3, 3), "bias": normal(1, 3), "gamma": normal(2, 3)},
        (normal(3, B, 3), normal(5, B, 2, 5, 3), normal(4, B)),
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)
UNEVEN, ONES = np.linspace(0.0, 3.0, B, dtype=np.float32), np.ones(B, np.float32)


@functools.cache
def program(name):
    """``run(params, batch, weights, factor)``: losses times ``factor``, gradient, norms and norms by leaf."""
    losses_fn, norms_of = MODELS[name][0], ghost._norms

    @jax.jit
    def run(params, batch, weights, factor):
        shares = []

        def listen(leaves):
            shares.extend(norms_of([terms]) for terms in leaves)
            return norms_of(leaves)

        with mock.patch.object(ghost, "_norms", listen):
            found = value_grads_and_norms(lambda *a: factor * losses_fn(*a), params, batch, weights=weights)
        return *found, [share / jnp.where(weights == 0, 1, weights) for share in shares]

    return run


def measured(name, params=None, batch=None, weights=UNEVEN, factor=ONES):
    """One program a model, whatever it is called with."""
    _, own_params, own_batch = MODELS[name]
    params, batch = own_params if params is None else params, own_batch if batch is None else batch
    return program(name)(params, batch, weights, factor)


@functools.cache
def direct(name):
    """The same, with uneven weights, from the gradients themselves."""
    losses_fn, params, batch = MODELS[name]

    @jax.jit
    def run(params, batch):
        losses, grads = jax.vmap(jax.value_and_grad(alone(losses_fn)), in_axes=(None, 0))(params, batch)
        mean = jax.tree.map(lambda g: jnp.tensordot(UNEVEN, g, 1) / B, grads)
        return losses, mean, norm(grads), [norm(g) for g in jax.tree.leaves(grads)]

    return run(params, batch)


@every_model
def test_losses_gradients_and_norms(name):
    params = MODELS[name][1]
    losses, grads, norms, shares = measured(name)
    expected_losses, expected_grads, expected_norms, expected_shares = direct(name)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    chex.assert_trees_all_close(grads, expected_grads, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, params)
    assert norms.shape == (B,) and norms.dtype == jnp.float32 and norms.min() > 0
    np.testing.assert_allclose(norms, expected_norms, rtol=1e-4)
    for share, expected in zip(shares, expected_shares, strict=True):  # a small leaf's cannot hide behind a large one's
        np.testing.assert_allclose(share, expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("places", [1, 2, 9])
def test_both_ways_to_sum_over_time_agree(places):
    left, right = normal(0, B, places, 5), normal(1, B, places, 3)
    expected = np.square(np.einsum("btn,btm->bnm", np.float64(left), np.float64(right))).sum(axis=(1, 2))
    np.testing.assert_allclose(jax.jit(ghost._matrix_squares)(left, right), expected, rtol=1e-5)
    if places == 1:
        np.testing.assert_allclose(np.square(left).sum((1, 2)) * np.square(right).sum((1, 2)), expected, rtol=1e-5)


def test_the_way_is_chosen_by_memory():
    def largest(places):
        jaxpr = jax.make_jaxpr(ghost._matrix_squares)(jnp.ones((1, places, 8)), jnp.ones((1, places, 4)))
        return max(var.aval.size for eqn in jaxpr.eqns for var in eqn.outvars)

    assert largest(4) == 16  # T²; 2 T² <= 8 · 4
    assert largest(5) == 32  # 8 · 4


def test_dense_by_hand():
    """T = 2 with inputs (1, 0), (0, 1) and outputs of slope 3 and 4: the gradient is diag(3, 4), the bias's (3, 4)."""

    def losses_fn(tape, params, slopes):
        x = jnp.broadcast_to(jnp.eye(2), (1, 2, 2))
        return (slopes * tape.dense(x, params["kernel"], params["bias"])).sum(axis=(1, 2))

    slopes = jnp.array([[[3.0, 0.0], [0.0, 4.0]]])
    _, grads, norms = compiled(losses_fn, {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, slopes)
    assert grads["kernel"].tolist() == [[3.0, 0.0], [0.0, 4.0]] and grads["bias"].tolist() == [3.0, 4.0]
    np.testing.assert_allclose(norms, [np.sqrt(50.0)], rtol=1e-6)


def test_embedding_by_hand():
    """Token 1 twice with slopes 1 and 2, token 0 once with 4: the rows' gradients are 3 and 4."""

    def losses_fn(tape, table, batch):
        return (batch[1] * tape.embed(batch[0], table)[..., 0]).sum(axis=1)

    batch = jnp.array([[1, 0, 1], [1, 1, 1]]), jnp.array([[1.0, 4.0, 2.0], [1.0, 1.0, -2.0]])
    _, grads, norms = compiled(losses_fn, jnp.ones((3, 1)), batch)
    assert grads.tolist() == [[2.0], [1.5], [0.0]]
    assert norms.tolist() == [5.0, 0.0]


def test_embedding_clips_ids():
    ids, table = np.array([[-1, 0], [V, 7], [-V - 3, 1]]), normal(0, V, D)
    clipped = np.array([[V - 1, 0], [V - 1, V - 1], [0, 1]])
    np.testing.assert_array_equal(Tape().embed(ids, table), table[clipped])

    def losses_fn(tape, table, ids):
        return jnp.square(tape.embed(ids, table)).sum(axis=(1, 2))

    chex.assert_trees_all_equal(*(compiled(losses_fn, table, x) for x in (ids, clipped)))


@pytest.mark.parametrize("scale", [1e-25, 1e30])
def test_ghost_norms_are_scaled(scale):
    def losses_fn(tape, params, batch):
        h = tape.embed(batch, params["table"]) + tape.dense(jnp.ones((2, 2, 3)), params["kernel"])
        return scale * tape.scale(h, params["gamma"], params["beta"]).sum(axis=(1, 2))

    params = {"table": jnp.ones((4, 2)), "kernel": jnp.zeros((3, 2)), "gamma": jnp.ones(2), "beta": jnp.zeros(2)}
    ids = jnp.array([[1, 1], [0, 3]])
    _, _, norms = compiled(losses_fn, params, ids)
    # table 2·2² or 4·1², kernel 6·2², gamma 2·2², beta 2·2²
    np.testing.assert_allclose(np.float64(norms) / scale, np.sqrt([48.0, 44.0]), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_tied_norms_are_scaled(scale):
    norms = measured("tied", factor=np.float32(scale) * ONES)[2]
    np.testing.assert_allclose(np.float64(norms) / scale, direct("tied")[2], rtol=1e-4)


@every_model
def test_zero_gradients_have_norm_zero(name):
    losses, grads, norms, _ = measured(name, factor=np.where(np.arange(B) == 2, 0, ONES))
    assert norms[2] == 0.0 and losses[2] == 0.0 and (np.delete(np.asarray(norms), 2) > 0).all()
    chex.assert_tree_all_finite((grads, norms))


def test_an_example_that_is_not_finite_spoils_itself_alone():
    x, y = MODELS["mlp"][2]
    bad, weights = x.copy(), ONES.copy()
    bad[1, 0], bad[3], weights[[1, 3]] = np.nan, np.inf, 0.0
    _, grads, norms, _ = measured("mlp", batch=(bad, y), weights=weights)
    _, expected, clean, _ = measured("mlp", weights=weights)
    assert not np.isfinite(np.asarray(norms)[[1, 3]]).any()
    np.testing.assert_allclose(np.delete(norms, [1, 3]), np.delete(clean, [1, 3]), rtol=1e-6)
    chex.assert_trees_all_close(grads, expected, rtol=1e-6)  # weight 0 leaves the example out


def test_weights_of_zero_everywhere_and_weights_that_are_not_given():
    losses_fn, params, batch = MODELS["mlp"]
    _, grads, norms, _ = measured("mlp", weights=0 * ONES)
    np.testing.assert_allclose(norms, direct("mlp")[2], rtol=1e-4)
    chex.assert_trees_all_equal(grads, jax.tree.map(jnp.zeros_like, params))
    _, grads, _ = compiled(losses_fn, params, batch)
    mean = jax.jit(jax.grad(lambda params: losses_fn(Tape(), params, batch).mean()))(params)
    chex.assert_trees_all_close(grads, mean, rtol=1e-5, atol=1e-6)


@every_model
def test_weights_none_of_which_is_zero(name):
    """The usual branch: above, a weight of zero takes the other one."""
    losses_fn, params, batch = MODELS[name]
    weights = UNEVEN - 0.5
    _, grads, norms, _ = measured(name, weights=weights)
    mean = jax.jit(jax.grad(lambda params: (weights * losses_fn(Tape(), params, batch)).mean()))(params)
    chex.assert_trees_all_close(grads, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norms, direct(name)[2], rtol=1e-4)


def test_a_batch_of_runs_is_a_loop_and_branches_stay_branches():
    """One run has a weight of zero, one a gradient that is too small to be squared, the others neither."""
    losses_fn, params, (x, y) = MODELS["mlp"]

    def run(scale, weights):
        params_of = jax.tree.map(lambda leaf: scale * leaf, params)
        return value_grads_and_norms(losses_fn, params_of, (x, y), weights=weights)

    scales = jnp.float32([1.0, 0.5, 1e-30])
    weights = jnp.stack([UNEVEN, UNEVEN + 1, UNEVEN + 1])
    batched = jax.jit(jax.vmap(run))(scales, weights)
    for i in range(3):
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, i=i: leaf[i], batched), jax.jit(run)(scales[i], weights[i]), rtol=1e-5, atol=1e-6
        )
    jaxpr = jax.make_jaxpr(jax.vmap(run))(scales, weights)
    assert sum(eqn.primitive.name == "cond" for eqn in jaxpr.eqns) == 2


def slope_losses(tape, params, batch):
    """Losses whose derivative by a dense layer's output is a factor of the example."""
    return sum(factor * tape.dense(x, params[name])[:, 0].astype(factor.dtype) for name, (x, factor) in batch.items())


def test_a_factor_that_cannot_be_squared_beside_a_leaf_that_can():
    columns = {"a": (1e-20, 1e18), "b": (1e-2, 1.0), "c": (1e25, 1e-25)}
    batch = {name: (jnp.full((2, 3), x), jnp.full(2, factor)) for name, (x, factor) in columns.items()}
    params = {name: jnp.zeros((3, 1)) for name in columns}
    norms = compiled(slope_losses, params, batch)[2]
    np.testing.assert_allclose(norms, (3 * (0.01**2 + 0.01**2 + 1.0)) ** 0.5, rtol=1e-5)


def test_weights_too_small_for_the_type_count_as_zero_and_other_small_ones_do_no_harm():
    batch, params = {"a": (jnp.ones((3, 3)), jnp.ones(3))}, {"a": jnp.zeros((3, 1))}
    weights = np.float32([1e-42, 1e-30, 3.0])
    _, grads, norms = jax.jit(functools.partial(value_grads_and_norms, slope_losses))(params, batch, weights=weights)
    np.testing.assert_allclose(norms, [3**0.5] * 3, rtol=1e-6)
    np.testing.assert_allclose(grads["a"], np.ones((3, 1)), rtol=1e-6)
    with jax.enable_x64(True):
        params, batch = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, batch))
        weights = np.array([1e-50, 1e45, 1.0])
        norms = jax.jit(functools.partial(value_grads_and_norms, slope_losses))(params, batch, weights=weights)[2]
        np.testing.assert_allclose(norms, [3**0.5] * 3, rtol=1e-6)


def test_half_precision_operations_do_not_see_the_size_of_the_batch():
    size = 1024
    batch = {"a": (jnp.ones((size, 3), jnp.float16), jnp.full(size, 1e-4, jnp.float32))}
    norms = compiled(slope_losses, {"a": jnp.zeros((3, 1), jnp.float16)}, batch)[2]
    np.testing.assert_allclose(norms, 1e-4 * 3**0.5, rtol=2e-3)


@pytest.mark.parametrize("check_vma", [True, False])
def test_under_shard_map_norms_are_the_examples_own_and_gradients_the_devices(check_vma):
    losses_fn, params, batch = MODELS["mlp"]
    weights = UNEVEN + 1
    _, grads, norms = jax.jit(functools.partial(value_grads_and_norms, losses_fn))(params, batch, weights=weights)
    split, whole = jax.sharding.PartitionSpec("runs"), jax.sharding.PartitionSpec()
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("runs",))

    def own(params, batch, weights):
        _, grads, norms = value_grads_and_norms(losses_fn, params, batch, weights=weights)
        return jax.tree.map(lambda g: jax.lax.pmean(g, "runs"), grads), norms

    sharded = jax.jit(
        jax.shard_map(own, mesh=mesh, in_specs=(whole, split, split), out_specs=(whole, split), check_vma=check_vma)
    )
    chex.assert_trees_all_close(sharded(params, batch, weights), (grads, norms), rtol=1e-5, atol=1e-6)


def test_one_backward_pass():
    """As many products of matrices as value_and_grad, beside those of one example alone."""
    losses_fn, params, batch = MODELS["mlp"]

    def products(function):
        jaxpr = jax.make_jaxpr(function)(params, batch)
        dots = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"]
        return sum(not eqn.params["dimension_numbers"][1][0] for eqn in dots)

    ordinary = products(lambda params, batch: jax.grad(lambda p: losses_fn(Tape(), p, batch).mean())(params))
    assert products(lambda params, batch: value_grads_and_norms(losses_fn, params, batch)) == ordinary == 8


def test_vmap_over_parameters():
    _, params, batch = MODELS["bag"]
    runs = [jax.tree.map(lambda x, s=s: np.float32(s) * x, params) for s in (0.5, 1.0, 1.5)]
    stacked = jax.tree.map(lambda *rows: np.stack(rows), *runs)
    batched = jax.jit(jax.vmap(program("bag"), in_axes=(0, None, None, None)))(stacked, batch, UNEVEN, ONES)
    loop = jax.tree.map(lambda *rows: np.stack(rows), *(measured("bag", run) for run in runs))
    chex.assert_trees_all_close(batched, loop, rtol=1e-4, atol=1e-5)


def test_bfloat16_parameters():
    losses_fn, params, batch = MODELS["mlp"]
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (params, batch))
    _, grads, norms = compiled(losses_fn, *low)
    assert norms.dtype == jnp.float32 and {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(norms, direct("mlp")[2], rtol=0.1)


def test_float64_parameters_have_float64_gradients():
    with jax.enable_x64(True):
        losses_fn, params, batch = MODELS["mlp"]
        params, batch = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, batch))
        _, grads, norms = compiled(losses_fn, params, batch)
        expected = jax.jit(jax.grad(lambda p: losses_fn(Tape(), p, batch).mean()))(params)
        chex.assert_trees_all_close(grads, expected, rtol=1e-12)
        assert norms.dtype == jnp.float32


def test_a_constant_leaf_has_no_gradient_and_no_share():
    params = {"frozen": normal(0, 3, 3), "head": normal(1, 3, 1), "tied": normal(2, 1)}

    def losses_fn(tape, params, x):
        hidden = jnp.tanh(x @ tape.constant(params["frozen"])) * tape.constant(params["tied"])
        return tape.dense(hidden, params["head"], params["tied"])[:, 0]

    x = normal(3, B, 3)
    _, grads, norms = compiled(losses_fn, params, x)
    assert not grads["frozen"].any() and grads["tied"].tolist() == [1.0]
    hidden = jnp.tanh(x @ params["frozen"]) * params["tied"]
    np.testing.assert_allclose(norms, linear(jnp.ones(B), hidden, intercept=True), rtol=1e-5)


@pytest.mark.parametrize("weights", [np.ones(3), np.ones((B, 1)), 1.0])
def test_weights_must_be_one_per_example(weights):
    with pytest.raises(ValueError, match=r"weights must have one entry per example, shape \(6,\)"):
        value_grads_and_norms(mlp_losses, MLP, MLP_BATCH, weights=weights)


def test_from_norms_to_sampling_weights():
    """A network's norms feed the rule; a domain spoilt by one example counts as unseen and keeps its prior share."""
    x, y = MODELS["mlp"][2]
    ids = np.array([0, 0, 1, 1, 2, 2])
    norms = measured("mlp", batch=(np.where(np.arange(B)[:, None] == 5, np.float32(np.nan), x), y))[2]
    rule = mixjax.rules.gradient_norm()

    @jax.jit
    def update(norms):
        return rule.update(rule.init([0.25, 0.5, 0.25]), counts=jnp.full(3, 2), grad_norms=by_domain(norms, ids, 3))

    state = update(norms)
    clean = np.float64(direct("mlp")[2])
    scores = np.array([0.25, 0.5]) * np.sqrt([np.mean(clean[:2] ** 2), np.mean(clean[2:4] ** 2)])
    np.testing.assert_allclose(state.weights, [*(0.75 * scores / scores.sum()), 0.25], rtol=1e-4)


# The last layer's.


@pytest.mark.parametrize(("places", "intercept"), [((), True), ((2,), False), ((2, 7), True)])
def test_the_last_layers_norms_are_exact_and_a_lower_bound(places, intercept):
    params = {"in": normal(0, 3, 5), "out": {"kernel": normal(1, 5, 4)}}
    params["out"] |= {"bias": normal(2, 4)} if intercept else {}
    x, y = normal(3, B, *places, 3), np.random.default_rng(4).integers(4, size=(B, *places))

    def forward(params, x):
        features = jnp.tanh(x @ params["in"])
        return features, features @ params["out"]["kernel"] + params["out"].get("bias", 0.0)

    def loss(params, example):
        return -jnp.take_along_axis(
            jax.nn.log_softmax(forward(params, example[0])[1]), example[1][..., None], -1
        ).mean()

    @jax.jit
    def run(params, x, y):
        features, logits = forward(params, x)
        derivatives = (jax.nn.softmax(logits) - jax.nn.one_hot(y, 4)) / max(np.prod(places, dtype=int), 1)
        grads = jax.vmap(jax.grad(loss), (None, 0))(params, (x, y))
        return last_layer(derivatives, features, intercept=intercept), norm(grads["out"]), norm(grads)

    found, own, whole = run(params, x, y)
    np.testing.assert_allclose(found, own, rtol=1e-4)
    assert found.dtype == jnp.float32 and (found < whole).all()


def test_the_last_layers_norms_without_places_and_at_the_ends_of_float32():
    slopes, x = np.float32([[3e-25, 4e-25], [3e30, 4e30], [0.0, 0.0]]), np.float32([[1.0, 0.0]] * 3)
    found = jax.jit(last_layer)
    np.testing.assert_allclose(found(slopes, x), jax.jit(linear)(slopes, x), rtol=1e-6)
    np.testing.assert_allclose(found(slopes, x), [5e-25, 5e30, 0.0], rtol=1e-6)
    assert not np.isfinite(found(np.where(np.arange(3)[:, None] == 0, np.nan, slopes), x)[0])


@pytest.mark.parametrize("slopes, x", [((3, 2), (4, 2)), ((3, 2, 2), (3, 2)), ((3,), (3,)), ((3, 1), (3, 4, 1))])
def test_the_last_layers_shapes(slopes, x):
    with pytest.raises(ValueError, match=r"derivatives must be \[B, ..., K\] and features \[B, ..., p\], got"):
        last_layer(np.ones(slopes), np.ones(x))
