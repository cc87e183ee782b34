"""The two image sets; five small images stand in for MNIST's."""

import hashlib
import sys

import numpy as np
import pytest

from mixjax import data
from tests.data.small_mnist import LABELS, PIXELS, write


def test_digits_shapes_ranges_and_types():
    digits = data.load("digits")
    assert digits.train_images.shape == (1397, 64) and digits.test_images.shape == (400, 64)
    assert digits.train_labels.shape == (1397,) and digits.test_labels.shape == (400,)
    for pixels, labels in (digits[:2], digits[2:4]):
        assert pixels.dtype == np.float32 and labels.dtype == np.int32
        assert pixels.min() == 0 and pixels.max() == 1
        assert set(labels) == set(range(10))
    assert digits.shape == (8, 8) and digits.num_classes == 10 and "scikit-learn" in digits.source


def test_digits_split_is_a_stratified_partition_of_the_package():
    from sklearn.datasets import load_digits

    whole, digits = load_digits(), data.load("digits")
    np.testing.assert_array_equal(np.bincount(digits.test_labels), np.full(10, 40))
    rows = np.concatenate([digits.train_images, digits.test_images]) * 16
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    together, original = np.column_stack([rows, labels]), np.column_stack([whole.data, whole.target])
    np.testing.assert_array_equal(*(table[np.lexsort(table.T)] for table in (together, original)))


def test_digits_split_is_always_the_same():
    digits = data.load("digits")
    for first, second in zip(digits[:4], data.load("digits")[:4], strict=True):
        np.testing.assert_array_equal(first, second)
    assert digits.test_labels[:10].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert hashlib.sha256(digits.test_labels.tobytes()).hexdigest()[:16] == "6a86e375c591e568"


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        data.load("digits")


def test_cached_mnist_is_scaled_and_typed(mnist_cache, mnist_files):
    write(mnist_cache, mnist_files)
    loaded = data.load("mnist")
    np.testing.assert_allclose(loaded.train_images, PIXELS[:3].reshape(3, 784) / 255, rtol=1e-6)
    np.testing.assert_array_equal(loaded.test_labels, LABELS[3:])
    assert loaded.train_images.dtype == np.float32 and loaded.train_labels.dtype == np.int32
    assert loaded.train_images.min() == 0 and loaded.train_images.max() == 1
    assert loaded.test_images.shape == (2, 784) and loaded.shape == (28, 28) and loaded.num_classes == 10
    assert loaded.train_images.flags.writeable and loaded.train_labels.flags.writeable


def test_root_comes_before_the_environment(mnist_files, tmp_path):
    write(tmp_path / "mine" / "mnist", mnist_files)
    assert data.load("mnist", root=tmp_path / "mine").train_images.shape == (3, 784)
    with pytest.raises(FileNotFoundError):
        data.load("mnist")
