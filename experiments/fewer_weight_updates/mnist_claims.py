"""Judges what is measured on MNIST's domains, run by run. Every row is ours: the abstract is about quadratics."""

import functools
import re

from experiments.fewer_weight_updates.mnist_figure import BASELINES, best_of_grid, horizons, of, shares, steps_a_round
from experiments.shared.sentences import text
from mixjax.runner.claims import Claim, near, paired, versus

# The T that is compared with T = 1.
T = 16

# The bounds were fixed on seeds below 1000, before the judging seeds were run. The first two are percentage points of
# test accuracy, the third nats of validation loss, the last a sum over domains of absolute differences of weights.
NOT_WORSE = 1.0
NO_EFFECT = 1.0
NOT_WORSE_LOSS = 0.02
MOVED = 0.1
POINTS, NATS = "percentage points of test accuracy", "nats of validation loss"


def claims(results) -> list[Claim]:
    """Judges the same rows for every run, and more rows for a run with the grid."""
    found = []
    for name, data in results.items():
        row = functools.partial(_row, name)
        found += [*_horizon(data, row), *_baselines(data, row), *_compute(data, row)]
        found += _grid(data, row) if "point" in data.dims else []
    return found


def best(data, names, metric: str = "accuracy", budget: str = "updates") -> str:
    """Returns the method of highest mean accuracy, or of lowest mean loss."""
    sign = 1 if metric == "accuracy" else -1
    return max(names, key=lambda name: sign * float(of(data, metric, name, budget).mean()))


def _row(run, judge, key, judged, statement, *notes):
    name = f"{re.sub(r'[^a-z0-9]+', '_', run.lower())}_{key}"
    return judge(name, *judged, statement=f"ours: {statement} ({run})", source="ours", note="; ".join(notes))


def _mean(data, metric, method):
    return "/".join(f"{value:.2f}" for value in of(data, metric, method).mean("seed").values)


def _horizon(data, row):
    accuracy, loss = (functools.partial(of, data, metric) for metric in ("accuracy", "validation_loss"))
    by_T, first_order = horizons(data), horizons(data, "alignment T=")
    here, long, auto = f"T={T}", max(first_order), steps_a_round(data, "auto")
    best_fixed, fits_best = best(data, by_T.values()), best(data, by_T.values(), "validation_loss")

    def from_T1(values):
        return ", ".join(f"T = {t}: {text(values(m) - values('T=1'))}" for t, m in by_T.items() if t > 1)

    def all_T(metric):
        return ", ".join(f"T = {t}: {_mean(data, metric, method)}" for t, method in by_T.items())

    def gained(t):
        return accuracy(first_order[t]) - accuracy(first_order[1])

    return [
        row(
            paired,
            f"T{T}_above_T1",
            (accuracy(here), ">", accuracy("T=1")),
            f"T = {T} ends at a higher test accuracy than T = 1",
            f"{POINTS}; {from_T1(accuracy)}",
        ),
        row(
            paired,
            f"T{T}_fits_better",
            (loss(here), "<", loss("T=1")),
            f"T = {T} ends at a lower validation loss than T = 1",
            f"{NATS}; {from_T1(loss)}",
        ),
        row(
            paired,
            "T1_above_uniform",
            (accuracy("T=1"), ">", accuracy("uniform")),
            "T = 1 ends at a higher test accuracy than uniform weights",
            POINTS,
        ),
        row(
            paired,
            "T1_fits_better_than_uniform",
            (loss("T=1"), "<", loss("uniform")),
            "T = 1 ends at a lower validation loss than uniform weights",
            f"{NATS}; row added when the first judging seeds, 1000 to 1009, had been seen",
        ),
        row(
            versus,
            "auto_near_best",
            (accuracy("auto") - accuracy(best_fixed), ">=", -NOT_WORSE),
            f"the T of mixing.horizon is at most {NOT_WORSE:g} point below the best fixed T",
            f"{POINTS}, T = {auto} minus {best_fixed}, the best on these seeds",
            f"validation loss, minus that of {fits_best}: {text(loss('auto') - loss(fits_best))}",
        ),
        row(
            near,
            "first_order_gains_nothing",
            (gained(T), 0.0, NO_EFFECT),
            f"without curvature (alignment) T = {T} is as good as T = 1, whose fixed points it has",
            f"{POINTS}; T = {long}: {text(gained(long))}",
        ),
        row(
            versus,
            "mean_near_last",
            (abs(of(data, "weights", here) - of(data, "mean_weights", here)).sum("domain"), "<=", MOVED),
            f"at T = {T} the mean of all weights is within {MOVED:g} of the last ones, summed over domains",
            f"{'/'.join(data['domain'].values)}, last: {all_T('weights')}",
            f"mean: {all_T('mean_weights')}",
        ),
    ]


