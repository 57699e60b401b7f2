"""A request never gets the reply to another request, whether from an inline panel, a sidebar or VS Code."""

from __future__ import annotations

import base64
import copy
import json
import types
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from comm.base_comm import BaseComm

import residscope
from residscope.attribution import lens_logits, row_values
from residscope.hosts import comm, execute
from residscope.patterns import copying, scores, weighting
from residscope.serving import answer_charts, jobs, service
from residscope.serving.dispatcher import Dispatcher
from residscope.serving.service import Service
from residscope.wire.protocol import AnyRequest
from tests.support import tiny
from tests.support.gate import Gate, workers

Answer = tuple[dict[str, Any], list[bytes]]
Tell = Callable[[Any], Answer]
"""A function that sends a message, and returns its answer and buffers."""


class Sidebar(BaseComm):
    """The kernel's side of a comm. It keeps the messages that it sends."""

    def __init__(self) -> None:
        self.sent: list[Answer] = []
        super().__init__(target_name=comm.TARGET)

    def publish_msg(
        self, msg_type: str, data: Any = None, _metadata: Any = None, buffers: Any = None, **_: Any
    ) -> None:
        if msg_type == "comm_msg":
            self.sent.append((data, buffers))


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(row_values, "_AT_ONCE", 0)  # layer by layer, because the tests stop work between two layers
    return tiny.run(copy.deepcopy(tiny.boot("gpt2")))[2]


@pytest.fixture(params=["panel", "comm", "executed"])
def tell(request: pytest.FixtureRequest, cache: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tell]:
    """A function that sends a request about this cache from one of the hosts."""
    if request.param == "panel":
        panel = residscope.inspect(cache, 5, show=False)
        sent: list[Answer] = []
        monkeypatch.setattr(panel, "send", lambda content, buffers: sent.append((content, buffers)))

        def by_panel(message: Any) -> Answer:
            panel._on_message(panel, message, [])
            return sent.pop()

        yield by_panel
        panel.close()
        return
    monkeypatch.setattr(
        "IPython.core.getipython.get_ipython", lambda: types.SimpleNamespace(user_ns={"mine": cache}, kernel=None)
    )
    (row,) = Dispatcher().answer({"id": "list", "ask": {"kind": "caches"}})[0]["reply"]["caches"]
    if request.param == "comm":
        sidebar = Sidebar()
        comm._open(sidebar, {})
        yield lambda message: by_comm(sidebar, with_cache(message, row["ref"]))
    else:
        yield lambda message: by_code(with_cache(message, row["ref"]), monkeypatch)


def with_cache(message: Any, ref: Any) -> Any:
    return {"cache": ref} | message if isinstance(message, dict) else message


def by_comm(sidebar: Any, message: Any) -> Answer:
    sidebar.handle_msg({"content": {"data": message}})
    return sidebar.sent.pop()


def by_code(message: Any, monkeypatch: pytest.MonkeyPatch) -> Answer:
    pieces: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.core.display_functions.display", lambda data, **_: pieces.append(data[execute.MIME]))
    execute.answer(json.dumps([message]), "token")
    whole = json.loads("".join(piece["text"] for piece in pieces))
    return whole["answer"], [base64.b64decode(buffer) for buffer in whole["buffers"]]


def target(token: int) -> dict[str, Any]:
    return {"contrasts": [{"answer": [{"id": token, "text": ""}], "distractor": []}]}


def attribution(by: str, token: int = 5, **fields: Any) -> dict[str, Any]:
    return {"kind": "attribute", "by": by, "target": target(token), **fields}


def ask(tell: Tell, id: str, question: dict[str, Any]) -> Answer:
    answer, buffers = tell({"id": id, "ask": question})
    assert answer["id"] == id
    assert not answer.get("failure"), answer
    return answer["reply"], buffers


def until(tell: Tell, id: str, question: dict[str, Any]) -> Answer:
    """Send a request repeatedly until its reply comes, as a view does."""
    while True:
        reply, buffers = ask(tell, id, question)
        if reply["kind"] != "working":
            return reply, buffers


