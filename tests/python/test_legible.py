"""Untrusted text in everything that leaves the kernel is made safe to show, by the same rules as on the page."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import residscope
from residscope.base.legible import legible, shown
from residscope.base.signed import signed
from residscope.export.page import file_name, title
from residscope.serving.service import Service
from residscope.terms import Contrast, Target, Token
from residscope.wire.shown import Shown, WriteCode
from tests.support import tiny

TEXTS = Path(__file__).parents[1] / "texts"
CASES = json.loads((TEXTS / "shown.json").read_text())
FIGURES = json.loads((TEXTS / "figures.json").read_text())
HOSTILE = ["\u202egnirts<b>$x$", "x" + "\u0301" * 450, "a\x1b[31m\x00", "\u2067" + "y" * 9999]
UNFIT = {"\u202e", "\u2067", "\x1b", "\x00"}


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_text_is_shown_as_on_the_page(text, expected):
    assert shown(text) == expected
    assert legible(legible(text)) == legible(text)


@pytest.mark.parametrize(("value", "largest", "more", "text"), FIGURES)
def test_a_number_is_written_as_on_the_page(value, largest, more, text):
    value, largest = (float("nan") if number is None else number for number in (value, largest))
    assert signed(value, largest, more) == text


MARY, JOHN = Contrast([Token(1, " Mary")], [Token(2, " John")]), Contrast([Token(2, " John")], [Token(1, " Mary")])


@pytest.mark.parametrize(
    ("cache", "target", "prompt", "prompts", "name"),
    [
        ("cache", Target([MARY]), None, 1, "cache-Mary-John-prompt0.html"),
        ("cache", Target([MARY, JOHN]), 1, 2, "cache-John-Mary-prompt1.html"),
        ("cache", Target([MARY, JOHN]), None, 2, "cache-own-answers-mean-of-2.html"),
        ('runs["../clean"]', Target([Contrast([Token(3, "…")], [])]), 7, 9, "runs-clean-prompt7.html"),
        ("кэш\ud800", Target([], direction="d"), 0, 2, "кэш-d-prompt0.html"),
        ("字" * 99, Target([Contrast([Token(4, "x" * 99)], [])]), 0, 1, f"{'字' * 20}-{'x' * 60}-prompt0.html"),
    ],
)
def test_a_page_is_named_by_cache_target_and_prompt(cache, target, prompt, prompts, name):
    assert file_name(cache, Shown(target, prompt), prompts) == name
    assert len(name.encode()) < 255


MANY = [Token(id, f" w{id}") for id in range(6)]


@pytest.mark.parametrize(
    ("target", "prompt", "words"),
    [
        (Target([MARY]), None, "logit of “Mary” minus “John”"),
        (Target([MARY]), 3, "logit of “Mary” minus “John”"),
        (Target([MARY, JOHN]), 1, "logit of “John” minus “Mary”"),
        (Target([MARY, JOHN]), None, "each prompt's logit difference"),
        (Target([Contrast(MANY[:1], []), Contrast(MANY[1:2], [])]), None, "each prompt's logit"),
        (Target([Contrast(MANY[:1], [])]), 0, "logit of “w0”"),
        (Target([Contrast(MANY[:4], MANY)]), 0, "logit of “w0”, “w1”, “w2”, “w3” minus “w0”, “w1”, “w2”, “w3”"),
        (Target([], direction="d"), 0, "value along a direction"),
    ],
)
def test_the_title_of_a_page_says_what_is_attributed(target, prompt, words):
    assert title("cache", Shown(target, prompt)) == f"cache: {words} · Residscope"


@pytest.mark.parametrize("piece", ["x", "👩‍", "क्", "\u0301", "🇫", "가", "\ud800", "\u202e", "e\u0301\u0302"], ids=ascii)
def test_a_very_long_text_is_shortened(piece):
    assert len(shown(piece * 100_000)) < 1000


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:20])
def test_a_hostile_name_is_made_safe_wherever_it_appears(name):
    model = tiny.boot("llama")
    cache = tiny.run(model)[2]
    service = Service(cache, name)
    target = service.targets().resolve(("w5", "w9"))
    heads = residscope.attribute(cache, ("w5", "w9"))
    figure = heads.to_plotly("scatter", other=heads, names=(name, name))
    code = service.reply(WriteCode("heads", Shown(target, 1)))[0].code
    [remark] = [line for line in code.splitlines() if "stands for" in line]
    tokens = residscope.attribute(cache, ("w5", "w9"), by="layer", position="all").to_plotly(tokens=[name] * 7)
    panel = residscope.inspect(cache, name=name, show=False)
    for text in [
        title(name, Shown(target, 1)),
        file_name(name, Shown(target, 1), 3),
        figure.layout.xaxis.title.text,
        *tokens.layout.xaxis.ticktext,
        remark,
        repr(panel),
    ]:
        assert not UNFIT & set(text), ascii(text)
        assert "\u0301" * 5 not in text
        assert len(text) < 400
    panel.close()


def test_a_page_of_a_cache_with_a_lone_surrogate_in_its_name_is_valid_utf_8(monkeypatch):
    import IPython.core.getipython

    model = tiny.boot("llama")
    cache = tiny.run(model)[2]
    space = SimpleNamespace(user_ns={"\ud800": cache})
    monkeypatch.setattr(IPython.core.getipython, "get_ipython", lambda: space)
    [found] = residscope.session.discovery.search().found
    assert found.names == ['globals()["\\ud800"]']
    panel = residscope.inspect(cache, name="\ud800<b>", show=False)
    page = panel.to_html()
    assert page.encode()
    assert "<title>‹U+D800›&lt;b&gt;: " in page
    panel.close()
