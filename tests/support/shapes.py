"""Holds every tensor to the shape that its annotation names, while the tests run.

jaxtyping's import hook puts a check into each function and dataclass: `"batch pos"` in one annotation and `"batch"` in
another must be of one size. The package itself imports torch and jaxtyping for a type checker only, so that
`import residscope` stays light; here the modules are imported as a type checker sees them.
"""

from __future__ import annotations

import pkgutil
import typing
from collections.abc import Callable
from importlib import import_module
from typing import Any, get_args, get_origin

from beartype import beartype
from jaxtyping import AbstractArray, install_import_hook

MATHEMATICS = ("compute", "cache", "attribution", "patterns")
"""The folders whose tensors are checked."""


def checker(function: Callable[..., Any]) -> Callable[..., Any]:
    """What the hook puts around each function: shapes are checked here, all other types by pyright."""
    hints = function.__annotations__
    function.__annotations__ = {name: hint if _has_shape(hint) else Any for name, hint in hints.items()}
    return beartype(function) if any(map(_has_shape, hints.values())) else function


def _has_shape(hint: Any) -> bool:
    own = isinstance(hint, type) and issubclass(hint, AbstractArray)
    return own or (get_origin(hint) is not Callable and any(map(_has_shape, get_args(hint))))


def check_shapes() -> None:
    """From here on: to be called before anything of the package is imported."""
    import torch  # noqa: F401 - before the flag: others' modules are not meant
    import transformer_lens  # noqa: F401

    import residscope

    names = [f"residscope.{folder}" for folder in MATHEMATICS]
    typing.TYPE_CHECKING = True
    try:
        with install_import_hook(names, "tests.support.shapes.checker"):
            for name in names:
                for module in pkgutil.iter_modules([f"{residscope.__path__[0]}/{name.split('.')[1]}"]):
                    import_module(f"{name}.{module.name}")
    finally:
        typing.TYPE_CHECKING = False
