"""Changed runs: only the blocks from the changed layer on are called, with many changed runs as one batch.

The blocks before the changed layer give the same stream in each of these runs, so they are not called again. A block is
called in the same way as the model called it in the replay. A test shows whether this gives the same result as the
whole model: blocks called one after another, from a changed stream, must give the streams of a whole run with the same
change. If they do not (the model passes more than the stream from block to block), whole runs are made instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from residscope.causes.arguments import Arguments, NotPlainError, learned
from residscope.causes.hooks import Before, first_tensor, has_user_hooks, hooks
from residscope.causes.replay import Replay, Run, whole_run
from residscope.causes.sites import Place
from residscope.compute.precision import step_of, working
from residscope.compute.progress import report_progress

if TYPE_CHECKING:
    from torch import Tensor

Edit = Callable[["Tensor"], "Tensor"]
"""Takes an activation `[prompt, pos, *inner]`, and returns its new value. The axis `prompt` has all prompts of the
first copy of the batch, then all of the second, and so on."""

MEMORY = 256_000_000
"""The limit of bytes for the activations of one block. On a CUDA device, `_SHARE` may allow more."""

_OPERATIONS = 1e10
"""On a CPU, one call of a block does about this many operations at most. More would not be faster, and the work can
only be stopped between two blocks."""

_SHARE = 0.2
"""The share of a CUDA device's free memory that the activations of one block may take."""


@dataclass(frozen=True)
class Chain:
    """The blocks of a model, and the arguments with which each block can be called by itself."""

    blocks: list[Any]
    arguments: list[Arguments]

    def run(
        self,
        layer: int,
        stream: Tensor,
        copies: int,
        each: Callable[[int, Tensor], None] | None = None,
        past: object = None,
        last: int | None = None,
    ) -> Tensor:
        """Call the blocks from `layer` on, and return the stream after the last one.

        Args:
            layer: The first block that is called.
            stream: The stream before this block, for this many copies of the batch.
            copies: The number of copies.
            each: Called with each layer and the stream after it.
            past: The key/value cache of earlier positions, for this many copies of the batch.
            last: The last block that is called. None: the model's last block.

        Raises:
            NotPlainError: If a block returns no stream.
        """
        repeated: dict[tuple[int, int], Tensor] = {}
        for at in range(layer, len(self.blocks) if last is None else last + 1):
            report_progress()
            output = first_tensor(self.arguments[at].call(self.blocks[at], stream, copies, repeated, past))
            if output is None or output.shape != stream.shape:
                raise NotPlainError("a block does not return the stream")
            stream = output
            if each is not None:
                each(at, stream)
        return stream


