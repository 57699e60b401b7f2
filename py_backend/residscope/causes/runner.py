"""Runs with changes: the blocks from the changed layer on, with many changed runs as one batch.

The blocks before the changed layer give the same stream in each of these runs, so they are not called again. A block is
called as the model called it in the replay. Whether that gives what the whole model gives is found by testing: blocks
called one after another, from a changed stream, must give the streams of a whole run with the same change. If they do
not (the model passes more from block to block than the stream), whole runs are made instead.
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
"""Takes an activation `[prompt, pos, *inner]` of copies of the batch, one after another. Returns the changed one."""

MEMORY = 256_000_000
"""On a CPU, the bytes that the activations of one block may take. On another device it is a share of what is free."""

_OPERATIONS = 1e10
"""On a CPU, about so many operations are done in one block at once. More would not be faster, and the work can be
stopped between two blocks."""

_SHARE = 0.2
"""The share of a device's free memory that the activations of one block may take."""


@dataclass(frozen=True)
class Chain:
    """The blocks, and the arguments with which each can be called by itself."""

    blocks: list[Any]
    arguments: list[Arguments]

    def run(
        self,
        layer: int,
        stream: Tensor,
        copies: int,
        each: Callable[[int, Tensor], None] | None = None,
        past: Any = None,
        last: int | None = None,
    ) -> Tensor:
        """Call the blocks from `layer` on, and return the stream after the last one.

        Args:
            layer: The first block that is called.
            stream: The stream before it, of so many copies of the batch.
            copies: The number of copies.
            each: Is called with each layer and the stream after it.
            past: The key/value cache of the positions before, of so many copies of the batch.
            last: The last block that is called; None: the last of the model.

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
        few: Whether so few runs are made that testing the blocks would take longer than whole runs.

    Attributes:
        window: The positions that are run.
        why_whole: Why whole runs are made; empty if they are not, or if they are few.
    """

    window = slice(0, None)

    def __init__(self, replay: Replay, *, few: bool = False) -> None:
        self.replay, self.view, self._few = replay, replay.view, few
        self.why_whole = ""
        self._hooked = has_user_hooks(replay.view.model)

    def changed(self, edits: Sequence[tuple[Place, Edit]], copies: int, *, last: int | None = None) -> Tensor:
        """Return the final stream of so many copies of the batch with these changes, `[copy, batch, pos, d_model]`.

        Args:
            edits: The sites that are changed, and how. Each edit gets the activation of all copies.
            copies: The number of copies of the batch, which the edits tell apart.
            last: The last block that is wanted, if only what edits see there matters: later ones may not be called,
                and what is returned has no meaning.
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
        """How many copies of the batch are run at once, so that their activations fit into the memory for them."""
        import torch

        if self._hooked:
            return 1  # a hook of the user may tell the prompts of the batch apart
        view, cfg = self.view, self.view.cfg
        width = int(cfg.d_model)
        inner = max(int(getattr(cfg, "d_mlp", None) or 0), 4 * width)
        numbers = 12 * width + 3 * inner + 4 * view.n_heads * view.n_pos
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
        """The blocks that can be called by themselves. None if they cannot; `why_whole` says why."""
        if self._few:
            return None
        if self._hooked:
            self.why_whole = "there are hooks on the model, which may tell its prompts apart"
            return None
        try:
            return self._tested()
        except NotPlainError as error:
            self.why_whole = str(error)
        except Exception as error:  # whatever a block raises that was not made to be called by itself
            self.why_whole = f"a block cannot be called by itself ({type(error).__name__})"
        return None

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
    """Noise that is added to the stream before the first block, the same each time."""
    import torch

    generator = torch.Generator(device="cpu").manual_seed(0)
    drawn = torch.randn(stream.shape, generator=generator, device="cpu").to(stream)
    return drawn * (_NOISE * stream.std(-1, keepdim=True))


def perturbing(once: Run, batch: int, added: Tensor) -> Before:
    """A change of the first block's arguments: something is added to the stream after the first `batch` prompts."""
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
    """The blocks, compared with a whole run of the batch twice, of which the second half was changed.

    Args:
        blocks: The blocks.
        once: The run of the batch.
        twice: The run of the batch twice.
        added: What was added to the stream before the first block of the second half, after it was recorded.
        past: Returns a new key/value cache of the positions before, for the batch twice.

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
        check(stream, twice.streams[layer + 1], once.streams[layer + 1], layer)

    twice.streams[0] = torch.cat([twice.streams[0][:batch], twice.streams[0][batch:] + added])
    chain.run(0, twice.streams[0], 2, compare, past())
    # Begun later, blocks must not find anything that the run before has left: it had the halves in another order.
    swapped = [torch.cat([part[batch:], part[:batch]]) for part in twice.streams]

    def compare_swapped(layer: int, stream: Tensor) -> None:
        check(stream.flip(0), swapped[layer + 1].flip(0), once.streams[layer + 1].flip(0), layer)

    for start in sorted({len(blocks) // 2, len(blocks) - 1}):
        chain.run(start, swapped[start], 2, compare_swapped, past())
    return chain


_NOISE = 0.3
"""The noise in the stream before the first block, as a share of its standard deviation."""


def check(blocks: Tensor, whole: Tensor, clean: Tensor, layer: int) -> None:
    """Compare streams after a layer, of the unchanged batch and of the changed one.

    Raises:
        NotPlainError: If they differ by more than rounding, compared with what the change does.
    """
    mine, own, before = (working(tensor) for tensor in (blocks, whole, clean))
    effect = (own[len(before) :] - before).norm().clamp(min=1e-30)
    error = (mine - own).norm() / effect
    step = step_of(whole.dtype)
    if not bool(error <= max(1e-3, 32 * step)):
        raise NotPlainError(f"block {layer}, called by itself, does not give what it gives in the model")
