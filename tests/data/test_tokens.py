"""Token files, made of small packages."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from mixjax import data
from mixjax.data import splitting, text_documents, token_pages, tokens, vocabulary
from tests.data.small_packages import fake_registries

pytest.importorskip("tokenizers", reason="tokenizers is missing: extra text")
NAMES = ("help", "perl", "services")
AGAIN = "`mixjax data tokens --vocabulary 300`"


@pytest.fixture
def registries(small, monkeypatch):
    return fake_registries(monkeypatch, small)


def make(names=NAMES, **how):
    return data.make_tokens(names, vocabulary_size=300, **how)


def load_tokens(name, **how):
    return data.load_tokens(name, vocabulary_size=300, **how)


def token_domains(**how):
    return data.token_domains(vocabulary_size=300, **how)


def texts(found, part):
    """The documents of a part as text."""
    whole = np.asarray(found[part])
    pieces = np.split(whole, np.flatnonzero(whole == vocabulary.END) + 1)[:-1]
    return [found.vocabulary.tokenizer().decode(list(piece[:-1])) for piece in pieces]


def test_token_files_hold_the_separate_parts_of_the_text(registries, cache):
    lines = []
    assert make(report=lines.append) == cache / "tokens-300"
    assert token_domains() == NAMES and lines[:2] == ["fetching help", "reading help"]
    parts = {name: splitting.split(text_documents.read(name).texts) for name in NAMES}
    kept = splitting.without_overlap(parts)
    for name in NAMES:
        found = load_tokens(name)
        for number, part in enumerate(splitting.PARTS):
            array = found[number]
            assert isinstance(array, np.memmap) and array.dtype == np.uint16 and not array.flags.writeable
            expected = [b"\n\n".join(block.paragraphs).decode() for block in kept[name][part]]
            assert texts(found, number) == expected
        assert found.vocabulary.size == 300 and found.source == text_documents.read(name).sentence
    entry = json.loads((cache / "tokens-300" / "index.json").read_bytes())["domains"]["perl"]
    assert entry["tokens"]["train"] == len(load_tokens("perl").train) and entry["documents"] == 3
    assert entry["bytes"]["train"] == len(splitting.joined(kept["perl"]["train"]))


def test_what_is_made_is_left_as_it_is_and_another_request_replaces_it(registries, cache):
    folder = make()
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    lines = []
    make(report=lines.append)
    assert lines == [] and {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    make(["perl"], report=lines.append)
    assert lines and token_domains() == ("perl",)
    assert [path.parent.name for path in folder.rglob("*.npy")] == ["perl"] * 3
    assert len(load_tokens("perl").train) > 0


def test_a_damaged_file_is_named_and_made_again(registries):
    folder = make(["perl"])
    whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for file in ("perl/train.npy", "perl/test.npy", "vocabulary.json"):
        (folder / file).write_bytes(whole[folder / file][:-1])
        with pytest.raises(ValueError, match=rf"{file} is damaged: expected SHA-256 .* {AGAIN}"):
            load_tokens("perl")
        (folder / file).unlink()
        with pytest.raises(FileNotFoundError, match=rf"{file} is missing; make .* {AGAIN}"):
            load_tokens("perl")
        make(["perl"])
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == whole
    for content in (b"{", b"[]", b"{}"):
        (folder / "index.json").write_bytes(content)
        with pytest.raises(ValueError, match=rf"index.json is damaged: make .* {AGAIN}"):
            token_domains()
    make(["perl"])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == whole


def test_cells_become_domains(registries, cache, tmp_path):
    assert make(cells=True) == cache / "token-cells-300"
    languages = set(data.load_cells("help"))
    names = {"perl", "services/s3", "services/ec2", *(f"help/{code}" for code in languages)}
    assert set(token_domains(cells=True)) == names
    whole = load_tokens("help", folder=make(["help", "perl", "services"], folder=tmp_path / "whole"))
    for number in range(3):
        of_cells = [text for code in languages for text in texts(load_tokens(f"help/{code}"), number)]
        assert sorted(of_cells) == sorted(texts(whole, number))
    make(cells=True, min_tokens=10**9)
    assert token_domains(cells=True) == ("perl",)


def test_an_interrupted_call_leaves_no_index(registries, monkeypatch):
    folder = make(["perl"])
    with monkeypatch.context() as patch:
        patch.setattr(tokens, "_written", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make(["perl", "services"])
    with pytest.raises(FileNotFoundError, match=rf"tokens-300 holds no token files; make .* {AGAIN}"):
        load_tokens("perl")
    assert make(["perl"]) == folder and len(load_tokens("perl").train)


def test_the_page_lists_the_domains(registries, cache):
    make(cells=True)
    page = (cache / "token-cells-300" / "text_data.md").read_text()
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == list(NAMES)
    row = next(line for line in page.splitlines() if line.startswith("| `help`"))
    assert "libreoffice-help-{en-us,de," in row and "MPL-2.0" in row and "| 15 |" in row


def test_the_script_of_the_page_runs_as_it_stands(registries, cache):
    pytest.importorskip("grain", reason="grain is missing: extra live")
    make()
    names = {}
    (script,) = re.findall(r"```python\n(.*?)```", (cache / "tokens-300" / "text_data.md").read_text(), re.DOTALL)
    exec(script, names)
    assert names["inputs"].shape == names["targets"].shape == (8, 128) and names["inputs"].dtype == np.uint16


def test_the_guide_is_the_page_of_all_domains():
    guide = (Path(__file__).parents[2] / "experiments" / "guides" / "text_data.md").read_text()
    assert guide.startswith(token_pages.page({}, 8192).partition("\n\n0 domains")[0])
    assert guide.endswith(token_pages._TAIL)
    for name in text_documents.TEXT_DOMAINS:
        title, package, licence = text_documents.about(name)
        (row,) = [line for line in guide.splitlines() if line.startswith(f"| `{name}` |")]
        fetched = text_documents.fetched_by(name)
        assert f"| {title} |" in row and row.endswith(f"| {licence} |") and (package in row or fetched is None)


@pytest.mark.parametrize("name", text_documents.TEXT_DOMAINS)
def test_every_domain_says_what_it_is(name):
    title, package, licence = text_documents.about(name)
    assert title and licence and any(letter.isdigit() for letter in package)


def test_the_installed_domains_alone_train_their_own_vocabulary(cache, monkeypatch):
    made = load_tokens("c", folder=make(["c"]))
    assert made.vocabulary.size == 300 and "NumPy" in made.source
    assert any("#define" in text for text in texts(made, 2))


def test_all_fetched_domains_must_give_the_pinned_vocabulary(monkeypatch):
    assert len(bytes.fromhex(tokens.VOCABULARY_CHECKSUM)) == 32
    block = splitting.Block("x", [b"some text"])
    training = {name: [block] for name in text_documents.TEXT_DOMAINS}
    with pytest.raises(ValueError, match=rf"SHA-256 \w+, but the pinned one has {tokens.VOCABULARY_CHECKSUM}"):
        tokens._vocabulary(training, 8192)
    words = tokens._vocabulary(training, 300)
    assert words == tokens._vocabulary(dict(reversed(training.items())), 300)  # the order does not count
    monkeypatch.setattr(tokens, "VOCABULARY_CHECKSUM", tokens._vocabulary(training | {"c": []}, 300).checksum)
    assert tokens._vocabulary(training, 8192).checksum == tokens.VOCABULARY_CHECKSUM


def test_the_sample_is_the_beginning_of_each_domain(monkeypatch):
    monkeypatch.setattr(tokens, "_SAMPLE", 7)
    blocks = [splitting.Block(name, [text]) for name, text in (("a", b"abcde"), ("b", b"fghij"), ("c", b"k"))]
    assert list(tokens._sample([blocks, blocks[1:]])) == ["abcde", "fg", "fghij", "k"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"domains": ["pyton"]}, "unknown data set 'pyton'; did you mean 'python'"),
        ({"domains": []}, "domains must be different names, at least one, got none"),
        ({"domains": ["c", "perl", "c"]}, "domains must be different names, at least one, got c, perl, c"),
        ({"min_tokens": 0}, "min_tokens must be at least 1, got 0"),
        ({"vocabulary_size": 100}, "vocabulary_size must be from 257 to 65536, got 100"),
        ({"folder": "gs://bucket"}, "takes a path of the local file system"),
    ],
)
def test_mistakes_are_named_before_anything_is_fetched(how, message):
    with pytest.raises(ValueError, match=message):
        data.make_tokens(**how)


def test_without_tokenizers_the_extra_is_named_before_anything_is_fetched(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"mixjax.data.make_tokens needs tokenizers: pip install tokenizers"):
        data.make_tokens()


def test_unknown_tokens_are_named(registries, tmp_path):
    make(["perl"])
    with pytest.raises(ValueError, match="has no tokens of 'prl'; did you mean 'perl'"):
        load_tokens("prl")
    with pytest.raises(FileNotFoundError, match=r"token-cells-300 holds no token .* `mixjax data tokens --cells --voc"):
        load_tokens("help/de")
    with pytest.raises(FileNotFoundError, match="empty holds no token files"):
        load_tokens("perl", folder=tmp_path / "empty")


def test_each_size_of_the_vocabulary_has_a_folder_of_its_own(registries, cache):
    assert make(["perl"]) == cache / "tokens-300"
    assert data.make_tokens(["perl"], vocabulary_size=320) == cache / "tokens-320"
    assert load_tokens("perl").vocabulary.size == 300
    assert data.load_tokens("perl", vocabulary_size=320).vocabulary.size > 300
    with pytest.raises(FileNotFoundError, match=r"tokens holds no token files; make .* `mixjax data tokens`"):
        data.load_tokens("perl")
    with pytest.raises(FileNotFoundError, match=r"tokens-400 .* `mixjax data tokens --vocabulary 400`"):
        data.token_domains(vocabulary_size=400)
