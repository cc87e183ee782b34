"""Loads batches from a mixture of domains in several ways, each in a process of its own that another one asks.

``python -m experiments.benchmarks.loaders FILE LOADER`` takes a file of rows and answers one line of JSON for each line
that it reads: ``["build", domains, batch_size]``, then ``["load", batches]`` as often as wanted. All loaders draw rows
in random order by the same shares, and give batches ``[B, 1024]``.
"""

import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["LOADERS", "ROW_LENGTH", "Data", "build", "descendants", "main", "memory", "processor_time", "versions"]

ROW_LENGTH = 1024
WORKERS = 2
PACKAGES = ("grain", "torch", "torchdata", "datasets")


class Data(NamedTuple):
    """Holds what a loader mixes.

    Attributes:
        arrays: uint16 ``[rows, 1024]``, one for each domain.
        maps: the same rows as memory maps of a file, which is in the page cache.
        shares: positive sampling weights ``[D]``, which sum to one.
        batch_size: rows a batch.
    """

    arrays: list[np.ndarray]
    maps: list[np.ndarray]
    shares: np.ndarray
    batch_size: int


def mixjax_arrays(data: Data) -> Iterator[np.ndarray]:
    """Mixes arrays in memory."""
    return mixjax_side(data, data.arrays)


def mixjax_maps(data: Data) -> Iterator[np.ndarray]:
    """Mixes memory maps."""
    return mixjax_side(data, data.maps)


def mixjax_datasets(data: Data, workers: int = 0) -> Iterator[np.ndarray]:
    """Mixes grain's data sets."""
    return mixjax_side(data, sources(data), workers)


def mixjax_workers(data: Data) -> Iterator[np.ndarray]:
    """Mixes grain's data sets, read by worker processes."""
    return mixjax_datasets(data, WORKERS)


def mixjax_side(data, datasets, workers=0):
    from mixjax import live

    plan = live.Plan(live.sizes_of(datasets), data.batch_size, data.shares)
    # The weights move after every step, which the other loaders cannot do.
    rng = np.random.default_rng(0)
    moving = itertools.cycle(data.shares * rng.uniform(0.8, 1.25, (16, len(datasets))))
    for element in live.mix(datasets, plan, workers=workers):
        yield element["value"]
        plan.publish(element["step"], next(moving))


def sources(data):
    import grain

    # Plain views, since rows of np.memmap cost more than what is compared.
    return [grain.MapDataset.source(rows.view(np.ndarray)) for rows in data.maps]


def grain_mix(data: Data, threads: int = 0) -> Iterator[np.ndarray]:
    """Mixes by grain's own mix of shuffled data sets that repeat."""
    return iter(grain_data(data, threads))


def grain_threads(data: Data) -> Iterator[np.ndarray]:
    """Mixes by grain's own mix, read by its 16 threads."""
    return iter(grain_data(data, 16))


def grain_workers(data: Data) -> Iterator[np.ndarray]:
    """Mixes by grain's own mix, read by worker processes."""
    import grain
    from absl import flags

    # grain's workers read its flags, which nobody else parses here.
    flags.FLAGS.mark_as_parsed()
    return iter(grain_data(data, 0).mp_prefetch(grain.MultiprocessingOptions(num_workers=WORKERS)))


def grain_data(data, threads):
    import grain

    parents = [source.shuffle(seed=d).repeat() for d, source in enumerate(sources(data))]
    mixed = grain.MapDataset.mix(parents, data.shares.tolist())
    options = grain.ReadOptions(threads, 500) if threads else grain.ReadOptions(0, 0)
    return mixed.to_iter_dataset(options).batch(data.batch_size)


def torchdata_nodes(data: Data) -> Iterator[np.ndarray]:
    """Mixes by torchdata's sampler of nodes, each of which draws from its array in random order."""
    import torch
    import torchdata.nodes as nodes

    torch.set_num_threads(1)

    def node(array):
        order = nodes.SamplerWrapper(torch.utils.data.RandomSampler(range(len(array))))
        return nodes.Mapper(order, array.__getitem__)

    sources = {str(d): node(array) for d, array in enumerate(data.arrays)}
    shares = {str(d): float(share) for d, share in enumerate(data.shares)}
    mixed = nodes.MultiNodeWeightedSampler(sources, shares, stop_criteria="CYCLE_FOREVER", seed=0)
    return iter(nodes.Loader(nodes.Mapper(nodes.Batcher(mixed, data.batch_size), np.stack)))


