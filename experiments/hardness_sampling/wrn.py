"""WRN-16-1 on imbalanced MNIST: paper 004, section 4.1 and appendix 8.1, the paper's own model.

A step costs a CPU core a sixth of a second, so that this is a run to leave alone, and to stop at any time::

    python -m experiments.hardness_sampling.wrn configs/hardness_sampling/wrn.toml

trains the methods in turn, ``record_every`` steps each, and after every round writes the result so far and the state to
go on from; called again, it does. ``mixjax run`` on the same config is the same computation in one go, for a GPU: on a
CPU, convolutions in a compiled loop are many times slower.

Batch normalisation under hardness weighted sampling: a training batch is normalised by its own statistics, and the
running ones follow the batches, hence the sampled distribution, not the data's. That is what a framework does by
default, so it is what "accuracy" means here. The metrics ``*_fresh_statistics`` are the same network with statistics
measured on training images drawn uniformly: the difference is what normalisation adds to the effect of sampling.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import xarray

from experiments.hardness_sampling import curves, imbalanced
from mixjax.runner import configs, results
from mixjax.runner.claims import paired, rows
from mixjax.runner.experiment import Experiment
from mixjax.sweeps import checkpoints
from mixjax.sweeps.keys import bits

SOURCE = "paper 004, section 4.1 and appendix 8.1"
METHODS = {"erm": "ERM", "wr": "DRO, β = 10, with replacement", "nr": "DRO, β = 10, without replacement"}


@dataclasses.dataclass(frozen=True)
class Wrn(imbalanced.Problem):
    """The run on WRN-16-1.

    Attributes:
        beta: of the two runs of hardness weighted sampling.
    """

    beta: float = 10.0


def schemes(config: Wrn, images: imbalanced.Images) -> dict[str, imbalanced.Scheme]:
    """How each method draws."""
    n, size = imbalanced.num_kept(config, images), config.batch_size
    hardness = {name: imbalanced.hardness(n, size, config.beta, replacement=name == "wr") for name in ("wr", "nr")}
    return {"erm": imbalanced.shuffled(n, size), **hardness}


def train(key, config: Wrn, images: imbalanced.Images, drawn: dict[str, imbalanced.Scheme]) -> dict[str, jax.Array]:
    """Trains the methods one after the other; metrics are ``[method, step]``."""

    def one(scheme):
        parts, carry = imbalanced.start(key, config, images, scheme)

        def advance(carry, _):
            carry, seen = jax.lax.scan(
                lambda carry, _: imbalanced.step(carry, config, images, parts, scheme),
                carry,
                length=config.record_every,
            )
            return carry, jax.tree.map(jnp.mean, seen) | imbalanced.evaluate(carry, config, images, parts, scheme)

        return jax.lax.scan(advance, carry, length=config.num_steps // config.record_every)[1]

    return jax.tree.map(lambda *records: jnp.stack(records), *(one(drawn[method]) for method in METHODS))


def wrn(config: Wrn) -> Experiment:
    """The experiment, for ``mixjax run``."""
    units = imbalanced.UNITS | {f"{name}_fresh_statistics": unit for name, unit in imbalanced.EVALUATED.items()}
    images = imbalanced.load(config.rare_class)
    drawn = schemes(config, images)
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams), data, drawn),
        data=images,
        dims=dict.fromkeys(units, ("method", "step")),
        coords={"method": list(METHODS), "step": range(config.record_every, config.num_steps + 1, config.record_every)},
        units=units,
        figure=figure,
        claims=claims,
    )


def figure(results):
    """Figure 1 for this run: test curves above, training curves below, as far as they go."""
    data = next(iter(results.values())).isel(seed=0)
    panels = {
        "rare_accuracy": "test accuracy on class 3 (%)",
        "accuracy": "test accuracy, all classes (%)",
        "rare_accuracy_fresh_statistics": "test accuracy on class 3 (%)\nstatistics of uniform images",
        "train_loss": "mean training loss (nats)",
        "train_loss_std": "std of per-example training loss (nats)",
        "rare_share": "class 3's share of the draws",
    }
    drawn, axes = plt.subplots(2, 3, figsize=(13, 6.6), layout="constrained")
    for axis, (metric, label) in zip(axes.flat, panels.items(), strict=True):
        for number, (method, text) in enumerate(METHODS.items()):
            axis.plot(data.step, data[metric].sel({"method": method}), color=f"C{number}", lw=1.4, label=text)
        axis.set(xlabel="training steps", ylabel=label, yscale="log" if metric.startswith("train") else "linear")
        if "accuracy" in metric:
            axis.set_ylim(-1, 100)
        axis.grid(alpha=0.3, lw=0.5)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    drawn.suptitle(f"WRN-16-1 on MNIST with 1 % of the 3s, learning rate 0.01, batch 64: one seed ({int(data.seed)})")
    return drawn


def claims(results) -> list:
    """What one seed shows; the numbers have no error, so that nothing is decided."""
    data = next(iter(results.values()))
    steps = f"on WRN-16-1 after {int(data.step[-1])} steps"

    def compare(name, method, values, statement, threshold=0.0, note=""):
        statement = f"ours: {METHODS[method]}, {statement}"
        return paired(
            f"wrn_{name}_{method}",
            values[0],
            ">",
            values[1],
            threshold=threshold,
            statement=statement,
            source=SOURCE,
            note=note,
        )

    def last(metric, method):
        return [curves.last(data[metric], name) for name in (method, "erm")]

    def rough(metric, method):
        half = curves.second_half(data[metric])
        return [curves.roughness(half.sel({"method": name}, drop=True)) for name in (method, "erm")]

    found = []
    for method in ("nr", "wr"):
        *equal, level = curves.equal_loss(data, method, "erm")
        more, loss = "outperforms ERM by more than 15 points on class 3", f"a loss of {float(level.mean()):.3g} nats"
        fresh = "with batch statistics of uniformly drawn images"
        local = "points from one record to the next about a local line, second half of the run"
        found += [
            compare("rare_class", method, last("rare_accuracy", method), f"{more} {steps}", 15.0),
            compare(
                "rare_class_fresh_statistics",
                method,
                last("rare_accuracy_fresh_statistics", method),
                f"{more} {steps}, {fresh}",
                15.0,
            ),
            compare("equal_loss", method, equal, "is ahead of ERM on class 3 at equal training loss", note=loss),
            compare("rougher", method, rough("accuracy", method), "has a rougher test curve than ERM", note=local),
        ]
    return found


def _like(leaf, array):
    """What was kept of a leaf, as it was."""
    return jax.random.wrap_key_data(array) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.asarray(array)


def run(path: Path, out: Path, overrides=(), report=print) -> Path:
    """Trains in rounds from where an earlier call stopped, and writes the result after every round.

    Args:
        path: the config.
        out: the result's folder; the state lies beside it, a checkpoint in ``<out>.chunks``.
        overrides: as ``mixjax run --set`` takes them.
        report: called with a line a round.

    Returns:
        ``out``.

    Raises:
        mixjax.sweeps.checkpoints.ChangedError: ``<out>.chunks`` holds the state of another config.
    """
    config = configs.load(path, overrides)
    values, experiment = config.runs[0].values, wrn(config.runs[0].values)
    images, key = jax.tree.map(jnp.asarray, experiment.data), jax.random.key(config.sweep.first_seed)
    steps = np.asarray(experiment.coords["step"])
    drawn = schemes(values, experiment.data)
    begin = jax.jit(imbalanced.start, static_argnums=(1, 3))
    step, evaluate = (jax.jit(f, static_argnums=(1, 4)) for f in (imbalanced.step, imbalanced.evaluate))

    parts, carries = None, {}
    for method in METHODS:
        parts, carries[method] = begin(key, values, images, drawn[method])
    records = {name: np.full((len(METHODS), len(steps)), np.nan, np.float32) for name in experiment.units}
    identity = {"config": configs.as_json(values), "first_seed": config.sweep.first_seed}
    store = checkpoints.Chunks(out.with_name(f"{out.name}.chunks"), identity)
    leaves, structure = jax.tree.flatten({"carries": carries, "records": records, "seconds": np.float64(0)})
    done, arrays = store.read_carry(0) or (0, {str(i): bits(leaf) for i, leaf in enumerate(leaves)})
    progress = structure.unflatten([_like(leaf, arrays[str(i)]) for i, leaf in enumerate(leaves)])
    records = {name: np.array(values) for name, values in progress["records"].items()}
    carries, seconds = progress["carries"], float(progress["seconds"])
    for number in range(done, len(steps)):
        begun = time.perf_counter()
        for row, method in enumerate(METHODS):
            seen = []
            for _ in range(values.record_every):  # no scan: XLA's convolutions are 15 times slower in a loop on a CPU
                carries[method], batch = step(carries[method], values, images, parts, drawn[method])
                seen.append(batch)
            found = evaluate(carries[method], values, images, parts, drawn[method])
            found |= jax.tree.map(lambda *x: np.mean(x), *seen)
            for name, value in found.items():
                records[name][row, number] = value
        seconds += time.perf_counter() - begun
        leaves = jax.tree.leaves({"carries": carries, "records": records, "seconds": np.float64(seconds)})
        store.write_carry(0, number + 1, {str(i): bits(leaf) for i, leaf in enumerate(leaves)})
        write(config, experiment, out, records, number + 1, seconds)
        told = ", ".join(f"{m} {a:.1f}" for m, a in zip(METHODS, records["rare_accuracy"][:, number], strict=True))
        report(f"step {steps[number]}, {seconds:.0f} s: class 3 {told} %", flush=True)
    return out


def write(config, experiment, out, records, done, seconds):
    """The result of the first ``done`` rounds."""
    seed = [config.sweep.first_seed]
    coords = {"seed": seed, "method": list(METHODS), "step": list(experiment.coords["step"][:done])}
    variables = {
        name: (("seed", "method", "step"), values[None, :, :done], {"units": experiment.units[name]})
        for name, values in records.items()
    }
    attrs = {"num_runs": 1, "num_computed": 1, "compile_seconds": 0.0, "run_seconds": seconds}
    found = {config.runs[0].name: xarray.Dataset(variables, coords, attrs)}
    results.write(out, config, found, figure=results.render(figure(found)), claims=rows(claims(found)))


def main() -> None:
    """``python -m experiments.hardness_sampling.wrn CONFIG [--out DIR] [--set KEY=VALUE]``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/wrn"))
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[])
    arguments = parser.parse_args()
    matplotlib.use("Agg")
    run(arguments.config, arguments.out, arguments.overrides)


if __name__ == "__main__":
    main()
