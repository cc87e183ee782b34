"""MNIST with a rare class: the data, the ways to draw and weight examples, and the training loop that measures them.

Positions are indices into the ``n`` kept training examples, of which the last ``num_rare`` are the rare class.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.hardness_sampling import classifiers
from mixjax import data as datasets
from mixjax import rules, samplers

LOG_10 = math.log(10.0)  # the loss of a guess: what the history holds before an example is seen, plus 0.1 % of noise
CHUNK = 251  # images of one forward pass where losses are only looked at


@dataclasses.dataclass(frozen=True)
class Problem:
    """What every run on imbalanced MNIST has to say.

    Attributes:
        model: a name of ``classifiers.build``.
        rare_class: the digit of which few are kept.
        keep: the share of them that is kept.
        batch_size: ``b``.
        learning_rate: of plain SGD.
        num_steps: ``T``.
        record_every: steps between two evaluations.
        probe_size: training examples on which losses are measured: all of the rare class, the rest drawn at random.
        test_size: test examples: all of the rare class, the rest drawn at random; the whole test set has 10,000.
    """

    model: classifiers.Name = "mlp"
    rare_class: int = 3
    keep: float = 0.01
    batch_size: int = 64
    learning_rate: float = 0.01
    num_steps: int = 8400
    record_every: int = 100
    probe_size: int = 2000
    test_size: int = 10_000


class Images(NamedTuple):
    """MNIST, with the indices of the rare class and of the others apart: ``[60000, 784]`` and ``[10000, 784]``."""

    train: Any
    train_labels: Any
    train_rare: Any
    train_others: Any
    test: Any
    test_labels: Any
    test_rare: Any
    test_others: Any


class Sample(NamedTuple):
    """Examples that stand for a whole set: its rare class in full, the others by a random part.

    Attributes:
        ids: ``[m]``, the rare class last.
        weights: ``[m]``, the share of the set that each stands for; sums to 1.
    """

    ids: jax.Array
    weights: jax.Array

    def mean(self, values):
        """The set's mean."""
        return jnp.dot(self.weights, values)

    def std(self, values):
        """The set's standard deviation."""
        return jnp.sqrt(self.mean(jnp.square(values - self.mean(values))))

    def correlation(self, a, b):
        """The set's correlation; 0 where one of the two is constant."""
        a, b = a - self.mean(a), b - self.mean(b)
        scale = self.mean(a * a) * self.mean(b * b)
        return jnp.where(scale > 0, self.mean(a * b) / jnp.sqrt(jnp.where(scale > 0, scale, 1.0)), 0.0)


class Split(NamedTuple):
    """One seed's training set and what it is measured on.

    Attributes:
        kept: ``[n]``, position -> index into the training images.
        probe: positions that stand for the training set.
        test: indices that stand for the test set.
    """

    kept: jax.Array
    probe: Sample
    test: Sample


class Scheme(NamedTuple):
    """How examples are drawn and weighted.

    Attributes:
        init: ``init(losses [n], key) -> state``.
        sample: ``sample(state, key) -> positions [b], state``.
        weights: ``weights(state, positions, losses) -> [b]``, of each loss in the batch's mean.
        update: ``update(state, positions, losses) -> state``.
        history: ``history(state) -> [n]``, the stale losses.
        log_probs: ``log_probs(state) -> [n]``, of the next draw.
    """

    init: Callable
    sample: Callable
    weights: Callable
    update: Callable
    history: Callable
    log_probs: Callable


class Carry(NamedTuple):
    """What training holds between two evaluations."""

    params: Any
    stats: Any
    state: Any
    key: jax.Array


def load(rare_class: int) -> Images:
    """MNIST, for the ``data`` of an experiment."""
    images = datasets.load("mnist")
    parts = []
    for x, y in ((images.train_images, images.train_labels), (images.test_images, images.test_labels)):
        parts += [x, y, *(np.flatnonzero(mask).astype(np.int32) for mask in (y == rare_class, y != rare_class))]
    return Images(*parts)


