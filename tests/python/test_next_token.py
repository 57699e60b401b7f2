"""Targets that are each position's next token. Expected: one request per position, and the model's own logits."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from msgspec import convert
from transformer_lens.model_bridge import TransformerBridge

import residscope
from residscope import ResidscopeError, targets
from residscope.attribution.own_targets import at_position
from residscope.attribution.targets import Targets
from residscope.cache.view import CacheView
from residscope.serving import answer_next
from residscope.serving.service import Service
from residscope.wire.shown import Shown
from tests.support import tiny
from tests.support.copied import pictured

FAMILIES = ("llama", "gpt2", "gemma2", "granite", "deepseek_v3", "mixtral", "cohere", "bloom", "mamba", "qwen3_next",
            "native", "opt")  # fmt: skip


def cached(name: str, *, pad: bool = False):
    """Return tokens, logits and cache of three prompts. With `pad`, the last two end with padding."""
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
def test_all_positions_at_once_equal_one_request_for_each_position(name, versus, by):
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


@pytest.mark.parametrize("given", ["the cached logits", "the stream", "the user's logits"])
@pytest.mark.parametrize("name", ["llama", "gemma2-cap-5", "cohere", "granite"])
def test_how_the_model_predicted_each_token(name, given):
    tokens, logits, cache = cached(name, pad=True)
    mask = (torch.cat([tokens[:1] * 0 + 1, tokens[1:]]) != 0).long()
    held = {name: cache[name] for name in cache if given == "the cached logits" or name != "unembed.hook_out"}
    passed = logits if given == "the user's logits" else None
    found = residscope.next_tokens(held, model=cache.model, logits=passed, attention_mask=mask)
    log_prob = logits.double().log_softmax(-1)
    for prompt, at in [(0, 0), (0, 5), (1, 3), (2, 2)]:
        answer = int(tokens[prompt, at + 1])
        assert float(found.log_prob[prompt, at]) == pytest.approx(float(log_prob[prompt, at, answer]), abs=1e-4)
        assert int(found.rank[prompt, at]) == 1 + int((logits[prompt, at] > logits[prompt, at, answer]).sum())
    assert found.real.tolist() == [[True] * 6 + [False], [True] * 4 + [False] * 3, [True] * 5 + [False] * 2]
    assert bool(found.log_prob[~found.real].isnan().all())
    assert set(found.rank[~found.real].tolist()) == {0}


def test_the_strongest_rows_of_all_positions_leave_out_those_without_a_next_token():
    tokens, _, cache = cached("llama", pad=True)
    mask = (torch.cat([tokens[:1] * 0 + 1, tokens[1:]]) != 0).long()
    found = residscope.attribute(cache, targets.next_token(), position="all", attention_mask=mask)
    means = np.nanmean(found.values[: found.parts].double().numpy(), axis=(1, 2))
    [(label, value), *_] = found.top(1)
    assert (label, value) == (found.labels[int(means.argmax())], pytest.approx(float(means.max()), abs=1e-6))
    assert "nan" not in repr(found)
    means = np.nanmean(found.values[: found.parts, 1].double().numpy(), axis=1)
    assert found.top(1, prompt=1)[-1] == (found.labels[int(means.argmin())], pytest.approx(means.min(), abs=1e-6))


@pytest.mark.parametrize("by", ["layer", "head", "source"])
def test_a_value_that_is_not_finite_is_named_by_its_prompt_and_position(by):
    _, _, cache = cached("llama")
    name = "blocks.1.attn.hook_z" if by != "layer" else "blocks.1.hook_mlp_out"
    held = dict(cache.items()) | {name: cache[name].clone()}
    held[name][1, 4] = torch.nan
    options = {"heads": ["1.1"]} if by == "source" else {}
    with pytest.raises(ResidscopeError, match=r"holds NaN or infinity: `blocks.1.* \(prompt 1, position 4\)"):
        residscope.attribute(held, targets.next_token(), by=by, position="all", model=cache.model, **options)


ASKS = {
    "next token": lambda cache, tokens: residscope.attribute(
        cache, targets.next_token(), position="all", tokens=tokens
    ),
    "another target": lambda cache, tokens: residscope.attribute(cache, 3, tokens=tokens),
    "next tokens": lambda cache, tokens: residscope.next_tokens(cache, tokens=tokens),
    "scores": lambda cache, tokens: residscope.scores(cache, "induction", tokens=tokens),
    "a panel": lambda cache, tokens: residscope.inspect(cache, 3, tokens=tokens, show=False),
    "a run": lambda cache, tokens: residscope.patch(cache, tokens, 3, progress=False),
}


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            tiny.VOCAB,
            r"holds 64 at position 4 of prompt 1: this id is outside the vocabulary of 64 tokens \(0 to",
        ),
        (-100, "holds -100 at position 4 of prompt 1: this id is outside the vocabulary"),
        (5.5, "holds 5.5 at position 4 of prompt 1, but token ids are whole numbers"),
        (float("nan"), "holds nan at position 4 of prompt 1, but token ids are whole numbers"),
    ],
)
def test_what_is_not_a_token_id_of_the_model_is_refused_with_its_place(ask, value, said):
    tokens, _, cache = tiny.run(tiny.boot("llama"))
    tokens = tokens if isinstance(value, int) else tokens.double()
    tokens = tokens.clone()
    tokens[1, 4] = value
    if ask == "a run" and tokens.is_floating_point():
        said = "takes another cache, token ids"
    with pytest.raises(ResidscopeError, match=said):
        ASKS[ask](cache, tokens)


def test_whole_numbers_of_a_float_dtype_are_token_ids():
    tokens, _, cache = tiny.run(tiny.boot("llama"))
    found = residscope.next_tokens(cache, tokens=tokens.double())
    assert torch.equal(found.ids[:, :-1], tokens[:, 1:])
    torch.testing.assert_close(found.log_prob, residscope.next_tokens(cache).log_prob, equal_nan=True)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_token_ids_may_be_unsigned(kind):
    tokens, _, cache = tiny.run(tiny.boot("llama"))
    found = residscope.next_tokens(cache, tokens=tokens.numpy().astype(kind))
    assert torch.equal(found.ids[:, :-1], tokens[:, 1:])


def test_a_token_that_is_embedded_but_has_no_logit_is_only_refused_as_a_next_token():
    """Some models embed more tokens than they predict."""
    model = TransformerBridge.boot_native(tiny.FAMILIES["native"].settings | {"d_vocab_out": 12, "seed": 0})
    tokens = torch.tensor([[1, 2, 15, 4]])
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
    assert logits.shape[-1] == 12
    found = residscope.attribute(cache, 3, tokens=tokens)
    torch.testing.assert_close(found.measured[0], logits[0, -1, 3])
    said = "15 at position 2 of prompt 0 has no logit: the model predicts only 12 tokens"
    with pytest.raises(ResidscopeError, match=said):
        residscope.attribute(cache, targets.next_token(), position="all", tokens=tokens)
    with pytest.raises(ResidscopeError, match=said):
        residscope.next_tokens(cache)


def test_only_a_wanted_next_token_needs_a_logit():
    """Neither the first token of a prompt nor padding is a next token."""
    model = TransformerBridge.boot_native(tiny.FAMILIES["native"].settings | {"d_vocab_out": 12, "seed": 0})
    tokens = torch.tensor([[13, 1, 2, 15, 14], [13, 1, 2, 4, 14]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 0]])
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
    found = residscope.attribute(cache, targets.next_token(), position=1)
    torch.testing.assert_close(found.measured, logits[:, 1, 2])
    chances = logits.softmax(-1)
    lens = residscope.token_lens(cache, targets.next_token(), positions=[0, 1], prompt=0)
    torch.testing.assert_close(lens.answer_probability[-1], torch.stack([chances[0, 0, 1], chances[0, 1, 2]]))
    lens = residscope.token_lens(cache, targets.next_token(), prompt=1, attention_mask=mask)
    torch.testing.assert_close(lens.answer_probability[-1, 2], chances[1, 2, 4])
    said = "15 at position 3 of prompt 0 has no logit"
    with pytest.raises(ResidscopeError, match=said):
        residscope.attribute(cache, targets.next_token(), position=2)
    with pytest.raises(ResidscopeError, match=said):
        residscope.token_lens(cache, targets.next_token(), positions=[2])
    with pytest.raises(ResidscopeError, match=said):
        residscope.next_tokens(cache, attention_mask=mask)
    view = CacheView(cache, attention_mask=mask)
    where = torch.tensor([2, 2])
    one = at_position(Targets.of(view), Targets.of(view).resolve(targets.next_token()), where, None, prompt=1)
    assert [contrast.answer[0].id for contrast in one.contrasts] == [4, 4]


def test_logits_of_a_smaller_vocabulary_are_refused():
    _, logits, cache = tiny.run(tiny.boot("llama"))
    narrow = logits[..., :5]
    with pytest.raises(ResidscopeError, match="`logits` has 5 tokens, but the model's vocabulary has 64"):
        residscope.next_tokens(cache, logits=narrow)
    with pytest.raises(ResidscopeError, match="`logits` has 5 tokens, but the model's vocabulary has 64"):
        residscope.attribute(cache, targets.next_token("runner-up"), position=2, logits=narrow)


def test_a_position_without_a_next_token_is_refused():
    _, _, cache = cached("llama")
    with pytest.raises(ResidscopeError, match="Position 6 of prompt 0 has no next token"):
        residscope.attribute(cache, targets.next_token(), position=6)
    with pytest.raises(ResidscopeError, match="no next token"):
        residscope.attribute(cache, targets.next_token())
    with pytest.raises(ResidscopeError, match="cannot be read at all positions at once"):
        residscope.attribute(cache, targets.output("L1H1", of=targets.next_token(), source=1), position="all")
    held = {name: cache[name] for name in cache if name not in ("embed.hook_in", "hook_embed", "embed.hook_out")}
    with pytest.raises(ResidscopeError, match="holds no token ids"):
        residscope.attribute(held, targets.next_token(), position="all", model=cache.model)


@pytest.mark.parametrize("versus", [None, "runner-up"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "olmo2", "falcon", "qwen3_next", "granite", "gpt_oss"])
def test_the_sources_of_every_positions_own_target_equal_single_questions(name, versus):
    _, _, cache = cached(name, pad=name not in ("qwen3_next", "falcon"))
    layers = 4 if name in ("qwen3_next",) else 3
    heads = [(layer, head) for layer in range(layers) for head in (0, 3, 1)]
    if name == "qwen3_next":
        heads = [(1, 0), (3, 2), (3, 1)]
    own = targets.next_token(versus=versus)
    every = residscope.attribute(cache, own, by="source", heads=heads, position="all")
    real = residscope.next_tokens(cache).real
    assert every.axes == ("source", "destination", "head", "batch")
    assert every.values.shape == (7, 7, len(heads), 3)
    by_head = residscope.attribute(cache, own, by="head", position="all")
    for prompt in range(3):
        for at in range(7):
            found = every.values[:, at, :, prompt]
            if not real[prompt, at]:
                assert bool(found.isnan().all())
                assert bool(every.measured[at, :, prompt].isnan().all())
                continue
            for i, (layer, head) in enumerate(heads):
                torch.testing.assert_close(
                    found[:, i].sum(), by_head.grid[layer, head, prompt, at], atol=1e-4, rtol=1e-4
                )
            if bool(real[:, at].all()):
                one = residscope.attribute(cache, own, by="source", heads=heads, position=at)
                torch.testing.assert_close(found, one.values[..., prompt], atol=1e-5, rtol=1e-4)
    assert not any("not pattern @ v" in note for note in every.notes)


def test_the_sources_of_own_targets_are_bounded(monkeypatch):
    from residscope.attribution import own_sources

    _, _, cache = cached("llama")
    monkeypatch.setattr(own_sources, "LARGEST", 7 * 7 * 3 * 4 * 2)
    residscope.attribute(cache, targets.next_token(), by="source", heads=["0.1", "1.1"], position="all")
    with pytest.raises(ResidscopeError, match="at most 2 here"):
        residscope.attribute(cache, targets.next_token(), by="source", heads=["0.1", "1.1", "2.1"], position="all")


def test_the_sources_of_own_targets_in_float64_by_hand():
    """Expected: pattern · (v · W_O u) / s.

    Here u is the next token's column of the unembedding times the final norm's weight, and s is the norm's scale.
    """
    tokens, _, cache = cached("llama")
    model = cache.model
    found = residscope.attribute(cache, targets.next_token(), by="source", heads=["1.2"], position="all")
    pattern = cache["blocks.1.attn.hook_pattern"][:, 2].double()
    v = cache["blocks.1.attn.hook_v"][:, :, 1].double()  # four heads share two values
    W_O = model.blocks[1].attn.W_O[2].detach().double()
    u = model.W_U.detach().double()[:, tokens[:, 1:]].permute(1, 2, 0) * model.ln_final.weight.detach().double()
    scale = cache["ln_final.hook_scale"][:, :-1].double()
    expected = pattern[:, :-1] * torch.einsum("bsh,hm,bdm->bds", v, W_O, u) / scale
    torch.testing.assert_close(found.values[:, :-1, 0].permute(2, 1, 0).double(), expected, atol=1e-5, rtol=1e-4)


def test_what_a_head_contributes_to_the_next_token():
    tokens, _, cache = cached("llama")
    own = residscope.attribute(cache, targets.output("L1H1", of=targets.next_token(), source=1), position=3)
    named = targets.output("L1H1", of=[int(id) for id in tokens[:, 4]], source=1)
    torch.testing.assert_close(own.values, residscope.attribute(cache, named, position=3).values)


def test_neurons_with_given_logits():
    tokens, logits, cache = cached("gpt2")
    found = residscope.attribute(cache, targets.next_token(), by="neuron", layers=1, position="all", logits=logits)
    assert found.measured_from == "the given logits"
    one = residscope.attribute(cache, [int(at) for at in tokens[:, 4]], by="neuron", layers=1, position=3)
    torch.testing.assert_close(found.values[..., 3], one.values, atol=1e-5, rtol=1e-5)


# --- the requests of the views ----------------------------------------------------------------------------------------
OWN = {"contrasts": [], "next_token": {"versus": None}}
OTHER = {"contrasts": [], "next_token": {"versus": "runner-up"}}


def answered(service: Service, kind: str, **fields):
    answer, buffers = service.answer({"id": "1", "ask": {"kind": kind, **fields}})
    return answer.get("reply") or answer["failure"], [np.frombuffer(buffer, "f4") for buffer in buffers]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "mamba", "native"])
def test_the_reply_for_the_tokens_equals_the_models_own_values_and_single_requests(name):
    tokens, logits, cache = cached(name, pad=True)
    mask = (torch.cat([tokens[:1] * 0 + 1, tokens[1:]]) != 0).long()
    service = Service(cache, attention_mask=mask)
    reply, (log_prob, rank, layers, heads) = answered(service, "next-tokens", target=OWN, prompt=1)
    assert (reply["kind"], reply["count"], reply["positions"]) == ("next-tokens", 4, 7)
    assert reply["adding"] == 4
    wanted = logits.log_softmax(-1)[1].gather(-1, tokens[1].roll(-1)[:, None])[:4, 0]
    assert log_prob[:4] == pytest.approx(wanted.numpy(), abs=1e-4)
    own = logits[1].gather(-1, tokens[1].roll(-1)[:, None])
    assert rank[:4].tolist() == (1 + (logits[1] > own).sum(-1)[:4]).tolist()
    assert np.isnan(log_prob[4:]).all()
    assert np.isnan(rank[4:]).all()
    assert np.isnan(layers.reshape(-1, 7)[:, 4:]).all()
    at = 2
    by = "layer" if name == "mamba" else "head"
    one = residscope.attribute(cache, int(tokens[1, at + 1]), by=by, position=[at] * 3, attention_mask=mask)
    for layer in range(cache.model.cfg.n_layers):
        rows = [i for i, row in enumerate(one.components) if row.layer == layer]
        assert layers.reshape(-1, 7)[layer, at] == pytest.approx(float(one.values[rows, 1].sum()), abs=1e-4)
    if by == "head":
        torch.testing.assert_close(
            torch.tensor(heads).reshape(*one.grid.shape[:2], 7)[..., at], one.grid[..., 1], atol=1e-5, rtol=1e-5
        )
    else:
        assert heads.size == 0


def test_the_reply_for_neurons_equals_single_requests():
    tokens, _, cache = cached("gpt2")
    reply, (_, _, rows, heads) = answered(
        Service(cache), "next-tokens", target=OWN, prompt=0, neurons=["L1N3", "L0N2", "L1N0"]
    )
    one = residscope.attribute(cache, [int(id) for id in tokens[:, 5]], by="neuron", position=4)
    wanted = [float(one.values[one.labels.index(name), 0]) for name in ("L1N3", "L0N2", "L1N0")]
    assert rows.reshape(3, 7)[:, 4] == pytest.approx(wanted, abs=1e-5)
    assert (heads.size, reply["adding"]) == (0, None)
    failure, _ = answered(Service(cache), "next-tokens", target=OWN, prompt=0, neurons=["L1N99999"])
    assert "no neuron 99999" in failure["message"]


def test_too_many_heads_are_sent_one_by_one(monkeypatch):
    _, _, cache = cached("llama")
    service = Service(cache)
    whole, (*_, heads) = answered(service, "next-tokens", target=OWN, prompt=2)
    monkeypatch.setattr(answer_next, "MOST_BYTES", 100)
    reply, (*_, empty) = answered(service, "next-tokens", target=OWN, prompt=2, padding="none")  # no memoised reply
    assert (empty.size, reply["adding"]) == (0, whole["adding"])
    _, (row, _) = answered(service, "positions", by="head", target=OWN, prompt=2, heads=["L1H2"])
    assert row == pytest.approx(heads.reshape(3, 4, 7)[1, 2], nan_ok=True)
    monkeypatch.setattr(answer_next, "MOST_POSITIONS", 6)
    failure, _ = answered(service, "next-tokens", target=OTHER, prompt=2)
    assert failure["code"] == "too-large"


@pytest.mark.parametrize(("target", "kind"), list(product((OWN, OTHER), ("attribute", "neurons", "attention"))))
def test_a_request_at_one_position_asks_about_its_own_next_token(target, kind):
    tokens, logits, cache = cached("llama", pad=True)
    mask = (torch.cat([tokens[:1] * 0 + 1, tokens[1:]]) != 0).long()
    service = Service(cache, attention_mask=mask)
    fields = {"attribute": {"by": "layer"}, "neurons": {"layer": 1}, "attention": {"layer": 1, "head": 1}}[kind]
    for prompt, position, at in ((1, "last", 3), (1, 2, 2), (0, 5, 5)):  # position 5 is padding in prompt 1
        answer, best = int(tokens[prompt, at + 1]), logits[prompt, at].topk(2).indices.tolist()
        named = {"answer": [{"id": answer, "text": ""}], "distractor": []}
        if target is OTHER:
            named["distractor"] = [{"id": best[1] if best[0] == answer else best[0], "text": ""}]
        asked = answered(service, kind, target=target, prompt=prompt, position=position, **fields)
        plain = answered(service, kind, target={"contrasts": [named]}, prompt=prompt, position=at, **fields)
        for found, wanted in zip(asked[1], plain[1], strict=True):
            assert found == pytest.approx(wanted, abs=1e-6, nan_ok=True)
        assert asked[0].get("measured") == pytest.approx(plain[0].get("measured"))


def test_only_prompts_that_are_shown_must_have_a_next_token():
    tokens, _, cache = cached("llama", pad=True)
    mask = (torch.cat([tokens[:1] * 0 + 1, tokens[1:]]) != 0).long()
    service = Service(cache, attention_mask=mask)
    mean, _ = answered(service, "attribute", by="layer", target=OWN, position=5)
    assert "Position 5 of prompt 1 has no next token" in mean["message"]
    whole, rows = answered(service, "attribute", by="layer", target=OWN)  # each prompt at its own last position
    single = [answered(service, "attribute", by="layer", target=OWN, prompt=prompt)[1][0] for prompt in range(3)]
    assert rows[0] == pytest.approx(np.mean(single, 0), abs=1e-5)
    assert whole["measured"] is not None
    mean, (log_prob, rank, *_) = answered(service, "next-tokens", target=OWN)
    assert (mean["count"], mean["adding"]) == (6 + 4 + 5, 15)
    assert np.isnan(log_prob).tolist() == [False] * 6 + [True]  # of the prompts in which a token follows
    assert np.isnan(rank).all()


def test_positions_and_token_lens_are_about_each_positions_own_token():
    tokens, logits, cache = cached("llama")
    service = Service(cache)
    rows = residscope.attribute(cache, targets.next_token(), by="layer", position="all").values[:, 0]
    _, (values, measured) = answered(service, "positions", by="layer", target=OWN, prompt=0)
    assert values.reshape(-1, 7) == pytest.approx(rows.numpy(), abs=1e-5, nan_ok=True)
    own = logits[0].gather(-1, tokens[0].roll(-1)[:, None])[:, 0]
    assert measured[:6] == pytest.approx(own[:6].numpy(), abs=1e-4)
    _, (values, _) = answered(service, "positions", by="head", target=OWN, prompt=0, heads=["L2H1", "L0H3"])
    grid = residscope.attribute(cache, targets.next_token(), position="all").grid[..., 0, :]
    assert values.reshape(2, 7) == pytest.approx(torch.stack([grid[2, 1], grid[0, 3]]).numpy(), abs=1e-5, nan_ok=True)
    reply, _ = answered(
        service, "token-lens", target=OWN, prompt=0, points=["0_pre", "final_post"], start=4, stop=7, k=3
    )
    cells = reply["cells"][1]
    wanted = logits[0].softmax(-1).gather(-1, tokens[0].roll(-1)[:, None])[:, 0]
    assert [cell["answer"] for cell in cells[:2]] == pytest.approx(wanted[4:6].tolist(), abs=1e-4)
    assert [cell["rank"] for cell in cells[:2]] == (1 + (logits[0] > own[:, None]).sum(-1))[4:6].tolist()
    assert (cells[2]["answer"], cells[2]["rank"]) == (None, None)


def test_requests_that_need_one_target_for_all_positions_are_refused_in_a_sentence():
    _, _, cache = cached("llama")
    service = Service(cache)
    run = {"target": OWN, "prompt": 0}
    for kind, fields in (("compare", {"by": "layer", "against": {"prompt": 1}}),
                         ("thumbnails", {"layer": 0, "weighting": "contribution"}),
                         ("blend", {"layer": 0, "weighting": "contribution"})):  # fmt: skip
        failure, _ = answered(service, kind, **run, **fields)
        assert failure["code"] == "next-token"
        assert "name a token" in failure["message"]
    assert answered(service, "thumbnails", layer=0, **run)[0]["kind"] == "thumbnails"
    failure, _ = answered(service, "next-tokens", target={"contrasts": []}, prompt=0)
    assert failure["code"] == "next-token"
    with pytest.raises(ResidscopeError, match="index of the first generated token"):
        Service(cache, generated_from="3")
    assert answered(Service(cache, generated_from=3), "describe")[0]["generated_from"] == 3


def test_the_last_position_of_a_panel_follows_its_target(panel):
    last = panel.position
    panel.target = targets.next_token()
    assert (panel.position, repr(panel.target)) == (last - 1, "targets.next_token()")
    panel.target = targets.next_token("runner-up")
    assert panel.position == last - 1
    panel.position = 3
    panel.target = None
    assert panel.position == 3
    panel.target = targets.next_token()
    panel.position = "last"
    assert panel.position == last - 1
    panel.target = None
    assert panel.position == last


@pytest.fixture
def panel():
    from residscope.hosts.panel import Panel

    _, _, cache = cached("llama")
    panel = Panel(Service(cache))
    yield panel
    panel.close()


@pytest.mark.parametrize("picture", ["heads", "layers", "lens", "ranking", "positions", "token-lens"])
@pytest.mark.parametrize("position", ["last", 2])
def test_copied_code_computes_what_is_shown(picture, position):
    tokens, _, cache = cached("llama", pad=True)
    mask = (torch.cat([tokens[:1] * 0 + 1, tokens[1:]]) != 0).long()
    service = Service(cache, attention_mask=mask)
    shown = {"target": OTHER, "prompt": 1, "position": position, "tab": "positions"}
    reply, _ = answered(service, "code", picture=picture, shown=shown)
    assert 'residscope.targets.next_token(versus="runner-up")' in reply["code"]
    names = {"cache": cache, "attention_mask": mask}
    exec(reply["code"].replace("figure = ", "figure = None and "), names)
    at = 3 if position == "last" else 2
    expected = pictured(service, picture, convert({**shown, "position": at}, Shown))
    assert np.isfinite(expected).any()
    np.testing.assert_allclose(names["values"], expected, atol=1e-5, rtol=1e-5)
