"""Per-example gradient norms: ghost norms and closed forms against the gradients themselves, and float32's two ends."""

import functools
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax import grad_norms
from mixjax.grad_norms import Tape, by_domain, linear, norm, per_example, value_grads_and_norms

B, T, V, D = 6, 7, 5, 4


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


# The helper.


def test_norm_by_hand():
    tree = {"kernel": jnp.array([[[3.0, 0.0]], [[0.0, -5.0]]]), "bias": jnp.array([4.0, 12.0])}
    assert norm(tree).tolist() == [5.0, 13.0]
    assert norm(tree).dtype == jnp.float32
    np.testing.assert_allclose(norm(tree, 0), np.sqrt(25 + 169), rtol=1e-6)
    assert norm(jnp.ones((2, 3, 4)), 2).shape == (2, 3)


@pytest.mark.parametrize("scale", [1e-25, 1e-37, 1.0, 1e30, 1e38])
def test_norm_is_scaled(scale):
    np.testing.assert_allclose(norm(jnp.float32([[scale, scale]])), [np.sqrt(2.0) * scale], rtol=1e-6)
    rows = jnp.float32([[3e-25, 4e-25], [3e30, 4e30], [0.0, scale]])
    np.testing.assert_allclose(norm(rows), [5e-25, 5e30, scale], rtol=1e-6)


def test_norm_of_zeros_and_of_what_is_not_finite():
    rows = jnp.float32([[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [-np.inf, 0.0], [3e38, 3e38], [1e-42, 0.0]])
    result = np.asarray(norm(rows))
    assert result[0] == 0.0 and not np.isfinite(result[1:5]).any() and result[5] < 1e-38
    assert jax.jit(norm)(rows)[0] == 0.0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_norm_is_computed_in_float32(dtype):
    rows = jnp.ones((1, 10_000), dtype)
    assert norm(rows).dtype == jnp.float32
    np.testing.assert_allclose(norm(rows), [100.0], rtol=1e-6)


def test_norm_of_wide_and_narrow_leaves_in_64_bit_mode():
    with jax.enable_x64(True):
        result = norm({"a": jnp.full((1, 4), 3e-30, jnp.float64), "b": jnp.full((1, 4), 4e-30, jnp.float32)})
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result, [1e-29], rtol=1e-6)


@pytest.mark.parametrize("tree", [{}, {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 3))}, {"a": jnp.float32(1.0)}])
def test_norm_needs_one_leading_axis(tree):
    with pytest.raises(ValueError, match="tree must have arrays that share their first 1 axes"):
        norm(tree)


