"""Writes the code of the pictures of two compared runs."""

from __future__ import annotations

from residscope.base.expressions import parse_path
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.export.python_source import call, is_addressable, literal
from residscope.export.script import NO_HEAD, Script, free_name
from residscope.patterns.downsampling import Part
from residscope.session.discovery import leads_to, named
from residscope.terms import Against, Run

_VALUES: dict[Run, str] = {"first": "attribution.first", "second": "attribution.second", "difference": "attribution"}


def lens(script: Script, against: Against) -> list[str]:
    """Return code for two curves, in the order of the runs."""
    norm = {"norm": '"recomputed"'} if script.request.shown.norm == "recomputed" else {}
    return [
        _comparison(script, against, "accumulated", norm),
        f"values = [{_prompt(script, '(run.values + run.constant)', 1)} "
        "for run in (attribution.first, attribution.second)]",
        f"# each [point], {script.unit}, {_words(script)}; names: attribution.labels",
        *_both(),
    ]


def layers(script: Script, against: Against) -> list[str]:
    """Return code for the rows of both runs."""
    return [
        _comparison(script, against, "layer", {}),
        f"values = [{_prompt(script, 'run.values', 1)} for run in (attribution.first, attribution.second)]",
        f"# each [component], {script.unit}, {_words(script)}; names: attribution.labels",
        *_both(),
    ]


def heads(script: Script, against: Against) -> list[str]:
    """Return code for the map of one run, or of the difference."""
    run = script.request.shown.run
    of = _VALUES[run]
    return [
        _comparison(script, against, "head", {}),
        f"values = {_prompt(script, f'{of}.grid', -1)}  # [layer, head], {script.unit}, {_words(script)}",
        f"figure = {of}.to_plotly()",
    ]


def ranking(script: Script, against: Against) -> list[str]:
    """Return code for the heads that differ most. For a single run: the heads with the largest contributions."""
    shown = script.request.shown
    of, k = _VALUES[shown.run], shown.top_k
    if shown.run != "difference":
        which = f"{of}.top({k})"
        return [
            _comparison(script, against, "head", {}),
            f"values = [value for _, value in {which}]  # {script.unit}, {_words(script)}; names and values: {which}",
            call(f"figure = {of}.to_plotly", ['"ranking"', f"k={k}"]),
        ]
    # `k=` would draw k heads of each sign. The panel shows those that differ most, of any sign.
    return [
        _comparison(script, against, "head", {}),
        "values = zip(attribution.labels[: attribution.parts], attribution.mean().tolist(), strict=False)",
        f"values = sorted((head for head in values if abs(head[1]) > 0), key=lambda head: -abs(head[1]))[:{2 * k}]",
        'figure = attribution.to_plotly("ranking", rows=[name for name, _ in values])',
        f"values = [value for _, value in values]  # {script.unit}, {_words(script)}; the names are in the figure",
    ]


def runs(script: Script) -> list[str]:
    """Return code for the heads of both runs, as points."""
    against = _against(script)
    prompt = [] if script.prompt is None else ["prompt=0"]
    return [
        _comparison(script, against, "head", {}),
        f"values = [{_prompt(script, 'run.grid', -1)} for run in (attribution.first, attribution.second)]",
        f"# each [layer, head], {script.unit}, {_words(script)}",
        call("figure = attribution.to_plotly", ['"scatter"', *prompt]),
    ]


def attention(script: Script) -> list[str]:
    """Return code for the attention of some heads in both runs, and for the difference."""
    shown, against = script.request.shown, _against(script)
    if not shown.heads:
        raise ResidscopeError("heads", NO_HEAD)
    other = other_cache(script, against)
    options = _prompts(script, against) | script.extras("tokens", "attention_mask", "model")
    options |= _other_mask(script, against)
    given = [f"{name}={value}" for name, value in options.items()]
    heads = literal(shown.heads) if other is not None else f"heads={literal(shown.heads)}"
    caches = [script.cache] if other is None else [script.cache, other]
    step = Part.of(script.view.n_pos).step
    remark = ["# every cell; the panel shows one value for each block of cells"] if step > 1 else []
    return [
        *remark,
        call("attribution = residscope.compare_attention", [*caches, heads, *given]),
        "values = [maps.values for maps in (attribution.first, attribution.second, attribution)]",
        f"# each [head, destination, source], {_words(script)}",
        "figure = attribution.to_plotly()",
    ]


