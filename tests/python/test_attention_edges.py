"""Attention edges: removing an edge has the effect of a hook that sets the edge's entry of the pattern to 0.

The direct part of this effect is minus the row of the edge's source in `by="source"`.
"""

from __future__ import annotations

import pytest
import torch

import residscope
from residscope import ResidscopeError
from tests.support import tiny

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
NO_HEADS = {"mamba", "falcon_mamba", "mamba2", "zamba2", "nemotron_h", "recurrent_gemma", "rwkv", "jetmoe"}
NO_RUNS = {"bert", "modernbert-decoder", "opt-projected", "deepseek_v4", "hrm_text"}  # see `test_causes`
REFUSED = {"bitnet": "not its pattern times its values"}  # a norm between the values and `z`
COPIED = {  # here the pattern's hook gets a copy, so that changes do not reach `z`
    "gpt_neo", "opt", "xglm", "gptj", "nanochat", "phimoe", "afmoe", "laguna", "laguna-heads", "llama4_text", "jamba",
    "olmo_hybrid", *(name for name in tiny.FAMILIES if name.startswith("gemma4")),
}  # fmt: skip
CAPPED = {name for name in tiny.FAMILIES if "cap-5" in name or name in ("gemma2", "nanochat", "vaultgemma")}


def difference(logits):
    chosen = logits[:, -1].gather(1, ANSWERS)
    return chosen[:, 0] - chosen[:, 1]


def without(pattern, head, edges):
    pattern = pattern.clone()
    for destination, source in edges:
        pattern[:, head, destination, source] = 0
    return pattern


def hooked(model, tokens, layer, head, edges):
    """Return the target of a hooked run with entries of a pattern set to 0."""
    hook = (f"blocks.{layer}.attn.hook_pattern", lambda pattern, hook: without(pattern, head, edges))  # noqa: ARG005
    with torch.no_grad():
        return difference(model.run_with_hooks(tokens, fwd_hooks=[hook]))


def softmaxed(model, tokens, head, edges, monkeypatch):
    """Return what `hooked` returns for the first layer with attention, by changing the output of PyTorch's softmax."""
    softmax, done = torch.nn.functional.softmax, []

    def cut(scores, *args, **kwargs):
        pattern = softmax(scores, *args, **kwargs)
        if done or pattern.shape[-2:] != (7, 7):
            return pattern
        done.append(True)
        return without(pattern.reshape(3, -1, 7, 7), head, edges).reshape(pattern.shape)  # XGLM joins batch and head

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(torch.nn.functional, "softmax", cut)
        result = difference(model(tokens))
    assert done
    return result


@pytest.mark.parametrize("name", [name for name in tiny.FAMILIES if name not in NO_HEADS | NO_RUNS])
def test_an_edge_has_the_effect_of_a_hook_that_sets_its_entry_to_0(booted, name, monkeypatch):
    model, tokens, logits, cache = booted(name)
    layer = next(at for at in range(len(model.blocks)) if f"blocks.{at}.attn.hook_z" in cache.cache_dict)
    options = {"heads": [(layer, 1)], "edges": [(-1, 5), (4, 2)], "progress": False}
    if name in REFUSED:
        with pytest.raises(ResidscopeError, match=REFUSED[name]):
            residscope.ablate(cache, ANSWERS, **options)
        return
    found = residscope.ablate(cache, ANSWERS, **options)
    assert found.labels == [f"L{layer}H1 6 ← 5", f"L{layer}H1 4 ← 2"]
    for row, edge in enumerate([(-1, 5), (4, 2)]):
        if name in COPIED:
            after = softmaxed(model, tokens, 1, [edge], monkeypatch)
        else:
            after = hooked(model, tokens, layer, 1, [edge])
        torch.testing.assert_close(found.total[0, row], after - difference(logits), atol=1e-5, rtol=1e-3)
        assert found.total[0, row].abs().max() > 1e-5
    if name not in CAPPED:  # rows are computed before a soft-cap
        rows = residscope.attribute(cache, ANSWERS, by="source", heads=[(layer, 1)])
        torch.testing.assert_close(found.direct[0, 0], -rows.values[5, 0], atol=1e-5, rtol=1e-3)
    assert bool((found.direct[0, 1] == 0).all())  # the target is not read at this edge's destination
    torch.testing.assert_close(found.indirect, found.total - found.direct)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "mistral-window", "qwen3_next"])
