"""Puts mistakes into Residscope, one at a time, and checks whether its tests notice them.

Cosmic Ray makes the mistakes ("mutants"). A seed draws a sample of the mutants of each module: first a place in the
code, then one of the mistakes that are possible there. So a place with many possible mistakes does not fill the
sample. For each mutant, the tests that `modules.py` lists for the module run until one fails. They run in a process
that was forked from a process in which torch and other slow packages are already loaded.

    npm run mutants -- python                    8 mutants of each module
    npm run mutants -- python --each 20 export/code compute/memo
    npm run mutants -- python --all              all mutants (takes a night)
    npm run mutants -- python --tests REVISION   with the tests of an earlier commit
"""

from __future__ import annotations

import argparse
import ast
import importlib
import io
import json
import multiprocessing
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import groupby
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from tests.mutants.modules import MODULES

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "py_backend" / "residscope"
RESULTS = ROOT / "test-results" / "mutants-python.json"
SLOW = (
    "torch", "transformers", "transformer_lens", "transformer_lens.model_bridge", "numpy", "pandas", "plotly.io",
    "plotly.graph_objects", "hypothesis", "anywidget", "ipywidgets", "IPython", "jaxtyping", "einops", "msgspec",
    "pytest",
)  # fmt: skip


_THE_SAME = {f"core/ReplaceComparisonOperator_{one}" for one in ("Eq_Is", "Is_Eq", "NotEq_IsNot", "IsNot_NotEq")}
"""Operators that exchange `==` and `is`, or `!=` and `is not`. They change nothing for short strings, small
numbers and None."""


@dataclass(frozen=True)
class Mutant:
    """A mutant: the module with one mistake."""

    module: str
    line: int
    column: int
    operator: str
    occurrence: int
    diff: str
    text: str


@dataclass(frozen=True)
class Result:
    """The result of the tests for a mutant, or for the unchanged code.

    Attributes:
        name: The name of the mutant or of the test file.
        mutant: The mutant. None for the unchanged code.
        outcome: "killed", "survived", "too slow" or "absent" (no test file).
        seconds: How long the tests took.
        said: For a killed mutant, the first test that failed. For unchanged code, the output if a test failed.
    """

    name: str
    mutant: Mutant | None
    outcome: str
    seconds: float
    said: str = ""


def main() -> int:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", help="such as `export/code`; by default all of modules.py")
    parser.add_argument("--each", type=int, default=8, help="how many mutants of each module")
    parser.add_argument("--all", action="store_true", help="all mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tests", metavar="REVISION", help="with the tests of another revision")
    parser.add_argument("--list", action="store_true", help="only list the mutants")
    given = parser.parse_args()
    unknown = [name for name in given.modules if name not in MODULES]
    if unknown:
        parser.error(f"{unknown[0]} is not in modules.py; there are: {', '.join(MODULES)}")
    names = given.modules or list(MODULES)
    works = {name: sampled(name, None if given.all else given.each, given.seed) for name in names}
    if given.list:
        for mutant in (mutant for several in works.values() for mutant in several):
            print(f"{mutant.module}:{mutant.line} {mutant.operator}\n{mutant.diff}")
        return 0
    results = list(tested(works, given.workers, given.tests))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(result) for result in results], indent=1))
    print(table(results))
    return 0


# --- the mutants -----------------------------------------------------------------------------------------------------
def sampled(module: str, each: int | None, seed: int) -> list[Mutant]:
    """Return the sampled mutants of a module, in the order of their lines."""
    source = (SOURCE / f"{module}.py").read_text()
    drawn = random.Random(f"{seed} {module}")
    places = [list(several) for _, several in groupby(sorted(possible(source)), lambda change: change[:2])]
    drawn.shuffle(places)
    found: list[Mutant] = []
    for several in places:
        if each is not None and len(found) >= each:
            break
        drawn.shuffle(several)
        made = (_mutant(module, source, *change) for change in several)
        chosen = (mutant for mutant in made if mutant is not None)
        found += chosen if each is None else [mutant for mutant in (next(chosen, None),) if mutant is not None]
    return sorted(found, key=lambda mutant: (mutant.line, mutant.column, mutant.operator))


def _mutant(module: str, source: str, line: int, column: int, name: str, occurrence: int) -> Mutant | None:
    """Return the mutant, or None if the code does not change or is not valid Python."""
    from cosmic_ray.mutating import mutate_code  # pyright: ignore[reportMissingImports] (in .mutants/)
    from cosmic_ray.plugins import get_operator  # pyright: ignore[reportMissingImports]

    text = mutate_code(source, get_operator(name)(), occurrence)
    if text is None or text == source or not _compiles(text):
        return None
    return Mutant(module, line, column, name.removeprefix("core/"), occurrence, _diff(source, text), text)


