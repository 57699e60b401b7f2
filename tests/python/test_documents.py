"""The claims of the documents about tests and names are true. Code, commands and links: `test_pages.py`."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

import residscope
from tests.documents import compatibility

ROOT = Path(__file__).parents[2]
FEATURES = (ROOT / "py_backend/docs/features.md").read_text("utf-8")
PAGES = ("SECURITY.md", "CONTRIBUTING.md", "ARCHITECTURE.md")
TESTS = re.compile(r"`((?:tests|widgets|extension)/[\w./-]*test[\w./-]*)`")
FILES = {path for page in PAGES for path in TESTS.findall((ROOT / ".github" / page).read_text("utf-8"))}
ROWS = [line.strip("| ").split(" | ") for line in FEATURES.splitlines() if line.startswith("| ")][1:]
PROOFS = {row[0]: row[-1] for row in ROWS if len(row) == 3}  # headings have only one cell


@pytest.mark.parametrize("feature", PROOFS)
def test_a_feature_names_tests_that_exist(feature: str) -> None:
    named = re.findall(r"`((?:tests|widgets)/[\w./-]+\.(?:py|ts))::([^`]+)`", PROOFS[feature])
    assert len(named) == PROOFS[feature].count("`") // 2 > 0, "each proof is `file::test`"
    for path, name in named:
        source = (ROOT / path).read_text("utf-8")
        assert f"\ndef {name}(" in source if path.endswith(".py") else f'("{name}"' in source, f"{path}::{name}"


@pytest.mark.parametrize("path", sorted(FILES))
def test_a_named_test_file_has_tests(path: str) -> None:
    files = [*(ROOT / path).iterdir()] if path.endswith("/") else [ROOT / path]
    assert any(re.search(r"^def test_|\bit\(", file.read_text("utf-8"), re.MULTILINE) for file in files)


DOCS = ROOT / "py_backend/docs"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 700


def test_help_has_each_chapter_of_the_sections_for_users() -> None:
    from residscope.base.chapters import chapter

    _, nav = (ROOT / ".dev/site/mkdocs.yml").read_text("utf-8").split("\nnav:\n")
    _, begin, how_to, *_ = re.split(r"^  - [\w ]+:$", nav, flags=re.MULTILINE)
    pages = re.findall(r"- ([\w-]+)\.md", begin + how_to)
    assert len(pages) > 10
    for page in {*pages} - {"many"}:  # about Python alone; the package is kept small
        assert chapter(page).startswith((DOCS / f"{page}.md").read_text("utf-8").splitlines()[0])


def test_each_error_code_on_the_site_has_an_example_unless_its_text_is_made_elsewhere() -> None:
    hooks = runpy.run_path(str(ROOT / ".dev" / "site" / "hooks.py"))
    codes = hooks["error_codes"](Path(residscope.__file__).parent)
    assert [code for code, texts in codes.items() if not texts] == ["given-up", "several-tokens"]
    assert codes["no-blocks"] == [
        "This … has no `blocks`: Residscope supports models with a single stack of layers."
    ]  # made by a function
    assert any("is not compared on screen: use `residscope.compare_attention`" in text for text in codes["too-long"])
    assert codes["unsteady"][0].startswith("… changed during this computation")


def test_the_table_of_versions_is_what_the_runs_wrote() -> None:
    runs = json.loads((DOCS / "compatibility.json").read_text("utf-8"))
    assert compatibility.merged([], runs) == runs
    assert (DOCS / "compatibility.md").read_text("utf-8") == compatibility.markdown(runs)


def test_the_table_of_versions_lists_only_what_the_tests_use_and_keeps_the_last_of_equal_runs() -> None:
    installed = {"python": "3.11.7", "jupyterlab": "4.4.10", "notebook": "7.6.5", "marimo": "0.25.2", "system": "Linux"}
    counts = {"passed": 3, "skipped": 0, "failed": 1, "error": 1, "date": "2026-11-30"}
    sidebar = {"what": ["tests/browser/test_sidebar.py"], **installed, **counts}
    pages = {"what": ["tests/browser"], "chosen": "-m alone", **installed, **counts}
    new = sidebar | {"passed": 1234, "notebook": "7.6.4"}
    older = {"what": ["tests/python/test_applied.py", "tests/versions"], **installed, **counts}
    python = [{"what": ["tests/python"], **installed, **counts, "python": version} for version in ("3.9.1", "3.10.1")]
    runs = compatibility.merged([sidebar, older, *reversed(python)], [pages, new])
    assert runs == [*python, pages, new, older]
    rows = compatibility.markdown(runs).splitlines()[-5:]
    assert rows[0] == "| `tests/python`: mathematics, panel, exports | Python 3.9.1; Linux | 3 | 0 | 2 | 2026-11-30 |"
    assert "(`-m alone`) | Python 3.11.7, JupyterLab 4.4.10, Notebook 7.6.5, marimo 0.25.2; Linux |" in rows[2]
    assert ", only tests in `test_sidebar.py` | Python 3.11.7, JupyterLab 4.4.10; Linux | 1,234 |" in rows[3]
    assert "older TransformerLens; `tests/python`: mathematics, panel, exports, only tests in `test_app" in rows[4]


def test_the_reference_has_each_public_name() -> None:
    listed = re.findall(r"^::: residscope\.[\w.]*?(\w+)$", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE)
    assert {*residscope.__all__} - {*listed} == {"demo", "targets"}
