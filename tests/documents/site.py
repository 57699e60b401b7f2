"""`npm run site`: builds the documentation into dist/site, with live pages of the demo model, and checks the links.

python -m tests.documents.site [quick]

With `quick`, no live pages are made and no model is loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
CONFIG, SITE = ROOT / ".dev/site/mkdocs.yml", ROOT / "dist/site"
LIVE = ROOT / "dist/live"


def main() -> None:
    """Build the site. Fail if a link is broken, or if a page would load a file from another host."""
    made = {} if "quick" in sys.argv[1:] else live_pages()
    build()
    wrong = broken(SITE)
    pages = [*SITE.rglob("*.html")]
    size = sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file())
    print(f"{len(pages)} pages, {len(made)} of them live, {size / 1e6:.1f} MB, {len(wrong)} broken links")
    if wrong:
        sys.exit("\n".join(wrong))


def build() -> None:
    """Build the site with MkDocs in its strict mode."""
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config

    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")
    config: Any = load_config(str(CONFIG))
    config.plugins.on_startup(command="build", dirty=False)
    build_site(config)


def live_pages() -> dict[str, Path]:
    """Write a stand-alone page of the demo model for each chapter that has one."""
    import residscope

    LIVE.mkdir(parents=True, exist_ok=True)
    run = residscope.demo.ioi()
    deep = [(23, 3), (29, 0)]

    def panel(**selected: Any) -> Any:
        return residscope.inspect(run.cache, run.answers, prompt=0, heads=deep, show=False, **selected)

    def with_tab(tab: str) -> Any:
        shown = panel()
        shown.tab = tab
        return shown

    def why() -> Any:
        shown = panel()
        shown.target = residscope.targets.attention("L23H3", destination=14, source=10, versus=0)
        shown.tab = "why"
        return shown

    def compared() -> Any:
        shown = panel()
        shown.against = 1
        return shown

    chapters: dict[str, Callable[[], Any]] = {
        "heads": panel,
        "lens": lambda: with_tab("token-lens"),
        "positions": lambda: with_tab("positions"),
        "why": why,
        "compare": compared,
    }
    return {name: make().save(LIVE / f"{name}.html", progress=False) for name, make in chapters.items()}


class _Links(HTMLParser):
    """Collects the links of a page, its anchors, and the files that it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors.update(value for name in ("id", "name") if (value := given.get(name)))
        if tag == "a" and (href := given.get("href")):
            self.links.append(href)
        elif tag == "link" and "canonical" not in (given.get("rel") or "") and (href := given.get("href")):
            self.fetched.append(href)
        elif tag in ("script", "img", "iframe") and (src := given.get("src")):
            self.fetched.append(src)


def broken(site: Path) -> list[str]:
    """Return the errors in a built site: links to missing files or headings, and files from other hosts."""
    found: dict[Path, _Links] = {}
    for page in site.rglob("*.html"):
        found[page.resolve()] = links = _Links()
        links.feed(page.read_text("utf-8"))
    wrong: list[str] = []
    for page, links in found.items():
        where = page.relative_to(site.resolve())
        wrong += [f"{where} would fetch {url}" for url in links.fetched if urlsplit(url).netloc]
        for url in [*links.links, *links.fetched]:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc or where.name == "404.html":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.exists():
                wrong.append(f"{where} links to {url}, which is not there")
            elif parts.fragment and target in found and unquote(parts.fragment) not in found[target].anchors:
                wrong.append(f"{where} links to {url}: there is no such heading")
    return wrong


if __name__ == "__main__":
    main()
