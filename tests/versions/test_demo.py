"""With an older release of TransformerLens, a sentence says which release the demo needs."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from residscope import demo
from residscope.demo import DemoError


@pytest.mark.skipif(not version("transformer-lens").startswith("2."), reason="later releases have the bridge")
def test_without_the_bridge_a_sentence_says_which_release_is_needed():
    with pytest.raises(DemoError, match=r"needs TransformerLens 3\.9 or later"):
        demo.load("gpt2")