def num_rare(problem: Problem, images: Images) -> int:
    """How many examples of the rare class are kept."""
    return round(problem.keep * len(images.train_rare))


def num_kept(problem: Problem, images: Images) -> int:
    """``n``, how many training examples there are."""
    return len(images.train_others) + num_rare(problem, images)


def _stand_in(key, rare, others, size):
    """A ``Sample`` of ``size`` of the set ``others`` and ``rare``."""
    part = min(size - len(rare), len(others))
    total = len(rare) + len(others)
    weights = np.full(part + len(rare), 1 / total, np.float32)
    weights[:part] *= len(others) / part
    return Sample(jnp.concatenate([jax.random.permutation(key, others)[:part], rare]), jnp.asarray(weights))


def split(key: jax.Array, problem: Problem, images: Images) -> Split:
    """Which examples of the rare class are kept, and which ones are measured."""
    rare_key, probe_key, test_key = jax.random.split(key, 3)
    rare = jax.random.permutation(rare_key, images.train_rare)[: num_rare(problem, images)]
    kept = jnp.concatenate([images.train_others, rare])
    positions = jnp.arange(len(kept))
    probe = _stand_in(probe_key, positions[-len(rare) :], positions[: -len(rare)], problem.probe_size)
    return Split(kept, probe, _stand_in(test_key, images.test_rare, images.test_others, problem.test_size))


def shuffled(n: int, batch_size: int) -> Scheme:
    """ERM as usual: epochs in random order. It keeps a history too, only to be looked at."""
    groups = samplers.partition(np.zeros(n, np.int32))

    def sample(state, key):
        positions, epochs = samplers.without_replacement(state[0], groups, jnp.zeros(batch_size, jnp.int32))
        return positions, (epochs, state[1])

    return Scheme(
        lambda losses, key: (samplers.start_epochs(key, 1), losses),
        sample,
        lambda state, positions, losses: jnp.ones_like(losses),
        lambda state, positions, losses: (state[0], state[1].at[positions].set(losses)),
        lambda state: state[1],
        lambda state: jnp.full(n, -jnp.log(n)),
    )


def hardness(
    n: int, batch_size: int, beta: jax.typing.ArrayLike, *, replacement: bool = True, importance: str | None = None
) -> Scheme:
    """Algorithm 1: draws from softmax(beta L) of the stale losses; ``importance`` is a kind of importance weights."""
    sampler = samplers.hardness(n, beta, replacement=replacement)

    def weights(state, positions, losses):
        if importance is None:
            return jnp.ones_like(losses)
        return sampler.importance_weights(state, positions, losses, kind=importance)

    return Scheme(
        lambda losses, key: sampler.init(losses),
        lambda state, key: (sampler.sample(state, key, batch_size)[0], state),
        weights,
        sampler.update,
        lambda state: state.values,
        sampler.log_probs,
    )


def chi_squared(n: int, batch_size: int, beta: jax.typing.ArrayLike) -> Scheme:
    """Algorithm 1 with Pearson's chi-squared divergence: every example is a domain of ``rules.dro``, O(n) a step."""
    rule = rules.dro(beta, "chi2")

    def update(state, positions, losses):
        counts = jnp.zeros(n).at[positions].set(1.0)
        return rule.update(state, counts=counts, losses=jnp.zeros(n).at[positions].set(losses))

    return Scheme(
        lambda losses, key: rule.update(rule.init(jnp.ones(n)), counts=jnp.ones(n), losses=losses),
        lambda state, key: (samplers.multinomial(key, state.weights, batch_size), state),
        lambda state, positions, losses: jnp.ones_like(losses),
        update,
        lambda state: state.losses,
        lambda state: jnp.log(state.weights),
    )


def start(key: jax.Array, problem: Problem, images: Images, scheme: Scheme) -> tuple[Split, Carry]:
    """The split and the state before the first step; equal for every scheme at equal keys (paired seeds)."""
    split_key, init_key, noise_key, scheme_key, train_key = jax.random.split(key, 5)
    parts = split(split_key, problem, images)
    params, stats = classifiers.build(problem.model).init(init_key)
    history = LOG_10 * (1.0 + 1e-3 * jax.random.normal(noise_key, parts.kept.shape))
    return parts, Carry(params, stats, scheme.init(history, scheme_key), train_key)


