"""The linear map that a layer really applies, which is not always what its `weight` holds.

An adapter (LoRA) adds to it, a quantised layer keeps whole numbers and scales, an offloaded one keeps it elsewhere.
Where a layer is not one that is known to be x @ weight + bias, its answer to the identity is its map, and its answers
to a few other vectors show whether it is one. A copy of it is asked: some layers count, observe or keep what they read,
and the user's own are to stay as they are. Its `forward` is called by itself, so that no hook on it hears of this.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

from residscope.cache.layer_state import asking
from residscope.cache.view import CacheView
from residscope.cache.weights import figures, known_layers, refused, tensors_of, unusable, wrapped
from residscope.compute.precision import step_of, working
from residscope.compute.progress import report_progress

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_FIGURES = 16_000_000
"""So many figures of a map are asked for at once."""


class _UnreadError(Exception):
    """Why a layer's map cannot be had, in words that follow "what it does"."""


_COARSEST = 2**-8
"""A layer's answers may be rounded as bfloat16 is: some compute in it whatever they are asked in. What quantises its
input, too, is farther off."""


_ROWS = 64
"""So many vectors a layer is tried on: as in a prompt, since some layers compute otherwise for a single one."""

_LARGE = 32
"""A layer is tried on vectors so many times as long, too: some bound what they read."""

_COPIED = 4_000_000_000
"""A layer of more bytes is not copied, and so not tried."""


@dataclass(frozen=True)
class LinearMap:
    """x @ matrix + bias.

    Attributes:
        matrix: The map.
        bias: What is added; None where nothing is.
        made: Whether the matrix was made here, and is not the layer's own weight.
        coarse: How far the layer's own answers were from it on a trial, relatively: by the layer's own rounding.
    """

    matrix: Float[Tensor, "input output"]
    bias: Float[Tensor, " output"] | None
    made: bool = True
    coarse: float = 0.0

    @property
    def size(self) -> int:
        """Bytes that keeping it takes."""
        return self.matrix.nbytes if self.made else 0


def applied(module: Any, view: CacheView, width: int | None = None) -> LinearMap:
    """The map that a layer applies.

    Args:
        module: The layer, or the bridge's component for it.
        view: The cache; its precision and device are those that the layer is asked in.
        width: How many figures the layer reads, where it does not say so itself.

    Raises:
        ResidscopeError: If it cannot be had, or the layer applies no linear map; the sentence says which layer.
    """
    import torch

    layer, conv = wrapped(module), known_layers()[-1]
    if _elsewhere(layer):
        found = figures(module, "weight", layer.weight)  # as accelerate keeps it: read, and not loaded into the layer
        bias = getattr(layer, "bias", None)
        matrix = found if type(layer) is conv and conv is not torch.nn.Linear else found.T
        return LinearMap(matrix, None if bias is None else figures(module, "bias", bias))
    try:
        with _copy_of(layer) as own:
            return _asked(own, layer, view, getattr(layer, "in_features", None) or width)
    except _UnreadError as error:
        raise refused(module, str(error)) from None


def applied_rows(module: Any, view: CacheView, count: int) -> Float[Tensor, "token d_model"]:
    """What an embedding that is not known as one gives for each of so many tokens.

    Raises:
        ResidscopeError: If it cannot be asked.
    """
    import torch

    layer = wrapped(module)
    if _elsewhere(layer):
        return figures(module, "weight", layer.weight)
    try:
        with _copy_of(layer) as own:
            ids = torch.arange(count, device=_device(own, view))
            return torch.cat([_answer(own, some[None])[0] for some in ids.split(4096)])
    except _UnreadError as error:
        raise refused(module, str(error)) from None


def asked(module: Any, view: CacheView, rows: Float[Tensor, "row input"]) -> Float[Tensor, "row output"]:
    """What a layer, linear or not, gives for some vectors.

    Raises:
        ResidscopeError: If it cannot be asked.
    """
    layer = wrapped(module)
    try:
        with _copy_of(layer) as own:
            rows = rows.to(_device(own, view))
            return _asker(own, view, rows.shape[-1], rows.device)(rows)
    except _UnreadError as error:
        raise refused(module, str(error)) from None


def _elsewhere(layer: Any) -> bool:
    """Whether a layer is a plain one whose weight is kept elsewhere between runs."""
    weight = getattr(layer, "weight", None)
    return type(layer) in known_layers() and weight is not None and weight.is_meta


