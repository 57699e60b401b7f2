"""For random models, values add up, agree with float64, and do not depend on the other prompts of the batch."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from transformer_lens import ActivationCache
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import boot_native

import residscope
from tests.support.brute import Brute

VOCAB = 40
PAD = 0
DECOMPOSITIONS = [
    ("head", {}),
    ("layer", {}),
    ("accumulated", {}),
    ("neuron", {}),
    ("source", {"heads": ["1.0", "0.1"]}),
]
random_examples = settings(
    max_examples=5 if "RESIDSCOPE_SHAPES" in os.environ else 20,  # checking shapes at each call is slow
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)


@st.composite
def models(draw) -> TransformerBridge:
    """Draw a random tiny transformer: with or without norm parameters, centring, grouped queries, gates, soft-caps."""
    groups = draw(st.sampled_from([1, 2, 4]))
    attn_only = draw(st.booleans())
    cfg = TransformerBridgeConfig(
        d_model=16, d_head=draw(st.sampled_from([2, 4, 6])), n_heads=4, n_layers=draw(st.sampled_from([2, 3])),
        n_ctx=16, d_vocab=VOCAB, d_mlp=12, n_key_value_heads=groups, attn_only=attn_only, gated_mlp=draw(st.booleans()),
        act_fn=draw(st.sampled_from(["gelu", "silu", "relu"])),
        normalization_type=draw(st.sampled_from(["LN", "RMS", "LNPre", "RMSPre", None])), final_rms=draw(st.booleans()),
        positional_embedding_type=draw(st.sampled_from(["standard", "rotary"])),
        output_logits_soft_cap=draw(st.sampled_from([-1.0, 4.0, 30.0])), seed=0,
    )  # fmt: skip
    model = boot_native(cfg)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.4 * noise if parameter.ndim == 1 else 0.5 * noise)
    return model


class Run(NamedTuple):
    model: TransformerBridge
    tokens: torch.Tensor
    logits: torch.Tensor
    cache: ActivationCache
    answers: torch.Tensor

    def __repr__(self) -> str:
        cfg = self.model.cfg
        kind = (
            f"{cfg.normalization_type}, final_rms {cfg.final_rms}, {cfg.n_key_value_heads} groups, d_head {cfg.d_head}"
        )
        more = f"attn_only {cfg.attn_only}, gated {cfg.gated_mlp}, cap {cfg.output_logits_soft_cap}"
        return f"Run({kind}, {more}, {self.tokens.tolist()}, {self.answers.tolist()})"


@st.composite
def runs(draw) -> Run:
    """Draw a model, prompts, the model's logits and its cache, and answers."""
    model = draw(models())
    batch, positions = draw(st.integers(1, 4)), draw(st.integers(2, 7))
    ids = st.integers(1, VOCAB - 1)
    prompts = st.lists(ids, min_size=positions, max_size=positions)
    tokens = torch.tensor(draw(st.lists(prompts, min_size=batch, max_size=batch)))
    answers = torch.tensor(draw(st.lists(st.tuples(ids, ids), min_size=batch, max_size=batch)))
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
    return Run(model, tokens, logits, cache, answers)


def decompositions(model):
    return [(by, options) for by, options in DECOMPOSITIONS if not (by == "neuron" and model.cfg.attn_only)]


def close(a, b, size=1.0):
    torch.testing.assert_close(a, b, atol=2e-5 * max(1.0, float(size)), rtol=1e-4)


@random_examples
@given(runs())
def test_values_add_up_to_the_measured_value(run):
    model, _, logits, cache, answers = run
    expected = logits[:, -1].gather(1, answers)
    for by, options in decompositions(model):
        result = residscope.attribute(cache, answers, by=by, **options)
        total = result.values[-1] if by == "accumulated" else result.values.sum(0)
        close(total + result.constant + result.unexplained, result.measured)
        assert result.unexplained.abs().max() <= result.tolerance
        assert not any("arises" in note for note in result.notes)
        if by != "source":
            close(result.measured, expected[:, 0] - expected[:, 1])


@random_examples
@given(runs())
def test_rows_agree_with_brute_force_in_float64(run):
    model, _, _, cache, answers = run
    expected = Brute(model, cache, answers, -1).rows()
    for by in ("head", "layer"):
        result = residscope.attribute(cache, answers, by=by)
        size = result.values.abs().max()
        for label, row in zip(result.labels, result.values, strict=True):
            close(row.double(), expected[label], size)


@random_examples
@given(runs(), st.data())
def test_contributions_do_not_depend_on_the_other_prompts_or_their_order(run, data):
    model, tokens, _, cache, answers = run
    order = data.draw(st.permutations(range(len(tokens))))
    one = data.draw(st.sampled_from(order))
    with torch.no_grad():
        _, shuffled = model.run_with_cache(tokens[order])
        _, alone = model.run_with_cache(tokens[[one]])
    for by, options in decompositions(model):
        whole = residscope.attribute(cache, answers, by=by, **options).values
        size = whole.abs().max()
        close(residscope.attribute(shuffled, answers[order], by=by, **options).values, whole[..., order], size)
        close(residscope.attribute(alone, answers[[one]], by=by, **options).values, whole[..., [one]], size)


