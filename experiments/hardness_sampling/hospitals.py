"""Shows four hospitals their own scores under three weightings: the heart disease table, one hospital a site.

Needs `mixjax data heart`. A patient's score is the probability, in %, that the model gives to the true diagnosis. The
model is logistic regression with the settings that `group_shift.toml` chose on other splits.

python -m experiments.hardness_sampling.hospitals
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from experiments.hardness_sampling.tabular import (
    Rows,
    any_rows,
    init,
    losses,
    part_sizes,
    rows_by_weight,
    split,
    train_with_rule,
    train_with_sampler,
)
from mixjax import data, rules, samplers
from mixjax.data import Table
from mixjax.files import write_whole
from mixjax.runner.site_page import site_figure, site_markdown
from mixjax.runner.sites import SiteReport, site_report

__all__ = ["PAGE", "hospital_scores", "main", "page"]

PAGE = Path(__file__).with_name("SITES.md")
BATCH, STEPS, LEARNING_RATE, BETA = 120, 1000, 0.01, 0.1
FIRST_SEED, NUM_SEEDS = 7000, 8
METHODS = ("volume", "uniform", "hardness")

HEAD = f"""\
Heart disease at four hospitals ([data](../guides/data_licences.md)). The score of a patient is the probability, in %,
that the model gives to the true diagnosis. Under *volume* weighting every patient counts the same (ERM), and under
*uniform* weighting every hospital does; *hardness* draws patients with a high loss more often. Logistic regression,
{NUM_SEEDS} random splits; a patient's score is the mean over the splits in which the patient was tested.

`python -m experiments.hardness_sampling.hospitals` makes this page again;
[the guide](../guides/sites.md) tells how to make one of your own scores."""


def hospital_scores(table: Table, num_seeds: int = NUM_SEEDS, num_steps: int = STEPS) -> pd.DataFrame:
    """Trains under the three weightings on several splits, and scores each test patient.

    Args:
        table: rows with a hospital each.
        num_seeds: the number of splits.
        num_steps: the number of training steps.

    Returns:
        One row for each score: site, case (the patient's row in the table), method, seed and score.
    """
    rows = Rows(*map(jnp.asarray, (table.features, table.labels, table.groups)))
    sizes = part_sizes(np.bincount(table.groups))
    prior, n = sizes[0] / sizes[0].sum(), int(sizes[0].sum())
    optimizer = optax.sgd(optax.cosine_decay_schedule(LEARNING_RATE, num_steps))
    sampler = samplers.hardness(n, BETA, replacement=False)

    @jax.jit
    def scored(key, rows):
        split_key, init_key, step_key = jax.random.split(key, 3)
        training, _, test = split(split_key, rows, sizes)
        # The split depends on key and groups alone, so it tells as well which row went where.
        numbered = rows._replace(features=jnp.arange(rows.labels.size))
        tested = split(split_key, numbered, sizes)[2].features
        params, keys = init(init_key, rows.features.shape[1], 0), jax.random.split(step_key, num_steps)

        def by_rule(rule, prior, draw):
            return train_with_rule(optimizer, params, training, keys, rule=rule, prior=prior, draw=draw)

        fitted = {
            "volume": by_rule(rules.fixed(), jnp.ones(BATCH), any_rows(n, BATCH)),
            "uniform": by_rule(rules.fixed(temperature=jnp.inf), prior, rows_by_weight(sizes[0], BATCH)),
            "hardness": train_with_sampler(optimizer, params, training, keys, sampler=sampler, batch_size=BATCH),
        }
        return tested, {name: 100 * jnp.exp(-losses(found, test)) for name, found in fitted.items()}

    tables = []
    for seed in range(FIRST_SEED, FIRST_SEED + num_seeds):
        tested, scores = scored(jax.random.key(seed), rows)
        site = np.array(table.group_names)[table.groups[np.asarray(tested)]]
        # By name: a jitted function returns its dict sorted.
        for method in METHODS:
            columns = {"site": site, "case": np.asarray(tested), "method": method, "seed": seed}
            tables.append(pd.DataFrame(columns | {"score": np.asarray(scores[method], np.float64)}))
    return pd.concat(tables, ignore_index=True)


def page(report: SiteReport) -> str:
    """Writes the page, whose figure lies beside it."""
    title, *lines = site_markdown(report, "Four hospitals")
    return "\n".join([title, "", HEAD, "", "![Scores by hospital](sites.png)", *lines]) + "\n"


def main() -> None:
    """Trains, and writes the page and its figure."""
    report = site_report(hospital_scores(data.load_table("heart")), ["volume", "uniform"])
    write_whole(PAGE, page(report))
    site_figure(report, "Heart disease: probability of the true diagnosis, %").savefig(
        PAGE.with_name("sites.png"), dpi=110
    )


if __name__ == "__main__":
    main()
