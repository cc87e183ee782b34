"""Tests the problems on digits and text, drawn from small made-up sources."""

import jax
import numpy as np
import pytest

import mixjax.data
from experiments.resampling_reweighting import domains
from mixjax import grad_norms


def made_up_images(name):
    rng = np.random.default_rng(0)
    labels = np.arange(300, dtype=np.int32) % 10
    images = (rng.random((300, 12)) + 0.1 * labels[:, None]).astype(np.float32)
    return mixjax.data.Images(images, labels, images[:9], labels[:9], (3, 4), 10, "made up")


def made_up_text(name):
    letters = np.frombuffer(f"what {name} says, ".encode() * 9, np.uint8)
    return mixjax.data.Text(letters, letters, letters, "made up")


def test_digits_have_random_labels_in_one_domain_and_more_contrast_in_another(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load", made_up_images)
    problem = domains.mnist(200, width=4, layers=1)
    assert problem.sizes.sum() == 200 and problem.sizes.tolist() == sorted(problem.sizes, reverse=True)
    x, y = map(np.asarray, jax.jit(problem.draw)(jax.random.key(0), problem.source))
    images, labels = problem.source
    ids = np.repeat(range(3), problem.sizes)
    scaled = x / np.where(ids == 2, 4, 1)[:, None]
    rows = np.abs(scaled[:, None] - images).sum(-1).argmin(1)
    np.testing.assert_allclose(images[rows], scaled, rtol=1e-6)
    assert len(set(rows)) == 200 and (y == labels[rows])[ids != 1].all() and (y == labels[rows])[ids == 1].mean() < 0.5
    with pytest.raises(ValueError, match="num_examples must be at most the source's 300, got 301"):
        domains.mnist(301, width=4, layers=1)


def test_text_is_cut_in_windows_whose_targets_are_the_next_bytes(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load_text", made_up_text)
    problem = domains.text(20, width=8, layers=1)
    x, y = map(np.asarray, jax.jit(problem.draw)(jax.random.key(0), problem.source))
    assert x.shape == y.shape == (20, domains.LENGTH) and (x[:, 1:] == y[:, :-1]).all()
    for row, d in zip(x, np.repeat(range(len(problem.sizes)), problem.sizes), strict=True):
        assert bytes(row.astype(np.uint8)) in problem.source[d].tobytes()
    shape = jax.eval_shape(lambda key: problem.losses(grad_norms.Tape(), problem.init(key), (x, y)), jax.random.key(1))
    assert shape.shape == (20,)
