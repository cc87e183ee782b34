"""Values of hyperparameters: labels and random points."""

import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.sweeps import Labels, random_points
from mixjax.sweeps.points import as_array, as_values


def test_labels_of_random_points_are_those_of_their_list():
    def train(key, hparams, data):
        return {"position": hparams["rule"]}

    names = ["fixed", "fgls", "erma"]
    for seed in range(5):
        points = random_points({"rule": names}, 4, seed=seed)
        result = mixjax.sweep(train, seeds=1, points=points)
        assert [names[i] for i in result.position[:, 0].values] == points["rule"]
    given = mixjax.sweep(train, seeds=1, axes={"rule": mixjax.sweeps.Labels(["erma"], names)})
    assert given.position.values.tolist() == [[2]] and given.rule.values.tolist() == ["erma"]
    with pytest.raises(ValueError, match="among names that all differ"):
        mixjax.sweeps.Labels(["doge"], names)
    with pytest.raises(ValueError, match="rule: needs strings or numbers only"):
        random_points({"rule": ["fixed", 1.0]}, 4)


def test_random_points():
    space = {"gamma": ("log", 1e-3, 10.0), "k": ("integer", 1, 3), "rate": ("linear", -1.0, 1.0), "rule": ["a", "b"]}
    points = random_points(space, 4000, seed=3)
    assert points == random_points(space, 4000, seed=3) != random_points(space, 4000, seed=4)
    logs = np.log10(points["gamma"])
    assert logs.min() > -3 and logs.max() < 1 and abs(logs.mean() + 1) < 5 * (4 / 12**0.5) / 4000**0.5
    assert set(points["k"]) == {1, 2, 3} and set(points["rule"]) == {"a", "b"}
    assert abs(np.mean(points["rate"])) < 5 * (2 / 12**0.5) / 4000**0.5
    for bad, match in [({"x": ("log", 0.0, 1.0)}, "x: needs low <= high"), ({"x": []}, "x: no values")]:
        with pytest.raises(ValueError, match=match):
            random_points(bad, 2)
    with pytest.raises(ValueError, match="num must be at least 1"):
        random_points(space, 0)


def test_values_become_pythons_own_numbers_or_labels():
    assert as_values("x", np.array([1, 2], np.int16)) == [1, 2] and as_values("x", (jnp.float32(0.5),)) == [0.5]
    labels = as_values("x", ["b", "a", "b"])
    assert isinstance(labels, Labels) and labels.positions == [0, 1, 0]
    for bad in ("erma", [1, "a"], 1.0, np.array(1.0)):
        with pytest.raises(ValueError, match="x: "):
            as_values("x", bad)


@pytest.mark.parametrize(
    "values",
    [
        [[0.5, 0.25], [0.75, 0.125]],
        ((0.5, 0.25), (0.75, 0.125)),
        np.array([[0.5, 0.25], [0.75, 0.125]], np.float32),
        jnp.array([[0.5, 0.25], [0.75, 0.125]], jnp.bfloat16),
        [np.array([0.5, 0.25]), jnp.array([0.75, 0.125])],
    ],
)
def test_vectors_become_lists_of_pythons_own_numbers(values):
    found = as_values("x", values)
    assert found == [[0.5, 0.25], [0.75, 0.125]] and all(type(x) is float for vector in found for x in vector)
    assert as_array("x", found).shape == (2, 2) and as_array("x", found).dtype == np.float32


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([[1.0], [1.0, 2.0]], r"one shape.*\(1,\) and \(2,\)"),
        ([[1.0], 1.0], r"one shape.*\(1,\) and \(\)"),
        ([[[1.0], [1.0, 2.0]]], r"one shape.*\[\[1.0\], \[1.0, 2.0\]\]"),
        ([[], []], r"hold numbers.*\(0,\)"),
        ([["a", "b"]], "vectors hold numbers, got 'a'"),
        ([[1.0], "a"], "vectors hold numbers, got 'a'"),
    ],
)
def test_vectors_of_several_shapes_or_without_numbers_are_refused(values, match):
    with pytest.raises(ValueError, match=f"x: .*{match}"):
        as_values("x", values)


def test_random_vectors():
    points = random_points({"mixture": ("simplex", 3), "beta": [[1, 2], [3, 4]]}, 2000, seed=1)
    mixtures = np.array(points["mixture"])
    # Uniform on the simplex of 3: mean 1/3 and variance 1/18 each.
    np.testing.assert_allclose(mixtures.sum(1), 1.0, rtol=1e-12)
    assert np.abs(mixtures.mean(0) - 1 / 3).max() < 5 * (1 / 18 / 2000) ** 0.5
    np.testing.assert_allclose(mixtures.var(0), 1 / 18, rtol=0.15)
    assert set(map(tuple, points["beta"])) == {(1, 2), (3, 4)}
    for bad in (("simplex", 0), ("simplex", 2.0), ("simplex", True)):
        with pytest.raises(ValueError, match=r"x: needs \('simplex', size\)"):
            random_points({"x": bad}, 2)
    with pytest.raises(ValueError, match="x: unknown scale 'simplexx'"):
        random_points({"x": ("simplexx", 3)}, 2)


def test_arrays_have_jaxs_types_and_hold_their_values():
    assert as_array("x", [1, 2]).dtype == np.int32 and as_array("x", [1, 2.5]).dtype == np.float32
    assert as_array("x", [True]).dtype == bool and as_array("x", as_values("x", ["b", "a"])).tolist() == [0, 1]
    assert as_array("x", [float("inf")]).tolist() == [float("inf")]
    for bad in ([2**31], [2**63], [1e300], [None], [[1.0, 1e300]], [1.0, float("nan")], [[float("nan")]]):
        with pytest.raises(ValueError, match="x: "):
            as_array("x", bad)
