"""Norms of flax modules that are left as they are, against vmap(grad): every layer, whole models, and all ways out."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

import mixjax
from mixjax import grad_norms
from tests.grad_norms.nnx_models import (
    IDS,
    B,
    Block,
    Decoder,
    Images,
    assert_close,
    direct,
    measured,
    next_token_losses,
    normal,
    squares,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

UNEVEN = np.linspace(0.0, 2.0, B, dtype=np.float32)
X, SEQUENCE, IMAGE = normal(0, B, 3), normal(1, B, 5, 3), normal(2, B, 5, 4, 4)


class PReLUNet(nnx.Module):
    def __init__(self, rngs):
        self.layer, self.act = nnx.Linear(3, 3, rngs=rngs), nnx.PReLU()

    def __call__(self, x):
        return self.act(self.layer(x))


class Own(nnx.Module):
    """A user's own layer, which reads its parameters."""

    def __init__(self, rngs):
        self.w = nnx.Param(jnp.asarray(normal(3, 3, 2)))

    def __call__(self, x):
        return x @ self.w[...]


class Narrow(nnx.Linear):
    """A subclass with methods of its own, which must not be taken for its base."""

    def __call__(self, inputs, out_sharding=None):
        return super().__call__(inputs) * self.kernel[...].sum()


class Renamed(nnx.Linear):
    """A subclass that computes what its base does."""


# module, input, and whether all parameters are measured by factors
LAYERS = {
    "Linear": (lambda r: nnx.Linear(3, 2, rngs=r), X, True),
    "Linear, places": (lambda r: nnx.Linear(3, 2, rngs=r), SEQUENCE, True),
    "Linear, no bias": (lambda r: nnx.Linear(3, 2, use_bias=False, rngs=r), X, True),
    "a subclass": (lambda r: Renamed(3, 2, rngs=r), X, True),
    "a subclass with a call": (lambda r: Narrow(3, 2, rngs=r), X, False),
    "Linear, own product": (
        lambda r: nnx.Linear(3, 2, dot_general=lambda *a, **k: jnp.sin(jax.lax.dot_general(*a, **k)), rngs=r),
        X,
        False,
    ),
    "LinearGeneral": (lambda r: nnx.LinearGeneral(3, (2, 2), rngs=r), SEQUENCE, True),
    "LinearGeneral, axes": (lambda r: nnx.LinearGeneral((5, 3), (2, 2), axis=(1, -1), rngs=r), SEQUENCE, True),
    "LinearGeneral, swapped": (
        lambda r: nnx.LinearGeneral((4, 5), 2, axis=(-1, 1), rngs=r),
        normal(0, B, 4, 3, 5),
        True,
    ),
    "LinearGeneral, batch axis": (
        lambda r: nnx.LinearGeneral(3, 2, batch_axis={0: 1}, use_bias=False, rngs=r),
        SEQUENCE,
        False,
    ),
    "Conv": (lambda r: nnx.Conv(4, 2, (3, 2), rngs=r), IMAGE, True),
    "Conv, strides": (lambda r: nnx.Conv(4, 2, (3, 2), strides=(2, 1), padding="VALID", rngs=r), IMAGE, True),
    "Conv, groups": (lambda r: nnx.Conv(4, 4, (3, 3), feature_group_count=2, use_bias=False, rngs=r), IMAGE, True),
    "Conv, pads": (lambda r: nnx.Conv(4, 2, (3, 3), padding=((1, 0), 2), kernel_dilation=2, rngs=r), IMAGE, True),
    "Conv, circular": (lambda r: nnx.Conv(4, 2, (3, 2), padding="CIRCULAR", rngs=r), IMAGE, True),
    "Conv, reflect": (lambda r: nnx.Conv(4, 2, (2, 3), padding="REFLECT", rngs=r), IMAGE, True),
    "Conv, causal": (lambda r: nnx.Conv(3, 2, 3, padding="CAUSAL", kernel_dilation=2, rngs=r), SEQUENCE, True),
    "Conv, frames": (lambda r: nnx.Conv(3, 2, 3, rngs=r), normal(0, B, 2, 5, 3), True),
    "Conv, mask": (lambda r: nnx.Conv(3, 2, 3, mask=jnp.ones((3, 3, 2)).at[2].set(0), rngs=r), SEQUENCE, False),
    "ConvTranspose": (lambda r: nnx.ConvTranspose(3, 2, 3, strides=2, rngs=r), SEQUENCE, False),
    "Embed": (lambda r: nnx.Embed(7, 3, rngs=r), IDS, True),
    "Embed, narrow ids": (lambda r: nnx.Embed(7, 3, rngs=r), IDS.astype(np.uint8), True),
    "Embed, negative ids": (lambda r: nnx.Embed(7, 3, rngs=r), IDS - 7, True),
    "Embed, one row": (lambda r: nnx.Embed(1, 3, rngs=r), IDS, False),
    "Einsum": (lambda r: nnx.Einsum("btd,dh->bth", (3, 2), (2,), rngs=r), SEQUENCE, False),
    "LayerNorm": (lambda r: nnx.LayerNorm(3, rngs=r), SEQUENCE, False),
    "RMSNorm": (lambda r: nnx.RMSNorm(3, rngs=r), SEQUENCE, False),
    "GroupNorm": (lambda r: nnx.GroupNorm(4, num_groups=2, rngs=r), IMAGE, False),
    "InstanceNorm": (lambda r: nnx.InstanceNorm(4, rngs=r), IMAGE, False),
    "BatchNorm": (lambda r: nnx.BatchNorm(4, use_running_average=True, rngs=r), IMAGE, False),
    "WeightNorm": (lambda r: nnx.WeightNorm(nnx.Linear(3, 2, rngs=r), rngs=r), X, False),
    "PReLU": (PReLUNet, X, False),
    "LoRA": (lambda r: nnx.LoRA(3, 2, 4, base_module=nnx.Linear(3, 4, rngs=r), rngs=r), X, False),
    "LoRALinear": (lambda r: nnx.LoRALinear(3, 4, lora_rank=2, rngs=r), X, False),
    "own": (Own, X, False),
    "RNN": (lambda r: nnx.RNN(nnx.GRUCell(3, 2, rngs=r)), SEQUENCE, False),
    "Sequential": (lambda r: nnx.Sequential(nnx.Linear(3, 4, rngs=r), nnx.tanh, nnx.Linear(4, 2, rngs=r)), X, True),
}


