"""The inline panel. Python and the views share a few small traits. Everything else is sent as requests and replies.

`cache_name`, `wire_target`, and everything that can be selected (`traits.py`) are synced in both directions. `facts`,
the description of the cache, and `opening`, the replies to the first view's requests, are only sent to the browser.
`target`, the readable form of `wire_target`, exists only in Python. Tensors are never traits.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import anywidget
import msgspec
import traitlets

from residscope.attribution.own_targets import last_places
from residscope.attribution.segments import segments_of
from residscope.attribution.targets import Targets, as_answers
from residscope.base.legible import shown
from residscope.cache import positions
from residscope.cache.component_names import name as head_name
from residscope.cache.component_names import parse as parse_head
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.hosts import turns
from residscope.hosts.destination import at_destination
from residscope.hosts.segmented import as_given, as_segmented
from residscope.hosts.traits import Facts, ReadableTarget, Selected
from residscope.hosts.visibility import PanelViews
from residscope.serving.dispatcher import listed
from residscope.serving.progress_bar import LateBar
from residscope.serving.request_context import check_one_source
from residscope.serving.service import Service
from residscope.session import saes
from residscope.session.caches import name_of
from residscope.session.discovery import named, variable_name
from residscope.terms import (
    Against,
    Answers,
    AttentionScore,
    CacheLike,
    Heads,
    MaskLike,
    ModelLike,
    Position,
    Segmented,
    Target,
    is_chosen,
)
from residscope.wire.envelope import Buffers, answered, deliver
from residscope.wire.protocol import (
    MOST_OF_TRAIL,
    AnyReply,
    Describe,
    Feeds,
    Holds,
    ListCaches,
    Presence,
    PresenceReply,
    Question,
    Shown,
    Step,
    Working,
    WritePage,
)
from residscope.wire.refusals import refusal

if TYPE_CHECKING:
    from torch import Tensor

STATIC = Path(__file__).parents[1] / "static"

MIME = "application/vnd.residscope.panel+json"
"""The MIME type of a panel's last picture in a notebook. The JupyterLab extension writes it. Other hosts ignore it."""


def _built(name: str) -> Path:
    path = STATIC / name
    if not path.is_file():
        raise ResidscopeError("not-built", f"Residscope's front end ({name}) is not built: run `npm run build`.")
    return path


