"""The chapters of the documentation that are part of the package, as Markdown. The front end's build writes them."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from residscope.errors import ResidscopeError


@cache
def _chapters() -> dict[str, str]:
    """All chapters, by name."""
    file = files("residscope") / "static" / "help.json"
    if not file.is_file():
        raise ResidscopeError("not-built", "Residscope's front end (help.json) is not built: run `npm run build`.")
    return json.loads(file.read_text("utf-8"))


def chapter(name: str) -> str:
    """Return the Markdown of a chapter, without its pictures.

    Args:
        name: The name of its file in the documentation, without `.md`.

    Raises:
        ResidscopeError: If the package has no such chapter.
    """
    text = _chapters().get(name)
    if text is None:
        raise ResidscopeError("chapter", f"There is no chapter `{name}`. There are {', '.join(sorted(_chapters()))}.")
    return text
