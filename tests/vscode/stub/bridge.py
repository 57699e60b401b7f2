"""A real kernel, for a program that speaks no ZeroMQ: requests come as lines of JSON, the kernel's messages go as such.

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
    """Start the kernel, carry messages, end with standard input."""
    # Where every Jupyter program looks for kernels that run.
    Path(jupyter_runtime_dir()).mkdir(parents=True, exist_ok=True)
    file = Path(jupyter_runtime_dir()) / f"kernel-{uuid4()}.json"
    manager = KernelManager(kernel_name=sys.argv[1], connection_file=str(file))
    manager.start_kernel(stdout=sys.stderr, stderr=sys.stderr)  # our own output is the messages
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
    # One thread for all: a ZeroMQ socket belongs to one.
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
    """What can be read now, as whole lines; ends with the file."""
    rest = b""
    while data := os.read(file, 1 << 20):
        *lines, rest = (rest + data).split(b"\n")
        yield lines


main()
