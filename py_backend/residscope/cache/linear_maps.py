"""Finds the linear map that a layer applies. It is not always the layer's `weight`.

An adapter (LoRA) adds to the weight, a quantised layer stores integers and scales, and an offloaded layer keeps the
weight elsewhere. Some classes of layers are not known to compute x @ weight + bias. Their map is computed from the
layer's output for the identity matrix. The outputs for a few test vectors show whether the layer is linear at all.

Only a copy of the layer is called, because some layers count calls or store their input, and the user's layers must not
change. The copy's `forward` is called directly, so that no hook runs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

from residscope.cache.layer_state import probing
from residscope.cache.view import CacheView
from residscope.cache.weights import known_layers, stored_values, tensors_of, unreadable_layer, unusable, wrapped
from residscope.compute.precision import step_of, working
from residscope.compute.progress import report_progress
from residscope.compute.random_state import random_state_restored

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

_BLOCK = 16_000_000
"""At most this many entries of a matrix are computed at once."""


class _UnreadError(Exception):
    """The reason why a layer's map cannot be read, in words that follow "What … does"."""


_MOST_ROUNDING = 2**-8
"""The largest relative error that counts as rounding. It is the error of bfloat16, because some layers always compute
in bfloat16. Layers that also quantise their input have larger errors."""


_ROWS = 64
"""Number of test vectors. Several are used, as in a prompt, because some layers treat a single vector differently."""

_LARGE = 32
"""The layer is also tested with vectors that are this many times longer, because some layers clip their input."""

_MOST_COPIED = 4_000_000_000
"""The most bytes of a layer that are copied. The map of a larger layer cannot be read."""


@dataclass(frozen=True)
class LinearMap:
    """The linear map x @ matrix + bias.

    Attributes:
        matrix: The weight.
        bias: The bias, if any.
        made: Whether the matrix was computed or loaded here. False if the matrix is the layer's own weight.
        rounding: The layer's own rounding: the relative error of this map on the test vectors.
    """

    matrix: Float[Tensor, "input output"]
    bias: Float[Tensor, " output"] | None
    made: bool = True
    rounding: float = 0.0

    @property
    def size(self) -> int:
        """Bytes of memory that this map takes."""
        return self.matrix.nbytes if self.made else 0


def kept_map(view: CacheView, key: tuple[Hashable, ...], module: object, width: int | None = None) -> LinearMap:
    """Return `linear_map_of`, memoised in `view.facts` under `key`.

    Raises:
        ResidscopeError: As for `linear_map_of`. Errors are not memoised.
    """
    return view.facts.once(
        (*key, *call_conditions(module, view)), lambda: linear_map_of(module, view, width), lambda found: found.size
    )


def call_conditions(module: object, view: CacheView) -> tuple[Hashable, ...]:
    """Return what a layer's map depends on, besides the layer's state: how the layer is called, and hooks inside it.

    Caches of one model may differ in precision, and change tracking does not compare hooks.
    """
    return view.stream.dtype, view.stream.device, _has_hooks_inside(wrapped(module))


def linear_map_of(module: object, view: CacheView, width: int | None = None) -> LinearMap:
    """Return the linear map that a layer applies.

    Args:
        module: The layer, or the bridge's component for it.
        view: The cache, whose precision is tried first when the layer is called.
        width: The layer's input width, if the layer does not declare it.

    Raises:
        ResidscopeError: If the map cannot be read, or the layer is not linear. The message names the layer.
    """
    import torch

    layer, conv = wrapped(module), known_layers()[-1]
    if _is_offloaded(layer):
        found = stored_values(module, "weight", layer.weight)  # read from accelerate, not loaded into the layer
        bias = getattr(layer, "bias", None)
        matrix = found if type(layer) is conv and conv is not torch.nn.Linear else found.T
        return LinearMap(matrix, None if bias is None else stored_values(module, "bias", bias))
    try:
        with _copy_of(layer) as copied:
            return _measure_map(copied, layer, view, getattr(layer, "in_features", None) or width)
    except _UnreadError as error:
        raise unreadable_layer(module, str(error)) from None


