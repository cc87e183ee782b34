"""The experiment on segmenting brain tumours: paper 004, section 4.2, tables 1 and 2, figures 2 and 3.

BraTS, the paper's data set, needs a registration. The default is therefore a SIMULATION,
:mod:`experiments.hardness_sampling.lesions`, with real anatomies and simulated tumours, contrasts and scanners. One of
its four centres is rare in training. With ``source = "brats"`` the experiment trains and tests the same way on a folder
of BraTS cases.
"""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hardness_sampling import dice, lesions, segmentation_figure, segmentation_report
from experiments.hardness_sampling.segmentation_training import NUM_CLASSES, Segmentation, epoch, scores_of, start
from mixjax.data import anatomies, brats
from mixjax.data.segmentation import CHANNELS, REGIONS, Cases
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment
from mixjax.runner.loading import load_once
from mixjax.sweeps import Segments

__all__ = ["Pool", "Split", "centre_prior", "load", "pool", "segmentation", "split", "train"]


class Split(NamedTuple):
    """Holds the indices of one seed's training and test cases, each ordered by centre."""

    train: jax.Array
    test: jax.Array


class Pool(NamedTuple):
    """Says how many cases there are, before any is read or simulated.

    Attributes:
        names: the names of the centres.
        counts: the number of cases of each centre.
        num_test: the number of them that are test cases.
    """

    names: list[str]
    counts: list[int]
    num_test: list[int]


def pool(config: Segmentation) -> Pool:
    """Counts the cases, and checks that every seed's split has the cases that training, claims and figure need.

    Raises:
        FileNotFoundError: the folder of the BraTS cases does not exist, or holds no case.
        ValueError: there is not one number of cases for each centre; BraTS is asked for without a folder;
            ``test_share`` is not between 0 and 1; ``centre`` is unknown; it, or all others together, have no test
            case; or there are fewer training cases than a batch has.
    """
    if config.source == "brats":
        if not config.folder:
            raise ValueError('source "brats" needs folder, where the cases lie: --set folder=...')
        if not 0 < config.test_share < 1:
            raise ValueError(f"test_share must be between 0 and 1, got {config.test_share}")
        listed = brats.list_cases(config.folder)
        names = brats.centre_names(listed)
        counts = [sum(case.centre == name for case in listed) for name in names]
        found = Pool(names, counts, [round(config.test_share * count) for count in counts])
        setting = f"test_share = {config.test_share}"
    else:
        names = list(lesions.CENTRES)
        if not len(config.train_cases) == len(config.test_cases) == len(names):
            raise ValueError(
                f"train_cases and test_cases need one number for each of {names}, got {config.train_cases} and "
                f"{config.test_cases}"
            )
        counts = np.add(config.train_cases, config.test_cases).tolist()
        found = Pool(names, counts, list(config.test_cases))
        setting = f"test_cases = {config.test_cases}"
    if config.centre not in names:
        raise ValueError(f"centre must be one of {names}, got {config.centre!r}")
    number = names.index(config.centre)
    if not found.num_test[number]:
        # A centre that has test cases, and is not the only one.
        others = [name for name, num in zip(names, found.num_test, strict=True) if 0 < num < sum(found.num_test)]
        more = f"test_share above {0.5 / counts[number]:.2g}" if config.source == "brats" else "more test_cases"
        raise ValueError(
            f"centre {config.centre!r} needs a test case for the figure: {setting} leaves none of its {counts[number]} "
            f"cases to test; set {more}" + (f", or --set centre='{json.dumps(others[0])}'" if others else "")
        )
    if sum(found.num_test) == found.num_test[number]:
        raise ValueError(
            f"centre {config.centre!r} is compared with the others, but {setting} leaves none of their "
            f"{sum(counts) - counts[number]} cases to test"
        )
    num_train = sum(counts) - sum(found.num_test)
    if num_train < config.batch_size:
        raise ValueError(f"batch_size must be at most {num_train}, the training cases, got {config.batch_size}")
    return found


def load(config: Segmentation, pool: Pool) -> Cases:
    """Reads or simulates the cases of :func:`pool`."""
    if config.source == "brats":
        return _read(config.folder, config.grid)
    return _simulate(config.anatomies, config.data_seed, tuple(pool.counts), config.grid)


@load_once
def _read(folder: str, grid: int) -> Cases:
    return brats.load(folder, grid=grid)


@load_once
def _simulate(names: tuple[str, ...], seed: int, counts: tuple[int, ...], grid: int) -> Cases:
    return lesions.simulate(anatomies.load(names, grid=grid), seed, sum(counts), np.array(counts), grid)


def split(key: jax.Array, members: list[jax.Array], num_test: list[int]) -> Split:
    """Splits the cases of each centre at random into ``num_test`` test cases and the training cases."""
    keys = jax.random.split(key, len(members))
    mixed = [jax.random.permutation(k, cases) for k, cases in zip(keys, members, strict=True)]
    return Split(
        jnp.concatenate([cases[num:] for cases, num in zip(mixed, num_test, strict=True)]),
        jnp.concatenate([cases[:num] for cases, num in zip(mixed, num_test, strict=True)]),
    )


