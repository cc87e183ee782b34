"""Runs the code of the page on rows of tokens, in the order of the page, and checks what the page says of it."""

import re
from pathlib import Path

import numpy as np
import pytest

from mixjax import live

PAGE = Path(__file__).parents[3] / "experiments" / "guides" / "tokens.md"


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """Returns the names that a reader has after each block, by the block's mark."""
    folder = tmp_path_factory.mktemp("tokens")
    names, found = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for mark, block in re.findall(r"<!-- (\w+) -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
            exec(compile(block, f"{PAGE}:{mark}", "exec"), names)
            found[mark] = dict(names)
    return found


def test_every_block_of_python_runs(after):
    assert len(after) == PAGE.read_text().count("```python") == 7


def test_files_of_documents_that_end_in_a_token_give_their_lengths():
    tokens = np.array([5, 6, 0, 7, 0, 0, 8, 9, 0])
    assert "`np.diff(np.flatnonzero(tokens == end), prepend=-1)`" in PAGE.read_text()
    np.testing.assert_array_equal(np.diff(np.flatnonzero(tokens == 0), prepend=-1), [3, 2, 1, 3])


def test_targets_of_windows_are_the_next_tokens(after):
    names = after["windows"]
    np.testing.assert_array_equal(names["inputs"][:, 1:], names["targets"][:, :-1])
    batch = names["batch"]
    for domain, row, value in zip(batch["domain_ids"], batch["rows"], batch["value"], strict=True):
        file = names["tokens"][["news", "books"][domain]]
        np.testing.assert_array_equal(value, file[128 * row : 128 * row + 129])


def test_with_lengths_the_weighted_rows_are_the_mean_over_all_tokens(after):
    batch, value = after["before"]["batch"], after["before"]["value"]
    mask = value["tokens_segment_ids"] > 0
    losses = np.random.default_rng(0).random(mask.shape)
    weighted = np.sum(batch["row_weights"] * (mask * losses).sum(1) / mask.sum(1))
    np.testing.assert_allclose(weighted, (mask * losses).sum() / mask.sum(), rtol=1e-6)


def test_a_packed_mix_goes_on_where_its_state_was_taken(after):
    names = after["after"]
    plan = live.Plan(names["plan"].sizes, 16, [0.5, 0.5], lag=16, lengths=names["lengths"])
    packed = live.PackedMix(names["documents"], plan, row_length=1024, batch_size=4, open_rows=16)
    packed.set_state(names["state"])
    got, want = next(iter(packed)), after["signals"]["batch"]
    for name in ("step", "tokens", "domain_ids", "token_weights"):
        np.testing.assert_array_equal(got[name], want[name])


def test_gradients_have_the_shares_that_the_page_states(after):
    np.testing.assert_allclose(after["shares"]["by_tokens"], [400 / 4400, 4000 / 4400], rtol=1e-4)
    np.testing.assert_allclose(after["decided"]["by_documents"], [0.5, 0.5], rtol=1e-3)
    news, books = after["decided"]["drawn"]
    # The bound of a plan that counts tokens: one longest document.
    assert abs(news - books) <= 4000


def test_signals_leave_padding_out(after):
    batch, seen = after["signals"]["batch"], after["signals"]["seen"]
    np.testing.assert_array_equal(seen["counts"], [(batch["domain_ids"] == domain).sum() for domain in (0, 1)])
    np.testing.assert_allclose(seen["losses"], 1.0)
    np.testing.assert_allclose(after["signals"]["weighted"], batch["token_weights"].sum(), rtol=1e-5)
