"""The pages of the documentation: runs their Python code, with what a page takes as given."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import residscope
from tests.support import saes

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("", ".github", "py_backend/docs", "extension/vscode", "tests/mutants")
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text("utf-8")
    for folder in FOLDERS
    for page in sorted((ROOT / folder).glob("*.md"))
}
"""The text of each page, by its path in the repository."""

GIVEN = {
    "causes": "residscope",
    "comparing": "residscope cache answers clean corrupted",
    "exports": "cache",
    "in-python": "residscope cache answers clean corrupted panel sae tuned_lens",
    "lenses": "residscope cache answers hugging_face_model matrices",
    "many": "my_items",
    "sae-features": "cache",
    "segments": "model",
}
"""The names that the code of a page uses without making them. The code of any other page needs none."""


def given(page: str, run: Any) -> dict[str, Any]:
    """Return the variables with which the code of a page starts, from a run such as that of the demo model."""
    layers, width = run.model.cfg.n_layers, run.model.cfg.d_model

    def batch(model: Any, some: slice) -> tuple[Any, Any]:
        return model.run_with_cache(run.prompts[some])[1], run.answers[some]

    made = {
        "residscope": lambda: residscope,
        "model": lambda: run.model,
        "hugging_face_model": lambda: run.model.original_model,
        "cache": lambda: run.cache,
        "answers": lambda: run.answers,
        "clean": lambda: run.cache,
        "corrupted": lambda: run.model.run_with_cache(run.tokens.unflatten(0, (-1, 2)).flip(1).flatten(0, 1))[1],
        "panel": lambda: residscope.inspect(run.cache, run.answers, show=False),
        "sae": lambda: saes.Sae(width, features=1300, hook_name="blocks.8.hook_resid_pre"),
        "matrices": lambda: [torch.eye(width) for _ in range(layers)],
        "tuned_lens": lambda: [None] * layers,
        "my_items": lambda: lambda model: [batch(model, slice(4)), batch(model, slice(4, None))],
    }
    return {name: made[name]() for name in GIVEN.get(Path(page).stem, "").split()}


@contextmanager
def no_downloads(run: Any) -> Iterator[None]:
    """Replace what the code of a page would load from a model hub, and packages that are not installed here."""
    layers, width = run.model.cfg.n_layers, run.model.cfg.d_model
    lens = SimpleNamespace(layer_translators=[torch.nn.Linear(width, width) for _ in range(layers)])
    sae = saes.Sae(width, features=1300, hook_name="blocks.8.hook_resid_pre", neuronpedia_id="gpt2-small/8-res-jb")
    members = {
        "tuned_lens": {},
        "tuned_lens.nn": {},
        "tuned_lens.nn.lenses": {"TunedLens": SimpleNamespace(from_model_and_pretrained=lambda _: lens)},
        "sae_lens": {"SAE": SimpleNamespace(from_pretrained=lambda *_: sae)},
    }
    modules = {name: ModuleType(name) for name in members}
    for name, module in modules.items():
        vars(module).update(members[name])
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        patch.setattr("transformer_lens.model_bridge.TransformerBridge.boot_transformers", lambda *_, **__: run.model)
        patch.setattr(residscope.demo, "ioi", lambda: run)  # it has been loaded already
        yield


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, the line of its fence, and the text up to the next block or heading."""

    language: str
    code: str
    line: int
    after: str


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, which is named by its path in the repository."""
    found, text = [], PAGES[page]
    for fence in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        after = re.split(r"^(?:```|#)", text[fence.end() :], maxsplit=1, flags=re.MULTILINE)[0]
        found.append(Block(fence[1], fence[2], text[: fence.start()].count("\n") + 1, after))
    return found


def run_page(page: str, run: Any, replace: dict[str, str] | None = None) -> dict[str, Any]:
    """Run the Python blocks of a page in order, like the cells of a notebook.

    A comment such as `# [layer, head]` names the axes of the value of its line: their number is checked. So are the
    values in a table `| row | +1.23 |` after a block whose last line is an attribution.

    Args:
        page: Its path in the repository.
        run: What `residscope.demo.ioi()` returns in this code: the demo model's run, or one of a smaller model.
        replace: Texts of the code, and what stands in their place in this run.

    Returns:
        The variables at the end.
    """
    names = given(page, run)
    with no_downloads(run):
        for block in blocks(page):
            if block.language == "python":
                code = reduce(lambda code, pair: code.replace(*pair), (replace or {}).items(), block.code)
                value = None
                for node in ast.parse("\n" * block.line + code, page).body:
                    value = _value(node, page, names)
                    _check_axes(value, block.code.split("\n")[(node.end_lineno or 0) - block.line - 1])
                _check_table(value, block.after)
    return names


def _value(node: ast.stmt, page: str, names: dict[str, Any]) -> Any:
    """Run a statement. Return the value of an expression or of an assigned variable."""
    if isinstance(node, ast.Expr):
        return eval(compile(ast.Expression(node.value), page, "eval", dont_inherit=True), names)
    exec(compile(ast.Module([node], []), page, "exec", dont_inherit=True), names)
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    return names[target.id] if isinstance(target, ast.Name) else None


def _check_axes(value: Any, line: str) -> None:
    if value is not None and (named := re.search(r"#.*?\[([a-z_ ,]+)\]", line)):
        parts = value if isinstance(value, tuple) else (value,)
        found = [part if isinstance(part, torch.Tensor) else getattr(part, "values", None) for part in parts]
        shapes = [tuple(tensor.shape) for tensor in found if isinstance(tensor, torch.Tensor)]
        assert shapes, line
        assert all(len(shape) == len(named[1].split(",")) for shape in shapes), (line, shapes)


def table(text: str) -> dict[str, float]:
    """Return the rows `| label | +1.23 |` of a table."""
    rows = re.findall(r"^\| [*`]*([\w ]+?)[*`]* \| \**([+−][\d.]+)\** \|$", text, re.MULTILINE)
    return {label: float(number.replace("−", "-")) for label, number in rows if not label.endswith(" others")}


def _check_table(value: Any, text: str) -> None:
    if written := table(text):
        found = dict(value) if isinstance(value, list) else dict(zip(value.labels, value.values[:, 0], strict=True))
        found |= {} if isinstance(value, list) else {"sum": value.measured[0]}
        wrong = {row: found[row] for row, number in written.items() if abs(float(found[row]) - number) > 6e-3}
        assert not wrong, (written, wrong)
