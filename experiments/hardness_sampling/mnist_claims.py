"""What figure 1 says of imbalanced MNIST, judged on the MLP; the notes tell how the CNN fares."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from experiments.hardness_sampling import curves
from experiments.hardness_sampling.sentences import quote
from experiments.shared.sentences import verdict
from mixjax.runner.claims import Claim, near, paired, versus

SOURCE = "paper 004, section 4.1 and appendix 8.1"
LARGE = ("wr_10", "wr_100")  # beta >= 10, as algorithm 1 reads
SMALL = ("erm", "wr_0.1", "wr_1")

# Fixed on seeds 0 and 1, before any judging seed was run.
RECORDS = 5  # "at the end": mean over so many last records
GAP = 15.0  # percentage points, the paper's
OPTIMA = 5.0  # percentage points by which different optima differ on class 3
SMALL_BETA = 5.0  # percentage points between learning curves that have converged to each other
COMPENSATED = 0.5  # share of the distance to the fresh distribution that importance weights have to take away
STABLE = 2.0  # a training curve is as stable as another whose roughness is at least half its own


def end(data, metric: str, method: str):
    """Mean over the last records, one value a seed."""
    return data[metric].sel({"method": method}).isel(step=slice(-RECORDS, None)).mean("step")


def rough(data, metric: str, methods, log: bool = False):
    """Mean roughness of the methods' curves, of their logarithms if asked, over the second half of training."""
    values = curves.second_half(data[metric].sel({"method": list(methods)}))
    return curves.roughness(np.log(values) if log else values).mean("method")


def steps_to_reach(data, metric: str, method: str, level):
    """First step at which a curve is at the level, as a share of all steps; 1 if it never is."""
    reached = data[metric].sel({"method": method}) >= level
    first = data.step.isel(step=reached.argmax("step")) / int(data.step[-1])
    return first.where(reached.any("step"), 1.0).drop_vars("step", errors="ignore")


def local(values):
    """A curve above the mean of its two neighbours."""
    middle = values.isel(step=slice(1, -1))
    return middle - 0.5 * (values.shift(step=1) + values.shift(step=-1)).isel(step=slice(1, -1))


def dips_and_spread(data, method: str):
    """Rank correlation, over the second half, of how far test accuracy dips and how far the losses' spread rises."""
    half = curves.second_half(data[["accuracy", "train_loss_std"]].sel({"method": method}))
    return curves.rank_correlation(-local(half["accuracy"]), local(half["train_loss_std"]))


def judged(results, judge: Callable[..., Claim], note: str) -> Claim:
    """The claim on the first run; the note adds the second run's number and verdict."""
    (_, first), (name, second), *_ = results.items()
    main, other = judge(first), judge(second)
    note = f"{note}, after {int(first.step[-1])} steps"
    also = f" ({other.note})" if other.note else ""
    parts = [note, main.note, f"{name}, after {int(second.step[-1])} steps: {verdict(other)}{also}"]
    return dataclasses.replace(main, note="; ".join(filter(None, parts)))


def claims(results) -> list[Claim]:
    """Sections 3.2, 4.1 and 8.1.2; the runs are, in this order, the MLP, the CNN, and those that go on longer."""
    row = functools.partial(judged, results)
    return [*_rare_class(row), *_optima(results), *_beta(row), *_stability(row), *_history(row)]