def varied(model):
    """Parameters that are not ones and zeros, so that no part of a gradient vanishes by chance."""
    params = nnx.state(model, nnx.Param)
    leaves, structure = jax.tree.flatten(params)
    moved = [jnp.asarray(leaf + 0.3 * normal(i, *leaf.shape), leaf.dtype) for i, leaf in enumerate(leaves)]
    nnx.update(model, structure.unflatten(moved))
    return model


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name):
    make, x, by_factors = LAYERS[name]
    model = varied(make(nnx.Rngs(0)))
    before = jax.tree.leaves(nnx.state(model, nnx.Not(nnx.RngState)))
    routes = grad_norms.nnx.explain(squares, model, x)
    assert all((route.numbers == 0) == (route.reason == "") for route in routes.values())
    assert (not any(route.numbers for route in routes.values())) == by_factors
    losses, grads, norms = measured(squares, model, x, weights=UNEVEN)
    expected = direct(squares, model, x, UNEVEN)
    assert_close((losses, grads, norms), expected)
    assert jax.tree.structure(grads) == jax.tree.structure(expected[1]) and norms.min() > 0
    after = jax.tree.leaves(nnx.state(model, nnx.Not(nnx.RngState)))
    chex.assert_trees_all_equal(after, before)  # the module is as it was


