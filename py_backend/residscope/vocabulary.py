"""The model's tokens: ids ↔ text, and what to say of a text that is not one of them."""

from __future__ import annotations

from typing import Any

from .errors import ResidscopeError
from .logits import vocabulary_size
from .protocol import Token, TokenCheck


class Vocabulary:
    """The model's tokens: ids ↔ text, with leading spaces kept and byte fragments shown as they are."""

    def __init__(self, model: Any) -> None:
        self.tokenizer = getattr(model, "tokenizer", None)
        self.size = vocabulary_size(model)
        self._tokens: dict[int, Token] = {}

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without any special token added."""
        if self.tokenizer is None:
            raise ResidscopeError(
                "no-tokenizer", f"This model has no tokenizer, so “{text}” cannot be looked up: give token ids instead."
            )
        return [int(i) for i in self.tokenizer.encode(text, add_special_tokens=False)]

    def token(self, id: int) -> Token:
        """The token with this id.

        Raises:
            ResidscopeError: If the vocabulary has no such id.
        """
        self.check_id(id)
        known = self._tokens.get(id)
        if known is None:
            known = self._tokens[id] = Token(id, self.text(id))
        return known

    def check_id(self, id: int) -> None:
        """Refuse an id that the vocabulary does not have."""
        if not 0 <= id < self.size:
            raise ResidscopeError("token-id", f"Token id {id} is outside the vocabulary (0 to {self.size - 1}).")

    def text(self, id: int) -> str:
        """What this token writes; a sentence piece's mark is shown as the space it is."""
        if self.tokenizer is None:
            return f"#{id}"
        raw = self.tokenizer.convert_ids_to_tokens(id)
        if raw is None:  # rows of W_U beyond the tokenizer's own vocabulary
            return f"#{id}"
        if raw.startswith("▁"):
            return raw.replace("▁", " ")
        text = self.tokenizer.decode([id], clean_up_tokenization_spaces=False)
        return raw if not text or "�" in text else text

    def single(self, text: str) -> Token | None:
        """The one token that `text` is, or None."""
        ids = self.encode(text)
        return self.token(ids[0]) if len(ids) == 1 else None

    def check(self, text: str) -> TokenCheck:
        """How `text` is tokenised, and what could be meant where it is not one token."""
        tokens = [self.token(id) for id in self.encode(text)]
        if len(tokens) == 1 and _is_other(tokens[0].text, text):
            written = quote(tokens[0].text)
            return TokenCheck(
                text, tokens, False, f"{quote(text)} is not in this model's vocabulary: it reads it as {written}.", []
            )
        other = text[1:] if text.startswith(" ") else f" {text}"
        near = [token for token in (self.single(other),) if token and token.text == other and text.strip()]
        if len(tokens) == 1:
            message = ""
            if near and not text.startswith(" ") and text[:1].isalnum():
                message = f"Without its leading space. Inside a sentence the token is {quote(near[0].text)}."
            return TokenCheck(text, tokens, True, message, near if message else [])
        if not tokens:
            return TokenCheck(text, [], False, "Nothing typed: a target needs one token.", [])
        parts = " + ".join(quote(token.text) for token in tokens)
        # A first token that is a fragment of a letter's bytes is nothing to suggest.
        suggestions = [*near, tokens[0]] if tokens[0].text.strip() and text.startswith(tokens[0].text) else near
        hint = " or ".join(dict.fromkeys(quote(token.text) for token in suggestions))
        message = f"{quote(text)} is {len(tokens)} tokens in this model: {parts}. A target is a single token"
        return TokenCheck(text, tokens, False, f"{message}; try {hint}." if hint else f"{message}.", suggestions)

    def require(self, text: str) -> Token:
        """The one token that `text` is.

        Raises:
            ResidscopeError: If it is several; the sentence shows them and suggests.
        """
        check = self.check(text)
        if not check.single:
            raise ResidscopeError("several-tokens", check.message)
        return check.tokens[0]


def quote(text: str) -> str:
    """Text between quotation marks, its spaces and line breaks made visible."""
    return f"“{text.replace(' ', '·').replace(chr(10), '↵')}”"


def _is_other(token: str, text: str) -> bool:
    """Whether a token is not the text that was looked up, as a tokenizer's token for what it does not know."""
    wanted = "".join(text.split()).casefold()
    return bool(wanted) and "".join(token.split()).casefold() != wanted and token.startswith(("<", "["))
