"""The inline panel. Python and the views share a few small traits. Everything else is sent as requests and replies.

`cache_name`, `wire_target`, and everything that can be selected (`traits.py`) are synced in both directions. Three
traits are only sent to the browser: `facts` (the description of the cache), `opening` (the replies to the first view's
requests) and `standing` (what the names stand for, see `standing.py`).
`target`, the readable form of `wire_target`, exists only in Python (`target_trail.py`). Tensors are never traits.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import anywidget
import msgspec
import traitlets

from residscope.base.legible import shown
from residscope.cache import positions
from residscope.errors import ResidscopeError
from residscope.hosts import turns
from residscope.hosts.standing import follow, standing, stop_following
from residscope.hosts.target_trail import TargetTrail
from residscope.hosts.traits import Facts
from residscope.hosts.visibility import PanelViews
from residscope.serving.dispatcher import listed
from residscope.serving.progress_bar import LateBar
from residscope.serving.service import Service
from residscope.session.discovery import leads_to
from residscope.terms import Against, CacheLike, MaskLike, Segmented
from residscope.wire.caches import Describe, ListCaches
from residscope.wire.envelope import Buffers, answered, deliver
from residscope.wire.protocol import AnyReply, Question
from residscope.wire.shown import Feeds, Holds, Shown, WritePage
from residscope.wire.working import Presence, PresenceReply, Working

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


class Panel(TargetTrail, anywidget.AnyWidget):
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
        transport: How the logit lens, the token lens and the position map read the stream: as it is (`"plain"`), or
            mapped to its end by the lens given to `inspect` (`"transported"`). Two runs are always compared by the
            plain lens.
        sae: The name of the SAE whose features the tab "features" shows. The SAE itself is accepted, too. None: the
            first one that is known.
        feature: The feature of this SAE whose activations colour the tokens while the tab is open. None: no feature.
        lens_rows: The rows of the token lens: one for each layer (`"layers"`), or one for each cached point of the
            stream, so that the points after each attention are shown, too (`"points"`).
    """

    _esm = _built("panel.js")
    _css = _built("panel.css")

    cache_name = traitlets.Unicode().tag(sync=True)
    facts = Facts(read_only=True).tag(sync=True)
    opening = traitlets.Dict(read_only=True).tag(sync=True)
    standing = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, service: Service, answers: object = None, **state: object) -> None:
        self._service = service
        self._views = PanelViews(service, partial(self.set_trait, "opening"))
        self._shown_in: object = None
        self._described: object = None
        self._variable = _variable_of(service)
        self._state, self._changes = service.state(compare=False), 0
        # Without this, the view could not know whether `position` is the last one, and would request all data twice.
        self.update_facts()
        super().__init__(cache_name=service.name, target=answers, **state)
        self._is_made = True
        self.update_standing()
        follow(self, running_shell())
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
        was selected, the last position of the new cache is selected; so is the destination of an attention score, also
        on the trail. Another position stays if the new cache has it. If no target was chosen, the target becomes the
        two top predictions in the new cache. If the new cache cannot be shown, nothing changes.

        Args:
            cache: The new `ActivationCache`.
            logits: The model's output, if the new cache does not hold it.
            tokens: Token ids, if the new cache does not hold them.
            attention_mask: 1 for each real token, 0 for padding, if known.

        Raises:
            ResidscopeError: If the cache cannot be read, or what is selected does not exist in it.
        """
        service = self._service.succeeding(cache, logits, tokens, attention_mask)
        before = self._trait_values["facts"]
        try:
            moved = self._moved(self._ends(before), service)
            self._check_selection(service, moved)
        except ResidscopeError as error:
            service.release()
            raise ResidscopeError(
                error.code, f"The panel cannot show this cache with what is selected, so nothing changed. {error}"
            ) from error
        former, self._service = self._service, service
        self._variable, self._state = _variable_of(service), service.state(compare=False)
        self._views.replace(service)
        former.release()
        with self.hold_sync(), self._following():
            self._take(moved)
            service.choose(self._resolved)
        # A view sends its requests again when the description changes. If the new description equals the former one, an
        # empty one is sent first.
        self._described = service.settled()
        if msgspec.to_builtins(service.reply(Describe())[0]) == before:
            self.set_trait("facts", {})
        self._described = None
        self.update_facts()
        self.update_standing()

    # --- the description of the cache --------------------------------------------------------------------------------
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
                    if facts["last"] != before["last"] and self.padding == "found":
                        self._follow_end(self._ends(before))

    @traitlets.observe("against")
    def _on_against(self, _change: object) -> None:
        self.update_standing()

    def update_standing(self, *, after_cell: bool = False) -> None:
        """Find out again what the names of the cache and of the compared cache stand for.

        Called after each cell and each request, so that the view does not show values of different caches for long.

        Args:
            after_cell: Whether a cell has just ended. The cache and the weights are then compared with their last known
                state.
        """
        if not self._is_made or not self._service.hold.is_kept_alive:  # no view shows the panel
            return
        with suppress(ResidscopeError):
            against = None if self.against is None else self.against.get("cache")
            cache = self._service.hold.get().cache
            if after_cell and (state := self._service.state(compare=True)) != self._state:
                self._state, self._changes = state, self._changes + 1
            self.set_trait("standing", dict(standing(cache, self._variable, against, self._changes)))

    def set_state(self, sync_data: object) -> None:
        """Apply what a view sends. The view has already set everything that belongs together."""
        self._received = True
        try:
            with self._following():
                super().set_state(sync_data)
        finally:
            self._received = False

    # --- requests ----------------------------------------------------------------------------------------------------
    def _on_message(self, _widget: object, message: object, _buffers: object) -> None:
        with turns.answering():
            deliver(message, lambda question: answered(question, self._reply), self.send)

    def _reply(self, question: Question) -> tuple[AnyReply, Buffers]:
        if isinstance(question.ask, Presence):
            self._views.update(question.ask)
            self.update_standing()
            return PresenceReply(), []
        if isinstance(question.ask, ListCaches):  # the caches that this one can be compared with
            return listed(), []
        reply = self._service.reply(question.ask, question.id, gives_turns=question.gives_turns)
        if not isinstance(reply[0], Working):  # a progress reply must not wait for the running job
            self.update_facts()
            self.update_standing()
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
        stop_following(self)

    # --- display -----------------------------------------------------------------------------------------------------
    def show(self) -> None:
        """Show the panel in the output of the running cell."""
        shell = running_shell()
        if shell is not None:
            from IPython.display import display

            display(self)
            self._shown_in = shell.execution_count

    def prepare(self) -> None:
        """Compute and send the replies to the first view's requests, so that the view need not wait for them."""
        self._views.expect(self._service.ahead(self.shown))

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle:
            bundle[0][MIME] = {"model_id": self.model_id}
        return bundle

    def _ipython_display_(self) -> None:
        from IPython.display import publish_display_data

        shell = running_shell()
        # `inspect` shows the panel at once, so that it is visible while the rest of the cell runs. As the cell's last
        # expression, the panel would be shown a second time.
        if shell is not None and self._shown_in == shell.execution_count:
            self._shown_in = None
            return
        bundle = self._repr_mimebundle_()
        if bundle:
            publish_display_data(*bundle)


def _variable_of(service: Service) -> str | None:
    """The user's variable that the panel is named after. None if it has another name."""
    return service.name if leads_to(service.name, service.hold.get().cache) else None


def running_shell() -> Any:
    """Return the running IPython, if there is one."""
    from IPython.core.getipython import get_ipython

    return get_ipython()