def possible(source: str) -> Iterator[tuple[int, int, str, int]]:
    """Yield line, column, operator and occurrence of each mistake that Cosmic Ray can make in code that runs."""
    from cosmic_ray.ast import ast_nodes, get_ast  # pyright: ignore[reportMissingImports]
    from cosmic_ray.plugins import get_operator, operator_names  # pyright: ignore[reportMissingImports]

    parsed = ast.parse(source)
    nodes, idle, limits = list(ast_nodes(get_ast(source))), list(_idle(parsed)), list(_limits(parsed))
    for name in operator_names():
        kind = get_operator(name)
        if kind.arguments() or name in _THE_SAME:
            continue
        operator = kind()
        skipped = [*idle, *limits] if name == "core/NumberReplacer" else idle
        positions = (at for node in nodes for at, _ in operator.mutation_positions(node))
        for occurrence, (line, column) in enumerate(positions):
            if not any(start <= (line, column) < end for start, end in skipped):
                yield line, column, name, occurrence


def _compiles(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _idle(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield the ranges in which mistakes change nothing: annotations, `if TYPE_CHECKING`, names of types, `strict`."""
    for node in ast.walk(tree):
        idle: list[ast.AST | None] = []
        match node:
            case ast.arg(annotation=found):
                idle = [found]
            case ast.AnnAssign(annotation=found):
                idle = [found]
            case ast.FunctionDef(returns=found) | ast.AsyncFunctionDef(returns=found):
                idle = [found]
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                idle = [node]
            case ast.Call(func=ast.Name(id="cast" | "TypeVar"), args=[found, *_]):
                idle = [found]
            case ast.keyword(arg="strict"):  # an argument of `zip`, which refuses lengths that never occur
                idle = [node.value]
            case ast.Assign(value=ast.BinOp(op=ast.BitOr()) | ast.Subscript() as found):  # the name of a type
                idle = [found] if node.col_offset == 0 else []
            case _:
                pass
        for one in idle:
            if isinstance(one, ast.expr | ast.stmt):
                end = (one.end_lineno or 0, one.end_col_offset or 0)
                yield (one.lineno, one.col_offset), end


def _limits(tree: ast.Module) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield the ranges of a module's constants. A limit that is larger or smaller by one is not a mistake."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            yield (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)


def _diff(source: str, text: str) -> str:
    """Return the first lines that differ."""
    pairs = zip(source.splitlines(), text.splitlines(), strict=False)
    changed = [(old, new) for old, new in pairs if old != new][:2]
    return "\n".join(f"- {old.strip()}\n+ {new.strip()}" for old, new in changed)


# --- the tests -------------------------------------------------------------------------------------------------------
def tested(works: dict[str, list[Mutant]], workers: int, revision: str | None) -> Iterator[Result]:
    """Yield the tests' result for each mutant. First, each test file is run without a mutant."""
    there = multiprocessing.get_context("spawn")
    todo: Queue[Any] = there.Queue()
    done: Queue[Any] = there.Queue()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        running = [
            there.Process(target=work, args=(Path(folder) / str(number), todo, done, revision))
            for number in range(workers)
        ]
        for process in running:
            process.start()

        def ended(tasks: list[Any]) -> Iterator[Result]:
            began = time.monotonic()
            for task in tasks:
                todo.put(task)
            for number in range(len(tasks)):
                result = _next(done, running)
                minutes = (time.monotonic() - began) / 60
                print(
                    f"{number + 1:4}/{len(tasks)} {minutes:5.1f} min  {result.name}: {result.outcome} "
                    f"({result.seconds:.1f} s) {result.said.splitlines()[0] if result.said else ''}",
                    flush=True,
                )
                yield result

        try:
            took: dict[str, float] = {}
            files = dict.fromkeys(file for module in works for file in MODULES[module])
            for result in ended([(None, [file], 1800.0) for file in files]):
                if result.outcome == "survived":
                    took[result.name] = result.seconds
                elif result.outcome != "absent":  # the test file cannot test mutants
                    print(f"test_{result.name}.py is left out: it fails without any mutant.\n{result.said}")
            tasks: list[Any] = []
            for module, mutants in works.items():
                own = sorted((file for file in MODULES[module] if file in took), key=took.__getitem__)
                if not own:
                    raise RuntimeError(f"No test of {module} passes without any mutant, so mutants cannot be tested.")
                tasks += [(mutant, own, 4 * sum(map(took.__getitem__, own)) + 30) for mutant in mutants]
            yield from ended(tasks)
        finally:
            for process in running:
                process.terminate()


def _next(done: Queue[Any], running: list[Any]) -> Result:
    while True:
        with suppress(queue.Empty):
            return done.get(timeout=5)
        if not any(process.is_alive() for process in running):
            raise RuntimeError("The workers ended before their work did.")


def work(folder: Path, todo: Queue[Any], done: Queue[Any], revision: str | None) -> None:
    """Test one mutant after another, in a separate copy of the files."""
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder / "py_backend")}
    shutil.copytree(SOURCE, folder / "py_backend" / "residscope", ignore=shutil.ignore_patterns("__pycache__"))
    if revision is None:
        shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    else:
        packed = subprocess.run(
            ["git", "archive", revision, "tests", "pyproject.toml"], cwd=ROOT, capture_output=True, check=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
    kept = () if revision else ("pyproject.toml",)  # the tests of an earlier commit need the settings of that commit
    for name in (*kept, "widgets", "README.md", "extension", "package.json", ".dev", "py_backend/docs"):
        (folder / name).symlink_to(ROOT / name)
    os.chdir(folder)
    for name in SLOW:
        with suppress(ImportError):
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    while True:
        mutant, names, limit = todo.get()
        files = [f"tests/python/test_{file}.py" for file in names]
        files = [file for file in files if Path(file).exists()]
        if not files:
            done.put(Result(names[0], None, "absent", 0.0))
            continue
        if mutant is None:
            code, took, said = forked(files, limit)
            done.put(Result(names[0], None, _OUTCOMES.get(code, "killed"), took, said if code else ""))
            continue
        target = folder / "py_backend" / "residscope" / f"{mutant.module}.py"
        before = target.read_text()
        target.write_text(mutant.text)
        try:
            code, took, said = forked(files, limit)
        finally:
            target.write_text(before)
        outcome = _OUTCOMES.get(code, "killed")
        name = f"{mutant.module}:{mutant.line} {mutant.operator}"
        done.put(Result(name, mutant, outcome, took, _failed(said) if outcome == "killed" else ""))


_OUTCOMES = {0: "survived", None: "too slow"}


def forked(files: list[str], limit: float) -> tuple[int | None, float, str]:
    """Run test files in a forked process. Return its exit status (None: it took too long), the time and the output.

    The first failed test ends the run.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile() as out:
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            sys.path[:0] = [str(Path("py_backend").resolve())]
            for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
                del sys.modules[name]  # because the tests must import the modules of the copy
            code = 99
            try:
                import pytest

                quiet = [
                    "-W",
                    "default",
                    "-x",
                    "-q",
                    "--no-header",
                    "--tb=no",
                    "-p",
                    "no:cacheprovider",
                    "-p",
                    "no:xdist",
                    "-rfE",
                ]
                code = int(pytest.main([*quiet, *files]))
                sys.stdout.flush()
            finally:
                os._exit(code)
        status = _waited(child, start + limit)
        out.seek(0)
        return status, time.monotonic() - start, out.read().decode(errors="replace")[-2000:]


def _waited(child: int, until: float) -> int | None:
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _failed(said: str) -> str:
    """Return the test that failed."""
    line = next((line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
    return line.partition(" - ")[0]


# --- the table -------------------------------------------------------------------------------------------------------
def table(results: list[Result]) -> str:
    """Return scores by module, and the mutants that survived. (python.json lists those that change no behaviour.)"""
    same = {(one["module"], one["diff"]) for one in json.loads(Path(__file__).with_name("python.json").read_text())}
    rows = [
        "| module | mutants | killed | too slow | survived | equivalent | score |",
        "|---|---|---|---|---|---|---|",
    ]
    tried = [(result.mutant, result.outcome) for result in results if result.mutant is not None]
    outcomes = [
        (one, "equivalent" if outcome == "survived" and (one.module, one.diff) in same else outcome)
        for one, outcome in tried
    ]
    modules = dict.fromkeys(one.module for one, _ in outcomes)
    for module in [*modules, "all"]:
        some = [outcome for one, outcome in outcomes if module in (one.module, "all")]
        counts = [some.count(way) for way in ("killed", "too slow", "survived", "equivalent")]
        killed, slow, _, without = counts
        score = (killed + slow) / max(len(some) - without, 1)
        rows.append(f"| {module} | {len(some)} | {' | '.join(map(str, counts))} | {score:.0%} |")
    left = [f"{one.module}:{one.line} {one.operator}\n{one.diff}" for one, outcome in outcomes if outcome == "survived"]
    return "\n".join(["", *rows, "", *left])


if __name__ == "__main__":
    sys.exit(main())