def centre_prior(centres: jax.Array, num_centres: int) -> jax.Array:
    """Returns how often to draw each case so that each centre is drawn alike, ``[n]``, up to a factor."""
    return 1 / jnp.bincount(centres, length=num_centres)[centres]


def train(config: Segmentation, num_test: list[int], centre: int) -> Segments:
    """Trains and tests every method on one seed's split, from the same parameters with the same random numbers.

    A segment is an epoch of each method.

    Args:
        config: the settings.
        num_test: the number of test cases of each centre.
        centre: the number of the centre that figure 3 compares.

    Returns:
        A training run. Its metrics are the curves of training ``[epoch, method]``, and at the end the Dice scores (%)
        ``[method, case, region]``, the number of each test case in the pool ``[case]``, and one plane of a test case
        with its truth and predictions, for the figure.
    """
    methods = np.array(config.betas, np.float32), np.array(config.importance_sampling), _uniform(config)

    def prior_of(chosen, cases, uniform):
        # Where no method asks for it, the sampler has no prior to keep.
        if not methods[2].any():
            return None
        return jnp.where(uniform, centre_prior(cases.centres[chosen.train], len(num_test)), 1.0)

    def init(key, hparams, data):
        cases, members = data
        used = configs.replace(config, hparams)
        split_key, fit_key = jax.random.split(key)
        chosen = split(split_key, members, num_test)

        def one(method):
            beta, _, uniform = method
            return start(fit_key, used, len(chosen.train), beta, prior_of(chosen, cases, uniform))

        return chosen, jax.lax.map(one, methods)

    def advance(carry, hparams, data):
        (chosen, carries), (cases, _) = carry, data
        used = configs.replace(config, hparams)

        def one(method):
            carry, beta, importance, uniform = method
            return epoch(carry, used, cases, chosen.train, beta, importance, prior_of(chosen, cases, uniform))

        carries, records = jax.lax.map(one, (carries, *methods))
        in_centre = cases.centres[chosen.train] == centre
        records["centre_share"] = (records.pop("draws") * in_centre).sum(axis=1) / (used.batches * used.batch_size)
        return (chosen, carries), jax.tree.map(lambda x: x[None], records)

    def finish(carry, hparams, data):
        (chosen, carries), (cases, _) = carry, data
        used = configs.replace(config, hparams)
        apply = scores_of(used)
        # Test cases are ordered by centre: this is the first one of the centre that figure 3 compares.
        shown = chosen.test[sum(num_test[:centre])]
        truth = cases.labels[shown]
        # The plane with most of the enhancing tumour, which has the highest label.
        plane = jnp.argmax((truth == NUM_CLASSES - 1).sum(axis=(0, 1)))

        def one(params):
            def predict(index):
                return dice.predict(lambda patch: apply(params, patch[None])[0][0], cases.images[index], used.patch)

            scores = jax.lax.map(lambda index: 100 * dice.dice(predict(index), cases.labels[index]), chosen.test)
            return {"dice": scores, "shown": predict(shown)[:, :, plane].astype(jnp.int8)}

        return jax.lax.map(one, carries.params) | {
            "case_number": chosen.test,
            "shown_image": cases.images[shown][:, :, plane],
            "shown_truth": truth[:, :, plane],
        }

    return Segments(init, advance, config.num_epochs, finish=finish)


def segmentation(config: Segmentation) -> Experiment:
    """Builds the experiment that shows tables 1 and 2 and figures 2 and 3.

    Raises:
        ValueError: ``betas``, ``importance_sampling`` and ``uniform_centres`` differ in length, ``patch`` does not fit,
            or as :func:`pool`.
    """
    uniform = _uniform(config)
    if not len(config.betas) == len(config.importance_sampling) == len(uniform):
        raise ValueError(
            f"betas, importance_sampling and uniform_centres need one entry a method, got {config.betas}, "
            f"{config.importance_sampling} and {config.uniform_centres}"
        )
    if config.patch > config.grid or config.patch % 2 ** (config.num_levels - 1):
        raise ValueError(
            f"patch must be at most grid = {config.grid} and a multiple of {2 ** (config.num_levels - 1)}, "
            f"got {config.patch}"
        )
    found = pool(config)
    names, _, num_test = found
    cases, centre = load(config, found), names.index(config.centre)
    members = [np.flatnonzero(cases.centres == number) for number in range(len(names))]
    methods = [
        segmentation_report.name(*method)
        for method in zip(config.betas, config.importance_sampling, uniform.tolist(), strict=True)
    ]
    return Experiment(
        train=train(config, num_test, centre),
        data=(cases, members),
        dims={
            "dice": ("method", "case", "region"),
            "case_number": ("case",),
            "loss": ("epoch", "method"),
            "centre_share": ("epoch", "method"),
            "effective_sample_size": ("epoch", "method"),
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


def _uniform(config: Segmentation) -> np.ndarray:
    """Returns for each method whether it draws each centre alike."""
    return np.array(config.uniform_centres or [False] * len(config.betas))