def over(function: Callable, ids: jax.Array) -> Any:
    """``function(ids)``, a chunk at a time."""
    padded = jnp.pad(ids, (0, -len(ids) % CHUNK)).reshape(-1, CHUNK)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: len(ids)], jax.lax.map(function, padded))


def train_losses(problem: Problem, images: Images, parts: Split, params, stats, positions) -> jax.Array:
    """The losses of training examples at these parameters, in nats."""
    model = classifiers.build(problem.model)

    def losses(positions):
        ids = parts.kept[positions]
        return model.losses(params, stats, images.train[ids], images.train_labels[ids])[0]

    return over(losses, positions)


def step(carry: Carry, problem: Problem, images: Images, parts: Split, scheme: Scheme) -> tuple[Carry, dict]:
    """One step of Algorithm 1, and what its batch showed."""
    model, sgd = classifiers.build(problem.model), optax.sgd(problem.learning_rate)
    key, sample_key = jax.random.split(carry.key)
    positions, state = scheme.sample(carry.state, sample_key)
    ids = parts.kept[positions]

    def objective(params):
        losses, stats = model.train_losses(params, carry.stats, images.train[ids], images.train_labels[ids])
        weights = jax.lax.stop_gradient(scheme.weights(state, positions, losses))
        return jnp.mean(weights * losses), (losses, stats)

    grads, (losses, stats) = jax.grad(objective, has_aux=True)(carry.params)
    updates, _ = sgd.update(grads, sgd.init(carry.params))
    state = scheme.update(state, positions, losses)
    rare = positions >= len(parts.kept) - num_rare(problem, images)
    carry = Carry(optax.apply_updates(carry.params, updates), stats, state, key)
    return carry, {"batch_loss": losses.mean(), "rare_share": rare.mean()}


def evaluate(carry: Carry, problem: Problem, images: Images, parts: Split, scheme: Scheme) -> dict:
    """Accuracies on the test set, losses on the training set, and how the history compares with them."""
    model = classifiers.build(problem.model)
    rare_test, rare_probe = len(images.test_rare), num_rare(problem, images)

    def measure(stats):
        _, right = over(
            lambda ids: model.losses(carry.params, stats, images.test[ids], images.test_labels[ids]), parts.test.ids
        )
        losses = train_losses(problem, images, parts, carry.params, stats, parts.probe.ids)
        return losses, {
            "rare_accuracy": 100.0 * right[-rare_test:].mean(),
            "accuracy": 100.0 * parts.test.mean(right),
            "train_loss": parts.probe.mean(losses),
            "train_loss_std": parts.probe.std(losses),
            "rare_train_loss": losses[-rare_probe:].mean(),
        }

    losses, found = measure(carry.stats)
    stale = scheme.history(carry.state)[parts.probe.ids]
    found["stale_correlation"] = parts.probe.correlation(stale, losses)
    found["effective_sample_size"] = samplers.effective_sample_size(scheme.log_probs(carry.state)) / len(parts.kept)
    if model.refresh is not None:
        ids = parts.kept[parts.probe.ids[:CHUNK]]
        _, fresh = measure(model.refresh(carry.params, carry.stats, images.train[ids]))
        found |= {f"{name}_fresh_statistics": value for name, value in fresh.items()}
    return found


EVALUATED: Mapping[str, str] = {
    "rare_accuracy": "%",
    "accuracy": "%",
    "train_loss": "nats",
    "train_loss_std": "nats",
    "rare_train_loss": "nats",
}
UNITS: Mapping[str, str] = {
    **EVALUATED,
    "stale_correlation": "1",
    "effective_sample_size": "share of n",
    "batch_loss": "nats",
    "rare_share": "share of draws",
}
"""The metrics of ``advance`` and ``evaluate``."""
