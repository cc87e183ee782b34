"""Measures the sign of ERMA's ``G(t)``, paper 000's section 3.2, in section 5.2's logistic regression."""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.loss_and_sampling_weights import glm, logistic
from experiments.loss_and_sampling_weights.sentences import quote
from experiments.shared.figures import finish, quantile_band
from experiments.shared.sentences import text
from mixjax.runner import configs
from mixjax.runner.claims import versus
from mixjax.runner.experiment import Experiment

__all__ = ["GapSign", "gap_sign", "gaps"]


@dataclasses.dataclass(frozen=True)
class GapSign(logistic.Logistic):
    """Holds the settings of section 5.2, on a stream and with a hold-out that stays.

    Attributes:
        fresh_size: fresh points a domain on which ``G``'s losses are measured.
    """

    num_examples: int = 0
    estimation: glm.Estimation = "whole_hold_out"
    fresh_size: int = 1000

    def __post_init__(self):
        """Raises a ValueError where the hold-out ERMA updates on could not be looked at."""
        if self.num_examples or self.estimation == "fresh":
            raise ValueError("gap_sign needs num_examples = 0 and a fixed hold-out, estimation = 'whole_hold_out'.")


def gaps(loss_weights: jax.Array, losses: jax.Array) -> jax.Array:
    """Returns eq. 12's ``G(t) = Σ_d π_d (1 - w_d) ℓ_d``, ``[round]``.

    It takes this round's losses and last round's weights ``π w``.

    Args:
        loss_weights: ``[round]``, domain one's after each update; ``π`` is uniform.
        losses: ``[round, 2]``.
    """
    before = jnp.concatenate([jnp.full(1, 0.5), loss_weights[:-1]])
    return (0.5 - before) * (losses[:, 0] - losses[:, 1])


def train(key: jax.Array, config: GapSign) -> dict[str, jax.Array]:
    """Trains ERMA.

    Returns:
        ``gap`` ``[round]``, from the losses of fresh points, in place of the population's; ``gap_hold_out``, from
        those of the hold-out ERMA updates on; ``loss_weight``, domain one's after the update.
    """
    source_key, fresh_key, train_key = jax.random.split(key, 3)
    source = glm.stream(source_key, config, logistic.label)
    ids = jnp.repeat(jnp.arange(2), config.fresh_size)
    fresh = glm.generate(fresh_key, config, logistic.label, ids), ids
    # always the same points, whatever the key
    held_out = source.probe(source_key)

    def evaluate(params):
        points = {"fresh": fresh, "hold_out": held_out}
        return {name: glm.measure(logistic.cross_entropy, params, *chosen)["losses"] for name, chosen in points.items()}

    erma = logistic.methods(config, ("erma",))
    found = glm.train_methods(train_key, config, erma, logistic.cross_entropy, source, evaluate)
    weights, on_fresh, on_held_out = (found[name][0] for name in ("loss_weight", "fresh", "hold_out"))
    return {"gap": gaps(weights, on_fresh), "gap_hold_out": gaps(weights, on_held_out), "loss_weight": weights}


def gap_sign(config: GapSign) -> Experiment:
    """Makes the experiment on section 3.2's sentences about ``G(t)``."""

    def train_seed(key, hparams, data):
        del data  # each seed draws its own
        return train(jax.random.fold_in(key, 4), configs.replace(config, hparams))

    units = {"gap": "nats", "gap_hold_out": "nats", "loss_weight": "share"}
    return Experiment(
        train=train_seed,
        data=None,
        dims=dict.fromkeys(units, ("step",)),
        coords={"step": glm.steps(config)},
        units=units,
        figure=lambda results: figure(results, config),
        claims=lambda results: claims(results, config),
    )


def claims(results, config: GapSign) -> list:
    """Judges both signs, the change of sign over training, and where there is none; all after warm-up."""
    moving = {name: data.isel(step=slice(config.warmup_rounds + 1, None)) for name, data in results.items()}
    same, other = moving["(100, 100)"], moving["(10, 100)"]

    def ends(gap):
        fifth = max(gap.sizes["step"] // 5, 1)
        return gap.isel(step=slice(fifth)).mean("step"), gap.isel(step=slice(-fifth, None)).mean("step")

    def changes(gap):
        early, late = ends(gap)
        return (np.sign(early) != np.sign(late)).astype(float)

    def signs(setting):
        early, late = (float((part > 0).mean()) for part in ends(moving[setting].gap))
        return f"{setting}: G > 0 early in {early:.0%} of the seeds, late in {late:.0%}"

    def share(name, sign):
        shares = {setting: (sign * data.gap > 0).astype(float).mean("step") for setting, data in moving.items()}
        return versus(
            name,
            sum(shares.values()) / len(shares),
            ">=",
            0.05,
            **quote(name),
            note="share of the updates after warm-up, mean over the settings; "
            + ", ".join(f"{text(values)} in {setting}" for setting, values in shares.items()),
        )

    return [
        share("gap_positive", 1.0),
        share("gap_negative", -1.0),
        versus(
            "gap_sign_over_training",
            changes(other.gap),
            ">=",
            0.5,
            **quote("gap_sign_over_training"),
            note="share of the seeds in which G's means over the first and the last fifth of the updates after warm-up "
            "differ in sign, in (10, 100). G > 0 raises the weight of the domain with the higher loss, G < 0 of that "
            f"with the lower one; {'; '.join(map(signs, moving))}. With losses from the {config.estimation_size} "
            "held-out points a domain in place of fresh ones, whose sampling error is as large as the difference of "
            f"the losses, the share is {text(changes(other.gap_hold_out))}",
        ),
        versus(
            "gap_stays_positive_100_100",
            (same.gap > 0).astype(float).mean("step"),
            ">=",
            0.95,
            statement="ours: where only the label noise differs, (100, 100), G stays positive",
            source="paper 000, section 3.2",
            note="share of the updates after warm-up: the clean domain has the lower loss and the higher weight from "
            "the first update on",
        ),
    ]


def figure(results, config: GapSign):
    """Draws ``G(t)`` over training, one line a setting."""
    drawn, axis = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
    for number, (setting, data) in enumerate(results.items()):
        quantile_band(axis, data.step, data.gap, color=f"C{number}")
        axis.plot(data.step, data.gap.mean("seed"), color=f"C{number}", lw=1.4, label=f"scales {setting}")
    axis.axhline(0.0, color="0.2", lw=1, ls=":")
    axis.axvspan(0, config.warmup_rounds * config.probe_every, color="0.92", zorder=0, label="warm-up, w = 1")
    axis.set(xlabel="training steps", ylabel="G(t) (nats)", xlim=(0, config.num_steps))
    axis.set_yscale("symlog", linthresh=0.002)
    seeds = data.sizes["seed"]
    return finish(drawn, f"ERMA's G(t), logistic regression\nmean of {seeds} seeds, band: 10 to 90 % of them")
