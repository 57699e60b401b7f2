"""Fixtures of the Python tests: the demo model, raw and in compatibility mode, and tiny models."""

from __future__ import annotations

import os

import pytest

if os.environ.get("RESIDSCOPE_SHAPES") == "1":  # see `test_shapes.py`; must run before the package is imported
    from tests.support.shapes import check_shapes

    check_shapes()


@pytest.fixture(scope="session")
def ioi():
    """The IOI run on the demo model: `.model .prompts .tokens .answers .answer_tokens .logits .cache`."""
    from residscope import demo

    return demo.ioi()


@pytest.fixture(scope="session")
def compatible_ioi():
    """The IOI run in compatibility mode, in a separate model, because this mode cannot be undone."""
    from residscope import demo

    model = demo.load()
    model.enable_compatibility_mode()
    return demo.ioi(model)


@pytest.fixture(scope="module")
def booted():
    """A function that returns model, tokens, logits and cache of a tiny family, booted once in each test file."""
    from tests.support import tiny

    known = {}

    def get(name):
        if name not in known:
            model = tiny.boot(name)
            known[name] = (model, *tiny.run(model))
        return known[name]

    return get
