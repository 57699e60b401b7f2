"""Requests have limits. If a request exceeds a limit, the failure names the field, the limit and the actual size."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from typing import Any

import pytest

import residscope
from residscope.hosts import execute
from residscope.serving.dispatcher import Dispatcher
from tests.support import tiny

Ask = Callable[[dict[str, Any]], dict[str, Any]]
TOKEN = {"id": 5, "text": ""}
TARGET = {"contrasts": [{"answer": [TOKEN], "distractor": []}]}


@pytest.fixture
def ask(monkeypatch) -> Ask:
    """A function that sends a request about a tiny cache to a sidebar's dispatcher, and returns reply or failure."""
    cache = tiny.run(tiny.boot("gpt2"), batch=2)[2]
    shell = types.SimpleNamespace(user_ns={"mine": cache})
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: shell)
    dispatcher = Dispatcher()
    (row,) = dispatcher.answer({"id": "1", "ask": {"kind": "caches"}})[0]["reply"]["caches"]

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        answer, _ = dispatcher.answer({"id": "2", "ask": request, "cache": row["ref"]})
        return answer.get("reply") or answer["failure"]

    return ask


def target(tokens: int = 1, contrasts: int = 1, token: dict[str, Any] = TOKEN, **fields: Any) -> dict[str, Any]:
    return {"contrasts": [{"answer": [token] * tokens, "distractor": []}] * contrasts, **fields}


def attribute(target: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "attribute", "by": "head", "target": target}


def lens(**fields: Any) -> dict[str, Any]:
    return {"kind": "token-lens", "points": ["1_pre"], "start": 0, "stop": 4, "target": TARGET} | fields


def positions(heads: list[str]) -> dict[str, Any]:
    return {"kind": "positions", "by": "head", "target": TARGET, "heads": heads}


def shown(kind: str, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "shown": {"target": TARGET} | fields} | ({"picture": "heads"} if kind == "code" else {})


BILLION = 1_000_000_000
LONGEST: dict[str, tuple[Callable[[int], dict[str, Any]], int, str]] = {
    "contrasts": (lambda n: attribute(target(contrasts=n)), 65_536, "entries"),
    "answer": (lambda n: attribute(target(tokens=n)), 10_000, "entries"),
    "distractor": (
        lambda n: attribute({"contrasts": [{"answer": [TOKEN], "distractor": [TOKEN] * n}]}),
        10_000,
        "entries",
    ),
    "answer[0].text": (lambda n: attribute(target(token={"id": 5, "text": "x" * n})), 20_000, "characters"),
    "direction": (lambda n: attribute(target(direction="x" * n)), 200, "characters"),
    "text": (lambda n: {"kind": "check", "text": "x" * n}, 20_000, "characters"),
    "points": (lambda n: lens(points=["1_pre"] * n), 4_096, "entries"),
    "points[1]": (lambda n: lens(points=["1_pre", "x" * n]), 200, "characters"),
    "heads": (lambda n: positions(["L0H0"] * n), 16_384, "entries"),
    "shown.heads": (lambda n: shown("code", heads=["L0H0"] * n), 16_384, "entries"),
    "shown.heads[0]": (lambda n: shown("code", heads=["x" * n]), 200, "characters"),
    "name": (lambda n: {"kind": "resolve", "name": "x" * n}, 200, "characters"),
    "id": (lambda n: {"kind": "give-up", "id": "x" * n}, 200, "characters"),
    "view": (lambda n: {"kind": "presence", "view": "x" * n, "state": "shown"}, 200, "characters"),
}
LARGEST: dict[str, tuple[Callable[[int], dict[str, Any]], int, int]] = {
    "k": (lambda n: lens(k=n), 1, 50),
    "neurons' k": (lambda n: {"kind": "neurons", "target": TARGET, "k": n}, 1, 50),
    "suggestions' k": (lambda n: {"kind": "suggest", "k": n}, 1, 100),
    "side": (lambda n: {"kind": "thumbnails", "layer": 0, "target": TARGET, "side": n}, 1, 256),
    "shown.top_k": (lambda n: shown("code", top_k=n), 1, 50),
    "start": (lambda n: lens(start=n), -BILLION, BILLION),
    "stop": (lambda n: lens(stop=n), -BILLION, BILLION),
    "prompt": (lambda n: {"kind": "tokens", "prompt": n}, -BILLION, BILLION),
    "position": (lambda n: {"kind": "suggest", "position": n}, -BILLION, BILLION),
    "layer": (lambda n: {"kind": "neurons", "target": TARGET, "layer": n}, -BILLION, BILLION),
    "head": (lambda n: {"kind": "attention", "layer": 0, "head": n, "target": TARGET}, -BILLION, BILLION),
    "rows.start": (
        lambda n: {"kind": "attention", "layer": 0, "head": 0, "target": TARGET, "rows": {"start": n, "stop": 3}},
        -BILLION,
        BILLION,
    ),
    "columns.stop": (
        lambda n: {"kind": "blend", "layer": 0, "target": TARGET, "columns": {"start": 0, "stop": n}},
        -BILLION,
        BILLION,
    ),
    "answer[0].id": (lambda n: attribute(target(token={"id": n, "text": ""})), -BILLION, BILLION),
}


def named(field: str) -> str:
    """Return a field's name in the failure: "neurons' k" and "suggestions' k" are both `k`."""
    return field.split("' ")[-1]


