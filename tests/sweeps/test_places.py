"""Places that users give: a home folder is written out, and a URL is refused before anything is computed."""

import os
import sys
from pathlib import Path

import pytest

import mixjax
from mixjax import data
from mixjax.data import brats
from mixjax.sweeps.checkpoints import Chunks
from mixjax.sweeps.search import search
from tests.sweeps.small_sweep import sweep


def train(key, hparams, data):
    raise AssertionError("traced before the place was looked at")


PLACES = {
    "checkpoint": lambda place: mixjax.sweep(train, seeds=1, checkpoint=place),
    "checkpoint of a search": lambda place: search(
        mixjax.sweeps.Sweep(train, seeds=1), {"x": [1.0]}, lambda result: 0.0, num_trials=1, checkpoint=place
    ),
    "folder": lambda place: Chunks(place, {}),
    "root": lambda place: data.load_text("shakespeare", root=place),
    "root of cells": lambda place: data.load_cells("help", root=place),
    "folder of tokens": lambda place: data.load_tokens("help", folder=place),
    "root of images": lambda place: data.load("mnist", root=place),
    "root of tables": lambda place: data.load_table("adult", root=place),
    "folder of fetch": lambda place: data.fetch("mnist", folder=place),
    "folder of brats": lambda place: brats.load(place),
}


@pytest.mark.parametrize("place", ["gs://bucket/runs", "s3://bucket/runs"])
@pytest.mark.parametrize("name", PLACES)
def test_a_url_is_refused_by_name_and_nothing_is_made(name, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # An empty cache: data that are there already need no folder.
    monkeypatch.setenv("MIXJAX_DATA", str(tmp_path))
    for given in (place, Path(place)):
        with pytest.raises(
            ValueError, match=rf"^{name.split()[0]}: takes a path of the local file system.*'{place[:3]}"
        ):
            PLACES[name](given)
    assert not os.listdir(tmp_path)


def test_a_sweep_is_kept_below_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    sweep("~/runs")
    assert sweep(tmp_path / "home/runs").attrs["num_computed"] == 0
    assert os.listdir(tmp_path) == ["home"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_folder_whose_name_is_no_utf_8_is_written(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    sweep(folder)
    assert sweep(folder).attrs["num_computed"] == 0
