"""The lists of harmless mutants are up to date: the lines that a mutant replaces are still in the code."""

import json
from pathlib import Path

from tests.mutants.modules import MODULES

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "py_backend" / "residscope"


def lines_of(file: Path) -> set[str]:
    return {line.strip() for line in file.read_text().splitlines()}


def listed(language: str) -> list[dict[str, str]]:
    return json.loads((ROOT / "tests" / "mutants" / f"{language}.json").read_text())


def test_the_lines_that_a_python_mutant_replaces_are_in_its_module():
    for one in listed("python"):
        quoted = [line[2:].strip() for line in one["diff"].splitlines() if line.startswith("- ")]
        assert set(quoted) <= lines_of(SOURCE / f"{one['module']}.py"), one


def test_the_line_that_a_typescript_mutant_replaces_is_in_its_file():
    for one in listed("typescript"):
        assert one["in"] in lines_of(ROOT / one["file"]), one


def test_each_module_with_mutants_exists_and_has_tests():
    for module, tests in MODULES.items():
        assert (SOURCE / f"{module}.py").is_file(), module
        assert all((ROOT / "tests" / "python" / f"test_{name}.py").is_file() for name in tests), module
