"""Trains on clean, noisy, skewed and swapped domains of MNIST, with weights that move every T steps and baselines.

Each domain has a few hundred images, pooled to 14 x 14. The validation set is clean, and the test set is MNIST's. The
model is multinomial logistic regression with 1,970 weights, or an MLP with 64 ReLUs and 13,258 weights. Both are
trained with an L2 term and plain SGD. The methods of one seed share the split, the initial model and the batches.

There are two budgets. *Updates* is N steps for every method. *Compute* is as many steps as take the time of N plain
ones (``COSTS``). Retraining, and the model that DoReMi refers to, count in neither.
"""

from experiments.fewer_weight_updates import mnist_claims, mnist_figure
from experiments.fewer_weight_updates.mnist_domains import load
from experiments.fewer_weight_updates.mnist_methods import Mnist, affordable, grid, horizon, methods
from experiments.fewer_weight_updates.mnist_training import train
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment
from mixjax.sweeps import HostLoop

__all__ = ["mnist"]


def mnist(config: Mnist) -> Experiment:
    """Builds the experiment: accuracy, losses and weights by method.

    Raises:
        ValueError: sizes that are not one for each domain; a horizon that is longer than its share of the budget.
    """
    if len(config.domains) != len(config.sizes):
        raise ValueError(f"sizes must be one for each of {', '.join(config.domains)}, got {config.sizes}.")
    data = load()
    auto = horizon(config, data)
    compared = methods(config, auto)
    too_long = [name for name, method in compared.items() if not affordable(config, method)]
    if too_long:
        raise ValueError(f"num_steps = {config.num_steps} leave no whole round at equal compute for {too_long}.")
    worths = {"accuracy": "%", "test_loss": "nats", "validation_loss": "nats"}
    dims = dict.fromkeys([*worths, "steps"], ("method", "budget"))
    dims |= dict.fromkeys(["weights", "mean_weights"], ("method", "budget", "domain")) | {"T": ("method",)}
    dims |= {f"validation_alone_{name}": () for name in worths}
    units = worths | {"weights": "share", "mean_weights": "share"}
    units |= {f"validation_alone_{name}": unit for name, unit in worths.items()}
    coords = {"method": list(compared), "budget": ["compute", "updates"], "domain": list(config.domains)}
    if config.grid:
        dims |= {f"retrained_{name}": ("method",) for name in worths} | {f"grid_{name}": ("point",) for name in worths}
        units |= {f"{kind}_{name}": unit for kind in ("retrained", "grid") for name, unit in worths.items()}
        coords["point"] = [" ".join(f"{x:g}" for x in point) for point in grid(config)]
    return Experiment(
        train=HostLoop(lambda run: train(run, configs.replace(config, run.hparams), auto)),
        data=data,
        dims=dims,
        coords=coords,
        units=units,
        figure=mnist_figure.figure,
        claims=mnist_claims.claims,
    )
