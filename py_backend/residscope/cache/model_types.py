"""What Residscope reads from every model, as types.

TransformerLens has several classes of models, without a common base class. Attributes that only some of them have are
read with `getattr` where they are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

if TYPE_CHECKING:
    from torch import Tensor


class Config(Protocol):
    """The dimensions of a model."""

    n_layers: int
    n_heads: int
    d_model: int
    d_head: int


class Block(Protocol):
    """One layer. Some layers lack one of these modules. The modules' classes differ between models."""

    attn: Any
    mlp: Any
    ln1: Any


class Blocks(Protocol):
    """The layers of a model, such as a `ModuleList`."""

    def __len__(self) -> int:
        """Return the number of layers."""
        ...

    def __getitem__(self, layer: int, /) -> Block:
        """Return one layer."""
        ...

    def __iter__(self) -> Iterator[Block]:
        """Return the layers, from first to last."""
        ...


class Model(Protocol):
    """A model: `HookedTransformer`, `TransformerBridge`, or a module with the same attributes."""

    cfg: Config
    blocks: Blocks

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Run the model."""
        ...

    def parameters(self) -> Iterable[Tensor]:
        """Return all weights."""
        ...

    def named_modules(self) -> Iterable[tuple[str, object]]:
        """Return all modules, each with its path."""
        ...


class Configured(Protocol):
    """An object with a configuration. It may be a model whose layers are not in `blocks`."""

    cfg: Config


def has_config(given: object) -> TypeGuard[Configured]:
    """Return whether an object has a model's configuration."""
    return hasattr(given, "cfg")


def is_model(given: object) -> TypeGuard[Model]:
    """Return whether an object is a model that Residscope can read."""
    return hasattr(given, "cfg") and hasattr(given, "blocks")
