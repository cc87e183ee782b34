"""Trains figure 1's runs in PyTorch by joblib, in a process a core, and counts the processor time of all processes."""

import functools
import os
import time

from experiments.benchmarks import pytorch
from experiments.loss_and_sampling_weights import linear

__all__ = ["Crew"]


@functools.cache
def _data(config: linear.Linear):
    return pytorch.generate(config, 0)


def _train(config: linear.Linear, seed: int) -> tuple[int, float]:
    """Trains one seed of all methods. Returns the process's number and the processor time that it took so far."""
    pytorch.load().set_num_threads(1)
    for name in linear.METHODS:
        pytorch.train(config, name, _data(config), pytorch.uniforms(config), autograd=False)
    return os.getpid(), time.process_time()


class Crew:
    """Holds joblib's processes, which live from call to call."""

    def __init__(self, processes: int):
        """Starts no process yet: joblib does so in the first call."""
        self.processes = processes
        self.used: dict[int, float] = {}

    def run(self, config: linear.Linear, seeds: int) -> None:
        """Trains some seeds of all methods."""
        import joblib

        jobs = (joblib.delayed(_train)(config, seed) for seed in range(seeds))
        for process, seconds in joblib.Parallel(n_jobs=self.processes)(jobs):
            self.used[process] = max(seconds, self.used.get(process, 0.0))

    def start(self, config: linear.Linear, tries: int = 20) -> None:
        """Trains until every process has done so, and once more.

        The first runs of each import PyTorch, draw the data, and joblib collects their garbage.
        """
        for _ in range(tries):
            all_started = len(self.used) == self.processes
            self.run(config, self.processes)
            if all_started:
                return

    def seconds(self) -> float:
        """Returns the processor time of this process and of joblib's, the latter up to their last run."""
        return time.process_time() + sum(self.used.values())

    def close(self) -> None:
        """Ends joblib's processes, for which a process that has started them would wait when it ends."""
        from joblib.externals import loky

        loky.get_reusable_executor().shutdown(wait=True)
