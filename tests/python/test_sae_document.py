"""The page on features of SAEs is current: its code runs, and gives its numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documents import sae_features
from tests.documents.causes import between

TEXT = (Path(__file__).parents[2] / "py_backend/docs/sae-features.md").read_text("utf-8")
NUMBER = re.compile(r"[+−]\d+\.\d+")


def test_the_code_of_the_page_gives_its_numbers():
    for name, lines in sae_features.numbers(TEXT).items():
        written, found = between(TEXT, name), "\n".join(lines)
        numbers = [[float(text.replace("−", "-")) for text in NUMBER.findall(page)] for page in (written, found)]
        assert numbers[0] == pytest.approx(numbers[1], abs=2e-3, rel=2e-3)
        assert NUMBER.sub("", written).split() == NUMBER.sub("", found).split()