def _rare_class(row):
    def gap(name, a, b, threshold, text):
        def judge(data):
            values = [end(data, "rare_accuracy", method) for method in (a, b)]
            return paired(name, values[0], ">", values[1], threshold=threshold, **text)

        return judge

    def equal_loss(name, a, text):
        def judge(data):
            ahead, erm, level = curves.equal_loss(data, a, "erm")
            claim = paired(name, ahead, ">", erm, threshold=0.0, **text)
            return dataclasses.replace(claim, note=f"at a training loss of {float(level.mean()):.3g} nats")

        return judge

    def faster(data):
        level = end(data, "accuracy", "erm")
        share = steps_to_reach(data, "accuracy", "wr_10", level)
        name = "mnist_converges_faster"
        return paired(name, share, "<", np.ones_like(share), threshold=0.0, **quote(name))

    def ours(statement):
        return {"statement": f"ours: {statement}", "source": SOURCE}

    points = "percentage points of test accuracy on class 3, mean of the last records"
    name = "mnist_rare_class"
    found = [row(gap(name, "wr_10", "erm", GAP, quote(name)), f"{points}, with replacement - ERM")]
    for method, what in (("nr_10", "drawn without replacement"), ("is_10", "with clipped importance weights")):
        text = ours(f"so it is {what}: DRO for beta = 10 outperforms ERM by more than 15 points on class 3")
        found.append(row(gap(f"mnist_rare_class_{method}", method, "erm", GAP, text), points))
    for method, what in (("wr_10", "with replacement"), ("nr_10", "without replacement")):
        text = ours(f"at equal mean training loss DRO for beta = 10, {what}, is ahead of ERM on class 3")
        what = f"percentage points at the lowest training loss that both reach, {method} - ERM"
        found.append(row(equal_loss(f"mnist_equal_loss_{method}", method, text), what))
    found.append(row(faster, "steps until ERM's final test accuracy, as a share of ERM's; differences from 1"))
    return found


def _optima(results):
    (name, data), *others = list(results.items())[2:]
    main = optima(data)
    note = (
        f"{name}: percentage points on class 3, without replacement - ERM, after {int(data.step[-1])} steps; different "
        f"optima would keep {OPTIMA:g} points apart"
    )
    also = [f"{name}: {verdict(claim)}, {claim.note}" for name, claim in ((n, optima(d)) for n, d in others)]
    return [dataclasses.replace(main, note="; ".join([note, main.note, *also]))]


def optima(data) -> Claim:
    """That DRO and ERM end apart: undecided while the gap, from three quarters of the run to its end, still shrinks."""
    gaps = data["rare_accuracy"].sel({"method": "nr_10"}) - data["rare_accuracy"].sel({"method": "erm"})
    at = [int(data.sizes["step"] * part) for part in (0.25, 0.5, 0.75, 1.0)]
    quarters = [gaps.isel(step=slice(max(i - RECORDS, 0), i)).mean("step") for i in at]
    end = quarters[-1]
    claim = paired("mnist_different_optima", end, ">", 0.0 * end, threshold=OPTIMA, **quote("mnist_different_optima"))
    shrinks = paired("", quarters[-2], ">", end, statement="", source="")
    way = ", ".join(f"{float(q.mean()):.1f} at step {int(data.step[i - 1])}" for q, i in zip(quarters, at, strict=True))
    note = f"the gap on the way: {way}"
    if claim.holds and shrinks.holds:
        return dataclasses.replace(claim, holds=None, note=f"{note}: it is still closing")
    return dataclasses.replace(claim, note="; ".join(filter(None, [note, claim.note])))


def _beta(row):
    def difference(data, method):
        return data["rare_accuracy"].sel({"method": method}) - data["rare_accuracy"].sel({"method": "erm"})

    def converges(data):
        name = "mnist_small_beta_is_erm"
        return near(name, difference(data, "wr_0.1").mean("step"), 0.0, SMALL_BETA, **quote(name))

    def zero(data):
        text = {"statement": "ours: beta = 0 gives ERM's learning curve", "source": SOURCE}
        return near("mnist_beta_zero", difference(data, "wr_0").mean("step"), 0.0, SMALL_BETA, **text)

    def monotone(data):
        text = {"statement": "ours: ERM's curve is nearer to that of beta = 0.1 than to that of 1", "source": SOURCE}
        distances = [abs(difference(data, method)).mean("step") for method in ("wr_0.1", "wr_1")]
        return paired("mnist_distance_falls_with_beta", distances[0], "<", distances[1], **text)

    points = "percentage points of test accuracy on class 3 above ERM's, mean over the curve"
    return [row(converges, f"{points}, beta = 0.1"), row(zero, points), row(monotone, "means of absolute differences")]


