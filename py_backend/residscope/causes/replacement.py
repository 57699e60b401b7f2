"""What takes the place of an activation: zero, a mean over prompts, another cache, or a run on other tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from typing import TYPE_CHECKING

from residscope.base.arrays import tensor_of
from residscope.cache import positions
from residscope.cache.given_arrays import checked_ids
from residscope.cache.view import CacheView, is_cache
from residscope.cache.weights import embedding_size
from residscope.causes.hooks import has_user_hooks, hooks
from residscope.causes.replay import Replay, whole_run
from residscope.causes.sites import Source
from residscope.compute.precision import working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Replacement:
    """What takes the place of a site's activation.

    Attributes:
        words: The replacement in words: `"zero"`, `"the mean over the cache's prompts"`.
        of: Returns the replacement for a site, `[batch or 1, pos, *inner]`.
        notes: Notes on the replacement.
        padding: Where the replacement is an activation of padding, `[batch or 1, pos]`. None: nowhere.
    """

    words: str
    of: Callable[[Source], Float[Tensor, "batch pos *inner"]]
    notes: list[str] = field(default_factory=list[str])
    padding: Bool[Tensor, "batch pos"] | None = None

    def until(self, last: Int[Tensor, " batch"]) -> Replacement:
        """Return the replacement for a target that is read at these positions: later positions do not change it."""
        import torch

        if self.padding is None:
            return self
        before = torch.arange(self.padding.shape[1], device="cpu") <= last.cpu()[:, None]
        return replace(self, padding=self.padding & before)


def replacement(replay: Replay, given: object, sites: Sequence[Source], name: str = "replace") -> Replacement:
    """Return the replacement that a user named.

    Args:
        replay: The run that is changed.
        given: `"zero"`, `"mean"`, another cache, one of its prompts `(cache, 2)`, or token ids.
        sites: The sites whose activations may be replaced.
        name: The name of the argument, for error messages.

    Raises:
        ResidscopeError: If `given` is not a replacement, or does not fit the cache.
    """
    view = replay.view
    if isinstance(given, str):
        if given == "zero":
            return Replacement("zero", lambda site: view.like.new_zeros(1, view.n_pos, *site.inner))
        if given == "mean":
            return _mean(view, name)
        raise ResidscopeError(name, f'`{name}="{given}"` is not known: use "zero", "mean", a cache, or tokens.')
    prompt = None
    if isinstance(given, tuple) and len(given) == 2 and hasattr(given[1], "__index__") and not _is_numbers(given[0]):
        given, prompt = given[0], index(given[1])
    if is_cache(given):
        own = getattr(given, "model", None)
        is_other = own is not None and own is not view.model
        other = CacheView(given, model=view.model)
        mask = view.attention_mask  # a mask without zeros says that tokens which look like padding are real
        other.padding_is_real = view.padding_is_real or (mask is not None and bool((mask != 0).all()))
        prompt = None if prompt is None else other.check_prompt(prompt)
        return of_other_cache(view, other, name, other_model=is_other, prompt=prompt)
    return _other_run(replay, given, sites, name)


def _is_numbers(given: object) -> bool:
    """Whether this is a number or a list of numbers, as in token ids."""
    return hasattr(given, "__index__") or isinstance(given, list | tuple)


def _mean(view: CacheView, argument: str) -> Replacement:
    if view.batch == 1:
        raise ResidscopeError(
            argument,
            f'With `{argument}="mean"` an activation becomes its mean over the prompts of the cache. But the cache '
            "holds only one prompt, so nothing would change. Cache several prompts, or use another cache.",
        )
    real = positions.real(view).to(view.like.device)
    count = real.sum(0)

    def of(site: Source) -> Tensor:
        values = working(site.held(view)).to(view.like)
        shape = (view.batch, view.n_pos, *[1] * len(site.inner))
        total = values.masked_fill(~real.reshape(shape), 0).sum(0)  # at padding, values may be NaN
        return (total / count.clamp(min=1).reshape(shape[1:]))[None]

    notes: list[str] = []
    if bool((count < view.batch).any()):
        notes.append("The mean at a position is over the prompts that are not padding there.")
    alone = (count == 1).nonzero().flatten().tolist()
    if alone:
        notes.append(f"At position {alone[0]} only one prompt is not padding: its mean is its own activation.")
    return Replacement("the mean over the cache's prompts", of, notes)


def of_other_cache(
    view: CacheView, other: CacheView, argument: str, *, other_model: bool, prompt: int | None = None
) -> Replacement:
    """The activations of another cache, as a replacement.

    Args:
        view: The cache whose run is changed.
        other: The other cache.
        argument: The name of the argument, for error messages.
        other_model: Whether another model made the other cache.
        prompt: The prompt of the other cache that is put into all prompts. None: each prompt gets its own, or
            the only one.

    Raises:
        ResidscopeError: If the other cache does not fit.
    """
    prompts = range(other.batch) if prompt is None else range(prompt, prompt + 1)
    if other.n_pos != view.n_pos or len(prompts) not in (1, view.batch):
        raise ResidscopeError(
            argument,
            f"The other cache holds {other.batch} prompts of {other.n_pos} positions, and this one {view.batch} of "
            f"{view.n_pos}. Positions are matched by index, so the other cache needs the same number of positions, and "
            f"the same number of prompts or one.{_ONE_PROMPT if other.n_pos == view.n_pos else ''}",
        )

    def of(site: Source) -> Tensor:
        try:
            values = site.held(other)[prompts.start : prompts.stop]
        except ResidscopeError as error:
            raise ResidscopeError(error.code, f"In the cache of `{argument}=`: {error}", error.names) from None
        if tuple(values.shape[2:]) != site.inner:
            raise ResidscopeError(argument, "The other cache is from a model of another shape.")
        return values

    notes: list[str] = []
    if prompt is None and len(prompts) < view.batch:
        notes.append(_FOR_ALL.format("the other cache"))
    if other_model:
        notes.append("The other cache is from another model: its activations are put into a run of this one.")
    mine = list(zip(positions.first(view), positions.last(view), strict=True))
    theirs = list(zip(positions.first(other), positions.last(other), strict=True))[prompts.start : prompts.stop]
    if mine != theirs if len(theirs) == len(mine) else set(mine) != set(theirs):
        notes.append("The prompts of both caches begin or end at different positions. Positions are matched by index.")
    words = "the other cache's activation" if prompt is None else f"the activation of prompt {prompt}"
    return Replacement(words, of, notes, ~positions.real(other)[prompts.start : prompts.stop])


_ONE_PROMPT = " `(other, 0)` takes its prompt 0 for all prompts."
_FOR_ALL = "All prompts get the activations of the only prompt of {}."


def _other_run(replay: Replay, given: object, sites: Sequence[Source], argument: str) -> Replacement:
    import torch

    view = replay.view
    try:
        tokens = tensor_of(given).detach()
    except (TypeError, ValueError, RuntimeError):
        tokens = None
    if tokens is None or tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise ResidscopeError(
            argument,
            f'`{argument}=` takes another cache, token ids [batch, pos] of other prompts, "zero" or "mean".',
        )
    tokens = tokens if tokens.ndim == 2 else tokens.unsqueeze(0)
    if tokens.ndim != 2 or tokens.shape[1] != view.n_pos or tokens.shape[0] not in (1, view.batch):
        raise ResidscopeError(
            argument,
            f"`{argument}=` has the shape {list(tokens.shape)}, but the cache holds {view.batch} prompts of "
            f"{view.n_pos} positions: give one prompt for each of them, or one for all.",
        )
    tokens = checked_ids(tokens, embedding_size(view.model), argument, argument)
    is_for_all = len(tokens) < view.batch
    tokens = tokens.to(replay.tokens)
    padding = None if replay.mask is None else _padding_of(tokens, replay.tokens, replay.mask.to(tokens.device) == 0)
    if padding is not None and len(padding) > len(tokens):
        tokens = tokens.expand(view.batch, -1)
    if has_user_hooks(view.model):  # the user's hooks may need as many prompts as the cache has
        tokens = tokens.expand(view.batch, -1)
        padding = None if padding is None else padding.expand(view.batch, -1)
    mask = None if padding is None or not bool(padding.any()) else (~padding).long()
    how = "without an attention mask" if mask is None else "with an attention mask that leaves out their padding"
    notes = [f"The other prompts were run {how}."]
    if is_for_all:
        notes.append(_FOR_ALL.format("the other tokens"))
    values: dict[tuple[str, int], Tensor] = {}
    with hooks() as own:
        for site in sites:
            own.after(site.module, _kept(site, values, len(tokens)))
        whole_run(view, tokens, mask, own, record=False, keep=False)
    at_padding = None if padding is None else _outside(~padding).cpu()
    words = "the activation of a run on other tokens"
    return Replacement(words, lambda site: values[site.kind, site.layer], notes, at_padding)


def _outside(real: Bool[Tensor, "other pos"]) -> Bool[Tensor, "other pos"]:
    """Return which positions are before the first or after the last real token of each prompt."""
    return (real.cumsum(1) == 0) | (real.flip(1).cumsum(1).flip(1) == 0)


def _padding_of(
    tokens: Int[Tensor, "other pos"], own: Int[Tensor, "batch pos"], padding: Bool[Tensor, "batch pos"]
) -> Bool[Tensor, "some pos"] | None:
    """Return which tokens of other prompts are padding, given which tokens of the cache's prompts are.

    Tokens that are the same as in the cache where those are padding are padding, too. None if nothing shows what is.
    """
    import torch

    alike = _padded_alike(tokens, own, padding)
    if not torch.equal(tokens.expand(len(own), -1)[padding], own[padding]):
        return alike
    return padding if alike is None else padding | alike


def _padded_alike(
    tokens: Int[Tensor, "other pos"], own: Int[Tensor, "batch pos"], padding: Bool[Tensor, "batch pos"]
) -> Bool[Tensor, "other pos"] | None:
    """Return which tokens are padding, if they are padded as the prompts of the cache are.

    These prompts show the token with which they are padded, and whether one copy of it at their start or end is real.
    None if they do not show this.

    Args:
        tokens: The other prompts.
        own: The prompts of the cache.
        padding: Which tokens of the cache's prompts are padding.
    """
    import torch

    ids = own[padding].unique()
    if len(ids) != 1:
        return None
    found = torch.zeros_like(tokens, dtype=torch.bool)
    for flip in ((), (1,)):  # the start, the end
        padded = padding.flip(flip)
        prompts = padded[:, 0].nonzero().flatten()
        if not len(prompts):
            continue
        lengths = padded.long().cumprod(1).sum(1)[prompts].clamp(max=own.shape[1] - 1)
        copies = set((own.flip(flip)[prompts, lengths] == ids).tolist())
        if len(copies) > 1:
            return None
        runs = (tokens.flip(flip) == ids).long().cumprod(1).sum(1) - int(copies.pop())
        at_end = torch.arange(tokens.shape[1], device=tokens.device) < runs[:, None]
        found |= at_end.flip(flip)
    return found


def _kept(site: Source, values: dict[tuple[str, int], Tensor], prompts: int) -> Callable[[Tensor], None]:
    def keep(output: Tensor) -> None:
        values[site.kind, site.layer] = site.read(output.detach(), prompts).clone()

    return keep
