"""Prompts, positions, layers and heads at their limits: the first, the last, a single one, several in descending order.

Expected: cached values, or values of another run, in which one prompt is alone or the prompts are shorter.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch

import residscope
from residscope.export.page import file_name, title
from residscope.export.view_requests import Views
from residscope.serving.service import Service
from residscope.terms import Position, Span
from residscope.wire.attention import BlendAttention, ReadAttention, ReadThumbnails, ScoreHeads
from residscope.wire.caches import Describe, ReadTokens
from residscope.wire.decompositions import Attribute, MapPositions, RankNeurons
from residscope.wire.predictions import ReadTokenLens
from residscope.wire.shown import Shown, WriteCode
from residscope.wire.targets import Suggest
from tests.support import tiny
from tests.support.rows import labels_of

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
WEIGHTINGS = ("pattern", "value", "contribution")
FALLING = ["L2H3", "L2H0", "L1H2", "L0H3", "L0H1"]
PLACES = ([2, 2, 1, 0, 0], [3, 0, 2, 3, 1])


@pytest.fixture(scope="module")
def model():
    return tiny.boot("llama")


@pytest.fixture(scope="module")
def run(model):
    return tiny.run(model)


@pytest.fixture(scope="module")
def cut(model, run):
    """A function that returns the cache of some prompts, shortened to a length. Each cache is made once."""
    caches: dict[Any, Any] = {}

    def cut(prompts: slice, length: int = 7) -> Any:
        key = (prompts.start, prompts.stop, length)
        if key not in caches:
            with torch.no_grad():
                caches[key] = model.run_with_cache(run[0][prompts, :length])[1]
        return caches[key]

    return cut


def close(one, other):
    torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


# --- the first prompt and the last -----------------------------------------------------------------------------------
def of_prompts(target, prompt: int | None) -> dict[str, Any]:
    """Return a request of each kind that has a prompt."""
    points = ["0_pre", "2_mid", "final_post"]
    return {
        **{by: Attribute(by, target, prompt) for by in ("head", "layer")},
        "lens": Attribute("accumulated", target, prompt, "last", "recomputed"),
        **{f"attention by {of}": ReadAttention(0, 0, target, prompt, "last", of) for of in WEIGHTINGS},
        **{f"thumbnails by {of}": ReadThumbnails(0, target, prompt, of) for of in WEIGHTINGS},
        **{f"blended heads of a layer by {of}": BlendAttention(0, target, prompt, of) for of in WEIGHTINGS},
        **{f"{score} score": ScoreHeads(score, prompt) for score in ("first", "entropy", "previous")},
        **{f"positions by {by}": MapPositions(by, target, prompt) for by in ("layer", "accumulated")},
        "positions of heads": MapPositions("head", target, prompt, heads=FALLING),
        "token lens": ReadTokenLens(points, 0, 7, target, 3, prompt),
        "neurons": RankNeurons(target, 0, 4, prompt),
        "predictions": Suggest(prompt),
        "tokens": ReadTokens(prompt),
    }


KINDS = list(of_prompts(None, None))
_RUNS_OWN = {"tolerance", "worst", "unexplained"}  # these depend on rounding, so they differ between runs


def same(one: Any, other: Any, name: str = "") -> None:
    """Check that two replies are equal up to rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - _RUNS_OWN:
            same(one[key], other[key], key)
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), name
        for a, b in zip(one, other, strict=True):
            same(a, b, name)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=2e-5, rel=1e-4), name
    else:
        assert one == other, name


