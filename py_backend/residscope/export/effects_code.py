"""Writes the code of pictures of measured or estimated effects."""

from __future__ import annotations

from residscope.errors import ResidscopeError
from residscope.export.compared_code import other_cache
from residscope.export.python_source import call, literal
from residscope.export.script import Script
from residscope.terms import Effect, ReplacedBy

_ADDS = "what each head adds: minus the effect of replacing it"


def heads(script: Script) -> list[str]:
    """Return code for the map of one effect of each head."""
    sign, of = _sign(script), _tensor(script)
    which = ".mean(-1)" if script.prompt is None else f"[..., {script.prompt}]"
    return [
        _made(script),
        f"values = {sign}{of}{which}  # [layer, head], {script.unit}, {script.prompt_words}{_meaning(script)}",
        _figure(script),
    ]


def ranking(script: Script) -> list[str]:
    """Return code for the heads with the largest positive and negative effects."""
    k = script.request.shown.top_k
    prompt = "" if script.prompt is None else f", {script.prompt}"
    values = f"{_sign(script)}attribution.of({_effect(script)}{prompt})"
    if script.request.shown.effect == "estimate":
        values = f"{_sign(script)}attribution.of({prompt.removeprefix(', ')})"
    return [
        _made(script),
        f"values = [head for head in zip(attribution.labels, ({values}).tolist(), strict=True) if abs(head[1]) > 0]",
        "values.sort(key=lambda head: head[1])",
        f"values = [head for head in reversed(values) if head[1] > 0][:{k}] + "
        f"[head for head in values if head[1] < 0][:{k}]",
        f"# (head, {script.unit}), {script.prompt_words}{_meaning(script)}",
        _figure(script),
    ]


def scatter(script: Script) -> list[str]:
    """Return code for the direct and the total effect of each head."""
    prompt = [] if script.prompt is None else [f"prompt={script.prompt}"]
    which = ".mean(-1)" if script.prompt is None else f"[..., {script.prompt}]"
    sign = _sign(script)
    return [
        _made(script, "total"),
        f"values = [{sign}attribution.direct{which}, {sign}attribution.total{which}]",
        f"# each [layer, head], {script.unit}, {script.prompt_words}{_meaning(script)}",
        call("figure = attribution.to_plotly", ['"scatter"', *prompt, *_adds(script)]),
    ]


def _made(script: Script, effect: Effect | None = None) -> str:
    shown = script.request.shown
    options = script.position | script.extras("tokens", "attention_mask", "model")
    source = _source(script)
    given = [f"{name}={value}" for name, value in options.items()]
    if (effect or shown.effect) == "estimate":
        return call("attribution = residscope.estimate", [script.cache, source, script.answers, *given])
    return call("attribution = residscope.ablate", [script.cache, script.answers, f"replace={source}", *given])


def _source(script: Script) -> str:
    shown = script.request.shown
    by: ReplacedBy = shown.replaced_by
    if by != "other":
        return literal(by)
    if shown.against is None:
        raise ResidscopeError("against", "Nothing is compared yet: choose a run, then choose Code again.")
    other = other_cache(script, shown.against) or script.cache
    return other if shown.against.prompt is None else f"({other}, {shown.against.prompt})"


def _sign(script: Script) -> str:
    """A minus if needed: views show what a head adds, which is minus the measured effect of replacing it."""
    return "-" if _adds(script) else ""


def _meaning(script: Script) -> str:
    return f"; {_ADDS}" if _adds(script) else ""


def _adds(script: Script) -> list[str]:
    return [] if script.request.shown.replaced_by == "other" else ["adds=True"]


def _effect(script: Script) -> str:
    return literal(script.request.shown.effect)


def _tensor(script: Script) -> str:
    effect = script.request.shown.effect
    return "attribution.effects" if effect == "estimate" else f"attribution.{effect}"


def _figure(script: Script) -> str:
    shown = script.request.shown
    prompt = [] if script.prompt is None else [f"prompt={script.prompt}"]
    effect = [] if shown.effect == "estimate" else [f"effect={_effect(script)}"]
    return call("figure = attribution.to_plotly", [*prompt, *effect, *_adds(script)])
