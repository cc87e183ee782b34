"""What a browser would fetch from another host, and names that a site lacks."""

import pytest

from experiments.guides.site import checking


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ('<script src="https://a.org/x.js"></script>', "https://a.org/x.js"),
        ('<img src="//a.org/x.png">', "//a.org/x.png"),
        ('<img src="x.png" srcset="x.png 1x, http://a.org/y.png 2x">', "http://a.org/y.png"),
        ('<link rel="preconnect" href="https://a.org">', "https://a.org"),
        ('<link href="https://a.org/x.css" REL="Stylesheet">', "https://a.org/x.css"),
        ("<style>@import 'https://a.org/x.css';</style>", "https://a.org/x.css"),
        ('<div style="background: url(https://a.org/x.png)"></div>', "https://a.org/x.png"),
        ('<iframe src="https://a.org/"></iframe>', "https://a.org/"),
        ('<a href="https://a.org">a</a><link rel="canonical" href="https://a.org">', None),
        ('<img src="data:image/png;base64,AA//"><script src="../a.js"></script>', None),
        ("<p>https://a.org</p>", None),
    ],
)
def test_what_is_fetched_from_another_host_is_named(tmp_path, text, address):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "page.html").write_text(text)
    assert checking.foreign(tmp_path) == ([] if address is None else [f"deep/page.html fetches {address}"])


def test_styles_and_diagrams_are_read_too(tmp_path):
    (tmp_path / "a.css").write_text('@font-face { src: url("https://a.org/font.woff") } p { background: url(b.png) }')
    (tmp_path / "b.html").write_text('<pre class="mermaid">x</pre>')
    assert checking.foreign(tmp_path) == [
        "a.css fetches https://a.org/font.woff",
        "b.html has a diagram, whose library is fetched",
    ]


def test_names_without_heading_or_words_are_missing(tmp_path, monkeypatch):
    names = {"mixjax.rules.a": "mixjax.rules.a.a", "mixjax.rules.b": "mixjax.rules.b", "mixjax.rules.c": "x.c"}
    monkeypatch.setattr(checking, "public", lambda: names)
    page = tmp_path / "reference" / "mixjax.rules" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text('<h2 id="mixjax.rules.a.a">a</h2><p>Words.</p><h2 id="mixjax.rules.b">b</h2><pre>b = 1</pre>')
    assert checking.undocumented(tmp_path) == ["mixjax.rules.b", "mixjax.rules.c"]
