"""Lets griffe, which reads docstrings for mkdocstrings, know `Example:` as the section that it calls `Examples:`."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the section in every docstring, so that its code is shown as code."""

    def on_object(self, *, obj: griffe.Object, **options: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
