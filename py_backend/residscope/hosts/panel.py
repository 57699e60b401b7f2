"""The inline panel: a few small traits that Python and the views share; everything else is requests.

Synced with the browser: `cache_name`, `wire_target`, and all that can be selected (`traits.py`). Only told to the
browser: `facts`, what the cache is; `opening`, the answers to what the first view asks. Only in Python: `target`, the
readable form of `wire_target`. Tensors are never traits.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import anywidget
import msgspec
import traitlets

from residscope.attribution.targets import as_answers
from residscope.base.legible import shown
from residscope.cache import positions
from residscope.cache.component_names import name as head_name
from residscope.cache.component_names import parse as parse_head
from residscope.errors import ResidscopeError
from residscope.hosts.traits import Answers, Facts, Selected
from residscope.hosts.visibility import Views
from residscope.serving.progress_bar import LateBar
from residscope.serving.service import Service
from residscope.session.caches import name_of
from residscope.terms import Target
from residscope.wire.envelope import Buffers, answered, deliver
from residscope.wire.protocol import (
    AnyReply,
    Describe,
    Holds,
    Presence,
    PresenceReply,
    Question,
    Shown,
    Working,
    WritePage,
)
from residscope.wire.refusals import refusal

STATIC = Path(__file__).parents[1] / "static"

MIME = "application/vnd.residscope.panel+json"
"""Where a notebook keeps a panel's last picture; the JupyterLab extension puts it there, other hosts pass it over."""


def _built(name: str) -> Path:
    path = STATIC / name
    if not path.is_file():
        raise ResidscopeError("not-built", f"Residscope's front end ({name}) is not built: run `npm run build`.")
    return path