class Panel(Selected, anywidget.AnyWidget):
    """Linked views of one cache, in the cell's output. Made by `residscope.inspect`.

    Attributes:
        heads: The pinned heads, such as `["L23H3"]`. `"23.3"` and `(23, 3)` are accepted, too.
        prompt: The prompt that is shown, or None for the mean over prompts.
        position: The destination position. `"last"` (each prompt's last real token) becomes a number if all prompts end
            at the same position. If an attention score is shown, setting `position` shows the score at this
            destination.
        target: The target: `" Mary"`, `(" Mary", " John")`, a list of these, one per prompt, or a target inside the
            model, such as `targets.neuron("L5N123")`. All `answers` of `residscope.attribute` are accepted.
        norm: The logit lens' convention, `"frozen"` or `"recomputed"`.
        top_k: The number of heads or neurons of each sign in the ranking.
        ranking: What the ranking lists, `"heads"` or `"neurons"`.
        layer: The layer of the neurons in the ranking. None: all layers.
        weighting: The weighting of attention: `"pattern"`, `"value"` (times ‖v W_O‖) or `"contribution"`.
        presentation: How attention is shown: `"matrix"`, `"text"`, or `"all"` (thumbnails of all heads).
        score: The values of the head map: None for each head's contribution, or `"previous"`, `"first"`, `"duplicate"`,
            `"induction"`, `"entropy"`, `"copying"`.
        tab: The tab that is open below the charts, by its title in small letters, such as `"token-lens"`.
        padding: Whether detected padding is left out (`"found"`) or counts as real (`"none"`).
        trail: The targets that were chosen one after another, each as in `target`. Empty if there is only one. Setting
            the trail shows its last target. Setting `target` to an attention score, an output, a neuron or a direction
            appends it after the present target. Setting `target` to logits empties the trail.
        step: The index of the present target in the trail. Setting it shows another target of the trail.
        why: How the tab `"why"` decomposes an attention score: into its `"sides"` or its `"pairs"`.
        feeds: The head whose inputs are decomposed in the head map, as plain data. None: the head map shows the target.
        against: The run that the cache is compared with, as plain data. None: no comparison. It can be set to the
            number of another prompt, the name of another cache (`"corrupted"`), the other cache itself, or a pair of
            cache and prompt (`("corrupted", 2)`). It can also be set to the same run without some heads
            (`{"without": ["L23H3"]}`): the view then runs the model.
        run: Which of two compared runs the head map and the ranking show: the shown cache's run (`"first"`), the other
            one (`"second"`), or second − first (`"difference"`).
        effect: The effect of each head in the head map and the ranking: `"direct"`, or `"total"`, `"indirect"` or
            `"estimate"`. The view measures the last three in runs of the model.
        replaced_by: What takes the place of a head's output in these runs: `"zero"`, `"mean"`, or `"other"` (the output
            in the compared run).
        segments: How the shown prompt is divided into segments: None, `"sentence"`, `"line"`, `"turn"`, `"tag"`, or
            ranges such as `[("question", 0, 12)]`, where the end is the position after the last token. The result of
            `residscope.segments` is accepted, too.
        transport: Whether the lens given to `inspect` maps the stream to its end (`"transported"`) or the stream is
            read as it is (`"plain"`), in the logit lens, the token lens and the position map. Two runs are always
            compared by the plain lens.
        sae: The name of the SAE whose features the tab "features" shows. The SAE itself is accepted, too. None: the
            first one that is known.
        feature: The feature of this SAE whose activations colour the tokens while the tab is open. None: no feature.
    """

    _esm = _built("panel.js")
    _css = _built("panel.css")

    cache_name = traitlets.Unicode().tag(sync=True)
    wire_target = traitlets.Dict().tag(sync=True)
    facts = Facts(read_only=True).tag(sync=True)
    opening = traitlets.Dict(read_only=True).tag(sync=True)
    target = ReadableTarget()

    def __init__(self, service: Service, answers: object = None, **state: object) -> None:
        self._service = service
        self._resolved = Target([])
        self._steps: list[Step] = []  # the trail; `_readable` are its targets in the form that a user would write
        self._readable: list[Any] = []
        self._follows = False  # whether a trait is set because another trait was set
        self._received = False  # whether a trait is set by a view
        self._is_made = False
        self._moves_end = False  # whether the last position was selected, and the new target has another last position
        self._former: Step | None = None  # the target and the position before the present target was set
        self._views = PanelViews(service.hold, partial(self.set_trait, "opening"))
        self._shown_in: object = None
        self._described: object = None
        # Without this, the view could not know whether `position` is the last one. It would request the description of
        # the cache, and then all data twice.
        self.update_facts()
        super().__init__(cache_name=service.name, target=answers, **state)
        self._is_made = True
        self.on_msg(self._on_message)

    # --- another cache -----------------------------------------------------------------------------------------------
    @property
    def cache(self) -> Any:
        """The cache that is shown. Setting it shows another one: see `show_cache`.

        Raises:
            ResidscopeError: If the cache was deleted.
        """
        return self._service.hold.get().cache

    @cache.setter
    def cache(self, cache: object) -> None:
        self.show_cache(cache)

    def show_cache(
        self,
        cache: CacheLike,
        *,
        logits: Tensor | None = None,
        tokens: Tensor | None = None,
        attention_mask: MaskLike = None,
    ) -> None:
        """Show another cache, for example after the model has generated one more token.

        The selection stays: target, heads, prompt, tab, and the range of colours if `hold` is on. If the last position
        was selected, the last position of the new cache is selected. Another position stays if the new cache has it. If
        no target was chosen, the target becomes the two top predictions in the new cache. If the new cache cannot be
        shown, nothing changes.

        Args:
            cache: The new `ActivationCache`.
            logits: The model's output, if the new cache does not hold it.
            tokens: Token ids, if the new cache does not hold them.
            attention_mask: 1 for each real token, 0 for padding, if known.

        Raises:
            ResidscopeError: If the cache cannot be read, or what is selected does not exist in it.
        """
        service = self._service.succeeding(cache, logits, tokens, attention_mask)
        try:
            self._check_selection(service)
        except ResidscopeError as error:
            service.release()
            raise ResidscopeError(
                error.code, f"The panel cannot show this cache with what is selected, so nothing changed. {error}"
            ) from error
        before = self._trait_values["facts"]
        at = self._selected_position
        is_last = at == "last" or self._ends(before) == {at} or at >= service.view().n_pos - self._after_end
        former, self._service = self._service, service
        self._views.replace(service.hold)
        former.release()
        with self.hold_sync(), self._following():
            if is_last:
                self.position = "last"
            if self._resolved.own or not is_chosen(self._resolved):
                self.target = None
            service.choose(self._resolved)
        # A view sends its requests again when the description changes. If the new description equals the former one, an
        # empty one is sent first.
        self._described = service.settled()
        if msgspec.to_builtins(service.reply(Describe())[0]) == before:
            self.set_trait("facts", {})
        self._described = None
        self.update_facts()

    def _check_selection(self, service: Service) -> None:
        """Refuse a cache that does not have everything that is selected."""
        view = service.view(self.padding)
        for head in self.heads:
            view.check_head(*parse_head(head))
        view.check_prompt(self.prompt)
        if self.layer is not None:
            view.check_layer(self.layer)
        if self.segments is not None and not isinstance(self.segments, str):  # ranges must lie in the new prompt
            self._check_segments(msgspec.convert(self.segments, Segmented), view)
        targets = service.targets()
        for target in [self._resolved, *(step.target for step in self._steps)]:
            if is_chosen(target) and not target.own:
                targets.resolve(target)

    # --- traits: new values are checked and normalised ---------------------------------------------------------------
    def head_name(self, head: object) -> str:
        """Return the name of a head, `"L23H3"`, from any accepted form.

        Raises:
            ResidscopeError: If it is not a head, or not a head of this model.
        """
        layer, index = parse_head(head)
        self._service.view().check_head(layer, index)
        return head_name(layer, index)

    @traitlets.validate("layer")
    def _check_layer(self, proposal: traitlets.Bunch) -> int | None:
        return None if proposal.value is None else self._service.view().check_layer(proposal.value)

    def run_against(self, given: object) -> Against | None:
        """Return the run to compare with, from any accepted form.

        Raises:
            ResidscopeError: If there is no such prompt or no such cache.
        """
        if given is None or isinstance(given, dict | Against):
            return self._against(given)
        pair: Any = given if isinstance(given, tuple) else (given, None)
        cache, prompt = pair if len(pair) == 2 else (None, None)
        if isinstance(cache, str):
            if named(cache) is None:
                raise ResidscopeError("against", f"There is no activation cache `{shown(cache)}` in the notebook.")
            return self._against({"cache": cache, "prompt": prompt})
        if prompt is None and hasattr(cache, "__index__"):
            return Against(None, self._service.view().check_prompt(cache))
        name = None if cache is None else variable_name(cache)
        if name is None or named(name) is None:
            raise ResidscopeError(
                "against",
                "`against` takes the number of a prompt, or an activation cache that has a name in the notebook.",
            )
        return self._against({"cache": name, "prompt": prompt})

    def sae_name(self, given: Any) -> str:
        """Return the name of an SAE, given by its name or as the SAE itself.

        Raises:
            ResidscopeError: If the panel does not know this SAE.
        """
        return self._service.saes.name_of(self._service.view(), given)

    def _against(self, given: object) -> Against | None:
        try:
            return msgspec.convert(msgspec.to_builtins(given), Against | None)
        except (msgspec.ValidationError, TypeError) as error:
            raise ResidscopeError("against", f"`against` has an unknown form: {error}.") from error

    def segmented(self, given: Any) -> Segmented | None:
        """Return how the prompt is divided into segments, from any accepted form.

        Raises:
            ResidscopeError: If it has an unknown form, or the shown prompt has no such segments.
        """
        by = as_segmented(given)
        if by is not None and self._is_made and not self._received:
            self._check_segments(by, self._service.view(self.padding))
        return by

    def _check_segments(self, by: Segmented, view: CacheView) -> None:
        """Refuse segments that the shown prompt does not have. In the mean over prompts, no segments are shown."""
        if self.prompt is not None or view.batch == 1:
            segments_of(view, self.prompt or 0, as_given(by))

    @traitlets.validate("transport")
    def _check_transport(self, proposal: Any) -> str:
        if proposal.value == "transported" and self._service.lens is None and not self._received:
            raise ResidscopeError("lens", "No lens was given: show the cache with `residscope.inspect(cache, lens=…)`.")
        return proposal.value

    @traitlets.validate("prompt")
    def _check_prompt(self, proposal: traitlets.Bunch) -> int | None:
        return self._service.view().check_prompt(proposal.value)

    def whole_position(self, position: Any) -> int | Literal["last"]:
        """Return a position counted from the start, or "last" if prompts end at different positions."""
        view = self._service.view(self.padding)
        if position == "last":
            last = set(last_places(view, self._resolved))
            return last.pop() if len(last) == 1 else "last"
        at = positions.resolve(view, position)
        if at is None or len(set(at.tolist())) > 1:
            raise ResidscopeError("position", "The panel shows one position at a time: give one number.")
        return int(at[0])

    @traitlets.validate("position")
    def _check_position(self, proposal: traitlets.Bunch) -> int | Literal["last"]:
        """Refuse a position that cannot be the destination of the shown attention score."""
        self._asked_at(proposal.value)
        return proposal.value

    @traitlets.observe("position")
    def _ask_there(self, change: traitlets.Bunch) -> None:
        """If an attention score is shown, move it to the new destination."""
        asked = self._asked_at(change.new)
        if asked != self._resolved:
            self.target = asked

    def _asked_at(self, position: Position) -> Target:
        """The target at this destination. The unchanged target if the position was not set in Python."""
        if self._follows or self._received or not self._is_made:
            return self._resolved
        return at_destination(self._resolved, position, positions.last(self._service.view(self.padding)))

    @traitlets.observe("padding")
    def _count_padding(self, change: traitlets.Bunch) -> None:
        """If the last position was selected, select the new last position."""
        ends = set(last_places(self._service.view(change.old), self._resolved))
        if self.position == "last" or ends == {self.position}:
            with self._following():
                self.position = "last"

    def update_facts(self) -> None:
        """Describe the cache again, if anything has changed that the description depends on.

        For example, setting a padding token changes the last positions. If the former last position was selected, the
        new one is selected.
        """
        with suppress(ResidscopeError):  # if the cache was deleted, the last description stays
            now = self._service.settled()
            if now is not None and now == self._described:
                return
            # Set first, because sending `facts` to the browser reads them, and so calls this method again.
            self._described = now
            before = self._trait_values.get("facts", {})
            facts: dict[str, Any] = msgspec.to_builtins(self._service.reply(Describe())[0])
            if not before:
                self.set_trait("facts", facts)
            elif facts != before:
                with self.hold_sync():
                    self.set_trait("facts", facts)
                    was_last = self.position == "last" or {self.position} == self._ends(before)
                    if facts["last"] != before["last"] and was_last and self.padding == "found":
                        with self._following():
                            self.position = "last"

    @property
    def _after_end(self) -> int:
        """How many positions lie after the last one that can be selected: no token follows a prompt's last token."""
        return 0 if self._resolved.next_token is None else 1

    def _ends(self, facts: dict[str, Any]) -> set[int]:
        """The last positions that could be selected in a cache with this description."""
        last = facts["last"] if self.padding == "found" else [facts["positions"] - 1]
        return {max(at - self._after_end, 0) for at in last}

    def readable_target(self, answers: object) -> Any:
        """Resolve answers, store the target, and return it in the form that a user would write."""
        targets = self._service.targets()
        resolved = self._service.default_target() if answers is None else targets.resolve(answers)
        check_one_source(resolved)
        # If several traits are set at once, traitlets validates the readable form again. This form does not show
        # whether the target is the default one (`own`).
        if resolved != msgspec.structs.replace(self._resolved, own=False):
            if is_chosen(self._resolved):
                self._former = Step(self._resolved, self._position_of(self._resolved))
            ends = last_places(self._service.view(self.padding), self._resolved)
            differs = (self._resolved.next_token is None) != (resolved.next_token is None)
            self._moves_end = differs and self._is_made and (self.position == "last" or set(ends) == {self.position})
            self._resolved = resolved
        self._service.choose(self._resolved)
        return _as_written(self._resolved, targets)

    @traitlets.observe("target")
    def _send_target(self, _change: object) -> None:
        with self.hold_sync():
            self.wire_target = msgspec.to_builtins(self._resolved)
            if self._moves_end:  # no token follows the last one, so a next-token target has an earlier last position
                self._moves_end = False
                with self._following():
                    self.position = "last"
            if self._follows:
                return
            if not (self.step < len(self._steps) and self._steps[self.step].target == self._resolved):
                self._lengthen_trail()
            if isinstance(self._resolved.inner, AttentionScore) and not self._resolved.through:
                self.position = self._resolved.inner.destination

    # --- the trail ---------------------------------------------------------------------------------------------------
    @property
    def _selected_position(self) -> Position:
        return cast("Position", self.position)  # the trait's type is not known to the checker

    def _position_of(self, target: Target) -> Position:
        """The position of a step of the trail. An attention score has its own destination."""
        if isinstance(target.inner, AttentionScore) and not target.through:
            return target.inner.destination
        return self._selected_position

    def _lengthen_trail(self) -> None:
        """Append a target inside the model to the trail, after the former target. Logits empty the trail."""
        former, resolved = self._former, self._resolved
        if former is None or not (resolved.inner or resolved.through):
            self.trail, self.step = [], 0
            return
        # The former target is the present step of the trail, unless the trail has other targets.
        on_trail = self.step < len(self._steps) and self._steps[self.step].target == former.target
        before = self._steps[: self.step] if on_trail else []
        steps = [*before, former, Step(resolved, self._position_of(resolved))]
        with self._following():
            # The first target stays, because all others explain it.
            self.trail = steps[:1] + steps[max(1, len(steps) - MOST_OF_TRAIL + 1) :]
            self.step = len(self._steps) - 1

    def readable_trail(self, given: object) -> list[Any]:
        """Resolve a list of targets or of steps, store the steps, and return the targets in their readable form.

        Raises:
            ResidscopeError: If it is not a list, is too long, or has an entry that is not a target of this model.
        """
        if not isinstance(given, list | tuple):
            raise ResidscopeError("trail", f"`trail` is a list of targets, not {shown(repr(given))}.")
        entries: list[Any] = list(given)  # pyright: ignore[reportUnknownArgumentType]
        if len(entries) > MOST_OF_TRAIL:
            raise ResidscopeError("trail", f"A trail has at most {MOST_OF_TRAIL} targets, not {len(entries)}.")
        targets, known = self._service.targets(), list(zip(self._readable, self._steps, strict=True))
        # A target that was on the trail keeps its position.
        steps = [next((step for was, step in known if was is entry), None) or self._step(entry, targets)
                 for entry in entries]  # fmt: skip
        self._steps = steps
        self._readable = [_as_written(step.target, targets) for step in steps]
        return list(self._readable)

    def _step(self, entry: Any, targets: Targets) -> Step:
        if isinstance(entry, Step):
            return Step(targets.resolve(entry.target), entry.position)
        target = targets.resolve(entry)
        check_one_source(target)
        return Step(target, self._position_of(target))

    def wire_trail(self) -> list[Any]:
        """The trail's steps as plain data."""
        return msgspec.to_builtins(self._steps)

    @traitlets.observe("trail")
    def _show_last(self, _change: object) -> None:
        """After the trail was set in Python, show its last target. A view sets step and target itself."""
        if self._follows or self._received:
            return
        with self.hold_sync():
            self.step = max(len(self._steps) - 1, 0)
            self._go_to_step()

    @traitlets.validate("step")
    def _check_step(self, proposal: traitlets.Bunch) -> int:
        if proposal.value and proposal.value >= len(self._steps):
            count = len(self._steps)
            raise ResidscopeError("trail", f"There is no step {proposal.value}: the trail has {count} targets.")
        return proposal.value

    @traitlets.observe("step")
    def _go_to_step(self, _change: object = None) -> None:
        if self._received or not self.step < len(self._steps):
            return
        step = self._steps[self.step]
        with self.hold_sync(), self._following():
            self.target, self.position = step.target, step.position

    @contextmanager
    def _following(self) -> Generator[None]:
        before, self._follows = self._follows, True
        try:
            yield
        finally:
            self._follows = before

    def set_state(self, sync_data: object) -> None:
        """Apply what a view sends. The view has already set everything that belongs together."""
        self._received = True
        try:
            with self._following():
                super().set_state(sync_data)
        finally:
            self._received = False

    @traitlets.observe("wire_target")
    def _receive_target(self, change: traitlets.Bunch) -> None:
        try:
            received = msgspec.convert(change.new, Target)
            if received != self._resolved:
                self.target = received
        except ValueError as error:  # not a target of this model: keep the former one, and send that to the view
            self.wire_target = msgspec.to_builtins(self._resolved)
            if isinstance(error, msgspec.ValidationError):
                failure = refusal(error, change.new)
                raise ResidscopeError(failure.code, failure.message) from error
            raise

    # --- requests ----------------------------------------------------------------------------------------------------
    def _on_message(self, _widget: object, message: object, _buffers: object) -> None:
        with turns.answering():
            deliver(message, lambda question: answered(question, self._reply), self.send)

    def _reply(self, question: Question) -> tuple[AnyReply, Buffers]:
        if isinstance(question.ask, Presence):
            self._views.update(question.ask)
            return PresenceReply(), []
        if isinstance(question.ask, ListCaches):  # the caches that this one can be compared with
            return listed(), []
        reply = self._service.reply(question.ask, question.id, gives_turns=question.gives_turns)
        if not isinstance(reply[0], Working):  # a progress reply must not wait for the running job
            self.update_facts()
        return reply

    # --- exports -----------------------------------------------------------------------------------------------------
    @property
    def shown(self) -> Shown:
        """Everything that is selected, in the form in which a view sends it. A last position is "last"."""
        own = self._resolved.next_token is not None  # then "last" means the position before the last token
        last = [] if own else positions.last(self._service.view(self.padding))
        end = last if self.prompt is None else last[self.prompt : self.prompt + 1]
        fields: dict[str, Any] = {name: getattr(self, name) for name in Shown.__struct_fields__ if self.has_trait(name)}
        position = "last" if set(end) == {self.position} else self.position
        fields |= {"target": self._resolved, "position": position, "feeds": msgspec.convert(self.feeds, Feeds | None)}
        fields["segments"] = msgspec.convert(self.segments, Segmented | None)
        fields["against"] = msgspec.convert(self.against, Against | None)
        on_trail = self.step < len(self._steps) and self._steps[self.step].target == self._resolved
        fields |= {"trail": self._steps, "step": self.step} if on_trail else {"trail": [], "step": 0}
        return Shown(**fields)

    def to_html(self, *, holds: Holds = "heads", progress: bool = True) -> str:
        """Return what is shown, and what is one click away (as far as there is room), as a stand-alone HTML page.

        The page works offline, without a kernel or other files, and sends nothing anywhere. An interrupt ends
        the export at once.

        Args:
            holds: How much is included. `"view"`: the charts and the open tab, with the pinned and listed heads.
                `"heads"`: also all heads, prompts and positions. `"all"`: also the whole token lens, the head scores
                and each layer's neurons, which takes several times as long.
            progress: Whether to show a progress bar (tqdm) if it takes more than a second.

        Raises:
            ResidscopeError: If `holds` is not one of these, the cache was deleted, or the panel was closed.
        """
        if holds not in get_args(Holds):
            known = ", ".join(f'"{one}"' for one in get_args(Holds))
            raise ResidscopeError("holds", f"`holds={holds!r}` is not known: use {known}.")
        with LateBar("to_html", shown=progress) as bar:
            _, [text] = self._service.finish(WritePage(self.shown, holds), bar.update)
        return text.decode()

    def save(self, path: str | Path, *, holds: Holds = "heads", progress: bool = True) -> Path:
        """Write `to_html()` to a file, as UTF-8. After an interrupt, a former file at this path is unchanged.

        Args:
            path: The path of the file. An existing file is replaced.
            holds: See `to_html`.
            progress: See `to_html`.

        Returns:
            The path of the file.

        Raises:
            ResidscopeError: If no file can be written at `path`. Also as in `to_html`.
        """
        from residscope.export.page import write

        return write(path, self.to_html(holds=holds, progress=progress))

    def __repr__(self) -> str:
        """Return the panel in one line: its cache, heads, prompt and position."""
        return f"Panel({shown(self.cache_name)}: heads={self.heads}, prompt={self.prompt}, position={self.position})"

    def close(self) -> None:
        """Remove the panel from the page and release the cache."""
        super().close()
        self._service.release()
        self._views.end()

    # --- display -----------------------------------------------------------------------------------------------------
    def show(self) -> None:
        """Show the panel in the output of the running cell."""
        shell = _shell()
        if shell is not None:
            from IPython.display import display

            display(self)
            self._shown_in = shell.execution_count

    def prepare(self) -> None:
        """Compute and send the replies to the first view's requests, while the page is still creating the view."""
        self._views.expect(self._service.ahead(self.shown))

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle:
            bundle[0][MIME] = {"model_id": self.model_id}
        return bundle

    def _ipython_display_(self) -> None:
        from IPython.display import publish_display_data

        shell = _shell()
        # `inspect` shows the panel at once, so that it is visible while the rest of the cell runs. As the cell's last
        # expression, the panel would be shown a second time.
        if shell is not None and self._shown_in == shell.execution_count:
            self._shown_in = None
            return
        bundle = self._repr_mimebundle_()
        if bundle:
            publish_display_data(*bundle)


