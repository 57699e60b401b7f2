"""In a real kernel, Residscope runs the model only between cells (in "turns"), and this leaves no trace.

The tests send the messages of the hosts: JupyterLab's silent request, a panel's message, and VS Code's expression.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from uuid import uuid4

import pytest
from jupyter_client.manager import start_new_kernel

from residscope.hosts.execute import MIME
from tests.support.as_vscode import expression
from tests.support.beside import value
from tests.support.kernels import SETUP, TRACES, run

WATCH = """
import asyncio, time
from torch.nn.modules.module import register_module_forward_hook
log = []
_block = model.blocks[0]
_handle = register_module_forward_hook(lambda module, *_: log.append("run") if module is _block else None)
panel = residscope.inspect(my_cache, 5, show=False)
"""
TAKE = 'getattr(__import__("sys").modules.get("residscope.hosts.turns"), "take", lambda *_: None)("{}")'


@pytest.fixture(scope="module")
def client():
    manager, client = start_new_kernel(kernel_name="python3")
    run(client, SETUP + WATCH)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.fixture(autouse=True)
def quiet(client):
    run(client, "log.clear()")


def effects(client, **more) -> dict:
    target = value(client, "panel.wire_target")
    return {"kind": "effects", "target": target, **more}


def send(client, ask: dict, *, gives_turns: bool) -> str:
    """Send a panel's message. Return its id."""
    id = uuid4().hex
    data = {"method": "custom", "content": {"id": id, "ask": ask, "gives_turns": gives_turns}}
    content = {"comm_id": value(client, "panel.comm.comm_id"), "data": data}
    client.shell_channel.send(client.session.msg("comm_msg", content))
    return id


def answer(client, id: str) -> dict:
    content = content_of(client, id)
    assert "failure" not in content, content
    return content["reply"]


def content_of(client, id: str) -> dict:
    while True:
        message = client.get_iopub_msg(timeout=30)
        content = message["content"].get("data", {}).get("content", {}) if message["msg_type"] == "comm_msg" else {}
        if isinstance(content, dict) and content.get("id") == id:
            return content


def asked(client, ask: dict) -> dict:
    """Return the reply to a request. If the runs have failed, the reply says only this."""
    content = content_of(client, send(client, ask, gives_turns=True))
    return content["reply"] if "failure" not in content else {"state": "failed", **content["failure"]}


def silent(client, code: str) -> str:
    return client.execute(code, silent=True, store_history=False, allow_stdin=False, stop_on_error=False)


def wait(client, id: str) -> dict:
    while True:
        reply = client.get_shell_msg(timeout=60)
        if reply["parent_header"].get("msg_id") == id:
            return reply["content"]


def test_a_silent_request_takes_its_turn_between_two_cells_and_leaves_no_trace(client):
    """The first cell is asynchronous and waits, so the kernel handles messages during this cell."""
    before = {name: value(client, code) for name, code in TRACES.items()}
    ask = effects(client)
    reply = answer(client, send(client, ask, gives_turns=True))
    assert (reply["state"], reply["done"], value(client, "log")) == ("waiting", 0, [])
    first = client.execute("log.append('a'); await asyncio.sleep(1); log.append('b')")
    turn = silent(client, TAKE.format(reply["turn"]))
    second = client.execute("log.append('c'); time.sleep(0.2); log.append('d')")
    assert [wait(client, id)["status"] for id in (first, turn, second)] == ["ok", "ok", "ok"]
    log = value(client, "log")
    assert log[:2] == ["a", "b"]
    assert log[-2:] == ["c", "d"]
    assert set(log[2:-2]) == {"run"}
    run(client, "log.clear()")
    while reply["state"] == "waiting":
        reply = answer(client, send(client, ask, gives_turns=True))
        if reply["turn"]:
            wait(client, silent(client, TAKE.format(reply["turn"])))
    assert (reply["state"], reply["done"]) == ("done", reply["total"])
    after = {name: value(client, code) for name, code in TRACES.items()}
    cells = ("names", "count", "In", "history", "shown")  # these change, because this test ran cells
    assert {name: after[name] for name in TRACES if name not in cells} == {
        name: before[name] for name in TRACES if name not in cells
    }
    assert {name for name in after["names"] if not name.startswith("_i")} == {
        name for name in before["names"] if not name.startswith("_i")
    }


def test_a_host_that_can_only_send_messages_gets_turns_but_not_while_a_cell_waits(client):
    ask = effects(client, replaced_by="mean")
    cell = client.execute("log.append('a'); await asyncio.sleep(1.5); log.append('b')")
    time.sleep(0.3)
    waited = [answer(client, send_raw(client, ask)) for _ in range(3)]
    assert wait(client, cell)["status"] == "ok"
    assert value(client, "log")[:2] == ["a", "b"]  # ipykernel 7.3 with IPython 8 answers only after the cell
    reply = waited[-1]
    for _ in range(500):
        reply = answer(client, send(client, ask, gives_turns=False))
        if reply["state"] != "waiting":
            break
    assert (reply["state"], reply["done"]) == ("done", reply["total"])


