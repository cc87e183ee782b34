"""Trains on MNIST with labels flipped in one half: paper 000, section 5.3 (figure 3)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from experiments.loss_and_sampling_weights import noisy_images
from experiments.loss_and_sampling_weights.noisy_images import METHODS, PRIOR, STYLES, Batch, Split
from experiments.loss_and_sampling_weights.sentences import quote
from experiments.shared import figures
from experiments.shared.statistics import average, final
from mixjax import samplers, training
from mixjax.runner import configs
from mixjax.runner.claims import near, paired, versus
from mixjax.runner.experiment import Experiment
from mixjax.sweeps import Segments

__all__ = ["Mnist", "block", "mnist", "train"]

SOURCE = "paper 000, section 5.3"
# the next four were fixed before the judging seeds were run
# percentage points of clean test accuracy
NOT_WORSE = 0.2
# percentage points of clean test accuracy
NO_EFFECT = 0.5
# ratio of gradient spreads; VA then saves a tenth of the gradient's variance
SIMILAR = 2.0
SHARE_TOLERANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Mnist(noisy_images.ImageProblem):
    """Holds the settings of section 5.3.

    Attributes:
        record_every: steps between two evaluations on the test images; signals and weights are means over these steps.
    """

    source: noisy_images.Source = "mnist"
    record_every: int = 25


def block(split: Split, images: jax.Array, number: jax.typing.ArrayLike, size: int) -> Batch:
    """Returns examples ``number * size`` and following of each domain, ``[2, size, ...]``; no two blocks share one."""
    indices, labels = (jax.lax.dynamic_slice_in_dim(part, number * size, size, axis=1) for part in split)
    return Batch(images[indices], labels)


def train(config: Mnist) -> Segments:
    """Trains the four methods on one seed's split.

    Each step reads a block of ``B`` examples of each domain that no step has seen, measures every signal on it at the
    current parameters, moves ``c`` and then ``q``, and trains on the block's first ``n_d`` examples of each domain,
    ``n = allocate(q, B)``; the rest are never used. Signals come from at least two points a domain that way, and the
    weights are moved before they are used, as section 5.3 says.

    Returns:
        A training run, a segment of which takes ``record_every`` steps. Its metrics are ``[step, method]``.
    """

    def init(key, hparams, data):
        used = configs.replace(config, hparams)
        train_key, test_key, init_key = jax.random.split(key, 3)
        splits = [
            noisy_images.split(k, data[part], used.flip) for k, part in ((train_key, "train"), (test_key, "test"))
        ]
        params = noisy_images.init(init_key, data["train"].images.shape[1], used.hidden)
        optimizer = optax.sgd(used.learning_rate)

        def start(loss_rule, sampling_rule):
            return training.init_state(params, optimizer, PRIOR, loss_rule, sampling_rule)

        return splits, noisy_images.for_methods(used, start), jnp.int32(0)

    def advance(carry, hparams, data):
        splits, states, step = carry
        used = configs.replace(config, hparams)
        states, metrics = noisy_images.for_methods(used, _interval(used, splits, data, step), states)
        return (splits, states, step + used.record_every), jax.tree.map(lambda x: x[None], metrics)

    return Segments(init, advance, config.num_steps // config.record_every)


def _interval(config, splits, data, start):
    """Returns ``interval(loss_rule, sampling_rule, state)``: the ``record_every`` steps from step ``start`` on."""
    (training_split, test_split), size = splits, config.batch_size
    step = training.make_step(noisy_images.losses, optax.sgd(config.learning_rate))

    def one_step(loss_rule, sampling_rule, state, t):
        points = block(training_split, data["train"].images, t, size)
        found = noisy_images.measure(state.params, points)
        gap = jnp.dot(state.loss_state.prior - state.loss_state.weights, found["losses"])
        loss_state = loss_rule.update(state.loss_state, **found)
        sampling_state = sampling_rule.update(state.sampling_state, loss_weights=loss_state.weights, **found)
        state = state.replace(loss_state=loss_state, sampling_state=sampling_state)

        counts = samplers.allocate(sampling_state.weights, size)
        used = jnp.arange(size) < counts[:, None]
        # -1 marks the examples that the step must not see; the batch's shape stays the same that way
        domain_ids = jnp.where(used, jnp.arange(2)[:, None], -1)
        flat = jax.tree.map(lambda x: x.reshape(2 * size, *x.shape[2:]), (points, domain_ids))
        state, _ = step(state, *flat)
        return state, {
            "loss_weight": loss_state.weights[0],
            "sampling_weight": sampling_state.weights[0],
            "grad_std_clean": found["grad_stds"][0],
            "grad_std_noisy": found["grad_stds"][1],
            "gap": gap,
        }

    def interval(loss_rule, sampling_rule, state):
        # Numbers of steps that all methods share: a state's own would make one gather of the methods' equal slices.
        numbers = start + jnp.arange(config.record_every)
        state, records = jax.lax.scan(functools.partial(one_step, loss_rule, sampling_rule), state, numbers)
        right = noisy_images.predict(state.params, data["test"].images)[test_split.indices] == test_split.labels
        clean, noisy = 100.0 * right.mean(axis=1)
        means = jax.tree.map(jnp.mean, records)
        return state, {**means, "clean_accuracy": clean, "noisy_accuracy": noisy}

    return interval


def mnist(config: Mnist) -> Experiment:
    """Makes the experiment of figure 3.

    Raises:
        ValueError: more steps than there are new examples for, or steps that are no multiple of ``record_every``.
    """
    data = noisy_images.load(config.source)
    size, steps, available = config.batch_size, config.num_steps, noisy_images.half(data["train"])
    if steps % config.record_every or size < 2:
        raise ValueError(f"need batch_size >= 2 and num_steps a multiple of record_every, got {size} and {steps}.")
    if size * steps > available:
        raise ValueError(f"{steps} steps of {size} new examples a domain need more than the {available} there are.")
    units = {
        "clean_accuracy": "%",
        "noisy_accuracy": "%",
        "loss_weight": "share",
        "sampling_weight": "share",
        "grad_std_clean": "nats / parameter unit",
        "grad_std_noisy": "nats / parameter unit",
        "gap": "nats",
    }
    return Experiment(
        train=train(config),
        data=data,
        dims=dict.fromkeys(units, ("step", "method")),
        coords={"method": list(METHODS), "step": range(config.record_every, steps + 1, config.record_every)},
        units=units,
        figure=figure,
        claims=claims,
    )


def figure(results):
    """Draws test accuracies and weights at every point of the first run's sweep."""
    name = next(iter(results))
    shown = {where: with_gain(dataset) for where, dataset in noisy_images.points({name: results[name]}).items()}

    def limits(metric):
        return noisy_images.limits(shown.values(), metric)

    panels = [
        figures.Panel("clean_accuracy", "accuracy on clean test half (%)", limits=limits("clean_accuracy")),
        figures.Panel("noisy_accuracy", "accuracy on noisy test half (%)", limits=limits("noisy_accuracy")),
        figures.Panel("gain", "clean accuracy above vanilla's (points)", limits=(-1.5, 2.0)),
        figures.Panel("loss_weight", "clean domain's loss weight (share)", limits=(0, 1)),
        figures.Panel("sampling_weight", "clean domain's sampling weight (share)", limits=(0, 1)),
    ]
    which = f" ({name})" if len(results) > 1 else ""
    title = f"MNIST, labels flipped in one half, paper 000 figure 3{which}"
    return figures.curves(shown, panels, METHODS, title, STYLES)


