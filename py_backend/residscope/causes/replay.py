"""Replay: the model runs again on the cache's own tokens, and this run must give the cached activations.

If the run gives other activations, a change of this run shows nothing about the cache. So an error is raised, which
names the reasons that were found. During the replay, hooks record the arguments with which the model calls each block.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from residscope.cache.padding import detected_padding
from residscope.cache.view import CacheView
from residscope.causes import refusals
from residscope.causes.arguments import Arguments, NotPlainError, recorded
from residscope.causes.generators import watched
from residscope.causes.hooks import Hooks, hooks, is_hooked
from residscope.causes.sites import Candidate, Site, SiteKind, activation, candidates, held, inner_shape
from residscope.causes.tape import Tape, can_tape
from residscope.compute.precision import step_of, working
from residscope.compute.progress import report_progress

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass
class Run:
    """What was recorded in one run of the whole model.

    Attributes:
        arguments: The arguments of each block. None for a block whose arguments were not recorded.
        streams: The stream before each block, and after the last one, `[prompt, pos, d_model]`. None where it was not
            kept.
        why_not_plain: The reason why blocks cannot be called by themselves. Empty if there is none.
        logits: The model's own logits at the requested positions, `[prompt, d_vocab]`. None if not requested.
        past: The key/value cache after the run. None if not requested.
    """

    arguments: list[Arguments | None]
    streams: list[Any]
    why_not_plain: str = ""
    logits: Any = None
    past: object = None

    @property
    def final(self) -> Float[Tensor, "prompt pos d_model"]:
        """The stream after the last block."""
        return self.streams[-1]


@dataclass
class Replay:
    """A run of the model that equals the cached run.

    Attributes:
        view: The cache.
        tokens: The token ids that were run.
        mask: The attention mask that was passed to the model. None: no mask.
        run: The recorded run.
        sites: The sites at which the run can be changed.
        gap: The largest difference of the replay from the cache, relative to the size of an activation. 0: all values
            are equal.
        compared: The number of activations that were compared.
    """

    view: CacheView
    tokens: Int[Tensor, "batch pos"]
    mask: Int[Tensor, "batch pos"] | None
    run: Run
    sites: dict[tuple[SiteKind, int], Site] = field(default_factory=dict)
    gap: float = 0.0
    compared: int = 0

    def without_past(self) -> Replay:
        """Return this replay, or a new one if this one was made with a key/value cache.

        With such a cache, the model may have called its blocks differently.
        """
        return self if self.run.past is None else replay(self.view)


def replay(
    view: CacheView, where: Int[Tensor, " batch"] | None = None, tape: Tape | None = None, *, keeps_past: bool = False
) -> Replay:
    """Run the model on the cache's tokens, and check that the run equals the cached run.

    Args:
        view: The cache.
        where: The position of each prompt at which the model's own logits are requested. None: no logits.
        tape: Records the run for gradients. If the run differs from the cached run in any bit, `tape.final` is None.
        keeps_past: Whether the model's key/value cache is kept as `run.past`, if this run equals the cached run.

    Raises:
        ResidscopeError: If the cache holds no token ids, the model draws random numbers (dropout), or the run differs
            from the cached run. The message names the reasons that were found.
    """
    tokens = refusals.check_before(view)
    masks = _masks(view)
    if tape is not None:
        found = _taped(view, tokens, masks[0], where, tape)
        if found is not None:
            return found
    if keeps_past:
        with suppress(Exception):  # a model without a key/value cache may raise anything
            found = _try(view, tokens, masks[0], where, past=NEW)
            if found.compared and found.gap <= tolerance(view):
                return found
    tried: list[Replay] = []
    for mask in masks:
        found = _try(view, tokens, mask, where)
        if found.compared and found.gap <= tolerance(view):
            return found
        tried.append(found)
    best = min(tried, key=lambda one: one.gap)
    if not best.compared:
        raise refusals.not_compared()
    raise refusals.differs(view, best.gap, best.run.final, masks)


def tolerance(view: CacheView) -> float:
    """Return the largest relative difference from the cache that counts as rounding."""
    step = step_of(view.stream.dtype)
    coarse = max(step, view.rounding_step())
    return max(_FINE, 4 * coarse)


_FINE = 1e-5
"""About 80 rounding steps of float32. The order of additions may differ, for example on another device."""


def _masks(view: CacheView) -> list[Tensor | None]:
    """The attention masks with which the model may have been run, the likeliest first."""
    if view.attention_mask is not None:
        return [view.attention_mask, None]  # the user may have passed the mask only to Residscope, not to the model
    found = detected_padding(view)  # even if the user treats padding as real: the model may have been given a mask
    if not found.count:
        return [None]
    return [None, found.mask.long()]


def whole_run(
    view: CacheView,
    tokens: Tensor,
    mask: Tensor | None,
    own: Hooks,
    *,
    record: bool = True,
    keep: bool = True,
    logits_at: Tensor | None = None,
    past: object = None,
) -> Run:
    """Run the whole model with hooks. The unembedding reads only one position of each prompt, if possible.

    If no logits are requested, it reads only one position of the first prompt.

    Args:
        view: The cache.
        tokens: The token ids, of any number of prompts.
        mask: The attention mask for the model, or None.
        own: The hooks of this run. The caller may have added some.
        record: Whether to record the blocks' arguments.
        keep: Whether to keep the stream before each block.
        logits_at: The position of each prompt at which the logits are requested. None: no logits.
        past: The key/value cache of earlier positions, to which the run adds its positions. NEW: begin a new cache. The
            result holds this cache as `past`.
    """
    model, blocks = view.model, list(view.model.blocks)
    run = Run([None] * len(blocks), [None] * (len(blocks) + 1))

    def before(layer: int) -> Any:
        def keep_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            report_progress()
            if run.arguments[layer] is not None:
                run.why_not_plain = "the model calls a block several times"
            try:
                arguments, stream = recorded(args, kwargs)
            except NotPlainError as error:
                run.why_not_plain = str(error)
                return
            run.arguments[layer] = arguments if record else None
            run.streams[layer] = stream if keep else None

        return keep_arguments

    def after(output: Tensor) -> None:
        run.streams[-1] = output

    for layer, block in enumerate(blocks):
        own.before(block, before(layer))
    own.after(blocks[-1], after)
    is_cut = _cut_unembedding(model, own, logits_at)
    options: dict[str, Any] = {} if mask is None else {"attention_mask": mask.to(tokens.device)}
    kind = None if logits_at is None else "logits"
    if past is not None:
        kind = "logits_and_cache"
        options |= {"use_cache": True} if past is NEW else {"past_key_values": past}
    output = model(tokens, return_type=kind, **options)
    if past is not None:
        output, run.past = output
    if logits_at is not None:
        run.logits = output[:, 0] if is_cut() else view.pick(output, logits_at)[:, 0]
    return run


NEW = object()
"""As the argument `past`, this requests a new key/value cache."""


def _cut_unembedding(model: object, own: Hooks, logits_at: Tensor | None) -> Callable[[], bool]:
    """Let the unembedding read only one position of each prompt, or of the first prompt if no logits are requested.

    If the unembedding has hooks, it reads all positions.

    Returns:
        A function that returns whether the unembedding read only one position.
    """
    import torch

    module, done = getattr(model, "unembed", None), list[bool]()
    if not isinstance(module, torch.nn.Module):
        return lambda: False
    if is_hooked(module):
        return lambda: False

    def cut(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        stream = args[0] if len(args) == 1 else None
        if not isinstance(stream, torch.Tensor) or stream.ndim != 3:
            return None
        done.append(True)
        if logits_at is None:
            return (stream[:1, :1],), kwargs
        prompts = torch.arange(len(stream), device=stream.device)
        return (stream[prompts, logits_at.to(stream.device)][:, None],), kwargs

    own.before(module, cut)
    return lambda: bool(done)


def _taped(view: CacheView, tokens: Tensor, mask: Tensor | None, where: Tensor | None, tape: Tape) -> Replay | None:
    """A replay that is recorded for gradients. None if it differs from the cached run in any bit, or cannot be made."""
    import torch

    if not can_tape(view.model):
        return None
    try:
        with torch.inference_mode(False), torch.enable_grad():  # autograd cannot use tensors made in `inference_mode`
            own, at = (None if part is None else part.clone() for part in (mask, where))
            found = _try(view, tokens.clone(), own, at, tape)
    except RuntimeError:  # a part of the model that cannot be differentiated
        found = None
    if found is None or not found.compared or found.gap != 0:
        tape.final = None
        tape.added.clear()
        return None
    found.tokens, found.mask = tokens, mask
    return found


def _try(
    view: CacheView,
    tokens: Tensor,
    mask: Tensor | None,
    where: Tensor | None,
    tape: Tape | None = None,
    past: object = None,
) -> Replay:
    """Run the model once with one mask, and compare the run with the cache."""
    calls: dict[int, int] = {}
    gaps: dict[int, float] = {}
    options = candidates(view)
    with hooks() as own:
        for number, option in enumerate(options):
            own.after(option.module, _compared(view, option, number, calls, gaps))
        if tape is not None:
            tape.record(own, options)
        run = watched(view.model, lambda: whole_run(view, tokens, mask, own, logits_at=where, past=past))
    if tape is not None:
        tape.final = run.final
        run.streams = [None if stream is None else stream.detach() for stream in run.streams]
        run.logits = None if run.logits is None else run.logits.detach()
    found = Replay(view, tokens, mask, run)
    best: dict[tuple[SiteKind, int], float] = {}
    for number, option in enumerate(options):
        site: tuple[SiteKind, int] = (option.kind, option.layer)
        gap = gaps.get(number)
        inner = inner_shape(view, option.kind, option.layer)
        if gap is None or inner is None or calls[number] != 1:
            continue
        if site not in best or (best[site] > tolerance(view) and gap < best[site]):
            best[site] = gap
            found.sites[site] = Site(option.kind, option.layer, option.module, inner, option.factor)
    for layer, stream in enumerate(run.streams):
        name = view.after(layer - 1) if layer == view.n_layers else view.before(layer)
        cached = view.activations.get(name)
        if stream is None or cached is None or cached.numel() != stream.numel():
            continue
        cached = cached.detach().reshape(stream.shape)
        gap = _gap(stream, cached)
        key: tuple[SiteKind, int] = ("resid_pre", layer)
        best[key] = min(best.get(key, gap), gap)
        if gap == 0 and cached.dtype == stream.dtype and cached.device == stream.device:
            run.streams[layer] = cached  # the same values need no second copy
    found.gap, found.compared = max(best.values(), default=float("inf")), len(best)
    return found


def _compared(view: CacheView, option: Candidate, number: int, calls: dict[int, int], gaps: dict[int, float]) -> Any:
    name = activation(option.kind, option.layer)

    def compare(output: Tensor) -> None:
        calls[number] = calls.get(number, 0) + 1
        cached = view.activations.get(name)
        if cached is not None and cached.numel() == output.numel() and output.is_floating_point():
            own = held(view, option.kind, option.layer)
            gaps[number] = _gap(output if option.factor == 1 else output * option.factor, own)

    return compare


def _gap(output: Tensor, cached: Tensor) -> float:
    """The largest difference from the cached activation, relative to the root mean square of this activation."""
    import torch

    is_alike = output.dtype == cached.dtype and output.device == cached.device
    if is_alike and torch.equal(output.detach().flatten(), cached.detach().flatten()):
        return 0.0
    mine, own = working(output.detach()).flatten(), working(cached.detach()).flatten().to(output.device)
    if not mine.numel():
        return 0.0
    size = own.pow(2).nanmean().sqrt().clamp(min=1e-30)
    both_nan = mine.isnan() & own.isnan()  # for example at padding that attends to nothing
    gap = float((mine - own).abs().masked_fill(both_nan, 0).max() / size)
    return gap if gap == gap else float("inf")
