"""Code for a real kernel: it makes a small cache, and reads the state that Residscope must not change."""

from __future__ import annotations

from jupyter_client.blocking.client import BlockingKernelClient

SETUP = """
from tests.support import tiny
import torch
model = tiny.boot("llama")
tokens, logits, my_cache = tiny.run(model)
import residscope
"""
TRACES = {
    "names": "sorted(globals())",
    "count": "get_ipython().execution_count",
    "In": "list(In)",
    "history": "list(get_ipython().history_manager.input_hist_raw)",
    "shown": "repr((globals().get('_'), globals().get('__'), list(Out)))",
    "raised": "repr((getattr(__import__('sys'), 'last_value', None), getattr(__import__('sys'), 'last_type', None)))",
    "callbacks": "repr(get_ipython().events.callbacks)",
    "type of list": "type(get_ipython().events.callbacks['post_execute']).__name__",
}
"""Expressions whose values must be the same before and after Residscope is used."""


def run(client: BlockingKernelClient, code: str) -> list[dict]:
    """Run code as a cell, and return the contents of its outputs. Fail if the code raises an error."""
    outputs: list[dict] = []

    def hook(message: dict) -> None:
        assert message["msg_type"] != "error", "\n".join(message["content"]["traceback"])
        if message["msg_type"] in ("display_data", "execute_result", "stream"):
            outputs.append(message["content"])

    client.execute_interactive(code, output_hook=hook, timeout=120)
    return outputs
