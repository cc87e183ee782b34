"""Reads config files: from TOML to validated frozen dataclasses.

A config names an experiment, gives values for the fields of its frozen dataclass, and says what to repeat::

    # One line that `mixjax list` shows.
    experiment = "my_experiments.linear:linear"  # module:function, of function(config: FrozenDataclass) -> Experiment
    steps = 2000                              # base values: fields of that dataclass; nested dataclasses are tables

    [[run]]                                   # optional: what changes shapes or structure; each run is compiled once
    name = "(100, 1)"
    scales = [100.0, 1.0]                     # replaces the base value in this run

    [sweep]
    seeds = 100                               # paired seeds first_seed, first_seed + 1, ...
    first_seed = 1000                         # default 0
    paired = true                             # default; false: every run has a seed of its own, as a swarm needs it
    chunk = 4                                 # runs in one call of the program; default "auto", the sweep chooses
    vectorize = "map"                         # or "vmap", "auto", 16; default: mixjax.sweep measures or chooses
    gamma1 = [0.01, 0.1]                      # any other key: an axis over a numeric field of the dataclass
    beta = {start = 0.1, stop = 10.0, num = 5, scale = "log"}
    mixture = [[0.5, 0.5], [0.9, 0.1]]        # an axis over a field that is a list of numbers
    method = ["erma", "fgls"]                 # an axis over a field that is a text; each label is compiled once
    rule.decay = [0.9, 0.99]                  # an axis over a field of a nested dataclass

    [sweep.points]                            # optional: points one by one, columns of one length
    learning_rate = [0.1, 0.01]
    momentum = [0.9, 0.99]

``[sweep.random]`` draws points instead. It holds ``num``, ``seed``, and for each field ``{start, stop, scale}`` with a
scale "linear", "log" or "integer", or a list to choose from.

The module is looked for in the config's project root (the nearest folder above it with a ``pyproject.toml``, else its
own folder), then in the current folder, then among the installed packages, and last among mixjax's own experiments.
"""

from mixjax.runner.configs.fields import ConfigError, as_json, replace
from mixjax.runner.configs.loading import DEFAULT_RUN, Config, Run, load
from mixjax.runner.configs.sweep import Sweep

__all__ = ["DEFAULT_RUN", "Config", "ConfigError", "Run", "Sweep", "as_json", "load", "replace"]
