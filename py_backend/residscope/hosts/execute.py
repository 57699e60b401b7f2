"""Answers a host that can only run code (VS Code). Requests arrive in an expression, and replies are its outputs.

Attaching has loaded this module. The expression takes it from `sys.modules` and calls `answer("[…]", "token")`. The
expression defines no name, and its value is None, so IPython stores nothing. Each answer is one output, or several
outputs if the answer is long. No host displays outputs of this MIME type. Each output contains the token, so that the
host can distinguish it from outputs of other code.
"""

from __future__ import annotations

import json
from base64 import b64encode

from residscope.hosts.attach import SafeImports
from residscope.serving import turns
from residscope.serving.dispatcher import Dispatcher
from residscope.wire.envelope import Buffers, interrupted

MIME = "application/vnd.residscope+json"

_PIECE_LENGTH = 500_000
"""An output holds at most this many characters of an answer."""

_MAX_LENGTH = 128_000_000
"""An answer with more characters is not sent, because the host would not accept it."""

_dispatcher = Dispatcher(SafeImports)


def answer(questions: str, token: str) -> None:
    """Answer questions one after the other. Each answer is sent as soon as it is computed.

    Args:
        questions: A list of `protocol.Question` as JSON. Malformed JSON is answered as one malformed question.
        token: A text that each output contains.

    Raises:
        KeyboardInterrupt: If the user interrupts. Before it is raised, all remaining questions get a failure.
    """
    remaining = _decoded(questions)
    try:
        with turns.granted():  # this code runs as a cell, so no other cell is running
            while remaining:
                reply, buffers = _dispatcher.answer(remaining[0])
                _send(reply, buffers, token)
                del remaining[0]
    except KeyboardInterrupt:
        for question in remaining:
            _send(*interrupted(question), token)
        raise


def _decoded(questions: str) -> list[object]:
    try:
        listed = json.loads(questions)
    except (ValueError, RecursionError):
        listed = None
    return listed if isinstance(listed, list) else [None]


def _send(answer: dict[str, object], buffers: Buffers, token: str) -> None:
    from IPython.core.display_functions import display

    encoded = _encoded(answer, buffers)
    if len(encoded) > _MAX_LENGTH:
        size, most = (f"{length / 1e6:,.0f} MB" for length in (len(encoded), _MAX_LENGTH))
        why = f"This answer has {size}, but the connection to the kernel accepts at most {most}. "
        why += "Choose fewer heads or fewer positions, or use Residscope in a cell."
        encoded = _encoded({"id": answer["id"], "failure": {"code": "too-long", "message": why}}, [])
    pieces = [encoded[start : start + _PIECE_LENGTH] for start in range(0, len(encoded), _PIECE_LENGTH)]
    for number, text in enumerate(pieces):
        piece = {"token": token, "id": answer["id"], "piece": number, "pieces": len(pieces), "text": text}
        display({MIME: piece}, raw=True)


def _encoded(answer: dict[str, object], buffers: Buffers) -> str:
    return json.dumps({"answer": answer, "buffers": [b64encode(buffer).decode() for buffer in buffers]})
