"""The inline panel: a few small traits that Python and the views share; everything else is requests.

Synced with the browser: `cache_name`, `prompt`, `position`, `heads`, `norm`, `top_k`, `wire_target`. Only in Python:
`target`, the readable form of `wire_target`. Tensors are never traits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import msgspec
import traitlets

from .errors import ResidscopeError
from .namespace import name_of
from .protocol import Target
from .service import Service
from .targets import friendly

STATIC = Path(__file__).parent / "static"


class Heads(traitlets.List[str]):
    """Pinned heads as `["L23H3"]`; takes `"23.3"`, `"L23H3"`, `(23, 3)`, alone or in a list, and drops repetitions."""

    def validate(self, obj: Any, value: Any) -> Any:
        """Bring every head into the form `"L23H3"`."""
        alone = isinstance(value, str) or (isinstance(value, tuple) and all(isinstance(n, int) for n in value))
        names = [obj.head_name(head) for head in ([value] if alone and value else value)]
        return super().validate(obj, list(dict.fromkeys(names)))


def _built(name: str) -> Path:
    path = STATIC / name
    if not path.is_file():
        raise ResidscopeError("not-built", f"Residscope's front end ({name}) is not built: run `npm run build`.")
    return path


class Panel(anywidget.AnyWidget):
    """Linked views of one cache, in the cell's output. Made by `residscope.inspect`.

    Attributes:
        heads: The pinned heads, such as `["L23H3"]`; also takes `"23.3"` and `(23, 3)`.
        prompt: The prompt that is shown, or None for the mean of all.
        position: The destination position. None where prompts end at different positions: each one's last real token.
        target: What is attributed: `" Mary"`, `(" Mary", " John")`, or a list of these, one per prompt. Takes whatever
            `residscope.attribute` takes as `answers`.
        norm: The logit lens' convention, `"frozen"` or `"recomputed"`.
        top_k: How many heads of each sign the ranking lists.
    """

    _esm = _built("panel.js")
    _css = _built("panel.css")

    cache_name = traitlets.Unicode().tag(sync=True)
    heads = Heads().tag(sync=True)
    prompt = traitlets.Int(None, allow_none=True).tag(sync=True)
    position = traitlets.Int(None, allow_none=True).tag(sync=True)
    norm = traitlets.Enum(("frozen", "recomputed"), "frozen").tag(sync=True)
    top_k = traitlets.Int(5, min=1, max=50).tag(sync=True)
    wire_target = traitlets.Dict().tag(sync=True)
    target = traitlets.Any()

    def __init__(self, service: Service, answers: Any = None, **state: Any) -> None:
        self._service = service
        self._resolved = service.default_target() if answers is None else service.targets.resolve(answers)
        self._shown_in: object = None
        super().__init__(cache_name=service.name, target=self._resolved, **state)
        self.on_msg(self._on_message)

    # --- traits: what comes in is checked and brought into one form --------------------------------------------------
    def head_name(self, head: Any) -> str:
        """The name of a head, `"L23H3"`, from any way of writing it.

        Raises:
            ResidscopeError: If it is no head, or not one of this model.
        """
        match = re.fullmatch(r"L?(\d+)[.H](\d+)", head.strip()) if isinstance(head, str) else None
        pair = match.groups() if match else head
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise ResidscopeError("head", f'{head!r} is no head: write "L23H3", "23.3" or (23, 3).')
        layer, index = int(pair[0]), int(pair[1])
        self._service.view().check_head(layer, index)
        return f"L{layer}H{index}"

    @traitlets.validate("prompt")
    def _check_prompt(self, proposal: Any) -> int | None:
        return self._service.view().check_prompt(proposal.value)

    @traitlets.validate("position")
    def _check_position(self, proposal: Any) -> int | None:
        if proposal.value is None:
            return self._last_position()
        view = self._service.view()
        view.positions(proposal.value)  # refuses what lies outside
        return proposal.value % view.n_pos

    @traitlets.default("position")
    def _default_position(self) -> int | None:
        return self._last_position()

    @traitlets.observe("position")
    def _say_position(self, change: Any) -> None:
        if change.new is None:  # None is not validated by traitlets; where all prompts end alike, say where
            self.position = self._last_position()

    def _last_position(self) -> int | None:
        last = set(self._service.view().last_positions())
        return last.pop() if len(last) == 1 else None

    @traitlets.validate("target")
    def _check_target(self, proposal: Any) -> Any:
        self._resolved = self._service.targets.resolve(proposal.value)
        if self._resolved.direction is not None:
            return self._service.targets.held(self._resolved.direction)
        return friendly(self._resolved, self._service.targets.vocabulary)

    @traitlets.observe("target")
    def _send_target(self, _change: Any) -> None:
        self.wire_target = msgspec.to_builtins(self._resolved)

    @traitlets.observe("wire_target")
    def _receive_target(self, change: Any) -> None:
        received = msgspec.convert(change.new, Target)
        if received != self._resolved:
            self.target = received

    # --- requests ----------------------------------------------------------------------------------------------------
    def _on_message(self, _widget: Any, message: Any, _buffers: Any) -> None:
        answer, buffers = self._service.answer(message)
        self.send(answer, buffers)

    # --- display -----------------------------------------------------------------------------------------------------
    def show(self) -> None:
        """Show the panel in the output of the running cell."""
        shell = _shell()
        if shell is not None:
            from IPython.display import display

            display(self)
            self._shown_in = shell.execution_count

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
    position: int | None = None,
    heads: Any = (),
    logits: Any = None,
    tokens: Any = None,
    model: Any = None,
    name: str | None = None,
) -> Panel:
    """Show a cache in the cell's output: logit lens, layers, heads and attention, linked.

    Args:
        cache: An `ActivationCache` that is already in memory. Nothing is run again, nothing in it is changed.
        answers: What to attribute, as in `residscope.attribute`; by default the model's own two top predictions.
        prompt: The prompt to show first; None is the mean of all.
        position: The destination position; None is each prompt's last real token.
        heads: Heads to pin, such as `["L23H3", "29.0"]`.
        logits: The model's output `[batch, pos, d_vocab]`, where the cache does not hold it, to measure against.
        tokens: Token ids `[batch, pos]`, where the cache does not hold them.
        model: The model, where `cache.model` is gone.
        name: What to call the cache; by default the variable's name.

    Returns:
        The panel, whose `heads`, `prompt`, `position` and `target` can be read, set, and linked with ipywidgets.

    Raises:
        ResidscopeError: With a sentence that says what is wrong and what to do.
    """
    service = Service(cache, name or name_of(cache), logits=logits, tokens=tokens, model=model)
    panel = Panel(service, answers, prompt=prompt, position=position, heads=heads)
    panel.show()
    return panel


def _shell() -> Any:
    """The running IPython, if there is one."""
    from IPython.core.getipython import get_ipython

    return get_ipython()
