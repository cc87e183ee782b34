"""Trains on real images in two domains, one of which has wrong labels: the quickstart and paper 000's section 5.3.

Each seed splits the images at random into a clean and a noisy half and gives a fraction of the noisy half's labels to
another class. The model is a network with one hidden layer. Four methods train side by side under ``vmap`` on common
random numbers.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.shared.sentences import verdict
from mixjax import data, rules
from mixjax.runner.claims import Claim
from mixjax.runner.loading import load_once
from mixjax.runner.results import Results

__all__ = [
    "METHODS",
    "PRIOR",
    "STYLES",
    "Batch",
    "ImageProblem",
    "Source",
    "Split",
    "accuracy",
    "flip_labels",
    "for_methods",
    "half",
    "init",
    "judged",
    "limits",
    "load",
    "losses",
    "measure",
    "points",
    "predict",
    "split",
]

METHODS = {"vanilla": "vanilla SGD", "va": "VA", "erma": "ERMA", "erma_va": "ERMA + VA"}
# dashed, since loss weights with and without VA are nearly the same
STYLES = {"va": {"ls": "--"}, "erma_va": {"ls": "--"}}
PRIOR = (0.5, 0.5)
Source = Literal["digits", "mnist"]


@dataclasses.dataclass(frozen=True)
class ImageProblem:
    """Holds the settings of an experiment on noisy images.

    Attributes:
        source: the image set, a name of ``mixjax.data.load``.
        flip: probability that a label of the noisy domain is wrong.
        hidden: number of ReLU units.
        batch_size: ``B``.
        num_steps: ``T``.
        learning_rate: SGD's step size.
        gamma1: ERMA's ``gamma1``.
        gamma2: ERMA's ``gamma2``.
        normalised: whether ERMA rescales w to mean 1 after each update, or is eq. 12 without its proportionality.
    """

    source: Source = "digits"
    flip: float = 0.2
    hidden: int = 100
    batch_size: int = 32
    num_steps: int = 500
    learning_rate: float = 0.3
    gamma1: float = 0.01
    gamma2: float = 0.05
    normalised: bool = True


class Batch(NamedTuple):
    """Holds examples.

    Attributes:
        images: ``[..., pixels]``.
        labels: ``[...]``.
    """

    images: jax.Array
    labels: jax.Array


class Split(NamedTuple):
    """Holds one seed's two domains, the clean one in row 0 and the noisy one in row 1.

    Attributes:
        indices: ``[2, half]``, which images belong to the domain.
        labels: ``[2, half]``, their labels as they are given.
    """

    indices: jax.Array
    labels: jax.Array


class Network(NamedTuple):
    """Holds the parameters of ``relu(x @ w1 + b1) @ w2 + b2``."""

    w1: jax.Array
    b1: jax.Array
    w2: jax.Array
    b2: jax.Array


@load_once
def load(source: str) -> dict[str, Batch]:
    """Loads the training and the test images, for the ``data`` of an experiment."""
    images = data.load(source)
    return {
        "train": Batch(images.train_images, images.train_labels),
        "test": Batch(images.test_images, images.test_labels),
    }


def half(images: Batch) -> int:
    """Returns the number of examples of each domain; an odd one out is left out."""
    return images.labels.shape[0] // 2


def flip_labels(key: jax.Array, labels: jax.Array, probability: jax.typing.ArrayLike, num_classes: int = 10):
    """Gives each label, with the given probability, to one of the other classes, all equally likely."""
    whether, which = jax.random.split(key)
    wrong = (labels + jax.random.randint(which, labels.shape, 1, num_classes)) % num_classes
    return jnp.where(jax.random.bernoulli(whether, probability, labels.shape), wrong, labels)


def split(key: jax.Array, images: Batch, probability: jax.typing.ArrayLike) -> Split:
    """Splits the images at random into two halves, in random order, and flips labels of the second."""
    order_key, flip_key = jax.random.split(key)
    num = half(images)
    indices = jax.random.permutation(order_key, images.labels.shape[0])[: 2 * num].reshape(2, num)
    clean, noisy = images.labels[indices]
    return Split(indices, jnp.stack([clean, flip_labels(flip_key, noisy, probability)]))


def init(key: jax.Array, num_pixels: int, hidden: int, num_classes: int = 10) -> Network:
    """Draws normal weights of variance 2 / inputs (hidden layer) and 1 / inputs (output); biases are zero."""
    first, second = jax.random.split(key)
    return Network(
        jnp.sqrt(2.0 / num_pixels) * jax.random.normal(first, (num_pixels, hidden)),
        jnp.zeros(hidden),
        jnp.sqrt(1.0 / hidden) * jax.random.normal(second, (hidden, num_classes)),
        jnp.zeros(num_classes),
    )


def _activations(params: Network, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden = jax.nn.relu(images @ params.w1 + params.b1)
    return hidden, hidden @ params.w2 + params.b2


def losses(params: Network, batch: Batch) -> jax.Array:
    """Returns the cross-entropy of each example, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(_activations(params, batch.images)[1], batch.labels)


