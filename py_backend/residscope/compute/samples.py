"""Samples some elements of each tensor, to notice changes that PyTorch does not count.

PyTorch's version counter does not count changes by a fused optimizer or by `weight.data.mul_(2)`. It does not count
changes of inference tensors either. This module reads the same elements of a tensor each time. They are spread over all
of its rows and columns. All samples of a device are copied at once. If only a few other elements change, this is not
noticed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from residscope.compute.torch_context import without_gradients

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_SAMPLES = 64
"""At most this many elements of a tensor are read, except for short vectors. A smaller tensor is read completely."""

_MAX_TENSORS = 2048
"""At most this many tensors are read, to be fast. If there are more, a fixed random selection is read."""

_MAX_WHOLE_VECTOR = 1024
"""`Samples` reads a vector of at most this many elements completely, because selecting some elements takes longer."""

_SMALL_DIMENSION = 8
"""A dimension of at most this size (experts, the rank of LoRA) is read completely, if `MAX_SAMPLES` allows it."""


_SampledView = tuple[int, tuple[int, ...], tuple[int, ...]]
"""Which elements of a tensor are read: the tensor's index in the list, and the size and the stride of a view of it.
Size and stride are empty if the whole tensor is read."""


class Samples:
    """Reads the same elements of each tensor in each call. Valid until a shape, a stride or a device changes.

    Args:
        tensors: All tensors.
        chosen: Indices of the tensors that are read. By default all.
    """

    def __init__(self, tensors: list[Tensor], chosen: Sequence[int] | None = None) -> None:
        chosen = range(len(tensors)) if chosen is None else chosen
        if len(chosen) > _MAX_TENSORS:
            chosen = sorted(random.Random(0).sample(chosen, _MAX_TENSORS))
        self._groups: dict[torch.device, dict[object, list[_SampledView]]] = {}
        self._last: dict[torch.device, bytes | list[Tensor] | None] = {}
        self._spare: dict[torch.device, list[Tensor]] = {}
        for index in chosen:
            tensor = tensors[index]
            if _is_readable(tensor):
                whole = tensor.ndim == 1 and tensor.stride() == (1,) and tensor.numel() <= _MAX_WHOLE_VECTOR
                size, stride = ((), ()) if whole else _sampled_view(tuple(tensor.shape), tensor.stride())
                self._groups.setdefault(tensor.device, {}).setdefault(tensor.dtype, []).append((index, size, stride))

    def changed(self, tensors: list[Tensor]) -> bool:
        """Read the elements, and return whether any element differs from the last call. The first call returns True.

        If a device cannot be read, its elements count as changed once, and once more when it can be read again.
        """
        import torch

        # `DisableTorchFunction` keeps code of the user (tensor subclasses, modes) from running. `as_strided` refuses
        # views beyond the memory.
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            found = without_gradients(lambda: [self._differs(device, tensors) for device in self._groups])
        return any(found)

    def _differs(self, device: torch.device, tensors: list[Tensor]) -> bool:
        """Read the elements of one device, and return whether any element differs from the last call."""
        kinds, is_first, last = list(self._groups[device].values()), device not in self._last, self._last.get(device)
        if device.type != "cpu":
            now = self._last[device] = _read(tensors, kinds)
            return is_first or now != last
        # On the CPU the pieces stay tensors, because reusing their memory is faster than allocating memory again.
        try:
            pieces = self._last[device] = _pieces(tensors, kinds, self._spare.get(device, ()))
        except Exception:  # a failing device raises again when its values are used
            self._last[device] = None
            return is_first or last is not None
        if not isinstance(last, list):
            return True
        self._spare[device] = last
        return not all(map(_equal, pieces, last))


def samples(tensors: list[Tensor]) -> list[bytes | None]:
    """Return the sampled elements of each tensor as bytes. None for a tensor that cannot be read."""
    import torch

    by_device: dict[torch.device, list[int]] = {}
    for index, tensor in enumerate(tensors):
        if _is_readable(tensor):
            by_device.setdefault(tensor.device, []).append(index)
    with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
        return without_gradients(lambda: _samples_by_tensor(tensors, by_device))


def _samples_by_tensor(tensors: list[Tensor], by_device: dict[torch.device, list[int]]) -> list[bytes | None]:
    found: list[bytes | None] = [None] * len(tensors)
    for indices in by_device.values():
        paths = [[(i, *_sampled_view(tuple(tensors[i].shape), tensors[i].stride()))] for i in indices]
        whole, start = _read(tensors, paths), 0
        for index, [(_, size, _stride)] in zip(indices, paths, strict=True):
            count = tensors[index].element_size()
            for length in size:
                count *= length
            found[index] = None if whole is None else whole[start : start + count]
            start += count
    return found


def _read(tensors: list[Tensor], kinds: list[list[_SampledView]]) -> bytes | None:
    """The sampled elements of tensors of one device, grouped by dtype, as bytes. None if they cannot be read."""
    import torch

    try:
        pieces = [piece.view(torch.uint8) for piece in _pieces(tensors, kinds)]
        if pieces[0].device.type == "cpu":
            return b"".join([piece.numpy().tobytes() for piece in pieces])
        return (torch.cat(pieces) if len(pieces) > 1 else pieces[0]).cpu().numpy().tobytes()
    except Exception:  # a failing device raises again when its values are used
        return None


def _pieces(tensors: list[Tensor], kinds: list[list[_SampledView]], spare: Sequence[Tensor] = ()) -> list[Tensor]:
    """The sampled elements of tensors of one device, grouped by dtype. They are written into `spare`, if given."""
    import torch

    strided, pieces = torch.Tensor.as_strided, list[Any]()
    for kind in kinds:
        # `cat` takes twice as long for a mixture of whole vectors and strided views, so `cat` is called for each kind.
        whole = [tensors[index] for index, size, _ in kind if not size]
        views = [strided(tensors[index], size, stride) for index, size, stride in kind if size]
        for group in (whole, views):
            flat = [one if one.ndim == 1 else one.reshape(-1) for one in group]
            if flat:
                # float8 is viewed as bytes, because `cat` does not support float8.
                bits = [one.view(torch.uint8) for one in flat] if flat[0].element_size() == 1 else flat
                out = spare[len(pieces)] if len(pieces) < len(spare) else None
                usable = out is not None and not out.is_inference()
                pieces.append(torch.cat(bits, out=out) if usable else torch.cat(bits))
    return pieces


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two vectors on the CPU have the same bits."""
    import torch

    length = one.numel() * one.element_size()
    kind = torch.int64 if length % 8 == 0 and one.element_size() <= 8 else torch.uint8
    return one.numel() == other.numel() and bool((one.view(kind).numpy() == other.view(kind).numpy()).all())