@random_examples
@given(runs(), st.data())
def test_heads_in_any_order_have_the_same_values(run, data):
    """A head may be named twice. Its sources sum to the head's row, and its pattern is the cached one."""
    model, tokens, _, cache, answers = run
    every = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(4)]
    heads = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=6))
    places = [list(place) for place in zip(*heads, strict=True)]
    grid = residscope.attribute(cache, answers, position="all").grid[tuple(places)]  # [head, batch, position]
    size, names = grid.abs().max(), [f"L{layer}H{head}" for layer, head in heads]
    found = residscope.attribute(cache, answers, by="source", heads=heads, position="all")
    assert found.heads == names
    close(found.values.sum(0), grid.permute(2, 0, 1), size)
    prompt = data.draw(st.sampled_from([None, *range(len(tokens))]))
    contributions = residscope.attention(cache, heads, prompt=prompt, weighting="contribution", answers=answers)
    close(contributions.values.sum(-1), grid.mean(1) if prompt is None else grid[:, prompt], size)
    patterns = torch.stack([cache["pattern", layer][:, head] for layer, head in heads])
    seen = residscope.attention(cache, heads, prompt=prompt)
    close(seen.values, patterns.mean(1) if prompt is None else patterns[:, prompt])
    assert contributions.heads == seen.heads == names


class Tokenizer:
    """A tokenizer with only the attributes that detect padding and name answers."""

    pad_token_id = PAD
    bos_token_id = None

    def convert_ids_to_tokens(self, id: int) -> str:
        return f"w{id}"

    def decode(self, ids: list[int], **_options) -> str:
        return f"w{ids[0]}"


@random_examples
@given(runs(), st.sampled_from(["left", "right"]), st.integers(1, 3), st.integers(0, 2**31))
def test_padding_on_either_side_changes_nothing_at_the_last_real_token(run, side, count, seed):
    """A longer prompt is added to the batch. At padding, the cache holds noise, and no attention."""
    model, tokens, _, cache, answers = run
    batch, positions = tokens.shape
    kept = slice(count, None) if side == "left" else slice(0, positions)
    generator = torch.Generator().manual_seed(seed)
    longer = torch.randint(1, VOCAB, (1, positions + count), generator=generator)
    with torch.no_grad():
        _, of_longer = model.run_with_cache(longer)

    def pad(name: str) -> torch.Tensor:
        t, other = cache[name], of_longer[name]
        if t.shape[0] != batch:  # position embeddings have no batch axis
            return other
        is_attention = name.endswith(("hook_pattern", "hook_attn_scores"))
        noise = torch.zeros(batch, *other.shape[1:], dtype=t.dtype)
        noise = noise if is_attention or not t.is_floating_point() else noise.uniform_(1, 2, generator=generator)
        noise[(slice(None), slice(None), kept, kept) if is_attention else (slice(None), kept)] = t
        return torch.cat([noise, other])

    padded = ActivationCache({name: pad(name) for name in cache.cache_dict}, model)
    model.tokenizer = Tokenizer()
    for by, options in decompositions(model):
        expected = residscope.attribute(cache, answers, by=by, **options)
        result = residscope.attribute(padded, torch.cat([answers, answers[:1]]), by=by, **options)
        values = result.values[kept] if by == "source" else result.values
        close(values[..., :batch], expected.values, expected.values.abs().max())
        close(result.measured[..., :batch], expected.measured)


@random_examples
@given(runs(), st.sampled_from(["last", 0, "all"]))
def test_cache_and_weights_are_not_changed(run, position):
    model, _, _, cache, answers = run
    before = {name: (id(t), t._version, t.clone()) for name, t in cache.items()}
    weights = {name: (id(p), p._version, p.requires_grad) for name, p in model.named_parameters()}
    for by, options in decompositions(model):
        residscope.attribute(cache, answers, by=by, position=position, **options)
    assert list(before) == list(cache.keys())
    for name, t in cache.items():
        assert (id(t), t._version) == before[name][:2]
        assert torch.equal(t, before[name][2])
    assert weights == {name: (id(p), p._version, p.requires_grad) for name, p in model.named_parameters()}


@random_examples
@given(runs())
def test_a_set_of_answers_has_the_mean_of_its_tokens(run):
    cache = run[3]
    for by in ("head", "layer"):
        one, two, three = (residscope.attribute(cache, id, by=by) for id in (5, 6, 7))
        whole = residscope.attribute(cache, ({5, 6}, 7), by=by)
        close(whole.values, (one.values + two.values) / 2 - three.values, one.values.abs().max())
        close(whole.measured, (one.measured + two.measured) / 2 - three.measured)
