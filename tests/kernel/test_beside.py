"""A sidebar and a real kernel: attaching leaves no trace, cells do not delay answers, and no memory is kept."""

from __future__ import annotations

import sys
import time
from uuid import uuid4

import numpy as np
import pytest
from jupyter_client.manager import KernelManager, start_new_kernel

from residscope.wire import protocol
from tests.support.beside import Beside, busy, value
from tests.support.kernels import SETUP, TRACES, run

PROBE = """
import gc, os, sys, psutil, threading
def rss():
    for _ in range(3): gc.collect()
    try:
        import ctypes; ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError): pass
    return psutil.Process().memory_info().rss
called = []
def my_callback(): called.append(threading.current_thread() is threading.main_thread())
get_ipython().events.register("post_execute", my_callback)
"""
CELLS = {
    "sleep": "while go(): time.sleep(0.5)",
    "numpy": "import numpy as np\na = np.ones((700, 700))\nwhile go(): a @ a",
    "torch": "a = torch.ones(700, 700)\nwhile go(): a @ a",
    "python": "x = 0\nwhile go():\n    for _ in range(1_000_000): x += 1",
}


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    run(client, SETUP + PROBE)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.fixture
def sidebar(kernel):
    sidebar = Beside(kernel)
    yield sidebar
    sidebar.leave()


COMMS = "len([c for c in get_ipython().kernel.comm_manager.comms.values() if c.target_name == 'residscope'])"


def traces(client):
    return {name: value(client, expression) for name, expression in TRACES.items()}


@pytest.mark.parametrize("cell", CELLS)
def test_the_sidebar_attaches_and_gets_answers_while_a_cell_runs(kernel, sidebar, cell):
    with busy(kernel, CELLS[cell]):
        assert sidebar.attach()["wire"] == protocol.wire()
        sidebar.open()
        [row] = sidebar.ask("caches")[0]["reply"]["caches"]
        assert row["names"] == ["my_cache"]
        target = {"contrasts": [{"answer": [{"id": 5, "text": ""}], "distractor": []}]}
        answer, [buffer, *_] = sidebar.ask("attribute", row["ref"], by="head", target=target)
        assert kernel.is_alive()
        sidebar.close()
    rows = np.frombuffer(buffer, np.float32)
    expected = value(kernel, "residscope.attribute(my_cache, 5).mean().tolist()")
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)
    assert answer["reply"]["notes"] == []


def test_attaching_leaves_no_trace(kernel, sidebar):
    run(kernel, "my_cache.has_batch_dim")
    kernel.execute_interactive("1 / 0", stop_on_error=False, output_hook=lambda _message: None)  # an error for %debug
    before = traces(kernel)
    sidebar.attach()
    sidebar.attach()  # attaching again does no harm
    sidebar.open()
    for kind in ("caches", "no such"):
        sidebar.ask(kind)
    sidebar.close()
    assert traces(kernel) == before
    printed = [m for m in sidebar.others if m["msg_type"] not in ("status",)]
    assert printed == []
    assert value(kernel, COMMS) == 0


def test_callbacks_of_cells_run_only_for_cells(kernel, sidebar):
    """Matplotlib has such a callback: a call during a cell would show and close figures that the cell still draws."""
    run(kernel, "called.clear()")
    with busy(kernel, "called.clear()\nwhile go(): time.sleep(0.1)\nat_end = len(called)"):
        sidebar.attach()
        sidebar.open()
        for _ in range(3):
            sidebar.ask("caches")
        sidebar.close()
    assert value(kernel, "at_end") == 0
    run(kernel, "1")
    assert value(kernel, "called[0] and len(called) >= 2 and all(called)") is True


def test_changes_of_the_callbacks_during_an_attachment_are_kept(kernel):
    """Attaching wraps IPython's list of callbacks until its code ends. Changes of the wrapper reach the list."""
    run(
        kernel,
        """
import threading
from residscope.hosts.attach import SkippedCallbacks, EVENT
events, seen = get_ipython().events, []
def one(): seen.append("one")
def two(): seen.append("two")
def trigger():
    events.trigger(EVENT)
real = events.callbacks[EVENT]
events.register(EVENT, one)
events.callbacks[EVENT] = SkippedCallbacks(events.callbacks)
other = threading.Thread(target=trigger); other.start(); other.join()
before = list(seen)
events.register(EVENT, two); events.unregister(EVENT, one)
trigger()
silent = list(seen)
trigger()
after = list(seen)
events.unregister(EVENT, two)
whole = events.callbacks[EVENT] is real
del one, two
""",
    )
    assert value(kernel, "before") == value(kernel, "silent") == ["one"]
    assert value(kernel, "after") == ["one", "two"]
    assert value(kernel, "whole") is True


