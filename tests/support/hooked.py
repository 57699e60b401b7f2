"""Small random `HookedTransformer`s of many structures, and the contributions of their components by brute force.

The brute force uses neither Residscope nor the cache under test: it runs the model again in float64. It passes the
stream through the model's final norm and unembedding, once with the component and once without it, while the norm's
scale is frozen. The difference is the component's contribution. So the model's own modules apply norm weights,
centring and biases.
"""

from __future__ import annotations

from contextlib import contextmanager
from copy import deepcopy
from functools import cache as once
from importlib.metadata import version

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

VOCAB, BATCH, POSITIONS = 48, 3, 7
ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
_SIZES = {"n_layers": 3, "d_model": 24, "n_ctx": 16, "d_head": 6, "n_heads": 4, "d_mlp": 40, "d_vocab": VOCAB}
_ROTARY = {"positional_embedding_type": "rotary", "rotary_dim": 6}
_RMS = {"normalization_type": "RMS", **_ROTARY}
_GATED = {**_RMS, "gated_mlp": True, "act_fn": "silu", "n_key_value_heads": 2}
STRUCTURES = {
    "LN": {},
    "RMS": _RMS,
    "LN-folded": {"folded": True},
    "LN-folded-unnamed": {"folded": True, "named": False},  # in 2.x, the hooks of the folded norms are not cached
    "RMS-folded": {**_GATED, "folded": True},
    "LNPre": {"normalization_type": "LNPre"},
    "RMSPre": {"normalization_type": "RMSPre"},
    "no-norm": {"normalization_type": None},
    "final-RMS": {"final_rms": True},  # LayerNorm in the blocks, RMSNorm at the end
    "parallel": {"parallel_attn_mlp": True, **_ROTARY},
    "parallel-folded": {"parallel_attn_mlp": True, "folded": True},
    "gated-grouped": _GATED,  # Llama
    "grouped-ungrouped": {**_GATED, "ungroup_grouped_query_attention": True},
    "output-norms": {**_GATED, "use_normalization_before_and_after": True},  # Gemma 2, without its cap
    "output-norms-folded": {**_GATED, "use_normalization_before_and_after": True, "folded": True},
    "gemma2": {**_GATED, "use_normalization_before_and_after": True, "output_logits_soft_cap": 12.0},
    "attn-only": {"attn_only": True, "d_mlp": None, "act_fn": None},
    "attn-only-shortformer": {"attn_only": True, "positional_embedding_type": "shortformer"},  # not added to the stream
    "embedding-norm": {"post_embedding_ln": True, "positional_embedding_type": "alibi"},  # BLOOM
    "experts": {**_RMS, "num_experts": 4, "experts_per_token": 2, "gated_mlp": True, "act_fn": "silu"},  # Mixtral
    "solu": {"act_fn": "solu_ln"},  # the small models made for TransformerLens, with a norm after the neurons
    "every-hook": {"use_attn_result": True, "use_split_qkv_input": True, "use_hook_mlp_in": True},
    "fewer-outputs": {"d_vocab_out": 16},
}
if version("transformer-lens").startswith("3."):  # 2.x does not support OLMo 2
    STRUCTURES["olmo2"] = {**_GATED, "original_architecture": "Olmo2ForCausalLM"}


@once
def model(structure: str) -> HookedTransformer:
    """Return a model of this structure. The weights of its norms are far from 1, and its biases far from 0."""
    wanted = {"act_fn": "gelu_new", "normalization_type": "LN", **STRUCTURES[structure]}
    folded, named = wanted.pop("folded", False), wanted.pop("named", True)
    made = HookedTransformer(HookedTransformerConfig(**_SIZES | wanted, seed=0, device="cpu")).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            kind = name.rsplit(".", 1)[1]
            if kind == "w":  # the weight of a norm
                weight.copy_(1 + 0.5 * torch.randn_like(weight))
            elif kind.startswith(("b", "_b")):
                weight.copy_(0.3 * torch.randn_like(weight))
            else:
                weight.copy_(torch.randn_like(weight) / weight.shape[-2] ** 0.5)
    if folded:
        made.process_weights_()
        if named:
            made.setup()  # names the hooks again, like loading a folded model; in 2.x, `process_weights_` does not
    return made


def tokens(batch: int = BATCH) -> torch.Tensor:
    """Return random prompts."""
    return torch.randint(VOCAB, (batch, POSITIONS), generator=torch.Generator().manual_seed(1))


@once
def run(structure: str):
    """Return the model's logits for `tokens()`, and its cache."""
    with torch.no_grad():
        return model(structure).run_with_cache(tokens())


@once
def exact(structure: str) -> HookedTransformer:
    """Return the same model in float64."""
    twin = deepcopy(model(structure)).double()
    for module in twin.modules():
        if hasattr(module, "cfg"):
            module.cfg.dtype = torch.float64
    return twin