def test_no_gradient_flows_through_norms_and_none_is_nan():
    grads = jax.grad(lambda x: norm(x).sum() + by_domain(norm(x), jnp.zeros(2, int), 1).sum())(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(grads, 0.0)


# One gradient per example, and generalised linear models.


def mlp(tape, params, x):
    hidden = jnp.tanh(tape.dense(x, params["in"]["kernel"], params["in"]["bias"]))
    hidden = jax.nn.relu(tape.dense(hidden, params["mid"]))
    return tape.dense(hidden, params["out"])


def mlp_losses(tape, params, batch):
    x, y = batch
    return jnp.square(mlp(tape, params, x) - y).sum(axis=-1)


MLP = {"in": {"kernel": normal(0, 3, 8), "bias": normal(1, 8)}, "mid": normal(2, 8, 8), "out": normal(3, 8, 2)}
MLP_BATCH = normal(4, B, 3), normal(5, B, 2)


def alone(losses_fn):
    """The loss of one example, as :func:`per_example` takes it, of the same model on a tape that changes nothing."""
    return lambda params, example: losses_fn(Tape(), params, jax.tree.map(lambda x: x[None], example))[0]


def test_per_example_in_batches():
    loss = alone(mlp_losses)
    grad = jax.jit(jax.grad(loss))
    grads = [grad(MLP, jax.tree.map(lambda x, i=i: x[i], MLP_BATCH)) for i in range(B)]
    expected = [np.sqrt(sum(np.square(np.float64(x)).sum() for x in jax.tree.leaves(g))) for g in grads]
    for batch_size in (None, 1, 4, 100):
        norms = jax.jit(functools.partial(per_example, loss, batch_size=batch_size))(MLP, MLP_BATCH)
        np.testing.assert_allclose(norms, expected, rtol=1e-5)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("outputs", [None, 1, 3])
def test_linear_models(intercept, outputs):
    x, y = normal(0, B, 4), jax.random.randint(jax.random.key(1), (B,), 0, outputs or 2)
    shape = () if outputs is None else (outputs,)
    params = {"kernel": normal(2, 4, *shape)} | ({"bias": normal(3, *shape)} if intercept else {})

    def output(params, x):
        return x @ params["kernel"] + params.get("bias", 0.0)

    def loss(params, example):
        z = output(params, example[0])
        return jax.nn.softplus(z) - example[1] * z if outputs is None else -jax.nn.log_softmax(z)[example[1]]

    z = output(params, x)
    slopes = jax.nn.sigmoid(z) - y if outputs is None else jax.nn.softmax(z) - jax.nn.one_hot(y, outputs)
    expected = per_example(loss, params, (x, y))
    np.testing.assert_allclose(linear(slopes, x, intercept=intercept), expected, rtol=1e-5, atol=1e-7)


def test_linear_models_at_the_ends_of_float32():
    np.testing.assert_allclose(linear(jnp.float32([1e-25, 1e30, 0.0]), jnp.float32([[3.0, 4.0]] * 3)), [5e-25, 5e30, 0])
    np.testing.assert_allclose(linear(jnp.float32([1.0]), jnp.float32([[1e-25, 1e-25]])), [1.41421e-25], rtol=1e-5)
    assert not np.isfinite(linear(jnp.float32([np.nan, 1.0]), jnp.float32([[1.0], [np.inf]]))).any()


@pytest.mark.parametrize("slopes, x", [((3,), (4, 2)), ((3,), (3,)), ((3, 1, 1), (3, 2)), ((), (3, 2))])
def test_linear_shapes(slopes, x):
    with pytest.raises(ValueError, match=r"derivatives must be \[B\] or \[B, K\]"):
        linear(jnp.ones(slopes), jnp.ones(x))


# Ghost norms.


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


def token_losses(logits, ids):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), ids[:, 1:, None], axis=-1).sum(axis=(1, 2))


def sequence_losses(tape, params, ids):
    return token_losses(tape.dense(sequence(tape, params, ids), params["head"]), ids)


def tied_losses(tape, params, ids):
    return token_losses(tape.attend(sequence(tape, params, ids), params["table"]), ids)


def shared_losses(tape, params, batch):
    """One kernel and one bias three times, a scale twice."""
    x, y = batch
    for _ in range(3):
        x = tape.scale(jnp.tanh(tape.dense(x, params["kernel"], params["bias"])), params["gamma"])
    return jnp.square(tape.add(x, params["bias"]).sum(axis=tuple(range(1, x.ndim))) - y)


IDS = jax.random.randint(jax.random.key(0), (B, T), 0, V).at[0].set(2).at[1, :4].set(0)
BAG = {"table": normal(0, V, D), "kernel": normal(1, D, 3), "bias": normal(2, 3)}
WIDTH = {"wide": 24, "narrow": 2}  # 2 T² = 98 against 16 and 4 · width: Gram matrices and direct sums
SEQUENCE = {
    "table": (V, D),
    "positions": (T, D),
    **dict.fromkeys(["gamma", "beta", "gamma2"], (D,)),
    **dict.fromkeys("qkv", (D, D)),
}


def sequence_params(width, head=True):
    shapes = SEQUENCE | {"up": (D, width), "up_bias": (width,), "down": (width, D)}
    shapes |= {"head": (D, V)} if head else {}
    return {name: 0.5 * normal(seed, *shape) for seed, (name, shape) in enumerate(shapes.items())}


SHARED = {"kernel": normal(0, 3, 3), "bias": normal(1, 3), "gamma": normal(2, 3)}
MODELS = {
    "mlp": (mlp_losses, MLP, MLP_BATCH),
    "bag": (bag_losses, BAG, IDS),
    "sequence, Gram": (sequence_losses, sequence_params(WIDTH["wide"]), IDS),
    "sequence, direct": (sequence_losses, sequence_params(WIDTH["narrow"]), IDS),
    "tied": (tied_losses, sequence_params(WIDTH["wide"], head=False), IDS),
    "shared": (shared_losses, SHARED, (normal(3, B, 3), normal(4, B))),
    "shared, of higher rank": (shared_losses, SHARED, (normal(3, B, 2, 5, 3), normal(4, B))),
}
every_model = pytest.mark.parametrize("name", MODELS)


UNEVEN, ONES = jnp.linspace(0.0, 3.0, B), jnp.ones(B)


