"""Parts of documents: what is in two of them."""

import random

import numpy as np
import pytest

from mixjax.data import overlap, splitting

LICENCE = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software, in {year}, to"


def words(rng, number):
    return " ".join("".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(number))


def made_up(seed, paragraphs=40):
    """Documents whose paragraphs share licences of different years, and sentences that run from one into the next."""
    rng = random.Random(seed)
    shared = [words(rng, 14) for _ in range(3)]
    documents = {}
    for number in range(12):
        text = [words(rng, rng.randint(5, 30)) for _ in range(paragraphs)]
        for place in rng.sample(range(paragraphs), 3):
            text[place] = f"{words(rng, 3)} {rng.choice([*shared, LICENCE]).format(year=rng.randint(1990, 2020))} end"
        at = rng.randrange(paragraphs - 1)
        # 60 bytes at the end of one paragraph and 60 at the beginning of the next, which no paragraph has alone.
        text[at], text[at + 1] = f"{words(rng, 4)} {shared[0][:60]}", f"{shared[1][:60]} {words(rng, 4)}"
        documents[f"{seed}-{number}"] = "\n\n".join(text).encode()
    return documents


def runs(blocks):
    """Every run of 100 bytes, in order."""
    text = splitting.joined(blocks).tobytes()
    return [text[i : i + overlap.RUN] for i in range(len(text) - overlap.RUN + 1)]


def number_shared(domains):
    """The number of places in held-out text at which a run begins that another part of any domain has."""
    known = {part: {run for parts in domains.values() for run in runs(parts[part])} for part in splitting.PARTS[:2]}
    held_out = {part: [run for parts in domains.values() for run in runs(parts[part])] for part in splitting.PARTS[1:]}
    in_train = sum(run in known["train"] for part in held_out.values() for run in part)
    return in_train + sum(run in known["validation"] for run in held_out["test"])


@pytest.fixture(scope="module")
def domains():
    parts = {name: splitting.split(made_up(name)) for name in "xyz"}
    # A domain with a document of another one.
    parts["w"] = splitting.split({"copy": next(iter(made_up("x").values()))} | made_up("w"))
    return parts


def test_no_run_of_100_bytes_is_in_two_parts_of_any_domains(domains):
    kept = splitting.without_overlap(domains)
    assert number_shared(domains) > 300 and number_shared(kept) == 0


def test_only_held_out_paragraphs_go_and_most_stay(domains):
    kept = splitting.without_overlap(domains)
    for name, parts in domains.items():
        assert kept[name]["train"] == parts["train"]
        for part in splitting.PARTS:
            before = {block.document: block.paragraphs for block in parts[part]}
            for block in kept[name][part]:
                left = [p for p in before[block.document] if p in block.paragraphs]
                assert block.paragraphs and left == block.paragraphs
    sizes = [[len(splitting.joined(blocks)) for blocks in kept[name].values()] for name in "xyz"]
    np.testing.assert_allclose(np.divide(sizes, np.sum(sizes, 1, keepdims=True)), [[0.8, 0.1, 0.1]] * 3, atol=0.05)


def test_domains_without_anything_in_common_are_left_alone():
    parts = {
        name: splitting.split({name: words(random.Random(name), 3000).replace(" a", "\n\na").encode()}) for name in "ab"
    }
    assert splitting.without_overlap(parts) == parts


def test_cells_divide_a_domain(domains):
    parts = domains["x"]
    cells = {f"x-{number}": f"cell {number % 3}" for number in range(12)}
    divided = splitting.by_cell(parts, cells)
    assert sorted(divided) == ["cell 0", "cell 1", "cell 2"]
    for part in splitting.PARTS:
        every = [block for cell in divided.values() for block in cell[part]]
        assert sorted(every) == sorted(parts[part])
        assert all(cells[block.document] == name for name, cell in divided.items() for block in cell[part])


def test_empty_documents_have_no_block():
    assert splitting.split({"a": b"", "b": b"\n\n\n"}) == {"train": [], "validation": [], "test": []}
    assert splitting.joined([]).shape == (0,) and splitting.joined([]).dtype == np.uint8
