"""A trace of 4,096 tokens in 20 segments: maps from segment to segment, for all heads of a layer.

python -m tests.benchmarks.run segments
"""

from __future__ import annotations

from typing import Any

import torch

from tests.benchmarks.table import Row, side_by_side, spoken

POSITIONS, SEGMENTS, HEADS = 4096, 20, 9


def rows() -> list[Row]:
    """Return a row for each precision and weighting. Each is compared with one sum over the layer's patterns."""
    import residscope

    made: list[Row] = []
    for dtype in (torch.float32, torch.bfloat16):
        cache = trace(dtype)
        edges = [at * POSITIONS // SEGMENTS for at in range(SEGMENTS + 1)]
        ranges = [(f"part {at}", edges[at], edges[at + 1]) for at in range(SEGMENTS)]
        mask = torch.ones(1, POSITIONS, dtype=torch.long)
        segments = residscope.segments(cache, 0, ranges, attention_mask=mask)
        pattern = cache["blocks.0.attn.hook_pattern"]
        for weighting in ("pattern", "contribution"):

            def ours(cache: Any = cache, segments: Any = segments, mask: Any = mask, weighting: Any = weighting) -> Any:
                given = {"answers": (5, 6), "attention_mask": mask}
                heads = [(0, head) for head in range(HEADS)]
                return residscope.segment_attention(cache, segments, heads, weighting=weighting, **given)

            own, read = side_by_side(5, ours, lambda pattern=pattern: pattern.sum(dtype=torch.float32))
            kind = str(dtype).removeprefix("torch.")
            made.append(
                Row(
                    f"1 × {POSITIONS} in {SEGMENTS} segments, {HEADS} heads of a layer, {kind}, {weighting}",
                    "one sum over the patterns",
                    spoken(own),
                    spoken(read),
                    f"{spoken(own)}, {own / read:.1f} × one read",
                    "≤ 1 s",
                    own <= 1,
                )
            )
    return made


def trace(dtype: torch.dtype) -> Any:
    """Return a cache of one prompt and one layer. The model is random; the patterns are those of its run."""
    from transformer_lens.model_bridge import TransformerBridge

    settings = {"d_model": 144, "d_head": 16, "n_heads": HEADS, "n_layers": 1, "d_mlp": 40, "d_vocab": 64}
    model = TransformerBridge.boot_native({**settings, "n_ctx": POSITIONS, "seed": 0})
    torch.manual_seed(0)
    tokens = torch.randint(3, 64, (1, POSITIONS))
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=lambda name: "scores" not in name)
    held = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in cache.items()}
    return type(cache)(held, model)