def expected(cache: Any, question: dict[str, Any]) -> Any:
    """Return the expected values, computed from a new cache object, for which nothing is memoised."""
    apart = type(cache)(dict(cache.cache_dict), cache.model)
    token = question["target"]["contrasts"][0]["answer"][0]["id"]
    position = question.get("position")
    found = residscope.attribute(
        apart, token, by=question["by"], **({} if position is None else {"position": position})
    )
    return found.mean() if question.get("prompt") is None else found.values[:, question["prompt"]]


def agrees(answer: Answer, question: dict[str, Any], figures: Any) -> None:
    reply, buffers = answer
    assert (reply["kind"], reply["by"]) == ("attribute", question["by"])
    np.testing.assert_allclose(np.frombuffer(buffers[0], np.float32), figures, rtol=1e-5, atol=1e-6)


PAIRS = [
    (attribution("head"), attribution("layer")),
    (attribution("head"), attribution("head", 6)),
    (attribution("head", prompt=0), attribution("head", prompt=1)),
    (attribution("head"), attribution("head", position=2)),
]


@pytest.mark.parametrize("pair", PAIRS, ids=["by", "target", "prompt", "position"])
def test_two_long_requests_at_once_get_their_own_replies(tell, cache, pair, monkeypatch):
    figures = [expected(cache, question) for question in pair]
    gate = Gate(monkeypatch)
    for id, question in zip("ab", pair, strict=True):
        assert ask(tell, id, question)[0]["kind"] == "working"
    gate.let_through(99)
    found = [until(tell, id, question) for id, question in zip("ba", reversed(pair), strict=True)]
    for answer, question, own in zip(reversed(found), pair, figures, strict=True):
        agrees(answer, question, own)


def test_a_cancellation_ends_only_its_own_request(tell, cache, monkeypatch):
    kept = attribution("layer")
    figures = expected(cache, kept)
    gate = Gate(monkeypatch)
    ask(tell, "a", attribution("head"))
    gate.reached()
    (given_up,) = workers()
    ask(tell, "b", kept)
    (other,) = set(workers()) - {given_up}
    assert ask(tell, "c", {"kind": "give-up", "id": "a"})[0]["kind"] == "give-up"
    gate.let_through()
    given_up.join(20)
    assert not given_up.is_alive()
    assert not gate.waits.acquire(blocking=False)  # the work ended before its second layer
    agrees(until(tell, "b", kept), kept, figures)
    other.join(20)


def test_another_request_with_a_known_id_is_refused_and_disturbs_nothing(tell, cache, monkeypatch):
    first = attribution("head")
    figures = expected(cache, first)
    gate = Gate(monkeypatch)
    ask(tell, "a", first)
    gate.reached()
    (worker,) = workers()
    for other in (attribution("layer"), attribution("head", 6), {"kind": "tokens"}):
        answer, buffers = tell({"id": "a", "ask": other})
        assert (answer["failure"]["code"], buffers) == ("protocol", [])
        assert "another request with this id is still running" in answer["failure"]["message"].lower()
    assert workers() == [worker]
    gate.let_through(99)
    agrees(until(tell, "a", first), first, figures)
    agrees(until(tell, "a", attribution("layer")), attribution("layer"), expected(cache, attribution("layer")))


def test_a_changed_cache_never_gets_values_of_its_earlier_state(cache, monkeypatch):
    """Long work that began before a change of the cache must not give the reply about the changed cache."""
    monkeypatch.setattr(
        "IPython.core.getipython.get_ipython", lambda: types.SimpleNamespace(user_ns={"mine": cache}, kernel=None)
    )
    dispatcher, question = Dispatcher(), attribution("head")

    def listed() -> Any:
        return dispatcher.answer({"id": "list", "ask": {"kind": "caches"}})[0]["reply"]["caches"][0]["ref"]

    before = {"id": "a", "ask": question, "cache": listed()}
    gate = Gate(monkeypatch)
    assert dispatcher.answer(before)[0]["reply"]["kind"] == "working"
    gate.reached()
    with torch.no_grad():
        cache["blocks.0.attn.hook_z"].mul_(1)  # counts as a change
    after = before | {"cache": listed()}
    gate.let_through(99)
    (worker,) = workers()
    worker.join(20)
    answer, _ = dispatcher.answer(after)
    assert answer["failure"]["code"] == "protocol"
    assert dispatcher.answer(before)[0]["failure"]["code"] == "changed"
    figures = expected(cache, question)
    agrees(until(lambda message: dispatcher.answer(after | message), "b", question), question, figures)