@functools.cache
def ghost(name):
    """``run(params, batch, weights, factor)``: losses times ``factor``, gradient, norms and norms by leaf."""
    losses_fn, leaf_norms = MODELS[name][0], grad_norms._norms

    @jax.jit
    def run(params, batch, weights=UNEVEN, factor=ONES):
        shares = []
        with mock.patch.object(grad_norms, "_norms", lambda terms: shares.append(leaf_norms(terms)) or shares[-1]):
            return *value_grads_and_norms(lambda *a: factor * losses_fn(*a), params, batch, weights=weights), shares

    return run


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
    _, params, batch = MODELS[name]
    losses, grads, norms, shares = ghost(name)(params, batch)
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
    np.testing.assert_allclose(grad_norms._matrix_squares(left, right), expected, rtol=1e-5)
    if places == 1:
        np.testing.assert_allclose(norm(left) ** 2 * norm(right) ** 2, expected, rtol=1e-5)


def test_the_way_is_chosen_by_memory():
    def largest(places):
        jaxpr = jax.make_jaxpr(grad_norms._matrix_squares)(jnp.ones((1, places, 8)), jnp.ones((1, places, 4)))
        return max(var.aval.size for eqn in jaxpr.eqns for var in eqn.outvars)

    assert largest(4) == 16  # T²; 2 T² <= 8 · 4
    assert largest(5) == 32  # 8 · 4


