"""The command `residscope demo` and the notebook that it opens."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from residscope import demo
from residscope.base.files import atomic_write
from residscope.demo import cli, model


# --- the command line -------------------------------------------------------------------------------------------------
def test_version(capsys):
    import residscope

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"residscope {residscope.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "code", "sentence"),
    [
        (["demo", "--model", "./no-such-folder"], 1, "There is no model folder"),
        (["demo", "--model", "."], 1, "a folder without a config.json"),
        (["demo", "--port", "many"], 2, "many is not a port"),
        (["demo", "--prompt"], 2, "unrecognized arguments: --prompt"),
        ([], 2, ""),
    ],
)
def test_failures_are_sentences(argv, code, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == code
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


@pytest.fixture
def launched(tmp_path, monkeypatch, ioi) -> list[Any]:  # noqa: ARG001 (the demo model is ready)
    """A list that collects the commands that `residscope demo` would start."""
    launches: list[Any] = []

    def launch(command: list[str], folder: Path, environment: dict[str, str]) -> int:
        launches.append((command, folder, environment))
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESIDSCOPE_DEMO_MODEL", raising=False)
    monkeypatch.setattr(cli, "_launch", launch)
    return launches


def test_demo_opens_the_notebook(launched, tmp_path):
    assert cli.main(["demo", "--no-browser", "--port", "8999", "--", "--LabApp.quiet=True"]) == 0
    [(command, folder, environment)] = launched
    assert command[:4] == [sys.executable, "-c", cli._LAB, "--LabApp.default_url=/lab/tree/example.ipynb"]
    assert {"--no-browser", "--ServerApp.port=8999", "--LabApp.quiet=True"} <= set(command)
    assert folder == tmp_path / "residscope-demo"
    assert (folder / "example.ipynb").read_bytes() == (Path(cli.__file__).parent / "example.ipynb").read_bytes()
    assert "RESIDSCOPE_DEMO_MODEL" not in environment


def test_demo_starts_the_installed_jupyterlab_and_not_one_in_the_folder(launched, tmp_path):
    cli.main(["demo"])
    [(command, folder, _)] = launched
    (folder / "jupyterlab.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    said = subprocess.run([*command[:3], "--version"], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert said.strip() == version("jupyterlab")
    assert not (tmp_path / "mark").exists()


def test_demo_passes_the_model_folder_to_the_notebook(launched):
    folder = demo.demo_model_folder()
    assert cli.main(["demo", "--model", str(folder)]) == 0
    assert launched[0][2]["RESIDSCOPE_DEMO_MODEL"] == str(folder)


def test_a_relative_cache_folder_is_the_same_folder_in_the_notebook(launched, monkeypatch):
    cache = model.cache_folder()
    monkeypatch.setenv("RESIDSCOPE_CACHE", os.path.relpath(cache))
    assert cli.main(["demo"]) == 0
    [(_, folder, environment)] = launched
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RESIDSCOPE_CACHE", environment["RESIDSCOPE_CACHE"])
    assert model.cache_folder().samefile(cache)


def test_demo_keeps_the_users_notebook(launched, tmp_path, capsys):
    for _ in range(2):
        assert cli.main(["demo", "--folder", "mine"]) == 0
    assert "Kept" not in capsys.readouterr().out
    mine = tmp_path / "mine" / "example.ipynb"
    mine.write_text("my own work")
    assert cli.main(["demo", "--folder", "mine"]) == 0
    assert "Kept your changed" in capsys.readouterr().out
    assert mine.read_text() == "my own work"
    assert len(launched) == 3


def test_demo_into_a_file_is_refused(launched, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert cli.main(["demo", "--folder", "taken"]) == 1
    assert "is not a folder; name another one with --folder." in capsys.readouterr().err
    assert launched == []


@pytest.fixture
def planted(tmp_path) -> tuple[Path, Path]:
    """A folder, and a file outside of it. The tests make links in the folder that lead to the file."""
    folder, outside = tmp_path / "mine", tmp_path / "outside"
    folder.mkdir()
    outside.write_text("precious")
    return folder, outside


def test_the_temporary_file_is_never_written_through_a_link(planted):
    folder, outside = planted
    link = folder / f".example.ipynb.{os.getpid()}"
    link.symlink_to(outside)
    cli._place_notebook(folder)
    assert outside.read_text() == "precious"
    assert not (folder / "example.ipynb").is_symlink()
    assert (folder / "example.ipynb").read_bytes() == (Path(cli.__file__).parent / "example.ipynb").read_bytes()
    assert list(folder.glob(".*")) == [link]


def test_a_file_may_have_the_longest_possible_name(tmp_path):
    path = tmp_path / ("a" * 255)
    for text in (b"one", b"two"):
        with atomic_write(path) as file:
            file.write(text)
        assert (list(tmp_path.iterdir()), path.read_bytes()) == ([path], text)


def test_a_link_in_place_of_the_notebook_is_kept(planted):
    folder, outside = planted
    link = folder / "example.ipynb"
    link.symlink_to(outside)
    assert "Kept your changed" in cli._place_notebook(folder)
    assert outside.read_text() == "precious"
    outside.unlink()
    with pytest.raises(demo.DemoError, match=r"is a broken link; .* --folder"):
        cli._place_notebook(folder)
    assert link.is_symlink()
    assert not outside.exists()


def test_the_notebook_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    cli._place_notebook(tmp_path)
    assert (tmp_path / "example.ipynb").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_prepare_only_starts_no_jupyterlab(launched, capsys):
    assert cli.main(["demo", "--prepare-only"]) == 0
    assert "SmolLM2-135M-Instruct is ready." in capsys.readouterr().out
    assert launched == []


# --- the notebook -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    return json.loads((Path(cli.__file__).parent / "example.ipynb").read_text("utf-8"))


def test_the_notebook_is_clean(notebook):
    import nbformat

    nbformat.validate(notebook)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert "".join(code[1]["source"]) == "panel = residscope.inspect(cache, answers=answers, prompt=0)"
    for cell in code:
        ast.parse("".join(cell["source"]))


def test_the_claims_of_the_notebook_are_true(notebook, ioi, monkeypatch, capsys):
    """Run the notebook's code, and check the numbers and claims of its text."""
    monkeypatch.delenv("RESIDSCOPE_DEMO_MODEL", raising=False)
    monkeypatch.setattr(demo, "ioi", lambda: ioi)
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    said = capsys.readouterr().out
    assert "8 of 8 right, mean +4.724" in said
    assert "all attention +3.56\nall MLPs      +1.16" in said
    assert "largest step: 23_pre +0.12  →  23_mid +3.91" in said
    assert names["curve"][:46].abs().max() < 0.25  # the text says: close to zero for 23 layers
    assert (names["best"], names["worst"]) == ("L23H3", "L29H0")
    assert 0.4 < names["heads"].mean()[23 * 9 + 3] / names["difference"].mean() < 0.5  # the text says: nearly half
    assert names["heads"].unexplained.abs().max() < 1e-4
    assert (names["alone"].grid[23, 3] < 0).all()
    assert [name for name, _ in names["heads"].top(3)[:3]][2] == "L23H0"
    assert abs(names["heads"].grid[23, 0, 0]) < 0.1  # the text says: about zero on the first sentence
    for prompt, (right, wrong) in enumerate(ioi.answers):
        tokens = ioi.model.to_str_tokens(ioi.tokens[prompt])
        most = {head: int(ioi.cache["pattern", layer][prompt, head, -1].argmax()) for layer, head in [(23, 3), (23, 0)]}
        assert most[3] == len(tokens) - 1 - tokens[::-1].index(wrong)  # the second mention of the giver
        assert tokens[most[0]] == right
        assert int(ioi.cache["pattern", 29][prompt, 0, -1].argmax()) == len(tokens) - 1
    panel = names["panel"]
    assert (panel.heads, panel.prompt, panel.position) == (["L23H3", "L29H0"], None, 14)
    names["slider"].value = 10
    assert panel.position == 10


@pytest.mark.parametrize("name", cli.OTHER_NOTEBOOKS)
def test_the_other_notebooks_run_and_give_the_expected_values(name, capsys):
    import nbformat

    notebook = json.loads((Path(cli.__file__).parent / name).read_text("utf-8"))
    nbformat.validate(notebook)
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    said = capsys.readouterr().out
    if name == "arena.ipynb":
        differences = [float(word) for word in re.findall(r"\d\.\d+e-\d+", said)]
        assert len(differences) == 3
        assert max(differences) < 1e-4
        assert "True" in said  # the labels are TransformerLens'
    else:
        assert "try “·Joseph”" in said
        assert names["heads"].unexplained.abs().max() < 1e-4
