"""Writes the code of pictures of measured or estimated effects."""

from __future__ import annotations

from residscope.errors import ResidscopeError
from residscope.export.compared_code import other_cache
from residscope.export.python_source import call, literal
from residscope.export.script import Script
from residscope.terms import Effect, Replaced, ReplacedBy
from residscope.wire.shown import Shown

_ADDS = "what each {} adds: minus the effect of replacing it"
_CHANGE = "the change of the target when the {} is that of the other run"


def is_caused(shown: Shown) -> bool:
    """Whether the head map shows an effect for which the model is run.

    False if it shows a second run, a score, or what feeds a head.
    """
    is_one = shown.against is None or shown.run == "first"
    return shown.effect != "direct" and is_one and shown.score is None and shown.feeds is None


def heads(script: Script) -> list[str]:
    """Return code for the map of one effect of each head."""
    sign, of, which = _sign(_by(script)), _tensor(script), _which(script)
    return [
        _made(script),
        f"values = {sign}{of}{which}  # [layer, head], {script.unit}, {script.mean_words}; {_meaning(_by(script))}",
        _figure(script),
    ]


def ranking(script: Script) -> list[str]:
    """Return code for the heads with the largest positive and negative effects."""
    k = script.request.shown.top_k
    prompt = "" if script.prompt is None else f", {script.prompt}"
    values = f"{_sign(_by(script))}attribution.of({_effect(script)}{prompt})"
    if script.request.shown.effect == "estimate":
        values = f"{_sign(_by(script))}attribution.of({prompt.removeprefix(', ')})"
    return [
        _made(script),
        f"values = [head for head in zip(attribution.labels, ({values}).tolist(), strict=True) if abs(head[1]) > 0]",
        "values.sort(key=lambda head: head[1])",
        f"values = [head for head in reversed(values) if head[1] > 0][:{k}] + "
        f"[head for head in values if head[1] < 0][:{k}]",
        f"# (head, {script.unit}), {script.mean_words}; {_meaning(_by(script))}",
        _figure(script),
    ]


def scatter(script: Script) -> list[str]:
    """Return code for the direct and the total effect of each head."""
    prompt = [] if script.prompt is None else [f"prompt={script.prompt}"]
    which, sign = _which(script), _sign(_by(script))
    # `estimate` knows no direct effects.
    about = ["# measured; the panel shows estimates"] if script.request.shown.effect == "estimate" else []
    return [
        *about,
        _made(script, "total"),
        f"values = [{sign}attribution.direct{which}, {sign}attribution.total{which}]",
        f"# each [layer, head], {script.unit}, {script.mean_words}; {_meaning(_by(script))}",
        call("figure = attribution.to_plotly", ['"scatter"', *prompt, *_adds(_by(script))]),
    ]


def stream(script: Script) -> list[str]:
    """Return code for the effect of the stream at each layer and position."""
    prompt = [] if script.prompt is None else [f"prompt={script.prompt}"]
    which = ".nanmean(-1)" if script.prompt is None else f"[..., {script.prompt}]"
    options = script.position | script.extras("tokens", "attention_mask", "model")
    given = ['at="resid_pre"', 'positions="each"', *(f"{name}={value}" for name, value in options.items())]
    by = _by(script, "stream")
    return [
        call("attribution = residscope.patch", [script.cache, _source(script, by), script.answers, *given]),
        f"values = {_sign(by)}attribution.effects{which}  # [layer, position], {script.unit}, {script.mean_words}",
        f"# {_meaning(by, 'stream')}; all are measured",
        call("figure = attribution.to_plotly", [*prompt, *_adds(by)]),
    ]


def _which(script: Script) -> str:
    """The code of one prompt's effects, or of their mean. Where the target is read at padding, effects are NaN."""
    mean = ".nanmean(-1)" if script.left_out else ".mean(-1)"
    return mean if script.prompt is None else f"[..., {script.prompt}]"


def _made(script: Script, effect: Effect | None = None) -> str:
    shown = script.request.shown
    options = script.position | script.extras("tokens", "attention_mask", "model")
    source = _source(script, _by(script))
    given = [f"{name}={value}" for name, value in options.items()]
    if (effect or shown.effect) == "estimate":
        return call("attribution = residscope.estimate", [script.cache, source, script.answers, *given])
    return call("attribution = residscope.ablate", [script.cache, script.answers, f"replace={source}", *given])


def _by(script: Script, of: Replaced = "heads") -> ReplacedBy:
    """What takes the place of the activations. In a comparison, the stream is always that of the other run."""
    shown = script.request.shown
    return "other" if of == "stream" and shown.against is not None else shown.replaced_by


def _source(script: Script, by: ReplacedBy) -> str:
    against = script.request.shown.against
    if by != "other":
        return literal(by)
    if against is None:
        raise ResidscopeError("against", "Nothing is compared yet: choose a run, then choose Code again.")
    other = other_cache(script, against) or script.cache
    return other if against.prompt is None else f"({other}, {against.prompt})"


def _sign(by: ReplacedBy) -> str:
    """A minus for zero and the mean, because views then show what is added: minus the measured effect."""
    return "-" if _adds(by) else ""


def _meaning(by: ReplacedBy, what: str = "head") -> str:
    return (_ADDS if _adds(by) else _CHANGE).format(what)


def _adds(by: ReplacedBy) -> list[str]:
    return [] if by == "other" else ["adds=True"]


def _effect(script: Script) -> str:
    return literal(script.request.shown.effect)


def _tensor(script: Script) -> str:
    effect = script.request.shown.effect
    return "attribution.effects" if effect == "estimate" else f"attribution.{effect}"


def _figure(script: Script) -> str:
    shown = script.request.shown
    prompt = [] if script.prompt is None else [f"prompt={script.prompt}"]
    effect = [] if shown.effect == "estimate" else [f"effect={_effect(script)}"]
    return call("figure = attribution.to_plotly", [*prompt, *effect, *_adds(_by(script))])