def z_changes(cache: Any) -> None:
    for layer in range(3):
        cache[f"blocks.{layer}.attn.hook_z"].mul_(2)


def weights_change(cache: Any) -> None:
    for layer in range(3):
        cache.model.original_model.transformer.h[layer].attn.c_proj.weight[:6].mul_(-1.5)  # first head of each layer


@pytest.mark.parametrize("change", [z_changes, weights_change])
def test_a_reply_describes_one_state_of_the_cache(tell, cache, change, monkeypatch, request):
    """A cell may change the cache or the weights during long work. The work then begins again, or is refused."""
    question = attribution("head")
    gate = Gate(monkeypatch)
    ask(tell, "a", question)
    gate.reached()
    gate.let_through()
    gate.reached()  # the first layer is done
    with torch.no_grad():
        change(cache)
    gate.let_through(99)
    if change is z_changes and "panel" not in request.node.name:  # a sidebar's request names the state of the cache
        answer, _ = tell({"id": "a", "ask": question})
        assert answer["failure"]["code"] == "changed"
        return
    reply, buffers = until(tell, "a", question)
    apart = type(cache)(dict(cache.cache_dict), cache.model)
    _, expected = Service(apart).reply(msgspec.convert(question, AnyRequest))
    np.testing.assert_array_equal(np.frombuffer(buffers[0], np.float32), np.frombuffer(expected[0], np.float32))
    said = "This cache was changed" if change is z_changes else "weights were changed"
    assert any(said in note for note in reply["notes"])


def test_a_reply_is_refused_if_the_weights_change_in_every_attempt(tell, cache, monkeypatch):
    heads = row_values.layer_heads

    def training(*given: Any) -> Any:
        with torch.no_grad():
            weights_change(cache)
        return heads(*given)

    monkeypatch.setattr(row_values, "layer_heads", training)
    for large in (False, True):
        monkeypatch.setattr(service, "_LARGE", 0 if large else 1 << 60)
        answer = {"reply": {"kind": "working"}}
        while (answer.get("reply") or {}).get("kind") == "working":
            answer, _ = tell({"id": f"a{large}", "ask": attribution("head")})
        assert answer["failure"]["code"] == "unsteady"
        assert "weights were changed during this computation" in answer["failure"]["message"]


# For each case: the owner and the name of an inner function, the number of its calls after which the test changes the
# cache, and the call in Python that is tested.
SLICES: dict[str, tuple[Any, str, int, Callable[[Any], Any]]] = {
    "attribute": (row_values, "layer_heads", 1, lambda cache: residscope.attribute(cache, 5).values),
    "token lens": (lens_logits.Reader, "_stream", 3, lambda cache: residscope.token_lens(cache, 5).probabilities),
    "previous": (scores, "_of_layer", 1, lambda cache: residscope.scores(cache, "previous").values),
    "copying": (copying, "report_progress", 3, lambda cache: residscope.scores(cache, "copying").values),
    "attention": (
        weighting.WeightedAttention,
        "_weighted",
        1,
        lambda cache: residscope.attention(cache, ["0.0", "1.0"], weighting="value").values,
    ),
    "plain dictionary": (
        row_values,
        "layer_heads",
        1,
        lambda cache: residscope.attribute(cache.cache_dict, 5, model=cache.model).values,
    ),
}


@pytest.mark.parametrize("what", SLICES)
def test_a_result_in_python_describes_one_state_of_the_cache(cache, what, monkeypatch):
    """Another thread may change the weights or the cache during the work."""
    owner, name, after, call = SLICES[what]
    given, calls = getattr(owner, name), []

    def work(*args: Any, **options: Any) -> Any:
        done = given(*args, **options)
        calls.append(name)
        if len(calls) == after:
            with torch.no_grad():
                z_changes(cache)
                weights_change(cache)
                for layer in range(3):
                    cache[f"blocks.{layer}.hook_resid_mid"][..., 0].add_(5)
                    cache[f"blocks.{layer}.attn.hook_pattern"].pow_(2)
        return done

    monkeypatch.setattr(owner, name, work)
    found = outcome(call, cache)
    expected = outcome(call, type(cache)(dict(cache.cache_dict), cache.model))
    assert len(calls) > after or isinstance(expected, str)  # the work began again, or was refused before
    if isinstance(expected, str):  # after the change, the heads of no layer add up to its attention's output
        assert found == expected
    else:
        torch.testing.assert_close(found, expected, equal_nan=True)


