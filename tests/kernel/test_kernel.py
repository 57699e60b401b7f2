"""A panel in a real kernel is shown once, answers requests with binary buffers, and leaves no name."""

from __future__ import annotations

from queue import Empty

import numpy as np
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from tests.support.kernels import SETUP, run


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    run(client, SETUP)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def value(client: BlockingKernelClient, expression: str) -> str:
    """Return the value of an expression in the kernel, as text."""
    outputs = run(client, f"print({expression})")
    return "".join(output["text"] for output in outputs if output.get("name") == "stdout").strip()


@pytest.mark.parametrize(
    "code",
    ["residscope.inspect(my_cache, 5)", "panel = residscope.inspect(my_cache, 5)", "residscope.inspect(my_cache, 5);"],
)
def test_inspect_shows_the_panel_once_however_it_is_written(kernel, code):
    views = [out for out in run(kernel, code) if "application/vnd.jupyter.widget-view+json" in out.get("data", {})]
    assert len(views) == 1


def test_a_panel_can_be_shown_again_in_a_later_cell(kernel):
    run(kernel, "panel = residscope.inspect(my_cache, 5)")
    assert len(run(kernel, "panel")) == 1


def test_the_panel_knows_the_variables_name_and_leaves_no_name_behind(kernel):
    before = value(kernel, "sorted(k for k in globals() if not k.startswith('_'))")
    assert value(kernel, "residscope.inspect(my_cache, 5).cache_name") == "my_cache"
    assert value(kernel, "sorted(k for k in globals() if not k.startswith('_'))") == before


def test_a_request_over_the_comm_is_answered_with_binary_buffers(kernel):
    run(kernel, "panel = residscope.inspect(my_cache, (5, 6))")
    comm = value(kernel, "panel.comm.comm_id")
    ask = {
        "kind": "attribute",
        "by": "head",
        "target": {"contrasts": [{"answer": [{"id": 5, "text": ""}], "distractor": []}]},
    }
    content = {"comm_id": comm, "data": {"method": "custom", "content": {"id": "q", "ask": ask}}}
    kernel.shell_channel.send(kernel.session.msg("comm_msg", content))
    reply = next_custom(kernel, comm)
    assert reply["content"]["data"]["content"]["id"] == "q"
    rows = np.frombuffer(reply["buffers"][0], np.float32)
    expected = value(kernel, "residscope.attribute(my_cache, 5).mean().tolist()")
    np.testing.assert_allclose(rows, eval(expected), rtol=1e-5)


def next_custom(client: BlockingKernelClient, comm: str) -> dict:
    while True:
        try:
            message = client.get_iopub_msg(timeout=30)
        except Empty:
            pytest.fail("the kernel did not answer")
        data = message["content"].get("data", {})
        if (
            message["msg_type"] == "comm_msg"
            and message["content"]["comm_id"] == comm
            and data.get("method") == "custom"
        ):
            return message
