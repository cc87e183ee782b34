"""Group and centre shifts in real tables: which weights help the worst group, and at what price.

Paper 004 has no experiment on tables. Its section 5 sets group DRO, which needs group labels, against hardness weighted
sampling, which does not; this experiment puts both beside ERM and example-level DRO. Every claim is therefore ours.

Each seed splits each group at random. Three accuracies are reported, all on test rows: the *average* weights the groups
as the training rows do, which is the accuracy on a random row; the *group mean* weights them equally; the *worst* is
that of the group with the lowest accuracy in this split. The last one is noisy and biased low where groups are small
(the smallest have some 40 test rows, hence a standard error of about 6 points in one split), so methods are compared on
the same splits, and the claims' notes tell the accuracy in the group that is worst for ERM on average. Splits of one
table share rows: standard errors say how sure the difference is on this table, not on new people.
"""

import dataclasses
import re
from typing import Literal

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

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
from experiments.shared.sentences import text
from experiments.shared.statistics import error_bars
from mixjax import data, rules, samplers
from mixjax.runner import configs
from mixjax.runner.claims import paired, versus
from mixjax.runner.experiment import Experiment

SOURCE = "ours (paper 004, section 5, compares the two in words)"
METHODS = {
    "erm": "ERM",
    "kl": "KL DRO in the batch",
    "chi2": "χ² DRO in the batch",
    "cvar": "CVaR in the batch",
    "balanced": "ERM, equal group weights",
    "group_dro": "group DRO",
    "group_kl": "KL DRO over groups",
    "hardness": "hardness sampling",
    "hardness_wr": "hardness sampling, with replacement",
}
SHORT, LONG = "Adult, 100 steps", "Adult"  # the same splits, trained briefly and until ERM is at its best
PRICE = 1.0  # percentage points of average accuracy; fixed before the judging seeds were run


@dataclasses.dataclass(frozen=True)
class Strengths:
    """Each method's one number; 0 would be ERM, or equal weights at the prior.

    Attributes:
        group_dro: step size of the exponentiated gradient, in 1 / nats.
        group_kl: beta over groups, in 1 / nats.
        kl: beta over the batch's examples, in 1 / nats.
        chi2: beta over the batch's examples, in 1 / nats.
        cvar: beta over the batch's examples: the mean is over the worst 1 / (1 + beta).
        hardness: beta over all training examples, in 1 / nats, without replacement in a batch.
        hardness_wr: the same with replacement, algorithm 1.
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
    """One table and one model.

    Attributes:
        table: a name of ``mixjax.data.load_table``.
        hidden: number of ReLU units; 0 is logistic regression.
        batch_size: ``B``, at least the number of groups.
        num_steps: ``T``.
        learning_rate: of SGD at the first step; it falls to zero along a cosine.
        strengths: each method's.
        factor: multiplies every strength: an axis for the grids that chose them.
    """

    table: Literal["adult", "compas", "heart"] = "heart"
    hidden: int = 0
    batch_size: int = 120
    num_steps: int = 1000
    learning_rate: float = 0.3
    strengths: Strengths = Strengths()
    factor: float = 1.0


def train(key: jax.Array, config: GroupShift, rows: Rows, group_sizes: np.ndarray) -> dict[str, jax.Array]:
    """Trains every method on one seed's split, from one initialisation.

    Example-level DRO and ERM share their batches of rows drawn uniformly; methods that need groups draw half of each
    batch by their weights and half evenly; hardness sampling draws its own.
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
            return train_with_rule(optimizer, rules.select(methods, number), prior, params, training, draw, keys)

        return jax.vmap(one)(jnp.arange(len(methods)))

    example_level = [rules.fixed(), *(rules.dro(strength[name], name) for name in ("kl", "chi2", "cvar"))]
    group_level = [rules.fixed(temperature=jnp.inf), rules.group_dro(strength["group_dro"])]
    of_examples = by_rules(example_level, jnp.ones(size), any_rows(n, size))
    of_groups = by_rules([*group_level, rules.dro(strength["group_kl"])], prior, rows_by_weight(sizes[0], size))
    of_samplers = [
        train_with_sampler(
            optimizer, samplers.hardness(n, strength[name], replacement=again), params, training, size, keys
        )
        for name, again in (("hardness", False), ("hardness_wr", True))
    ]
    fitted = jax.tree.map(lambda *x: jnp.concatenate([*x[:2], jnp.stack(x[2:])]), of_examples, of_groups, *of_samplers)
    tested, validated = (jax.vmap(lambda p, r=r: measure(p, r, num_groups))(fitted) for r in (test, validation))
    return {
        "accuracy": tested["accuracy"] @ prior,
        "group_mean_accuracy": tested["accuracy"].mean(axis=1),
        "worst_accuracy": tested["accuracy"].min(axis=1),
        "worst_loss": tested["loss"].max(axis=1),
        "validation_worst_accuracy": validated["accuracy"].min(axis=1),
        "group_accuracy": tested["accuracy"],
        "test_rows": jnp.asarray(sizes[2], jnp.float32),
    }


def group_shift(config: GroupShift) -> Experiment:
    """One table's methods side by side.

    Raises:
        ValueError: a batch that does not fit the groups or the training rows.
    """
    table = data.load_table(config.table)
    group_sizes = np.bincount(table.groups)
    num_groups, num_rows = len(group_sizes), part_sizes(group_sizes)[0].sum()
    if not num_groups <= config.batch_size <= num_rows:
        raise ValueError(f"batch_size must be in [{num_groups} groups, {num_rows} rows], got {config.batch_size}.")
    percent = ("accuracy", "group_mean_accuracy", "worst_accuracy", "validation_worst_accuracy", "group_accuracy")
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


