"""Writes Python code that computes exactly what a picture shows, as a person would write it."""

from __future__ import annotations

from collections.abc import Callable

from residscope.attribution.inner_checks import is_inner
from residscope.attribution.targets import Targets
from residscope.cache.component_names import name, parse
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.export import compared_code, effects_code
from residscope.export.python_source import call, listed, literal
from residscope.export.script import Given, Script
from residscope.export.view_requests import Views
from residscope.patterns.downsampling import Part
from residscope.session.change_notes import changed
from residscope.terms import AttentionScore
from residscope.wire.protocol import Attribute, Picture, Shown, WriteCode

__all__ = ["Given", "code"]

_NO_HEAD = "No head is shown: click a head in the head map, then copy the code."


def code(targets: Targets, request: WriteCode, given: Given) -> str:
    """Return code for a new cell. It assigns the shown array to `values`, and a plotly figure to `figure`.

    Args:
        targets: Resolves targets for the cache.
        request: The picture and the selection.
        given: The cache, and the other arguments that were given with it.

    Raises:
        ResidscopeError: If the target cannot be resolved, there is no such prompt, or no head is shown.
    """
    script = Script(targets, request, given)
    lines = _PICTURES[request.picture](script)
    notes = [f"# {note}" for note in changed(targets.view)]
    return "\n".join(["import residscope", "", *notes, *script.remarks, *lines, "figure"]) + "\n"


def _lens(script: Script) -> list[str]:
    against = script.request.shown.against
    if against is not None:
        return compared_code.lens(script, against)
    norm = {"norm": '"recomputed"'} if script.request.shown.norm == "recomputed" else {}
    rows = "(attribution.values + attribution.constant)"
    which = f"{rows}.mean(1)" if script.prompt is None else f"{rows}[:, {script.prompt}]"
    return [
        script.attribute("accumulated", **script.position, **norm),
        f"values = {which}  # [point], {script.unit}, {script.prompt_words}; names: attribution.labels",
        script.figure(),
    ]


def _layers(script: Script) -> list[str]:
    against = script.request.shown.against
    if against is not None:
        return compared_code.layers(script, against)
    which = "attribution.mean()" if script.prompt is None else f"attribution.values[:, {script.prompt}]"
    return [
        script.attribute("layer", **script.position),
        f"values = {which}  # [component], {script.unit}, {script.prompt_words}; names: attribution.labels",
        script.figure(),
    ]


def _heads(script: Script) -> list[str]:
    if script.request.shown.score is not None:
        return _scores(script, script.request.shown.score)
    if script.request.shown.effect != "direct":
        return effects_code.heads(script)
    against = script.request.shown.against
    if against is not None:
        return compared_code.heads(script, against)
    which = "attribution.grid.mean(-1)" if script.prompt is None else f"attribution.grid[..., {script.prompt}]"
    return [
        script.attribute("head", **script.position),
        f"values = {which}  # [layer, head], {script.unit}, {script.prompt_words}",
        script.figure(),
    ]


def _ranking(script: Script) -> list[str]:
    shown = script.request.shown
    k = shown.top_k
    if shown.effect != "direct" and shown.ranking == "heads":
        return effects_code.ranking(script)
    if shown.against is not None and shown.ranking == "heads":
        return compared_code.ranking(script, shown.against)
    layer = {} if shown.ranking == "heads" or shown.layer is None else {"layers": str(shown.layer)}
    which = f"attribution.top({k})" if script.prompt is None else f"attribution.top({k}, prompt={script.prompt})"
    kind = [] if shown.ranking == "neurons" else ['"ranking"']
    return [
        script.attribute("head" if shown.ranking == "heads" else "neuron", **script.position, **layer),
        f"values = [value for _, value in {which}]  # {script.unit}, {script.prompt_words}; with names: {which}",
        script.figure(*kind, f"k={k}"),
    ]


def _scores(script: Script, score: str) -> list[str]:
    which = [] if script.prompt is None or score == "copying" else [f"prompt={script.prompt}"]
    prompts = "" if score == "copying" else f", {script.prompt_words}"
    given = script.named("tokens", "attention_mask", "model")
    return [
        call("attribution = residscope.scores", [script.cache, f'"{score}"', *which, *given]),
        f"values = attribution.values  # [layer, head]{prompts}",
        "figure = attribution.to_plotly()",
    ]


def _attention(script: Script) -> list[str]:
    shown = script.request.shown
    options = [] if script.prompt is None else [f"prompt={script.prompt}"]
    if shown.weighting != "pattern":
        options.append(f'weighting="{shown.weighting}"')
    if shown.weighting == "contribution":
        options.append(f"answers={script.answers}")
    arguments = [script.cache, _heads_in(script), *options, *script.named("tokens", "attention_mask", "model")]
    step = Part.of(script.view.n_pos).step
    remark = (
        [f"# every cell; the panel and the figure show one value for each {step} × {step} cells"] if step > 1 else []
    )
    return [
        *remark,
        call("attribution = residscope.attention", arguments),
        f"values = {_attention_values(shown)}, {script.prompt_words}",
        "figure = attribution.to_plotly()",
    ]


def _attention_values(shown: Shown) -> str:
    """The array of the attention tab: one map per head, or one map if heads are shown as text."""
    if shown.presentation != "text" or len(shown.heads) < 2:
        return "attribution.values  # [head, destination, source]"
    how = "sum" if shown.weighting == "contribution" else "mean"
    return f"attribution.values.{how}(0)  # [destination, source], the {how} over heads"


