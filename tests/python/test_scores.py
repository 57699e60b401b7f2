"""Head scores. Expected: TransformerLens' own functions, and loops that follow the definitions."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from transformer_lens import ActivationCache, FactoredMatrix, head_detector

import residscope
from residscope import ResidscopeError
from residscope.patterns import copying, detection, scores
from residscope.patterns import weighting as weightings
from tests.support import tiny

NAMES = {"previous": "previous_token", "duplicate": "duplicate_token", "induction": "induction"}
PADDED = torch.tensor([[1, 5, 6, 5, 6, 5], [1, 8, 9, 8, 0, 0], [0, 0, 1, 7, 3, 7], [1, 5, 6, 7, 5, 0]])
SPANS = [range(6), range(4), range(2, 6), range(5)]


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2", "falcon-alibi"])
def padded(request):
    """Prompts with repeated tokens. The second and fourth prompts end with padding, the third begins with padding."""
    model = tiny.boot(request.param)
    with torch.no_grad():
        return model.run_with_cache(PADDED)[1]


def transformer_lens_score(score: str, pattern: torch.Tensor, tokens: torch.Tensor) -> float:
    detect = getattr(head_detector, f"get_{NAMES[score]}_head_detection_pattern")
    return head_detector.compute_head_attention_similarity_score(
        pattern, detect(tokens[None]), exclude_bos=False, exclude_current_token=False, error_measure="mul"
    )


def written_out(score: str, pattern: torch.Tensor) -> float:
    """Return first-token attention or entropy, computed for each destination in a loop."""
    figures = []
    for to in range(1, len(pattern)):
        # `Categorical` divides by the sum of the row, which is not 1 if the run attended to padding.
        entropy = torch.distributions.Categorical(pattern[to]).entropy() / math.log(2)
        figures.append(float(pattern[to, 0] if score == "first" else entropy))
    return sum(figures) / len(figures)


@pytest.mark.parametrize("score", ["previous", "duplicate", "induction", "first", "entropy"])
@pytest.mark.parametrize("cells", [weightings.CELLS, 20])
def test_each_score_is_its_definition_head_by_head_and_padding_does_not_count(padded, score, cells, monkeypatch):
    monkeypatch.setattr(scores, "CELLS", cells)
    monkeypatch.setattr(scores, "_BLOCK", cells)  # everything, or a head and three destinations at a time
    expected = torch.zeros(4, 3, 4)
    for prompt, span in enumerate(SPANS):
        tokens = PADDED[prompt, span.start : span.stop]
        for layer in range(3):
            for head in range(4):
                pattern = padded["pattern", layer][prompt, head, span.start : span.stop, span.start : span.stop]
                known = score in NAMES
                expected[prompt, layer, head] = (
                    transformer_lens_score(score, pattern, tokens) if known else written_out(score, pattern)
                )
    for prompt in range(4):
        torch.testing.assert_close(
            residscope.scores(padded, score, prompt).values, expected[prompt], atol=1e-6, rtol=1e-5
        )
    torch.testing.assert_close(residscope.scores(padded, score).values, expected.mean(0), atol=1e-6, rtol=1e-5)


def test_the_scale_of_entropy_ends_at_even_attention_to_the_longest_real_prompt():
    with torch.no_grad():
        cache = tiny.boot("llama").run_with_cache(torch.tensor([[1, 5, 6, 7, 8, 0, 0], [1, 9, 10, 0, 0, 0, 0]]))[1]
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0]])
    assert residscope.scores(cache, "entropy", attention_mask=mask).high == math.log2(5)
    assert residscope.scores(cache, "entropy", 1, attention_mask=mask).high == math.log2(3)
    assert residscope.scores(cache, "entropy").high == math.log2(5)  # with the detected padding


def test_the_demo_models_scores_are_those_of_transformer_lens_detect_head(ioi):
    """`detect_head` computes a score of all heads for one prompt."""
    tokens = ioi.tokens[2]
    cache = ActivationCache({n: t[2] for n, t in ioi.cache.items() if n.endswith("pattern")}, ioi.model, False)
    for score, name in NAMES.items():
        theirs = head_detector.detect_head(ioi.model, ioi.prompts[2], f"{name}_head", cache=cache)
        assert len(tokens) == 15
        torch.testing.assert_close(residscope.scores(ioi.cache, score, 2).values, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("score", list(NAMES))
def test_patterns_of_detection_are_those_of_transformer_lens(score):
    theirs = getattr(head_detector, f"get_{NAMES[score]}_head_detection_pattern")
    for tokens in (PADDED[0], torch.tensor([3]), torch.tensor([4, 4, 4]), torch.randint(5, (40,))):
        assert torch.equal(getattr(detection, score)(tokens[None]).float(), theirs(tokens[None]).float())


UNEVEN = [[1, 5, 6, 5, 6, 5], [1], [1, 8, 9, 7], [1, 7, 3, 7]]  # prompts 1 and 2 repeat no token


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("score", "left_out", "why"),
    [
        ("previous", {1}, "Prompt 1 is left out of the mean, because it has one token."),
        ("first", {1}, "Prompt 1 is left out of the mean, because it has one token."),
        ("entropy", {1}, "Prompt 1 is left out of the mean, because it has one token."),
        ("duplicate", {1, 2}, "Prompts 1 and 2 are left out of the mean, because no token is repeated there."),
        ("induction", {1, 2}, "Prompts 1 and 2 are left out of the mean, because no token is repeated there."),
    ],
)
def test_a_prompt_with_nothing_to_score_is_left_out_of_the_mean_and_a_note_names_it(family, score, left_out, why):
    model = tiny.boot(family)
    tokens = torch.tensor([row + [0] * (6 - len(row)) for row in UNEVEN])
    mask = torch.tensor([[1] * len(row) + [0] * (6 - len(row)) for row in UNEVEN])
    with torch.no_grad():
        cache = model.run_with_cache(tokens, attention_mask=mask)[1]
        alone = {at: model.run_with_cache(torch.tensor([row]))[1] for at, row in enumerate(UNEVEN)}
    expected: list[torch.Tensor] = []
    for at in sorted(set(range(4)) - left_out):
        ids, patterns = torch.tensor(UNEVEN[at]), torch.stack([alone[at]["pattern", layer][0] for layer in range(3)])
        known = score in NAMES
        rows = [
            transformer_lens_score(score, p, ids) if known else written_out(score, p) for p in patterns.flatten(0, 1)
        ]
        expected.append(torch.tensor(rows).view(3, 4))
    found = residscope.scores(cache, score, attention_mask=mask)
    torch.testing.assert_close(found.values, torch.stack(expected).mean(0), atol=1e-6, rtol=1e-5)
    assert why in found.notes
    whole = residscope.scores(cache, score, 0, attention_mask=mask)
    assert not any("left out of the mean" in note for note in whole.notes)
    for at in left_out:
        with pytest.raises(ResidscopeError, match="there is no score"):
            residscope.scores(cache, score, at, attention_mask=mask)


def test_a_mean_over_prompts_that_repeat_no_token_is_refused_with_this_reason():
    cache = tiny.boot("llama").run_with_cache(torch.tensor([[1, 5, 6], [1, 7, 8]]))[1]
    with pytest.raises(ResidscopeError, match=r"^No token is repeated in any prompt, so there is no earlier"):
        residscope.scores(cache, "induction")
    with pytest.raises(ResidscopeError, match="No token is repeated in prompt 1,"):
        residscope.scores(cache, "duplicate", 1)


# --- copying ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gptj", "llama", "qwen2", "llama-multi-query", "native"])
def test_copying_equals_transformer_lens_eigenvalues_in_compatibility_mode_and_raw(family):
    model = tiny.boot(family, compatible=True)
    mine = residscope.scores(tiny.run(model)[2], "copying").values
    for layer in range(3):
        W_V, W_O = (getattr(model.blocks[layer].attn, name).detach() for name in ("W_V", "W_O"))
        for head in range(4):
            group = head * len(W_V) // 4
            circuit = FactoredMatrix(model.W_E.detach() @ W_V[group], W_O[head] @ model.W_U.detach())
            values = circuit.eigenvalues
            theirs = float(values.real.sum() / values.abs().sum())
            assert float(mine[layer, head]) == pytest.approx(theirs, abs=2e-4), f"L{layer}H{head}"
    raw = residscope.scores(tiny.run(tiny.boot(family))[2], "copying").values
    torch.testing.assert_close(raw, mine, atol=5e-4, rtol=0)


@pytest.mark.parametrize("family", ["gemma2", "olmo2", "granite", "native-rms"])
def test_copying_equals_the_score_of_the_whole_circuit(family):
    """The circuit is a matrix, vocabulary × vocabulary, in float64. Every norm is a matrix, too."""
    model = tiny.boot(family)
    mine = residscope.scores(tiny.run(model)[2], "copying").values

    def norm(module) -> torch.Tensor:
        weight = getattr(module, "weight", None)
        weight = torch.ones(24) if weight is None else weight.detach()
        return torch.diag(weight.double() + (1 if family == "gemma2" else 0))  # all norms are RMSNorms

    for layer in range(3):
        block = model.blocks[layer]
        W_V, W_O = (getattr(block.attn, name).detach().double() for name in ("W_V", "W_O"))
        before = torch.eye(24, dtype=torch.float64) if family == "olmo2" else norm(block.ln1)
        after = norm(block.ln1_post) if hasattr(block, "ln1_post") else torch.eye(24, dtype=torch.float64)
        W_U = norm(model.ln_final) @ model.W_U.detach().double()
        W_U = W_U if family == "gemma2" else W_U - W_U.mean(-1, keepdim=True)  # capped logits are not centred
        for head in range(4):
            group = head * len(W_V) // 4
            whole = model.W_E.detach().double() @ before @ W_V[group] @ W_O[head] @ after @ W_U
            values = torch.linalg.eigvals(whole)
            assert float(mine[layer, head]) == pytest.approx(float(values.real.sum() / values.abs().sum()), abs=2e-4)


def test_copying_is_computed_once_for_a_model_and_again_after_its_weights_changed(monkeypatch):
    model = copy.deepcopy(tiny.boot("llama"))
    cache = tiny.run(model)[2]
    made = []
    monkeypatch.setattr(copying, "_copying", lambda view, real=copying._copying: made.append(1) or real(view))
    first = residscope.scores(cache, "copying").values
    first.zero_()  # the user changes the returned tensor, which is a copy
    again = residscope.scores(tiny.run(model)[2], "copying", prompt=1).values
    assert len(made) == 1
    assert again.abs().max() > 0
    with torch.no_grad():
        model.blocks[1].attn.o.original_component.weight.neg_()
    changed = residscope.scores(cache, "copying").values
    assert len(made) == 2
    torch.testing.assert_close(changed, again * torch.tensor([[1.0], [-1.0], [1.0]]), atol=1e-5, rtol=0)


# --- what cannot be determined ---------------------------------------------------------------------------------------
def test_layers_without_attention_and_missing_heads_are_nan():
    for score in ("previous", "entropy"):
        rows = residscope.scores(tiny.run(tiny.boot("lfm2"))[2], score).values.isnan()
        assert rows.all(1).tolist() == rows.any(1).tolist() == [True, False, True, False]
    fewer = residscope.scores(tiny.run(tiny.boot("laguna-heads"))[2], "first").values
    assert fewer.isnan().tolist() == [[False, False, True, True], [False] * 4, [False, False, True, True]]


@pytest.mark.parametrize(
    ("family", "score", "said"),
    [
        ("llama", "colour", "There is no score"),
        ("mamba2", "previous", "hook_pattern` is not in this cache"),
        ("mamba2", "copying", "There is no copying score"),
        ("deepseek_v3", "copying", "latent attention"),
        ("afmoe", "copying", "gated heads"),
        ("opt-projected", "copying", "their width is not that of the residual stream"),
    ],
)
def test_a_score_that_cannot_be_determined_is_refused_in_a_sentence(family, score, said):
    with pytest.raises(ResidscopeError, match=said):
        residscope.scores(tiny.run(tiny.boot(family))[2], score)


def test_missing_ids_nan_and_a_single_token_are_refused_in_a_sentence():
    model = tiny.boot("llama")
    held = dict(tiny.run(model)[2].items())
    without = ActivationCache({n: t for n, t in held.items() if n not in ("embed.hook_in", "hook_embed")}, model)
    with pytest.raises(ResidscopeError, match="pass `tokens=`"):
        residscope.scores(without, "induction")
    told = residscope.scores(without, "induction", tokens=held["embed.hook_in"]).values
    torch.testing.assert_close(told, residscope.scores(ActivationCache(held, model), "induction").values)
    odd = held["blocks.1.attn.hook_pattern"].clone()
    odd[0, 0, 3] = torch.nan
    with pytest.raises(ResidscopeError, match="layer 1 holds NaN"):
        residscope.scores(ActivationCache(held | {"blocks.1.attn.hook_pattern": odd}, model), "entropy")
    with pytest.raises(ResidscopeError, match="In a prompt of one token"):
        residscope.scores(tiny.run(model, positions=1)[2], "entropy")


def test_pos_slice_is_named_and_not_taken_for_a_prompt_of_one_token():
    model = tiny.boot("llama")
    _, cache = model.run_with_cache(tiny.run(model)[0], pos_slice=-1)
    with pytest.raises(ResidscopeError, match="leave out `pos_slice`"):
        residscope.scores(cache, "first")


def test_entropy_after_a_run_that_attended_to_padding_is_that_of_the_attention_to_real_tokens_and_has_a_note():
    model = tiny.boot("llama")
    tokens, mask = torch.tensor([[0, 0, 0, 1, 5, 6, 7]]), torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        cache, masked = (model.run_with_cache(tokens, **given)[1] for given in ({}, {"attention_mask": mask}))
    found = residscope.scores(cache, "entropy", attention_mask=mask)
    real = torch.stack([cache["pattern", layer][0, :, 4:, 3:] for layer in range(3)])  # not the first destination
    assert float(real.sum(-1).min()) < 0.7  # much of the attention is on padding
    expected = torch.distributions.Categorical(real).entropy().mean(-1) / math.log(2)
    torch.testing.assert_close(found.values, expected, atol=1e-6, rtol=1e-5)
    assert any("The entropy is that of the attention to real tokens" in note for note in found.notes)
    for score, run in (("entropy", masked), ("first", cache)):
        notes = residscope.scores(run, score, attention_mask=mask).notes
        assert not any("The entropy is" in note for note in notes)


def test_entropy_in_a_model_with_learned_sinks_is_that_of_the_attention_to_tokens():
    cache = tiny.run(tiny.boot("gpt_oss"))[2]
    patterns = torch.stack([cache["pattern", layer] for layer in range(cache.model.cfg.n_layers)])[..., 1:, :]
    assert float(patterns.sum(-1).min()) < 0.5  # the sink takes the rest
    expected = torch.distributions.Categorical(patterns).entropy().mean((1, -1)) / math.log(2)
    torch.testing.assert_close(residscope.scores(cache, "entropy").values, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("score", ["previous", "entropy", "duplicate"])
def test_a_head_that_attends_to_nothing_has_no_score_and_does_not_take_away_those_of_others(score):
    model = tiny.boot("llama")
    with torch.no_grad():
        cache = model.run_with_cache(torch.tensor([[1, 5, 6, 5, 7], [1, 8, 9, 8, 4]]))[1]
    pattern = cache["blocks.1.attn.hook_pattern"].clone()
    pattern[:, 2] = 0  # a hook that takes a head out
    changed = ActivationCache(dict(cache.items()) | {"blocks.1.attn.hook_pattern": pattern}, model)
    found, expected = (residscope.scores(one, score).values for one in (changed, cache))
    assert found.isnan().nonzero().tolist() == [[1, 2]]
    expected[1, 2] = math.nan
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_entropy_is_right_even_if_denormal_numbers_count_as_zero():
    cache = tiny.run(tiny.boot("llama"))[2]
    expected = residscope.scores(cache, "entropy").values
    torch.set_flush_denormal(True)  # some devices always do this
    try:
        found = residscope.scores(cache, "entropy").values
    finally:
        torch.set_flush_denormal(False)
    torch.testing.assert_close(found, expected)


def test_the_memoised_copying_score_does_not_depend_on_a_filtered_cache():
    """Only activations show that `bert` has its norms after attention. A gate can also be seen in the module."""
    model = copy.deepcopy(tiny.boot("bert"))
    tokens, _, cache = tiny.run(model)
    expected = residscope.scores(cache, "copying").values
    model = copy.deepcopy(tiny.boot("bert"))
    _, part = model.run_with_cache(tokens, names_filter=lambda name: "ln1" not in name)
    residscope.scores(part, "copying")
    torch.testing.assert_close(residscope.scores(tiny.run(model)[2], "copying").values, expected)
    _, part = tiny.boot("afmoe").run_with_cache(tokens, names_filter=lambda name: "gate" not in name)
    with pytest.raises(ResidscopeError, match="gated heads"):
        residscope.scores(part, "copying")


def test_a_result_describes_itself_and_can_be_converted():
    cache = tiny.run(tiny.boot("lfm2"))[2]
    found = residscope.scores(cache, "previous", 1)
    assert found.labels[:5] == ["L0H0", "L0H1", "L0H2", "L0H3", "L1H0"]
    assert found.notes == ["No attention was found in layers 0 and 2."]
    known = {label: v for label, v in zip(found.labels, found.values.flatten().tolist(), strict=True) if v == v}
    assert found.top(3) == sorted(known.items(), key=lambda pair: -pair[1])[:3]
    assert len(found.top(1000)) == len(known) == 8
    table = found.to_frame()
    assert (table.index.name, table.columns.name) == ("layer", "head")
    assert torch.equal(torch.tensor(table.to_numpy()).isnan(), found.values.isnan())
    drawn = found.to_plotly()
    assert list(drawn.data[0].z[1]) == pytest.approx(found.values[1].tolist())
    assert drawn.layout.coloraxis.cmin == 0
    said = repr(found)
    assert said.startswith('Scores("previous", 4 layers × 4 heads, prompt 1; L')
    assert "note: No attention was found" in said
    assert residscope.scores(cache, "copying").to_plotly().layout.coloraxis.cmin == -1
