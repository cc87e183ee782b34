"""The vocabulary of byte pairs."""

import json

import numpy as np
import pytest

from mixjax.data import vocabulary

pytest.importorskip("tokenizers", reason="tokenizers is missing: extra text")
TEXTS = [
    "the cat sat on the mat, the cat\n\n  sat",
    "die Katze saß auf der Matte 猫",
    "",
    "def f(x):\n\treturn x <|end|>",
]


@pytest.fixture(scope="module")
def words():
    return vocabulary.train(TEXTS * 3, 300)


def test_training_is_deterministic_and_as_large_as_asked(words):
    assert vocabulary.train(TEXTS * 3, 300) == words and vocabulary.train(TEXTS[:2] * 3, 300) != words
    assert words.size == 300 == len(set(json.loads(words.data)["tokens"])) and len(words.checksum) == 64
    assert vocabulary.train(TEXTS, 257).size == 257  # the bytes and the end


def test_every_text_is_encoded_with_an_end_and_decoded(words):
    tokens = words.encode(TEXTS)
    assert tokens.dtype == np.uint16 and tokens.max() < words.size
    ends = np.flatnonzero(tokens == vocabulary.END)
    assert len(ends) == len(TEXTS) and ends[-1] == len(tokens) - 1  # a text that spells the end does not end there
    pieces = np.split(tokens, ends + 1)[:-1]
    assert [words.tokenizer().decode(list(piece[:-1])) for piece in pieces] == TEXTS
    assert len(tokens) < sum(len(text.encode()) for text in TEXTS)
    unseen = "Ω\x00 never seen 𝔛"
    assert words.tokenizer().decode(list(words.encode([unseen])[:-1])) == unseen


def test_chunks_change_nothing(words):
    assert list(vocabulary._chunks(["abc", "d", "", "efgh"], length=4)) == [["abc", "d"], ["", "efgh"]]
    assert list(vocabulary._chunks(["abc"], length=4)) == [["abc"]] and list(vocabulary._chunks([])) == []
    assert words.encode([]).shape == (0,) and words.encode([]).dtype == np.uint16


@pytest.mark.parametrize("size", [0, 256, 65_537])
def test_sizes_out_of_range_are_named(size):
    with pytest.raises(ValueError, match=f"vocabulary_size must be from 257 to 65536, got {size}"):
        vocabulary.train(TEXTS, size)
