"""The rated sentences, on small files with their own checksums and a source package of them: nothing here downloads."""

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mixjax import data
from mixjax.data import packages
from mixjax.data.opinions import OPINIONS, rated_sentences, words_of
from tests.data.small_packages import tar

FILES = {
    "amazonReviewSnippets": "1_1\t-0.9\tno picture.\r\n1_2\t1.5\tGood!\r\n",
    "movieReviewSnippets": "1\t2.0\tGood film, Jackson\u0085s best.\r\n2\t0.0\ta film\r\n\r\n",
    "nytEditorialSnippets": "1_1\t-1\tNo.\tThe end.\r\n",
    "tweets": "4000\t0.5\tgood :)\r\n4001\t3.0\tmade up\r\n",
}


@pytest.fixture
def contents(monkeypatch):
    """Returns small files, and pins their checksums."""
    found = {f"{name}_GroundTruth.txt": text.encode() for name, text in FILES.items()}
    assert list(found) == list(OPINIONS.checksums)
    for name, content in found.items():
        monkeypatch.setitem(OPINIONS.checksums, name, hashlib.sha256(content).hexdigest())
    return found


def test_ratings_of_zero_and_made_up_tweets_are_left_out_and_a_sentence_is_a_line(contents):
    texts, ratings, sources = rated_sentences(contents)
    assert texts == ["no picture.", "Good!", "Good film, Jackson\u0085s best.", "No.\tThe end.", "good :)"]
    assert ratings.tolist() == [-0.9, 1.5, 2.0, -1.0, 0.5]
    assert sources == ["Amazon", "Amazon", "movies", "New York Times", "tweets"]
    with pytest.raises(ValueError, match=r"tweets_GroundTruth\.txt, line 2: expected number, rating and text, got 'x"):
        rated_sentences({"tweets_GroundTruth.txt": b"1\t0.5\tgood\nx\ty\n"})


def test_words_are_marked_once_and_the_most_frequent_are_taken():
    features, words = words_of(["Don't, don't!", "b a", "a don't", ""], 3)
    assert words == ("a", "don't", "!")
    assert features.tolist() == [[0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]] and features.dtype == np.float32
    assert words_of(["a"], 5)[1] == ("a",)


def test_the_table_comes_from_the_source_package_whose_checksum_pip_verifies(contents, cache, monkeypatch):
    inner = tar({f"hutto_ICWSM_2014/{name}": content for name, content in contents.items()}, "w:gz")
    outer = tar({"vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz": inner}, "w:gz")
    asked = []

    def pip(command, **options):
        if "--version" not in command:
            asked.append((command, Path(command[command.index("-r") + 1]).read_text()))
            (Path(command[command.index("--dest") + 1]) / "vaderSentiment-2.5.tar.gz").write_bytes(outer)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", pip)
    data.fetch("opinions")
    ((command, listed),) = asked
    assert {"--require-hashes", "--no-deps", "--no-binary=:all:"} <= set(command)
    assert listed.startswith("vaderSentiment==2.5 --hash=sha256:b960c954") and len(listed.split(":")[-1].strip()) == 64
    assert not Path(command[command.index("--dest") + 1]).exists()
    table = data.load_table("opinions")
    assert table.group_names == (
        "Amazon, negative", "Amazon, positive", "New York Times, negative", "movies, positive", "tweets, positive",
    )  # fmt: skip
    assert table.groups.tolist() == [0, 1, 3, 2, 4] and table.labels.tolist() == [0, 1, 1, 0, 1]
    assert table.features[:, table.feature_names.index("good")].tolist() == [0, 1, 1, 0, 1]
