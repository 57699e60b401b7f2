"""Segments. Expected: ranges found by hand, and sums over cells in float64."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import residscope
from residscope import ResidscopeError, targets
from tests.support import tiny

PIECES = ["<pad>", "<s>", "</s>"]  # padding, BOS and EOS have ids 0, 1 and 2, as in the tiny models


class Texts:
    """A tokenizer with three special tokens and the given tokens: texts, or bytes of a part of a character."""

    pad_token_id, bos_token_id, eos_token_id, unk_token_id = 0, 1, 2, None

    def __init__(self, *pieces: str | bytes, special: tuple[str, ...] = ()) -> None:
        self.pieces = [*PIECES, *dict.fromkeys(pieces)]
        names = (*PIECES, *special)
        self.added_tokens_decoder = {self.pieces.index(name): SimpleNamespace(special=True) for name in names}

    def encode(self, text: str) -> list[int]:
        return [self.pieces.index(text)] if text in self.pieces else []

    def decode(self, ids: list[int]) -> str:
        piece = self.pieces[ids[0]] if ids[0] < len(self.pieces) else f"w{ids[0]}"
        return piece if isinstance(piece, str) else piece.decode(errors="replace")

    def decode_single_token_bytes(self, id: int) -> bytes:
        piece = self.pieces[id]
        return piece if isinstance(piece, bytes) else piece.encode()


@pytest.fixture
def written(booted, monkeypatch):
    """A function that returns the cache of a prompt with the given tokens."""
    model = booted("llama")[0]

    def cached(*pieces: str | bytes, special: tuple[str, ...] = ()):
        tokenizer = Texts(*pieces, special=special)
        monkeypatch.setattr(model, "_tokenizer", tokenizer)  # a bridge's setter accepts only Hugging Face tokenizers
        tokens = torch.tensor([[tokenizer.pieces.index(piece) for piece in pieces]])
        with torch.no_grad():
            return model.run_with_cache(tokens)[1]

    return cached


def cut(segments) -> list[tuple[str, int, int]]:
    return [(segment.name, segment.start, segment.end) for segment in segments]


SENTENCES = [
    ([" Hi", ".", " You", " are", "?!", " Yes"], [(0, 2), (2, 5), (5, 6)]),
    (["Hi", ".", "\n\n", "Dr", ".", " No", " e", ".", "g", ".", " 3", ".", "5", "."], [(0, 3), (3, 14)]),
    (["A", " title", "\n\n", "A", " line", "\n", "of", " it", "."], [(0, 3), (3, 9)]),
    (["你", b"\xe3", b"\x80", b"\x82", "好"], [(0, 4), (4, 5)]),  # the bytes of 。 are three tokens
    (["He", ' said "', "No", '."', " So", "."], [(0, 4), (4, 6)]),
    (["one", " segment"], [(0, 2)]),
    (["1", ".", " One", ".\n", "2", ".", " Two"], [(0, 4), (4, 7)]),
    (["a", ". B"], [(0, 2)]),  # a token in which a sentence ends belongs to this sentence
    ([b"\xff", "a", ".", b"\xe3", " b"], [(0, 5)]),  # invalid bytes; no white space follows "."
]


@pytest.mark.parametrize(("pieces", "ranges"), SENTENCES, ids=range(len(SENTENCES)))
def test_sentences_end_at_punctuation_and_blank_lines(written, pieces, ranges):
    found = residscope.segments(written(*pieces), by="sentence")
    assert [(start, end) for _, start, end in cut(found)] == ranges


def test_empty_lines_belong_to_the_line_before(written):
    cache = written("<s>", "\n", "one", " two", "\n", "\n", "  ", "three", "\n\n", "four")
    found = residscope.segments(cache, by="line")
    expected = [("<s>", 0, 1), ("…", 1, 2), ("one two", 2, 6), ("three", 6, 9), ("four", 9, 10)]
    assert cut(found) == expected
    assert [segment.named for segment in found] == [False, False, True, True, True]


CHATS = {
    "chatml": (
        ["<|im_start|>", "user", "\n", "Hi", "<|im_end|>", "\n", "<|im_start|>", "assistant", "\n", "Yo", "<|im_end|>"],
        [("user", 0, 6), ("assistant", 6, 11)],
    ),
    "last turn without an end": (
        ["<|im_start|>", "user", "\n", "Hi", "<|im_end|>", "\n", "<|im_start|>", "assistant", "\n", "Yo", " man"],
        [("user", 0, 6), ("assistant", 6, 11)],
    ),
    "llama 3": (
        ["<s>", "<|start_header_id|>", "user", "<|end_header_id|>", "\n\n", "Hi", "<|eot_id|>", "<|start_header_id|>",
         "assist", "ant", "<|end_header_id|>", "\n\n", "Yo", "<|eot_id|>"],
        [("<s>", 0, 1), ("user", 1, 7), ("assistant", 7, 14)],
    ),
    "role tokens": (
        ["<|user|>", "\n", "Hi", "<|end|>", "<|assistant|>", "Yo", "<|end|>", "<|user|>", "Oh", "</s>", "more"],
        [("user", 0, 4), ("assistant", 4, 7), ("user (2)", 7, 10), ("…", 10, 11)],
    ),
    "a start token within a turn": (
        ["<|im_start|>", "user", "\n", "Hi", "<|im_start|>", " users", "?", "<|im_end|>", "<|im_start|>", "tool", "\n"],
        [("user", 0, 8), ("tool", 8, 11)],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("pieces", "expected"), CHATS.values(), ids=CHATS)
def test_turns_are_found_by_the_special_tokens_of_any_template(written, pieces, expected):
    special = tuple({piece for piece in pieces if piece.startswith("<") and piece not in PIECES})
    assert cut(residscope.segments(written(*pieces, special=special), by="turn")) == expected


def test_tags_are_outermost_pairs_and_special_tokens_are_not_tags(written):
    cache = written("<s>", "a", "<", "think", ">", "b", "<i>", "c", "</i>", "</think", ">\n", "d", "</s>")
    assert cut(residscope.segments(cache, by="tag")) == [
        ("<s>", 0, 1), ("…", 1, 2), ("think", 2, 11), ("…", 11, 13),
    ]  # fmt: skip
    open_end = residscope.segments(written("a", "<think>", "b", "<br>", "c"), by="tag")
    assert cut(open_end) == [("…", 0, 1), ("think", 1, 5)]
    assert any("`<think>` is not closed" in note for note in open_end.notes)
    with pytest.raises(ResidscopeError, match="No tags were found"):
        residscope.segments(written("<s>", "a", "<br>", "</s>"), by="tag")


def test_tokens_outside_all_ranges_are_segments_without_a_name(written):
    cache = written("<s>", "a", "b", "c", "d", "e")
    found = residscope.segments(cache, by=[("end", 4, 5), ("begin", 1, 3)])
    assert cut(found) == [("<s>", 0, 1), ("begin", 1, 3), ("…", 3, 4), ("end", 4, 5), ("…", 5, 6)]
    assert [segment.named for segment in found] == [False, True, False, True, False]
    assert (found.find("end"), found.find(-1), found.at(3)) == (3, 4, 2)
    with pytest.raises(ResidscopeError, match="2 segments have the name “…” \\(2, 4\\): give the index"):
        found.find("…")
    with pytest.raises(ResidscopeError, match="There is no segment “start”"):
        found.find("start")


WRONG = [
    ([("a", 0, 3), ("b", 2, 4)], "“a” \\(0 to 3\\) and “b” \\(2 to 4\\) overlap"),
    ([("a", 3, 3)], "“a” \\(3 to 3\\) is empty"),
    ([("a", 4, 2)], "is empty"),
    ([("a", 5, 8)], "outside the prompt: it has 7 positions"),
    ([("a", -2, 3)], "outside the prompt"),
    ([("a", 0, 7)], "has padding: the real tokens of prompt 1 are those from 0 to 4"),
    ([(3, 0, 2)], "3 is not a name for a segment"),
    ([("", 0, 2)], "not a name"),
    ([("a", 0.5, 2)], "must be whole numbers"),
    ([("a", True, 2)], "must be whole numbers"),
    ([("a", 0)], "write \\(name, start, end\\)"),
    ([], "no ranges"),
    ("word", "`by='word'` is not known"),
    (3, "`by=3` is not known"),
]


@pytest.mark.parametrize(("by", "said"), WRONG, ids=str)
def test_an_impossible_range_is_refused(booted, by, said):
    model, tokens, _, _ = booted("llama")
    padded = tokens.clone()
    padded[1, 5:] = 0
    with torch.no_grad():
        _, cache = model.run_with_cache(padded)
    mask = (padded != 0).long()
    with pytest.raises(ResidscopeError, match=said):
        residscope.segments(cache, 1, by, attention_mask=mask)


def test_without_a_text_only_given_ranges_can_be_segments(booted, monkeypatch):
    model, _, _, cache = booted("llama")
    held = {name: cache[name] for name in cache if name not in ("embed.hook_in", "hook_embed", "embed.hook_out")}
    with pytest.raises(ResidscopeError, match="no token ids"):
        residscope.segments(held, by="line", model=model)
    assert cut(residscope.segments(held, by=[("a", 2, 3)], model=model)) == [("…", 0, 2), ("a", 2, 3), ("…", 3, 7)]
    monkeypatch.setattr(model, "_tokenizer", None)
    with pytest.raises(ResidscopeError, match="no tokenizer"):
        residscope.segments(cache, by="sentence")
    assert cut(residscope.segments(cache, by=[("a", 2, 7)])) == [("…", 0, 2), ("a", 2, 7)]
    with pytest.raises(ResidscopeError, match="give its number"):
        residscope.segments(cache, None, by=[("a", 2, 3)])


def padded(model, side: str):
    """Return cache and mask of prompts of 7, 4 and 5 tokens, and a function that returns a prompt's segments."""
    torch.manual_seed(1)
    tokens, mask = torch.randint(3, 60, (3, 7)), torch.zeros(3, 7, dtype=torch.long)
    for prompt, size in enumerate((7, 4, 5)):
        mask[prompt, :size] = 1
    mask = mask.flip(1) if side == "left" else mask
    tokens = tokens.masked_fill(mask == 0, 0)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, **({"attention_mask": mask} if side == "left" else {}))

    def segments(prompt: int):
        first = int(mask[prompt].argmax())
        by = [("a", first + 1, first + 3)]
        return residscope.segments(cache, prompt, by, attention_mask=mask)

    return cache, mask, segments


