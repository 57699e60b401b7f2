"""What the Python tests share: the demo model, booted once, raw and in compatibility mode."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def ioi():
    """The IOI run on the demo model: `.model .prompts .tokens .answers .answer_tokens .logits .cache`."""
    from residscope import demo

    return demo.ioi()


@pytest.fixture(scope="session")
def compatible_ioi():
    """The same run in compatibility mode, in a model of its own (the mode is irreversible)."""
    from residscope import demo

    model = demo.load()
    model.enable_compatibility_mode()
    return demo.ioi(model)
