"""Times every example's gradient norm beside a plain backward pass, and a step of RR beside a step of SGD."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks import overhead, rejection, timing
from mixjax import grad_norms, samplers

__all__ = ["losses_of", "mlp", "models", "passes", "run", "steps", "transformer"]

# what was asked for, times the plain pass and the plain step
NORMS, STEP = 1.5, 1.05
# steps between refreshed norms, where a step refreshes them now and then
EVERY = 8
RATE = 0.01


class Model(NamedTuple):
    """Holds a model, its data and how often its steps are timed.

    Attributes:
        name: for the tables.
        outputs: ``outputs(tape, params, x) -> (features of the last layer, logits)``, ``[B, ..., in]`` and
            ``[B, ..., out]``. A loss is the mean cross entropy over the places between.
        params: the first parameters.
        x: inputs, one row an example.
        y: labels.
        batch_size: ``B``.
        turns: how many turns time the steps.
    """

    name: str
    outputs: Callable[..., tuple[jax.Array, jax.Array]]
    params: Any
    x: jax.Array
    y: jax.Array
    batch_size: int
    turns: int


def losses_of(model: Model, tape, params, batch) -> jax.Array:
    """Returns the batch's losses ``[B]``."""
    x, y = batch
    return cross_entropies(model.outputs(tape, params, x)[1], y)


def cross_entropies(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the cross entropies ``[B]``, means over the places."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return losses.reshape(len(losses), -1).mean(1)


def last_layer_norms(features: jax.Array, logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the norms of the last layer's gradient alone, which stand in where all norms cost too much."""
    errors = jax.nn.softmax(logits) - jax.nn.one_hot(y, logits.shape[-1])
    return grad_norms.last_layer(errors * (len(y) / y.size), features)


def mlp(widths: tuple[int, ...], batch_size: int, n: int) -> Model:
    """Makes a classifier with ReLU layers and random data."""
    keys = jax.random.split(jax.random.key(0), len(widths) + 1)
    params = overhead.mlp_params(keys, widths)

    def outputs(tape, params, x):
        for kernel, bias in params[:-1]:
            x = jax.nn.relu(tape.dense(x, kernel, bias))
        return x, tape.dense(x, *params[-1])

    x, y = jax.random.normal(keys[-2], (n, widths[0])), jax.random.randint(keys[-1], (n,), 0, widths[-1])
    return Model(f"MLP {'-'.join(map(str, widths))}, batch {batch_size}", outputs, params, x, y, batch_size, 150)


def transformer(layers: int, width: int, heads: int, length: int, batch_size: int, vocabulary: int, n: int) -> Model:
    """Makes a decoder (pre-norm, learned positions, MLP of 4 widths) and random data; a sequence is an example."""
    keys = iter(jax.random.split(jax.random.key(0), 4 * layers + 4))
    params = overhead.decoder_params(keys, layers, width, length, vocabulary)

    def outputs(tape, params, tokens):
        def norm(x, scale):
            return tape.scale(x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6), scale)

        x = tape.add(tape.embed(tokens, params["tokens"]), params["positions"])
        for p in params["blocks"]:
            qkv = tape.dense(norm(x, p["scales"][0]), p["qkv"]).reshape(*x.shape[:2], heads, -1)
            mixed = jax.nn.dot_product_attention(*jnp.split(qkv, 3, axis=-1), is_causal=True)
            x += tape.dense(mixed.reshape(x.shape), p["mix"])
            x += tape.dense(jax.nn.gelu(tape.dense(norm(x, p["scales"][1]), p["up"])), p["down"])
        return x, tape.dense(x, params["out"])

    words = jax.random.randint(next(keys), (n, length + 1), 0, vocabulary)
    name = f"decoder, {layers} layers, width {width}, {heads} heads, {length} tokens, {vocabulary} words, "
    return Model(f"{name}batch {batch_size}", outputs, params, words[:, :-1], words[:, 1:], batch_size, 15)


def models(quick: bool) -> list[Model]:
    """Returns the two models."""
    if quick:
        return [mlp((16, 32, 10), 16, 100), transformer(1, 16, 2, 8, 16, 32, 100)]
    return [mlp((784, 512, 512, 10), 256, 50_000), transformer(2, 128, 4, 32, 256, 512, 20_000)]


def passes(model: Model) -> dict[str, Callable[[Any, Any], Any]]:
    """Returns ways to compute the gradient of the mean loss, the norms, or both."""

    def one(params, example):
        return losses_of(model, grad_norms.Tape(), params, jax.tree.map(lambda x: x[None], example))[0]

    def tapped(tape, params, batch):
        return losses_of(model, tape, params, batch)

    def both(params, batch):
        return grad_norms.value_grads_and_norms(tapped, params, batch)[1:]

    return {
        "gradient alone": jax.grad(lambda params, batch: losses_of(model, grad_norms.Tape(), params, batch).mean()),
        "gradient and norms, one pass": both,
        "norms, vmap(grad) by 16": lambda params, batch: grad_norms.per_example(one, params, batch, batch_size=16),
        "norms, vmap(grad)": lambda params, batch: grad_norms.per_example(one, params, batch),
        "last layer's norms, forward": lambda params, batch: last_layer_norms(
            *model.outputs(grad_norms.Tape(), params, batch[0]), batch[1]
        ),
    }


def steps(model: Model) -> dict[str, Callable[[Any, jax.Array], Any]]:
    """Returns training steps: SGD on uniform draws, and RR with stale norms in the tree."""
    n, size = len(model.x), model.batch_size
    sampler = samplers.proportional(n, floor=0.1)

    def batch_of(indices):
        return model.x[indices], model.y[indices]

    def descend(params, grads):
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads)

    def weighted(params, batch, weights):
        return (weights * losses_of(model, grad_norms.Tape(), params, batch)).mean()

    def sgd(state, key):
        params, history = state
        batch = batch_of(jax.random.randint(key, (size,), 0, n))
        return descend(params, jax.grad(weighted)(params, batch, jnp.ones(size))), history

    def rr(state, key):
        params, history = state
        indices, weights = sampler.sample(history, key, size)
        _, grads, norms = grad_norms.value_grads_and_norms(
            lambda tape, params, batch: losses_of(model, tape, params, batch),
            params,
            batch_of(indices),
            weights=weights,
        )
        return descend(params, grads), sampler.update(history, indices, norms)

    def drawn(state, key):
        params, history = state
        indices, weights = sampler.sample(history, key, size)
        return descend(params, jax.grad(weighted)(params, batch_of(indices), weights)), history

    def by_last_layer(state, key):
        params, history = state
        indices, weights = sampler.sample(history, key, size)
        x, y = batch_of(indices)

        def objective(params):
            features, logits = model.outputs(grad_norms.Tape(), params, x)
            return (weights * cross_entropies(logits, y)).mean(), last_layer_norms(features, logits, y)

        grads, norms = jax.grad(objective, has_aux=True)(params)
        return descend(params, grads), sampler.update(history, indices, norms)

    def start():
        return jax.tree.map(jnp.copy, model.params), sampler.init(1.0)

    return {"sgd": sgd, "rr": rr, "drawn": drawn, "last": by_last_layer, "start": start}


