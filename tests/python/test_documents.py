"""What the documents claim about the tests is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FEATURES = (ROOT / "py_backend/docs/features.md").read_text("utf-8")
PAGES = ("SECURITY.md", "CONTRIBUTING.md", "ARCHITECTURE.md")
TESTS = re.compile(r"`((?:tests|widgets|extension)/[\w./-]*test[\w./-]*)`")
FILES = {path for page in PAGES for path in TESTS.findall((ROOT / ".github" / page).read_text("utf-8"))}
ROWS = [line.strip("| ").split(" | ") for line in FEATURES.splitlines() if line.startswith("| ")][1:]
PROOFS = {row[0]: row[-1] for row in ROWS if len(row) == 3}  # a heading has one cell


@pytest.mark.parametrize("feature", PROOFS)
def test_a_feature_names_tests_that_are_there(feature: str) -> None:
    named = re.findall(r"`((?:tests|widgets)/[\w./-]+\.(?:py|ts))::([^`]+)`", PROOFS[feature])
    assert len(named) == PROOFS[feature].count("`") // 2 > 0, "each proof is `file::test`"
    for path, name in named:
        source = (ROOT / path).read_text("utf-8")
        assert f"\ndef {name}(" in source if path.endswith(".py") else f'("{name}"' in source, f"{path}::{name}"


@pytest.mark.parametrize("path", sorted(FILES))
def test_a_file_of_tests_that_is_named_holds_tests(path: str) -> None:
    files = [*(ROOT / path).iterdir()] if path.endswith("/") else [ROOT / path]
    assert any(re.search(r"^def test_|\bit\(", file.read_text("utf-8"), re.MULTILINE) for file in files)