def _against(script: Script) -> Against:
    against = script.request.shown.against
    if against is None:
        raise ResidscopeError("against", "Nothing is compared yet: choose a run, then choose Code again.")
    return against


def token_lens(script: Script, against: Against) -> list[str]:
    """Return code for the token lens of the second run, or for the difference of the answer's probability."""
    other = other_cache(script, against)
    options = _prompts(script, against) | script.extras("tokens", "attention_mask", "model")
    options |= _other_mask(script, against)
    caches = [script.cache] if other is None else [script.cache, other]
    answers = [script.answers if other is not None else f"answers={script.answers}"]
    named_options = [f"{name}={value}" for name, value in options.items()]
    if script.request.shown.target.direction is not None:  # a direction has no answer token
        answers = []
    call_ = call("attribution = residscope.compare_token_lens", [*caches, *answers, *named_options])
    if script.request.shown.run == "second" or not answers:
        return [
            call_,
            f"values = attribution.second.probabilities  # [point, position, k], {_words(script)}; with "
            "attribution.second.tokens",
            "figure = attribution.second.to_plotly()",
        ]
    return [
        call_,
        f"values = attribution.answer_probability  # [point, position], {_words(script)}; with attribution.positions",
        "figure = attribution.to_plotly()",
    ]


def _comparison(script: Script, against: Against, by: str, norm: dict[str, str]) -> str:
    other = other_cache(script, against)
    options = (
        _prompts(script, against)
        | script.position
        | norm
        | script.extras("logits", "tokens", "attention_mask", "model")
    )
    mask = _other_mask(script, against)
    named_options = [f"{name}={value}" for name, value in (options | mask).items()]
    caches = [script.cache] if other is None else [script.cache, other]
    answers = f"answers={script.answers}" if other is None else script.answers
    return call("attribution = residscope.compare", [*caches, answers, f'by="{by}"', *named_options])


def _prompts(script: Script, against: Against) -> dict[str, str]:
    """The arguments that say which prompts, and which of their positions, are compared."""
    options = {} if script.prompt is None else {"prompt": str(script.prompt)}
    if against.prompt is not None:
        options = {"prompt": "0", **options, "with_prompt": str(against.prompt)}
    return options if against.align is None else options | {"align": literal(against.align)}


def other_cache(script: Script, against: Against) -> str | None:
    """Return an expression for the other cache. None if both runs are from one cache."""
    if against.without:
        options = [] if against.replaced_by == "zero" else [f"replace={literal(against.replaced_by)}"]
        options += script.named("tokens", "attention_mask", "model")
        return call("residscope.without", [script.cache, literal(against.without), *options])
    name = against.cache
    if name is None:
        return None
    if is_addressable(name) and parse_path(name) is not None and leads_to(name, named(name)):
        return name
    free = free_name("other")
    script.remark(free, f"the ActivationCache that `{script.cache}` is compared with")
    return free


def _other_mask(script: Script, against: Against) -> dict[str, str]:
    """If padding counts as real tokens, the mask of the other cache, as lists of ones."""
    cache = None if against.cache is None else named(against.cache)
    if cache is None or script.request.shown.padding != "none":
        return {}
    view = CacheView(cache)
    return {"other_attention_mask": f"[[1] * {view.n_pos}] * {view.batch}"}


def _prompt(script: Script, values: str, axis: int) -> str:
    """The values of the compared prompt, or their mean over prompts, which are axis 1 or the last axis (-1)."""
    if script.prompt is None:
        return script.mean(values, axis)
    return f"{values}[{'...' if axis == -1 else ':'}, 0]"


def _words(script: Script) -> str:
    """The run and the prompts of the values, for the comment after them."""
    words = {"first": "the first run", "second": "the second run", "difference": "second − first"}
    of_both = script.request.picture in ("lens", "layers", "runs", "attention-of-runs")
    is_of_one = script.request.picture not in ("attention-of-runs", "token-lens")  # position
    which = script.mean_words if is_of_one else script.prompt_words
    mean = f", {which}" if script.prompt is None and script.view.batch > 1 else ""
    both = "first and second run"
    if script.request.picture == "attention-of-runs":
        both += f", {words['difference']}"
    return (both if of_both else words[script.request.shown.run]) + mean


def _both() -> list[str]:
    return [
        "figure = attribution.first.to_plotly()",
        'figure.add_traces(attribution.second.to_plotly().update_traces(opacity=0.5, name="second run").data)',
    ]
