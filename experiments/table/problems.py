"""Defines the problems of the table: paper 000's training problems and the groups of a real table.

All have one interface, :class:`Problem`. Each seed draws its own data, in four parts that share no example:

- training points;
- held-out points that the rules look at;
- validation points that choose hyperparameters;
- points that the final model is judged on.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.fewer_weight_updates.mnist_domains import pool
from experiments.hardness_sampling import tabular
from experiments.loss_and_sampling_weights import glm, linear, logistic, noisy_images
from mixjax import data as datasets
from mixjax import samplers

__all__ = ["Gaussians", "Groups", "Images", "Problem", "Setup", "gaussians", "groups", "images"]


@dataclasses.dataclass(frozen=True)
class Gaussians:
    """Describes two Gaussian domains and a linear predictor: sections 5.1 and 5.2 and appendix C.

    Attributes:
        model: linear regression, judged by the distance to the true parameter, or logistic regression, judged by the
            cosine distance to it.
        scales: ``C_d``; features of domain ``d`` are N(0, C_d I).
        noise: label-noise variances (linear) or flip probabilities (logistic).
        dim: number of features.
        num_examples: training examples a domain, drawn from with replacement; 0 is a fresh stream.
    """

    model: Literal["linear", "logistic"] = "linear"
    scales: tuple[float, float] = (100.0, 1.0)
    noise: tuple[float, float] = (1.0, 20.0)
    dim: int = 100
    num_examples: int = 200


@dataclasses.dataclass(frozen=True)
class Images:
    """Describes images in two halves, the second one worse, and a network of one hidden layer.

    The halves are those of section 5.3, or of sections 4 and 6.

    It is judged by its error on test images with their true labels.

    Attributes:
        source: the image set, a name of ``mixjax.data.load``.
        flip: probability that a label of the second half is wrong.
        distinct: different images that the second half shows; 0 is all of its own.
        jitter: standard deviation of the noise on every pixel of a repeated image, in grey values from 0 to 1.
        pooled: whether images are halved in width and height, by means.
        hidden: number of ReLU units.
    """

    source: Literal["digits", "mnist"] = "digits"
    flip: float = 0.0
    distinct: int = 0
    jitter: float = 0.05
    pooled: bool = False
    hidden: int = 32


@dataclasses.dataclass(frozen=True)
class Groups:
    """Describes groups of a real table, domains of very different sizes, judged by the error in the worst group.

    Attributes:
        table: a name of ``mixjax.data.load_table``.
        hidden: number of ReLU units; 0 is logistic regression.
    """

    table: Literal["adult", "compas", "heart"] = "adult"
    hidden: int = 0


class Setup(NamedTuple):
    """Holds one seed's problem.

    Attributes:
        params: the initial model.
        losses: ``losses(params, batch)`` gives one loss for each example of a batch with any leading axes.
        draw: ``draw(key, domain_ids) -> batch`` of training examples.
        held_out: the points that rules look at, ``[D, n, ...]``.
        judge: ``judge(params)``: ``validation``, the loss that chooses, and ``test``, the error that is reported.
    """

    params: Any
    losses: Callable[[Any, Any], jax.Array]
    draw: Callable[[jax.Array, jax.Array], Any]
    held_out: Any
    judge: Callable[[Any], dict[str, jax.Array]]


class Problem(NamedTuple):
    """Holds what all seeds of a problem share.

    Attributes:
        data: an argument of the program.
        setup: ``setup(key, data) -> Setup``.
        prior: the domains' prior ``[D]``.
        domains: the domains' names.
        error: ``(what the test error is, its unit)``.
        variances: the label noise's variances, where the problem has such a thing and knows it.
        streams: whether no training point is ever seen again.
    """

    data: Any
    setup: Callable[[jax.Array, Any], Setup]
    prior: np.ndarray
    domains: tuple[str, ...]
    error: tuple[str, str]
    variances: tuple[float, ...] | None = None
    streams: bool = False


def gaussians(settings: Gaussians, held_out: int, validation: int) -> Problem:
    """Makes the problem of two Gaussian domains, with so many held-out and validation points each."""
    module, loss, error = {
        "linear": (linear, linear.squared_error, ("distance to the true parameter", "parameter units")),
        "logistic": (logistic, logistic.cross_entropy, ("cosine distance to the true parameter", "1")),
    }[settings.model]
    generator = glm.GaussianProblem(
        scales=settings.scales, noise=settings.noise, dim=settings.dim, num_examples=settings.num_examples
    )
    groups = samplers.partition(np.repeat(np.arange(2), settings.num_examples)) if settings.num_examples else None

    def losses(params, batch):
        return loss(glm.predict(params, batch), batch.target)

    def setup(key, data):
        del data  # each seed draws its own
        data_key, held_out_key, validation_key = jax.random.split(key, 3)

        def points(key, num):
            batch = glm.generate(key, generator, module.label, jnp.repeat(jnp.arange(2), num))
            return jax.tree.map(lambda x: x.reshape(2, num, *x.shape[1:]), batch)

        if groups is None:

            def draw(key, domain_ids):
                return glm.generate(key, generator, module.label, domain_ids)

        else:
            training = glm.data_set(data_key, generator, module.label)

            def draw(key, domain_ids):
                return jax.tree.map(lambda x: x[samplers.with_replacement(key, groups, domain_ids)], training)

        chosen_on = points(validation_key, validation)

        def judge(params):
            distance = jnp.linalg.norm(params - glm.truth(settings.dim))
            test = distance if settings.model == "linear" else logistic.cosine_distance(params)
            return {"validation": losses(params, chosen_on).mean(), "test": test}

        return Setup(jnp.zeros(settings.dim), losses, draw, points(held_out_key, held_out), judge)

    variances = settings.noise if settings.model == "linear" else None
    return Problem(
        data=None,
        setup=setup,
        prior=np.full(2, 0.5),
        domains=("one", "two"),
        error=error,
        variances=variances,
        streams=groups is None,
    )


def images(settings: Images, held_out: int, validation: int) -> Problem:
    """Makes the problem of two halves of an image set, with so many held-out and validation images each."""
    data = noisy_images.load(settings.source)
    if settings.pooled:
        data = {part: batch._replace(images=pool(batch.images)) for part, batch in data.items()}
    first, size = held_out + validation, noisy_images.half(data["train"])

    def setup(key, data):
        split_key, init_key, held_out_key, validation_key = jax.random.split(key, 4)
        split = noisy_images.split(split_key, data["train"], settings.flip)

        def take(key, domain_ids, rows):
            repeats = (domain_ids == 1) & (settings.distinct > 0)
            # the distinct images come after the parts that are held out; max() keeps % 0 out where there are none
            rows = jnp.where(repeats, first + rows % max(settings.distinct, 1), rows)
            shown = data["train"].images[split.indices[domain_ids, rows]]
            if settings.distinct:
                noise = settings.jitter * jax.random.normal(key, shown.shape)
                shown = jnp.where(repeats[..., None], shown + noise, shown)
            return noisy_images.Batch(shown, split.labels[domain_ids, rows])

        def draw(key, domain_ids):
            row_key, noise_key = jax.random.split(key)
            return take(noise_key, domain_ids, jax.random.randint(row_key, domain_ids.shape, first, size))

        def part(key, start, stop):
            shape = (2, stop - start)
            domain_ids = jnp.broadcast_to(jnp.arange(2)[:, None], shape)
            return take(key, domain_ids, jnp.broadcast_to(jnp.arange(start, stop), shape))

        chosen_on = part(validation_key, held_out, first)

        def judge(params):
            right = noisy_images.predict(params, data["test"].images) == data["test"].labels
            return {
                "validation": noisy_images.losses(params, chosen_on).mean(),
                "test": 100.0 * (1.0 - right.mean()),
            }

        params = noisy_images.init(init_key, data["train"].images.shape[1], settings.hidden)
        return Setup(params, noisy_images.losses, draw, part(held_out_key, 0, held_out), judge)

    return Problem(
        data=data,
        setup=setup,
        prior=np.full(2, 0.5),
        domains=("first half", "second half"),
        error=("test error", "%"),
    )


def groups(settings: Groups, held_out: int, validation: int) -> Problem:
    """Makes the problem of a table's groups.

    The parts are fixed fractions of each group. Validation and test parts are whole, 10 % and 30 % of it, and rules
    look at ``held_out`` rows a group. ``validation`` is not used.
    """
    del validation
    table = datasets.load_table(settings.table)
    num_groups = len(table.group_names)
    training, rest, test = tabular.part_sizes(np.bincount(table.groups))
    sizes = np.stack([training, rest // 2, rest - rest // 2, test])
    rows = tabular.Rows(table.features, table.labels, table.groups)

    def partition(part):
        return samplers.Partition(np.arange(part.sum()), np.cumsum(part) - part, part)

    def setup(key, data):
        split_key, init_key, held_out_key = jax.random.split(key, 3)
        seen, looked_at, chosen_on, judged_on = tabular.split(split_key, data, sizes)

        def drawn(key, rows, part, domain_ids):
            return jax.tree.map(lambda x: x[samplers.with_replacement(key, partition(part), domain_ids)], rows)

        points = drawn(held_out_key, looked_at, sizes[1], jnp.repeat(jnp.arange(num_groups), held_out))

        def judge(params):
            found = [tabular.measure(params, rows, num_groups) for rows in (chosen_on, judged_on)]
            return {"validation": found[0]["loss"].max(), "test": 100.0 - found[1]["accuracy"].min()}

        return Setup(
            params=tabular.init(init_key, data.features.shape[1], settings.hidden),
            losses=tabular.losses,
            draw=lambda key, domain_ids: drawn(key, seen, sizes[0], domain_ids),
            held_out=jax.tree.map(lambda x: x.reshape(num_groups, held_out, *x.shape[1:]), points),
            judge=judge,
        )

    return Problem(
        data=rows,
        setup=setup,
        prior=training / training.sum(),
        domains=table.group_names,
        error=("test error in the worst group", "%"),
    )
