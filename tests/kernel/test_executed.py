"""Replies of a real kernel to a host that can only run code, such as VS Code."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel

from residscope.hosts import execute
from residscope.hosts.execute import MIME
from residscope.wire import protocol
from tests.support.as_vscode import expression
from tests.support.beside import value
from tests.support.kernels import SETUP, TRACES, run

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    run(client, SETUP)
    [greeted] = run(client, expression(TOKEN))
    assert greeted["data"][MIME]["token"] == TOKEN
    assert greeted["data"][MIME]["info"]["wire"] == protocol.wire()
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def asked(kernel, *questions: dict) -> list[dict]:
    """Ask questions by code, and return the pieces of the outputs. Each piece must have the token."""
    pieces: list[dict] = []

    def hear(message: dict) -> None:
        if message["msg_type"] == "display_data":
            assert set(message["content"]["data"]) == {MIME}
            pieces.append(message["content"]["data"][MIME])
            assert pieces[-1]["token"] == TOKEN
        else:
            assert message["msg_type"] in ("status", "execute_input"), message

    code = expression(TOKEN, list(questions))
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
    run(kernel, "import residscope.hosts.execute as _e; _e._PIECE_LENGTH = 100; del _e")
    pieces = asked(kernel, {"id": "a", "ask": {"kind": "caches"}})
    assert len(pieces) > 3
    assert all(piece["id"] == "a" for piece in pieces)
    assert whole(pieces)["answer"]["reply"]["kind"] == "caches"


def test_an_answer_that_is_too_long_is_a_failure_with_this_reason(kernel) -> None:
    run(kernel, "import residscope.hosts.execute as _e; _e._PIECE_LENGTH, _e._MAX_LENGTH = 500_000, 100; del _e")
    [piece] = asked(kernel, {"id": "a", "ask": {"kind": "caches"}})
    failure = whole([piece])["answer"]["failure"]
    assert failure["code"] == "too-long"
    assert "Choose fewer heads" in failure["message"]


def test_in_a_kernel_without_attachment_the_expression_loads_and_raises_nothing(tmp_path) -> None:
    """If a kernel was restarted after attaching, the extension gets no answer, and attaches again."""
    (tmp_path / "residscope" / "hosts").mkdir(parents=True)
    (tmp_path / "residscope" / "__init__.py").write_text("")
    (tmp_path / "residscope" / "hosts" / "__init__.py").write_text("")
    (tmp_path / "residscope" / "hosts" / "execute.py").write_text("raise SystemError")
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    try:
        before = {name: value(client, expression) for name, expression in TRACES.items()}
        assert asked(client, {"id": "a", "ask": {"kind": "caches"}}) == []
        assert value(client, "'residscope' in __import__('sys').modules") is False
        assert {name: value(client, expression) for name, expression in TRACES.items()} == before
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_expression_passes_on_the_questions_with_any_characters(monkeypatch) -> None:
    heard: list[tuple[list, str]] = []
    monkeypatch.setattr(execute, "answer", lambda questions, token: heard.append((json.loads(questions), token)))
    texts = ["é", "\u2028\u2029", "🙂", "\ud800", "\udc00 \ud800", "\"'`\\", "\n\r\t\x00\x7f", "{0} %s ${x}", "\\u0041"]
    questions = [
        {"id": text, "ask": {"kind": "caches"}, "cache": {"id": " ".join(texts), "state": text}} for text in texts
    ]
    code = expression(TOKEN, questions)
    assert code.isascii()
    assert eval(code) is None
    assert heard == [(questions, TOKEN)]
