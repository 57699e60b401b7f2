"""Envelopes of messages, tensors as buffers, and the guarantee that every request gets a reply."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from residscope.base.legible import encodable
from residscope.compute.switch_interval import switching_often
from residscope.errors import ResidscopeError
from residscope.wire.message import MOST_OF_ID
from residscope.wire.protocol import Answer, AnyReply, Failure, Question
from residscope.wire.refusals import refusal

if TYPE_CHECKING:
    from torch import Tensor

Buffers = list[bytes]
Reply = tuple[dict[str, Any], Buffers]
"""A `protocol.Answer` as plain objects, and its buffers."""

_NO_ID = f"This request has no valid id: an id is a text of 1 to {MOST_OF_ID} characters. Reload the page."

_HALF = "A text in this request contains half a character (a lone surrogate), which cannot be sent: leave it out."

_INTERRUPTED = "The kernel was interrupted during this computation. Try again."

_log = logging.getLogger("residscope")

_reading = threading.Lock()
"""msgspec 0.22 prepares a type at its first use. If two threads do this at the same time, the process crashes."""


def answered(message: Any, reply: Callable[[Question], tuple[AnyReply, Buffers]]) -> Reply:
    """Answer a message. Every error becomes a failure.

    Args:
        message: A `protocol.Question` as plain objects, or anything else.
        reply: Answers the request, or raises an error.

    Returns:
        A `protocol.Answer` as plain objects, and its buffers. No error is raised except KeyboardInterrupt.
    """
    id = _id(message)
    try:
        if not 1 <= len(id) <= MOST_OF_ID or id != message["id"]:
            raise ResidscopeError("protocol", _NO_ID)
        with _reading:
            question = msgspec.convert(message, Question)
        answer, buffers = switching_often(lambda: reply(question))
        # Through JSON, so that NaN becomes null here instead of an error later.
        return msgspec.json.decode(msgspec.json.encode(Answer(id, reply=answer))), buffers
    except ResidscopeError as error:
        _log.info("A request was refused (%s): %.1000r", error.code, message, exc_info=True)
        failure = Failure(error.code, str(error))
    except msgspec.ValidationError as error:
        failure = refusal(error, message)
    except UnicodeEncodeError:
        failure = Failure("protocol", _HALF)
    except Exception as error:  # so that every request gets a reply
        _log.exception("A request failed: %.1000r", message)
        failure = Failure("internal", f"Residscope failed on this request: {type(error).__name__}: {error}")
    # The message may quote text that was sent, including half characters.
    failure = Failure(failure.code, encodable(failure.message))
    return msgspec.to_builtins(Answer(id, failure=failure)), []


def deliver(
    message: object, answer: Callable[[object], Reply], send: Callable[[dict[str, object], Buffers], None]
) -> None:
    """Answer a message, and send the answer.

    If the user interrupts the kernel, the client gets a failure. Then the interrupt is raised again for the kernel
    (ipykernel logs it, and a running cell ends).

    Args:
        message: As in `answered`.
        answer: Answers the message, as `answered` does.
        send: Sends the answer.
    """
    try:
        send(*answer(message))
    except KeyboardInterrupt:
        send(*interrupted(message))
        raise


def interrupted(message: object) -> Reply:
    """Return the failure for a message during which the user interrupted the kernel."""
    return msgspec.to_builtins(Answer(_id(message), failure=Failure("interrupted", _INTERRUPTED))), []


def _id(message: object) -> str:
    id = message.get("id") if isinstance(message, dict) else None
    return encodable(id) if isinstance(id, str) else ""


def number(value: Tensor) -> float | None:
    """Return a number for the wire. None if it is not finite, because JSON has no NaN."""
    result = float(value)
    return result if math.isfinite(result) else None


def float32(tensor: Tensor) -> bytes:
    """Return a tensor as a buffer of float32."""
    return tensor.float().cpu().contiguous().numpy().tobytes()


def float16(tensor: Tensor) -> bytes:
    """Return a tensor as a buffer of float16."""
    return tensor.half().cpu().contiguous().numpy().tobytes()


def scaled(tensor: Tensor) -> tuple[float, bytes]:
    """Return a tensor's largest finite absolute value, and the tensor divided by it, as a buffer of float16.

    The scale is 1 if all finite values are 0. NaN and infinity stay what they are.
    """
    sizes = tensor.abs()
    scale = float(sizes.where(sizes.isfinite(), 0).max()) or 1.0
    return scale, float16(tensor / scale)


def int8(tensor: Tensor) -> tuple[float, Tensor]:
    """Return a tensor's largest absolute value, and the tensor as int8 in units of 1/127 of this value.

    −128 stands for NaN. int8 has no infinity: if the tensor has one, or only NaN, the largest value is not finite, and
    all cells are 0.
    """
    import torch

    unknown = tensor.isnan()
    limit = math.nan if bool(unknown.all()) else float(tensor.abs().masked_fill(unknown, 0.0).max())
    if not math.isfinite(limit):
        return limit, torch.zeros(tensor.shape, dtype=torch.int8, device="cpu")
    cells = (tensor * (127 / limit if limit else 0.0)).nan_to_num(0.0).round().masked_fill(unknown, -128)
    return limit, cells.to(torch.int8).cpu()
