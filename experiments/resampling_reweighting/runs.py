"""Helpers of paper 003's experiments: settings of a run, one step's gradient estimate, and summaries of many runs."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from experiments.resampling_reweighting import schemes
from mixjax import grad_norms

__all__ = ["Run", "at", "bounds", "by_rate", "direction", "interval", "swept"]


@dataclasses.dataclass(frozen=True)
class Run:
    """Holds the settings that every experiment with a fixed number of steps has.

    Attributes:
        learning_rate: the learning rate ``η``.
        num_steps: the number of steps of a run.
        record_every: the number of steps between two records.
    """

    learning_rate: float
    num_steps: int
    record_every: int

    def __post_init__(self):
        """Raises a ValueError if ``num_steps`` is not a multiple of ``record_every``."""
        if self.num_steps % self.record_every:
            raise ValueError(f"num_steps must be a multiple of {self.record_every}, got {self.num_steps}.")

    @property
    def steps(self) -> range:
        """Returns the numbers of the steps after which a record is made."""
        return range(self.record_every, self.num_steps + 1, self.record_every)


def direction(
    method: str,
    key: jax.Array,
    gradients: Callable[[jax.Array | slice], jax.Array],
    sizes: jax.Array,
    n: int,
    lipschitz: jax.Array | None = None,
) -> jax.Array:
    """Estimates the mean gradient of all examples from one draw, as one step of a method does.

    The examples are sorted by group: first all of the first group, then all of the second, and so on.

    Args:
        method: how to draw.

            - ``sgd``: one example, uniformly.
            - ``group``: one element of each group uniformly, then one group with probability in proportion to
              ``a_j ‖g_j‖``, its share times the norm of its element's gradient.
            - ``per_term``: one example by the norms of all gradients at these parameters (eq. 3.5).
            - ``static``: one example by Lipschitz constants, which do not change (section 2).
        key: a ``jax.random.key``. Every method draws its example or group from the same part of it, so that runs of
            different methods are paired.
        gradients: maps the indices of ``k`` examples to their gradients ``[k, d]``.
        sizes: the number of examples of each group, int.
        n: the number of all examples.
        lipschitz: the examples' Lipschitz constants ``[n]``; only ``static`` reads them.

    Returns:
        The estimate ``[d]``.
    """
    draw_key, element_key = jax.random.split(key)
    if method == "sgd":
        return gradients(jax.random.randint(draw_key, (1,), 0, n))[0]
    if method == "group":
        # One element of each group: the groups' first places plus a random place within each of them.
        elements = jnp.cumsum(sizes) - sizes + jax.random.randint(element_key, sizes.shape, 0, sizes)
        return schemes.group_estimate(draw_key, gradients(elements), sizes / n)
    grads, uniform = gradients(slice(None)), jnp.full(n, 1.0 / n)
    # A gradient's norm holds at these parameters only. A Lipschitz constant bounds it everywhere.
    scores = grad_norms.norm(grads) if method == "per_term" else lipschitz
    return schemes.estimate(draw_key, grads, uniform, schemes.probabilities(scores, uniform))


def bounds(count: int, total: int) -> tuple[float, float]:
    """Returns the 95 % interval of the share ``count / total`` after Clopper and Pearson."""
    return tuple(stats.binomtest(count, total).proportion_ci(method="exact"))


def interval(left) -> str:
    """Writes how many runs have a flag of 1, with the 95 % interval of their share."""
    count, total = int(np.sum(left)), int(np.size(left))
    low, high = bounds(count, total)
    return f"{count} of {total} ({low:.3f} to {high:.3f})"


def at(data, learning_rate: float, method: str):
    """Selects a method's values at one learning rate of the sweep.

    Raises:
        ValueError: the sweep has no such learning rate.
    """
    # The sweep holds its learning rates as float32, so an exact look-up of a Python float would fail.
    nearest = data.sel({"method": method}).sel(learning_rate=learning_rate, method="nearest")
    if abs(nearest.learning_rate.item() / learning_rate - 1) > 1e-5:
        raise ValueError(f"no run at learning rate {learning_rate:g}: it must be among sweep.learning_rate.")
    return nearest


def swept(results, learning_rate: float):
    """Returns the first run's data with a ``learning_rate`` axis, which it lacks where only one rate was run."""
    data = next(iter(results.values()))
    return data if "learning_rate" in data.dims else data.expand_dims(learning_rate=[learning_rate])


def by_rate(values, digits: int = 3) -> str:
    """Writes each learning rate with every method's mean over seeds."""
    means = values.mean("seed").transpose("learning_rate", "method")
    return ", ".join(
        f"{row.learning_rate.item():g}: {' / '.join(f'{x:.{digits}f}' for x in row.values)}" for row in means
    )