FAMILIES = ("llama", "gpt2", "gemma2")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", FAMILIES)  # llama and gemma2 have grouped queries
def test_sums_over_sources_and_positions_are_exact(booted, name, side):
    cache, mask, segments = padded(booted(name)[0], side)
    given = [segments(prompt) for prompt in range(3)]
    for each, prompt in zip(given, range(3), strict=True):
        real = mask[prompt].nonzero().flatten().tolist()
        assert [at for segment in each for at in range(segment.start, segment.end)] == real
    options = {"attention_mask": mask}
    sources = residscope.attribute(cache, (5, 6), by="source", heads=["L1H1", "L0H2"], **options)
    found = sources.by_segment(given)
    assert found.axes == ("segment", "head", "batch")
    assert found.labels == ["…", "a", "…"]
    for prompt, each in enumerate(given):
        for at, segment in enumerate(each):
            own = sources.values[segment.start : segment.end, :, prompt].double().sum(0)
            torch.testing.assert_close(found.values[at, :, prompt].double(), own, atol=1e-6, rtol=1e-6)
        whole = found.values[..., prompt].sum(0) + found.padding[:, prompt]
        torch.testing.assert_close(whole, sources.values[..., prompt].sum(0), atol=1e-6, rtol=1e-6)
        alone = sources.by_segment(each)
        torch.testing.assert_close(alone.values[..., 0], found.values[..., prompt])
    rest = found.measured - found.values.sum(0) - found.padding - found.constant
    torch.testing.assert_close(rest, found.unexplained, atol=1e-6, rtol=1e-5)

    for by, reduce in (("head", "sum"), ("layer", "mean"), ("accumulated", "sum")):
        every = residscope.attribute(cache, (5, 6), by=by, position="all", **options)
        found = every.by_segment(given, reduce=reduce)
        assert (found.axes, found.values.shape[1:]) == (("component", "batch", "segment"), (3, 3))
        for prompt, each in enumerate(given):
            for at, segment in enumerate(each):
                part = slice(segment.start, segment.end)
                for rolled, whole in ((found.values, every.values), (found.measured, every.measured)):
                    own = getattr(whole[..., prompt, part].double(), reduce)(-1)
                    torch.testing.assert_close(rolled[..., prompt, at].double(), own, atol=1e-5, rtol=1e-5)
        if by != "accumulated":
            rest = found.measured - found.values.sum(0) - found.constant
            torch.testing.assert_close(rest, found.unexplained, atol=1e-4, rtol=1e-4)

    both = residscope.attribute(cache, (5, 6), by="source", heads="L1H1", position="all", **options)
    found = both.by_segment(given)
    assert found.axes == ("segment", "destination segment", "head", "batch")
    for prompt, each in enumerate(given):
        for at, source in enumerate(each):
            for to, segment in enumerate(each):
                cells = both.values[source.start : source.end, segment.start : segment.end, 0, prompt]
                own = cells.double().sum()
                torch.testing.assert_close(found.values[at, to, 0, prompt].double(), own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weighting", ["pattern", "value", "contribution"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", FAMILIES)
