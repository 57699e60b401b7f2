"""CircuitsVis' views of the attention in a cache.

CircuitsVis writes the tokens as JSON into a `<script>` of its page. There, a token `</script>` would end the script,
and text after this token could run. Here every `<` of a token is escaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from residscope.base.packages import importing
from residscope.errors import ResidscopeError
from residscope.export.palette import BLUE, ORANGE, limit
from residscope.terms import Answers, CacheLike, Heads

if TYPE_CHECKING:
    from torch import Tensor

    from residscope.terms import Weighting

View = Literal["patterns", "heads"]


def to_circuitsvis(
    cache: CacheLike,
    heads: Heads,
    *,
    prompt: int | None = 0,
    view: View = "patterns",
    weighting: Weighting = "pattern",
    answers: Answers = None,
    **given: Any,
) -> object:
    """Return a CircuitsVis view of heads' attention, directly from a cache.

    Each time the view is shown, CircuitsVis looks for a network: it requests a web page, with a time-out of one second.
    If there is a network, the view loads CircuitsVis' JavaScript from a CDN. If not, all of this JavaScript, 1.3 MB, is
    put into the output.

    Args:
        cache: An `ActivationCache`.
        heads: Heads such as `["9.9", "L9H6", (10, 7)]`.
        prompt: The prompt. None: the mean over prompts.
        view: `"patterns"` (`attention_patterns`: tokens to hover over, one colour per head) or `"heads"`
            (`attention_heads`: a map with values).
        weighting: `"pattern"`, `"value"` (attention × ‖v W_O‖) or `"contribution"` (signed logits, only with
            `view="heads"`). `view="patterns"` can only draw numbers from 0 to 1. So there, the numbers of `"value"` are
            divided by the largest one.
        answers: The target of `"contribution"`, as in `residscope.attribute`.
        given: `tokens=`, `attention_mask=` and `model=`, as in `residscope.attention`.

    Returns:
        A `circuitsvis.utils.render.RenderedHTML`.

    Raises:
        ResidscopeError: If CircuitsVis is not installed, or the view cannot draw this weighting.

    Source: CircuitsVis' `attention_patterns` and `attention_heads`.
    """
    if view not in ("patterns", "heads"):
        raise ResidscopeError("view", f'`view="{view}"` is not known: use "patterns" or "heads".')
    if view == "patterns" and weighting == "contribution":
        raise ResidscopeError(
            "view",
            "CircuitsVis' `attention_patterns` cannot show negative values, and contributions can be negative: use "
            '`view="heads"` (or `residscope.attention(…).to_plotly()`).',
        )
    from residscope.patterns.maps import attention

    result = attention(cache, heads, prompt=prompt, weighting=weighting, answers=answers, **given)
    values, tokens = result.values.float(), list(result.tokens)
    if view == "patterns":
        values = values if weighting == "pattern" else values / limit(values)
        return _rendered("AttentionPatterns", tokens=tokens, attention=_as_lists(values), headLabels=list(result.heads))
    end = 1.0 if weighting == "pattern" else limit(values)
    return _rendered(
        "AttentionHeads",
        attention=_as_lists(values),
        attentionHeadNames=list(result.heads),
        maxValue=end,
        minValue=-end,
        negativeColor=ORANGE,
        positiveColor=BLUE,
        tokens=tokens,
        # A causal model has no attention above the diagonal. Other models may have some.
        maskUpperTri=not bool(values.triu(1).any()),
    )


def _as_lists(values: Tensor) -> list[object]:
    """The values, rounded to six decimals. This halves the size of the page, and the difference is invisible."""
    return values.cpu().double().round(decimals=6).tolist()


def _rendered(element: str, **properties: Any) -> object:
    """One of CircuitsVis' elements, with all text escaped.

    The element is rendered directly, because CircuitsVis' Python function `attention_patterns` takes no head names.
    """
    with importing("CircuitsVis", "This", '`pip install "residscope[figures]"` (or `pip install circuitsvis`)'):
        from circuitsvis.utils.convert_props import convert_props
        from circuitsvis.utils.render import RenderedHTML, render
    page = render(element, **properties)
    written = convert_props(properties)
    # In JSON, "<" occurs only within strings, where the escape means the same.
    safe = written.replace("<", r"\u003c")
    sources = [source.replace(written, safe) for source in (page.local_src, page.cdn_src)]
    if any(safe not in source for source in sources):
        raise ResidscopeError(
            "circuitsvis",
            "This version of CircuitsVis writes its page in an unknown way, so a token could run as a "
            "script. Use version 1.43.",
        )
    return RenderedHTML(*sources)
