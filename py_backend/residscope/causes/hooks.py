"""Hooks of Residscope on the user's modules during a run. They act only on the run's thread, and are always removed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

Change = Callable[["Tensor"], "Tensor | None"]
"""Takes the first tensor of a module's output, and returns the tensor that replaces it. None: no change."""

Before = Callable[[tuple[Any, ...], dict[str, Any]], "tuple[tuple[Any, ...], dict[str, Any]] | None"]
"""Takes the arguments of a module, and returns the arguments that replace them. None: no change."""


class Hooks:
    """The hooks of one run.

    Modules are shared by all threads. A cell may run the same model on another thread at the same time. On that thread
    the hooks do nothing, so the cell gets its own values.
    """

    def __init__(self) -> None:
        self._thread: int | None = threading.get_ident()
        self._modules: list[Any] = []
        self._alive = alive()
        self._alive.append(self)

    @property
    def active(self) -> bool:
        """Whether the hooks act on this thread."""
        return self._thread == threading.get_ident()

    def before(self, module: Any, change: Before) -> None:
        """Call `change` with a module's arguments, before any hook of the user."""
        self._modules.append(module)  # before registering, so that `remove` finds the module after an interrupt
        module.register_forward_pre_hook(_Before(self, change), with_kwargs=True, prepend=True)

    def after(self, module: Any, change: Change) -> None:
        """Call `change` with the first tensor of a module's output, after all hooks of the user."""
        self._modules.append(module)
        module.register_forward_hook(_After(self, change))

    def remove(self) -> None:
        """Disable all hooks in one step, and then remove them."""
        self._thread = None
        for module in self._modules:
            for held in (module._forward_hooks, module._forward_pre_hooks):
                for key, hook in list(held.items()):
                    if isinstance(hook, _Hook) and hook.owner is self:
                        _forget(module, held, key)
        if self in self._alive:
            self._alive.remove(self)


def _forget(module: object, held: Any, key: int) -> None:
    """Remove one hook, and PyTorch's records of it, as PyTorch's own handle does.

    The hook itself is removed last. So if an interrupt stops the removal, a second call still finds the hook.
    """
    for name in ("_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs"):
        getattr(module, name, {}).pop(key, None)
    held.pop(key, None)


_of_this_thread = threading.local()


def alive() -> list[Hooks]:
    """Return this thread's hooks that were not removed. `keeping_user_state` removes those that an interrupt left."""
    if not hasattr(_of_this_thread, "alive"):
        _of_this_thread.alive = []
    return _of_this_thread.alive


@contextmanager
def hooks() -> Generator[Hooks, None, None]:
    """Provide the hooks of one run. They are removed when the block ends, also after an error."""
    own = Hooks()
    try:
        yield own
    finally:
        surely(own.remove)


def surely(work: Callable[[], T]) -> T:
    """Call `work` until no interrupt stops it. The last interrupt is raised afterwards."""
    interrupted: BaseException | None = None
    while True:
        try:
            result = work()
            break
        except KeyboardInterrupt as error:
            interrupted = error
    try:
        if interrupted is not None:
            raise interrupted
        return result
    finally:
        del interrupted  # the traceback holds this frame


class _Hook:
    owner: Hooks


class _Before(_Hook):
    def __init__(self, owner: Hooks, change: Before) -> None:
        self.owner, self.change = owner, change

    def __call__(self, _module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        return self.change(args, kwargs) if self.owner.active else None


class _After(_Hook):
    def __init__(self, owner: Hooks, change: Change) -> None:
        self.owner, self.change = owner, change

    def __call__(self, _module: object, _args: object, output: object) -> object:
        if not self.owner.active:
            return None
        first = first_tensor(output)
        changed = None if first is None else self.change(first)
        return None if changed is None else with_first(output, changed)


def first_tensor(output: object) -> Tensor | None:
    """Return the first tensor of a module's output: the stream, or what is added to it. None if there is none."""
    import torch

    if isinstance(output, tuple | list):
        output = output[0] if output else None
    return output if isinstance(output, torch.Tensor) else None


def with_first(output: object, tensor: Tensor) -> object:
    """Return a module's output with another first tensor."""
    if isinstance(output, tuple | list):
        return type(output)([tensor, *output[1:]])
    return tensor


def all_modules(model: object) -> list[Any]:
    """Return the modules of a model and of the Hugging Face model in it, each once."""
    roots: list[Any] = [model, getattr(model, "original_model", None)]
    return list({id(part): part for root in roots if hasattr(root, "modules") for part in root.modules()}.values())


def hook_state(model: object) -> tuple[object, ...]:
    """Return which hooks of the user are on a model. The result changes if the user adds or removes a hook."""
    found: list[object] = []
    for number, part in enumerate(all_modules(model)):
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            held = list((vars(part).get(name) or {}).items())  # a copy, because a run may be adding hooks now
            theirs = [key for key, hook in held if not isinstance(hook, _Hook)]
            if theirs:
                found.append((number, name, *theirs))
    return tuple(found)


def has_user_hooks(model: object) -> bool:
    """Return whether a model has forward hooks of the user, which may treat the prompts of a batch differently."""
    return any(
        any(_is_users(getattr(handle, "user_hook", None)) for handle in getattr(part, "fwd_hooks", None) or ())
        or any(
            _is_users(hook)
            for held in (vars(part).get("_forward_hooks"), vars(part).get("_forward_pre_hooks"))
            for hook in list((held or {}).values())
        )
        for part in all_modules(model)
    )


def _is_users(hook: object) -> bool:
    """Whether a hook is the user's, and not one of Residscope, Transformers or TransformerLens."""
    library = str(getattr(hook, "__module__", "")).partition(".")[0]
    return not isinstance(hook, _Hook) and library not in ("transformers", "transformer_lens")


def has_backward_hooks(model: object) -> bool:
    """Return whether a model has backward hooks, which may change gradients."""
    return any(
        vars(part).get("_backward_hooks") or vars(part).get("_backward_pre_hooks") for part in all_modules(model)
    )


def is_hooked(module: Any) -> bool:
    """Return whether a module, or a module inside it, has forward hooks."""
    return any(vars(part).get("_forward_hooks") or vars(part).get("_forward_pre_hooks") for part in module.modules())
