"""Measures what ``weighted_loss`` and a rule add to a jitted training step, beside a plain mean of the losses."""

import functools
import itertools
import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import mixjax
from experiments.benchmarks import timing

__all__ = ["decoder_params", "mlp_params", "num_operations", "run"]

LIMIT = 1.02
SIDES = ("plain", "plain again", "update=False", "update=True")


class Model(NamedTuple):
    """Holds a model and one batch.

    Attributes:
        name: for the tables.
        losses: ``losses(params, batch) -> [B]``.
        params: the first parameters.
        batch: the batch that every step takes.
        domain_ids: the domains of its examples.
        num_domains: ``D``.
        turns: how many turns time the steps.
    """

    name: str
    losses: Callable[[Any, Any], jax.Array]
    params: Any
    batch: Any
    domain_ids: jax.Array
    num_domains: int
    turns: int


def mlp_params(keys: Iterable[jax.Array], widths: tuple[int, ...]) -> list[tuple[jax.Array, jax.Array]]:
    """Draws a kernel and a bias for each layer."""
    return [
        (jax.random.normal(key, shape) * (2 / shape[0]) ** 0.5, jnp.zeros(shape[1]))
        for key, shape in zip(keys, itertools.pairwise(widths), strict=False)
    ]


def decoder_params(keys: Iterator[jax.Array], layers: int, width: int, length: int, vocabulary: int) -> dict[str, Any]:
    """Draws embeddings, blocks and output of a decoder whose MLPs have 4 widths."""

    def matrix(*shape):
        return jax.random.normal(next(keys), shape) * shape[0] ** -0.5

    return {
        "tokens": matrix(vocabulary, width),
        "positions": matrix(length, width),
        "out": matrix(width, vocabulary),
        "blocks": [
            {
                "qkv": matrix(width, 3 * width),
                "mix": matrix(width, width),
                "up": matrix(width, 4 * width),
                "down": matrix(4 * width, width),
                "scales": [jnp.ones(width), jnp.ones(width)],
            }
            for _ in range(layers)
        ],
    }


def mlp(widths: tuple[int, ...], batch_size: int, turns: int) -> Model:
    """Makes a classifier with ReLU layers and a random batch."""
    keys = jax.random.split(jax.random.key(0), len(widths))
    params = mlp_params(keys, widths)
    batch = {
        "x": jax.random.normal(keys[-1], (batch_size, widths[0])),
        "y": jax.random.randint(keys[-1], (batch_size,), 0, widths[-1]),
    }

    def losses(params, batch):
        x = batch["x"]
        for weight, bias in params[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        logits = x @ params[-1][0] + params[-1][1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])

    name = f"MLP {'-'.join(map(str, widths))}, batch {batch_size}, 8 domains"
    return Model(name, losses, params, batch, jnp.arange(batch_size) % 8, 8, turns)


def transformer(
    layers: int, width: int, heads: int, length: int, batch_size: int, vocabulary: int, turns: int
) -> Model:
    """Makes a decoder (pre-norm, learned positions, MLP of 4 widths) and a random batch.

    A sequence is an example, and its source the domain.
    """
    keys = iter(jax.random.split(jax.random.key(0), 4 * layers + 4))
    params = decoder_params(keys, layers, width, length, vocabulary)
    tokens = jax.random.randint(next(keys), (batch_size, length + 1), 0, vocabulary)

    def norm(x, scale):
        return scale * x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)

    def block(x, p):
        q, k, v = jnp.split((norm(x, p["scales"][0]) @ p["qkv"]).reshape(*x.shape[:2], heads, -1), 3, axis=-1)
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x += mixed.reshape(x.shape) @ p["mix"]
        return x + jax.nn.gelu(norm(x, p["scales"][1]) @ p["up"]) @ p["down"]

    def losses(params, tokens):
        x = params["tokens"][tokens[:, :-1]] + params["positions"]
        for p in params["blocks"]:
            x = block(x, p)
        return optax.softmax_cross_entropy_with_integer_labels(x @ params["out"], tokens[:, 1:]).mean(axis=1)

    name = (
        f"decoder, {layers} layers, width {width}, {heads} heads, {length} tokens, {vocabulary} words, "
        f"batch {batch_size}, 4 domains"
    )
    return Model(name, losses, params, tokens, jnp.arange(batch_size) % 4, 4, turns)


def models(quick: bool) -> list[Model]:
    """Returns the two models."""
    if quick:
        return [mlp((16, 32, 10), 32, 10), transformer(1, 16, 2, 8, 8, 32, 10)]
    return [mlp((784, 512, 512, 10), 256, 800), transformer(4, 128, 4, 128, 8, 512, 150)]


