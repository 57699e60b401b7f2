"""When the user interrupts, a running request ends at once, the user's code is interrupted, and no state is changed."""

from __future__ import annotations

import json
import time
from queue import Empty
from uuid import uuid4

import pytest
from jupyter_client.manager import start_new_kernel

from residscope.hosts.execute import MIME
from tests.support.as_vscode import expression
from tests.support.beside import value
from tests.support.kernels import SETUP, run

SLOW = """
import threading, time
from residscope.compute.progress import report_progress
from residscope.wire.caches import Describe
from residscope.wire.shown import WritePage
from residscope.serving.service import Service
_usual, slow = Service._reply, threading.Event()
def _slowly(self, view, ask):
    while slow.is_set() and not isinstance(ask, Describe | WritePage):  # a page sends other requests, which wait here
        time.sleep(0.01)
        report_progress()
    return _usual(self, view, ask)
Service._reply = _slowly

import logging
logged = []
class Collect(logging.Handler):
    def emit(self, record): logged.append(record.getMessage())
get_ipython().kernel.log.addHandler(Collect())
"""
STATE = (
    "[torch.is_grad_enabled(), torch.is_autocast_enabled('cpu'), torch.get_num_threads(), repr(signal.getsignal(2)),"
    " sorted(t.name for t in threading.enumerate() if t.name == 'residscope-work')]"
)
TARGET = {"contrasts": [{"answer": [{"id": 5, "text": ""}], "distractor": []}]}
HEADS = {"kind": "attribute", "by": "head", "target": TARGET}


@pytest.fixture(scope="module")
def started():
    manager, client = start_new_kernel(kernel_name="python3")
    run(client, SETUP + SLOW + "import signal\npanel = residscope.inspect(my_cache, 5)\n")
    assert replied(client, client.execute("0 / 0"))["status"] == "error"  # IPython's first traceback takes long
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def replied(client, id: str) -> dict:
    while True:
        reply = client.get_shell_msg(timeout=60)
        if reply["parent_header"].get("msg_id") == id:
            return reply["content"]


def next_message(client, wanted) -> dict:
    while True:
        try:
            message = client.get_iopub_msg(timeout=20)
        except Empty:
            pytest.fail("the kernel did not answer")
        if wanted(message):
            return message


def ask(client, ask: dict) -> str:
    """Send a panel's request, which the main thread answers. Return its id."""
    id = uuid4().hex
    data = {"method": "custom", "content": {"id": id, "ask": ask}}
    content = {"comm_id": value(client, "panel.comm.comm_id"), "data": data}
    client.shell_channel.send(client.session.msg("comm_msg", content))
    return id


def answer(client, id: str) -> dict:
    def is_it(message: dict) -> bool:
        content = message["content"].get("data", {}).get("content", {}) if message["msg_type"] == "comm_msg" else {}
        return isinstance(content, dict) and content.get("id") == id

    return next_message(client, is_it)["content"]["data"]["content"]


def interrupted(manager, after: float = 0.3) -> float:
    time.sleep(after)
    manager.interrupt_kernel()
    return time.monotonic()


@pytest.mark.parametrize("call", ["panel.to_html()", "panel.save('page.html')"])
def test_an_interrupted_page_ends_at_once_and_leaves_nothing(started, tmp_path, call, capsys):
    manager, client = started
    run(client, f"import os; os.chdir({str(tmp_path)!r})")
    (tmp_path / "page.html").write_text("as it was")
    before = value(client, STATE)
    run(client, "slow.set()")
    id = client.execute(f"page = {call}")
    start = interrupted(manager)
    reply = replied(client, id)
    taken = time.monotonic() - start
    assert value(client, STATE) == before
    run(client, "slow.clear()")
    assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
    assert taken < 1
    assert value(client, "'page' in globals()") is False
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "as it was"
    run(client, "panel.save('page.html')")  # the next page can be written
    assert (tmp_path / "page.html").read_text().endswith("</html>\n")
    with capsys.disabled():
        print(f" [back after {taken:.3f} s]", end="")


def test_a_panels_interrupted_request_is_answered_and_the_kernel_gets_the_interrupt(started):
    manager, client = started
    before = value(client, STATE)
    run(client, "slow.set(); logged.clear()")
    id = ask(client, HEADS)
    start = interrupted(manager)
    failure = answer(client, id)["failure"]
    assert time.monotonic() - start < 1
    run(client, "slow.clear()")
    assert failure["code"] == "interrupted"
    assert "interrupted" in failure["message"]
    assert any("KeyboardInterrupt" in line for line in value(client, "logged"))  # ipykernel logs the interrupt
    assert value(client, STATE) == before
    assert answer(client, ask(client, HEADS))["reply"]["kind"] == "attribute"


def test_making_a_panels_page_delays_no_cell_and_reports_progress(started):
    _, client = started
    run(client, "slow.set()")
    page = {"kind": "page", "shown": {"target": TARGET}}
    id = ask(client, page)
    assert answer(client, id)["reply"]["kind"] == "working"
    run(client, "slow.clear()")  # now the page can be made
    for _ in range(200):
        data = {"method": "custom", "content": {"id": id, "ask": page}}
        content = {"comm_id": value(client, "panel.comm.comm_id"), "data": data}
        client.shell_channel.send(client.session.msg("comm_msg", content))
        reply = answer(client, id)["reply"]
        if reply["kind"] == "page":
            return
        assert reply["kind"] == "working"
    pytest.fail("the page was never ready")


def test_vs_codes_cell_ends_at_the_interrupt_and_all_its_requests_are_answered(started):
    manager, client = started
    token = "0123456789abcdef0123456789abcdef"
    run(client, expression(token))
    run(client, "import residscope.serving.dispatcher as dispatcher\nusual_rows = dispatcher._rows")
    code = expression(token, [{"id": "a", "ask": {"kind": "caches"}}, {"id": "b", "ask": {"kind": "caches"}}])
    run(client, "dispatcher._rows = lambda *given: time.sleep(20)")
    id = client.execute(code, store_history=False, stop_on_error=False)
    interrupted(manager, 0.5)
    answers: dict[str, str] = {}

    def ended(message: dict) -> bool:
        if message["parent_header"].get("msg_id") != id:
            return False
        if message["msg_type"] == "display_data":
            piece = message["content"]["data"][MIME]
            answers[piece["id"]] = json.loads(piece["text"])["answer"]["failure"]["code"]
        return message["msg_type"] == "error"

    assert next_message(client, ended)["content"]["ename"] == "KeyboardInterrupt"
    assert answers == {"a": "interrupted", "b": "interrupted"}
    assert replied(client, id)["status"] == "error"
    run(client, "dispatcher._rows = usual_rows")
