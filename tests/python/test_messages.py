"""The messages between views and kernel equal the recorded ones. A difference is a change of the protocol.

`npm run record` writes `tests/texts/messages.json` again. Read the differences before you commit them.
"""

from __future__ import annotations

import gc
import json
import weakref
from base64 import b64decode
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from transformer_lens import ActivationCache

from residscope.serving import jobs, measuring, turns
from residscope.serving.dispatcher import Dispatcher
from residscope.serving.service import Service
from residscope.wire.protocol import AnyReply, AnyRequest
from tests.support import recorded
from tests.support.gate import workers


@pytest.fixture(scope="module")
def kept() -> list[dict[str, Any]]:
    return json.loads(recorded.FILE.read_text(encoding="utf-8"))


def test_each_request_has_its_recorded_answer(kept: list[dict[str, Any]]):
    for found, expected in zip(recorded.messages(), kept, strict=True):
        alike(found, expected, found["question"]["ask"]["kind"])


def filtered(cache: dict[str, Any]) -> None:
    """Keep only the stream, so that most requests are refused."""
    for name in [name for name in cache if "resid" not in name and name != "hook_embed"]:
        del cache[name]


def in_part(cache: dict[str, Any]) -> None:
    """Delete what the heads of one layer read and write, so that requests are refused after the first layer."""
    for part in ("hook_pattern", "hook_v", "hook_z"):
        del cache[f"blocks.1.attn.{part}"]


@pytest.mark.parametrize(
    ("damage", "reply"), [(None, "at once"), (filtered, "at once"), (in_part, "at once"), (filtered, "later")]
)
@pytest.mark.parametrize("kind", sorted({ask["kind"] for ask in recorded.asks()}))
def test_no_request_keeps_a_deleted_cache_in_memory(
    kind: str, damage: Callable[[dict[str, Any]], None] | None, reply: str, monkeypatch: pytest.MonkeyPatch
):
    model, run = recorded.run()
    held = {name: one.clone() for name, one in run.cache_dict.items()}
    if damage is not None:
        damage(held)
    cache = ActivationCache(held, model)
    del held
    variables = {"cache": cache, "model": model, "names": [(" Mary", " John")], "sae": recorded.sae()}
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: SimpleNamespace(user_ns=variables))
    # The first reply has the whole page, or no reply of a long job is fetched.
    monkeypatch.setattr(jobs, "MOMENT", 60 if reply == "at once" else 0)
    monkeypatch.setattr("residscope.serving.service._LARGE", 2e9 if reply == "at once" else 0)
    monkeypatch.setattr(measuring, "TURN", 60)  # all runs are made in the first turn, however slow the machine is
    alive = [weakref.ref(cache), *map(weakref.ref, cache.cache_dict.values())]
    dispatcher = Dispatcher()
    listed, _ = dispatcher.answer({"id": "list", "ask": {"kind": "caches"}})
    ref = listed["reply"]["caches"][0]["ref"]
    gc.collect()
    gc.disable()  # the requests must leave no reference cycle, because the garbage collector may run much later
    try:
        for ask in recorded.asks():
            if ask["kind"] == kind:
                question = {"id": "1", "ask": ask} | ({} if kind == "caches" else {"cache": ref})
                with turns.granted():
                    dispatcher.answer(question)
        for worker in workers():
            worker.join(20)
        del cache, variables["cache"]
        assert not any(reference() is not None for reference in alive)
    finally:
        gc.enable()


MEASURED = [
    {"kind": "effects", "target": recorded.TARGET, "prompt": 0, "replaced_by": "other", "against": {"cache": "other"}},
    {"kind": "without", "against": {"without": ["L1H0"]}},
]


@pytest.mark.parametrize("deleted", ["cache", "other", "dictionary"])
@pytest.mark.parametrize("ask", MEASURED, ids=lambda ask: ask["kind"])
def test_no_unfinished_measurement_keeps_a_deleted_cache_in_memory(
    ask: dict[str, Any], deleted: str, monkeypatch: pytest.MonkeyPatch
):
    model, run = recorded.run()
    held = {name: one.clone() for name, one in run.cache_dict.items()}
    variables: dict[str, Any] = {"cache": run, "other": run, deleted: ActivationCache(held, model)}
    alive = [weakref.ref(tensor) for tensor in held.values()]
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: SimpleNamespace(user_ns=variables))
    monkeypatch.setattr(measuring, "TURN", 0)
    shown = held if deleted == "dictionary" else variables["cache"]
    service = Service(shown, model=model, keeps_alive=deleted == "dictionary")
    gc.collect()
    gc.disable()
    try:
        with turns.granted():
            answer, _ = service.answer({"id": "1", "ask": ask})
        assert answer["reply"]["state"] == "waiting"
        if deleted == "dictionary":  # allows no weak references: its panel must be closed, or no longer be shown
            service.stop_keeping_alive()
        del shown, held, variables[deleted]
        assert not any(reference() is not None for reference in alive)
    finally:
        gc.enable()


def test_there_is_a_message_of_each_kind(kept: list[dict[str, Any]]):
    def tags(union: Any) -> set[str]:
        return {kind.__struct_config__.tag for kind in get_args(union)}

    assert {message["question"]["ask"]["kind"] for message in kept} == tags(AnyRequest)
    assert {message["answer"].get("reply", {}).get("kind") for message in kept} - {None} == tags(AnyReply)
    assert any("failure" in message["answer"] for message in kept)


def test_the_recorded_replies_for_the_pages_tests_are_those_of_python():
    service = Service(recorded.run()[1], saes={"sae": recorded.sae()})
    made = json.loads(recorded.RECORDING.read_text(encoding="utf-8"))
    for entry in made["entries"]:
        ask = entry["ask"]
        if "target" in recorded.fields_of(ask["kind"]) and ask["kind"] != "code":
            ask = {"target": made["selection"]["target"]} | ask
        answer, buffers = recorded.to_the_end(service, ask)
        alike(recorded.steady(answer.get("reply")), recorded.steady(entry.get("reply")), f"{entry['ask']}")
        assert [len(buffer) for buffer in buffers] == [len(b64decode(one)) for one in entry.get("buffers", [])], ask


def alike(found: Any, expected: Any, where: str) -> None:
    """Check that two messages are equal, with numbers up to one part in a thousand."""
    assert type(found) is type(expected), where
    if isinstance(found, dict):
        assert list(found) == list(expected), where
        for name in found:
            alike(found[name], expected[name], f"{where}.{name}")
    elif isinstance(found, list):
        assert len(found) == len(expected), where
        for at, (one, other) in enumerate(zip(found, expected, strict=True)):
            alike(one, other, f"{where}[{at}]")
    elif isinstance(found, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4), where
    else:
        assert found == expected, where