@pytest.mark.parametrize("field", LONGEST)
def test_a_field_at_its_maximum_length_is_accepted_and_a_longer_one_is_refused(ask, field):
    make, most, unit = LONGEST[field]
    for length in (most + 1, 10 * most):
        failure = ask(make(length))
        assert failure["code"] == "too-large"
        said = f"has {length:,} {unit}, and may have at most {most:,}"
        assert said in failure["message"]
        assert f"{named(field)}`" in failure["message"]
        assert len(failure["message"]) < 300
    fine = ask(make(most))
    assert fine.get("code") not in ("internal", "too-small", "too-large")
    assert "does not understand" not in fine.get("message", "")


@pytest.mark.parametrize("field", LARGEST)
def test_a_number_at_either_limit_is_accepted_and_one_beyond_it_refused(ask, field):
    make, least, most = LARGEST[field]
    for number in (least - 1, -(10**12), most + 1, 10**12, 10**400):
        failure = ask(make(number))
        assert failure["code"] == ("too-small" if number < least else "too-large")
        assert f"{named(field)}`" in failure["message"]
        limit = f"at least {least:,}" if number < least else f"at most {most:,}"
        assert f"must be {limit}" in failure["message"]
        if abs(number) <= 10**12:
            assert f"is {number:,}" in failure["message"]
        assert len(failure["message"]) < 300
    for number in (least, most):
        assert ask(make(number)).get("code") not in ("protocol", "internal", "too-small", "too-large")


@pytest.mark.parametrize(
    ("question", "code", "said"),
    [
        (lens(points=["1_pre", "1_pre"]), "points", "`1_pre` is requested twice"),
        (lens(points=["1_pre", "99_pre"]), "layer", "99"),
        (lens(points=["nowhere"]), "points", "no point"),
        (lens(start=4, stop=4), "position", "no positions 4 to 4"),
        (positions(["L0H0", "L0H0"]), "heads", "`L0H0` is requested twice"),
        (positions(["L0H99"]), "head", "L0H99"),
        (attribute(target(contrasts=3)), "answers-length", "3 answers were given for"),
    ],
    ids=["point twice", "no such layer", "no such point", "no positions", "head twice", "no such head", "answers"],
)  # fmt: skip
def test_fields_that_do_not_fit_this_model_are_refused_with_their_own_codes(ask, question, code, said):
    failure = ask(question)
    assert failure["code"] == code
    assert said in failure["message"]


def test_a_product_of_fields_that_is_too_large_is_refused(ask, monkeypatch):
    monkeypatch.setattr("residscope.serving.answer_views.LENS_TOKENS", 23)
    failure = ask(lens(points=["0_pre", "1_pre"], k=3))
    assert (failure["code"], failure["message"]) == (
        "too-large",
        "2 points × 4 positions × 3 tokens are 24 entries, and one request may list at most 23: request fewer "
        "points or positions at once.",
    )
    assert ask(lens(points=["0_pre", "1_pre"], k=2))["kind"] == "token-lens"
    monkeypatch.setattr("residscope.attribution.targets.TARGET_CELLS", 5)
    two = {"contrasts": [{"answer": [TOKEN] * 3, "distractor": []}, {"answer": [TOKEN], "distractor": []}]}
    failure = ask(attribute(two))
    assert failure["code"] == "too-large"
    assert "2 prompts × 3 tokens are 6, but a target may have at most 5" in failure["message"]


DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "message",
    [
        DEEP,
        {"id": DEEP, "ask": {"kind": "tokens"}},
        {"id": "1", "ask": DEEP},
        {"id": "1", "ask": {"kind": DEEP}},
        {"id": "1", "ask": {"kind": "tokens", "prompt": DEEP}},
        {"id": "1", "ask": {"kind": "attribute", "by": "head", "target": {"contrasts": DEEP}}},
        {"id": "1", "ask": {"kind": "caches"}, "cache": DEEP},
    ],
    ids=["whole message", "id", "ask", "kind", "prompt", "contrasts", "cache"],
)
def test_deep_nesting_gets_a_failure(message):
    answer, buffers = Dispatcher().answer(message)
    assert (answer["failure"]["code"], buffers) == ("protocol", [])


@pytest.mark.parametrize("text", ["[" * 100_000, '[{"id": ' * 50_000, "{", "5", "", '"ab"', "[null]"])
def test_a_text_that_is_not_a_list_of_requests_gets_a_failure(text, monkeypatch):
    sent: list[Any] = []
    monkeypatch.setattr("IPython.core.display_functions.display", lambda data, **_: sent.append(data[execute.MIME]))
    execute.answer(text, "token")
    (piece,) = sent
    assert json.loads(piece["text"])["answer"]["failure"]["code"] == "protocol"


def test_a_target_that_exceeds_a_limit_is_refused_when_the_trait_is_set():
    panel = residscope.inspect(tiny.run(tiny.boot("gpt2"))[2], 5, show=False)
    before = panel.wire_target
    with pytest.raises(residscope.ResidscopeError, match=r"has 10,001 entries, and may have at most 10,000"):
        panel.wire_target = target(tokens=10_001)
    assert panel.wire_target == before
    panel.close()


def test_the_schema_has_the_limits():
    from residscope.wire.protocol import schema

    definitions: Any = schema()["$defs"]
    assert definitions["ReadTokenLens"]["properties"]["k"] == {
        "default": 5,
        "minimum": 1,
        "maximum": 50,
        "type": "integer",
    }
    assert definitions["Target"]["properties"]["contrasts"]["maxItems"] == 65_536
    assert definitions["Question"]["properties"]["id"]["maxLength"] == 200
