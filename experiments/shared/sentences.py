"""Writes what the claims of every paper say: quotations, means with their errors, verdicts."""

from collections.abc import Callable, Mapping


def quoter(paper: str, sentences: Mapping[str, tuple[str, str]]) -> Callable[[str], dict[str, str]]:
    """``quote(name)``: the ``statement`` and ``source`` of a claim, from a paper's sentences.

    Args:
        paper: its number.
        sentences: name to section, where appendices are letters or numbers from 8 on, or ``abstract``, and sentence as
            printed.

    Returns:
        A function of a key of ``sentences``, to the keyword arguments of ``versus``, ``paired`` and ``near`` in
        ``mixjax.runner.claims``; a KeyError where there is no such sentence.
    """

    def quote(name: str) -> dict[str, str]:
        section, sentence = sentences[name]
        number = section.split(".")[0].split(",")[0]
        kind = "section " if number.isdigit() and int(number) < 8 else "appendix "
        return {"statement": sentence, "source": f"paper {paper}, {'' if number == 'abstract' else kind}{section}"}

    return quote
