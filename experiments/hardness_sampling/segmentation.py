"""Segmentation of brain tumours with hardness weighted sampling: paper 004, section 4.2 (tables 1 and 2, figures 2, 3).

BraTS needs a registration, so the default is a SIMULATION, ``experiments.hardness_sampling.lesions``: real anatomies,
simulated tumours, contrasts and scanners, one of whose four centres is rare in training. ``source = "brats"`` trains
and tests the same way on a folder of BraTS cases.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.hardness_sampling import augmentation, dice, lesions, segmentation_report, unet
from mixjax import samplers
from mixjax.data import anatomies, brats
from mixjax.data.segmentation import CHANNELS, REGIONS, Cases
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment

NUM_CLASSES = 1 + len(REGIONS)


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """Section 4.2's problem.

    Attributes:
        source: where cases come from.
        folder: of the BraTS cases.
        anatomies: real brains of the simulation, names of ``mixjax.data.anatomies``.
        data_seed: of the simulation, apart from the seeds of the runs.
        train_cases: number of training cases of each centre of ``lesions.CENTRES``.
        test_cases: number of test cases of each centre.
        test_share: for BraTS, the share of each centre's cases that is kept for testing.
        centre: the centre that figure 3 tells apart.
        grid: voxels along each side of a case.
        patch: voxels along each side of a patch.
        num_levels: of the U-Net.
        width: features at its finest level.
        max_width: features at most.
        num_heads: resolutions with deep supervision.
        batch_size: ``b``.
        num_epochs: ``t_max``.
        batches: of an epoch, within which the learning rate is constant.
        learning_rate: that of the first epoch.
        momentum: Nesterov's; 0 is plain SGD.
        max_gradient: Euclidean norm at which gradients are clipped; 12 is nnU-Net's.
        initial_loss: ``L_init``, the stale loss of a case that no batch held yet.
        betas: ``beta`` of each method; 0 is ERM.
        importance_sampling: whether each method weights its losses by steps 9 and 10 of algorithm 1.
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


class Split(NamedTuple):
    """Indices of one seed's cases, ordered by centre."""

    train: jax.Array
    test: jax.Array


def load(config: Segmentation) -> tuple[Cases, list[str], list[int]]:
    """The pool of cases, the names of its centres, and how many cases of each are for testing.

    Raises:
        ValueError: numbers of cases that are not one for each centre; BraTS without a folder.
    """
    if config.source == "brats":
        if not config.folder:
            raise ValueError('source "brats" needs folder, where the cases lie: --set folder=...')
        names = brats.centre_names(brats.list_cases(config.folder))
        cases = brats.load(config.folder, grid=config.grid)
        return cases, names, [round(config.test_share * (cases.centres == c).sum()) for c in range(len(names))]
    names = list(lesions.CENTRES)
    if not len(config.train_cases) == len(config.test_cases) == len(names):
        raise ValueError(
            f"train_cases and test_cases need one number for each of {names}, got {config.train_cases} and "
            f"{config.test_cases}"
        )
    counts = np.add(config.train_cases, config.test_cases)
    brains = anatomies.load(config.anatomies, grid=config.grid)
    cases = lesions.simulate(brains, config.data_seed, int(counts.sum()), counts, config.grid)
    return cases, names, list(config.test_cases)


def split(key: jax.Array, members: list[jax.Array], num_test: list[int]) -> Split:
    """Splits the cases of each centre at random into test cases, ``num_test`` of them, and training cases."""
    keys = jax.random.split(key, len(members))
    mixed = [jax.random.permutation(k, cases) for k, cases in zip(keys, members, strict=True)]
    return Split(
        jnp.concatenate([cases[num:] for cases, num in zip(mixed, num_test, strict=True)]),
        jnp.concatenate([cases[:num] for cases, num in zip(mixed, num_test, strict=True)]),
    )


def make_net(config: Segmentation, key: jax.Array) -> tuple[nnx.GraphDef, nnx.State]:
    """The U-Net and its first parameters."""
    features = unet.widths(config.num_levels, config.width, config.max_width)
    return nnx.split(unet.UNet(len(CHANNELS), NUM_CLASSES, features, config.num_heads, key))


