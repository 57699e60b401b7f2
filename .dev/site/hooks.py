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
    """Put live pages and error codes into the text. `npm run site -- quick` makes no live pages."""
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
    """Return the codes of all errors in the package, each with its texts, those of more than 30 characters first."""
    found: dict[str, list[str]] = {}
    trees = [ast.parse(path.read_text("utf-8")) for path in sorted(package.rglob("*.py"))]
    everywhere = {name: node for tree in trees for name, node in _named(tree).items()}
    for tree in trees:
        named = everywhere | _named(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ResidscopeError" and node.args:
                code, *rest = node.args
                if isinstance(code, ast.Constant) and isinstance(code.value, str):
                    texts = found.setdefault(code.value, [])
                    text = re.sub("…+", "…", _text(rest[0], named)) if rest else ""
                    if text.strip("…") and text not in texts:
                        texts.append(text)
    return {code: sorted(texts, key=lambda text: len(text) <= 30) for code, texts in sorted(found.items())}


def _named(tree: ast.Module) -> dict[str, ast.expr]:
    """By name: the value of each constant of a module, and the first value that each function returns."""
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.FunctionDef):
            returned = (one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value is not None)
            found[node.name] = next(returned, ast.Constant(""))
    return found


def _text(node: ast.expr, named: dict[str, ast.expr]) -> str:
    """Return the text of an expression in the source, with `…` for what is filled in. "" if it has no text.

    `named` has the expressions of names.
    """
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part, named) or "…" for part in parts)
        case ast.FormattedValue(value=ast.Name(id=name)) if name.isupper():  # a constant, such as another sentence
            return _text(ast.Name(name), named)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return "".join(_text(part, named) or "…" for part in (left, right))
        case ast.IfExp(body=body, orelse=other):
            return _text(body, named) or _text(other, named)
        case ast.Call(func=ast.Attribute(value=template, attr="format")):
            return re.sub(r"\{\w*\}", "…", _text(template, named))
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)) if name in named:
            return _text(named[name], {other: value for other, value in named.items() if other != name})
        case _:
            return ""


def _errors(package: Path) -> str:
    rows = ["| code | such as |", "|---|---|"]
    for code, texts in error_codes(package).items():
        shown = "<br>".join(html.escape(text).replace("|", "\\|").replace("`", "") for text in texts[:2])
        rows.append(f"| `{code}` | {shown or 'depends on the case'} |")
    return "\n".join(rows)