def not_so(module: Any, view: CacheView, found: LinearMap, rows: Float[Tensor, "row input"]) -> str | None:
    """Why a layer that was asked for its map does not apply it to what it read in a run; None if it does.

    Args:
        module: The layer, or the bridge's component for it.
        view: The cache.
        found: Its map.
        rows: What it read.
    """
    import torch

    long, layer = rows.abs().amax(-1), wrapped(module)
    if _elsewhere(layer):
        return None
    # The longest, which are what a layer may bound, and some others.
    some = torch.cat([long.topk(min(_ROWS // 2, len(rows))).indices, _spread(len(rows), long.device)])
    try:
        with _copy_of(layer) as own:
            rows = rows[some].to(_device(own, view))
            off = _off(_asker(own, view, rows.shape[-1], rows.device), found.matrix, found.bias, rows)
    except _UnreadError as error:
        return str(refused(module, str(error)))
    why = f"is not the linear map that it was on a trial (off by {off:.2g} of it on what it read in this run)"
    return None if off <= _COARSEST else str(refused(module, why))


def _spread(count: int, device: Any) -> Tensor:
    """Half of the rows that are asked, evenly spread."""
    import torch

    return torch.linspace(0, count - 1, min(_ROWS // 2, count), device=device).round().long()


@contextmanager
def _copy_of(layer: Any) -> Generator[Any, None, None]:
    """A copy of a layer, to be asked: whatever it draws or keeps is nobody's.

    Raises:
        _UnreadError: If it may not be asked, or cannot be copied.
    """
    import torch

    _check_can_be_asked(layer)
    device = next((tensor.device for tensor in tensors_of(layer)), torch.device("cpu"))
    with torch.no_grad(), nothing_drawn(device):
        own = _copy(layer)
        with asking(own, layer):
            yield own


def _copy(layer: Any) -> Any:
    """A copy of a layer without the hooks on it.

    Raises:
        _UnreadError: If there is none.
    """
    import torch

    memo = _Copied()
    for inner in layer.modules():
        for name, value in [*vars(inner).items(), *inner.named_buffers(recurse=False)]:
            if name.endswith("_hooks") and isinstance(value, dict):
                memo[id(value)] = OrderedDict[int, Any]()  # hooks may refer to the whole model
            elif isinstance(value, torch.Tensor) and not value.is_leaf:  # which refuses to be copied
                memo[id(value)] = value.detach().clone()
    try:
        own = deepcopy(layer, memo)
        for inner, copied in zip(layer.modules(), own.modules(), strict=True):
            replaced = vars(inner).get("forward")
            if isinstance(replaced, FunctionType):  # which `deepcopy` leaves as it is, with the layer inside it
                copied.forward = _copied_function(replaced, memo)
        return own
    except Exception as error:
        why = f"{type(error).__name__}: {error}".strip(": ")
        raise _UnreadError(f"cannot be determined: it is tried on a copy, and none can be made ({why})") from None


def _copied_function(function: FunctionType, memo: _Copied) -> FunctionType:
    """A function that reaches the copies of what it reached."""
    import torch

    named = map(function.__globals__.get, function.__code__.co_names)
    if any(isinstance(value, torch.nn.Module) for value in named):
        raise TypeError("its `forward` is a function that reads a module by its name")
    cells = tuple(CellType(deepcopy(cell.cell_contents, memo)) for cell in function.__closure__ or ())
    return FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, cells)


class _Copied(dict[int, Any]):
    """What was copied already, for `deepcopy`; it ends what grows too large."""

    size = 0

    def __setitem__(self, key: int, value: Any) -> None:
        super().__setitem__(key, value)
        self.size += int(getattr(value, "nbytes", 0)) if hasattr(value, "untyped_storage") else 0
        if self.size > _COPIED:
            raise MemoryError(f"it holds more than {_COPIED // 10**9} GB")


@contextmanager
def nothing_drawn(device: Any) -> Generator[None, None, None]:
    """Give every random generator its state back afterwards: PyTorch's, Python's and NumPy's."""
    import random
    import sys

    import torch

    numpy = sys.modules.get("numpy")
    states: list[tuple[Callable[[Any], Any], Any]] = [(random.setstate, random.getstate())]
    if numpy is not None:
        states.append((numpy.random.set_state, numpy.random.get_state()))
    if device.type == "mps":
        states.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
    forked = device.type if device.type in ("cuda", "xpu") else "cpu"
    with ExitStack() as stack:
        for give_back, state in states:
            stack.callback(give_back, state)
        if forked == "cpu":
            stack.enter_context(torch.random.fork_rng([]))
        else:
            stack.enter_context(torch.random.fork_rng([device], device_type=forked))
        yield


def _asked(layer: Any, original: Any, view: CacheView, width: Any) -> LinearMap:
    import torch

    if not isinstance(width, int):
        raise _UnreadError("cannot be determined: it does not say how many figures it reads")

    device = _device(layer, view)
    ask = _asker(layer, view, width, device)
    nothing = torch.zeros(_ROWS, width, device=device)
    bias = ask(nothing)[0]
    each = max(1, _FIGURES // max(width, bias.shape[-1]))
    blocks = [ask(rows) - bias for rows in _identity(width, each, device)]
    matrix = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
    generator = torch.Generator(device="cpu").manual_seed(0)
    some = torch.randn(_ROWS, width, generator=generator, device="cpu").to(device)
    if not torch.equal(ask(some), ask(some)):
        raise _UnreadError("cannot be determined: it answers the same question differently each time")
    off = max(_off(ask, matrix, bias, rows) for rows in (some, some * _LARGE))
    if not off <= _COARSEST:
        raise _UnreadError(f"is not a linear map of what it reads (off by {off:.2g} of it on a trial)")
    own = getattr(original, "weight", None)
    if own is not None and type(own) in (torch.Tensor, torch.nn.Parameter) and own.dtype == matrix.dtype:
        for same in (own.detach().T, own.detach()):
            if same.shape == matrix.shape and torch.equal(same, matrix):
                return LinearMap(same, bias if bool(bias.any()) else None, made=False)
    return LinearMap(matrix, bias if bool(bias.any()) else None, coarse=off)


def _off(ask: Callable[[Tensor], Tensor], matrix: Tensor, bias: Tensor | None, rows: Tensor) -> float:
    """How far a layer's answers are from a map's, relatively to what the map makes of these rows."""
    answer = ask(rows)
    expected, rounded = working(rows.to(answer.dtype)) @ working(matrix), 0.0
    off = expected - working(answer)
    if bias is not None:
        off = off + working(bias)
        rounded = step_of(answer.dtype) * float(bias.norm()) * len(rows) ** 0.5  # of a bias that is far larger
    return max(float(off.norm()) - rounded, 0.0) / max(float(expected.norm()), 1e-30)


def _identity(width: int, each: int, device: Any) -> Iterator[Tensor]:
    """The rows of the identity, some at a time."""
    import torch

    for start in range(0, width, each):
        report_progress(start, width)
        rows = torch.zeros(min(each, width - start), width, device=device)
        rows[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = 1
        yield rows


def _asker(layer: Any, view: CacheView, width: int, device: Any) -> Callable[[Tensor], Tensor]:
    """What asks the layer, in the first precision that it takes."""
    import torch

    kinds = [view.stream.dtype, *(t.dtype for t in tensors_of(layer)), torch.float32]
    kinds = [kind for kind in dict.fromkeys(kinds) if kind.is_floating_point and kind.itemsize > 1]
    trial, why = torch.zeros(1, _ROWS, width, device=device), _UnreadError("cannot be determined")
    for kind in kinds:
        try:
            _answer(layer, trial.to(kind))
        except _UnreadError as error:
            why = error
            continue
        return lambda rows: _answer(layer, rows.to(kind)[None])[0]
    raise why


def _answer(layer: Any, question: Tensor) -> Tensor:
    """The layer's answer; past the hooks on it, of PyTorch and of TransformerLens."""
    import torch

    try:
        answer = layer.forward(question)
    except Exception as error:
        raise _UnreadError(f"cannot be determined: on a trial it raises {type(error).__name__}: {error}") from None
    fits = isinstance(answer, torch.Tensor) and answer.shape[:2] == question.shape[:2] and answer.ndim == 3
    if not fits or not answer.is_floating_point():
        raise _UnreadError("cannot be determined: on a trial it answers with something else than a row for each row")
    if not bool(answer.isfinite().all()):
        raise _UnreadError("cannot be determined: on a trial it answers with NaN or infinity")
    return answer.detach()


def _check_can_be_asked(layer: Any) -> None:
    """Refuse a layer whose figures are not there, whose answer is random, or inside which hooks would hear of it."""
    import torch

    if not callable(getattr(layer, "forward", None)):
        raise _UnreadError("cannot be determined: it is not a module")
    for tensor in tensors_of(layer):
        why = unusable(tensor)
        if why is not None and (tensor.is_meta or "sharded" in why or "emptied" in why):
            raise _UnreadError(f"cannot be read: its weight {why}")
    inner = list(layer.modules())
    for module in inner:
        random = isinstance(module, torch.nn.modules.dropout._DropoutNd) and module.p > 0  # pyright: ignore[reportPrivateUsage]
        if random and module.training:
            raise _UnreadError("is random: it has dropout and is in training mode. Call `model.eval()`")
    spies: Any = torch.nn.modules.module
    everywhere = spies._global_forward_hooks or spies._global_forward_pre_hooks
    if any(module._forward_hooks or module._forward_pre_hooks for module in inner[1:]) or (everywhere and inner[1:]):
        raise _UnreadError(
            "cannot be determined: there are hooks inside it, which may change what it does. Remove them"
        )


def _device(layer: Any, view: CacheView) -> Any:
    return next((tensor.device for tensor in tensors_of(layer)), view.stream.device)
