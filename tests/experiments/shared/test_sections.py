"""Tests that a generated section is replaced, and that a page with half of one is refused."""

import pytest

from experiments.shared.sections import replace_section


def test_other_text_stays_as_it_is():
    page = replace_section("# A\n\nfirst", "x", "one") + "\nlast\n"
    again = replace_section(page, "x", "two\n\n")
    assert again == page.replace("one", "two")
    assert replace_section(again, "x", "two") == again
    both = replace_section(again, "y", "other")
    assert both.startswith(again.rstrip()) and replace_section(both, "y", "other") == both


def test_an_empty_page_becomes_the_section():
    assert replace_section("", "x", "one") == "<!-- x: generated -->\n\none\n\n<!-- end of x -->\n"


@pytest.mark.parametrize(
    "page", ["<!-- x: generated -->", "<!-- end of x -->", "<!-- end of x --> <!-- x: generated -->"]
)
def test_half_a_section_is_refused(page):
    with pytest.raises(ValueError, match="the page must have '<!-- x: generated -->' once before"):
        replace_section(page, "x", "one")
