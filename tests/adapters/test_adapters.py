"""Models with layers of peft and bitsandbytes (`npm run test:versions` installs these packages).

The expected values are those of the model with merged adapters, or with dequantised 4-bit weights. Layers with 8 bits
are refused.
"""

from __future__ import annotations

import copy

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import residscope
from residscope import ResidscopeError
from tests.support import tiny

TOKENS = torch.randint(3, 64, (3, 7), generator=torch.Generator().manual_seed(1))
ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
RESULTS = {
    "head": lambda cache: residscope.attribute(cache, ANSWERS).values,
    "neuron": lambda cache: residscope.attribute(cache, ANSWERS, by="neuron").values,
    "value": lambda cache: residscope.attention(cache, "1.1", weighting="value").values,
    "copying": lambda cache: residscope.scores(cache, "copying").values,
}


@pytest.mark.parametrize("place", ["o_proj", "v_proj", "down_proj", "lm_head", "embed_tokens"])
def test_unmerged_adapters_of_peft_give_the_values_of_merged_ones(place):
    import peft  # pyright: ignore[reportMissingImports] (in .venv-versions/adapters)

    path = str(tiny.folder("llama"))
    torch.manual_seed(3)
    settings = peft.LoraConfig(r=4, lora_alpha=16, target_modules=[place], init_lora_weights=False)
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(path), settings).eval()
    merged = copy.deepcopy(adapted).merge_and_unload()
    models = [TransformerBridge.boot_transformers(path, hf_model=one) for one in (adapted.base_model.model, merged)]
    caches = [model.run_with_cache(TOKENS)[1] for model in models]
    for name, result_of in RESULTS.items():
        torch.testing.assert_close(
            *map(result_of, caches), atol=1e-4, rtol=1e-3, msg=lambda said, name=name: name + said
        )


@pytest.fixture
def wide(tmp_path):
    """A model whose layers are wide enough for bitsandbytes' kernels."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model("llama", **sizes, intermediate_size=128, vocab_size=tiny.VOCAB)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny.folder("llama")).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("bits", [4, 8])
def test_4_bit_weights_of_bitsandbytes_are_read_and_8_bit_layers_are_refused(wide, bits):
    functional = pytest.importorskip("bitsandbytes").functional
    from transformers import BitsAndBytesConfig

    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
    settings = BitsAndBytesConfig(**(nf4 if bits == 4 else {"load_in_8bit": True}))
    inner = AutoModelForCausalLM.from_pretrained(wide, quantization_config=settings, device_map="cpu")
    model = TransformerBridge.boot_transformers(wide, hf_model=inner)
    weight = model.blocks[1].attn.o.original_component.weight
    plain = None
    if bits == 4:  # before the first run, which packs the weight for the processor
        plain = functional.dequantize_4bit(weight.data, weight.quant_state).float().T.unflatten(0, (4, -1))
    with torch.no_grad():
        cache = model.run_with_cache(TOKENS)[1]
    if bits == 8:  # not linear, because the layer also quantises its input
        for result_of in RESULTS.values():
            with pytest.raises(ResidscopeError, match="not a linear map"):
                result_of(cache)
        return
    v = cache["blocks.1.attn.hook_v"].float()[:, :, 0]  # [prompt, source, d_head]; head 1 reads group 0
    pattern = cache["blocks.1.attn.hook_pattern"][:, 1].float()
    lengths = (v @ plain[1]).norm(dim=-1)
    expected = (pattern * lengths[:, None]).mean(0)
    torch.testing.assert_close(RESULTS["value"](cache)[0], expected, atol=1e-3, rtol=5e-3)
    result = residscope.attribute(cache, ANSWERS)
    assert result.parts == 8
    assert result.unexplained.abs().max() <= result.tolerance < 0.1
