"""Each position's own next token. Expected: one question for each position, and the model's own logits."""

from __future__ import annotations

import pytest
import torch

import residscope
from residscope import ResidscopeError, targets
from tests.support import tiny

FAMILIES = ("llama", "gpt2", "gemma2", "granite", "deepseek_v3", "mixtral", "cohere", "bloom", "mamba", "qwen3_next",
            "native")  # fmt: skip


def cached(name: str, *, pad: bool = False):
    """A run of three prompts; with `pad`, the last two end with padding."""
    model = tiny.boot(name)
    tokens, logits, cache = tiny.run(model)
    if pad:
        tokens = tokens.clone()
        tokens[1, -2:], tokens[2, -1:] = 0, 0
        with torch.no_grad():
            logits, cache = model.run_with_cache(tokens)
    return tokens, logits, cache


@pytest.mark.parametrize("by", ["head", "layer", "accumulated"])
@pytest.mark.parametrize("versus", [None, "runner-up"])
@pytest.mark.parametrize("name", FAMILIES)
def test_all_positions_at_once_are_one_question_each(name, versus, by):
    tokens, logits, cache = cached(name, pad=True)
    mask = (torch.cat([tokens[:1] * 0 + 1, tokens[1:]]) != 0).long()
    if by == "head" and name == "mamba":
        with pytest.raises(ResidscopeError):
            residscope.attribute(cache, targets.next_token(versus), by=by, position="all", attention_mask=mask)
        return
    found = residscope.attribute(cache, targets.next_token(versus), by=by, position="all", attention_mask=mask)
    assert found.axes == ("component", "batch", "pos")
    real = mask[:, 1:].bool()
    assert bool(found.values[..., :-1].isnan().all(0).eq(~real).all())
    assert bool(found.values[..., -1].isnan().all())
    other = logits.scatter(-1, tokens.roll(-1, 1)[..., None], float("-inf")).argmax(-1)
    for prompt, at in [(0, 0), (0, 5), (1, 2), (2, 4)]:
        answer = int(tokens[prompt, at + 1])
        asked = answer if versus is None else (answer, int(other[prompt, at]))
        places = [at] * 3
        one = residscope.attribute(cache, asked, by=by, position=places, attention_mask=mask)
        torch.testing.assert_close(found.values[:, prompt, at], one.values[:, prompt], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.measured[prompt, at], one.measured[prompt], atol=1e-5, rtol=1e-5)
        given = logits[prompt, at, answer] - (0 if versus is None else logits[prompt, at, other[prompt, at]])
        torch.testing.assert_close(found.measured[prompt, at], given, atol=1e-4, rtol=1e-4)
    left = found.unexplained[found.unexplained.isfinite()].abs().max()
    assert left <= found.tolerance or any("unexplained" in note or "arises" in note for note in found.notes)


def test_how_the_model_predicted_each_token():
    tokens, logits, cache = cached("llama", pad=True)
    for given in (cache, {name: cache[name] for name in cache if name != "unembed.hook_out"}):
        found = residscope.next_tokens(given, model=cache.model)
        log_prob = logits.log_softmax(-1)
        for prompt, at in [(0, 0), (0, 5), (1, 3), (2, 2)]:
            answer = int(tokens[prompt, at + 1])
            assert float(found.log_prob[prompt, at]) == pytest.approx(float(log_prob[prompt, at, answer]), abs=1e-4)
            assert int(found.rank[prompt, at]) == int((logits[prompt, at] > logits[prompt, at, answer]).sum())
        assert found.real.tolist() == [[True] * 6 + [False], [True] * 4 + [False] * 3, [True] * 5 + [False] * 2]
        assert bool(found.log_prob[~found.real].isnan().all())
        assert set(found.rank[~found.real].tolist()) == {-1}


def test_what_has_no_next_token_is_refused():
    _, _, cache = cached("llama")
    with pytest.raises(ResidscopeError, match="Position 6 of prompt 0 has no next token"):
        residscope.attribute(cache, targets.next_token(), position=6)
    with pytest.raises(ResidscopeError, match="no next token"):
        residscope.attribute(cache, targets.next_token())
    with pytest.raises(ResidscopeError, match="one position"):
        residscope.attribute(cache, targets.next_token(), by="source", position="all")
    with pytest.raises(ResidscopeError, match="name a token"):
        residscope.attribute(cache, targets.output("L1H1", of=targets.next_token()), position=3)
    held = {name: cache[name] for name in cache if name not in ("embed.hook_in", "hook_embed", "embed.hook_out")}
    with pytest.raises(ResidscopeError, match="holds no token ids"):
        residscope.attribute(held, targets.next_token(), position="all", model=cache.model)


def test_neurons_and_logits_that_are_given():
    tokens, logits, cache = cached("gpt2")
    found = residscope.attribute(cache, targets.next_token(), by="neuron", layers=1, position="all", logits=logits)
    assert found.measured_from == "the given logits"
    one = residscope.attribute(cache, [int(at) for at in tokens[:, 4]], by="neuron", layers=1, position=3)
    torch.testing.assert_close(found.values[..., 3], one.values, atol=1e-5, rtol=1e-5)