@pytest.mark.parametrize("prompt", [0, 2, -1, -3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_values_of_a_shown_prompt_are_those_of_the_prompt_run_alone(run, cut, kind, prompt):
    whole, alone = Service(run[2]), Service(cut(slice(prompt % 3, prompt % 3 + 1)))
    targets = whole.targets().resolve(ANSWERS), alone.targets().resolve(ANSWERS[[prompt]])
    (found, figures), (true, expected) = (
        service.reply(of_prompts(target, which)[kind])
        for service, target, which in zip((whole, alone), targets, (prompt, None), strict=True)
    )
    same(msgspec.to_builtins(found), msgspec.to_builtins(true))
    small = kind.startswith("thumbnails")  # values are rounded to 127ths, and may differ by one step
    for one, other in zip(figures, expected, strict=True):
        one, other = (np.frombuffer(buffer, np.int8 if small else np.float32).astype(float) for buffer in (one, other))
        np.testing.assert_allclose(one, other, atol=1 if small else 2e-5, rtol=1e-4)


@pytest.mark.parametrize("prompt", [0, 2])
def test_python_values_of_a_prompt_are_those_of_the_prompt_run_alone(run, cut, prompt):
    whole, alone, answers = run[2], cut(slice(prompt, prompt + 1)), ANSWERS[[prompt]]
    for weighting in WEIGHTINGS:
        found = residscope.attention(whole, FALLING, prompt=prompt, weighting=weighting, answers=ANSWERS)
        true = residscope.attention(alone, FALLING, weighting=weighting, answers=answers)
        close(found.values, true.values)
        assert (found.tokens, found.prompt) == (true.tokens, prompt)
        assert f"prompt {prompt}" in repr(found)
    for score in ("first", "entropy", "previous"):
        found = residscope.scores(whole, score, prompt)
        close(found.values, residscope.scores(alone, score).values)
        assert f"prompt {prompt}" in repr(found)
    found, true = (
        residscope.token_lens(cache, given, prompt=which, norm="frozen")
        for cache, given, which in ((whole, ANSWERS, prompt), (alone, answers, None))
    )
    close(found.probabilities, true.probabilities)
    assert torch.equal(found.rank, true.rank)
    for by in ("head", "layer", "accumulated", "neuron"):
        found, true = residscope.attribute(whole, ANSWERS, by=by), residscope.attribute(alone, answers, by=by)
        close(found.values[:, prompt], true.values[:, 0])
        assert [label for label, _ in found.top(3, prompt)] == [label for label, _ in true.top(3)]


# --- the first position and the last ---------------------------------------------------------------------------------
@pytest.mark.parametrize("prompt", [None, 0])
@pytest.mark.parametrize("position", [0, 3, 6, -1, -7])
@pytest.mark.parametrize("by", ["head", "layer", "accumulated", "neurons", "predictions"])
def test_values_at_a_position_are_those_of_prompts_that_end_there(run, cut, by, position, prompt):
    """The model is causal, so values at a position do not depend on later tokens."""
    whole, short = Service(run[2]), Service(cut(slice(0, 3), position % 7 + 1))
    target = whole.targets().resolve(ANSWERS)

    def ask(at: Position) -> Any:
        match by:
            case "neurons":
                return RankNeurons(target, None, 4, prompt, at)
            case "predictions":
                return Suggest(prompt, at)
            case _:
                return Attribute(by, target, prompt, at)

    (found, figures), (true, expected) = whole.reply(ask(position)), short.reply(ask("last"))
    same(msgspec.to_builtins(found), msgspec.to_builtins(true))
    for one, other in zip(figures, expected, strict=True):
        np.testing.assert_allclose(np.frombuffer(one, "f4"), np.frombuffer(other, "f4"), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("prompt", [None, 0, 2])
@pytest.mark.parametrize("position", [0, 5, -7])
def test_the_attention_from_a_position_is_the_row_of_the_cached_pattern(run, position, prompt):
    service, cache = Service(run[2]), run[2]
    target = service.targets().resolve(ANSWERS)
    reply, buffers = service.reply(ReadAttention(0, 3, target, prompt, position))
    rows = {part.what: np.frombuffer(buffer, "f4") for part, buffer in zip(reply.parts, buffers, strict=True)}
    pattern = cache["pattern", 0][:, 3, position]
    np.testing.assert_allclose(rows["reads"], pattern.mean(0) if prompt is None else pattern[prompt], atol=1e-6)
    worth = residscope.attribute(cache, ANSWERS, position=position).grid[0, 3]
    worth = worth.mean() if prompt is None else worth[prompt]
    assert rows["brings"].sum() == pytest.approx(float(worth), abs=1e-5)


def test_in_a_mean_each_prompt_is_read_at_its_own_end(run):
    mask = torch.tensor([[1] * 7, [1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0]])
    service = Service(run[2], attention_mask=mask)
    reply, buffers = service.reply(ReadAttention(1, 2, service.targets().resolve(ANSWERS), None, "last"))
    brings = buffers[[part.what for part in reply.parts].index("brings")]
    own = residscope.attribute(run[2], ANSWERS, by="source", heads=["1.2"], position=[6, 3, 5])
    np.testing.assert_allclose(np.frombuffer(brings, "f4"), own.values[:, 0].mean(-1), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("by", ["head", "layer", "accumulated", "neuron", "source"])
@pytest.mark.parametrize(
    "position", [0, -7, torch.tensor(0), [0, 0, 0], [6, 3, 0], torch.tensor([-1, -4, -7]), (0, 6, 3)], ids=str
)
def test_each_prompt_is_read_at_the_position_given_for_it(run, cut, by, position):
    options = {"heads": FALLING} if by == "source" else {}
    found = residscope.attribute(run[2], ANSWERS, by=by, position=position, **options)
    given = torch.as_tensor(position).expand(3).tolist()
    for prompt, at in enumerate(given):
        at %= 7
        alone = cut(slice(prompt, prompt + 1), at + 1)
        true = residscope.attribute(alone, ANSWERS[[prompt]], by=by, **options)
        values = found.values[: at + 1] if by == "source" else found.values
        close(values[..., prompt], true.values[..., 0])
        close(found.measured[..., prompt], true.measured[..., 0])


@pytest.mark.parametrize("position", [7, -8, [0, 7, 6]], ids=str)
def test_a_position_outside_the_prompt_is_refused_with_those_inside(run, position):
    with pytest.raises(residscope.ResidscopeError, match=r"it has 7 positions, 0 to 6 \(or −7 to −1 from the end\)"):
        residscope.attribute(run[2], ANSWERS, position=position)


@pytest.mark.parametrize("prompt", [None, 0, -1])
@pytest.mark.parametrize("position", ["last", 0, -1])
def test_one_prompt_of_one_token(model, prompt, position):
    """The only prompt and its only position are first and last. Scores that need several sources are refused."""
    with torch.no_grad():
        logits, cache = model.run_with_cache(torch.tensor([[5]]))
    service = Service(cache)
    target = service.targets().resolve((6, 7))
    own = float(logits[0, 0, 6] - logits[0, 0, 7])
    for kind, ask in of_prompts(target, prompt).items():
        ask = msgspec.structs.replace(ask, position=position) if hasattr(ask, "position") else ask
        if isinstance(ask, ScoreHeads):
            with pytest.raises(residscope.ResidscopeError, match="attention can only go to that token"):
                service.reply(ask)
            continue
        reply, buffers = service.reply(ask)
        if isinstance(ask, Attribute):
            rows = np.frombuffer(buffers[0], "f4")
            total = rows[-1] if kind == "lens" else rows.sum()
            assert len(buffers) == 1
            assert reply.measured == pytest.approx(own, abs=1e-5)
            assert total + reply.constant == pytest.approx(own, abs=1e-4)
        if isinstance(ask, ReadAttention):
            figures = {part.what: np.frombuffer(b, "f4") for part, b in zip(reply.parts, buffers, strict=True)}
            assert figures["pattern"].tolist() == figures["reads"].tolist() == [1]
            assert figures["brings"] == pytest.approx(figures["contribution"])
        if isinstance(ask, Suggest):
            assert reply.predictions[0].token.id == int(logits[0, 0].argmax())
    for kind in ("heatmap", "ranking", "prompts"):
        assert residscope.attribute(cache, (6, 7)).to_plotly(kind, prompt).to_json()


# --- prompts that end at different positions -------------------------------------------------------------------------
@pytest.fixture(scope="module")
def apart(model):
    """A cache of prompts that end at positions 2, 6 and 4, and its panel."""
    rows = torch.tensor([[1, 5, 6, 0, 0, 0, 0], [1, 7, 8, 9, 10, 11, 12], [1, 13, 14, 15, 16, 0, 0]])
    with torch.no_grad():
        cache = model.run_with_cache(rows)[1]
    panel = residscope.inspect(cache, ANSWERS, show=False)
    yield cache, panel
    panel.close()


@pytest.mark.parametrize(
    ("prompt", "position", "asked", "read"),
    [
        (None, "last", "last", None),  # each at its own end
        (None, 6, 6, 6),
        (None, 0, 0, 0),
        (0, "last", "last", 2),
        (0, 2, "last", 2),  # this prompt ends at position 2
        (0, 6, 6, 6),
        (0, 0, 0, 0),
        (1, 6, "last", 6),
        (2, 4, "last", 4),
        (2, 2, 2, 2),
    ],
)
def test_the_last_position_of_a_prompt_is_its_own_end(apart, prompt, position, asked, read):
    """`asked` is the position that a view requests. `read` is the row that a long map shows."""
    cache, panel = apart
    service = panel._service
    views = Views(Shown(service.targets().resolve(ANSWERS), prompt, position), service.reply(Describe())[0])
    assert views.place(prompt, position) == (prompt, asked)
    assert views._destination(prompt) == read
    panel.prompt, panel.position = prompt, position
    assert (panel.shown.prompt, panel.shown.position) == (prompt, asked)
    code, of_each = (service.reply(WriteCode(picture, views.shown))[0].code for picture in ("layers", "prompts"))
    assert (f"position={position}" in code) == (asked != "last")
    assert (f"position={position}" in of_each) == (position != "last")  # this code is about all prompts
    names = {"cache": cache}
    exec(compile(code, "cell", "exec"), names)
    at = read if read is not None else [2, 6, 4]
    true = residscope.attribute(cache, ANSWERS, by="layer", position=at)
    close(names["values"], true.mean() if prompt is None else true.values[:, prompt])


@pytest.mark.parametrize("position", [0, 3, "last"])
def test_a_panel_keeps_its_position_when_other_tokens_count_as_padding(position):
    model = tiny.boot("llama")
    with torch.no_grad():
        cache = model.run_with_cache(torch.tensor([[1, 5, 6, 7, 0], [1, 8, 9, 9, 9]]))[1]
    panel = residscope.inspect(cache, (5, 6), position=position, show=False)
    assert panel.facts["last"] == [3, 4]
    panel.padding = "none"
    assert panel.position == (4 if position == "last" else position)  # both prompts end at 4 without padding
    panel.padding = "found"
    assert panel.position == position
    model.tokenizer.pad_token_id = 9  # now the prompts end at other positions
    panel.update_facts()
    assert panel.facts["last"] == [4, 1]
    assert panel.position == position
    panel.close()


@pytest.mark.parametrize("prompt", [None, 0, 2])
def test_padding_is_marked_in_the_shown_prompt(apart, prompt):
    labels = apart[1]._service.reply(ReadTokens(prompt))[0].tokens
    if prompt is None:
        assert [label.text for label in labels] == ["<s>", *[""] * 6]
        assert [len(label.varies) for label in labels] == [0, *[3] * 2, *[3] * 2, 2, 2]
    else:
        assert [label.padding for label in labels] == [at > (2, 6, 4)[prompt] for at in range(7)]


@pytest.mark.parametrize("prompt", [None, 0, 1, 2])
def test_names_of_pages_have_the_target_of_the_shown_prompt(apart, prompt):
    service = apart[1]._service
    shown = Shown(service.targets().resolve(ANSWERS), prompt)
    words = "own-answers-mean-of-3" if prompt is None else f"w{5 + 2 * prompt}-w{6 + 2 * prompt}-prompt{prompt}"
    assert file_name("cache", shown, 3) == f"cache-{words}.html"
    said = (
        "each prompt's logit difference"
        if prompt is None
        else f"logit of “w{5 + 2 * prompt}” minus “w{6 + 2 * prompt}”"
    )
    assert title("cache", shown) == f"cache: {said} · Residscope"


@pytest.mark.parametrize("prompt", [0, 1])
def test_the_unexplained_value_is_that_of_the_shown_prompt(run, prompt):
    _, logits, cache = run
    off = logits.clone()
    off[1, -1, ANSWERS[1, 0]] += 3
    service = Service(cache, logits=off)
    reply, _ = service.reply(Attribute("layer", service.targets().resolve(ANSWERS), prompt))
    assert abs(reply.worst) == pytest.approx(3.0 * prompt, abs=1e-4)
    assert reply.unexplained == pytest.approx(3.0 * prompt, abs=1e-4)


# --- heads and layers ------------------------------------------------------------------------------------------------
def test_heads_have_the_order_in_which_they_are_named(run):
    cache = run[2]
    grid = residscope.attribute(cache, ANSWERS, position="all").grid[PLACES]  # [head, batch, position]
    patterns = torch.stack([cache["pattern", layer][:, head].mean(0) for layer, head in zip(*PLACES, strict=True)])
    for heads in (FALLING, [tuple(place) for place in zip(*PLACES, strict=True)]):
        last = residscope.attribute(cache, ANSWERS, by="source", heads=heads)
        every = residscope.attribute(cache, ANSWERS, by="source", heads=heads, position="all")
        assert last.heads == every.heads == FALLING
        close(last.values.sum(0), grid[..., -1])
        close(every.values.sum(0), grid.permute(2, 0, 1))
        many = residscope.attribute_many([(cache, ANSWERS)] * 2, by="source", heads=heads, progress=False)
        assert many.heads == FALLING
        close(many.values, torch.cat([last.values] * 2, -1))
        frame = last.to_frame()
        assert frame[(FALLING[1], 2)].sum() == pytest.approx(float(grid[1, 2, -1]), abs=1e-4)
        close(residscope.attention(cache, heads).values, patterns)
        brought = residscope.attention(cache, heads, weighting="contribution", answers=ANSWERS)
        close(brought.values.sum(-1), grid.mean(1))
        for n, name in enumerate(FALLING):
            lengths = residscope.attention(cache, heads, weighting="value")
            close(lengths.values[n], residscope.attention(cache, name, weighting="value").values[0])


@pytest.mark.parametrize("family", ["llama-multi-query", "gemma2", "qwen3_5_text"])
def test_heads_of_one_layer_from_the_last_to_the_first(family):
    """One family has fewer keys than heads, one has norms on outputs, and one has gates on `z`."""
    cache = tiny.run(tiny.boot(family))[2]
    heads = [f"L1H{head}" for head in (3, 2, 1, 0)]
    grid = residscope.attribute(cache, ANSWERS).grid[1].flip(0)
    close(residscope.attribute(cache, ANSWERS, by="source", heads=heads).values.sum(0), grid)
    brought = residscope.attention(cache, heads, weighting="contribution", answers=ANSWERS).values
    close(brought[:, -1].sum(-1), grid.mean(1))
    lengths = residscope.attention(cache, heads, weighting="value").values
    close(lengths, residscope.attention(cache, heads[::-1], weighting="value").values.flip(0))


@pytest.mark.parametrize("prompt", [None, 0])
def test_a_view_gets_heads_in_the_order_in_which_it_asks(run, prompt):
    service, cache = Service(run[2]), run[2]
    target = service.targets().resolve(ANSWERS)
    grid = residscope.attribute(cache, ANSWERS, position="all").grid[PLACES]
    grid = grid.mean(1) if prompt is None else grid[:, prompt]
    reply, [rows, _] = service.reply(MapPositions("head", target, prompt, heads=FALLING))
    assert labels_of(reply) == FALLING
    np.testing.assert_allclose(np.frombuffer(rows, "f4").reshape(5, 7), grid, atol=2e-5, rtol=1e-4)
    for layer in (0, 2):
        patterns = cache["pattern", layer]
        patterns = patterns.mean(0) if prompt is None else patterns[prompt]
        small, [cells] = service.reply(ReadThumbnails(layer, target, prompt))
        seen = np.frombuffer(cells, np.int8).reshape(4, 7, 7) * np.array(small.limits)[:, None, None] / 127
        np.testing.assert_allclose(seen, patterns, atol=1 / 127)
        whole, [buffer] = service.reply(BlendAttention(layer, target, prompt))
        blend = np.zeros((7, 7))
        blend[np.tril_indices(7)] = np.frombuffer(buffer, "f4")
        assert whole.heads == 4
        np.testing.assert_allclose(blend, patterns.mean(0), atol=1e-6)


def test_layer_0_is_a_valid_layer(run):
    service = Service(run[2])
    target = service.targets().resolve(ANSWERS)
    reply, [values] = service.reply(RankNeurons(target, 0, 50))
    assert {label[:3] for label in labels_of(reply)} == {"L0N"}
    assert (reply.layers, reply.count) == (1, 40)
    assert np.frombuffer(values, "f4").sum() == pytest.approx(reply.total, abs=1e-4)
    code = service.reply(WriteCode("ranking", Shown(target, ranking="neurons", layer=0)))[0].code
    assert "layers=0" in code
    panel = residscope.inspect(run[2], ANSWERS, show=False)
    panel.prompt, panel.position, panel.layer = 0, 0, 0
    assert (panel.shown.prompt, panel.shown.position, panel.shown.layer) == (0, 0, 0)
    panel.close()


# --- the last row and column of a part of a map ----------------------------------------------------------------------
SPANS = [Span(5, 7), Span(6, 7), Span(0, 1), Span(0, 6), Span(1, 7), Span(4, 99), Span(-5, 2)]


@pytest.mark.parametrize("span", SPANS, ids=lambda span: f"{span.start}-{span.stop}")
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_part_of_a_map_ends_with_its_last_row_and_column(run, span, weighting):
    service = Service(run[2])
    target = service.targets().resolve(ANSWERS)
    heads = [(layer, head) for layer in range(3) for head in range(4)]
    maps = residscope.attention(run[2], heads, prompt=1, weighting=weighting, answers=ANSWERS).values.numpy()
    part = slice(max(span.start, 0), min(span.stop, 7))
    for rows, columns in ((span, None), (None, span), (span, span)):
        down, across = (slice(0, 7) if one is None else part for one in (rows, columns))
        reply, buffers = service.reply(ReadAttention(2, 3, target, 1, "last", weighting, rows=rows, columns=columns))
        one, [buffer] = service.reply(BlendAttention(2, target, 1, weighting, rows=rows, columns=columns))
        every = maps[8:, down, across]
        expected = {"one": maps[11, down, across], "all": every.sum(0)}
        expected["all"] /= 1 if weighting == "contribution" else 4
        told = [None if asked is None else Span(part.start, part.stop) for asked in (rows, columns)]
        assert [reply.rows, reply.columns] == [one.rows, one.columns] == told
        [own] = [(what, held) for what, held in zip(reply.parts, buffers, strict=True) if what.what == weighting]
        for (what, held), true in ((own, expected["one"]), ((one.part, buffer), expected["all"])):
            found = np.zeros(true.shape)
            sent = np.frombuffer(held, "f4")
            found[np.tril_indices(len(true)) if what.triangle else ...] = (
                sent if what.triangle else sent.reshape(true.shape)
            )
            np.testing.assert_allclose(found, true, atol=1e-5, rtol=1e-4)


def test_a_note_gives_the_part_of_a_head_that_its_sources_do_not_explain(run):
    cache, name = run[2], "blocks.0.attn.hook_pattern"
    half = type(cache)(dict(cache.cache_dict) | {name: cache.cache_dict[name] / 2}, cache.model)
    worth = residscope.attribute(half, ANSWERS).grid[0, 3]
    for one, expected in ((cache, None), (half, f"{float(worth.abs().max()) / 2:.2g} of a head's contribution is not")):
        mask = torch.ones(3, 7, dtype=torch.long)
        mask[1, 5:] = 0  # prompts that end at different positions are read one by one
        panel = residscope.inspect(one, ANSWERS, attention_mask=mask, show=False)
        service = panel._service
        target = service.targets().resolve(ANSWERS)
        notes = [
            residscope.attribute(one, ANSWERS, by="source", heads="0.3").notes,
            residscope.attention(one, "0.3", answers=ANSWERS, weighting="contribution").notes,
            *(service.reply(ReadAttention(0, 3, target, None, at))[0].notes for at in (-1, "last")),
        ]
        for said in notes:
            found = [note for note in said if "of a head's contribution is not pattern @ v" in note]
            assert bool(found) == (expected is not None), said
        assert expected is None or any(note.startswith(expected) for note in notes[0])


@pytest.mark.parametrize("position", [0, 3, 6])
def test_pattern_times_values_is_compared_with_z_at_every_destination(run, position):
    cache, name = run[2], "blocks.1.attn.hook_z"
    z = cache[name].clone()
    z[0, position] *= 1.5
    held = {key: tensor for key, tensor in cache.items() if key != "blocks.1.hook_attn_out"} | {name: z}
    for one, changed in ((cache, False), (type(cache)(held, cache.model), True)):
        notes = residscope.attention(one, "1.1", weighting="value").notes
        assert any("changes pattern @ v before `W_O`" in note for note in notes) == changed


def test_values_with_all_heads_in_one_axis_are_refused_with_their_shape(run):
    cache, name = run[2], "blocks.1.attn.hook_v"
    held = type(cache)(dict(cache.cache_dict) | {name: cache[name].flatten(2)}, cache.model)
    said = r"`blocks.1.attn.hook_v` has the shape \[3, 7, 12\], not \[batch, pos, head, 6\]"
    with pytest.raises(residscope.ResidscopeError, match=said):
        residscope.attribute(held, ANSWERS, by="source", heads="1.1")
    with pytest.raises(residscope.ResidscopeError, match=said):
        residscope.attention(held, "1.1", weighting="value")


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([1], "The MLP of layer 1 cannot be split"),
        (None, "No layer of this model can be split into MLP neurons. Its layers have no MLP with a single W_out"),
    ],
)
def test_experts_have_no_neurons(layers, said):
    _, _, cache = tiny.run(tiny.boot("mixtral"))
    with pytest.raises(residscope.ResidscopeError, match=said):
        residscope.attribute(cache, ANSWERS, by="neuron", layers=layers)


def test_neurons_that_are_not_all_of_the_mlp_are_not_called_missing(run):
    cache = run[2]
    held = {name: 2 * t if name.endswith("mlp.hook_post") else t for name, t in cache.items()}
    with pytest.raises(residscope.ResidscopeError) as error:
        residscope.attribute(type(cache)(held, cache.model), ANSWERS, by="neuron")
    said = str(error.value)
    assert "In layers 0, 1 and 2 the neurons (post @ W_out) and the bias are not all of `hook_mlp_out`" in said
    assert "no MLP with a single W_out" not in said


def test_if_one_layer_cannot_be_compared_the_others_are(run):
    cache, name = run[2], "blocks.2.hook_mlp_out"
    held = dict(cache.cache_dict) | {name: cache.cache_dict[name] * 1.001}
    del held["blocks.0.hook_resid_post"]
    result = residscope.attribute(type(cache)(held, cache.model), ANSWERS, by="layer")
    assert result.unexplained.abs().max() > result.tolerance
    expected = "arises in layer 2: more is added to the stream there than"
    assert any(expected in note for note in result.notes), result.notes


def test_what_enters_layer_0_is_compared_with_the_factors_of_later_layers():
    """Each layer of this family multiplies the whole stream."""
    cache = tiny.run(tiny.boot("gemma4_text"))[2]
    embed = residscope.attribute(cache, ANSWERS, by="layer").values[0]
    held = dict(cache.cache_dict) | {"hook_embed": cache["hook_embed"] * 1.001}
    result = residscope.attribute(type(cache)(held, cache.model), ANSWERS, by="layer")
    close(result.unexplained, -0.001 * embed)
    [said] = [note for note in result.notes if "arises before layer 0" in note]
    assert float(said.split()[0]) == pytest.approx(0.001 * float(embed.abs().max()), rel=0.1)


@pytest.mark.parametrize("prompt", [None, 0, 2])
@pytest.mark.parametrize("by", ["layer", "accumulated", "head"])
def test_a_position_map_has_the_models_own_value_at_each_position(run, by, prompt):
    _, logits, cache = run
    service = Service(cache)
    ask = MapPositions(by, service.targets().resolve(ANSWERS), prompt, heads=FALLING if by == "head" else [])
    own = np.frombuffer(service.reply(ask)[1][1], "f4")
    first, second = (logits[torch.arange(3), :, ANSWERS[:, which]] for which in (0, 1))
    expected = (first - second).mean(0) if prompt is None else (first - second)[prompt]
    np.testing.assert_allclose(own, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("prompt", [0, 1, 2])
@pytest.mark.parametrize("by", ["layer", "accumulated", "head"])
def test_with_given_logits_a_position_map_has_the_values_of_its_prompt(run, by, prompt):
    _, logits, cache = run
    held = {name: t for name, t in cache.items() if name not in ("unembed.hook_out", "hook_unembed")}
    service = Service(type(cache)(held, cache.model), logits=logits)
    ask = MapPositions(by, service.targets().resolve(ANSWERS), prompt, heads=FALLING if by == "head" else [])
    answer, distractor = ANSWERS[prompt]
    own = np.frombuffer(service.reply(ask)[1][1], "f4")
    np.testing.assert_allclose(own, logits[prompt, :, answer] - logits[prompt, :, distractor], atol=1e-6)


@pytest.mark.parametrize("prompt", [None, 0, 1, 2])
@pytest.mark.parametrize("given", [False, True], ids=["cached", "given"])
def test_suggestions_have_probabilities_or_their_mean_over_prompts(run, given, prompt):
    _, logits, cache = run
    service = Service(cache, logits=logits if given else None)
    found = service.reply(Suggest(prompt, k=64))[0].predictions
    each = logits[:, -1].softmax(-1)
    true = (each.mean(0) if prompt is None else each[prompt]).tolist()
    assert [one.probability for one in found] == pytest.approx([true[one.token.id] for one in found], rel=1e-4)
    assert [one.probability for one in found] == pytest.approx(sorted(true, reverse=True), rel=1e-4)


@pytest.mark.parametrize("head", ["L0H4", "L0H99", "L3H0"])
def test_a_map_of_a_head_that_does_not_exist_is_refused(run, head):
    service = Service(run[2])
    with pytest.raises(residscope.ResidscopeError, match=f"no head {head}: it has layers 0 to 2 with heads 0 to 3"):
        service.reply(MapPositions("head", service.targets().resolve(ANSWERS), None, heads=["L0H0", head]))


def test_a_head_that_only_other_layers_have_is_refused():
    service = Service(tiny.run(tiny.boot("laguna-heads"))[2])  # with 2, 4 and 2 heads
    target = service.targets().resolve(ANSWERS)
    reply, _ = service.reply(MapPositions("head", target, None, heads=["L0H1", "L1H3"]))
    assert labels_of(reply) == ["L0H1", "L1H3"]
    with pytest.raises(residscope.ResidscopeError, match="Layer 0 of this model has only 2 heads"):
        service.reply(MapPositions("head", target, None, heads=["L0H3"]))


def test_a_map_without_heads_has_only_the_models_own_value(run):
    _, logits, cache = run
    service = Service(cache)
    reply, [rows, own] = service.reply(MapPositions("head", service.targets().resolve((5, 6)), 1))
    assert (labels_of(reply), len(rows)) == ([], 0)
    np.testing.assert_allclose(np.frombuffer(own, "f4"), logits[1, :, 5] - logits[1, :, 6], atol=2e-5, rtol=1e-4)
