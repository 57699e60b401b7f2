"""The page on a generated answer is current: its code still gives its numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documents import next_token

PAGE = (Path(__file__).parents[2] / "py_backend/docs/next-token.md").read_text("utf-8")
NUMBER = re.compile(r"[+−]?\d+\.\d+|\de-\d\d")


def test_the_page_has_the_numbers_of_its_code():
    found = next_token.page(next_token.run())  # `run` compares the numbers with the logits and with float64
    numbers = [[float(text.replace("−", "-")) for text in NUMBER.findall(page)] for page in (PAGE, found)]
    assert numbers[0] == pytest.approx(numbers[1], abs=6e-3)
    assert NUMBER.sub("", PAGE) == NUMBER.sub("", found)
    assert "at 23 of 23 positions" in " ".join(PAGE.split())
