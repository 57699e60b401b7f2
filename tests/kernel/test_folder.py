"""While a host attaches, none of the files in a notebook's folder is run, even if Python would import them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

import residscope.hosts.attach
from residscope.hosts.execute import MIME
from residscope.wire import protocol
from tests.support.as_vscode import expression
from tests.support.beside import Beside, busy, value
from tests.support.kernels import run

# A kernel loads these modules at its start. The tests unload the modules, so that attaching imports them again.
AGAIN = ("uuid", "typing_extensions")
OURS = (
    "residscope/__init__",
    "residscope/hosts/__init__",
    "residscope/hosts/comm",
    "residscope/hosts/attach",
    "residscope/hosts/execute",
)
OPTIONAL = ("usercustomize", "sitecustomize", "tomli_w", "yaml")
FINDERS = "[id(finder) for finder in __import__('sys').meta_path]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    return folder


@contextmanager
def kernel_in(folder: Path):
    """Start a kernel like JupyterLab: in the notebook's folder, which IPython puts on the path as ''."""
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(folder))
    try:
        assert "" in value(client, "__import__('sys').path")
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


class Traps:
    """Files that only record their names when they are run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._mark = folder, folder.parent / "was-run.txt"

    def set(self, *names: str) -> None:
        for name in names:
            file = self.folder / f"{name}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"with open({str(self._mark)!r}, 'a') as mark: mark.write({name + chr(10)!r})\n")

    @property
    def run(self) -> list[str]:
        return self._mark.read_text().split() if self._mark.exists() else []


def everything_else(client) -> list[str]:
    """Return the names of all standard and installed modules that this kernel has not loaded."""
    loaded = {name.partition(".")[0] for name in value(client, "list(__import__('sys').modules)")}
    names = {*sys.stdlib_module_names, *packages_distributions()}
    return sorted(name for name in names - loaded if name.isidentifier() and name != "residscope")


def attach_as_vscode(client) -> dict:
    """Attach by code that runs in the kernel's main thread, like an ordinary cell."""
    [output] = run(client, expression("token"))
    return output["data"][MIME]["info"]


ENTRIES = {
    "as in JupyterLab": None,
    "first": "''",
    "relative": "'.'",
    "absolute": "__import__('os').getcwd()",
    "through a link": "__import__('os').path.join(__import__('os').path.dirname(__import__('os').getcwd()), 'link')",
}


@pytest.mark.parametrize("ours", [True, False], ids=["Residscope's names", "other names"])
@pytest.mark.parametrize(
    ("host", "entry"), [*(("JupyterLab", entry) for entry in ENTRIES), ("VS Code", "as in JupyterLab")]
)
def test_attaching_and_listing_run_no_file_beside_the_notebook(folder, host, entry, ours):
    (folder.parent / "link").symlink_to(folder, target_is_directory=True)
    traps = Traps(folder)
    with kernel_in(folder) as client:
        run(client, f"import sys; [sys.modules.pop(name, None) for name in {AGAIN}]")
        if ENTRIES[entry]:
            run(client, f"sys.path.insert(0, {ENTRIES[entry]}); del sys")
        traps.set("own_module", *(OURS if ours else (*OPTIONAL, *AGAIN, *everything_else(client))))
        before = value(client, "__import__('sys').path"), value(client, FINDERS)
        sidebar = Beside(client)
        assert traps.run == []
        who = sidebar.attach() if host == "JupyterLab" else attach_as_vscode(client)
        assert traps.run == []
        assert who["wire"] == protocol.wire()
        sidebar.open()
        assert sidebar.ask("caches")[0]["reply"]["caches"] == []
        assert traps.run == []
        assert (value(client, "__import__('sys').path"), value(client, FINDERS)) == before
        # The user's imports still find modules in the notebook's folder.
        run(client, "import own_module")
        assert traps.run == ["own_module"]


@pytest.mark.parametrize("name", ["residscope", "shared"])
def test_a_folder_that_adds_to_a_package_without_init_is_left_out(folder, name):
    """The folder has the name of Residscope, or of an installed namespace package (such as `google`)."""
    installed = folder.parent / "installed"
    (installed / "shared").mkdir(parents=True)
    (installed / "shared" / "there.py").write_text("")
    (installed / "typing_extensions.py").write_text(
        "import shared.there\n"
        "try: import shared.comm\n"
        "except ImportError: pass\n"
        "from typing import get_type_hints, NotRequired, Required\n"
    )
    traps = Traps(folder)
    traps.set(f"{name}/comm")
    with kernel_in(folder) as client:
        run(client, f"import sys; sys.modules.pop('typing_extensions', None); sys.path.append({str(installed)!r})")
        run(client, f"sys.path[:] = sorted(sys.path, key=lambda entry: entry not in ('', {str(installed)!r}))")
        who = Beside(client).attach()
        assert traps.run == []
        assert who["wire"] == protocol.wire()
        assert value(client, "'shared.there' in __import__('sys').modules") is True
        if name == "shared":
            run(client, "import shared.comm")  # the user's own import still finds the module in the folder
            assert traps.run == ["shared/comm"]


def test_a_running_cell_imports_from_its_folder_while_hosts_attach(folder):
    """The cell's imports use all finders, even while attaching replaces one. A slow finder makes this moment longer."""
    for number in range(5):
        (folder / f"own_{number}.py").write_text("")
    cell = """
import sys, threading
class Slow:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is threading.main_thread(): time.sleep(0.002)
sys.meta_path.insert(1, Slow())
seen, rounds, failed = set(), 0, []
while go():
    try:
        for number in range(5):
            sys.modules.pop(f"own_{number}", None)
            __import__(f"own_{number}")
    except ImportError as error:
        failed.append(str(error))
    seen.add((tuple(sys.path), len(sys.meta_path)))
    rounds += 1
"""
    with kernel_in(folder) as client:
        sidebars = [Beside(client) for _ in range(2)]
        with busy(client, cell):
            for _ in range(20):
                for sidebar in sidebars:
                    assert sidebar.attach()["wire"] == protocol.wire()
        assert value(client, "failed") == []
        assert value(client, "rounds") > 20
        assert value(client, "[list(path) for path, _ in seen]") == [value(client, "sys.path")]
        stand_ins = "[finder for finder in map(type, sys.meta_path) if 'Search' in finder.__name__]"
        assert value(client, stand_ins) == []


def test_the_first_imports_are_modules_that_every_kernel_has_loaded() -> None:
    """Until `attach` has made imports safe, it imports only such modules. Others could be files in the folder."""
    tree = ast.parse(Path(residscope.hosts.attach.__file__).read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in imports]
    assert names
    code = f"import json, sys, ipykernel.kernelapp; print(json.dumps([n for n in {names} if n not in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