@pytest.mark.parametrize("microbatch", [None, 3])
def test_a_transformer_with_tied_weights(microbatch):
    model = varied(Decoder(nnx.Rngs(0)))
    model.eval()
    routes = grad_norms.nnx.explain(next_token_losses, model, IDS)
    own = {name.split(".")[-1] for name, route in routes.items() if route.numbers}
    assert own == {"start", "scale", "bias"} and len(routes) == 18
    assert not any(routes[f"model.{table}.embedding"].numbers for table in ("tokens", "positions"))
    found = measured(next_token_losses, model, IDS, weights=UNEVEN, microbatch=microbatch)
    assert_close(found, direct(next_token_losses, model, IDS, UNEVEN))


def test_a_convolutional_network():
    model, x = varied(Images(nnx.Rngs(0))), normal(0, B, 6, 5, 2)
    model.eval()
    found = measured(squares, model, x)
    assert_close(found, direct(squares, model, x))


@pytest.mark.parametrize("dtype, rtol", [(jnp.bfloat16, 0.05), (jnp.float16, 0.01)])
def test_half_precision(dtype, rtol):
    """Parameters, and activations of float32 parameters; grads have the parameters' dtype, norms are float32."""
    for param_dtype in (dtype, jnp.float32):
        r = nnx.Rngs(0)
        layers = (
            nnx.Conv(4, 3, (2, 2), dtype=dtype, param_dtype=param_dtype, rngs=r),
            nnx.LayerNorm(3, dtype=dtype, rngs=r),
        )
        model = nnx.Sequential(*layers, nnx.Linear(3, 2, dtype=dtype, param_dtype=param_dtype, rngs=r))
        _, grads, norms = measured(squares, model, IMAGE)
        assert_close(norms, direct(squares, model, IMAGE)[2], rtol=rtol)
        assert norms.dtype == jnp.float32 and grads["layers"][0]["kernel"].dtype == param_dtype


def test_float64():
    with jax.enable_x64(True):
        model = nnx.Linear(3, 2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        losses, grads, norms = measured(lambda m, x: jnp.square(m(x)).sum(axis=1), model, np.float64(X))
        expected = direct(lambda m, x: jnp.square(m(x)).sum(axis=1), model, np.float64(X))
        assert_close((losses, norms), (expected[0], expected[2]))
        chex.assert_trees_all_close(jax.tree.leaves(grads), jax.tree.leaves(expected[1]), rtol=1e-12)


class Within(nnx.Module):
    """A layer that is called in plain Python, and again as ``call`` says."""

    def __init__(self, call, rngs):
        self.layer, self.head, self.call = nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs), call

    def __call__(self, x):
        return self.head(self.call(self, jnp.tanh(self.layer(x))))


def changed(layer):
    layer.kernel[...] = jnp.ones((3, 3))
    layer.bias[...] = jnp.zeros(3)
    return layer


WITHIN = {
    "jit": lambda m, x: jax.jit(lambda x: m.layer(x))(x),
    "nnx.jit": lambda m, x: nnx.jit(lambda layer, x: layer(x))(m.layer, x),
    "checkpoint": lambda m, x: jax.checkpoint(lambda x: m.layer(x))(x),
    "nnx.remat": lambda m, x: nnx.remat(lambda layer, x: layer(x))(m.layer, x),
    "vmap": lambda m, x: jax.vmap(m.layer)(x),
    "scan": lambda m, x: jax.lax.scan(lambda x, _: (jnp.tanh(m.layer(x)), None), x, None, length=2)[0],
    "cond": lambda m, x: jax.lax.cond(x.sum() > 0, m.layer, lambda x: x, x),
    "grad": lambda m, x: jax.grad(lambda x: jnp.square(m.layer(x)).sum())(x),
    "read": lambda m, x: x @ m.layer.kernel[...].T,
    "state": lambda m, x: x * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(nnx.state(m.layer))),
    "clone": lambda m, x: nnx.clone(m.layer)(x),
    "change": lambda m, x: x + changed(m.layer)(x),
}