def test_every_source_of_a_destination_in_one_call(booted, name):
    model, tokens, logits, cache = booted(name)
    layer = 1
    found = residscope.ablate(cache, ANSWERS, heads=[(layer, 1), (layer, 2)], edges=("last", "each"), progress=False)
    assert found.axes == ("head", "edge", "batch")
    assert found.total.shape == (2, 7, 3)
    assert found.labels[8] == f"L{layer}H2 last ← 1"
    for source in range(7):
        after = hooked(model, tokens, layer, 2, [(-1, source)])
        torch.testing.assert_close(found.total[1, source], after - difference(logits), atol=1e-5, rtol=1e-3)
    assert list(found.to_frame().index) == found.labels
    earlier = residscope.ablate(cache, ANSWERS, heads=[(layer, 1)], edges=(3, "each"), progress=False)
    assert earlier.edges == ["3 ← 0", "3 ← 1", "3 ← 2", "3 ← 3"]


def test_several_edges_at_once(booted):
    model, tokens, logits, cache = booted("llama")
    edges = [(6, 1), (6, 2), (4, 3)]
    found = residscope.ablate(cache, ANSWERS, heads=["1.2"], edges=edges, together=True, progress=False)
    after = hooked(model, tokens, 1, 2, edges)
    torch.testing.assert_close(found.total, after - difference(logits), atol=1e-5, rtol=1e-3)
    assert found.labels == ["L1H2 6 ← 1 + L1H2 6 ← 2 + L1H2 4 ← 3"]
    whole = residscope.ablate(cache, ANSWERS, heads=["1.2"], edges=("last", "each"), together=True, progress=False)
    head = residscope.ablate(cache, ANSWERS, heads=["1.2"], positions="last", progress=False)
    torch.testing.assert_close(whole.total, head.total[0], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(whole.direct, head.direct[0], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_prompt_has_the_edges_of_the_prompt_alone(booted, side):
    model, tokens, _, _ = booted("llama")
    padded, mask, real = torch.zeros(3, 7, dtype=torch.long), torch.zeros(3, 7, dtype=torch.long), (7, 5, 4)
    for row, count in enumerate(real):
        part = slice(7 - count, 7) if side == "left" else slice(0, count)
        padded[row, part], mask[row, part] = tokens[row, :count], 1
    with torch.no_grad():
        _, cache = model.run_with_cache(padded, attention_mask=mask)
    options = {"edges": ("last", "each"), "heads": ["1.2"], "progress": False}
    found = residscope.ablate(cache, ANSWERS, attention_mask=mask, **options)
    for row, count in enumerate(real):
        with torch.no_grad():
            _, alone = model.run_with_cache(tokens[row : row + 1, :count])
        expected = residscope.ablate(alone, ANSWERS[row : row + 1], **options)
        start = 7 - count if side == "left" else 0
        own = slice(start, start + count)
        torch.testing.assert_close(found.total[0, own, row], expected.total[0, :, 0], atol=2e-5, rtol=1e-3)
        before, after = found.total[0, : own.start, row], found.total[0, own.stop :, row]
        assert len(before) + len(after) == 7 - count
        assert bool(before.isnan().all())  # padding has no edges
        assert bool(after.isnan().all())  # these sources come after the destination
    if side == "right":
        assert bool(residscope.ablate(cache, ANSWERS, "1.2", edges=(5, 2)).total[0, 0].isnan().tolist() == [0, 1, 1])


@pytest.mark.parametrize("side", ["left", "right"])
def test_edges_that_a_prompt_does_not_have_are_left_out_of_means(side):
    model = tiny.boot("gpt2").double()
    model.tokenizer.padding_side = side
    tokens, real = tiny.run(model)[0], (7, 5, 4)
    padded, mask = torch.zeros(3, 7, dtype=torch.long), torch.zeros(3, 7, dtype=torch.long)
    starts = [7 - count if side == "left" else 0 for count in real]
    for row, (start, count) in enumerate(zip(starts, real, strict=True)):
        padded[row, start : start + count], mask[row, start : start + count] = tokens[row, :count], 1

    def alone(row, edges):
        """The effect in the model's own hooked run of one prompt without padding."""
        answer, ids = ANSWERS[row], tokens[row : row + 1, : real[row]]
        hook = ("blocks.1.attn.hook_pattern", lambda pattern, hook: without(pattern, 2, edges))  # noqa: ARG005
        with torch.no_grad():
            after, before = model.run_with_hooks(ids, fwd_hooks=[hook])[0, -1], model(ids)[0, -1]
        return (after - before)[answer[0]] - (after - before)[answer[1]]

    with torch.no_grad():
        _, cache = model.run_with_cache(padded, attention_mask=mask)
    options = {"heads": ["1.2"], "attention_mask": mask, "progress": False}
    each = residscope.ablate(cache, ANSWERS, edges=("last", "each"), **options)
    for source in range(7):
        rows = [row for row in range(3) if mask[row, source]]
        expected = torch.stack([alone(row, [(-1, source - starts[row])]) for row in rows]).mean()
        torch.testing.assert_close(each.of("total")[source], expected, atol=1e-9, rtol=1e-6)
    said = "In 2 of 3 prompts (1 and 2) some of these edges do not exist"
    assert sum(said in note for note in each.notes) == 1
    together = residscope.ablate(cache, ANSWERS, edges=("last", "each"), together=True, **options)
    every = [alone(row, [(-1, source) for source in range(count)]) for row, count in enumerate(real)]
    torch.testing.assert_close(together.total, torch.stack(every), atol=1e-9, rtol=1e-6)
    assert not together.notes
    two = [(4, 2), (4, 3)]  # on the left, prompt 2 has only the second, on the right it has neither
    both = residscope.ablate(cache, ANSWERS, edges=two, together=True, **options)
    expected = alone(0, two), alone(1, [(4 - starts[1], source - starts[1]) for _, source in two])
    torch.testing.assert_close(both.total[:2], torch.stack(expected), atol=1e-9, rtol=1e-6)
    if side == "left":
        torch.testing.assert_close(both.total[2], alone(2, [(1, 0)]), atol=1e-9, rtol=1e-6)
    else:
        assert bool(both.total[2].isnan() & both.direct[2].isnan())
        assert any(note.startswith("In 1 of 3 prompts (2) none of these edges exists") for note in both.notes)
    assert both.of("total") == pytest.approx(float(both.total.nanmean()))


def test_an_edge_whose_source_is_padding_in_every_prompt_is_refused():
    model = tiny.boot("gpt2")
    model.tokenizer.padding_side = "left"
    tokens, mask = tiny.run(model)[0], torch.ones(3, 7, dtype=torch.long)
    mask[:, 0] = 0
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens * mask, attention_mask=mask)
    with pytest.raises(ResidscopeError, match="no prompt has the edge last ← 0: its source or"):
        residscope.ablate(cache, ANSWERS, "1.2", edges=("last", 0), attention_mask=mask)
    with pytest.raises(ResidscopeError, match="a token does not attend to a later one"):
        residscope.ablate(cache, ANSWERS, "1.2", edges=(2, 4), attention_mask=mask)


@pytest.mark.parametrize(("options", "words"), [
    ({"edges": (6, 2)}, "name the heads"),
    ({"edges": (6, 2), "heads": ["1.1"], "replace": "mean"}, "leave out `replace=`"),
    ({"edges": (6, 2), "heads": ["1.1"], "positions": "last"}, "leave out"),
    ({"edges": (6, 2), "heads": ["1.1"], "path": "L2H1.q"}, "cannot be combined"),
    ({"edges": (2, 6), "heads": ["1.1"]}, "does not attend to a later one"),
    ({"edges": (6, 9), "heads": ["1.1"]}, "outside the prompt"),
    ({"edges": [(6, 2), ("last", 2)], "heads": ["1.1"]}, "twice"),
    ({"edges": "last", "heads": ["1.1"]}, "give pairs"),
    ({"edges": [(6, "first")], "heads": ["1.1"]}, "is not a position"),
    ({"edges": [], "heads": ["1.1"]}, "give pairs"),
])  # fmt: skip
def test_wrong_edges_and_options_are_refused_in_a_sentence(booted, options, words):
    with pytest.raises(ResidscopeError, match=words):
        residscope.ablate(booted("llama")[3], ANSWERS, progress=False, **options)
