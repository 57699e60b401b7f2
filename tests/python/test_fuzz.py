"""Ten thousand random requests, many of them invalid. Each gets a quick answer, and nothing is changed."""

from __future__ import annotations

import random
import resource
import time
import typing
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest
import torch

from residscope.serving.service import Service
from residscope.terms import Contrast, Target, Through, Token
from residscope.wire.caches import CacheRef
from residscope.wire.protocol import AnyRequest
from residscope.wire.shown import WriteCode, WritePage
from tests.support import tiny

REQUESTS = 10_000
SECONDS = 2.0
"""The longest processor time that a request may take. (Wall time depends on other programs.)"""
MEMORY = 64_000
"""Kilobytes by which the process may grow during the second half, when all memos are already full."""
NUMBERS = [0, 1, 2, 3, 5, 6, -1, -2, 7, 63, 64, 10**6, -(10**6), 10**9, 10**9 + 1, -(10**30), 2**63]
TEXTS = [
    "",
    "w5",
    " w5",
    "L0H0",
    "L1H3",
    "L9H9",
    "0_pre",
    "1_mid",
    "final_post",
    "<pad>",
    "é",
    "\ud800",
    "\x00",
    "a" * 300,
]
OTHERS = [None, True, 1.5, float("nan"), -3, "text", [], {}, [[]], {"kind": "x"}, [None], "1", b"x".decode()]
USUAL = {"prompt": [None, 0, 1, 2], "position": ["last", 0, 3, 6], "layer": [None, 0, 1, 2], "head": [0, 1, 3]} | {
    "destination": [3, 5, 6, "last"], "source": [0, 1, 2, 4], "versus": [0, 1, 3], "index": [0, 7, 39],
}  # fmt: skip


