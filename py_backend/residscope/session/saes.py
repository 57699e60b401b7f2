"""Finds the SAEs and transcoders in the user's namespace that fit a model, and names those that the user gave.

None of the user's code runs (see `discovery`). Classes are searched for `encode` and `decode` without calling anything.
`W_dec` and the configuration are read from the objects' own dictionaries.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from typing import Any, cast

from residscope.base.legible import encodable
from residscope.cache.dictionary_sites import layer_of_site, parts_of
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.session.class_kinds import NOTHING, kind_of, of_class, peek
from residscope.session.discovery import of_kinds, variables_of
from residscope.session.safe_access import element_of
from residscope.terms import MOST_OF_NAME

MAX_LISTED = 20
"""At most this many SAEs are listed."""

MAX_CHECKED = 1_000
"""At most this many objects are checked."""


def named(given: Any) -> dict[str, Any]:
    """Return the SAEs that a user gave as `sae=`, by name: a variable's name if there is one, else `sae`, `sae 2`, ….

    Args:
        given: An SAE, `(sae, NAME)` or `(transcoder, NAME READ, NAME RECONSTRUCTED)`, a list of these, or a dictionary
            of these by name.

    Raises:
        ResidscopeError: If an entry cannot be an SAE, or a name is not a short text.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        entries = cast("list[tuple[Any, Any]]", list(given.items()))
        for name, _ in entries:
            if not isinstance(name, str) or not 0 < len(name) <= MOST_OF_NAME:
                raise ResidscopeError("sae", f"The names of SAEs are texts of at most {MOST_OF_NAME} characters.")
    else:
        several = isinstance(given, list) and not any(isinstance(part, str) for part in cast("list[Any]", given))
        entries = [(None, one) for one in (cast("list[Any]", given) if several else [given])]
    found: dict[str, Any] = {}
    for name, one in entries:
        sae, _, _ = parts_of(one)
        usual = encodable(name) if name is not None else (_variable_of(one, sae) or "sae")
        number = 2
        free = usual
        while free in found:
            free, number = f"{usual} {number}", number + 1
        found[free] = one
    return found


def _variable_of(given: Any, sae: Any) -> str | None:
    names = variables_of(lambda value: value is sae or value is given)
    return next((name for name in names if len(name) <= MOST_OF_NAME and "…" not in name), None)


def in_namespace(view: CacheView) -> dict[str, Any]:
    """Return the SAEs in the user's variables whose configuration names an activation of this model, by variable.

    A variable may also hold `(sae, NAME)`, as for `sae=`. Nothing is called, and at most `MAX_LISTED` are returned.
    """
    if "torch" not in sys.modules:
        return {}
    found: dict[str, Any] = {}
    for checked, (name, value) in enumerate(of_kinds(_may_be_sae)):
        if checked == MAX_CHECKED or len(found) == MAX_LISTED:
            break
        if len(name) <= MOST_OF_NAME and "…" not in name and _fits(view, value):
            found[name] = value
    return found


def site_name(given: Any) -> str:
    """Return the name of the activation that an SAE reconstructs, as far as it can be read without calling anything.

    Empty if it is not known.
    """
    sae, names = _parts(given)
    if names:
        return names[-1]
    name = _setting(sae, "hook_name_out") or _setting(sae, "hook_name") or _setting(sae, "hook_point")
    if type(name) is not str:
        return ""
    layer = _setting(sae, "hook_layer")
    return name.replace("{layer}", str(layer)) if type(layer) is int and 0 <= layer < 1_000_000 else name


def _may_be_sae(cls: type) -> bool:
    """Whether instances of a class may be SAEs: it has methods `encode` and `decode`. Tuples may contain an SAE."""
    if cls is tuple:
        return True
    return all(type(of_class(cls, name)) is types.FunctionType for name in ("encode", "decode"))


def _parts(given: Any) -> tuple[Any, list[str]]:
    """The SAE of `(sae, NAME)` or of `(transcoder, NAME, NAME)`, and the names."""
    if type(given) is tuple and 2 <= len(given) <= 3 and all(type(part) is str for part in given[1:]):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        sae, *names = cast("tuple[Any, ...]", given)
        return sae, names
    return given, []


def _fits(view: CacheView, given: Any) -> bool:
    sae, _ = _parts(given)
    if type(sae) is tuple or not _may_be_sae(type(sae)):
        return False
    name = site_name(given)
    layer, width = layer_of_site(name), _width(sae)
    if layer is None or layer >= view.n_layers or width is None:
        return False
    return name.endswith("hook_z") or width == int(view.cfg.d_model)


def _width(sae: Any) -> int | None:
    """The width of the vectors in `W_dec`. None if there is no such matrix."""
    torch: Any = sys.modules["torch"]
    weight = peek(sae, "W_dec", NOTHING)
    for where in ("_parameters", "_buffers"):
        if weight is NOTHING:
            weight = element_of(peek(sae, where, NOTHING), "W_dec")
    if type(weight) is not torch.Tensor and type(weight) is not torch.nn.Parameter:
        return None
    return int(weight.shape[1]) if weight.dim() == 2 else None


def _setting(sae: Any, name: str) -> Any:
    """A field of an SAE's configuration, or of the configuration's `metadata`. None if it has no such field."""
    cfg = peek(sae, "cfg", NOTHING)
    for owner in (cfg, _field(cfg, "metadata")):
        value = _field(owner, name)
        if value is not NOTHING and value is not None:
            return value
    return None


def _field(owner: Any, name: str) -> Any:
    return element_of(owner, name) if kind_of(type(owner)).base is dict else peek(owner, name, NOTHING)
