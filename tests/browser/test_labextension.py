"""The prebuilt JupyterLab extension opens the example notebook from the palette, the launcher and another folder."""

import json
from importlib.resources import files

from playwright.sync_api import expect

from tests.support.lab import Lab

SHIPPED = files("residscope.demo") / "example.ipynb"


def sources(text: str) -> list[str]:
    """Return the sources of the cells. (JupyterLab adds metadata to a copy, but does not change the sources.)"""
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"]]


def test_palette_opens_a_copy_of_the_example(lab: Lab) -> None:
    lab.start()
    lab.command("apputils:activate-command-palette")
    palette = lab.page.locator("#modal-command-palette")
    palette.get_by_role("textbox").fill("residscope example")
    palette.get_by_text("Residscope: Open the Example Notebook").click()

    lab.wait_for_notebook("residscope-example.ipynb")
    copy = lab.server.root / "residscope-example.ipynb"
    assert sources(copy.read_text()) == sources(SHIPPED.read_text())
    assert lab.python("__import__('sys').version_info[0]") == 3  # its kernel runs and answers


def test_launcher_opens_a_copy_in_the_folder_that_is_shown(lab: Lab) -> None:
    (lab.server.root / "course").mkdir()
    lab.start()
    lab.command("filebrowser:open-path", path="course")
    lab.command("launcher:create", cwd="course")
    card = lab.page.locator(".jp-LauncherCard", has_text="Residscope Example").filter(visible=True)
    expect(card.locator("svg[data-icon='residscope:icon']")).to_be_visible()
    card.click()

    lab.wait_for_notebook("course/residscope-example.ipynb")


def test_nothing_is_overwritten(lab: Lab) -> None:
    folder = lab.server.root / "kept"
    folder.mkdir()
    (folder / "Residscope-Example.ipynb").write_text("mine")
    (folder / "residscope-example-1.ipynb").write_text("mine too")
    lab.start()
    lab.command("residscope:open-example", cwd="kept")

    lab.wait_for_notebook("kept/residscope-example-2.ipynb")
    assert (folder / "Residscope-Example.ipynb").read_text() == "mine"
    assert (folder / "residscope-example-1.ipynb").read_text() == "mine too"


def test_a_folder_that_cannot_be_read_gives_a_message(lab: Lab) -> None:
    lab.start()
    lab.page.evaluate("() => { window.jupyterapp.commands.execute('residscope:open-example', { cwd: 'gone' }); }")
    dialog = lab.page.get_by_role("dialog")
    expect(dialog).to_contain_text("The example notebook could not be opened")
    expect(dialog).to_contain_text("Nothing was overwritten")
