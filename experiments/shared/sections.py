"""Replaces a generated section of a page, and leaves what others wrote around it."""

__all__ = ["replace_section"]


def replace_section(page: str, name: str, text: str) -> str:
    """Returns a page with a section put in the place of its earlier version, or at the end where there is none.

    Args:
        page: the page, Markdown; "" for a new one.
        name: the section's name, which its two comments bear.
        text: the section.

    Raises:
        ValueError: the page has one of the section's comments and lacks the other, or has them in the wrong order.

    Example:
        >>> page = replace_section("# Results", "speed", "It is fast.")
        >>> print(replace_section(page, "speed", "It is slow."))
        # Results
        <BLANKLINE>
        <!-- speed: generated -->
        <BLANKLINE>
        It is slow.
        <BLANKLINE>
        <!-- end of speed -->
        <BLANKLINE>
    """
    begin, end = f"<!-- {name}: generated -->", f"<!-- end of {name} -->"
    section = f"{begin}\n\n{text.strip()}\n\n{end}\n"
    if page.count(begin) != page.count(end) or page.count(begin) > 1 or page.find(begin) > page.find(end):
        raise ValueError(f"the page must have {begin!r} once before {end!r}, or neither.")
    if begin not in page:
        return f"{page.rstrip()}\n\n{section}" if page.strip() else section
    before, _, rest = page.partition(begin)
    return before + section + rest.partition(end)[2].removeprefix("\n")
