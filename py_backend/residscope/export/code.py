"""The Python code that gives exactly what a picture shows, as a person would write it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import positions
from ..cache import CacheView
from ..errors import ResidscopeError
from ..heads import parse
from ..namespace import known_as, variable_of
from ..protocol import Picture, WriteCode
from ..targets import Targets, friendly

if TYPE_CHECKING:
    from torch import Tensor

_WIDTH = 100


@dataclass(frozen=True)
class Given:
    """What the user gave with a cache: in the code it stands under the variable by which the user knows it."""

    cache: Any
    name: str = "cache"
    logits: Any = None
    tokens: Any = None
    model: Any = None


def code(targets: Targets, ask: WriteCode, given: Given) -> str:
    """Code that runs in a fresh cell: the array that is shown is in `values`, its picture in `figure`.

    Args:
        targets: Resolves the target, for the cache.
        ask: Which picture, and what is selected.
        given: The cache itself, and what was given with it.

    Raises:
        ResidscopeError: If the target cannot be resolved, there is no such prompt, or no head is in view.
    """
    script = _Script(targets, ask, given)
    lines = _PICTURES[ask.picture](script)
    return "\n".join(["import residscope", "", *script.remarks, *lines, "figure"]) + "\n"


@dataclass
class _Script:
    """What all pictures' codes have in common; `remarks` say what the reader must fill in."""

    targets: Targets
    ask: WriteCode
    given: Given
    remarks: list[str] = field(default_factory=list[str])

    @property
    def view(self) -> CacheView:
        return self.targets.view

    @property
    def cache(self) -> str:
        """The cache, as the user reaches it now."""
        found = known_as(self.given.cache)
        if found is not None and _leads_somewhere(found):
            return found
        name = self.given.name if _leads_somewhere(self.given.name) else "cache"
        shown = "" if name == self.given.name else f" as {self.given.name!r}"
        self.remark(name, f"the ActivationCache that is shown{shown}")
        return name

    @property
    def answers(self) -> str:
        """The target, in its readable form."""
        target = self.ask.shown.target
        if target.direction is None:
            return literal(friendly(self.targets.resolve(target), self.targets.vocabulary))
        direction = self.targets.held(target.direction)
        found = variable_of(lambda value: _same_direction(value, direction))
        if found is None:
            self.remark("direction", "the direction that is attributed")
        return found or "direction"

    @property
    def position(self) -> dict[str, str]:
        """The destination position, where it is not each prompt's last token."""
        at, last, prompt = self.ask.shown.position, positions.last(self.view), self.prompt
        usual = set(last) if prompt is None else {last[prompt]}
        return {} if at is None or usual == {at % self.view.n_pos} else {"position": str(at)}

    @property
    def for_all_prompts(self) -> dict[str, str]:
        """The position, where all prompts are shown at once."""
        at = self.ask.shown.position
        return {} if at is None or set(positions.last(self.view)) == {at % self.view.n_pos} else {"position": str(at)}

    @property
    def prompt(self) -> int | None:
        return self.view.check_prompt(self.ask.shown.prompt)

    @property
    def said(self) -> str:
        """Whose figures these are, for the comment behind them."""
        count = self.view.batch
        if self.prompt is not None:
            return f"prompt {self.prompt}" if count > 1 else "the prompt"
        return f"the mean over {count} prompts" if count > 1 else "the prompt"

    def extras(self, *names: str) -> dict[str, str]:
        """`logits=`, `tokens=` and `model=`, where they were given."""
        words = {"logits": "model's output", "tokens": "token ids", "model": "model"}
        found: dict[str, str] = {}
        for name in names:
            value = getattr(self.given, name)
            if value is None:
                continue
            variable = variable_of(lambda other, value=value: other is value)
            if variable is None or not _leads_somewhere(variable):
                self.remark(name, f"the {words[name]} given with this cache")
                variable = name
            found[name] = variable
        return found

    def remark(self, name: str, what: str) -> None:
        """Say what a variable stands for that the user's namespace does not have."""
        self.remarks.append(f"# `{name}` stands for {what}.")

    def named(self, *names: str) -> list[str]:
        """The same as arguments."""
        return [f"{name}={value}" for name, value in self.extras(*names).items()]

    def attribute(self, by: str, **options: str) -> str:
        """The call that gives the attribution."""
        arguments = [self.cache, self.answers, f'by="{by}"']
        arguments += [f"{name}={value}" for name, value in (options | self.extras("logits", "tokens", "model")).items()]
        return call("attribution = residscope.attribute", arguments)

    def figure(self, *arguments: str) -> str:
        """The line that draws the attribution."""
        which = [] if self.prompt is None else [f"prompt={self.prompt}"]
        return call("figure = attribution.to_plotly", [*arguments, *which])