def test_dense_by_hand():
    """T = 2 with inputs (1, 0), (0, 1) and outputs of slope 3 and 4: the gradient is diag(3, 4), the bias's (3, 4)."""

    def losses_fn(tape, params, slopes):
        x = jnp.broadcast_to(jnp.eye(2), (1, 2, 2))
        return (slopes * tape.dense(x, params["kernel"], params["bias"])).sum(axis=(1, 2))

    slopes = jnp.array([[[3.0, 0.0], [0.0, 4.0]]])
    _, grads, norms = value_grads_and_norms(losses_fn, {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, slopes)
    assert grads["kernel"].tolist() == [[3.0, 0.0], [0.0, 4.0]] and grads["bias"].tolist() == [3.0, 4.0]
    np.testing.assert_allclose(norms, [np.sqrt(50.0)], rtol=1e-6)


def test_embedding_by_hand():
    """Token 1 twice with slopes 1 and 2, token 0 once with 4: the rows' gradients are 3 and 4."""

    def losses_fn(tape, table, batch):
        return (batch[1] * tape.embed(batch[0], table)[..., 0]).sum(axis=1)

    batch = jnp.array([[1, 0, 1], [1, 1, 1]]), jnp.array([[1.0, 4.0, 2.0], [1.0, 1.0, -2.0]])
    _, grads, norms = value_grads_and_norms(losses_fn, jnp.ones((3, 1)), batch)
    assert grads.tolist() == [[2.0], [1.5], [0.0]]
    assert norms.tolist() == [5.0, 0.0]


def test_embedding_clips_ids():
    ids, table = jnp.array([[-1, 0], [V, 7], [-V - 3, 1]]), normal(0, V, D)
    clipped = jnp.array([[V - 1, 0], [V - 1, V - 1], [0, 1]])
    np.testing.assert_array_equal(Tape().embed(ids, table), table[ids])

    def losses_fn(tape, table, ids):
        return jnp.square(tape.embed(ids, table)).sum(axis=(1, 2))

    chex.assert_trees_all_equal(*(value_grads_and_norms(losses_fn, table, x) for x in (ids, clipped)))


@pytest.mark.parametrize("scale", [1e-25, 1e30])
def test_ghost_norms_are_scaled(scale):
    def losses_fn(tape, params, batch):
        h = tape.embed(batch, params["table"]) + tape.dense(jnp.ones((2, 2, 3)), params["kernel"])
        return scale * tape.scale(h, params["gamma"], params["beta"]).sum(axis=(1, 2))

    params = {"table": jnp.ones((4, 2)), "kernel": jnp.zeros((3, 2)), "gamma": jnp.ones(2), "beta": jnp.zeros(2)}
    ids = jnp.array([[1, 1], [0, 3]])
    _, _, norms = jax.jit(lambda p, ids: value_grads_and_norms(losses_fn, p, ids))(params, ids)
    # table 2·2² or 4·1², kernel 6·2², gamma 2·2², beta 2·2²
    np.testing.assert_allclose(np.float64(norms) / scale, np.sqrt([48.0, 44.0]), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_tied_norms_are_scaled(scale):
    _, params, ids = MODELS["tied"]
    norms = ghost("tied")(params, ids, factor=scale * ONES)[2]
    np.testing.assert_allclose(np.float64(norms) / scale, direct("tied")[2], rtol=1e-4)


@every_model
def test_zero_gradients_have_norm_zero(name):
    _, params, batch = MODELS[name]
    factor = jnp.ones(B).at[2].set(0.0)
    losses, grads, norms, _ = ghost(name)(params, batch, factor=factor)
    assert norms[2] == 0.0 and losses[2] == 0.0 and (np.delete(np.asarray(norms), 2) > 0).all()
    chex.assert_tree_all_finite((grads, norms))


def test_an_example_that_is_not_finite_spoils_itself_alone():
    _, params, (x, y) = MODELS["mlp"]
    bad = x.at[1, 0].set(np.nan).at[3].set(np.inf)
    weights = jnp.ones(B).at[jnp.array([1, 3])].set(0.0)
    _, grads, norms, _ = ghost("mlp")(params, (bad, y), weights)
    _, expected, clean, _ = ghost("mlp")(params, (x, y), weights)
    assert not np.isfinite(np.asarray(norms)[[1, 3]]).any()
    np.testing.assert_allclose(np.delete(norms, [1, 3]), np.delete(clean, [1, 3]), rtol=1e-6)
    chex.assert_trees_all_close(grads, expected, rtol=1e-6)  # weight 0 leaves the example out


def test_weights_of_zero_everywhere_and_weights_that_are_not_given():
    losses_fn, params, batch = MODELS["mlp"]
    _, grads, norms, _ = ghost("mlp")(params, batch, np.zeros(B, np.float32))
    np.testing.assert_allclose(norms, direct("mlp")[2], rtol=1e-4)
    chex.assert_trees_all_equal(grads, jax.tree.map(jnp.zeros_like, params))
    _, grads, _ = jax.jit(functools.partial(value_grads_and_norms, losses_fn))(params, batch)
    mean = jax.jit(jax.grad(lambda params: losses_fn(Tape(), params, batch).mean()))(params)
    chex.assert_trees_all_close(grads, mean, rtol=1e-5, atol=1e-6)


def test_one_backward_pass():
    """As many products of matrices as value_and_grad, beside those of one example alone."""
    losses_fn, params, batch = MODELS["mlp"]

    def products(function):
        jaxpr = jax.make_jaxpr(function)(params, batch)
        dots = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"]
        return sum(not eqn.params["dimension_numbers"][1][0] for eqn in dots)

    ordinary = products(lambda params, batch: jax.grad(lambda p: losses_fn(Tape(), p, batch).mean())(params))
    assert products(lambda params, batch: value_grads_and_norms(losses_fn, params, batch)) == ordinary == 8


@pytest.mark.parametrize("name", ["mlp", "bag"])
def test_vmap_over_parameters(name):
    _, params, batch = MODELS[name]
    runs = [jax.tree.map(lambda x, s=s: s * x, params) for s in (0.5, 1.0, 1.5)]
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *runs)
    batched = jax.jit(jax.vmap(ghost(name), in_axes=(0, None)))(stacked, batch)
    loop = jax.tree.map(lambda *rows: jnp.stack(rows), *(ghost(name)(run, batch) for run in runs))
    chex.assert_trees_all_close(batched, loop, rtol=1e-4, atol=1e-5)


def test_bfloat16_parameters():
    losses_fn, params, batch = MODELS["mlp"]
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (params, batch))
    _, grads, norms = jax.jit(functools.partial(value_grads_and_norms, losses_fn))(*low)
    assert norms.dtype == jnp.float32 and {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(norms, direct("mlp")[2], rtol=0.1)


def test_float64_parameters_have_float64_gradients():
    with jax.enable_x64(True):
        losses_fn, params, batch = MODELS["mlp"]
        params, batch = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, batch))
        _, grads, norms = jax.jit(functools.partial(value_grads_and_norms, losses_fn))(params, batch)
        expected = jax.jit(jax.grad(lambda p: losses_fn(Tape(), p, batch).mean()))(params)
        chex.assert_trees_all_close(grads, expected, rtol=1e-12)
        assert norms.dtype == jnp.float32


