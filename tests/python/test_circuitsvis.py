"""CircuitsVis' views get the right arguments, and no token is markup in their pages."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import residscope
from residscope import ResidscopeError
from tests.support import tiny

MARKUP = ["<img src=x onerror=alert(1)>", "<b>x</b>", "</script><script>alert(1)</script>", "$x$", "a\nb", "&lt;", ""]
PAIR = ("w5", "w9")


@pytest.fixture(scope="module")
def llama():
    model = tiny.boot("llama")
    return SimpleNamespace(model=model, cache=tiny.run(model)[2])


def properties(page: str) -> dict:
    """Return the properties that a page of CircuitsVis passes to its element."""
    call = page[page.rindex("render(") :]
    return json.loads(call[call.index("{") : call.rindex("}") + 1])


@pytest.mark.parametrize("view", ["patterns", "heads"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_circuitsvis_gets_the_activations_of_the_cache(llama, view, dtype):
    from transformer_lens import ActivationCache

    cache = ActivationCache(
        {n: t.to(dtype) if t.is_floating_point() else t for n, t in llama.cache.items()}, llama.model
    )
    page = residscope.to_circuitsvis(cache, ["0.1", "2.3"], prompt=1, view=view)
    expected = torch.stack([cache["pattern", 0][1, 1], cache["pattern", 2][1, 3]]).float()
    for source in (page.local_src, page.cdn_src):
        given = properties(source)
        np.testing.assert_allclose(given["attention"], expected, atol=1e-6)
        assert given["tokens"] == residscope.attention(cache, "0.1", prompt=1).tokens
        assert given["headLabels" if view == "patterns" else "attentionHeadNames"] == ["L0H1", "L2H3"]


def test_circuitsvis_gets_signed_contributions_with_their_scale(llama):
    how = {"prompt": 0, "weighting": "contribution", "answers": PAIR}
    given = properties(residscope.to_circuitsvis(llama.cache, ["0.1"], view="heads", **how).cdn_src)
    values = residscope.attention(llama.cache, ["0.1"], **how).values
    np.testing.assert_allclose(given["attention"], values, atol=1e-6)
    assert given["maxValue"] == -given["minValue"] == pytest.approx(float(values.abs().max()))
    assert given["maskUpperTri"] is True
    with pytest.raises(ResidscopeError, match='use `view="heads"`'):
        residscope.to_circuitsvis(llama.cache, ["0.1"], **how)
    lengths = properties(residscope.to_circuitsvis(llama.cache, ["0.1"], weighting="value").cdn_src)
    assert np.max(lengths["attention"]) == pytest.approx(1)


def test_circuitsvis_shows_the_first_prompt_by_default(llama):
    given = properties(residscope.to_circuitsvis(cache=llama.cache, heads=["0.1"]).cdn_src)
    np.testing.assert_allclose(given["attention"], llama.cache["pattern", 0][0, 1][None], atol=1e-6)
    with pytest.raises(TypeError):
        residscope.to_circuitsvis(llama.cache, ["0.1"], 1)


@pytest.mark.parametrize("weighting", ["attention", "gradient"])
def test_circuitsvis_says_that_a_weighting_is_not_known(llama, weighting):
    with pytest.raises(ResidscopeError, match=f'`weighting="{weighting}"` is not known'):
        residscope.to_circuitsvis(llama.cache, ["0.1"], weighting=weighting)


@pytest.mark.parametrize("view", ["patterns", "heads"])
def test_no_token_is_read_as_markup_in_a_page_of_circuitsvis(llama, monkeypatch, view):
    monkeypatch.setattr("residscope.patterns.maps.token_texts", lambda *_: MARKUP)
    page = residscope.to_circuitsvis(llama.cache, ["0.1"], view=view)
    for source in (page.local_src, page.cdn_src):
        assert properties(source)["tokens"] == MARKUP
        assert "<" not in source[source.rindex("render(") :].removesuffix("</script>")