def _is_readable(tensor: Tensor) -> bool:
    """Whether a tensor has memory that can be read, and its class runs no code of the user when it is read."""
    import torch

    cls: Any = type(tensor)
    with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
        try:
            extent = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
            return (
                cls.__torch_dispatch__ is torch.Tensor.__torch_dispatch__  # pyright: ignore
                and not tensor.is_meta
                and not tensor.is_quantized
                and not tensor.is_conj()
                and tensor.layout == torch.strided
                and tensor.numel() > 0
                and tensor.untyped_storage().nbytes() >= (tensor.storage_offset() + extent) * tensor.element_size()
            )
        except Exception:  # not a plain tensor
            return False


@lru_cache(4096)
def _sampled_view(shape: tuple[int, ...], stride: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The size and the stride of the sampled view: all of the small dimensions, and a diagonal through the others."""
    size, steps, room, long = list[int](), list[int](), MAX_SAMPLES, list[tuple[int, int]]()
    for length, step in sorted(zip(shape, stride, strict=True)):
        if length <= _SMALL_DIMENSION and length <= room:
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
    """The number of elements of the diagonal. It is chosen so that the diagonal reaches far into each dimension."""
    most = max(1, min(most, *lengths))

    def covered(count: int) -> tuple[float, int]:
        reached = min((n - 1) // max(count - 1, 1) * (count - 1) / max(n - 1, 1) for n in lengths)
        return reached, count

    return max(range(most // 2 + 1, most + 1), key=covered)