def make_optimizer(config: Segmentation) -> optax.GradientTransformation:
    """SGD with ``learning_rate * (1 - t / t_max)^0.9`` in epoch t, with Nesterov's momentum."""
    decay = optax.polynomial_schedule(config.learning_rate, 0.0, 0.9, config.num_epochs)
    return optax.chain(
        optax.clip_by_global_norm(config.max_gradient),
        optax.sgd(lambda step: decay(step // config.batches), config.momentum, nesterov=True),
    )


def patches(key: jax.Array, cases: Cases, indices: jax.Array, patch: int) -> tuple[jax.Array, jax.Array]:
    """A random, augmented patch of each case: images ``[b, patch, patch, patch, 4]`` and labels."""

    def one(drawn):
        (crop_key, augment_key), index = jax.random.split(drawn[0]), drawn[1]
        return augmentation.augment(
            augment_key, *augmentation.crop(crop_key, cases.images[index], cases.labels[index], patch)
        )

    return jax.lax.map(one, (jax.random.split(key, indices.shape[0]), indices))


def fit(key, config: Segmentation, cases: Cases, train: jax.Array, beta, importance):
    """Algorithm 1 on patches; the stale loss of a case is that of its last patch, whatever its augmentation.

    Args:
        key: a typed key, for everything random.
        config: the problem.
        cases: the pool.
        train: ``[n]``, indices of the training cases.
        beta: scalar, >= 0; 0 is ERM on uniformly drawn cases.
        importance: scalar bool, whether losses are weighted by clipped importance weights.

    Returns:
        The net's function (parameters, images) to scores, its parameters after training, and for each epoch the mean
        loss of its batches, how often each training case was drawn and the effective sample size at its end.
    """
    init_key, noise_key, loop_key = jax.random.split(key, 3)
    graph, params = make_net(config, init_key)
    optimizer = make_optimizer(config)
    sampler = samplers.hardness(train.shape[0], beta, replacement=False)

    def apply(params, images):
        return nnx.merge(graph, params)(images)

    def step(carry, step_key):
        params, opt_state, history = carry
        draw_key, patch_key = jax.random.split(step_key)
        drawn, _ = sampler.sample(history, draw_key, config.batch_size)
        images, labels = patches(patch_key, cases, train[drawn], config.patch)

        def objective(params):
            losses = dice.losses(apply(params, images), labels)
            weights = sampler.importance_weights(history, drawn, jax.lax.stop_gradient(losses), kind="clipped")
            return jnp.mean(jnp.where(importance, weights, 1.0) * losses), losses

        grads, losses = jax.grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        carry = optax.apply_updates(params, updates), opt_state, sampler.update(history, drawn, losses)
        return carry, (losses.mean(), jax.nn.one_hot(drawn, train.shape[0]).sum(axis=0))

    def epoch(carry, epoch_key):
        carry, (losses, draws) = jax.lax.scan(step, carry, jax.random.split(epoch_key, config.batches))
        size = samplers.effective_sample_size(sampler.log_probs(carry[2]))
        return carry, {"loss": losses.mean(), "draws": draws.sum(axis=0), "effective_sample_size": size}

    carry = params, optimizer.init(params), sampler.init(config.initial_loss, noise_key)
    carry, records = jax.lax.scan(epoch, carry, jax.random.split(loop_key, config.num_epochs))
    return apply, carry[0], records


def train(key: jax.Array, config: Segmentation, data, num_test: list[int], centre: int) -> dict[str, jax.Array]:
    """Trains and tests every method on one seed's split, with the same first parameters and the same random numbers."""
    cases, members = data
    split_key, fit_key = jax.random.split(key)
    chosen = split(split_key, members, num_test)
    shown = chosen.test[sum(num_test[:centre])]  # a test case of that centre
    truth = cases.labels[shown]
    plane = jnp.argmax((truth == NUM_CLASSES - 1).sum(axis=(0, 1)))
    told_apart = cases.centres[chosen.train] == centre

    def one(method):
        apply, params, records = fit(fit_key, config, cases, chosen.train, *method)

        def predict(index):
            return dice.predict(lambda patch: apply(params, patch[None])[0][0], cases.images[index], config.patch)

        share = (records.pop("draws") * told_apart).sum(axis=1) / (config.batches * config.batch_size)
        scores = jax.lax.map(lambda index: 100 * dice.dice(predict(index), cases.labels[index]), chosen.test)
        return {**records, "centre_share": share, "dice": scores, "shown": predict(shown)[:, :, plane].astype(jnp.int8)}

    methods = jnp.array(config.betas), jnp.array(config.importance_sampling)
    return jax.lax.map(one, methods) | {
        "shown_image": cases.images[shown][:, :, plane],
        "shown_truth": truth[:, :, plane],
    }


def segmentation(config: Segmentation) -> Experiment:
    """Tables 1 and 2, figures 2 and 3.

    Raises:
        ValueError: ``betas`` and ``importance_sampling`` of different lengths, or a patch that does not fit.
    """
    if len(config.betas) != len(config.importance_sampling):
        raise ValueError(
            f"betas and importance_sampling need one entry a method, got {config.betas} and "
            f"{config.importance_sampling}"
        )
    if config.patch > config.grid or config.patch % 2 ** (config.num_levels - 1):
        raise ValueError(
            f"patch must be at most grid = {config.grid} and a multiple of {2 ** (config.num_levels - 1)}, "
            f"got {config.patch}"
        )
    cases, names, num_test = load(config)
    if config.centre not in names:
        raise ValueError(f"centre must be one of {names}, got {config.centre!r}")
    centre = names.index(config.centre)
    members = [np.flatnonzero(cases.centres == number) for number in range(len(names))]
    methods = [
        segmentation_report.name(beta, importance)
        for beta, importance in zip(config.betas, config.importance_sampling, strict=True)
    ]
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams), data, num_test, centre),
        data=(cases, members),
        dims={
            "dice": ("method", "case", "region"),
            "loss": ("method", "epoch"),
            "centre_share": ("method", "epoch"),
            "effective_sample_size": ("method", "epoch"),
            "shown": ("method", "x", "y"),
            "shown_truth": ("x", "y"),
            "shown_image": ("x", "y", "contrast"),
        },
        coords={
            "method": methods,
            "case": np.repeat(names, num_test),  # each test case by its centre
            "region": list(REGIONS),
            "epoch": range(1, config.num_epochs + 1),
            "contrast": list(CHANNELS),
        },
        units={"dice": "%", "loss": "Dice loss + nats", "centre_share": "share", "effective_sample_size": "cases"},
        figure=lambda results: segmentation_report.figure(results, config.centre, config.source == "simulation"),
        claims=lambda results: segmentation_report.claims(results, config.centre),
    )