def first_state(model: Model, side: str) -> tuple:
    """Returns the parameters, Adam's state, and the rule's state where there is one, in buffers of their own."""
    rule_state = () if side.startswith("plain") else mixjax.rules.erma().init(jnp.ones(model.num_domains))
    return jax.tree.map(jnp.copy, (model.params, optax.adam(1e-5).init(model.params), rule_state))


def compile_step(model: Model, side: str) -> jax.stages.Compiled:
    """Compiles a training step with donated state, ``step(state, batch, domain_ids) -> (state, objective)``."""
    optimizer, rule = optax.adam(1e-5), mixjax.rules.erma()

    def objective(params, rule_state, batch, domain_ids):
        losses = model.losses(params, batch)
        if side == "plain":
            return losses.mean(), rule_state
        return mixjax.weighted_loss(rule, rule_state, losses, domain_ids, update=side == "update=True")

    def step(state, batch, domain_ids):
        params, opt_state, rule_state = state
        (value, rule_state), grads = jax.value_and_grad(objective, has_aux=True)(params, rule_state, batch, domain_ids)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, rule_state), value

    return jax.jit(step, donate_argnums=0).lower(first_state(model, side), model.batch, model.domain_ids).compile()


def num_operations(program: jax.stages.Compiled) -> int:
    """Counts the operations that the compiled program's entry launches one by one, without the bookkeeping ones."""
    entry = program.as_text().split("\nENTRY ", 1)[1].split("\n}", 1)[0]
    kinds = re.findall(r"= .*? ([a-z][a-z0-9\-]*)\(", entry)
    return sum(kind not in {"parameter", "constant", "get-tuple-element", "tuple", "bitcast"} for kind in kinds)


def measure(model: Model) -> dict[str, Any]:
    """Times the sides step by step in turns."""
    programs = {side: compile_step(model, side) for side in SIDES if side != "plain again"}
    # the plain step against itself shows the noise
    programs["plain again"] = programs["plain"]
    states = {side: first_state(model, side) for side in SIDES}

    def one(side):
        states[side], value = programs[side](states[side], model.batch, model.domain_ids)
        jax.block_until_ready((states[side], value))

    turns = {side: functools.partial(one, side) for side in SIDES}
    timing.interleave(turns, 3)
    seconds = timing.interleave(turns, model.turns)

    def compare(side):
        ratios = [a / b for a, b in zip(seconds[side], seconds["plain"], strict=True)]
        low, high = timing.median_interval(ratios)
        return {
            "ms": timing.summarize([1e3 * s for s in seconds[side]])._asdict(),
            "over_plain": timing.Summary(statistics.median(ratios), low, high, len(ratios))._asdict(),
            "operations": num_operations(programs[side]),
            "flops": programs[side].cost_analysis().get("flops"),
        }

    return {side: compare(side) for side in SIDES}


def run(quick: bool = False) -> timing.Report:
    """Measures both models."""
    parts, data, targets = [], {}, []
    for model in models(quick):
        data[model.name] = found = measure(model)
        size = sum(leaf.size for leaf in jax.tree.leaves(model.params))
        parts.append(f"**{model.name}**, {size} parameters, {model.turns} turns.\n\n" + _table(found))
        for side in SIDES[2:]:
            ratio, noise = (timing.Summary(**found[name]["over_plain"]) for name in (side, "plain again"))
            targets.append(
                timing.Target(
                    f"{model.name}, {side}: at most 2 % more than a plain mean",
                    f"{_percent(ratio)}; plain against itself {_percent(noise)}",
                    None if ratio.low <= LIMIT < ratio.high else ratio.high <= LIMIT,
                )
            )
    text = "\n\n".join(
        [
            "A jitted step with Adam and donated state, of a plain mean and of `weighted_loss` with `rules.erma()`. "
            "Steps take turns; the ratio is the median over turns of the ratio to the plain step of the same turn, "
            "with a 95 % interval of the median (a target is met or missed where the interval is on one side of it). "
            "The plain step against itself shows the noise. Operations are those the program launches one "
            "by one, FLOPs are XLA's own count.",
            *parts,
        ]
    )
    return timing.Report("Overhead of a weight rule", text, data, targets)


def _percent(ratio: timing.Summary) -> str:
    median, low, high = (100 * (value - 1) for value in ratio[:3])
    return f"{median:+.1f} % ({low:+.1f} to {high:+.1f})"


def _table(found):
    rows = [
        (
            side,
            timing.Summary(**f["ms"]),
            "{median:.3f} ({low:.3f} to {high:.3f})".format(**f["over_plain"]),
            f["operations"],
            "unknown" if f["flops"] is None else f"{f['flops'] / 1e6:.4g}",
        )
        for side, f in found.items()
    ]
    return timing.table(["step", "ms", "ratio to plain, median (95 %)", "operations", "MFLOP"], rows)
