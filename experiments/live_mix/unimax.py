"""Draws UniMax's mix of languages by a plan with limits, and judges it by what its paper states.

Chung et al., "UniMax: fairer and more effective language sampling for large-scale multilingual pretraining", ICLR 2023.
UniMax draws all languages alike, apart from those that would be repeated more than ``N`` times: those are drawn ``N``
times. That is the KL projection of uniform weights onto ``q_l <= N n_l / C``, which :func:`mixjax.rules.cap` and
:class:`mixjax.live.Plan` compute.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.live_mix.languages import FULL_BUDGET, languages
from experiments.live_mix.unimax_claims import claims
from experiments.live_mix.unimax_figure import figure
from mixjax import rules
from mixjax.live import Plan
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment

__all__ = ["Unimax", "draw", "unimax"]


@dataclasses.dataclass(frozen=True)
class Unimax:
    """Holds the settings.

    Attributes:
        max_epochs: ``N``, how often a language may be repeated.
        budget: share of the paper's full budget.
        temperature: temperature of the sampling that UniMax is compared with.
        row: length of a row, in millions of characters.
        batch_size: rows of a step of the plan.
    """

    max_epochs: float = 1.0
    budget: float = 1.0
    temperature: float = 3.33
    row: float = 1.0
    batch_size: int = 1024


def draw(sizes: np.ndarray, max_epochs: float, budget: float, batch_size: int) -> np.ndarray:
    """Draws a whole run by a plan with uniform weights, and counts.

    Args:
        sizes: int ``[language]``, rows of each language.
        max_epochs: ``N``.
        budget: rows of the run.
        batch_size: rows of a step.

    Returns:
        int32 ``[2, language]``, rows drawn in the first half of the steps and in all of them.
    """
    sizes, total = np.asarray(sizes), round(float(budget))
    uniform = np.ones(sizes.size)
    plan = Plan(sizes.tolist(), batch_size, uniform, max_epochs=float(max_epochs), budget=total)
    half, drawn = np.zeros(sizes.size, np.int64), np.zeros(sizes.size, np.int64)
    for batch in plan:
        drawn += batch.counts
        if batch.step < total // batch_size // 2:
            half += batch.counts
        plan.keep(batch.step)
    return np.stack([half, drawn]).astype(np.int32)


def train(key: jax.Array, config: Unimax) -> dict[str, jax.Array]:
    """Draws sizes that the printed ones may have been rounded from, and what each method makes of them.

    Returns:
        A dict of:

        - ``corpus`` ``[language]``, rows of the corpus;
        - ``drawn`` and ``first_half`` ``[language]``, rows that the plan drew in all steps, and in the first half;
        - ``cap`` and ``temperature`` ``[language]``, the sampling weights of ``rules.cap`` and of temperature sampling;
        - ``rows``, rows of the run.
    """
    table = languages()
    error = jax.random.uniform(key, (len(table.names),), minval=-1.0, maxval=1.0)
    corpus = jnp.maximum(jnp.round((table.characters + table.rounding * error) / config.row), 1.0)
    rows = jnp.round(FULL_BUDGET / config.row * config.budget / config.batch_size) * config.batch_size
    # A plan belongs to the host: the compiled program calls it.
    first_half, drawn = jax.pure_callback(
        lambda *arguments: draw(*arguments, config.batch_size),
        jax.ShapeDtypeStruct((2, corpus.size), jnp.int32),
        corpus.astype(jnp.int32),
        config.max_epochs,
        rows,
        vmap_method="sequential",
    )
    uniform = jnp.ones(corpus.size)
    flat = (corpus / corpus.sum()) ** (1.0 / config.temperature)
    return {
        "corpus": corpus,
        "drawn": drawn,
        "first_half": first_half,
        "cap": rules.cap(rules.fixed(), corpus * config.max_epochs / rows).init(uniform).weights,
        "temperature": flat / flat.sum(),
        "rows": rows,
    }


def unimax(config: Unimax) -> Experiment:
    """Makes the experiment on UniMax's allocation of a budget of characters to the languages of mC4."""

    def train_seed(key, hparams, data):
        del data  # the table is small, and the same for all
        return train(key, configs.replace(config, hparams))

    units = {"corpus": "rows", "drawn": "rows", "first_half": "rows", "cap": "share", "temperature": "share"}
    return Experiment(
        train=train_seed,
        data=None,
        dims=dict.fromkeys(units, ("language",)),
        coords={"language": languages().names},
        units=units | {"rows": "rows"},
        figure=figure,
        claims=claims,
    )
