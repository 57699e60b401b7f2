"""While the sidebar is open, a notebook is opened that has other files beside it. None of these files is run."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS

TRAPS = (
    "residscope/__init__.py",
    "residscope/hosts/__init__.py",
    "residscope/hosts/comm.py",
    "residscope/hosts/attach.py",
    "msgspec.py",
    "usercustomize.py",
)


def test_opening_a_notebook_runs_no_file_beside_it(lab: Lab) -> None:
    folder = lab.server.root / "from-elsewhere"
    mark = lab.server.root / "was-run.txt"
    for name in TRAPS:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"with open({str(mark)!r}, 'a') as mark: mark.write({name + chr(10)!r})\n")
    lab.start()
    sidebar = lab.open_sidebar()
    path = lab.write_notebook("from-elsewhere/quiet.ipynb", "1 + 1")
    lab.command("docmanager:open", path=path)
    lab.wait_for_notebook(path)
    answered = sidebar.get_by_text("This kernel has no activation cache yet").or_(sidebar.get_by_role("alert"))
    expect(answered.first).to_be_visible(timeout=FOLLOWS)
    assert not mark.exists(), mark.read_text()
    expect(sidebar.get_by_text("This kernel has no activation cache yet")).to_be_visible()
    # The kernel, to which the sidebar is attached, runs in the folder with these files.
    assert lab.python("[__import__('os').path.realpath('.'), '' in __import__('sys').path]") == [
        str(folder.resolve()),
        True,
    ]
    assert lab.python("'msgspec' in __import__('sys').modules") is True