def interleaved(data: Data) -> Iterator[np.ndarray]:
    """Mixes by ``datasets.interleave_datasets``, of shuffled data sets in memory."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    import datasets

    tables = [
        datasets.Dataset.from_dict({"tokens": array}).with_format("numpy", dtype=np.uint16).shuffle(seed=d)
        for d, array in enumerate(data.arrays)
    ]
    mixed = datasets.interleave_datasets(tables, probabilities=data.shares.tolist(), seed=0)
    while True:
        for batch in mixed.iter(data.batch_size, drop_last_batch=True):
            yield batch["tokens"]


def plain_loop(data: Data) -> Iterator[np.ndarray]:
    """Mixes arrays by the shortest loop: multinomial counts, random rows with replacement."""
    rng = np.random.default_rng(0)
    while True:
        counts = rng.multinomial(data.batch_size, data.shares)
        drawn = np.flatnonzero(counts)
        yield np.concatenate([data.arrays[d][rng.integers(0, len(data.arrays[d]), counts[d])] for d in drawn])


LOADERS: dict[str, Callable[[Data], Iterator[np.ndarray]]] = {
    "mixjax, arrays": mixjax_arrays,
    "mixjax, memory maps": mixjax_maps,
    "plain loop over arrays": plain_loop,
    "mixjax, MapDatasets": mixjax_datasets,
    "grain mix": grain_mix,
    "grain mix, 16 threads": grain_threads,
    "mixjax, MapDatasets, 2 workers": mixjax_workers,
    "grain mix, 2 workers": grain_workers,
    "torchdata weighted nodes": torchdata_nodes,
    "datasets interleaved": interleaved,
}


def processor_time() -> float:
    """Returns the seconds of processor time that this process and those it started have taken.

    Those that still run are counted on Linux only.
    """
    ended = os.times()
    # The name of a process, in brackets, may hold spaces.
    running = [text.rpartition(")")[2].split() for text in _read_all("stat", descendants())]
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in running)
    return time.process_time() + ended.children_user + ended.children_system + ticks / os.sysconf("SC_CLK_TCK")


def memory() -> float:
    """Returns the most MB of resident memory that this process and those that it started have had; 0 but on Linux."""
    lines = [line for text in _read_all("status", [os.getpid(), *descendants()]) for line in text.splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def descendants() -> list[int]:
    """Lists the processes that this one started, and those that they started; none but on Linux."""
    everyone = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    parents = {}
    for pid in everyone:
        for text in _read_all("stat", [pid]):
            parents[pid] = int(text.rpartition(")")[2].split()[1])
    found, waiting = [], [os.getpid()]
    while waiting:
        children = [pid for pid, parent in parents.items() if parent == waiting[0]]
        found += children
        waiting = waiting[1:] + children
    return found


def _read_all(name: str, pids: list[int]) -> list[str]:
    """Reads a file in /proc of each process that is still there."""
    texts = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            texts.append(Path(f"/proc/{pid}/{name}").read_text())
    return texts


def build(path: str, name: str, num_domains: int, batch_size: int):
    """Starts a loader; returns its batches, and what that took.

    Args:
        path: the file of rows.
        name: the loader's name.
        num_domains: number of domains of equal size into which the rows are cut.
        batch_size: rows a batch.
    """
    rows, mapped = np.fromfile(path, np.uint16), np.memmap(path, np.uint16, "r")
    size = rows.size // ROW_LENGTH // num_domains
    cut = [slice(d * size * ROW_LENGTH, (d + 1) * size * ROW_LENGTH) for d in range(num_domains)]
    arrays, maps = ([flat[part].reshape(-1, ROW_LENGTH) for part in cut] for flat in (rows, mapped))
    shares = np.random.default_rng(num_domains).dirichlet(np.ones(num_domains)) + 1e-4 / num_domains
    start = time.perf_counter()
    if os.path.exists("/proc/self/clear_refs"):
        # Writing 5 makes Linux forget the most memory so far, which the loader before may have taken.
        Path("/proc/self/clear_refs").write_text("5")
    batches = LOADERS[name](Data(arrays, maps, shares / shares.sum(), batch_size))
    first = next(batches)
    assert first.shape == (batch_size, ROW_LENGTH) and first.dtype == np.uint16, (first.shape, first.dtype)
    return batches, {"seconds": time.perf_counter() - start, "versions": versions()}


def versions() -> dict[str, str]:
    """Returns the versions of the loaders' packages that are loaded here."""
    return {name: metadata.version(name) for name in PACKAGES if name in sys.modules}


def main(path: str, name: str) -> None:
    """Answers requests until there are none."""
    batches = None
    for line in sys.stdin:
        request, *numbers = json.loads(line)
        try:
            if request == "build":
                # The loader before ends its workers when it is deleted.
                del batches
                batches, answer = build(path, name, *numbers)
            else:
                spent, start = processor_time(), time.perf_counter()
                for _ in range(*numbers):
                    next(batches)
                answer = {"wall": time.perf_counter() - start, "processor": processor_time() - spent}
                answer["memory"] = memory()
        except ImportError as error:
            answer = {"missing": error.name or str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
