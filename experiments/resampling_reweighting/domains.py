"""Problems on real data with unlike domains: each seed draws a training set of its own, and a network learns it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import norms, overhead
from experiments.hardness_sampling.tabular import Rows, split
from mixjax import data, samplers

__all__ = ["MNIST", "TEXT", "Problem", "adult", "apportion", "mnist", "text"]

# Each domain's share of the training set. The names are also the labels in figures.
MNIST = {"clean": 0.85, "random labels": 0.1, "contrast × 4": 0.05}
TEXT = {"python": 0.4, "shakespeare": 0.3, "european": 0.1, "cyrillic": 0.1, "indic": 0.1}
LENGTH, VOCABULARY, HEADS = 32, 256, 4


class Problem(NamedTuple):
    """Holds a source of training sets and the network that is trained on them.

    Attributes:
        names: the names of the ``D`` domains.
        sizes: the number of training examples of each domain, a NumPy array ``[D]``.
        source: the arrays that training sets are drawn from.
        draw: ``draw(key, source) -> (x, y)`` draws ``n`` examples, sorted by domain.
        init: ``init(key) -> params`` draws the first parameters.
        losses: ``losses(tape, params, (x, y)) -> [B]`` returns one loss an example, in nats. The loss of a sequence is
            the mean over its places.
    """

    names: tuple[str, ...]
    sizes: np.ndarray
    source: Any
    draw: Callable[[jax.Array, Any], tuple[jax.Array, jax.Array]]
    init: Callable[[jax.Array], Any]
    losses: Callable[..., jax.Array]

    @property
    def prior(self) -> jax.Array:
        """Returns the domains' shares of the training set, float32 ``[D]``."""
        return jnp.asarray(self.sizes / self.sizes.sum(), jnp.float32)

    @property
    def groups(self) -> samplers.Partition:
        """Returns the partition that says which rows of a training set belong to which domain."""
        return samplers.Partition(np.arange(self.sizes.sum()), np.cumsum(self.sizes) - self.sizes, self.sizes)


def apportion(shares, num_examples: int, at_most: int) -> np.ndarray:
    """Divides ``num_examples`` among domains in proportion to their shares, with at least one for each.

    Raises:
        ValueError: ``num_examples`` exceeds ``at_most``, the number of examples in the source.
    """
    if num_examples > at_most:
        raise ValueError(f"num_examples must be at most the source's {at_most}, got {num_examples}.")
    return np.asarray(samplers.allocate(jnp.asarray(shares, jnp.float32), num_examples))


def adult(num_examples: int, width: int, layers: int) -> Problem:
    """Builds the problem of a census table, whose domains are the table's groups by race and sex, and an MLP."""
    table = data.load_table("adult")
    everyone = np.bincount(table.groups)
    sizes = apportion(everyone, num_examples, everyone.sum())

    def draw(key, rows):
        # `split` divides each group in two parts: the examples that are drawn, and the others.
        drawn = split(key, rows, np.stack([sizes, everyone - sizes]))[0]
        return drawn.features, drawn.labels

    source = Rows(table.features, table.labels, table.groups)
    init, losses = _mlp(table.features.shape[1], width, layers, classes=2)
    return Problem(table.group_names, sizes, source, draw, init, losses)


def mnist(num_examples: int, width: int, layers: int) -> Problem:
    """Builds the problem of handwritten digits, some with random labels and some with four times the contrast."""
    images = data.load("mnist")
    sizes = apportion(list(MNIST.values()), num_examples, len(images.train_labels))

    def draw(key, source):
        pixels, labels = source
        row_key, label_key = jax.random.split(key)
        rows = jax.random.permutation(row_key, len(labels))[:num_examples]
        domain = jnp.repeat(jnp.arange(3), sizes, total_repeat_length=num_examples)
        x = pixels[rows] * jnp.where(domain == 2, 4.0, 1.0)[:, None]
        random_labels = jax.random.randint(label_key, rows.shape, 0, 10)
        return x, jnp.where(domain == 1, random_labels, labels[rows])

    source = images.train_images, images.train_labels
    init, losses = _mlp(images.train_images.shape[1], width, layers, classes=10)
    return Problem(tuple(MNIST), sizes, source, draw, init, losses)


def text(num_examples: int, width: int, layers: int) -> Problem:
    """Builds the problem of predicting the next byte of code, verse and three groups of languages with a decoder."""
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
    widths = (features, *(width for _ in range(layers)), classes)
    model = norms.mlp(widths, 1, 1)

    def init(key):
        return overhead.mlp_params(jax.random.split(key, len(widths) - 1), widths)

    def losses(tape, params, batch):
        return norms.losses_of(model, tape, params, batch)

    return init, losses
