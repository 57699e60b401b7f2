"""Translates between the ids and the texts of the model's tokens, and explains texts that are not a single token."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from residscope.cache.tokenizer import (
    bytes_of,
    decoded,
    encoded,
    id_of_name,
    names_tokens,
    token_name,
    tokens_of_bytes,
    unknown_token,
)
from residscope.cache.unembedding import vocabulary_size
from residscope.errors import ResidscopeError
from residscope.terms import Token

_BYTES = re.compile(r"⟨((?:[0-9A-F]{2} ?)+)⟩")


@dataclass(frozen=True)
class Reading:
    """How a text is tokenised.

    Attributes:
        text: The text.
        tokens: The text's tokens.
        single: Whether the text is exactly one token.
        message: A remark about the token (or empty), or the reason why the text is not a single token.
        suggestions: Tokens that the user may have meant instead.
    """

    text: str
    tokens: list[Token]
    single: bool
    message: str
    suggestions: list[Token]


class Vocabulary:
    """The ids and texts of the model's tokens. Leading spaces are kept. Parts of characters are shown as `⟨E4 BD⟩`."""

    def __init__(self, model: object) -> None:
        self.tokenizer = getattr(model, "tokenizer", None)
        self.size = vocabulary_size(model)
        self._tokens: dict[int, Token] = {}

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`, without added special tokens.

        Raises:
            ResidscopeError: If the model has no tokenizer, or the tokenizer fails.
        """
        if self.tokenizer is None:
            raise ResidscopeError(
                "no-tokenizer", f"This model has no tokenizer, so “{text}” cannot be looked up: give token ids instead."
            )
        return encoded(self.tokenizer, text)

    def token(self, id: int) -> Token:
        """Return the token with this id.

        Raises:
            ResidscopeError: If the vocabulary has no such id.
        """
        self.check_id(id)
        known = self._tokens.get(id)
        if known is None:
            known = self._tokens[id] = Token(id, self.text(id))
        return known

    def check_id(self, id: int) -> None:
        """Raise a `ResidscopeError` if the vocabulary does not have this id."""
        if not 0 <= id < self.size:
            raise ResidscopeError("token-id", f"Token id {id} is outside the vocabulary (0 to {self.size - 1}).")

    def text(self, id: int) -> str:
        """Return the text of this token. SentencePiece's mark `▁` is shown as a space."""
        if self.tokenizer is None:
            return f"#{id}"
        name = token_name(self.tokenizer, id)
        if name is None and names_tokens(self.tokenizer):  # the tokenizer has no token for this row of W_U
            return f"#{id}"
        if name is not None and name.startswith("▁"):
            return name.replace("▁", " ")
        text = decoded(self.tokenizer, id)
        if text and "�" not in text:
            return text
        data = bytes_of(self.tokenizer, id)
        return _shown(data) if text and data else name or text or f"#{id}"

    def token_of_text(self, text: str) -> Token | None:
        """Return the token whose text is exactly `text`. None if there is none."""
        ids = self._encode_guess(text)
        # A tokenizer may have more tokens than the model.
        if len(ids) == 1 and 0 <= ids[0] < self.size and self.token(ids[0]).text == text:
            return self.token(ids[0])
        # A tokenizer that adds a space to every text may never return the token for text that begins with a space. So
        # the token is also searched by its name.
        found = tokens_of_bytes(self.tokenizer, bytes_of_text(text)) if _BYTES.search(text) else []
        found += [id for id in (id_of_name(self.tokenizer, text.replace(" ", "▁")),) if id is not None]
        wanted = text.replace("▁", " ")
        return next((self.token(id) for id in found if 0 <= id < self.size and self.text(id) == wanted), None)

    def written(self, id: int) -> str | int:
        """Return what a user would write for this token: its text if it is read as exactly this token, else the id."""
        text = self.token(id).text
        return text if self._encode_guess(text) == [id] else id

    def _encode_guess(self, text: str) -> list[int]:
        """The ids of a text that the user did not type, such as a word with an added space. Empty if this fails."""
        try:
            return self.encode(text)
        except ResidscopeError:
            return []

    def check(self, text: str) -> Reading:
        """Return how `text` is tokenised, with suggestions if it is not a single token."""
        tokens = [self.token(id) for id in self.encode(text)]
        unknown = unknown_token(self.tokenizer)
        single = len(tokens) == 1
        if single and (
            tokens[0].text == text or (tokens[0].id != unknown and _folded(tokens[0].text) == _folded(text))
        ):
            return self._single(text, tokens[0])
        exact = self.token_of_text(text)
        if exact is not None:
            return self._single(text, exact)
        if single or any(token.id == unknown for token in tokens):
            parts = " + ".join(quote(token.text) for token in tokens)
            return Reading(
                text,
                tokens,
                False,
                f"{quote(text)} is not in this model's vocabulary: its tokenizer reads it as {parts}.",
                [],
            )
        if not tokens:
            return Reading(text, [], False, "An empty text is not a token: a target needs one.", [])
        return self._several(text, tokens)

    def _single(self, text: str, token: Token) -> Reading:
        """The reading of a text that is a single token."""
        if token.text != text.replace("▁", " "):
            message = f"This model's tokenizer reads {quote(text)} as {quote(token.text)}: that token is used."
            return Reading(text, [token], True, message, [])
        near = self.spaced(token)
        if near is None:
            return Reading(text, [token], True, "", [])
        message = f"This token has no leading space. Inside a sentence the token is {quote(near.text)}."
        return Reading(text, [token], True, message, [near])

    def _several(self, text: str, tokens: list[Token]) -> Reading:
        """The reading of a text that is several tokens."""
        other = self.token_of_text(text[1:] if text.startswith(" ") else f" {text}") if text.strip() else None
        near = [] if other is None else [other]
        parts = " + ".join(quote(token.text) for token in tokens)
        # A first token that holds only some bytes of a character is not a useful suggestion.
        suggestions = [*near, tokens[0]] if tokens[0].text.strip() and text.startswith(tokens[0].text) else near
        hint = " or ".join(dict.fromkeys(quote(token.text) for token in suggestions))
        message = f"{quote(text)} is {len(tokens)} tokens in this model: {parts}. A target is a single token"
        return Reading(text, tokens, False, f"{message}; try {hint}." if hint else f"{message}.", suggestions)

    def spaced(self, token: Token) -> Token | None:
        """Return the token of the same text with a leading space.

        None if there is no such token, or if the text does not begin with a letter or a digit.
        """
        return self.token_of_text(f" {token.text}") if token.text[:1].isalnum() else None

    def each_spaced(self, tokens: list[Token]) -> list[Token | None]:
        """Return `spaced` for each token."""
        return [self.spaced(token) for token in tokens]

    def perhaps_spaced(self, tokens: list[Token]) -> list[Token | None]:
        """Return what `each_spaced` returns, with rare exceptions, but faster: tokens are looked up by their names."""
        bare = [token for token in tokens if token.text[:1].isalnum()]
        if not self._space_mark:
            return self.each_spaced(tokens) if self._may_have_spaces(bare) else [None] * len(tokens)
        names = ((token, token_name(self.tokenizer, token.id)) for token in bare)
        found = {token.id: id_of_name(self.tokenizer, self._space_mark + name) for token, name in names if name}
        unknown = unknown_token(self.tokenizer)
        ids = [found.get(token.id) for token in tokens]
        return [
            None if id is None or id == unknown or id >= self.size else Token(id, f" {token.text}")
            for token, id in zip(tokens, ids, strict=True)
        ]

    def _may_have_spaces(self, bare: list[Token]) -> bool:
        """Whether the vocabulary may have one of these tokens with a space. Names and one encoded text decide."""
        if not bare:
            return False
        if not names_tokens(self.tokenizer):
            return True
        nothing = (None, unknown_token(self.tokenizer))
        if any(id_of_name(self.tokenizer, f" {token.text}") not in nothing for token in bare):
            return True
        ids = self._encode_guess(" ".join(["", *(token.text for token in bare)]))
        return not ids or any(0 <= id < self.size and self.text(id).startswith(" ") for id in ids)

    @cached_property
    def _space_mark(self) -> str:
        """The character that stands for a space in this vocabulary's names. Empty if there is none."""
        names = (mark + word for mark in "Ġ▁" for word in ("the", "a", "I", "de", "1"))
        found = ((name, id_of_name(self.tokenizer, name)) for name in names)
        return next((name[0] for name, id in found if id is not None and token_name(self.tokenizer, id) == name), "")

    def require(self, text: str) -> Reading:
        """Return the reading of a text that must be a single token.

        Raises:
            ResidscopeError: If the text is several tokens, or is not in the vocabulary. The message shows the
                text's tokens and suggests other texts.
        """
        reading = self.check(text)
        if not reading.single:
            raise ResidscopeError("several-tokens", reading.message)
        return reading


def quote(text: str) -> str:
    """Return the text in quotation marks, with visible spaces and line breaks."""
    return f"“{text.replace(' ', '·').replace(chr(10), '↵')}”"


def _folded(text: str) -> str:
    """The text without what some tokenizers remove or replace: capitals, accents, ligatures, spaces."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter) and not letter.isspace())


def bytes_of_text(text: str) -> bytes:
    """Return the bytes of a text. In the text, some bytes may be written as `⟨E4 BD⟩`."""
    parts = _BYTES.split(text)
    return b"".join(bytes.fromhex(part) if at % 2 else part.encode(errors="replace") for at, part in enumerate(parts))


def _shown(data: bytes) -> str:
    """The bytes as text, with incomplete characters written as `⟨E4 BD⟩`."""
    text = ""
    while data:
        try:
            return text + data.decode()
        except UnicodeDecodeError as error:
            part = data[error.start : error.end].hex(" ").upper()
            before = text + data[: error.start].decode()
            # Consecutive incomplete bytes share one pair of brackets.
            text = f"{before[:-1]} {part}⟩" if before.endswith("⟩") and not error.start else f"{before}⟨{part}⟩"
            data = data[error.end :]
    return text
