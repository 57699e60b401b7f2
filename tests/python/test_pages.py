"""What the pages of the documentation show can be done: code runs, commands exist, links lead somewhere."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import pkgutil
import re
import shlex
from collections.abc import Callable
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import residscope
from residscope.demo import cli
from tests.documents import why
from tests.support import pages
from tests.support.pages import PAGES, ROOT

MANY = "py_backend/docs/many.md"
ELSEWHERE = {
    "py_backend/docs/causes.md": "test_causes_documents.py",
    MANY: "test_many.py",
    "py_backend/docs/sae-features.md": "test_sae_document.py",
}
"""Pages whose code is run by a test in another file: on a tiny model, since it needs many runs, or for its numbers."""
WITH_CODE = [page for page in PAGES if any(block.language == "python" for block in pages.blocks(page))]
COMMANDS = ("npm", "residscope", "python", "pip", "%pip", "accelerate", "code", "pre-commit")
NUMBER = re.compile(r"[+−]?\d+\.\d+")


def check_readme(names: dict[str, Any]) -> None:
    """L23H3 adds +1.83 by reading the second “ John”, and lowers this name's logit."""
    cache = names["cache"]
    assert names["heads"].top(1)[0][0] == "L23H3"
    sources = residscope.attribute(cache, names["answers"], by="source", heads=["L23H3"]).values[:, 0, 0]
    assert int(sources.argmax()) == 10
    assert float(sources[10]) == pytest.approx(1.83, abs=5e-3)
    assert cache.model.to_str_tokens(cache["embed.hook_in"][0])[10] == " John"
    assert residscope.attribute(cache, " John").grid[23, 3, 0] < 0


def check_comparing(names: dict[str, Any]) -> None:
    """Written + read is the difference, of the rows and of the target."""
    found = names["found"]
    assert (found.written + found.read).sub(found.values).abs().max() < 1e-5
    assert (found.second.measured - found.first.measured).sub(found.measured).abs().max() < 1e-5
    assert (found.written_total + found.read_total).sub(found.measured).abs().max() < 1e-3
    assert float(found.measured.mean()) < -5  # another prompt's answers


def check_first_steps(names: dict[str, Any]) -> None:
    """L23H3 stands out, and the logit difference is +4.72 in the mean."""
    heads = residscope.attribute(names["run"].cache, names["run"].answers)
    assert heads.top(1)[0][0] == "L23H3"
    assert float(heads.measured.mean()) == pytest.approx(4.72, abs=5e-3)


def check_in_python(names: dict[str, Any]) -> None:
    """The target `reads` is log A − log A."""
    log = names["cache"]["pattern", 23][:, 3, 14].log()
    found = residscope.attribute(names["cache"], names["reads"]).measured
    assert found.sub(log[:, 10] - log[:, 0]).abs().max() < 1e-4


TRUE: dict[str, Callable[[dict[str, Any]], object]] = {
    "README.md": check_readme,
    "py_backend/docs/comparing.md": check_comparing,
    "py_backend/docs/first-steps.md": check_first_steps,
    "py_backend/docs/in-python.md": check_in_python,
}
"""What a page says of the values of its code, if no comment and no table says it."""