def inspect(
    cache: CacheLike,
    answers: Answers = None,
    *,
    prompt: int | None = None,
    position: int | Literal["last"] = "last",
    heads: Heads = (),
    sae: object = None,
    logits: Tensor | None = None,
    tokens: Tensor | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
    generated_from: int | None = None,
    segments: Any = None,
    lens: Any = None,
    name: str | None = None,
    show: bool = True,
) -> Panel:
    """Show a cache in the cell's output: logit lens, layers, heads and attention, linked.

    Args:
        cache: An `ActivationCache` that is already in memory. The model is not run again, and the cache is not changed.
        answers: The target, as in `residscope.attribute`. By default the model's two top predictions.
        prompt: The prompt to show first. None: the mean over prompts.
        position: The destination position. `"last"`: each prompt's last real token.
        heads: Heads to pin, such as `["L23H3", "29.0"]`.
        sae: An SAE or a transcoder as in `residscope.attribute`, a list of several, or a dictionary of several by name.
            The tab "features" shows its features. SAEs in the notebook's variables whose configuration names an
            activation of this model are found without this argument.
        logits: The model's output `[batch, pos, d_vocab]`, if the cache does not hold it. Sums of rows are compared
            with it.
        tokens: Token ids `[batch, pos]`, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`. By default padding is detected, see
            `docs/padding.md`.
        model: The model, if `cache.model` was deleted.
        generated_from: The position of the first token that the model generated, if there is one: the length of the
            prompt in tokens. A mark in the row of tokens sets the answer apart.
        segments: Folds the row of tokens into segments: `"sentence"`, `"line"`, `"turn"`, `"tag"`, your own ranges such
            as `[("question", 0, 12)]`, or the result of `residscope.segments`.
        lens: A tuned lens, a Jacobian lens or your own, as in `attribute`. The logit lens and the token lens then have
            a choice between plain and transported. The maps stay in Python.
        name: A name for the cache. By default the variable's name.
        show: Whether to show the panel at once. With False, you place it yourself, for example in a `VBox`.

    Returns:
        The panel. Its `heads`, `prompt`, `position` and `target` can be read, set, and linked with ipywidgets.

    Raises:
        ResidscopeError: If the cache or an argument cannot be used. The message says why and what to do.
    """
    given: dict[str, Any] = {"logits": logits, "tokens": tokens, "attention_mask": attention_mask, "model": model}
    given |= {"generated_from": generated_from, "lens": lens, "saes": saes.named(sae)}
    service = Service(cache, name or name_of(cache), **given)
    transport = "plain" if lens is None else "transported"
    panel = Panel(service, answers, prompt=prompt, position=position, heads=heads, transport=transport)
    if segments is not None:
        panel.segments = segments
    if show:
        panel.show()
        if _shell() is not None:
            panel.prepare()
    return panel


def _as_written(target: Target, targets: Targets) -> Any:
    """A target in the form that a user would write. None if it is empty."""
    if target.direction is not None:
        return targets.given_direction(target.direction)
    if not is_chosen(target):
        return None
    return as_answers(target, targets.vocabulary, targets.directions)


def _shell() -> Any:
    """The running IPython, if there is one."""
    from IPython.core.getipython import get_ipython

    return get_ipython()
