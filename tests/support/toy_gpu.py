"""A device without float64 and float8, as Apple's GPUs (MPS) are, for computers that have none.

`python -m tests.support.toy_gpu llama` computes everything twice, from a cache on the CPU and from the same cache on
this device, and prints the largest difference of each result as JSON. It runs in a process of its own, because
PyTorch cannot forget a device.

The tensors of the device hold a tensor on the CPU. Each operation is that of the CPU. An operation whose result the
device cannot hold fails, as with MPS. Operations with tensors of two devices are not refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from transformer_lens import ActivationCache

import residscope
from residscope import targets
from residscope.compute import precision
from tests.support import saes, tiny

NAME = "toygpu"
_LACKS = (torch.float64, torch.complex128, torch.float8_e5m2, torch.float8_e4m3fn)


def _is_toy(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


class OnToyGpu(torch.Tensor):
    """A tensor of the device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnToyGpu:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        """The values. PyTorch has no `tolist` for classes derived from its tensor."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    """Return what an operation gives, on the device, unless it moves a tensor to the CPU."""
    leaves = kwargs.get("device") is not None and not _is_toy(kwargs["device"])
    kwargs = kwargs | ({"device": "cpu"} if "device" in kwargs else {})
    result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    return result if leaves else tree_map(_held, result)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, OnToyGpu) else value


def _held(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.dtype in _LACKS:
        raise TypeError(f"the device has no {value.dtype}")
    return OnToyGpu(value)


class _Operations(TorchDispatchMode):
    """Makes new tensors on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_toy = OnToyGpu in types or _is_toy(kwargs.get("device"))
        return _computed(func, args, kwargs) if is_toy else func(*args, **kwargs)


class _Functions(TorchFunctionMode):
    """Makes tensors from Python's numbers on the CPU first, because PyTorch's C++ code would call the device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            index = tuple(map(_index, args[1])) if isinstance(args[1], tuple) else _index(args[1])
            args = (args[0], index, *args[2:])
        elif func in (torch.tensor, torch.as_tensor) and _is_toy(kwargs.get("device")):
            return func(*args, **kwargs | {"device": "cpu"}).to(kwargs["device"])
        elif func is torch.Tensor.new_tensor and isinstance(args[0], OnToyGpu):
            made = torch.tensor(*args[1:], **{"dtype": args[0].dtype} | kwargs, device="cpu")
            return made.to(args[0].device)
        return func(*args, **kwargs)


def _index(value: Any) -> Any:
    return torch.tensor(list(value), device="cpu") if isinstance(value, list | range) and len(value) else value


def register() -> None:
    """Make the device known to PyTorch and to Residscope. Raises AttributeError in older versions of PyTorch."""
    module: Any = backend_registration._DummyBackendModule()
    module.get_amp_supported_dtype = lambda: [torch.float16]
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=module)
    precision._WITHOUT_FLOAT64 = precision._WITHOUT_FLOAT64 | {NAME}  # pyright: ignore


def moved(model: torch.nn.Module) -> Any:
    """Return a copy of a model on the device."""
    copied = deepcopy(model)
    for module in copied.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = _as(tensor)
    return copied


def _as(tensor: torch.Tensor) -> torch.Tensor:
    made = OnToyGpu(tensor.detach())
    return torch.nn.Parameter(made, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else made


def results(cache: Any, sae: Any) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    """Yield the names of results, and functions that compute them."""
    answers, few = (3, 4), {"progress": False}
    for by in ("layer", "accumulated", "head", "neuron"):
        yield by, lambda by=by: residscope.attribute(cache, answers, by=by).values
    yield "source", lambda: residscope.attribute(cache, answers, by="source", heads="1.1").values
    yield "feature", lambda: residscope.attribute(cache, answers, by="feature", sae=sae).values
    yield "all positions", lambda: residscope.attribute(cache, answers, position="all").values
    yield "next token", lambda: residscope.attribute(cache, targets.next_token(), position="all").values
    yield "feature target", lambda: residscope.attribute(cache, targets.feature(sae, 3)).values
    yield "neuron target", lambda: residscope.attribute(cache, targets.neuron((1, 3))).values
    for versus in (None, "most", "mean"):
        for side in ("query", "key"):
            target = targets.attention("1.1", 5, 2, versus, side)
            yield f"{target}", lambda target=target: residscope.attribute(cache, target).values
    yield "pairs", lambda: residscope.pairs(cache, targets.attention("1.1", 5, 2)).values
    for score in ("previous", "first", "duplicate", "induction", "entropy", "copying"):
        yield score, lambda score=score: residscope.scores(cache, score).values
    for weighting in ("pattern", "value", "contribution"):
        given = {} if weighting != "contribution" else {"answers": answers}
        yield weighting, lambda w=weighting, g=given: residscope.attention(cache, "1.1", weighting=w, **g).values
    yield "next tokens", lambda: residscope.next_tokens(cache).log_prob
    yield "token lens", lambda: residscope.token_lens(cache, answers).probabilities
    yield "segments", lambda: residscope.segment_attention(cache, residscope.segments(cache, 0, [("a", 0, 3)])).vertical
    yield "compare", lambda: residscope.compare(cache, cache, answers).values
    yield "many", lambda: residscope.attribute_many([(cache, answers)] * 2, keep="summary", **few).mean()
    yield "ablate", lambda: residscope.ablate(cache, answers, **few).total
    yield "patch", lambda: residscope.patch(cache, "zero", answers, at="resid_pre", **few).effects
    yield "estimate", lambda: residscope.estimate(cache, "zero", answers).effects
    yield "ablate many", lambda: residscope.ablate_many([(cache, answers)], keep="summary", **few).mean()


def differences(family: str) -> dict[str, Any]:
    """Return the largest difference of each result between the device and the CPU, or how the device failed."""
    model = tiny.boot(family)
    held = dict(tiny.run(model)[2].items())
    sae = saes.Sae(24, hook_name="blocks.1.hook_resid_post")
    expected = dict(results(ActivationCache(held, model), sae))
    other = moved(model)
    found: dict[str, Any] = {}
    with _Functions(), _Operations():
        moved_cache = ActivationCache({name: OnToyGpu(tensor) for name, tensor in held.items()}, other)
        for name, compute in results(moved_cache, moved(sae)):
            found[name] = _difference(compute, expected[name])
    return found


def _difference(compute: Callable[[], torch.Tensor], expected: Callable[[], torch.Tensor]) -> float | str:
    on_cpu, found = _outcome(expected), _outcome(compute)
    if isinstance(found, str) or isinstance(on_cpu, str):
        return 0.0 if isinstance(found, str) and found == on_cpu else str(found)
    return float((found.cpu() - on_cpu).abs().nan_to_num().max())


def _outcome(compute: Callable[[], torch.Tensor]) -> torch.Tensor | str:
    try:
        return compute()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    register()
    print(json.dumps({family: differences(family) for family in sys.argv[1:]}))
