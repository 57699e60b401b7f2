"""Messages about views that come and go, the documentation that they show, and jobs that take long."""

from __future__ import annotations

from typing import Literal

from residscope.terms import Name
from residscope.wire.message import Id, Reply, Request


class ReadChapter(Request, frozen=True, tag="chapter"):
    """The text of a chapter of the documentation, by its name."""

    name: Name


class ChapterReply(Reply, frozen=True, tag="chapter"):
    """A chapter of the documentation, as Markdown."""

    name: str
    text: str


class Presence(Request, frozen=True, tag="presence"):
    """Reports that an inline panel's view was shown or removed, or that its page closes or reloads."""

    view: Id
    state: Literal["shown", "hidden", "away"]


class PresenceReply(Reply, frozen=True, tag="presence"):
    """Confirms a presence message."""


class GiveUp(Request, frozen=True, tag="give-up"):
    """Cancels the job of an earlier request, by its id."""

    id: Id


class GivenUp(Reply, frozen=True, tag="give-up"):
    """Confirms a request to cancel a job."""


class Working(Reply, frozen=True, tag="working"):
    """The job is not finished: `done` of `total` steps are done. Send the request again, with its id.

    `total` is 0 if it is not known.
    """

    done: int
    total: int


Requests = ReadChapter | Presence | GiveUp
Replies = ChapterReply | PresenceReply | GivenUp | Working
