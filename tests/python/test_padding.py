"""Padding. Expected: values of each prompt run alone. No value is wrong without a note."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import models

import residscope
from residscope import ResidscopeError
from residscope.cache import positions
from residscope.cache.padding import detected_padding, padding
from residscope.cache.padding_notes import ATTENDED_TO_PADDING
from residscope.cache.token_labels import token_labels
from residscope.cache.view import CacheView
from residscope.serving.service import Service
from tests.support import padded, tiny


def test_no_value_of_padded_prompts_is_silently_wrong():
    ways = padded.WAYS + padded.ONE
    silent = [
        (way, figure) for way in ways for figure, right, notes in padded.measured(way) if not (right or told(notes))
    ]
    assert silent == []


def told(notes):
    """Return whether notes name the number of padding tokens, their side (or text), and the argument to pass."""
    said = re.search(r"\d+ (trailing|leading|`)", " ".join(notes))
    return said is not None and "pass `attention_mask=`" in " ".join(notes)


def test_with_a_given_or_cached_mask_every_value_is_right():
    for way in padded.WAYS + padded.ONE:
        if way.masked:
            assert all(right and padded.named(way, notes) for _, right, notes in padded.measured(way)), way
        elif way.side == "right":  # tokens before the padding do not attend to it, with or without a mask
            assert all(right for _, right, _ in padded.measured(way, given=True)), way


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "not masked"])
@pytest.mark.parametrize("held", ["no ids", "one prompt"])
def test_without_ids_or_for_one_prompt_no_value_is_silently_wrong(side, masked, held):
    one = held == "one prompt"
    for way in padded.WAYS + padded.ONE:
        if (way.side, way.masked, way.special, way.filling) != (side, masked, "pad = eos", "pad"):
            continue
        for figure, right, notes in padded.measured(way, blind=not one, one=one):
            told_all = (
                padded.named(way, notes, one=one) if masked else right or told(notes) or UNKNOWN in " ".join(notes)
            )
            assert told_all, (way, figure, notes)
            assert right or not masked, (way, figure)


UNKNOWN = "padding cannot be determined"


def test_the_demo_model_padded_to_24_by_its_own_tokenizer(ioi):
    tokenizer = ioi.model.tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    batch = tokenizer(ioi.prompts, padding="max_length", max_length=24, return_tensors="pt")
    with torch.no_grad():
        _, cache = ioi.model.run_with_cache(batch["input_ids"])
    result = residscope.attribute(cache, ioi.answers)
    lengths = batch["attention_mask"].sum(1)
    for at, length in enumerate(lengths.tolist()):
        with torch.no_grad():
            logits = ioi.model(batch["input_ids"][at : at + 1, :length])[0, -1]
        answer, distractor = ioi.answer_tokens[at].tolist()
        assert float(result.measured[at]) == pytest.approx(float(logits[answer] - logits[distractor]), abs=2e-3)
    assert [round(x, 2) for x in result.measured[:2].tolist()] == [4.62, 3.67]
    assert "L23H3" in [name for name, _ in result.top(3)]
    assert any("treated as padded" in note for note in result.notes)


# --- single cases ----------------------------------------------------------------------------------------------------
@pytest.fixture
def model():
    return tiny.boot("llama")


def run(model, tokens, **options):
    with torch.no_grad():
        return model.run_with_cache(torch.tensor(tokens), **options)


def spelled(model, words):
    """Give some tokens other texts."""
    vocabulary = model.tokenizer.get_vocab() | {word: id for id, word in words.items()}
    for id in words:
        del vocabulary[f"w{id}"]
    model.tokenizer._tokenizer.model = models.WordLevel(vocabulary, unk_token="<pad>")


@pytest.mark.parametrize(
    ("rows", "pad", "last", "said"),
    [
        ([[1, 5, 6, 7, 8, 9], [1, 9, 10, 0, 0, 0]], 2, [5, 2], "treated as padded"),  # padded by `pad_sequence`
        ([[1, 5, 6, 7, 8, 9], [1, 9, 10, 0, 0, 0]], None, [5, 2], "treated as padded"),
        ([[1, 5, 6, 7], [1, 9, 10, 0]], 2, [3, 3], "treated as real"),
        ([[1, 5, 6, 7, 8, 9], [1, 9, 10, 30, 30, 30]], None, [5, 2], "treated as padded"),
        ([[1, 30, 6, 7, 8, 9], [1, 9, 10, 30, 30, 30]], None, [5, 5], "treated as real"),
        ([[1, 5, 6, 30, 30, 30]], None, [5], "treated as real"),
        ([[1, 5, 6, 7, 30]], 30, [4], "treated as real"),  # the padding token is an ordinary token of the prompt
        ([[1, 5, 6, 7, 2]], 2, [4], "treated as real"),
        ([[1, 5, 6, 7, 2, 2], [1, 9, 10, 2, 2, 2]], None, [3, 2], "treated as padded"),
        ([[1, 5, 6, 7, 2, 2], [1, 9, 10, 30, 30, 30]], 2, [3, 5], "2 trailing `</s>` were left out"),
        ([[1, 5, 6, 7], [1, 9, 10, 11]], 2, [3, 3], None),
        # tokens not declared as padding, with evidence: special tokens, punctuation, or an end unlike the other prompts
        ([[1, 5, 6, 7], [1, 9, 10, 2]], 0, [3, 3], "1 of 2 prompts ends with 1 `</s>`, unlike the others"),
        ([[1, 5, 6, 7], [1, 9, 10, 31]], 2, [3, 3], "1 of 2 prompts ends with 1 `.`, unlike the others"),
        ([[1, 5, 31, 7], [1, 31, 9, 31]], 2, [3, 3], "ends with 1 `.`"),
        ([[1, 5, 6, 7, 8], [1, 9, 6, 8, 30], [1, 10, 6, 8, 30]], 2, [4] * 3, "2 of 3 prompts end with 1 `w30` each"),
        ([[1, 5, 6, 7], [1, 9, 10, 30], [1, 11, 12, 30]], 2, [3] * 3, "2 of 3 prompts end with 1 `w30` each"),
        ([[1, 5, 6, 7, 8], [1, 9, 10, 30, 30], [1, 9, 5, 6, 30]], 2, [4] * 3, "2 of 3 prompts end with 2 and 1 `w30`"),
        ([[1, 5, 6, 7, 8], [1, 9, 10, 1, 1]], 0, [4, 4], "1 of 2 prompts ends with 2 `<s>`"),
        ([[1, 5, 6, 7], [1, 9, 10, 1]], 0, [3, 3], "1 of 2 prompts ends with 1 `<s>`"),
        # usual prompts of the same length, without evidence
        ([[1, 5, 6, 31], [1, 9, 10, 31]], 2, [3, 3], None),
        ([[1, 5, 6, 31], [1, 9, 10, 33]], 2, [3, 3], None),
        ([[1, 5, 6, 7], [1, 9, 10, 32], [1, 11, 12, 32]], 2, [3] * 3, None),
        ([[1, 5, 6, 7], [1, 9, 10, 30], [1, 30, 12, 30]], 2, [3] * 3, None),
        ([[1, 5, 6, 7], [1, 9, 6, 7]], 2, [3, 3], None),
        ([[1, 5, 9, 30], [1, 6, 10, 40], [1, 7, 11, 30], [1, 8, 12, 40]], 2, [3] * 4, None),
        ([[1, 5, 6, 2], [1, 9, 10, 2]], 0, [3, 3], None),
        ([[2, 2, 2]], 2, [2], "nothing but `</s>`"),
        ([[1, 5, 6, 7, 8, 9, 2], [1, 9, 10, 2, 0, 0, 0]], 2, [6, 3], "3 trailing `<pad>` were left out"),
        ([[1, 5, 6, 7, 2], [1, 8, 9, 5, 2]], 2, [4, 4], "2 of 2 prompts end with 1 `</s>` each"),
    ],
)
def test_repeated_tokens_at_the_end(model, rows, pad, last, said):
    model.tokenizer.pad_token_id, model.tokenizer.eos_token_id = pad, 2
    spelled(model, {31: ".", 32: "▁the", 33: "?"})
    if pad == 30:
        model.tokenizer.pad_token = "w30"
    cache = run(model, rows)[1]
    result = residscope.attribute(cache, 11)
    assert padding(CacheView(cache)).last == last
    assert (said in " ".join(result.notes)) if said else result.notes == []


def test_without_a_tokenizer_repeated_tokens_show_padding(model):
    cache = run(model, [[1, 5, 6, 7, 8, 9], [1, 9, 10, 30, 30, 30]])[1]
    model.tokenizer = None
    assert padding(CacheView(cache)).last == [5, 2]


def test_a_doubled_bos_is_not_padding(model):
    model.tokenizer.pad_token_id = model.tokenizer.bos_token_id = model.tokenizer.eos_token_id = 2
    cache = run(model, [[2, 2, 9, 10, 9, 10]])[1]
    found = residscope.scores(cache, "first", 0)
    assert any("both BOS and the padding token" in note for note in found.notes)
    torch.testing.assert_close(found.values[1], cache["pattern", 1][0][:, 1:, 0].mean(1))
    assert "the padding, and the values are those of this run" in residscope.attribute(cache, 11).notes[0]


@pytest.mark.parametrize(
    ("rows", "special", "side", "first", "said"),
    [
        # each prompt begins with one token that is both BOS and padding, as in GPT-2, without and with evidence
        ([[2, 5, 6, 7], [2, 9, 10, 11]], (2, 2, 2), "right", [0, 0], None),
        ([[2, 5, 6, 7], [2, 9, 10, 11]], (2, 2, 2), "left", [0, 0], "2 of 2 prompts begin with 1 `</s>` each"),
        ([[1, 5, 6, 7], [1, 9, 10, 11]], (1, 1, 2), "right", [0, 0], "2 of 2 prompts begin with 1 `<s>` each"),
        ([[1, 5, 6, 7], [1, 9, 10, 1]], (1, 1, 2), "right", [0, 0], "trailing"),  # the padding is on the other side
        ([[1, 5, 6, 7], [1, 9, 10, 11]], (0, 1, 2), "left", [0, 0], None),
        # one token of another kind before some of the prompts
        ([[1, 5, 6, 7], [30, 1, 9, 10]], (2, 1, 2), "right", [0, 1], "1 of 2 prompts was treated as padded"),
        ([[30, 1, 5, 6], [30, 1, 9, 10]], (2, 1, 2), "right", [0, 0], None),
        ([[5, 6, 7, 8], [0, 9, 10, 11]], (2, 1, 2), "right", [0, 0], "1 of 2 prompts begins with 1 `<pad>`"),
        ([[5, 6, 7, 8], [31, 9, 10, 11]], (2, 1, 2), "right", [0, 0], "1 of 2 prompts begins with 1 `.`"),
        ([[5, 6, 7, 8], [1, 9, 10, 11]], (0, 1, 2), "right", [0, 0], "1 of 2 prompts begins with 1 `<s>`"),
        ([[5, 6, 7, 8], [30, 9, 10, 11], [30, 12, 13, 14]], (2, 1, 2), "right", [0, 0, 0], None),
    ],
)
def test_repeated_tokens_at_the_start(model, rows, special, side, first, said):
    tokenizer = model.tokenizer
    tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id = special
    tokenizer.padding_side = side
    spelled(model, {31: "."})
    cache = run(model, rows)[1]
    assert padding(CacheView(cache)).first == first
    for found in (residscope.scores(cache, "first"), residscope.attribute(cache, 11)):
        assert (said in " ".join(found.notes)) if said else found.notes == []


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("special", padded.SPECIAL)
def test_a_full_prompt_beside_a_padded_one_shows_what_is_padding(model, special, side):
    """Neither prompt has BOS or EOS of its own, so the padding token is always padding, even if it is BOS or EOS."""
    tokenizer, full = model.tokenizer, [5, 6, 7, 8, 9, 10]
    pad, tokenizer.bos_token_id, tokenizer.eos_token_id = padded.SPECIAL[special]
    tokenizer.pad_token_id, tokenizer.padding_side = pad, side
    for count, turn in ((1, 1), (1, -1), (2, 1), (4, -1)):
        short, fill = [11, 12, 13, 14, 15][: 6 - count], [pad] * count
        rows = [full, [*short, *fill] if side == "right" else [*fill, *short]][::turn]
        ends = [(0, 5), (0, 5 - count) if side == "right" else (count, 5)][::turn]
        logits, cache = run(model, rows)
        found = padding(CacheView(cache))
        assert list(zip(found.first, found.last, strict=True)) == ends
        result = residscope.attribute(cache, (21, 22), by="layer")
        true = torch.stack([logits[at, end, 21] - logits[at, end, 22] for at, (_, end) in enumerate(ends)])
        torch.testing.assert_close(result.measured, true, atol=1e-5, rtol=1e-5)
        for at, (first, last) in enumerate(ends):
            real = cache["pattern", 1][at, :, first : last + 1, first : last + 1]
            found = residscope.scores(cache, "first", at).values[1]
            torch.testing.assert_close(found, real[:, 1:, 0].mean(-1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("special", ["pad = bos", "pad = bos = eos", "bos = eos", "all differ"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_first_token_is_the_prompts_own_bos(model, special, side):
    """All prompts begin with BOS, and one of them may be padded on the right."""
    tokenizer = model.tokenizer
    pad, bos, tokenizer.eos_token_id = padded.SPECIAL[special]
    tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.padding_side = pad, bos, side
    for more in (0, 1, 3):
        cache = run(model, [[bos, 5, 6, 7, 8, 9], [bos, 10, 11, 12, 13, 14][: 6 - more] + [pad] * more])[1]
        assert padding(CacheView(cache)).first == [0, 0]
        for at, last in enumerate([5, 5 - more]):
            true = cache["pattern", 2][at, :, 1 : last + 1, 0].mean(-1)
            torch.testing.assert_close(residscope.scores(cache, "first", at).values[2], true, atol=1e-6, rtol=1e-5)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_given_mask_determines_first_and_last_exactly(model, data):
    batch, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 7))
    row = st.lists(st.integers(0, 1), min_size=width, max_size=width).filter(any)
    mask = data.draw(st.lists(row, min_size=batch, max_size=batch))
    tokens = [[data.draw(st.sampled_from([0, 1, 2, 30, 31])) for _ in range(width)] for _ in range(batch)]
    logits, cache = run(model, tokens)
    view = CacheView(cache, attention_mask=mask)
    ends = [width - 1 - real[::-1].index(1) for real in mask]
    assert (positions.first(view), positions.last(view)) == ([real.index(1) for real in mask], ends)
    result = residscope.attribute(cache, (21, 22), by="layer", attention_mask=mask)
    true = torch.stack([logits[at, end, 21] - logits[at, end, 22] for at, end in enumerate(ends)])
    torch.testing.assert_close(result.measured, true, atol=1e-5, rtol=1e-5)
    holes = any(0 in real[real.index(1) : end + 1] for real, end in zip(mask, ends, strict=True))
    assert any("zeros between ones" in note for note in result.notes) == holes


@pytest.mark.parametrize(
    ("position", "said"),
    [
        *((at, f"Position {at % 6} is padding in 1 of 3") for at in (0, 1, -6, 4, 5, -1)),
        *((at, None) for at in (2, 3, -3)),
    ],
)
def test_a_view_says_if_a_mean_at_one_position_leaves_out_padding(model, position, said):
    cache = run(model, [[1, 5, 6, 7, 8, 9], [0, 0, 1, 9, 10, 11], [1, 12, 13, 14, 0, 0]])[1]
    service = Service(cache)
    for by in ("head", "layer", "accumulated"):
        ask = {"kind": "attribute", "by": by, "target": TARGET, "position": position}
        notes = service.answer({"id": "1", "ask": ask})[0]["reply"]["notes"]
        assumed = [note for note in notes if "1 of 3 prompts was treated as padded" in note]
        own = [note for note in notes if note != ATTENDED_TO_PADDING and note not in assumed]  # this run had no mask
        assert [str(said) in note for note in own] == [True] * bool(said)
        assert len(assumed) == 2 * bool(said)  # one note for each side
        assert service.answer({"id": "1", "ask": ask | {"prompt": 0}})[0]["reply"]["notes"] == []


@pytest.mark.parametrize("family", ["llama", "mistral-window", "gemma2", "gpt_oss", "native", "falcon-alibi"])
@pytest.mark.parametrize("blind", [False, True], ids=["ids", "no ids"])
def test_a_cached_mask_is_read_exactly_and_a_window_is_not_taken_for_a_mask(family, blind):
    model = tiny.boot(family)
    rows = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 30], [30, 30, 30, 9, 10, 11, 12, 13], [5, 6, 7, 8, 30, 30, 30, 30]])
    mask = torch.ones_like(rows)
    mask[1, :3] = mask[2, 4:] = 0
    with torch.no_grad():
        _, cache = model.run_with_cache(rows, attention_mask=mask)
        _, plain = model.run_with_cache(rows[:1])
    held = {n: t for n, t in cache.items() if n not in ("embed.hook_in", "hook_embed")} if blind else cache
    found = padding(CacheView(held, model=model))
    assert (found.first, found.last) == ([0, 3, 0], [7, 7, 3])
    assert padding(CacheView(plain)).count == 0


@pytest.mark.parametrize(
    ("row", "mask", "ends", "said"),
    [
        ([1, 5, 6, 33, 34, 35], [1, 1, 1, 0, 0, 0], (0, 2), "3 trailing tokens … ends at position 2."),
        ([33, 34, 35, 1, 5, 6], [0, 0, 0, 1, 1, 1], (3, 5), "3 leading tokens … begins at position 3."),
        ([0, 0, 2, 1, 5, 6], [0, 0, 0, 1, 1, 1], (3, 5), "3 leading tokens … begins at position 3."),
    ],
)  # fmt: skip
def test_a_cached_mask_is_read_for_any_masked_tokens(model, row, mask, ends, said):
    rows, masks = [row, [1, 9, 10, 11, 12, 13]], torch.tensor([mask, [1] * 6])
    cache = run(model, rows, attention_mask=masks)[1]
    alone = run(model, [row[ends[0] : ends[1] + 1]])
    result = residscope.attribute(cache, (21, 22), by="layer")
    assert float(result.measured[0]) == pytest.approx(float(alone[0][0, -1, 21] - alone[0][0, -1, 22]), abs=1e-4)
    [note] = result.notes
    assert all(part in note for part in said.split(" … "))
    wanted = residscope.scores(alone[1], "first").values
    torch.testing.assert_close(residscope.scores(cache, "first", 0).values, wanted, atol=1e-5, rtol=0)
    [other] = residscope.attribute(cache, 5, by="layer", attention_mask=torch.ones(2, 6)).notes
    shown = f"{ends[0]} to {ends[1]} according to the cached attention"
    assert f"positions 0 to 5 according to `attention_mask=`, but {shown}" in other


@pytest.mark.parametrize("held", ["all", "a layer", "a head"])
def test_attention_that_rounds_to_zero_is_not_taken_for_a_mask(held):
    model = copy.deepcopy(tiny.boot("native-attention-only"))
    with torch.no_grad():
        for block in model.blocks:
            for weight in (*block.attn.q.parameters(), *block.attn.k.parameters()):
                weight.mul_(60)
    either = 0
    for seed in range(30):
        cache = run(model, torch.randint(3, 64, (2, 6), generator=torch.Generator().manual_seed(seed)).tolist())[1]
        for name in [name for name in cache.cache_dict if name.endswith("hook_pattern")]:
            if held != "all" and ".0." not in name:
                del cache.cache_dict[name]
            elif held == "a head":
                cache.cache_dict[name] = cache.cache_dict[name][:, :1]
        found = padding(CacheView(cache))
        assert found.count == 0
        either += any("This may be a mask, or the attention to them may be so small" in note for note in found.notes)
    assert either > 0


def test_without_ids_every_mean_over_prompts_says_that_padding_is_unknown(model):
    tokens = torch.tensor([[1, 5, 6, 0, 0], [1, 9, 10, 11, 12]])
    cache = run(model, tokens.tolist(), names_filter=lambda name: name.endswith("hook_pattern"))[1]
    service = Service(cache)
    shown = [
        residscope.scores(cache, "first").notes,
        residscope.attention(cache, "1.1").notes,
        *(
            service.answer({"id": "1", "ask": ask})[0]["reply"]["notes"]
            for ask in (
                {"kind": "scores", "score": "first"},
                {"kind": "attention", "layer": 1, "head": 1, "prompt": None, "target": TARGET},
                {"kind": "thumbnails", "layer": 1, "side": 8, "prompt": None, "target": TARGET},
                {"kind": "blend", "layer": 1, "prompt": None, "target": TARGET},
            )
        ),
    ]
    assert all("padding cannot be determined" in " ".join(notes) for notes in shown), shown
    assert residscope.scores(cache, "first", tokens=tokens[1:].repeat(2, 1)).notes == []


@pytest.mark.parametrize("position", [-1, [-1, -1], [2, -1]])
def test_a_position_from_the_end_on_padding_has_a_note(model, position):
    cache = run(model, [[1, 5, 6, 7, 8], [1, 9, 10, 0, 0]])[1]
    found = [
        residscope.attribute(cache, 11, by="layer", position=position),
        residscope.attribute_many([(cache, 11)], by="layer", position=position, progress=False),
        *([residscope.token_lens(cache, 11, positions=[position])] if position == -1 else []),
    ]
    assert all("−1` is on padding in 1 of 2 prompts" in " ".join(one.notes) for one in found)
    for fits in (2, -3, [-1, 2], [-1, -3]):
        assert residscope.attribute(cache, 11, by="layer", position=fits).notes == []


@pytest.mark.parametrize(
    ("rows", "pad", "position", "said"),
    [
        ([[5, 6, 7, 2, 2], [9, 10, 2, 2, 2]], 2, 2, "The first of them may be a prompt's own end of text"),
        ([[5, 6, 7, 2], [9, 10, 2, 2]], 2, 2, "if these prompts have no end of text of their own"),
        ([[5, 6, 7, 8], [9, 10, 0, 0]], 0, 3, "2 trailing `<pad>` were left out"),
        ([[5, 6, 7, 8], [9, 10, 0, 0]], 0, 1, None),  # a token of every prompt
        ([[1, 5, 6, 7], [30, 1, 9, 10]], 2, 0, "1 leading `w30` was left out"),
        ([[5, 6, 7, 8], [9, 10, 30, 30]], 2, 3, "they were treated as real"),
        (None, 2, 3, "padding cannot be determined"),
    ],
)
def test_a_mean_at_one_position_says_what_was_assumed(model, rows, pad, position, said):
    model.tokenizer.pad_token_id = pad
    blind = {"names_filter": lambda name: "embed" not in name} if rows is None else {}
    cache = run(model, rows or [[5, 6, 7, 8], [9, 10, 11, 12]], **blind)[1]
    service = Service(cache)
    ask = {"kind": "attribute", "by": "layer", "target": TARGET, "position": position}
    of_both = {"kind": "head-tokens", "layer": 1, "head": 1, "prompt": None, "position": position}
    for notes, count in (
        (residscope.attribute(cache, 11, by="layer", position=position).notes, 1),
        (residscope.compare(cache, cache, 11, by="layer", position=position).notes, 1),
        *((service.answer({"id": "1", "ask": one})[0]["reply"]["notes"], 1) for one in (ask, of_both)),
        (service.answer({"id": "1", "ask": ask | {"prompt": 0}})[0]["reply"]["notes"], 0),
    ):
        about = [note for note in notes if "treated as" in note or "cannot be determined" in note]
        assert [str(said) in note for note in about] == [True] * count * bool(said), notes
        assert len(set(notes)) == len(notes)


@pytest.mark.parametrize(("side", "real"), [("right", [0, 1, 2]), ("left", [2, 3, 4])])
def test_a_mean_with_padding_on_one_side_has_a_note_and_others_do_not(model, side, real):
    mask = [[1] * 5, [1, 1, 1, 0, 0] if side == "right" else [0, 0, 1, 1, 1]]
    cache = run(model, [[1, 5, 6, 7, 8], [9, 10, 11, 12, 13]], attention_mask=torch.tensor(mask))[1]
    service = Service(cache, attention_mask=mask)
    ask = {"kind": "positions", "by": "layer", "target": TARGET}

    def told(notes):
        return sum(note.startswith("1 of 2 prompts are padded: ") for note in notes)

    for prompt in (None, 0, 1):
        found = [
            residscope.attention(cache, "1.1", prompt=prompt, attention_mask=mask).notes,
            residscope.token_lens(cache, 11, prompt=prompt, attention_mask=mask).notes,
            service.answer({"id": "1", "ask": ask | {"prompt": prompt}})[0]["reply"]["notes"],
        ]
        assert [told(notes) for notes in found] == [prompt is None] * 3
    for at in range(5):
        notes = residscope.token_lens(cache, 11, positions=at, attention_mask=mask).notes
        assert told(notes) == (at not in real)


@pytest.mark.parametrize("kind", ["list", "numpy", "bool", "batch"])
def test_a_mask_may_have_any_usual_form(model, kind):
    logits, cache = run(model, [[5, 6, 7, 8], [9, 10, 11, 12]])
    listed = [[1, 1, 1, 0], [0, 1, 1, 1]]
    given = {"list": listed, "numpy": np.array(listed), "bool": torch.tensor(listed).bool()}
    mask = given.get(kind, {"attention_mask": torch.tensor(listed)})
    result = residscope.attribute(cache, (21, 22), by="layer", attention_mask=mask)
    wanted = [logits[at, end, 21] - logits[at, end, 22] for at, end in enumerate([2, 3])]
    torch.testing.assert_close(result.measured, torch.stack(wanted))
    [note] = result.notes
    assert "was run without a mask over the leading padding" in note
    many = residscope.attribute_many([(cache, (21, 22), {"attention_mask": mask})], by="layer", progress=False)
    torch.testing.assert_close(many.measured, result.measured)
    view = CacheView(cache, attention_mask=mask)
    assert [label.padding for label in token_labels(view, 1)] == [True, False, False, False]
    part = view.only(range(1, 2))
    assert part.attention_mask.tolist() == listed[1:]
    assert detected_padding(part).first == padding(part).first == [1]


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ([[1, 1, 1]], "has the shape [1, 3], but the cache holds 2 prompts of 4 positions"),
        ([[1, 1, 1, 1], [0, 0, 0, 0]], "masks all of prompt 1"),
        ([[1, 1, 1, 1], [0, 2, 1, 1]], "1 for each real token and 0 for padding"),
        ("right", "was given a str"),
    ],
)
def test_a_wrong_mask_is_refused(model, mask, said):
    cache = run(model, [[5, 6, 7, 8], [9, 10, 11, 12]])[1]
    for ask in (
        lambda: residscope.attribute(cache, 5, attention_mask=mask),
        lambda: residscope.scores(cache, "previous", attention_mask=mask),
        lambda: residscope.inspect(cache, 5, attention_mask=mask, show=False),
    ):
        with pytest.raises(ResidscopeError) as error:
            ask()
        assert said in str(error.value)


def test_zeros_inside_a_mask_have_a_note(model):
    cache = run(model, [[5, 6, 7, 8]])[1]
    [note] = residscope.attribute(cache, 5, by="layer", attention_mask=[[1, 0, 1, 0]]).notes
    assert "zeros between ones in the prompt" in note


def test_the_tokenizer_is_read_each_time(model):
    cache = run(model, [[1, 5, 6, 7, 8], [1, 9, 10, 3, 3]])[1]
    view = CacheView(cache)
    model.tokenizer.pad_token = None
    assert padding(view).last == [4, 4]
    model.tokenizer.pad_token = "w3"
    assert padding(view).last == [4, 2]


def test_many_items_have_one_note_on_padding(model):
    model.tokenizer.pad_token_id = 2
    caches = [run(model, [[1, 5, 6, 7, *[2] * count]])[1] for count in (2, 3)]
    [note] = residscope.attribute_many(caches, 11, by="layer", progress=False).notes
    assert "treated as padded" in note
    assert note.startswith("2 items (0, 1), such as item 0: ")


def test_a_note_on_many_prompts_is_short(model):
    model.tokenizer.pad_token_id = 2
    rows = [[1, *[5 + at % 40] * 2, *range(6, 6 + at % 7), *[2] * (9 - at % 7)] for at in range(40)]
    [note] = residscope.attribute(run(model, rows)[1], 11, by="layer").notes
    assert len(note) < 400
    assert "3 to 9 trailing `</s>` (" in note


TARGET = {"contrasts": [{"answer": [{"id": 21, "text": ""}], "distractor": [{"id": 22, "text": ""}]}]}
PADDED = [[1, 5, 6, 7, 8, 2, 2, 2], [1, 9, 10, 2, 2, 2, 2, 2]]


@pytest.fixture
def padded_run(model):
    model.tokenizer.pad_token_id = model.tokenizer.eos_token_id = 2
    return run(model, PADDED)


@pytest.mark.parametrize(
    "request_",
    [
        {"kind": "attribute", "by": "layer", "target": TARGET},
        {"kind": "neurons", "target": TARGET},
        {"kind": "positions", "by": "layer", "target": TARGET},
        {"kind": "token-lens", "points": ["final_post"], "start": 0, "stop": 2, "target": TARGET},
        {"kind": "scores", "score": "first"},
    ],
    ids=lambda request: request["kind"],
)
def test_every_reply_has_the_note_on_padding(padded_run, request_):
    said = Service(padded_run[1]).answer({"id": "1", "ask": request_})[0]["reply"]["notes"]
    assert "treated as padded" in " ".join(said)


def test_a_panel_can_count_padding_as_real_tokens_and_its_code_does_so_too(padded_run):
    logits, cache = padded_run
    panel = residscope.inspect(cache, (21, 22), show=False)
    service = panel._service

    def ask(**fields):
        reply = service.answer({"id": "1", "ask": fields})[0]
        assert reply.get("failure") is None, reply
        return reply["reply"]

    def measured(**fields):
        return ask(kind="attribute", by="layer", target=panel.wire_target, **fields)["measured"]

    def true(ends):
        return float(torch.stack([logits[at, end, 21] - logits[at, end, 22] for at, end in enumerate(ends)]).mean())

    facts = ask(kind="describe")
    assert (facts["last"], facts["padding"], panel.position) == ([4, 2], 8, "last")
    assert measured() == pytest.approx(true([4, 2]), abs=1e-5)
    panel.padding = "none"
    assert panel.position == 7
    assert measured(padding="none") == pytest.approx(true([7, 7]), abs=1e-5)
    assert measured() == pytest.approx(true([4, 2]), abs=1e-5)  # the memoised result for "none" is not used
    assert ask(kind="describe", padding="none")["padding"] == 8
    labels = ask(kind="tokens", prompt=0, padding="none")["tokens"]
    assert not any(label["padding"] for label in labels)
    from residscope.wire.shown import WriteCode

    for picture in ("layers", "heads"):
        code = service.reply(WriteCode(picture, panel.shown))[0].code
        assert "attention_mask=[[1] * 8] * 2" in code
        names = {"cache": cache}
        exec(compile(code, "cell", "exec"), names)
        assert float(names["attribution"].measured.mean()) == pytest.approx(true([7, 7]), abs=1e-5)
    panel.padding = "found"
    assert panel.position == "last"
    assert "attention_mask" not in service.reply(WriteCode("layers", panel.shown))[0].code
    panel.close()
