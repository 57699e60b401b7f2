"""What the documents say of the tests is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.findall(
    r"`((?:tests|widgets)/[\w./-]+\.(?:py|ts))(?:::(\w+))?`", (ROOT / "py_backend/docs/features.md").read_text()
)


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED)))
def test_a_test_that_is_named_is_there(path: str, name: str) -> None:
    source = (ROOT / path).read_text()
    assert not name or f"def {name}(" in source
