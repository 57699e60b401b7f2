"""Writes Python code that computes exactly what a picture shows, as a person would write it."""

from __future__ import annotations

from residscope.attribution.targets import Targets
from residscope.export import compared_code, effects_code
from residscope.export.open_tabs import open_tab
from residscope.export.python_source import call
from residscope.export.script import Given, Script
from residscope.session.change_notes import changed
from residscope.wire.shown import Picture, WriteCode

__all__ = ["ASSIGNED", "Given", "code"]

ASSIGNED = ("attribution", "values", "figure")
"""All names that copied code assigns, for every picture. The chapter "Exports" of the documentation names them."""


def code(targets: Targets, request: WriteCode, given: Given) -> str:
    """Return code for a new cell. It assigns the shown array or list to `values`, and a plotly figure to `figure`.

    It assigns only the names of `ASSIGNED`, because all others may be the user's.

    Args:
        targets: Resolves targets for the cache.
        request: The picture and the selection.
        given: The cache, and the other arguments that were given with it.

    Raises:
        ResidscopeError: If the target cannot be resolved, there is no such prompt, or no head is shown.
    """
    script = Script(targets, request, given)
    lines = _lines(script, request.picture)
    notes = [f"# {note}" for note in changed(targets.view)]
    return "\n".join(["import residscope", "", *notes, *script.remarks, *lines, "figure"]) + "\n"


def _lines(script: Script, picture: Picture) -> list[str]:
    match picture:
        case "lens":
            return _lens(script)
        case "layers":
            return _layers(script)
        case "heads":
            return _heads(script)
        case "ranking":
            return _ranking(script)
        case "attention-of-runs":
            return compared_code.attention(script)
        case "stream":
            return effects_code.stream(script)
        case tab:
            return open_tab(tab).code(script)


def _lens(script: Script) -> list[str]:
    against = script.request.shown.against
    if against is not None:
        return compared_code.lens(script, against)
    norm = {"norm": '"recomputed"'} if script.request.shown.norm == "recomputed" else {}
    norm |= script.transport
    rows = "(attribution.values + attribution.constant)"
    which = script.mean(rows, 1) if script.prompt is None else f"{rows}[:, {script.prompt}]"
    return [
        script.attribute("accumulated", **script.position, **norm),
        f"values = {which}  # [point], {script.unit}, {script.mean_words}; names: attribution.labels",
        script.figure(),
    ]


def _layers(script: Script) -> list[str]:
    against = script.request.shown.against
    if against is not None:
        return compared_code.layers(script, against)
    which = "attribution.mean()" if script.prompt is None else f"attribution.values[:, {script.prompt}]"
    return [
        script.attribute("layer", **script.position),
        f"values = {which}  # [component], {script.unit}, {script.mean_words}; names: attribution.labels",
        script.figure(),
    ]


def _heads(script: Script) -> list[str]:
    if script.request.shown.score is not None:
        return _scores(script, script.request.shown.score)
    if effects_code.is_caused(script.request.shown):
        return effects_code.heads(script)
    against = script.request.shown.against
    if against is not None:
        return compared_code.heads(script, against)
    which = script.mean("attribution.grid", -1) if script.prompt is None else f"attribution.grid[..., {script.prompt}]"
    return [
        script.attribute("head", **script.position),
        f"values = {which}  # [layer, head], {script.unit}, {script.mean_words}",
        script.figure(),
    ]


def _ranking(script: Script) -> list[str]:
    shown = script.request.shown
    k = shown.top_k
    if effects_code.is_caused(shown) and shown.ranking == "heads":
        return effects_code.ranking(script)
    if shown.against is not None and shown.ranking == "heads":
        return compared_code.ranking(script, shown.against)
    layer = {} if shown.ranking == "heads" or shown.layer is None else {"layers": str(shown.layer)}
    which = f"attribution.top({k})" if script.prompt is None else f"attribution.top({k}, prompt={script.prompt})"
    kind = [] if shown.ranking == "neurons" else ['"ranking"']
    return [
        script.attribute("head" if shown.ranking == "heads" else "neuron", **script.position, **layer),
        f"values = [value for _, value in {which}]  # {script.unit}, {script.mean_words}; names and values: {which}",
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
