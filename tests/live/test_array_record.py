"""Tests the mix on ArrayRecord files, which come with grain, whatever reads them and however often it stops."""

import grain
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from mixjax.live import Plan, mix, sizes_of

SIZES = {"web": 40, "code": 17, "books": 5}


class Decode(grain.transforms.Map):
    """Makes an example of a record, which a worker has to import."""

    def map(self, element):
        return np.frombuffer(element, np.int32)


@pytest.fixture(scope="module", name="files")
def _files(tmp_path_factory):
    """Two files a domain, of records of three numbers: the domain, the row and their product."""
    files = {}
    for domain, (name, size) in enumerate(SIZES.items()):
        folder = tmp_path_factory.mktemp(name)
        files[name] = [str(folder / f"{part}.array_record") for part in range(2)]
        for path, rows in zip(files[name], np.array_split(np.arange(size), 2), strict=True):
            writer = ArrayRecordWriter(path, "group_size:1")
            for row in rows:
                writer.write(np.array([domain, row, domain * row], np.int32).tobytes())
            writer.close()
    return files


def datasets_of(files):
    return {
        name: grain.MapDataset.source(grain.sources.ArrayRecordDataSource(paths)).map(Decode())
        for name, paths in files.items()
    }


def plan_of(datasets):
    return Plan(sizes_of(datasets), batch_size=6, weights=[0.5, 0.3, 0.2], lag=4)


def read(datasets, state, stop, **arguments):
    """Reads up to a step; returns the elements, and the state to go on from."""
    plan, elements = plan_of(datasets), []
    if state is not None:
        plan.set_state(state)
    iterator = iter(mix(datasets, plan, **arguments))
    for step in range(plan.step, stop):
        elements.append(next(iterator))
        plan.publish(step, np.random.default_rng(step).dirichlet(np.ones(3)))
    state = iterator.get_state()
    iterator.close()
    return elements, state


def test_records_of_the_planned_rows_are_read(files):
    datasets = datasets_of(files)
    assert sizes_of(datasets) == SIZES
    elements, _ = read(datasets, None, 20)
    for element in elements:
        ids, rows = element["domain_ids"], element["rows"]
        np.testing.assert_array_equal(element["value"], np.stack([ids, rows, ids * rows], axis=1))
    assert len({int(domain) for element in elements for domain in element["domain_ids"]}) == 3


@pytest.mark.slow
def test_workers_prefetch_and_stops_change_no_batch(files):
    datasets = datasets_of(files)
    want, want_state = read(datasets, None, 24)
    got, state = [], None
    for workers, prefetch, stop in [(1, 1, 6), (0, 16, 12), (3, 2, 18), (2, 16, 24)]:
        elements, state = read(datasets, state, stop, workers=workers, prefetch=prefetch)
        got += elements
    assert state == want_state
    for a, b in zip(got, want, strict=True):
        assert a["step"] == b["step"]
        for name in ("domain_ids", "rows", "row_weights", "value"):
            np.testing.assert_array_equal(a[name], b[name])