def first_point(results):
    """Every run at the first point of its sweep: what is judged where a grid was run."""
    own = {"seed", "method", "group"}
    return {name: data.isel(dict.fromkeys(set(data.sizes) - own, 0), drop=True) for name, data in results.items()}


def of(dataset, metric: str, method: str):
    """A method's metric, one value a seed."""
    return dataset[metric].sel({"method": method})


def figure(results):
    """Average against worst-group accuracy, one panel a run."""
    results = first_point(results)
    columns = min(len(results), 2)
    shape = (-(-len(results) // columns), columns)
    drawn, axes = plt.subplots(
        *shape, figsize=(4.8 * shape[1], 3.9 * shape[0] + 1), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(results) :]:
        axis.remove()
    for axis, (name, dataset) in zip(axes.flat, results.items(), strict=False):
        for number, (method, label) in enumerate(METHODS.items()):
            x, y = (of(dataset, metric, method) for metric in ("accuracy", "worst_accuracy"))
            x_error, y_error = (
                error_bars(v - of(dataset, metric, "erm"))[1] for v, metric in ((x, "accuracy"), (y, "worst_accuracy"))
            )
            style = {"color": f"C{number}", "marker": "os^vDPXdh"[number], "ms": 6, "capsize": 2, "lw": 1, "ls": "none"}
            axis.errorbar(x.mean(), y.mean(), y_error, x_error, label=label if axis is axes.flat[0] else None, **style)
        axis.axvline(of(dataset, "accuracy", "erm").mean(), color="0.6", lw=0.8, ls=":", zorder=0)
        axis.axhline(of(dataset, "worst_accuracy", "erm").mean(), color="0.6", lw=0.8, ls=":", zorder=0)
        rows = dataset["test_rows"].isel(seed=0)
        axis.set(xlabel="average test accuracy (%)", ylabel="worst group's test accuracy (%)")
        axis.set_title(f"{name}: {rows.size} groups of {rows.min():.0f} to {rows.max():.0f} test rows", fontsize=10)
        axis.grid(alpha=0.3, lw=0.5)
    seeds = next(iter(results.values())).sizes["seed"]
    drawn.suptitle(
        f"Group and centre shifts in tables, mean over {seeds} paired splits\n"
        "bars: ±2 standard errors of the difference from ERM; dotted: ERM",
        fontsize=11,
    )
    drawn.legend(loc="outside lower center", ncols=3)
    return drawn


def gain(dataset, method: str):
    """Worst-group test accuracy above ERM's on the same split."""
    return of(dataset, "worst_accuracy", method) - of(dataset, "worst_accuracy", "erm")


def claims(results) -> list:
    """Each method against ERM, group DRO against hardness sampling, and a short run against a long one."""
    results = first_point(results)
    found = [claim for name, dataset in results.items() for claim in _claims_of(name, dataset)]
    if {SHORT, LONG} <= set(results):
        for method in ("group_dro", "cvar", "hardness"):
            found.append(
                paired(
                    f"{_slug(SHORT)}_{method}_gains_more",
                    gain(results[SHORT], method),
                    ">",
                    gain(results[LONG], method),
                    statement=f"ours: what {METHODS[method]} gains over ERM in the worst group's test accuracy is more "
                    f"in the short run ({SHORT}) than in the long one ({LONG})",
                    source=SOURCE,
                    note="percentage points",
                )
            )
    return found


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower())


def _claims_of(name, dataset) -> list:
    """The rows of one table."""
    slug, rows = _slug(name), dataset["test_rows"].isel(seed=0)
    worst = dataset["group_accuracy"].sel({"method": "erm"}).mean("seed").argmin("group").item()
    group = dataset["group"][worst].item()

    def fixed_group(a, b):
        difference = (of(dataset, "group_accuracy", a) - of(dataset, "group_accuracy", b)).isel(group=worst)
        return f"in ERM's worst group on average, {group} ({rows[worst]:.0f} test rows): {text(difference)}"

    note = f"percentage points; the worst group of each split, smallest group {rows.min():.0f} test rows"
    found = []
    for method, label in METHODS.items():
        if method == "erm":
            continue
        found.append(
            paired(
                f"{slug}_{method}_helps",
                of(dataset, "worst_accuracy", method),
                ">",
                of(dataset, "worst_accuracy", "erm"),
                statement=f"ours: {label} raises the worst group's test accuracy above ERM's ({name})",
                source=SOURCE,
                note=f"{note}; {fixed_group(method, 'erm')}",
            )
        )
        found.append(
            versus(
                f"{slug}_{method}_price",
                of(dataset, "accuracy", method) - of(dataset, "accuracy", "erm"),
                ">=",
                -PRICE,
                statement=f"ours: {label} costs at most {PRICE:g} point of average test accuracy ({name})",
                source=SOURCE,
                note="percentage points, groups weighted as in training",
            )
        )
    for method in ("group_dro", "hardness"):
        found.append(
            paired(
                f"{slug}_{method}_worst_loss",
                of(dataset, "worst_loss", method),
                "<",
                of(dataset, "worst_loss", "erm"),
                statement=f"ours: {METHODS[method]} lowers the worst group's test loss below ERM's ({name})",
                source=SOURCE,
                note="nats",
            )
        )
    found.append(
        paired(
            f"{slug}_group_labels_help",
            of(dataset, "worst_accuracy", "group_dro"),
            ">",
            of(dataset, "worst_accuracy", "hardness"),
            statement="ours: group DRO, which needs group labels, has a higher worst-group test accuracy than hardness "
            f"sampling, which does not ({name})",
            source=SOURCE,
            note=f"{note}; {fixed_group('group_dro', 'hardness')}",
        )
    )
    return found
