"""Starts JupyterLab for the tests, and ends it afterwards. Its notebooks and settings are in a temporary folder."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from tests.support import nursery as nursery_program

STARTING = 120.0  # seconds; the first start compiles many modules


@dataclass
class Server:
    """A running JupyterLab."""

    url: str
    token: str
    root: Path
    log: Path
    data: Path
    settings: Path

    @classmethod
    @contextmanager
    def started(cls, folder: Path, nursery: Path | None = None, program: str = "jupyterlab") -> Iterator[Server]:
        """Start JupyterLab, and end it afterwards. Its notebooks, settings and log are inside `folder`.

        Args:
            folder: The folder for notebooks, settings and the log.
            nursery: The socket of the nursery that starts the kernels. By default, each kernel is a new process.
            program: The module of the server, if it is not JupyterLab.
        """
        root, log = folder / "notebooks", folder / "jupyterlab.log"
        root.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = cls(f"http://127.0.0.1:{port}", secrets.token_hex(16), root, log, folder / "data", folder / "settings")
        for name, title in (("tests", "Python of the tests"), ("demo", "Python with the demo's run")):
            socket_of = nursery_program.with_demo_run if name == "demo" else str
            argv = [nursery_program.__file__, "kernel", socket_of(nursery)] if nursery else None
            server.add_kernel(name, title, argv=argv)  # no host has a kernel with such a name
        without = "import sys; sys.path[:] = [folder for folder in sys.path if not folder.endswith('py_backend')]"
        server.add_kernel("bare", "Python without Residscope", without)
        host = os.environ.get("RESIDSCOPE_HOST_PYTHON", sys.executable)  # see .dev/hosts.mjs
        command = [host, "-m", program, "--no-browser", "--allow-root", "--expose-app-in-browser"]
        command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}"]
        command += ["--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={server.token}"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=root,
                env=environment_in(folder),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            server._wait(process)
            yield server
        finally:
            end(process)

    def add_kernel(self, name: str, title: str, before: str = "", argv: list[str] | None = None) -> None:
        """Add a kernel to this server (see the function `add_kernel`)."""
        add_kernel(self.data, name, title, before, argv)

    def forget_settings(self) -> None:
        """Delete the settings that pages have saved, such as the theme, so that the next page has the defaults."""
        shutil.rmtree(self.settings, ignore_errors=True)

    def request(self, path: str, method: str = "GET") -> Any:
        """Send a request to the server's REST interface, and return its reply."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(self.url + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.loads(reply.read() or b"null")

    def shut_down_kernels(self) -> None:
        """End every session and its kernel."""
        for session in {session["kernel"]["id"]: session for session in self.request("/api/sessions")}.values():
            self.request(f"/api/sessions/{session['id']}", "DELETE")  # this also ends the kernel's other sessions

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + STARTING
        while process.poll() is None and time.monotonic() < until:
            try:
                self.request("/api/status")
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)  # between two attempts
            else:
                return
        failure = "ended" if process.poll() is not None else f"was not ready in {STARTING:.0f} s"
        raise RuntimeError(f"JupyterLab {failure}:\n{self.log.read_text(errors='replace')[-4000:]}")


def write_notebook(file: Path, cells: Sequence[str], kernel: str) -> None:
    """Write a notebook of code cells."""
    code = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    notebook = {
        "cells": [{**code, "id": f"cell-{number}", "source": source} for number, source in enumerate(cells)],
        "metadata": {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    file.write_text(json.dumps(notebook))


def add_kernel(data: Path, name: str, title: str, before: str = "", argv: list[str] | None = None) -> None:
    """Add a kernel that runs in the Python environment of the tests.

    Args:
        data: The folder `JUPYTER_DATA_DIR`.
        name: The name of the kernel.
        title: The kernel's name on screen.
        before: Python code that runs before ipykernel is imported.
        argv: The arguments of another program that is started instead of ipykernel.
    """
    start = f"{before}\nfrom ipykernel.kernelapp import launch_new_instance\nlaunch_new_instance()"
    spec = {
        "argv": [sys.executable, *(argv or ["-c", start]), "-f", "{connection_file}"],
        "display_name": title,
        "language": "python",
        "metadata": {"debugger": False},
    }
    folder = data / "kernels" / name
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(spec))


def environment_in(folder: Path) -> dict[str, str]:
    """Return the environment of JupyterLab and its kernels. Of the user's folders, it names only the model caches."""
    settings = folder / "config" / "labconfig"
    settings.mkdir(parents=True)
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    (settings / "default_setting_overrides.json").write_text(json.dumps(quiet))
    # JupyterLab would look for source extensions at each start of a page, with Node. There are none.
    (settings / "page_config.json").write_text(json.dumps({"buildAvailable": False, "buildCheck": False}))
    home = folder / "home"
    home.mkdir()
    return {
        **os.environ,
        "RESIDSCOPE_CACHE": os.environ.get("RESIDSCOPE_CACHE") or str(platformdirs.user_cache_path("residscope")),
        "HF_HOME": os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface"),
        "HOME": str(home),
        "USERPROFILE": str(home),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
    }


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its group, and all its children: first by SIGTERM, then by SIGKILL."""

    def send(kind: signal.Signals) -> None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, kind)
        else:
            process.terminate()

    if process.poll() is None:
        send(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            send(getattr(signal, "SIGKILL", signal.SIGTERM))
            process.wait(15)
