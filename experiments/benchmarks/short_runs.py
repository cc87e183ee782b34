"""Defines the short trainings that the benchmark ``throughput`` sweeps.

Each is an ordinary ``train(key, hparams, data)`` with learnt loss weights.

Every step measures the batch's losses by domain, moves ERMA's weights and takes a step of SGD on the weighted loss.

- The linear problem is paper 000's, scaled down tenfold. Where a step takes all examples, the runs of a chunk share the
  matrix of features, and ``vmap`` makes their matrix-vector products one matrix product.
- The larger network has the layers of paper 000's section 5.3 (two domains, images of 28 x 28) and the batches of this
  project's reproduction.
- The smaller network has the sizes that tables ask for, with four domains.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mixjax
from experiments.benchmarks import figure_1
from experiments.loss_and_sampling_weights import glm, linear
from mixjax import rules, samplers

__all__ = ["GAMMA1", "Problem", "data", "loop", "problems", "sweep"]

# the sweep's axis; gamma2 is ERMA's default
GAMMA1 = (0.0, 1e-4, 1e-3, 1e-2)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Describes a training.

    Attributes:
        name: for the tables.
        domains: ``D``. Each has as many examples, and they stand one after the other.
        widths: the layers' widths. Two numbers ``(d, 1)`` are the linear model, whose parameters are a vector.
        examples: examples of each domain.
        batch: examples of each domain in a step, drawn with replacement; 0 takes all.
        num_steps: steps of a run.
        learning_rate: SGD's step size.
    """

    name: str
    domains: int
    widths: tuple[int, ...]
    examples: int
    batch: int
    num_steps: int
    learning_rate: float

    @property
    def linear(self) -> bool:
        """Tells whether it is regression with a linear model."""
        return self.widths[1:] == (1,)

    @property
    def rows(self) -> int:
        """Counts the examples in a step."""
        return self.domains * (self.batch or self.examples)

    @property
    def product_flops(self) -> int:
        """Counts the operations of a step's matrix products.

        A layer takes ``2 B m n`` forward, as many for the kernel's gradient and, but for the first layer, as many for
        the input's.
        """
        sizes = [m * n for m, n in zip(self.widths[:-1], self.widths[1:], strict=True)]
        return 2 * self.rows * (3 * sum(sizes) - sizes[0])

    def start(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Draws a run's first parameters and the examples of its steps.

        The examples are ``[T, B]``, or ``[T, 0]`` where a step takes all.
        """
        *keys, row_key = jax.random.split(key, len(self.widths))
        if self.linear:
            params = jax.random.normal(keys[0], self.widths[:1]) / self.widths[0] ** 0.5
        else:
            shapes = zip(self.widths[:-1], self.widths[1:], strict=True)
            params = [
                (jax.random.normal(k, s) * (2 / s[0]) ** 0.5, jnp.zeros(s[1]))
                for k, s in zip(keys, shapes, strict=True)
            ]
        groups = samplers.partition(np.repeat(np.arange(self.domains), self.examples))
        ids = jnp.repeat(jnp.arange(self.domains), self.batch)
        return params, samplers.with_replacement(row_key, groups, jnp.tile(ids, (self.num_steps, 1)))

    def losses(self, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        """Returns the losses, one for each example."""
        if self.linear:
            return linear.squared_error(x @ params, y)
        for kernel, bias in params[:-1]:
            x = jax.nn.relu(x @ kernel + bias)
        return optax.softmax_cross_entropy_with_integer_labels(x @ params[-1][0] + params[-1][1], y)

    def step(self, carry: tuple[Any, Any], rows: jax.Array, gamma1: jax.Array, data: Any) -> tuple[Any, Any]:
        """Returns ``(params, weights' state)`` after a step."""
        return self.descend(carry, jax.tree.map(lambda leaf: leaf[rows], data) if self.batch else data, gamma1)

    def descend(self, carry: tuple[Any, Any], batch: Any, gamma1: jax.Array) -> tuple[Any, Any]:
        """Returns ``(params, weights' state)`` after a step on a batch ``(x, y)``."""
        (params, state), rule, (x, y) = carry, rules.erma(gamma1), batch
        ids = jnp.repeat(jnp.arange(self.domains), self.rows // self.domains)

        def objective(params):
            return mixjax.weighted_loss(rule, state, self.losses(params, x, y), ids)

        grads, state = jax.grad(objective, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - self.learning_rate * g, params, grads), state

    def train(self, key: jax.Array, hparams: dict[str, jax.Array], data: Any) -> dict[str, jax.Array]:
        """Trains one run, as :func:`mixjax.sweep` asks; gives the domains' mean losses and loss weights at the end."""
        params, rows = self.start(key)
        state = rules.erma().init(jnp.ones(self.domains))
        (params, state), _ = jax.lax.scan(
            lambda carry, rows: (self.step(carry, rows, hparams["gamma1"], data), None), (params, state), rows
        )
        losses = self.losses(params, *data).reshape(self.domains, -1).mean(1)
        return {"losses": losses, "loss_weights": state.weights}


def problems(quick: bool) -> list[Problem]:
    """Returns all problems, or two tiny ones where ``quick``."""
    if quick:
        return [
            Problem("linear, all examples", 2, (20, 1), 20, 0, 10, 5e-4),
            Problem("MLP", 4, (8, 16, 4), 16, 4, 5, 0.1),
        ]
    return [
        Problem("linear, all examples", 2, (100, 1), 200, 0, 200, 5e-4),
        Problem("linear, batches", 2, (100, 1), 200, 8, 200, 5e-4),
        Problem("MLP 784-100-10", 2, (784, 100, 10), 200, 30, 100, 0.01),
        Problem("MLP 64-256-10", 4, (64, 256, 10), 256, 16, 100, 0.1),
    ]


@functools.cache
def data(problem: Problem) -> tuple[jax.Array, jax.Array]:
    """Returns features and targets.

    The linear model has paper 000's two Gaussian domains. The networks have classes around centres, with more and more
    wrong labels from domain to domain.
    """
    key, size = jax.random.key(0), problem.domains * problem.examples
    if problem.linear:
        config, _ = figure_1.settings()
        config = dataclasses.replace(config, dim=problem.widths[0], num_examples=problem.examples)
        made = glm.data_set(key, config, linear.label)
        return made.x, made.target
    keys, classes = jax.random.split(key, 5), problem.widths[-1]
    labels = jax.random.randint(keys[0], (size,), 0, classes)
    x = jax.random.normal(keys[1], (classes, problem.widths[0]))[labels]
    wrong = jax.random.uniform(keys[2], (size,)) < jnp.repeat(jnp.arange(problem.domains), problem.examples) / 8
    labels = jnp.where(wrong, jax.random.randint(keys[3], (size,), 0, classes), labels)
    return x + jax.random.normal(keys[4], x.shape), labels


@functools.cache
def trainer(problem: Problem) -> Callable:
    """Returns ``problem.train``, the same object each time, so that its compiled sweeps are found again."""
    return problem.train


def sweep(problem: Problem, runs: int, chunk: int, vectorize: str, **options: Any) -> Any:
    """Sweeps ``runs`` runs: four values of ``gamma1`` and seeds where 4 divides ``runs``, else one value."""
    axis = GAMMA1 if runs % len(GAMMA1) == 0 else GAMMA1[-1:]
    return mixjax.sweep(
        trainer(problem),
        seeds=runs // len(axis),
        axes={"gamma1": axis},
        data=data(problem),
        chunk=chunk,
        vectorize=vectorize,
        **options,
    )


@functools.cache
def _jitted(problem: Problem) -> Callable:
    return jax.jit(problem.train)


def loop(problem: Problem, runs: int) -> list[dict[str, np.ndarray]]:
    """Runs jitted runs one after the other on one device, and reads nothing back before the end."""
    run, made = _jitted(problem), data(problem)
    return jax.device_get([run(jax.random.key(seed), {"gamma1": GAMMA1[-1]}, made) for seed in range(runs)])