class Runner:
    """Makes runs that are changed at sites.

    Args:
        replay: The run that is changed.
        few: Whether there are only a few runs. Testing the blocks would then take longer than whole runs.

    Attributes:
        window: The positions that are run.
        why_whole: The reason for whole runs. Empty if runs are not whole, or if there are only a few runs.
    """

    window = slice(0, None)

    def __init__(self, replay: Replay, *, few: bool = False) -> None:
        self.replay, self.view, self._few = replay, replay.view, few
        self.why_whole = ""
        self._hooked = has_user_hooks(replay.view.model)

    def changed(self, edits: Sequence[tuple[Place, Edit]], copies: int, *, last: int | None = None) -> Tensor:
        """Run copies of the batch with changes, and return their final streams, `[copy, batch, pos, d_model]`.

        Args:
            edits: The sites that are changed, each with an edit. An edit gets the activation of all copies.
            copies: The number of copies of the batch. An edit may change each copy differently.
            last: The last block that is needed, if only recorded activations matter. Later blocks may be left out, and
                the returned stream then has no meaning.
        """
        chain, view = self.chain, self.view
        prompts = copies * view.batch
        with hooks() as own:
            for site, edit in edits:
                own.after(site.module, site.change(edit, prompts))
            if chain is None:
                tokens, mask = self.replay.tokens, self.replay.mask
                mask = None if mask is None else mask.repeat(copies, 1)
                final = whole_run(view, tokens.repeat(copies, 1), mask, own, record=False, keep=False).final
            else:
                layer = min(site.layer for site, _ in edits)
                stream = self.replay.run.streams[layer]
                final = chain.run(layer, stream.repeat(copies, 1, 1), copies, last=last)
        return final.reshape(copies, view.batch, *final.shape[1:])

    @cached_property
    def copies(self) -> int:
        """The number of copies of the batch that are run at once, so that their activations fit in memory."""
        import torch

        if self._hooked or self._few:
            return 1  # a hook of the user, or a layer that was not tested, may treat the prompts of a batch differently
        view, cfg = self.view, self.view.cfg
        width = int(cfg.d_model)
        inner = max(int(getattr(cfg, "d_mlp", None) or 0), 4 * width)
        numbers = 12 * width + 3 * inner + 4 * view.n_heads * view.n_pos
        if self.chain is None and not self._copies_are_alike():
            return 1
        if self.chain is None:
            numbers += view.n_layers * 2 * width  # the key/value cache of a whole run
        size = view.batch * view.n_pos * numbers * self.replay.run.final.element_size()
        device, budget = self.replay.run.final.device, MEMORY
        most = 1024
        if device.type == "cuda":
            budget = max(MEMORY, int(_SHARE * torch.cuda.mem_get_info(device)[0]))
        elif device.type == "cpu":
            most = int(_OPERATIONS / (24 * width**2 * view.batch * view.n_pos))
        return max(1, min(budget // size, most))

    @cached_property
    def chain(self) -> Chain | None:
        """The blocks, if they can be called by themselves. Otherwise None, and `why_whole` gives the reason.

        Also None if there are only a few runs: then the blocks are not tested.
        """
        if self._few:
            return None
        if self._hooked:
            self.why_whole = "there are hooks on the model, which may treat its prompts differently"
            return None
        try:
            return self._tested()
        except NotPlainError as error:
            self.why_whole = str(error)
        except Exception as error:  # a block that is not made to be called by itself may raise anything
            self.why_whole = f"a block cannot be called by itself ({type(error).__name__})"
        return None

    def _copies_are_alike(self) -> bool:
        """Whether a run of two copies, the first with noise, gives the second copy the stream of the batch alone."""
        import torch

        run, batch, blocks = self.replay.run, self.view.batch, list(self.view.model.blocks)
        tokens, mask, final = self.replay.tokens.repeat(2, 1), self.replay.mask, working(run.final)
        if run.streams[0] is None:
            return False
        added = torch.cat([noise(run.streams[0]), torch.zeros_like(run.streams[0])])
        with hooks() as own:
            own.before(blocks[0], perturbing(run, 0, added))
            twice = whole_run(
                self.view, tokens, None if mask is None else mask.repeat(2, 1), own, record=False, keep=False
            )
        error = (working(twice.final)[batch:] - final).norm() / final.norm().clamp(min=1e-30)
        return bool(error <= max(1e-4, 4 * step_of(run.final.dtype)))

    def _tested(self) -> Chain:
        """Compare blocks that are called one after another with a whole run.

        The batch is run twice at once: unchanged, and with noise added to the stream before the first block.
        """
        once, view, blocks = self.replay.run, self.view, list(self.view.model.blocks)
        if once.why_not_plain:
            raise NotPlainError(once.why_not_plain)
        tokens, mask = self.replay.tokens.repeat(2, 1), self.replay.mask
        added = noise(once.streams[0])
        with hooks() as own:
            own.before(blocks[0], perturbing(once, view.batch, added))
            twice = whole_run(view, tokens, None if mask is None else mask.repeat(2, 1), own)
        return tested(blocks, once, twice, added, lambda: None)


def noise(stream: Tensor) -> Tensor:
    """Return noise of the stream's shape, the same in each call."""
    import torch

    generator = torch.Generator(device="cpu").manual_seed(0)
    drawn = torch.randn(stream.shape, generator=generator, device="cpu").to(stream)
    return drawn * (_NOISE * stream.std(-1, keepdim=True))


def perturbing(once: Run, batch: int, added: Tensor) -> Before:
    """Return a change of the first block's arguments. It adds `added` to the stream of all prompts from `batch` on."""
    import torch

    place = once.arguments[0].stream if once.arguments[0] is not None else 0

    def perturbed(stream: Tensor) -> Tensor:
        return torch.cat([stream[:batch], stream[batch:] + added])

    def perturb(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(place, int):
            return (*args[:place], perturbed(args[place]), *args[place + 1 :]), kwargs
        return args, {**kwargs, place: perturbed(kwargs[place])}

    return perturb


def tested(blocks: list[Any], once: Run, twice: Run, added: Tensor, past: Callable[[], Any]) -> Chain:
    """Compare blocks that are called by themselves with a whole run, and return them as a `Chain`.

    Args:
        blocks: The blocks.
        once: The whole run of the batch.
        twice: The whole run of the batch twice, with noise in its second half.
        added: The noise. `twice.streams[0]` was recorded before the noise was added.
        past: Returns a new key/value cache of earlier positions, for the batch twice.

    Raises:
        NotPlainError: If the blocks cannot be called by themselves.
    """
    import torch

    arguments: list[Arguments] = []
    for single, double in zip(once.arguments, twice.arguments, strict=True):
        if single is None or double is None or twice.why_not_plain:
            raise NotPlainError(twice.why_not_plain or "the model does not call each block once")
        arguments.append(learned(single, double))
    chain, batch = Chain(blocks, arguments), len(once.streams[0])

    def compare(layer: int, stream: Tensor) -> None:
        clean = once.streams[layer + 1]
        check(stream, twice.streams[layer + 1], clean, layer)
        check(torch.cat([clean, stream[batch:]]), stream, clean, layer)  # noise in some prompts must not change others

    twice.streams[0] = torch.cat([twice.streams[0][:batch], twice.streams[0][batch:] + added])
    # First the halves are exchanged. A block that depends on state from the previous run, or on a prompt's index in the
    # batch, then gives another result.
    swapped = [torch.cat([part[batch:], part[:batch]]) for part in twice.streams]

    def compare_swapped(layer: int, stream: Tensor) -> None:
        check(stream.flip(0), swapped[layer + 1].flip(0), once.streams[layer + 1].flip(0), layer)

    chain.run(0, swapped[0], 2, compare_swapped, past())
    for start in sorted({len(blocks) // 2, len(blocks) - 1}):
        chain.run(start, twice.streams[start], 2, compare, past())
    return chain


_NOISE = 0.3
"""The standard deviation of the noise, as a share of the stream's standard deviation."""


def check(blocks: Tensor, whole: Tensor, clean: Tensor, layer: int) -> None:
    """Compare the streams after a layer in two runs: one that called the blocks by themselves, and a whole run.

    Args:
        blocks: The stream from the blocks, for the unchanged and then for the changed batch.
        whole: The stream from the whole run, for both batches.
        clean: The stream from an unchanged run.
        layer: The layer.

    Raises:
        NotPlainError: If the two streams differ by more than rounding, relative to the size of the change.
    """
    mine, own, before = (working(tensor) for tensor in (blocks, whole, clean))
    effect = (own[len(before) :] - before).norm().clamp(min=1e-30)
    error = (mine - own).norm() / effect
    step = step_of(whole.dtype)
    if not bool(error <= max(1e-3, 32 * step)):
        raise NotPlainError(f"block {layer}, called by itself, gives another result than in the model")