def test_a_constant_leaf_has_no_gradient_and_no_share():
    params = {"frozen": normal(0, 3, 3), "head": normal(1, 3, 1), "tied": normal(2, 1)}

    def losses_fn(tape, params, x):
        hidden = jnp.tanh(x @ tape.constant(params["frozen"])) * tape.constant(params["tied"])
        return tape.dense(hidden, params["head"], params["tied"])[:, 0]

    x = normal(3, B, 3)
    _, grads, norms = value_grads_and_norms(losses_fn, params, x)
    assert not grads["frozen"].any() and grads["tied"].tolist() == [1.0]
    hidden = jnp.tanh(x @ params["frozen"]) * params["tied"]
    np.testing.assert_allclose(norms, linear(jnp.ones(B), hidden, intercept=True), rtol=1e-5)


# What would make the norms wrong, and is refused.

KERNEL = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
OUTSIDE = {
    "x @ p": lambda p, x: x @ p,
    "p @ x": lambda p, x: p @ x.T,
    "numpy @ p": lambda p, x: np.ones((2, 3)) @ p,
    "p ** 2": lambda p, x: p**2,
    "2 * p": lambda p, x: 2 * p,
    "-p": lambda p, x: -p,
    "p[0]": lambda p, x: p[0],
    "p.T": lambda p, x: p.T,
    "p.astype": lambda p, x: p.astype(jnp.bfloat16),
    "square": lambda p, x: jnp.square(p),
    "einsum": lambda p, x: jnp.einsum("bi,io->bo", x, p),
    "asarray": lambda p, x: jnp.asarray(p),
    "np.asarray": lambda p, x: np.asarray(p),
    "stop_gradient": lambda p, x: jax.lax.stop_gradient(p),
    "jit": lambda p, x: jax.jit(jnp.sin)(p),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_use_outside_the_tape_names_the_leaf(name):
    def losses_fn(tape, params, x):
        penalty = jnp.sum(OUTSIDE[name](params["kernel"], x))
        return tape.dense(x, params["kernel"], params["bias"]).sum(axis=1) + penalty

    with pytest.raises(ValueError, match=r"params\['kernel'\] is used outside the tape"):
        value_grads_and_norms(losses_fn, KERNEL, jnp.ones((B, 3)))


def test_a_leaf_that_is_not_used_is_named():
    with pytest.raises(ValueError, match=r"params\['bias'\] is not used on the tape"):
        value_grads_and_norms(lambda t, p, x: t.dense(x, p["kernel"]).sum(axis=1), KERNEL, jnp.ones((B, 3)))
    with pytest.raises(ValueError, match=r"params\['kernel'\] is not used"):  # the array itself, from outside
        value_grads_and_norms(lambda t, p, x: t.dense(x, KERNEL["kernel"], p["bias"])[:, 0], KERNEL, jnp.ones((B, 3)))


def test_a_leaf_used_elementwise_and_as_a_matrix_is_named():
    params = jnp.ones((3, 3))
    with pytest.raises(ValueError, match="params is used both elementwise and as a matrix"):
        value_grads_and_norms(lambda t, p, x: t.dense(t.add(x, p), p).sum(axis=(1, 2)), params, jnp.ones((B, 3, 3)))


@pytest.mark.parametrize(
    "function",
    [
        lambda t, p, x: t.dense(x, p["kernel"], p["bias"]).sum(),
        lambda t, p, x: t.dense(x, p["kernel"], p["bias"]),
        lambda t, p, x: (t.dense(x, p["kernel"], p["bias"]) > 0)[:, 0],
        lambda t, p, x: (t.dense(x, p["kernel"], p["bias"])[:, 0], 1),
    ],
)
def test_losses_must_be_one_per_example(function):
    with pytest.raises(ValueError, match=r"losses_fn must return one loss per example, float \[B\]"):
        value_grads_and_norms(function, KERNEL, jnp.ones((B, 3)))


def test_the_first_axis_of_what_is_tapped_is_the_batch():
    def losses_fn(tape, params, x):
        positions = tape.embed(jnp.arange(T), params)
        return (x + positions).sum(axis=(1, 2))

    with pytest.raises(ValueError, match=rf"params acts on float32\[{T}, {D}\].*{B} examples"):
        value_grads_and_norms(losses_fn, jnp.ones((T, D)), jnp.ones((B, T, D)))


@pytest.mark.parametrize("weights", [np.ones(3), np.ones((B, 1)), 1.0])
def test_weights_must_be_one_per_example(weights):
    with pytest.raises(ValueError, match=r"weights must have one entry per example, shape \(6,\)"):
        value_grads_and_norms(mlp_losses, MLP, MLP_BATCH, weights=weights)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda t: t.dense(jnp.ones(3), jnp.ones((3, 2))), r"dense takes x \[B, ..., in\] and kernel"),
        (lambda t: t.dense(jnp.ones((2, 4)), jnp.ones((3, 2))), r"got \(2, 4\) and \(3, 2\)"),
        (lambda t: t.dense(jnp.ones((2, 3)), jnp.ones((3, 2, 2))), "dense takes x"),
        (lambda t: t.dense(jnp.ones((2, 3)), jnp.ones((3, 2)), jnp.ones(3)), r"a bias of shape \(2,\), got \(3,\)"),
        (lambda t: t.embed(jnp.ones(3), jnp.ones((3, 2))), "embed takes integer ids"),
        (lambda t: t.embed(jnp.ones(3, int), jnp.ones(3)), "embed takes integer ids"),
        (lambda t: t.attend(jnp.ones((2, 3)), jnp.ones((3, 2))), "attend takes x"),
        (lambda t: t.scale(jnp.ones((2, 3)), jnp.ones(1)), "scale takes x"),
        (lambda t: t.scale(jnp.ones((2, 3)), jnp.ones((2, 3))), "scale takes x"),
        (lambda t: t.scale(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(2)), "scale takes x"),
        (lambda t: t.add(jnp.ones((2, 3)), jnp.ones(2)), "add takes x"),
    ],
)
def test_shapes_on_the_tape(call, message):
    with pytest.raises(ValueError, match=message):
        call(Tape())


