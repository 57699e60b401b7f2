"""Checks, while the tests run, that every tensor has the shape of its annotation.

jaxtyping's import hook adds a check to each function and dataclass. If one annotation is `"batch pos"` and another is
`"batch"`, both tensors must have the same size along `batch`. The package imports torch and jaxtyping only for type
checkers, so that `import residscope` stays fast. This module sets `TYPE_CHECKING`, so that these imports run.
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
    """Return the function with a check of its tensors' shapes. Types without a shape are left to Pyright."""
    hints = function.__annotations__
    function.__annotations__ = {name: hint if _has_shape(hint) else Any for name, hint in hints.items()}
    return beartype(function) if any(map(_has_shape, hints.values())) else function


def _has_shape(hint: Any) -> bool:
    own = isinstance(hint, type) and issubclass(hint, AbstractArray)
    return own or (get_origin(hint) is not Callable and any(map(_has_shape, get_args(hint))))


def check_shapes() -> None:
    """Check shapes from now on. This must be called before any module of the package is imported."""
    # These packages are imported before `TYPE_CHECKING` is set, because they must not see it.
    import torch  # noqa: F401
    import transformer_lens  # noqa: F401
    from pandas import DataFrame  # noqa: F401
    from plotly.graph_objects import Figure  # noqa: F401

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
