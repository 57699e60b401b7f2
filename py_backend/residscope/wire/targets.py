"""Messages with which a target is chosen."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from residscope.terms import Name, Number, Position, Prediction, Target, Text, Token
from residscope.wire.message import Reply, Request


class Suggest(Request, frozen=True, tag="suggest"):
    """The model's own top predictions at a position."""

    prompt: Number | None = None
    position: Position = "last"
    k: Annotated[int, Meta(ge=1, le=100)] = 8


class Suggestions(Reply, frozen=True, tag="suggest"):
    """The model's top predictions, likeliest first."""

    predictions: list[Prediction]


class CheckToken(Request, frozen=True, tag="check"):
    """Checks whether a text is one token of the model."""

    text: Text


class TokenCheck(Reply, frozen=True, tag="check"):
    """How a text is tokenised. `single`: whether it is exactly one token. If not, `message` gives the reason."""

    text: str
    tokens: list[Token]
    single: bool
    message: str
    suggestions: list[Token]


class ChooseTarget(Request, frozen=True, tag="target"):
    """The default target: the one of an inline panel of the same cache, if it is about logits.

    Otherwise the model's own two top predictions at each prompt's last token.
    """


class TargetReply(Reply, frozen=True, tag="target"):
    """A target."""

    target: Target


class FindAnswers(Request, frozen=True, tag="answers"):
    """Requests what could be the target: the kernel's variables with answer tokens, and a panel's target."""


class Variable(msgspec.Struct, frozen=True):
    """A variable with possible answers. `name` is a Python expression, `words` a description such as `[8, 2] ids`."""

    name: str
    words: str


class AnswersReply(Reply, frozen=True, tag="answers"):
    """Possible answers, in the namespace's order. `panel` describes the target of an inline panel, if there is one."""

    variables: list[Variable]
    panel: str | None
    notes: list[str]


class ResolveAnswers(Request, frozen=True, tag="resolve"):
    """The target that a variable holds (`name` is from `AnswersReply`), or that the inline panel shows (None)."""

    name: Name | None = None


class ResolvedReply(Reply, frozen=True, tag="resolve"):
    """A target, and notes on how the answers were understood."""

    name: str | None
    target: Target
    notes: list[str]


Requests = Suggest | CheckToken | ChooseTarget | FindAnswers | ResolveAnswers
Replies = Suggestions | TokenCheck | TargetReply | AnswersReply | ResolvedReply
