"""A sidebar's requests for the list of caches and about a single cache. They keep no cache alive."""

from __future__ import annotations

import copy
import gc
import json
import subprocess
import sys
import threading
import types
import weakref
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from transformer_lens import ActivationCache

import residscope
from residscope.serving import dispatcher
from residscope.serving.dispatcher import Dispatcher
from residscope.serving.measuring import SteppedRun
from residscope.serving.service import Service
from residscope.session import change_tracking
from residscope.wire.protocol import Answer
from tests.support import tiny


@pytest.fixture
def variables(monkeypatch):
    """The user's namespace."""
    variables = {}
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: types.SimpleNamespace(user_ns=variables))
    return variables


@pytest.fixture
def ask():
    dispatcher = Dispatcher()

    def ask(kind, ref=None, **fields):
        message = {"id": "7", "ask": {"kind": kind, **fields}} | ({"cache": ref} if ref else {})
        answer, buffers = dispatcher.answer(message)
        assert answer["id"] == "7"
        msgspec.convert(answer, Answer)
        json.dumps(answer, allow_nan=False)
        return answer.get("reply") or answer["failure"], buffers

    return ask


def rows(ask) -> list[dict]:
    return ask("caches")[0]["caches"]


def boot(family="llama", **sizes):
    model = copy.deepcopy(tiny.boot(family))
    return (model, *tiny.run(model, **sizes))


