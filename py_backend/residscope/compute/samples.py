"""Some figures of each tensor: what is written past PyTorch's count shows in them.

A fused optimizer, `weight.data.mul_(2)` and tensors of inference mode leave PyTorch's counters as they were. Of each
tensor the same elements are read each time, spread over all of its rows and columns; they come in one piece from each
device. A change of a few elements beside them is not seen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from residscope.compute.torch_context import without_gradients

if TYPE_CHECKING:
    from torch import Tensor

MOST = 64
"""So many elements of a tensor, at most; one of no more is read whole."""

_TENSORS = 2048
"""Of so many tensors, at most: of more, some are drawn once and for all, so that looking stays quick."""

_SHORT = 1024
"""A vector of no more elements is read whole: many of them in one piece are quicker than a few elements of each."""

_FEW = 8
"""A dimension of so few places (experts, LoRA's rank) is read at each of them."""


_Path = tuple[int, tuple[int, ...], tuple[int, ...]]
"""A tensor's place, and size and stride of the view through it that is read; a vector that is read whole has none, nor
has a single figure."""


class Samples:
    """Which elements of which tensors are read. It holds for these tensors while they lie where they lie.

    Args:
        tensors: All of them.
        drawn: The places of those that are read; by default all.
    """

    def __init__(self, tensors: list[Tensor], drawn: Sequence[int] | None = None) -> None:
        drawn = range(len(tensors)) if drawn is None else drawn
        if len(drawn) > _TENSORS:
            drawn = sorted(random.Random(0).sample(drawn, _TENSORS))
        self._groups: dict[Any, dict[Any, list[_Path]]] = {}
        for index in drawn:
            tensor = tensors[index]
            if _is_readable(tensor):
                whole = tensor.ndim == 1 and tensor.stride() == (1,) and tensor.numel() <= _SHORT
                size, stride = ((), ()) if whole else _path(tuple(tensor.shape), tensor.stride())
                self._groups.setdefault(tensor.device, {}).setdefault(tensor.dtype, []).append((index, size, stride))

    def read(self, tensors: list[Tensor]) -> tuple[bytes | None, ...]:
        """The elements, as one piece for each device; None for what cannot be read."""
        import torch

        # No user's code: of subclasses and modes. `as_strided` refuses what lies outside of the memory.
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            groups = self._groups.values()
            return without_gradients(lambda: tuple(_read(tensors, list(kinds.values())) for kinds in groups))


def samples(tensors: list[Tensor]) -> list[bytes | None]:
    """The elements of each of a few tensors; None for what cannot be read."""
    import torch

    by_device: dict[Any, list[int]] = {}
    for index, tensor in enumerate(tensors):
        if _is_readable(tensor):
            by_device.setdefault(tensor.device, []).append(index)
    with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
        return without_gradients(lambda: _of_each(tensors, by_device))


def _of_each(tensors: list[Tensor], by_device: dict[Any, list[int]]) -> list[bytes | None]:
    """The elements of each, where they can be read."""
    found: list[bytes | None] = [None] * len(tensors)
    for indices in by_device.values():
        paths = [[(i, *_path(tuple(tensors[i].shape), tensors[i].stride()))] for i in indices]
        whole, start = _read(tensors, paths), 0
        for index, [(_, size, _stride)] in zip(indices, paths, strict=True):
            count = tensors[index].element_size()
            for length in size:
                count *= length
            found[index] = None if whole is None else whole[start : start + count]
            start += count
    return found


def _read(tensors: list[Tensor], kinds: list[list[_Path]]) -> bytes | None:
    """Some elements of tensors of one device, of one dtype after another."""
    import torch

    strided, pieces = torch.Tensor.as_strided, list[Any]()
    try:
        for kind in kinds:
            # Whole vectors apart from strided views: `cat` takes twice as long where both are among its inputs.
            whole = [tensors[index] for index, size, _ in kind if not size]
            some = [strided(tensors[index], size, stride) for index, size, stride in kind if size]
            for group in (whole, some):
                flat = [one if one.ndim == 1 else one.reshape(-1) for one in group]
                if flat:
                    # Bits: NaN is the same as NaN; and what has one byte (float8) knows no `cat` of its own.
                    bits = [one.view(torch.uint8) for one in flat] if flat[0].element_size() == 1 else flat
                    pieces.append(torch.cat(bits).view(torch.uint8))
        if pieces[0].device.type == "cpu":
            return b"".join([piece.numpy().tobytes() for piece in pieces])
        return (torch.cat(pieces) if len(pieces) > 1 else pieces[0]).cpu().numpy().tobytes()
    except Exception:  # a device in trouble says so where its figures are wanted
        return None


def _is_readable(tensor: Tensor) -> bool:
    """Whether a tensor is one piece of memory that is there, and brings no code of its own."""
    import torch

    own: Any = type(tensor)
    with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
        try:
            extent = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
            return (
                own.__torch_dispatch__ is torch.Tensor.__torch_dispatch__  # pyright: ignore
                and not tensor.is_meta
                and not tensor.is_quantized
                and not tensor.is_conj()
                and tensor.layout == torch.strided
                and tensor.numel() > 0
                and tensor.untyped_storage().nbytes() >= (tensor.storage_offset() + extent) * tensor.element_size()
            )
        except Exception:  # no plain tensor
            return False


@lru_cache(4096)
def _path(shape: tuple[int, ...], stride: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Size and stride of a view through a tensor: all of its small dimensions, and a diagonal through the others."""
    size, steps, room, long = list[int](), list[int](), MOST, list[tuple[int, int]]()
    for length, step in sorted(zip(shape, stride, strict=True)):
        if length <= _FEW and length <= room:
            size.append(length)
            steps.append(step)
            room //= length
        else:
            long.append((length, step))
    if long:
        count = _count([length for length, _ in long], room)
        size.append(count)
        steps.append(sum((length - 1) // max(count - 1, 1) * step for length, step in long))
    return tuple(size), tuple(steps)


def _count(lengths: list[int], most: int) -> int:
    """How many places of a diagonal; that number with which it comes nearest to the end of each dimension."""
    most = max(1, min(most, *lengths))

    def covered(count: int) -> tuple[float, int]:
        reached = min((n - 1) // max(count - 1, 1) * (count - 1) / max(n - 1, 1) for n in lengths)
        return reached, count

    return max(range(most // 2 + 1, most + 1), key=covered)
