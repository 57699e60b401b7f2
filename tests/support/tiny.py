"""Builds a tiny random model of each decoder family that TransformerLens supports and that needs no model hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCAB = 64
NATIVE = "native"  # TransformerLens' own models, which need no Hugging Face class


@dataclass(frozen=True)
class Family:
    """A model to build: `kind` is the `model_type` of the configuration (or `NATIVE`), `settings` are its fields."""

    kind: str
    settings: dict[str, Any]
    architecture: str | None = None  # the name in checkpoints, if it differs from the name of the class


def _family(kind: str, *sizes: dict[str, Any], architecture: str | None = None, **settings: Any) -> Family:
    """Return a family with these sizes and settings. If a setting occurs twice, the later value counts."""
    merged = {name: value for fields in (*sizes, settings) for name, value in fields.items()}
    return Family(kind, merged, architecture)


_SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
_GROUPED = _SIZES | {"num_key_value_heads": 2}
_FOUR = _GROUPED | {"num_hidden_layers": 4}
_ROTARY = {"partial_rotary_factor": 0.67}  # 4 of 6 dimensions
_GPT = {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 32}
_OPT = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 40} | {
    "word_embed_proj_dim": 24, "max_position_embeddings": 32,
}  # fmt: skip
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
_ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20, "n_shared_experts": 1}
_GROUPS = {"n_group": 1, "topk_group": 1}
_LATENT = {"kv_lora_rank": 8, "q_lora_rank": 12, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 6}
_MAMBA = {"mamba_d_state": 8, "mamba_d_head": 12, "mamba_n_heads": 4, "mamba_chunk_size": 8}
_LINEAR = {"linear_key_head_dim": 6, "linear_value_head_dim": 6, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
_GRANITE = {"residual_multiplier": 0.4, "embedding_multiplier": 2.0, "logits_scaling": 3.0, "attention_multiplier": 0.3}
_GRANITE_HYBRID = _FOUR | _MAMBA | _GRANITE | {"shared_intermediate_size": 20, "num_local_experts": 4} | {
    "layer_types": ["mamba", "attention"] * 2,
}  # fmt: skip
_GEMMA_4 = _GROUPED | {"head_dim": 8, "hidden_size_per_layer_input": 6, "vocab_size_per_layer_input": VOCAB} | {
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    "per_layer_config": {str(layer): {"head_dim": 8} for layer in range(3)},
}  # fmt: skip
_HYBRID = {"layer_types": ["linear_attention", "full_attention"] * 2}
_WINDOWS = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_NATIVE = {"d_model": 24, "d_head": 6, "n_layers": 3, "n_heads": 4, "n_ctx": 32, "d_mlp": 40, "d_vocab": VOCAB}

FAMILIES: dict[str, Family] = {
    # learned or other additive positions
    "gpt2": _family("gpt2", _GPT),
    "gpt2-scaled-by-layer": _family("gpt2", _GPT, scale_attn_by_inverse_layer_idx=True),
    "gpt2-untied": _family("gpt2", _GPT, tie_word_embeddings=False),
    "gpt_neo": _family(
        "gpt_neo",
        hidden_size=24,
        num_layers=3,
        num_heads=4,
        intermediate_size=40,
        max_position_embeddings=32,
        attention_types=[[["global", "local", "global"], 1]],
    ),
    "gpt_bigcode": _family("gpt_bigcode", _GPT),
    "openai-gpt": _family("openai-gpt", _GPT),
    "opt": _family("opt", _OPT),
    "opt-projected": _family("opt", _OPT, word_embed_proj_dim=16),
    "xglm": _family("xglm", d_model=24, num_layers=3, attention_heads=4, ffn_dim=40, max_position_embeddings=32),
    "bert": _family("bert", _SIZES, is_decoder=True, max_position_embeddings=32),
    # parallel blocks, ALiBi
    "gptj": _family("gptj", _GPT, rotary_dim=4),
    "codegen": _family("codegen", _GPT, rotary_dim=4),
    "gpt_neox": _family("gpt_neox", _SIZES, rotary_pct=0.67),
    "gpt_neox-sequential": _family("gpt_neox", _SIZES, rotary_pct=0.67, use_parallel_residual=False),
    "phi": _family("phi", _SIZES, _ROTARY),
    "falcon": _family("falcon", _SIZES, alibi=False),
    "falcon-biased": _family("falcon", _SIZES, alibi=False, bias=True),
    "falcon-alibi": _family("falcon", _SIZES, alibi=True),
    "falcon-new": _family("falcon", _SIZES, alibi=False, new_decoder_architecture=True, num_kv_heads=1),
    "falcon-sequential": _family("falcon", _SIZES, alibi=True, bias=True, parallel_attn=False, multi_query=False),
    "bloom": _family("bloom", hidden_size=24, n_layer=3, n_head=4),
    "mpt": _family("mpt", d_model=24, n_layers=3, n_heads=4, max_seq_len=32),
    "cohere": _family("cohere", _GROUPED, logit_scale=0.3),
    "cohere2": _family("cohere2", _GROUPED, _WINDOWS, logit_scale=0.3, sliding_window=4),
    # RMSNorm and rotary positions
    "llama": _family("llama", _GROUPED),
    "llama-multi-query": _family("llama", _SIZES, num_key_value_heads=1),
    "llama-biased": _family("llama", _GROUPED, attention_bias=True, mlp_bias=True),
    "llama-tied": _family("llama", _GROUPED, tie_word_embeddings=True),
    "mistral": _family("mistral", _GROUPED),
    "mistral-window": _family("mistral", _GROUPED, sliding_window=3),
    "ministral3": _family("ministral3", _GROUPED, head_dim=6),
    "qwen2": _family("qwen2", _GROUPED),
    "qwen3": _family("qwen3", _GROUPED, head_dim=6),
    "phi3": _family("phi3", _GROUPED),
    "stablelm": _family("stablelm", _GROUPED, _ROTARY),
    "stablelm-parallel": _family("stablelm", _GROUPED, _ROTARY, use_parallel_residual=True, use_qkv_bias=True),
    "starcoder2": _family("starcoder2", _GROUPED),
    "nemotron": _family("nemotron", _GROUPED, _ROTARY),
    "smollm3": _family("smollm3", _GROUPED),
    "seed_oss": _family("seed_oss", _GROUPED, head_dim=6),
    "arcee": _family("arcee", _GROUPED),
    "apertus": _family("apertus", _GROUPED),
    "bitnet": _family("bitnet", _GROUPED),
    "ernie4_5": _family("ernie4_5", _GROUPED, head_dim=6),
    "exaone4": _family("exaone4", _GROUPED, sliding_window=4, sliding_window_pattern=2),
    "hunyuan_v1_dense": _family("hunyuan_v1_dense", _GROUPED, head_dim=6),
    "jais2": _family("jais2", _GROUPED, head_dim=6),
    "nanochat": _family("nanochat", _GROUPED, final_logit_softcapping=5.0),
    "modernbert-decoder": _family("modernbert-decoder", _SIZES, _WINDOWS, local_attention=8),
    "olmo": _family("olmo", _GROUPED),
    "olmo2": _family("olmo2", _GROUPED),
    "olmo3": _family("olmo3", _GROUPED),
    "glm": _family("glm", _GROUPED, head_dim=8),
    "glm4": _family("glm4", _GROUPED, head_dim=8),
    "gemma": _family("gemma", _GROUPED, head_dim=8),
    "gemma2": _family("gemma2", _GROUPED, head_dim=8),
    "gemma2-cap-5": _family("gemma2", _GROUPED, head_dim=8, final_logit_softcapping=5.0),
    "gemma3_text": _family("gemma3_text", _GROUPED, head_dim=8),
    "gemma4_text": _family("gemma4_text", _GEMMA_4),
    "gemma4_text-cap-5": _family("gemma4_text", _GEMMA_4, final_logit_softcapping=5.0),
    "gemma4_text-shared": _family("gemma4_text", _GEMMA_4, num_kv_shared_layers=1),
    "gemma4_text-heads": _family(
        "gemma4_text", _GEMMA_4, per_layer_config={"1": {"head_dim": 12}, "2": {"head_dim": 12}}
    ),
    "gemma4_text-experts": _family(
        "gemma4_text",
        _GEMMA_4,
        enable_moe_block=True,
        moe_intermediate_size=20,
        num_experts=4,
        top_k_experts=2,
        hidden_size_per_layer_input=0,
    ),
    "vaultgemma": _family("vaultgemma", _GROUPED, head_dim=8, query_pre_attn_scalar=8, final_logit_softcapping=5.0),
    "granite": _family("granite", _GROUPED, _GRANITE),
    # mixtures of experts
    "granitemoe": _family("granitemoe", _GROUPED, _GRANITE, num_local_experts=4),
    "mixtral": _family("mixtral", _GROUPED, num_local_experts=4),
    "phimoe": _family("phimoe", _GROUPED, architecture="PhiMoEForCausalLM", num_local_experts=4),
    "qwen2_moe": _family("qwen2_moe", _GROUPED, _EXPERTS, shared_expert_intermediate_size=20),
    "qwen3_moe": _family("qwen3_moe", _GROUPED, _EXPERTS, head_dim=6),
    "olmoe": _family("olmoe", _GROUPED, num_experts=4, num_experts_per_tok=2),
    "flex_olmo": _family("flex_olmo", _GROUPED, num_experts=4, num_experts_per_tok=2),
    "gpt_oss": _family("gpt_oss", _GROUPED, head_dim=6, num_local_experts=4, num_experts_per_tok=2),
    "afmoe": _family(
        "afmoe", _GROUPED, _EXPERTS, _WINDOWS, head_dim=6, num_shared_experts=1, mup_enabled=True, sliding_window=4
    ),
    "ernie4_5_moe": _family(
        "ernie4_5_moe",
        _GROUPED,
        moe_intermediate_size=20,
        moe_k=2,
        moe_num_experts=4,
        moe_num_shared_experts=1,
        moe_layer_end_index=2,
    ),
    "glm4_moe": _family("glm4_moe", _GROUPED, _ROUTED, _GROUPS, head_dim=8),
    "jetmoe": _family(
        "jetmoe",
        hidden_size=24,
        num_hidden_layers=3,
        num_key_value_heads=2,
        kv_channels=6,
        intermediate_size=40,
        num_local_experts=4,
        num_experts_per_tok=2,
    ),
    "laguna": _family(
        "laguna",
        _GROUPED,
        _EXPERTS,
        _WINDOWS,
        head_dim=8,
        shared_expert_intermediate_size=20,
        sliding_window=4,
        num_attention_heads_per_layer=[4, 4, 4],
        mlp_layer_types=["dense", "sparse", "sparse"],
    ),
    "laguna-heads": _family(
        "laguna",
        _GROUPED,
        _EXPERTS,
        _WINDOWS,
        head_dim=8,
        shared_expert_intermediate_size=20,
        sliding_window=4,
        num_attention_heads_per_layer=[2, 4, 2],
        mlp_layer_types=["dense", "sparse", "sparse"],
    ),
    "llama4_text": _family(
        "llama4_text", _FOUR, intermediate_size_mlp=40, num_local_experts=4, head_dim=6, interleave_moe_layer_step=2
    ),
    "minimax_m2": _family("minimax_m2", _GROUPED, head_dim=6, num_local_experts=4, num_experts_per_tok=2),
    # latent attention
    "deepseek_v2": _family(
        "deepseek_v2", _SIZES, _ROUTED, _LATENT, num_key_value_heads=4, head_dim=4, first_k_dense_replace=1
    ),
    "deepseek_v3": _family(
        "deepseek_v3", _SIZES, _ROUTED, _GROUPS, _LATENT, num_key_value_heads=4, first_k_dense_replace=1
    ),
    "deepseek_v4": _family(
        "deepseek_v4",
        _SIZES,
        _ROUTED,
        num_key_value_heads=1,
        head_dim=8,
        hc_mult=2,
        q_lora_rank=12,
        o_lora_rank=8,
        o_groups=2,
        index_n_heads=2,
        index_head_dim=8,
        index_topk=4,
        sliding_window=8,
    ),
    "glm4_moe_lite": _family("glm4_moe_lite", _SIZES, _ROUTED, _GROUPS, _LATENT, num_key_value_heads=4),
    "glm_moe_dsa": _family(
        "glm_moe_dsa",
        _SIZES,
        _ROUTED,
        _GROUPS,
        _LATENT,
        num_key_value_heads=4,
        first_k_dense_replace=1,
        index_topk=4,
        index_head_dim=8,
        index_n_heads=2,
    ),
    "youtu": _family("youtu", _SIZES, _LATENT, num_key_value_heads=4),
    # recurrences, convolutions and hybrids
    "mamba": _family("mamba", hidden_size=24, num_hidden_layers=3, state_size=8, time_step_rank=4),
    "falcon_mamba": _family("falcon_mamba", hidden_size=24, num_hidden_layers=3, state_size=8, time_step_rank=4),
    "mamba2": _family(
        "mamba2", hidden_size=24, num_hidden_layers=3, state_size=8, num_heads=4, head_dim=12, n_groups=2, chunk_size=8
    ),
    "bamba": _family("bamba", _FOUR, _MAMBA, attn_layer_indices=[1, 3]),
    "falcon_h1": _family(
        "falcon_h1",
        _GROUPED,
        _MAMBA,
        mamba_d_ssm=48,
        lm_head_multiplier=0.5,
        embedding_multiplier=2.0,
        attention_out_multiplier=0.6,
        ssm_out_multiplier=0.7,
        mlp_multipliers=[0.8, 0.9],
    ),
    "granitemoehybrid": _family("granitemoehybrid", _GRANITE_HYBRID, position_embedding_type="rope"),
    "granitemoehybrid-dense": _family(
        "granitemoehybrid", _GRANITE_HYBRID, position_embedding_type="rope", num_local_experts=0
    ),
    "jamba": _family(
        "jamba",
        _FOUR,
        num_experts=2,
        num_experts_per_tok=1,
        mamba_d_state=8,
        attn_layer_period=2,
        attn_layer_offset=1,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    ),
    "zamba2": _family(
        "zamba2",
        _FOUR,
        num_key_value_heads=4,
        mamba_d_state=8,
        n_mamba_heads=4,
        chunk_size=8,
        mamba_headdim=12,
        layers_block_type=["mamba", "hybrid"] * 2,
        use_mamba_kernels=False,
        attention_head_dim=12,
        adapter_rank=4,
    ),
    "nemotron_h": _family(
        "nemotron_h",
        _FOUR,
        _ROUTED,
        _GROUPS,
        head_dim=6,
        mamba_num_heads=4,
        layers_block_type=["mamba", "moe", "attention", "mlp"],
        mamba_head_dim=12,
        ssm_state_size=8,
        n_groups=2,
        chunk_size=8,
        use_mamba_kernels=False,
        moe_shared_expert_intermediate_size=20,
    ),
    "lfm2": _family("lfm2", _FOUR, layer_types=["conv", "full_attention"] * 2),
    "lfm2_moe": _family("lfm2_moe", _FOUR, _EXPERTS, layer_types=["conv", "full_attention"] * 2, num_dense_layers=1),
    "olmo_hybrid": _family(
        "olmo_hybrid",
        _FOUR,
        _HYBRID,
        linear_num_key_heads=4,
        linear_num_value_heads=4,
        linear_key_head_dim=6,
        linear_value_head_dim=6,
    ),
    "qwen3_next": _family(
        "qwen3_next", _FOUR, _HYBRID, _LINEAR, _EXPERTS, head_dim=8, shared_expert_intermediate_size=20
    ),
    "qwen3_5_text": _family("qwen3_5_text", _FOUR, _HYBRID, _LINEAR, head_dim=8),
    "qwen3_5_moe_text": _family(
        "qwen3_5_moe_text", _FOUR, _HYBRID, _LINEAR, _EXPERTS, head_dim=8, shared_expert_intermediate_size=20
    ),
    "recurrent_gemma": _family(
        "recurrent_gemma",
        _FOUR,
        num_key_value_heads=1,
        lru_width=24,
        head_dim=8,
        block_types=["recurrent", "attention"],
        logits_soft_cap=5.0,
    ),
    "rwkv": _family(
        "rwkv",
        hidden_size=24,
        num_hidden_layers=3,
        attention_hidden_size=24,
        intermediate_size=40,
        context_length=32,
        rescale_every=2,
    ),
    # the stream runs several times through the same two stacks
    "hrm_text": _family("hrm_text", _GROUPED, num_hidden_layers=2, head_dim=6, prefix_lm=False),
    # TransformerLens' own
    "native": _family(NATIVE, _NATIVE),
    "native-attention-only": _family(NATIVE, _NATIVE, attn_only=True, d_mlp=None),
    "native-no-norm": _family(NATIVE, _NATIVE, normalization_type=None),
    "native-ln-pre": _family(NATIVE, _NATIVE, normalization_type="LNPre"),
    "native-rms": _family(
        NATIVE,
        _NATIVE,
        normalization_type="RMS",
        positional_embedding_type="rotary",
        gated_mlp=True,
        act_fn="silu",
        n_key_value_heads=2,
    ),
    "native-rms-pre": _family(NATIVE, _NATIVE, normalization_type="RMSPre"),
    "native-final-rms": _family(NATIVE, _NATIVE, final_rms=True),
}

_NO_TYPE = "transformers has no such model type: `AutoConfig.for_model` raises ValueError."
NOT_BOOTED: dict[str, str] = {
    "opt-norm-after": "`do_layer_norm_before=False` (as OPT-350m has it) boots, but a run raises ValueError.",
    "falcon-new-grouped": "With `num_kv_heads` above 1 the adapter's qkv split raises RuntimeError (split sizes).",
    "granitemoehybrid-no-positions": "Without `position_embedding_type` a run raises RuntimeError (no rotary_emb).",
    "gemma3n": "Only the whole multimodal class has an adapter, and it needs timm and pillow (ImportError).",
    "gemma3n_text": "`Gemma3nForCausalLM` has no adapter (ValueError: no supported architecture).",
    "muse_glimmer": "Only the whole multimodal class has an adapter; there is no text-only causal class.",
    **dict.fromkeys(("baichuan", "bd3lm", "dream", "exaone", "gidd", "hyenadna", "internlm2", "llada"), _NO_TYPE),
    **dict.fromkeys(("llada2_moe", "openelm", "ouro", "qwen", "raven", "rwkv7"), _NO_TYPE),
    **dict.fromkeys(("gpt2_lm_head_custom", "mingpt", "nanogpt", "neel_solu_old"), _NO_TYPE),
    "pretrain": "It wraps the user's own training module; there is no class to build.",
}


_ROOT = TemporaryDirectory(prefix="residscope-families-")  # deleted when the process ends
_UNCHANGED = ("A_log", "dt_", "conv1d", ".D", "time_", "rg_lru", "recurrent_param")
"""Weights whose names contain one of these stay unchanged: if they grow, a recurrence overflows."""


def _enlarge_weights(model: torch.nn.Module) -> None:
    """Make norm weights differ from 1, biases from 0, and other weights large, so that each affects the output."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if any(part in name for part in _UNCHANGED):
                continue
            if "norm" in name.lower() or ".ln" in name or "ln_" in name:
                weight.add_(0.5 * torch.randn_like(weight))
            elif name.endswith("bias"):
                weight.copy_(0.3 * torch.randn_like(weight))
            elif weight.std() < 0.1:
                weight.mul_(8)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.fill_(0.7)


