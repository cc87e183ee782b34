"""The experiment on MNIST with 1 % of the 3s, an MLP and a small CNN: paper 004, sections 3.2, 4.1, 8.1, figure 1."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hardness_sampling import imbalanced, mnist_claims, mnist_figure, rare_class, schemes
from experiments.hardness_sampling.rare_class import Problem
from experiments.hardness_sampling.schemes import Scheme
from mixjax import samplers
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment
from mixjax.sweeps import Segments

__all__ = ["ESTIMATES", "METHODS", "Mnist", "freshness", "mnist", "scheme", "train"]

# Each method's way to draw examples, and its beta:
# - "erm": epochs in random order.
# - "wr": with replacement, as algorithm 1 reads.
# - "nr": without replacement, as the authors' code draws.
# - "is": as "wr", with clipped importance weights.
# - "chi2": with replacement, for Pearson's divergence.
METHODS = {
    "erm": ("erm", 0.0),
    "wr_0": ("wr", 0.0),
    "wr_0.1": ("wr", 0.1),
    "wr_1": ("wr", 1.0),
    "wr_10": ("wr", 10.0),
    "wr_100": ("wr", 100.0),
    "nr_10": ("nr", 10.0),
    "nr_100": ("nr", 100.0),
    "is_10": ("is", 10.0),
    "chi2_10": ("chi2", 10.0),
}

# The estimates of the robust mean loss that are made from a batch: with weights of 1, with the three kinds of
# importance weights, and with weights of 1 from a batch drawn without replacement.
ESTIMATES = ("stale", "clipped", "tree", "self_normalised", "without_replacement")

# The number of batches drawn at a checkpoint to judge the estimates.
NUM_BATCHES = 200


@dataclasses.dataclass(frozen=True)
class Mnist(Problem):
    """Holds the settings of section 4.1's problem.

    Attributes:
        methods: the methods to run, keys of ``METHODS``.
        checkpoints: how often the losses of all training examples are computed. The checkpoints are evenly spaced, and
            the last one is at the end.
    """

    methods: tuple[str, ...] = tuple(METHODS)
    checkpoints: int = 4


def scheme(config: Mnist, n: int, kind: str, beta: jax.typing.ArrayLike) -> Scheme:
    """Builds the scheme by which a method draws and weights examples."""
    if kind == "erm":
        return schemes.shuffled(n, config.batch_size)
    if kind == "chi2":
        return schemes.chi_squared(n, config.batch_size, beta)
    importance = "clipped" if kind == "is" else None
    return schemes.hardness(n, config.batch_size, beta, replacement=kind != "nr", importance=importance)


def freshness(key: jax.Array, beta: jax.Array, stale: jax.Array, fresh: jax.Array, batch_size: int) -> dict:
    """Measures how far draws from a stale history are from the robust distribution of the fresh losses.

    The robust distribution is softmax(beta fresh). The chi-squared divergence has another one: for a method that uses
    it, the numbers only say what a softmax would have made of its history.

    Args:
        key: draws the batches.
        beta: the inverse temperature, in 1 / nats.
        stale: the losses in the history, ``[n]``.
        fresh: the losses at the current parameters, ``[n]``.
        batch_size: the number of examples in a batch.

    Returns:
        A dict of:

        - ``tv_stale``, the total variation distance of softmax(beta stale) to the robust distribution.
        - ``tv_clipped``, the same distance of softmax(beta stale) times the clipped weights, normalised.
        - ``bias`` and ``error``, one for each of ``ESTIMATES``: the mean and the root mean square, over batches, of
          (estimate - target) / target. The target is the mean loss under the robust distribution.
    """
    n = len(stale)
    usual, distinct = (samplers.hardness(n, beta, replacement=replacement) for replacement in (True, False))
    state = usual.init(stale)
    target, drawn = jax.nn.softmax(beta * fresh), jnp.exp(usual.log_probs(state))
    weighted = drawn * usual.importance_weights(state, jnp.arange(n), fresh, kind="clipped")
    mean = jnp.dot(target, fresh)

    def batch(key):
        indices, losses = draw(usual, key)
        weights = [usual.importance_weights(state, indices, losses, kind=kind) for kind in ESTIMATES[1:4]]
        means = [jnp.mean(w * losses) for w in [jnp.ones(batch_size), *weights]]
        return jnp.stack([*means, draw(distinct, key)[1].mean()])

    def draw(sampler, key):
        indices, _ = sampler.sample(state, key, batch_size)
        return indices, fresh[indices]

    errors = jax.lax.map(batch, jax.random.split(key, NUM_BATCHES)) / mean - 1.0
    return {
        "tv_stale": 0.5 * jnp.abs(drawn - target).sum(),
        "tv_clipped": 0.5 * jnp.abs(weighted / weighted.sum() - target).sum(),
        "bias": errors.mean(axis=0),
        "error": jnp.sqrt(jnp.square(errors).mean(axis=0)),
    }


def train(config: Mnist) -> Segments:
    """Trains every method on one seed's split, from one initialisation.

    A segment of training ends at a checkpoint.

    Returns:
        A training run. Its metrics are those of ``imbalanced.UNITS``, ``[step, method]``, and those of
        :func:`freshness`, ``[checkpoint, method, ...]``.
    """
    # Methods that differ in beta only are mapped over beta, so that each kind is compiled once.
    kinds: dict[str, list[str]] = {}
    for name in config.methods:
        kinds.setdefault(METHODS[name][0], []).append(name)
    betas = {kind: np.array([METHODS[name][1] for name in names], np.float32) for kind, names in kinds.items()}
    # The methods kind by kind -> in the order of the config.
    mapped = [name for names in kinds.values() for name in names]
    order = np.array([mapped.index(name) for name in config.methods])

    def init(key, hparams, images):
        used = configs.replace(config, hparams)
        n = rare_class.num_kept(used, images)

        def start(beta, kind):
            return imbalanced.start(key, used, images, scheme(used, n, kind, beta))

        parts, _ = start(0.0, "erm")
        carries = {
            kind: jax.lax.map(lambda beta, kind=kind: start(beta, kind)[1], values) for kind, values in betas.items()
        }
        return parts, carries

    def advance(carry, hparams, images):
        parts, carries = carry
        used = configs.replace(config, hparams)
        found = {
            kind: jax.lax.map(lambda x, kind=kind: _stage(*x, used, images, parts, kind), (carries[kind], values))
            for kind, values in betas.items()
        }
        # Time first: [method, time, ...] of each kind -> [time, method, ...] of all.
        metrics = jax.tree.map(
            lambda *kinds: jnp.concatenate(kinds)[order].swapaxes(0, 1), *(metrics for _, metrics in found.values())
        )
        return (parts, {kind: carry for kind, (carry, _) in found.items()}), metrics

    return Segments(init, advance, config.checkpoints)


def _stage(carry, beta, config, images, parts, kind):
    """Trains a method from one checkpoint to the next; its metrics are ``[step, ...]`` and ``[1, ...]``."""
    n = rare_class.num_kept(config, images)
    drawn = scheme(config, n, kind, beta)

    def advance(carry, _):
        carry, seen = jax.lax.scan(
            lambda carry, _: imbalanced.step(carry, config, images, parts, drawn), carry, length=config.record_every
        )
        return carry, jax.tree.map(jnp.mean, seen) | imbalanced.evaluate(carry, config, images, parts, drawn)

    rounds = config.num_steps // config.record_every // config.checkpoints
    carry, records = jax.lax.scan(advance, carry, length=rounds)
    fresh = imbalanced.train_losses(config, images, parts, carry.params, carry.stats, jnp.arange(n))
    # A folded key leaves training's own key as it was, so that checkpoints do not change the run.
    stale, test_key = drawn.history(carry.state), jax.random.fold_in(carry.key, 1)
    measured = freshness(test_key, beta, stale, fresh, config.batch_size)
    return carry, records | jax.tree.map(lambda x: x[None], measured)


def mnist(config: Mnist) -> Experiment:
    """Builds the experiment that shows figure 1.

    Raises:
        ValueError: a method is unknown, or ``num_steps`` is not a multiple of ``record_every`` times ``checkpoints``.
    """
    unknown = sorted(set(config.methods) - set(METHODS))
    if unknown:
        raise ValueError(f"methods must be among {', '.join(METHODS)}, got {unknown}.")
    stage, steps = config.record_every * config.checkpoints, config.num_steps
    if steps % stage:
        raise ValueError(f"num_steps must be a multiple of record_every x checkpoints = {stage}, got {steps}.")
    units = {**imbalanced.UNITS, "tv_stale": "1", "tv_clipped": "1", "bias": "share", "error": "share"}
    dims = dict.fromkeys(imbalanced.UNITS, ("step", "method"))
    dims |= dict.fromkeys(("tv_stale", "tv_clipped"), ("checkpoint", "method"))
    dims |= dict.fromkeys(("bias", "error"), ("checkpoint", "method", "estimate"))
    return Experiment(
        train=train(config),
        data=rare_class.load(config.rare_class),
        dims=dims,
        coords={
            "method": list(config.methods),
            "step": range(config.record_every, steps + 1, config.record_every),
            "checkpoint": range(steps // config.checkpoints, steps + 1, steps // config.checkpoints),
            "estimate": list(ESTIMATES),
        },
        units=units,
        figure=mnist_figure.figure,
        claims=mnist_claims.claims,
    )