def test_attention_by_segment_is_the_sum_or_mean_of_its_cells(booted, name, side, weighting):
    cache, mask, segments = padded(booted(name)[0], side)
    options = {"weighting": weighting, "answers": (5, 6), "attention_mask": mask}
    for prompt in range(3):
        each = segments(prompt)
        found = residscope.segment_attention(cache, each, **options)
        maps = residscope.attention(cache, found.heads, prompt=prompt, **options)
        cells = maps.values.double()
        if weighting == "pattern":
            given = torch.cat([cache["pattern", layer][prompt] for layer in range(3)]).double()
            torch.testing.assert_close(cells, given, atol=1e-6, rtol=1e-6)
        expected = torch.zeros(len(found.heads), 3, 3, dtype=torch.float64)
        outside = torch.zeros(len(found.heads), 3, dtype=torch.float64)
        for to, segment in enumerate(each):
            rows = cells[:, segment.start : segment.end]
            size = 1 if weighting == "contribution" else rows.shape[1]
            for at, source in enumerate(each):
                expected[:, to, at] = rows[..., source.start : source.end].sum((1, 2)) / size
            outside[:, to] = rows[..., mask[prompt] == 0].sum((1, 2)) / size
        torch.testing.assert_close(found.values.double(), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.padding.double(), outside, atol=1e-5, rtol=1e-5)
        if weighting == "pattern":
            torch.testing.assert_close(found.values.sum(-1) + found.padding, torch.ones(len(found.heads), 3))
        torch.testing.assert_close(maps.by_segment(each).values, found.values, atol=1e-6, rtol=1e-6)

        vertical = torch.full((len(found.heads), 3), float("nan"), dtype=torch.float64)
        for at, source in enumerate(each[:-1]):
            later = cells[:, source.end : each[-1].end, source.start : source.end].sum(2)
            vertical[:, at] = later.mean(1)
        torch.testing.assert_close(found.vertical.double(), vertical, atol=1e-5, rtol=1e-5, equal_nan=True)
        best = int(expected[:, 2, 1].abs().argmax())
        assert found.top(2, "a", 1)[0] == (found.heads[best], pytest.approx(float(expected[best, 2, 1]), abs=1e-5))
        best = int(vertical[:, 1].abs().argmax())
        assert found.top_vertical("a", 1)[0][0] == found.heads[best]


