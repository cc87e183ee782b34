"""``mixjax data``."""

import re

import pytest

import mixjax
import mixjax.data
from mixjax.data.catalogue import FETCHED


def test_data(mixjax_command, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(mixjax.data, "fetch", lambda *args, **kwargs: calls.append((args, kwargs)) or tmp_path)
    assert mixjax_command("data", "mnist", "--from", "folder") == (0, f"{tmp_path}\n", "")
    assert mixjax_command("data", "mnist", "--source", "openml")[0] == 0
    assert [(a, str(k["folder"]), k["source"]) for a, k in calls] == [
        (("mnist",), "folder", None),
        (("mnist",), "None", "openml"),
    ]


def test_the_help_names_every_data_set_that_can_be_fetched(mixjax_command):
    words = re.findall(r"\w+", mixjax_command("data", "--help")[1])
    assert set(FETCHED) <= set(words)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["data", "mnits"], "did you mean 'mnist'?"),
        (["data", "mnist", "--source", "opneml"], "unknown source 'opneml' of MNIST; did you mean 'openml'?"),
        (["data", "adult", "--source", "x"], "unknown source 'x' of Adult; known: package"),
        (["data", "mnist", "--from", "gs://bucket"], "takes a path of the local file system"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(mixjax_command, argv, message):
    code, out, err = mixjax_command(*argv)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
