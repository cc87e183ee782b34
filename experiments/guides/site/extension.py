"""Tells griffe, which reads the docstrings for mkdocstrings, to turn their reST into Markdown first."""

from __future__ import annotations

import re
from typing import Any

import griffe

from experiments.guides.site.docstrings import to_markdown
from experiments.guides.site.names import find

__all__ = ["MarkdownDocstrings"]


class MarkdownDocstrings(griffe.Extension):
    """Converts each docstring that griffe reads."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Converts the docstring of a module, class, function or attribute.

        Args:
            obj: the object that was read.
            **kwargs: what else griffe says about it.
        """
        if obj.docstring is None or not (obj.is_module or obj.is_public):
            return
        module = obj.module.path
        owner = obj if obj.is_class else obj.parent
        inside = owner.path.removeprefix(f"{module}.") if owner is not None and owner.is_class else ""

        def link(kind: str, target: str) -> str | None:
            return find(target, module, inside if kind in ("meth", "attr") else "")

        text = to_markdown(obj.docstring.value, link)
        # griffe knows no signature of a NamedTuple, and would warn that it has no such parameters.
        if obj.is_class and "NamedTuple" in map(str, getattr(obj, "bases", ())):
            text = re.sub(r"^Args:$", "Attributes:", text, flags=re.MULTILINE)
        obj.docstring.value = text
