"""Each family in `tests.support.tiny` has exact values, values with an unexplained part, or a refusal.

Unexplained parts and refusals have a reason. Some families have exact values with a note. Families without an entry in
the tables below have exact values without a note.
"""

from __future__ import annotations

import pytest
import torch

import residscope
from residscope import ResidscopeError
from tests.support import tiny

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
WAYS = ("accumulated", "layer", "head", "neuron", "source")

EXPERTS = {"granitemoe", "mixtral", "phimoe", "qwen2_moe", "qwen3_moe", "olmoe", "flex_olmo", "gpt_oss", "minimax_m2"}
SOME_EXPERTS = {"afmoe", "ernie4_5_moe", "glm4_moe", "laguna", "laguna-heads", "llama4_text", "deepseek_v2",
                "deepseek_v3", "glm4_moe_lite", "glm_moe_dsa", "jamba", "lfm2_moe"}  # fmt: skip
NO_NEURONS = EXPERTS | {"jetmoe", "granitemoehybrid", "granitemoehybrid-dense", "qwen3_next", "qwen3_5_moe_text",
                        "native-attention-only", "gemma4_text-experts"}  # fmt: skip
RECURRENT = {"mamba", "falcon_mamba", "mamba2", "zamba2", "nemotron_h", "recurrent_gemma"}  # no heads in the cache
HYBRID = {"bamba", "jamba", "lfm2", "lfm2_moe", "olmo_hybrid", "granitemoehybrid", "granitemoehybrid-dense",
          "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"}  # fmt: skip
GATED = {"afmoe", "laguna", "laguna-heads", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"}
CHANGED_EMBEDDINGS = {"xglm", "nanochat", "afmoe", "falcon_h1", "recurrent_gemma"}
SCALED = {"cohere", "cohere2", "granite", "granitemoe", "granitemoehybrid", "granitemoehybrid-dense", "falcon_h1"}
CAPPED = {"gemma2", "gemma2-cap-5", "gemma4_text-cap-5", "vaultgemma", "nanochat", "recurrent_gemma"}
LEFT_OVER = {  # family: (the reason for unexplained values, the decompositions with a note that names it)
    "openai-gpt": ("normalise the stream itself", ("layer", "head", "neuron", "source", "accumulated")),
    "bert": ("arises after the last layer", ("accumulated", "layer")),
    "modernbert-decoder": ("arises after the last layer", ("accumulated", "layer", "head", "neuron", "source")),
    "rwkv": ("the model changes the stream there", ("layer",)),
    "bitnet": ("is not pattern @ v", ("source",)),
}
REFUSED = {  # family: (the code of the refusal, the decompositions that are refused)
    "opt-projected": ("unembedding", WAYS),
    "bert": ("no-", ("head", "neuron", "source")),
    "deepseek_v4": ("", WAYS),
    "hrm_text": ("no-blocks", WAYS),
    "rwkv": ("", ("head", "neuron", "source")),
    "jetmoe": ("no-heads", ("head", "source")),
}


def refused(name: str, by: str) -> str | None:
    """Return the code of the expected refusal, "" for any code, or None if nothing is refused."""
    code, ways = REFUSED.get(name, ("", ()))
    if by in ways:
        return code
    if (by == "neuron" and name in NO_NEURONS) or (by in ("head", "neuron", "source") and name in RECURRENT):
        return "no-neurons" if by == "neuron" else ""
    return None


def expected_notes(name: str, by: str) -> list[str]:
    said = []
    whole = by in ("layer", "head", "neuron")
    said += ["multiplies its logits"] * (name in SCALED and by != "source")
    said += ["soft-caps its logits"] * (name in CAPPED and by != "source")
    said += ["`embed` is all that enters layer 0"] * (whole and name in CHANGED_EMBEDDINGS | {"bert"})
    said += ["`…_layer_out` is the layer as a whole"] * (whole and name == "bert")
    said += ["no attention heads in"] * (by == "head" and name in HYBRID)
    said += ["no plain neurons in"] * (by == "neuron" and name in SOME_EXPERTS)
    said += ["gate what they have read"] * (by == "source" and name in GATED)
    if (name, by) == ("openai-gpt", "accumulated"):  # the end of its stream is not cached
        return ["lacks `hook_resid_post` of layer 2", "end of the model is not in this cache"]
    reason, ways = LEFT_OVER.get(name, ("", ()))
    return said + [reason] * (by in ways)


@pytest.fixture(scope="module", params=list(tiny.FAMILIES))
def family(request):
    model = tiny.boot(request.param)
    return request.param, model, *tiny.run(model)


@pytest.mark.parametrize("by", WAYS)
def test_a_family_is_exact_or_has_a_reason(family, by):
    name, _, _, logits, cache = family
    options = {"heads": ["1.1"]} if by == "source" else {}
    code = refused(name, by)
    if code is not None:
        with pytest.raises(ResidscopeError) as error:
            residscope.attribute(cache, ANSWERS, by=by, **options)
        assert error.value.code.startswith(code)
        assert len(str(error.value)) > 40
        return
    result = residscope.attribute(cache, ANSWERS, by=by, **options)
    wanted = expected_notes(name, by)
    assert len(result.notes) == len(wanted), result.notes
    for words, note in zip(wanted, result.notes, strict=True):
        assert words in note
    if by in LEFT_OVER.get(name, ("", ()))[1] and (by != "source" or name == "bitnet"):
        assert result.unexplained.abs().max() > result.tolerance
    else:
        assert result.unexplained.abs().max() <= 2e-6 * max(1.0, float(result.values.abs().max()))
    if by != "source":  # `measured` is the model's own value
        own = logits[:, -1].gather(1, ANSWERS)
        torch.testing.assert_close(result.measured, own[:, 0] - own[:, 1], atol=1e-5, rtol=1e-5)


def test_heads_and_bias_are_the_attention_row_layer_by_layer(family):
    name, model, _, _, cache = family
    if refused(name, "head") is not None:
        with pytest.raises(ResidscopeError):
            residscope.attribute(cache, ANSWERS, by="head")
        return
    heads, layers = (residscope.attribute(cache, ANSWERS, by=by) for by in ("head", "layer"))
    rows = dict(zip(layers.labels, layers.values, strict=True))
    compared = 0
    for layer in range(model.cfg.n_layers):
        mine = [i for i, label in enumerate(heads.labels) if label.startswith((f"L{layer}H", f"{layer}_attn_bias"))]
        if not mine:
            assert torch.isnan(heads.grid[layer]).all()
            continue
        attention = rows[f"{layer}_attn_out"]
        gap = (heads.values[mine].sum(0) - attention).abs().max()
        assert gap <= 2e-6 * max(1.0, float(heads.values[mine].abs().max())), f"layer {layer}"
        compared += 1
    assert compared == (model.cfg.n_layers // 2 if name in HYBRID else model.cfg.n_layers)