def send_raw(client, ask: dict) -> str:
    """Send a panel's message. Unlike `send`, this function runs no code in the kernel, so it works during a cell."""
    id = uuid4().hex
    data = {"method": "custom", "content": {"id": id, "ask": ask}}
    client.shell_channel.send(client.session.msg("comm_msg", {"comm_id": COMM["id"], "data": data}))
    return id


COMM: dict[str, str] = {}


@pytest.fixture(autouse=True)
def _comm(client):
    COMM["id"] = value(client, "panel.comm.comm_id")


def test_each_request_of_vs_code_is_also_a_turn(client):
    run(client, "import residscope.hosts.execute")
    [row] = value(
        client, "__import__('msgspec').to_builtins(__import__('residscope').serving.dispatcher.listed().caches)"
    )
    ask, reply = effects(client, position=2), {}
    for number in range(500):
        question = {"id": f"v{number}", "ask": ask, "cache": row["ref"]}
        outputs = run(client, expression(f"token{number}", [question]))
        pieces = [output["data"][MIME] for output in outputs if MIME in output.get("data", {})]
        reply = json.loads("".join(piece["text"] for piece in pieces))["answer"]
        assert "failure" not in reply, reply
        if reply["reply"]["state"] != "waiting":
            break
        if number == 40:  # no more, because starting Node for each request is slow
            break
    assert reply["reply"]["done"] > 0
    assert "run" in value(client, "log")


def test_a_users_run_right_after_a_turn_is_the_same_bit_for_bit(client):
    before = value(client, "model(tokens).sum().item().hex()")
    ask = effects(client, position=3)
    reply = answer(client, send(client, ask, gives_turns=True))
    for _ in range(4):
        turn = silent(client, TAKE.format(reply["turn"]))
        logits = client.execute("kept = model(tokens).sum().item().hex()")
        assert [wait(client, id)["status"] for id in (turn, logits)] == ["ok", "ok"]
        assert value(client, "kept") == before
    assert (
        value(
            client,
            "[type(part).__name__ for part in model.modules() for hook in part._forward_hooks.values()"
            " if type(hook).__module__.startswith('residscope')]",
        )
        == []
    )


FLAGS = (
    "[torch.is_grad_enabled(), torch.is_inference_mode_enabled(), model.training, torch.get_num_threads(), "
    "str(torch.get_default_dtype()), torch.get_rng_state().sum().item(), "
    "[len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks) for part in "
    "model.modules()], [weight.grad is None for weight in model.parameters()].count(False), "
    "sorted({thread.name for thread in __import__('threading').enumerate()} - {'residscope-switch-interval'})]"
)
"""State that must not change. The thread that is left out ends by itself two seconds after the last request."""


RUNS = """
import residscope.serving.measuring as _m
_before, _m.TURN, _m._STEP = (_m.TURN, _m._STEP), 0.0, 0.0  # each turn makes as few runs as possible
clean, alike, begun, ended, ending, whole = model(tokens), [], [], [], [], []
def _begins(module, *_):
    if module is model.blocks[0]:
        begun.append(1)
    if ending and module is model.blocks[-1]:
        ended.append(ending.pop())
        raise ended[-1]
_begin = register_module_forward_hook(_begins)
"""


MANY = int(os.environ.get("RESIDSCOPE_TURN_RUNS", "250"))
"""The number of runs. (A thousand take 40 seconds.)"""


def test_many_runs_of_which_a_tenth_end_early_leave_every_cell_its_own_logits(client):
    """The kernel's queue holds ten turns and then a cell that runs the model. One of the turns ends by an exception."""
    run(client, RUNS)
    places = itertools.product(range(1, 7), ("mean", "zero"))
    asks = itertools.cycle([effects(client, position=at, replaced_by=by) for at, by in places])
    before, rounds, reply, ask = value(client, FLAGS), 0, {"state": "done"}, {}
    ends = itertools.cycle(("KeyboardInterrupt()", "RuntimeError('of a hook')"))
    try:
        while value(client, "len(begun)") < MANY or value(client, "len(ended)") < MANY / 10:
            ask = ask if reply["state"] == "waiting" else next(asks)
            reply = asked(client, ask)
            if not reply.get("turn"):
                continue
            rounds += 1
            queued = [silent(client, TAKE.format(reply["turn"])) for _ in range(5)]
            queued += [silent(client, f"ending.append({next(ends)})")]
            queued += [silent(client, TAKE.format(reply["turn"])) for _ in range(5)]
            cell = client.execute("ending.clear(); alike.append(bool((model(tokens) == clean).all()))")
            assert [wait(client, id)["status"] for id in (*queued, cell)] == ["ok"] * 12
        assert value(client, "alike") == [True] * rounds
        assert value(client, FLAGS) == before
    finally:
        run(client, "_begin.remove()\n_m.TURN, _m._STEP = _before")
