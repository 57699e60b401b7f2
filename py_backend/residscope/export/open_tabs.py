"""The views below the charts: what each view requests, and the code that computes what the view shows.

In the front end, the `TabView`s in `widgets/src/views/` draw these views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from residscope.attribution.inner_checks import is_inner
from residscope.attribution.own_targets import NO_OWN_MAP
from residscope.cache.component_names import name, parse
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.export import compared_code, effects_code, features_code
from residscope.export.python_source import call, listed, literal
from residscope.export.script import NO_HEAD, Script
from residscope.export.view_requests import MAPPED, PAIRED, Group, Requests, Views, without_mid
from residscope.patterns.downsampling import Part
from residscope.terms import AttentionScore, Component
from residscope.wire.decompositions import Attribute
from residscope.wire.shown import Shown, Tab

LENS, SMALL = "some of the token lens", "some thumbnails of heads"
SEGMENTS = "which segments some heads read"
_SIDES = 8
"""How many rows each chart of the tab "why" has."""


@dataclass(frozen=True)
class Scene:
    """A selection in a cache, with the pinned and the ranked heads, and the points of the logit lens."""

    views: Views
    ranked: list[str]
    points: list[Component]

    @property
    def shown(self) -> Shown:
        """The selection."""
        return self.views.shown


@dataclass(frozen=True)
class OpenTab:
    """A view below the charts.

    Attributes:
        requests: What the view requests in addition to the charts and the pinned heads.
        code: The lines of code that compute `values` as the view shows them, and a `figure`.
        has_code: Whether a saved page has this code; None: always.
        heads: The heads that the view shows; None: the pinned heads.
    """

    requests: Callable[[Scene], Iterable[Group]]
    code: Callable[[Script], list[str]]
    has_code: Callable[[Shown], bool] | None = None
    heads: Callable[[Scene], list[str]] | None = None


def open_tab(tab: Tab) -> OpenTab:
    """The view of a tab."""
    match tab:
        case "attention":
            return OpenTab(_thumbnails, _attention)
        case "positions":
            return OpenTab(_position_map, _positions, heads=_rows_of_map)
        case "token-lens":
            return OpenTab(_lens_tiles, _token_lens)
        case "prompts":  # in a saved page, the code of this view is for the target, not for heads
            return OpenTab(_each_prompt, _prompts, heads=lambda _: [])
        case "why":
            return OpenTab(
                lambda scene: each(
                    "some of what the target is made of", [*scene.views.why(), *scene.views.heads_own_row()]
                ),
                _why,
                has_code=lambda shown: shown.target.inner is not None or bool(shown.target.through),
            )
        case "runs":  # the scatter plot shows the comparison of heads, which the charts request
            return OpenTab(
                lambda scene: each("the attention of some heads in two runs", scene.views.attention_of_runs()),
                _runs,
                has_code=lambda shown: shown.against is not None or effects_code.is_caused(shown),
            )
        case "segments":
            return OpenTab(
                _segment_maps, _segments, has_code=lambda shown: shown.segments is not None and bool(shown.heads)
            )
        case "features":
            return OpenTab(
                lambda scene: each("some of the features", scene.views.features() if scene.views.facts.saes else []),
                features_code.features,
                has_code=lambda shown: shown.tab == "features",
                heads=lambda scene: scene.shown.heads,
            )


def of_the_tab(views: Views, ranked: list[str], points: list[Component]) -> list[Group]:
    """What the open tab requests in addition to the charts and the pinned heads."""
    return list(open_tab(views.shown.tab).requests(Scene(views, ranked, points)))


def each(what: str, requests: Requests) -> Iterator[Group]:
    """Each request as a group of its own: some may be recorded without the others."""
    return ((what, [request]) for request in requests)


# --- requests -------------------------------------------------------------------------------------------------------
def _thumbnails(scene: Scene) -> Iterable[Group]:
    shown = scene.shown
    return each(SMALL, scene.views.in_small(shown.weighting) if shown.presentation == "all" else [])


def _lens_tiles(scene: Scene) -> Iterable[Group]:
    rows = without_mid(scene.points) if scene.shown.lens_rows == "layers" else scene.points
    return each(LENS, scene.views.token_lens(rows))


def _position_map(scene: Scene) -> list[Group]:
    shown, ranked = scene.shown, scene.ranked
    no_heads = shown.by == "head" and not ranked
    return [] if no_heads else [(None, [scene.views.position_map(shown.by, ranked, shown.prompt)])]


def _rows_of_map(scene: Scene) -> list[str]:
    return scene.ranked[:MAPPED] if scene.shown.by == "head" else scene.shown.heads


def _each_prompt(scene: Scene) -> list[Group]:
    views = scene.views
    return [(None, views.each_prompt())] if len(views.facts.last) > 1 else []


def _segment_maps(scene: Scene) -> Iterable[Group]:
    views = scene.views
    return each(SEGMENTS, [*views.segment_heads(), *views.segment_maps(scene.shown.heads)])


# --- code -----------------------------------------------------------------------------------------------------------
def _attention(script: Script) -> list[str]:
    shown = script.request.shown
    options = [] if script.prompt is None else [f"prompt={script.prompt}"]
    if shown.weighting != "pattern":
        options.append(f'weighting="{shown.weighting}"')
    if shown.weighting == "contribution":
        options.append(f"answers={_answers_of_map(script, own=shown.presentation == 'all')}")
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


def _answers_of_map(script: Script, *, own: bool) -> str:
    """The target of a map of contributions, as code.

    Args:
        script: The selection.
        own: Whether the map has no single destination. A target that differs between positions is then refused, as in
            the panel.
    """
    if own and script.request.shown.target.next_token is not None:
        raise ResidscopeError("next-token", NO_OWN_MAP)
    return script.answers_there


def _attention_values(shown: Shown) -> str:
    """The array of the attention tab: one map if heads are shown as text, else one map per head."""
    if shown.presentation != "text" or len(shown.heads) < 2:
        return "attribution.values  # [head, destination, source]"
    how = "sum" if shown.weighting == "contribution" else "mean"
    return f"attribution.values.{how}(0)  # [destination, source], the {how} over heads"


def _positions(script: Script) -> list[str]:
    shown = script.request.shown
    norm = {"norm": '"recomputed"'} if (shown.by, shown.norm) == ("accumulated", "recomputed") else {}
    if shown.by == "accumulated":
        norm |= script.transport
    which = "attribution.mean()" if script.prompt is None else f"attribution.values[:, {script.prompt}]"
    rows: list[str] = []
    if shown.by == "head":
        if not shown.heads:
            raise ResidscopeError("heads", NO_HEAD)
        heads = literal(shown.heads)
        which += f"[[attribution.labels.index(name) for name in {heads}]]"
        rows = [f"rows={heads}"]
    return [
        script.attribute(shown.by, position='"all"', **norm),
        f"values = {which}  # [component, position], {script.unit}, {script.prompt_words}",
        script.figure(*rows),
    ]


def _token_lens(script: Script) -> list[str]:
    shown = script.request.shown
    if shown.against is not None and shown.run != "first":
        return compared_code.token_lens(script, shown.against)
    options = [] if script.prompt is None else [f"prompt={script.prompt}"]
    answers = [script.answers] if script.request.shown.target.direction is None else []
    options += [f"{name}={value}" for name, value in script.transport.items()]
    arguments = [script.cache, *answers, *options, *script.named("tokens", "attention_mask", "model")]
    return [
        call("attribution = residscope.token_lens", arguments),
        f"values = attribution.probabilities  # [point, position, k], {script.prompt_words}; with attribution.tokens",
        "figure = attribution.to_plotly()",
    ]


def _prompts(script: Script) -> list[str]:
    heads = script.request.shown.heads
    if not heads:
        last = "attribution.values[-1] + attribution.constant"
        return [
            script.attribute("accumulated", **script.for_all_prompts),
            f"values = {script.each_prompt(last)}  # [prompt], {script.unit}",
            'figure = attribution.to_plotly("prompts")',
        ]
    pairs = [parse(head) for head in heads]
    layers, each = ([place[i] for place in pairs] for i in (0, 1))
    axes = "[prompt]" if len(heads) == 1 else "[head, prompt]"
    which = f"{layers[0]}, {each[0]}" if len(heads) == 1 else f"{layers}, {each}"
    return [
        script.attribute("head", **script.for_all_prompts),
        f"values = {script.each_prompt(f'attribution.grid[{which}]')}  # {axes}, {script.unit}",
        call("figure = attribution.to_plotly", ['"prompts"', f"rows={literal(heads)}"]),
    ]


def _heads_in(script: Script) -> str:
    """The heads that are shown; all heads of the model or of a layer are written as a comprehension."""
    shown, view = script.request.shown, script.view
    pairs = [parse(head) for head in shown.heads]
    layers, every = sorted({layer for layer, _ in pairs}), list(range(view.n_heads))
    if not pairs and shown.presentation != "all":
        raise ResidscopeError("heads", NO_HEAD)
    if not pairs or pairs == [(layer, head) for layer in range(view.n_layers) for head in every]:
        return _all_heads(view)
    if len(pairs) > 1 and pairs == [(layers[0], head) for head in every]:
        return f"[({layers[0]}, head) for head in range({view.n_heads})]"
    return literal(shown.heads)


def _all_heads(view: CacheView) -> str:
    """All heads of the model, as code. Some models have layers without attention, or with fewer heads."""
    patterns = {layer: view.activations.get(f"blocks.{layer}.attn.hook_pattern") for layer in range(view.n_layers)}
    counts = {layer: int(pattern.shape[-3]) for layer, pattern in patterns.items() if pattern is not None}
    if len(set(counts.values())) > 1:
        return literal([name(layer, head) for layer, count in counts.items() for head in range(count)])
    layers = list(counts) if 0 < len(counts) < view.n_layers else f"range({view.n_layers})"
    return f"[(layer, head) for layer in {layers} for head in range({view.n_heads})]"


def _why(script: Script) -> list[str]:
    shown = script.request.shown
    if not is_inner(shown.target):
        raise ResidscopeError("why", "No question is asked yet: ask why a head reads a token, then choose Code again.")
    which = "" if script.prompt is None else str(script.prompt)
    if isinstance(shown.target.inner, AttentionScore) and not shown.target.through and shown.why == "pairs":
        given = script.named("tokens", "attention_mask", "model")
        return [
            call("attribution = residscope.pairs", [script.cache, script.target(shown.target), *given]),
            f"values = attribution.of({which})  # [query component, key component], {script.prompt_words}; "
            "names: attribution.query_labels, attribution.key_labels",
            call(
                "figure = attribution.to_plotly",
                [f"k={PAIRED}", *([] if script.prompt is None else [f"prompt={which}"])],
            ),
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
        f"values = [{of} for column in attribution]  # each [component], {script.mean_words}; "
        "names: attribution[0].labels",
        call("figure = attribution[0].to_plotly", ['"sides"', *options]),
    ]


def _segments(script: Script) -> list[str]:
    shown = script.request.shown
    if shown.segments is None:
        raise ResidscopeError(
            "segments", "No segments are chosen: choose them above the views, then choose Code again."
        )
    if script.prompt is None and len(script.facts.last) > 1:
        raise ResidscopeError("prompt", "Segments are those of one prompt: choose a prompt, then choose Code again.")
    by = shown.segments
    ranges = literal(by) if isinstance(by, str) else literal([(one.name, one.start, one.end) for one in by])
    if not shown.heads:
        raise ResidscopeError("heads", NO_HEAD)
    given = script.named("tokens", "attention_mask", "model")
    options = [] if shown.weighting == "pattern" else [f'weighting="{shown.weighting}"']
    options += [f"answers={_answers_of_map(script, own=True)}"] if shown.weighting == "contribution" else []
    segments = call("residscope.segments", [script.cache, str(script.prompt or 0), ranges, *given])
    arguments = [script.cache, segments, literal(shown.heads), *options, *given]
    return [
        call("attribution = residscope.segment_attention", arguments),
        "values = attribution.values  # [head, destination, source]",
        "figure = attribution.to_plotly()",
    ]


def _runs(script: Script) -> list[str]:
    if effects_code.is_caused(script.request.shown):
        return effects_code.scatter(script)
    return compared_code.runs(script)
