"""Trains a U-Net on patches of brain tumours with hardness weighted sampling: paper 004, algorithm 1, section 4.2."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.hardness_sampling import augmentation, dice, unet
from mixjax import samplers
from mixjax.data.segmentation import CHANNELS, REGIONS, Cases

__all__ = [
    "NUM_CLASSES",
    "Carry",
    "Segmentation",
    "epoch",
    "make_net",
    "make_optimizer",
    "patches",
    "scores_of",
    "start",
]

# The regions and the background.
NUM_CLASSES = 1 + len(REGIONS)


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """Holds the settings of section 4.2's problem.

    Attributes:
        source: the source of the cases, the simulation or a folder of BraTS cases.
        folder: the folder of the BraTS cases.
        anatomies: the names of the simulation's real brains in ``mixjax.data.anatomies``.
        data_seed: the seed of the simulation. It is apart from the seeds of the runs.
        train_cases: the number of training cases of each centre of ``lesions.CENTRES``.
        test_cases: the number of test cases of each centre.
        test_share: the share of each centre's BraTS cases that is kept for testing.
        centre: the centre that figure 3 compares with the others.
        grid: the number of voxels along each side of a case.
        patch: the number of voxels along each side of a patch.
        num_levels: the number of levels of the U-Net.
        width: the number of features at the U-Net's finest level.
        max_width: the largest number of features at any level.
        num_heads: the number of resolutions with deep supervision.
        batch_size: ``b``, the number of patches in a batch.
        num_epochs: ``t_max``, the number of epochs.
        batches: the number of batches in an epoch. The learning rate is constant within an epoch.
        learning_rate: the learning rate of the first epoch.
        momentum: Nesterov's momentum; 0 is plain SGD.
        max_gradient: the Euclidean norm at which gradients are clipped. nnU-Net's is 12.
        initial_loss: ``L_init``, the stale loss of a case that no batch has held yet.
        betas: ``beta`` of each method; 0 is ERM.
        importance_sampling: for each method, whether it weights losses by steps 9 and 10 of algorithm 1.
        uniform_centres: for each method, whether its prior draws each centre alike, in place of each case. Empty where
            none does.
    """

    source: Literal["simulation", "brats"] = "simulation"
    folder: str = ""
    anatomies: tuple[str, ...] = ("mni152", "colin27")
    data_seed: int = 0
    train_cases: tuple[int, ...] = (40, 30, 20, 6)
    test_cases: tuple[int, ...] = (16, 16, 16, 16)
    test_share: float = 0.2
    centre: str = "low field"
    grid: int = 32
    patch: int = 24
    num_levels: int = 3
    width: int = 8
    max_width: int = 320
    num_heads: int = 2
    batch_size: int = 2
    num_epochs: int = 20
    batches: int = 25
    learning_rate: float = 0.01
    momentum: float = 0.99
    max_gradient: float = 12.0
    initial_loss: float = 2.0
    betas: tuple[float, ...] = (0.0, 100.0)
    importance_sampling: tuple[bool, ...] = (False, True)
    uniform_centres: tuple[bool, ...] = ()


def make_net(config: Segmentation, key: jax.Array) -> tuple[nnx.GraphDef, nnx.State]:
    """Builds the U-Net, and draws its first parameters."""
    features = unet.widths(config.num_levels, config.width, config.max_width)
    return nnx.split(unet.UNet(len(CHANNELS), NUM_CLASSES, features, config.num_heads, key))


def scores_of(config: Segmentation) -> Callable:
    """Returns the function of parameters and images that computes the U-Net's scores."""
    graph = nnx.graphdef(nnx.eval_shape(lambda key: nnx.merge(*make_net(config, key)), jax.random.key(0)))
    return lambda params, images: nnx.merge(graph, params)(images)


