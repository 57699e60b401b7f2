"""Long work reports progress, lets short requests run in between, and ends if its request is no longer repeated."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch

import residscope
from residscope.serving import jobs, service
from residscope.serving.service import Service
from tests.support.gate import Gate, workers
from tests.support.tiny import boot, run

HEADS = {
    "kind": "attribute",
    "by": "head",
    "target": {"contrasts": [{"answer": [{"id": 5, "text": ""}], "distractor": []}]},
}


def ask(served: Service, id: str, ask: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    answer, buffers = served.answer({"id": id, "ask": ask})
    assert answer.get("failure") is None, answer
    return answer["reply"], buffers


def until(served: Service, id: str, question: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Send a request repeatedly until the reply comes, as a view does."""
    while True:
        reply, buffers = ask(served, id, question)
        if reply["kind"] != "working":
            return reply, buffers


@pytest.fixture
def cache():
    return run(boot("gpt2"))[2]


def test_long_work_reports_progress_and_lets_short_requests_run_in_between(cache: Any, monkeypatch: pytest.MonkeyPatch):
    expected = residscope.attribute(type(cache)(dict(cache.cache_dict), cache.model), 5)
    gate, served = Gate(monkeypatch), Service(cache)
    reply, _ = ask(served, "1", HEADS)
    assert reply["kind"] == "working"
    gate.reached()
    gate.let_through()
    gate.reached()  # the first layer is done, and the work waits before the second
    reply, _ = ask(served, "1", HEADS)
    assert (reply["kind"], reply["done"]) == ("working", 1)
    assert reply["total"] == 3 + 5  # three layers, then three MLPs and two embeddings
    gate.let_through(2)
    short, _ = ask(served, "2", {"kind": "tokens"})
    assert short["kind"] == "tokens"
    reply, buffers = until(served, "1", HEADS)
    assert reply["kind"] == "attribute"
    found = np.frombuffer(buffers[0], np.float32)
    assert np.allclose(found, expected.mean(), atol=1e-6)
    for worker in workers():
        worker.join(20)
    assert not workers()


def test_cancelled_work_ends(cache: Any, monkeypatch: pytest.MonkeyPatch):
    gate, served = Gate(monkeypatch), Service(cache)
    ask(served, "1", HEADS)
    gate.reached()
    (worker,) = workers()
    reply, _ = ask(served, "2", {"kind": "give-up", "id": "1"})
    assert reply["kind"] == "give-up"
    gate.let_through()  # the work ends after one more layer
    worker.join(20)
    assert not worker.is_alive()
    assert not gate.waits.acquire(blocking=False)
    assert ask(served, "3", {"kind": "tokens"})[0]["kind"] == "tokens"


@pytest.mark.parametrize("way", ["no request comes", "the cache is gone", "closed"])
def test_work_ends_if_its_reply_can_no_longer_be_used(way: str, monkeypatch: pytest.MonkeyPatch):
    cache = run(boot("gpt2"))[2]
    gate, served = Gate(monkeypatch), Service(cache, keeps_alive=False)
    ask(served, "1", HEADS)
    gate.reached()
    (worker,) = workers()
    tensor = weakref.ref(cache["blocks.0.attn.hook_z"])
    match way:
        case "no request comes":
            monkeypatch.setattr(jobs, "PATIENCE", -1.0)
        case "closed":
            served.release()
        case _:
            del cache
    gate.let_through()
    worker.join(20)
    assert not worker.is_alive()
    if way == "the cache is gone":
        assert tensor() is None
        answer, _ = served.answer({"id": "1", "ask": HEADS})
        assert answer["failure"]["code"] in ("gone", "given-up")


def test_long_work_can_be_refused_like_any_request(cache: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(service, "_LARGE", 0)
    served = Service(cache)
    with torch.no_grad():
        cache["blocks.1.attn.hook_z"].fill_(float("nan"))
    answer: dict[str, Any] = {}
    while not answer.get("failure"):
        answer, _ = served.answer({"id": "1", "ask": HEADS})
    assert answer["failure"]["code"] == "not-finite"
