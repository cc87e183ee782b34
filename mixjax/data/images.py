"""Loads two real image sets: "digits" comes with scikit-learn, "mnist" is fetched once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from mixjax.checks import requires
from mixjax.data import mnist
from mixjax.data.files import check_name, folder_of

__all__ = ["NAMES", "ImageSet", "Images", "load"]

ImageSet = Literal["digits", "mnist"]
NAMES: tuple[ImageSet, ...] = get_args(ImageSet)
"""The names that :func:`load` takes."""

_TEST_PER_CLASS = 40


class Images(NamedTuple):
    """Holds a labelled image set, split into training and test examples, as NumPy arrays.

    Attributes:
        train_images: float32 [n, height * width], grey values from 0 (background) to 1 (full ink), row by row.
        train_labels: int32 [n], from 0 to num_classes - 1.
        test_images: float32 [m, height * width], scaled like ``train_images``.
        test_labels: int32 [m], from 0 to num_classes - 1.
        shape: (height, width) in pixels; ``images.reshape(-1, *shape)`` restores the two axes.
        num_classes: number of classes.
        source: a sentence that says where the data come from.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    shape: tuple[int, int]
    num_classes: int
    source: str


def load(name: ImageSet, *, root: str | os.PathLike | None = None) -> Images:
    """Loads a real image set. Never downloads, and never puts one data set in the place of another.

    - "digits": 1,797 handwritten digits of 8 x 8 pixels with 17 grey values, inside the scikit-learn package. The
      split is fixed and stratified: of each class, 40 examples evenly spaced in the package's order are test
      examples (400 in all), the other 1,397 are for training. Both parts keep the package's order.
    - "mnist": 60,000 training and 10,000 test digits of 28 x 28 pixels with 256 grey values, in the canonical order
      and split. They come only from the cache that the command ``mixjax data mnist`` fills, and each file's SHA-256
      is verified at every load.

    Args:
        name: "digits" or "mnist".
        root: folder of the cache; :func:`mixjax.data.cache_dir` when None. "digits" needs no cache and ignores it.

    Returns:
        The images, flat, float32 in [0, 1], with int32 labels: see :class:`Images`.

    Raises:
        ValueError: if ``name`` is unknown, or a cached file is not the canonical one.
        FileNotFoundError: if "mnist" is not cached; names the command that fetches it.
        ImportError: if "digits" finds no scikit-learn; names the extra that brings it.

    Example:
        >>> import mixjax.data
        >>> digits = mixjax.data.load("digits")
        >>> digits.train_images.shape, digits.test_images.shape, digits.shape
        ((1397, 64), (400, 64), (8, 8))
        >>> digits.train_labels[:5].tolist(), float(digits.train_images.max())
        ([0, 1, 2, 3, 4], 1.0)
    """
    check_name(name, NAMES)
    return _load_digits() if name == "digits" else _load_mnist(folder_of(name, root))


def _load_digits() -> Images:
    """Loads the digits of scikit-learn, with the split that :func:`load` documents."""
    with requires("experiments", "mixjax.data.load('digits')"):
        import sklearn
        from sklearn.datasets import load_digits
    # pyright takes the result for the tuple that `return_X_y=True` gives.
    bunch: Any = load_digits()
    is_test = np.zeros(len(bunch.target), bool)
    for label in range(10):
        rows = np.flatnonzero(bunch.target == label)
        evenly_spaced = np.arange(_TEST_PER_CLASS) * len(rows) // _TEST_PER_CLASS
        is_test[rows[evenly_spaced]] = True
    images, labels = _scale(bunch.images, 16), bunch.target.astype(np.int32)
    source = f"the 8 x 8 digits of scikit-learn {sklearn.__version__} (load_digits)"
    return Images(
        train_images=images[~is_test],
        train_labels=labels[~is_test],
        test_images=images[is_test],
        test_labels=labels[is_test],
        shape=(8, 8),
        num_classes=10,
        source=source,
    )


def _load_mnist(folder: Path) -> Images:
    """Loads the verified MNIST files of the cache."""
    digits = mnist.read(folder)
    height, width = digits.train_images.shape[1:]
    return Images(
        train_images=_scale(digits.train_images, 255),
        train_labels=digits.train_labels.astype(np.int32),
        test_images=_scale(digits.test_images, 255),
        test_labels=digits.test_labels.astype(np.int32),
        shape=(height, width),
        num_classes=10,
        source="MNIST: the canonical IDX files, 60,000 + 10,000 digits, verified by SHA-256",
    )


def _scale(pixels: np.ndarray, maximum: int) -> np.ndarray:
    """Turns grey values [n, height, width] from 0 to ``maximum`` into flat float32 images from 0 to 1."""
    return np.divide(pixels.reshape(len(pixels), -1), maximum, dtype=np.float32)
