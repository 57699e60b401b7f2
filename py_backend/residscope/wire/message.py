"""What all messages have in common.

The limits of numbers and lists are larger than any view needs. Limits that depend on the model are checked where a
request is answered.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from residscope.terms import Name, Padding

MOST_OF_ID = 200
"""The most characters of an id."""

Id = Annotated[str, Meta(min_length=1, max_length=MOST_OF_ID)]
"""Identifies a request in its reply, and when the request is sent again. The client chooses the id. No two clients use
the same id."""

HeadNames = Annotated[list[Name], Meta(max_length=16_384)]
"""Names of heads. The limit is enough for all heads of a large model."""

Listed = Annotated[int, Meta(ge=1, le=50)]
"""The number of listed entries."""


class Request(msgspec.Struct, frozen=True, tag_field="kind", kw_only=True):
    """A request of a view. `prompt=None` means the mean over prompts."""

    padding: Padding = "found"

    takes_long: ClassVar[Literal["never", "large caches", "always"]] = "never"
    """Whether the reply may take long. The request is then a job with progress, which can be cancelled."""
    is_kept: ClassVar[bool] = False
    """Whether the reply is memoised, because a view may request it again, or two views may show it."""


class Reply(msgspec.Struct, frozen=True, tag_field="kind"):
    """A reply of the kernel, of the same kind as its request."""
