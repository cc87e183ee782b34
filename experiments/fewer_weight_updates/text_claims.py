"""Judges the claims of text.toml."""

import re

import xarray

from experiments.shared.sentences import text
from mixjax.runner.claims import Claim, paired, versus

SOURCE = "ours (not in the abstract of papers 001 and 002)"
OPEN = "ours (paper 000, section 6, leaves dependent samples open)"
# The runs of the config, beside T = 1, 4, ...
UNIFORM, ALIGNMENT, DOGE = "uniform", "alignment, T = 16", "DoGE"
SPARSE, FULL = "T = 4, one round in 16", "T = 4"
FEW, SEQUENCES, BYTES = "few bytes: uniform", "few bytes: ERMA, sequences", "few bytes: ERMA, bytes"
# The domains that hold some English.
ENGLISH = ["python", "shakespeare"]
# The cheap hypergradient may cost so many nats a byte. Fixed before the judging seeds were run, as is the next bound.
COST = 0.02
# Two methods' weights differ if at least this share of the weight is on other domains.
APART = 0.02


def horizons(results) -> dict[int, xarray.Dataset]:
    """Returns T -> data set, for the runs that are named after their T alone."""
    found = {re.fullmatch(r"T = (\d+)", name): data for name, data in results.items()}
    return {int(match[1]): data for match, data in found.items() if match}


def final(data) -> xarray.DataArray:
    """Returns the target's test loss of the model trained while the weights moved, one value for each seed."""
    return data["target_loss"].isel(step=-1)


def mean_loss(data) -> xarray.DataArray:
    """Returns the mean test loss of the domains trained on, one value for each seed."""
    return data["test_losses"].mean("domain")


def weights(data) -> str:
    """Writes the mean weights, for a note."""
    mean = data["mean_weights"].mean("seed")
    return ", ".join(f"{name} {value:.2f}" for name, value in zip(mean.domain.values, mean.values, strict=True))


def claims(results) -> list[Claim]:
    """Judges the horizon, the cost of the cheap hypergradient, and ERMA on dependent bytes."""
    return [*_mixing(results), *_erma(results)]


def _lower(name, a, b, statement, *, source=SOURCE, note="nats/byte") -> Claim:
    """Judges whether the losses ``a`` are below the losses ``b`` of the same seeds."""
    return paired(name, a, "<", b, statement=f"ours: {statement}", source=source, note=note)


def _mixing(results) -> list[Claim]:
    """Judges the hypergradient's horizons, its rivals, and its cheap form."""
    return [
        *(row for T, data in horizons(results).items() for row in _horizon(T, data, results[UNIFORM])),
        *_longer(horizons(results), 1, 16),
        *_longer(horizons(results), 16, 64),
        _rival("alignment", ALIGNMENT, results),
        _rival("doge", DOGE, results),
        *_one_round_in_16(results),
    ]


def _horizon(T: int, data, uniform) -> list[Claim]:
    """Judges one horizon against uniform mixing."""
    level = f"nats/byte; uniform mixing: {text(final(uniform), 4)}"
    return [
        _lower(
            f"t_{T}_helps",
            final(data),
            final(uniform),
            f"weights moved with T = {T} lower the target's loss below uniform mixing's",
            note=f"{level}; mean weights: {weights(data)}",
        ),
        _lower(
            f"t_{T}_retrained_helps",
            data["retrained_loss"],
            final(uniform),
            f"a model trained anew with the mean weights of T = {T} has a lower target loss than uniform mixing's",
            note=level,
        ),
        versus(
            f"t_{T}_finds_english",
            data["mean_weights"].sel(domain=ENGLISH).sum("domain"),
            ">=",
            len(ENGLISH) / data.sizes["domain"],
            statement=f"ours: at T = {T} the domains that hold English get more than their uniform share",
            source=SOURCE,
        ),
    ]


def _longer(runs, T: int, longer: int) -> list[Claim]:
    """Judges whether a longer horizon is better than a shorter one."""
    return [
        _lower(
            f"t_{longer}_over_t_{T}",
            final(runs[longer]),
            final(runs[T]),
            f"T = {longer} ends at a lower target loss than T = {T}",
        ),
        _lower(
            f"t_{longer}_over_t_{T}_retrained",
            runs[longer]["retrained_loss"],
            runs[T]["retrained_loss"],
            f"T = {longer}'s mean weights train a better model than T = {T}'s",
        ),
    ]


def _rival(name: str, other: str, results) -> Claim:
    """Judges T = 16 against a method without a T-step hypergradient."""
    above_uniform = final(results[other]) - final(results[UNIFORM])
    return _lower(
        f"t_16_over_{name}",
        final(horizons(results)[16]),
        final(results[other]),
        f"T = 16 ends at a lower target loss than {other}",
        note=f"nats/byte; {other} minus uniform mixing: {text(above_uniform, 2)}",
    )


def _one_round_in_16(results) -> list[Claim]:
    """Judges the cheap hypergradient, which differentiates one round in 16."""
    sparse = results[SPARSE]
    return [
        _lower(
            "one_round_in_16_helps",
            final(sparse),
            final(results[UNIFORM]),
            "differentiating one round in 16 (T = 4) still lowers the target's loss below uniform mixing's",
        ),
        versus(
            "one_round_in_16_cost",
            final(sparse) - final(results[FULL]),
            "<=",
            COST,
            statement=f"ours: it costs at most {COST:g} nats/byte beside differentiating every round",
            source=SOURCE,
        ),
    ]


def _erma(results) -> list[Claim]:
    few, sequences, of_bytes = (results[name] for name in (FEW, SEQUENCES, BYTES))
    effects = few["design_effects"].isel(block=-1)
    found = [
        versus(
            f"dependence_{domain}",
            effects.sel(domain=domain),
            ">=",
            1.0,
            statement=f"ours: a sequence's mean loss ({domain}) varies more than that of as many independent bytes",
            source=OPEN,
            note=f"ratio of the variances for {effects.block.item()} bytes, on test windows",
        )
        for domain in effects.domain.values
    ]
    gap = (few["test_losses"] - few["train_losses"]).mean("domain")
    level = f"nats/byte; uniform weights {text(mean_loss(few), 4)}, its test minus training loss {text(gap, 2)}"
    apart = abs(sequences["mean_weights"] - of_bytes["mean_weights"]).sum("domain") / 2
    for name, data in (("sequences", sequences), ("bytes", of_bytes)):
        found.append(
            _lower(
                f"erma_{name}_helps",
                mean_loss(data),
                mean_loss(few),
                f"ERMA with the variance over {name} lowers the mean test loss of the domains trained on",
                source=OPEN,
                note=f"{level}; mean weights: {weights(data)}",
            )
        )
    return [
        *found,
        versus(
            "erma_weights_differ",
            apart,
            ">=",
            APART,
            statement=f"ours: taking bytes for independent moves more than {APART:g} of ERMA's weight elsewhere",
            source=OPEN,
            note="total variation distance of the mean weights",
        ),
        _lower(
            "erma_sequences_over_bytes",
            mean_loss(sequences),
            mean_loss(of_bytes),
            "ERMA with the variance over sequences has a lower mean test loss than with that over bytes",
            source=OPEN,
        ),
    ]
