"""Talks to a kernel like a sidebar: on a separate subshell, while the user's cells run."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import uuid4

from jupyter_client.blocking.client import BlockingKernelClient

import residscope.hosts.attach

ATTACH = f'exec({Path(residscope.hosts.attach.__file__).read_text("utf-8")!r}, {{"__name__": "residscope-attach"}})'
WHO = """__import__("IPython.display", fromlist=["_"]).JSON({
  "python": __import__("sys").executable,
  "version": getattr(__import__("sys").modules.get("residscope"), "__version__", None),
  "wire": getattr(__import__("sys").modules.get("residscope.hosts.comm"), "WIRE", None)})"""


class Beside:
    """A sidebar's connection to a kernel. `others` collects the messages on iopub that no call waited for."""

    def __init__(self, client: BlockingKernelClient, *, subshell: bool = True) -> None:
        self.client, self.comm, self.others = client, uuid4().hex, list[dict[str, Any]]()
        self.subshell = self.control("create_subshell_request")["subshell_id"] if subshell else None

    # --- messages ----------------------------------------------------------------------------------------------------
    def control(self, kind: str, **content: Any) -> dict[str, Any]:
        message = self.client.session.msg(kind, content)
        self.client.control_channel.send(message)
        while True:
            reply = self.client.get_control_msg(timeout=30)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                return reply["content"]

    def send(self, kind: str, content: dict[str, Any]) -> str:
        message = self.client.session.msg(kind, content)
        message["header"]["subshell_id"] = self.subshell
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def iopub(self, wanted, seconds: float = 60) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            if wanted(message):
                return message
            self.others.append(message)
        raise AssertionError("the kernel did not answer")

    def idle(self, id: str) -> None:
        self.iopub(
            lambda m: (
                m["msg_type"] == "status"
                and m["content"]["execution_state"] == "idle"
                and m["parent_header"].get("msg_id") == id
            )
        )

    # --- what a sidebar does -----------------------------------------------------------------------------------------
    def attach(self) -> dict[str, Any]:
        content = {"code": ATTACH, "silent": True, "store_history": False, "stop_on_error": False}
        id = self.send("execute_request", content | {"allow_stdin": False, "user_expressions": {"who": WHO}})
        while True:
            reply = self.client.get_shell_msg(timeout=60)
            if reply["parent_header"].get("msg_id") == id:
                break
        self.idle(id)
        assert reply["content"]["status"] == "ok", reply["content"]
        return reply["content"]["user_expressions"]["who"]["data"]["application/json"]

    def open(self) -> None:
        self.idle(self.send("comm_open", {"comm_id": self.comm, "target_name": "residscope", "data": {}}))

    def ask(self, kind: str, ref: dict[str, str] | None = None, **fields: Any) -> tuple[dict[str, Any], list[Any]]:
        id = uuid4().hex
        question = {"id": id, "ask": {"kind": kind, **fields}} | ({"cache": ref} if ref else {})
        sent = self.send("comm_msg", {"comm_id": self.comm, "data": question})
        answer = self.iopub(
            lambda m: (
                m["msg_type"] == "comm_msg"
                and m["content"]["comm_id"] == self.comm
                and m["content"]["data"]["id"] == id
            )
        )
        self.idle(sent)
        return answer["content"]["data"], answer["buffers"]

    def close(self) -> None:
        self.idle(self.send("comm_close", {"comm_id": self.comm, "data": {}}))

    def leave(self) -> None:
        self.control("delete_subshell_request", subshell_id=self.subshell)
        assert self.subshell not in self.control("list_subshell_request")["subshell_id"]


@contextmanager
def busy(client: BlockingKernelClient, code: str):
    """Run a cell on the main shell during the block. Its code must end when `go()` returns False."""
    from tempfile import NamedTemporaryFile

    file = NamedTemporaryFile(delete=False)  # noqa: SIM115 (deleting the file ends the cell)
    path = Path(file.name)
    file.close()
    id = client.execute(f"import os, time\ngo = lambda: os.path.exists({str(path)!r})\nprint('started')\n{code}")
    while True:
        message = client.get_iopub_msg(timeout=30)
        if message["msg_type"] == "stream" and message["parent_header"].get("msg_id") == id:
            break
    try:
        yield
    finally:
        path.unlink()
        while client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != id:
            pass
        time.sleep(0.2)


def value(client: BlockingKernelClient, expression: str) -> Any:
    """Return the value of an expression in the kernel. The evaluation is silent and leaves no trace."""
    expressions = {"it": f"__import__('IPython.display', fromlist=['_']).JSON({{'it': {expression}}})"}
    id = client.execute("", silent=True, store_history=False, user_expressions=expressions)
    while True:
        reply = client.get_shell_msg(timeout=60)
        if reply["parent_header"].get("msg_id") == id:
            if reply["content"]["status"] == "aborted":  # after an interrupt the kernel aborts the next requests
                return value(client, expression)
            it = reply["content"]["user_expressions"]["it"]
            assert it["status"] == "ok", it
            return json.loads(json.dumps(it["data"]["application/json"]["it"]))