# --- one function a picture ------------------------------------------------------------------------------------------
def _lens(script: _Script) -> list[str]:
    norm = {"norm": '"recomputed"'} if script.ask.shown.norm == "recomputed" else {}
    rows = "(attribution.values + attribution.constant)"
    which = f"{rows}.mean(1)" if script.prompt is None else f"{rows}[:, {script.prompt}]"
    return [
        script.attribute("accumulated", **script.position, **norm),
        f"values = {which}  # [point], logits, {script.said}; names: attribution.labels",
        script.figure(),
    ]


def _layers(script: _Script) -> list[str]:
    which = "attribution.mean()" if script.prompt is None else f"attribution.values[:, {script.prompt}]"
    return [
        script.attribute("layer", **script.position),
        f"values = {which}  # [component], logits, {script.said}; names: attribution.labels",
        script.figure(),
    ]


def _heads(script: _Script) -> list[str]:
    if script.ask.shown.score is not None:
        return _scores(script, script.ask.shown.score)
    which = "attribution.grid.mean(-1)" if script.prompt is None else f"attribution.grid[..., {script.prompt}]"
    return [
        script.attribute("head", **script.position),
        f"values = {which}  # [layer, head], logits, {script.said}",
        script.figure(),
    ]


def _ranking(script: _Script) -> list[str]:
    shown = script.ask.shown
    k = min(max(shown.top_k, 1), 50)
    layer = {} if shown.ranking == "heads" or shown.layer is None else {"layers": str(shown.layer)}
    which = f"attribution.top({k})" if script.prompt is None else f"attribution.top({k}, prompt={script.prompt})"
    kind = [] if shown.ranking == "neurons" else ['"ranking"']
    return [
        script.attribute("head" if shown.ranking == "heads" else "neuron", **script.position, **layer),
        f"values = [value for _, value in {which}]  # logits, {script.said}; with names: {which}",
        script.figure(*kind, f"k={k}"),
    ]


def _scores(script: _Script, score: str) -> list[str]:
    which = [] if script.prompt is None or score == "copying" else [f"prompt={script.prompt}"]
    said = "" if score == "copying" else f", {script.said}"
    labels = f'{{"x": "head", "y": "layer", "color": "{score}"}}'
    return [
        call("values = residscope.scores", [script.cache, f'"{score}"', *which, *script.named("tokens", "model")])
        + f"  # [layer, head]{said}",
        "",
        "import plotly.express as px",
        "",
        call("figure = px.imshow", ["values.cpu()", f"labels={labels}", 'color_continuous_scale="Teal"']),
    ]


def _attention(script: _Script) -> list[str]:
    shown = script.ask.shown
    options = [] if script.prompt is None else [f"prompt={script.prompt}"]
    if shown.weighting != "pattern":
        options.append(f'weighting="{shown.weighting}"')
    if shown.weighting == "contribution":
        options.append(f"answers={script.answers}")
    arguments = [script.cache, _heads_in(script), *options, *script.named("tokens", "model")]
    return [
        call("attribution = residscope.attention", arguments),
        f"values = attribution.values  # [head, destination, source], {script.said}",
        "figure = attribution.to_plotly()",
    ]


def _positions(script: _Script) -> list[str]:
    shown = script.ask.shown
    norm = {"norm": '"recomputed"'} if (shown.by, shown.norm) == ("accumulated", "recomputed") else {}
    which = "attribution.values.mean(1)" if script.prompt is None else f"attribution.values[:, {script.prompt}]"
    rows: list[str] = []
    if shown.by == "head":
        heads = literal(shown.heads)
        which += f"[[attribution.labels.index(name) for name in {heads}]]"
        rows = [f"rows={heads}"]
    return [
        script.attribute(shown.by, position="None", **norm),
        f"values = {which}  # [component, position], logits, {script.said}",
        script.figure(*rows),
    ]


def _token_lens(script: _Script) -> list[str]:
    options = [] if script.prompt is None else [f"prompt={script.prompt}"]
    answers = [script.answers] if script.ask.shown.target.direction is None else []
    arguments = [script.cache, *answers, *options, *script.named("tokens", "model")]
    return [
        call("attribution = residscope.token_lens", arguments),
        f"values = attribution.probabilities  # [point, position, k], {script.said}; with attribution.tokens",
        "figure = attribution.to_plotly()",
    ]