def test_the_vertical_score_by_hand():
    """The segments have 2, 2 and 1 tokens. Later positions attend to the first segment with 0.5, 0.3 and 0.1."""
    from residscope.cache.segments import Segment, Segments
    from residscope.patterns.segment_maps import segment_sums

    items = (Segment("a", 0, 2), Segment("b", 2, 4), Segment("c", 4, 5))
    rows = [[1, 0, 0, 0, 0], [0.4, 0.6, 0, 0, 0], [0.2, 0.3, 0.5, 0, 0], [0.3, 0, 0.3, 0.4, 0], [0, 0.1, 0.2, 0.3, 0.4]]
    segments, pattern = Segments(items, 0, 5), torch.tensor([rows])
    values, padding = segment_sums([pattern[:, :3], pattern[:, 3:]], segments, "pattern")
    assert values[0].flatten().tolist() == pytest.approx([1, 0, 0, 0.4, 0.6, 0, 0.1, 0.5, 0.4])
    assert padding.tolist() == [[0, 0, 0]]
    found = residscope.SegmentAttention(values, ["L0H0"], segments, "pattern", "", padding)
    assert found.vertical[0, :2].tolist() == pytest.approx([(0.5 + 0.3 + 0.1) / 3, 0.5])
    assert bool(found.vertical[0, 2].isnan())
    with pytest.raises(ResidscopeError, match="last segment"):
        found.top_vertical("c")


