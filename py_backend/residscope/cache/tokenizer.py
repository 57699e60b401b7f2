"""Uses tokenizers of any kind: from Hugging Face, `tokenizers` or tiktoken, or written in the user's notebook.

Only `encode` and `decode` are required. Other methods improve the results.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from inspect import Parameter, signature
from typing import Any
from weakref import WeakKeyDictionary

from residscope.errors import ResidscopeError

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # SentencePiece's name for a single byte
_NAMES = ("convert_ids_to_tokens", "id_to_token", "id_to_piece")
_IDS = ("convert_tokens_to_ids", "token_to_id", "piece_to_id")


def encoded(tokenizer: object, text: str) -> list[int]:
    """Return the token ids of a text, without added special tokens.

    Raises:
        ResidscopeError: If the tokenizer has no `encode`, or fails.
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
    except Exception as error:  # the tokenizer may be the user's code
        raise ResidscopeError(
            "tokenizer",
            f"This model's tokenizer ({type(tokenizer).__name__}) fails on “{text}” with {type(error).__name__}: "
            f"{error}. Give token ids instead.",
        ) from error


def _ids(encode: Callable[..., Any], text: str) -> list[int]:
    found = _call(encode, text, add_special_tokens=False)
    return [int(id) for id in getattr(found, "ids", found)]


def _is_always_first(tokenizer: object, encode: Callable[..., Any], first: list[int]) -> bool:
    """Whether a text's first token is a BOS that this tokenizer adds to every text, even to an empty one."""
    if not first or first != [attribute(tokenizer, "bos_token_id")]:
        return False
    try:
        return _ids(encode, "")[:1] == first
    except Exception:  # the tokenizer may be the user's code, and may not accept an empty text
        return False


def attribute(tokenizer: object, name: str) -> Any:
    """Return an attribute of a tokenizer. None if it does not exist, or if the user's code raises."""
    try:
        return getattr(tokenizer, name, None)
    except Exception:
        return None


def decoded(tokenizer: Any, id: int) -> str:
    """Return the decoded text of one token. Empty if `decode` fails."""
    try:
        text = _call(tokenizer.decode, [id], clean_up_tokenization_spaces=False, skip_special_tokens=False)
    except Exception:  # the tokenizer may be the user's code, and may know fewer ids than the model
        return ""
    return text if isinstance(text, str) else ""


def names_tokens(tokenizer: object) -> bool:
    """Return whether the tokenizer has a method that gives each token's name in the vocabulary."""
    return any(attribute(tokenizer, method) is not None for method in _NAMES)


def token_name(tokenizer: object, id: int) -> str | None:
    """Return a token's name in the vocabulary, such as `"ĠMary"` or `"▁Mary"`. None without a name."""
    found = _first_result(tokenizer, _NAMES, id)
    if isinstance(found, bytes):
        return found.decode(errors="replace")
    return found if isinstance(found, str) else None


def id_of_name(tokenizer: object, name: str) -> int | None:
    """Return the id of the token with this name. For an unknown name: None, or in some tokenizers the unknown token."""
    found = _first_result(tokenizer, _IDS, name)
    return found if isinstance(found, int) else None


def bytes_of(tokenizer: object, id: int) -> bytes | None:
    """Return the bytes of a token. None if the bytes are not known."""
    found = _first_result(tokenizer, ("decode_single_token_bytes",), id)
    found = _first_result(tokenizer, _NAMES, id) if found is None else found
    if isinstance(found, bytes):
        return found
    if not isinstance(found, str) or not found:
        return None
    single = _BYTE.fullmatch(found)
    if single:
        return bytes([int(single[1], 16)])
    return (
        bytes(_bytes_by_character()[letter] for letter in found)
        if all(letter in _bytes_by_character() for letter in found)
        else None
    )


def tokens_of_bytes(tokenizer: object, data: bytes) -> list[int]:
    """Return the ids of tokens that may consist of exactly these bytes."""
    letters = {byte: letter for letter, byte in _bytes_by_character().items()}
    names = ["".join(letters[byte] for byte in data), *([f"<0x{data[0]:02X}>"] if len(data) == 1 else [])]
    found = (id_of_name(tokenizer, name) for name in names)
    return [id for id in found if id is not None]


def unknown_token(tokenizer: object) -> int | None:
    """Return the id of the unknown token. None if the tokenizer does not declare one."""
    id = attribute(tokenizer, "unk_token_id")
    if isinstance(id, int):
        return id
    backend = attribute(tokenizer, "backend_tokenizer") or tokenizer
    name = getattr(getattr(backend, "model", None), "unk_token", None)
    return id_of_name(tokenizer, name) if isinstance(name, str) else None


def _first_result(tokenizer: object, methods: tuple[str, ...], value: object) -> Any:
    """The result of the first of these methods that the tokenizer has. None if it has none, or if the method fails."""
    for name in methods:
        method = attribute(tokenizer, name)
        if method is not None:
            try:
                return method(value)
            except Exception:  # the tokenizer may be the user's code
                return None
    return None


def _call(function: Callable[..., object], *arguments: object, **options: object) -> Any:
    """Call a function. Options that the function does not accept are left out."""
    underlying = getattr(function, "__func__", function)
    try:
        accepted = _accepted_options.get(underlying)
        if accepted is None:
            accepted = _accepted_options[underlying] = _options(function)
    except TypeError:  # the function cannot be hashed, or allows no weak references
        accepted = _options(function)
    if _ANY_OPTION not in accepted:
        options = {name: value for name, value in options.items() if name in accepted}
    return function(*arguments, **options)


_ANY_OPTION = "**"

_accepted_options: WeakKeyDictionary[object, frozenset[str]] = WeakKeyDictionary()
"""The options that each function accepts, kept because reading a signature takes longer than encoding a word."""


def _options(function: Callable[..., object]) -> frozenset[str]:
    try:
        parameters = signature(function).parameters
    except (TypeError, ValueError):  # functions that are not written in Python may have no signature
        return frozenset()
    every = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    return frozenset([_ANY_OPTION]) if every else frozenset(parameters)


@cache
def _bytes_by_character() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for.

    Source: GPT-2's `bytes_to_unicode`. A printable character below 256 stands for the byte with its number. Characters
    from 256 on stand for the other bytes.
    """
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + at): byte for at, byte in enumerate(others)}