def test_deleting_the_variable_frees_the_tensors(kernel, sidebar):
    run(kernel, "import weakref; from copy import deepcopy")
    run(kernel, "second = tiny.run(model)[2]; alive = [weakref.ref(second), weakref.ref(second['hook_embed'])]")
    sidebar.attach()
    sidebar.open()
    ref = {row["names"][0]: row["ref"] for row in sidebar.ask("caches")[0]["reply"]["caches"]}["second"]
    target = sidebar.ask("target", ref)[0]["reply"]["target"]
    for _ in range(3):
        assert "reply" in sidebar.ask("attention", ref, layer=0, head=1, target=target)[0]
        assert "failure" in sidebar.ask("attention", ref, layer=99, head=1, target=target)[0]
    run(kernel, "del second")
    assert value(kernel, "[way() is None for way in alive]") == [True, True]
    assert sidebar.ask("describe", ref)[0]["failure"]["code"] == "gone"
    sidebar.close()


def threads_at_rest(client) -> list[str]:
    """Return the kernel's threads, after the thread that restores Python's switch interval has ended."""
    end = time.monotonic() + 10
    while "residscope-switch-interval" in (names := value(client, "sorted(t.name for t in threading.enumerate())")):
        assert time.monotonic() < end
        time.sleep(0.2)
    return names


def test_after_a_thousand_clicks_and_a_hundred_sidebars_memory_is_freed(kernel, capsys):
    target = {"contrasts": [{"answer": [{"id": 5, "text": ""}], "distractor": []}]}

    def click(sidebar, times):
        ref = sidebar.ask("caches")[0]["reply"]["caches"][0]["ref"]
        for i in range(times):
            assert "reply" in sidebar.ask("attention", ref, layer=i % 3, head=i % 4, target=target)[0]

    def sidebars(times):
        """Open sidebars on one subshell. (ipykernel keeps 50 kB for each new subshell for a long time.)"""
        shared = Beside(kernel)
        for _ in range(times):
            shared.comm = uuid4().hex
            shared.attach()
            shared.open()
            shared.ask("caches")
            shared.close()
        shared.leave()

    def clicks(times):
        sidebar = Beside(kernel)
        sidebar.attach()
        sidebar.open()
        click(sidebar, times)
        sidebar.close()
        sidebar.leave()

    clicks(200)
    sidebars(10)
    threads, before = threads_at_rest(kernel), value(kernel, "rss()")
    clicks(1000)
    middle = value(kernel, "rss()")
    sidebars(100)
    after = value(kernel, "rss()")
    grown = [(b - a) / 1e6 for a, b in ((before, middle), (middle, after))]
    with capsys.disabled():
        print(f" [1,000 clicks {grown[0]:+.1f} MB, 100 sidebars {grown[1]:+.1f} MB]", end="")
    assert sum(grown) < 5
    assert value(kernel, COMMS) == 0
    assert threads_at_rest(kernel) == threads
    assert value(kernel, "len(get_ipython().kernel.shell_channel_thread.manager.list_subshell())") == 0


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"residscope/notes.txt": ""},  # a folder with Residscope's name
        {"residscope.py": "raise RuntimeError"},
        {"residscope/__init__.py": "", "residscope/hosts/comm.py": "raise SystemError"},
        {"residscope/__init__.py": "", "residscope/hosts/comm.py": "attach = None"},
    ],
)
def test_a_kernel_without_residscope_says_so(files, tmp_path):
    """The message is the same if another file or folder has Residscope's name."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    start = tmp_path / "start.py"
    start.write_text(
        "import sys\n"
        f"sys.path = [{str(tmp_path)!r}, *(p for p in sys.path if 'py_backend' not in p)]\n"
        "from ipykernel.kernelapp import launch_new_instance\nlaunch_new_instance()\n"
    )
    manager = KernelManager(kernel_name="python3")
    manager.kernel_spec.argv = [sys.executable, str(start), "-f", "{connection_file}"]
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        run(client, "1")
        before = traces(client)
        sidebar = Beside(client)
        who = sidebar.attach()
        assert (who["version"], who["wire"]) == (None, None)
        assert who["python"]
        assert traces(client) == before
        assert [m for m in sidebar.others if m["msg_type"] != "status"] == []
        sidebar.leave()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_without_subshells_an_idle_kernel_answers(kernel):
    sidebar = Beside(kernel, subshell=False)
    sidebar.attach()
    sidebar.open()
    start = time.monotonic()
    assert sidebar.ask("caches")[0]["reply"]["caches"]
    assert time.monotonic() - start < 5
    sidebar.close()
