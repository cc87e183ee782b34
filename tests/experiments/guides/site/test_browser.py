"""The browser that looks at the site: it finds each kind of fault, and none where there is none."""

import pytest

from experiments.guides.site import browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.find_browser() is None, reason="Chromium is not installed"),
]

PAGE = """<!doctype html><html><head><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
</head><body data-md-color-scheme="slate"><input data-md-toggle="search" type="checkbox">
<input data-md-component="search-query"><p class="md-search-result__item"><a href="#">found</a></p>{}</body></html>"""
FAULTS = {
    "<script>console.error('no')</script>": "console",
    "<script>throw Error('no')</script>": "exception",
    '<img src="missing.png">': "404",
    '<img src="https://a.org/x.png">': "asks another host: https://a.org/x.png",
    '<div style="width: 900px">wide</div>': "pixels wide on a phone",
}


def test_each_fault_is_named_and_a_good_page_has_none(tmp_path):
    (tmp_path / "index.html").write_text(PAGE.format("good"))
    for number, body in enumerate(FAULTS):
        (tmp_path / f"{number}.html").write_text(PAGE.format(body))
    faults = browser.check(tmp_path)
    assert not [fault for fault in faults if fault.startswith("index")], faults
    for number, said in enumerate(FAULTS.values()):
        assert any(fault.startswith(f"{number}.html") and said in fault for fault in faults), (said, faults)
