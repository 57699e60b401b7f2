"""Errors distinguish a missing package from an installed package whose import fails."""

from __future__ import annotations

import importlib.abc
import importlib.metadata
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import residscope
from residscope import ResidscopeError, demo
from tests.support import tiny

NMS = "operator torchvision::nms does not exist"


class Failing(importlib.abc.MetaPathFinder):
    """Makes an import of the package raise an error, as in an environment with incompatible packages."""

    def __init__(self, package: str, error: Exception) -> None:
        self.package, self.error = package, error

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        if name.partition(".")[0] == self.package:
            raise self.error


def importing(monkeypatch: pytest.MonkeyPatch, package: str, error: Exception) -> None:
    """Make the import of a package fail, even if it is already loaded."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Failing(package, error), *sys.meta_path])


@pytest.fixture(scope="module")
def cache() -> Any:
    return tiny.run(tiny.boot("llama"))[2]


USES: dict[str, Callable[[Any], Any]] = {
    "pandas": lambda cache: residscope.attribute(cache, 5).to_frame(),
    "plotly": lambda cache: residscope.attribute(cache, 5).to_plotly(),
    "circuitsvis": lambda cache: residscope.to_circuitsvis(cache, ["0.1"]),
}


@pytest.mark.parametrize("package", USES)
def test_a_missing_package_gives_the_command_to_install_it(cache, monkeypatch, package):
    importing(monkeypatch, package, ModuleNotFoundError(f"No module named {package!r}", name=package))
    with pytest.raises(ResidscopeError, match="(?i)needs " + package + ": `pip install") as failure:
        USES[package](cache)
    assert failure.value.code == package
    assert "installed here" not in str(failure.value)


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'narwhals'", name="narwhals"),
        ModuleNotFoundError("No module named 'plotly.x'; 'plotly' is not a package", name="plotly.x"),
        ImportError("numpy.core.multiarray failed to import"),
        RuntimeError(NMS),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("package", USES)
def test_a_broken_package_is_called_broken_with_the_cause(cache, monkeypatch, package, error):
    importing(monkeypatch, package, error)
    with pytest.raises(ResidscopeError, match="installed here but cannot be imported") as failure:
        USES[package](cache)
    assert f"{type(error).__name__}: {error}" in str(failure.value)
    assert f"--force-reinstall {package}`" in str(failure.value)
    assert failure.value.__cause__ is error


def test_a_file_with_the_name_of_a_package_is_named(cache, monkeypatch, tmp_path):
    (tmp_path / "pandas.py").write_text("")
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ResidscopeError, match="installed here but cannot be imported") as failure:
        USES["pandas"](cache)
    assert str(tmp_path / "pandas.py") in str(failure.value)


def no_release(_name: str) -> str:
    raise importlib.metadata.PackageNotFoundError


@pytest.mark.parametrize(
    ("release", "error", "said", "not_said"),
    [
        (None, ModuleNotFoundError("No module named 'x'", name="transformer_lens"), "is not installed", "cannot be"),
        ("2.18.0", ModuleNotFoundError("No module", name="transformer_lens.model_bridge"), "this is 2.18.0", "cannot"),
        ("4.3.0", ModuleNotFoundError("No module named 'x'", name="transformer_lens"), "is installed here", "needs"),
        ("4.3.0", ModuleNotFoundError("No module", name="transformer_lens.model_bridge"), "is installed here", "needs"),
        ("4.3.0", ModuleNotFoundError("No module named 'x'", name="beartype"), "ModuleNotFoundError: No mod", "needs"),
        ("4.3.0", ImportError("cannot import name 'a' from 'b'"), "ImportError: cannot import name 'a'", "needs"),
        ("4.3.0", RuntimeError(NMS), f"RuntimeError: {NMS}", "needs Tr"),
    ],
)
def test_the_demo_says_what_is_wrong_with_transformer_lens(
    monkeypatch, tmp_path, release, error, said, not_said
) -> None:
    (tmp_path / "config.json").write_text("{}")
    module = importlib.import_module("residscope.demo.ioi")  # in `demo`, a function has the name of this module
    monkeypatch.setattr(module, "version", no_release if release is None else lambda _name: release)
    importing(monkeypatch, "transformer_lens", error)
    with pytest.raises(demo.DemoError) as failure:
        demo.load(str(tmp_path))
    assert said in str(failure.value)
    assert not_said not in str(failure.value)
    assert failure.value.__cause__ is error


def test_if_the_code_of_a_model_cannot_be_imported_the_cause_is_named(monkeypatch, tmp_path) -> None:
    """transformers imports a model's code only when the model is requested, and its own error hides the cause."""

    def boot(_name: str) -> None:
        try:
            raise RuntimeError(NMS)
        except RuntimeError as error:
            raise ModuleNotFoundError("Could not import module 'LlamaForCausalLM'") from error

    import transformer_lens.model_bridge

    (tmp_path / "config.json").write_text("{}")
    bridge = SimpleNamespace(boot_transformers=boot)
    monkeypatch.setattr(transformer_lens.model_bridge, "TransformerBridge", bridge)
    with pytest.raises(demo.DemoError) as failure:
        demo.load(str(tmp_path))
    assert f"caused by RuntimeError: {NMS}" in str(failure.value)
    assert "architecture" not in str(failure.value)