@pytest.mark.parametrize("name", WITHIN)
def test_a_layer_that_is_used_where_it_cannot_be_noted_is_named_and_exact(name):
    model = Within(WITHIN[name], nnx.Rngs(0))
    routes = grad_norms.nnx.explain(squares, model, X)
    assert routes["model.layer.kernel"].numbers == 9 and routes["model.layer.bias"].numbers == 3
    assert routes["model.layer.kernel"].reason in (
        "it is read outside its layer",
        "its layer is called within jit, vmap, scan, cond, remat or grad",
        "it is changed outside its layer",
    )
    assert routes["model.head.kernel"].numbers == 0
    assert_close(measured(squares, model, X), direct(squares, model, X))


def test_layers_that_flax_scans_over():
    class Scanned(nnx.Module):
        def __init__(self, rngs):
            keys = jax.random.split(jax.random.key(0), 2)
            self.blocks = nnx.vmap(lambda key: nnx.Linear(3, 3, rngs=nnx.Rngs(key)))(keys)

        def __call__(self, x):
            return nnx.scan(lambda x, layer: jnp.tanh(layer(x)), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(
                x, self.blocks
            )

    model = Scanned(nnx.Rngs(0))
    assert grad_norms.nnx.explain(squares, model, X)["model.blocks.kernel"].numbers == 18
    assert_close(measured(squares, model, X), direct(squares, model, X))


def test_shared_parameters():
    """One layer twice, one kernel in two layers of a kind, and one in layers whose uses have no common form."""

    class Shared(nnx.Module):
        def __init__(self, rngs):
            self.a, self.b = nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)
            self.b.kernel = self.a.kernel
            self.conv, self.other = nnx.Conv(4, 4, 2, feature_group_count=2, rngs=rngs), nnx.Conv(2, 4, 2, rngs=rngs)
            self.other.kernel = self.conv.kernel

        def __call__(self, x):
            x = self.a(jnp.tanh(self.b(jnp.tanh(self.a(x)))))
            x = jnp.concatenate([x, x[..., :1]], axis=-1)
            return self.conv(x) + self.other(x[..., :2])

    model = Shared(nnx.Rngs(0))
    routes = grad_norms.nnx.explain(squares, model, SEQUENCE)
    assert routes["model.a.kernel"].numbers == 0 and routes["model.conv.kernel"].reason == "its uses cannot be joined"
    assert_close(measured(squares, model, SEQUENCE), direct(squares, model, SEQUENCE))


def test_frozen_parameters():
    model = nnx.LoRALinear(3, 4, lora_rank=2, rngs=nnx.Rngs(0))
    model.lora.lora_b[...] = jnp.asarray(normal(0, 2, 4))
    assert sorted(grad_norms.nnx.explain(squares, model, X, wrt=nnx.LoRAParam)) == [
        "model.lora.lora_a",
        "model.lora.lora_b",
    ]
    found = measured(squares, model, X, wrt=nnx.LoRAParam)
    assert_close(found, direct(squares, model, X, wrt=nnx.LoRAParam))


def test_dropout_differs_between_examples_and_calls_and_the_counters_advance():
    model = nnx.Sequential(nnx.Dropout(0.5, rngs=nnx.Rngs(1)), nnx.Linear(20, 1, rngs=nnx.Rngs(0)))
    # Examples are equal, so that only their masks tell them apart.
    x = np.broadcast_to(normal(0, 20), (B, 20))

    def loss(model, x):
        return model(x)[:, 0]

    first, second = measured(loss, model, x)[2], measured(loss, model, x)[2]
    assert int(model.layers[0].rngs.count[...]) == 2
    assert len({float(norm) for norm in (*first, *second)}) == 2 * B


