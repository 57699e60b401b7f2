"""A cache with everything that was given with it: its name, model, logits, tokens, mask, lens and SAEs."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from residscope.attribution.predictions import top_two
from residscope.attribution.targets import Targets
from residscope.base.legible import encodable
from residscope.cache import padding, positions
from residscope.cache.lens_maps import LensMaps
from residscope.cache.points import parallel_layers
from residscope.cache.view import CacheView
from residscope.compute.memo import NoKeyError, key_of
from residscope.errors import ResidscopeError
from residscope.serving.known_saes import KnownSaes
from residscope.serving.request_context import RequestContext
from residscope.session.cache_reference import CacheReference
from residscope.session.cache_summary import common_facts
from residscope.session.change_tracking import track
from residscope.terms import CacheLike, ComponentTable, MaskLike, ModelLike, Padding, Target
from residscope.wire.caches import CacheFacts, LensFacts
from residscope.wire.protocol import AnyRequest

if TYPE_CHECKING:
    from torch import Tensor


class GivenCache:
    """A cache with everything that was given with it.

    Args:
        cache: The user's `ActivationCache`.
        name: The name of the cache's variable.
        logits: The model's output, if the cache does not hold it.
        tokens: Token ids, if the cache does not hold them.
        model: The model, if `cache.model` was deleted.
        attention_mask: 1 for each real token, 0 for padding, if known.
        generated_from: The position of the first generated token, if known.
        lens: Maps from the stream at each layer to the end of the stream, as `lens=` in `attribute`.
        saes: The SAEs and transcoders that were given, by name. Those in the namespace are found, too.
        keeps_alive: Whether to keep the cache alive.

    Attributes:
        hold: The reference to the cache, and to the model and logits that were given.
        saes: The SAEs and transcoders whose features can be shown.

    Raises:
        ResidscopeError: If `cache` cannot be read, or if something given with it does not fit it.
    """

    def __init__(
        self,
        cache: CacheLike,
        name: str = "cache",
        logits: Tensor | None = None,
        tokens: Tensor | None = None,
        model: ModelLike = None,
        *,
        attention_mask: MaskLike = None,
        generated_from: object = None,
        lens: object = None,
        saes: Mapping[str, object] | None = None,
        keeps_alive: bool = True,
    ) -> None:
        self._views: dict[Padding, CacheView] | None = None  # see `unchanging`
        self.hold = CacheReference(cache, model, logits, keeps_alive=keeps_alive)
        self.name, self.tokens, self.attention_mask = encodable(name), tokens, attention_mask
        view = self.view()
        self._generated_from = _index_of(view, generated_from)
        self.lens, self._lens = lens, LensMaps.of(lens)
        if self._lens is not None:
            self._lens.on(view)  # raises if the maps do not fit this cache
        self._logits(view)  # raises if the logits are not this cache's
        _ = view.attention_mask
        self._directions: dict[str, object] = {}
        self.saes = KnownSaes(saes)
        self._tracked = track(cache, model)
        self._prepare()

    def _prepare(self) -> None:
        """For subclasses: set further attributes. Called once, at the end of `__init__`."""

    def view(self, counted: Padding = "found") -> CacheView:
        """Return a new view of the cache, which may have changed since the last request."""
        if self._views is not None and counted in self._views:
            return self._views[counted]
        held = self.hold.get()
        view = CacheView(held.cache, model=held.model, tokens=self.tokens, attention_mask=self.attention_mask)
        view.padding_is_real = counted == "none"
        if self._views is not None:
            self._views[counted] = view
        return view

    @contextmanager
    def unchanging(self) -> Generator[None, None, None]:
        """Within this block, the cache counts as unchanged, and all uses share one view. Used to make a panel."""
        self._views = {}
        try:
            yield
        finally:
            self._views = None

    def targets(self, view: CacheView | None = None) -> Targets:
        """Return the resolver of targets for the cache in its present state."""
        return Targets.of(view or self.view(), self._directions)

    def default_target(self) -> Target:
        """The model's two top predictions for each prompt at its last real token.

        Without logits and without a final stream to compute them from, the target is empty. Attention can still be
        shown.
        """
        view = self.view()
        try:
            return top_two(view, self._logits(view))
        except ResidscopeError as error:
            if error.code != "no-logits":
                raise
            return Target([])

    def release(self) -> None:
        """Release the cache and everything that was given with it."""
        self.hold.release()
        self.tokens = self.attention_mask = self.lens = self._lens = None
        self._directions.clear()
        self.saes.given.clear()

    def _facts(self, view: CacheView) -> CacheFacts:
        decided = padding.detected_padding(view)
        return CacheFacts(
            name=self.name,
            model=view.model_name,
            **common_facts(view),
            last=list(decided.last),
            has_tokens=view.tokens is not None,
            padding=decided.count,
            points=ComponentTable.of(view.points()),
            generated_from=self._generated_from,
            lens=self._lens_facts(view),
            saes=self.saes.listed(view),
            parallel=parallel_layers(view),
        )

    def _lens_facts(self, view: CacheView) -> LensFacts | None:
        """The name and the formula of the lens. If it no longer fits, only its name: requests that use it say why."""
        if self._lens is None:
            return None
        try:
            return LensFacts(self._lens.name, self._lens.on(view).formula)
        except ResidscopeError:
            return LensFacts(self._lens.name, "")

    def _context(self, view: CacheView) -> RequestContext:
        return RequestContext(self.targets(view), self._logits(view), self._lens)

    def _key(self, ask: AnyRequest) -> tuple[Hashable, ...] | None:
        """The memo key of a request. None if the given arguments have no key."""
        try:
            lens = self._lens if getattr(ask, "transport", "plain") == "transported" else None
            given = key_of((self.hold.get().logits, self.tokens, self.attention_mask, lens))
        except NoKeyError:
            return None
        return "answer", given, msgspec.msgpack.encode(ask)

    def _logits(self, view: CacheView) -> Tensor | None:
        """The model's output, if it was given."""
        given = self.hold.get().logits
        return None if given is None else view.whole_logits(given)


def _index_of(view: CacheView, generated_from: Any) -> int | None:
    """The position of the first generated token, counted from the start.

    Raises:
        ResidscopeError: If there is no such position.
    """
    if generated_from is None:
        return None
    if isinstance(generated_from, bool) or not hasattr(generated_from, "__index__"):
        raise ResidscopeError(
            "generated-from",
            f"`generated_from={generated_from!r}` is not a position: give the index of the first generated token, "
            "which is the length of the prompt in tokens.",
        )
    where = positions.resolve(view, generated_from.__index__())
    return None if where is None else int(where[0])
