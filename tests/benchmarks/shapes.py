"""Models of well-known shapes with random weights, and caches of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

ROOT = TemporaryDirectory(prefix="residscope-shapes-")  # deleted when the process ends
THREADS = 2


@cache
def gpt2_small(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """Return a model: 12 layers × 12 heads, d_model 768, d_mlp 3072, 50,257 tokens, random norm weights and biases."""
    from transformer_lens.model_bridge import TransformerBridge

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    config = AutoConfig.for_model("gpt2", n_positions=2048)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "ln_" in name or name.endswith("bias"):
                weight.add_(0.1 * torch.randn_like(weight))
    folder = Path(ROOT.name) / "gpt2"
    model.save_pretrained(folder)
    _tokenizer(config.vocab_size, folder)
    return TransformerBridge.boot_transformers(str(folder), device=device, dtype=dtype)


def run(model: Any, batch: int, positions: int) -> tuple[Any, torch.Tensor]:
    """Return a cache of random prompts, and a pair of answers for each prompt, `[batch, 2]`.

    The logits are left out if they alone would take more than 400 MB.
    """
    torch.manual_seed(1)
    tokens = torch.randint(0, model.cfg.d_vocab, (batch, positions))
    large = tokens.numel() * model.cfg.d_vocab > 1e8
    outputs = ("unembed.hook_out", "hook_unembed") if large else ()
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens.to(model.cfg.device), names_filter=lambda name: name not in outputs)
    return cache, torch.randint(0, model.cfg.d_vocab, (batch, 2)).to(cache["z", 0].device)


def _tokenizer(size: int, folder: Path) -> None:
    """Save a tokenizer with one word for each id into the model's folder, from which a bridge loads it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<s>": 0, **{f"w{i}": i for i in range(1, size)}}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<s>")), bos_token="<s>", eos_token="<s>"
    )
    tokenizer.save_pretrained(folder)


@cache
def llama3_8b() -> Any:
    """Return a model: 32 layers × 32 heads, d_model 4096, 8 key-value heads, 128,256 tokens, bfloat16.

    All layers share the random weights of one layer, because 8 billion weights would not fit in memory. This does not
    change the times.
    """
    from transformer_lens.model_bridge import TransformerBridge

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    config = AutoConfig.for_model(
        "llama",
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    shared: dict[str, torch.nn.Parameter] = {}
    for name, weight in list(model.named_parameters()):
        owner, _, last = name.rpartition(".")
        kind = ".".join(part for part in name.split(".") if not part.isdigit())
        if kind not in shared:
            made = torch.empty(weight.shape, dtype=torch.bfloat16)
            shared[kind] = torch.nn.Parameter(made.fill_(1) if "norm" in kind else made.normal_(0, 0.02))
        setattr(model.get_submodule(owner), last, shared[kind])
    for name, buffer in list(model.named_buffers()):
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, torch.zeros(buffer.shape, dtype=buffer.dtype))
    folder = Path(ROOT.name) / "llama"
    _tokenizer(512, folder)
    config.save_pretrained(folder)
    from transformers import PreTrainedTokenizerFast

    return TransformerBridge.boot_transformers(
        str(folder), hf_model=model, tokenizer=PreTrainedTokenizerFast.from_pretrained(folder), dtype=torch.bfloat16
    )


def llama3_cache(model: Any, positions: int, patterns: int) -> Any:
    """Return a cache of one prompt, as from a run of this model, with patterns and values of only the first layers.

    A run of the model would take half an hour on a small machine. So `z` and other activations are random, the output
    of attention is computed as `z` @ `W_O`, and the stream as the sum of all outputs.
    """
    from transformer_lens import ActivationCache

    torch.manual_seed(1)
    cfg, half = model.cfg, torch.bfloat16
    held: dict[str, torch.Tensor] = {}

    def noise(*shape: int) -> torch.Tensor:
        return torch.empty(1, positions, *shape, dtype=half).normal_()

    W_O = model.blocks[0].attn.W_O.detach().flatten(0, 1).float()
    stream = noise(cfg.d_model)
    held["embed.hook_in"] = torch.randint(0, 512, (1, positions))
    held["hook_embed"] = stream
    for layer in range(cfg.n_layers):
        name = f"blocks.{layer}"
        z = held[f"{name}.attn.hook_z"] = noise(cfg.n_heads, cfg.d_head)
        held[f"{name}.hook_resid_pre"] = stream
        held[f"{name}.hook_attn_out"] = (z.flatten(2).float() @ W_O).to(half)
        held[f"{name}.hook_mlp_out"] = noise(cfg.d_model)
        held[f"{name}.hook_resid_mid"] = stream = stream + held[f"{name}.hook_attn_out"]
        held[f"{name}.hook_resid_post"] = stream = stream + held[f"{name}.hook_mlp_out"]
        if layer < patterns:
            held[f"{name}.attn.hook_v"] = noise(8, cfg.d_head)
            pattern = torch.empty(1, cfg.n_heads, positions, positions, dtype=half)
            for head in range(cfg.n_heads):
                scores = torch.randn(positions, positions).tril_().exp_().tril_()
                pattern[0, head] = (scores / scores.sum(-1, keepdim=True)).to(half)
            held[f"{name}.attn.hook_pattern"] = pattern
    held["ln_final.hook_scale"] = (stream.float().pow(2).mean(-1, keepdim=True) + 1e-6).sqrt().to(half)
    held["unembed.hook_in"] = (stream.float() / held["ln_final.hook_scale"].float()).to(half)
    return ActivationCache(held, model)
