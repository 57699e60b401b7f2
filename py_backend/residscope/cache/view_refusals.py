"""Messages about what a view of a cache cannot read: a model of another kind, or activations that were not cached."""

from __future__ import annotations

from pathlib import PurePath

from residscope.base.legible import encodable
from residscope.cache.model_types import Configured
from residscope.errors import ResidscopeError


def model_inside(model: object) -> str:
    """The end of a sentence that names the TransformerLens model inside this module. Empty if there is none."""
    parts: dict[str, object] = dict(getattr(model, "__dict__", {}).get("_modules") or {})
    name = next((name for name, part in parts.items() if hasattr(part, "cfg") and hasattr(part, "blocks")), None)
    return "" if name is None else f", which holds it: pass `model.{name}`"


def no_blocks(model: Configured) -> str:
    """The message for a model whose layers are not in `blocks`."""
    kind = type(model).__name__
    inside = model_inside(model)
    if inside:
        return f"Residscope needs the TransformerLens model itself, but this is a {kind}{inside}."
    stacks = [f"`{name}`" for name in ("encoder_blocks", "decoder_blocks") if hasattr(model, name)]
    name = encodable(PurePath(str(getattr(model.cfg, "model_name", "") or kind)).name)
    if len(stacks) == 2:
        return (
            f"“{name}” is an encoder-decoder model: its layers are in {stacks[0]} and {stacks[1]}, and the decoder "
            "reads the encoder's output. Residscope supports models with a single stack of layers (`blocks`), such as "
            "decoder-only models."
        )
    return f"This {kind} has no `blocks`: Residscope supports models with a single stack of layers."


def no_floats(held: str) -> ResidscopeError:
    """Return the error for a cache without floating-point activations. `held` is an activation that it holds."""
    return ResidscopeError(
        "no-activations",
        f"This cache holds no activations of floating-point numbers (it holds `{held}`). Cache at least one activation "
        'of a layer, such as `names_filter=lambda name: name.endswith("hook_resid_post")`.',
    )


def not_cached(*names: str) -> ResidscopeError:
    """Return the error for activations that were not cached. The message proposes a `names_filter` for them."""
    endings: dict[str, list[str]] = {}
    for name in names:
        endings.setdefault(ending(name), []).append(name)
    are, them, many = ("is", "it", "") if len(endings) == 1 else ("are", "them", "s")
    listed = " and ".join(f"`{own[0] if len(own) == 1 else kind}`" for kind, own in endings.items())
    listed = listed.replace(" and ", ", ", max(len(endings) - 2, 0))
    quoted = ", ".join(f'"{one}"' for one in endings)
    wanted = quoted if len(endings) == 1 else f"({quoted})"
    return ResidscopeError(
        "missing-activation",
        f"{listed} {are} not in this cache. Cache {them}: leave out `names_filter`, or let it accept "
        f"`name.endswith({wanted})`. If nothing was filtered out, this model has no such activation{many}.",
        names,
    )


def ending(name: str) -> str:
    """The part of an activation's name that all layers share: `blocks.3.attn.hook_z` → `attn.hook_z`."""
    return name.split(".", 2)[2] if name.startswith("blocks.") else name
