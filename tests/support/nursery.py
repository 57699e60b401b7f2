"""Starts kernels quickly: it forks them from a process that has already imported PyTorch and TransformerLens.

Jupyter starts `python nursery.py kernel SOCKET -f CONNECTION_FILE`. This small process asks the nursery for a child,
forwards SIGINT and SIGTERM to it, and ends when the child ends. The child is an ordinary ipykernel in an empty
namespace.

A second nursery, forked from the first, also imports `demo_run.py`. So its kernels need not load the demo model.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

AVAILABLE = sys.platform == "linux"
SOURCE = __file__
_PRELOADED = (
    "torch",
    "transformers.models.llama.modeling_llama",
    "transformer_lens.model_bridge",
    "ipykernel.kernelapp",
)


def with_demo_run(path: str | Path) -> str:
    """Return the socket of the second nursery, whose kernels have already run the demo model."""
    return f"{path}-demo"


def serve(path: str) -> None:
    """Import the modules that take long, then fork a kernel for each connection."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system removes kernels that have ended
    listener, listener_with_run = _listener(path), _listener(with_demo_run(path))
    for name in _PRELOADED:
        __import__(name)
    if os.fork() == 0:
        listener.close()
        _fork_kernels(listener_with_run, ("tests.support.demo_run",))
    listener_with_run.close()
    _fork_kernels(listener, ())


def _listener(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def _fork_kernels(listener: socket.socket, modules: tuple[str, ...]) -> NoReturn:
    """Fork a kernel for each connection. The modules are imported before the first fork."""
    while True:
        connection, _ = listener.accept()
        for name in modules:
            __import__(name)
        if os.fork() == 0:
            listener.close()
            _become_kernel(connection)
        connection.close()


def _become_kernel(connection: socket.socket) -> None:
    request, outputs, _, _ = socket.recv_fds(connection, 1 << 20, 2)
    asked = json.loads(request)
    os.setsid()
    for target, source in zip((1, 2), outputs, strict=True):
        os.dup2(source, target)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"], JPY_PARENT_PID=str(os.getppid()))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.sendall(f"{os.getpid()}\n".encode())
    _thread.start_new_thread(_end_with, (connection,))  # `threading` does not list this thread
    sys.argv = ["ipykernel_launcher", *asked["arguments"]]
    sys.path[0] = ""
    import torch
    from ipykernel.kernelapp import launch_new_instance

    # OpenMP's threads do not survive a fork. So the nursery starts none (see `environment`), but its children may.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    code = 0
    try:
        launch_new_instance()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_with(connection: socket.socket) -> None:
    """End this kernel when the process that Jupyter started has ended for any reason."""
    connection.recv(1)
    os._exit(1)


def kernel(path: str, *arguments: str) -> None:
    """Ask the nursery for a kernel, forward signals to it, and wait until it ends."""
    connection = socket.socket(socket.AF_UNIX)
    while True:
        with suppress(FileNotFoundError, ConnectionRefusedError):  # the nursery does not listen yet
            connection.connect(path)
            break
        time.sleep(0.05)  # between two attempts
    asked = {"cwd": str(Path.cwd()), "environment": dict(os.environ), "arguments": arguments}
    socket.send_fds(connection, [json.dumps(asked).encode()], [1, 2])
    pid = int(connection.makefile().readline())

    def forward(number: int, _frame: FrameType | None) -> None:
        os.kill(pid, number)

    signal.signal(signal.SIGINT, forward)
    signal.signal(signal.SIGTERM, forward)
    connection.recv(1)  # until the kernel ends


def environment() -> dict[str, str]:
    """Return environment variables for the nursery, so that it has no other thread when it forks."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


if __name__ == "__main__":
    {"serve": serve, "kernel": kernel}[sys.argv[1]](*sys.argv[2:])
