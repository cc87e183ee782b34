"""Trains on handwritten digits where domain two repeats a few images: redundancy, paper 000's sections 4 and 6."""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from experiments.loss_and_sampling_weights import glm
from experiments.loss_and_sampling_weights.sentences import quote
from experiments.shared.figures import finish, points
from experiments.shared.sentences import text
from mixjax import probes, rules, samplers, training
from mixjax.data import load
from mixjax.runner import configs
from mixjax.runner.claims import versus
from mixjax.runner.experiment import Experiment

__all__ = ["Redundancy", "cross_entropies", "grad_stds", "redundancy", "train"]

NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Redundancy:
    """Holds the settings of softmax regression under VA; the paper gives none.

    Attributes:
        distinct: numbers of distinct images in domain two; both domains hold ``num_examples``.
        num_examples: examples a domain.
        jitter: standard deviation of the noise added to every pixel of a copy, in grey values from 0 to 1.
        batch_size: ``B``.
        num_steps: ``T``.
        learning_rate: SGD's step size.
        probe_every: ``T₁``.
        gradient_size: points a domain for each estimate of ``v``.
    """

    distinct: tuple[int, ...] = (3, 10, 30, 100, 300, 690)
    num_examples: int = 690
    jitter: float = 0.05
    batch_size: int = 32
    num_steps: int = 400
    learning_rate: float = 0.5
    probe_every: int = 20
    gradient_size: int = 64


