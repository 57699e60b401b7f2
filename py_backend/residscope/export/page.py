"""The stand-alone page: one file with the views, their styles and their data. It needs no kernel and no network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from html import escape
from pathlib import Path
from unicodedata import normalize

import msgspec

from residscope.attribution.target_words import inside, of_next_token
from residscope.base.files import atomic_write
from residscope.base.legible import shown as fit
from residscope.errors import ResidscopeError
from residscope.export.snapshot import Snapshot
from residscope.terms import Contrast, Target
from residscope.wire.shown import Shown

_STATIC = Path(__file__).parents[1] / "static"

_MOST_BYTES = 60

_STYLE = """
body { margin: 0 auto; padding: 20px; max-width: 1440px; background: #f3f3f1; color: #1d2023; }
body > p { font: 14px/1.5 system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { body { background: #131619; color: #e7e9ea; } }
@media (max-width: 600px) { body { padding: 6px; } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="Residscope">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main id="panel"></main>
<noscript><p>{title}: this page draws its pictures with JavaScript, which is switched off here.</p></noscript>
<pre id="licences" hidden>{licences}</pre>
<script id="data" type="text/plain">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def page(snapshot: Snapshot) -> str:
    """Return a snapshot as a stand-alone HTML page.

    The page contains the licences of all code in it, as text. The data is base64, so that no token can close the
    element with the data. The page's content security policy allows only this one script, by its hash.

    Raises:
        ResidscopeError: If the front end is not built.
    """
    licences = "\n".join(_built(name) for name in ("LICENSE", "THIRD-PARTY-LICENSES.txt"))
    code = _built("panel.js") + _built("standalone.js")
    script = re.sub(r"<(?=/script|!--)", r"\\x3c", code, flags=re.IGNORECASE)
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    zipped = gzip.compress(msgspec.json.encode(snapshot), 6, mtime=0)
    return _PAGE.format(
        policy=policy,
        title=escape(title(snapshot.name, snapshot.selection)),
        style=_built("panel.css") + _STYLE,
        licences=escape(licences),
        data=base64.b64encode(zipped).decode(),
        script=script,
    )


def title(name: str, shown: Shown) -> str:
    """Return the page's title: the cache and the target."""
    return f"{fit(name)}: {_target_words(shown.target, shown.prompt)} · Residscope"


def file_name(name: str, shown: Shown, prompts: int) -> str:
    """Return a name for the page's file, from the cache, the target and the prompt, as for exported pictures."""
    target = shown.target
    several = len(target.contrasts) > 1
    contrasts = target.contrasts if shown.prompt is None or not several else [target.contrasts[shown.prompt]]
    if target.direction is not None:
        words = target.direction
    elif target.next_token is not None and not target.through:
        words = of_next_token(target.next_token)
    elif target.inner is not None or target.through:
        words = inside(target, "-".join(_answers(contrasts[0])) if contrasts else "")
    elif any(contrast != contrasts[0] for contrast in contrasts):
        words = "own answers"
    else:
        words = "-".join(word for contrast in contrasts[:1] for word in _answers(contrast))
    which = f"mean of {prompts}" if shown.prompt is None and prompts > 1 else f"prompt{shown.prompt or 0}"
    return "-".join(filter(None, map(_safe, (name, words, which)))) + ".html"


def _answers(contrast: Contrast) -> list[str]:
    return [token.text.strip() for token in contrast.answer + contrast.distractor]


def _safe(part: str) -> str:
    """The letters, digits, - and _ of a text, which every file system accepts, up to `_MOST_BYTES` bytes."""
    text = re.sub(r"[^\w-]+", "-", normalize("NFC", part)).strip("-")
    return text.encode()[:_MOST_BYTES].decode(errors="ignore").strip("-")


def write(path: str | Path, text: str) -> Path:
    """Write a page as UTF-8, completely or not at all, and return its path.

    Raises:
        ResidscopeError: If no file can be written at `path`.
    """
    file = Path(path).expanduser()
    try:
        with atomic_write(file.resolve()) as stream:  # a symbolic link is followed
            stream.write(text.encode())
    except OSError as error:
        why = "it is a folder: name a file in it" if file.is_dir() else (error.strerror or str(error)).lower()
        raise ResidscopeError("path", f"The page cannot be written to `{file}`: {why}.") from error
    return file.resolve()


def _target_words(target: Target, prompt: int | None) -> str:
    return inside(target, "" if target.inner is not None else _of_logits(target, prompt))


def _of_logits(target: Target, prompt: int | None) -> str:
    if target.direction is not None:
        return "value along a direction"
    if target.next_token is not None:
        return f"logit of {of_next_token(target.next_token)}"
    if len(target.contrasts) > 1 and prompt is None:
        return "each prompt's logit difference" if target.contrasts[0].distractor else "each prompt's logit"
    contrast = target.contrasts[prompt or 0] if len(target.contrasts) > 1 else target.contrasts[0]
    return f"logit of {_side(contrast, 'answer')}" + (
        f" minus {_side(contrast, 'distractor')}" if contrast.distractor else ""
    )


def _side(contrast: Contrast, side: str) -> str:
    tokens = contrast.answer if side == "answer" else contrast.distractor
    return ", ".join(f"“{fit(token.text.strip(), 40)}”" for token in tokens[:4])


def _built(name: str) -> str:
    path = _STATIC / name
    if not path.is_file():
        raise ResidscopeError("not-built", f"Residscope's front end ({name}) is not built: run `npm run build`.")
    return path.read_text(encoding="utf-8")
