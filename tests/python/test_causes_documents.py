"""The numbers, families and code of the pages on causes are current."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import residscope
from tests.documents import causes
from tests.support import pages, tiny
from tests.support.cause_families import measured

DOCS = Path(__file__).parents[2] / "py_backend/docs"
TEXT, FAMILIES = ((DOCS / name).read_text("utf-8") for name in ("causes.md", "effects.md"))
NUMBER = re.compile(r"[+−]\d+\.\d+")


@pytest.mark.parametrize("name", ["heads", "stream", "parts"])
def test_a_table_has_the_effects_that_the_program_finds(name, ioi):
    written, found = causes.between(TEXT, name), "\n".join(getattr(causes, name)(ioi))
    numbers = [[float(text.replace("−", "-")) for text in NUMBER.findall(page)] for page in (written, found)]
    assert numbers[0] == pytest.approx(numbers[1], abs=2e-3)
    assert NUMBER.sub("", written).strip() == NUMBER.sub("", found).strip()


def test_edges_and_paths_have_the_effects_that_the_page_says(ioi):
    def numbers(text):
        return [float(number.replace("−", "-")) for number in NUMBER.findall(text)]

    edges = residscope.ablate(ioi.cache, ioi.answers, ["L23H3"], edges=("last", "each"), progress=False)
    rows = re.findall(r"^\| last ← (\d+) (.*)$", TEXT, re.MULTILINE)
    assert len(rows) == 3
    for source, row in rows:
        effects = [getattr(edges, kind)[0, int(source)].mean() for kind in ("total", "direct", "indirect")]
        assert numbers(row) == pytest.approx([float(effect) for effect in effects], abs=2e-3)
    paths = dict(re.findall(r"(L\d+H\d) \(([+−][\d.]+)\)", " ".join(TEXT.split())))
    found = residscope.ablate(ioi.cache, ioi.answers, [*paths], path="L23H3.q", progress=False).total.mean(-1)
    assert numbers(" ".join(paths.values())) == pytest.approx(found.tolist(), abs=2e-3)
    assert len(paths) == 3


def test_the_page_lists_every_family():
    rows = [line.split(" | ")[0].strip("| ") for line in FAMILIES.splitlines() if line.startswith("| ")][1:]
    assert rows == list(tiny.FAMILIES)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "mamba", "jetmoe", "bert", "glm_moe_dsa", "deepseek_v4"])
def test_a_family_is_what_the_page_says(name):
    row = measured(name)
    [line] = [line for line in FAMILIES.splitlines() if line.startswith(f"| {name} |")]
    *cells, numbers = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [name, row.replay, row.heads, row.stream]
    text = FAMILIES.replace("\n   ", " ")
    remarks = [re.search(rf"^{number}\. (.*)$", text, re.MULTILINE)[1] for number in re.findall(r"\d+", numbers)]
    assert remarks == row.said


SMALLER = {"L23H": "L2H", "L20H0": "L0H1", "(14, 10)": "(6, 3)", "(14, 0)": "(6, 0)"}
"""Heads and edges of the demo model in the page's code, and those of the tiny model that replace them in this test."""


def test_the_code_of_the_page_runs():
    model = tiny.boot("llama")
    tokens, _, _ = tiny.run(model, batch=8)
    with torch.no_grad():
        cache = model.run_with_cache(tokens)[1]
    run = SimpleNamespace(model=model, tokens=tokens, cache=cache, answers=[("w5", "w6"), ("w6", "w5")] * 4)
    names = pages.run_page("py_backend/docs/causes.md", run, SMALLER)
    assert tuple(names["effects"].total.shape) == (3, 4, 8)