@pytest.mark.parametrize("page", [page for page in WITH_CODE if page not in ELSEWHERE])
def test_the_code_of_a_page_runs(page, ioi, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = pages.run_page(page, ioi)
    TRUE.get(page, lambda _: None)(names)


@pytest.mark.parametrize("page", ELSEWHERE)
def test_the_code_of_each_other_page_is_run_elsewhere(page):
    assert page in WITH_CODE
    assert "pages.run_page(" in (ROOT / "tests/python" / ELSEWHERE[page]).read_text("utf-8")


def test_each_block_and_each_notebook_has_a_test():
    languages = {block.language for page in PAGES for block in pages.blocks(page)}
    assert languages == {"python", "sh", ""}  # code and commands; "" is a cell with %pip
    assert all(text.count("\n```") % 2 == 0 and "~~~" not in text for text in PAGES.values())
    notebooks = {path.name for path in Path(cli.__file__).parent.glob("*.ipynb")}
    assert notebooks == {cli.NOTEBOOK, *cli.OTHER_NOTEBOOKS}  # test_demo_command.py runs them


def test_the_page_on_why_has_the_numbers_of_its_program(ioi):
    written, found = PAGES["py_backend/docs/why.md"], why.page(ioi)
    numbers = [[float(text.replace("−", "-")) for text in NUMBER.findall(page)] for page in (written, found)]
    assert numbers[0] == pytest.approx(numbers[1], abs=6e-3)
    assert NUMBER.sub("", written) == NUMBER.sub("", found)
    assert sum(bool(pages.table(block.after)) for block in pages.blocks("py_backend/docs/why.md")) == 6


def commands(page: str) -> list[str]:
    """Return the commands of a page: each line for a shell, and inline code that begins with a program's name."""
    lines = [line for block in pages.blocks(page) if block.language in ("sh", "") for line in block.code.splitlines()]
    return lines + [span for span in inline_code(page) if span.split()[0] in COMMANDS and " " in span]


def prose(page: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)


def inline_code(page: str) -> list[str]:
    """Return the code between single backticks, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_each_command_of_a_page_exists(page):
    for command in commands(page):
        check_command(*shlex.split(command, comments=True))


def check_command(*words: str) -> None:
    """Check that a command exists. What it does is tested elsewhere; nothing is installed or started here."""
    match words:
        case ("npm", "run", script, *_) | ("npm", script, *_):
            assert script in json.loads((ROOT / "package.json").read_text("utf-8"))["scripts"], words
        case ("residscope", *arguments):
            cli._parser().parse_args(arguments)
        case ("python", "-m", module, *_):
            assert importlib.util.find_spec(module) is not None, words
        case ("pip" | "%pip", "install", *arguments):
            for what in (argument for argument in arguments if argument != "--dry-run"):
                check_installed(what)
        case ("accelerate", "launch", *arguments):
            from accelerate.commands.launch import launch_command_parser

            assert Path(launch_command_parser().parse_args(arguments).training_script).stem in PAGES[MANY]
        case ("code", "--install-extension", name):  # VS Code is not here
            assert name in (ROOT / ".dev/vscode.mjs").read_text("utf-8")
        case ("pre-commit", "install"):
            assert (ROOT / ".pre-commit-config.yaml").exists()
        case _:
            pytest.fail(f"this test does not know {words}")


def check_installed(what: str) -> None:
    """Check that pip would install our wheel of this version, or extras of the package that is there."""
    ours = Requirement(what.replace(f"-{residscope.__version__}-py3-none-any.whl", ""))
    assert (ours.name, str(ours.specifier)) == ("residscope", "")
    assert ours.extras <= {*(metadata("residscope").get_all("Provides-Extra") or [])}


@pytest.mark.parametrize("page", PAGES)
def test_the_links_and_paths_of_a_page_lead_somewhere(page):
    """`npm run site` also checks the headings to which the pages of the site link."""
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", prose(page))]
    assert all(link.startswith("https://") for link in links if ":" in link)
    missing = [link for link in links if ":" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    paths = [span for span in inline_code(page) if re.fullmatch(r"(\.?[\w-]+/)+[\w.-]+/?", span)]
    bases = [ROOT / base for base in ("", "py_backend", "py_backend/residscope", "widgets/src")]
    missing += [path for path in paths if not path.startswith("dist/") and not any((b / path).exists() for b in bases)]
    assert missing == []


OURS = {name: getattr(residscope, name) for name in residscope.__all__}
OURS |= {"residscope": residscope, "panel": residscope.Panel}


@pytest.mark.parametrize("page", PAGES)
def test_our_names_in_the_text_exist_and_take_these_arguments(page):
    for span in inline_code(page):
        if re.match(rf"(residscope|targets|panel)\.(?!ts$)|({'|'.join(OURS)})\(", span):
            for node in ast.walk(ast.parse(re.sub(r", …(?=\))", "", span).replace("…", "..."))):
                if isinstance(node, ast.Call) and (function := ours(node.func)) is not None:
                    given = [argument for argument in node.args if ast.unparse(argument) != "..."]
                    inspect.signature(function).bind_partial(*given, **{word.arg or "": 0 for word in node.keywords})
                else:
                    ours(node)


def ours(node: ast.AST) -> Any:
    """Return the object that an expression such as `residscope.targets.neuron` names. It must exist if it is ours."""
    match node:
        case ast.Name(id=name):
            return OURS.get(name)
        case ast.Attribute(value=value, attr=name) if (owner := ours(value)) is not None:
            return pkgutil.resolve_name(f"{owner.__name__}.{name}") if inspect.ismodule(owner) else getattr(owner, name)
    return None
