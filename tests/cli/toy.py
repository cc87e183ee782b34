"""A project with one experiment, for the tests of commands."""

INTERRUPTED = "mixjax: interrupted; the same command goes on where this one stopped\n"
TOY = "configs/paper/toy.toml"


MODULE = """
import dataclasses, pathlib, time
import jax, jax.numpy as jnp
import matplotlib.figure
from mixjax.runner.claims import versus
from mixjax.runner.experiment import Experiment

@dataclasses.dataclass(frozen=True)
class Toy:
    shift: float = 0.0
    fail: str = ""
    size: int = 1

def toy(config: Toy) -> Experiment:
    if config.fail == "data":
        raise FileNotFoundError("MNIST is not cached; fetch it with `mixjax data mnist`")
    if config.fail == "extra":
        raise ImportError("segmentation data need nibabel: pip install nibabel")
    if config.fail == "bug":
        raise ZeroDivisionError("a bug")
    if config.fail == "ctrl-c":
        raise KeyboardInterrupt
    if config.fail == "wait":
        pathlib.Path("ready").touch()
        time.sleep(60)

    def train(key, hparams, data):
        own = dataclasses.replace(config, **hparams)
        return {"value": own.shift + jax.random.normal(key) + 0 * jnp.ones(own.size)[0]}

    def figure(results):
        if config.fail == "figure":
            raise RuntimeError("no paint")
        return matplotlib.figure.Figure()

    def claims(results):
        value = next(iter(results.values())).value
        value = value.isel({dim: 0 for dim in value.dims if dim != "seed"})
        args = dict(statement="the mean is", source="ours")
        return [versus("above", value, ">=", -9.0, **args), versus("below", value, "<=", -9.0, **args),
                versus("middle", value, "<=", float(value.mean()), **args)]

    return Experiment(train, None, {}, {}, {"value": "1"}, figure, claims, is_rehearsed=config.fail != "figure")
"""