def test_a_segment_mean_leaves_out_positions_without_a_next_token(booted):
    _, _, _, cache = booted("llama")
    every = residscope.attribute(cache, targets.next_token(), by="layer", position="all")
    each = residscope.segments(cache, 1, [("a", 0, 4), ("b", 6, 7)])
    for reduce in ("sum", "mean"):
        found = every.by_segment(each, reduce=reduce)
        expected = [getattr(every.values[:, 1, part].double(), reduce)(-1) for part in (slice(0, 4), slice(4, 6))]
        torch.testing.assert_close(found.values[:, 0, :2].double(), torch.stack(expected, -1), atol=1e-5, rtol=1e-5)
        assert bool(found.values[:, 0, 2].isnan().all())  # this segment is only the last token
        assert any("1 position has no value" in note for note in found.notes)
    heads = residscope.attribute(cache, targets.next_token(), by="source", heads=["0.0", "0.1"], position="all")
    assert any("1 position has no value" in note for note in heads.by_segment(each).notes)


@pytest.mark.parametrize(
    ("answers", "options", "summed"),
    [
        (targets.output("L2H1", of=5), {"by": "layer"}, True),  # `unexplained` has an axis of sources
        (targets.output("L2H1", of=5), {"by": "layer", "reduce": "mean"}, True),  # sources are always summed
        (5, {"by": "layer", "position": "all"}, True),
        (5, {"by": "layer", "position": "all", "reduce": "mean"}, False),
        (5, {"by": "source", "heads": "L1H1"}, False),  # the sum over sources is already in `unexplained`
        (5, {"by": "source", "heads": "L1H1", "position": "all"}, True),
    ],
)
def test_the_tolerance_of_a_segment_is_that_of_a_sum_of_independent_errors(booted, answers, options, summed):
    """Errors of each position within its tolerance, with independent signs, stay within the tolerance of their sum.

    An error of the same sign at each position, which is no rounding, does not.
    """
    model = booted("llama")[0]
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.randint(3, 60, (2, 30), generator=torch.Generator().manual_seed(1)))
    options = dict(options)
    reduce = options.pop("reduce", "sum")
    rows = residscope.attribute(cache, answers, **options)
    each = residscope.segments(cache, 0, [("a", 0, 25), ("b", 25, 30)])
    generator = torch.Generator().manual_seed(0)
    most = 0.0
    for _ in range(200):
        error = torch.randn(rows.unexplained.shape, generator=generator) / 3  # the tolerance is three times the spread
        found = replace(rows, unexplained=error * rows.tolerance).by_segment(each, reduce=reduce)
        most = max(most, float(found.unexplained.abs().max()) / found.tolerance)
    assert 0.4 < most < 1.5  # the largest of hundreds of normal errors is about 3 to 4 times the spread
    same = replace(rows, unexplained=torch.full_like(rows.unexplained, 0.9 * rows.tolerance))
    found = same.by_segment(each, reduce=reduce)
    assert bool((found.unexplained.abs() > found.tolerance).any()) == summed