def own_difference(structure: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return answer − distractor, `[batch, pos]`, in float64: from the returned logits, and without their soft-cap."""
    logits, cap = run(structure)[0].double(), model(structure).cfg.output_logits_soft_cap
    return difference(logits), difference(cap * (logits / cap).atanh() if cap > 0 else logits)


def difference(logits: torch.Tensor) -> torch.Tensor:
    """Return answer − distractor, `[batch, pos]`."""
    one = torch.arange(BATCH)
    return logits[one, :, ANSWERS[:, 0]] - logits[one, :, ANSWERS[:, 1]]


@once
def brute(structure: str) -> dict[str, torch.Tensor]:
    """Return the contributions `[batch, pos]` of all components and points, the `constant`, and a recomputed lens.

    The keys are the labels of rows. `recomputed 1_pre` is the whole target at that point, with the constant.
    """
    twin = exact(structure)
    with torch.no_grad():
        return _brute(twin, twin.run_with_cache(tokens())[1])


def _brute(twin, cache) -> dict[str, torch.Tensor]:
    layers = range(twin.cfg.n_layers)
    final = cache[f"blocks.{twin.cfg.n_layers - 1}.hook_resid_post"]
    norm = getattr(twin, "ln_final", torch.nn.Identity())

    def output(stream: torch.Tensor) -> torch.Tensor:
        return difference(twin.unembed(norm(stream)))

    rows: dict[str, torch.Tensor] = {}
    with frozen(norm, final):
        whole = output(final)
        rows["constant"] = output(torch.zeros_like(final))

        def contribution(part: torch.Tensor) -> torch.Tensor:
            return whole - output(final - part)

        for layer in layers:
            for point in ("pre", "mid"):
                if f"blocks.{layer}.hook_resid_{point}" in cache:
                    rows[f"{layer}_{point}"] = contribution(cache[f"blocks.{layer}.hook_resid_{point}"])
            for part in ("attn_out", "mlp_out"):
                if f"blocks.{layer}.hook_{part}" in cache:
                    rows[f"{layer}_{part}"] = contribution(cache[f"blocks.{layer}.hook_{part}"])
            for parts in (_heads(twin, cache, layer), _neurons(twin, cache, layer)):
                rows |= {name: contribution(part) for name, part in parts.items()}
        rows["final_post"] = contribution(final)
        rows["embed"] = contribution(cache["hook_embed"])
        if twin.cfg.positional_embedding_type == "standard":
            rows["pos_embed"] = contribution(cache["hook_pos_embed"])
    rows |= {f"recomputed {layer}_pre": output(cache[f"blocks.{layer}.hook_resid_pre"]) for layer in layers}
    return rows


def _heads(twin, cache, layer: int) -> dict[str, torch.Tensor]:
    """Return the vector that each head adds to the stream, and the bias."""
    attention, z = twin.blocks[layer].attn, cache[f"blocks.{layer}.attn.hook_z"]
    parts = {f"L{layer}H{head}": z[:, :, head] @ attention.W_O[head] for head in range(twin.cfg.n_heads)}
    return _through(twin, layer, "ln1", parts | {f"{layer}_attn_bias": attention.b_O.expand_as(parts[f"L{layer}H0"])})


def _neurons(twin, cache, layer: int) -> dict[str, torch.Tensor]:
    """Return the vector that each neuron adds to the stream, and the bias. Empty without an MLP, or with experts."""
    mlp = getattr(twin.blocks[layer], "mlp", None)
    if not hasattr(mlp, "W_out"):
        return {}
    post = cache[f"blocks.{layer}.mlp.hook_post"]
    parts = {f"L{layer}N{n}": post[:, :, n, None] * mlp.W_out[n] for n in range(post.shape[-1])}
    return _through(twin, layer, "ln2", parts | {f"{layer}_mlp_bias": mlp.b_out.expand_as(parts[f"L{layer}N0"])})


def _through(twin, layer: int, norm: str, parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the parts of a sublayer's output, after the norm that some blocks apply to this output.

    In OLMo 2, this norm has the name that other models give to the norm before a sublayer.
    """
    name = norm if twin.cfg.original_architecture == "Olmo2ForCausalLM" else f"{norm}_post"
    output_norm = getattr(twin.blocks[layer], name, None)
    if output_norm is None:
        return parts
    whole = sum(parts.values())
    with frozen(output_norm, whole):  # an RMSNorm: it adds no bias
        return {part: output_norm(whole) - output_norm(whole - vector) for part, vector in parts.items()}


@contextmanager
def frozen(norm: torch.nn.Module, at: torch.Tensor):
    """Freeze the norm's scale at its value for the input `at`."""
    if isinstance(norm, torch.nn.Identity):
        yield
        return
    scale = None

    def held(_module, _inputs, output: torch.Tensor) -> torch.Tensor:
        nonlocal scale
        scale = output if scale is None else scale
        return scale

    handle = norm.hook_scale.register_forward_hook(held)
    try:
        norm(at)
        yield
    finally:
        handle.remove()