def embedding_rows(module: object, view: CacheView, count: int) -> Float[Tensor, "token d_model"]:
    """Return the embeddings of the first `count` tokens, from an embedding layer of any class.

    If the layer is offloaded, return its whole weight.

    Raises:
        ResidscopeError: If the layer cannot be called.
    """
    import torch

    layer = wrapped(module)
    if _is_offloaded(layer):
        return stored_values(module, "weight", layer.weight)
    try:
        with _copy_of(layer) as copied:
            ids = torch.arange(count, device=_device(copied, view))
            return torch.cat([_forward(copied, block[None])[0] for block in ids.split(4096)])
    except _UnreadError as error:
        raise unreadable_layer(module, str(error)) from None


def layer_output(module: object, view: CacheView, rows: Float[Tensor, "row input"]) -> Float[Tensor, "row output"]:
    """Return a layer's output for these vectors. The layer need not be linear.

    Raises:
        ResidscopeError: If the layer cannot be called.
    """
    layer = wrapped(module)
    try:
        with _copy_of(layer) as copied:
            rows = rows.to(_device(copied, view))
            return _caller(copied, view, rows.shape[-1], rows.device)(rows)
    except _UnreadError as error:
        raise unreadable_layer(module, str(error)) from None


def output_and_hooked(
    module: object, view: CacheView, rows: Float[Tensor, "row input"], hook: str
) -> tuple[Float[Tensor, "row output"], Tensor]:
    """Return a layer's output for these vectors, and what passes one of its hook points in the same call.

    Raises:
        ResidscopeError: If the layer cannot be called, or nothing passes the hook point.
    """
    passed: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor) -> None:
        passed.append(output.detach())

    try:
        with _copy_of(module) as copied:
            getattr(copied, hook).register_forward_hook(keep)
            rows = rows.to(_device(copied, view))
            output = _caller(copied, view, rows.shape[-1], rows.device)(rows)
    except _UnreadError as error:
        raise unreadable_layer(module, str(error)) from None
    if not passed:
        raise unreadable_layer(module, f"cannot be determined: nothing passes its `{hook}`")
    return output, passed[-1][0]


def _is_offloaded(layer: object) -> bool:
    """Whether a layer of a known class has a weight that is kept elsewhere between runs."""
    weight = getattr(layer, "weight", None)
    return type(layer) in known_layers() and weight is not None and weight.is_meta


