"""In a real kernel: answers to a host that can only have code run, as VS Code does it."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from beside import value
from jupyter_client.manager import start_new_kernel
from test_beside import TRACES
from test_kernel import SETUP, run

from residscope.executed import MIME

ANSWER = '__import__("residscope.executed", fromlist=["_"]).answer({!r})'


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    run(client, SETUP)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def asked(kernel, *questions: dict) -> list[dict]:
    """The pieces that come as outputs; nothing else may come."""
    pieces: list[dict] = []

    def hear(message: dict) -> None:
        if message["msg_type"] == "display_data":
            assert set(message["content"]["data"]) == {MIME}
            pieces.append(message["content"]["data"][MIME])
        else:
            assert message["msg_type"] in ("status", "execute_input"), message

    code = ANSWER.format(json.dumps(questions))
    kernel.execute_interactive(code, silent=False, store_history=False, allow_stdin=False, timeout=60, output_hook=hear)
    return pieces


def whole(pieces: list[dict]) -> dict:
    assert [piece["piece"] for piece in pieces] == list(range(pieces[0]["pieces"]))
    return json.loads("".join(piece["text"] for piece in pieces))


def test_questions_are_answered_in_turn_without_a_trace(kernel) -> None:
    before = {name: value(kernel, expression) for name, expression in TRACES.items()}
    listed = whole(asked(kernel, {"id": "a", "ask": {"kind": "caches"}}))
    (row,) = listed["answer"]["reply"]["caches"]
    target = {"id": "t", "ask": {"kind": "target"}, "cache": row["ref"]}
    nonsense = {"id": "x", "ask": {"kind": "no such"}}
    first, second = asked(kernel, target, nonsense)
    found = whole([first])["answer"]["reply"]["target"]
    assert whole([second])["answer"]["failure"]["code"] == "protocol"

    ask = {"kind": "attribute", "by": "head", "target": found}
    answer = whole(asked(kernel, {"id": "h", "ask": ask, "cache": row["ref"]}))
    rows = np.frombuffer(base64.b64decode(answer["buffers"][0]), np.float32)
    reply = answer["answer"]["reply"]
    assert rows.sum() + reply["constant"] == pytest.approx(reply["measured"], abs=1e-3)
    assert {name: value(kernel, expression) for name, expression in TRACES.items()} == before


def test_a_long_answer_comes_in_pieces(kernel) -> None:
    run(kernel, "import residscope.executed as _e; _e._PIECE = 100; del _e")
    pieces = asked(kernel, {"id": "a", "ask": {"kind": "caches"}})
    assert len(pieces) > 3
    assert all(piece["id"] == "a" for piece in pieces)
    assert whole(pieces)["answer"]["reply"]["kind"] == "caches"
