"""A real kernel, for a program that speaks no ZeroMQ: requests come as lines of JSON, the kernel's messages go as such.

python bridge.py KERNEL_NAME
"""

import json
import sys
import threading
from contextlib import suppress
from pathlib import Path
from queue import Empty
from uuid import uuid4

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
    lock = threading.Lock()

    def say(**message: object) -> None:
        with lock:
            print(json.dumps(message, default=str), flush=True)

    def hand_on(channel: str) -> None:
        read = getattr(client, f"get_{channel}_msg")
        while True:
            with suppress(Empty):
                message = read(timeout=1)
                parent = message["parent_header"].get("msg_id")
                say(parent=parent, type=message["msg_type"], content=message["content"])

    for channel in ("iopub", "shell"):
        threading.Thread(target=hand_on, args=(channel,), daemon=True).start()
    say(type="ready")
    for line in sys.stdin:
        request = json.loads(line)
        match request.pop("do"):
            case "execute":
                message = client.session.msg("execute_request", request["content"])
                message["header"]["msg_id"] = request["id"]
                client.shell_channel.send(message)
            case "interrupt":
                manager.interrupt_kernel()
            case "restart":
                manager.restart_kernel(now=True)
                say(type="restarted")
            case "kill":
                manager.shutdown_kernel(now=True)
                say(type="died")
    client.stop_channels()
    with suppress(Exception):
        manager.shutdown_kernel(now=True)


main()
