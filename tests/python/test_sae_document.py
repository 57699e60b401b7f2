"""The page on features of SAEs is current: its code runs, and gives its numbers."""

from __future__ import annotations

import re

import pytest

from tests.documents import sae_features
from tests.documents.causes import between
from tests.support import pages

TEXT = pages.PAGES[sae_features.PAGE]
NUMBER = re.compile(r"[+−]\d+\.\d+")


def test_the_code_of_the_page_gives_its_numbers(ioi):
    for name, lines in sae_features.numbers(pages.run_page(sae_features.PAGE, ioi)).items():
        written, found = between(TEXT, name), "\n".join(lines)
        numbers = [[float(text.replace("−", "-")) for text in NUMBER.findall(page)] for page in (written, found)]
        assert numbers[0] == pytest.approx(numbers[1], abs=2e-3, rel=2e-3)
        assert NUMBER.sub("", written).split() == NUMBER.sub("", found).split()
