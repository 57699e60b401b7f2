"""Answers a host that can only have code run (VS Code): questions come in an expression, answers go as its outputs.

The expression is `__import__("residscope.executed", fromlist=["_"]).answer("[…]")`: it leaves no name behind, and is
None, so that IPython keeps nothing of it. Each answer is one output of a MIME type that nothing shows, or several where
it is long.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from .desk import Desk
from .envelope import Buffers

MIME = "application/vnd.residscope+json"

_PIECE = 500_000
"""So many characters go into one output."""

_desk = Desk()


def answer(questions: str) -> None:
    """Answer questions, one after the other, each as soon as its answer is there.

    Args:
        questions: A list of `protocol.Question`, as JSON.
    """
    for question in json.loads(questions):
        said, buffers = _desk.answer(question)
        _publish(said, buffers)


def _publish(said: dict[str, Any], buffers: Buffers) -> None:
    from IPython.core.display_functions import display

    whole = json.dumps({"answer": said, "buffers": [b64encode(buffer).decode() for buffer in buffers]})
    pieces = [whole[start : start + _PIECE] for start in range(0, len(whole), _PIECE)]
    for number, text in enumerate(pieces):
        piece = {"id": said["id"], "piece": number, "pieces": len(pieces), "text": text}
        display({MIME: piece}, raw=True)
