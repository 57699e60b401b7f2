"""A cell may assign another cache to the variable of a panel, or of the cache that it is compared with."""

from __future__ import annotations

import types

import pytest
import torch

import residscope
from residscope.hosts import standing
from tests.support import tiny

PAIR = ("w5", "w9")


class Events:
    """The part of IPython's events that is used. It keeps a function only once, as IPython does."""

    def __init__(self) -> None:
        self.after: list = []

    def register(self, event: str, function) -> None:
        assert event == "post_run_cell"
        if function not in self.after:
            self.after.append(function)


@pytest.fixture
def notebook(monkeypatch):
    """A notebook with the caches `clean` and `corrupted`; `run` assigns variables, as a cell does."""
    model = tiny.boot("llama")
    tokens, _, corrupted = tiny.run(model)

    def made(by: int):
        with torch.no_grad():
            return model.run_with_cache(tokens.roll(by, 0))[1]

    names = {"corrupted": corrupted, "clean": made(1), "model": model}
    events = Events()
    shell = types.SimpleNamespace(user_ns=names, events=events, execution_count=1)
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: shell)

    def run(**variables) -> None:
        names.update(variables)
        for name in [name for name, value in names.items() if value is None]:
            del names[name]
        for function in events.after:
            function(None)

    return types.SimpleNamespace(names=names, events=events, run=run, made=made)


def panel_of(notebook, **options):
    return residscope.inspect(notebook.names["corrupted"], PAIR, show=False, **options)


def test_the_panel_says_that_its_variable_holds_another_cache(notebook):
    panel = panel_of(notebook)
    assert panel.standing == {"rebound": False, "against": None, "changes": 0}
    notebook.run(x=1)
    assert panel.standing["rebound"] is False
    notebook.run(corrupted=notebook.made(2))
    assert panel.standing["rebound"] is True
    panel.cache = notebook.names["corrupted"]
    assert panel.standing["rebound"] is False
    notebook.run(corrupted=None)  # no other cache has this name, and the panel keeps its own
    assert panel.standing["rebound"] is False


def test_a_panel_with_a_name_of_its_own_claims_nothing_about_a_variable(notebook):
    panel = panel_of(notebook, name="the corrupted run")
    notebook.run(corrupted=notebook.made(2))
    assert panel.standing["rebound"] is False


def test_the_panel_tells_which_cache_it_is_compared_with(notebook):
    panel = panel_of(notebook)
    panel.against = "clean"
    name, first = panel.standing["against"]
    assert name == "clean"
    notebook.run(x=1)
    assert panel.standing["against"] == ["clean", first]
    notebook.run(clean=notebook.made(2))
    _, second = panel.standing["against"]
    assert second.split()[0] != first.split()[0]
    name = next(name for name in notebook.names["clean"] if name.endswith("hook_z"))
    notebook.names["clean"][name].zero_()
    notebook.run()
    _, written = panel.standing["against"]
    assert written.split()[0] == second.split()[0]
    assert written != second
    notebook.run(clean=None)
    assert panel.standing["against"] == ["clean", ""]
    panel.against = 1
    assert panel.standing["against"] is None


def test_a_cell_that_changes_weights_or_cache_is_counted_so_that_views_ask_again(notebook):
    panel = panel_of(notebook)
    cache = notebook.names["corrupted"]

    def changes_after(change) -> int:
        change()
        notebook.run()
        return panel.standing["changes"]

    assert changes_after(lambda: None) == 0
    weight = next(cache.model.parameters())
    try:
        assert changes_after(lambda: weight.data.mul_(2)) == 1  # PyTorch does not count a change of `.data`
    finally:
        weight.data.div_(2)
    assert changes_after(lambda: None) == 2
    panel.update_standing()
    assert changes_after(lambda: None) == 2
    name = next(name for name in cache if name.endswith("hook_z"))
    assert changes_after(lambda: cache[name].mul_(2)) == 3
    panel.cache = notebook.made(2)  # another cache is shown, which sends all requests again anyway
    assert changes_after(lambda: None) == 3


def test_one_function_is_registered_and_a_closed_panel_is_not_asked(notebook):
    panels = [panel_of(notebook) for _ in range(3)]
    assert len(notebook.events.after) == 1
    panels[0].close()
    notebook.run(corrupted=notebook.made(2))  # a closed panel raises nothing in the user's cell
    panels[1].close()
    assert [panel in standing._followers for panel in panels] == [False, False, True]


def test_copied_code_says_that_the_variable_holds_another_cache(notebook):
    from residscope.wire.shown import WriteCode

    panel = panel_of(notebook)
    panel.against = "clean"

    def code() -> str:
        return panel._service.reply(WriteCode("heads", panel.shown))[0].code

    assert "residscope.compare(corrupted, clean, " in code()
    notebook.run(corrupted=notebook.made(2), clean=notebook.made(3))
    again = code()
    assert "residscope.compare(cache, clean, " in again  # what is shown of `clean` is read from the present one
    assert (
        "# `cache` stands for the ActivationCache that is shown as 'corrupted'. The variable 'corrupted' now holds "
        "another one." in again
    )
