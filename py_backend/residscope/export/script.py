"""What the code of every picture needs: cache, target and position, under the user's variable names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from residscope.attribution.inner_checks import is_inner
from residscope.attribution.inner_targets import feature as feature_input
from residscope.attribution.own_targets import at_position, last_places, places_of
from residscope.attribution.target_words import unit_of
from residscope.attribution.targets import Targets, as_answers
from residscope.base.expressions import parse_path
from residscope.base.legible import cut, legible
from residscope.base.legible import shown as one_line
from residscope.cache import positions
from residscope.cache.component_names import name as head_name
from residscope.cache.dictionary_sites import parts_of
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.export.python_source import call, is_addressable, literal
from residscope.session.discovery import is_taken, leads_to, named, names_of, variables_of
from residscope.terms import (
    MOST_OF_NAME,
    AttentionScore,
    Component,
    FeatureInput,
    NeuronInput,
    Position,
    StreamDirection,
    Target,
)
from residscope.wire.caches import CacheFacts
from residscope.wire.shown import WriteCode

if TYPE_CHECKING:
    from torch import Tensor

NO_HEAD = "No head is shown: click a head in the head map, then choose Code again."


@dataclass(frozen=True)
class Given:
    """A cache and the arguments given with it. The code uses the user's variables that hold them."""

    cache: object
    name: str = "cache"
    logits: object = None
    tokens: object = None
    model: object = None
    attention_mask: object = None
    lens: object = None
    saes: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass
class Script:
    """A request as Python code. `remarks` are comments that name the variables that the reader must define."""

    targets: Targets
    request: WriteCode
    given: Given
    remarks: list[str] = field(default_factory=list[str])

    @property
    def view(self) -> CacheView:
        """The cache."""
        return self.targets.view

    @property
    def cache(self) -> str:
        """An expression for the cache: a variable of the user that holds it now, or a name for the user to define."""
        cache, given = self.given.cache, self.given.name
        found = next((path for path in names_of(cache) if is_addressable(path) and leads_to(path, cache)), None)
        if found is not None:
            return found
        path = parse_path(given) if is_addressable(given) and legible(given) == given else None
        free = path is not None and (leads_to(given, cache) or not is_taken(path.variable))
        name = given if free else free_name("cache")
        self.remark(name, "the ActivationCache that is shown" + ("" if name == given else f" as {cut(given)!r}"))
        if path is not None and named(given) is not None:  # the cell that makes it was run again
            self.remarks[-1] += f" The variable {cut(given)!r} now holds another one."
        return name

    @property
    def answers(self) -> str:
        """The target as Python code, in its readable form."""
        return self.target(self.request.shown.target)

    @property
    def answers_there(self) -> str:
        """The target as Python code. A next-token target becomes the tokens that follow the shown position."""
        shown = self.request.shown
        where = places_of(self.view, shown.target, shown.position)
        if where is None:
            return self.answers
        given: Any = self.given.logits
        logits = None if given is None else self.view.whole_logits(given)
        return self.target(at_position(self.targets, shown.target, where, logits, self.prompt))

    def target(self, target: Target) -> str:
        """Return a target as Python code: `(" Mary", " John")`, `residscope.targets.neuron("L5N123", part="pre")`."""
        self.targets.resolve(target)  # raises if it is not a target of this model
        written = self._before_heads(target)
        for through in target.through:
            source = [] if through.source is None else [f"source={through.source}"]
            head = literal(head_name(through.layer, through.head))
            written = call("residscope.targets.output", [head, f"of={written}", *source])
        return written

    def _before_heads(self, target: Target) -> str:
        """The code of the target at the end of a path, without the path's heads."""
        match target.inner:
            case None if target.next_token is not None:
                versus = target.next_token.versus
                return call("residscope.targets.next_token", [] if versus is None else [f"versus={literal(versus)}"])
            case None if target.direction is None:
                return literal(as_answers(Target(target.contrasts), self.targets.vocabulary))
            case None:
                return self._direction(str(target.direction))
            case AttentionScore(layer, head, destination, source, versus, side):
                places = {"destination": destination, "source": source, "versus": versus, "side": side}
                arguments = [literal(head_name(layer, head))]
                arguments += [f"{name}={literal(value)}" for name, value in places.items() if value != "most"]
                return call("residscope.targets.attention", arguments)
            case NeuronInput(layer, index, part):
                neuron = Component("neuron", layer, index).label
                return call("residscope.targets.neuron", [literal(neuron), f"part={literal(part)}"])
            case StreamDirection(key, feature=FeatureInput() as facts):
                sae = self._sae_that_reads(facts, self.targets.given_direction(key))
                return call("residscope.targets.feature", [sae, str(facts.index)])
            case StreamDirection(key, at):
                return call("residscope.targets.direction", [self._direction(key), f"at={literal(at)}"])

    def _sae_that_reads(self, facts: FeatureInput, direction: Tensor) -> str:
        """The SAE whose feature reads this direction, as code, or a name for the user to define."""
        for given in self.given.saes.values():
            with suppress(ResidscopeError):
                if type(parts_of(given)[0]).__name__[:MOST_OF_NAME] != facts.sae:
                    continue
                inner = self.targets.resolve(feature_input(given, facts.index)).inner
                if isinstance(inner, StreamDirection) and inner.feature and inner.feature.read == facts.read:
                    own = self.targets.given_direction(inner.key)
                    if (own - direction).norm() <= 1e-3 * direction.norm():
                        return self.sae(given)
        name = free_name("sae")
        # The names come from a view. On one line, all of their text stays inside the comment.
        self.remark(name, f"the `{one_line(facts.sae)}` of `{one_line(facts.read)}`")
        return name

    def sae(self, given: Any) -> str:
        """Return an SAE as Python code for `sae=`: the user's variable that holds it, and the names that were given."""
        whole = _variable(lambda value: value is given)
        if whole is not None:
            return whole
        sae, read, written = parts_of(given)
        name = _variable(lambda value: value is sae)
        if name is None:
            name = free_name("sae")
            self.remark(name, f"the `{type(sae).__name__}` that is shown")
        names = [] if read is None else [literal(read)] if read == written else [literal(read), literal(written)]
        return f"({', '.join([name, *names])})" if names else name

    def _direction(self, key: str) -> str:
        """The user's variable that holds a direction, or a name for the user to define."""
        direction = self.targets.given_direction(key)
        found = _variable(lambda value: _same_direction(value, direction))
        if found is not None:
            return found
        name = free_name("direction")
        self.remark(name, "the direction that is attributed")
        return name

    @property
    def position(self) -> dict[str, str]:
        """The argument `position=`. Empty for each prompt's last token, which is the default.

        It is also empty for an attention score, which has its own positions.
        """
        return self.position_of(self.request.shown.target, self.request.shown.position)

    def position_of(self, target: Target, at: Position) -> dict[str, str]:
        """Return the argument `position=` for a target that is read at `at`."""
        if isinstance(target.inner, AttentionScore):
            return {}
        if target.next_token is not None:
            return {"position": self._own_places(target, at)}
        last, prompt = positions.last(self.view), self.prompt
        usual = set(last) if prompt is None else {last[prompt]}
        return {} if at == "last" or usual == {at % self.view.n_pos} else {"position": str(at)}

    def _own_places(self, target: Target, at: Position) -> str:
        """The position in each prompt at which a next-token target is read.

        A prompt that is not shown may be too short. It is then read at the last of its positions that have a target.
        """
        where = places_of(self.view, target, at)
        assert where is not None  # a view shows one position
        places: list[int] = where.tolist()
        if self.prompt is not None:
            places = [min(place, end) for place, end in zip(places, last_places(self.view, target), strict=True)]
        return str(places[0] if len(set(places)) == 1 else places)

    @property
    def for_all_prompts(self) -> dict[str, str]:
        """Return the argument `position=` for a picture of all prompts."""
        if isinstance(self.request.shown.target.inner, AttentionScore):
            return {}
        at = self.request.shown.position
        if self.request.shown.target.next_token is not None:
            return {"position": self._own_places(self.request.shown.target, at)}
        return {} if at == "last" or set(positions.last(self.view)) == {at % self.view.n_pos} else {"position": str(at)}

    @property
    def unit(self) -> str:
        """The unit of the target, for the comment after the values."""
        return unit_of(self.request.shown.target)

    @property
    def facts(self) -> CacheFacts:
        """The facts about the cache on which the views' requests depend."""
        view = self.view
        last = positions.last(view)
        return CacheFacts(
            self.given.name,
            view.model_name,
            view.n_layers,
            view.n_heads,
            view.batch,
            view.n_pos,
            "",
            "",
            0,
            [],
            last,
            True,
        )

    @property
    def prompt(self) -> int | None:
        """The prompt that is shown. None: the mean over prompts."""
        return self.view.check_prompt(self.request.shown.prompt)

    @property
    def prompt_words(self) -> str:
        """The prompts of the values, for the comment after them."""
        count = self.view.batch
        if self.prompt is not None:
            return f"prompt {self.prompt}" if count > 1 else "the prompt"
        return f"the mean over {count} prompts" if count > 1 else "the prompt"

    @property
    def mean_words(self) -> str:
        """`prompt_words` for a picture of one position: how many prompts are in the mean."""
        left = 0 if self.prompt is not None else self.left_out
        return self.prompt_words if not left else f"the mean over {self.view.batch - left} of {self.view.batch} prompts"

    @property
    def left_out(self) -> int:
        """The number of prompts that a mean leaves out, because the shown position is padding there."""
        shown = self.request.shown
        is_score = isinstance(shown.target.inner, AttentionScore)  # it has its own positions, which are no padding
        where = None if is_score else places_of(self.view, shown.target, shown.position)
        padded = None if where is None or self.view.batch == 1 else positions.are_padding(self.view, where)
        return 0 if padded is None else int(padded.sum())

    def mean(self, values: str, axis: int) -> str:
        """Return the code of a mean over prompts, which are axis 1 of the values, or the last axis (-1)."""
        real = f"[{'...' if axis == -1 else ':'}, ~attribution.padding]" if self.left_out else ""
        return f"{values}{real}.mean({axis})"

    def each_prompt(self, values: str) -> str:
        """Return the code of the values of every prompt, with NaN where the position is padding, as in the panel."""
        if not self.left_out:
            return values
        values = f"({values})" if " " in values else values
        # The mask is on the CPU, and `masked_fill` takes a mask on the device of the values only.
        return f'{values}.masked_fill(attribution.padding.to(attribution.values.device), float("nan"))'

    def extras(self, *names: str) -> dict[str, str]:
        """Return the arguments `logits=`, `tokens=`, `attention_mask=`, `model=` and `lens=`, if they were given.

        If padding counts as real tokens, the mask is written as lists of ones, so that the code runs anywhere.
        """
        words = {"logits": "model's output", "tokens": "token ids", "model": "model"}
        words |= {"attention_mask": "attention mask", "lens": "lens"}
        found: dict[str, str] = {}
        for name in names:
            if name == "attention_mask" and self.request.shown.padding == "none":
                found[name] = f"[[1] * {self.view.n_pos}] * {self.view.batch}"
                continue
            value = getattr(self.given, name)
            if value is None:
                continue
            variable = _variable(lambda other, value=value: other is value)
            if variable is None:
                variable = free_name(name)
                self.remark(variable, f"the {words[name]} given with this cache")
            found[name] = variable
        return found

    @property
    def transport(self) -> dict[str, str]:
        """Return the argument `lens=`, if the view maps the stream to its end (see `Views.transport`)."""
        shown = self.request.shown
        plain = shown.transport == "plain" or shown.against is not None or is_inner(shown.target)
        return {} if plain else self.extras("lens")

    def remark(self, name: str, what: str) -> None:
        """Add a comment that says what a variable stands for. The user has no such variable, and must define it."""
        self.remarks.append(f"# `{name}` stands for {what}.")

    def named(self, *names: str) -> list[str]:
        """Return `extras` as a list of keyword arguments."""
        return [f"{name}={value}" for name, value in self.extras(*names).items()]

    def attribute(self, by: str, **options: str) -> str:
        """Return the line that computes the attribution."""
        return call("attribution = residscope.attribute", self._arguments(self.request.shown.target, by, options))

    def attributed(self, target: Target, by: str, **options: str) -> str:
        """Return the call that computes the attribution of a target."""
        return call("residscope.attribute", self._arguments(target, by, options))

    def _arguments(self, target: Target, by: str, options: dict[str, str]) -> list[str]:
        given = self.extras("logits", "tokens", "attention_mask", "model")
        named = [f"{name}={value}" for name, value in (options | given).items()]
        return [self.cache, self.target(target), f'by="{by}"', *named]

    def figure(self, *arguments: str) -> str:
        """Return the line that draws the attribution."""
        which = [] if self.prompt is None else [f"prompt={self.prompt}"]
        return call("figure = attribution.to_plotly", [*arguments, *which])


def free_name(name: str) -> str:
    """Return a name for a variable that the user must define. The user's namespace does not have this name yet."""
    names = chain((name, f"shown_{name}"), (f"shown_{name}_{number}" for number in count(2)))
    return next(free for free in names if not is_taken(free))


def _variable(is_wanted: Callable[[object], bool]) -> str | None:
    """The first of the user's variables that holds the wanted value, and whose name can be used in code."""
    return next(filter(is_addressable, variables_of(is_wanted)), None)


def _same_direction(value: Any, direction: Tensor) -> bool:
    """Whether a value from the user's namespace is the given direction: a tensor with the same numbers."""
    import torch

    cls = type(value)  # compared by identity, because `==` and `in` may call code of the user's metaclass
    if (cls is not torch.Tensor and cls is not torch.nn.Parameter) or not value.is_floating_point():
        return False
    shapes = ((direction.shape[-1],), (1, direction.shape[-1]), tuple(direction.shape))
    if tuple(value.shape) not in shapes:
        return False
    return torch.equal(value.detach().to(direction).expand_as(direction), direction)