class Panel(Selected, anywidget.AnyWidget):
    """Linked views of one cache, in the cell's output. Made by `residscope.inspect`.

    Attributes:
        heads: The pinned heads, such as `["L23H3"]`; also takes `"23.3"` and `(23, 3)`.
        prompt: The prompt that is shown, or None for the mean of all.
        position: The destination position; `"last"`, each prompt's last real token, where these are not the same one.
        target: What is attributed: `" Mary"`, `(" Mary", " John")`, or a list of these, one per prompt. Takes whatever
            `residscope.attribute` takes as `answers`.
        norm: The logit lens' convention, `"frozen"` or `"recomputed"`.
        top_k: How many heads or neurons of each sign the ranking lists.
        ranking: What the ranking lists, `"heads"` or `"neurons"`.
        layer: The layer whose neurons it lists; None is all layers.
        weighting: What attention is shown as: `"pattern"`, `"value"` (times ‖v W_O‖) or `"contribution"`.
        presentation: How attention is shown: `"matrix"`, `"text"`, or `"all"` heads in small.
        score: What colours the head map: None for what each head adds, or `"previous"`, `"first"`, `"duplicate"`,
            `"induction"`, `"entropy"`, `"copying"`.
        tab: The view below: `"attention"`, `"positions"`, `"token-lens"` or `"prompts"`.
        padding: Whether what was treated as padding is left out (`"found"`) or counts as real (`"none"`).
    """

    _esm = _built("panel.js")
    _css = _built("panel.css")

    cache_name = traitlets.Unicode().tag(sync=True)
    wire_target = traitlets.Dict().tag(sync=True)
    facts = Facts(read_only=True).tag(sync=True)
    opening = traitlets.Dict(read_only=True).tag(sync=True)
    target = Answers()

    def __init__(self, service: Service, answers: Any = None, **state: Any) -> None:
        self._service = service
        self._resolved = Target([])
        self._views = Views(service.hold, partial(self.set_trait, "opening"))
        self._shown_in: object = None
        self._described: object = None
        # Else the view would ask what the cache is, and for all figures twice: `position` may or may not be the last.
        self.follow()
        super().__init__(cache_name=service.name, target=answers, **state)
        self.on_msg(self._on_message)

    # --- traits: what comes in is checked and brought into one form --------------------------------------------------
    def head_name(self, head: Any) -> str:
        """The name of a head, `"L23H3"`, from any way of writing it.

        Raises:
            ResidscopeError: If it is no head, or not one of this model.
        """
        layer, index = parse_head(head)
        self._service.view().check_head(layer, index)  # refuses what is not there
        return head_name(layer, index)

    @traitlets.validate("layer")
    def _check_layer(self, proposal: Any) -> int | None:
        return None if proposal.value is None else self._service.view().check_layer(proposal.value)

    @traitlets.validate("prompt")
    def _check_prompt(self, proposal: Any) -> int | None:
        return self._service.view().check_prompt(proposal.value)

    def whole_position(self, position: Any) -> int | Literal["last"]:
        """A position counted from the start; "last" where prompts end at different ones."""
        view = self._service.view(self.padding)
        if position == "last":
            last = set(positions.last(view))
            return last.pop() if len(last) == 1 else "last"
        at = positions.resolve(view, position)
        if at is None or len(set(at.tolist())) > 1:
            raise ResidscopeError("position", "The panel shows one position at a time: give one number.")
        return int(at[0])

    @traitlets.observe("padding")
    def _count_padding(self, change: Any) -> None:
        """A panel that stood at the last tokens stands at what are the last ones now."""
        ends = set(positions.last(self._service.view(change.old)))
        if self.position == "last" or ends == {self.position}:
            self.position = "last"

    def follow(self) -> None:
        """Describe the cache again, where something has changed that its description depends on.

        A padding token that is set after a first look moves the prompts' ends: a panel that stood there goes along.
        """
        with suppress(ResidscopeError):  # the cache is gone: what it was stays
            now = self._service.settled()
            if now is not None and now == self._described:
                return
            # First: what is told to the browser is read again.
            self._described = now
            before = self._trait_values.get("facts", {})
            facts: dict[str, Any] = msgspec.to_builtins(self._service.reply(Describe())[0])
            if not before:
                self.set_trait("facts", facts)
            elif facts != before:
                with self.hold_sync():
                    self.set_trait("facts", facts)
                    stood = self.position == "last" or {self.position} == set(before["last"])
                    if facts["last"] != before["last"] and stood and self.padding == "found":
                        self.position = "last"

    def readable_target(self, answers: Any) -> Any:
        """Resolve answers, remember the result, and give it back as a person would write it."""
        targets = self._service.targets()
        resolved = self._service.default_target() if answers is None else targets.resolve(answers)
        # Where several traits are set at once, traitlets validates once more, now the readable form, which does not
        # tell that nobody chose it.
        if resolved != msgspec.structs.replace(self._resolved, own=False):
            self._resolved = resolved
        self._service.choose(self._resolved)
        if not self._resolved.contrasts and self._resolved.direction is None:
            return None
        if self._resolved.direction is not None:
            return targets.given_direction(self._resolved.direction)
        return as_answers(self._resolved, targets.vocabulary)

    @traitlets.observe("target")
    def _send_target(self, _change: Any) -> None:
        self.wire_target = msgspec.to_builtins(self._resolved)

    @traitlets.observe("wire_target")
    def _receive_target(self, change: Any) -> None:
        try:
            received = msgspec.convert(change.new, Target)
            if received != self._resolved:
                self.target = received
        except ValueError as error:  # not a target of this model: keep what there was, and say so to the view
            self.wire_target = msgspec.to_builtins(self._resolved)
            if isinstance(error, msgspec.ValidationError):
                failure = refusal(error, change.new)
                raise ResidscopeError(failure.code, failure.message) from error
            raise

    # --- requests ----------------------------------------------------------------------------------------------------
    def _on_message(self, _widget: Any, message: Any, _buffers: Any) -> None:
        deliver(message, lambda asked: answered(asked, self._reply), self.send)

    def _reply(self, question: Question) -> tuple[AnyReply, Buffers]:
        if isinstance(question.ask, Presence):
            self._views.note(question.ask)
            return PresenceReply(), []
        reply = self._service.reply(question.ask, question.id)
        if not isinstance(reply[0], Working):  # nobody waits for its turn to be told how far something is
            self.follow()
        return reply

    # --- what leaves the panel ---------------------------------------------------------------------------------------
    @property
    def shown(self) -> Shown:
        """All that is selected, as a view tells it: "last" where the position is that one."""
        last = positions.last(self._service.view(self.padding))
        end = last if self.prompt is None else last[self.prompt : self.prompt + 1]
        fields: dict[str, Any] = {name: getattr(self, name) for name in Shown.__struct_fields__ if self.has_trait(name)}
        position = "last" if set(end) == {self.position} else self.position
        fields |= {"target": self._resolved, "position": position}
        return Shown(**fields)

    def to_html(self, *, holds: Holds = "heads", progress: bool = True) -> str:
        """What is shown as a stand-alone HTML page, with what is one gesture away, as far as there is room.

        It works offline, without a kernel and without any other file, and sends nothing anywhere. Interrupted, it ends
        at once, and leaves nothing.

        Args:
            holds: How much of what is one gesture away. `"view"`: the charts and the tab in view, with the heads that
                are pinned or listed. `"heads"`: also all heads, prompts and positions. `"all"`: also the whole token
                lens, the head scores and each layer's neurons, which takes several times as long.
            progress: Whether to show a progress bar (tqdm) where it takes more than a second.

        Raises:
            ResidscopeError: If `holds` is none of these, the cache is gone, or the panel is closed before it is done.
        """
        if holds not in get_args(Holds):
            known = ", ".join(f'"{one}"' for one in get_args(Holds))
            raise ResidscopeError("holds", f"`holds={holds!r}` is not known: use {known}.")
        with LateBar("to_html", shown=progress) as bar:
            _, [text] = self._service.finish(WritePage(self.shown, holds), bar.told)
        return text.decode()

    def save(self, path: str | Path, *, holds: Holds = "heads", progress: bool = True) -> Path:
        """Write `to_html()` to a file, UTF-8. Interrupted, it leaves the file that was there, if one was.

        Args:
            path: Where to. A file that is there is replaced.
            holds: See `to_html`.
            progress: See `to_html`.

        Returns:
            Where it is.

        Raises:
            ResidscopeError: If there can be no file at `path`; or as `to_html`.
        """
        from residscope.export.page import write

        return write(path, self.to_html(holds=holds, progress=progress))

    def __repr__(self) -> str:
        """Which panel this is, in a line."""
        return f"Panel({shown(self.cache_name)}: heads={self.heads}, prompt={self.prompt}, position={self.position})"

    def close(self) -> None:
        """Take the panel from the page and let go of the cache."""
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
        """Work out what the first view asks first, while the page is still making it, and send it there."""
        self._views.expect(self._service.ahead(self.shown))

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle:
            bundle[0][MIME] = {"model_id": self.model_id}
        return bundle

    def _ipython_display_(self) -> None:
        from IPython.display import publish_display_data

        shell = _shell()
        # `inspect` shows the panel at once, so that it stands there while the rest of the cell runs; as the cell's last
        # expression it would be shown a second time.
        if shell is not None and self._shown_in == shell.execution_count:
            self._shown_in = None
            return
        bundle = self._repr_mimebundle_()
        if bundle:
            publish_display_data(*bundle)