def test_microbatches_have_the_same_random_numbers():
    def run(microbatch):
        model = nnx.Sequential(nnx.Dropout(0.5, rngs=nnx.Rngs(1)), nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
        return measured(squares, model, X, microbatch=microbatch)

    for microbatch in (1, 3, B, 99):
        assert_close(run(microbatch), run(None), rtol=1e-5)


class Counting(nnx.Module):
    def __init__(self, rngs):
        self.layer, self.mean = nnx.Linear(3, 3, rngs=rngs), nnx.BatchStat(jnp.zeros(3))

    def __call__(self, x):
        self.mean[...] = 0.9 * self.mean[...] + x.mean(axis=0)
        return self.layer(x)


def test_what_mixes_examples_is_named():
    model, x = Images(nnx.Rngs(0)), normal(0, B, 6, 5, 2)
    with pytest.raises(ValueError, match=r"model.batch_norm \(BatchNorm\) takes its mean and variance from the batch"):
        grad_norms.nnx.explain(squares, model, x)
    with pytest.raises(ValueError, match=r"model.mean \(BatchStat\) changes while the loss is computed"):
        grad_norms.nnx.value_grads_and_norms(squares, Counting(nnx.Rngs(0)), X)
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="losses of examples depend on the other examples"):
        grad_norms.nnx.check(lambda m, x: squares(lambda x: m(x - x.mean(axis=0)) + 1, x), model, X)


def test_a_sound_model_passes_the_check(monkeypatch):
    model = Block(4, nnx.Rngs(0))
    x = normal(0, 3, 5, 4)
    grad_norms.nnx.check(squares, model, x)
    from mixjax.grad_norms.nnx import layers

    # A rule that is wrong is found.
    wrong = layers.LAYERS[nnx.Linear]._replace(methods={"__call__": lambda m, x: [("bias", "rows", None)]})
    monkeypatch.setitem(layers.LAYERS, nnx.Linear, wrong)
    layers.hooked.cache_clear()
    with pytest.raises(ValueError, match=r"norms are not those of vmap\(grad\)"):
        grad_norms.nnx.check(squares, model, x)
    layers.hooked.cache_clear()


def test_arguments():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    for loss, message in [
        (lambda m, x: m(x).sum(), r"one loss per example, float \[B\].*and gave float32\[\]"),
        (lambda m, x: m(x), r"gave float32\[1, 2\]"),
        (lambda m, x: (m(x).sum(1), 0), r"one loss per example"),
    ]:
        with pytest.raises(ValueError, match=message):
            grad_norms.nnx.value_grads_and_norms(loss, model, X)
    with pytest.raises(ValueError, match="batch must have arrays with a leading axis of the same examples"):
        grad_norms.nnx.value_grads_and_norms(squares, model, (X, X[:2]))
    with pytest.raises(ValueError, match="weights must have one entry per example"):
        grad_norms.nnx.value_grads_and_norms(squares, model, X, weights=np.ones(3))
    with pytest.raises(ValueError, match=r"wrt must select variables of the model, got .*LoRAParam"):
        grad_norms.nnx.value_grads_and_norms(squares, model, X, wrt=nnx.LoRAParam)
    with pytest.raises(ValueError, match="microbatch must be an integer of at least 1"):
        grad_norms.nnx.value_grads_and_norms(squares, model, X, microbatch=0)


def test_large_gradients_are_announced():
    class Large(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.zeros((1024, 1025)))

        def __call__(self, x):
            return x @ self.w[...]

    x = jnp.ones((2, 1024))
    with pytest.warns(UserWarning, match=r"model.w, 1,049,600 numbers: Large is not a layer.*Pass microbatch="):
        jax.eval_shape(lambda x: grad_norms.nnx.value_grads_and_norms(squares, Large(), x)[2], x)


def test_in_a_training_step_with_an_optimizer():
    model = Decoder(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.05), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, ids):
        losses, grads, norms = grad_norms.nnx.value_grads_and_norms(next_token_losses, model, ids)
        optimizer.update(model, grads)
        return losses.mean(), norms

    losses = [float(step(model, optimizer, IDS)[0]) for _ in range(8)]
    assert losses[-1] < losses[0]


