"""What an inline panel keeps alive, and how it handles cache-like objects and changed weights."""

from __future__ import annotations

import copy
import gc
import time
import weakref
from collections.abc import Mapping

import pytest

import residscope
from residscope import ResidscopeError
from tests.support import tiny


@pytest.fixture
def shown(monkeypatch):
    """A panel, a weak reference to its cache, and a function that sends the state of a view to the panel.

    Only the panel keeps the cache alive.
    """
    monkeypatch.setattr("residscope.hosts.visibility.PanelViews.release_seconds", 0.05)
    _, _, cache = tiny.run(copy.deepcopy(tiny.boot("llama")))
    panel = residscope.inspect(cache, (5, 6), show=False)
    answers = []
    monkeypatch.setattr(panel, "send", lambda content, _buffers: answers.append(content))

    def tell(view, state):
        panel._on_message(panel, {"id": view, "ask": {"kind": "presence", "view": view, "state": state}}, [])
        assert answers.pop() == {"id": view, "reply": {"kind": "presence"}}

    alive = weakref.ref(cache)
    del cache
    yield panel, alive, tell
    panel.close()


def let_go(alive, seconds=3.0) -> bool:
    end = time.monotonic() + seconds
    while alive() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    return alive() is None


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ([], True),  # no view has been shown yet
        ([("a", "shown")], True),
        ([("a", "shown"), ("a", "hidden")], False),
        ([("a", "shown"), ("a", "away")], True),  # a reload: the view will be shown again
        ([("a", "shown"), ("b", "shown"), ("a", "hidden")], True),
        ([("a", "shown"), ("b", "shown"), ("a", "hidden"), ("b", "hidden")], False),
        ([("a", "shown"), ("a", "hidden"), ("b", "shown")], True),  # the panel's cell was moved
        ([("a", "shown"), ("b", "shown"), ("a", "away"), ("b", "hidden")], False),
    ],
)
def test_a_panel_keeps_its_cache_alive_while_it_is_shown(shown, told, kept):
    panel, alive, tell = shown
    for view, state in told:
        tell(view, state)
    assert let_go(alive, 0.4 if kept else 3) is not kept
    if kept:
        assert panel.heads == []
        return
    answer, _ = panel._service.answer({"id": "1", "ask": {"kind": "describe"}})
    assert answer["failure"]["code"] == "gone"
    assert "Run the cell that makes it" in answer["failure"]["message"]
    with pytest.raises(ResidscopeError, match="was deleted"):
        panel.heads = ["L0H0"]
    tell("z", "shown")  # raises no error, although the cache is gone
    panel.close()
    with pytest.raises(ResidscopeError, match="was closed"):
        panel.heads = ["L0H0"]


def test_a_hidden_panel_works_as_long_as_the_user_has_the_cache(shown):
    panel, alive, tell = shown
    cache = alive()
    tell("a", "shown")
    tell("a", "hidden")
    time.sleep(0.2)
    panel.heads = ["L0H0"]
    assert "reply" in panel._service.answer({"id": "1", "ask": {"kind": "describe"}})[0]
    tell("b", "shown")
    del cache
    assert not let_go(alive, 0.2)


@pytest.mark.parametrize("wrong", [{"prompt": 9}, {"segments": [("a", 0, 90)]}], ids=str)
def test_a_refused_panel_keeps_nothing_alive(wrong):
    _, _, cache = tiny.run(copy.deepcopy(tiny.boot("llama")), 1)
    with pytest.raises(ResidscopeError):
        residscope.inspect(cache, (5, 6), show=False, **wrong)
    alive = weakref.ref(cache)
    del cache
    assert let_go(alive) is True


def test_a_panel_whose_display_was_interrupted_keeps_nothing_alive(monkeypatch):
    def interrupted(_panel):
        raise KeyboardInterrupt

    monkeypatch.setattr("residscope.hosts.panel.Panel.show", interrupted)
    _, _, cache = tiny.run(copy.deepcopy(tiny.boot("llama")), 1)
    with pytest.raises(KeyboardInterrupt):
        residscope.inspect(cache, (5, 6))
    alive = weakref.ref(cache)
    del cache
    assert let_go(alive) is True


@pytest.mark.parametrize("given", ["model", "logits", "plain"])
def test_arguments_given_with_a_cache_are_released_when_the_panel_no_longer_keeps_it(given):
    model = copy.deepcopy(tiny.boot("llama"))
    _, logits, cache = tiny.run(model)
    held = {"model": model, "logits": logits, "plain": cache.cache_dict["blocks.0.hook_resid_pre"]}
    if given == "plain":
        panel = residscope.inspect(dict(cache.cache_dict), (5, 6), model=model, show=False)
    else:
        panel = residscope.inspect(cache, (5, 6), show=False, **{given: held[given]})
    alive = weakref.ref(held[given])
    kept = None if given == "plain" else cache
    if given == "model":
        cache.model = None
    panel._service.stop_keeping_alive()
    del model, logits, cache, held
    assert let_go(alive) is True
    answer, _ = panel._service.answer({"id": "1", "ask": {"kind": "suggest"}})
    assert answer["failure"]["code"] == "gone"
    panel.close()
    del kept


class Lazy(Mapping):
    """A mapping that is not a dictionary."""

    def __init__(self, held):
        self.held = held

    def __getitem__(self, name):
        return self.held[name]

    def __iter__(self):
        return iter(self.held)

    def __len__(self):
        return len(self.held)


class Likeness:
    """An object of another class that has only the `cache_dict` of a cache."""

    def __init__(self, held):
        self._held = held

    @property
    def cache_dict(self):
        return self._held


@pytest.mark.parametrize("kind", [dict, Lazy, Likeness])
def test_any_container_of_activations_can_be_inspected(kind):
    model = tiny.boot("llama")
    _, _, cache = tiny.run(model)
    panel = residscope.inspect(kind(cache.cache_dict), (5, 6), model=model, show=False)
    assert "reply" in panel._service.answer({"id": "1", "ask": {"kind": "describe"}})[0]
    panel.close()


def test_values_after_a_change_of_the_weights_have_a_note():
    model = copy.deepcopy(tiny.boot("llama"))
    _, _, cache = tiny.run(model)
    panel = residscope.inspect(cache, (5, 6), show=False)

    def notes():
        ask = {"kind": "attribute", "by": "layer", "target": panel.wire_target}
        return panel._service.answer({"id": "1", "ask": ask})[0]["reply"]["notes"]

    assert notes() == []
    model.enable_compatibility_mode()
    assert "the activations are from the old model, the weights from the new one" in notes()[0]
    panel.close()
