"""Checks what is selected in a panel: heads, layer, prompt, segments, SAE, the compared run.

The traits are in `traits.py`. The target and the position are checked in `target_trail.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import traitlets

from residscope.attribution.inner_checks import position_in
from residscope.attribution.segments import segments_of
from residscope.base.legible import shown
from residscope.cache.component_names import name as head_name
from residscope.cache.component_names import parse as parse_head
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.hosts.segmented import as_given, as_segmented
from residscope.hosts.traits import NOT_IN_EVERY_CACHE, Selected
from residscope.serving.service import Service
from residscope.session.discovery import named, variable_name
from residscope.terms import Against, Segmented
from residscope.wire.shown import Feeds, Step

Checks = dict[str, Callable[[], object]]


class Moved(NamedTuple):
    """The present target with its position, and the trail, for a cache with another last position."""

    present: Step
    trail: list[Step]


def in_every_cache() -> None:
    """The check of what every cache has."""


class CheckedSelection(Selected):
    """The traits of a panel, with checks against the cache that it shows."""

    _service: Service
    _is_made = False  # whether the panel has got its first values
    _received = False  # whether a trait is set by a view

    def _check_selection(self, service: Service, moved: Moved) -> None:
        """Refuse a cache that does not have everything that is selected.

        Args:
            service: The service of the cache.
            moved: What would be selected in it in place of the target, the position and the trail.
        """
        checks = self._checks(service, moved)
        for name in NOT_IN_EVERY_CACHE:
            checks[name]()

    def _checks(self, service: Service, moved: Moved) -> Checks:  # noqa: ARG002 (for subclasses)
        """For each thing that not every cache has: a function that raises an error if this cache does not have it."""
        view = service.view(self.padding)
        ranges = None if isinstance(self.segments, str) else msgspec.convert(self.segments, Segmented | None)
        return {
            "heads": lambda: [view.check_head(*parse_head(head)) for head in self.heads],
            "prompt": lambda: view.check_prompt(self.prompt),
            "layer": lambda: self.layer is None or view.check_layer(self.layer),
            "segments": lambda: ranges is None or self._check_segments(ranges, view),
            "against": lambda: self.against is None or self._run_in(msgspec.convert(self.against, Against), view),
            "feeds": lambda: self.feeds is None or self._check_feeds_in(view, msgspec.convert(self.feeds, Feeds)),
            "sae": lambda: self.sae is None or service.saes.name_of(view, self.sae),
            "feature": in_every_cache,  # the SAE stays the same
            "top_k": in_every_cache,
        }

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
            run = self._against(given)
            return run if run is None or self._received else self._run_in(run, self._service.view())
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

    def _run_in(self, run: Against, view: CacheView) -> Against:
        """Refuse a prompt or a head that the shown cache does not have. A prompt of another cache is not checked."""
        for head in run.without:
            view.check_head(*parse_head(head))
        return run if run.cache is not None else msgspec.structs.replace(run, prompt=view.check_prompt(run.prompt))

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

    @traitlets.validate("feeds")
    def _check_feeds(self, proposal: traitlets.Bunch) -> Any:
        if proposal.value is None or self._received:
            return proposal.value
        return msgspec.to_builtins(self._check_feeds_in(self._service.view(), msgspec.convert(proposal.value, Feeds)))

    def _check_feeds_in(self, view: CacheView, feeds: Feeds) -> Feeds:
        """Return this with the source counted from the start. Refuse a head or a source that the cache lacks."""
        view.check_head(feeds.layer, feeds.head)
        return msgspec.structs.replace(feeds, source=position_in(view, "source", feeds.source))

    @traitlets.validate("transport")
    def _check_transport(self, proposal: Any) -> str:
        if proposal.value == "transported" and self._service.lens is None and not self._received:
            raise ResidscopeError("lens", "No lens was given: show the cache with `residscope.inspect(cache, lens=…)`.")
        return proposal.value

    @traitlets.validate("prompt")
    def _check_prompt(self, proposal: traitlets.Bunch) -> int | None:
        return self._service.view().check_prompt(proposal.value)
