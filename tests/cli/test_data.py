"""``mixjax data``."""

import re
from pathlib import Path

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
    words = re.findall(r"[\w-]+", mixjax_command("data", "--help")[1])
    assert set(FETCHED) <= set(words)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["data", "mnits"], "did you mean 'mnist'?"),
        (["data", "mnist", "--source", "opneml"], "unknown source 'opneml' of MNIST; did you mean 'openml'?"),
        (["data", "adult", "--source", "x"], "unknown source 'x' of Adult; known: package"),
        (["data", "mnist", "--from", "gs://bucket"], "takes a path of the local file system"),
        (["data", "mnist", "--cells"], "--min-tokens, --vocabulary and --out are for tokens, not for mnist"),
        (["data", "mnist", "--out", "x"], "--domains, --cells, --min-tokens, --vocabulary and --out are for tokens"),
        (["data", "mnist", "--vocabulary", "300"], "--vocabulary and --out are for tokens, not for mnist"),
        (["data", "tokens", "--from", "x"], "tokens takes no --from and no --source: fetch the texts with them first"),
        (["data", "tokens", "--domains", "perl,pyton"], "unknown data set 'pyton'; did you mean 'python'?"),
        (["data", "tokens", "--domains", "c,c"], "domains must be different names, at least one, got c, c"),
        (["data", "tokens", "--min-tokens", "0"], "min_tokens must be at least 1, got 0"),
        (["data", "tokens", "--out", "gs://bucket"], "takes a path of the local file system"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(mixjax_command, argv, message):
    code, out, err = mixjax_command(*argv)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_tokens(mixjax_command, monkeypatch, tmp_path):
    calls = []

    def make(names, *, report, **how):
        report("reading c")
        calls.append((names, how))
        return tmp_path

    monkeypatch.setattr(mixjax.data, "make_tokens", make)
    assert mixjax_command("data", "tokens") == (0, f"{tmp_path}\n", "reading c\n")
    argv = ("--domains", "help, perl", "--cells", "--min-tokens", "9", "--vocabulary", "300", "--out", "x")
    assert mixjax_command("data", "tokens", *argv)[0] == 0
    assert calls == [
        (None, {"cells": False, "min_tokens": 1, "folder": None}),
        (["help", "perl"], {"cells": True, "min_tokens": 9, "vocabulary_size": 300, "folder": Path("x")}),
    ]
