"""Answers a host that can only have code run (VS Code): questions come in an expression, answers go as its outputs.

The expression takes this module from `sys.modules`, where attaching has left it, and calls `answer("[…]", "token")`. It
leaves no name behind, and is None, so that IPython keeps nothing of it. Each answer is one output of a MIME type that
nothing shows, or several where it is long; each bears the token, which tells the host that it is no other code's.
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
"""So many characters go into one output."""

_LONGEST = 128_000_000
"""So many characters has the longest answer that is sent; a host takes no longer ones."""

_dispatcher = Dispatcher(SafeImports)


def answer(questions: str, token: str) -> None:
    """Answer questions, one after the other, each as soon as its answer is there.

    Args:
        questions: A list of `protocol.Question`, as JSON; nonsense is answered as one that nobody understands.
        token: What each output bears.

    Raises:
        KeyboardInterrupt: The user's. That it came is answered to all questions that are left.
    """
    left = _each(questions)
    try:
        while left:
            said, buffers = _dispatcher.answer(left[0])
            _publish(said, buffers, token)
            del left[0]
    except KeyboardInterrupt:
        for question in left:
            _publish(*interrupted(question), token)
        raise


def _each(questions: str) -> list[Any]:
    try:
        listed = json.loads(questions)
    except (ValueError, RecursionError):
        listed = None
    return listed if isinstance(listed, list) else [None]


def _publish(said: dict[str, Any], buffers: Buffers, token: str) -> None:
    from IPython.core.display_functions import display

    whole = _whole(said, buffers)
    if len(whole) > _LONGEST:
        why = f"This answer has {len(whole) / 1e6:,.0f} MB, and VS Code takes {_LONGEST / 1e6:,.0f} MB at most. "
        why += "Choose fewer heads or fewer positions, or use Residscope in a cell."
        whole = _whole({"id": said["id"], "failure": {"code": "too-long", "message": why}}, [])
    pieces = [whole[start : start + _PIECE] for start in range(0, len(whole), _PIECE)]
    for number, text in enumerate(pieces):
        piece = {"token": token, "id": said["id"], "piece": number, "pieces": len(pieces), "text": text}
        display({MIME: piece}, raw=True)


def _whole(said: dict[str, Any], buffers: Buffers) -> str:
    return json.dumps({"answer": said, "buffers": [b64encode(buffer).decode() for buffer in buffers]})
