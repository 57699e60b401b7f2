"""Connects a program without ZeroMQ to a real kernel: requests and the kernel's messages are lines of JSON.

python bridge.py KERNEL_NAME
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import zmq
from jupyter_client.manager import KernelManager
from jupyter_core.paths import jupyter_runtime_dir


def main() -> None:
    """Start the kernel, pass on messages, and end when standard input ends."""
    # Every Jupyter program looks for running kernels in this folder.
    Path(jupyter_runtime_dir()).mkdir(parents=True, exist_ok=True)
    file = Path(jupyter_runtime_dir()) / f"kernel-{uuid4()}.json"
    manager = KernelManager(kernel_name=sys.argv[1], connection_file=str(file))
    manager.start_kernel(stdout=sys.stderr, stderr=sys.stderr)  # stdout is only for messages
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=120)

    def say(**message: object) -> None:
        print(json.dumps(message, default=str), flush=True)

    def obey(request: dict) -> None:
        match request.pop("do"):
            case "execute":
                message = client.session.msg("execute_request", request["content"])
                message["header"]["msg_id"] = request["id"]
                client.shell_channel.send(message)
            case "interrupt":
                manager.interrupt_kernel()
            case "restart":
                manager.restart_kernel(now=True)
                client.wait_for_ready(timeout=120)
                say(type="restarted")
            case "kill":
                manager.shutdown_kernel(now=True)
                say(type="died")

    def hand_on(channel: object) -> None:
        while channel.msg_ready():
            message = channel.get_msg()
            parent = message["parent_header"].get("msg_id")
            say(parent=parent, type=message["msg_type"], content=message["content"])

    say(type="ready")
    # All sockets are used in this thread, because ZeroMQ sockets must not be shared between threads.
    requests = lines_of(sys.stdin.fileno())
    sources = {channel.socket: channel for channel in (client.iopub_channel, client.shell_channel)}
    poller = zmq.Poller()
    for source in (sys.stdin, *sources):
        poller.register(source, zmq.POLLIN)
    with suppress(StopIteration):
        while True:
            ready = dict(poller.poll())
            for channel in sources.values():
                hand_on(channel)
            if sys.stdin.fileno() in ready:
                for line in next(requests):
                    obey(json.loads(line))
    client.stop_channels()
    with suppress(Exception):
        manager.shutdown_kernel(now=True)


def lines_of(file: int) -> Iterator[list[bytes]]:
    """Yield the whole lines that can be read now, until the file ends."""
    rest = b""
    while data := os.read(file, 1 << 20):
        *lines, rest = (rest + data).split(b"\n")
        yield lines


main()