def _stability(row):
    def test_rough(data, metric="accuracy"):
        name = "mnist_test_curves_unstable"
        return paired(name, rough(data, metric, LARGE), ">", rough(data, metric, SMALL), **quote(name))

    def no_rougher(name, metric, text):
        def judge(data):
            large, small = (rough(data, metric, methods, log=True) for methods in (LARGE, SMALL))
            shares = f"{100 * float(large.mean()):.2g} % of the loss against {100 * float(small.mean()):.2g} %"
            return dataclasses.replace(versus(name, large / small, "<=", STABLE, **text), note=shares)

        return judge

    def dips(data):
        name = "mnist_dips_follow_spread"
        values = 0.5 * (dips_and_spread(data, "wr_10") + dips_and_spread(data, "wr_100"))
        return paired(name, values, ">", 0.0 * values, **quote(name))

    def steadier(method, what):
        def judge(data):
            text = {"statement": f"ours: {what} is steadier than drawing with replacement, beta = 10", "source": SOURCE}
            values = [rough(data, "accuracy", [m]) for m in (method, "wr_10")]
            return paired(f"mnist_steadier_{method}", values[0], "<", values[1], **text)

        return judge

    batches = {"statement": "ours: the batches' mean losses for beta >= 10 were stable", "source": SOURCE}
    point = "points of test accuracy from one record to the next about a local line, second half"
    whats = {
        "nr_10": "drawing without replacement",
        "is_10": "drawing with clipped importance weights",
        "chi2_10": "the chi-squared divergence",
    }
    return [
        row(test_rough, f"{point}, beta = 10 and 100 against ERM, beta = 0.1 and 1"),
        row(
            no_rougher("mnist_training_curves_stable", "train_loss", quote("mnist_training_curves_stable")),
            "roughness of the mean training loss's logarithm, beta = 10 and 100 over ERM, 0.1 and 1",
        ),
        row(
            no_rougher("mnist_batch_losses_stable", "batch_loss", batches),
            "the same of the batches' mean loss, which is what the algorithm itself sees",
        ),
        row(dips, "rank correlation of dips in test accuracy with rises in the training losses' standard deviation"),
        *(row(steadier(method, what), point) for method, what in whats.items()),
    ]


def _history(row):
    def left(data, method):
        distances = (data[metric].sel({"method": method}).mean("checkpoint") for metric in ("tv_clipped", "tv_stale"))
        return np.divide(*distances)

    def compensates(data):
        name = "importance_sampling_compensates"
        return versus(name, 1.0 - left(data, "is_10"), ">=", COMPENSATED, **quote(name))

    def compensates_too_late(data):
        text = {
            "statement": "ours: so do they on the history of a run that trains without them, beta = 10",
            "source": "paper 004, section 3.2",
        }
        return versus("importance_of_unweighted_run", 1.0 - left(data, "wr_10"), ">=", COMPENSATED, **text)

    def smaller(estimate):
        def judge(data):
            text = {
                "statement": f"ours: weights of kind {estimate} lower the error of a batch's mean loss, beta = 10",
                "source": "paper 004, section 3.2",
            }
            error = data["error"].sel({"method": "wr_10"}).mean("checkpoint")
            values = [error.sel(estimate=name, drop=True) for name in (estimate, "stale")]
            return paired(f"importance_{estimate}_lowers_error", values[0], "<", values[1], **text)

        return judge

    def fresher(data):
        text = {"statement": "ours: drawn without replacement the history is fresher, beta = 10", "source": SOURCE}
        values = [end(data, "stale_correlation", method) for method in ("nr_10", "wr_10")]
        return paired("mnist_history_fresher_nr", values[0], ">", values[1], **text)

    def drifts(data):
        text = {"statement": "ours: as beta grows the history is further from the robust law", "source": SOURCE}
        values = [data["tv_stale"].sel({"method": method}).mean("checkpoint") for method in ("wr_10", "wr_1")]
        return paired("mnist_staleness_grows_with_beta", values[0], ">", values[1], **text)

    distance = "total variation distance to softmax(beta L) of the losses as they are, mean over checkpoints"
    taken = f"share that clipped weights take away of the {distance}"
    kinds = ("clipped", "tree", "self_normalised")
    error = "root mean square error of a batch's estimate of the robust mean loss, relative; mean over checkpoints"
    return [
        row(compensates, f"{taken}, in a run that uses them, beta = 10"),
        row(compensates_too_late, taken),
        *(row(smaller(kind), error) for kind in kinds),
        row(fresher, "correlation of stale with true losses at the end"),
        row(drifts, f"{distance}, beta = 10 - beta = 1"),
    ]
