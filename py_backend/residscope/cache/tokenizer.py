"""The user's tokenizer, of whatever kind: Hugging Face's, `tokenizers`' own, tiktoken's, a notebook's own.

Of each no more is asked for than `encode` and `decode`; what else there is makes the answers better.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from inspect import Parameter, signature
from typing import Any
from weakref import WeakKeyDictionary

from residscope.errors import ResidscopeError

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how sentence pieces name a single byte
_NAMES = ("convert_ids_to_tokens", "id_to_token", "id_to_piece")
_IDS = ("convert_tokens_to_ids", "token_to_id", "piece_to_id")


def encoded(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text, without any special token added.

    Raises:
        ResidscopeError: If the tokenizer cannot tell.
    """
    encode = attribute(tokenizer, "encode")
    if encode is None:
        raise ResidscopeError(
            "no-tokenizer",
            f"This model's tokenizer ({type(tokenizer).__name__}) has no `encode`, so “{text}” cannot be looked up: "
            "give token ids instead.",
        )
    try:
        ids = _ids(encode, text)
        return ids[1:] if text and _is_always_first(tokenizer, encode, ids[:1]) else ids
    except Exception as error:  # it is the user's code
        raise ResidscopeError(
            "tokenizer",
            f"This model's tokenizer ({type(tokenizer).__name__}) fails on “{text}”, with {type(error).__name__}: "
            f"{error}. Give token ids instead.",
        ) from error


def _ids(encode: Callable[..., Any], text: str) -> list[int]:
    found = _called(encode, text, add_special_tokens=False)
    return [int(id) for id in getattr(found, "ids", found)]


def _is_always_first(tokenizer: Any, encode: Callable[..., Any], first: list[int]) -> bool:
    """Whether a text's first token is the BOS that a tokenizer of the user's own puts before every text, even none."""
    if not first or first != [attribute(tokenizer, "bos_token_id")]:
        return False
    try:
        return _ids(encode, "")[:1] == first
    except Exception:  # it is the user's code, and need not take an empty text
        return False


def attribute(tokenizer: Any, name: str) -> Any:
    """One attribute of a tokenizer; None where it has none, or raises: it is the user's code."""
    try:
        return getattr(tokenizer, name, None)
    except Exception:
        return None


def decoded(tokenizer: Any, id: int) -> str:
    """What `decode` gives for one token; nothing where it cannot."""
    try:
        text = _called(tokenizer.decode, [id], clean_up_tokenization_spaces=False, skip_special_tokens=False)
    except Exception:  # it is the user's code, and may know fewer ids than the model
        return ""
    return text if isinstance(text, str) else ""


def names_tokens(tokenizer: Any) -> bool:
    """Whether the tokenizer has a name for each token, beside what it writes."""
    return any(attribute(tokenizer, way) is not None for way in _NAMES)


def named(tokenizer: Any, id: int) -> str | None:
    """A token's name in the vocabulary, such as `"ĠMary"` or `"▁Mary"`; None where there is none."""
    found = _first(tokenizer, _NAMES, id)
    if isinstance(found, bytes):
        return found.decode(errors="replace")
    return found if isinstance(found, str) else None


def with_name(tokenizer: Any, name: str) -> int | None:
    """The token with this name; perhaps the one for unknown words, where there is none."""
    found = _first(tokenizer, _IDS, name)
    return found if isinstance(found, int) else None


def bytes_of(tokenizer: Any, id: int) -> bytes | None:
    """The bytes of a token, where it can be determined that it is made of bytes."""
    found = _first(tokenizer, ("decode_single_token_bytes",), id)
    found = _first(tokenizer, _NAMES, id) if found is None else found
    if isinstance(found, bytes):
        return found
    if not isinstance(found, str) or not found:
        return None
    single = _BYTE.fullmatch(found)
    if single:
        return bytes([int(single[1], 16)])
    return bytes(_bytes()[letter] for letter in found) if all(letter in _bytes() for letter in found) else None


def of_bytes(tokenizer: Any, data: bytes) -> list[int]:
    """Tokens that may be made of exactly these bytes."""
    letters = {byte: letter for letter, byte in _bytes().items()}
    names = ["".join(letters[byte] for byte in data), *([f"<0x{data[0]:02X}>"] if len(data) == 1 else [])]
    found = (with_name(tokenizer, name) for name in names)
    return [id for id in found if id is not None]


def unknown(tokenizer: Any) -> int | None:
    """The token that stands for what the tokenizer does not know, where it says which."""
    id = attribute(tokenizer, "unk_token_id")
    if isinstance(id, int):
        return id
    backend = attribute(tokenizer, "backend_tokenizer") or tokenizer
    name = getattr(getattr(backend, "model", None), "unk_token", None)
    return with_name(tokenizer, name) if isinstance(name, str) else None


def _first(tokenizer: Any, ways: tuple[str, ...], value: Any) -> Any:
    """What the first of some methods gives that the tokenizer has; None where it has none, or it fails."""
    way = next((found for name in ways if (found := attribute(tokenizer, name)) is not None), None)
    try:
        return None if way is None else way(value)
    except Exception:  # it is the user's code
        return None


def _called(function: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Call with those options that the function takes."""
    own = getattr(function, "__func__", function)
    try:
        takes = _takes.get(own)
        if takes is None:
            takes = _takes[own] = _taken(function)
    except TypeError:  # it knows no weak references, or no hash
        takes = _taken(function)
    return function(*given, **{name: value for name, value in options.items() if _EVERY in takes or name in takes})


_EVERY = "**"

_takes: WeakKeyDictionary[Any, frozenset[str]] = WeakKeyDictionary()
"""The options of functions that were called before: to read a signature takes longer than to encode a word."""


def _taken(function: Callable[..., Any]) -> frozenset[str]:
    try:
        parameters = signature(function).parameters
    except (TypeError, ValueError):  # one that is not written in Python need not say
        return frozenset()
    every = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    return frozenset([_EVERY]) if every else frozenset(parameters)


@cache
def _bytes() -> dict[str, int]:
    """Which byte each letter of byte-level vocabularies stands for.

    Source: GPT-2's `bytes_to_unicode`: printable bytes stand for themselves, the others for the letters from 256 on.
    """
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + at): byte for at, byte in enumerate(others)}