def test_results_that_cannot_be_summed_by_segment_are_refused(booted):
    model, tokens, _, cache = booted("llama")
    each = residscope.segments(cache, 1, [("a", 0, 4)])
    with pytest.raises(ResidscopeError, match="nothing to roll up"):
        residscope.attribute(cache, (5, 6)).by_segment(each)
    every = residscope.attribute(cache, (5, 6), by="layer", position="all")
    with pytest.raises(ResidscopeError, match="median"):
        every.by_segment(each, reduce="median")
    with pytest.raises(ResidscopeError, match="differ in number or names"):
        every.by_segment([each, residscope.segments(cache, 2, [("b", 0, 4)])])
    with pytest.raises(ResidscopeError, match="takes what `residscope"):
        every.by_segment([("a", 0, 4)])
    with pytest.raises(ResidscopeError, match="takes what `residscope"):
        residscope.segment_attention(cache, [("a", 0, 4)])
    with torch.no_grad():
        _, short = model.run_with_cache(tokens[:1, :5])
    with pytest.raises(ResidscopeError, match="7 positions, but this one has 5"):
        residscope.attribute(short, (5, 6), by="layer", position="all").by_segment(each)
    with pytest.raises(ResidscopeError, match="prompt 1"):
        residscope.segment_attention(short, each)
    with pytest.raises(ResidscopeError, match="the mean over prompts"):
        residscope.attention(cache, "L1H1").by_segment(each)
    one = residscope.attention(cache, "L1H1", prompt=1).by_segment(each)
    torch.testing.assert_close(one.values, residscope.segment_attention(cache, each, "L1H1").values)


def test_long_maps_in_half_precision_are_read_in_blocks(monkeypatch):
    from residscope.patterns import weighting

    model = tiny.boot("llama")
    _, _, cache = tiny.run(model, 2, 31)
    whole = residscope.segments(cache, 1, [("a", 3, 11), ("b", 20, 21)])
    expected = residscope.segment_attention(cache, whole)
    monkeypatch.setattr(weighting, "CELLS", 150)  # strips of 4 rows
    found = residscope.segment_attention(cache, whole)
    torch.testing.assert_close(found.values, expected.values, atol=1e-6, rtol=1e-6)
    half = type(cache)({name: t.bfloat16() if t.is_floating_point() else t for name, t in cache.items()}, model)
    found = residscope.segment_attention(half, whole)
    cells = torch.cat([half["pattern", layer][1] for layer in range(3)]).double()
    torch.testing.assert_close(found.values[:, 3, 1].double(), cells[:, 20:21, 3:11].sum((1, 2)), atol=1e-6, rtol=1e-5)


def test_a_result_says_what_it_is(booted):
    _, _, _, cache = booted("llama")
    each = residscope.segments(cache, 0, [("question", 0, 4)])
    assert repr(each) == "Segments(2 of prompt 0: 'question' 0–3, '…' 4–6)"
    rolled = residscope.attribute(cache, (5, 6), by="source", heads=["L1H1"]).by_segment(each)
    label, head, value = rolled.top(1)[0]
    assert (label, head) in {("question", "L1H1"), ("…", "L1H1")}
    assert value == pytest.approx(float(rolled.values.flatten()[rolled.values.abs().argmax()]))
    assert "2 segment × 1 head × 1 batch" in repr(rolled)
    frame = rolled.to_frame()
    assert (list(frame.index), frame.columns.names) == (["question", "…"], ["head", "prompt"])
    maps = residscope.segment_attention(cache, each, ["L1H1"])
    assert list(maps.to_frame().columns) == ["question", "…"]
    assert "sum over sources, mean over destinations" in repr(maps)
