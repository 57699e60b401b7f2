"""Runs that are changed only at the position where the target is read: only this position is run.

In a decoder, earlier positions do not depend on later ones. The keys and values of earlier positions are computed once,
by the model, in its own key/value cache. Each block is then called with one position and a copy of this cache. Tests
compare such runs with whole runs of all positions: without a change, and with noise at this position.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from residscope.cache.positions import real
from residscope.causes.arguments import NotPlainError
from residscope.causes.hooks import has_user_hooks, hooks
from residscope.causes.replay import NEW, Replay, Run, whole_run
from residscope.causes.runner import Chain, Edit, check, noise, perturbing, tested
from residscope.causes.sites import Site
from residscope.compute.precision import step_of, working

if TYPE_CHECKING:
    from torch import Tensor


class LastRunner:
    """Makes runs that are changed at one position only.

    Args:
        replay: The run that is changed.
        at: The position, the same in all prompts.

    Attributes:
        window: The positions that are run.
        why_whole: Always empty, because whole runs are made by `Runner`.

    Raises:
        NotPlainError: If the results differ from those of whole runs. A model that raises another exception cannot be
            run in this way either.
    """

    why_whole = ""

    def __init__(self, replay: Replay, at: int) -> None:
        if at == 0 or replay.run.why_not_plain:
            raise NotPlainError("there is nothing before this position")
        self.replay, self.view, self.window = replay, replay.view, slice(at, at + 1)
        self._copied: _Copied | None = None
        tokens, mask = replay.tokens, replay.mask
        self._past = shortened(replay.run.past, tokens.shape[1] - at)
        if self._past is None:
            before = self._run(tokens[:, :at], None if mask is None else mask[:, :at], NEW)
            self._agree(before, slice(0, at))
            self._past = before.past
        end = None if mask is None else mask[:, : at + 1]
        once = self._run(tokens[:, at : at + 1], end, self.past(1))
        self._agree(once, self.window)
        self._streams = once.streams
        added = noise(once.streams[0])
        twice = self._run(
            tokens[:, at : at + 1].repeat(2, 1), None if end is None else end.repeat(2, 1), self.past(2), (once, added)
        )
        self.chain: Chain = tested(list(self.view.model.blocks), once, twice, added, lambda: self.past(2))
        self._check_whole(at, added, twice, once)

    def changed(self, edits: Sequence[tuple[Site, Edit]], copies: int) -> Tensor:
        """See `Runner.changed`. The result has only this one position."""
        batch = self.view.batch
        with hooks() as own:
            for site, edit in edits:
                own.after(site.module, site.change(edit, copies * batch))
            layer = min(site.layer for site, _ in edits)
            final = self.chain.run(layer, self._streams[layer].repeat(copies, 1, 1), copies, past=self.past(copies))
        return final.reshape(copies, batch, *final.shape[1:])

    @cached_property
    def copies(self) -> int:
        """The number of copies of the batch that are run at once."""
        size = 2 * sum(tensor.nbytes for tensor in _tensors(self._past).values())  # the copy, and the run's new tensors
        size += self.view.batch * 30 * int(self.view.cfg.d_model) * self.replay.run.final.element_size()
        return max(1, min(_MEMORY // max(size, 1), 1024))

    def past(self, copies: int) -> Any:
        """Return a copy of the key/value cache of the earlier positions, for this many copies of the batch.

        Calls in a row with the same number share their tensors, until a run writes into them (few models do).
        """
        if self._copied is None or self._copied.copies != copies or self._copied.is_written:
            self._copied = None  # frees the old tensors before the new ones are made
            self._copied = _Copied.of(self._past, copies, self.view.batch)
        return _with_tensors(self._past, self._copied.tensors)

    def _run(
        self, tokens: Tensor, mask: Tensor | None, past: object, perturbed: tuple[Run, Tensor] | None = None
    ) -> Run:
        with hooks() as own:
            if perturbed is not None:
                own.before(self.view.model.blocks[0], perturbing(perturbed[0], self.view.batch, perturbed[1]))
            return whole_run(self.view, tokens, mask, own, past=past)

    def _agree(self, run: Run, window: slice) -> None:
        """Compare a run of some positions with the replay.

        Raises:
            NotPlainError: If the run differs from the replay.
        """
        import torch

        for mine, own in zip(run.streams, self.replay.run.streams, strict=True):
            if mine is None or own is None:
                raise NotPlainError("a block is not called with the stream")
            expected = working(own[:, window])
            if step_of(own.dtype) > _FINE and not torch.equal(mine, own[:, window]):
                raise NotPlainError("in this precision the key/value cache changes the rounding")
            error = (working(mine) - expected).norm() / expected.norm().clamp(min=1e-30)
            if not bool(error <= max(1e-4, 4 * step_of(own.dtype))):
                raise NotPlainError("with a key/value cache the model gives something else")

    def _check_whole(self, at: int, added: Tensor, twice: Run, once: Run) -> None:
        """Compare two runs that have the same noise at this position: a run of only this position, and a whole run.

        Few prompts are enough, because all prompts were compared without noise before.
        """
        import torch

        lengths = real(self.view).sum(1)
        some = sorted({int(lengths.argmin()), int(lengths.argmax())})
        whole = torch.zeros_like(self.replay.run.streams[0][some])
        whole[:, at] = added[some, 0]
        mask = None if self.replay.mask is None else self.replay.mask[some]
        with hooks() as own:
            own.before(self.view.model.blocks[0], perturbing(self.replay.run, 0, whole))
            run = whole_run(self.view, self.replay.tokens[some], mask, own, record=False, keep=False)
        clean = once.streams[-1][some]
        mine = torch.cat([clean, twice.streams[-1][self.view.batch :][some]])
        check(mine, torch.cat([clean, run.final[:, self.window]]), clean, len(self.view.model.blocks) - 1)


def shortened(past: object, count: int) -> object:
    """Return a copy of a key/value cache without the last positions. None if it cannot be shortened.

    Args:
        past: The cache.
        count: The number of positions that are left out.
    """
    if not isinstance(getattr(past, "layers", None), list) or not callable(getattr(past, "crop", None)):
        return None
    try:
        # The copy shares the tensors: `crop` takes parts of them, and writes into none.
        copied: Any = _with_tensors(past, _tensors(past))
        length = copied.get_seq_length()
        copied.crop(-count)
        return copied if copied.get_seq_length() == length - count else None
    except Exception:  # other versions of transformers, and other caches, may raise anything
        return None


@dataclass(frozen=True)
class _Copied:
    """The tensors of a key/value cache, for several copies of the batch.

    Attributes:
        copies: The number of copies.
        tensors: The tensors. The keys are the `id` of the originals.
        versions: For each tensor, PyTorch's count of writes when the copy was made. None if PyTorch does not count
            them.
    """

    copies: int
    tensors: dict[int, Tensor]
    versions: list[int | None]

    @classmethod
    def of(cls, past: object, copies: int, batch: int) -> _Copied:
        import torch

        def repeated(tensor: Tensor) -> Tensor:
            if tensor.ndim < 2 or tensor.shape[0] != batch:
                return tensor.clone()
            return torch.cat([tensor] * copies)

        tensors = {key: repeated(tensor) for key, tensor in _tensors(past).items()}
        return cls(copies, tensors, [_version(tensor) for tensor in tensors.values()])

    @property
    def is_written(self) -> bool:
        """Whether a tensor was written into after the copy was made. Also True if PyTorch does not count writes."""
        now = [_version(tensor) for tensor in self.tensors.values()]
        return None in now or now != self.versions


def _with_tensors(past: object, tensors: dict[int, Tensor]) -> object:
    """A copy of a key/value cache with these tensors. Their keys are the `id` of the tensors that they replace."""
    memo: dict[int, object] = dict(tensors)  # `deepcopy` takes these tensors instead of copying
    return deepcopy(past, memo)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version  # inference tensors do not count writes


def _tensors(thing: object, found: dict[int, Tensor] | None = None, depth: int = 0) -> dict[int, Tensor]:
    """The tensors in an object's attributes and containers, by their `id`."""
    import torch

    found = {} if found is None else found
    if isinstance(thing, torch.Tensor):
        found[id(thing)] = thing
    elif depth < _DEEPEST and not isinstance(thing, str | bytes | int | float | type(None)):
        inner: list[Any] = list(thing.values()) if isinstance(thing, dict) else []
        inner += list(thing) if isinstance(thing, list | tuple) else []
        inner += list(vars(thing).values()) if hasattr(thing, "__dict__") and not callable(thing) else []
        for part in inner:
            _tensors(part, found, depth + 1)
    return found


_FINE = 1e-6
"""If the rounding step is larger, a run must equal the replay in each bit. Rounding would look like an effect."""

_MEMORY = 512_000_000
"""The limit of bytes for copies of the key/value cache."""

_DEEPEST = 6


def last_runner(replay: Replay, at: int) -> LastRunner | None:
    """Return the runner for one position. None if its tests fail, or a hook of the user may depend on the position."""
    if has_user_hooks(replay.view.model):
        return None
    try:
        return LastRunner(replay, at)
    except Exception:  # models without a key/value cache, or with an unusual one, may raise anything
        return None
