"""Reads sentences that people rated as positive or negative, from tweets, reviews and newspapers, as words.

The sentences lie in the source package of vaderSentiment on PyPI, each with the mean rating of 20 people.

References:
    Hutto and Gilbert, "VADER: a parsimonious rule-based model for sentiment analysis of social media text", 2014.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mixjax.data import files, packages

__all__ = ["OPINIONS", "Rated", "rated_sentences", "words_of"]

_ENDING = "_GroundTruth.txt"
_SOURCES = {
    "amazonReviewSnippets": "Amazon",
    "movieReviewSnippets": "movies",
    "nytEditorialSnippets": "New York Times",
    "tweets": "tweets",
}
_SDIST, _SHA256 = "vaderSentiment==2.5", "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84"
_ARCHIVE = "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"
# The tweets after this one are made up, to test a program.
_LAST_TWEET = 4000

OPINIONS = files.PinnedFiles(
    "opinions",
    "rated sentences",
    checksums={
        f"amazonReviewSnippets{_ENDING}": "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2",
        f"movieReviewSnippets{_ENDING}": "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
        f"nytEditorialSnippets{_ENDING}": "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e",
        f"tweets{_ENDING}": "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f",
    },
    sources={"package": lambda: _from_package()},
)


class Rated(NamedTuple):
    """Holds sentences with their ratings.

    Attributes:
        texts: the sentences.
        ratings: the mean rating of each, from -4 to 4; none is 0.
        sources: where each comes from: "Amazon", "movies", "New York Times" or "tweets".
    """

    texts: list[str]
    ratings: np.ndarray
    sources: list[str]


def rated_sentences(contents: Mapping[str, bytes]) -> Rated:
    """Reads the sentences of all files, without those rated 0 and those that were made up.

    Args:
        contents: the files of :data:`OPINIONS`.

    Raises:
        ValueError: a line is not number, rating and text, separated by tabs; names the file and the line.
    """
    texts, ratings, sources = [], [], []
    for name, content in contents.items():
        source = _SOURCES[name.removesuffix(_ENDING)]
        # Not by splitlines, which would also end a line at some characters within a sentence.
        for number, line in enumerate(content.decode().split("\n"), 1):
            if not line.strip():
                continue
            try:
                identity, rating, text = line.split("\t", 2)
                value = float(rating)
            except ValueError:
                raise ValueError(f"{name}, line {number}: expected number, rating and text, got {line!r}") from None
            if value and not (source == "tweets" and int(identity) > _LAST_TWEET):
                texts.append(text.strip())
                ratings.append(value)
                sources.append(source)
    return Rated(texts, np.array(ratings), sources)


def words_of(texts: Sequence[str], num_words: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Marks which of the most frequent words each text has.

    A word is a run of letters, with an apostrophe or not, in lower case; "!", "?" and smileys count as well. A word is
    as frequent as the number of texts that have it; of words that tie, the first in the alphabet comes first.

    Args:
        texts: n texts.
        num_words: how many words are taken; all, where there are fewer.

    Returns:
        float32 ``[n, num_words]`` of 0 and 1, and the words.

    Example:
        >>> features, words = words_of(["Good, good!", "not good :("], 3)
        >>> words
        ('good', '!', ':(')
        >>> features.tolist()
        [[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    """
    found = [set(re.findall(r"[a-z]+(?:'[a-z]+)?|[!?]|[:;]-?[()dp]", text.lower())) for text in texts]
    counts = Counter(word for words in found for word in words)
    chosen = sorted(counts, key=lambda word: (-counts[word], word))[:num_words]
    column = {word: number for number, word in enumerate(chosen)}
    features = np.zeros((len(texts), len(chosen)), np.float32)
    for row, words in enumerate(found):
        features[row, [column[word] for word in words if word in column]] = 1.0
    return features, tuple(chosen)


def _from_package() -> dict[str, bytes]:
    inner = packages.from_sdist(_SDIST, _SHA256, {"archive": _ARCHIVE})["archive"]
    with packages.archive_of(inner) as archive:
        return {name: packages.member_of(archive, f"hutto_ICWSM_2014/{name}") for name in OPINIONS.checksums}
