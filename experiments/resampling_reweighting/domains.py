"""Real training sets of unlike domains, a fresh draw of one for every seed, and the networks that learn them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import norms, overhead
from experiments.hardness_sampling.tabular import Rows, split
from mixjax import data, samplers

MNIST = {"clean": 0.85, "random labels": 0.1, "contrast × 4": 0.05}  # shares of the training set
TEXT = {"python": 0.4, "shakespeare": 0.3, "european": 0.1, "cyrillic": 0.1, "indic": 0.1}
LENGTH, VOCABULARY, HEADS = 32, 256, 4


class Problem(NamedTuple):
    """A source of training sets and a network.

    Attributes:
        names: of the domains, ``D``.
        sizes: examples of each domain, concrete ``[D]``.
        source: arrays that training sets are drawn from.
        draw: ``draw(key, source) -> (x, y)``, ``n`` examples sorted by domain.
        init: ``init(key) -> params``.
        losses: ``losses(tape, params, (x, y)) -> [B]``, in nats; a sequence's is the mean over its places.
    """

    names: tuple[str, ...]
    sizes: np.ndarray
    source: Any
    draw: Callable[[jax.Array, Any], tuple[jax.Array, jax.Array]]
    init: Callable[[jax.Array], Any]
    losses: Callable[..., jax.Array]

    @property
    def prior(self) -> jax.Array:
        """The domains' shares, float32 ``[D]``."""
        return jnp.asarray(self.sizes / self.sizes.sum(), jnp.float32)

    @property
    def groups(self) -> samplers.Partition:
        """Where the domains are in a training set."""
        return samplers.Partition(np.arange(self.sizes.sum()), np.cumsum(self.sizes) - self.sizes, self.sizes)


def apportion(shares, num_examples: int, at_most: int) -> np.ndarray:
    """Sizes in proportion to shares, at least 1 each, that sum to ``num_examples``.

    Raises:
        ValueError: more examples than there are.
    """
    if num_examples > at_most:
        raise ValueError(f"num_examples must be at most the source's {at_most}, got {num_examples}.")
    return np.asarray(samplers.allocate(jnp.asarray(shares, jnp.float32), num_examples))


def adult(num_examples: int, width: int, layers: int) -> Problem:
    """People of the census, grouped by race and sex as in the table, and an MLP on their features."""
    table = data.load_table("adult")
    everyone = np.bincount(table.groups)
    sizes = apportion(everyone, num_examples, everyone.sum())

    def draw(key, rows):
        drawn = split(key, rows, np.stack([sizes, everyone - sizes]))[0]
        return drawn.features, drawn.labels

    source = Rows(table.features, table.labels, table.groups)
    return Problem(table.group_names, sizes, source, draw, *_mlp(table.features.shape[1], width, layers, 2))


def mnist(num_examples: int, width: int, layers: int) -> Problem:
    """Digits of which some have a label drawn at random, and others four times the contrast, and an MLP."""
    images = data.load("mnist")
    sizes = apportion(list(MNIST.values()), num_examples, len(images.train_labels))

    def draw(key, source):
        row_key, label_key = jax.random.split(key)
        rows = jax.random.permutation(row_key, len(source[1]))[:num_examples]
        domain = jnp.repeat(jnp.arange(3), sizes, total_repeat_length=num_examples)
        x = source[0][rows] * jnp.where(domain == 2, 4.0, 1.0)[:, None]
        return x, jnp.where(domain == 1, jax.random.randint(label_key, rows.shape, 0, 10), source[1][rows])

    source = images.train_images, images.train_labels
    return Problem(tuple(MNIST), sizes, source, draw, *_mlp(source[0].shape[1], width, layers, 10))


def text(num_examples: int, width: int, layers: int) -> Problem:
    """Windows of 33 bytes of code, verse and three groups of languages, and a decoder that predicts the next byte."""
    source = tuple(data.load_text(name).train for name in TEXT)
    sizes = apportion(list(TEXT.values()), num_examples, sum(map(len, source)))
    model = norms.transformer(layers, width, HEADS, LENGTH, 1, VOCABULARY, 1)

    def draw(key, source):
        keys = jax.random.split(key, len(sizes))
        parts = [data.windows(k, x, LENGTH + 1, n) for k, x, n in zip(keys, source, sizes.tolist(), strict=True)]
        tokens = jnp.concatenate(parts).astype(jnp.int32)
        return tokens[:, :-1], tokens[:, 1:]

    def init(key):
        keys = iter(jax.random.split(key, 4 * layers + 3))
        return overhead.decoder_params(keys, layers, width, LENGTH, VOCABULARY)

    def losses(tape, params, batch):
        return norms.losses_of(model, tape, params, batch)

    return Problem(tuple(TEXT), sizes, source, draw, init, losses)


def _mlp(features, width, layers, classes):
    widths = (features, *[width] * layers, classes)
    model = norms.mlp(widths, 1, 1)
    return (
        lambda key: overhead.mlp_params(jax.random.split(key, len(widths) - 1), widths),
        lambda tape, params, batch: norms.losses_of(model, tape, params, batch),
    )
