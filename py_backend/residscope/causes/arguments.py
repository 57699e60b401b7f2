"""The arguments with which a model calls one of its blocks, also for several copies of the batch.

The batch axis of an argument is not guessed. It is found from two runs of the model: one on the batch of prompts, and
one on this batch twice. If an argument is the same in both runs, it does not depend on the batch. If the second run's
argument is twice as long along an axis, and holds the values of the first twice, this axis is the batch axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_Path = tuple[Any, ...]


class _Past:
    """A placeholder for a key/value cache among recorded arguments. The real cache is not kept, because it grows."""


_PAST = _Past()


class NotPlainError(Exception):
    """Raised if blocks cannot be called one by one. Its message is the reason, in words that follow "because"."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call of a block.

    Attributes:
        args: The positional arguments, with None for the stream.
        kwargs: The named arguments, with None for the stream.
        stream: The place of the stream: its index in `args`, or its name in `kwargs`.
        axes: For each tensor that depends on the batch, the axis along which the tensor is repeated.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    stream: int | str
    axes: dict[_Path, int] = field(default_factory=dict)

    def call(
        self, block: Any, stream: Tensor, copies: int, repeated: dict[tuple[int, int], Tensor], past: object = None
    ) -> Any:
        """Call the block.

        Args:
            block: The block.
            stream: The stream, for all copies of the batch.
            copies: The number of copies of the batch.
            repeated: The arguments that were repeated already. Blocks that share an argument repeat it only once.
            past: The key/value cache of earlier positions. None: there is no such cache.
        """
        import torch

        def tiled(path: _Path, value: object) -> Any:
            if value is _PAST:
                return past
            axis = self.axes.get(path)
            if copies == 1 or axis is None or not isinstance(value, torch.Tensor):
                return value
            key = (id(value), copies)
            if key not in repeated:
                repeated[key] = torch.cat([value] * copies, axis)
            return repeated[key]

        args, kwargs = list(mapped(self.args, tiled)), mapped(self.kwargs, tiled)
        if isinstance(self.stream, int):
            args[self.stream] = stream
        else:
            kwargs[self.stream] = stream
        return block(*args, **kwargs)


def recorded(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Arguments, Tensor]:
    """Return the arguments of a call, with a placeholder for the key/value cache, and the stream.

    Raises:
        NotPlainError: If there is no stream among the arguments.
    """
    import torch

    places: list[tuple[int | str, Any]] = [*enumerate(args[:1]), *((name, kwargs.get(name)) for name in _STREAMS)]
    place = next((at for at, value in places if isinstance(value, torch.Tensor) and value.is_floating_point()), None)
    if place is None:
        raise NotPlainError("a block is not called with the stream")
    stream = args[place] if isinstance(place, int) else kwargs[place]
    kept = tuple(None if at == place else _without_cache(value) for at, value in enumerate(args))
    named = {name: None if name == place else _without_cache(value) for name, value in kwargs.items()}
    if named.get("use_cache") is True:
        named["use_cache"] = False
    return Arguments(mapped(kept, _detached), mapped(named, _detached), place), stream


_STREAMS = ("hidden_states", "resid_pre")


def _without_cache(value: object) -> object:
    """The value, or a placeholder if it is a key/value cache, which grows with each call."""
    grows = any(callable(getattr(value, name, None)) for name in ("get_seq_length", "append"))
    return _PAST if grows and not isinstance(value, list) else value


def _detached(_path: _Path, value: Any) -> Any:
    return value.detach() if hasattr(value, "detach") else value


def learned(once: Arguments, twice: Arguments) -> Arguments:
    """Return the arguments of a block's call, with the batch axis of each argument that depends on the batch.

    Args:
        once: The arguments of the call in the run on the batch.
        twice: The arguments of the call in the run on the batch twice. The stream of its second half may differ.

    Raises:
        NotPlainError: If an argument depends on the stream, or differs in an unknown way.
    """
    import torch

    first, second = _leaves((once.args, once.kwargs)), _leaves((twice.args, twice.kwargs))
    for value in first.values():
        _check_readable(value)
    if first.keys() != second.keys() or once.stream != twice.stream:
        raise NotPlainError("the model calls a block differently for another number of prompts")
    axes: dict[_Path, int] = {}
    for path, value in first.items():
        other = second[path]
        if not isinstance(value, torch.Tensor) or not isinstance(other, torch.Tensor):
            continue
        if value.shape == other.shape and torch.equal(value, other):
            continue
        longer = [at for at, (a, b) in enumerate(zip(value.shape, other.shape, strict=False)) if b == 2 * a and a]
        axis = longer[0] if value.ndim == other.ndim and longer else None
        if axis is None or not torch.equal(torch.cat([value, value], axis), other):
            raise NotPlainError("the model passes to a block something that depends on the stream")
        axes[path[1:]] = axis
    return Arguments(once.args, once.kwargs, once.stream, axes)


def _check_readable(value: object) -> None:
    """Refuse an argument that may carry unknown state from block to block.

    Raises:
        NotPlainError: If its type is unknown, or it is a mapping that is not empty after the run.
    """
    import torch

    known = (type(None), bool, int, float, str, torch.Tensor, torch.dtype, torch.device, torch.Size, _Past)
    if isinstance(value, known) or (isinstance(value, Mapping) and not value):
        return
    raise NotPlainError(f"the model passes an object of its own (`{type(value).__name__}`) from block to block")


def mapped(tree: Any, change: Callable[[_Path, Any], Any], path: _Path = ()) -> Any:
    """Return a tree of tuples, lists and dicts with each leaf changed."""
    if type(tree) is dict:
        return {name: mapped(value, change, (*path, name)) for name, value in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)(mapped(value, change, (*path, at)) for at, value in enumerate(tree))
    return change(path, tree)


def _leaves(tree: object) -> dict[_Path, object]:
    found: dict[_Path, Any] = {}

    def keep(path: _Path, value: object) -> object:
        found[path] = value
        return value

    mapped(tree, keep)
    return found