@pytest.mark.parametrize("error", [RuntimeError("out of order"), residscope.ResidscopeError("head", "not a head")])
def test_a_failure_is_logged_with_its_traceback(ask, monkeypatch, caplog, capfd, error):
    """The traceback goes only to Python's `logging`, not to the output of the user's cell."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("residscope.serving.dispatcher.search", fail)
    with caplog.at_level("INFO", logger="residscope"):
        ask("caches")
    (record,) = [record for record in caplog.records if record.name == "residscope"]
    assert record.exc_info[1] is error
    assert record.exc_info[2] is not None
    assert capfd.readouterr() == ("", "")


def test_a_row_has_the_facts_of_the_cache(variables, ask):
    _, _, _, variables["mine"] = boot()
    variables["runs"] = {"clean": variables["mine"]}
    [row] = rows(ask)
    facts, _ = ask("describe", row["ref"])
    assert row["names"] == ["mine", 'runs["clean"]']
    for name in ("model", "layers", "heads", "prompts", "positions", "dtype", "device", "bytes", "missing"):
        assert row[name] == facts[name]
    assert facts["name"] == "mine"
    assert (row["changed"], row["weights_changed"], row["problem"]) == (False, False, None)
    assert row["bytes"] > 0


def test_replies_have_the_same_values_as_the_python_api(variables, ask):
    _, _, logits, cache = boot()
    variables["mine"] = cache
    ref = rows(ask)[0]["ref"]
    target = ask("target", ref)[0]["target"]
    top = logits[:, -1].topk(2).indices.tolist()
    assert [[c["answer"][0]["id"], c["distractor"][0]["id"]] for c in target["contrasts"]] == top
    reply, [buffer, *_] = ask("attribute", ref, by="head", target=target)
    expected = residscope.attribute(cache, [tuple(pair) for pair in top], by="head")
    np.testing.assert_allclose(np.frombuffer(buffer, np.float32), expected.mean(), rtol=1e-5, atol=1e-7)
    assert reply["notes"] == []
    assert ask("attention", ref, layer=1, head=2, target=target)[0]["parts"][1:]


def test_a_chapter_of_the_documentation_is_its_text_without_pictures(variables, ask):
    variables["cache"] = boot()[3]
    ref = rows(ask)[0]["ref"]
    docs = Path(__file__).parents[2] / "py_backend" / "docs"
    for name in ("panel", "sidebar", "why"):
        text = ask("chapter", ref, name=name)[0]["text"]
        assert text.splitlines()[0] == (docs / f"{name}.md").read_text("utf-8").splitlines()[0]
        assert "pictures/" not in text
        assert "npm run docs" not in text
    for name in ("../docs/panel", "architectures"):
        failure, _ = ask("chapter", ref, name=name)
        assert failure["code"] == "chapter"
        assert f"There is no chapter `{name}`. There are causes, " in failure["message"]


def test_a_cache_that_cannot_be_inspected_has_a_reason(variables, ask):
    model, _, _, cache = boot()
    variables["fine"] = cache
    variables["empty"] = ActivationCache({}, model)
    variables["odd"] = ActivationCache({"hook_embed": "no tensor"}, model)
    variables["orphan"] = ActivationCache(cache.cache_dict, None)
    variables["other"] = ActivationCache(cache.cache_dict, object())
    problems = {row["names"][0]: row["problem"] for row in rows(ask)}
    assert problems.pop("fine") is None
    assert all(problems.values()), problems
    assert "The model of this cache was deleted" in problems["orphan"]


@pytest.mark.parametrize(
    "message", [None, 5, "text", {}, {"id": "7"}, {"id": "7", "ask": {"kind": "no such"}}, {"id": 7, "ask": {}}]
)
def test_a_message_that_is_not_a_request_gets_a_failure(message):
    answer, buffers = Dispatcher().answer(message)
    assert (answer["failure"]["code"], buffers) == ("protocol", [])


def test_a_request_without_a_known_cache_is_refused(variables, ask):
    assert ask("describe")[0]["code"] == "protocol"
    assert ask("describe", {"id": "none", "state": ""})[0]["code"] == "gone"
    _, _, _, variables["mine"] = boot()
    ref = rows(ask)[0]["ref"]
    assert ask("presence", ref, view="v", state="shown")[0]["code"] == "protocol"
    assert "internal" not in ask("attribute", ref, by="head", target={"contrasts": []})[0]["code"]


def test_a_changed_cache_is_refused_until_it_is_read_again(variables, ask):
    model, _, _, variables["mine"] = boot(batch=1)
    ref = rows(ask)[0]["ref"]
    variables["mine"].remove_batch_dim()
    failure, _ = ask("describe", ref)
    assert failure["code"] == "changed"
    assert "read it again" in failure["message"]
    [row] = rows(ask)
    assert (row["ref"]["id"], row["changed"], row["weights_changed"]) == (ref["id"], True, False)
    target = ask("target", row["ref"])[0]["target"]
    [note] = ask("attribute", row["ref"], by="layer", target=target)[0]["notes"]
    assert "the cache as it is now" in note
    with torch.no_grad():
        next(model.parameters()).mul_(2)  # training changes weights; requests then get a note and are not refused
    [now] = rows(ask)
    assert now["weights_changed"]
    states = [r["ref"]["state"].split(".") for r in (now, row)]
    assert [after == before for after, before in zip(*states, strict=True)] == [True, False, True]
    notes = ask("attribute", row["ref"], by="layer", target=target)[0]["notes"]
    assert "the activations are from the old model" in notes[0]


def test_a_list_compares_a_part_of_very_many_activations_and_further_lists_the_rest(variables, ask, monkeypatch):
    monkeypatch.setattr(dispatcher, "_AT_ONCE", 1)  # at first one cache
    model, tokens, _, _ = boot()
    variables["runs"] = [model.run_with_cache(tokens)[1] for _ in range(9)]
    first, _ = ask("caches", since=0)
    assert (len(first["caches"]), first["unread"]) == (9, 0)  # each new cache is compared
    assert ask("describe", first["caches"][5]["ref"])[0]["kind"] == "describe"  # a view shows this one
    for cache in variables["runs"]:
        cache["embed"].add_(1)

    def series():
        since = 0
        while True:
            reply, _ = ask("caches", since=since)
            assert [row["names"] for row in reply["caches"]] == [[f"runs[{n}]"] for n in range(9)]
            yield reply
            if not reply["unread"]:
                return
            since = reply["since"]

    found = list(series())
    assert [[n for n, row in enumerate(reply["caches"]) if row["changed"]] for reply in found] == [
        [5],
        [0, 5],
        [0, 1, 2, 5],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [*range(9)],
    ]
    assert [reply["unread"] for reply in found] == [8, 7, 5, 1, 0]
    late, _ = ask("caches", since=10**9)  # from before a restart of the kernel: it begins a series
    assert 0 < late["since"] < 10**9
    # A request about a cache compares it, and a list without `since` compares all.
    variables["runs"][8]["embed"].add_(1)
    assert ask("describe", found[-1]["caches"][8]["ref"])[0]["code"] == "changed"
    states = [row["ref"]["state"] for row in rows(ask)]
    variables["runs"][3]["embed"].add_(1)
    assert [n for n, row in enumerate(rows(ask)) if row["ref"]["state"] != states[n]] == [3]


def test_an_added_activation_does_not_change_the_cache(variables, ask):
    _, _, _, variables["mine"] = boot()
    ref = rows(ask)[0]["ref"]
    variables["mine"].stack_head_results()
    assert "layers" in ask("describe", ref)[0]
    assert not rows(ask)[0]["changed"]


def test_a_change_during_the_computation_is_refused(variables, ask, monkeypatch):
    _, _, _, variables["mine"] = boot()
    ref = rows(ask)[0]["ref"]
    from residscope.serving.service import Service

    real = Service._facts

    def slow(self, view):
        variables["mine"].cache_dict["hook_embed"] = torch.zeros(1)
        return real(self, view)

    monkeypatch.setattr(Service, "_facts", slow)
    assert ask("describe", ref)[0]["code"] == "changed"


def test_a_deleted_cache_is_freed_at_once_after_any_requests(variables, ask):
    model, _, _, cache = boot()
    variables["mine"] = cache
    gc.collect()
    gc.disable()  # the requests must leave no reference cycle, because the garbage collector may run much later
    try:
        ref = rows(ask)[0]["ref"]
        target = ask("target", ref)[0]["target"]
        for by in ("head", "layer", "accumulated"):
            ask("attribute", ref, by=by, target=target)
        ask("attention", ref, layer=0, head=0, target=target)
        ask("describe", ref)
        assert ask("attention", ref, layer=99, head=0, target=target)[0]["code"] == "head"
        assert ask("describe", ref | {"state": "other"})[0]["code"] == "changed"
        alive = [weakref.ref(t) for t in (cache, cache.cache_dict["hook_embed"])]
        variables.clear()
        del cache
        assert [reference() for reference in alive] == [None, None]
    finally:
        gc.enable()
    failure, _ = ask("describe", ref)
    assert failure["code"] == "gone"
    assert "was deleted" in failure["message"]
    assert rows(ask) == []
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


@pytest.mark.usefixtures("variables")
def test_a_list_of_caches_frees_the_steps_of_a_plain_dictionary(ask):
    """The deletion of a plain dictionary cannot be noticed."""
    held = torch.zeros(3)
    run = SteppedRun(None, lambda: None, lambda *_: iter(()), lambda work: work(), lambda: True)
    run.needs({"hook_embed": held})
    run._steps = iter([held])
    alive = weakref.ref(held)
    del held
    assert alive() is not None
    ask("caches")
    assert alive() is None


def test_two_names_share_a_service_and_two_caches_do_not(variables, ask):
    _, _, _, variables["a"] = boot()
    _, _, _, variables["c"] = boot("gpt2")
    variables["b"] = variables["a"]
    assert [row["names"] for row in rows(ask)] == [["a", "b"], ["c"]]
    for row in rows(ask):
        assert ask("describe", row["ref"])[0]["name"] == row["names"][0]
    services = [change_tracking.known(row["ref"]["id"]).kept["service"] for row in rows(ask)]
    assert len(set(map(id, services))) == 2


def test_several_threads_may_send_requests(variables, ask):
    _, _, _, variables["mine"] = boot()
    ref = rows(ask)[0]["ref"]
    target = ask("target", ref)[0]["target"]
    first = ask("attribute", ref, by="head", target=target)[1]
    wrong = []

    def many():
        for _ in range(5):
            if ask("attribute", ref, by="head", target=target)[1] != first or len(rows(ask)) != 1:
                wrong.append(1)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls of three functions, which reconcile layers, compute a reply, and compute attention."""
    from residscope.attribution import head_split
    from residscope.serving import answer_views

    counted: Counter[str] = Counter()

    def count(owner, name: str) -> None:
        real = getattr(owner, name)

        def counting(*args):
            counted[name] += 1
            return real(*args)

        monkeypatch.setattr(owner, name, counting)

    count(head_split, "reconcile")
    count(Service, "_answer_once")
    count(answer_views, "attention")
    return counted