def with_gain(dataset):
    """Adds ``gain``, the clean test accuracy above vanilla SGD's on the same seed."""
    accuracy = dataset["clean_accuracy"]
    return dataset.assign(gain=accuracy - accuracy.sel({"method": "vanilla"}, drop=True))


def claims(results) -> list:
    """Judges section 5.3's sentences at the first point of the sweep; the notes tell the others."""

    def difference(data, a, b):
        return final(data, "clean_accuracy", a) - final(data, "clean_accuracy", b)

    def improves(data):
        accuracies = [final(data, "clean_accuracy", method) for method in ("erma", "vanilla")]
        return paired("mnist_erma_improves", accuracies[0], ">", accuracies[1], **quote("mnist_erma_improves"))

    def best(data):
        values = difference(data, "erma", "erma_va")
        return versus("mnist_erma_best", values, ">=", -NOT_WORSE, **quote("mnist_erma_best"))

    def ineffective(data):
        values = difference(data, "va", "vanilla")
        return near("mnist_va_ineffective", values, 0.0, NO_EFFECT, **quote("mnist_va_ineffective"))

    def similar(data):
        ratio = average(data, "grad_std_noisy", "vanilla") / average(data, "grad_std_clean", "vanilla")
        return versus("mnist_gradient_spread_similar", ratio, "<=", SIMILAR, **quote("mnist_gradient_spread_similar"))

    def share(data):
        values = average(data, "sampling_weight", "va")
        return near("mnist_va_share", values, 0.4, SHARE_TOLERANCE, **quote("mnist_va_share"))

    def prefers_clean(data):
        statement = "ours: ERMA gives the clean domain the larger loss weight"
        values = average(data, "loss_weight", "erma")
        return versus("mnist_erma_prefers_clean", values, ">=", 0.5, statement=statement, source=SOURCE)

    def combination(data):
        statement = "ours: ERMA + VA improves upon vanilla SGD"
        values = [final(data, "clean_accuracy", method) for method in ("erma_va", "vanilla")]
        return paired("mnist_combination_improves", values[0], ">", values[1], statement=statement, source=SOURCE)

    row = functools.partial(noisy_images.judged, results)
    return [
        row(improves, "percentage points of clean test accuracy after the last step, ERMA - vanilla"),
        row(best, f"percentage points, ERMA - (ERMA + VA); {NOT_WORSE:g} below counts as not worse"),
        row(ineffective, "percentage points, VA - vanilla"),
        row(similar, "v noisy / v clean, means over the run of vanilla SGD; at 2, VA saves a tenth of the variance"),
        row(share, "mean over the run"),
        row(prefers_clean, "mean over the run"),
        row(combination, "percentage points, (ERMA + VA) - vanilla; row added when these seeds had been seen"),
    ]
