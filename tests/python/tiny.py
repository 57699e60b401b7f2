"""Tiny random models of many architectures, with norm weights far from 1 and biases far from 0."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCAB = 64
_SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
_GROUPED = _SIZES | {"num_key_value_heads": 2}
FAMILIES = {
    "gpt2": {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 32},  # LayerNorm, positions, biases, tied
    "gptj": {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 32, "rotary_dim": 4},  # parallel blocks
    "gpt_neox": _SIZES,  # parallel blocks with two norms
    "phi": _SIZES,  # parallel, biases everywhere, biased unembedding
    "llama": _GROUPED,  # RMSNorm, grouped queries
    "qwen2": _GROUPED,  # biased keys and values
    "cohere": _GROUPED,  # LayerNorm without bias, parallel, logit scale
    "granite": _GROUPED | {"residual_multiplier": 0.4, "embedding_multiplier": 2.0, "logits_scaling": 3.0},
    "gemma2": _GROUPED | {"head_dim": 8},  # 1 + w, output norms, soft-cap
    "olmo2": _GROUPED,  # output norms only
}


_ROOT = TemporaryDirectory(prefix="residscope-tiny-")  # goes with the process


@cache
def folder(family: str) -> Path:
    """A saved model of this family."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family], vocab_size=VOCAB)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name.lower() or "ln_" in name:
                weight.add_(0.5 * torch.randn_like(weight))
            elif name.endswith("bias"):
                weight.copy_(0.3 * torch.randn_like(weight))
            else:
                weight.mul_(8)  # so that attention is not uniform and every part matters
    words = {word: id for id, word in enumerate(["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(3, VOCAB))])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>", bos_token="<s>", eos_token="</s>",
    )  # fmt: skip
    path = Path(_ROOT.name) / family
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def boot(family: str, *, compatible: bool = False):
    """A bridge of this family: raw, or in compatibility mode."""
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_transformers(str(folder(family)))
    if compatible:
        model.enable_compatibility_mode()
    return model


def run(model, batch: int = 3, positions: int = 7):
    """Random tokens, the model's logits, and its cache."""
    torch.manual_seed(1)
    tokens = torch.randint(3, VOCAB, (batch, positions))
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
    return tokens, logits, cache
