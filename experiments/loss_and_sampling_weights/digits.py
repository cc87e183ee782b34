"""Trains on handwritten digits, half of them with wrong labels: the quickstart.

This is paper 000's section 5.3 on a small image set that is always at hand. There are too few digits to use each only
once, so batches are drawn with replacement, and the signals come from fresh draws of training examples, once a round.
"""

import dataclasses

import jax
import numpy as np
import optax

from experiments.loss_and_sampling_weights import glm, noisy_images
from experiments.loss_and_sampling_weights.noisy_images import METHODS, PRIOR, STYLES, Batch
from experiments.shared import figures
from experiments.shared.statistics import average, final
from mixjax import probes, samplers, training
from mixjax.runner import configs
from mixjax.runner.claims import paired, versus
from mixjax.runner.experiment import Experiment

__all__ = ["digits"]


@dataclasses.dataclass(frozen=True)
class Digits(noisy_images.ImageProblem):
    """Holds the settings of the quickstart.

    Attributes:
        probe_every: steps between two probes, ``T₀``; the weights move at a probe.
        probe_size: training examples of each domain drawn for a probe.
    """

    flip: float = 0.4
    probe_every: int = 10
    probe_size: int = 32


def train(key: jax.Array, config: Digits, data: dict[str, Batch]) -> dict[str, jax.Array]:
    """Trains the four methods on one seed's split; after each probe, tests them on images with their true labels."""
    split_key, init_key, fit_key = jax.random.split(key, 3)
    split = noisy_images.split(split_key, data["train"], config.flip)
    # the clean examples come first
    examples = Batch(data["train"].images[split.indices.reshape(-1)], split.labels.reshape(-1))
    groups = samplers.partition(np.repeat(np.arange(2), noisy_images.half(data["train"])))
    params = noisy_images.init(init_key, examples.images.shape[1], config.hidden)
    probe_points = probes.fresh_draws(groups, config.probe_size)
    optimizer = optax.sgd(config.learning_rate)
    step = training.make_step(noisy_images.losses, optimizer)

    def take(indices):
        return jax.tree.map(lambda leaf: leaf[indices], examples)

    def measure(params, key):
        indices, _ = probe_points(key)
        return noisy_images.measure(params, take(indices.reshape(2, config.probe_size)))

    def plan(sampling_weights):
        return samplers.counts_to_ids(samplers.allocate(sampling_weights, config.batch_size), config.batch_size)

    def draw(key, domain_ids):
        return take(samplers.with_replacement(key, groups, domain_ids)), domain_ids

    def record(state):
        return {
            "accuracy": noisy_images.accuracy(state.params, data["test"]),
            "loss_weight": state.loss_state.weights[0],
            "sampling_weight": state.sampling_state.weights[0],
        }

    def run(loss_rule, sampling_rule):
        state = training.init_state(params, optimizer, PRIOR, loss_rule, sampling_rule)
        probe = training.make_probe(measure, loss_rule, sampling_rule)
        length = {"num_steps": config.num_steps, "probe_every": config.probe_every}
        return training.fit(step, probe, plan, draw, state, fit_key, record=record, **length)[1]

    return noisy_images.for_methods(config, run)


def digits(config: Digits) -> Experiment:
    """Compares test accuracy and weights of four methods, one of them plain SGD."""
    units = {"accuracy": "%", "loss_weight": "share", "sampling_weight": "share"}
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams), data),
        data=noisy_images.load(config.source),
        dims=dict.fromkeys(units, ("method", "step")),
        coords={"method": list(METHODS), "step": glm.steps(config)},
        units=units,
        figure=lambda results: figure(results, config),
        claims=claims,
    )


def figure(results, config: Digits):
    """Draws test accuracy and the two weights, one row for each point of the sweep."""
    shown = noisy_images.points(results)
    panels = [
        figures.Panel(
            "accuracy", "accuracy on test images (%)", limits=noisy_images.limits(shown.values(), "accuracy")
        ),
        figures.Panel("loss_weight", "clean domain's loss weight (share)", limits=(0, 1)),
        figures.Panel("sampling_weight", "clean domain's sampling weight (share)", limits=(0, 1)),
    ]
    title = f"Handwritten digits in two halves; {100 * config.flip:g} % of the noisy half's labels are wrong"
    return figures.curves(shown, panels, METHODS, title, STYLES)


def claims(results) -> list:
    """Judges what the quickstart shows: accuracies after the last step, weights as means over training."""

    def better(name, method, than, statement):
        def judge(data):
            a, b = final(data, "accuracy", method), final(data, "accuracy", than)
            return paired(name, a, ">", b, statement=statement, source="ours")

        return noisy_images.judged(results, judge, "percentage points of accuracy on test images")

    def share(name, metric, method, side, statement):
        def judge(data):
            return versus(name, average(data, metric, method), side, 0.5, statement=statement, source="ours")

        return noisy_images.judged(results, judge)

    return [
        share("erma_prefers_clean", "loss_weight", "erma", ">=", "ERMA gives the clean domain the larger loss weight"),
        share("va_samples_noisy", "sampling_weight", "va", "<=", "VA alone samples more from the noisy domain"),
        share(
            "va_follows_erma", "sampling_weight", "erma_va", ">=", "With ERMA, VA samples more from the clean domain"
        ),
        better("erma_improves", "erma", "vanilla", "ERMA's test accuracy is above plain SGD's"),
        better("erma_va_improves", "erma_va", "vanilla", "The test accuracy of ERMA with VA is above plain SGD's"),
    ]