OTHER = {"contrasts": [{"answer": [{"id": 5, "text": ""}], "distractor": []}]}


def test_the_layers_are_reconciled_once_for_all_heads(variables, ask, calls):
    _, _, _, variables["mine"] = boot()
    ref = rows(ask)[0]["ref"]
    target = ask("target", ref)[0]["target"]
    calls.clear()
    replies = [ask("attention", ref, layer=layer, head=head, target=target) for layer, head in [(0, 0), (1, 3), (0, 1)]]
    again = ask("attention", ref, layer=1, head=3, target=target)
    assert again == replies[1]
    # The last request repeats an earlier one, so its reply is memoised.
    assert calls == {"reconcile": 1, "_answer_once": 3, "attention": 3}
    answers = [(c["answer"][0]["id"], c["distractor"][0]["id"]) for c in target["contrasts"]]
    expected = residscope.attribute(variables["mine"], answers).grid[1, 3].mean()
    assert np.frombuffer(again[1][2], np.float32).sum() == pytest.approx(float(expected), abs=1e-4)


def test_the_layers_are_reconciled_for_each_target_and_position(variables, ask, calls):
    _, _, _, variables["mine"] = boot()
    ref = rows(ask)[0]["ref"]
    target = ask("target", ref)[0]["target"]
    for fields in ({"target": target}, {"target": OTHER}, {"target": OTHER, "position": 2}):
        ask("attention", ref, layer=0, head=0, **fields)
    assert calls["reconcile"] == 3