def runners(model: Model) -> dict[str, Callable[[], None]]:
    """Returns functions that take ``EVERY`` steps of each side, compiled one by one and called in turn."""
    made = steps(model)
    start = made.pop("start")
    compiled = {name: jax.jit(step, donate_argnums=0) for name, step in made.items()}

    def runner(names):
        held = [start(), 0]

        def run():
            state, seed = held
            for name in names:
                state = compiled[name](state, jax.random.key(seed))
                seed += 1
            held[:] = jax.block_until_ready(state), seed

        return run

    # a turn has EVERY steps on all sides, so that refreshing now and then is compared fairly
    return {
        "SGD": runner(["sgd"] * EVERY),
        "RR, norms every step": runner(["rr"] * EVERY),
        f"RR, norms every {EVERY}th step": runner(["rr", *["drawn"] * (EVERY - 1)]),
        "RR, the last layer's norms": runner(["last"] * EVERY),
    }


def run(quick: bool) -> timing.Report:
    """Measures both models.

    Args:
        quick: tiny sizes.

    Returns:
        The report.
    """
    text, data, targets = [], {}, []
    for model in models(quick):
        batch = jax.tree.map(lambda x, m=model: x[: m.batch_size], (model.x, model.y))
        compiled = {name: jax.jit(function) for name, function in passes(model).items()}
        sides = {
            name: lambda f=function, b=batch, p=model.params: jax.block_until_ready(f(p, b))
            for name, function in compiled.items()
        }
        repeats = 3 if quick else 15
        seconds = measured(sides, repeats)
        plain = seconds["gradient alone"]
        rows = [(name, milliseconds(values), timing.ratios(values, plain)) for name, values in seconds.items()]
        taken = measured(runners(model), 3 if quick else model.turns)
        sgd = taken["SGD"]
        step_rows = [(n, milliseconds(v, EVERY), timing.ratios(v, sgd), interval(v, sgd)) for n, v in taken.items()]
        text += [
            f"**{model.name}**",
            timing.table(["pass", "ms", "times the gradient alone"], rows),
            timing.table(["step", "ms", "times SGD's", "95 % interval of the median"], step_rows),
        ]
        data[model.name] = {row[0]: {"ms": row[1]._asdict(), "ratio": row[2]._asdict()} for row in rows + step_rows}
        kind = model.name.split(",")[0].split()[0]
        both = rows[1][2]
        statement = f"all norms and the gradient at most {NORMS} times the gradient ({kind})"
        targets.append(timing.Target(statement, f"{both} times", both.median <= NORMS))
        if kind == "MLP":
            ratio = step_rows[1][2]
            statement = f"a step of RR, norms every step, at most {STEP} times one of SGD ({kind})"
            found = (
                f"{ratio.median:.3f} times (95 % interval of the median of {ratio.repeats} turns: {step_rows[1][3]})"
            )
            targets.append(timing.Target(statement, found, ratio.median <= STEP))
    note = (
        "A pass is one call on one batch; a step draws a batch (RR: from the tree of stale norms, 10 % by the prior), "
        f"computes, descends, and writes norms back; {EVERY} steps a turn."
    )
    drawing, data["drawing"] = rejection.run(quick)
    return timing.Report("Gradient norms and RR", "\n\n".join([note, *text, drawing]), data, targets)


def measured(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Times the sides in turns, after two calls that compile and warm up."""
    for side in sides.values():
        side()
        side()
    return timing.interleave(sides, repeats)


def interval(of: list[float], over: list[float]) -> str:
    """Returns the 95 % interval of the median ratio within a turn, as text."""
    low, high = timing.median_interval([a / b for a, b in zip(of, over, strict=True)])
    return f"{low:.3f} to {high:.3f}"


def milliseconds(seconds: list[float], count: int = 1) -> timing.Summary:
    """Summarises the milliseconds of one step, from seconds of ``count`` steps."""
    return timing.summarize([1e3 * second / count for second in seconds])