def _baselines(data, row):
    accuracy = functools.partial(of, data, "accuracy")
    rival, alone = best(data, BASELINES), data["validation_alone_accuracy"]
    return [
        *(
            row(
                paired,
                f"{method}_above_uniform",
                (accuracy(method), ">", accuracy("uniform")),
                f"{label} ends at a higher test accuracy than uniform weights",
                f"{POINTS}; last weights {_mean(data, 'weights', method)}",
            )
            for method, (label, _) in BASELINES.items()
            if method != "uniform"
        ),
        row(
            paired,
            f"T{T}_above_baselines",
            (accuracy(f"T={T}"), ">", accuracy(rival)),
            f"T = {T} ends at a higher test accuracy than every baseline",
            f"{POINTS}, minus {rival}'s",
        ),
        row(
            paired,
            f"T{T}_above_validation_alone",
            (accuracy(f"T={T}"), ">", alone),
            f"training on the domains, T = {T}, is better than on the validation images alone",
            f"{POINTS}; on them alone {text(alone)} %",
        ),
    ]


def _compute(data, row):
    accuracy = functools.partial(of, data, "accuracy", budget="compute")
    rival = best(data, BASELINES, budget="compute")

    def updates(method):
        return f"{method} {int(of(data, 'steps', method, 'compute').isel(seed=0))}"

    return [
        row(
            paired,
            f"T{T}_above_baselines_equal_compute",
            (accuracy(f"T={T}"), ">", accuracy(rival)),
            f"at equal compute T = {T} has a higher test accuracy than every baseline",
            f"{POINTS}, minus {rival}'s",
            f"updates: {', '.join(map(updates, ['uniform', rival, *horizons(data).values()]))}",
        ),
        row(
            paired,
            f"T{T}_above_T1_equal_compute",
            (accuracy(f"T={T}"), ">", accuracy("T=1")),
            f"at equal compute T = {T} has a higher test accuracy than T = 1",
            POINTS,
        ),
    ]


def _grid(data, row):
    fits_best = best(data, horizons(data).values(), "validation_loss")
    loss, accuracy = (
        of(data, metric, fits_best) - best_of_grid(data, metric) for metric in ("validation_loss", "accuracy")
    )
    chosen = shares(data)[data["grid_validation_loss"].argmin("point").values].mean(axis=0)

    def again(method):
        return data["retrained_accuracy"].sel({"method": method}, drop=True)

    gains = ", ".join(f"{method} {text(again(method) - again('uniform'))}" for method in ("T=1", fits_best, "doge"))
    return [
        row(
            versus,
            "best_T_near_grid",
            (loss, "<=", NOT_WORSE_LOSS),
            f"the best T ends within {NOT_WORSE_LOSS:g} nats of the lowest validation loss of any fixed weights of a "
            "grid of step 0.2",
            f"{NATS}, {fits_best} minus the grid's best for each seed; test accuracy {text(accuracy)} points",
            f"the grid's choice, mean {'/'.join(f'{share:.2f}' for share in chosen)}",
        ),
        row(
            paired,
            f"retrained_T{T}_above_T1",
            (again(f"T={T}"), ">", again("T=1")),
            f"held fixed from the start, the mean weights of T = {T} give a higher test accuracy than those of T = 1",
            f"{POINTS}; above uniform: {gains}",
        ),
    ]
