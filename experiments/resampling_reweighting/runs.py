"""What paper 003's experiments share: runs of so many steps, and what is told of many of them."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from mixjax import grad_norms, resampling


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of a fixed number of steps.

    Attributes:
        learning_rate: ``η``.
        num_steps: steps of a run.
        record_every: steps between records.
    """

    learning_rate: float
    num_steps: int
    record_every: int

    def __post_init__(self):
        """Raises a ValueError for steps that are no multiple of ``record_every``."""
        if self.num_steps % self.record_every:
            raise ValueError(f"num_steps must be a multiple of {self.record_every}, got {self.num_steps}.")

    @property
    def steps(self) -> range:
        """The steps that are recorded."""
        return range(self.record_every, self.num_steps + 1, self.record_every)


def direction(
    method: str,
    key: jax.Array,
    gradients: Callable[[jax.Array | slice], jax.Array],
    sizes: jax.Array,
    n: int,
    lipschitz: jax.Array | None = None,
) -> jax.Array:
    """One step's estimate of the mean gradient of examples that come in groups, one after the other.

    Args:
        method: ``sgd``; ``group``, one element a group and the group by ``a_j ‖g_j‖``; ``per_term``, eq. 3.5, all norms
            at these parameters; ``static``, section 2's, by Lipschitz constants.
        key: a ``jax.random.key``; every method draws its example, or group, from the same part of it.
        gradients: indices of ``k`` examples to their gradients ``[k, d]``.
        sizes: int, the groups' numbers of examples.
        n: their sum.
        lipschitz: ``[n]``, for ``static``.

    Returns:
        ``[d]``.
    """
    draw_key, element_key = jax.random.split(key)
    if method == "sgd":
        return gradients(jax.random.randint(draw_key, (1,), 0, n))[0]
    if method == "group":
        elements = jnp.cumsum(sizes) - sizes + jax.random.randint(element_key, sizes.shape, 0, sizes)
        return resampling.group_estimate(draw_key, gradients(elements), sizes / n)
    grads, uniform = gradients(slice(None)), jnp.full(n, 1.0 / n)
    scores = grad_norms.norm(grads) if method == "per_term" else lipschitz
    return resampling.estimate(draw_key, grads, uniform, resampling.probabilities(scores, uniform))


def bounds(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share after Clopper and Pearson."""
    return tuple(stats.binomtest(count, total).proportion_ci(method="exact"))


def interval(left) -> str:
    """A share of runs with its 95 % interval."""
    count, total = int(np.sum(left)), int(np.size(left))
    low, high = bounds(count, total)
    return f"{count} of {total} ({low:.3f} to {high:.3f})"


def at(data, learning_rate: float, method: str):
    """One metric's data set of a method at a learning rate of the sweep.

    Raises:
        ValueError: the sweep has no such learning rate.
    """
    nearest = data.sel({"method": method}).sel(learning_rate=learning_rate, method="nearest")
    if abs(nearest.learning_rate.item() / learning_rate - 1) > 1e-5:
        raise ValueError(f"no run at learning rate {learning_rate:g}: it must be among sweep.learning_rate.")
    return nearest


def swept(results, learning_rate: float):
    """The first run's data, with the sweep's axis even where there was one learning rate only."""
    data = next(iter(results.values()))
    return data if "learning_rate" in data.dims else data.expand_dims(learning_rate=[learning_rate])


def by_rate(values, digits: int = 3) -> str:
    """Means over seeds by learning rate, one a method."""
    means = values.mean("seed").transpose("learning_rate", "method")
    return ", ".join(
        f"{row.learning_rate.item():g}: {' / '.join(f'{x:.{digits}f}' for x in row.values)}" for row in means
    )
