"""CircuitsVis' own views of attention that is in a cache.

CircuitsVis writes the tokens as JSON into a `<script>` of its page, where a token `</script>` would end the script and
the next one could run: here no `<` of a token reaches the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from residscope.base.packages import needed
from residscope.errors import ResidscopeError
from residscope.export.palette import BLUE, ORANGE, limit

if TYPE_CHECKING:
    from torch import Tensor

    from residscope.terms import Weighting

View = Literal["patterns", "heads"]


def to_circuitsvis(
    cache: Any,
    heads: Any,
    *,
    prompt: int | None = 0,
    view: View = "patterns",
    weighting: Weighting = "pattern",
    answers: Any = None,
    **given: Any,
) -> Any:
    """CircuitsVis' own view of heads' attention, straight from a cache.

    Each time it is shown, CircuitsVis asks the network: a web page, with a time-out of a second, and then a CDN for its
    program. Without network it puts the whole program, 1.3 MB, into the output.

    Args:
        cache: An `ActivationCache`.
        heads: Heads such as `["9.9", "L9H6", (10, 7)]`.
        prompt: The prompt; None is the mean over prompts.
        view: `"patterns"` (`attention_patterns`: tokens to hover, one colour a head) or `"heads"` (`attention_heads`: a
            map with values).
        weighting: `"pattern"`, `"value"` (attention × ‖v W_O‖) or `"contribution"` (logits; signed, only with
            `view="heads"`). `"patterns"` draws from 0 to 1 and writes no numbers, so `"value"` is divided by its
            largest.
        answers: What is attributed, as in `residscope.attribute`; needed for `"contribution"`.
        given: `tokens=`, `attention_mask=` and `model=`, as in `residscope.attention`.

    Returns:
        A `circuitsvis.utils.render.RenderedHTML`.

    Raises:
        ResidscopeError: If CircuitsVis is not installed, or the view cannot draw what is asked for.

    Source: CircuitsVis' `attention_patterns` and `attention_heads`.
    """
    if view not in ("patterns", "heads"):
        raise ResidscopeError("view", f'`view="{view}"` is not known: use "patterns" or "heads".')
    if view == "patterns" and weighting == "contribution":
        raise ResidscopeError(
            "view",
            "CircuitsVis' `attention_patterns` knows no sign, and contributions take away, too: use "
            '`view="heads"` (or `residscope.attention(…).to_plotly()`).',
        )
    from residscope.patterns.maps import attention

    found = attention(cache, heads, prompt=prompt, weighting=weighting, answers=answers, **given)
    values, tokens = found.values.float(), list(found.tokens)
    if view == "patterns":
        values = values if weighting == "pattern" else values / limit(values)
        return _rendered("AttentionPatterns", tokens=tokens, attention=_listed(values), headLabels=list(found.heads))
    end = 1.0 if weighting == "pattern" else limit(values)
    return _rendered(
        "AttentionHeads",
        attention=_listed(values),
        attentionHeadNames=list(found.heads),
        maxValue=end,
        minValue=-end,
        negativeColor=ORANGE,
        positiveColor=BLUE,
        tokens=tokens,
        # Above the diagonal is nothing to see in a causal model, and something in others.
        maskUpperTri=not bool(values.triu(1).any()),
    )


def _listed(values: Tensor) -> list[Any]:
    """Numbers to six places: the page is half as long, and nobody sees more."""
    return values.cpu().double().round(decimals=6).tolist()


def _rendered(element: str, **properties: Any) -> Any:
    """One of CircuitsVis' elements, in which no text of ours is markup.

    Its functions take no names of heads for `attention_patterns`, though the element does; so the element is asked for.
    """
    with needed("CircuitsVis", "This", '`pip install "residscope[figures]"` (or `pip install circuitsvis`)'):
        from circuitsvis.utils.convert_props import convert_props
        from circuitsvis.utils.render import RenderedHTML, render
    page = render(element, **properties)
    written = convert_props(properties)
    # In JSON a "<" stands only in strings, where an escape means the same.
    safe = written.replace("<", r"\u003c")
    sources = [source.replace(written, safe) for source in (page.local_src, page.cdn_src)]
    if any(safe not in source for source in sources):
        raise ResidscopeError(
            "circuitsvis",
            "This version of CircuitsVis writes its page in a way that is not known: it could let a token run as a "
            "script. Use version 1.43.",
        )
    return RenderedHTML(*sources)