def outcome(call: Callable[[Any], Any], cache: Any) -> Any:
    try:
        return call(cache)
    except residscope.ResidscopeError as error:
        return str(error)


def test_prefetched_replies_describe_one_state_of_the_cache(cache, monkeypatch):
    panel = residscope.inspect(cache, 5, show=False)
    assert panel._service.ahead(panel.shown)
    panel.close()
    panel = residscope.inspect(cache, 5, show=False)
    lensed, left = answer_charts.attribution, [1]

    def work(scene: Any, question: Any) -> Any:
        if question.by == "layer" and left:
            left.pop()
            with torch.no_grad():
                z_changes(cache)
        return lensed(scene, question)

    monkeypatch.setattr(answer_charts, "attribution", work)
    with torch.no_grad():
        cache["blocks.0.hook_resid_mid"].mul_(1)  # counts as a change, so memoised replies are not used
    assert panel._service.ahead(panel.shown) == {}  # no replies are prefetched, so the view sends its own requests
    assert not left
    panel.close()


def test_work_can_be_cancelled_even_if_the_cache_was_changed_since(cache, monkeypatch):
    monkeypatch.setattr(
        "IPython.core.getipython.get_ipython", lambda: types.SimpleNamespace(user_ns={"mine": cache}, kernel=None)
    )
    dispatcher = Dispatcher()
    ref = dispatcher.answer({"id": "list", "ask": {"kind": "caches"}})[0]["reply"]["caches"][0]["ref"]
    gate = Gate(monkeypatch)
    dispatcher.answer({"id": "a", "ask": attribution("head"), "cache": ref})
    gate.reached()
    (worker,) = workers()
    with torch.no_grad():
        cache["blocks.0.attn.hook_z"].mul_(1)  # counts as a change
    answer, _ = dispatcher.answer({"id": "c", "ask": {"kind": "give-up", "id": "a"}, "cache": ref})
    assert answer["reply"]["kind"] == "give-up"
    gate.let_through()
    worker.join(20)
    assert not worker.is_alive()


@pytest.mark.parametrize("id", [None, 7, True, 1.5, ["a"], {"a": 1}, "", "x" * 201, "x" * 1_000_000])
def test_an_invalid_id_is_refused_in_a_sentence(tell, id):
    messages = [{"ask": {"kind": "tokens"}}] if id is None else []
    for message in [*messages, {"id": id, "ask": {"kind": "tokens"}}]:
        answer, buffers = tell(message)
        assert (answer["failure"]["code"], buffers) == ("protocol", [])
        assert answer["id"] == (id if isinstance(id, str) else "")
        assert "id is a text of 1 to 200 characters" in answer["failure"]["message"]
    answer, _ = tell({"id": "a", "ask": {"kind": "give-up", "id": id}})
    assert answer["failure"]["code"] in ("protocol", "too-large", "too-small")


@pytest.mark.parametrize("moment", [0.0, 0.1])
def test_work_in_python_is_completed_however_large_the_cache_is(cache, monkeypatch, moment):
    """Calls in Python are not requests that could be sent again."""
    panel = residscope.inspect(cache, (5, 6), show=False)
    small = panel.to_html()
    monkeypatch.setattr(service, "_LARGE", 0)
    monkeypatch.setattr(jobs, "MOMENT", moment)
    large = panel.to_html()
    assert large.endswith("</html>\n")
    assert contents(large) == contents(small)
    for question in (PAIRS[0][0], PAIRS[0][1]):
        reply, buffers = Service(cache).reply(msgspec.convert(question, AnyRequest))
        agrees((msgspec.to_builtins(reply), buffers), question, expected(cache, question))
    panel.close()


def contents(page: str) -> Any:
    """Return the content of a page, without the time when it was made."""
    import gzip
    import re

    found = re.search(r'<script id="data" type="text/plain">(.*?)</script>', page)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1]))) | {"saved": None}