def why_not_linear(module: object, view: CacheView, found: LinearMap, rows: Float[Tensor, "row input"]) -> str | None:
    """Return a sentence that says why a layer does not apply its map to these inputs. None if the layer applies it.

    Inputs with NaN or infinity show nothing about the layer, so they are left out. Results that need them are refused
    elsewhere.

    Args:
        module: The layer, or the bridge's component for it.
        view: The cache.
        found: The layer's map.
        rows: The layer's inputs in the run.
    """
    import torch

    sizes, layer = rows.abs().amax(-1), wrapped(module)
    if _is_offloaded(layer):
        return None
    # The largest inputs, which the layer may clip, and some others.
    largest = sizes.nan_to_num(nan=-1.0, posinf=-1.0).topk(min(_ROWS // 2, len(rows))).indices
    tested = torch.cat([largest, _spread(len(rows), sizes.device)])
    tested = tested[sizes[tested].isfinite()]
    if not len(tested):
        return None
    try:
        with _copy_of(layer) as copied:
            rows = rows[tested].to(_device(copied, view))
            error = _relative_error(_caller(copied, view, rows.shape[-1], rows.device), found.matrix, found.bias, rows)
    except _UnreadError as failure:
        return str(unreadable_layer(module, str(failure)))
    why = f"is linear on test vectors, but not on its inputs in this run (relative error {error:.2g})"
    return None if error <= _MOST_ROUNDING else str(unreadable_layer(module, why))


def _spread(count: int, device: torch.device) -> Tensor:
    """At most `_ROWS // 2` evenly spread indices of rows."""
    import torch

    return torch.linspace(0, count - 1, min(_ROWS // 2, count), device=device).round().long()


@contextmanager
def _copy_of(layer: object) -> Generator[Any, None, None]:
    """A copy of a layer that may be called. The random generators are restored afterwards.

    Raises:
        _UnreadError: If the layer must not be called, or cannot be copied.
    """
    import torch

    _check_callable(layer)
    device = next((tensor.device for tensor in tensors_of(layer)), torch.device("cpu"))
    with torch.no_grad(), random_state_restored(device):
        copied = _copy(layer)
        with probing(copied, layer):
            yield copied


def _copy(layer: Any) -> Any:
    """A copy of a layer without its hooks.

    Raises:
        _UnreadError: If the layer cannot be copied.
    """
    import torch

    memo = _Copied()
    for inner in layer.modules():
        for name, value in [*vars(inner).items(), *inner.named_buffers(recurse=False)]:
            if name.endswith("_hooks") and isinstance(value, dict):
                memo[id(value)] = OrderedDict[int, object]()  # hooks may refer to the whole model
            elif isinstance(value, torch.Tensor) and not value.is_leaf:  # `deepcopy` refuses such tensors
                memo[id(value)] = value.detach().clone()
    try:
        copied = deepcopy(layer, memo)
        for inner, inner_copy in zip(layer.modules(), copied.modules(), strict=True):
            replaced = vars(inner).get("forward")
            if isinstance(replaced, FunctionType):  # `deepcopy` does not copy functions
                inner_copy.forward = _copied_function(replaced, memo)
        return copied
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}".strip(": ")
        raise _UnreadError(f"cannot be determined: only a copy may be called, and copying failed ({why})") from None


def _copied_function(function: FunctionType, memo: _Copied) -> FunctionType:
    """A copy of a function. The values in its closure and its arguments' defaults are copied, too."""
    import torch

    globals_read = map(function.__globals__.get, function.__code__.co_names)
    if any(isinstance(value, torch.nn.Module) for value in globals_read):
        raise TypeError("its `forward` is a function that reads a module from a global variable")
    cells = tuple(CellType(deepcopy(cell.cell_contents, memo)) for cell in function.__closure__ or ())
    defaults, named = deepcopy((function.__defaults__, function.__kwdefaults__), memo)
    copied = FunctionType(function.__code__, function.__globals__, function.__name__, defaults, cells)
    copied.__kwdefaults__ = named
    return copied


class _Copied(dict[int, Any]):
    """The memo of `deepcopy`. It raises if the copies grow too large."""

    size = 0

    def __setitem__(self, key: int, value: object) -> None:
        super().__setitem__(key, value)
        self.size += int(getattr(value, "nbytes", 0)) if hasattr(value, "untyped_storage") else 0
        if self.size > _MOST_COPIED:
            raise MemoryError(f"it holds more than {_MOST_COPIED // 10**9} GB")


def _measure_map(layer: object, original: object, view: CacheView, width: object) -> LinearMap:
    """Compute the map of a copied layer from its outputs, and test on random vectors whether the layer is linear."""
    import torch

    if not isinstance(width, int):
        raise _UnreadError("cannot be determined: it does not declare its input width")

    device = _device(layer, view)
    call = _caller(layer, view, width, device)
    bias = call(torch.zeros(_ROWS, width, device=device))[0]
    each = max(1, _BLOCK // max(width, bias.shape[-1]))
    blocks = [call(rows) - bias for rows in _identity(width, each, device)]
    matrix = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
    generator = torch.Generator(device="cpu").manual_seed(0)
    tests = torch.randn(_ROWS, width, generator=generator, device="cpu").to(device)
    if not torch.equal(call(tests), call(tests)):
        raise _UnreadError("cannot be determined: its output for the same input differs from call to call")
    error = max(_relative_error(call, matrix, bias, rows) for rows in (tests, tests * _LARGE))
    if not error <= _MOST_ROUNDING:
        raise _UnreadError(f"is not a linear map of its input (relative error {error:.2g} on test vectors)")
    own = getattr(original, "weight", None)
    if own is not None and type(own) in (torch.Tensor, torch.nn.Parameter) and own.dtype == matrix.dtype:
        for same in (own.detach().T, own.detach()):
            if same.shape == matrix.shape and torch.equal(same, matrix):
                return LinearMap(same, bias if bool(bias.any()) else None, made=False)
    return LinearMap(matrix, bias if bool(bias.any()) else None, rounding=error)


def _relative_error(call: Callable[[Tensor], Tensor], matrix: Tensor, bias: Tensor | None, rows: Tensor) -> float:
    """The relative difference between the outputs of map and layer for these rows, without the bias's rounding."""
    output = call(rows)
    expected, rounding = working(rows.to(output.dtype)) @ working(matrix), 0.0
    difference = expected - working(output)
    if bias is not None:
        difference = difference + working(bias)
        rounding = step_of(output.dtype) * float(bias.norm()) * len(rows) ** 0.5  # matters for a very large bias
    return max(float(difference.norm()) - rounding, 0.0) / max(float(expected.norm()), 1e-30)


def _identity(width: int, each: int, device: torch.device) -> Iterator[Tensor]:
    """The rows of the identity matrix, in blocks of `each`."""
    import torch

    for start in range(0, width, each):
        report_progress(start, width)
        rows = torch.zeros(min(each, width - start), width, device=device)
        rows[:, start : start + len(rows)].fill_diagonal_(1)
        yield rows


def _caller(layer: object, view: CacheView, width: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function that calls the layer on rows, in the first dtype that the layer accepts."""
    import torch

    kinds = [view.stream.dtype, *(t.dtype for t in tensors_of(layer)), torch.float32]
    kinds = [kind for kind in dict.fromkeys(kinds) if kind.is_floating_point and kind.itemsize > 1]
    zeros, why = torch.zeros(1, _ROWS, width, device=device), "cannot be determined"
    for kind in kinds:
        try:
            _forward(layer, zeros.to(kind))
        except _UnreadError as error:
            why = str(error)
            continue
        return lambda rows: _forward(layer, rows.to(kind)[None])[0]
    raise _UnreadError(why)


def _forward(layer: Any, batch: Tensor) -> Tensor:
    """The layer's output for a batch of rows. No hooks run, neither PyTorch's nor TransformerLens'."""
    import torch

    try:
        output = layer.forward(batch)
    except torch.cuda.OutOfMemoryError:  # this says nothing about the layer
        raise
    except Exception as error:
        raise _UnreadError(f"cannot be determined: on test vectors it raises {type(error).__name__}: {error}") from None
    fits = isinstance(output, torch.Tensor) and output.shape[:2] == batch.shape[:2] and output.ndim == 3
    if not fits or not output.is_floating_point():
        raise _UnreadError("cannot be determined: it does not return one vector for each test vector")
    if not bool(output.isfinite().all()):
        raise _UnreadError("cannot be determined: on test vectors it returns NaN or infinity")
    return output.detach()


def _check_callable(layer: Any) -> None:
    """Refuse a layer whose weights hold no values, whose output is random, or that has hooks inside it."""
    import torch

    if not callable(getattr(layer, "forward", None)):
        raise _UnreadError("cannot be determined: it is not a module")
    for tensor in tensors_of(layer):
        why = unusable(tensor)
        if why is not None and (tensor.is_meta or "sharded" in why or "emptied" in why):
            raise _UnreadError(f"cannot be read: its weight {why}")
    for module in layer.modules():
        random = isinstance(module, torch.nn.modules.dropout._DropoutNd) and module.p > 0  # pyright: ignore[reportPrivateUsage]
        if random and module.training:
            raise _UnreadError("is random: it has dropout and is in training mode. Call `model.eval()`")
    if _has_hooks_inside(layer):
        raise _UnreadError(
            "cannot be determined: there are hooks inside it, which may change what it does. Remove them"
        )


def _has_hooks_inside(layer: Any) -> bool:
    import torch

    inner: list[Any] = list(layer.modules())[1:] if isinstance(layer, torch.nn.Module) else []
    torch_module: Any = torch.nn.modules.module
    everywhere = torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks
    return bool(inner) and (bool(everywhere) or any(one._forward_hooks or one._forward_pre_hooks for one in inner))


def _device(layer: object, view: CacheView) -> torch.device:
    return next((tensor.device for tensor in tensors_of(layer)), view.stream.device)