def make_optimizer(config: Segmentation) -> optax.GradientTransformation:
    """Builds SGD with Nesterov's momentum and ``learning_rate * (1 - t / t_max)^0.9`` in epoch t."""
    decay = optax.polynomial_schedule(config.learning_rate, 0.0, 0.9, config.num_epochs)
    return optax.chain(
        optax.clip_by_global_norm(config.max_gradient),
        optax.sgd(lambda step: decay(step // config.batches), config.momentum, nesterov=True),
    )


def patches(key: jax.Array, cases: Cases, indices: jax.Array, patch: int) -> tuple[jax.Array, jax.Array]:
    """Cuts a random, augmented patch out of each case: images ``[b, patch, patch, patch, 4]`` and labels."""

    def one(drawn):
        key, index = drawn
        crop_key, augment_key = jax.random.split(key)
        image, label = augmentation.crop(crop_key, cases.images[index], cases.labels[index], patch)
        return augmentation.augment(augment_key, image, label)

    # Not a vmap: one case at a time, a rotation that is not drawn costs nothing (see `augmentation.turn`).
    return jax.lax.map(one, (jax.random.split(key, indices.shape[0]), indices))


class Carry(NamedTuple):
    """Holds the state of training.

    Attributes:
        params: the U-Net's parameters.
        opt_state: the optimizer's state.
        history: the sampler's state, with the stale loss of each training case.
        key: makes the keys of all epochs.
        epoch: the number of epochs that are done.
    """

    params: Any
    opt_state: Any
    history: Any
    key: jax.Array
    epoch: jax.Array


def start(key: jax.Array, config: Segmentation, num_cases: int, beta: jax.typing.ArrayLike, prior=None) -> Carry:
    """Draws the state before the first epoch.

    Args:
        key: a typed key, for everything random.
        config: the settings.
        num_cases: the number of training cases.
        beta: the inverse temperature, as :func:`epoch` takes it, like ``prior``.
        prior: how often each case is drawn at equal losses.

    Returns:
        The state; at equal keys the same for every ``beta``.
    """
    init_key, noise_key, loop_key = jax.random.split(key, 3)
    _, params = make_net(config, init_key)
    history = _sampler(num_cases, beta, prior).init(config.initial_loss, noise_key)
    return Carry(params, make_optimizer(config).init(params), history, loop_key, jnp.int32(0))


def epoch(
    carry: Carry, config: Segmentation, cases: Cases, train: jax.Array, beta, importance, prior=None
) -> tuple[Carry, dict]:
    """Trains the U-Net on patches for an epoch of algorithm 1.

    The stale loss of a case is the loss of its last patch, whatever the patch's augmentation was.

    Args:
        carry: from :func:`start`, or the epoch before.
        config: the settings.
        cases: the pool of cases.
        train: the indices of the training cases, ``[n]``.
        beta: the inverse temperature, a scalar of at least 0; 0 is ERM on cases that are drawn by the prior.
        importance: a scalar bool: whether losses are weighted by clipped importance weights.
        prior: how often each training case is drawn at equal losses, ``[n]``, in any unit; None draws all alike.

    Returns:
        The new state, and a dict of the mean ``loss`` of the batches, the ``draws`` of each training case ``[n]``, and
        the ``effective_sample_size`` at the epoch's end.
    """
    optimizer, sampler, apply = make_optimizer(config), _sampler(train.shape[0], beta, prior), scores_of(config)

    def step(carry, step_key):
        params, opt_state, history = carry
        draw_key, patch_key = jax.random.split(step_key)
        drawn, _ = sampler.sample(history, draw_key, config.batch_size)
        images, labels = patches(patch_key, cases, train[drawn], config.patch)

        def objective(params):
            losses = dice.losses(apply(params, images), labels)
            weights = sampler.importance_weights(history, drawn, jax.lax.stop_gradient(losses), kind="clipped")
            # `importance` is traced: methods with and without importance sampling are one program.
            return jnp.mean(jnp.where(importance, weights, 1.0) * losses), losses

        grads, losses = jax.grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        carry = optax.apply_updates(params, updates), opt_state, sampler.update(history, drawn, losses)
        return carry, (losses.mean(), jax.nn.one_hot(drawn, train.shape[0]).sum(axis=0))

    key = jax.random.split(carry.key, config.num_epochs)[carry.epoch]
    trained, (losses, draws) = jax.lax.scan(step, carry[:3], jax.random.split(key, config.batches))
    size = samplers.effective_sample_size(sampler.log_probs(trained[2]))
    record = {"loss": losses.mean(), "draws": draws.sum(axis=0), "effective_sample_size": size}
    return Carry(*trained, carry.key, carry.epoch + 1), record


def _sampler(num_cases, beta, prior):
    return samplers.hardness(num_cases, beta, prior=prior, replacement=False)
