"""A target that is written as a user would write it is read back as the same target, for any number of prompts."""

from __future__ import annotations

import ast
import copy
from functools import cache

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import residscope
from residscope.attribution.targets import as_answers
from residscope.export.python_source import literal
from residscope.serving.service import Service
from residscope.terms import AttentionScore, Contrast, NeuronInput, NextToken, Target, Through, Token
from residscope.wire.shown import Shown
from tests.support import tiny
from tests.support.copied import ran, written

STRANGE = [
    '"', "'", "\\", "\\n", "\n", "\t", "{", "(", "[", "{}", "5", "None", "é", "🙂", "\u2028", "\u202e", " ", " w9",
    "⟨E4⟩", "▁w7", "#7", "'\"", "�", "\x00",
]  # fmt: skip
"""Texts of tokens. Not all of them encode to their own token: `▁w7` is shown with a space."""


@cache
def model_with_strange_tokens():
    names = ["<pad>", "<s>", "</s>", *STRANGE]
    names += [f"w{i}" for i in range(len(names), tiny.VOCAB)]
    words = Tokenizer(models.WordLevel({name: id for id, name in enumerate(names)}, unk_token="<pad>"))
    model = copy.deepcopy(tiny.boot("llama"))
    model._tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<s>")
    return model


@cache
def service_of(prompts: int) -> Service:
    with torch.no_grad():
        ids = torch.arange(3, 3 + 5 * prompts).view(prompts, 5)
        return Service(model_with_strange_tokens().run_with_cache(ids)[1])


def tokens(ids: list[int]) -> list[Token]:
    return [service_of(1).targets().vocabulary.token(id) for id in ids]


sides = st.lists(st.integers(0, tiny.VOCAB - 1), min_size=1, max_size=4)
contrasts = st.builds(lambda a, b: Contrast(tokens(a), tokens(b)), sides, st.one_of(st.just([]), sides))
inner = st.one_of(
    st.builds(NeuronInput, st.integers(0, 2), st.integers(0, 39), st.sampled_from(["pre", "gate", "up"])),
    st.builds(
        AttentionScore, st.integers(0, 2), st.integers(0, 3), st.sampled_from([3, 4, "last"]), st.integers(0, 1),
        st.sampled_from([None, "most", "mean", 2]), st.sampled_from(["query", "key"]),
    ),
)  # fmt: skip
paths = st.sampled_from([[], [Through(0, 1, None)], [Through(0, 2, 3)]])


@st.composite
def targets(draw, prompts: int) -> Target:
    """A target of any form: one for all prompts, one for each, inside the model, the next token, or through a head."""
    kind = draw(st.sampled_from(["one", "each", "inner", "next"]))
    through = draw(paths)
    if kind == "inner":
        within = draw(inner)
        return Target([], inner=within, through=through if within.layer else [])
    if kind == "next":
        return Target([], next_token=NextToken(draw(st.sampled_from([None, "runner-up"]))))
    count = 1 if kind == "one" else prompts
    return Target(draw(st.lists(contrasts, min_size=count, max_size=count)), through=through)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data(), st.integers(1, 4))
def test_a_written_target_is_read_back_as_the_same_target(data, prompts):
    resolver, target = service_of(prompts).targets(), data.draw(targets(prompts))
    answers = as_answers(target, resolver.vocabulary)
    assert resolver.resolve(answers) == target
    if target.contrasts and not target.through:  # and as code, whose sets are in any order
        assert resolver.resolve(ast.literal_eval(literal(answers))) == target


@pytest.mark.parametrize("prompts", [1, 2, 3, 4])
def test_a_repeated_token_counts_twice_in_the_code_and_in_the_panel(prompts):
    service, cached = service_of(prompts), service_of(prompts).view()
    logits = cached.get("unembed.hook_out")[:, -1]
    for answers, ids, against in [
        ({"w40", 40, 41}, [40, 40, 41], []),
        (({"w40", 40, 41}, "w50"), [40, 40, 41], [50]),
        (("w50", ["w41", "w40", "w41"]), [50], [41, 40, 41]),
        ({("w41", "w40", "w41")}, [41, 40, 41], []),
    ]:
        expected = logits[:, ids].mean(-1) - (logits[:, against].mean(-1) if against else 0)
        if isinstance(answers, tuple) and any(isinstance(side, list) for side in answers):
            answers = [answers] * prompts  # alone it could be read as two columns
        target = service.targets().resolve(answers)
        values = ran(written(service, "layers", Shown(target)), cache=service.hold.get().cache)
        rows = residscope.attribute(service.hold.get().cache, answers, by="layer")
        torch.testing.assert_close(rows.measured, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.as_tensor(values), rows.values.mean(-1), atol=1e-5, rtol=1e-5)
        panel = residscope.inspect(service.hold.get().cache, answers)
        panel.target = panel.target
        again = residscope.attribute(service.hold.get().cache, panel.target)
        torch.testing.assert_close(again.measured, expected, atol=1e-5, rtol=1e-5)
        panel.close()


def test_a_direction_through_a_head_is_read_back_from_the_panel():
    cached = service_of(2).hold.get().cache
    direction = torch.randn(24, generator=torch.Generator().manual_seed(0))
    answers = residscope.targets.output("L1H2", of=direction, source=1)
    expected = residscope.attribute(cached, answers).measured
    panel = residscope.inspect(cached, answers)
    before = msgspec.convert(panel.wire_target, Target)
    panel.target = panel.target
    assert msgspec.convert(panel.wire_target, Target) == before
    torch.testing.assert_close(residscope.attribute(cached, panel.target).measured, expected)
    panel.close()


def test_a_set_is_read_in_one_order():
    """Python's order of a set of texts differs between kernels."""
    resolver = service_of(2).targets()
    for words in (["w40", "w33", "w60", 51], ["w60", 51, "w40", "w33"]):
        (contrast,) = resolver.resolve(set(words)).contrasts
        assert [token.id for token in contrast.answer] == [33, 40, 51, 60]
