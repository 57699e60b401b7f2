"""Additions of the documentation site to MkDocs: live pages of the demo model, and a page of error codes."""

from __future__ import annotations

import ast
import html
import re
import shutil
from pathlib import Path
from typing import Any

LIVE = {
    "first-steps.md": ("heads", "The demo model, prompt 0, with two heads pinned"),
    "panel.md": ("positions", "What each layer and head adds at each position"),
    "why.md": ("why", "Why L23H3 reads the second name rather than the first token"),
    "comparing.md": ("compare", "Prompt 0 and prompt 1 of the demo model, compared"),
    "mathematics.md": ("lens", "The likeliest tokens at each layer and position"),
}
"""Chapters with a live page under the title: the name of this page, and what it shows."""


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Put live pages and error codes into the text. Live pages may not be there (`npm run site -- quick`)."""
    name, words = LIVE.get(page.file.src_uri, ("", ""))
    if name and (_live(config) / f"{name}.html").exists():
        frame = (
            f'<figure class="live"><iframe src="live/{name}.html" title="{words}" loading="lazy"></iframe>'
            f'<figcaption>{words}. This is the view itself: click it. <a href="live/{name}.html">On a page of its own.'
            "</a></figcaption></figure>"
        )
        markdown = re.sub(r"^(# .*\n)", lambda title: f"{title[0]}\n{frame}\n", markdown, count=1)
    if "<!-- errors -->" in markdown:
        package = Path(config["docs_dir"]).parent / "residscope"
        markdown = markdown.replace("<!-- errors -->", _errors(package))
    return markdown


def on_post_build(config: Any, **_: Any) -> None:
    """Copy the live pages into the site."""
    if _live(config).exists():
        shutil.copytree(_live(config), Path(config["site_dir"]) / "live", dirs_exist_ok=True)


def _live(config: Any) -> Path:
    return Path(config["site_dir"]).parent / "live"


def error_codes(package: Path) -> dict[str, list[str]]:
    """Return the codes of all errors in the package, each with its texts of more than 30 characters."""
    found: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ResidscopeError" and node.args:
                code, *rest = node.args
                if isinstance(code, ast.Constant) and isinstance(code.value, str):
                    texts = found.setdefault(code.value, [])
                    text = _text(rest[0]) if rest else ""
                    if len(text) > 30 and text not in texts:
                        texts.append(text)
    return dict(sorted(found.items()))


def _text(node: ast.expr) -> str:
    """Return the text of a string in the source, with `…` for what is filled in. For other code, return ""."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


def _errors(package: Path) -> str:
    rows = ["| code | such as |", "|---|---|"]
    for code, texts in error_codes(package).items():
        shown = "<br>".join(html.escape(text).replace("|", "\\|").replace("`", "") for text in texts[:2])
        rows.append(f"| `{code}` | {shown or 'depends on the case'} |")
    return "\n".join(rows)
