"""The demo on an older release: its model boots, or a sentence says what it needs."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from residscope import demo
from residscope.demo import DemoError


@pytest.mark.skipif(not version("transformer-lens").startswith("2."), reason="later releases have the bridge")
def test_a_release_without_the_bridge_is_told_in_a_sentence():
    with pytest.raises(DemoError, match=r"needs TransformerLens 3\.9 or later"):
        demo.load("gpt2")
