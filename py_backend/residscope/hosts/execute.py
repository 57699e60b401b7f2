"""Answers a host that can only run code (VS Code): requests arrive in an expression, replies are its outputs.

The expression takes this module from `sys.modules`, where attaching has put it, and calls `answer("[…]", "token")`. It
defines no name, and its value is None, so IPython stores nothing. Each answer is one output, or several if it is long,
of a MIME type that no host displays. Each output has the token, by which the host knows that it is not of other code.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from residscope.hosts.attach import SafeImports
from residscope.serving.dispatcher import Dispatcher
from residscope.wire.envelope import Buffers, interrupted

MIME = "application/vnd.residscope+json"

_PIECE = 500_000
"""At most this many characters go into one output."""

_LONGEST = 128_000_000
"""A longer answer, in characters, is not sent: the host would not accept it."""

_dispatcher = Dispatcher(SafeImports)


def answer(questions: str, token: str) -> None:
    """Answer questions one after the other; each answer is sent as soon as it is there.

    Args:
        questions: A list of `protocol.Question` as JSON. Malformed JSON is answered as one malformed question.
        token: Is added to each output.

    Raises:
        KeyboardInterrupt: The user's. All remaining questions are answered with a failure first.
    """
    remaining = _decoded(questions)
    try:
        while remaining:
            reply, buffers = _dispatcher.answer(remaining[0])
            _publish(reply, buffers, token)
            del remaining[0]
    except KeyboardInterrupt:
        for question in remaining:
            _publish(*interrupted(question), token)
        raise


def _decoded(questions: str) -> list[Any]:
    try:
        listed = json.loads(questions)
    except (ValueError, RecursionError):
        listed = None
    return listed if isinstance(listed, list) else [None]


def _publish(answer: dict[str, Any], buffers: Buffers, token: str) -> None:
    from IPython.core.display_functions import display

    encoded = _encoded(answer, buffers)
    if len(encoded) > _LONGEST:
        why = f"This answer has {len(encoded) / 1e6:,.0f} MB, and VS Code accepts at most {_LONGEST / 1e6:,.0f} MB. "
        why += "Choose fewer heads or fewer positions, or use Residscope in a cell."
        encoded = _encoded({"id": answer["id"], "failure": {"code": "too-long", "message": why}}, [])
    pieces = [encoded[start : start + _PIECE] for start in range(0, len(encoded), _PIECE)]
    for number, text in enumerate(pieces):
        piece = {"token": token, "id": answer["id"], "piece": number, "pieces": len(pieces), "text": text}
        display({MIME: piece}, raw=True)


def _encoded(answer: dict[str, Any], buffers: Buffers) -> str:
    return json.dumps({"answer": answer, "buffers": [b64encode(buffer).decode() for buffer in buffers]})