def test_the_gradient_of_a_weighted_loss():
    """Domain 2 is padding; its example counts for nothing, and has its norm."""
    model, ids, c = nnx.Linear(3, 2, rngs=nnx.Rngs(0)), jnp.array([0, 1, 0, 2], jnp.uint8), jnp.array([0.7, 0.3])
    rule = mixjax.rules.fixed(c)
    state = rule.init(c)

    def objective(model):
        return mixjax.weighted_loss(rule, state, squares(model, X), ids, update=False)[0]

    weights = B * mixjax.objectives.example_weights(c, ids, jnp.array([2, 1]))
    _, grads, norms = measured(squares, model, X, weights=weights)
    assert_close(grads, nnx.grad(objective)(model), rtol=1e-5)
    assert_close(norms, direct(squares, model, X)[2], rtol=1e-5)


@pytest.mark.parametrize("check_vma", [True, False])
def test_under_shard_map(check_vma):
    model = varied(Decoder(nnx.Rngs(0)))
    model.eval()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def own(params, ids):
        model = nnx.merge(graphdef, params, jax.tree.map(lambda x: x, rest))
        losses, grads, norms = grad_norms.nnx.value_grads_and_norms(next_token_losses, model, ids, microbatch=1)
        return losses, jax.tree.map(lambda g: jax.lax.pmean(g, "d"), grads), norms

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("d",))
    mapped = jax.shard_map(own, mesh=mesh, in_specs=(P(), P("d")), out_specs=(P("d"), P(), P("d")), check_vma=check_vma)
    assert_close(jax.jit(mapped)(params, jnp.asarray(IDS)), direct(next_token_losses, model, IDS))


def test_on_a_mesh_with_explicit_axes():
    model = varied(Images(nnx.Rngs(0)))
    model.eval()
    x = normal(0, B, 6, 5, 2)
    expected = direct(squares, model, x)
    with jax.set_mesh(jax.make_mesh((2,), ("d",))):
        nnx.update(model, jax.device_put(nnx.state(model), P()))
        found = measured(squares, model, jax.device_put(x, P("d")))
        assert jax.typeof(found[0]).sharding.spec == jax.typeof(found[2]).sharding.spec == P("d")
        assert_close(jax.device_get(found), expected)


STRICT = {
    "rank": lambda: jax.numpy_rank_promotion("raise"),
    "dtype": lambda: jax.numpy_dtype_promotion("strict"),
    "nans": lambda: jax.debug_nans(True),
}


@pytest.mark.parametrize("mode", STRICT)
def test_in_a_strict_mode(mode):
    model = nnx.Sequential(nnx.Conv(4, 2, (3, 2), rngs=nnx.Rngs(0)), nnx.Linear(2, 2, rngs=nnx.Rngs(1)))
    expected = measured(squares, model, IMAGE, weights=UNEVEN)
    with STRICT[mode]():
        assert_close(measured(squares, model, IMAGE, weights=UNEVEN, microbatch=3), expected, rtol=1e-5)


def test_a_batch_of_models():
    """Under vmap over parameters, as in a sweep, and in a scan over steps."""
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.LayerNorm(4, rngs=nnx.Rngs(0)))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def run(params):
        return grad_norms.nnx.value_grads_and_norms(squares, nnx.merge(graphdef, params, rest), X)

    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    norms = jax.jit(jax.vmap(run))(stacked)[2]
    loop = [jax.jit(run)(jax.tree.map(lambda leaf, i=i: leaf[i], stacked))[2] for i in range(2)]
    np.testing.assert_allclose(norms, loop, rtol=1e-5)
    same = jax.jit(lambda params: jax.lax.scan(lambda p, _: (p, run(p)[2]), params, None, length=2)[1])(params)
    np.testing.assert_allclose(same, [loop[0], loop[0]], rtol=1e-5)


def test_a_batch_without_examples():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    losses, grads, norms = grad_norms.nnx.value_grads_and_norms(squares, model, X[:0], microbatch=2)
    assert losses.shape == norms.shape == (0,) and not any(leaf.any() for leaf in jax.tree.leaves(grads))