def cross_entropies(params: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Returns the losses ``[B]`` in nats of softmax regression.

    The parameters are ``[pixels + 1, classes]``, and the last input is 1.
    """
    inputs, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(inputs @ params, labels)


def grad_stds(params: jax.Array, batch: tuple[jax.Array, jax.Array], domain_ids: jax.Array) -> jax.Array:
    """Returns the exact ``v`` ``[domain]`` without per-example gradients.

    An example's gradient is an outer product, ``x (p - onehot)ᵀ``.
    """
    inputs, labels = batch
    slopes = jax.nn.softmax(inputs @ params) - jax.nn.one_hot(labels, NUM_CLASSES)
    belongs = jax.nn.one_hot(domain_ids, 2, axis=0)
    counts = belongs.sum(axis=1)
    means = jnp.einsum("kn,ni,nj->kij", belongs, inputs, slopes) / counts[:, None, None]
    squares = belongs @ (jnp.square(inputs).sum(axis=1) * jnp.square(slopes).sum(axis=1))
    spread = squares - counts * jnp.square(means).sum(axis=(1, 2))
    return jnp.sqrt(jnp.maximum(spread, 0.0) / (counts - 1.0))


def train(key: jax.Array, config: Redundancy, data: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
    """Trains under VA for each number of distinct images.

    Returns:
        ``grad_std`` ``[distinct, domain, round]``, exact over the whole domains; ``sampling_share``
        ``[distinct, round]``, domain two's; ``first_std`` ``[distinct, domain]``, before the first step.
    """
    images, labels = data
    shuffle_key, jitter_key, train_key = jax.random.split(key, 3)
    order = jax.random.permutation(shuffle_key, len(labels))
    ids = np.repeat(np.arange(2), config.num_examples)
    groups, position = samplers.partition(ids), jnp.arange(config.num_examples)
    noise = config.jitter * jax.random.normal(jitter_key, (ids.size, images.shape[1]))
    optimizer, loss_rule, sampling_rule = optax.sgd(config.learning_rate), rules.fixed(), rules.variance_aware()
    start = jnp.zeros((images.shape[1] + 1, NUM_CLASSES))
    choose = probes.fresh_draws(groups, config.gradient_size)
    step = training.make_step(cross_entropies, optimizer)

    def plan(weights):
        return samplers.counts_to_ids(samplers.allocate(weights, config.batch_size), config.batch_size)

    def run(distinct):
        rows = order[jnp.concatenate([position, config.num_examples + position % distinct])]
        examples = jnp.concatenate([images[rows] + noise, jnp.ones((ids.size, 1))], axis=1), labels[rows]

        def take(indices):
            return jax.tree.map(lambda leaf: leaf[indices], examples)

        def measure(params, key):
            indices, domain_ids = choose(key)
            return {
                "counts": jnp.full(2, config.gradient_size),
                "grad_stds": grad_stds(params, take(indices), domain_ids),
            }

        def draw(key, domain_ids):
            return take(samplers.with_replacement(key, groups, domain_ids)), domain_ids

        def record(state):
            return grad_stds(state.params, examples, jnp.asarray(ids)), state.sampling_state.weights[1]

        state = training.init_state(start, optimizer, (0.5, 0.5), loss_rule, sampling_rule)
        probe = training.make_probe(measure, loss_rule, sampling_rule)
        length = {"num_steps": config.num_steps, "probe_every": config.probe_every}
        spread, share = training.fit(step, probe, plan, draw, state, train_key, record=record, **length)[1]
        first = grad_stds(start, examples, jnp.asarray(ids))
        return {"grad_std": spread.T, "sampling_share": share, "first_std": first}

    return jax.lax.map(run, jnp.asarray(config.distinct))


def redundancy(config: Redundancy) -> Experiment:
    """Makes the experiment on sections 4 and 6, redundant domains."""
    digits = load("digits")

    def train_seed(key, hparams, data):
        return train(jax.random.fold_in(key, 3), configs.replace(config, hparams), data)

    return Experiment(
        train=train_seed,
        data=(digits.train_images, digits.train_labels),
        dims={
            "grad_std": ("distinct", "domain", "round"),
            "sampling_share": ("distinct", "round"),
            "first_std": ("distinct", "domain"),
        },
        coords={
            "domain": ["one", "two"],
            "distinct": list(config.distinct),
            "round": glm.steps(config),
        },
        units={"grad_std": "gradient units", "sampling_share": "share", "first_std": "gradient units"},
        figure=lambda results: figure(next(iter(results.values())), config),
        claims=lambda results: claims(next(iter(results.values())), config),
    )


def claims(data, config: Redundancy) -> list:
    """Judges section 4's sentence and section 6's."""
    x = np.log2(data.distinct.values)
    slope = (x - x.mean()) / np.square(x - x.mean()).sum()
    spread = data.grad_std.sel(domain="two").mean("round")
    share = data.sampling_share.mean("round")
    first = data.first_std.sel(domain="two")

    def ends(values):
        return ", ".join(f"{text(values.isel(distinct=i))} with {int(data.distinct[i])}" for i in (0, -1))

    def rises(name, values, note):
        setting = (
            f"domain two holds {config.num_examples} digits, copies of a few, each with pixel noise {config.jitter:g}"
        )
        return versus(name, values.values @ slope, ">=", 0.0, **quote(name), note=f"{setting}; {note}")

    return [
        rises(
            "redundancy_lowers_variance",
            np.log(spread),
            f"slope of log v, mean over training, against log2 of the distinct images; v is {ends(spread)} distinct "
            f"images, and {ends(first)} before the first step: most of the effect is that few images are soon fitted",
        ),
        rises(
            "redundancy_lowers_va_share",
            share,
            "slope of its VA share, mean over training, against log2 of the distinct images; the share is "
            f"{ends(share)} distinct images",
        ),
    ]


def figure(data, config: Redundancy):
    """Draws the spread of gradients and domain two's share against the number of distinct images."""
    drawn, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    x = data.distinct.values
    spread, share = data.grad_std.mean("round"), data.sampling_share
    points(left, x, spread.sel(domain="one"), color="C0", label="domain one, all distinct")
    points(left, x, spread.sel(domain="two"), color="C1", label="domain two, repeated images")
    before = {"fmt": "o:", "mfc": "none", "label": "domain two, before training"}
    points(left, x, data.first_std.sel(domain="two"), color="C1", **before)
    left.set(
        yscale="log",
        ylabel=r"gradient standard deviation $v$ (gradient units)",
        title="(a) spread of gradients, mean over training",
    )
    left.set_yticks([0.1, 0.2, 0.5, 1, 2, 4], ["0.1", "0.2", "0.5", "1", "2", "4"])
    left.set_yticks([], minor=True)
    points(right, x, share.mean("round"), color="C1", label="mean over training")
    points(right, x, share.isel(round=-1), color="C3", label="at the end")
    right.axhline(0.5, color="0.4", lw=1, ls=":", label="no redundancy")
    right.set(ylim=(0, 0.6), ylabel="VA sampling weight, domain two", title="(b) VA's share of the redundant domain")
    for axis in (left, right):
        axis.set(xscale="log", xlabel=f"distinct images in domain two, of {config.num_examples}")
    seeds = data.sizes["seed"]
    return finish(drawn, f"Softmax regression on digits under VA; {seeds} seeds, error bars: ±2 standard errors")