def test_the_layers_are_reconciled_again_after_a_change_of_the_weights(variables, ask, calls):
    model, _, _, variables["mine"] = boot()
    ref = rows(ask)[0]["ref"]
    ask("attention", ref, layer=0, head=0, target=OTHER, position=2)
    with torch.no_grad():
        model.blocks[1].attn.o.original_component.weight.mul_(3)  # now the heads do not add up to the cached outputs
    ref = rows(ask)[0]["ref"]
    assert ask("attention", ref, layer=0, head=0, target=OTHER, position=2)[0]["parts"][2:]
    assert calls["reconcile"] == 2
    refused, _ = ask("attention", ref, layer=1, head=0, target=OTHER, position=2)
    assert [part["what"] for part in refused["parts"]] == ["pattern", "reads"]
    assert "cannot be determined" in " ".join(refused["notes"])


RACE = """
import sys, threading
sys.setswitchinterval(1e-5)
from residscope.wire.envelope import answered
asks = [{"kind": kind, "layer": 0, "head": 1, "target": {"contrasts": []}, "score": "first", "by": "head"}
        for kind in ("describe", "attention", "thumbnails", "blend", "scores", "attribute")]
start = threading.Barrier(len(asks))
def ask(one):
    start.wait()
    answered({"id": "1", "ask": one}, lambda question: 1 / 0)
threads = [threading.Thread(target=ask, args=(one,)) for one in asks]
[thread.start() for thread in threads], [thread.join() for thread in threads]
"""


def test_the_first_requests_from_several_threads_do_not_crash_the_kernel():
    children = [subprocess.Popen([sys.executable, "-c", RACE]) for _ in range(8)]
    assert [child.wait(60) for child in children] == [0] * 8
