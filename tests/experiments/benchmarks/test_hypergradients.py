"""The benchmark of hypergradients: every side runs, its data are what they say, its verdicts can fail."""

import numpy as np

from experiments.benchmarks import hypergradients


def test_every_side_of_a_cell_runs_and_has_a_memory():
    sides, memory, size = hypergradients.cell(2, 3, 4)
    assert list(sides) == ["plain", *hypergradients.MODES] and list(memory) == [*sides, hypergradients.TRACED]
    assert size == 65 * 4 + 5 * 10
    assert all(bytes_ > 0 for bytes_ in memory.values())
    seconds = hypergradients.measured(sides, 2)
    assert all(len(seconds[name]) == 2 and min(seconds[name]) > 0 for name in sides)


def test_slow_sides_are_not_timed(monkeypatch):
    monkeypatch.setattr(hypergradients, "LONGEST", 0.0)
    assert hypergradients.measured({"plain": lambda: None, "forward": lambda: None}, 2) == {}


def test_the_domains_have_wrong_labels_or_few_classes():
    (images, labels), (held, right) = hypergradients.digits(0, 8)
    assert images.shape == (8, 150, 64) and held.shape == (400, 64)
    assert [len(np.unique(row)) for row in labels] == [10] * 4 + [6] * 4

    def nearest(rows):  # accuracy of the labels of each domain's images by their nearest held-out digit
        distances = ((rows[:, None] - held[None]) ** 2).sum(-1)
        return right[distances.argmin(1)]

    agree = [float(np.mean(np.asarray(nearest(images[d])) == np.asarray(labels[d]))) for d in range(8)]
    assert np.all(np.diff(agree[:4]) > 0) and agree[0] < 0.3 and min(agree[4:]) > 0.9


def test_a_target_holds_where_every_cell_meets_it():
    assert hypergradients.at_most("x", [1.0, 3.9], 4.0).holds and not hypergradients.at_most("x", [1.0, 4.1], 4.0).holds
