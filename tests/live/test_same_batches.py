"""Tests the law of the mix: batches depend on the plan only, whatever holds the rows and whoever reads them."""

import grain
import numpy as np
import pytest

from mixjax.live import Plan, mix, sizes_of, windows

NUM_STEPS = 12


def rows_of(domain):
    return np.random.default_rng(domain).integers(0, 2**16, (40 + 3 * domain, 6)).astype(np.uint16)


def data_sets(kind, folder):
    """Returns three domains of the same rows, held in another way."""
    found = {}
    for domain in range(3):
        rows = rows_of(domain)
        rows.tofile(folder / f"{domain}")
        file = np.memmap(folder / f"{domain}", np.uint16, "r")
        found[f"d{domain}"] = {
            "array": rows,
            "memory map": file.reshape(rows.shape),
            "windows": windows(file, 6),
            "MapDataset": grain.MapDataset.source(rows),
            "MapDataset of a file": grain.MapDataset.source(file.reshape(rows.shape)),
            "list": list(rows),
        }[kind if kind != "mixed" else ("MapDataset", "memory map", "list")[domain]]
    return found


def elements(kind, folder, **arguments):
    datasets = data_sets(kind, folder)
    # Batches of 24 rows of three domains: some of a domain's groups are small, some large.
    plan = Plan(sizes_of(datasets), 24, [0.7, 0.25, 0.05], seed=5, lag=4)
    iterator, found = iter(mix(datasets, plan, **arguments)), []
    for step in range(NUM_STEPS):
        found.append(next(iterator))
        plan.publish(step, np.random.default_rng(step).dirichlet(np.ones(3)))
    iterator.close()
    return found


def assert_same(got, want):
    assert len(got) == len(want) == NUM_STEPS
    for one, other in zip(got, want, strict=True):
        assert one.keys() == other.keys()
        for name in other:
            np.testing.assert_array_equal(one[name], other[name])
            assert np.asarray(one[name]).dtype == np.asarray(other[name]).dtype


@pytest.fixture
def want(tmp_path):
    return elements("array", tmp_path)


def test_rows_are_those_that_the_plan_names(want):
    for element in want:
        rows = [rows_of(d)[row] for d, row in zip(element["domain_ids"], element["rows"], strict=True)]
        np.testing.assert_array_equal(element["value"], rows)


@pytest.mark.parametrize("kind", ["memory map", "windows", "MapDataset", "MapDataset of a file", "list", "mixed"])
def test_batches_do_not_depend_on_what_holds_the_rows(kind, want, tmp_path):
    assert_same(elements(kind, tmp_path), want)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "prefetch", "kind"),
    [(1, 16, "memory map"), (2, 1, "windows"), (2, 16, "mixed"), (3, 7, "MapDataset")],
)
def test_batches_do_not_depend_on_who_reads_them(workers, prefetch, kind, want, tmp_path):
    assert_same(elements(kind, tmp_path, workers=workers, prefetch=prefetch), want)
