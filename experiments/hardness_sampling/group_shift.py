"""The experiment on group and centre shifts in real tables: which weights help the worst group, and at what price.

Paper 004 has no experiment on tables, so every claim is ours. Its section 5 compares group DRO, which needs group
labels, with hardness weighted sampling, which does not. This experiment compares both with ERM and example-level DRO.

Each seed splits each group at random. Three accuracies are reported, all on test rows:

- The *average* weights the groups as the training rows do. It is the accuracy on a random row.
- The *group mean* weights the groups equally.
- The *worst* is the accuracy of the group that has the lowest one in this split.

The worst accuracy is noisy and biased low where groups are small: the smallest have some 40 test rows, hence a standard
error of about 6 points in one split. Methods are therefore compared on the same splits, and the claims' notes tell the
accuracy in the group that is worst for ERM on average. Splits of one table share rows, so that standard errors say how
sure a difference is on this table, not on new people.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.hardness_sampling.group_shift_report import METHODS, claims, figure
from experiments.hardness_sampling.tabular import (
    Rows,
    any_rows,
    init,
    measure,
    part_sizes,
    rows_by_weight,
    split,
    train_with_rule,
    train_with_sampler,
)
from mixjax import data, rules, samplers
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment
from mixjax.runner.loading import load_once

__all__ = ["GroupShift", "Strengths", "group_shift", "train"]


@dataclasses.dataclass(frozen=True)
class Strengths:
    """Holds the one hyperparameter of each method. With 0 a method is ERM, or weights the groups by their sizes.

    Attributes:
        group_dro: the step size of the exponentiated gradient, in 1 / nats.
        group_kl: beta over groups, in 1 / nats.
        kl: beta over the examples of the batch, in 1 / nats.
        chi2: beta over the examples of the batch, in 1 / nats.
        cvar: beta over the examples of the batch. The mean is over the worst 1 / (1 + beta) of them.
        hardness: beta over all training examples, in 1 / nats; a batch is drawn without replacement.
        hardness_wr: beta over all training examples, in 1 / nats; a batch is drawn with replacement, as in algorithm 1.
    """

    group_dro: float = 0.01
    group_kl: float = 1.0
    kl: float = 1.0
    chi2: float = 1.0
    cvar: float = 1.0
    hardness: float = 1.0
    hardness_wr: float = 1.0


@dataclasses.dataclass(frozen=True)
class GroupShift:
    """Holds the settings of one table and one model.

    Attributes:
        table: the name of the table.
        hidden: the number of ReLU units; 0 is logistic regression.
        batch_size: ``B``, at least the number of groups.
        num_steps: ``T``, the number of steps.
        learning_rate: the learning rate of SGD at the first step. It falls to zero along a cosine.
        strengths: the hyperparameter of each method.
        factor: a factor on every entry of ``strengths``. The grids that chose them have it as an axis.
    """

    table: Literal["adult", "compas", "heart", "opinions"] = "heart"
    hidden: int = 0
    batch_size: int = 120
    num_steps: int = 1000
    learning_rate: float = 0.3
    strengths: Strengths = Strengths()
    factor: float = 1.0


def train(key: jax.Array, config: GroupShift, rows: Rows, group_sizes: np.ndarray) -> dict[str, jax.Array]:
    """Trains every method on one seed's split, from one initialisation.

    Example-level DRO and ERM share their batches, whose rows are drawn uniformly. Methods that need groups draw half of
    each batch by their weights and half evenly. Hardness sampling draws its own batches.

    Returns:
        A dict of accuracies (%) and losses (nats) on test rows, ``[method]``, with the average and the worst group's
        accuracy on validation rows, ``group_accuracy`` ``[method, group]``, and ``test_rows`` ``[group]``.
    """
    split_key, init_key, step_key = jax.random.split(key, 3)
    size, steps, num_groups = config.batch_size, config.num_steps, len(group_sizes)
    keys = jax.random.split(step_key, steps)
    sizes = part_sizes(group_sizes)
    training, validation, test = split(split_key, rows, sizes)
    prior, n = sizes[0] / sizes[0].sum(), int(sizes[0].sum())
    params = init(init_key, rows.features.shape[1], config.hidden)
    optimizer = optax.sgd(optax.cosine_decay_schedule(config.learning_rate, steps))
    strength = jax.tree.map(lambda x: x * config.factor, dataclasses.asdict(config.strengths))

    def by_rules(methods, prior, draw):
        def one(number):
            rule = rules.select(methods, number)
            return train_with_rule(optimizer, params, training, keys, rule=rule, prior=prior, draw=draw)

        # Rules are cheap beside the gradients, so that all methods are mapped as one program.
        return jax.vmap(one)(jnp.arange(len(methods)))

    def by_sampler(name, replacement):
        sampler = samplers.hardness(n, strength[name], replacement=replacement)
        return train_with_sampler(optimizer, params, training, keys, sampler=sampler, batch_size=size)

    example_level = [rules.fixed(), *(rules.dro(strength[name], name) for name in ("kl", "chi2", "cvar"))]
    # A temperature of infinity gives every group the same weight.
    equal_weights = rules.fixed(temperature=jnp.inf)
    group_level = [equal_weights, rules.group_dro(strength["group_dro"]), rules.dro(strength["group_kl"])]
    of_examples = by_rules(example_level, jnp.ones(size), any_rows(n, size))
    of_groups = by_rules(group_level, prior, rows_by_weight(sizes[0], size))
    of_samplers = [by_sampler("hardness", replacement=False), by_sampler("hardness_wr", replacement=True)]
    fitted = jax.tree.map(lambda *x: jnp.concatenate([*x[:2], jnp.stack(x[2:])]), of_examples, of_groups, *of_samplers)
    tested = jax.vmap(lambda params: measure(params, test, num_groups))(fitted)
    validated = jax.vmap(lambda params: measure(params, validation, num_groups))(fitted)
    return {
        "accuracy": tested["accuracy"] @ prior,
        "group_mean_accuracy": tested["accuracy"].mean(axis=1),
        "worst_accuracy": tested["accuracy"].min(axis=1),
        "worst_loss": tested["loss"].max(axis=1),
        "validation_accuracy": validated["accuracy"] @ prior,
        "validation_worst_accuracy": validated["accuracy"].min(axis=1),
        "group_accuracy": tested["accuracy"],
        "test_rows": jnp.asarray(sizes[2], jnp.float32),
    }


@load_once
def _load(name: str) -> data.Table:
    return data.load_table(name)


def group_shift(config: GroupShift) -> Experiment:
    """Builds the experiment on one table.

    Raises:
        ValueError: ``batch_size`` is less than the number of groups or more than the number of training rows.
    """
    table = _load(config.table)
    group_sizes = np.bincount(table.groups)
    num_groups, num_rows = len(group_sizes), part_sizes(group_sizes)[0].sum()
    if not num_groups <= config.batch_size <= num_rows:
        raise ValueError(f"batch_size must be in [{num_groups} groups, {num_rows} rows], got {config.batch_size}.")
    percent = (
        "accuracy",
        "group_mean_accuracy",
        "worst_accuracy",
        "validation_accuracy",
        "validation_worst_accuracy",
        "group_accuracy",
    )
    units = dict.fromkeys(percent, "%") | {"worst_loss": "nats", "test_rows": "rows"}
    by_group = {"group_accuracy": ("method", "group"), "test_rows": ("group",)}
    return Experiment(
        train=lambda key, hparams, rows: train(key, configs.replace(config, hparams), rows, group_sizes),
        data=Rows(table.features, table.labels, table.groups),
        dims=dict.fromkeys(units, ("method",)) | by_group,
        coords={"method": list(METHODS), "group": list(table.group_names)},
        units=units,
        figure=figure,
        claims=claims,
    )