def test_a_parameter_shows_its_type():
    seen = []

    def losses_fn(tape, params, x):
        seen.append((repr(params), params.shape, params.ndim, params.dtype))
        with pytest.raises(AttributeError):
            params.no_such_thing  # noqa: B018
        return tape.dense(x, params)[:, 0]

    value_grads_and_norms(losses_fn, jnp.ones((3, 1)), jnp.ones((B, 3)))
    assert seen[0] == ("Parameter(params, float32[3, 1])", (3, 1), 2, jnp.dtype("float32"))


# The signal.


def test_by_domain_is_the_root_mean_square():
    rng = np.random.default_rng(0)
    norms, ids = rng.uniform(0, 3, 50), rng.integers(-1, 5, 50)  # -1 and 4 are padding
    ids[ids == 2] = 0  # domain 2 is absent
    expected = [np.sqrt(np.mean(norms[ids == d] ** 2)) if (ids == d).any() else np.nan for d in range(4)]
    np.testing.assert_allclose(by_domain(norms, ids, 4), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(by_domain, static_argnums=2)(norms, ids, 4), expected, rtol=1e-6)


def test_by_domain_at_the_ends_of_float32_and_beyond():
    norms = jnp.float32([1e-25, 7e-25, 1e30, 7e30, 0.0, 0.0, np.nan, 1.0, np.inf, 1.0])
    result = by_domain(norms, jnp.repeat(jnp.arange(5), 2), 6)
    np.testing.assert_allclose(result[:3], [5e-25, 5e30, 0.0], rtol=1e-6)
    assert not np.isfinite(result[3:]).any()


@pytest.mark.parametrize("norms, ids", [((3,), (4,)), ((3, 1), (3, 1)), ((), ())])
def test_by_domain_shapes(norms, ids):
    with pytest.raises(ValueError, match=r"norms and domain_ids must both be \[B\]"):
        by_domain(jnp.ones(norms), jnp.zeros(ids, int), 2)


def test_from_norms_to_sampling_weights():
    """A network's norms feed the rule; a domain spoilt by one example counts as unseen and keeps its prior share."""
    _, params, (x, y) = MODELS["mlp"]
    ids = jnp.array([0, 0, 1, 1, 2, 2])
    norms = ghost("mlp")(params, (x.at[5].set(np.nan), y))[2]
    rule = mixjax.rules.gradient_norm()
    signal = by_domain(norms, ids, 3)
    state = rule.update(rule.init([0.25, 0.5, 0.25]), counts=jnp.full(3, 2), grad_norms=signal)
    clean = np.float64(direct("mlp")[2])
    scores = np.array([0.25, 0.5]) * np.sqrt([np.mean(clean[:2] ** 2), np.mean(clean[2:4] ** 2)])
    np.testing.assert_allclose(state.weights, [*(0.75 * scores / scores.sum()), 0.25], rtol=1e-4)