@cache
def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one word for each id. A bridge loads it again from its folder, so it is saved first."""
    words = {word: id for id, word in enumerate(["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(3, VOCAB))])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>", bos_token="<s>", eos_token="</s>",
    )  # fmt: skip
    path = Path(_ROOT.name) / "tokenizer"
    tokenizer.save_pretrained(path)
    return PreTrainedTokenizerFast.from_pretrained(path)


@cache
def folder(name: str) -> Path:
    """Return the folder of a saved model of this family."""
    torch.manual_seed(0)
    family = FAMILIES[name]
    config = AutoConfig.for_model(family.kind, **family.settings, vocab_size=VOCAB)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    model = AutoModelForCausalLM.from_config(config).eval()
    _enlarge_weights(model)
    path = Path(_ROOT.name) / name
    model.save_pretrained(path)
    _tokenizer().save_pretrained(path)
    if family.architecture:
        saved = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(saved | {"architectures": [family.architecture]}))
    return path


def boot(name: str, *, compatible: bool = False) -> Any:
    """Return a bridge of this family: raw, or in compatibility mode."""
    from transformer_lens.model_bridge import TransformerBridge

    if FAMILIES[name].kind == NATIVE:
        model: Any = TransformerBridge.boot_native(FAMILIES[name].settings | {"seed": 0}, tokenizer=_tokenizer())
        torch.manual_seed(0)
        _enlarge_weights(model.original_model)
    else:
        model = TransformerBridge.boot_transformers(str(folder(name)))
    if compatible:
        model.enable_compatibility_mode()
    return model


def run(model: Any, batch: int = 3, positions: int = 7) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Return random tokens, the model's logits for them, and its cache."""
    torch.manual_seed(1)
    tokens = torch.randint(3, VOCAB, (batch, positions))
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
    return tokens, logits, cache
