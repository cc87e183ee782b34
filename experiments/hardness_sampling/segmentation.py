"""The experiment on segmenting brain tumours: paper 004, section 4.2, tables 1 and 2, figures 2 and 3.

BraTS, the paper's data set, needs a registration. The default is therefore a SIMULATION,
:mod:`experiments.hardness_sampling.lesions`, with real anatomies and simulated tumours, contrasts and scanners. One of
its four centres is rare in training. With ``source = "brats"`` the experiment trains and tests the same way on a folder
of BraTS cases.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hardness_sampling import dice, lesions, segmentation_figure, segmentation_report
from experiments.hardness_sampling.segmentation_training import NUM_CLASSES, Segmentation, fit
from mixjax.data import anatomies, brats
from mixjax.data.segmentation import CHANNELS, REGIONS, Cases
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment

__all__ = ["Split", "load", "segmentation", "split", "train"]


class Split(NamedTuple):
    """Holds the indices of one seed's training and test cases, each ordered by centre."""

    train: jax.Array
    test: jax.Array


def load(config: Segmentation) -> tuple[Cases, list[str], list[int]]:
    """Loads or simulates the cases.

    Returns:
        The pool of cases, the names of its centres, and the number of test cases of each centre.

    Raises:
        ValueError: there is not one number of cases for each centre, or BraTS is asked for without a folder.
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
    """Splits the cases of each centre at random into ``num_test`` test cases and the training cases."""
    keys = jax.random.split(key, len(members))
    mixed = [jax.random.permutation(k, cases) for k, cases in zip(keys, members, strict=True)]
    return Split(
        jnp.concatenate([cases[num:] for cases, num in zip(mixed, num_test, strict=True)]),
        jnp.concatenate([cases[:num] for cases, num in zip(mixed, num_test, strict=True)]),
    )


def train(key: jax.Array, config: Segmentation, data, num_test: list[int], centre: int) -> dict[str, jax.Array]:
    """Trains and tests every method on one seed's split, from the same parameters with the same random numbers.

    Returns:
        A dict of the Dice scores (%) ``[method, case, region]``, the curves of training ``[method, epoch]``, and one
        plane of a test case with its truth and predictions, for the figure.
    """
    cases, members = data
    split_key, fit_key = jax.random.split(key)
    chosen = split(split_key, members, num_test)
    # Test cases are ordered by centre: this is the first one of the centre that figure 3 compares.
    shown = chosen.test[sum(num_test[:centre])]
    truth = cases.labels[shown]
    # The plane with most of the enhancing tumour, which has the highest label.
    plane = jnp.argmax((truth == NUM_CLASSES - 1).sum(axis=(0, 1)))
    in_centre = cases.centres[chosen.train] == centre

    def one(method):
        beta, importance = method
        apply, params, records = fit(fit_key, config, cases, chosen.train, beta, importance)

        def predict(index):
            return dice.predict(lambda patch: apply(params, patch[None])[0][0], cases.images[index], config.patch)

        share = (records.pop("draws") * in_centre).sum(axis=1) / (config.batches * config.batch_size)
        scores = jax.lax.map(lambda index: 100 * dice.dice(predict(index), cases.labels[index]), chosen.test)
        return {**records, "centre_share": share, "dice": scores, "shown": predict(shown)[:, :, plane].astype(jnp.int8)}

    methods = jnp.array(config.betas), jnp.array(config.importance_sampling)
    return jax.lax.map(one, methods) | {
        "shown_image": cases.images[shown][:, :, plane],
        "shown_truth": truth[:, :, plane],
    }


def segmentation(config: Segmentation) -> Experiment:
    """Builds the experiment that shows tables 1 and 2 and figures 2 and 3.

    Raises:
        ValueError: ``betas`` and ``importance_sampling`` differ in length, ``patch`` does not fit, or ``centre`` is
            unknown.
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
            # Each test case has the name of its centre.
            "case": np.repeat(names, num_test),
            "region": list(REGIONS),
            "epoch": range(1, config.num_epochs + 1),
            "contrast": list(CHANNELS),
        },
        units={"dice": "%", "loss": "Dice loss + nats", "centre_share": "share", "effective_sample_size": "cases"},
        figure=lambda results: segmentation_figure.figure(results, config.centre, config.source == "simulation"),
        claims=lambda results: segmentation_report.claims(results, config.centre),
    )