def inspect(
    cache: Any,
    answers: Any = None,
    *,
    prompt: int | None = None,
    position: int | Literal["last"] = "last",
    heads: Any = (),
    logits: Any = None,
    tokens: Any = None,
    attention_mask: Any = None,
    model: Any = None,
    name: str | None = None,
    show: bool = True,
) -> Panel:
    """Show a cache in the cell's output: logit lens, layers, heads and attention, linked.

    Args:
        cache: An `ActivationCache` that is already in memory. Nothing is run again, nothing in it is changed.
        answers: What to attribute, as in `residscope.attribute`; by default the model's own two top predictions.
        prompt: The prompt to show first; None is the mean of all.
        position: The destination position; `"last"` is each prompt's last real token.
        heads: Heads to pin, such as `["L23H3", "29.0"]`.
        logits: The model's output `[batch, pos, d_vocab]`, where the cache does not hold it, to measure against.
        tokens: Token ids `[batch, pos]`, where the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`; by default see `docs/padding.md`.
        model: The model, where `cache.model` is gone.
        name: What to call the cache; by default the variable's name.
        show: Whether to show the panel at once; with False it is shown where you put it, in a `VBox` for example.

    Returns:
        The panel, whose `heads`, `prompt`, `position` and `target` can be read, set, and linked with ipywidgets.

    Raises:
        ResidscopeError: With a sentence that says what is wrong and what to do.
    """
    given: dict[str, Any] = {"logits": logits, "tokens": tokens, "attention_mask": attention_mask, "model": model}
    service = Service(cache, name or name_of(cache), **given)
    panel = Panel(service, answers, prompt=prompt, position=position, heads=heads)
    if show:
        panel.show()
        if _shell() is not None:
            panel.prepare()
    return panel


def _shell() -> Any:
    """The running IPython, if there is one."""
    from IPython.core.getipython import get_ipython

    return get_ipython()