def predict(params: Network, images: jax.Array) -> jax.Array:
    """Returns the class of highest score."""
    return jnp.argmax(_activations(params, images)[1], axis=-1)


def accuracy(params: Network, batch: Batch) -> jax.Array:
    """Returns the share of images whose class of highest score is the label, in percent.

    It is NaN for a network that has diverged.
    """
    scores = _activations(params, batch.images)[1]
    right = jnp.argmax(scores, axis=-1) == batch.labels
    return jnp.where(jnp.isfinite(scores).all(), 100.0 * jnp.mean(right), jnp.nan)


def measure(params: Network, batch: Batch) -> dict[str, jax.Array]:
    """Measures ``counts``, ``losses``, ``loss_vars`` and ``grad_stds`` of examples ``[domain, n, ...]``.

    A layer's gradient for one example is the outer product of what enters the layer (with a 1 for the bias) and the
    error that comes back to it, so that the inner product of two examples' gradients is a product of two inner products
    for each layer, and no gradient is ever formed. Eq. 15 is then read off the matrix of inner products:
    ``(n - 1) v² = trace - sum / n``.
    """
    hidden, scores = _activations(params, batch.images)
    values = optax.softmax_cross_entropy_with_integer_labels(scores, batch.labels)
    errors2 = jax.nn.softmax(scores) - jax.nn.one_hot(batch.labels, scores.shape[-1])
    errors1 = (errors2 @ params.w2.T) * (hidden > 0)

    def inner(x):
        return x @ jnp.swapaxes(x, -1, -2)

    grams = (inner(batch.images) + 1.0) * inner(errors1) + (inner(hidden) + 1.0) * inner(errors2)
    num = values.shape[-1]
    squares = jnp.trace(grams, axis1=-2, axis2=-1) - grams.sum(axis=(-2, -1)) / num
    # rounding may leave the sum of squares below 0 where all gradients are the same
    return {
        "counts": jnp.full(values.shape[:1], num),
        "losses": values.mean(axis=-1),
        "loss_vars": values.var(axis=-1, ddof=1),
        "grad_stds": jnp.sqrt(jnp.maximum(squares, 0.0) / (num - 1)),
    }


def for_methods(problem: ImageProblem, run: Callable, *states: Any) -> Any:
    """Calls ``run(loss_rule, sampling_rule, *states)`` for every method, in the order of ``METHODS``, as one batch.

    The states are pytrees whose leaves have a row for each method.
    """
    uniform, va = rules.fixed(), rules.variance_aware()
    erma = rules.erma(problem.gamma1, problem.gamma2, normalised=problem.normalised)

    def one(uses_erma, uses_va, *states):
        return run(rules.select([uniform, erma], uses_erma), rules.select([uniform, va], uses_va), *states)

    return jax.vmap(one)(jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 0, 1]), *states)


def limits(datasets: Iterable, metric: str, skip: float = 0.1) -> tuple[float, float]:
    """Returns limits for an axis, in whole numbers, that leave out the steep rise of the first tenth of training."""
    means = [d[metric].mean("seed").isel(step=slice(round(skip * d.sizes["step"]), None)).values for d in datasets]
    finite = [value for mean in means for value in mean[np.isfinite(mean)]]
    # all runs may have diverged
    if not finite:
        return 0.0, 1.0
    return float(np.floor(min(finite))), float(np.ceil(max(finite)))


def points(results: Results) -> Results:
    """Returns the results of every run at every point of its sweep, by a name that says which."""
    found = {}
    for name, dataset in results.items():
        axes = list(dataset["loss_weight"].dims[: dataset["loss_weight"].dims.index("seed")])
        stacked = dataset.stack(point=axes) if axes else dataset.expand_dims("point")
        for number in range(stacked.sizes["point"]):
            one = stacked.isel(point=number)
            where = [f"{axis.replace('_', ' ')} {one[axis].item():g}" for axis in axes]
            named = [name, *where] if len(results) > 1 else where
            found[", ".join(named)] = one.reset_coords(drop=True)
    return found


def judged(results: Results, judge: Callable[..., Claim], note: str = "") -> Claim:
    """Judges a claim at the first point of the first run; its note tells how it fares at the others.

    Args:
        results: from a run's name to its data set.
        judge: ``judge(dataset) -> claim``.
        note: says what the numbers are.

    Returns:
        The claim. Where another point has one seed only, its note leaves the point out.
    """
    shown = points(results)
    main, *others = [judge(dataset) for dataset in shown.values()]
    names = list(shown)[1:]
    rest = [f"{name}: {verdict(claim)}" for name, claim in zip(names, others, strict=True) if claim.stderr is not None]
    return dataclasses.replace(main, note="; ".join(filter(None, [note, main.note, *rest])))
