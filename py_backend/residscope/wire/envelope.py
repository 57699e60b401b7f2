"""From a message to its answer: the envelopes, how numbers travel, and that every question is answered."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from residscope.base.legible import whole
from residscope.compute.switch_interval import switching_often
from residscope.errors import ResidscopeError
from residscope.wire.protocol import MOST_OF_ID, Answer, AnyReply, Failure, Question
from residscope.wire.refusals import refusal

if TYPE_CHECKING:
    from torch import Tensor

Buffers = list[bytes]
Reply = tuple[dict[str, Any], Buffers]
"""A `protocol.Answer` as plain objects, and its buffers."""

_NO_ID = (
    f"The kernel cannot tell which answer this would be: a request's id is a text of 1 to {MOST_OF_ID} characters. "
    "Reload the page."
)

_HALF = "A text of this request holds half a character (a lone surrogate), which cannot be sent on: leave it out."

_INTERRUPTED = "The kernel was interrupted while it worked this out. Ask again."

_log = logging.getLogger("residscope")

_reading = threading.Lock()
"""msgspec works out at first use how a structure is read; two threads that do so at once end the process (in 0.22)."""


def answered(message: Any, reply: Callable[[Question], tuple[AnyReply, Buffers]]) -> Reply:
    """Answer a message, whatever happens.

    Args:
        message: A `protocol.Question` as plain objects, or nonsense.
        reply: Answers the question, or raises.

    Returns:
        A `protocol.Answer` as plain objects, and its buffers. Raises nothing but the user's KeyboardInterrupt.
    """
    id = _id(message)
    try:
        if not 1 <= len(id) <= MOST_OF_ID or id != message["id"]:
            raise ResidscopeError("protocol", _NO_ID)
        with _reading:
            question = msgspec.convert(message, Question)
        said, buffers = switching_often(lambda: reply(question))
        # Through JSON, as the wire does: what it cannot carry (NaN) becomes null here, and not an error on the way.
        return msgspec.json.decode(msgspec.json.encode(Answer(id, reply=said))), buffers
    except ResidscopeError as error:
        _log.info("A request was refused (%s): %.1000r", error.code, message, exc_info=True)
        failure = Failure(error.code, str(error))
    except msgspec.ValidationError as error:
        failure = refusal(error, message)
    except UnicodeEncodeError:
        failure = Failure("protocol", _HALF)
    except Exception as error:  # every request is answered, whatever happens
        _log.exception("A request failed: %.1000r", message)
        failure = Failure("internal", f"Residscope failed on this request: {type(error).__name__}: {error}")
    # What was sent may be in the sentence, half characters and all.
    failure = Failure(failure.code, whole(failure.message))
    return msgspec.to_builtins(Answer(id, failure=failure)), []


def deliver(message: Any, answer: Callable[[Any], Reply], send: Callable[[dict[str, Any], Buffers], None]) -> None:
    """Answer a message, and send the answer.

    An interrupt is the user's, whatever it comes into: whoever asked is told, and then it goes on to whom it is meant
    for (ipykernel writes it down; a cell ends with it).

    Args:
        message: As in `answered`.
        answer: Answers it, as `answered` does.
        send: Sends the answer.
    """
    try:
        send(*answer(message))
    except KeyboardInterrupt:
        send(*interrupted(message))
        raise


def interrupted(message: Any) -> Reply:
    """What to answer to a message that was being answered when the user interrupted the kernel."""
    return msgspec.to_builtins(Answer(_id(message), failure=Failure("interrupted", _INTERRUPTED))), []


def _id(message: Any) -> str:
    id = message.get("id") if isinstance(message, dict) else None
    return whole(id) if isinstance(id, str) else ""


def number(value: Tensor) -> float | None:
    """A figure for the wire, None where it is not known (JSON has no NaN)."""
    figure = float(value)
    return figure if math.isfinite(figure) else None


def float32(tensor: Tensor) -> bytes:
    """A tensor as a buffer of float32."""
    return tensor.float().cpu().contiguous().numpy().tobytes()


def float16(tensor: Tensor) -> bytes:
    """A tensor as a buffer of float16."""
    return tensor.half().cpu().contiguous().numpy().tobytes()


def scaled(tensor: Tensor) -> tuple[float, bytes]:
    """A tensor as a buffer of float16, in units of its largest absolute value (1 where it is all zeros), and that."""
    scale = float(tensor.abs().max()) or 1.0
    return scale, float16(tensor / scale)


def int8(tensor: Tensor) -> tuple[float, Tensor]:
    """A tensor as whole numbers, in 127ths of its largest absolute value, and that."""
    import torch

    limit = float(tensor.abs().max())
    return limit, (tensor * (127 / limit if limit else 0.0)).round().to(torch.int8).cpu()