class Maker:
    """Makes random values of a type. Most are valid, others are extreme or of another type."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def request(self) -> Any:
        kind = self.dice.choice(get_args(AnyRequest))
        if kind is WritePage and self.dice.random() < 0.97:  # rare, because a page makes hundreds of requests
            kind = WriteCode
        return self.struct(kind)

    def struct(self, kind: Any) -> Any:
        if kind is Target and self.dice.random() < 0.7:  # otherwise hardly any target would be valid
            count = self.dice.choice([1, 1, 3])
            made = {"contrasts": [self.contrast() for _ in range(count)], "own": self.dice.random() < 0.2}
            if self.dice.random() < 0.3:
                made |= {"contrasts": [], "inner": self.value(get_type_hints(Target)["inner"])}
            if self.dice.random() < 0.2:
                made["through"] = [self.struct(Through) for _ in range(self.dice.choice([1, 1, 2]))]
            return made
        hints, fields = get_type_hints(kind, include_extras=True), {}
        for field in msgspec.structs.fields(kind):
            if field.required or self.dice.random() < 0.6:
                fields[field.encode_name] = self.value(hints[field.name], field.name)
            elif self.dice.random() < 0.01:
                fields[self.dice.choice(TEXTS)] = self.dice.choice(OTHERS)
        tag = kind.__struct_config__.tag
        return fields if tag is None else {kind.__struct_config__.tag_field: tag, **fields}

    def contrast(self) -> dict[str, Any]:
        sides = [[self.token() for _ in range(self.dice.choice(counts))] for counts in ((1, 1, 2), (0, 1, 2))]
        return {"answer": sides[0], "distractor": sides[1]}

    def token(self) -> dict[str, Any]:
        return {"id": self.dice.randrange(tiny.VOCAB), "text": self.dice.choice(TEXTS)}

    def value(self, kind: Any, name: str = "") -> Any:
        if self.dice.random() < 0.02:
            return self.dice.choice(OTHERS)
        origin, parts = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self.value(parts[0], name)
        if origin in (typing.Union, UnionType):
            return self.value(self.dice.choice(parts), name)
        if origin is Literal:
            return self.dice.choice(parts)
        if origin is list:
            return [self.value(parts[0]) for _ in range(self.dice.choice([0, 1, 1, 2, 3, 5]))]
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self.struct(kind)
        if kind is int:
            likely = USUAL.get(name, NUMBERS[:7])
            return self.dice.choice(likely if self.dice.random() < 0.8 else NUMBERS)
        return self.dice.choice({str: TEXTS, bool: [True, False], type(None): [None]}.get(kind, OTHERS))


def look(service: Service, message: Any) -> str | None:
    """Return the code of the failure, or None for a reply."""
    answered, buffers = service.answer(message)
    assert ("reply" in answered) != ("failure" in answered)
    msgspec.json.encode(answered)
    if "failure" not in answered:
        assert all(isinstance(buffer, bytes) for buffer in buffers)
        return None
    failure = answered["failure"]
    assert failure["code"] != "internal", (message, failure)
    assert failure["message"].rstrip().endswith((".", "?", ")")), failure
    return failure["code"]


@pytest.mark.parametrize("family", ["llama"])
def test_every_request_is_answered_quickly_and_changes_nothing(family: str):
    model = tiny.boot(family)
    _, logits, cache = tiny.run(model)
    service, make = Service(cache, logits=logits), Maker(20)
    before = {name: tensor.clone() for name, tensor in cache.items()}
    weights = {name: weight.clone() for name, weight in model.named_parameters()}
    versions = {name: tensor._version for name, tensor in cache.items()}
    hooks, grad = sum(len(m._forward_hooks) for m in model.modules()), torch.is_grad_enabled()
    codes: dict[str | None, int] = {}
    slowest, peaks = 0.0, list[int]()
    for number in range(REQUESTS):
        if number % (REQUESTS // 2) == 0:
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        message = {"id": str(number), "ask": make.request()}
        if make.dice.random() < 0.02:
            message = make.dice.choice([make.dice.choice(OTHERS), {**message, "id": make.dice.choice(OTHERS)}])
        if isinstance(message, dict) and make.dice.random() < 0.05:
            message["cache"] = make.value(CacheRef)
        began = time.thread_time()
        code = look(service, message)
        slowest = max(slowest, time.thread_time() - began)
        codes[code] = codes.get(code, 0) + 1
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert codes[None] > REQUESTS / 4, codes  # otherwise the test would see mostly refusals
    assert len(codes) > 6, codes
    assert slowest < SECONDS
    assert peaks[2] - peaks[1] < MEMORY, peaks
    assert list(cache.cache_dict) == list(before)
    for name, tensor in before.items():
        assert torch.equal(cache[name], tensor), name
        assert cache[name]._version == versions[name], name
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())
    assert (sum(len(m._forward_hooks) for m in model.modules()), torch.is_grad_enabled()) == (hooks, grad)


_EMPTY = Contrast([], [Token(5, "")])
_FIVE = Contrast([Token(5, "")], [])


@pytest.mark.parametrize("ask", ["page", "code", "attribute", "attention"])
@pytest.mark.parametrize("contrasts", [[], [_EMPTY], [_FIVE] * 2, [_FIVE] * 4, [_FIVE, _EMPTY, _FIVE]])
def test_an_invalid_target_is_refused_or_noted_by_every_request(ask: str, contrasts: list[Contrast]):
    target = msgspec.to_builtins(Target(contrasts))
    fields: dict[str, Any] = {
        "page": {"shown": {"target": target}},
        "code": {"shown": {"target": target}, "picture": "heads"},
        "attribute": {"target": target, "by": "head"},
        "attention": {"target": target, "layer": 0, "head": 0, "weighting": "contribution"},
    }[ask]
    model = tiny.boot("llama")
    answered, _ = Service(tiny.run(model)[2]).answer({"id": "1", "ask": {"kind": ask, **fields}})
    said = answered.get("failure") or {"code": "note", "message": "".join(answered["reply"]["notes"])}
    assert said["code"] in ("answers", "answers-length", "no-target", "note")
    assert "answer" in said["message"] or "token" in said["message"] or "3 prompts" in said["message"]