def _prompts(script: _Script) -> list[str]:
    heads = script.ask.shown.heads
    if not heads:
        return [
            script.attribute("accumulated", **script.for_all_prompts),
            "values = attribution.values[-1] + attribution.constant.mean()  # [prompt], logits",
            'figure = attribution.to_plotly("prompts")',
        ]
    found = [parse(head) for head in heads]
    layers, each = ([place[i] for place in found] for i in (0, 1))
    which = f"{layers[0]}, {each[0]}" if len(heads) == 1 else f"{layers}, {each}"
    return [
        script.attribute("head", **script.for_all_prompts),
        f"values = attribution.grid[{which}]  # {'[prompt]' if len(heads) == 1 else '[head, prompt]'}, logits",
        call("figure = attribution.to_plotly", ['"prompts"', f"rows={literal(heads)}"]),
    ]


def _heads_in(script: _Script) -> str:
    """The heads in view; all of the model, or all of a layer, in short."""
    shown, view = script.ask.shown, script.view
    found = [parse(head) for head in shown.heads]
    layers, every = sorted({layer for layer, _ in found}), list(range(view.n_heads))
    if not found and shown.presentation != "all":
        raise ResidscopeError("heads", "No head is in view: click one in the head map, and copy its code then.")
    if not found or found == [(layer, head) for layer in range(view.n_layers) for head in every]:
        return f"[(layer, head) for layer in range({view.n_layers}) for head in range({view.n_heads})]"
    if len(found) > 1 and found == [(layers[0], head) for head in every]:
        return f"[({layers[0]}, head) for head in range({view.n_heads})]"
    return literal(shown.heads)


_PICTURES: dict[Picture, Callable[[_Script], list[str]]] = {
    "lens": _lens, "layers": _layers, "heads": _heads, "ranking": _ranking, "attention": _attention,
    "positions": _positions, "token-lens": _token_lens, "prompts": _prompts,
}  # fmt: skip


# --- how code is written ---------------------------------------------------------------------------------------------
def call(function: str, arguments: Sequence[str]) -> str:
    """A call on one line, or, where that gets too long, with an argument a line."""
    line = f"{function}({', '.join(arguments)})"
    if len(line) <= _WIDTH and "\n" not in line:
        return line
    inner = "".join(f"    {argument.replace(chr(10), chr(10) + '    ')},\n" for argument in arguments)
    return f"{function}(\n{inner})"


def literal(value: Any) -> str:
    """A target as Python code: `" Mary"`, `(" Mary", " John")`, a list of these, a set."""
    match value:
        case tuple():
            return f"({', '.join(literal(part) for part in value)})"
        case set() | frozenset():
            return f"{{{', '.join(sorted(literal(part) for part in value))}}}"
        case list():
            parts = [literal(part) for part in value]
            line = f"[{', '.join(parts)}]"
            return line if len(line) < _WIDTH - 20 else "[\n" + "".join(f"    {part},\n" for part in parts) + "]"
        case str():
            return _quoted(value)
        case _:
            return repr(value)


def _quoted(text: str) -> str:
    """A string as most people write it, in double quotes, where that needs no escapes."""
    written = repr(text)
    return f'"{written[1:-1]}"' if written[0] == "'" and '"' not in written and "\\" not in written else written


def _leads_somewhere(name: str) -> bool:
    """Whether a name is Python for a variable, or for what is in one: `runs["clean"]`, `model.cache`."""
    try:
        tree = ast.parse(name, mode="eval").body
        while isinstance(tree, ast.Attribute | ast.Subscript):
            if isinstance(tree, ast.Subscript):
                key = ast.literal_eval(tree.slice)
                if key is ... or (isinstance(key, str) and key.endswith("…")):  # cut short in the namespace's names
                    return False
            tree = tree.value
    except (SyntaxError, ValueError):
        return False
    return isinstance(tree, ast.Name)


def _same_direction(value: Any, direction: Tensor) -> bool:
    """Whether one of the user's variables is the direction that was given: a tensor with its numbers."""
    import torch

    if type(value) not in (torch.Tensor, torch.nn.Parameter) or not value.is_floating_point():
        return False
    shapes = ((direction.shape[-1],), (1, direction.shape[-1]), tuple(direction.shape))
    if tuple(value.shape) not in shapes:
        return False
    return torch.equal(value.detach().to(direction).expand_as(direction), direction)