def _positions(script: Script) -> list[str]:
    shown = script.request.shown
    norm = {"norm": '"recomputed"'} if (shown.by, shown.norm) == ("accumulated", "recomputed") else {}
    which = "attribution.values.mean(1)" if script.prompt is None else f"attribution.values[:, {script.prompt}]"
    rows: list[str] = []
    if shown.by == "head":
        if not shown.heads:
            raise ResidscopeError("heads", _NO_HEAD)
        heads = literal(shown.heads)
        which += f"[[attribution.labels.index(name) for name in {heads}]]"
        rows = [f"rows={heads}"]
    return [
        script.attribute(shown.by, position='"all"', **norm),
        f"values = {which}  # [component, position], {script.unit}, {script.prompt_words}",
        script.figure(*rows),
    ]


def _token_lens(script: Script) -> list[str]:
    options = [] if script.prompt is None else [f"prompt={script.prompt}"]
    answers = [script.answers] if script.request.shown.target.direction is None else []
    arguments = [script.cache, *answers, *options, *script.named("tokens", "attention_mask", "model")]
    return [
        call("attribution = residscope.token_lens", arguments),
        f"values = attribution.probabilities  # [point, position, k], {script.prompt_words}; with attribution.tokens",
        "figure = attribution.to_plotly()",
    ]


def _prompts(script: Script) -> list[str]:
    heads = script.request.shown.heads
    if not heads:
        return [
            script.attribute("accumulated", **script.for_all_prompts),
            f"values = attribution.values[-1] + attribution.constant  # [prompt], {script.unit}",
            'figure = attribution.to_plotly("prompts")',
        ]
    pairs = [parse(head) for head in heads]
    layers, each = ([place[i] for place in pairs] for i in (0, 1))
    which = f"{layers[0]}, {each[0]}" if len(heads) == 1 else f"{layers}, {each}"
    return [
        script.attribute("head", **script.for_all_prompts),
        f"values = attribution.grid[{which}]  # {'[prompt]' if len(heads) == 1 else '[head, prompt]'}, {script.unit}",
        call("figure = attribution.to_plotly", ['"prompts"', f"rows={literal(heads)}"]),
    ]


def _heads_in(script: Script) -> str:
    """The heads that are shown. All heads of the model or of a layer are written as a comprehension."""
    shown, view = script.request.shown, script.view
    pairs = [parse(head) for head in shown.heads]
    layers, every = sorted({layer for layer, _ in pairs}), list(range(view.n_heads))
    if not pairs and shown.presentation != "all":
        raise ResidscopeError("heads", _NO_HEAD)
    if not pairs or pairs == [(layer, head) for layer in range(view.n_layers) for head in every]:
        return _all_heads(view)
    if len(pairs) > 1 and pairs == [(layers[0], head) for head in every]:
        return f"[({layers[0]}, head) for head in range({view.n_heads})]"
    return literal(shown.heads)


def _all_heads(view: CacheView) -> str:
    """All heads of the model. Some models have layers without attention, or with fewer heads."""
    patterns = {layer: view.activations.get(f"blocks.{layer}.attn.hook_pattern") for layer in range(view.n_layers)}
    counts = {layer: int(pattern.shape[-3]) for layer, pattern in patterns.items() if pattern is not None}
    if len(set(counts.values())) > 1:
        return literal([name(layer, head) for layer, count in counts.items() for head in range(count)])
    layers = list(counts) if 0 < len(counts) < view.n_layers else f"range({view.n_layers})"
    return f"[(layer, head) for layer in {layers} for head in range({view.n_heads})]"


_SIDES = 8
"""The number of rows of each side that are drawn."""


def _why(script: Script) -> list[str]:
    shown = script.request.shown
    if not is_inner(shown.target):
        raise ResidscopeError("why", "No question is asked yet: ask why a head reads a token, then copy the code.")
    which = "" if script.prompt is None else str(script.prompt)
    if isinstance(shown.target.inner, AttentionScore) and not shown.target.through and shown.why == "pairs":
        given = script.named("tokens", "attention_mask", "model")
        return [
            call("attribution = residscope.pairs", [script.cache, script.target(shown.target), *given]),
            f"values = attribution.of({which})  # [query component, key component], {script.prompt_words}; "
            "names: attribution.query_labels, attribution.key_labels",
            call("figure = attribution.to_plotly", [] if script.prompt is None else [f"prompt={which}"]),
        ]
    requests = [ask for ask in Views(shown, script.facts).why() if isinstance(ask, Attribute)]
    columns = [
        script.attributed(ask.target, "head", **script.position_of(ask.target, ask.position)) for ask in requests
    ]
    of = "column.mean()" if script.prompt is None else f"column.values[:, {which}]"
    options = [f"k={_SIDES}"] if len(columns) == 1 else ["other=attribution[1:]", f"k={_SIDES}"]
    options += [] if script.prompt is None else [f"prompt={which}"]
    return [
        f"attribution = {listed(columns)}",
        f"values = [{of} for column in attribution]  # each [component], {script.prompt_words}; "
        "names: attribution[0].labels",
        call("figure = attribution[0].to_plotly", ['"sides"', *options]),
    ]


def _runs(script: Script) -> list[str]:
    shown = script.request.shown
    if shown.against is None and shown.effect != "direct":
        return effects_code.scatter(script)
    return compared_code.runs(script)


_PICTURES: dict[Picture, Callable[[Script], list[str]]] = {
    "lens": _lens, "layers": _layers, "heads": _heads, "ranking": _ranking, "attention": _attention,
    "positions": _positions, "token-lens": _token_lens, "prompts": _prompts,
    "why": _why, "runs": _runs,
}  # fmt: skip
